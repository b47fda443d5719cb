"""Mounting in the program, dropping caches and meminfo, on hand-written observations."""

import pytest

from harness.model.facts import Env
from harness.model.layers import Layer
from harness.model.outcome import Observation, Run
from harness.model.verdict import Verdict
from harness.ops import (
    AllocateFlag,
    Close,
    DropCaches,
    Fallocate,
    Fsync,
    Meminfo,
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
    Statx,
    UmountVolume,
    Vmsplice,
)
from harness.sizes import MIB
from tests.unit.model.stacks import DAX, NODE, PAGE_CACHE, Row, env, failed, judged, returned, tag, volume, zero

BARE = env(volume(dax=False, filesystem=None))
WITHOUT_DAX = env(volume(dax=False, filesystem=None, queue_dax=False, namespace_mode="raw"))
OPEN: Row = (Open("f", "a", (OpenFlag.RDWR, OpenFlag.CREAT)), returned())


def state_of(dax: int, size: int = 0) -> Observation:
    attributes = (("dax", dax), ("dio_mem_align", 512), ("dio_offset_align", 512), ("dio_supported", 1), ("size", size))
    return returned(0, attributes=attributes)


# ---- mounting --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "filesystem", "options", "seen", "verdict"),
    [
        (BARE, "ext4", "dax=always", returned(), Verdict.CONFORMS),
        (BARE, "ext4", "dax=always", failed("EINVAL"), Verdict.DEVIATES),
        (WITHOUT_DAX, "ext4", "dax=always", failed("EINVAL"), Verdict.CONFORMS),
        (WITHOUT_DAX, "ext4", "dax", failed("EINVAL"), Verdict.CONFORMS),
        (WITHOUT_DAX, "ext4", "dax=always", returned(), Verdict.DEVIATES),
        (WITHOUT_DAX, "ext4", "dax=never", returned(), Verdict.CONFORMS),
        (WITHOUT_DAX, "ext4", "", returned(), Verdict.CONFORMS),
        (WITHOUT_DAX, "xfs", "dax=always", returned(), Verdict.CONFORMS),
        (WITHOUT_DAX, "xfs", "dax=always", failed("EINVAL"), Verdict.DEVIATES),
    ],
)
def test_ext4_refuses_dax_where_the_device_has_none(where: Env, filesystem: str, options: str, seen: Observation, verdict: Verdict) -> None:
    assert judged(where, (MountVolume("main", filesystem, options), seen)).verdict is verdict


def on_layer(layer: Layer, release: str = "6.12.1") -> Env:
    return env(volume(dax=False, filesystem=None, layer=layer, queue_dax=layer.traits.queue_dax), release=release)


@pytest.mark.parametrize("layer", Layer)
def test_ext4_refuses_dax_on_a_layer_that_does_not_give_it(layer: Layer) -> None:
    right, wrong = (returned(), failed("EINVAL")) if layer.traits.gives_dax else (failed("EINVAL"), returned())
    assert judged(on_layer(layer), (MountVolume("main", "ext4", "dax=always"), right)).verdict is Verdict.CONFORMS
    assert judged(on_layer(layer), (MountVolume("main", "ext4", "dax=always"), wrong)).verdict is Verdict.DEVIATES


@pytest.mark.parametrize(
    ("layer", "release", "options", "refused"),
    [
        (Layer.PARTITION, "6.12.1", "dax=always", True),
        (Layer.PARTITION, "6.12.1", "dax=never", False),
        (Layer.PARTITION, "5.10.1", "dax=always", False),
        (Layer.PARTITION_UNALIGNED, "6.12.1", "dax=always", False),
        (Layer.DM_LINEAR, "6.12.1", "dax=always", False),
    ],
)
def test_xfs_with_reflink_refuses_dax_on_a_partition_that_has_it(layer: Layer, release: str, options: str, refused: bool) -> None:
    right, wrong = (failed("EINVAL"), returned()) if refused else (returned(), failed("EINVAL"))
    assert judged(on_layer(layer, release), (MountVolume("main", "xfs", options), right)).verdict is Verdict.CONFORMS
    assert judged(on_layer(layer, release), (MountVolume("main", "xfs", options), wrong)).verdict is Verdict.DEVIATES


def test_a_file_system_that_nobody_knows_is_not_asked_for_what_it_does_with_partitions() -> None:
    assert judged(on_layer(Layer.PARTITION), (MountVolume("main", "minix", "dax=always"), returned())).verdict is Verdict.CONFORMS


CLOSED = env(volume(dax=False, filesystem=None, read_only=True))


@pytest.mark.parametrize(
    ("options", "seen", "verdict"),
    [
        ("dax=always", failed("EACCES"), Verdict.CONFORMS),
        ("dax=always", returned(), Verdict.DEVIATES),
        ("ro,dax=always", returned(), Verdict.CONFORMS),
        ("ro,dax=always", failed("EACCES"), Verdict.DEVIATES),
    ],
)
def test_a_read_only_device_is_mounted_read_only_or_not_at_all(options: str, seen: Observation, verdict: Verdict) -> None:
    assert judged(CLOSED, (MountVolume("main", "ext4", options), seen)).verdict is verdict


def test_no_file_is_made_on_a_read_only_mount_and_one_of_a_writable_device_is_not_judged() -> None:
    mounted: Row = (MountVolume("main", "xfs", "ro"), returned())
    assert judged(CLOSED, mounted, (OPEN[0], failed("EROFS")), (Open("g", "b"), failed("ENOENT"))).verdict is Verdict.CONFORMS
    assert judged(CLOSED, mounted, OPEN).verdict is Verdict.DEVIATES
    assert judged(BARE, mounted).verdict is Verdict.UNDETERMINED


@pytest.mark.parametrize(
    ("where", "filesystem", "options", "dax"),
    [(BARE, "ext4", "dax=always", 1), (BARE, "ext4", "dax=never", 0), (BARE, "xfs", "dax", 1), (WITHOUT_DAX, "xfs", "dax=always", 0)],
)
def test_a_fresh_file_has_the_state_that_the_mount_gives(where: Env, filesystem: str, options: str, dax: int) -> None:
    rows: list[Row] = [(MountVolume("main", filesystem, options), returned()), OPEN]
    assert judged(where, *rows, (Statx("f"), state_of(dax))).verdict is Verdict.CONFORMS
    assert judged(where, *rows, (Statx("f"), state_of(1 - dax))).verdict is Verdict.DEVIATES


def test_a_mount_is_used_while_a_file_is_open_and_can_be_made_once() -> None:
    mount: Row = (MountVolume("main", "ext4", "dax=always"), returned())
    assert judged(BARE, mount, (MountVolume("main", "ext4", ""), failed("EBUSY"))).verdict is Verdict.CONFORMS
    assert judged(BARE, mount, OPEN, (UmountVolume(), failed("EBUSY"))).verdict is Verdict.CONFORMS
    assert judged(BARE, mount, OPEN, (UmountVolume(), returned())).verdict is Verdict.DEVIATES
    assert judged(BARE, mount, OPEN, (Close("f"), returned()), (UmountVolume(), returned())).verdict is Verdict.CONFORMS
    assert judged(BARE, (UmountVolume(), failed("EINVAL"))).verdict is Verdict.CONFORMS


def test_what_was_written_outlives_the_mount_and_takes_the_state_of_the_next() -> None:
    rows: list[Row] = [(MountVolume("main", "ext4", "dax=never"), returned()), OPEN, (Pwrite("f", 0, 4096), returned(4096))]
    rows += [(Close("f"), returned()), (UmountVolume(), returned()), (MountVolume("main", "ext4", "dax=always"), returned())]
    rows += [(Open("g", "a"), returned()), (Statx("g"), state_of(1, 4096))]
    assert judged(BARE, *rows, (Pread("g", 0, 4096), returned(4096, tag(4096, 3)))).verdict is Verdict.CONFORMS


def test_mounting_with_dax_inode_in_a_program_is_undetermined() -> None:
    assert judged(BARE, (MountVolume("main", "ext4", "dax=inode"), returned())).verdict is Verdict.UNDETERMINED


# ---- the page cache as a whole ---------------------------------------------------------------------------------------

BEFORE = 100 * MIB
WRITE: list[Row] = [OPEN, (Meminfo(), returned(BEFORE)), (Pwrite("f", 0, 16 * MIB), returned(16 * MIB))]


@pytest.mark.parametrize(
    ("where", "after", "verdict"),
    [
        (PAGE_CACHE, BEFORE + 16 * MIB, Verdict.CONFORMS),
        (PAGE_CACHE, BEFORE + 17 * MIB, Verdict.CONFORMS),
        (PAGE_CACHE, BEFORE, Verdict.DEVIATES),
        (PAGE_CACHE, BEFORE + 32 * MIB, Verdict.DEVIATES),
        (DAX, BEFORE, Verdict.CONFORMS),
        (DAX, BEFORE + MIB // 2, Verdict.CONFORMS),
        (DAX, BEFORE + 2 * MIB, Verdict.DEVIATES),
        (DAX, BEFORE + 16 * MIB, Verdict.DEVIATES),
        (NODE, BEFORE + 16 * MIB, Verdict.CONFORMS),
        (NODE, BEFORE, Verdict.DEVIATES),
    ],
)
def test_cached_grows_by_what_the_page_cache_took_and_not_by_dax(where: Env, after: int, verdict: Verdict) -> None:
    assert judged(where, *WRITE, (Meminfo(), returned(after))).verdict is verdict


def test_the_next_look_at_meminfo_counts_from_the_last_one() -> None:
    rows = [*WRITE, (Meminfo(), returned(BEFORE + 16 * MIB)), (Pwrite("f", 16 * MIB, 8 * MIB), returned(8 * MIB))]
    assert judged(PAGE_CACHE, *rows, (Meminfo(), returned(BEFORE + 24 * MIB))).verdict is Verdict.CONFORMS
    assert judged(PAGE_CACHE, *rows, (Meminfo(), returned(BEFORE + 16 * MIB))).verdict is Verdict.DEVIATES


@pytest.mark.parametrize(
    ("where", "growth", "verdict"),
    [
        (NODE, 8, Verdict.CONFORMS),
        (NODE, 16, Verdict.CONFORMS),
        (NODE, 5, Verdict.DEVIATES),
        (NODE, 19, Verdict.DEVIATES),
        (DAX, 0, Verdict.CONFORMS),
        (DAX, 8, Verdict.DEVIATES),
    ],
)
def test_readahead_brings_in_at_most_as_much_again_where_there_is_a_page_cache(where: Env, growth: int, verdict: Verdict) -> None:
    size = 16 * MIB
    written: list[Row] = [OPEN, (Pwrite("f", 0, size), returned(size)), (Fsync("f"), returned())]
    rows: list[Row] = [*written, (DropCaches(), returned()), (Meminfo(), returned(BEFORE))]
    data = returned(8 * MIB, tag(8 * MIB, 2))
    result = judged(where, *rows, (Pread("f", 0, 8 * MIB), data), (Meminfo(), returned(BEFORE + growth * MIB)))
    assert result.verdict is verdict


def test_meminfo_that_cannot_be_read_deviates() -> None:
    assert judged(DAX, (Meminfo(), failed("ENOENT"))).verdict is Verdict.DEVIATES


def test_dropping_caches_may_take_a_file_or_leave_it_and_is_no_yardstick_for_meminfo() -> None:
    rows: list[Row] = [OPEN, (Pwrite("f", 0, 8192), returned(8192)), (DropCaches(), returned()), (Meminfo(), returned(BEFORE))]
    rows.append((Mmap("m", 8192, "f"), returned()))
    for resident in ("11", "00"):
        assert judged(PAGE_CACHE, *rows, (Mincore("m"), returned(0, resident=resident))).verdict is Verdict.CONFORMS


def test_dropping_caches_leaves_the_pages_that_a_pipe_holds() -> None:
    rows: list[Row] = [OPEN, (Pwrite("f", 0, 8192), returned(8192)), (Pipe("p"), returned())]
    rows += [(Splice("f", "p", 4096, 0), returned(4096)), (DropCaches(), returned()), (Mmap("m", 8192, "f"), returned())]
    assert judged(PAGE_CACHE, *rows, (Mincore("m"), returned(0, resident="10"))).verdict is Verdict.CONFORMS
    assert judged(PAGE_CACHE, *rows, (Mincore("m"), returned(0, resident="00"))).verdict is Verdict.DEVIATES


def test_dropping_caches_that_fails_deviates() -> None:
    assert judged(DAX, (DropCaches(), failed("EPERM"))).verdict is Verdict.DEVIATES


# ---- folios ----------------------------------------------------------------------------------------------------------

PUNCHED: list[Row] = [
    OPEN,
    (Pwrite("f", 0, 16384), returned(16384)),
    (Mmap("m", 16384, "f"), returned()),
    (Pipe("p"), returned()),
    (Vmsplice("p", "m", 0, 4096), returned(4096)),
    (Fallocate("f", 0, 4096, (AllocateFlag.PUNCH_HOLE, AllocateFlag.KEEP_SIZE)), returned()),
]


@pytest.mark.parametrize(
    ("filesystem", "shown", "verdict"),
    [
        ("ext4", tag(4096, 2), Verdict.CONFORMS),
        ("ext4", zero(4096), Verdict.DEVIATES),
        ("xfs", tag(4096, 2), Verdict.CONFORMS),
        ("xfs", zero(4096), Verdict.CONFORMS),
        ("xfs", tag(4096, 7), Verdict.DEVIATES),
    ],
)
def test_a_punched_page_in_a_pipe_may_be_zeroed_where_the_page_cache_keeps_pages_together(
    filesystem: str, shown: Run, verdict: Verdict
) -> None:
    where = env(volume(dax=False, filesystem=filesystem))
    assert judged(where, *PUNCHED, (Read("p", 4096), returned(4096, shown))).verdict is verdict


@pytest.mark.parametrize(("filesystem", "verdict"), [("ext4", Verdict.DEVIATES), ("xfs", Verdict.CONFORMS)])
def test_such_a_page_may_stay_a_page_of_the_file(filesystem: str, verdict: Verdict) -> None:
    where = env(volume(dax=False, filesystem=filesystem))
    rows: list[Row] = [*PUNCHED, (Pwrite("f", 0, 4096), returned(4096))]
    assert judged(where, *rows, (Read("p", 4096), returned(4096, tag(4096, 7)))).verdict is verdict
