"""What a format changes, on hand-written observations: DAX mounts and files, O_DIRECT through the page cache, small blocks."""

import pytest

from harness.model.facts import Env
from harness.model.formats import Format
from harness.model.outcome import Observation
from harness.model.verdict import Verdict
from harness.ops import (
    AllocateFlag,
    Close,
    CopyFileRange,
    Fallocate,
    Fsync,
    Ftruncate,
    Load,
    Lseek,
    Mmap,
    MountVolume,
    Open,
    OpenFlag,
    Pipe,
    Pread,
    Pwrite,
    Read,
    RwFlag,
    SetXflags,
    Splice,
    Statx,
    Whence,
)
from harness.sizes import KIB
from tests.unit.model.stacks import Row, env, failed, judged, returned, tag, volume, zero

OPEN: Row = (Open("f", "a", (OpenFlag.RDWR, OpenFlag.CREAT)), returned())
DIRECT: Row = (Open("f", "a", (OpenFlag.RDWR, OpenFlag.CREAT, OpenFlag.DIRECT)), returned())


def made(format_: Format, filesystem: str | None = "ext4", release: str = "6.12.1", dax: str = "never") -> Env:
    """A volume of a format; with no file system one that the program is to mount."""
    options = (f"dax={dax}",) if filesystem else ()
    return env(volume(dax=False, filesystem=filesystem, format=format_, mount_options=options), release=release)


SMALL = env(volume(dax=False, format=Format.BLOCK_1K, filesystem_block_bytes=1024))
JOURNAL = made(Format.JOURNAL_DATA)


def verdict_of(where: Env, *rows: Row) -> Verdict:
    return judged(where, *rows).verdict


@pytest.mark.parametrize(
    ("format_", "filesystem", "release", "seen"),
    [
        (Format.BLOCK_1K, "ext4", "6.12.1", failed("EINVAL")),
        (Format.INLINE_DATA, "ext4", "6.12.1", failed("EINVAL")),
        (Format.ENCRYPT, "ext4", "6.12.1", returned()),
        (Format.VERITY, "ext4", "6.12.1", returned()),
        (Format.BLOCK_1K, "xfs", "6.12.1", returned()),
        (Format.REFLINK, "xfs", "6.12.1", returned()),
        (Format.REFLINK, "xfs", "5.10.1", failed("EINVAL")),
        (Format.NO_REFLINK, "xfs", "5.10.1", returned()),
    ],
)
def test_a_dax_mount_is_given_or_refused_for_how_the_file_system_was_made(
    format_: Format, filesystem: str, release: str, seen: Observation
) -> None:
    where = made(format_, None, release)
    other = returned() if seen.errno else failed("EINVAL")
    assert verdict_of(where, (MountVolume("main", filesystem, "dax=always"), seen)) is Verdict.CONFORMS
    assert verdict_of(where, (MountVolume("main", filesystem, "dax=always"), other)) is Verdict.DEVIATES
    assert verdict_of(where, (MountVolume("main", filesystem, "dax=never"), returned())) is Verdict.CONFORMS
    assert verdict_of(where, (MountVolume("main", "vfat", "dax=always"), returned())) is Verdict.CONFORMS


@pytest.mark.parametrize(("format_", "dax"), [(Format.BLOCK_1K, 0), (Format.NO_REFLINK, 1)])
def test_xfs_with_small_blocks_goes_on_without_dax(format_: Format, dax: int) -> None:
    mounted: Row = (MountVolume("main", "xfs", "dax=always"), returned())
    for shown, verdict in ((dax, Verdict.CONFORMS), (1 - dax, Verdict.DEVIATES)):
        seen = returned(
            0, attributes=(("dax", shown), ("dio_supported", 1), ("dio_offset_align", 512), ("dio_mem_align", 512), ("size", 0))
        )
        assert verdict_of(made(format_, None), mounted, OPEN, (Statx("f"), seen)) is verdict


def test_journalled_data_and_dax_exclude_each_other_and_what_it_makes_of_a_file_is_the_set_ups_affair() -> None:
    where = made(Format.STANDARD, None)
    assert verdict_of(where, (MountVolume("main", "ext4", "data=journal,dax=always"), failed("EINVAL"))) is Verdict.CONFORMS
    assert verdict_of(where, (MountVolume("main", "ext4", "data=journal,dax=always"), returned())) is Verdict.DEVIATES
    judgement = judged(where, (MountVolume("main", "ext4", "data=journal"), returned()))
    assert "what data=journal makes of a file is judged only where the set-up mounts" in str(judgement)


def test_direct_io_of_journalled_data_asks_for_no_alignment() -> None:
    odd: Row = (Pwrite("f", 3, 1000, shift=1), returned(1000))
    assert verdict_of(JOURNAL, DIRECT, odd, (Pread("f", 0, 1003), returned(1003, zero(3), tag(1000, 2)))) is Verdict.CONFORMS
    assert verdict_of(JOURNAL, DIRECT, (Pwrite("f", 3, 1000, shift=1), failed("EINVAL"))) is Verdict.DEVIATES


@pytest.mark.parametrize(("release", "writer"), [("6.12.1", 2), ("6.1.1", 5), ("5.10.1", 5)])
def test_what_was_spliced_from_o_direct_of_journalled_data_follows_the_file_on_older_kernels(release: str, writer: int) -> None:
    rows: list[Row] = [DIRECT, (Pwrite("f", 0, 4096), returned(4096)), (Pipe("p"), returned())]
    rows += [(Splice("f", "p", 96, source_offset=0), returned(96)), (Pwrite("f", 0, 4096), returned(4096))]
    for shown, verdict in ((writer, Verdict.CONFORMS), (7 - writer, Verdict.DEVIATES)):
        assert verdict_of(made(Format.JOURNAL_DATA, release=release), *rows, (Read("p", 96), returned(96, tag(96, shown)))) is verdict


def test_a_descriptor_with_o_direct_is_not_refused_nowait_where_data_is_journalled() -> None:
    asked = Pwrite("f", 0, 4096, flags=(RwFlag.NOWAIT,))
    assert verdict_of(JOURNAL, DIRECT, (asked, failed("EOPNOTSUPP"))) is Verdict.CONFORMS
    assert verdict_of(JOURNAL, DIRECT, (asked, failed("EINVAL"))) is Verdict.DEVIATES


@pytest.mark.parametrize(("where", "align"), [(JOURNAL, 0), (made(Format.ENCRYPT), 512)])
def test_statx_reports_no_alignment_where_direct_io_is_not_direct(where: Env, align: int) -> None:
    fields = (("dax", 0), ("dio_supported", 1), ("size", 0))
    for shown, verdict in ((align, Verdict.CONFORMS), (512 - align, Verdict.DEVIATES)):
        seen = returned(0, attributes=(*fields, ("dio_offset_align", shown), ("dio_mem_align", shown)))
        assert verdict_of(where, OPEN, (Statx("f"), seen)) is verdict


def flagged(format_: Format, *rows: Row) -> list[Row]:
    return [OPEN, *rows, (SetXflags("f", True), returned()), (Close("f"), returned()), (Open("g", "a", (OpenFlag.RDWR,)), returned())]


@pytest.mark.parametrize(("format_", "dax"), [(Format.ENCRYPT, 1), (Format.INLINE_DATA, 1), (Format.BLOCK_1K, 0), (Format.JOURNAL_DATA, 0)])
def test_the_flag_of_a_file_works_where_the_format_has_dax(format_: Format, dax: int) -> None:
    where = made(format_, dax="inode")
    align = 512 if format_.traits.direct_io else 0
    rows = flagged(format_, (Pwrite("f", 0, 64 * KIB), returned(64 * KIB)))
    for shown, verdict in ((dax, Verdict.CONFORMS), (1 - dax, Verdict.DEVIATES)):
        fields = (("dio_supported", 1), ("dio_offset_align", align), ("dio_mem_align", align), ("size", 64 * KIB))
        assert verdict_of(where, *rows, (Statx("g"), returned(0, attributes=(("dax", shown), *fields)))) is verdict


def test_of_a_file_that_may_be_kept_in_its_inode_the_model_says_little() -> None:
    where = made(Format.INLINE_DATA, dax="inode")
    assert "without which it is not in DAX state, is not known" in str(judged(where, *flagged(Format.INLINE_DATA)))
    assert "without which O_DIRECT is not direct, is not known" in str(judged(where, DIRECT))
    said = returned(0, attributes=(("dax", 0), ("dio_supported", 1), ("dio_offset_align", 0), ("dio_mem_align", 0), ("size", 0)))
    assert verdict_of(where, OPEN, (Statx("f"), said)) is Verdict.CONFORMS
    large: list[Row] = [OPEN, (Pwrite("f", 0, 4096), returned(4096))]
    assert verdict_of(where, *large, (Open("g", "a", (OpenFlag.RDWR, OpenFlag.DIRECT)), returned())) is Verdict.CONFORMS


def test_holes_are_as_small_as_blocks() -> None:
    rows: list[Row] = [OPEN, (Ftruncate("f", 8 * KIB), returned()), (Pwrite("f", 0, 1 * KIB), returned(1 * KIB))]
    asked = Lseek("f", 0, Whence.HOLE)
    assert verdict_of(SMALL, *rows, (asked, returned(1 * KIB))) is Verdict.CONFORMS
    assert verdict_of(made(Format.STANDARD), *rows, (asked, returned(1 * KIB))) is Verdict.DEVIATES


def test_an_odd_direct_read_of_a_page_that_may_be_a_hole_in_part_is_not_judged() -> None:
    rows: list[Row] = [DIRECT, (Ftruncate("f", 8 * KIB), returned()), (Pwrite("f", 0, 1 * KIB), returned(1 * KIB))]
    asked = Pread("f", 2 * KIB + 3, 100)
    assert "whether there is a hole in a part of a page is not known" in str(judged(SMALL, *rows, (asked, returned(100, zero(100)))))
    assert verdict_of(made(Format.STANDARD), *rows, (asked, failed("EINVAL"))) is Verdict.CONFORMS
    assert verdict_of(SMALL, *rows, (Pread("f", 3, 100), failed("EINVAL"))) is Verdict.CONFORMS
    moved: list[Row] = [*rows, (Pipe("p"), returned())]
    splice = Splice("f", "p", 100, source_offset=2 * KIB + 3)
    assert "whether there is a hole in a part of a page is not known" in str(judged(SMALL, *moved, (splice, returned(100))))


def test_punching_a_part_of_a_page_may_unmap_it_where_that_is_a_block() -> None:
    rows: list[Row] = [OPEN, (Pwrite("f", 0, 4096), returned(4096)), (Mmap("m", 4096, "f"), returned())]
    rows += [(Load("m", 0, 8), returned(8, tag(8, 2), minor_faults=1))]
    punch = Fallocate("f", 1 * KIB, 1 * KIB, (AllocateFlag.PUNCH_HOLE, AllocateFlag.KEEP_SIZE))
    again: Row = (Load("m", 0, 8), returned(8, tag(8, 2), minor_faults=1))
    assert verdict_of(SMALL, *rows, (punch, returned()), again) is Verdict.CONFORMS
    assert verdict_of(made(Format.STANDARD), *rows, (punch, returned()), again) is Verdict.DEVIATES


@pytest.mark.parametrize(
    ("format_", "release", "shares"),
    [(Format.NO_REFLINK, "6.12.1", False), (Format.REFLINK, "5.10.1", True), (Format.STANDARD, "5.10.1", False)],
)
def test_xfs_shares_blocks_where_it_was_made_so(format_: Format, release: str, shares: bool) -> None:
    assert made(format_, "xfs", release).fact("copy_shares_blocks", "main") is shares


def test_whole_blocks_are_shared_however_small() -> None:
    where = env(volume(dax=False, filesystem="xfs", format=Format.BLOCK_1K, filesystem_block_bytes=1024))
    rows: list[Row] = [OPEN, (Pwrite("f", 0, 8 * KIB), returned(8 * KIB)), (Open("g", "b", (OpenFlag.RDWR, OpenFlag.CREAT)), returned())]
    rows += [(CopyFileRange("f", "g", 3 * KIB, 1 * KIB, 0), returned(3 * KIB)), (Fsync("g"), returned())]
    assert verdict_of(where, *rows) is Verdict.CONFORMS


def test_blocks_limit_how_large_a_file_of_ext4_is() -> None:
    assert SMALL.fact("max_file_bytes", "main") == (2**32 - 1) * 1024
    assert made(Format.STANDARD).fact("max_file_bytes", "main") == (2**32 - 1) * 4096
