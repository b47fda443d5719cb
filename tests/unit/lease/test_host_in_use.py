"""Which accelerator a guest comes up under: KVM that was not demanded has to bring it up, or TCG does."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from harness.errors import BootError, GuestError, HarnessError, HostError, MachineError, NotReadyError, StackMismatchError, logs_of
from harness.host.deadline import Deadline
from harness.image.bundle import GuestImage
from harness.image.catalog import KernelChoice
from harness.lease import boot as subject
from harness.lease import clone
from harness.lease.boot import booted_session, first_connection
from harness.lease.clone import Cloner
from harness.lease.host_in_use import Host, HostInUse
from harness.lease.options import GuestOptions
from harness.machine.accelerator import Accelerator, find_refuted
from harness.machine.command import Emulator
from tests.fakes.leased import FakeGuest
from tests.fakes.machine import EXIT, FAKE_EMULATOR, fake_spec
from tests.fakes.samples import stack

QEMU = Emulator("/usr/bin/qemu", (10, 0, 2), "10.0.2", has_qboot=True)
MEASURED = "KVM is faster: a loop took 0.60 s under tcg and 0.20 s under kvm"
CHOSEN = Host(QEMU, Accelerator("kvm", MEASURED, tentative=True))
DEMANDED = Host(QEMU, Accelerator("kvm", MEASURED))
EMULATING = Host(QEMU, Accelerator("tcg", "there is no /dev/kvm"))
HUNG = BootError("the guest did not print 'ready' within 15 s", "[    0.000000] Linux version")
EVIDENCE = "a guest of k came up under tcg and not under kvm (the guest did not print 'ready' within 15 s)"
WHAT = "a guest of k"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PMEM_HARNESS_CACHE", str(tmp_path))
    return tmp_path


class Worker:
    """A process that starts guests: what it tried, under which accelerator, and what it said."""

    def __init__(self, host: Host, **failures: HarnessError) -> None:
        self.failures = failures
        self.tried: list[str] = []
        self.said: list[str] = []
        self.host = HostInUse(self.said.append, lambda: host)

    def start(self) -> Accelerator:
        return self.host.start(WHAT, self._attempt)

    def _attempt(self, host: Host) -> Accelerator:
        self.tried.append(host.accelerator.name)
        if host.accelerator.name in self.failures:
            raise self.failures[host.accelerator.name]
        return host.accelerator


def test_a_guest_that_comes_up_under_kvm_stays_there() -> None:
    worker = Worker(CHOSEN)
    assert worker.start().name == "kvm"
    assert worker.said == []


@pytest.mark.parametrize("error", [HUNG, BootError("it panicked", "tail"), NotReadyError("QEMU did not start")], ids=str)
def test_a_guest_that_does_not_come_up_under_kvm_comes_up_under_tcg_and_so_do_all_later_ones(error: NotReadyError) -> None:
    worker = Worker(CHOSEN, kvm=error)
    assert [worker.start().name for _ in range(3)] == ["tcg"] * 3
    assert worker.tried == ["kvm", "tcg", "tcg", "tcg"]


def test_what_was_found_is_said_once_with_the_evidence_and_both_times() -> None:
    worker = Worker(CHOSEN, kvm=HUNG)
    for _ in range(2):
        accelerator = worker.start()
    assert accelerator.reason == f"{EVIDENCE}; measured before: {MEASURED}"
    trying, found = worker.said
    assert trying == "a guest of k did not come up under kvm (the guest did not print 'ready' within 15 s): trying once under tcg"
    assert found.startswith(f"tcg runs the guests from now on, until this computer boots again: {EVIDENCE}; PMEM_HARNESS_ACCEL=kvm uses")
    assert MEASURED in found
    assert found.endswith("[    0.000000] Linux version")


def test_what_one_worker_found_serves_the_others_whether_or_not_they_had_begun() -> None:
    first, second, third = Worker(CHOSEN, kvm=HUNG), Worker(CHOSEN), Worker(CHOSEN, kvm=HUNG)
    assert second.start().name == "kvm"
    first.start()
    assert (second.start().reason, second.tried) == (f"{EVIDENCE}; measured before: {MEASURED}", ["kvm", "tcg"])
    assert (third.start().name, third.tried, third.said) == ("tcg", ["tcg"], [])


def test_a_worker_that_was_slower_to_find_the_same_says_nothing_more() -> None:
    first, second = Worker(CHOSEN, kvm=HUNG), Worker(CHOSEN, kvm=HUNG)
    attempt = second._attempt

    def meanwhile(host: Host) -> Accelerator:
        if host.accelerator.name == "kvm":
            first.start()
        return attempt(host)

    assert second.host.start(WHAT, meanwhile).name == "tcg"
    assert second.said == []


def test_a_guest_that_comes_up_under_neither_did_not_boot_and_is_not_tried_under_tcg_again() -> None:
    worker = Worker(CHOSEN, kvm=HUNG, tcg=BootError("it panicked", "the tail under tcg"))
    with pytest.raises(BootError) as caught:
        worker.start()
    assert str(caught.value).startswith("it panicked (under tcg; under kvm before: the guest did not print 'ready' within 15 s)\n")
    assert caught.value.console_tail == "the tail under tcg"
    assert find_refuted(QEMU) is None
    with pytest.raises(BootError, match="did not print"):
        worker.start()
    assert worker.tried == ["kvm", "tcg", "kvm"]


def test_a_qemu_that_starts_under_neither_says_both() -> None:
    worker = Worker(CHOSEN, kvm=NotReadyError("KVM: no such MSR\nmore"), tcg=NotReadyError("no such machine"))
    with pytest.raises(NotReadyError, match=r"^no such machine \(under tcg; under kvm before: KVM: no such MSR\)$"):
        worker.start()


@pytest.mark.parametrize("host", [DEMANDED, EMULATING], ids=["kvm demanded", "tcg"])
def test_there_is_nothing_to_fall_back_to(host: Host) -> None:
    worker = Worker(host, **{host.accelerator.name: HUNG})
    with pytest.raises(BootError, match="did not print"):
        worker.start()
    assert worker.tried == [host.accelerator.name]


@pytest.mark.parametrize("error", [HostError("no room"), StackMismatchError("another stack"), GuestError("mkfs failed"), MachineError("x")])
def test_what_says_nothing_of_the_accelerator_is_no_reason_to_change_it(error: HarnessError) -> None:
    worker = Worker(CHOSEN, kvm=error)
    with pytest.raises(type(error)):
        worker.start()
    assert worker.tried == ["kvm"]


def test_what_goes_wrong_after_a_guest_came_up_under_tcg_is_raised_and_tcg_is_tried_again() -> None:
    worker = Worker(CHOSEN, kvm=HUNG, tcg=HostError("no room"))
    with pytest.raises(HostError, match="no room"):
        worker.start()
    del worker.failures["tcg"]
    assert worker.start().name == "tcg"


# ---- what counts as not ready ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def silent() -> Iterator[None]:
    raise GuestError("nothing answers on port 1")
    yield


def test_a_guest_that_does_not_answer_is_not_ready() -> None:
    with pytest.raises(NotReadyError, match="the guest did not answer: nothing answers on port 1"), first_connection(silent()):  # type: ignore[arg-type]
        pass


def test_what_fails_over_an_open_connection_is_no_matter_of_readiness() -> None:
    with pytest.raises(GuestError, match="mkfs failed"), first_connection(contextlib.nullcontext()):  # type: ignore[arg-type]
        raise GuestError("mkfs failed")


def boots(folder: Path, script: dict[str, object]) -> None:
    with contextlib.ExitStack() as lifetime:
        host = Host(FAKE_EMULATOR, Accelerator("kvm", "a fake runs everywhere"))
        image: GuestImage = None  # type: ignore[assignment]
        booted_session(host, image, fake_spec(folder, script), folder, Deadline.after(60), lifetime)


def test_a_qemu_that_does_not_start_is_a_guest_that_is_not_ready(tmp_path: Path) -> None:
    with pytest.raises(NotReadyError, match="QEMU did not start"):
        boots(tmp_path, {"refuse": "no such MSR"})


def test_a_kernel_that_does_not_boot_is_still_a_boot_error(tmp_path: Path) -> None:
    with pytest.raises(BootError):
        boots(tmp_path, {"quiet": [EXIT]})


def test_a_booter_falls_back_too(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []

    @contextlib.contextmanager
    def booted(host: Host, *_: object) -> Iterator[str]:
        if host.accelerator.name == "kvm":
            raise HUNG
        yield host.accelerator.name
        ended.append(host.accelerator.name)

    monkeypatch.setattr(subject, "booted_guest", booted)
    monkeypatch.setattr(subject, "HostInUse", lambda progress: HostInUse(progress, lambda: CHOSEN))
    choose: Callable[[str], object] = str
    boot = subject.make_booter(choose, lambda _: None)  # type: ignore[arg-type]
    with boot(None, "k") as guest:  # type: ignore[arg-type]
        assert (str(guest), ended) == ("tcg", [])
    assert ended == ["tcg"]


# ---- a KVM under which clones do not come up -------------------------------------------------------------------------

SILENT = NotReadyError("the guest did not answer: nothing for 60 s")


class Clones:
    """A cloner whose clones come up under TCG only, or not at all, and whose boots come up under whatever they are tried."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, store: Path, host: Host, works: str) -> None:
        self.said: list[str] = []
        self.tried: list[tuple[str, str]] = []
        self._works = works
        monkeypatch.setattr(clone, "find_host", lambda: host)
        monkeypatch.setattr(clone, "guest_image", lambda *_: "an image")
        monkeypatch.setattr(clone, "booted_guest", self._boot)
        self.cloner = Cloner(KernelChoice, self.said.append, GuestOptions(), store)
        monkeypatch.setattr(self.cloner.templates, "stack_template", lambda *_: "a template")
        monkeypatch.setattr(self.cloner, "_restored", self._restore)

    @contextlib.contextmanager
    def _restore(self, host: Host, *_: object) -> Iterator[FakeGuest]:
        self.tried.append(("clone", host.accelerator.name))
        if host.accelerator.name != self._works:
            raise SILENT
        yield FakeGuest(stack())

    @contextlib.contextmanager
    def _boot(self, host: Host, *_: object) -> Iterator[FakeGuest]:
        self.tried.append(("boot", host.accelerator.name))
        yield FakeGuest(stack())

    def use(self, *storages: str) -> None:
        for storage in storages:
            with self.cloner.clone(stack(storage), "debian_6.12"):
                pass


def test_a_clone_that_does_not_come_up_under_kvm_is_one_under_tcg_from_then_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clones = Clones(monkeypatch, tmp_path, CHOSEN, works="tcg")
    clones.use("dax", "dax", "no_dax")
    assert clones.tried == [("clone", "kvm"), ("clone", "tcg"), ("clone", "tcg"), ("clone", "tcg")]
    assert sum("tcg runs the guests from now on" in line for line in clones.said) == 1


def test_clones_that_come_up_under_neither_are_boots_under_kvm_and_tcg_is_not_tried_for_each_stack(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clones = Clones(monkeypatch, tmp_path, CHOSEN, works="nothing")
    clones.use("dax", "dax", "no_dax")
    dax = [("clone", "kvm"), ("clone", "tcg"), ("clone", "kvm"), ("boot", "kvm"), ("boot", "kvm")]
    assert clones.tried == [*dax, ("clone", "kvm"), ("clone", "kvm"), ("boot", "kvm")]


def test_clones_under_a_kvm_that_was_demanded_are_never_tried_under_tcg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clones = Clones(monkeypatch, tmp_path, DEMANDED, works="tcg")
    clones.use("dax")
    assert clones.tried == [("clone", "kvm"), ("clone", "kvm"), ("boot", "kvm")]


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
