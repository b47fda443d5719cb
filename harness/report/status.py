"""The exit status of a run, and of every command."""

from collections.abc import Iterable

from harness.record.item import Ending
from harness.report.rows import Row

ALL_CONFORM, SOME_DEVIATE, WRONG_USAGE, COULD_NOT_RUN = 0, 1, 2, 3


def exit_status(rows: Iterable[Row]) -> int:
    """Return 3 where something could not run, else 1 where something did not conform, else 0.

    An item that its kernel cannot run at all does not count; where there is nothing else, nothing was tested: 2.
    """
    counted = [row for row in rows if row.ended.ending is not Ending.UNAVAILABLE]
    if not counted:
        return WRONG_USAGE
    if any(row.ended.ending.says_nothing for row in counted):
        return COULD_NOT_RUN
    return ALL_CONFORM if all(row.passed or row.is_known_deviation for row in counted) else SOME_DEVIATE
