"""What an item came to, in the few words that other forms have."""

from enum import StrEnum

from harness.model.known import Known
from harness.model.verdict import Verdict
from harness.record.item import Ending
from harness.report.rows import Row
from harness.report.summary import ended_as


class Outcome(StrEnum):
    """``KNOWN``: all that is wrong is a deviation on the list. ``FAILED``: the kernel, by its verdict, its complaint or its end.

    ``UNDETERMINED``: the model cannot tell. ``BROKEN``: it should have run and did not, which says nothing of the kernel.
    ``FLAKY``: it did not come to the same each time. ``UNAVAILABLE``: it cannot run on this kernel.
    """

    PASSED = "passed"
    KNOWN = "known"
    FAILED = "failed"
    FLAKY = "flaky"
    UNDETERMINED = "undetermined"
    BROKEN = "broken"
    UNAVAILABLE = "unavailable"


def outcome_of(row: Row) -> Outcome:
    """Return what an item came to."""
    if row.passed:
        return Outcome.PASSED
    if row.is_flaky:
        return Outcome.FLAKY
    if row.is_known_deviation:
        return Outcome.KNOWN
    ending = row.ended.ending
    if ending is Ending.UNAVAILABLE:
        return Outcome.UNAVAILABLE
    if ending.says_nothing:
        return Outcome.BROKEN
    if ending is not Ending.COMPLETED or row.ended.messages or row.judged is None:
        return Outcome.FAILED
    doubtful = row.judged.verdict is Verdict.UNDETERMINED and row.judged.known is Known.NO
    return Outcome.UNDETERMINED if doubtful else Outcome.FAILED


def reason_of_outcome(row: Row) -> str:
    """Return one line that says why an item did not pass: the reference of a known deviation, else how it ended."""
    if row.judged is not None and row.is_known_deviation:
        return row.judged.reference
    why = row.ended.note.partition("\n")[0]
    return ended_as(row) + (f": {why}" if why else "")
