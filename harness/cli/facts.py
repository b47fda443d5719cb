"""The model's facts, measured from stored observations."""

import argparse
from collections.abc import Iterator, Sequence

from harness.cli.folders import recorded_runs
from harness.cli.options import add_run
from harness.record.measure import Measurement, measure
from harness.report.status import ALL_CONFORM, SOME_DEVIATE
from harness.report.tables import Part, make_table, show


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.set_defaults(command=run)


def run(chosen: argparse.Namespace) -> int:
    readings = measure(recorded_runs(chosen))
    show(*fact_parts(readings))
    return SOME_DEVIATE if any(reading.differs for reading in readings) else ALL_CONFORM


def fact_parts(readings: Sequence[Measurement]) -> Iterator[Part]:
    """Yield the table of what was measured, and what differs from the model's."""
    yield _table(readings)
    differing = [m for m in readings if m.differs]
    untold = sum(m.shown is None for m in readings)
    yield f"{len(readings)} readings, {len(differing)} differ from the model's table, {untold} are not told apart by any item here"
    for m in differing:
        yield f"differs: {m.fact} on {m.storage}, Linux {m.release}: the table says {m.expected}, shown by {', '.join(m.items[:3])}"


def _table(readings: Sequence[Measurement]) -> Part:
    """Fact and storage, and for each kernel what its guests show; where the model's table says otherwise, both."""
    releases = sorted({m.release for m in readings})
    cells = {(m.fact, m.storage, m.release): _cell(m) for m in readings}
    places = dict.fromkeys((m.fact, m.storage) for m in readings)
    rows = ((fact, storage, *(cells.get((fact, storage, release), "") for release in releases)) for fact, storage in places)
    return make_table(("fact", "storage", *releases), rows)


def _cell(measurement: Measurement) -> str:
    if measurement.shown is None:
        return f"({measurement.expected}: not shown)"
    shown = " or ".join(str(value) for value in measurement.shown) or "contradictory"
    return f"{shown} (table: {measurement.expected})" if measurement.differs else shown
