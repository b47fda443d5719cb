"""virtio-pmem: the pages of a file of the host, which the guest asks to write what it has stored."""

from harness.machine.options import Memory, file_memory, joined
from harness.machine.regions.maker import Ask, Placement, RegionMaker, Regions, Room, listed_placements
from harness.model.stack import Region
from harness.sizes import GIB


def _file_name(region: Region) -> str:
    return f"virtio-pmem-{region.name}"


def _files(regions: Regions) -> dict[str, int]:
    return {_file_name(region): region.size_bytes for region in regions}


def _options(regions: Regions, memory: Memory) -> list[str]:
    options: list[str] = []
    for region in regions:
        backend = file_memory(f"mem-{region.name}", memory, _file_name(region), region.size_bytes)
        options += ["-object", backend, "-device", joined("virtio-pmem-pci", f"id={region.name}", f"memdev=mem-{region.name}")]
    return options


def _room(regions: Regions) -> Room:
    # Not a DIMM, so it takes no slot; the slack is for its alignment.
    return Room(size_bytes=sum(region.size_bytes + GIB for region in regions))


def _placements(regions: Regions, ask: Ask) -> list[Placement]:
    return listed_placements(regions, ask, "memaddr")


MAKER = RegionMaker(
    files=_files,
    options=_options,
    room=_room,
    placements=_placements,
    never_saved="QEMU saves nothing of a virtio-pmem device (hw/virtio/virtio-pmem.c has no vmsd): restored, it answers no flush",
)
