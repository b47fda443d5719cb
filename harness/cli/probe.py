"""The facts of a kernel, measured on guests and kept as a table that can be looked up without one."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.cli.folders import item_folders
from harness.cli.options import add_artifacts
from harness.cli.suite import has_run, run_suite
from harness.cli.words import alternatives, progress
from harness.errors import UsageError
from harness.record.facttable import Difference, FactTable, compare, compare_with_model, make_tables, read_table, read_tables, write_table
from harness.record.runs import StoredRun, find_run
from harness.record.store import load_record
from harness.report.status import ALL_CONFORM, COULD_NOT_RUN, SOME_DEVIATE
from harness.report.tables import Part, make_table, show

#: An NVDIMM in fsdax mode shows what an e820 region shows, so every kind of storage is there once.
LEFT_OUT = "nvdimm-fsdax-*"
_SELECTION = ("-m", "probe", "--reuse-guests", "--not-stack", LEFT_OUT)
#: What is written where a kernel that was measured before shows something else.
CHANGES = "CHANGES.md"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--kernel",
        action="append",
        default=[],
        metavar="NAME|PATH",
        help="a kernel of images/kernels.yaml, or your own bzImage, vmlinux or build tree; repeatable (default: the one that file names)",
    )
    parser.add_argument("-n", dest="workers", default="2", metavar="N", help="how many guests at once, as pytest's option (default: 2)")
    parser.add_argument("--facts", type=Path, default=Path("facts"), metavar="DIR", help="where tables are kept (default: facts)")
    parser.add_argument("--cases", type=Path, default=Path("cases"), metavar="DIR", help="where the cases are (default: cases)")
    parser.add_argument("--full", action="store_true", help="also the stacks that few cases share (layers, formats), for longer")
    parser.add_argument(
        "--from",
        dest="runs",
        action="append",
        default=[],
        metavar="RUN",
        help="run nothing: measure the items of a run that is kept ('runs list' prints them), of all kernels that it had; repeatable",
    )
    add_artifacts(parser)
    parser.set_defaults(command=run)


def run(chosen: argparse.Namespace) -> int:
    if chosen.runs and (chosen.kernel or chosen.full):
        raise UsageError("--from runs nothing: --kernel and --full say what is run")
    if chosen.runs:
        return keep_tables(chosen.facts, [find_run(chosen.artifacts, name) for name in chosen.runs], ALL_CONFORM)
    options = [*(["--full"] if chosen.full else []), *(word for kernel in chosen.kernel for word in ("--kernel", kernel))]
    status, kept = run_suite([str(chosen.cases), *_SELECTION, "-n", chosen.workers, "-q", *options], chosen.artifacts)
    if kept is None or not has_run(status):
        progress("not every item could run, so nothing was measured")
        return status or COULD_NOT_RUN
    return keep_tables(chosen.facts, [kept], status)


def keep_tables(folder: Path, runs: Sequence[StoredRun], status: int) -> int:
    """Write the tables of what ``runs`` show into ``folder``, and tell what is new; return the exit status. ``status``: of the suite."""
    records = map(load_record, item_folders([run.folder for run in runs]))
    measured = f"{max(run.identity.began for run in runs):%Y-%m-%d}"
    differs = False
    for table in make_tables(records, measured):
        former = folder / f"{table.kernel}.json"
        changes = compare(read_table(former), table) if former.exists() else None
        log_changes(folder, table, changes or [])
        path = write_table(folder, table)
        show(*told(table, changes, read_tables(folder)), f"{len(table.facts)} readings: {path}")
        differs = differs or bool(compare_with_model(table))
    return SOME_DEVIATE if differs or status == SOME_DEVIATE else ALL_CONFORM


def told(table: FactTable, changes: list[Difference] | None, tables: list[FactTable]) -> Iterator[Part]:
    """Yield what differs from the kernel's former table (None: it had none), from the model's, and from its neighbours."""
    names = [other.kernel for other in tables]
    at = names.index(table.kernel)
    if changes is not None:
        yield from differences("its former table", table.kernel, changes)
    yield from differences("the model", table.kernel, compare_with_model(table))
    for other in tables[max(at - 1, 0) : at]:
        yield from differences(other.kernel, table.kernel, compare(other, table))
    for other in tables[at + 1 : at + 2]:
        yield from differences(table.kernel, other.kernel, compare(table, other))


def differences(before: str, after: str, found: list[Difference]) -> Iterator[Part]:
    """Yield a table of what differs between two, or a line that nothing does."""
    if not found:
        yield f"{before} and {after}: no difference"
        return
    rows = ((one.fact, one.storage, alternatives(one.before), alternatives(one.after)) for one in found)
    yield make_table(("fact", "storage", before, after), rows)


def log_changes(folder: Path, table: FactTable, changes: list[Difference]) -> None:
    """Add what changed in a kernel's table to the log of changes beside it, in the order of time."""
    if not changes:
        return
    lines = [f"- {one.storage}: {one.fact} is {alternatives(one.after)}, was {alternatives(one.before)}" for one in changes]
    with (folder / CHANGES).open("a") as file:
        file.write("\n".join([f"\n## {table.measured} {table.kernel} ({', '.join(table.releases)})\n", *lines]) + "\n")
