"""What the items of a run showed of the ways that bytes take, as columns of a table (``facts/watch.tsv``)."""

from collections.abc import Iterable

from harness.model.stack import MAIN
from harness.model.watch import find_carried
from harness.record.item import Ending, Record
from harness.report.columns import Column, subject_of


def make_columns(records: Iterable[Record], measured: str) -> list[Column]:
    """Return a column for each kernel, with a line for each way and storage; where items showed different things, all of them."""
    told: dict[str, dict[str, set[str]]] = {}
    releases: dict[str, set[str]] = {}
    for record in records:
        if record.observations is None or record.outcome.ending is not Ending.COMPLETED:
            continue
        kernel = record.item.where.target.column
        for watch in record.item.watches:
            carried = find_carried(watch, record.observations)
            if carried is not None:
                line = f"{watch.path}[{record.reading.volume(MAIN).storage}]"
                told.setdefault(kernel, {}).setdefault(line, set()).add(carried)
                releases.setdefault(kernel, set()).add(record.reading.kernel_release)
    return [
        Column(kernel, tuple(sorted(releases[kernel])), measured, {line: " or ".join(sorted(words)) for line, words in lines.items()})
        for kernel, lines in told.items()
    ]


def split_line(line: str) -> tuple[str, str]:
    """Return the way and the storage of which a line of the table tells."""
    path = subject_of(line)
    return path, line[len(path) + 1 : -1]
