"""A guest that was booted or restored, in use: programs are performed in it, and it says all that came of them."""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace

from harness.errors import GuestError, GuestHungError, HarnessError
from harness.guest.facts import taint_of
from harness.guest.session import GuestSession
from harness.guest.ssh import SshAddress
from harness.host.deadline import Deadline
from harness.host.log import took
from harness.lease.complaints import TAINTING, Excused, reports_of, split_expected, without_stamps
from harness.lease.ending import classify
from harness.lease.guest import Auditing, Performed
from harness.lease.options import GuestOptions
from harness.machine.command import GDB_SOCKET
from harness.machine.ending import Ending as GuestEnding
from harness.machine.ending import EndKind
from harness.machine.machine import Machine
from harness.model.audit import unsure_end, what_worked
from harness.model.audit_outcome import Audit
from harness.model.complaint import Report, ReportKind
from harness.model.outcome import Observation
from harness.model.stack import StackReading
from harness.ops import Program
from harness.record.item import Ending, GuestDescription

log = logging.getLogger(__name__)

#: How long a connection that broke may be ahead of the end of QEMU.
_LAST_WORDS_S = 1.0
#: How long a guest that hangs is asked why, before it is ended.
_DIAGNOSIS_LIMIT_S = 3.0


def ways_in(guest: "BootedGuest") -> list[str]:
    """Return how a person gets into a running guest: the line for ssh and, where it was asked for, for gdb."""
    machine, address = guest.machine, guest.address
    known = machine.folder / "known_hosts"
    known.write_text(f"[{address.host}]:{address.port} {address.host_public_key}\n")
    lines = [
        f"to get in: ssh -p {address.port} -i {address.client_key} -o UserKnownHostsFile={known} -o IdentitiesOnly=yes "
        f"{address.user}@{address.host}"
    ]
    if (machine.folder / GDB_SOCKET).exists():
        lines.append(f"to debug: gdb -ex 'target remote {machine.folder / GDB_SOCKET}' vmlinux")
    return lines


class BootedGuest:
    """See :class:`harness.lease.guest.Guest`. ``session`` and ``machine`` are for a person's shell and debugger."""

    def __init__(
        self,
        machine: Machine,
        session: GuestSession,
        description: GuestDescription,
        options: GuestOptions,
        address: SshAddress,
        fresh: StackReading | None = None,
        inherited: Sequence[str] = (),
    ) -> None:
        """``fresh``: the reading of a stack that nobody has used yet, as it was taken when the guest was saved.

        ``inherited``: the lines with which the kernel complained before it was saved; they count like those that it prints here.
        """
        self.machine = machine
        self.session = session
        self.description = description
        self._options = options
        self.address = address
        #: The taint flags from before the first program; read with the stack.
        self._taint: int | None = None
        self._fresh = fresh
        self._inherited = reports_of(inherited)
        self._damage: list[str] = []
        #: What the taint says of the last program, empty where that is nothing.
        self._tainted = ""
        #: Why nobody knows whether the last program tainted the kernel, empty where somebody does.
        self._unseen = ""
        #: Set when the guest did not answer: nothing more is asked of it.
        self._silent: HarnessError | None = None

    def refresh(self) -> StackReading:
        fresh, self._fresh = self._fresh, None
        with self._damage_noted():
            reading = self.session.refresh() if fresh is None else self.session.read_clone(fresh)
        if self._taint is None:
            self._taint = taint_of(reading)
            _, excused = self._complaints()
            self.description = replace(self.description, expected=without_stamps(excused))
        return reading

    def run(self, program: Program, auditing: Auditing) -> Performed:
        mark = self.machine.console.mark()
        observations: tuple[Observation, ...] | None = None
        audit: Audit | None = None
        error: HarnessError | None = None
        try:
            observations = self._observed(program)
            audit = self._audited(program, observations, auditing)
        except HarnessError as caught:
            error = caught
        # Asked before the ending: it waits until all that the kernel had to say has been read.
        own_fault = self.machine.find_own_fault() or self._unseen
        ended = self.ending(mark)
        ending, note = classify(ended, error, own_fault)
        log.log(logging.INFO if ending is Ending.COMPLETED else logging.WARNING, "the program ended: %s%s", ending, note and f" ({note})")
        # A guest that hangs is asked before anything else: whatever follows may end it.
        hang = self._diagnose() if ending is Ending.HUNG else ""
        console = self.machine.console.since(mark)
        kernel_log = self._kernel_log() if ending is not Ending.COMPLETED or ended.reports else ""
        return Performed(observations, audit, error, ended, own_fault, hang, console, kernel_log)

    def _observed(self, program: Program) -> tuple[Observation, ...]:
        with self._damage_noted(), took(log, logging.INFO, f"ran a program of {len(program.steps)} steps"):
            observations = self.session.run(program, limit_s=self._options.step_limit_s)
        self._look_at_taint()
        return observations

    def _audited(self, program: Program, observations: Sequence[Observation], auditing: Auditing) -> Audit | None:
        """Return the audit of what a program left, or why there is none: whatever a damaged guest still does is no news."""
        if auditing is Auditing.NONE:
            return None
        damage = self.find_damage()
        if damage is not None:
            return Audit(skipped=f"the guest was damaged before: {damage}")
        if auditing is Auditing.KEPT:
            return Audit(skipped="the guest is kept for somebody to look at, with its volumes mounted (--keep-guest)")
        with self._damage_noted():
            audit = self.session.audit(what_worked(program, observations), check=auditing is Auditing.FULL)
        if audit is None:
            return Audit(skipped="no volume was mounted when the program had ended")
        self._look_at_taint()
        return replace(audit, skipped=unsure_end(program, observations) or audit.skipped)

    def _look_at_taint(self) -> None:
        try:
            taint = self.session.taint()
        except HarnessError as error:  # what was observed stays observed, and counts for nothing
            log.warning("nobody knows whether the program tainted the kernel: %s", error)
            self._damage.append(str(error))
            self._unseen = str(error)
            return
        if self._taint is not None and taint != self._taint and not self._tainted:
            self._tainted = f"the kernel's taint flags went from {self._taint} to {taint}"
            log.warning(self._tainted)
            self._damage.append(self._tainted)

    def ending(self, mark: int) -> GuestEnding:
        """Return whether and how the guest ended, with what its kernel complained about since position ``mark`` of the console."""
        ending = self.machine.ending()
        reports = self.machine.console.reports(mark)
        if self._tainted and not any(report.kind in TAINTING for report in reports):
            reports = (*reports, Report(ReportKind.WARNING, self._tainted, mark))
        return GuestEnding(ending.kind, ending.reason, reports)

    def _kernel_log(self) -> str:
        if self._silent is not None:
            return self._last_of_console(self._silent)
        try:
            lines, _ = self.session.kernel_log()
        except HarnessError as error:
            log.warning("the kernel's log cannot be read: %s", error)
            return self._last_of_console(error)
        return "".join(f"[{line.uptime_s:12.6f}] <{line.level}> {line.text}\n" for line in lines)

    def _last_of_console(self, error: HarnessError) -> str:
        return f"(the kernel's log cannot be read: {error}; the last of the console:)\n{self.machine.console.tail(400)}\n"

    def _diagnose(self) -> str:
        return self.machine.diagnose(Deadline.after(_DIAGNOSIS_LIMIT_S, self.machine.accelerator.time_scale))

    def find_damage(self) -> str | None:
        ending = self.ending(0)
        if ending.kind is not EndKind.RUNNING:
            return ending.reason
        complaints, _ = self._complaints()
        if complaints:
            return f"its kernel complained: {complaints[0].line}"
        return self._damage[0] if self._damage else None

    def _complaints(self) -> tuple[tuple[Report, ...], Excused]:
        """Return what the kernel complained about since its boot, and what of that was expected."""
        self.machine.console.is_drained()  # what has been printed is read before it is looked at
        reports = (*self._inherited, *self.ending(0).reports)
        return split_expected(reports, self.description.release, self.session.layout.stack.describe(), self._options.expected)

    @contextlib.contextmanager
    def _damage_noted(self) -> Iterator[None]:
        try:
            yield
        except HarnessError as error:
            self._damage.append(str(error))
            self._silent = error if isinstance(error, GuestError) else None
            # A guest that broke off may be about to end: what it ends with says why.
            if not isinstance(error, GuestHungError):
                self.machine.wait_ended(Deadline.after(_LAST_WORDS_S))
            raise
