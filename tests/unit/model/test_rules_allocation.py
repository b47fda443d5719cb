"""Collapsing, inserting and unsharing ranges on hand-written observations."""

import pytest

from harness.model.facts import Env
from harness.model.formats import Format
from harness.model.outcome import Observation, Run
from harness.model.verdict import Verdict
from harness.ops import (
    AllocateFlag,
    Fallocate,
    Fork,
    Ftruncate,
    Load,
    MapFlag,
    Mincore,
    Mmap,
    MountVolume,
    Open,
    OpenFlag,
    Pipe,
    Pread,
    Pwrite,
    Read,
    Splice,
    Store,
    Vmsplice,
)
from harness.sizes import KIB
from tests.unit.model.stacks import DAX, NODE, PAGE_CACHE, Row, blocked, env, failed, judged, returned, tag, volume, zero

COLLAPSE, INSERT, UNSHARE = AllocateFlag.COLLAPSE_RANGE, AllocateFlag.INSERT_RANGE, AllocateFlag.UNSHARE_RANGE
KEEP, ZERO, PUNCH = AllocateFlag.KEEP_SIZE, AllocateFlag.ZERO_RANGE, AllocateFlag.PUNCH_HOLE
XFS = env(volume(dax=True, filesystem="xfs"))
XFS_CACHE = env(volume(dax=False, filesystem="xfs"))
OLDEST = "5.10.200-x"
FILE: list[Row] = [
    (Open("f", "a", (OpenFlag.RDWR, OpenFlag.CREAT)), returned()),
    (Pwrite("f", 0, 20000), returned(20000)),
]
MAPPED: list[Row] = [*FILE, (Mmap("m", 32 * KIB, "f"), returned())]
PIPED: list[Row] = [*FILE, (Pipe("p"), returned()), (Splice("f", "p", 16 * KIB, source_offset=0), returned(16 * KIB))]


def verdict(where: Env, *rows: Row) -> Verdict:
    result = judged(where, *rows)
    assert all(step.verdict is Verdict.CONFORMS for step in result.steps[:-1]), result.steps
    return result.steps[-1].verdict


def accepts(where: Env, *rows: Row) -> bool:
    return verdict(where, *rows) is Verdict.CONFORMS


def shift(flag: AllocateFlag, offset: int = 4 * KIB, length: int = 8 * KIB) -> Row:
    return (Fallocate("f", offset, length, (flag,)), returned())


COLLAPSED = (tag(4 * KIB, 2), tag(20000 - 12 * KIB, 2, 12 * KIB))
INSERTED = (tag(4 * KIB, 2), zero(8 * KIB), tag(20000 - 4 * KIB, 2, 4 * KIB))


@pytest.mark.parametrize("where", [DAX, PAGE_CACHE, XFS, XFS_CACHE])
@pytest.mark.parametrize(("flag", "size", "shown"), [(COLLAPSE, 20000 - 8 * KIB, COLLAPSED), (INSERT, 20000 + 8 * KIB, INSERTED)])
def test_what_stands_behind_a_range_moves_for_reads_and_mappings(where: Env, flag: AllocateFlag, size: int, shown: tuple[Run, ...]) -> None:
    rows = [*MAPPED, (Load("m", 0, 20000), returned(20000, tag(20000, 2))), shift(flag)]
    assert accepts(where, *rows, (Pread("f", 0, 64 * KIB), returned(size, *shown)))
    assert accepts(where, *rows, (Load("m", 0, size), returned(size, *shown)))
    # As it was, of the old size, or all zeroes where the range is.
    assert not accepts(where, *rows, (Pread("f", 0, 64 * KIB), returned(20000, tag(20000, 2))))
    assert not accepts(where, *rows, (Load("m", 0, 8 * KIB), returned(8 * KIB, tag(8 * KIB, 2))))
    assert not accepts(where, *rows, (Load("m", 4 * KIB, 8), returned(8, tag(8, 2, 4 * KIB))))


def test_behind_the_end_of_a_collapsed_file_nothing_can_be_reached() -> None:
    rows = [*MAPPED, shift(COLLAPSE)]
    assert accepts(DAX, *rows, (Load("m", 12 * KIB, 1), Observation(0, failed("x").how.SIGNAL, signal="SIGBUS")))
    assert not accepts(DAX, *rows, (Load("m", 12 * KIB, 1), returned(1, zero(1))))


@pytest.mark.parametrize("flag", [COLLAPSE, INSERT])
def test_a_shift_of_a_dax_file_unmaps_all_of_it(flag: AllocateFlag) -> None:
    rows = [*MAPPED, (Load("m", 0, 20000), returned(20000, tag(20000, 2)))]
    assert accepts(DAX, *rows, shift(flag), (Mincore("m"), returned(resident="00000000")))
    assert not accepts(DAX, *rows, shift(flag), (Mincore("m"), returned(resident="10000000")))


@pytest.mark.parametrize("flag", [COLLAPSE, INSERT])
@pytest.mark.parametrize("where", [DAX, XFS])
def test_a_shift_waits_for_pages_that_a_pipe_holds_on_dax(where: Env, flag: AllocateFlag) -> None:
    rows: list[Row] = [*MAPPED, (Pipe("p"), returned()), (Vmsplice("p", "m", 0, 4 * KIB), returned(4 * KIB)), (Fork("child"), returned())]
    call = shift(flag)[0]
    assert accepts(where, *rows, (call, blocked()))
    assert not accepts(where, *rows, (call, returned()))
    assert accepts(PAGE_CACHE, *rows, (call, returned()))


@pytest.mark.parametrize(
    ("where", "flag", "offset", "length", "errno"),
    [
        (DAX, COLLAPSE, 512, 4096, "EINVAL"),
        (DAX, COLLAPSE, 0, 4095, "EINVAL"),
        (DAX, INSERT, 0, 1024, "EINVAL"),
        (DAX, COLLAPSE, 12 * KIB, 8 * KIB, "EINVAL"),
        (DAX, COLLAPSE, 64 * KIB, 4 * KIB, "EINVAL"),
        (DAX, INSERT, 20 * KIB, 4 * KIB, "EINVAL"),
        (DAX, INSERT, 0, (2**32 - 3) * 4096, "EFBIG"),
        (DAX, UNSHARE, 0, 4096, "EOPNOTSUPP"),
        (env(volume(dax=False, filesystem="ext2")), COLLAPSE, 0, 4096, "EOPNOTSUPP"),
        (env(volume(dax=False, filesystem="tmpfs")), INSERT, 0, 4096, "EOPNOTSUPP"),
    ],
)
def test_what_a_file_system_refuses(where: Env, flag: AllocateFlag, offset: int, length: int, errno: str) -> None:
    call = Fallocate("f", offset, length, (flag,))
    assert accepts(where, *FILE, (call, failed(errno)))
    assert not accepts(where, *FILE, (call, returned()))
    assert not accepts(where, *FILE, (call, failed("ENOSPC")))
    assert accepts(where, *FILE, (call, failed(errno)), (Pread("f", 0, 32 * KIB), returned(20000, tag(20000, 2))))


@pytest.mark.parametrize("flags", [(COLLAPSE, KEEP), (INSERT, KEEP), (COLLAPSE, INSERT), (UNSHARE, ZERO), (UNSHARE, PUNCH, KEEP)])
def test_flags_that_do_not_go_together_are_refused_as_the_kernel_has_it(flags: tuple[AllocateFlag, ...]) -> None:
    call = Fallocate("f", 0, 4096, flags)
    for release, errno, other in (("6.12.1", "EOPNOTSUPP", "EINVAL"), (OLDEST, "EINVAL", "EOPNOTSUPP")):
        where = env(volume(dax=True, filesystem="xfs"), release=release)
        assert accepts(where, *FILE, (call, failed(errno)))
        assert not accepts(where, *FILE, (call, failed(other)))


def test_a_small_file_that_is_smaller_than_a_page_by_blocks_moves_by_those() -> None:
    where = env(volume(dax=False, format=Format.BLOCK_1K, filesystem_block_bytes=1024))
    shown = (tag(1 * KIB, 2), tag(20000 - 4 * KIB, 2, 4 * KIB))
    assert accepts(where, *FILE, shift(COLLAPSE, 1 * KIB, 3 * KIB), (Pread("f", 0, 32 * KIB), returned(20000 - 3 * KIB, *shown)))
    assert not accepts(where, *FILE, (shift(COLLAPSE, 512, 1 * KIB)[0], returned()))


def test_unsharing_changes_no_byte_and_extends_as_plain_allocation_does() -> None:
    call = Fallocate("f", 0, 24 * KIB, (UNSHARE,))
    shown = (tag(20000, 2), zero(24 * KIB - 20000))
    assert accepts(XFS, *FILE, (call, returned()), (Pread("f", 0, 32 * KIB), returned(24 * KIB, *shown)))
    kept = Fallocate("f", 0, 24 * KIB, (UNSHARE, KEEP))
    assert accepts(XFS, *FILE, (kept, returned()), (Pread("f", 0, 32 * KIB), returned(20000, tag(20000, 2))))
    assert not accepts(XFS, *FILE, (call, failed("EOPNOTSUPP")))


@pytest.mark.parametrize("flag", [COLLAPSE, INSERT, UNSHARE])
def test_nothing_of_a_node_is_shifted_or_unshared(flag: AllocateFlag) -> None:
    opened: Row = (Open("f", "a", (OpenFlag.RDWR,)), returned())
    assert accepts(NODE, opened, (Fallocate("f", 0, 4096, (flag,)), failed("EOPNOTSUPP")))
    assert not accepts(NODE, opened, (Fallocate("f", 0, 4096, (flag,)), returned()))


# ---- what file systems differ in -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "unmapped"),
    [
        (DAX, True),
        (env(volume(dax=True), release="6.1.1"), False),
        (XFS, True),
        (env(volume(dax=True, filesystem="xfs"), release=OLDEST), True),
    ],
)
def test_a_shift_that_is_refused_has_unmapped_a_dax_file_or_not(where: Env, unmapped: bool) -> None:
    rows = [*MAPPED, (Load("m", 0, 20000), returned(20000, tag(20000, 2)))]
    rows += [(Fallocate("f", 512, 4096, (COLLAPSE,)), failed("EINVAL"))]
    assert accepts(where, *rows, (Mincore("m"), returned(resident="00000000"))) is unmapped
    assert accepts(where, *rows, (Mincore("m"), returned(resident="11111000"))) is not unmapped


def test_a_shift_that_is_refused_waits_for_pins_only_where_it_unmaps() -> None:
    rows: list[Row] = [*MAPPED, (Pipe("p"), returned()), (Vmsplice("p", "m", 0, 4 * KIB), returned(4 * KIB))]
    odd = Fallocate("f", 512, 4096, (INSERT,))
    assert accepts(DAX, *rows, (odd, blocked()))
    assert accepts(env(volume(dax=True), release="6.1.1"), *rows, (odd, failed("EINVAL")))


@pytest.mark.parametrize(
    ("where", "copied"), [(XFS_CACHE, False), (env(volume(dax=False, filesystem="xfs"), release=OLDEST), True), (PAGE_CACHE, False)]
)
def test_collapsing_that_is_refused_has_taken_the_cached_pages_of_its_range_or_not(where: Env, copied: bool) -> None:
    rows = [*PIPED, (Fallocate("f", 512, 8 * KIB, (COLLAPSE,)), failed("EINVAL")), (Pwrite("f", 0, 20000), returned(20000))]
    fresh, old = returned(12 * KIB, tag(12 * KIB, 6)), returned(12 * KIB, tag(12 * KIB, 2))
    assert accepts(where, *rows, (Read("p", 12 * KIB), old if copied else fresh))
    assert not accepts(where, *rows, (Read("p", 12 * KIB), fresh if copied else old))


def test_a_pipe_keeps_the_pages_that_a_shift_takes_and_on_xfs_the_one_before() -> None:
    oldest = env(volume(dax=False, filesystem="xfs"), release=OLDEST)
    rows = [*PIPED, shift(COLLAPSE, 8 * KIB, 4 * KIB), (Pwrite("f", 0, 16 * KIB), returned(16 * KIB))]
    for where, first in ((PAGE_CACHE, tag(8 * KIB, 6)), (oldest, tag(4 * KIB, 6))):
        kept = tag(16 * KIB - first.length, 2, first.length)
        assert accepts(where, *rows, (Read("p", 16 * KIB), returned(16 * KIB, first, kept)))
        assert not accepts(where, *rows, (Read("p", 16 * KIB), returned(16 * KIB, tag(16 * KIB, 6))))
        assert not accepts(where, *rows, (Read("p", 16 * KIB), returned(16 * KIB, tag(16 * KIB, 2))))


def test_a_folio_that_goes_in_part_shows_a_pipe_zeroes_there_and_what_it_was_elsewhere() -> None:
    rows = [*PIPED, shift(COLLAPSE, 8 * KIB, 4 * KIB), (Pwrite("f", 0, 16 * KIB), returned(16 * KIB))]
    new, old = tag(4 * KIB, 6), [tag(4 * KIB, 2, at) for at in range(0, 16 * KIB, 4 * KIB)]
    gap = zero(4 * KIB)
    allowed = [
        (new, *old[1:]),  # single pages
        (*old[:2], gap, old[3]),  # one folio of all
        (new, old[1], gap, old[3]),  # one over the end of the range
        (old[0], gap, *old[2:]),  # one over the page before it
        (old[0], gap, gap, old[3]),  # two
    ]
    for shown in allowed:
        assert accepts(XFS_CACHE, *rows, (Read("p", 16 * KIB), returned(16 * KIB, *shown)))
    for shown in ((new, gap, gap, gap), (*old[:2], *old[2:3], gap), (*old[:2], old[3], old[3]), (new, new, *old[2:]), (gap, *old[1:])):
        assert not accepts(XFS_CACHE, *rows, (Read("p", 16 * KIB), returned(16 * KIB, *shown)))


def test_inserting_takes_only_the_part_of_a_folio_that_lies_behind_the_page_before() -> None:
    rows = [*PIPED, shift(INSERT, 8 * KIB, 4 * KIB), (Pwrite("f", 0, 24 * KIB), returned(24 * KIB))]
    old, gap = [tag(4 * KIB, 2, at) for at in range(0, 16 * KIB, 4 * KIB)], zero(4 * KIB)
    for shown in ((tag(4 * KIB, 6), *old[1:]), (old[0], gap, *old[2:]), (old[0], gap, gap, gap)):
        assert accepts(XFS_CACHE, *rows, (Read("p", 16 * KIB), returned(16 * KIB, *shown)))
    for shown in ((*old[:2], gap, gap), (old[0], gap, gap, old[3])):
        assert not accepts(XFS_CACHE, *rows, (Read("p", 16 * KIB), returned(16 * KIB, *shown)))


@pytest.mark.parametrize(("where", "dropped"), [(DAX, True), (PAGE_CACHE, True), (XFS, False), (XFS_CACHE, False)])
def test_private_copies_of_what_moves_are_dropped_or_kept(where: Env, dropped: bool) -> None:
    rows: list[Row] = [*FILE, (Mmap("m", 32 * KIB, "f", flags=(MapFlag.PRIVATE,)), returned())]
    rows += [(Store("m", 0, 8), returned(8)), (Store("m", 4 * KIB, 8), returned(8)), (Store("m", 16 * KIB, 8), returned(8))]
    rows += [shift(COLLAPSE, 4 * KIB, 4 * KIB)]
    assert accepts(where, *rows, (Load("m", 0, 8), returned(8, tag(8, 4))))
    moved, copied = returned(8, tag(8, 2, 8 * KIB)), returned(8, tag(8, 5))
    assert accepts(where, *rows, (Load("m", 4 * KIB, 8), moved if dropped else copied))
    assert not accepts(where, *rows, (Load("m", 4 * KIB, 8), copied if dropped else moved))
    # What lies behind the new end is dropped by both.
    rows += [(Ftruncate("f", 20000), returned())]
    assert accepts(where, *rows, (Load("m", 16 * KIB, 8), returned(8, zero(8))))
    assert not accepts(where, *rows, (Load("m", 16 * KIB, 8), returned(8, tag(8, 6))))


@pytest.mark.parametrize(("where", "zeroed"), [(DAX, False), (PAGE_CACHE, True), (XFS, True), (XFS_CACHE, True)])
@pytest.mark.parametrize(("flag", "at"), [(COLLAPSE, 20100 - 4 * KIB), (INSERT, 20100 + 4 * KIB)])
def test_what_was_stored_behind_the_end_moves_along_or_is_zeroed(where: Env, zeroed: bool, flag: AllocateFlag, at: int) -> None:
    rows = [*MAPPED, (Store("m", 20100, 64), returned(64)), shift(flag, 4 * KIB, 4 * KIB)]
    assert accepts(where, *rows, (Load("m", at, 64), returned(64, zero(64)))) is zeroed
    assert accepts(where, *rows, (Load("m", at, 64), returned(64, tag(64, 4)))) is not zeroed


# ---- what is not known -----------------------------------------------------------------------------------------------


def why(where: Env, *rows: Row) -> str:
    step = judged(where, *rows).steps[-1]
    assert step.verdict is Verdict.UNDETERMINED
    return str(step)


def test_blocks_behind_the_end_that_are_only_allocated_leave_a_shift_undetermined() -> None:
    ahead: Row = (Fallocate("f", 20000, 64 * KIB, (KEEP,)), returned())
    assert "allocated behind the end of a file" in why(DAX, *FILE, ahead, shift(COLLAPSE))


def test_a_file_that_its_inode_may_hold_leaves_a_shift_undetermined() -> None:
    where = env(volume(dax=False, format=Format.INLINE_DATA))
    opened = (FILE[0], (Pwrite("f", 0, 100), returned(100)))
    assert "its inode may hold" in why(where, *opened, shift(INSERT, 0, 4096))


def test_a_file_system_that_the_program_mounted_leaves_a_shift_undetermined() -> None:
    mounted: Row = (MountVolume("main", "ext4", ""), returned())
    assert "that the program mounted" in why(env(volume(dax=False, filesystem=None)), mounted, *FILE, shift(INSERT, 0, 4096))
