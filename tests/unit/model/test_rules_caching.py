"""Writing back and advice on hand-written observations: which answers there are, and what may have happened to pages."""

import pytest

from harness.model.facts import Env
from harness.model.outcome import Observation
from harness.model.verdict import Verdict
from harness.ops import (
    Close,
    DropCaches,
    Fadvise,
    FileAdvice,
    Load,
    Meminfo,
    Mincore,
    Mmap,
    Open,
    OpenFlag,
    Operation,
    Pipe,
    Pread,
    Pwrite,
    RangeSyncFlag,
    Read,
    Readahead,
    Splice,
    Store,
    SyncFileRange,
    Syncfs,
)
from harness.sizes import KIB, MIB
from tests.unit.model.stacks import DAX, NODE, PAGE_CACHE, Row, env, failed, judged, returned, tag, volume, with_faults, zero

DEVICE = env(volume(filesystem=None, namespace_mode="devdax", device="/dev/dax0.0", align_bytes=4096, queue_dax=False))
RDWR = (OpenFlag.RDWR, OpenFlag.CREAT)
FILE: list[Row] = [(Open("f", "a", RDWR), returned()), (Pwrite("f", 0, 20000), returned(20000))]
MAPPED: list[Row] = [*FILE, (Mmap("m", 20 * KIB, "f"), returned())]
ALL = (RangeSyncFlag.WAIT_BEFORE, RangeSyncFlag.WRITE, RangeSyncFlag.WAIT_AFTER)
WRITE = (RangeSyncFlag.WRITE,)
LARGEST = 2**63 - 1
EVERY_ADVICE = tuple(FileAdvice)


def accepts(where: Env, *rows: Row) -> bool:
    result = judged(where, *rows)
    assert all(step.verdict is Verdict.CONFORMS for step in result.steps[:-1]), result.steps
    return result.steps[-1].verdict is Verdict.CONFORMS


@pytest.mark.parametrize("where", [DAX, PAGE_CACHE, NODE])
@pytest.mark.parametrize(
    "call",
    [
        Syncfs("f"),
        SyncFileRange("f", 0, 0, ALL),
        SyncFileRange("f", LARGEST, 0),
        Readahead("f", 0, 1 * MIB),
        Readahead("f", -1, 4096),
        Fadvise("f", FileAdvice.DONTNEED, -4096, 4096),
        Fadvise("f", FileAdvice.WILLNEED, LARGEST, LARGEST),
        *(Fadvise("f", advice) for advice in EVERY_ADVICE),
    ],
    ids=str,
)
def test_they_succeed_and_no_byte_changes(where: Env, call: Operation) -> None:
    assert not accepts(where, *FILE, (call, failed("EINVAL")))
    assert not accepts(where, *FILE, (call, returned(1)))
    assert accepts(where, *FILE, (call, returned()), (Pread("f", 0, 20000), returned(20000, tag(20000, 2))))
    assert not accepts(where, *FILE, (call, returned()), (Pread("f", 0, 20000), returned(20000, zero(20000))))


PIPE: Row = (Pipe("p"), returned())
WRITER: Row = (Open("w", "a", (OpenFlag.WRONLY,)), returned())
OPEN_DEVICE: Row = (Open("f", "a", (OpenFlag.RDWR,)), returned())


@pytest.mark.parametrize(
    ("where", "row", "call", "seen"),
    [
        (DAX, PIPE, Fadvise("p", FileAdvice.NORMAL), failed("ESPIPE")),
        (DAX, PIPE, Fadvise("p", FileAdvice.NORMAL, 0, -1), failed("ESPIPE")),
        (DAX, PIPE, Readahead("p", 0, 1), failed("EINVAL")),
        (DAX, PIPE, SyncFileRange("p", 0, 0), failed("ESPIPE")),
        (DAX, PIPE, SyncFileRange("p", -1, 0), failed("EINVAL")),
        (DAX, PIPE, Syncfs("p"), returned()),
        (DAX, WRITER, Readahead("w", 0, 1), failed("EBADF")),
        (PAGE_CACHE, WRITER, Readahead("w", 0, -1), failed("EBADF")),
        (DAX, WRITER, Readahead("f", 0, -1), failed("EINVAL")),
        (DAX, WRITER, Fadvise("w", FileAdvice.WILLNEED, 0, -1), failed("EINVAL")),
        (DAX, WRITER, Fadvise("w", FileAdvice.WILLNEED), returned()),
        (DAX, WRITER, SyncFileRange("w", 0, 4096, WRITE), returned()),
        (DAX, WRITER, SyncFileRange("f", -1, 4096, WRITE), failed("EINVAL")),
        (DAX, WRITER, SyncFileRange("f", 4096, -4096, ALL), failed("EINVAL")),
        (NODE, WRITER, SyncFileRange("f", 4096, LARGEST), failed("EINVAL")),
    ],
    ids=str,
)
def test_what_they_refuse(where: Env, row: Row, call: Operation, seen: Observation) -> None:
    assert accepts(where, *FILE, row, (call, seen))
    for other in (returned(), failed("EINVAL"), failed("ESPIPE"), failed("EBADF")):
        if (other.how, other.errno) != (seen.how, seen.errno):
            assert not accepts(where, *FILE, row, (call, other))


@pytest.mark.parametrize(
    ("call", "seen"),
    [
        (SyncFileRange("f", 0, 0), failed("ESPIPE")),
        (Readahead("f", 0, 1), failed("EINVAL")),
        (Fadvise("f", FileAdvice.DONTNEED), returned()),
        (Syncfs("f"), returned()),
    ],
    ids=str,
)
def test_a_dax_device_is_no_file_to_them(call: Operation, seen: Observation) -> None:
    assert accepts(DEVICE, OPEN_DEVICE, (call, seen))
    assert not accepts(DEVICE, OPEN_DEVICE, (call, failed("ENODEV")))


def test_a_closed_descriptor_is_ebadf_to_all_of_them() -> None:
    rows: list[Row] = [*FILE, (Close("f"), returned())]
    for call in (Syncfs("f"), SyncFileRange("f", 0, 0), Fadvise("f", FileAdvice.NORMAL), Readahead("f", 0, 1)):
        assert accepts(DAX, *rows, (call, failed("EBADF")))
        assert not accepts(DAX, *rows, (call, returned()))


def test_a_bar_is_not_judged() -> None:
    step = judged(DAX, (Open("b", "bar:", (OpenFlag.RDWR,)), returned()), (Syncfs("b"), returned())).steps[-1]
    assert step.verdict is Verdict.UNDETERMINED
    assert "no clause covers syncing or advising a BAR" in str(step)


@pytest.mark.parametrize(
    "call", [Fadvise("f", FileAdvice.WILLNEED, -1, 1), Fadvise("f", FileAdvice.DONTNEED, -1), Readahead("f", -1, 1)], ids=str
)
def test_an_offset_before_the_first_byte_is_refused_by_some_kernels(call: Operation) -> None:
    for release, refused in (("5.10.200-x", False), ("6.18.1-x", False), ("7.2.1-x", True)):
        where = env(volume(dax=False), release=release)
        assert accepts(where, *FILE, (call, failed("EINVAL"))) is refused
        assert accepts(where, *FILE, (call, returned())) is not refused


# ---- pages -----------------------------------------------------------------------------------------------------------


def test_giving_up_takes_no_page_that_is_mapped_and_only_whole_ones_of_the_range() -> None:
    rows: list[Row] = [*MAPPED, (Load("m", 4 * KIB, 8), returned(8, tag(8, 2, 4 * KIB)))]
    rows += [(Fadvise("f", FileAdvice.DONTNEED, 100, 16 * KIB), returned())]
    for resident in ("11001", "11111"):
        assert accepts(PAGE_CACHE, *rows, (Mincore("m"), returned(resident=resident)))
    for resident in ("01111", "10111", "11110", "00000"):
        assert not accepts(PAGE_CACHE, *rows, (Mincore("m"), returned(resident=resident)))


@pytest.mark.parametrize(("length", "goes"), [(0, True), (20000, True), (19999, False), (20001, False), (24 * KIB, True)])
def test_the_page_with_the_end_of_a_file_goes_where_the_range_ends_there_or_behind_the_page(length: int, goes: bool) -> None:
    rows: list[Row] = [*MAPPED, (Fadvise("f", FileAdvice.DONTNEED, 0, length), returned())]
    assert accepts(PAGE_CACHE, *rows, (Mincore("m"), returned(resident="00000"))) is goes
    assert accepts(PAGE_CACHE, *rows, (Mincore("m"), returned(resident="00001")))


def test_giving_up_takes_no_page_that_a_pipe_holds() -> None:
    rows: list[Row] = [*MAPPED, PIPE, (Splice("f", "p", 4 * KIB, source_offset=8 * KIB), returned(4 * KIB))]
    rows += [(Fadvise("f", FileAdvice.DONTNEED), returned())]
    assert accepts(PAGE_CACHE, *rows, (Mincore("m"), returned(resident="00100")))
    assert not accepts(PAGE_CACHE, *rows, (Mincore("m"), returned(resident="11011")))
    rows += [(Pwrite("f", 8 * KIB, 4 * KIB), returned(4 * KIB))]
    assert accepts(PAGE_CACHE, *rows, (Read("p", 4 * KIB), returned(4 * KIB, tag(4 * KIB, 7))))
    assert not accepts(PAGE_CACHE, *rows, (Read("p", 4 * KIB), returned(4 * KIB, tag(4 * KIB, 2, 8 * KIB))))


@pytest.mark.parametrize("call", [Fadvise("f", FileAdvice.DONTNEED), Fadvise("f", FileAdvice.WILLNEED), Readahead("f", 0, 20000)], ids=str)
def test_on_dax_advice_changes_no_page_table(call: Operation) -> None:
    rows: list[Row] = [*MAPPED, (Load("m", 4 * KIB, 8), returned(8, tag(8, 2, 4 * KIB))), (call, returned())]
    assert accepts(DAX, *rows, (Mincore("m"), returned(resident="01000")))
    for resident in ("00000", "11111", "01100"):
        assert not accepts(DAX, *rows, (Mincore("m"), returned(resident=resident)))


@pytest.mark.parametrize("call", [Fadvise("f", FileAdvice.WILLNEED, 0, 8 * MIB), Readahead("f", 0, 8 * MIB)], ids=str)
def test_what_is_asked_for_may_be_in_the_page_cache_and_never_more_nor_on_dax(call: Operation) -> None:
    rows: list[Row] = [FILE[0], (Pwrite("f", 0, 8 * MIB), returned(8 * MIB)), (Syncfs("f"), returned()), (DropCaches(), returned())]
    rows += [(Meminfo(), returned(100 * MIB)), (call, returned())]
    for where, most in ((PAGE_CACHE, 8 * MIB), (DAX, 0)):
        assert accepts(where, *rows, (Meminfo(), returned(100 * MIB)))
        assert accepts(where, *rows, (Meminfo(), returned(100 * MIB + most)))
        assert not accepts(where, *rows, (Meminfo(), returned(101 * MIB + most)))


def test_behind_the_end_nothing_is_brought_in() -> None:
    rows: list[Row] = [*FILE, (Meminfo(), returned(100 * MIB)), (Readahead("f", 0, 64 * MIB), returned())]
    assert not accepts(PAGE_CACHE, *rows, (Meminfo(), returned(102 * MIB)))


# ---- writing back ----------------------------------------------------------------------------------------------------


def test_after_syncfs_every_file_of_the_file_system_is_clean_and_goes_with_the_caches() -> None:
    rows: list[Row] = [FILE[0], (Pwrite("f", 0, 4 * MIB), returned(4 * MIB)), (Open("g", "b", RDWR), returned())]
    looked: list[Row] = [(DropCaches(), returned()), (Meminfo(), returned(100 * MIB))]
    looked += [(Pread("f", 0, 4 * MIB), returned(4 * MIB, tag(4 * MIB, 2)))]
    synced: list[Row] = [*rows, (Syncfs("g"), returned()), *looked]
    assert accepts(PAGE_CACHE, *synced, (Meminfo(), returned(104 * MIB)))
    assert not accepts(PAGE_CACHE, *synced, (Meminfo(), returned(100 * MIB)))
    assert accepts(PAGE_CACHE, *rows, *looked, (Meminfo(), returned(100 * MIB)))


def test_syncfs_of_another_volume_or_of_a_pipe_cleans_nothing() -> None:
    where = env(volume(dax=True), volume("target", dax=True))
    dirty: list[Row] = [*MAPPED, (Store("m", 0, 8), returned(8)), (Open("t", "target:b", RDWR), returned()), PIPE]
    fault = with_faults(returned(8), 1)
    for name, cleans in (("f", True), ("t", False), ("p", False)):
        rows: list[Row] = [*dirty, (Syncfs(name), returned())]
        assert accepts(where, *rows, (Store("m", 0, 8), fault)) is cleans


@pytest.mark.parametrize(("flags", "faults"), [((), False), (WRITE, False), ((RangeSyncFlag.WAIT_AFTER,), False), (ALL, True)])
def test_a_synced_range_of_a_dax_file_is_protected_only_where_somebody_waits(flags: tuple[RangeSyncFlag, ...], faults: bool) -> None:
    rows: list[Row] = [*MAPPED, (Store("m", 0, 8), returned(8)), (SyncFileRange("f", 0, 0, flags), returned())]
    assert accepts(DAX, *rows, (Store("m", 0, 8), with_faults(returned(8), 1))) is faults
    assert accepts(DAX, *rows, (Store("m", 0, 8), with_faults(returned(8), 0)))


@pytest.mark.parametrize(
    ("call", "verdicts"),
    [
        (SyncFileRange("f", 0, 0, ALL), (Verdict.CONFORMS, Verdict.DEVIATES)),
        (SyncFileRange("f", 0, 0, WRITE), (Verdict.UNDETERMINED, Verdict.UNDETERMINED)),
        (Fadvise("f", FileAdvice.DONTNEED), (Verdict.UNDETERMINED, Verdict.UNDETERMINED)),
        (SyncFileRange("f", 0, 8 * KIB, ALL), (Verdict.DEVIATES, Verdict.CONFORMS)),
        (SyncFileRange("f", 0, 0), (Verdict.DEVIATES, Verdict.CONFORMS)),
        (Fadvise("f", FileAdvice.DONTNEED, 0, 4 * KIB), (Verdict.DEVIATES, Verdict.CONFORMS)),
    ],
    ids=str,
)
def test_what_was_stored_behind_the_end_is_zeroed_when_its_page_is_written(call: Operation, verdicts: tuple[Verdict, Verdict]) -> None:
    rows: list[Row] = [*MAPPED, (Store("m", 20100, 64), returned(64)), (call, returned())]
    for shown, verdict in zip((zero(64), tag(64, 4)), verdicts, strict=True):
        assert judged(PAGE_CACHE, *rows, (Load("m", 20100, 64), returned(64, shown))).steps[-1].verdict is verdict
