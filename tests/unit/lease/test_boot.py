"""A guest's complaints from its boot and set-up count like those of a program; its reading is its own."""

from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.errors import BootError, GuestError, NotReadyError, StackMismatchError, logs_of
from harness.guest.layout import Layout
from harness.guest.session import GuestSession
from harness.guest.ssh import SshAddress
from harness.image.bundle import GuestImage
from harness.image.catalog import KernelChoice
from harness.lease.boot import BootedGuest, GuestOptions, Host, HostInUse
from harness.lease.template import Cloner
from harness.machine.accelerator import Accelerator
from harness.machine.command import Emulator
from harness.machine.machine import Ending, EndKind, Machine
from harness.model.complaint import Report, ReportKind
from harness.model.known import ExpectedLine
from harness.model.outcome import Observation
from harness.model.stack import StackReading
from harness.ops import Meminfo, Program, Step
from tests.fakes.leased import DESCRIPTION, make_reading
from tests.fakes.samples import stack

UNSURE = "[    4.000000] nd_pmem namespace1.0: unable to guarantee persistence of writes"
ERROR = "[    5.000000] EXT4-fs error (device pmem0): trigger_test_error:129: comm sh: boo"
BOO = ExpectedLine("boo$", "somebody tried it out", (6, 0), None, "2999-01-01")


@dataclass
class FakeMachine:
    """A machine that runs, and whose console has ``reports``."""

    reports: tuple[Report, ...] = ()

    @property
    def console(self) -> Any:
        return SimpleNamespace(is_drained=lambda: True, reports=lambda since=0: self.reports)

    def ending(self) -> Ending:
        return Ending(EndKind.RUNNING, "QEMU is running")


@dataclass
class FakeSession:
    """A session whose stack is as asked for; ``taints`` are what the kernel's flags are, one after the other."""

    taints: list[int]
    mismatch: bool = False

    @property
    def layout(self) -> Layout:
        return Layout(stack(), ())

    def refresh(self) -> StackReading:
        return replace(make_reading(stack()), facts=(("kernel taint", str(self.taints.pop(0))),))

    def read_clone(self, saved: StackReading) -> StackReading:
        if self.mismatch:
            raise StackMismatchError("the restored guest has another storage stack than it was saved with:\n- main: dax: ...")
        return self.refresh()

    def run(self, program: Program, limit_s: float) -> tuple[Observation, ...]:
        return ()

    def taint(self) -> int:
        return self.taints.pop(0)


def guest(session: FakeSession, *printed: Report, inherited: tuple[str, ...] = (), expected: tuple[ExpectedLine, ...] = ()) -> BootedGuest:
    machine = cast(Machine, FakeMachine(printed))
    options = GuestOptions(expected=expected)
    saved = make_reading(stack()) if inherited else None
    return BootedGuest(machine, cast(GuestSession, session), DESCRIPTION, options, SshAddress(1, Path(), ""), saved, inherited)


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
    other.machine.wait_ended = lambda deadline: None  # type: ignore[method-assign,assignment,return-value]
    with pytest.raises(StackMismatchError):
        other.refresh()
    assert "another storage stack" in (other.find_damage() or "")


def test_a_taint_is_told_from_the_one_that_the_stack_was_read_with() -> None:
    tainted = guest(FakeSession([4096, 4096, 4608]))
    tainted.refresh()
    program = Program((Step(Meminfo()),))
    tainted.run(program)
    assert tainted.find_damage() is None
    tainted.run(program)
    assert "went from 4096 to 4608" in (tainted.find_damage() or "")


def test_a_line_that_is_expected_hides_no_taint() -> None:
    tainted = guest(FakeSession([0, 512]), report(ERROR), expected=(BOO,))
    tainted.refresh()
    tainted.run(Program((Step(Meminfo()),)))
    assert [r.line for r in tainted.ending(0).reports] == [ERROR, "the kernel's taint flags went from 0 to 512"]
    warned = guest(FakeSession([0, 512]), report("WARNING: at fs/dax.c", ReportKind.WARNING))
    warned.refresh()
    warned.run(Program((Step(Meminfo()),)))
    assert [r.line for r in warned.ending(0).reports] == ["WARNING: at fs/dax.c"]


def test_a_taint_that_nobody_could_see_counts_against_the_run() -> None:
    class Hidden(FakeSession):
        def taint(self) -> int:
            raise GuestError("the guest does not let /proc/sys/kernel/tainted be read")

    hidden = guest(Hidden([0]))
    hidden.machine.find_own_fault = lambda: None  # type: ignore[method-assign]
    hidden.refresh()
    assert hidden.find_own_fault() is None
    hidden.run(Program((Step(Meminfo()),)))
    assert hidden.find_own_fault() == "the guest does not let /proc/sys/kernel/tainted be read"


def test_what_failed_under_both_names_the_logs_of_the_second_try_and_no_folder_that_is_gone() -> None:
    first, second = NotReadyError("kvm problem"), BootError("tcg problem in /dev/shm/pmemh-abc/x", "the console of /dev/shm/pmemh-abc")
    first.logs, second.logs = "artifacts/kvm", "artifacts/tcg"
    attempts = iter((first, second))

    def attempt(host: Host) -> None:
        raise next(attempts)

    kvm = Host(cast(Emulator, SimpleNamespace()), Accelerator("kvm", "KVM is faster", tentative=True))
    in_use = HostInUse(lambda text: None, lambda: kvm)
    in_use.current = lambda: kvm  # type: ignore[method-assign]
    with pytest.raises(BootError, match="kvm problem") as caught:
        in_use.start("a guest", attempt)
    assert logs_of(caught.value) == "artifacts/tcg"
    assert "pmemh-abc" not in str(caught.value)


def test_no_template_is_made_of_a_guest_whose_kernel_complained(tmp_path: Path) -> None:
    image = cast(GuestImage, SimpleNamespace(release="6.12.1"))
    complaining = cast(Machine, FakeMachine((report(UNSURE, ReportKind.PMEM), report(ERROR))))
    strict, lenient = (Cloner(KernelChoice, print, GuestOptions(expected=expected), tmp_path) for expected in ((), (BOO,)))
    with pytest.raises(GuestError, match=r"the kernel complained while booting: .*trigger_test_error"):
        strict._expected_only(complaining, image, "e820", "booting")
    assert lenient._expected_only(complaining, image, "e820", "booting") == (UNSURE, ERROR)
    with pytest.raises(GuestError, match="nd_pmem"):
        lenient._expected_only(complaining, image, "nvdimm", "booting")
