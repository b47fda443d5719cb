"""A page of what runs and tables told: one HTML file that needs no network."""

import argparse
import contextlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from harness.case.claims import CLAIMS_FILE, load_claims
from harness.cli import verdicts, watch
from harness.cli.options import add_artifacts
from harness.cli.words import cannot_write, progress, rounded
from harness.errors import UsageError
from harness.record.facttable import FACTS_DIR, read_tables
from harness.record.runs import LATEST, StoredRun, find_run
from harness.report.columns import read_columns
from harness.report.kept import Kept, kept_items
from harness.report.page import Sources, Tables, render_page
from harness.report.status import ALL_CONFORM

#: The file below the artifacts, unless another one is named.
FILE = "report.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Make one HTML file of runs that are kept and of the tables of facts: claims, facts and cases by kernel or by storage stack, each "
        "verdict with its program, what was observed and allowed, the clause and its source, and the line that runs it again. It needs no "
        "network and can be searched. Where several runs have the same item, the newest tells of it; what was observed is judged again."
    )
    parser.add_argument("run", nargs="*", metavar="RUN", help="a run as 'runs list' prints it, or its beginning (default: latest)")
    parser.add_argument(
        "--base", action="append", default=[], metavar="RUN", help="a run to hold the others against, item by item; repeatable"
    )
    parser.add_argument("-o", dest="output", type=Path, metavar="FILE", help=f"where to write it (default: {FILE} among the artifacts)")
    parser.add_argument("--facts", type=Path, default=FACTS_DIR, metavar="DIR", help="where tables are kept (default: the project's)")
    parser.add_argument("--cases", type=Path, default=Path("cases"), metavar="DIR", help="where the cases are (default: cases)")
    add_artifacts(parser)
    parser.set_defaults(command=run)


def run(chosen: argparse.Namespace) -> int:
    output = chosen.output or chosen.artifacts / FILE
    runs, base = _found(chosen.artifacts, chosen.run or [LATEST]), _found(chosen.artifacts, chosen.base)
    with _begun(output) as new:
        _finish(new, output, render_page(_sources(chosen, runs, base)))
    progress(f"written: {output} ({rounded(output.stat().st_size)})")
    return ALL_CONFORM


def _sources(chosen: argparse.Namespace, runs: Sequence[StoredRun], base: Sequence[StoredRun]) -> Sources:
    facts, claims = chosen.facts, chosen.cases / CLAIMS_FILE
    return Sources(
        runs=[one.identity for one in runs],
        items=_items(runs),
        base_runs=[one.identity for one in base],
        base_items=_items(base),
        tables=Tables(read_tables(facts), read_columns(facts / verdicts.FILE), read_columns(facts / watch.FILE)),
        claims=load_claims(claims) if claims.exists() else {},
        made=datetime.now(UTC),
    )


def _found(artifacts: Path, wanted: Sequence[str]) -> list[StoredRun]:
    """Return the runs that are asked for, each once, the oldest first. Raises UsageError."""
    found = {run.identity.id: run for run in (find_run(artifacts, word) for word in wanted)}
    return sorted(found.values(), key=lambda run: (run.identity.began, run.identity.id))


def _items(runs: Sequence[StoredRun]) -> list[Kept]:
    found = []
    for one in runs:
        progress(f"judging run {one.identity.id}")
        here = list(kept_items(one))
        if not here:
            raise UsageError(f"run {one.identity.id} has no item yet, so there is nothing to show of it")
        found += here
    return found


@contextlib.contextmanager
def _begun(path: Path) -> Iterator[Path]:
    """Give the file that is to take the place of ``path``; what does not becomes nothing.

    Raises HostError before anything is judged.
    """
    new = path.with_name(f"{path.name}.new")
    try:
        new.touch()
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        yield new
    finally:
        new.unlink(missing_ok=True)


def _finish(new: Path, path: Path, text: str) -> None:
    """Write the file as a whole: whoever reads sees the old or the new. Raises HostError."""
    try:
        new.write_text(text, encoding="utf-8")
        new.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from error
