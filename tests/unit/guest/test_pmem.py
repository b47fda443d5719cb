"""Regions from sysfs, and the ndctl commands that follow from them."""

import re
from dataclasses import replace
from functools import partial

import pytest

from harness.errors import GuestError
from harness.guest.link import GuestCommand, GuestFiles
from harness.guest.pmem import (
    DAX_DEVICES,
    PmemNamespace,
    PmemRegion,
    RegionPlacement,
    find_namespace,
    find_region,
    namespace_commands,
    read_regions,
    require_read_only,
)
from harness.guest.regions import bringing_commands
from harness.model.kinds import Alignment, NamespaceMode, PageMap, RegionKind
from harness.model.stack import Namespace, Region
from harness.sizes import MIB

ND = "/sys/bus/nd/devices"
ACPI = "/sys/devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0"
E820 = "/sys/devices/platform/e820_pmem/ndbus1"


def sysfs(**changes: str | None) -> GuestFiles:
    """A guest with an NVDIMM that came up raw and an e820 region that came up with pages, as it comes."""
    files: dict[str, str | None] = {
        f"{ND}/ndbus0/provider": "ACPI.NFIT\n",
        f"{ND}/ndbus1/provider": "e820\n",
        f"{ND}/region0/resource": "0x100000000\n",
        f"{ND}/region0/size": "268435456\n",
        f"{ND}/region1/resource": "0x20000000\n",
        f"{ND}/region1/size": "134217728\n",
        f"{ND}/namespace0.0/mode": "raw\n",
        f"{ND}/namespace0.0/holder": "\n",
        f"{ND}/namespace0.0/size": "268435456\n",
        f"{ND}/namespace0.1/mode": "raw\n",
        f"{ND}/namespace0.1/size": "0\n",
        f"{ND}/namespace1.0/mode": "memory\n",
        f"{ND}/namespace1.0/holder": "\n",
        f"{ND}/namespace1.0/size": "134217728\n",
        f"{ND}/pfn0.0/mode": "none\n",
    }
    folders = {
        f"{ND}/region0": f"{ACPI}/region0",
        f"{ND}/region1": f"{E820}/region1",
        f"{ND}/namespace0.0/block/pmem0": f"{ACPI}/region0/namespace0.0/block/pmem0",
        f"{ND}/namespace1.0/block/pmem1": f"{E820}/region1/namespace1.0/block/pmem1",
    }
    for name, value in changes.items():
        files[f"{ND}/{name.replace('__', '/').replace('_0', '.0')}"] = value
    return GuestFiles(files, folders, {})


def test_regions_are_read_with_their_namespaces() -> None:
    nvdimm, e820 = read_regions(sysfs())
    assert nvdimm == PmemRegion("region0", "ACPI.NFIT", 4 << 30, 256 * MIB, (PmemNamespace("namespace0.0", "raw", None, "pmem0"),))
    assert e820 == PmemRegion("region1", "e820", 512 * MIB, 128 * MIB, (PmemNamespace("namespace1.0", "fsdax", "mem", "pmem1"),))


@pytest.mark.parametrize(("table", "page_map"), [("ram", "mem"), ("pmem", "dev")])
def test_a_table_of_pages_says_where_it_is(table: str, page_map: str) -> None:
    files = sysfs(namespace0_0__mode="memory", namespace0_0__holder="pfn0.0", pfn0_0__mode=table)
    moved = {**files.folders, f"{ND}/pfn0.0/block/pmem0": "/x"}
    del moved[f"{ND}/namespace0.0/block/pmem0"]
    (namespace,) = read_regions(GuestFiles(files.files, moved, {}))[0].namespaces
    assert (namespace.mode, namespace.page_map, namespace.node) == ("fsdax", page_map, "pmem0")


def devdax(align: int = 4096) -> GuestFiles:
    """The NVDIMM's namespace is a dax device, whose number is another than that of what claims the namespace."""
    files = sysfs(namespace0_0__mode="dax", namespace0_0__holder="dax0.1")
    own = {f"{ND}/dax0.1/mode": "pmem\n", f"{DAX_DEVICES}/dax0.0/align": f"{align}\n", f"{DAX_DEVICES}/dax0.0/size": "262144000\n"}
    folders = {**files.folders, f"{ND}/dax0.1/dax0.0": f"{ACPI}/region0/dax0.1/dax0.0"}
    return GuestFiles({**files.files, **own}, folders, {})


def test_a_dax_device_is_read_with_its_units_and_its_size() -> None:
    (namespace,) = read_regions(devdax())[0].namespaces
    assert namespace == PmemNamespace("namespace0.0", "devdax", "dev", "dax0.0", None, 4096, 262144000)


def test_a_dax_device_in_other_units_is_made_anew() -> None:
    region = read_regions(devdax())[0]
    small, large = (Namespace(Region("pmem", RegionKind.NVDIMM), NamespaceMode.DEVDAX, PageMap.DEV, align) for align in Alignment)
    assert find_namespace(region, small) is not None
    assert find_namespace(region, large) is None
    argv = command(region, large).argv
    assert argv[argv.index("--mode") + 1] == "devdax"
    assert argv[argv.index("--map") + 1] == "dev"
    assert argv[argv.index("--align") + 1] == "2097152"
    assert "--align" not in command(region, wanted()).argv


def test_sector_mode_and_the_sector_size_of_a_label_are_read() -> None:
    (namespace,) = read_regions(sysfs(namespace0_0__mode="safe", namespace0_0__sector_size="512 [4096] \n"))[0].namespaces
    assert (namespace.mode, namespace.sector_bytes) == ("sector", 4096)


def test_a_region_that_does_not_say_where_it_is_is_a_guest_error() -> None:
    with pytest.raises(GuestError, match=r"does not say where region0 is: resource None, size 268435456, provider ACPI\.NFIT"):
        read_regions(sysfs(region0__resource=None))


def test_labels_persistence_and_whether_a_region_can_be_written_are_read() -> None:
    said = {"region0__nstype": "5\n", "region0__read_only": "1\n", "region0__persistence_domain": "cpu_cache\n"}
    nvdimm, e820 = read_regions(sysfs(**said, region1__nstype="4\n", region1__read_only="0\n"))
    assert (nvdimm.has_labels, nvdimm.read_only, nvdimm.persistence_domain) == (True, True, "cpu_cache")
    assert (e820.has_labels, e820.read_only, e820.persistence_domain) == (False, False, None)


def test_a_region_that_the_kernel_did_not_close_is_a_guest_error_where_it_was_to() -> None:
    closed = read_regions(sysfs(region0__read_only="1"))[0]
    require_read_only(closed, RegionKind.NVDIMM_UNARMED)
    require_read_only(read_regions(sysfs())[0], RegionKind.NVDIMM)
    with pytest.raises(GuestError, match=r"region0 of ACPI\.NFIT .* can be written, and a region of the kind nvdimm_unarmed cannot"):
        require_read_only(read_regions(sysfs())[0], RegionKind.NVDIMM_UNARMED)


def test_only_kinds_whose_drivers_the_initrd_leaves_out_have_them_loaded() -> None:
    assert bringing_commands([RegionKind.E820, RegionKind.NVDIMM]) == ()
    load, settle = bringing_commands([RegionKind.VIRTIO_PMEM, RegionKind.E820])
    assert (load.argv, load.may_fail) == (("modprobe", "-a", "virtio_pmem"), True)
    assert settle.argv[-1] == "cat /sys/bus/nd/devices/ndbus*/wait_probe"
    load, make, _ = bringing_commands([RegionKind.CXL, RegionKind.CXL])
    assert load.argv == ("modprobe", "-a", "cxl_acpi", "cxl_pci", "cxl_mem", "cxl_pmem", "cxl_port")
    assert "cxl create-region -t pmem -m -d decoder0.0" in make.argv[-1]
    assert not make.may_fail
    load, bind, _ = bringing_commands([RegionKind.RAMDAX])
    assert load.argv == ("modprobe", "-a", "ramdax")
    assert bind.argv[-1].startswith("cd /sys/bus/platform && test -e drivers/ramdax/e820_pmem || { echo ramdax >")


def test_a_region_is_found_by_its_start_not_by_its_name() -> None:
    regions = read_regions(sysfs())
    placement = RegionPlacement("pmem", RegionKind.E820, 512 * MIB, 128 * MIB)
    assert find_region(regions, placement).name == "region1"


def test_a_region_that_is_not_there_is_a_guest_error_that_lists_the_others() -> None:
    placement = RegionPlacement("pmem", RegionKind.E820, 768 * MIB, 128 * MIB)
    said = re.escape("no pmem region at 0x30000000 (pmem, e820); it has: region0 of ACPI.NFIT at 0x100000000, 256MiB; region1 of e820")
    with pytest.raises(GuestError, match=said):
        find_region(read_regions(sysfs()), placement)
    with pytest.raises(GuestError, match="it has: none"):
        find_region((), placement)


def wanted(mode: NamespaceMode = NamespaceMode.FSDAX, map: PageMap | None = PageMap.MEM) -> Namespace:  # noqa: A002 - the field's name
    return Namespace(Region("pmem", RegionKind.NVDIMM), mode, map)


def test_a_namespace_that_is_as_wanted_is_left_alone() -> None:
    nvdimm, e820 = read_regions(sysfs())
    assert find_namespace(e820, wanted()) is not None
    assert find_namespace(e820, wanted(map=None)) is not None
    assert find_namespace(e820, wanted(map=PageMap.DEV)) is None
    assert find_namespace(nvdimm, wanted()) is None
    assert find_namespace(nvdimm, wanted(NamespaceMode.RAW, None)) is not None


def halves() -> tuple[PmemNamespace, ...]:
    """The namespaces of a region that is divided."""
    return tuple(PmemNamespace(f"namespace0.{half}", "fsdax", "mem", f"pmem0.{half}", half=half) for half in (0, 1))


HALVES = [Namespace(Region("r", RegionKind.NVDIMM), half=half) for half in (0, 1)]


def test_a_namespace_that_is_half_of_its_region_is_read() -> None:
    places = [("0x100000000", "134217728"), ("0x108000000", "134217728"), ("0x104000000", "134217728"), ("0x100000000", "67108864")]
    found = [read_regions(sysfs(namespace0_0__resource=start, namespace0_0__size=size))[0].namespaces[0].half for start, size in places]
    assert found == [0, 1, None, None]
    assert read_regions(sysfs())[0].namespaces[0].half is None


def test_a_region_is_divided_after_its_dimm_got_new_labels() -> None:
    nvdimm, _ = read_regions(sysfs())
    empty, *made = namespace_commands(nvdimm, HALVES)
    assert "mapping0) && ndctl disable-region $0 && ndctl init-labels --force $dimm && ndctl enable-region $0" in empty.argv[2]
    assert empty.argv[3] == "region0"
    for one in made:
        assert one.argv[3:5] == ("--region", "region0")
        assert one.argv[one.argv.index("--size") + 1] == "134217728"
    assert len(made) == 2


def test_a_divided_region_is_left_as_it_is_or_made_whole_again() -> None:
    nvdimm, _ = read_regions(sysfs())
    divided = replace(nvdimm, namespaces=halves())
    assert namespace_commands(divided, HALVES) == ()
    assert [one.node for one in map(partial(find_namespace, divided), HALVES) if one] == ["pmem0.0", "pmem0.1"]
    assert len(namespace_commands(replace(nvdimm, namespaces=divided.namespaces[:1]), HALVES)) == 3
    empty, made = namespace_commands(divided, [wanted()])
    assert "init-labels" in empty.argv[2]
    assert made.argv[3:5] == ("--region", "region0")
    assert "--size" not in made.argv


def command(region: PmemRegion, namespace: Namespace) -> GuestCommand:
    (one,) = namespace_commands(region, [namespace])
    return one


def test_an_existing_namespace_is_reconfigured() -> None:
    nvdimm, _ = read_regions(sysfs())
    assert command(nvdimm, wanted(map=PageMap.DEV)).argv == (
        *("ndctl", "create-namespace", "--force"),
        *("--reconfig", "namespace0.0"),
        *("--mode", "fsdax"),
        *("--map", "dev"),
        "--no-autorecover",
    )
    assert "--map" not in command(nvdimm, wanted(NamespaceMode.SECTOR, None)).argv


def test_a_region_without_a_namespace_gets_one() -> None:
    empty = PmemRegion("region3", "ACPI.NFIT", 0, 0, ())
    assert command(empty, wanted()).argv[3:5] == ("--region", "region3")


def test_a_sector_size_that_a_label_remembers_is_reset_outside_sector_mode() -> None:
    labelled = PmemRegion("region0", "ACPI.NFIT", 0, 0, (PmemNamespace("namespace0.0", "sector", None, "pmem0s", 4096),))
    argv = command(labelled, wanted()).argv
    assert argv[argv.index("--sector-size") + 1] == "512"
    assert namespace_commands(labelled, [wanted(NamespaceMode.SECTOR, None)]) == ()
    no_node = replace(labelled, namespaces=(replace(labelled.namespaces[0], node=None),))
    assert "--sector-size" not in command(no_node, wanted(NamespaceMode.SECTOR, None)).argv
