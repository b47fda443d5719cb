"""Splice watch: by path of the bytes, stack and kernel, is what was moved the page itself, so that later writes show in it, or a copy?"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.cli.folders import item_folders
from harness.cli.options import add_artifacts, add_kernel
from harness.cli.suite import has_run, run_suite
from harness.cli.words import progress
from harness.errors import UsageError
from harness.record.facttable import FACTS_DIR
from harness.record.runs import StoredRun, find_run
from harness.record.store import load_record
from harness.report.columns import Column, add_column, differing, lines_of, read_columns, write_columns
from harness.report.status import ALL_CONFORM, COULD_NOT_RUN
from harness.report.tables import Part, make_table, show
from harness.report.watch import make_columns, split_line

#: Its file in a folder of fact tables.
FILE = "watch.tsv"
_SELECTION = ("-m", "watch", "--reuse-guests", "--full")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", nargs="?", help="show the ways of bytes whose name contains this (default: all)")
    add_kernel(parser, repeatable=True)
    parser.add_argument("--add", action="append", default=[], metavar="RUN", help="add what a run showed that is kept; repeatable")
    parser.add_argument("-n", dest="workers", default="2", metavar="N", help="how many guests at once, as pytest's option (default: 2)")
    parser.add_argument("--facts", type=Path, default=FACTS_DIR, metavar="DIR", help="where the table is kept (default: the project's)")
    parser.add_argument("--cases", type=Path, default=Path("cases"), metavar="DIR", help="where the cases are (default: cases)")
    add_artifacts(parser)
    parser.set_defaults(command=run)


def run(chosen: argparse.Namespace) -> int:
    runs = [find_run(chosen.artifacts, wanted) for wanted in chosen.add]
    if chosen.kernel:
        kernels = [word for kernel in chosen.kernel for word in ("--kernel", kernel)]
        status, kept = run_suite([str(chosen.cases), *_SELECTION, "-n", chosen.workers, "-q", *kernels], chosen.artifacts)
        if kept is None or not has_run(status):
            progress("not every item could run, so nothing was added")
            return status or COULD_NOT_RUN
        runs.append(kept)
    path = chosen.facts / FILE
    table = read_columns(path)
    for stored in runs:
        table = _added(table, stored)
    if runs:
        write_columns(path, table)
        progress(f"written: {path}")
    if not table:
        raise UsageError(f"no table of ways of bytes in {chosen.facts}: python -m harness watch --kernel NAME makes one")
    lines = [line for line in lines_of(table) if (chosen.path or "") in line]
    if not lines:
        raise UsageError(f"no way of bytes has {chosen.path!r} in its name")
    show(*_parts(table, lines))
    return ALL_CONFORM


def _added(table: list[Column], stored: StoredRun) -> list[Column]:
    columns = make_columns(map(load_record, item_folders([stored.folder])), f"{stored.identity.began:%Y-%m-%d}")
    if not columns:
        raise UsageError(f"run {stored.identity.id} has no item that watches what is moved")
    for column in columns:
        table = add_column(table, column)
    return table


def _parts(table: Sequence[Column], lines: Sequence[str]) -> Iterator[Part]:
    """Yield a row for each way and what came of it on the kernels, with all storages on which it was that."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for line in lines:
        path, storage = split_line(line)
        rows.setdefault((path, *(column.words.get(line, "-") for column in table)), []).append(storage)
    heads = ("way of the bytes", "storage", *(column.kernel for column in table))
    yield make_table(heads, ((path, "\n".join(storages), *words) for (path, *words), storages in rows.items()))
    yield f"{len(set(differing(table)) & set(lines))} of {len(lines)} are not the same on all kernels"
