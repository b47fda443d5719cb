"""What calls are refused with, and what they do at the borders: each answer is allowed, another one deviates."""

import pytest

from harness.model.facts import Env
from harness.model.outcome import Observation
from harness.model.verdict import Verdict
from harness.ops import (
    Advice,
    AllocateFlag,
    Close,
    CopyFileRange,
    DropCaches,
    Fallocate,
    Fork,
    Ftruncate,
    FutexWait,
    GetXflags,
    IoUringRegister,
    IoUringSetup,
    Load,
    Lseek,
    Madvise,
    MapFlag,
    Meminfo,
    Mincore,
    Mlock,
    Mmap,
    MountVolume,
    Mprotect,
    Msync,
    Open,
    OpenFlag,
    Operation,
    Pipe,
    Pread,
    Protection,
    Pwrite,
    Read,
    Recv,
    RwFlag,
    Send,
    Sendfile,
    SendFlag,
    SetPipeSize,
    Splice,
    SpliceFlag,
    Step,
    Store,
    SyncFlag,
    TcpPair,
    UmountVolume,
    UnixPair,
    Vmsplice,
    Whence,
    Write,
    XdpUmem,
)
from harness.sizes import KIB, MIB
from tests.unit.model.stacks import (
    DAX,
    NODE,
    PAGE_CACHE,
    Row,
    blocked,
    env,
    failed,
    judged,
    returned,
    signalled,
    tag,
    volume,
    with_faults,
    zero,
)

RDWR = (OpenFlag.RDWR, OpenFlag.CREAT)
READ_ONLY = (Protection.READ,)
OPEN: Row = (Open("f", "a", RDWR), returned())
FILE: list[Row] = [OPEN, (Pwrite("f", 0, 16 * KIB), returned(16 * KIB))]
MAPPED: list[Row] = [*FILE, (Mmap("m", 16 * KIB, "f"), returned())]
LOCKED: list[Row] = [*FILE, (Mmap("m", 16 * KIB, "f", flags=(MapFlag.SHARED, MapFlag.LOCKED)), returned())]
CLOSED: list[Row] = [*MAPPED, (Close("f"), returned())]
PIPE: Row = (Pipe("p", nonblock=True), returned())
ENDLESS: list[Row] = [PIPE, (Close("p", "read"), returned())]
READER: list[Row] = [*FILE, (Open("r", "a"), returned()), (Mmap("m", 16 * KIB, "r", protection=READ_ONLY), returned())]
WRITE_ONLY: list[Row] = [*FILE, (Mmap("m", 4096, "f", protection=(Protection.WRITE,)), returned())]
OLDEST = "5.10.0-46-cloud-amd64"
DAX_OLDEST, CACHE_OLDEST = env(volume(dax=True), release=OLDEST), env(volume(dax=False), release=OLDEST)
#: A mapping of 16 KiB of which the last 12 lie behind the end of its file.
SHORT: list[Row] = [
    *FILE,
    (Open("s", "b", RDWR), returned()),
    (Pwrite("s", 0, 4096), returned(4096)),
    (Mmap("m", 16 * KIB, "s"), returned()),
]
XFS = env(volume(dax=True, filesystem="xfs"))
XFS_CACHE = env(volume(dax=False, filesystem="xfs"))
MOST = (2**32 - 1) * 4096
APPEND: list[Row] = [(Open("f", "a", (*RDWR, OpenFlag.APPEND)), returned())]
PUNCH, ZERO, KEEP = AllocateFlag.PUNCH_HOLE, AllocateFlag.ZERO_RANGE, AllocateFlag.KEEP_SIZE


@pytest.mark.parametrize(
    ("where", "rows", "op", "allowed"),
    [
        # advice that the kernel does not know, whatever else is wrong
        (DAX_OLDEST, MAPPED, Madvise("m", Advice.POPULATE_READ), failed("EINVAL")),
        (DAX_OLDEST, MAPPED, Madvise("m", Advice.POPULATE_WRITE, length=0), failed("EINVAL")),
        (DAX, MAPPED, Madvise("m", Advice.POPULATE_WRITE), returned(0)),
        # a buffer that ends in the midst of a page of the file
        (PAGE_CACHE, SHORT, Pwrite("f", 0, 200, from_="m", from_offset=4000), returned(96)),
        (CACHE_OLDEST, SHORT, Pwrite("f", 0, 200, from_="m", from_offset=4000), failed("EFAULT")),
        (CACHE_OLDEST, SHORT, Pwrite("f", 4000, 4196, from_="m"), returned(96)),
        (PAGE_CACHE, SHORT, Pwrite("f", 4000, 4196, from_="m"), returned(4096)),
        # closed descriptors
        (DAX, CLOSED, Close("f"), failed("EBADF")),
        (DAX, CLOSED, Pread("f", 0, 1), failed("EBADF")),
        (DAX, CLOSED, Mmap("n", 4096, "f"), failed("EBADF")),
        (DAX, [*CLOSED, PIPE], Splice("f", "p", 0), returned(0)),
        (DAX, [PIPE, (Close("p", "read"), returned())], SetPipeSize("p", 4096), failed("EBADF")),
        (DAX, [PIPE, (Close("p"), returned())], Close("p", "write"), failed("EBADF")),
        (DAX, [PIPE, (Pipe("q", nonblock=True), returned()), (Close("q", "read"), returned())], Splice("q", "p", 1), failed("EBADF")),
        # pipes
        (DAX, ENDLESS, Write("p", 1), failed("EPIPE")),
        (DAX, ENDLESS, Write("p", 0), returned(0)),
        (DAX, [PIPE], Read("p", 0), returned(0)),
        (DAX, [PIPE], SetPipeSize("p", 0), returned(4096)),
        (DAX, [PIPE], SetPipeSize("p", -1), failed("EINVAL")),
        (DAX, [PIPE], SetPipeSize("p", 2 * MIB), returned(2 * MIB)),
        # sockets
        (DAX, [(UnixPair("u"), returned()), (Close("u", "read"), returned())], Send("u", 1), failed("EPIPE")),
        (DAX, [(UnixPair("u"), returned()), (Close("u", "write"), returned())], Recv("u", 1), returned(0)),
        (DAX, [(UnixPair("u"), returned())], Send("u", 0), returned(0)),
        (DAX, [*MAPPED, (UnixPair("u"), returned())], XdpUmem("u", "m"), failed("EOPNOTSUPP")),
        (DAX, [*MAPPED, (TcpPair("t"), returned())], XdpUmem("t", "m"), failed("ENOPROTOOPT")),
        # positions and sizes
        (DAX, FILE, Lseek("f", -1), failed("EINVAL")),
        (DAX, FILE, Lseek("f", -20000, Whence.END), failed("EINVAL")),
        (DAX, FILE, Lseek("f", MOST + 1), failed("EINVAL")),
        (NODE, [OPEN], Lseek("f", 1, Whence.END), failed("EINVAL")),
        (NODE, [OPEN, (Lseek("f", 0, Whence.END), returned(256 * MIB))], Sendfile("f", "f", 1, 0), failed("ENOSPC")),
        (NODE, [OPEN], Lseek("f", 0, Whence.DATA), failed("EINVAL")),
        (DAX, [*FILE, PIPE], Sendfile("f", "p", 4096, 2**63 - 1), failed("EINVAL")),
        (DAX, [*FILE, PIPE], Sendfile("f", "p", 4096, MOST), failed("EOVERFLOW")),
        (DAX, [*FILE, PIPE], Sendfile("f", "p", 0, MOST), returned(0)),
        (DAX, [*FILE, PIPE], Sendfile("f", "p", 0, MOST + 1), failed("EOVERFLOW")),
        (XFS, [*FILE, PIPE], Sendfile("f", "p", 4096, MOST), returned(0)),
        (DAX, [*FILE, PIPE], Splice("f", "p", 1, source_offset=2**63 - 1), failed("EINVAL")),
        (DAX, [*FILE, PIPE, (Write("p", 100), returned(100))], Splice("p", "f", 100, target_offset=2**63 - 50), failed("EINVAL")),
        (DAX, FILE, Lseek("f", 16 * KIB, Whence.HOLE), failed("ENXIO")),
        (DAX, FILE, Lseek("f", 0, Whence.DATA), returned(0)),
        (DAX, [OPEN, (Ftruncate("f", 8192), returned())], Lseek("f", 0, Whence.DATA), failed("ENXIO")),
        (DAX, FILE, Lseek("f", 0, Whence.HOLE), returned(16 * KIB)),
        (DAX, FILE, Pwrite("f", MOST, 1), failed("EFBIG")),
        (XFS, FILE, Pwrite("f", MOST, 1), returned(1)),
        (DAX, FILE, Ftruncate("f", MOST + 1), failed("EFBIG")),
        (DAX, APPEND, Write("f", 0), returned(0)),
        (NODE, APPEND, Pwrite("f", 4096, 10), returned(10)),
        # allocation
        (DAX, FILE, Fallocate("f", 0, 1, (PUNCH, ZERO, KEEP)), failed("EOPNOTSUPP")),
        (DAX, FILE, Fallocate("f", MOST, 1), failed("EFBIG")),
        (NODE, [OPEN], Fallocate("f", 0, 4096), failed("EOPNOTSUPP")),
        (NODE, [OPEN], Fallocate("f", 1, 4096, (ZERO, KEEP)), failed("EINVAL")),
        (NODE, [OPEN], Fallocate("f", 0, 4096, (ZERO, KEEP)), returned(0)),
        (NODE, [OPEN], GetXflags("f"), failed("ENOTTY")),
        # flags of transfers
        (DAX, FILE, Pread("f", 0, 10, flags=(RwFlag.NOWAIT,)), failed("EAGAIN")),
        (DAX, FILE, Pread("f", 0, 10, flags=(RwFlag.NOWAIT,)), returned(5, tag(5, 2))),
        (DAX, FILE, Pwrite("f", 0, 10, flags=(RwFlag.NOWAIT,)), failed("EINVAL")),
        (XFS_CACHE, FILE, Pwrite("f", 0, 10, flags=(RwFlag.NOWAIT,)), returned(10)),
        (DAX, FILE, Pwrite("f", 0, 10, flags=(RwFlag.DONTCACHE,)), failed("EOPNOTSUPP")),
        (env(volume(dax=False), release="6.16.0"), FILE, Pwrite("f", 0, 10, flags=(RwFlag.DONTCACHE,)), failed("EOPNOTSUPP")),
        (env(volume(dax=False), release="6.17.0"), FILE, Pwrite("f", 0, 10, flags=(RwFlag.DONTCACHE,)), returned(10)),
        (DAX, FILE, Pread("f", 0, 0, flags=(RwFlag.DONTCACHE,)), returned(0)),
        (DAX, FILE, Pread("f", 2**63 - 1, 10), failed("EINVAL")),
        # copying
        (DAX, FILE, CopyFileRange("f", "f", 10, 0, 5), failed("EINVAL")),
        (DAX, FILE, CopyFileRange("f", "f", 65536, 16000, 16384), returned(384)),
        (DAX, FILE, CopyFileRange("f", "f", 5, -10, 0), failed("EINVAL")),
        (DAX, FILE, CopyFileRange("f", "f", 10, -10, 0), failed("EOVERFLOW")),
        (DAX, FILE, CopyFileRange("f", "f", 0, 0, 5), returned(0)),
        (XFS, FILE, CopyFileRange("f", "f", 5000, 0, 32 * KIB), returned(4096)),
        (XFS, FILE, CopyFileRange("f", "f", 5000, 1, 32 * KIB), returned(5000)),
        # mappings
        (DAX, FILE, Mmap("m", 4096, "f", flags=()), failed("EINVAL")),
        (DAX, FILE, Mmap("m", 4096), failed("EBADF")),
        (DAX, FILE, Mmap("m", -1, "f"), failed("ENOMEM")),
        (DAX, FILE, Mmap("m", 4096, "f", offset=-4096), failed("EOVERFLOW")),
        (DAX, FILE, Mmap("m", 4096, flags=(MapFlag.SHARED_VALIDATE, MapFlag.ANONYMOUS)), failed("EINVAL")),
        (DAX, READER, Mprotect("m", (Protection.READ, Protection.WRITE)), failed("EACCES")),
        (DAX, MAPPED, Madvise("m", Advice.NORMAL, 1, 1), failed("EINVAL")),
        (DAX, MAPPED, Madvise("m", Advice.DONTNEED, 0, 0), returned(0)),
        (DAX, READER, Madvise("m", Advice.POPULATE_WRITE), failed("EINVAL")),
        (DAX, READER, Madvise("m", Advice.REMOVE), failed("EACCES")),
        (PAGE_CACHE, LOCKED, Madvise("m", Advice.REMOVE), failed("EINVAL")),
        (PAGE_CACHE, LOCKED, Madvise("m", Advice.DONTNEED), failed("EINVAL")),
        (DAX, LOCKED, Madvise("m", Advice.DONTNEED), returned(0)),
        (PAGE_CACHE, LOCKED, Msync("m", flags=(SyncFlag.INVALIDATE,)), failed("EBUSY")),
        (DAX, LOCKED, Msync("m", flags=(SyncFlag.INVALIDATE,)), returned(0)),
        (DAX, [*FILE, (Mmap("m", 65536, "f"), returned())], Madvise("m", Advice.POPULATE_READ), failed("EFAULT")),
        (DAX, [*FILE, (Mmap("m", 65536, "f"), returned())], Mlock("m"), failed("ENOMEM")),
        (DAX, [*FILE, (Mmap("m", 4096, "f", protection=()), returned())], Mlock("m"), failed("ENOMEM")),
        (DAX, MAPPED, Mincore("m", 1, 1), failed("EINVAL")),
        # loads and stores
        (DAX, [*FILE, (Mmap("m", 100, "f"), returned())], Load("m", 4000, 96), with_faults(returned(96, tag(96, 2, 4000)), 1)),
        (DAX, [*FILE, (Mmap("m", 100, "f"), returned())], Load("m", 4096, 1), signalled("SIGSEGV")),
        (DAX, MAPPED, Store("m", -1, 1), signalled("SIGSEGV")),
        (
            DAX,
            [*FILE, (Mmap("m", 4096, "f", protection=(Protection.WRITE,)), returned())],
            Load("m", 0, 1),
            with_faults(returned(1, tag(1, 2)), 1),
        ),
        # the system
        (DAX, [], MountVolume(), failed("EBUSY")),
        (DAX, FILE, UmountVolume(), failed("EBUSY")),
        (DAX, [], IoUringSetup("r", 0), failed("EINVAL")),
        (DAX, [], IoUringSetup("r", 40000), failed("EINVAL")),
    ],
)
def test_this_answer_is_allowed_and_another_one_deviates(where: Env, rows: list[Row], op: Operation, allowed: Observation) -> None:
    assert judged(where, *rows, (op, allowed)).steps[-1].verdict is Verdict.CONFORMS
    assert judged(where, *rows, (op, failed("EIO"))).steps[-1].verdict is Verdict.DEVIATES


# ---- what follows ----------------------------------------------------------------------------------------------------


def conforms(where: Env, *rows: Row) -> bool:
    result = judged(where, *rows)
    assert all(step.verdict is Verdict.CONFORMS for step in result.steps[:-1]), result.steps
    return result.steps[-1].verdict is Verdict.CONFORMS


@pytest.mark.parametrize("op", [Pwrite("f", 20000, 0), CopyFileRange("f", "f", 0, 0, 20000)])
def test_a_transfer_of_nothing_does_not_make_a_file_longer(op: Operation) -> None:
    rows: list[Row] = [*FILE, (op, returned(0))]
    assert conforms(DAX, *rows, (Pread("f", 16 * KIB, 10), returned(0)))
    assert not conforms(DAX, *rows, (Pread("f", 16 * KIB, 10), returned(10, zero(10))))


PRIVATE: list[Row] = [
    *FILE,
    (Mmap("m", 16 * KIB, "f", flags=(MapFlag.PRIVATE,)), returned()),
    (Store("m", 8192, 100), returned(100)),
]


def test_truncating_takes_private_copies_behind_the_new_end_and_punching_does_not() -> None:
    cut: list[Row] = [*PRIVATE, (Ftruncate("f", 4096), returned()), (Ftruncate("f", 16 * KIB), returned())]
    assert conforms(PAGE_CACHE, *cut, (Load("m", 8192, 100), returned(100, zero(100))))
    punched: list[Row] = [*PRIVATE, (Fallocate("f", 8192, 4096, (PUNCH, KEEP)), returned())]
    assert conforms(DAX, *punched, (Load("m", 8192, 100), returned(100, tag(100, 4), minor_faults=0)))


def test_punching_a_page_of_a_dax_file_unmaps_all_of_it() -> None:
    loaded: Row = (Load("m", 0, 16 * KIB), returned(16 * KIB, tag(16 * KIB, 2), minor_faults=4))
    rows: list[Row] = [*MAPPED, loaded, (Fallocate("f", 8192, 4096, (PUNCH, KEEP)), returned())]
    assert conforms(DAX, *rows, (Mincore("m"), returned(0, resident="0000")))
    assert not conforms(DAX, *rows, (Mincore("m"), returned(0, resident="1101")))


@pytest.mark.parametrize(("first", "faults"), [(Load("m", 0, 8), 1), (Store("m", 0, 8), 0)])
def test_a_store_faults_again_where_the_page_was_only_read(first: Load | Store, faults: int) -> None:
    seen = returned(8, tag(8, 2), minor_faults=1) if isinstance(first, Load) else returned(8, minor_faults=1)
    rows: list[Row] = [*MAPPED, (first, seen)]
    assert conforms(DAX, *rows, (Store("m", 0, 8), returned(8, minor_faults=faults)))
    assert not conforms(DAX, *rows, (Store("m", 0, 8), returned(8, minor_faults=1 - faults)))


@pytest.mark.parametrize("synced", [Msync("m"), Fork("child")])
def test_a_store_faults_again_after_a_page_was_written_back_or_shared_with_a_child(synced: Operation) -> None:
    flags = (MapFlag.SHARED,) if isinstance(synced, Msync) else (MapFlag.PRIVATE,)
    mapping: Row = (Mmap("m", 4096, "f", flags=flags), returned())
    rows: list[Row] = [*FILE, mapping, (Store("m", 0, 8), returned(8, minor_faults=1)), (synced, returned())]
    assert conforms(DAX, *rows, (Store("m", 0, 8), returned(8, minor_faults=1)))
    assert not conforms(DAX, *rows, (Store("m", 0, 8), returned(8, minor_faults=2)))


@pytest.mark.parametrize("op", [Write("p", 10, from_="m"), Send("u", 10, from_="m")])
def test_what_is_sent_from_a_mapping_is_faulted_in(op: Operation) -> None:
    rows: list[Row] = [*MAPPED, PIPE, (UnixPair("u"), returned()), (op, returned(10))]
    assert conforms(DAX, *rows, (Load("m", 0, 8), returned(8, tag(8, 2), minor_faults=0)))
    assert not conforms(DAX, *rows, (Load("m", 0, 8), returned(8, tag(8, 2), minor_faults=1)))


def test_a_read_of_a_hole_into_memory_that_may_not_be_written_is_0_on_dax() -> None:
    rows: list[Row] = [OPEN, (Ftruncate("f", 8192), returned()), (Mmap("m", 4096, "f", protection=READ_ONLY), returned())]
    for where, seen in ((DAX, returned(0)), (PAGE_CACHE, failed("EFAULT"))):
        assert conforms(where, *rows, (Pread("f", 4096, 10, into="m"), seen))
    assert not conforms(DAX, *rows, (Pread("f", 4096, 10, into="m"), failed("EFAULT")))
    assert not conforms(PAGE_CACHE, *rows, (Pread("f", 4096, 10, into="m"), returned(0)))


def test_a_file_that_is_sent_behind_its_own_end_feeds_itself() -> None:
    rows: list[Row] = [*FILE, (Lseek("f", 0, Whence.END), returned(16 * KIB))]
    assert conforms(DAX, *rows, (Sendfile("f", "f", 40000, 0), returned(40000)))
    assert not conforms(DAX, *rows, (Sendfile("f", "f", 40000, 0), returned(16 * KIB)))


def test_a_copy_waits_for_pins_of_either_file_where_blocks_can_be_shared() -> None:
    rows: list[Row] = [*MAPPED, PIPE, (Vmsplice("p", "m", 0, 4096), returned(4096)), (Open("g", "b", RDWR), returned())]
    assert conforms(XFS, *rows, (CopyFileRange("f", "g", 4096, 0, 0), blocked()))
    assert conforms(DAX, *rows, (CopyFileRange("f", "g", 4096, 0, 0), returned(4096)))


def test_a_slot_that_begins_inside_its_page_cannot_go_into_an_o_direct_file() -> None:
    into: Row = (Open("g", "b", (*RDWR, OpenFlag.DIRECT)), returned())
    for offset, seen in ((0, returned(512)), (512, returned(512)), (100, failed("EINVAL"))):
        rows: list[Row] = [*FILE, PIPE, into, (Splice("f", "p", 512, source_offset=offset), returned(512))]
        assert conforms(PAGE_CACHE, *rows, (Splice("p", "g", 512, target_offset=0), seen))


def test_an_o_direct_source_may_be_unaligned_where_it_is_a_hole() -> None:
    rows: list[Row] = [
        (Open("f", "a", (*RDWR, OpenFlag.DIRECT)), returned()),
        (Pwrite("f", 8192, 512), returned(512)),
        (UnixPair("u"), returned()),
    ]
    assert conforms(PAGE_CACHE, *rows, (Sendfile("f", "u", 1, 0), returned(1)))
    assert conforms(PAGE_CACHE, *rows, (Sendfile("f", "u", 1, 8192), failed("EINVAL")))


def test_what_tcp_was_told_more_would_follow_may_be_held_back() -> None:
    rows: list[Row] = [*FILE, PIPE, (TcpPair("t"), returned()), (Splice("f", "p", 10, source_offset=0), returned(10))]
    rows.append((Splice("p", "t", 10, flags=(SpliceFlag.MORE,)), returned(10)))
    from_there = Recv("t", 10, (SendFlag.DONTWAIT,))
    for seen in (failed("EAGAIN"), returned(10, tag(10, 2))):
        assert conforms(DAX, *rows, (from_there, seen))
    assert not conforms(DAX, *rows, (from_there, returned(11, tag(11, 2))))


def test_the_end_of_a_lot_that_was_sent_over_tcp_may_still_be_on_its_way() -> None:
    rows: list[Row] = [(TcpPair("t"), returned()), (Send("t", 65536), returned(65536))]
    for count in (65536, 40000):
        assert conforms(DAX, *rows, (Recv("t", 65536, (SendFlag.DONTWAIT,)), returned(count, tag(count, 2))))
    assert not conforms(DAX, *rows, (Recv("t", 65536, (SendFlag.DONTWAIT,)), returned(100, tag(100, 2))))


def test_a_private_futex_wait_faults_the_page_of_its_word_in() -> None:
    rows: list[Row] = [*MAPPED, (FutexWait("m", 0, 1, private=True), failed("EAGAIN"))]
    assert conforms(DAX, *rows, (Load("m", 0, 4), returned(4, tag(4, 2), minor_faults=0)))
    assert not conforms(DAX, *rows, (Load("m", 0, 4), returned(4, tag(4, 2), minor_faults=1)))


def test_truncating_all_of_a_file_leaves_no_large_folio_in_part() -> None:
    rows: list[Row] = [*FILE, PIPE, (Splice("f", "p", 8192, source_offset=0), returned(8192))]
    shown: Row = (Read("p", 8192), returned(8192, tag(8192, 2)))
    zeroed: Row = (Read("p", 8192), returned(8192, zero(8192)))
    for cut in ((Ftruncate("f", 0), returned()), (Open("g", "a", (OpenFlag.RDWR, OpenFlag.TRUNC)), returned())):
        assert conforms(XFS_CACHE, *rows, cut, shown)
        assert not conforms(XFS_CACHE, *rows, cut, zeroed)


def test_a_whole_huge_page_more_in_the_page_cache_is_seen() -> None:
    rows: list[Row] = [OPEN, (DropCaches(), returned()), (Meminfo(), returned(100 * MIB)), (Pwrite("f", 0, 2 * MIB), returned(2 * MIB))]
    assert conforms(DAX, *rows, (Meminfo(), returned(100 * MIB)))
    assert not conforms(DAX, *rows, (Meminfo(), returned(102 * MIB)))


def test_a_step_may_be_another_process() -> None:
    rows: list[Row] = [*MAPPED, (Fork("child"), returned()), (Step(Close("f"), "child"), returned())]
    assert conforms(DAX, *rows, (Pread("f", 0, 10), returned(10, tag(10, 2))))
    assert conforms(DAX, *rows, (Step(Pread("f", 0, 10), "child"), failed("EBADF")))


def test_a_copied_page_that_may_not_be_written_any_more_is_not_found_by_its_page_table() -> None:
    for where, errno in ((DAX, "EOPNOTSUPP"), (PAGE_CACHE, "EFAULT")):
        mapping: Row = (Mmap("m", 4096, "f", flags=(MapFlag.PRIVATE, MapFlag.POPULATE)), returned())
        rows: list[Row] = [*FILE, mapping, (Mprotect("m", READ_ONLY), returned()), (IoUringSetup("r"), returned())]
        assert conforms(where, *rows, (IoUringRegister("r", "m"), failed(errno)))


def test_a_write_into_a_hole_that_is_mapped_as_one_huge_page_takes_all_of_it() -> None:
    rows: list[Row] = [OPEN, (Ftruncate("f", 4 * MIB), returned())]
    rows.append((Mmap("m", 4 * MIB, "f"), returned(0, attributes=(("address_mod_2mib", 0),))))
    rows += [(Load("m", 0, 8192), returned(8192, zero(8192), minor_faults=1)), (Pwrite("f", 100, 5000), returned(5000))]
    for faults in (0, 2):
        shown = returned(8192, zero(100), tag(5000, 5), zero(3092), minor_faults=faults)
        assert conforms(DAX, *rows, (Load("m", 0, 8192), shown))
    assert not conforms(DAX, *rows, (Load("m", 0, 8192), returned(8192, zero(100), tag(5000, 5), zero(3092), minor_faults=3)))


#: A buffer whose page with its last bytes is the last that can be read.
SOURCE: list[Row] = [*MAPPED, (Open("g", "b", RDWR), returned()), (Mmap("n", 32 * KIB, "f"), returned())]


def test_a_write_into_dax_that_meets_memory_that_cannot_be_read_moves_whole_words_since_6_4() -> None:
    old = env(volume(dax=True), release="6.1.0-56-cloud-amd64")
    for start, length, words in ((16 * KIB - 96, 96, (93, 96)), (16 * KIB - 3, 3, (1, 3))):
        write = Pwrite("g", 0, 4096, from_="n", from_offset=start)
        for where in (old, PAGE_CACHE):
            assert conforms(where, *SOURCE, (write, returned(length)))
            assert not conforms(where, *SOURCE, (write, returned(length - 1)))
            assert not conforms(where, *SOURCE, (write, failed("EFAULT")))
        for count in range(length + 2):
            assert conforms(DAX, *SOURCE, (write, returned(count))) == (words[0] <= count <= words[1])
        assert conforms(DAX, *SOURCE, (write, failed("EFAULT"))) == (length == 3)
    some = Pwrite("g", 0, 4096, from_="n", from_offset=16 * KIB - 96, flags=(RwFlag.NOWAIT,))
    for count, right in ((0, False), (1, True), (50, True), (96, True), (97, False)):
        assert conforms(XFS, *SOURCE, (some, returned(count))) is right


def test_what_such_a_write_did_not_move_is_not_there() -> None:
    rows: list[Row] = [*SOURCE, (Pwrite("g", 0, 4096, from_="n", from_offset=16 * KIB - 96), returned(94))]
    assert conforms(DAX, *rows, (Pread("g", 0, 100), returned(94, tag(94, 2, 16 * KIB - 96))))
    assert not conforms(DAX, *rows, (Pread("g", 0, 100), returned(96, tag(96, 2, 16 * KIB - 96))))


def test_how_much_is_written_of_the_same_file_that_grows_meanwhile_is_not_known() -> None:
    for offset, verdict in ((16 * KIB, Verdict.UNDETERMINED), (0, Verdict.CONFORMS)):
        write = (Pwrite("f", offset, 32 * KIB, from_="n", from_offset=8 * KIB), returned(8 * KIB))
        assert judged(PAGE_CACHE, *SOURCE, write).verdict is verdict
    assert judged(DAX, *SOURCE, (Pwrite("f", 16 * KIB, 32 * KIB, from_="n", from_offset=8 * KIB), returned(8 * KIB))).verdict is not (
        Verdict.DEVIATES
    )


def test_a_splice_whose_length_passes_the_largest_offset_beyond_what_the_pipe_takes_is_not_known() -> None:
    splice = Splice("f", "p", 1 << 20, source_offset=2**63 - 1 - (1 << 19))
    for answer in (failed("EINVAL"), returned(0)):
        assert judged(DAX, *FILE, PIPE, (splice, answer)).verdict is Verdict.UNDETERMINED


@pytest.mark.parametrize("grown", [(Ftruncate("f", 20 * KIB), returned()), (Fallocate("f", 0, 20 * KIB), returned())])
def test_a_file_that_grows_may_have_its_pages_unmapped_where_the_page_cache_keeps_pages_together(grown: Row) -> None:
    rows: list[Row] = [*MAPPED, (Load("m", 0, 8), returned(8, tag(8, 2), minor_faults=1)), grown]
    again: Row = (Load("m", 0, 8), returned(8, tag(8, 2), minor_faults=1))
    assert conforms(XFS_CACHE, *rows, again)
    assert not conforms(PAGE_CACHE, *rows, again)


def test_zeroing_that_lets_a_file_grow_still_leaves_a_folio_whole_or_not() -> None:
    rows: list[Row] = [*MAPPED, PIPE, (Vmsplice("p", "m", 8 * KIB, 4096), returned(4096))]
    rows.append((Fallocate("f", 4 * KIB, 20 * KIB, (ZERO,)), returned()))
    for shown in (tag(4096, 2, 8 * KIB), zero(4096)):
        assert conforms(XFS_CACHE, *rows, (Read("p", 4096), returned(4096, shown)))
    assert not conforms(XFS_CACHE, *rows, (Read("p", 4096), returned(4096, tag(4096, 2))))


# ---- the node of a device that is read-only --------------------------------------------------------------------------

SHUT = env(volume(dax=False, filesystem=None, read_only=True))
SHUT_OPEN: Row = (Open("f", "a", (OpenFlag.RDWR,)), returned())
SHUT_PIPE = ((Pipe("p"), returned()), (Write("p", 4 * KIB), returned(4 * KIB)))


@pytest.mark.parametrize(
    "refused",
    [
        Pwrite("f", 0, 4 * KIB),
        Write("f", 4 * KIB),
        Fallocate("f", 0, 4 * KIB, (AllocateFlag.ZERO_RANGE, AllocateFlag.KEEP_SIZE)),
        Splice("p", "f", 4 * KIB, target_offset=0),
    ],
)
def test_nothing_is_written_to_a_read_only_node_and_its_content_stays(refused: Operation) -> None:
    rows = (SHUT_OPEN, *SHUT_PIPE, (refused, failed("EPERM")), (Pread("f", 0, 4 * KIB), returned(4 * KIB, zero(4 * KIB))))
    assert judged(SHUT, *rows).verdict is Verdict.CONFORMS
    assert judged(SHUT, SHUT_OPEN, *SHUT_PIPE, (refused, returned(4 * KIB))).verdict is Verdict.DEVIATES


@pytest.mark.parametrize(
    ("flags", "protection", "shared", "answer"),
    [
        (OpenFlag.RDWR, Protection.READ, MapFlag.SHARED, failed("EINVAL")),
        (OpenFlag.RDONLY, Protection.READ, MapFlag.SHARED, returned()),
        (OpenFlag.RDWR, Protection.WRITE, MapFlag.PRIVATE, returned()),
    ],
)
def test_a_shared_mapping_of_a_read_only_node_needs_a_descriptor_that_cannot_write(
    flags: OpenFlag, protection: Protection, shared: MapFlag, answer: Observation
) -> None:
    mapped = Mmap("m", 4 * KIB, "f", protection=(Protection.READ, protection), flags=(shared,))
    opened = (Open("f", "a", (flags,)), returned())
    assert judged(SHUT, opened, (mapped, answer)).verdict is Verdict.CONFORMS
    assert judged(SHUT, opened, (mapped, failed("EPERM"))).verdict is Verdict.DEVIATES


def test_before_6_1_such_a_mapping_is_given_and_what_is_stored_into_it_is_in_no_clause() -> None:
    old = env(volume(dax=False, filesystem=None, read_only=True), release="5.10.262-x")
    reading, writing = (
        Mmap("m", 4 * KIB, "f", protection=protection, flags=(MapFlag.SHARED,))
        for protection in ((Protection.READ,), (Protection.READ, Protection.WRITE))
    )
    assert judged(old, SHUT_OPEN, (reading, returned())).verdict is Verdict.CONFORMS
    assert judged(old, SHUT_OPEN, (reading, failed("EINVAL"))).verdict is Verdict.DEVIATES
    for rows in (((writing, returned()),), ((reading, returned()), (Mprotect("m", (Protection.READ, Protection.WRITE)), returned()))):
        result = judged(old, SHUT_OPEN, *rows)
        assert result.steps[-1].reason == "no clause covers stores into the node of a read-only device"
