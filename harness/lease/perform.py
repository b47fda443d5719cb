"""Running an item on a leased guest, and keeping what was seen: nothing is judged here."""

import time
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path

from harness.errors import AgentError, GuestHungError, HarnessError
from harness.lease.complaints import CRASHES, HANGS, split_expected
from harness.lease.pool import Guest, Lease
from harness.machine.machine import Ending as GuestEnding
from harness.machine.machine import EndKind
from harness.model.audit import Audit, unsure_end, what_worked
from harness.model.complaint import fingerprint
from harness.model.known import ExpectedLine
from harness.model.outcome import Observation
from harness.ops import Program
from harness.record.item import Ending, Item, Record, RunOutcome
from harness.record.store import store_record


class Auditing(StrEnum):
    """How much of a final audit is made: all of it, without the checks of the file systems, or none (for a person's sake: KEPT)."""

    FULL = "full"
    CONTENT = "content"
    NONE = "none"
    KEPT = "kept"


def run_item(item: Item, lease: Lease, folder: Path, expected: Sequence[ExpectedLine] = (), auditing: Auditing = Auditing.FULL) -> Record:
    """Run the program of ``item``, audit what it left, and keep everything in ``folder``. Judges nothing; no fault of the guest raises.

    ``expected``: console lines that are no complaint.
    """
    guest = lease.guest
    mark, started_s = guest.mark(), time.monotonic()
    observations: tuple[Observation, ...] | None = None
    audit: Audit | None = None
    error: HarnessError | None = None
    try:
        observations = guest.run(item.program)
        audit = _audited(guest, item.program, observations, auditing)
    except HarnessError as caught:
        error = caught
    # Asked before the ending: it waits until all that the kernel had to say has been read.
    fault = guest.find_own_fault()
    ended = guest.ending(mark)
    counting, excused = split_expected(ended.reports, lease.reading.kernel_release, item.where.stack.describe(), expected)
    ended = replace(ended, reports=counting)
    ending, note = classify(ended, error)
    # A run that completed counts for nothing either where nobody could have seen the kernel complain.
    if ending in (Ending.COMPLETED, Ending.HUNG) and fault is not None:
        ending, note = Ending.HARNESS_ERROR, fault
    # A guest that hangs is asked before anything else: whatever follows may end it.
    hang = guest.diagnose() if ending is Ending.HUNG else ""
    messages = tuple(report.line for report in ended.reports)
    console = guest.console(mark)
    outcome = RunOutcome(
        ending=ending,
        note=note,
        messages=messages,
        guest=guest.description,
        seconds=round(time.monotonic() - started_s, 3),
        fingerprint=fingerprint(console) if messages or ending is Ending.CRASHED else "",
        expected=excused,
    )
    record = Record(item, lease.reading, observations, outcome, audit)
    log = guest.kernel_log() if ending is not Ending.COMPLETED or messages else ""
    store_record(folder, record, console, log, hang)
    return record


def _audited(guest: Guest, program: Program, observations: Sequence[Observation], auditing: Auditing) -> Audit | None:
    """Return the audit of what a program left, or why there is none: whatever a damaged guest still does is no news."""
    if auditing is Auditing.NONE:
        return None
    damage = guest.find_damage()
    if damage is not None:
        return Audit(skipped=f"the guest was damaged before: {damage}")
    if auditing is Auditing.KEPT:
        return Audit(skipped="the guest is kept for somebody to look at, with its volumes mounted (--keep-guest)")
    audit = guest.audit(what_worked(program, observations), check=auditing is Auditing.FULL)
    unsure = unsure_end(program, observations)
    return (
        Audit(skipped="no volume was mounted when the program had ended")
        if audit is None
        else replace(audit, skipped=unsure or audit.skipped)
    )


def classify(guest: GuestEnding, error: HarnessError | None) -> tuple[Ending, str]:
    """Return how a run ended, and why: from the state of the guest, its kernel's complaints and the error of the run, in this order."""
    kinds = {report.kind: report.line for report in reversed(guest.reports)}
    crash = next((line for kind, line in kinds.items() if kind in CRASHES), None)
    if guest.kind in (EndKind.PANIC, EndKind.RESET):
        return Ending.CRASHED, guest.reason
    if crash is not None:
        return Ending.CRASHED, f"the console shows: {crash}"
    if guest.kind is not EndKind.RUNNING:
        return Ending.LOST, guest.reason
    if error is None:
        return Ending.COMPLETED, ""
    if isinstance(error, AgentError):
        return Ending.HARNESS_ERROR, str(error)
    hang = next((line for kind, line in kinds.items() if kind in HANGS), None)
    if hang is None and not isinstance(error, GuestHungError):
        return Ending.LOST, str(error)
    return Ending.HUNG, str(error) + (f"; the console shows: {hang}" if hang else "")
