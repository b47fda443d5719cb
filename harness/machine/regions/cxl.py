"""CXL: memory devices behind a host bridge of their own, each with a file for the region and one for its label area.

The guest sees them through one window of its address space, in which it makes the regions itself.
"""

import itertools
import re

from harness.errors import MachineError
from harness.machine.options import Memory, file_memory, joined
from harness.machine.regions.maker import Ask, Placement, RegionMaker, Regions
from harness.model.stack import Region
from harness.sizes import MIB, format_size

#: What the capacity of a device is counted in.
CXL_ALIGN_BYTES = 256 * MIB
_BRIDGE = "cxl.1"


def _problems(region: Region) -> list[str]:
    called = f"{region.kind} region {region.name!r}"
    problems = []
    if region.size_bytes % CXL_ALIGN_BYTES:
        problems.append(f"{called} has {format_size(region.size_bytes)}: take a multiple of {format_size(CXL_ALIGN_BYTES)}")
    if not region.label_bytes:
        problems.append(f"{called} has no label area, without which the device holds no persistent memory")
    return problems


def _memory_name(region: Region) -> str:
    return f"cxl-{region.name}"


def _label_name(region: Region) -> str:
    return f"cxl-label-{region.name}"


def _files(regions: Regions) -> dict[str, int]:
    sizes = {_memory_name(region): region.size_bytes for region in regions}
    return sizes | {_label_name(region): region.label_bytes for region in regions}


def _options(regions: Regions, memory: Memory) -> list[str]:
    options = ["-device", joined("pxb-cxl", "bus=pcie.0", "bus_nr=12", f"id={_BRIDGE}")]
    for number, region in enumerate(regions):
        kept, label = f"mem-{region.name}", f"label-{region.name}"
        options += ["-object", file_memory(kept, memory, _memory_name(region), region.size_bytes)]
        options += ["-object", file_memory(label, memory, _label_name(region), region.label_bytes)]
        port = f"port-{region.name}"
        options += ["-device", joined("cxl-rp", f"bus={_BRIDGE}", f"id={port}", f"port={number}", "chassis=0", f"slot={number + 2}")]
        device = joined("cxl-type3", f"bus={port}", f"id={region.name}", f"persistent-memdev={kept}", f"lsa={label}", f"sn={number + 1}")
        options += ["-device", device]
    return options


def _placements(regions: Regions, ask: Ask) -> list[Placement]:
    """Return where the guest makes its regions: one behind the other, from the start of the window on. Raises MachineError."""
    said = str(ask("human-monitor-command", {"command-line": "info mtree"}))
    window = re.search(r"([0-9a-f]{16})-[0-9a-f]{16} .*: cxl-fixed-memory-region", said)
    if window is None:
        raise MachineError(f"QEMU lists no window of CXL memory; it said: {said or 'nothing'}")
    starts = itertools.accumulate((region.size_bytes for region in regions), initial=int(window[1], 16))
    return [Placement(region.name, region.kind, start, region.size_bytes) for region, start in zip(regions, starts, strict=False)]


MAKER = RegionMaker(
    problems=_problems,
    files=_files,
    options=_options,
    machine_options={"cxl": "on", "cxl-fmw.0.targets.0": _BRIDGE, "cxl-fmw.0.size": "1G"},
    # Without flushing all caches the kernel makes no region, and under a hypervisor it does not flush them
    # (arch/x86/mm/pat/set_memory.c cpu_cache_has_invalidate_memregion): so the processor says that there is none.
    cpu_words=("hypervisor=off",),
    placements=_placements,
    boots_with_qboot=False,
    never_saved="QEMU restores the window of CXL memory empty, without a word: every read gives zeroes",
)
