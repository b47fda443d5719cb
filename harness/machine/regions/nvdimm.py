"""NVDIMMs: emulated DIMMs that ACPI announces, each with a file behind it that holds the region and the label area."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from harness.machine.options import Memory, file_memory, joined
from harness.machine.regions.maker import Ask, Placement, RegionMaker, Regions, Room, listed_placements
from harness.model.stack import Region
from harness.sizes import GIB, KIB, format_size

#: The label area holds two index blocks and the labels; QEMU and the kernel refuse less.
MIN_LABEL_BYTES = 128 * KIB


def _problems(region: Region) -> list[str]:
    called = f"{region.kind} region {region.name!r}"
    problems = []
    if region.label_bytes and region.label_bytes < MIN_LABEL_BYTES:
        problems.append(
            f"{called} has a label area of {format_size(region.label_bytes)}: labels need at least {format_size(MIN_LABEL_BYTES)} "
            "(0 means no labels, and a namespace that comes up raw)"
        )
    if region.label_bytes % (4 * KIB):
        problems.append(f"{called} has a label area of {region.label_bytes} bytes: take a multiple of 4KiB")
    return problems


def _file_name(region: Region) -> str:
    return f"nvdimm-{region.name}"


def _file_bytes(region: Region) -> int:
    """The label area is taken from the end of the file, so the file is larger than what is usable."""
    return region.size_bytes + region.label_bytes


def _files(regions: Regions) -> dict[str, int]:
    return {_file_name(region): _file_bytes(region) for region in regions}


def _device(region: Region, memory: Memory, more: Sequence[str]) -> list[str]:
    backend = file_memory(f"mem-{region.name}", memory, _file_name(region), _file_bytes(region))
    label = (f"label-size={region.label_bytes}",) if region.label_bytes else ()
    return ["-object", backend, "-device", joined("nvdimm", f"id={region.name}", f"memdev=mem-{region.name}", *label, *more)]


def _room(regions: Regions) -> Room:
    # QEMU aligns each DIMM within the space that maxmem leaves, so every DIMM gets a GiB of slack.
    return Room(len(regions), sum(_file_bytes(region) + GIB for region in regions))


def _placements(regions: Regions, ask: Ask) -> list[Placement]:
    return listed_placements(regions, ask, "addr")


def nvdimm_maker(device: Sequence[str] = (), machine: Mapping[str, str] = MappingProxyType({})) -> RegionMaker:
    """Return what makes NVDIMMs with more options of the device, and of the machine, which then are those of all NVDIMMs in it."""
    return RegionMaker(
        problems=_problems,
        files=_files,
        options=lambda regions, memory: [option for region in regions for option in _device(region, memory, device)],
        machine_options={"nvdimm": "on", **machine},
        room=_room,
        placements=_placements,
    )


MAKER = nvdimm_maker()
