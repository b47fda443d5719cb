"""What ext2 does in its own way, on hand-written observations: the words of mount, holes, allocation, truncation, flags."""

import pytest

from harness.model.facts import Env
from harness.model.outcome import Observation
from harness.model.verdict import Verdict
from harness.ops import (
    Advice,
    Fallocate,
    Ftruncate,
    GetXflags,
    Load,
    Madvise,
    MapFlag,
    Mincore,
    Mmap,
    MountVolume,
    Open,
    OpenFlag,
    Operation,
    Pipe,
    Pread,
    Pwrite,
    SetXflags,
    Splice,
    Statx,
    Store,
    Vmsplice,
    Write,
)
from harness.sizes import KIB, MIB
from tests.unit.model.stacks import Row, env, failed, judged, returned, tag, volume, with_faults, zero

EXT2_DAX = env(volume(dax=True, filesystem="ext2", mount_options=("rw", "dax")))
EXT2 = env(volume(dax=False, filesystem="ext2", mount_options=("rw",)))
EXT4_DAX = env(volume(dax=True))
BARE = env(volume(dax=False, filesystem=None))
WITHOUT_DAX = env(volume(dax=False, filesystem=None, queue_dax=False, namespace_mode="raw"))
OPEN: Row = (Open("f", "a", (OpenFlag.RDWR, OpenFlag.CREAT)), returned())
DIRECT: Row = (Open("f", "a", (OpenFlag.RDWR, OpenFlag.CREAT, OpenFlag.DIRECT)), returned())
SIZED: Row = (Ftruncate("f", 64 * KIB), returned())


def verdict_of(where: Env, *rows: Row) -> Verdict:
    return judged(where, *rows).verdict


@pytest.mark.parametrize(
    ("where", "options", "seen", "verdict"),
    [
        (BARE, "dax", returned(), Verdict.CONFORMS),
        (BARE, "", returned(), Verdict.CONFORMS),
        (BARE, "dax=always", failed("EINVAL"), Verdict.CONFORMS),
        (BARE, "dax=never", failed("EINVAL"), Verdict.CONFORMS),
        (BARE, "dax=inode", failed("EINVAL"), Verdict.CONFORMS),
        (BARE, "dax=always", returned(), Verdict.DEVIATES),
        (WITHOUT_DAX, "dax", returned(), Verdict.CONFORMS),
        (WITHOUT_DAX, "dax", failed("EINVAL"), Verdict.DEVIATES),
    ],
)
def test_ext2_takes_the_word_dax_only_and_drops_it_where_the_device_has_none(
    where: Env, options: str, seen: Observation, verdict: Verdict
) -> None:
    assert verdict_of(where, (MountVolume("main", "ext2", options), seen)) is verdict


@pytest.mark.parametrize(("where", "dax"), [(EXT2_DAX, 1), (EXT2, 0)])
def test_statx_says_nothing_of_direct_io(where: Env, dax: int) -> None:
    nothing = (("dio_supported", 0), ("dio_offset_align", 0), ("dio_mem_align", 0))
    said = returned(0, attributes=(("dax", dax), *nothing, ("size", 0)))
    assert verdict_of(where, OPEN, (Statx("f"), said)) is Verdict.CONFORMS


@pytest.mark.parametrize("where", [EXT2_DAX, EXT2])
def test_map_sync_is_refused_where_it_is_validated_and_overlooked_elsewhere(where: Env) -> None:
    asked = Mmap("m", 4096, "f", flags=(MapFlag.SHARED_VALIDATE, MapFlag.SYNC))
    assert verdict_of(where, OPEN, (asked, failed("EOPNOTSUPP"))) is Verdict.CONFORMS
    assert verdict_of(where, OPEN, (Mmap("m", 4096, "f", flags=(MapFlag.SHARED, MapFlag.SYNC)), returned())) is Verdict.CONFORMS


@pytest.mark.parametrize("where", [EXT2_DAX, EXT2])
def test_nothing_is_allocated_or_punched(where: Env) -> None:
    mapped: list[Row] = [OPEN, SIZED, (Mmap("m", 64 * KIB, "f"), returned())]
    for op in (Fallocate("f", 0, 4096), Madvise("m", Advice.REMOVE, 0, 4096)):
        assert verdict_of(where, *mapped, (op, failed("EOPNOTSUPP"))) is Verdict.CONFORMS
        assert verdict_of(where, *mapped, (op, returned())) is Verdict.DEVIATES


def test_the_dax_flag_of_a_file_is_taken_and_forgotten() -> None:
    rows: list[Row] = [OPEN, (SetXflags("f", True), returned())]
    assert verdict_of(EXT2_DAX, *rows, (GetXflags("f"), returned(0))) is Verdict.CONFORMS
    assert verdict_of(EXT2_DAX, *rows, (GetXflags("f"), returned(1))) is Verdict.DEVIATES
    assert verdict_of(EXT4_DAX, *rows, (GetXflags("f"), returned(1))) is Verdict.CONFORMS


def test_an_unaligned_direct_write_fills_a_hole_and_is_refused_where_there_is_data_and_behind_the_end() -> None:
    odd = Pwrite("f", 8 * KIB + 3, 1000, shift=1)
    rows: list[Row] = [DIRECT, SIZED]
    assert verdict_of(EXT2, *rows, (odd, returned(1000))) is Verdict.CONFORMS
    assert verdict_of(EXT2, *rows, (odd, failed("EINVAL"))) is Verdict.DEVIATES
    assert verdict_of(EXT2, *rows, (odd, returned(1000)), (odd, failed("EINVAL"))) is Verdict.CONFORMS
    assert verdict_of(EXT2, *rows, (Pwrite("f", 64 * KIB + 3, 1000), failed("EINVAL"))) is Verdict.CONFORMS
    shown = returned(4096, zero(3), tag(1000, 3), zero(3093))
    assert verdict_of(EXT2, *rows, (odd, returned(1000)), (Pread("f", 8 * KIB, 4096), shown)) is Verdict.CONFORMS


@pytest.mark.parametrize("resident", ["0", "1"])
def test_a_page_that_a_direct_write_went_through_may_be_in_the_cache_still(resident: str) -> None:
    rows: list[Row] = [DIRECT, SIZED, (Pwrite("f", 0, 4096), returned(4096)), (Mmap("m", 4096, "f"), returned())]
    assert verdict_of(EXT2, *rows, (Mincore("m"), returned(0, resident=resident))) is Verdict.CONFORMS


def test_an_aligned_direct_write_goes_on_into_a_hole_and_how_an_odd_one_ends_is_not_judged() -> None:
    rows: list[Row] = [DIRECT, SIZED, (Pwrite("f", 0, 4096), returned(4096))]
    assert verdict_of(EXT2, *rows, (Pwrite("f", 0, 8192), returned(8192))) is Verdict.CONFORMS
    assert verdict_of(EXT2, *rows, (Pwrite("f", 0, 8000), returned(8000))) is Verdict.UNDETERMINED


def test_what_a_pipe_writes_directly_into_a_hole_is_not_judged() -> None:
    rows: list[Row] = [DIRECT, SIZED, (Pipe("p"), returned()), (Write("p", 1000), returned(1000))]
    moved: Operation = Splice("p", "f", 1000, target_offset=0)
    assert verdict_of(EXT2, *rows, (moved, returned(1000))) is Verdict.UNDETERMINED
    assert verdict_of(EXT2_DAX, *rows, (moved, returned(1000))) is Verdict.CONFORMS


@pytest.mark.parametrize(("where", "faults"), [(EXT2_DAX, 0), (EXT4_DAX, 1)])
def test_truncating_leaves_the_pages_mapped_that_stay(where: Env, faults: int) -> None:
    rows: list[Row] = [OPEN, (Pwrite("f", 0, 64 * KIB), returned(64 * KIB)), (Mmap("m", 4096, "f"), returned())]
    rows += [(Load("m", 0, 8), with_faults(returned(8, tag(8, 2)), 1)), (Ftruncate("f", 32 * KIB), returned())]
    assert verdict_of(where, *rows, (Load("m", 0, 8), with_faults(returned(8, tag(8, 2)), faults))) is Verdict.CONFORMS


def test_what_truncating_does_with_pages_that_are_held_is_not_judged() -> None:
    rows: list[Row] = [OPEN, (Pwrite("f", 0, 4096), returned(4096)), (Mmap("m", 4096, "f"), returned())]
    rows += [(Pipe("p"), returned()), (Vmsplice("p", "m", 0, 4096), returned(4096))]
    assert verdict_of(EXT2_DAX, *rows, (Ftruncate("f", 0), returned())) is Verdict.UNDETERMINED


@pytest.mark.parametrize(("where", "verdict"), [(EXT2_DAX, Verdict.DEVIATES), (EXT4_DAX, Verdict.CONFORMS)])
def test_no_fault_maps_two_mebibytes(where: Env, verdict: Verdict) -> None:
    mapped: Row = (Mmap("m", 2 * MIB, "f", align=2 * MIB), returned(0, attributes=(("address_mod_2mib", 0),)))
    rows: list[Row] = [OPEN, (Pwrite("f", 0, 2 * MIB), returned(2 * MIB)), mapped]
    assert verdict_of(where, *rows, (Store("m", 0, 2 * MIB), with_faults(returned(2 * MIB), 1))) is verdict
