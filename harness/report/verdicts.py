"""What the items of a run came to on each of its kernels, as columns of a table (``facts/verdicts.tsv``)."""

from collections.abc import Iterable, Iterator

from harness.report.columns import Column, Told, gather_columns
from harness.report.rows import Row
from harness.report.summary import ended_as


def make_columns(rows: Iterable[Row], measured: str) -> list[Column]:
    """Return a column for each kernel of a run. An item that says nothing of the kernel is not in it."""
    return gather_columns(_told(rows), measured)


def _told(rows: Iterable[Row]) -> Iterator[Told]:
    for row in rows:
        if not row.ended.ending.says_nothing:
            release = row.guest.release if row.guest is not None else ""
            yield Told(row.where.target.column, release, row.where.name_without_kernel, ended_as(row))
