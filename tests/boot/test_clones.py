"""Clones of real guests: each is a guest of its own, and what they come from stays as it was."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from harness.case.plan import named_stacks
from harness.errors import GuestError
from harness.guest.link import GuestCommand
from harness.host.deadline import Deadline
from harness.image.bundle import guest_image
from harness.image.catalog import KernelChoice
from harness.lease.booted import BootedGuest, ways_in
from harness.lease.clone import Cloner
from harness.lease.guest import Auditing
from harness.lease.host_in_use import find_host
from harness.lease.options import GuestOptions
from harness.lease.template import find_damage
from harness.machine.ending import EndKind
from harness.model.outcome import RunKind
from harness.model.stack import StorageStack
from harness.ops import Fsync, Open, OpenFlag, Pread, Program, Pwrite, Step
from harness.ops.tag import tag_bytes
from harness.record.item import Lifecycle
from harness.sizes import MIB

pytestmark = pytest.mark.boot

KERNEL = "debian_6.12"
STACK = named_stacks()["e820-fsdax-ext4-dax_always"]
WRITE = Program((Step(Open("f", "a", (OpenFlag.RDWR, OpenFlag.CREAT))), Step(Pwrite("f", 0, MIB)), Step(Fsync("f"))))
READ = Program((Step(Open("f", "a", (OpenFlag.RDWR, OpenFlag.CREAT))), Step(Pread("f", 0, 4096))))


@pytest.fixture(scope="module")
def cloner() -> Cloner:
    return Cloner(KernelChoice, print)


@pytest.fixture
def two(cloner: Cloner) -> Iterator[tuple[BootedGuest, BootedGuest]]:
    """Two clones of one stack, alive together, each with its stack ready."""
    with cloner.clone(STACK, KERNEL) as first, cloner.clone(STACK, KERNEL) as second:
        for guest in (first, second):
            guest.refresh()
        yield first, second


def said(guest: BootedGuest, *argv: str) -> str:
    (output,) = guest.session.commands([GuestCommand(argv)])
    return output.stdout.strip()


def test_what_one_clone_writes_no_other_sees(two: tuple[BootedGuest, BootedGuest]) -> None:
    first, second = two
    assert first.session.run(WRITE)[1].value == MIB
    assert second.session.run(READ)[1].value == 0
    (run,) = first.session.run(READ)[1].data or ()
    assert run.kind is RunKind.TAG


def test_clones_are_restored_and_have_ports_clocks_and_random_numbers_of_their_own(two: tuple[BootedGuest, BootedGuest]) -> None:
    first, second = two
    assert {guest.description.lifecycle for guest in two} == {Lifecycle.RESTORED}
    assert first.machine.ssh_port != second.machine.ssh_port
    for guest in two:
        assert abs(int(said(guest, "date", "+%s")) - time.time()) < 5
    drawn = [said(guest, "od", "-An", "-tx1", "-N16", "/dev/urandom") for guest in two]
    assert drawn[0] != drawn[1]


def test_clones_share_the_pages_of_their_template(two: tuple[BootedGuest, BootedGuest]) -> None:
    usage = [psutil.Process(guest.machine.pid).memory_full_info() for guest in two]
    # What neither has written is in memory once: a good part of what each has mapped.
    assert all(info.pss < 0.9 * info.rss for info in usage)


def test_a_template_is_what_it_was_after_its_clones_have_written(cloner: Cloner) -> None:
    template = cloner.templates.stack_template(find_host(), guest_image(KernelChoice(KERNEL), print), STACK)
    with cloner.clone(STACK, KERNEL) as guest:
        guest.refresh()
        guest.session.run(WRITE)
    assert find_damage(template) is None


def test_a_clone_that_is_used_again_gets_a_fresh_file_system(cloner: Cloner) -> None:
    with cloner.clone(STACK, KERNEL) as guest:
        first = guest.refresh()
        guest.session.run(WRITE)
        again = guest.refresh()
        assert guest.session.run(READ)[1].value == 0
    assert [v.mount_options for v in first.volumes] == [v.mount_options for v in again.volumes]


def test_memory_that_is_to_outlive_its_guest_holds_what_was_written_to_the_region(tmp_path: Path) -> None:
    keeper = Cloner(KernelChoice, print, GuestOptions(keep=tmp_path))
    with keeper.clone(STACK, KERNEL) as guest:
        guest.refresh()
        guest.session.run(WRITE)
        (placement,) = guest.machine.placements
    with (tmp_path / "ram").open("rb") as ram:
        ram.seek(placement.start)
        region = ram.read(placement.size_bytes)
    assert tag_bytes(2, 0, 4096) in region


def test_a_person_gets_in_with_the_line_that_is_printed(cloner: Cloner) -> None:
    with cloner.clone(STACK, KERNEL) as guest:
        (line,) = ways_in(guest)
        known = guest.machine.folder / "known_hosts"
        assert f"-p {guest.machine.ssh_port} " in line
        assert f"UserKnownHostsFile={known}" in line
        assert known.read_text() == f"[127.0.0.1]:{guest.machine.ssh_port} {guest.address.host_public_key}\n"


def test_a_guest_that_is_gone_is_diagnosed_in_a_moment(cloner: Cloner) -> None:
    with cloner.clone(STACK, KERNEL) as guest:
        guest.refresh()
        psutil.Process(guest.machine.pid).kill()
        done = guest.run(READ, Auditing.FULL)
        assert isinstance(done.error, GuestError)
        assert done.observations is None
        assert done.ending.kind is EndKind.QEMU_DIED
        assert "the kernel's log cannot be read" in done.kernel_log
        assert "no more" in guest.machine.diagnose(Deadline.after(60))


@pytest.mark.parametrize(
    "stack",
    [
        named_stacks()["nvdimm-fsdax_dev-ext4-dax_always"],
        named_stacks()["nvdimm-sector-node"],
        named_stacks()["e820-devdax-2MiB"],
        named_stacks()["disk-xfs"],
        replace(STACK, ivshmem=True),
        replace(STACK, mount_in_program=True),
    ],
    ids=StorageStack.describe,
)
def test_every_kind_of_stack_can_be_cloned(cloner: Cloner, stack: StorageStack) -> None:
    with cloner.clone(stack, KERNEL) as guest:
        assert guest.description.lifecycle is Lifecycle.RESTORED, guest.description.lifecycle_note
        assert guest.refresh().volumes
