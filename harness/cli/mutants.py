"""Which stored items notice a model with one thing turned around."""

import argparse
from pathlib import Path

from harness.cli.folders import recorded_runs
from harness.cli.options import add_run
from harness.cli.words import progress
from harness.record.mutants import smallest_cover, write_recorded
from harness.report.status import ALL_CONFORM, SOME_DEVIATE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument("--write", type=Path, metavar="FILE", help="keep the fewest items that catch every mutant (tests/recorded)")
    parser.set_defaults(command=run)


def run(chosen: argparse.Namespace) -> int:
    runs = recorded_runs(chosen)
    fewest, missed = smallest_cover(runs)
    print(f"{len(fewest)} of {len(runs)} items catch every mutant that any of them catches")
    for name in sorted(missed):
        print(f"asked and never caught: {name}")
    if chosen.write is not None:
        write_recorded(chosen.write, fewest)
        progress(f"wrote {chosen.write}")
    return SOME_DEVIATE if missed else ALL_CONFORM
