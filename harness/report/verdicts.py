"""What every item came to on every kernel, kept as one table that can be looked up without a guest (``facts/verdicts.tsv``)."""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UsageError
from harness.model.fact import kernel_of
from harness.record.item import Ending
from harness.report.rows import Row
from harness.report.summary import ended_as

#: Its file in a folder of fact tables.
FILE = "verdicts.tsv"
_HEADS = ("kernel", "release", "measured")
_BETWEEN = ", "


@dataclass(frozen=True)
class Column:
    """What the items came to on one kernel. ``releases``: of its flavours; ``measured``: the day of the last run; ``verdicts``: by item."""

    kernel: str
    releases: tuple[str, ...]
    measured: str
    verdicts: Mapping[str, str]

    @property
    def age(self) -> tuple[int, int, str]:
        """By this the oldest kernel comes first."""
        version = kernel_of(self.releases[0])
        return version.major, version.minor, self.kernel

    @property
    def counts(self) -> Counter[str]:
        return Counter(self.verdicts.values())


def make_columns(rows: Iterable[Row], measured: str) -> list[Column]:
    """Return a column for each kernel of a run. An item that says nothing of the kernel is not in it."""
    told: dict[str, dict[str, str]] = {}
    releases: dict[str, set[str]] = {}
    for row in rows:
        if row.ended.ending.says_nothing:
            continue
        told.setdefault(row.where.target.column, {})[row.where.name_without_kernel] = ended_as(row)
        if row.guest is not None:
            releases.setdefault(row.where.target.column, set()).add(row.guest.release)
    return [Column(kernel, tuple(sorted(here)), measured, told[kernel]) for kernel, here in releases.items()]


def add_column(table: Sequence[Column], new: Column) -> list[Column]:
    """Return the table with a column: it adds to what is known of the same release, and is put in the place of any other one's.

    That an item was unavailable in one run takes nothing back of what another one showed.
    """
    former = next((column for column in table if column.kernel == new.kernel), None)
    if former is not None and set(former.releases) & set(new.releases):
        releases = tuple(sorted({*former.releases, *new.releases}))
        shown = {item: word for item, word in new.verdicts.items() if word != Ending.UNAVAILABLE or item not in former.verdicts}
        new = Column(new.kernel, releases, new.measured, {**former.verdicts, **shown})
    return sorted([*(column for column in table if column is not former), new], key=lambda column: column.age)


def without_cases(table: Iterable[Column], is_gone: Iterable[str]) -> list[Column]:
    """Return the table without the items of cases (``FAMILY/NAME``) that are no more."""
    gone = set(is_gone)
    return [
        Column(one.kernel, one.releases, one.measured, {item: word for item, word in one.verdicts.items() if case_of(item) not in gone})
        for one in table
    ]


def case_of(item: str) -> str:
    """Return ``FAMILY/NAME`` of ``FAMILY/NAME[VARIANT]``."""
    return item.partition("[")[0]


def items_of(table: Iterable[Column]) -> list[str]:
    return sorted({item for column in table for item in column.verdicts})


def differing(table: Sequence[Column]) -> list[str]:
    """Return the items that did not come to the same on all kernels on which they were run."""
    return [item for item in items_of(table) if len({one.verdicts[item] for one in table if item in one.verdicts}) > 1]


def write_verdicts(folder: Path, table: Sequence[Column]) -> Path:
    """Write the table, a line an item, and return its path. Fields are separated by tabs; an empty one: not run there."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter="\t", lineterminator="\n").writerows(_lines(table))
    return path


def _lines(table: Sequence[Column]) -> Iterator[list[str]]:
    for head, words in zip(_HEADS, zip(*((c.kernel, _BETWEEN.join(c.releases), c.measured) for c in table), strict=True), strict=True):
        yield [head, *words]
    for item in items_of(table):
        yield [item, *(column.verdicts.get(item, "") for column in table)]


def read_verdicts(folder: Path) -> list[Column]:
    """Return the table that a folder keeps; empty where it has none. Raises UsageError naming file, line and what is wrong there."""
    path = folder / FILE
    if not path.exists():
        return []
    with path.open(newline="") as file:
        lines = list(csv.reader(file, delimiter="\t"))
    if tuple(line[0] if line else "" for line in lines[: len(_HEADS)]) != _HEADS:
        raise UsageError(f"{path}: the first lines are not those of a table of verdicts ({', '.join(_HEADS)})")
    for number, line in enumerate(lines, 1):
        if len(line) != len(lines[0]):
            raise UsageError(f"{path}:{number}: {len(line)} fields, not {len(lines[0])}")
    kernels, releases, measured = (line[1:] for line in lines[: len(_HEADS)])
    for at, release in enumerate(releases):
        try:
            kernel_of(release)
        except ValueError as error:
            raise UsageError(f"{path}:2: {kernels[at]}: {error}") from error
    items = lines[len(_HEADS) :]
    return [
        Column(kernel, tuple(releases[at].split(_BETWEEN)), measured[at], {line[0]: line[at + 1] for line in items if line[at + 1]})
        for at, kernel in enumerate(kernels)
    ]
