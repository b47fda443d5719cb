"""What a machine is made of, where the regions lie that are parts of its RAM, and every check that can be made before QEMU starts."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UsageError
from harness.machine.regions import MAKERS
from harness.machine.regions.maker import Placement
from harness.model.stack import Disk, Region
from harness.sizes import GIB, KIB, MIB, format_size

#: A region and its start must be a multiple of this. libnvdimm aligns namespaces to 16 MiB by default and calls a region
#: that is not a multiple of it misaligned (``MEMREMAP_COMPAT_ALIGN_MAX``); 2 MiB would do for the struct pages of a range of RAM alone.
REGION_ALIGN_BYTES = 16 * MIB
#: Regions in RAM start on the kernel's memory sections (128 MiB on x86-64), so that RAM and pmem never share one at the start.
SECTION_BYTES = 128 * MIB
#: Below this lie the kernel, its early allocations and the DMA zone.
FLOOR_BYTES = 256 * MIB
#: At the top of low RAM lie firmware tables and the initrd. A ``memmap=`` range that touches them is split and silently lost.
TOP_MARGIN_BYTES = 128 * MIB
#: What the firmware itself needs of the margin, beside the initrd.
FIRMWARE_BYTES = 16 * MIB
#: Two ranges that touch are merged into one by the kernel's e820 table, so there is always RAM between them.
GAP_BYTES = REGION_ALIGN_BYTES
#: RAM that is left when the regions are taken away: less than this and set-up runs out of memory.
MIN_GUEST_RAM_BYTES = 320 * MIB
#: From this RAM size on, q35 puts only 2 GiB below the PCI hole and the rest above 4 GiB.
Q35_SPLIT_FROM_BYTES = 0xB000_0000
#: A virtio block serial has 20 bytes; the guest finds a disk by it.
MAX_DISK_NAME = 20

DEFAULT_RAM_BYTES = GIB


@dataclass(frozen=True)
class MachineSpec:
    """One machine, before it exists.

    ``boot_kernel`` is an uncompressed ELF kernel (started through its PVH note) or a bzImage; ``ram_bytes`` includes the regions
    that are parts of RAM; ``rootfs`` is a raw image, attached read-only with the serial ``pmem-root``; ``ivshmem_bytes`` above 0 adds
    a PCI device whose BAR is memory without struct pages.
    """

    boot_kernel: Path
    initrd: Path
    rootfs: Path
    kernel_arguments: tuple[str, ...] = ()
    ram_bytes: int = DEFAULT_RAM_BYTES
    vcpus: int = 1
    regions: tuple[Region, ...] = ()
    disks: tuple[Disk, ...] = ()
    ivshmem_bytes: int = 0


def place_in_ram(regions: Iterable[Region], ram_bytes: int) -> tuple[Placement, ...] | None:
    """Return where each region lies that is a part of RAM, or None where ``ram_bytes`` has no room for all of them."""
    windows = list(_ram_windows(ram_bytes))
    placed: list[Placement] = []
    for region in _parts_of_ram(regions):
        while windows and windows[0][0] + region.size_bytes > windows[0][1]:
            windows.pop(0)
        if not windows:
            return None
        start, end = windows[0]
        placed.append(Placement(region.name, region.kind, start, region.size_bytes))
        windows[0] = (_round_up(start + region.size_bytes + GAP_BYTES, SECTION_BYTES), end)
    return tuple(placed)


def needed_ram_bytes(regions: Iterable[Region]) -> int:
    """Return the RAM size for these regions: 1 GiB, or the next multiple of 128 MiB that has room for them and for the guest."""
    regions = tuple(regions)
    ram_bytes = DEFAULT_RAM_BYTES
    while place_in_ram(regions, ram_bytes) is None or ram_bytes - _bytes_of_ram(regions) < MIN_GUEST_RAM_BYTES:
        ram_bytes += SECTION_BYTES
    return ram_bytes


def find_problems(spec: MachineSpec, initrd_bytes: int = 0) -> list[str]:
    """Return everything that would keep this machine from working, each with its fix; empty when all is well."""
    names = [region.name for region in spec.regions] + [disk.name for disk in spec.disks]
    problems = [
        f"two devices are called {name!r}: give each region and disk its own name" for name in sorted(set(names)) if names.count(name) > 1
    ]
    for name in names:
        if not name.replace("_", "").replace("-", "").isalnum() or not name[0].isalpha() or not name.isascii():
            problems.append(f"{name!r} cannot name a device: use letters, digits, - and _, starting with a letter")
    if spec.vcpus < 1:
        problems.append(f"{spec.vcpus} vCPUs: a guest needs at least 1")
    for region in spec.regions:
        problems += _region_problems(region)
    for disk in spec.disks:
        problems += _disk_problems(disk)
    if spec.ivshmem_bytes and (spec.ivshmem_bytes < 4 * KIB or spec.ivshmem_bytes & (spec.ivshmem_bytes - 1)):
        problems.append(f"ivshmem of {format_size(spec.ivshmem_bytes)}: a PCI BAR is a power of two of at least 4KiB")
    return problems + _ram_problems(spec, initrd_bytes)


def check(spec: MachineSpec) -> None:
    """Raise UsageError that lists every problem with its fix, so that QEMU never starts on a machine that cannot work."""
    missing = [
        f"{role} {path} does not exist: build the images first"
        for role, path in (("boot kernel", spec.boot_kernel), ("initrd", spec.initrd), ("root file system", spec.rootfs))
        if not path.is_file()
    ]
    initrd_bytes = spec.initrd.stat().st_size if spec.initrd.is_file() else 0
    problems = missing + find_problems(spec, initrd_bytes)
    if problems:
        raise UsageError("this machine cannot work:\n" + "\n".join(f"- {problem}" for problem in problems))


def _ram_windows(ram_bytes: int) -> Iterable[tuple[int, int]]:
    """Yield the ranges of guest RAM in which regions may lie, lowest first."""
    low_end = min(ram_bytes, 2 * GIB) if ram_bytes >= Q35_SPLIT_FROM_BYTES else ram_bytes
    yield FLOOR_BYTES, low_end - TOP_MARGIN_BYTES
    if ram_bytes > low_end:
        yield 4 * GIB, 4 * GIB + ram_bytes - low_end


def _region_problems(region: Region) -> list[str]:
    called = f"{region.kind} region {region.name!r}"
    problems = []
    if region.size_bytes < REGION_ALIGN_BYTES or region.size_bytes % REGION_ALIGN_BYTES:
        nearest = max(REGION_ALIGN_BYTES, _round_up(region.size_bytes, REGION_ALIGN_BYTES))
        problems.append(
            f"{called} has {format_size(region.size_bytes)}: its usable size must be a multiple of {format_size(REGION_ALIGN_BYTES)}, "
            f"or the kernel calls it misaligned; take {format_size(nearest)}"
        )
    if region.label_bytes and (not region.kind.traits.has_labels or region.kind.traits.labels_inside):
        problems.append(f"{called} has a label area beside it, which regions of its kind do not have; set label_bytes to 0")
    return problems + MAKERS[region.kind].problems(region)


def _disk_problems(disk: Disk) -> list[str]:
    problems = []
    if disk.size_bytes <= 0 or disk.size_bytes % (4 * KIB):
        problems.append(f"disk {disk.name!r} has {disk.size_bytes} bytes: take a multiple of 4KiB")
    if len(disk.name) > MAX_DISK_NAME:
        problems.append(f"disk name {disk.name!r} is too long: it is the virtio serial, which has {MAX_DISK_NAME} bytes")
    return problems


def _ram_problems(spec: MachineSpec, initrd_bytes: int) -> list[str]:
    problems = []
    ram = format_size(spec.ram_bytes)
    if spec.ram_bytes <= 0 or spec.ram_bytes % (2 * MIB):
        problems.append(f"RAM of {ram}: take a multiple of 2MiB")
    parts = _parts_of_ram(spec.regions)
    taken = _bytes_of_ram(parts)
    left = spec.ram_bytes - taken
    regions = f"{' and '.join(dict.fromkeys(region.kind for region in parts))} regions".lstrip()
    if left < MIN_GUEST_RAM_BYTES:
        problems.append(
            f"RAM of {ram} leaves the guest {format_size(left)} beside its {regions}: it needs {format_size(MIN_GUEST_RAM_BYTES)}; "
            f"take ram_bytes of at least {format_size(needed_ram_bytes(parts))}"
        )
    elif place_in_ram(parts, spec.ram_bytes) is None:
        problems.append(
            f"{format_size(taken)} of {regions} do not fit into RAM of {ram}: the first {format_size(FLOOR_BYTES)} belong to "
            f"the kernel, and a memmap= range that touches the last {format_size(TOP_MARGIN_BYTES)} of low RAM (firmware tables, initrd) "
            f"is split and silently lost; take ram_bytes of at least {format_size(needed_ram_bytes(parts))}"
        )
    if parts and initrd_bytes > TOP_MARGIN_BYTES - FIRMWARE_BYTES:
        problems.append(
            f"the initrd has {initrd_bytes // MIB + 1}MiB and lies at the top of low RAM, where {format_size(TOP_MARGIN_BYTES)} are kept "
            f"free of {regions}: put fewer modules in it, or use an NVDIMM"
        )
    return problems


def _parts_of_ram(regions: Iterable[Region]) -> tuple[Region, ...]:
    return tuple(region for region in regions if MAKERS[region.kind].in_ram)


def _bytes_of_ram(regions: Iterable[Region]) -> int:
    return sum(region.size_bytes for region in _parts_of_ram(regions))


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step
