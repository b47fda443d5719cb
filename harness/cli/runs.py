"""Runs that are kept below the artifacts: list, show, remove."""

import argparse
from pathlib import Path

from harness.cli.options import add_action, add_artifacts
from harness.cli.words import progress, rounded
from harness.errors import UsageError
from harness.record.runs import StoredRun, broken_runs, find_run, remove_run, stored_runs
from harness.report.paragraph import describe_row
from harness.report.rows import read_rows
from harness.report.status import ALL_CONFORM, exit_status
from harness.report.tables import make_table, show


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    add_artifacts(add_action(actions, "list", list_runs, "list runs, the newest first: when, how many items ended how, the command"))
    show = add_action(actions, "show", show_run, "say who a run is, and of each item that did not pass why")
    show.add_argument("run", nargs="?", default="latest", metavar="ID", help="as 'runs list' prints it, or its beginning (default: latest)")
    add_artifacts(show)
    remove = add_action(actions, "remove", remove_runs, "remove runs")
    remove.add_argument("run", nargs="*", metavar="ID", help="as 'runs list' prints them")
    remove.add_argument("--all", action="store_true", help="every run that is over")
    add_artifacts(remove)


def list_runs(chosen: argparse.Namespace) -> int:
    found = stored_runs(chosen.artifacts)
    for problem in broken_runs(chosen.artifacts):
        progress(f"no run: {problem}")
    rows = ((run.identity.id, rounded(run.size_bytes), _ended(run), " ".join(run.identity.command)) for run in found)
    show(make_table(("run", "size", "ended", "command"), rows), f"{len(found)} runs in {chosen.artifacts}")
    return ALL_CONFORM


def _ended(run: StoredRun) -> str:
    counts = ", ".join(f"{count} {word}" for word, count in run.identity.items)
    if run.identity.ended is None:
        return "did not end" if run.identity.is_over else "has not ended"
    return f"exit status {run.identity.status}: {counts or 'no item'}"


def show_run(chosen: argparse.Namespace) -> int:
    """Return the status that the rows of the run ask for."""
    run = find_run(chosen.artifacts, chosen.run)
    who = run.identity
    rows = read_rows(run.folder)
    facts = (
        ("run", who.id),
        ("began", str(who.began)),
        ("ended", str(who.ended or _ended(run))),
        ("command", " ".join(who.command)),
        ("harness", who.commit or "no checkout"),
        ("catalogue", who.catalog),
        ("kernels", ", ".join(who.kernels)),
        ("folder", str(run.folder)),
    )
    told = [describe_row(row) for row in rows if not row.passed]
    show(make_table(("", ""), facts), *told, f"{sum(row.passed for row in rows)} of {len(rows)} items conform")
    return exit_status(rows)


def remove_runs(chosen: argparse.Namespace) -> int:
    artifacts: Path = chosen.artifacts
    found = (
        [run for run in stored_runs(artifacts) if run.identity.is_over and not run.goes_on]
        if chosen.all
        else [find_run(artifacts, run) for run in chosen.run]
    )
    if not found and not chosen.all:
        raise UsageError("name the runs to remove ('runs list' prints them), or give --all")
    for run in found:
        remove_run(artifacts, run)
        progress(f"removed {run.identity.id}")
    return ALL_CONFORM
