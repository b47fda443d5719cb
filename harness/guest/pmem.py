"""Pmem in the guest: which region is where, its namespace, and how to bring it into a mode.

Regions are found by their physical start, never by a name that depends on the order of probing.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.errors import GuestError
from harness.guest.link import GuestCommand, GuestFiles
from harness.model.kinds import PageMap, RegionKind
from harness.model.stack import Namespace
from harness.sizes import format_size

_ND = "/sys/bus/nd/devices"
#: Where the guest says what its dax devices are like.
DAX_DEVICES = "/sys/bus/dax/devices"
#: What :func:`read_regions` needs to have been read.
REGION_PATTERNS = (
    f"{_ND}/ndbus*/provider",
    f"{_ND}/region*",
    f"{_ND}/region*/resource",
    f"{_ND}/region*/size",
    f"{_ND}/region*/nstype",
    f"{_ND}/region*/read_only",
    f"{_ND}/region*/persistence_domain",
    f"{_ND}/namespace*/mode",
    f"{_ND}/namespace*/holder",
    f"{_ND}/namespace*/size",
    f"{_ND}/namespace*/resource",
    f"{_ND}/namespace*/sector_size",
    f"{_ND}/pfn*/mode",
    f"{_ND}/*/block/*",
    f"{_ND}/dax*/mode",
    f"{_ND}/dax*/dax[0-9]*",
    f"{DAX_DEVICES}/*/align",
    f"{DAX_DEVICES}/*/size",
)

#: The type of a region that labels divide into namespaces: include/uapi/linux/ndctl.h ND_DEVICE_NAMESPACE_PMEM.
_LABELLED = "5"

#: ndctl's words for modes, by sysfs's; the others are the same.
MODES = {"memory": "fsdax", "safe": "sector", "dax": "devdax"}


@dataclass(frozen=True)
class RegionPlacement:
    """Where the machine put a region into the guest's physical memory."""

    name: str
    kind: RegionKind
    start: int
    size_bytes: int


@dataclass(frozen=True)
class PmemNamespace:
    """A namespace of the guest and the name of its node in /dev. ``mode`` in ndctl's words; ``page_map`` for fsdax and devdax.

    ``sector_bytes``: what its label says; None without a label (then it is 512 outside sector mode). ``align_bytes`` and ``size_bytes``:
    of a dax device. ``half``: of the region, 0 or 1; None: it is not one.
    """

    name: str
    mode: str
    page_map: str | None
    node: str | None
    sector_bytes: int | None = None
    align_bytes: int | None = None
    size_bytes: int | None = None
    half: int | None = None


@dataclass(frozen=True)
class PmemRegion:
    """A region as the guest has it. ``persistence_domain``: None where the kernel was told of none."""

    name: str
    provider: str
    start: int
    size_bytes: int
    namespaces: tuple[PmemNamespace, ...]
    has_labels: bool = False
    read_only: bool = False
    persistence_domain: str | None = None

    def describe(self) -> str:
        return f"{self.name} of {self.provider} at {self.start:#x}, {format_size(self.size_bytes)}"


def read_regions(files: GuestFiles) -> tuple[PmemRegion, ...]:
    """Return the regions that ``files`` (of REGION_PATTERNS) show. Raises GuestError where sysfs is not as expected."""
    regions = []
    for path, real in files.folders.items():
        match = re.fullmatch(rf"{_ND}/(region\d+)", path)
        bus = re.search(r"/(ndbus\d+)/", real + "/")
        if match is None:
            continue
        name = match[1]
        start, size = files.text(f"{path}/resource"), files.text(f"{path}/size")
        provider = files.text(f"{_ND}/{bus[1]}/provider") if bus else None
        if start is None or size is None or provider is None:
            raise GuestError(f"sysfs of the guest does not say where {name} is: resource {start}, size {size}, provider {provider}")
        regions.append(
            PmemRegion(
                name=name,
                provider=provider,
                start=int(start, 16),
                size_bytes=int(size),
                namespaces=_namespaces(files, name, int(start, 16), int(size)),
                has_labels=files.text(f"{path}/nstype") == _LABELLED,
                read_only=files.text(f"{path}/read_only") == "1",
                persistence_domain=files.text(f"{path}/persistence_domain") or None,
            )
        )
    return tuple(regions)


def _namespaces(files: GuestFiles, region: str, start: int, size_bytes: int) -> tuple[PmemNamespace, ...]:
    number = region.removeprefix("region")
    # The device hangs off the namespace itself (raw, or pages without a table of their own) or off what claims it.
    nodes = {path.split("/")[5]: path.split("/")[-1] for path in files.folders if re.match(rf"{_ND}/[^/]+/(block/|dax)", path)}
    found = []
    for path, mode in files.files.items():
        match = re.fullmatch(rf"{_ND}/(namespace{number}\.\d+)/mode", path)
        if match is None or files.text(f"{_ND}/{match[1]}/size") in (None, "0"):
            continue
        holder = files.text(f"{_ND}/{match[1]}/holder") or None
        kind = (mode or "").strip()
        table = files.text(f"{_ND}/{holder}/mode") if holder and holder.startswith(("pfn", "dax")) else None
        page_map = None
        if kind in ("memory", "dax"):
            page_map = {"ram": "mem", "pmem": "dev", None: "mem"}.get(table, table)
        # All sizes that the label may have, the one that it has in brackets.
        sector = re.search(r"\[(\d+)\]", files.text(f"{_ND}/{match[1]}/sector_size") or "")
        node = nodes.get(holder or match[1])
        align, size = (_number(files.text(f"{DAX_DEVICES}/{node}/{name}")) for name in ("align", "size"))
        half = _half(files, f"{_ND}/{match[1]}", start, size_bytes)
        found.append(PmemNamespace(match[1], MODES.get(kind, kind), page_map, node, _number(sector and sector[1]), align, size, half))
    return tuple(found)


def _half(files: GuestFiles, path: str, region_start: int, region_bytes: int) -> int | None:
    """Return which half of its region a namespace is; None where it is none."""
    start, size = files.text(f"{path}/resource"), files.text(f"{path}/size")
    if start is None or size is None or int(size) != region_bytes // 2:
        return None
    return {region_start: 0, region_start + region_bytes // 2: 1}.get(int(start, 16))


def _number(text: str | None) -> int | None:
    return None if text is None else int(text)


def find_region(regions: Sequence[PmemRegion], placement: RegionPlacement) -> PmemRegion:
    """Return the region that starts where the machine put ``placement``. Raises GuestError with what there is."""
    for region in regions:
        if region.start == placement.start:
            return region
    there = "; ".join(region.describe() for region in regions) or "none"
    raise GuestError(f"the guest has no pmem region at {placement.start:#x} ({placement.name}, {placement.kind}); it has: {there}")


def require_read_only(region: PmemRegion, kind: RegionKind) -> None:
    """Raise GuestError where a region is writable that the kernel was to make read-only: set-up alone opens and closes such a one."""
    if kind.traits.read_only and not region.read_only:
        raise GuestError(f"{region.describe()} can be written, and a region of the kind {kind} cannot")


def opening_command(region: str) -> GuestCommand:
    """Return what makes a region writable, for namespaces to be made of it."""
    return GuestCommand(("sh", "-c", f"echo 0 > {_ND}/{region}/read_only"))


def closing_command(block: str, value: bool) -> GuestCommand:
    """Return what makes the region behind a block device read-only or writable, and the device with it.

    Since 5.12 the region tells its devices. Before, a device looks at its region when its driver takes it (drivers/nvdimm/bus.c
    nvdimm_revalidate_disk), so that is done again.
    """
    again = (
        "driver=$(readlink -f device/driver) name=$(basename $(readlink -f device)); echo $name > $driver/unbind; echo $name > $driver/bind"
    )
    script = f"cd /sys/block/{block} && echo {int(value)} > device/../read_only && {{ test $(cat ro) = {int(value)} || {{ {again}; }}; }}"
    return GuestCommand(("sh", "-c", script))


def find_namespace(region: PmemRegion, wanted: Namespace) -> PmemNamespace | None:
    """Return the namespace of ``region`` if it is as wanted already, else None."""
    for namespace in region.namespaces:
        same_map = not wanted.mode.traits.has_page_map or wanted.map is None or namespace.page_map == wanted.map
        same_align = wanted.align is None or namespace.align_bytes == wanted.align.bytes
        same = namespace.mode == wanted.mode and same_map and same_align and namespace.half == wanted.half
        if same and namespace.node is not None:
            return namespace
    return None


def namespace_commands(region: PmemRegion, wanted: Sequence[Namespace]) -> tuple[GuestCommand, ...]:
    """Return what gives a region the wanted namespaces: nothing where it has them, else its one (or its free space) comes into the mode.

    Where there are, or are to be, halves, the region is divided anew.
    """
    if all(find_namespace(region, one) is not None for one in wanted):
        return ()
    if wanted[0].half is None and all(namespace.half is None for namespace in region.namespaces):
        return (_namespace_command(region, wanted[0]),)
    empty = replace(region, namespaces=())
    return (_empty_command(region.name), *(_namespace_command(empty, one) for one in wanted))


def _empty_command(region: str) -> GuestCommand:
    """Return what leaves a region without a namespace: its DIMM gets new labels, which the kernel looks for when the region comes."""
    script = (
        f"dimm=$(cut -d, -f1 {_ND}/$0/mapping0) && ndctl disable-region $0 && ndctl init-labels --force $dimm && ndctl enable-region $0"
    )
    return GuestCommand(("sh", "-c", script, region))


def _namespace_command(region: PmemRegion, wanted: Namespace) -> GuestCommand:
    """Return the ndctl command that brings the region's namespace (or its free space) into the wanted mode."""
    existing = region.namespaces[0] if region.namespaces else None
    target = ("--reconfig", existing.name) if existing else ("--region", region.name)
    # A label would keep the sector size of an earlier mode.
    reset = existing is not None and existing.sector_bytes not in (None, 512) and not wanted.mode.traits.sets_sector_size
    return GuestCommand(
        (
            "ndctl",
            "create-namespace",
            "--force",
            *target,
            *("--mode", str(wanted.mode)),
            *(("--map", str(wanted.map or PageMap.MEM)) if wanted.mode.traits.has_page_map else ()),
            *(("--align", str(wanted.align.bytes)) if wanted.align is not None else ()),
            *(("--sector-size", "512") if reset else ()),
            *(("--size", str(region.size_bytes // 2)) if wanted.half is not None else ()),
            "--no-autorecover",
        )
    )
