"""What a kind of region can ask of a machine: all of its record reaches the command line, the files and the placements."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from harness.errors import MachineError
from harness.host.deadline import Deadline
from harness.machine.boot import read_placements
from harness.machine.command import Channels, Emulator, kernel_command_line, memory_files, qemu_command
from harness.machine.options import Memory, file_memory
from harness.machine.regions import MAKERS, by_maker, never_saved
from harness.machine.regions.maker import Placement, RegionMaker, Regions, Room
from harness.machine.spec import MachineSpec, find_problems, needed_ram_bytes
from harness.model.kinds import RegionKind
from harness.model.stack import Region
from harness.sizes import GIB, MIB

EMULATOR = Emulator("qemu", (10, 0, 2), "10.0.2", has_qboot=True)
E820, NVDIMM = (Region(kind.name.lower(), kind) for kind in (RegionKind.E820, RegionKind.NVDIMM))
SPEC = MachineSpec(Path("vmlinux"), Path("initrd"), Path("root.img"), regions=(NVDIMM, E820))


def _options(regions: Regions, memory: Memory) -> list[str]:
    return ["-device", f"fabric,regions={len(regions)}", "-object", file_memory("mem-fabric", memory, "fabric", GIB)]


#: A kind that needs everything at once, in the place of one that there is.
FABRIC = RegionMaker(
    problems=lambda region: [f"{region.name} is too plain"],
    files=lambda regions: {"fabric": GIB},
    options=_options,
    machine_options={"fabric": "on", "usb": "on"},
    cpu_words=("hypervisor=off",),
    room=lambda regions: Room(size_bytes=2 * GIB),
    placements=lambda regions, ask: [Placement(region.name, region.kind, int(str(ask("where"))), region.size_bytes) for region in regions],
    boots_with_qboot=False,
    never_saved="the devices of a fabric cannot be migrated",
)


@pytest.fixture
def fabric(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MAKERS, RegionKind.NVDIMM, FABRIC)


def command(spec: MachineSpec = SPEC) -> dict[str, list[str]]:
    words = qemu_command(spec, EMULATOR, "tcg", Path("/f"), Channels(5, 6), pvh=True)
    found: dict[str, list[str]] = {}
    for option, value in itertools.pairwise(words):
        if option.startswith("-"):
            found.setdefault(option, []).append(value)
    return found


def test_every_kind_has_its_maker() -> None:
    assert set(MAKERS) == set(RegionKind)


def test_only_what_makes_a_region_of_the_machine_is_asked() -> None:
    assert list(by_maker([])) == []
    assert [(maker, [region.name for region in its]) for maker, its in by_maker([NVDIMM, E820, NVDIMM])] == [
        (MAKERS[RegionKind.E820], ["e820"]),
        (MAKERS[RegionKind.NVDIMM], ["nvdimm", "nvdimm"]),
    ]


@pytest.mark.usefixtures("fabric")
def test_machine_processor_memory_firmware_and_devices_are_as_a_kind_needs_them() -> None:
    found = command()
    assert found["-machine"] == ["pc-q35-8.2,memory-backend=ram,nvdimm=off,vmport=off,usb=on,fabric=on"]
    assert found["-cpu"] == ["max,hypervisor=off"]
    assert found["-m"] == ["size=1024M,slots=0,maxmem=3072M"]
    assert "-bios" not in found
    assert "fabric,regions=1" in found["-device"]
    assert f"memory-backend-file,id=mem-fabric,mem-path=/f/fabric,size={GIB},share=on" in found["-object"]
    assert memory_files(SPEC, Path("/f")) == {Path("/f/ram"): GIB, Path("/f/fabric"): GIB}


@pytest.mark.usefixtures("fabric")
def test_a_machine_without_such_a_region_has_nothing_of_it() -> None:
    found = command(replace(SPEC, regions=(E820,)))
    assert (found["-cpu"], found["-bios"], found["-m"]) == (["max"], ["qboot.rom"], ["size=1024M"])
    assert never_saved([E820]) == ""


class Answering:
    """A QMP that answers everything alike."""

    def execute(self, command: str, *, deadline: Deadline) -> object:
        assert command == "where"
        return 4 * GIB


@pytest.mark.usefixtures("fabric")
def test_a_kind_asks_qemu_where_its_regions_are_and_the_order_is_that_of_the_machine() -> None:
    placed = read_placements(SPEC, cast(Any, Answering()), Deadline.after(1))
    assert [(placement.name, placement.start) for placement in placed] == [("nvdimm", 4 * GIB), ("e820", 256 * MIB)]


@pytest.mark.usefixtures("fabric")
def test_a_kind_says_what_is_wrong_with_a_region_and_why_its_machine_is_never_saved() -> None:
    assert find_problems(SPEC) == ["nvdimm is too plain"]
    assert never_saved([E820, NVDIMM]) == "the devices of a fabric cannot be migrated"


def test_kinds_that_are_parts_of_ram_share_it(monkeypatch: pytest.MonkeyPatch) -> None:
    other = RegionMaker(in_ram=True, kernel_words=lambda placed: [f"other={p.start // MIB}M" for p in placed])
    monkeypatch.setitem(MAKERS, RegionKind.NVDIMM, other)
    assert "memmap=256M!640M other=256M" in kernel_command_line(SPEC)
    assert "-bios" in command()
    large = (replace(NVDIMM, size_bytes=GIB), replace(E820, size_bytes=GIB))
    assert needed_ram_bytes(large) > needed_ram_bytes(large[:1]) >= GIB + 320 * MIB
    (problem,) = find_problems(replace(SPEC, regions=large))
    assert "beside its nvdimm and e820 regions" in problem


# ---- the kinds -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "machine", "device"),
    [
        (RegionKind.NVDIMM, "nvdimm=on", "nvdimm,id=n,memdev=mem-n"),
        (RegionKind.NVDIMM_UNLABELLED, "nvdimm=on", "nvdimm,id=n,memdev=mem-n"),
        (RegionKind.NVDIMM_UNARMED, "nvdimm=on", "nvdimm,id=n,memdev=mem-n,unarmed=on"),
        (RegionKind.NVDIMM_MEM_CTRL, "nvdimm=on,vmport=off,usb=off,nvdimm-persistence=mem-ctrl", "nvdimm,id=n,memdev=mem-n"),
        (RegionKind.NVDIMM_CPU, "nvdimm=on,vmport=off,usb=off,nvdimm-persistence=cpu", "nvdimm,id=n,memdev=mem-n"),
        (RegionKind.VIRTIO_PMEM, "nvdimm=off", "virtio-pmem-pci,id=n,memdev=mem-n"),
    ],
)
def test_a_kind_has_its_own_machine_and_device(kind: RegionKind, machine: str, device: str) -> None:
    found = command(replace(SPEC, regions=(Region("n", kind),)))
    assert machine in found["-machine"][0]
    assert device in found["-device"]
    assert found["-m"] == [f"size=1024M,slots={int('nvdimm' in kind)},maxmem=2304M"]


def test_virtio_pmem_is_where_qemu_says_and_its_machine_is_never_saved() -> None:
    region = Region("n", RegionKind.VIRTIO_PMEM)

    def ask(command: str) -> object:
        assert command == "query-memory-devices"
        return [{"type": "virtio-pmem", "data": {"id": "n", "memaddr": 5 * GIB}}]

    assert MAKERS[region.kind].placements((region,), ask) == [Placement("n", region.kind, 5 * GIB, region.size_bytes)]
    assert MAKERS[region.kind].files((region,)) == {"virtio-pmem-n": region.size_bytes}
    assert "answers no flush" in never_saved([E820, region])
    with pytest.raises(MachineError, match=r"does not list the virtio_pmem regions n; it said: \[\]"):
        MAKERS[region.kind].placements((region,), lambda command: [])


MTREE = """address-space: memory
  0000000000000000-ffffffffffffffff (prio 0, i/o): system
    00000002d0000000-000000030fffffff (prio 0, i/o): cxl-fixed-memory-region
"""
CXL = tuple(Region(name, RegionKind.CXL, 256 * MIB, 2 * MIB) for name in ("a", "b"))


def test_cxl_has_a_bridge_a_port_and_two_files_for_each_device_and_another_processor_and_firmware() -> None:
    found = command(replace(SPEC, regions=CXL))
    assert "usb=off,cxl=on,cxl-fmw.0.targets.0=cxl.1,cxl-fmw.0.size=1G" in found["-machine"][0]
    assert (found["-cpu"], found["-m"]) == (["max,hypervisor=off"], ["size=1024M"])
    assert "-bios" not in found
    devices = found["-device"][-5:]
    assert devices[0] == "pxb-cxl,bus=pcie.0,bus_nr=12,id=cxl.1"
    assert devices[3:] == [
        "cxl-rp,bus=cxl.1,id=port-b,port=1,chassis=0,slot=3",
        "cxl-type3,bus=port-b,id=b,persistent-memdev=mem-b,lsa=label-b,sn=2",
    ]
    assert MAKERS[RegionKind.CXL].files(CXL[:1]) == {"cxl-a": 256 * MIB, "cxl-label-a": 2 * MIB}
    assert "every read gives zeroes" in never_saved(CXL)


def test_cxl_regions_lie_one_behind_the_other_in_their_window() -> None:
    placed = MAKERS[RegionKind.CXL].placements(CXL, lambda *asked: MTREE)
    assert [(p.name, p.start) for p in placed] == [("a", 0x2D0000000), ("b", 0x2E0000000)]
    with pytest.raises(MachineError, match="QEMU lists no window of CXL memory; it said: nothing"):
        MAKERS[RegionKind.CXL].placements(CXL, lambda *asked: "")


def test_a_ramdax_region_is_an_e820_region_to_the_machine_and_has_its_labels_inside() -> None:
    region = Region("main", RegionKind.RAMDAX, 256 * MIB)
    assert MAKERS[RegionKind.RAMDAX] is MAKERS[RegionKind.E820]
    assert find_problems(replace(SPEC, regions=(region,))) == []
    (problem,) = find_problems(replace(SPEC, regions=(replace(region, label_bytes=2 * MIB),)))
    assert problem == "ramdax region 'main' has a label area beside it, which regions of its kind do not have; set label_bytes to 0"


def test_cxl_without_labels_or_of_an_odd_size_cannot_work() -> None:
    assert find_problems(replace(SPEC, regions=(Region("a", RegionKind.CXL, 272 * MIB),))) == [
        "cxl region 'a' has 272MiB: take a multiple of 256MiB",
        "cxl region 'a' has no label area, without which the device holds no persistent memory",
    ]
