"""The agent in a real guest: what only a guest has (DAX, regions, physical frames, pins), and how fast it is."""

import time
from collections.abc import Iterator

import pytest

from harness import ops as op
from harness.host.deadline import Deadline
from harness.image.catalog import KernelChoice
from harness.lease.boot import booted_guest
from harness.lease.booted import BootedGuest
from harness.lease.host_in_use import find_host
from harness.lease.options import GuestOptions
from harness.model.filesystems import Filesystem
from harness.model.kinds import DaxOption, RegionKind
from harness.model.outcome import How, Observation
from harness.model.stack import Disk, Mount, Namespace, Region, StorageStack, Volume
from harness.ops import Program, Step
from harness.ops.tag import tag_bytes
from harness.sizes import MIB

REGION = Region("main", RegionKind.E820)
DISK = Volume("target", Disk("disk"), Mount(Filesystem.EXT4, None))
STACK = StorageStack((Volume("main", Namespace(REGION), Mount(Filesystem.EXT4, DaxOption.ALWAYS)), DISK))
RDWR = (op.OpenFlag.RDWR, op.OpenFlag.CREAT)


@pytest.fixture(scope="module", params=["debian_6.12", "debian_6.1"])
def booted(request: pytest.FixtureRequest) -> Iterator[BootedGuest]:
    with booted_guest(find_host(), KernelChoice(request.param), STACK, print, GuestOptions()) as guest:
        yield guest


@pytest.fixture
def guest(booted: BootedGuest) -> BootedGuest:
    booted.refresh()
    return booted


def run(guest: BootedGuest, *steps: Step | op.Operation) -> tuple[Observation, ...]:
    program = Program(tuple(s if isinstance(s, Step) else Step(s) for s in steps))
    return guest.session.run(program, blocked_s=0.5)


def test_a_pipe_holds_a_copy_of_a_dax_page_and_an_alias_of_a_mapped_one(guest: BootedGuest) -> None:
    seen = run(
        guest,
        op.Open("f", "a", RDWR), op.Pwrite("f", 0, 4096), op.Pipe("p"), op.Splice("f", "p", 4096, source_offset=0), op.Pwrite("f", 0, 4096),
        op.Read("p", 4096), op.Mmap("m", 4096, "f"), op.Vmsplice("p", "m", 0, 4096), op.Pwrite("f", 0, 4096), op.Read("p", 4096),
    )  # fmt: skip
    assert seen[5].data_bytes() == tag_bytes(2, 0, 4096)
    assert seen[9].data_bytes() == tag_bytes(9, 0, 4096)


def test_a_truncate_waits_for_a_pinned_page_and_goes_on_when_it_is_let_go(guest: BootedGuest) -> None:
    seen = run(
        guest,
        op.Open("f", "a", RDWR), op.Pwrite("f", 0, 8192), op.Mmap("m", 8192, "f"), op.Load("m", 0, 1), op.Pipe("p"),
        op.Vmsplice("p", "m", 0, 4096), op.Fork("b"), Step(op.Ftruncate("f", 0), process="b", start="t"), op.Read("p", 4096), op.Join("t"),
    )  # fmt: skip
    assert (seen[7].how, seen[7].attribute("syscall")) == (How.BLOCKED, 77)
    assert (seen[9].how, seen[9].value) == (How.RETURNED, 0)


def test_a_large_mapping_is_made_of_two_mebibyte_pages(guest: BootedGuest) -> None:
    seen = run(
        guest,
        op.Open("f", "a", RDWR), op.Fallocate("f", 0, 4 * MIB), op.Mmap("m", 4 * MIB, "f", align=2 * MIB), op.Store("m", 0, 1),
        op.Mincore("m"), op.Store("m", 2 * MIB, 2 * MIB),
    )  # fmt: skip
    assert (seen[4].resident or "").count("1") == 512
    assert [seen[3].minor_faults, seen[5].minor_faults] == [1, 1]


def test_long_term_pins_of_a_dax_mapping_are_refused_by_name(guest: BootedGuest) -> None:
    anonymous = (op.MapFlag.PRIVATE, op.MapFlag.ANONYMOUS)
    seen = run(
        guest,
        op.Open("f", "a", RDWR), op.Pwrite("f", 0, 65536), op.Mmap("m", 65536, "f"), op.IoUringSetup("r"), op.IoUringRegister("r", "m"),
        op.XdpSocket("x"), op.XdpUmem("x", "m"), op.Mmap("a", 65536, flags=anonymous), op.XdpUmem("x", "a"), op.IoUringRegister("r", "a"),
    )  # fmt: skip
    assert [seen[4].errno, seen[6].errno] == ["EOPNOTSUPP", "EOPNOTSUPP"]
    assert [seen[8].how, seen[9].how] == [How.RETURNED, How.RETURNED]


def test_a_signal_ends_a_program_and_neither_the_agent_nor_the_mount(guest: BootedGuest) -> None:
    steps = (op.Open("f", "a", RDWR), op.Ftruncate("f", 100), op.Mmap("m", 8192, "f"), op.Load("m", 4096, 1))
    assert run(guest, *steps)[3].signal == "SIGBUS"
    guest.refresh()
    assert run(guest, *steps)[3].signal == "SIGBUS"


def test_a_program_that_pins_pages_leaves_a_file_system_that_can_be_made_anew(guest: BootedGuest) -> None:
    run(guest, op.Open("f", "a", RDWR), op.Pwrite("f", 0, 8192), op.Mmap("m", 8192, "f"), op.Pipe("p"), op.Vmsplice("p", "m", 0, 8192))
    assert guest.refresh().volume("main").dax


def test_simple_operations_run_by_the_hundred_a_second(guest: BootedGuest) -> None:
    steps = [op.Open("f", "a", RDWR)] + [make for n in range(500) for make in (op.Pwrite("f", 8 * n, 100), op.Pread("f", 8 * n, 100))]
    started_s = time.monotonic()
    run(guest, *steps)
    print(f"{len(steps) / (time.monotonic() - started_s):.0f} operations a second")


def test_the_kernel_log_goes_on_where_it_was_left(guest: BootedGuest) -> None:
    _, after = guest.session.kernel_log()
    run(guest, op.DropCaches())
    lines, _ = guest.session.kernel_log(after)
    assert [line.text for line in lines if "drop_caches" in line.text]


def test_what_the_guest_says_of_time_and_commands_arrives(guest: BootedGuest) -> None:
    from harness.guest.link import GuestCommand

    (output,) = guest.session.commands([GuestCommand(("uname", "-r"))], Deadline.after(300))
    assert output.stdout.strip() == guest.description.release
