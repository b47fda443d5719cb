"""NVDIMMs: emulated DIMMs that ACPI announces, each with a file behind it that holds the region and the label area."""

from harness.errors import MachineError
from harness.machine.options import Memory, file_memory, joined
from harness.machine.regions.maker import Ask, Placement, RegionMaker, Regions, Room
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


def _options(regions: Regions, memory: Memory) -> list[str]:
    options: list[str] = []
    for region in regions:
        backend = file_memory(f"mem-{region.name}", memory, _file_name(region), _file_bytes(region))
        label = (f"label-size={region.label_bytes}",) if region.label_bytes else ()
        options += ["-object", backend, "-device", joined("nvdimm", f"id={region.name}", f"memdev=mem-{region.name}", *label)]
    return options


def _room(regions: Regions) -> Room:
    # QEMU aligns each DIMM within the space that maxmem leaves, so every DIMM gets a GiB of slack.
    return Room(len(regions), sum(_file_bytes(region) + GIB for region in regions))


def _placements(regions: Regions, ask: Ask) -> list[Placement]:
    devices = ask("query-memory-devices")
    listed = [device["data"] for device in devices] if isinstance(devices, list) else []
    starts = {data.get("id"): int(data["addr"]) for data in listed if "addr" in data}
    lost = [region.name for region in regions if region.name not in starts]
    if lost:
        raise MachineError(f"QEMU does not list the NVDIMMs {', '.join(lost)}; it said: {devices}")
    return [Placement(region.name, region.kind, starts[region.name], region.size_bytes) for region in regions]


MAKER = RegionMaker(
    problems=_problems,
    files=_files,
    options=_options,
    machine_options={"nvdimm": "on"},
    room=_room,
    placements=_placements,
)
