"""A dax device on hand-written observations: what it allows and refuses, and what nobody knows of it."""

from typing import Any

import pytest

from harness.model.facts import Env
from harness.model.outcome import Observation
from harness.model.verdict import Verdict
from harness.ops import (
    Advice,
    AllocateFlag,
    CopyFileRange,
    Fallocate,
    Fdatasync,
    Fsync,
    Ftruncate,
    FutexWait,
    GetXflags,
    IoUringRegister,
    IoUringSetup,
    Load,
    Lseek,
    Madvise,
    MapFlag,
    Mmap,
    MountVolume,
    Mprotect,
    Msync,
    Munmap,
    Open,
    OpenFlag,
    Operation,
    Pagemap,
    Pipe,
    Pread,
    Protection,
    Pwrite,
    Read,
    Sendfile,
    Smaps,
    Splice,
    Statx,
    Store,
    SyncFlag,
    Whence,
    Write,
    XdpSocket,
    XdpUmem,
)
from harness.sizes import GIB, KIB, MIB
from tests.unit.model.stacks import REGION_START, Row, env, failed, judged, returned, signalled, tag, volume, with_faults, zero

SIZE = 254 * MIB


def device(align: int, release: str = "6.12.95+deb13-cloud-amd64") -> Env:
    own: dict[str, Any] = {
        "size_bytes": SIZE,
        "align_bytes": align,
        "logical_block_bytes": 1,
        "queue_dax": False,
        "namespace_mode": "devdax",
    }
    return env(volume(dax=True, filesystem=None, device="/dev/dax0.0", **own), release=release)


SMALL, LARGE = device(4 * KIB), device(2 * MIB)
OLD = device(2 * MIB, release="6.1.0-40-cloud-amd64")
OPENED: list[Row] = [(Open("d", "a", (OpenFlag.RDWR,)), returned())]
READ, BOTH = (Protection.READ,), (Protection.READ, Protection.WRITE)


def at(address: int) -> Observation:
    return returned(attributes=(("address_mod_2mib", address),))


MAPPED: list[Row] = [*OPENED, (Mmap("m", 4 * MIB, "d"), at(0))]


def verdicts(where: Env, *rows: Row) -> list[Verdict]:
    return [step.verdict for step in judged(where, *rows).steps]


def last(where: Env, *rows: Row) -> Verdict:
    found = verdicts(where, *rows)
    assert set(found[:-1]) <= {Verdict.CONFORMS}
    return found[-1]


@pytest.mark.parametrize(
    ("call", "errno"),
    [
        (Open("x", "a", (OpenFlag.RDWR, OpenFlag.DIRECT)), "EINVAL"),
        (Read("d", 0), "EINVAL"),
        (Write("d", 8), "EINVAL"),
        (Pread("d", 0, 8), "EINVAL"),
        (Pwrite("d", 0, 8), "EINVAL"),
        (Fsync("d"), "EINVAL"),
        (Fdatasync("d"), "EINVAL"),
        (Ftruncate("d", 4096), "EINVAL"),
        (Fallocate("d", 0, 4096), "ENODEV"),
        (Fallocate("d", 0, 4096, (AllocateFlag.PUNCH_HOLE, AllocateFlag.KEEP_SIZE)), "ENODEV"),
        (GetXflags("d"), "ENOTTY"),
        (Sendfile("d", "p", 4096), "EINVAL"),
        (Splice("d", "p", 4096), "EINVAL"),
        (Splice("p", "d", 4096), "EINVAL"),
        (CopyFileRange("d", "d", 4096), "EINVAL"),
        (MountVolume(), "ENOTBLK"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.call,
)
def test_what_is_no_mapping_is_refused(call: Operation, errno: str) -> None:
    rows = [*OPENED, (Pipe("p"), returned())]
    assert last(SMALL, *rows, (call, failed(errno))) is Verdict.CONFORMS
    assert last(SMALL, *rows, (call, failed("EBADF"))) is Verdict.DEVIATES
    assert last(SMALL, *rows, (call, returned())) is Verdict.DEVIATES


def test_it_has_no_size_and_no_position_and_is_dax() -> None:
    for whence, offset in ((Whence.SET, 4096), (Whence.END, 0), (Whence.HOLE, 1)):
        assert last(SMALL, *OPENED, (Lseek("d", offset, whence), returned(0))) is Verdict.CONFORMS
    assert last(SMALL, *OPENED, (Lseek("d", 4096), returned(4096))) is Verdict.DEVIATES
    shown = (("size", 0), ("dax", 1), ("dio_supported", 0), ("dio_mem_align", 0), ("dio_offset_align", 0))
    assert last(SMALL, *OPENED, (Statx("d"), returned(attributes=shown))) is Verdict.CONFORMS
    for wrong in (("size", SIZE), ("dax", 0), ("dio_supported", 1), ("dio_mem_align", 512)):
        attributes = tuple((dict(shown) | dict([wrong])).items())
        assert last(SMALL, *OPENED, (Statx("d"), returned(attributes=attributes))) is Verdict.DEVIATES


@pytest.mark.parametrize(
    ("call", "where"),
    [
        (Mmap("m", 2 * MIB, "d", flags=(MapFlag.PRIVATE,)), SMALL),
        (Mmap("m", 4 * KIB, "d"), LARGE),
        (Mmap("m", 4 * MIB, "d", offset=4 * KIB), LARGE),
        (Mmap("m", 2 * MIB, "d", align=2 * MIB, align_shift=4 * KIB), LARGE),
    ],
    ids=["private", "length", "offset", "address"],
)
def test_a_mapping_is_shared_and_in_whole_units(call: Mmap, where: Env) -> None:
    assert last(where, *OPENED, (call, failed("EINVAL"))) is Verdict.CONFORMS
    assert last(where, *OPENED, (call, at(0))) is Verdict.DEVIATES
    if where is LARGE:
        assert last(SMALL, *OPENED, (call, at(4 * KIB))) is Verdict.CONFORMS


def test_a_length_is_rounded_up_to_whole_pages_first() -> None:
    for where, length in ((SMALL, 100), (LARGE, 2 * MIB - 1)):
        assert last(where, *OPENED, (Mmap("m", length, "d"), at(0))) is Verdict.CONFORMS
        assert last(where, *OPENED, (Mmap("m", length, "d"), failed("EINVAL"))) is Verdict.DEVIATES


def test_map_sync_is_taken_of_every_mapping_and_shows_in_smaps() -> None:
    shown = (("vm_flags", "rd wr sh sf"), ("kernel_page_size", 2 * MIB))
    for flags in ((MapFlag.SHARED_VALIDATE, MapFlag.SYNC), (MapFlag.SHARED, MapFlag.SYNC)):
        rows = [*OPENED, (Mmap("m", 2 * MIB, "d", flags=flags), at(0))]
        assert last(LARGE, *rows, (Smaps("m"), returned(attributes=shown))) is Verdict.CONFORMS
        assert last(SMALL, *rows, (Smaps("m"), returned(attributes=shown))) is Verdict.DEVIATES


def test_a_unit_takes_one_fault_and_a_store_after_a_load_none() -> None:
    load, store = Load("m", 0, 8 * KIB), Store("m", 0, 8 * KIB)
    loaded = returned(8 * KIB, zero(8 * KIB))
    for where, faults in ((SMALL, 2), (LARGE, 1)):
        rows = [*MAPPED, (load, with_faults(loaded, faults))]
        assert last(where, *rows, (store, with_faults(returned(8 * KIB), 0))) is Verdict.CONFORMS
        assert last(where, *rows, (store, with_faults(returned(8 * KIB), 1))) is Verdict.DEVIATES
        assert last(where, *MAPPED, (load, with_faults(loaded, 3 - faults))) is Verdict.DEVIATES


def test_its_frames_lie_in_the_region_and_it_ends_where_its_size_says() -> None:
    first = REGION_START // 4096
    rows: list[Row] = [*OPENED, (Mmap("m", 256 * MIB, "d"), at(0)), (Store("m", 0, 8), with_faults(returned(8), 1))]
    assert last(LARGE, *rows, (Pagemap("m", 0, 4096), returned(frames=(first,)))) is Verdict.CONFORMS
    assert last(LARGE, *rows, (Pagemap("m", 0, 4096), returned(frames=(first - 1,)))) is Verdict.DEVIATES
    assert last(LARGE, *rows, (Load("m", SIZE, 8), signalled("SIGBUS"))) is Verdict.CONFORMS
    assert last(LARGE, *rows, (Load("m", SIZE - 8, 8), signalled("SIGBUS"))) is Verdict.DEVIATES
    behind: Row = (Mmap("n", 2 * MIB, "d", offset=GIB), at(0))
    assert last(LARGE, *OPENED, behind, (FutexWait("n", 0, 0), failed("EFAULT"))) is Verdict.CONFORMS


def test_it_is_not_synced_and_gives_no_room_back() -> None:
    for call, errno in ((Msync("m"), "EINVAL"), (Madvise("m", Advice.REMOVE), "ENODEV")):
        assert last(SMALL, *MAPPED, (call, failed(errno))) is Verdict.CONFORMS
        assert last(SMALL, *MAPPED, (call, returned())) is Verdict.DEVIATES
    assert last(SMALL, *MAPPED, (Msync("m", flags=(SyncFlag.ASYNC,)), returned())) is Verdict.CONFORMS


@pytest.mark.parametrize(
    "call",
    [
        Munmap("m", 4 * KIB, 4 * KIB),
        Munmap("m", 0, 4 * KIB),
        Munmap("m", 2 * MIB + 4 * KIB),
        Mprotect("m", READ, 0, 4 * KIB),
        Madvise("m", Advice.NOHUGEPAGE, 0, 4 * KIB),
    ],
    ids=["munmap inside", "munmap begin", "munmap end", "mprotect", "madvise"],
)
def test_a_unit_is_not_split(call: Operation) -> None:
    assert last(LARGE, *MAPPED, (call, failed("EINVAL"))) is Verdict.CONFORMS
    assert last(LARGE, *MAPPED, (call, returned())) is Verdict.DEVIATES
    assert last(SMALL, *MAPPED, (call, failed("EINVAL"))) in {Verdict.DEVIATES, Verdict.UNDETERMINED}


def test_advice_and_protection_that_change_nothing_split_nothing() -> None:
    for call in (Madvise("m", Advice.HUGEPAGE, 0, 4 * KIB), Mprotect("m", BOTH, 0, 4 * KIB), Mprotect("m", READ, 0, 0)):
        assert last(LARGE, *MAPPED, (call, returned())) is Verdict.CONFORMS
        assert last(LARGE, *MAPPED, (call, failed("EINVAL"))) is Verdict.DEVIATES


def test_a_mapping_that_lost_its_end_is_shorter() -> None:
    stored: Row = (Store("m", 0, 4 * MIB), with_faults(returned(4 * MIB), 2))
    rows = [*MAPPED, stored, (Munmap("m", 2 * MIB), returned())]
    assert last(LARGE, *rows, (Load("m", 2 * MIB - 8, 8), with_faults(returned(8, tag(8, 3, 2 * MIB - 8)), 0))) is Verdict.CONFORMS
    assert last(LARGE, *rows, (Load("m", 2 * MIB, 8), signalled("SIGSEGV"))) is Verdict.CONFORMS
    assert last(LARGE, *rows, (Load("m", 2 * MIB, 8), signalled("SIGBUS"))) is Verdict.DEVIATES
    for call in (Munmap("m", 1), Munmap("m", 0, 0), Mprotect("m", READ, 1)):
        assert last(LARGE, *MAPPED, (call, failed("EINVAL"))) is Verdict.CONFORMS
        assert last(LARGE, *MAPPED, (call, returned())) is Verdict.DEVIATES


def test_where_huge_pages_are_forbidden_units_of_2_mib_are_out_of_reach() -> None:
    rows = [*MAPPED, (Store("m", 0, 8), with_faults(returned(8), 1)), (Madvise("m", Advice.NOHUGEPAGE), returned())]
    there: Row = (Load("m", 8, 8), with_faults(returned(8, zero(8)), 0))
    assert last(LARGE, *rows, there) is Verdict.CONFORMS
    assert last(LARGE, *rows, (Load("m", 2 * MIB, 8), signalled("SIGBUS"))) is Verdict.CONFORMS
    assert last(SMALL, *rows, (Load("m", 2 * MIB, 8), signalled("SIGBUS"))) is Verdict.DEVIATES


def test_an_offset_inside_a_unit_maps_the_unit_from_its_begin() -> None:
    stored: Row = (Store("m", 0, 8 * KIB), with_faults(returned(8 * KIB), 1))
    rows = [*MAPPED, stored, (Mmap("n", 2 * MIB, "d", offset=4 * KIB, align=2 * MIB), at(0))]
    for source, verdict in ((0, Verdict.CONFORMS), (4 * KIB, Verdict.DEVIATES)):
        assert last(LARGE, *rows, (Load("n", 0, 8), with_faults(returned(8, tag(8, 3, source)), 1))) is verdict


def test_it_can_be_pinned_for_long_but_by_io_uring_up_to_6_4() -> None:
    ring, xdp = (IoUringSetup("r"), returned()), (XdpSocket("x"), returned())
    register, umem = IoUringRegister("r", "m"), XdpUmem("x", "m")
    assert last(LARGE, *MAPPED, ring, (register, returned())) is Verdict.CONFORMS
    assert last(LARGE, *MAPPED, ring, (register, failed("EOPNOTSUPP"))) is Verdict.DEVIATES
    assert last(OLD, *MAPPED, ring, (register, returned())) is Verdict.DEVIATES
    refused: list[Row] = [*MAPPED, ring, (register, failed("EOPNOTSUPP"))]
    for faults in (0, 1):  # the pages came in before it was refused, or not
        assert last(OLD, *refused, (Load("m", 0, 8), with_faults(returned(8, zero(8)), faults))) is Verdict.CONFORMS
    for where in (LARGE, OLD):
        assert last(where, *MAPPED, xdp, (umem, returned())) is Verdict.CONFORMS
        assert last(where, *MAPPED, xdp, (umem, failed("EOPNOTSUPP"))) is Verdict.DEVIATES


@pytest.mark.parametrize(
    ("where", "rows", "reason"),
    [
        (LARGE, [(Mmap("n", 2 * MIB, "d", offset=4 * KIB), at(0))], "whether the address of such a mapping of a dax device is a multiple"),
        (LARGE, [(Mmap("n", 2 * MIB, "d", offset=-4 * MIB), at(0))], "a multiple of its units is not known to the model"),
        (LARGE, [(Mmap("n", 2 * MIB, "d", align=4 * KIB), at(0))], "a multiple of its units is not known to the model"),
        (
            LARGE,
            [(Mmap("n", 2 * MIB, "d", offset=SIZE - 4 * KIB, align=2 * MIB), at(0))],
            "an offset inside a unit of a dax device in a mapping that reaches behind its end",
        ),
        (SMALL, [(Munmap("m", 4 * KIB, 4 * KIB), returned())], "a mapping that has lost its begin, or a part of its middle"),
        (SMALL, [(Mprotect("m", READ, 0, 4 * KIB), returned())], "a mapping whose parts have different protections"),
        (SMALL, [(Madvise("m", Advice.NOHUGEPAGE, 0, 4 * KIB), returned())], "a dax device in whose parts different advice is in force"),
        (SMALL, [(Sendfile("d", "d", 0), returned())], "sending nothing from or to a dax device"),
        (
            LARGE,
            [(Madvise("m", Advice.NOHUGEPAGE), returned()), (FutexWait("m", 0, 0), failed("EFAULT"))],
            "how far a dax device can be reached of which no more may be mapped",
        ),
    ],
)
def test_what_nobody_knows_is_undetermined_and_says_why(where: Env, rows: list[Row], reason: str) -> None:
    step = judged(where, *MAPPED, *rows).steps[-1]
    assert step.verdict is Verdict.UNDETERMINED
    assert reason in step.reason
