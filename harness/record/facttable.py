"""Tables of measured facts: what the guests of a kernel showed, kept as files that can be looked up without a guest (``facts/``)."""

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UsageError
from harness.model.fact import Kernel, Value, kernel_of
from harness.model.facts import FACTS, Env
from harness.model.stack import StackReading
from harness.record.documents import read_text, to_document, typed
from harness.record.item import Record
from harness.record.measure import Measurement, measure, reading_of
from harness.record.mutants import recorded

FORMAT = 1
#: Where the project keeps its own.
FACTS_DIR = Path(__file__).resolve().parents[2] / "facts"
#: The last minor of a series, behind which the next one begins.
_LAST_MINORS = {4: 20, 5: 19, 6: 19}


@dataclass(frozen=True)
class Shown:
    """The ``values`` that ``items`` items leave to a fact on one kind of storage: one, or several that nothing told apart."""

    fact: str
    storage: str
    values: tuple[Value, ...]
    items: int


@dataclass(frozen=True)
class FactTable:
    """What was measured of a kernel. ``releases``: of its flavours; ``packages``: name and exact version; ``measured``: a date."""

    kernel: str
    releases: tuple[str, ...]
    packages: tuple[tuple[str, str], ...]
    measured: str
    facts: tuple[Shown, ...]

    @property
    def version(self) -> Kernel:
        return kernel_of(self.releases[0])

    @property
    def values(self) -> Mapping[tuple[str, str], tuple[Value, ...]]:
        """The values by fact and storage."""
        return {(shown.fact, shown.storage): shown.values for shown in self.facts}

    @property
    def measured_values(self) -> Mapping[tuple[str, str], Value]:
        """What is settled of them, as the model takes it (:class:`harness.model.facts.Env`)."""
        return {key: values[0] for key, values in self.values.items() if len(values) == 1}

    @property
    def storages(self) -> tuple[str, ...]:
        return tuple(sorted({shown.storage for shown in self.facts}))


@dataclass(frozen=True)
class Difference:
    """A fact on one kind of ``storage`` (empty: the two are storages) that two have different values of."""

    fact: str
    storage: str
    before: tuple[Value, ...]
    after: tuple[Value, ...]


def make_tables(records: Iterable[Record], measured: str) -> list[FactTable]:
    """Return a table for each kernel that stored items ran on, flavours with the kernel that they are of.

    Raises UsageError where items contradict each other: no value of the fact makes the model agree with all of them.
    """
    kernels: dict[str, list[Record]] = {}
    for record in records:
        kernels.setdefault(record.item.where.target.column, []).append(record)
    return [_table(kernel, items, measured) for kernel, items in sorted(kernels.items())]


def _table(kernel: str, records: Sequence[Record], measured: str) -> FactTable:
    found = measure(run for run in map(recorded, records) if run is not None)
    for m in found:
        if m.shown == ():
            raise UsageError(f"{m.fact} on {m.storage}, Linux {m.release}: no value agrees with all of {', '.join(m.items)}")
    # What stands for the kernel comes before its other flavours.
    base = {record.reading.kernel_release for record in records if record.item.where.target.kernel == kernel}
    releases = sorted({record.reading.kernel_release for record in records}, key=lambda release: (release not in base, release))
    packages = {pair for record in records for pair in record.outcome.guest.versions if pair[0].startswith("linux-")}
    return FactTable(kernel, tuple(releases), tuple(sorted(packages)), measured, tuple(_shown(found, releases)))


def _shown(found: Sequence[Measurement], releases: Sequence[str]) -> Iterator[Shown]:
    """Of several flavours the first that shows a fact on a storage speaks for the kernel."""
    for fact, storage in sorted({(m.fact, m.storage) for m in found}):
        here = sorted((m for m in found if (m.fact, m.storage) == (fact, storage)), key=lambda m: releases.index(m.release))
        first = next((m for m in here if m.shown), None)
        if first is not None and first.shown:
            yield Shown(fact, storage, first.shown, len(first.items))


def write_table(folder: Path, table: FactTable) -> Path:
    """Write a table as ``KERNEL.json``, a fact a line, and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{table.kernel}.json"
    document = {"format": FORMAT, **to_document(table)}
    rows = ",\n".join(f"  {json.dumps(row)}" for row in document.pop("facts"))
    head = "".join(f" {json.dumps(key)}: {json.dumps(value)},\n" for key, value in document.items())
    path.write_text(f'{{\n{head} "facts": [\n{rows}\n ]\n}}\n')
    return path


def read_table(path: Path) -> FactTable:
    """Return the table in a file. Raises UsageError, which names the file and what is wrong with it."""
    table = typed(FactTable, read_text(path, "fact tables"), FORMAT, str(path))
    try:
        kernel_of(next(iter(table.releases), ""))
    except ValueError as error:
        raise UsageError(f"{path}: releases: {error}") from error
    if unknown := sorted({shown.fact for shown in table.facts} - FACTS.keys()):
        raise UsageError(f"{path}: the model has no fact {unknown[0]!r}: measure the kernel again (python -m harness probe)")
    return table


def read_tables(folder: Path = FACTS_DIR) -> list[FactTable]:
    """Return all tables of a folder, the oldest kernel first. Raises UsageError."""
    found = [read_table(path) for path in sorted(folder.glob("*.json")) if path.name != "schema.json"]
    return sorted(found, key=lambda table: (table.version.age, table.kernel))


def find_table(folder: Path, kernel: str) -> FactTable | None:
    """Return the table of a kernel, or None where the folder has none. Raises UsageError."""
    path = folder / f"{kernel}.json"
    return read_table(path) if path.exists() else None


def compare(before: FactTable, after: FactTable) -> list[Difference]:
    """Return where both tables show something and no value is common, by fact and storage."""
    left, right = before.values, after.values
    return [Difference(*key, left[key], right[key]) for key in sorted(left.keys() & right.keys()) if not set(left[key]) & set(right[key])]


def compare_storages(table: FactTable, before: str, after: str) -> list[Difference]:
    """Return the facts that differ between two storages of a kernel. Raises UsageError that names those that were measured."""
    for storage in (before, after):
        if storage not in table.storages:
            raise UsageError(f"{table.kernel} was not measured on {storage!r}; it was on: {', '.join(table.storages)}")
    values = table.values
    facts = sorted({shown.fact for shown in table.facts})
    pairs = ((fact, values.get((fact, before)), values.get((fact, after))) for fact in facts)
    return [Difference(fact, "", a, b) for fact, a, b in pairs if a and b and not set(a) & set(b)]


def compare_with_model(table: FactTable) -> list[Difference]:
    """Return where the model's table of facts has a value (``before``) that the measured one does not allow."""
    pairs = ((shown, expected_value(shown.fact, shown.storage, table.releases[0])) for shown in table.facts)
    return [Difference(shown.fact, shown.storage, (value,), shown.values) for shown, value in pairs if value not in shown.values]


def expected_value(fact: str, storage: str, release: str) -> Value:
    """Return what the model's table says of a fact on a kind of storage."""
    volume = reading_of(storage)
    return Env(StackReading(release, (volume,))).fact(fact, volume.role)


@dataclass(frozen=True)
class Transition:
    """From ``kernel`` on a fact has other ``values`` than on ``before``. ``exact``: no minor lies between the two."""

    before: str
    kernel: str
    values: tuple[Value, ...]
    exact: bool


@dataclass(frozen=True)
class History:
    """A fact on one kind of storage over the kernels: what the ``first`` that was measured shows, and where that changes.

    ``outliers``: kernels with a value that neither the one before nor the one behind them has, while these agree.
    """

    fact: str
    storage: str
    first: str
    values: tuple[Value, ...]
    transitions: tuple[Transition, ...]
    outliers: tuple[str, ...]


def histories(tables: Sequence[FactTable], fact: str | None = None) -> list[History]:
    """Return the history of each fact (or of one) on each storage, over tables with the oldest kernel first."""
    keys = sorted({(shown.fact, shown.storage) for table in tables for shown in table.facts if fact in (None, shown.fact)})
    return [_history(tables, *key) for key in keys]


def _history(tables: Sequence[FactTable], fact: str, storage: str) -> History:
    known = [(table, values) for table in tables if (values := table.values.get((fact, storage)))]
    transitions = [
        Transition(before.kernel, after.kernel, now, preceding(after.version) == before.version)
        for (before, then), (after, now) in itertools.pairwise(known)
        if not set(then) & set(now)
    ]
    outliers = [
        table.kernel
        for (_, left), (table, values), (_, right) in zip(known, known[1:], known[2:], strict=False)
        if not set(values) & set(left) and set(left) & set(right)
    ]
    return History(fact, storage, known[0][0].kernel, known[0][1], tuple(transitions), tuple(outliers))


def preceding(version: Kernel) -> Kernel | None:
    """Return the release of Linux before this one, None where that is not known."""
    if version.minor > 0:
        return Kernel(version.major, version.minor - 1)
    last = _LAST_MINORS.get(version.major - 1)
    return None if last is None else Kernel(version.major - 1, last)
