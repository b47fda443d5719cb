"""The shards of a suite made into one run."""

import argparse
import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from harness.case.claims import claims_of
from harness.cli.options import add_artifacts
from harness.cli.words import cannot_write, progress
from harness.errors import UsageError
from harness.record.merge import copy_items, merged_identity, moved_folder
from harness.record.runs import KEPT_RUNS, LATEST, Identity, StoredRun, begin_run, find_run, make_run_id, run_folder, store_identity
from harness.report.durations import find_shard
from harness.report.rows import RESULTS, Row, read_rows, row_line
from harness.report.status import COULD_NOT_RUN, exit_status
from harness.report.summary import SUMMARY, ended_as, make_summary, summary_text
from harness.report.tables import lay_out


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shard", type=Path, nargs="+", metavar="DIR", help="the artifacts of a job, of which the latest run is meant")
    add_artifacts(parser)
    parser.set_defaults(command=run)


def run(chosen: argparse.Namespace) -> int:
    """Return the status that the rows of all shards ask for; 3 where a shard is missing."""
    runs, missing = _found(chosen.shard)
    id_ = make_run_id(secrets.token_hex(2))
    identity = merged_identity([one.identity for one in runs], id_)
    rows = list(_rows(runs, chosen.artifacts, id_))
    missing += _missing([one.identity for one in runs])
    status = COULD_NOT_RUN if missing else exit_status(rows)
    try:
        _write(runs, rows, chosen.artifacts, replace(identity, status=status, items=tuple(sorted(Counter(map(ended_as, rows)).items()))))
    except OSError as error:
        raise cannot_write(chosen.artifacts, error) from error
    sections = make_summary(rows, claims_of(Path(row.where.case) for row in rows))
    (run_folder(chosen.artifacts, id_) / SUMMARY).write_text(summary_text(sections, rows))
    for section in sections:
        print(f"== {section.title} ==", *lay_out(section.parts), sep="\n")
    progress(f"{len(runs)} runs are one now, {len(rows)} items: {run_folder(chosen.artifacts, id_)}")
    for line in missing:
        progress(line)
    return status


def _found(folders: Sequence[Path]) -> tuple[list[StoredRun], list[str]]:
    """Return the latest run of each folder, each once, and a line for each folder that has none. Raises UsageError where none has one."""
    runs: dict[str, StoredRun] = {}
    errors: list[UsageError] = []
    for folder in folders:
        try:
            found = find_run(folder, LATEST)
            runs[found.identity.id] = found
        except UsageError as error:
            errors.append(error)
    if not runs:
        raise errors[0]
    return list(runs.values()), list(map(str, errors))


def _rows(runs: Sequence[StoredRun], artifacts: Path, id_: str) -> Iterator[Row]:
    """Yield the rows of all runs, their folders where they will be. Raises UsageError for an item that two runs have."""
    owners: dict[str, str] = {}
    for one in runs:
        for row in read_rows(one.folder):
            owner = owners.setdefault(row.where.node_id, one.identity.id)
            if owner != one.identity.id:
                raise UsageError(f"runs {owner} and {one.identity.id} both have {row.where.node_id}: they are no shards of one suite")
            folder = moved_folder(row.ended.folder, one.identity, artifacts, id_)
            yield replace(row, ended=replace(row.ended, folder=folder))


def _missing(runs: Sequence[Identity]) -> Iterator[str]:
    """Yield a line for each shard that is not there, and for each run that did not come to its end."""
    there: dict[tuple[tuple[str, ...], int], set[int]] = {}
    for one in runs:
        shard = find_shard(one.command)
        if shard is not None:
            there.setdefault((one.kernels, shard[1]), set()).add(shard[0])
        if one.ended is None:
            yield f"run {one.id} did not end: {' '.join(one.command)}"
    for (kernels, shards), found in sorted(there.items()):
        for number in sorted(set(range(1, shards + 1)) - found):
            yield f"missing: shard {number}/{shards} of {', '.join(kernels)}"


def _write(runs: Sequence[StoredRun], rows: Sequence[Row], artifacts: Path, identity: Identity) -> None:
    into = run_folder(artifacts, identity.id)
    into.mkdir(parents=True)
    for one in runs:
        copy_items(one, into)
    (into / RESULTS).write_text("".join(map(row_line, rows)))
    begin_run(artifacts, identity, KEPT_RUNS)
    store_identity(artifacts, identity)
