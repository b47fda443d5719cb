"""What the items came to on each kernel: looked up without a guest, and added to from runs that are kept."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.cli.options import add_artifacts
from harness.cli.words import progress
from harness.errors import UsageError
from harness.record.facttable import FACTS_DIR
from harness.record.runs import find_run
from harness.report.columns import Column, add_column, differing, lines_of, read_columns, subject_of, without_subjects, write_columns
from harness.report.rows import read_rows
from harness.report.status import ALL_CONFORM
from harness.report.tables import Part, make_table, show
from harness.report.verdicts import make_columns

#: Its file in a folder of fact tables.
FILE = "verdicts.tsv"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("item", nargs="?", help="show the items whose name contains this (default: those that kernels differ in)")
    parser.add_argument(
        "--add", action="append", default=[], metavar="RUN", help="add what a run showed ('runs list' prints them); repeatable"
    )
    parser.add_argument("--facts", type=Path, default=FACTS_DIR, metavar="DIR", help="where the table is kept (default: the project's)")
    parser.add_argument("--cases", type=Path, default=Path("cases"), metavar="DIR", help="where the cases are (default: cases)")
    add_artifacts(parser)
    parser.set_defaults(command=run)


def run(chosen: argparse.Namespace) -> int:
    table = read_columns(chosen.facts / FILE)
    for wanted in chosen.add:
        table = _added(chosen, table, wanted)
    if chosen.add:
        write_columns(chosen.facts / FILE, table)
        progress(f"written: {chosen.facts / FILE}")
    if not table:
        raise UsageError(f"no table of verdicts in {chosen.facts}: python -m harness verdicts --add RUN makes one")
    found = differing(table) if chosen.item is None else [item for item in lines_of(table) if chosen.item in item]
    if chosen.item is not None and not found:
        raise UsageError(f"no item of the table has {chosen.item!r} in its name")
    show(*_parts(table, found, chosen.item is None))
    return ALL_CONFORM


def _added(chosen: argparse.Namespace, table: list[Column], wanted: str) -> list[Column]:
    stored = find_run(chosen.artifacts, wanted)
    columns = make_columns(read_rows(stored.folder), f"{stored.identity.began:%Y-%m-%d}")
    if not columns:
        raise UsageError(f"run {stored.identity.id} has no item that says something of a kernel")
    for column in columns:
        table = add_column(table, column)
    cases = {subject_of(item) for item in lines_of(table)}
    return without_subjects(table, [case for case in cases if not any(chosen.cases.glob(f"{case}.*"))])


def _parts(table: Sequence[Column], items: Sequence[str], only_different: bool) -> Iterator[Part]:
    words = sorted({word for column in table for word in column.counts})
    counts = (
        (one.kernel, "\n".join(one.releases), one.measured, str(len(one.words)), *(str(one.counts[word] or "") for word in words))
        for one in table
    )
    yield make_table(("kernel", "release", "measured", "items", *words), counts)
    yield ""
    if items:
        rows = ((item, *(column.words.get(item, "-") for column in table)) for item in items)
        yield make_table(("item", *(column.kernel for column in table)), rows)
    if only_different:
        yield f"{len(items)} of {len(lines_of(table))} items did not come to the same on all kernels on which they were run"
