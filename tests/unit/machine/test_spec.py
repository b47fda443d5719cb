"""What a machine may be made of, and what is refused before QEMU starts."""

from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.machine.spec import MachineSpec, check, find_problems, needed_ram_bytes, place_in_ram
from harness.model.kinds import RegionKind
from harness.model.stack import Disk, Region
from harness.sizes import GIB, KIB, MIB

BARE = MachineSpec(Path("vmlinux"), Path("initrd"), Path("root.img"))


def e820(name: str = "a", size_bytes: int = 256 * MIB, label_bytes: int = 0) -> Region:
    return Region(name, RegionKind.E820, size_bytes, label_bytes)


def nvdimm(name: str = "n", size_bytes: int = 256 * MIB, label_bytes: int = 128 * KIB) -> Region:
    return Region(name, RegionKind.NVDIMM, size_bytes, label_bytes)


def the_problem(spec: MachineSpec, initrd_bytes: int = 0) -> str:
    problems = find_problems(spec, initrd_bytes)
    assert len(problems) == 1, problems
    return problems[0]


def test_a_machine_of_everything_has_no_problem() -> None:
    spec = replace(BARE, regions=(e820("a"), nvdimm("b"), e820("c"), nvdimm("d", label_bytes=0)), disks=(Disk(),), ivshmem_bytes=MIB)
    assert find_problems(spec, initrd_bytes=20 * MIB) == []


def test_e820_regions_start_on_memory_sections_with_ram_between_them() -> None:
    placed = place_in_ram([e820("a"), nvdimm(), e820("b"), e820("c", 16 * MIB)], 2 * GIB)
    assert placed is not None
    assert [(p.name, p.start // MIB, p.end // MIB) for p in placed] == [("a", 256, 512), ("b", 640, 896), ("c", 1024, 1040)]


def test_e820_regions_never_touch_the_top_of_low_ram() -> None:
    assert place_in_ram([e820(size_bytes=640 * MIB)], GIB) is not None
    assert place_in_ram([e820(size_bytes=656 * MIB)], GIB) is None


def test_e820_regions_that_do_not_fit_below_the_pci_hole_go_above_four_gib() -> None:
    placed = place_in_ram([e820("a", GIB), e820("b", GIB)], 4 * GIB)
    assert placed is not None
    assert [(p.name, p.start // MIB) for p in placed] == [("a", 256), ("b", 4096)]


def test_ram_is_one_gib_or_what_the_regions_need() -> None:
    assert needed_ram_bytes([]) == GIB
    assert needed_ram_bytes([e820("a"), e820("b")]) == GIB
    assert needed_ram_bytes([e820(size_bytes=GIB)]) == 1408 * MIB
    for sizes in ([256] * 3, [2048], [3072], [1024] * 4):
        regions = tuple(e820(f"r{i}", size * MIB) for i, size in enumerate(sizes))
        assert find_problems(replace(BARE, regions=regions, ram_bytes=needed_ram_bytes(regions))) == []


def test_a_misaligned_region_is_refused_with_the_next_size() -> None:
    for region in (e820(size_bytes=250 * MIB), nvdimm(size_bytes=250 * MIB)):
        problem = the_problem(replace(BARE, regions=(region,)))
        assert "must be a multiple of 16MiB" in problem
        assert "take 256MiB" in problem


def test_an_empty_region_is_refused() -> None:
    assert "take 16MiB" in the_problem(replace(BARE, regions=(nvdimm(size_bytes=0),)))


def test_a_label_area_that_is_too_small_is_refused() -> None:
    assert "at least 128KiB" in the_problem(replace(BARE, regions=(nvdimm(label_bytes=64 * KIB),)))


def test_a_label_area_that_is_not_made_of_pages_is_refused() -> None:
    assert "multiple of 4KiB" in the_problem(replace(BARE, regions=(nvdimm(label_bytes=128 * KIB + 512),)))


def test_a_label_area_on_an_e820_region_is_refused() -> None:
    assert "set label_bytes to 0" in the_problem(replace(BARE, regions=(e820(label_bytes=128 * KIB),)))


def test_e820_regions_that_leave_the_guest_no_ram_are_refused_with_the_size_that_would_do() -> None:
    problem = the_problem(replace(BARE, regions=(e820(size_bytes=768 * MIB),)))
    assert "leaves the guest 256MiB" in problem
    assert "at least 1152MiB" in problem


def test_a_region_that_would_reach_the_top_of_low_ram_is_refused_with_the_reason() -> None:
    problem = the_problem(replace(BARE, regions=(e820(size_bytes=656 * MIB),)))
    assert "split and silently lost" in problem
    assert "at least 1152MiB" in problem


def test_an_initrd_that_would_reach_down_into_a_region_is_refused() -> None:
    assert "top of low RAM" in the_problem(replace(BARE, regions=(e820(),)), initrd_bytes=120 * MIB)
    assert find_problems(BARE, initrd_bytes=120 * MIB) == []


def test_odd_ram_is_refused() -> None:
    assert "take a multiple of 2MiB" in the_problem(replace(BARE, ram_bytes=GIB + 1))


def test_a_machine_without_cpus_is_refused() -> None:
    assert "at least 1" in the_problem(replace(BARE, vcpus=0))


def test_two_devices_of_one_name_are_refused() -> None:
    assert "two devices are called 'a'" in the_problem(replace(BARE, regions=(e820("a"),), disks=(Disk("a"),)))


@pytest.mark.parametrize("name", ["1a", "a,b", "a b", "ä"])
def test_a_name_that_qemu_would_misread_is_refused(name: str) -> None:
    assert "cannot name a device" in the_problem(replace(BARE, disks=(Disk(name),)))


def test_a_disk_name_that_does_not_fit_into_a_virtio_serial_is_refused() -> None:
    assert "20 bytes" in the_problem(replace(BARE, disks=(Disk("a" * 21),)))


def test_a_disk_of_half_a_block_is_refused() -> None:
    assert "multiple of 4KiB" in the_problem(replace(BARE, disks=(Disk("d", 100),)))


@pytest.mark.parametrize("size_bytes", [1024, 3 * MIB])
def test_an_ivshmem_that_is_no_power_of_two_is_refused(size_bytes: int) -> None:
    assert "power of two" in the_problem(replace(BARE, ivshmem_bytes=size_bytes))


def test_missing_images_and_every_other_problem_are_said_at_once(tmp_path: Path) -> None:
    kernel = tmp_path / "vmlinux"
    kernel.touch()
    with pytest.raises(UsageError) as caught:
        check(replace(BARE, boot_kernel=kernel, vcpus=0))
    assert "initrd initrd does not exist: build the images first" in str(caught.value)
    assert "root file system root.img does not exist" in str(caught.value)
    assert "at least 1" in str(caught.value)
    assert "boot kernel" not in str(caught.value)
