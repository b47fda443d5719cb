"""What the items of a run showed of the ways that bytes take, as columns of a table (``facts/watch.tsv``)."""

from collections.abc import Iterable, Iterator

from harness.model.stack import MAIN
from harness.model.watch import find_carried
from harness.record.item import Ending, Record
from harness.report.columns import Column, Told, gather_columns, subject_of


def make_columns(records: Iterable[Record], measured: str) -> list[Column]:
    """Return a column for each kernel, with a line for each way and storage; where items showed different things, all of them."""
    return gather_columns((told for record in records for told in told_ways(record)), measured)


def told_ways(record: Record) -> Iterator[Told]:
    """Yield what an item told of the ways that it watches."""
    if record.observations is None or record.outcome.ending is not Ending.COMPLETED:
        return
    for watch in record.item.watches:
        carried = find_carried(watch, record.observations)
        if carried is not None:
            line = f"{watch.path}[{record.reading.volume(MAIN).storage}]"
            yield Told(record.item.where.target.column, record.reading.kernel_release, line, carried)


def split_line(line: str) -> tuple[str, str]:
    """Return the way and the storage of which a line of the table tells."""
    path = subject_of(line)
    return path, line[len(path) + 1 : -1]
