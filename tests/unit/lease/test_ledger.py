"""What could not be set up, counted over all workers: when a stack is given up, when the default one is tried, when a kernel is."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness.case.plan import DEFAULT_STACK, named_stacks
from harness.errors import BootError, CaseError, GuestError, HostError, StackMismatchError
from harness.lease import ledger as subject
from harness.lease.ledger import Ledger, Place, open_ledger
from harness.lease.pool import Pool, open_pool
from harness.model.stack import StorageStack
from harness.record.item import Lifecycle
from tests.fakes.leased import FakeGuest, FakeHost

STACKS = named_stacks()
DEFAULT = STACKS[DEFAULT_STACK]
DISK, NVDIMM, XFS = (STACKS[name] for name in ("disk-ext4", "nvdimm-fsdax-ext4-dax_always", "disk-xfs"))
KERNEL = "debian_6.12"
BROKEN = BootError("the kernel did not come up", "last words")


def place(stack: StorageStack, kernel: str = KERNEL, lifecycle: Lifecycle = Lifecycle.RESTORED) -> Place:
    return Place(stack, kernel, lifecycle)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path, DEFAULT)


# ---- counting --------------------------------------------------------------------------------------------------------


def test_a_stack_is_refused_after_two_failures_wherever_they_happened(ledger: Ledger, tmp_path: Path) -> None:
    ledger.note_failure(place(DISK), BROKEN)
    assert ledger.find_refusal(place(DISK)) is None
    other_worker = Ledger(tmp_path, DEFAULT)
    other_worker.note_failure(place(DISK), BROKEN)
    refusal = ledger.find_refusal(place(DISK))
    assert refusal is not None
    assert refusal.reason == "the storage stack failed 2 times on debian_6.12"
    assert refusal.told == (
        "virtio disk 256MiB -> ext4 failed 2 times on debian_6.12: its other items are not tried (--keep-going tries them)"
    )


def test_what_failed_says_nothing_of_another_stack_kernel_or_lifecycle(ledger: Ledger) -> None:
    for _ in range(2):
        ledger.note_failure(place(DISK), BROKEN)
    for other in (place(XFS), place(DISK, "debian_6.1"), place(DISK, lifecycle=Lifecycle.BOOTED)):
        assert ledger.find_refusal(other) is None


def test_a_stack_that_came_up_meanwhile_has_not_failed(ledger: Ledger) -> None:
    ledger.note_failure(place(DISK), BROKEN)
    ledger.note_success(place(DISK))
    ledger.note_failure(place(DISK), BROKEN)
    assert ledger.find_refusal(place(DISK)) is None


@pytest.mark.parametrize("error", [BROKEN, HostError("no room"), StackMismatchError("another"), GuestError("silent"), OSError(28, "full")])
def test_what_the_next_item_shares_counts(ledger: Ledger, error: Exception) -> None:
    for _ in range(2):
        ledger.note_failure(place(DISK), error)
    assert ledger.find_refusal(place(DISK)) is not None


@pytest.mark.parametrize("error", [CaseError("a.yaml:1", "wrong"), ValueError("a fault of ours")])
def test_what_is_of_one_item_alone_does_not_count(ledger: Ledger, error: Exception) -> None:
    for _ in range(2):
        ledger.note_failure(place(DISK), error)
    assert ledger.find_refusal(place(DISK)) is None


def test_nothing_is_refused_where_everything_is_to_be_tried(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, DEFAULT, keep_going=True)
    for stack in (DISK, DISK, XFS):
        ledger.note_failure(place(stack), BROKEN)
    ledger.note_hopeless(place(DEFAULT), BROKEN)
    assert ledger.find_refusal(place(DISK)) is None
    with ledger.probing(place(DISK)) as wanted:
        assert not wanted


def test_a_line_that_a_full_disk_cut_off_says_nothing(ledger: Ledger) -> None:
    ledger.note_failure(place(DEFAULT), BootError("no", ""))
    with (ledger.folder / "entries.jsonl").open("a") as file:
        file.write('{"what": "failed", "col\n{"what": "else"}\n')
    assert ledger.find_refusal(place(DEFAULT)) is None
    ledger.note_failure(place(DEFAULT), BootError("no", ""))
    assert ledger.find_refusal(place(DEFAULT)) is not None


def test_a_ledger_that_went_with_its_run_is_not_made_anew(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "gone", DEFAULT)
    ledger.note_failure(place(DISK), BROKEN)
    assert ledger.find_refusal(place(DISK)) is None
    assert not (tmp_path / "gone").exists()


def test_a_ledger_ends_with_its_block() -> None:
    with open_ledger(DEFAULT) as ledger:
        ledger.note_failure(place(DISK), BROKEN)
        assert ledger.folder.is_dir()
    assert not ledger.folder.exists()


def test_a_worker_that_holds_the_ledger_for_ever_is_a_host_error(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "_LOCK_LIMIT_S", 0.1)
    with ledger.locked(), pytest.raises(HostError, match="another worker of this run holds"):
        ledger.note_failure(place(DISK), BROKEN)


# ---- the default stack, by itself ------------------------------------------------------------------------------------


@pytest.fixture
def broken() -> set[StorageStack]:
    """The stacks that do not come up; a test may change them."""
    return {DISK, XFS, NVDIMM, DEFAULT}


@pytest.fixture
def host(broken: set[StorageStack]) -> FakeHost:
    def make(stack: StorageStack) -> FakeGuest:
        if stack in broken:
            raise BROKEN
        return FakeGuest(stack)

    return FakeHost(make)


@pytest.fixture
def pool(host: FakeHost, ledger: Ledger) -> Iterator[Pool]:
    with open_pool(host.booters, reuse=False, ledger=ledger) as pool:
        yield pool


def fail(pool: Pool, stack: StorageStack) -> None:
    assert pool.find_refusal(stack, KERNEL) is None
    with pytest.raises(BootError), pool.lease(stack, KERNEL):
        pass


def test_two_stacks_that_fail_have_the_default_one_tried_once_and_the_kernel_given_up(pool: Pool, host: FakeHost) -> None:
    fail(pool, DISK)
    fail(pool, XFS)
    refusals = [pool.find_refusal(stack, KERNEL) for stack in (NVDIMM, DISK, DEFAULT)]
    assert [stack for stack, _ in host.booted] == [DISK, XFS, DEFAULT]
    assert len(set(refusals)) == 1
    assert refusals[0] is not None
    assert refusals[0].told.splitlines() == [
        "nothing comes up on debian_6.12: its other items are not tried",
        "  done      set up (virtio disk 256MiB -> ext4) and (virtio disk 256MiB -> xfs); then, by itself, the default stack "
        "(e820 256MiB -> fsdax map=mem -> ext4 -> dax=always)",
        "  came back BootError: the kernel did not come up",
        "  look at   what each failure said",
        "  try       another kernel (--kernel), PMEM_HARNESS_ACCEL=tcg where KVM was used, --boot-timeout SECONDS on a slow computer; "
        "--keep-going tries every item all the same",
    ]
    assert pool.find_refusal(DISK, "debian_6.1") is None


def test_where_the_default_stack_comes_up_only_what_failed_twice_is_given_up(pool: Pool, host: FakeHost, broken: set[StorageStack]) -> None:
    broken.remove(DEFAULT)
    broken.remove(NVDIMM)
    fail(pool, DISK)
    fail(pool, XFS)
    assert pool.find_refusal(NVDIMM, KERNEL) is None
    assert [stack for stack, _ in host.booted] == [DISK, XFS, DEFAULT]
    assert not host.alive
    fail(pool, DISK)
    assert pool.find_refusal(DISK, KERNEL) is not None
    with pool.lease(NVDIMM, KERNEL) as lease:
        assert lease.reading.volumes


def test_two_failures_of_one_stack_try_nothing_else(pool: Pool, host: FakeHost) -> None:
    fail(pool, DISK)
    fail(pool, DISK)
    assert pool.find_refusal(XFS, KERNEL) is None
    assert len(host.booted) == 2


def test_one_worker_tries_the_default_stack_and_the_others_wait_for_what_comes_of_it(ledger: Ledger, tmp_path: Path) -> None:
    for stack in (DISK, XFS):
        ledger.note_failure(place(stack), BROKEN)
    other_worker = Ledger(tmp_path, DEFAULT)
    with ledger.probing(place(NVDIMM)) as wanted:
        assert wanted
        ledger.note_hopeless(place(DEFAULT), BROKEN)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(subject, "_PROBE_LIMIT_S", 0.1)
            # The verdict is there: nobody waits any more.
            with other_worker.probing(place(NVDIMM)) as wanted_too:
                assert not wanted_too
    assert other_worker.find_refusal(place(DISK)) is not None


def test_a_worker_waits_while_another_one_tries_the_default_stack(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for stack in (DISK, XFS):
        ledger.note_failure(place(stack), BROKEN)
    monkeypatch.setattr(subject, "_PROBE_LIMIT_S", 0.1)
    waits = pytest.raises(HostError, match="probe-lock")
    with ledger.probing(place(NVDIMM)), waits, Ledger(tmp_path, DEFAULT).probing(place(NVDIMM)):
        pass


def test_the_paragraph_says_where_the_logs_are_and_what_helps_against_the_error(ledger: Ledger) -> None:
    error = GuestError("the guest did not answer SSH\nfor a while")
    error.logs = "artifacts/not-set-up/debian_6.12_x-1"
    ledger.note_failure(place(DISK), error)
    ledger.note_hopeless(place(DEFAULT), error)
    refusal = ledger.find_refusal(place(XFS))
    assert refusal is not None
    assert refusal.logs == error.logs
    assert "  came back GuestError: the guest did not answer SSH\n            for a while\n" in refusal.told
    assert "  look at   artifacts/not-set-up/debian_6.12_x-1: console.log, qemu.stderr (QEMU's words), qmp.jsonl, and" in refusal.told
    assert "python -m harness shell --booted" in refusal.told


def test_an_error_of_the_computer_is_answered_with_the_doctor(ledger: Ledger) -> None:
    ledger.note_hopeless(place(DEFAULT), HostError("no room"))
    assert "python -m harness doctor" in (getattr(ledger.find_refusal(place(XFS)), "told", ""))


def test_a_second_look_at_a_kernel_that_was_given_up_says_the_same(ledger: Ledger) -> None:
    ledger.note_failure(place(DISK), BROKEN)
    ledger.note_hopeless(place(DEFAULT), BROKEN)
    first = ledger.find_refusal(place(XFS))
    ledger.note_failure(place(replace(NVDIMM, ivshmem=True)), BROKEN)
    ledger.note_hopeless(place(DEFAULT), HostError("another worker, later"))
    assert ledger.find_refusal(place(XFS)) == first
