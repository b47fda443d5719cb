"""Items that nobody tries any more, because what they need has failed before: each is counted, and none is set up."""

import pytest
from _pytest.runner import runtestprotocol

from harness.errors import HarnessError
from harness.lease.ledger import Refusal
from harness.plugin.collect import PLACE, CaseItem
from harness.plugin.fixtures import find_place, item_of
from harness.plugin.options import POOL
from harness.plugin.outcome import keep_row, tell
from harness.record.item import Ending, Item
from harness.report.rows import make_unset_row

_REFUSAL = pytest.StashKey[Refusal]()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Report an item that is not tried. It is never announced: pytest would begin a line for each, with the name of its file."""
    place = item.stash.get(PLACE, None)
    if place is None or item.get_closest_marker("skip") is not None:
        return None
    kernel, lifecycle, stack = place
    try:
        refusal = item.config.stash[POOL].find_refusal(stack, kernel, lifecycle)
    except (HarnessError, OSError):  # nobody can say: then it is tried, and whatever is the matter is told of this item
        return None
    if refusal is None:
        return None
    item.stash[_REFUSAL] = refusal
    for report in runtestprotocol(item, log=False, nextitem=nextitem):
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    refusal = item.stash.get(_REFUSAL, None)
    if refusal is not None:
        keep_row(item, make_unset_row(_asked(item), Ending.NOT_TRIED, refusal.reason, logs=refusal.logs))
        tell(item, refusal.told)
        pytest.fail(f"{Ending.NOT_TRIED}: {refusal.reason}", pytrace=False)


def _asked(item: pytest.Item) -> Item:
    if isinstance(item, CaseItem):
        return item.item
    place = find_place(item)
    assert place is not None
    return item_of(item, place)
