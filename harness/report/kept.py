"""The items of a run that is kept, judged again: what a page is made of."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from harness.record.item import Where
from harness.record.judged import Result, judge_kept
from harness.record.runs import StoredRun
from harness.record.store import find_records
from harness.report.rows import Row, make_row, read_rows


@dataclass(frozen=True)
class Kept:
    """One item of the run ``run``; ``result`` is None where its program was never begun, or nothing is kept of it but its row."""

    run: str
    row: Row
    result: Result | None

    @property
    def kernel(self) -> str:
        """The column that it belongs to: its kernel, with what was added to the command line."""
        target = self.row.where.target
        return target.column + (f" with {target.arguments}" if target.arguments else "")

    @property
    def key(self) -> tuple[str, str]:
        """What it is called on every kernel, and the kernel."""
        return self.row.where.name_without_kernel, self.kernel


def kept_items(run: StoredRun) -> Iterator[Kept]:
    """Yield the items of a run: each that was begun as the model judges it today, the others as the run told of them. Raises UsageError."""
    begun = set()
    for folder in find_records(run.folder):
        result = judge_kept(folder)
        begun.add(_identity(result.record.item.where))
        yield Kept(run.identity.id, make_row(result, folder), _without_states(result))
    for row in read_rows(run.folder):
        if _identity(row.where) not in begun:
            yield Kept(run.identity.id, row, None)


def _without_states(result: Result) -> Result:
    """Return a result without the states in which its program may have ended: thousands of items are held at once."""
    judgement = result.judgement
    return result if judgement is None else replace(result, judgement=replace(judgement, finals=()))


def _identity(where: Where) -> tuple[str, str]:
    return where.path, where.place
