"""How the run of a program ended, and whose fault that was: told by layers, the surest first."""

from harness.errors import AgentError, GuestHungError, HarnessError
from harness.lease.complaints import CRASHES, HANGS
from harness.machine.ending import Ending as GuestEnding
from harness.machine.ending import EndKind
from harness.record.item import Ending


def classify(guest: GuestEnding, error: HarnessError | None, own_fault: str = "") -> tuple[Ending, str]:
    """Return how a run ended, and why: from the state of the guest, its kernel's complaints and the error of the run, in this order.

    ``own_fault``: what is wrong on our side of the guest. A run that completed counts for nothing then either: nobody could have seen the
    kernel complain.
    """
    ending, note = _seen_from_outside(guest, error)
    return (Ending.HARNESS_ERROR, own_fault) if own_fault and ending in (Ending.COMPLETED, Ending.HUNG) else (ending, note)


def _seen_from_outside(guest: GuestEnding, error: HarnessError | None) -> tuple[Ending, str]:
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
