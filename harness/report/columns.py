"""Tables with a line for each thing that was looked at and a column for each kernel, kept as files that need no guest (below ``facts/``).

A line is called ``SUBJECT[WHERE]``: of verdicts the subject is a case (``FAMILY/NAME``), of what splice makes of bytes a path of theirs.
"""

import csv
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from harness.errors import UsageError
from harness.model.fact import kernel_of
from harness.record.item import Ending

_HEADS = ("kernel", "release", "measured")
_BETWEEN = ", "


@dataclass(frozen=True)
class Column:
    """What one kernel showed. ``releases``: of its flavours; ``measured``: the day of the last run; ``words``: by line of the table."""

    kernel: str
    releases: tuple[str, ...]
    measured: str
    words: Mapping[str, str]

    @property
    def age(self) -> tuple[tuple[int, int], str]:
        """By this the oldest kernel comes first."""
        return kernel_of(self.releases[0]).age, self.kernel

    @property
    def counts(self) -> Counter[str]:
        return Counter(self.words.values())


class Told(NamedTuple):
    """What one item of a run told of a kernel: the ``word`` of a line. ``release``: empty where the item did not learn it."""

    kernel: str
    release: str
    line: str
    word: str


def gather_columns(told: Iterable[Told], measured: str) -> list[Column]:
    """Return a column for each kernel whose release was learned; a line of which different words were told has all of them."""
    words: dict[str, dict[str, set[str]]] = {}
    releases: dict[str, set[str]] = {}
    for one in told:
        words.setdefault(one.kernel, {}).setdefault(one.line, set()).add(one.word)
        if one.release:
            releases.setdefault(one.kernel, set()).add(one.release)
    return [
        Column(kernel, tuple(sorted(here)), measured, {line: " or ".join(sorted(several)) for line, several in words[kernel].items()})
        for kernel, here in releases.items()
    ]


def add_column(table: Sequence[Column], new: Column) -> list[Column]:
    """Return the table with a column: it adds to what is known of the same release, and is put in the place of any other one's.

    That something was unavailable in one run takes nothing back of what another one showed.
    """
    former = next((column for column in table if column.kernel == new.kernel), None)
    if former is not None and set(former.releases) & set(new.releases):
        releases = tuple(sorted({*former.releases, *new.releases}))
        shown = {line: word for line, word in new.words.items() if word != Ending.UNAVAILABLE or line not in former.words}
        new = Column(new.kernel, releases, new.measured, {**former.words, **shown})
    return sorted([*(column for column in table if column is not former), new], key=lambda column: column.age)


def without_subjects(table: Iterable[Column], gone: Container[str]) -> list[Column]:
    """Return the table without the lines of subjects that are no more."""
    return [replace(one, words={line: word for line, word in one.words.items() if subject_of(line) not in gone}) for one in table]


def subject_of(line: str) -> str:
    """Return ``SUBJECT`` of ``SUBJECT[WHERE]``."""
    return line.partition("[")[0]


def lines_of(table: Iterable[Column]) -> list[str]:
    return sorted({line for column in table for line in column.words})


def differing(table: Sequence[Column]) -> list[str]:
    """Return the lines that do not say the same of all kernels of which they say something."""
    return [line for line in lines_of(table) if len({one.words[line] for one in table if line in one.words}) > 1]


def write_columns(path: Path, table: Sequence[Column]) -> None:
    """Write the table, its fields separated by tabs; an empty one: nothing is known of that."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter="\t", lineterminator="\n").writerows(_rows(table))


def _rows(table: Sequence[Column]) -> Iterator[list[str]]:
    for head, words in zip(_HEADS, zip(*((c.kernel, _BETWEEN.join(c.releases), c.measured) for c in table), strict=True), strict=True):
        yield [head, *words]
    for line in lines_of(table):
        yield [line, *(column.words.get(line, "") for column in table)]


def read_columns(path: Path) -> list[Column]:
    """Return the table in a file; empty where there is none. Raises UsageError naming file, line and what is wrong there."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        rows = list(csv.reader(file, delimiter="\t"))
    if tuple(row[0] if row else "" for row in rows[: len(_HEADS)]) != _HEADS:
        raise UsageError(f"{path}: the first lines are not those of a table of kernels ({', '.join(_HEADS)})")
    for number, row in enumerate(rows, 1):
        if len(row) != len(rows[0]):
            raise UsageError(f"{path}:{number}: {len(row)} fields, not {len(rows[0])}")
    kernels, releases, measured = (row[1:] for row in rows[: len(_HEADS)])
    for at, release in enumerate(releases):
        try:
            kernel_of(release)
        except ValueError as error:
            raise UsageError(f"{path}:2: {kernels[at]}: {error}") from error
    told = rows[len(_HEADS) :]
    return [
        Column(kernel, tuple(releases[at].split(_BETWEEN)), measured[at], {row[0]: row[at + 1] for row in told if row[at + 1]})
        for at, kernel in enumerate(kernels)
    ]
