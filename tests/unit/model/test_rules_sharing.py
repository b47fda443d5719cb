"""Files that share blocks, on hand-written observations: what a clone shows, what parts it from its source, and what is refused."""

from typing import Any

import pytest

from harness.model.facts import Env
from harness.model.formats import Format
from harness.model.outcome import Observation
from harness.model.verdict import Verdict
from harness.ops import (
    Close,
    CopyFileRange,
    Fallocate,
    Ficlone,
    Ficlonerange,
    Fideduperange,
    Fork,
    Ftruncate,
    FutexWait,
    Load,
    Lseek,
    MapFlag,
    Mincore,
    Mmap,
    Open,
    OpenFlag,
    Operation,
    Pagemap,
    Pipe,
    Pread,
    Protection,
    Pwrite,
    Read,
    SetXflags,
    Splice,
    Statx,
    Step,
    Store,
    Vmsplice,
    Whence,
)
from harness.sizes import KIB
from tests.unit.model.stacks import REGION_START, Row, blocked, env, failed, judged, returned, tag, volume, zero

RDWR = (OpenFlag.RDWR, OpenFlag.CREAT)
MOST = 2**63 - 1


def xfs(*, dax: bool, release: str = "6.12.1", **changes: Any) -> Env:
    return env(
        volume(dax=dax, filesystem="xfs", **changes), volume("target", dax=False, device="/dev/vdb", root="/mnt/target"), release=release
    )


DAX, CACHED = xfs(dax=True), xfs(dax=False)
SMALL = xfs(dax=False, format=Format.BLOCK_1K, filesystem_block_bytes=1024)
F: Row = (Open("f", "a", RDWR), returned())
G: Row = (Open("g", "b", RDWR), returned())
#: A file of two blocks and a part, and one of three whole ones.
FILES: list[Row] = [F, (Pwrite("f", 0, 10_000), returned(10_000)), G, (Pwrite("g", 0, 12 * KIB), returned(12 * KIB))]


def verdict_of(where: Env, *rows: Row) -> Verdict:
    return judged(where, *rows).verdict


def only(where: Env, before: list[Row], op: Operation, right: Observation, wrong: Observation) -> None:
    assert verdict_of(where, *before, (op, right)) is Verdict.CONFORMS
    assert verdict_of(where, *before, (op, wrong)) is Verdict.DEVIATES


@pytest.mark.parametrize("where", [DAX, CACHED])
def test_a_clone_has_the_bytes_of_its_source_until_one_of_them_is_written(where: Env) -> None:
    cloned: list[Row] = [*FILES[:3], (Ficlone("f", "g"), returned())]
    only(where, cloned, Pread("g", 0, 64 * KIB), returned(10_000, tag(10_000, 2)), returned(10_000, zero(10_000)))
    written: list[Row] = [*cloned, (Pwrite("f", 0, 100), returned(100))]
    only(where, written, Pread("g", 0, 100), returned(100, tag(100, 2)), returned(100, tag(100, 5)))
    stored: list[Row] = [*cloned, (Mmap("n", 8192, "g"), returned()), (Store("n", 4096, 8), returned(8, minor_faults=1))]
    only(where, stored, Pread("f", 4096, 8), returned(8, tag(8, 2, 4096)), returned(8, tag(8, 6)))
    only(where, stored, Pread("g", 4096, 8), returned(8, tag(8, 6)), returned(8, tag(8, 2, 4096)))


def test_a_range_goes_where_it_is_wanted_and_makes_the_target_longer_only_there() -> None:
    rows: list[Row] = [*FILES, (Ficlonerange("f", "g", 0, 4096, 16 * KIB), returned())]
    shown = returned(22_288, tag(12 * KIB, 4), zero(4096), tag(5_904, 2, 4096))
    only(DAX, rows, Pread("g", 0, 64 * KIB), shown, returned(12 * KIB, tag(12 * KIB, 4)))
    inside: list[Row] = [*FILES, (Ficlonerange("f", "g", 4096, 0, 4096), returned())]
    shown = returned(12 * KIB, tag(4096, 4), tag(4096, 2), tag(4096, 4, 8192))
    only(DAX, inside, Pread("g", 0, 64 * KIB), shown, returned(12 * KIB, tag(12 * KIB, 4)))


def test_what_was_stored_behind_the_end_goes_along_on_dax_and_is_zeroed_before_in_a_page_cache() -> None:
    rows: list[Row] = [*FILES[:3], (Mmap("m", 12 * KIB, "f"), returned()), (Store("m", 11_000, 8), returned(8))]
    rows += [(Ficlone("f", "g"), returned()), (Mmap("n", 12 * KIB, "g"), returned())]
    only(DAX, rows, Load("n", 11_000, 8), returned(8, tag(8, 5)), returned(8, zero(8)))
    only(CACHED, rows, Load("n", 11_000, 8), returned(8, zero(8)), returned(8, tag(8, 5)))
    assert verdict_of(DAX, *rows, (Ftruncate("g", 12 * KIB), returned()), (Pread("g", 11_000, 8), returned(8, zero(8)))) is Verdict.CONFORMS


def test_a_hole_of_the_source_is_one_of_the_target() -> None:
    rows: list[Row] = [F, (Pwrite("f", 4096, 4096), returned(4096)), (Fallocate("f", 8192, 4096), returned())]
    rows += [*FILES[2:], (Ficlone("f", "g"), returned()), (Mmap("n", 12 * KIB, "g"), returned())]
    rows += [(Load("n", 0, 12 * KIB), returned(12 * KIB, zero(4096), tag(4096, 2), zero(4096), minor_faults=3))]
    inside = REGION_START // 4096 + 5
    only(DAX, rows, Pagemap("n"), returned(frames=(1, inside, 1)), returned(frames=(inside, inside + 1, inside + 2)))
    only(DAX, rows, Lseek("g", 0, Whence.DATA), returned(4096), returned(4097))


#: Ranges that are refused with EINVAL, from f to g.
BAD_RANGES = [
    Ficlone("f", "g"),
    Ficlone("f", "f"),
    Ficlonerange("f", "g", 4096, 512, 0),
    Ficlonerange("f", "g", 4096, 0, 512),
    Ficlonerange("f", "g", 5000, 0, 0),
    Ficlonerange("f", "g", 12 * KIB, 0, 0),
    Ficlonerange("f", "g", 0, 12 * KIB, 0),
    Ficlonerange("f", "g", 4096, 12 * KIB, 0),
    Ficlonerange("f", "f", 8192, 0, 4096),
    Ficlonerange("f", "f", 0, 8192, 8192),
    Ficlonerange("f", "g", 4096, -4096, 0),
    Ficlonerange("f", "g", 4096, 0, -4096),
    Ficlonerange("f", "g", 4096, 0, MOST - 4095),
    Ficlonerange("f", "g", 0, 0, MOST - 4095),
]


@pytest.mark.parametrize("where", [DAX, CACHED])
@pytest.mark.parametrize("op", BAD_RANGES)
def test_a_range_that_is_not_of_whole_blocks_or_not_inside_the_source_is_refused(where: Env, op: Operation) -> None:
    only(where, FILES, op, failed("EINVAL"), returned())


def test_the_last_part_of_a_block_goes_only_to_the_end_of_the_target() -> None:
    ends, inside = Ficlonerange("f", "g", 1808, 8192, 12 * KIB), Ficlonerange("f", "g", 1808, 8192, 8192)
    only(DAX, FILES, ends, returned(), failed("EINVAL"))
    only(DAX, FILES, inside, failed("EINVAL"), returned())


def test_blocks_may_be_smaller_than_pages() -> None:
    rows: list[Row] = [*FILES, (Ficlonerange("f", "g", 1024, 2048, 1024), returned())]
    only(
        SMALL, rows, Pread("g", 0, 4096), returned(4096, tag(1024, 4), tag(1024, 2, 2048), tag(2048, 4, 2048)), returned(4096, tag(4096, 4))
    )
    only(SMALL, FILES, Ficlonerange("f", "g", 512, 0, 0), failed("EINVAL"), returned())


@pytest.mark.parametrize("op", [Ficlone("e", "g"), Ficlonerange("f", "g", 0, 10_000, 5)])
def test_cloning_nothing_changes_nothing(op: Operation) -> None:
    rows: list[Row] = [*FILES, (Open("e", "c", RDWR), returned())]
    only(DAX, rows, op, returned(), failed("EINVAL"))
    assert verdict_of(DAX, *rows, (op, returned()), (Pread("g", 0, 8192), returned(8192, tag(8192, 4)))) is Verdict.CONFORMS


MORE: list[Row] = [
    *FILES,
    (Open("r", "b"), returned()),
    (Open("w", "a", (OpenFlag.WRONLY,)), returned()),
    (Open("a", "b", (OpenFlag.RDWR, OpenFlag.APPEND)), returned()),
    (Open("t", "target:b", RDWR), returned()),
    (Open("u", "target:c", RDWR), returned()),
    (Pipe("p"), returned()),
    (Pipe("q"), returned()),
]


@pytest.mark.parametrize(
    ("op", "errno"),
    [
        (Ficlone("f", "t"), "EXDEV"),
        (Ficlone("t", "f"), "EXDEV"),
        (Ficlone("p", "f"), "EXDEV"),
        (Ficlone("f", "p"), "EXDEV"),
        (Ficlone("p", "q"), "EINVAL"),
        (Ficlone("w", "g"), "EBADF"),
        (Ficlone("f", "r"), "EBADF"),
        (Ficlone("f", "a"), "EBADF"),
        (Ficlone("t", "u"), "EOPNOTSUPP"),
    ],
)
def test_only_regular_files_of_one_file_system_that_are_open_for_it_are_cloned(op: Operation, errno: str) -> None:
    only(DAX, MORE, op, failed(errno), failed("EPERM"))


@pytest.mark.parametrize(
    "op", [Ficlonerange("f", "t", 4096, -1, 0), Ficlonerange("w", "g", 4096, 0, -1), Ficlonerange("t", "u", 4096, -1, 0)]
)
def test_kernels_look_at_the_range_before_or_behind_the_files(op: Operation) -> None:
    other = {"t": "EOPNOTSUPP", "w": "EBADF"}.get(op.source, "EXDEV")  # type: ignore[attr-defined]
    only(DAX, MORE, op, failed(other), failed("EPERM"))
    assert verdict_of(DAX, *MORE, (op, failed("EINVAL"))) is Verdict.CONFORMS


@pytest.mark.parametrize(
    ("where", "seen"),
    [
        (env(volume(dax=True)), "EOPNOTSUPP"),
        (env(volume(dax=False, filesystem="ext2")), "EOPNOTSUPP"),
        (xfs(dax=False, format=Format.NO_REFLINK), "EOPNOTSUPP"),
        (xfs(dax=False, release="5.10.1"), "EOPNOTSUPP"),
    ],
)
def test_files_that_cannot_share_blocks_are_not_cloned(where: Env, seen: str) -> None:
    only(where, FILES[:3], Ficlone("f", "g"), failed(seen), returned())


def test_nodes_are_on_one_file_system_and_no_regular_files() -> None:
    where = env(volume(dax=False, filesystem=None), volume("target", dax=False, device="/dev/vdb", root="/mnt/target"))
    rows: list[Row] = [F, G, (Open("t", "target:b", RDWR), returned())]
    only(where, rows, Ficlone("f", "g"), failed("EINVAL"), failed("EXDEV"))
    only(where, rows, Ficlone("f", "t"), failed("EXDEV"), failed("EINVAL"))


def flagged(release: str, *, both: bool) -> tuple[Env, list[Row]]:
    """Two files of xfs with dax=inode, of which one is in DAX state, or both are."""
    where = xfs(dax=False, format=Format.REFLINK, release=release, mount_options=("rw", "dax=inode"))
    rows: list[Row] = []
    for name, path in (("x", "a"), ("y", "b"))[: 1 + both]:
        rows += [(Open(name, path, RDWR), returned()), (SetXflags(name, True), returned()), (Close(name), returned())]
    return where, [*rows, F, (Pwrite("f", 0, 8192), returned(8192)), G]


@pytest.mark.parametrize(("release", "both", "errno"), [("6.12.1", True, None), ("6.12.1", False, "EINVAL"), ("5.10.1", True, "EINVAL")])
def test_files_with_dax_share_blocks_only_with_each_other_and_since_6_0(release: str, both: bool, errno: str | None) -> None:
    where, rows = flagged(release, both=both)
    right, wrong = (failed(errno), returned()) if errno else (returned(), failed("EINVAL"))
    only(where, rows, Ficlone("f", "g"), right, wrong)
    copied = returned(8192)
    assert verdict_of(where, *rows, (CopyFileRange("f", "g", 8192, 0, 0), copied)) is Verdict.CONFORMS


HELD: list[Row] = [
    *FILES,
    (Mmap("m", 8192, "f"), returned()),
    (Mmap("n", 8192, "g"), returned()),
    (Pipe("p"), returned()),
]


@pytest.mark.parametrize("op", [Ficlonerange("f", "g", 4096), Ficlonerange("g", "f", 4096), Ficlonerange("f", "g", 5)])
def test_cloning_waits_until_nobody_holds_a_page_of_a_dax_file(op: Operation) -> None:
    rows: list[Row] = [*HELD, (Vmsplice("p", "m", 0, 4096), returned(4096))]
    only(DAX, rows, op, blocked(), failed("EINVAL"))
    assert verdict_of(CACHED, *rows, (op, blocked())) is Verdict.DEVIATES


@pytest.mark.parametrize("op", [Ficlone("f", "g"), Ficlonerange("f", "g", 5)])
def test_cloning_unmaps_both_dax_files_even_where_it_is_refused(op: Operation) -> None:
    rows: list[Row] = [*HELD, (Load("m", 0, 8192), returned(8192, tag(8192, 2), minor_faults=2))]
    rows += [(op, failed("EINVAL"))]
    only(DAX, rows, Mincore("m"), returned(resident="00"), returned(resident="11"))


def test_what_is_shared_and_mapped_twice_is_in_one_page_table_at_a_time() -> None:
    rows: list[Row] = [*FILES[:3], (Ficlone("f", "g"), returned()), (Mmap("m", 8192, "g"), returned()), (Mmap("n", 8192, "g"), returned())]
    rows += [(Load("m", 0, 8), returned(8, tag(8, 2), minor_faults=1)), (Load("n", 0, 8), returned(8, tag(8, 2), minor_faults=1))]
    for faults in (0, 1):
        assert verdict_of(DAX, *rows, (Load("m", 0, 8), returned(8, tag(8, 2), minor_faults=faults))) is Verdict.CONFORMS
    only(DAX, rows, Load("n", 0, 8), returned(8, tag(8, 2), minor_faults=0), returned(8, tag(8, 2), minor_faults=1))


@pytest.mark.parametrize("write", [Pwrite("g", 0, 8), Store("n", 0, 8)])
def test_a_write_into_a_shared_block_takes_the_page_out_of_page_tables(write: Operation) -> None:
    rows: list[Row] = [*FILES[:3], (Ficlone("f", "g"), returned()), (Mmap("m", 8192, "g"), returned()), (Mmap("n", 8192, "g"), returned())]
    rows += [(Load("m", 0, 8), returned(8, tag(8, 2), minor_faults=1)), (write, returned(8))]
    assert verdict_of(DAX, *rows, (Load("m", 0, 8), returned(8, tag(8, 8), minor_faults=1))) is Verdict.CONFORMS


def test_what_a_pipe_holds_of_a_file_is_not_what_is_cloned_over_it() -> None:
    rows: list[Row] = [*FILES, (Pipe("p"), returned()), (Splice("g", "p", 4096, source_offset=0), returned(4096))]
    rows += [(Ficlonerange("f", "g", 4096), returned())]
    only(DAX, rows, Read("p", 4096), returned(4096, tag(4096, 4)), returned(4096, tag(4096, 2)))
    old = xfs(dax=False, format=Format.REFLINK, release="5.10.1")
    only(old, rows, Read("p", 4096), returned(4096, tag(4096, 4)), returned(4096, tag(4096, 2)))


def test_a_futex_in_a_shared_block_that_is_only_read_is_not_judged() -> None:
    rows: list[Row] = [*FILES[:3], (Ficlone("f", "g"), returned()), (Mmap("m", 4096, "g", protection=(Protection.READ,)), returned())]
    assert "in a block that files share" in str(judged(DAX, *rows, (FutexWait("m", 0, 0), failed("EAGAIN"))))


def test_the_sizes_of_both_files_are_known_afterwards() -> None:
    rows: list[Row] = [*FILES[:3], (Ficlone("f", "g"), returned())]
    fields = (("dax", 1), ("dio_supported", 1), ("dio_offset_align", 512), ("dio_mem_align", 512))
    right, wrong = (returned(attributes=(*fields, ("size", size))) for size in (10_000, 12 * KIB))
    only(DAX, rows, Statx("g"), right, wrong)


def test_a_child_takes_shared_pages_from_its_parent() -> None:
    rows: list[Row] = [*FILES[:3], (Ficlone("f", "g"), returned()), (Mmap("m", 4096, "g"), returned()), (Fork("child"), returned())]
    rows += [(Load("m", 0, 8), returned(8, tag(8, 2), minor_faults=1))]
    rows += [(Step(Load("m", 0, 8), process="child"), returned(8, tag(8, 2), minor_faults=1))]
    for faults in (0, 1):
        assert verdict_of(DAX, *rows, (Load("m", 0, 8), returned(8, tag(8, 2), minor_faults=faults))) is Verdict.CONFORMS


@pytest.mark.parametrize(("release", "seen"), [("6.12.1", returned()), ("6.1.1", failed("EINVAL"))])
def test_the_dax_flag_of_a_file_that_shares_blocks_can_be_set_since_6_2(release: str, seen: Observation) -> None:
    where = xfs(dax=False, release=release, mount_options=("rw", "dax=inode"))
    rows: list[Row] = [*FILES[:3], (Ficlone("f", "g"), returned())]
    only(where, rows, SetXflags("g", True), seen, failed("EINVAL") if seen.errno is None else returned())
    assert verdict_of(where, *rows, (SetXflags("g", False), returned())) is Verdict.CONFORMS


def test_whether_a_clone_with_dax_still_is_so_when_it_is_opened_again_is_known_since_6_2() -> None:
    rows: list[Row] = [*FILES[:3], (Ficlone("f", "g"), returned()), (Close("g"), returned())]
    assert verdict_of(DAX, *rows) is Verdict.CONFORMS
    assert "is in DAX state when it is opened again" in str(judged(xfs(dax=True, release="6.1.1"), *rows))


@pytest.mark.parametrize(("release", "align"), [("6.12.1", 512), ("7.3.1", 4096)])
def test_statx_reports_whole_blocks_for_a_file_that_shares_some(release: str, align: int) -> None:
    rows: list[Row] = [*FILES[:3], (Ficlone("f", "g"), returned())]
    fields = (("dax", 0), ("dio_supported", 1), ("dio_mem_align", 512), ("size", 10_000))
    right, wrong = (returned(attributes=(*fields, ("dio_offset_align", told))) for told in (align, 4608 - align))
    only(xfs(dax=False, release=release), rows, Statx("f"), right, wrong)


def test_an_o_direct_write_of_a_part_of_a_shared_block_is_not_judged() -> None:
    rows: list[Row] = [*FILES[:3], (Ficlone("f", "g"), returned()), (Open("d", "b", (OpenFlag.RDWR, OpenFlag.DIRECT)), returned())]
    assert verdict_of(CACHED, *rows, (Pwrite("d", 4096, 4096), returned(4096))) is Verdict.CONFORMS
    assert "a part of a block into a file that shares" in str(judged(CACHED, *rows, (Pwrite("d", 512, 512), returned(512))))


def told(status: int, count: int) -> Observation:
    return returned(attributes=(("bytes_deduped", count), ("status", status)))


#: f and g have the same three pages, of which the last is a part of one.
ALIKE: list[Row] = [*FILES[:3], (CopyFileRange("f", "g", 10_000, 0, 0), returned(10_000))]


@pytest.mark.parametrize("where", [DAX, CACHED])
def test_ranges_with_the_same_bytes_share_blocks_and_part_when_one_is_written(where: Env) -> None:
    asked = Fideduperange("f", "g", 8192)
    only(where, ALIKE, asked, told(0, 8192), told(1, 0))
    only(where, ALIKE, asked, told(0, 8192), told(0, 4096))
    only(where, ALIKE, Fideduperange("f", "g", 10_000), told(0, 10_000), told(0, 8192))
    only(where, ALIKE, Fideduperange("f", "g", 5000), told(0, 5000), told(0, 4096))
    only(where, ALIKE, Fideduperange("f", "g", 100), told(0, 100), told(0, 0))
    rows: list[Row] = [*ALIKE, (asked, told(0, 8192)), (Pwrite("g", 0, 8), returned(8))]
    only(where, rows, Pread("f", 0, 8), returned(8, tag(8, 2)), returned(8, tag(8, 6)))


@pytest.mark.parametrize("op", [Fideduperange("f", "g", 8192), Fideduperange("f", "g", 4096, 4096, 0)])
def test_ranges_that_differ_stay_as_they_are(op: Operation) -> None:
    only(DAX, FILES, op, told(1, 0), told(0, 4096))
    assert verdict_of(DAX, *FILES, (op, told(1, 0)), (Pread("g", 0, 8192), returned(8192, tag(8192, 4)))) is Verdict.CONFORMS


HOLES: list[Row] = [
    *(F, (Ftruncate("f", 8192), returned()), G, (Ftruncate("g", 8192), returned())),
    (Mmap("z", 8192, flags=(MapFlag.PRIVATE, MapFlag.ANONYMOUS)), returned()),
]


def test_zeroes_are_the_same_as_a_hole_but_not_with_dax() -> None:
    op, same, differ = Fideduperange("f", "g", 8192), told(0, 8192), told(1, 0)
    rows: list[Row] = [*HOLES, (Pwrite("g", 0, 4096, from_="z"), returned(4096))]
    only(CACHED, rows, op, same, differ)
    only(DAX, rows, op, differ, same)
    only(DAX, HOLES, op, same, differ)
    only(DAX, [*rows, (Pwrite("f", 0, 4096, from_="z"), returned(4096))], op, same, differ)


def test_what_is_only_allocated_is_not_judged_with_dax() -> None:
    rows: list[Row] = [*HOLES, (Fallocate("f", 0, 4096), returned())]
    assert "what is only allocated, with DAX" in str(judged(DAX, *rows, (Fideduperange("f", "g", 4096), told(0, 4096))))
    only(CACHED, rows, Fideduperange("f", "g", 4096), told(0, 4096), told(1, 0))


@pytest.mark.parametrize(
    ("op", "errno"),
    [
        (Fideduperange("w", "g", 4096), "EINVAL"),
        (Fideduperange("p", "g", 4096), "EINVAL"),
        (Fideduperange("f", "g", 4096, 8192), "EINVAL"),
        (Fideduperange("f", "g", 4096, -4096), "EINVAL"),
        (Fideduperange("t", "g", 4096), "EOPNOTSUPP"),
    ],
)
def test_what_is_wrong_with_the_source_is_an_error(op: Operation, errno: str) -> None:
    only(DAX, MORE, op, failed(errno), told(0, 4096))


@pytest.mark.parametrize(
    ("op", "status"),
    [
        (Fideduperange("f", "t", 4096), -18),
        (Fideduperange("f", "p", 4096), -18),
        (Fideduperange("f", "c", 4096), -9),
        (Fideduperange("f", "g", 4096, 0, -4096), -22),
        (Fideduperange("f", "g", 4096, 512), -22),
        (Fideduperange("f", "g", 4096, 0, 512), -22),
        (Fideduperange("f", "g", 4096, 0, 12 * KIB), -22),
        (Fideduperange("f", "f", 8192, 0, 4096), -22),
        (Fideduperange("f", "g", 0), 0),
    ],
)
def test_what_is_wrong_with_the_target_is_its_status(op: Operation, status: int) -> None:
    rows: list[Row] = [*MORE, (Open("c", "b", RDWR), returned()), (Close("c"), returned())]
    only(DAX, rows, op, told(status, 0), told(1, 0))
    only(DAX, rows, op, told(status, 0), failed("EINVAL"))


def test_xfs_made_without_reflink_says_so_of_the_target() -> None:
    where = xfs(dax=False, format=Format.NO_REFLINK)
    only(where, FILES, Fideduperange("f", "g", 4096), told(-95, 0), failed("EOPNOTSUPP"))


@pytest.mark.parametrize(("both", "seen"), [(True, told(1, 0)), (False, told(-22, 0))])
def test_a_file_with_dax_and_one_without_share_no_blocks(both: bool, seen: Observation) -> None:
    where, rows = flagged("6.12.1", both=both)
    rows = [*rows, (Pwrite("g", 0, 8192), returned(8192))]
    only(where, rows, Fideduperange("f", "g", 4096), seen, told(0, 4096))


def test_deduplication_waits_until_nobody_holds_a_page_of_a_dax_file() -> None:
    rows: list[Row] = [*HELD, (Vmsplice("p", "m", 0, 4096), returned(4096))]
    only(DAX, rows, Fideduperange("f", "g", 4096), blocked(), told(1, 0))


def test_more_than_the_kernel_takes_at_once_is_not_judged() -> None:
    rows: list[Row] = [F, (Ftruncate("f", 4 << 30), returned()), G]
    assert "more than 1 GiB" in str(judged(DAX, *rows, (Fideduperange("f", "g", 2 << 30), told(0, 2 << 30))))
