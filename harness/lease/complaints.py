"""Which of the kernel's complaints count: those that neither the project's own list nor the cases' says are to be expected."""

from collections.abc import Iterable, Sequence
from datetime import date

from harness.model.complaint import Report, ReportKind, find_report, without_stamp
from harness.model.known import EXPECTED_LINES, ExpectedLine, find_expected

CRASHES = frozenset({ReportKind.PANIC, ReportKind.OOPS, ReportKind.BUG, ReportKind.GENERAL_PROTECTION})
#: What taints the kernel by itself.
TAINTING = CRASHES | {ReportKind.WARNING, ReportKind.SOFT_LOCKUP, ReportKind.HARD_LOCKUP}
HANGS = frozenset({ReportKind.HUNG_TASK, ReportKind.SOFT_LOCKUP, ReportKind.HARD_LOCKUP, ReportKind.RCU_STALL})

#: Pairs of a line that looks like a complaint and the reason why it is none.
Excused = tuple[tuple[str, str], ...]


def split_expected(
    reports: Iterable[Report], release: str, stack: str, expected: Sequence[ExpectedLine]
) -> tuple[tuple[Report, ...], Excused]:
    """Return the complaints that count on kernel ``release`` and ``stack`` (in words), and the lines that do not, with their reasons.

    ``expected``: the cases' own entries; those of the project apply as well. A crash or a hang is never expected.
    """
    today = date.today().isoformat()
    kept: list[Report] = []
    excused: list[tuple[str, str]] = []
    for report in reports:
        entries = () if report.kind in CRASHES | HANGS else (*EXPECTED_LINES, *expected)
        entry = find_expected(report.line, release, today, entries, stack)
        if entry is None:
            kept.append(report)
        else:
            excused.append((report.line, entry.reason))
    return tuple(kept), tuple(excused)


def without_stamps(excused: Excused) -> Excused:
    """Return each line once and without its time: what set-ups print alike is then one line in a summary."""
    return tuple(dict.fromkeys((without_stamp(line), reason) for line, reason in excused))


def reports_of(lines: Iterable[str]) -> tuple[Report, ...]:
    """Return the reports that stored console lines are; what they were, they still are."""
    return tuple(Report(find_report(line) or ReportKind.WARNING, line, 0) for line in lines)
