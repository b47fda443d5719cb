"""What the items of a run came to on each of its kernels, as columns of a table (``facts/verdicts.tsv``)."""

from collections.abc import Iterable

from harness.report.columns import Column
from harness.report.rows import Row
from harness.report.summary import ended_as


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
