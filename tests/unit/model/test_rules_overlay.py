"""An overlay over erofs, on hand-written observations: whose file is which, copying up, and what is left open."""

import pytest

from harness.model.facts import Env
from harness.model.outcome import Observation
from harness.model.verdict import Verdict
from harness.ops import (
    Fsync,
    Load,
    Mmap,
    MountOverlay,
    Open,
    OpenFlag,
    Pread,
    Protection,
    Pwrite,
    RangeSyncFlag,
    Statx,
    Store,
    SyncFileRange,
    Syncfs,
)
from harness.ops.tag import PREPARED_SPAN, PREPARED_WRITER
from harness.sizes import KIB, MIB
from tests.unit.model.stacks import Row, env, failed, judged, returned, tag, volume, with_faults

SIZE = 4 * MIB + 64 * KIB


def over(*, dax: bool, target_dax: bool = False) -> Env:
    below = volume(dax=dax, filesystem="erofs", mount_options=("ro",))
    return env(below, volume("target", dax=target_dax, region_start=None, region_size_bytes=None, queue_dax=target_dax))


DAX, PAGE_CACHE = over(dax=True), over(dax=False)
MOUNT: Row = (MountOverlay(), returned())
READER: Row = (Open("f", "overlay:plain"), returned())
WRITER: Row = (Open("w", "overlay:plain", (OpenFlag.RDWR,)), returned())


def plain(length: int, at: int = 0) -> Observation:
    return returned(length, tag(length, PREPARED_WRITER, PREPARED_SPAN + at))


def stat(dax: bool) -> Observation:
    direct = (("dio_supported", 1), ("dio_offset_align", 512), ("dio_mem_align", 512))
    return returned(0, attributes=(("dax", int(dax)), *direct, ("size", SIZE)))


def verdict_of(where: Env, *rows: Row) -> Verdict:
    return judged(where, *rows).verdict


@pytest.mark.parametrize(("where", "dax"), [(DAX, True), (PAGE_CACHE, False)])
def test_a_file_that_nobody_opened_for_writing_is_the_one_below(where: Env, dax: bool) -> None:
    assert verdict_of(where, MOUNT, READER, (Statx("f"), stat(dax)), (Pread("f", 4096, 4096), plain(4096, 4096))) is Verdict.CONFORMS
    assert verdict_of(where, MOUNT, READER, (Statx("f"), stat(not dax))) is Verdict.DEVIATES


@pytest.mark.parametrize("target_dax", [True, False])
@pytest.mark.parametrize("dax", [True, False])
def test_a_file_that_is_opened_for_writing_is_copied_up_and_has_the_state_of_the_volume_above(dax: bool, target_dax: bool) -> None:
    where = over(dax=dax, target_dax=target_dax)
    rows = [MOUNT, WRITER, (Statx("w"), stat(target_dax)), (Pread("w", 0, 8192), plain(8192)), (Pwrite("w", 0, 4096), returned(4096))]
    written = returned(8192, tag(4096, 5), tag(4096, PREPARED_WRITER, PREPARED_SPAN + 4096))
    assert verdict_of(where, *rows, READER, (Pread("f", 0, 8192), written)) is Verdict.CONFORMS
    assert verdict_of(where, *rows, READER, (Pread("f", 0, 8192), plain(8192))) is Verdict.DEVIATES
    assert verdict_of(where, *rows, (Open("b", "plain"), returned()), (Pread("b", 0, 8192), plain(8192))) is Verdict.CONFORMS
    own: Row = (Open("o", "target:upper/plain"), returned())
    assert verdict_of(where, *rows, own, (Pread("o", 0, 8192), written)) is Verdict.CONFORMS


def test_what_was_mapped_before_shows_the_file_below_still() -> None:
    mapped: Row = (Mmap("m", 4096, "f", protection=(Protection.READ,)), returned())
    rows = [MOUNT, READER, mapped, WRITER, (Pwrite("w", 0, 4096), returned(4096))]
    assert verdict_of(DAX, *rows, (Load("m", 0, 4096), with_faults(plain(4096), 1))) is Verdict.CONFORMS


def test_what_a_descriptor_of_before_shows_is_left_open() -> None:
    *_, step = judged(DAX, MOUNT, READER, WRITER, (Pread("f", 0, 4096), plain(4096))).steps
    assert step.reason == "what a descriptor shows that an overlay gave before the file was copied up is not known to the model"


def test_a_new_file_is_made_above_and_one_that_is_nowhere_is_missing() -> None:
    made: Row = (Open("n", "overlay:new", (OpenFlag.RDWR, OpenFlag.CREAT)), returned())
    assert verdict_of(DAX, MOUNT, made, (Open("o", "target:upper/new"), returned())) is Verdict.CONFORMS
    assert verdict_of(DAX, MOUNT, (Open("n", "overlay:new"), failed("ENOENT"))) is Verdict.CONFORMS


def test_fsync_of_what_lies_below_succeeds_through_the_overlay_only() -> None:
    assert verdict_of(DAX, MOUNT, READER, (Fsync("f"), returned())) is Verdict.CONFORMS
    assert verdict_of(DAX, MOUNT, READER, (Fsync("f"), failed("EINVAL"))) is Verdict.DEVIATES
    assert verdict_of(DAX, MOUNT, (Open("b", "plain"), returned()), (Fsync("b"), failed("EINVAL"))) is Verdict.CONFORMS


def test_syncfs_through_an_overlay_writes_back_what_lies_above_and_sync_file_range_nothing() -> None:
    where = over(dax=True, target_dax=True)
    stored: list[Row] = [MOUNT, WRITER, (Mmap("m", 4096, "w"), returned()), (Store("m", 0, 8), with_faults(returned(8), 1))]
    again: Row = (Store("m", 0, 8), with_faults(returned(8), 1))
    assert verdict_of(where, *stored, (Syncfs("w"), returned()), again) is Verdict.CONFORMS
    every = SyncFileRange("w", 0, 0, tuple(RangeSyncFlag))
    assert verdict_of(where, *stored, (every, returned()), again) is Verdict.DEVIATES


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([READER], "no overlay is mounted"),
        ([MOUNT, MOUNT], "no clause covers a second overlay"),
        (
            [MOUNT, (Open("t", "overlay:plain", (OpenFlag.RDWR, OpenFlag.TRUNC)), returned())],
            "what a file is copied up with that is cut at once is not known to the model",
        ),
    ],
)
def test_what_is_not_modelled_is_undetermined(rows: list[Row], reason: str) -> None:
    assert judged(DAX, *rows).steps[-1].reason == reason
