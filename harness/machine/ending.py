"""How a guest ended, as QEMU's events, its exit and the console tell."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from harness.model.complaint import Report, ReportKind


class EndKind(StrEnum):
    """How a guest ended, or that it did not."""

    RUNNING = "running"
    SHUTDOWN = "guest-shutdown"
    RESET = "guest-reset"
    PANIC = "guest-panic"
    QEMU_DIED = "qemu-died"
    STOPPED = "stopped-by-harness"


@dataclass(frozen=True)
class Ending:
    """How a guest ended, why we think so, and what its kernel complained about on the way."""

    kind: EndKind
    reason: str
    reports: tuple[Report, ...] = ()


def classify_ending(
    events: Sequence[dict[str, object]], exit_status: int | None, reports: Sequence[Report], stopped: bool = False
) -> Ending:
    """Return how the guest ended. QEMU's exit status alone says nothing: it is 0 for power-off, reboot and panic alike.

    ``events`` are QMP events; ``exit_status`` is None while QEMU runs; ``stopped``: the harness itself asked QEMU to quit.
    """
    kept = tuple(reports)
    names = [str(event.get("event")) for event in events]
    if "GUEST_PANICKED" in names or "GUEST_CRASHLOADED" in names:
        return Ending(EndKind.PANIC, "the guest reported its panic through pvpanic", kept)
    panics = [report for report in kept if report.kind is ReportKind.PANIC]
    if panics:
        return Ending(EndKind.PANIC, f"the console shows: {panics[0].line}", kept)
    for event in events:
        if event.get("event") != "SHUTDOWN":
            continue
        data = event.get("data")
        cause = str(data.get("reason")) if isinstance(data, dict) else "none"
        if cause == "guest-shutdown":
            return Ending(EndKind.SHUTDOWN, "the guest powered itself off", kept)
        if cause == "guest-reset":
            return Ending(EndKind.RESET, "the guest asked for a reset", kept)
        if not stopped:
            return Ending(EndKind.QEMU_DIED, f"QEMU shut down on its own: {cause}", kept)
    if stopped:
        return Ending(EndKind.STOPPED, "the harness ended it", kept)
    if exit_status is not None:
        return Ending(EndKind.QEMU_DIED, f"QEMU ended with status {exit_status} and no word of a shutdown", kept)
    return Ending(EndKind.RUNNING, "QEMU is running", kept)
