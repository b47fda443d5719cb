"""Running an item on a leased guest, and keeping what was seen: nothing is judged here."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harness.lease.complaints import split_expected
from harness.lease.ending import classify
from harness.lease.guest import Auditing
from harness.lease.pool import Lease
from harness.model.complaint import fingerprint
from harness.model.known import ExpectedLine
from harness.record.item import Ending, Item, Record, RunOutcome
from harness.record.store import store_record


def run_item(item: Item, lease: Lease, folder: Path, expected: Sequence[ExpectedLine] = (), auditing: Auditing = Auditing.FULL) -> Record:
    """Run the program of ``item``, audit what it left, and keep everything in ``folder``. Judges nothing; no fault of the guest raises.

    ``expected``: console lines that are no complaint.
    """
    started_s = time.monotonic()
    done = lease.guest.run(item.program, auditing)
    counting, excused = split_expected(done.ending.reports, lease.reading.kernel_release, item.where.stack.describe(), expected)
    ending, note = classify(replace(done.ending, reports=counting), done.error, done.own_fault)
    messages = tuple(report.line for report in counting)
    outcome = RunOutcome(
        ending=ending,
        note=note,
        messages=messages,
        guest=lease.guest.description,
        seconds=round(time.monotonic() - started_s, 3),
        fingerprint=fingerprint(done.console) if messages or ending is Ending.CRASHED else "",
        expected=excused,
    )
    record = Record(item, lease.reading, done.observations, outcome, done.audit)
    log = done.kernel_log if ending is not Ending.COMPLETED or messages else ""
    store_record(folder, record, done.console, log, done.hang)
    return record
