"""A guest in use: all that comes of a program is one value; complaints of its boot and set-up count too, its reading is its own."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.errors import GuestError, GuestHungError, HarnessError, StackMismatchError
from harness.guest.layout import Layout
from harness.guest.session import GuestSession
from harness.guest.ssh import SshAddress
from harness.host.deadline import Deadline
from harness.lease.booted import BootedGuest
from harness.lease.guest import Auditing
from harness.lease.options import GuestOptions
from harness.machine.ending import Ending, EndKind
from harness.machine.machine import Machine
from harness.model.audit_outcome import Audit, VolumeSeen
from harness.model.complaint import Report, ReportKind
from harness.model.known import ExpectedLine
from harness.model.outcome import How, Observation
from harness.model.stack import StackReading
from harness.ops import Meminfo, Program, Step
from tests.fakes.leased import DESCRIPTION, RUNNING, make_reading
from tests.fakes.samples import stack

UNSURE = "[    4.000000] nd_pmem namespace1.0: unable to guarantee persistence of writes"
ERROR = "[    5.000000] EXT4-fs error (device pmem0): trigger_test_error:129: comm sh: boo"
BOO = ExpectedLine("boo$", "somebody tried it out", (6, 0), None, "2999-01-01")


PROGRAM = Program((Step(Meminfo()),))
AUDIT = Audit((VolumeSeen("main", ()),))


@dataclass
class FakeMachine:
    """A machine whose console has ``reports``."""

    reports: tuple[Report, ...] = ()
    ended: Ending = RUNNING
    own_fault: str | None = None
    accelerator: Any = field(default_factory=lambda: SimpleNamespace(time_scale=1.0))

    @property
    def console(self) -> Any:
        return SimpleNamespace(
            is_drained=lambda: True,
            reports=lambda since=0: self.reports,
            mark=lambda: 7,
            since=lambda mark: f"console since {mark}\n",
            tail=lambda lines: "the last of it",
        )

    def ending(self) -> Ending:
        return self.ended

    def wait_ended(self, deadline: Deadline) -> Ending:
        return self.ended

    def find_own_fault(self) -> str | None:
        return self.own_fault

    def diagnose(self, deadline: Deadline) -> str:
        return "blocked tasks and registers\n"


@dataclass
class FakeSession:
    """A session whose stack is as asked for; ``taints`` are what the kernel's flags are, one after the other.

    ``error`` breaks a program off, ``audit_error`` its audit.
    """

    taints: list[int] = field(default_factory=lambda: [0])
    mismatch: bool = False
    how: How = How.RETURNED
    error: HarnessError | None = None
    audited: Audit | None = AUDIT
    audit_error: HarnessError | None = None
    checks: list[bool] = field(default_factory=list)

    @property
    def layout(self) -> Layout:
        return Layout(stack(), ())

    def refresh(self) -> StackReading:
        return replace(make_reading(stack()), facts=(("kernel taint", str(self.taint())),))

    def read_clone(self, saved: StackReading) -> StackReading:
        if self.mismatch:
            raise StackMismatchError("the restored guest has another storage stack than it was saved with:\n- main: dax: ...")
        return self.refresh()

    def run(self, program: Program, limit_s: float) -> tuple[Observation, ...]:
        if self.error is not None:
            raise self.error
        return (Observation(0, self.how, 0),)

    def audit(self, program: Program, *, check: bool) -> Audit | None:
        self.checks.append(check)
        if self.audit_error is not None:
            raise self.audit_error
        return self.audited

    def taint(self) -> int:
        return self.taints.pop(0) if len(self.taints) > 1 else self.taints[0]

    def kernel_log(self) -> tuple[tuple[Any, ...], int]:
        return (SimpleNamespace(uptime_s=1.5, level=4, text="a line"),), 1


def guest(session: FakeSession, *printed: Report, inherited: tuple[str, ...] = (), expected: tuple[ExpectedLine, ...] = ()) -> BootedGuest:
    return on(FakeMachine(printed), session, inherited, expected)


def on(machine: FakeMachine, session: FakeSession, inherited: tuple[str, ...] = (), expected: tuple[ExpectedLine, ...] = ()) -> BootedGuest:
    options = GuestOptions(expected=expected)
    saved = make_reading(stack()) if inherited else None
    nowhere = SshAddress(1, Path(), "")
    return BootedGuest(cast(Machine, machine), cast(GuestSession, session), DESCRIPTION, options, nowhere, saved, inherited)


def report(line: str, kind: ReportKind = ReportKind.FILE_SYSTEM) -> Report:
    return Report(kind, line, 0)


def test_a_complaint_during_boot_or_set_up_is_damage() -> None:
    assert guest(FakeSession([0]), report(ERROR)).find_damage() == f"its kernel complained: {ERROR}"


def test_a_complaint_from_before_a_guest_was_saved_is_its_clones_too() -> None:
    assert guest(FakeSession([0]), inherited=(ERROR,)).find_damage() == f"its kernel complained: {ERROR}"


def test_what_is_expected_is_expected_of_a_set_up_too_and_the_record_says_so() -> None:
    quiet = guest(FakeSession([0]), report(ERROR), inherited=(UNSURE,), expected=(BOO,))
    quiet.refresh()
    assert quiet.find_damage() is None
    assert [line for line, _ in quiet.description.expected] == [
        "nd_pmem namespace1.0: unable to guarantee persistence of writes",
        "EXT4-fs error (device pmem0): trigger_test_error:129: comm sh: boo",
    ]


def test_a_day_that_has_come_counts_for_what_was_saved_before() -> None:
    late = replace(BOO, expires="2020-01-01")
    assert guest(FakeSession([0]), inherited=(ERROR,), expected=(late,)).find_damage() == f"its kernel complained: {ERROR}"


def test_a_clone_that_is_not_what_it_was_saved_as_is_damaged() -> None:
    other = guest(FakeSession([0], mismatch=True), inherited=(UNSURE,))
    with pytest.raises(StackMismatchError):
        other.refresh()
    assert "another storage stack" in (other.find_damage() or "")


def test_a_taint_is_told_from_the_one_that_the_stack_was_read_with() -> None:
    tainted = guest(FakeSession([4096, 4096, 4608]))
    tainted.refresh()
    tainted.run(PROGRAM, Auditing.NONE)
    assert tainted.find_damage() is None
    tainted.run(PROGRAM, Auditing.NONE)
    assert "went from 4096 to 4608" in (tainted.find_damage() or "")


def test_a_line_that_is_expected_hides_no_taint() -> None:
    tainted = guest(FakeSession([0, 512]), report(ERROR), expected=(BOO,))
    tainted.refresh()
    done = tainted.run(PROGRAM, Auditing.NONE)
    assert [r.line for r in done.ending.reports] == [ERROR, "the kernel's taint flags went from 0 to 512"]
    warned = guest(FakeSession([0, 512]), report("WARNING: at fs/dax.c", ReportKind.WARNING))
    warned.refresh()
    done = warned.run(PROGRAM, Auditing.NONE)
    assert [r.line for r in done.ending.reports] == ["WARNING: at fs/dax.c"]


def test_a_taint_that_nobody_could_see_counts_against_the_run() -> None:
    class Hidden(FakeSession):
        def taint(self) -> int:
            raise GuestError("the guest does not let /proc/sys/kernel/tainted be read")

    hidden = guest(Hidden([0]))
    assert hidden.run(PROGRAM, Auditing.NONE).own_fault == "the guest does not let /proc/sys/kernel/tainted be read"


def test_all_that_came_of_a_program_that_completed_is_one_value() -> None:
    done = on(FakeMachine(), FakeSession()).run(PROGRAM, Auditing.FULL)
    assert (done.observations, done.audit, done.error) == ((Observation(0, How.RETURNED, 0),), AUDIT, None)
    assert (done.ending, done.console) == (RUNNING, "console since 7\n")
    assert (done.own_fault, done.hang, done.kernel_log) == ("", "", "")


def test_what_broke_a_program_off_is_there_instead_of_observations() -> None:
    lost = GuestError("lost the guest")
    done = on(FakeMachine(ended=Ending(EndKind.PANIC, "it panicked")), FakeSession(error=lost)).run(PROGRAM, Auditing.FULL)
    assert (done.observations, done.audit, done.error) == (None, None, lost)
    assert done.ending.kind is EndKind.PANIC
    assert "the kernel's log cannot be read: lost the guest" in done.kernel_log
    assert done.hang == ""


def test_the_kernels_log_is_read_where_the_kernel_complained() -> None:
    done = guest(FakeSession(), report(ERROR)).run(PROGRAM, Auditing.NONE)
    assert done.kernel_log == "[    1.500000] <4> a line\n"


def test_a_guest_that_hangs_is_asked_why_unless_the_fault_is_ours() -> None:
    hung = FakeSession(error=GuestHungError("the guest said nothing for 240 s"))
    assert on(FakeMachine(), hung).run(PROGRAM, Auditing.NONE).hang == "blocked tasks and registers\n"
    done = on(FakeMachine(own_fault="QEMU was stopped by a signal"), hung).run(PROGRAM, Auditing.NONE)
    assert (done.own_fault, done.hang) == ("QEMU was stopped by a signal", "")


@pytest.mark.parametrize(
    ("session", "printed", "auditing", "reason"),
    [
        (FakeSession(audited=None), (), Auditing.FULL, "no volume was mounted when the program had ended"),
        (FakeSession(), (report(ERROR),), Auditing.FULL, "the guest was damaged before: its kernel complained"),
        (FakeSession(), (), Auditing.KEPT, "the guest is kept for somebody to look at"),
        (FakeSession(how=How.BLOCKED), (), Auditing.FULL, "step 1 had not ended when the program did"),
    ],
)
def test_an_audit_that_is_not_made_leaves_its_reason(
    session: FakeSession, printed: tuple[Report, ...], auditing: Auditing, reason: str
) -> None:
    audit = guest(session, *printed).run(PROGRAM, auditing).audit
    assert audit is not None
    assert reason in audit.skipped


def test_how_much_is_audited_is_up_to_whoever_asks() -> None:
    session = FakeSession()
    made = [guest(session).run(PROGRAM, auditing).audit for auditing in (Auditing.FULL, Auditing.CONTENT, Auditing.NONE)]
    assert made == [AUDIT, AUDIT, None]
    assert session.checks == [True, False]


def test_a_guest_that_hangs_in_the_audit_keeps_its_observations() -> None:
    done = guest(FakeSession(audit_error=GuestHungError("the guest said nothing for 240 s"))).run(PROGRAM, Auditing.FULL)
    assert done.observations is not None
    assert done.audit is None
    assert done.hang == "blocked tasks and registers\n"
