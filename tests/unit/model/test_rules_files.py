"""Files on hand-written observations: alignment, holes, ends of files and of nodes, and mappings as buffers."""

import pytest

from harness.model.facts import Env
from harness.model.outcome import Observation
from harness.model.verdict import Verdict
from harness.ops import (
    Buffer,
    Fallocate,
    Ftruncate,
    Load,
    Lseek,
    MapFlag,
    Mincore,
    Mmap,
    Open,
    OpenFlag,
    Operation,
    Pagemap,
    Pread,
    Preadv,
    Protection,
    Pwrite,
    Pwritev,
    Read,
    Statx,
    Store,
    Whence,
    Write,
)
from harness.sizes import KIB, MIB
from tests.unit.model.stacks import DAX, NODE, PAGE_CACHE, Row, env, failed, judged, returned, tag, volume, zero

DIRECT = (OpenFlag.RDWR, OpenFlag.CREAT, OpenFlag.DIRECT)
RDWR = (OpenFlag.RDWR, OpenFlag.CREAT)
OPEN_DIRECT: Row = (Open("f", "a", DIRECT), returned())
TO_CACHE = env(volume(dax=True), volume("target", dax=False))
TO_DAX = env(volume(dax=True), volume("target", dax=True))


def verdict_of_last(where: Env, *rows: Row) -> Verdict:
    result = judged(where, *rows)
    assert all(step.verdict is Verdict.CONFORMS for step in result.steps[:-1]), result.steps
    return result.steps[-1].verdict


def accepts(where: Env, *rows: Row) -> bool:
    return verdict_of_last(where, *rows) is Verdict.CONFORMS


# ---- holes -----------------------------------------------------------------------------------------------------------

SPARSE: list[Row] = [OPEN_DIRECT, (Ftruncate("f", 65536), returned()), (Pwrite("f", 8192, 4096), returned(4096))]


@pytest.mark.parametrize("where", [DAX, PAGE_CACHE])
def test_a_misaligned_direct_read_of_a_hole_returns_zeroes(where: Env) -> None:
    assert accepts(where, *SPARSE, (Pread("f", 3, 1000, shift=1), returned(1000, zero(1000))))
    assert not accepts(where, *SPARSE, (Pread("f", 3, 1000, shift=1), failed("EINVAL")))


@pytest.mark.parametrize(("where", "seen"), [(DAX, returned(1000, tag(1000, 3, 3))), (PAGE_CACHE, failed("EINVAL"))])
def test_a_misaligned_direct_read_of_data_depends_on_dax(where: Env, seen: Observation) -> None:
    assert accepts(where, *SPARSE, (Pread("f", 8195, 1000), seen))


@pytest.mark.parametrize(("shift", "seen"), [(3, returned(8189, zero(4093), tag(4096, 3))), (0, failed("EINVAL"))])
def test_from_the_first_byte_with_data_on_all_must_be_aligned(shift: int, seen: Observation) -> None:
    assert accepts(PAGE_CACHE, *SPARSE, (Pread("f", 4099, 8189, shift=shift), seen))


@pytest.mark.parametrize(
    ("release", "shift", "length", "taken"),
    [
        ("6.17.13-x", 256, 512, False),
        ("6.18.15-x", 256, 512, True),
        ("6.18.15-x", 3584, 512, True),  # it ends where the page does
        ("6.18.15-x", 3840, 512, False),
        ("7.2.1-x", 256, 512, False),
    ],
)
def test_one_buffer_inside_of_a_page_is_not_looked_at_by_some_kernels(release: str, shift: int, length: int, taken: bool) -> None:
    where = env(volume(dax=False), release=release)
    seen = returned(length, tag(length, 3)) if taken else failed("EINVAL")
    assert accepts(where, *SPARSE, (Pread("f", 8192, length, shift=shift), seen))


ODD_WRITES = [
    Pwrite("f", 3, 4096),
    Pwrite("f", 4096, 1000),
    Pwrite("f", 4096, 4096, shift=8),
    Pwritev("f", 0, (Buffer(1000), Buffer(3096))),
]


@pytest.mark.parametrize("write", ODD_WRITES, ids=str)
@pytest.mark.parametrize(
    ("release", "filesystem", "cached"),
    [("6.12.1-x", "ext4", False), ("6.16.1-x", "ext4", True), ("6.17.1-x", "ext4", False), ("6.16.1-x", "xfs", False)],
)
def test_a_misaligned_direct_write_is_made_through_the_page_cache_by_some_kernels(
    write: Operation, release: str, filesystem: str, cached: bool
) -> None:
    where = env(volume(dax=False, filesystem=filesystem), release=release)
    length = sum(one.length for one in write.buffers) if isinstance(write, Pwritev) else write.length  # type: ignore[attr-defined]
    rows: list[Row] = [OPEN_DIRECT, (Ftruncate("f", 65536), returned())]
    assert accepts(where, *rows, (write, returned(length))) is cached
    assert accepts(where, *rows, (write, failed("EINVAL"))) is not cached
    # A read is refused by all of them, once there are blocks.
    filled = (Pwrite("f", 0, 65536), returned(65536))
    assert accepts(where, *rows, filled, (Pread("f", 3, 4096), failed("EINVAL")))


def test_what_a_misaligned_direct_write_left_is_read_from_the_medium_and_may_be_cached() -> None:
    where = env(volume(dax=False), release="6.16.1-x")
    written: list[Row] = [OPEN_DIRECT, (Pwrite("f", 0, 8192), returned(8192)), (Pwrite("f", 100, 1000), returned(1000))]
    assert accepts(where, *written, (Pread("f", 0, 4096), returned(4096, tag(100, 2), tag(1000, 3, offset=100), tag(2996, 2, 1100, 1100))))
    assert not accepts(where, *written, (Pread("f", 0, 4096), returned(4096, tag(4096, 2))))
    for resident in ("00", "10"):
        rows: list[Row] = [*written, (Mmap("m", 8192, "f"), returned())]
        assert accepts(where, *rows, (Mincore("m"), returned(0, resident=resident))), resident


def test_several_buffers_are_looked_at_by_every_kernel() -> None:
    where = env(volume(dax=False), release="6.18.15-x")
    assert accepts(where, *SPARSE, (Preadv("f", 8192, (Buffer(512, shift=256), Buffer(512))), failed("EINVAL")))


def test_blocks_that_are_only_allocated_count_as_a_hole() -> None:
    rows: list[Row] = [*SPARSE, (Fallocate("f", 16384, 4096), returned())]
    assert accepts(PAGE_CACHE, *rows, (Pread("f", 16389, 77), returned(77, zero(77))))


# ---- the end of a node -----------------------------------------------------------------------------------------------

END = 256 * MIB
AT_END: list[Row] = [(Open("f", "a", DIRECT), returned()), (Lseek("f", -4096, Whence.END), returned(END - 4096))]


def test_a_write_across_the_end_of_a_node_writes_what_fits_and_aligns_only_that() -> None:
    assert accepts(NODE, *AT_END, (Write("f", 10000), returned(4096)))
    assert not accepts(NODE, *AT_END, (Write("f", 10000), failed("EINVAL")))
    assert not accepts(NODE, *AT_END, (Write("f", 10000), failed("ENOSPC")))


def test_a_write_behind_the_end_of_a_node_is_enospc() -> None:
    assert accepts(NODE, AT_END[0], (Pwrite("f", END, 512), failed("ENOSPC")))
    assert not accepts(NODE, AT_END[0], (Pwrite("f", END, 512), returned(0)))


def test_a_read_across_the_end_of_a_node_returns_what_is_there() -> None:
    rows: list[Row] = [*AT_END, (Write("f", 4096), returned(4096)), (Lseek("f", -4096, Whence.END), returned(END - 4096))]
    assert accepts(NODE, *rows, (Read("f", 10000), returned(4096, tag(4096, 3))))
    assert accepts(NODE, *rows, (Read("f", 10000), returned(4096, tag(4096, 3))), (Read("f", 7), returned(0)))


# ---- mappings as buffers ---------------------------------------------------------------------------------------------

MAPPED: list[Row] = [
    (Open("f", "a", RDWR), returned()),
    (Pwrite("f", 0, 6000), returned(6000)),
    (Mmap("m", 65536, "f"), returned()),
    (Open("o", "target:b", DIRECT), returned()),
    (Pwrite("o", 0, 65536), returned(65536)),
]


@pytest.mark.parametrize(("where", "works"), [(TO_DAX, True), (TO_CACHE, False)])
def test_a_buffer_that_ends_early_is_used_as_far_as_it_goes_by_dax_and_refused_by_a_disk(where: Env, works: bool) -> None:
    write = Pwrite("o", 16384, 16384, from_="m")
    assert accepts(where, *MAPPED, (write, returned(8192))) is works
    assert accepts(where, *MAPPED, (write, failed("EFAULT"))) is not works


@pytest.mark.parametrize("where", [TO_DAX, TO_CACHE])
def test_a_buffer_with_no_usable_page_is_efault(where: Env) -> None:
    assert accepts(where, *MAPPED, (Pwrite("o", 0, 4096, from_="m", from_offset=8192), failed("EFAULT")))
    assert not accepts(where, *MAPPED, (Pwrite("o", 0, 4096, from_="m", from_offset=8192), returned(4096)))


def test_what_a_refused_transfer_left_is_not_known() -> None:
    rows: list[Row] = [*MAPPED, (Pwrite("o", 16384, 16384, from_="m"), failed("EFAULT"))]
    assert accepts(TO_CACHE, *rows, (Pread("o", 32768, 4096), returned(4096, tag(4096, 5, 32768))))
    assert verdict_of_last(TO_CACHE, *rows, (Pread("o", 16384, 4096), returned(4096, tag(4096, 2)))) is Verdict.UNDETERMINED


@pytest.mark.parametrize("where", [TO_DAX, TO_CACHE])
def test_a_read_only_mapping_gives_bytes_and_takes_none(where: Env) -> None:
    rows: list[Row] = [*MAPPED, (Mmap("r", 4096, "f", protection=(Protection.READ,)), returned())]
    assert accepts(where, *rows, (Pwrite("o", 0, 4096, from_="r"), returned(4096)))
    assert accepts(where, *rows, (Pread("o", 0, 4096, into="r"), failed("EFAULT")))
    assert not accepts(where, *rows, (Pread("o", 0, 4096, into="r"), returned(4096)))


def test_a_private_mapping_takes_what_is_read_for_itself() -> None:
    rows: list[Row] = [*MAPPED, (Mmap("p", 4096, "f", flags=(MapFlag.PRIVATE,)), returned())]
    rows.append((Pread("o", 512, 1024, into="p", into_offset=512), returned(1024)))
    shown = returned(4096, tag(512, 2), tag(1024, 5, 512), tag(2560, 2, 1536))
    assert accepts(TO_CACHE, *rows, (Load("p", 0, 4096), shown))
    assert accepts(TO_CACHE, *rows, (Pread("f", 0, 4096), returned(4096, tag(4096, 2))))


def test_a_transfer_faults_the_pages_of_its_buffer_in() -> None:
    rows: list[Row] = [*MAPPED, (Pwrite("o", 0, 4096, from_="m"), returned(4096))]
    assert accepts(TO_CACHE, *rows, (Mincore("m", length=8192), returned(0, resident="10")))
    assert not accepts(TO_CACHE, *rows, (Mincore("m", length=8192), returned(0, resident="00")))
    assert accepts(TO_CACHE, *rows, (Load("m", 0, 4096), returned(4096, tag(4096, 2), minor_faults=0)))


# ---- what a fault maps -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("release", "filesystem", "at", "may"),
    [
        ("6.17.1-x", "xfs", 124 * KIB, True),
        ("6.17.1-x", "xfs", 252 * KIB, False),
        ("7.2.1-x", "xfs", 252 * KIB, True),
        ("7.2.1-x", "xfs", 2 * MIB - 4 * KIB, True),
        ("7.2.1-x", "xfs", 2 * MIB, False),
        ("7.2.1-x", "ext2", 252 * KIB, False),
    ],
)
def test_a_fault_maps_what_lies_around_it_and_on_some_kernels_whole_folios(release: str, filesystem: str, at: int, may: bool) -> None:
    where = env(volume(dax=False, filesystem=filesystem), release=release)
    rows: list[Row] = [
        (Open("f", "a", RDWR), returned()),
        (Pwrite("f", 0, 4 * MIB), returned(4 * MIB)),
        (Mmap("m", 4 * MIB, "f"), returned()),
        (Load("m", 64 * KIB, 4 * KIB), returned(4 * KIB, tag(4 * KIB, 2, 64 * KIB))),
    ]
    assert accepts(where, *rows, (Pagemap("m", at, 4 * KIB), returned(0, frames=(0x1234,)))) is may
    assert accepts(where, *rows, (Pagemap("m", at, 4 * KIB), returned(0, frames=(0,))))


# ---- memory without struct pages -------------------------------------------------------------------------------------

BAR: list[Row] = [
    (Open("bar", "bar:", (OpenFlag.RDWR,)), returned()),
    (Mmap("m", 65536, "bar"), returned()),
    (Store("m", 0, 65536), returned(65536)),
    OPEN_DIRECT,
]


ON_6_16 = env(volume(dax=False), release="6.16.1-x")


@pytest.mark.parametrize(("where", "works"), [(DAX, True), (PAGE_CACHE, False), (NODE, False), (ON_6_16, True)])
def test_memory_without_struct_pages_is_a_buffer_for_dax_and_where_the_page_cache_steps_in(where: Env, works: bool) -> None:
    write = Pwrite("f", 0, 65536, from_="m")
    assert accepts(where, *BAR, (write, returned(65536))) is works
    assert accepts(where, *BAR, (write, failed("EFAULT"))) is not works


@pytest.mark.parametrize("where", [DAX, PAGE_CACHE])
def test_a_hole_can_be_read_into_memory_without_struct_pages(where: Env) -> None:
    rows: list[Row] = [*BAR, (Ftruncate("f", 4096), returned()), (Pread("f", 0, 4096, into="m"), returned(4096))]
    assert accepts(where, *rows, (Load("m", 0, 8192), returned(8192, zero(4096), tag(4096, 3, 4096))))


@pytest.mark.parametrize(("where", "works"), [(NODE, True), (PAGE_CACHE, False)])
def test_on_a_node_the_page_cache_steps_in_for_the_rest_of_a_vector(where: Env, works: bool) -> None:
    write = Pwritev("f", 0, (Buffer(4096), Buffer(4096, mapping="m")))
    assert accepts(where, *BAR, (write, returned(8192))) is works
    assert accepts(where, *BAR, (write, failed("EFAULT"))) is not works


# ---- attributes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("memory", "fits"), [(512, True), (4, False)])
def test_statx_reports_the_alignment_of_the_device_even_on_dax(memory: int, fits: bool) -> None:
    shown = (("dax", 1), ("size", 0), ("dio_supported", 1), ("dio_offset_align", 512), ("dio_mem_align", memory))
    assert accepts(DAX, OPEN_DIRECT, (Statx("f"), returned(0, attributes=shown))) is fits
