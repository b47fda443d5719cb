"""The model's facts, measured from stored observations."""

import argparse

from harness.cli.folders import recorded_runs
from harness.cli.options import add_run
from harness.record.measure import fact_lines, measure
from harness.report.status import ALL_CONFORM, SOME_DEVIATE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.set_defaults(command=run)


def run(chosen: argparse.Namespace) -> int:
    readings = measure(recorded_runs(chosen))
    for line in fact_lines(readings):
        print(line)
    return SOME_DEVIATE if any(reading.differs for reading in readings) else ALL_CONFORM
