"""A machine as the doctor sees it, whatever place is asked for: its kernel, regions and namespaces, block devices, mounts."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.errors import GuestError
from harness.guest.filesystem import MOUNT_TABLE, MountEntry, parse_mounts
from harness.guest.link import GuestFiles
from harness.guest.looking import Answers, Output
from harness.guest.pmem import MODES
from harness.model.dax.evidence import Device, DeviceKind, Idle, Namespace, Region, Unseen

_ND = "/sys/bus/nd/devices"
_ND_PMEM = "/sys/bus/nd/drivers/nd_pmem"
BLOCK = "/sys/class/block"
_RELEASE = "/proc/sys/kernel/osrelease"
_EXT4 = "/sys/fs/ext4"
_ACPI_NVDIMM = "ACPI0012:00"
_E820 = "/sys/bus/platform/devices/e820_pmem"
_VIRTIO = "/sys/bus/virtio/devices"
#: include/uapi/linux/virtio_ids.h VIRTIO_ID_PMEM.
_VIRTIO_PMEM = "0x001b"

MACHINE_PATTERNS = (
    _RELEASE,
    MOUNT_TABLE,
    f"{_ND}/ndbus*/provider",
    f"{_ND}/region*",
    f"{_ND}/region*/read_only",
    f"{_ND}/namespace*",
    f"{_ND}/namespace*/mode",
    f"{_ND}/namespace*/size",
    f"{_ND}/namespace*/holder",
    f"{_ND}/namespace*/sector_size",
    f"{_ND}/*/block/*",
    f"{_ND}/dax*/dax[0-9]*",
    _ND_PMEM,
    _E820,
    f"{_E820}/driver",
    f"/sys/bus/acpi/devices/{_ACPI_NVDIMM}",
    f"/sys/bus/acpi/devices/{_ACPI_NVDIMM}/driver",
    f"/sys/bus/platform/devices/{_ACPI_NVDIMM}/driver",
    f"{_VIRTIO}/*/device",
    f"{_VIRTIO}/*/driver",
    f"{BLOCK}/*",
    f"{BLOCK}/*/dev",
    f"{BLOCK}/*/size",
    f"{BLOCK}/*/ro",
    f"{BLOCK}/*/start",
    f"{BLOCK}/*/partition",
    f"{BLOCK}/*/queue/dax",
    f"{BLOCK}/*/slaves/*",
    f"{BLOCK}/*/dm/name",
    f"{BLOCK}/*/loop/backing_file",
    f"{_EXT4}/*",
)
MACHINE_QUESTIONS = {
    "page": "getconf PAGE_SIZE 2>/dev/null || sed -n '/^KernelPageSize/{s/[^0-9]//gp;q}' /proc/self/smaps | sed 's/$/ kB/'",
    # Where no configuration is to be had, the kernel's symbols say it; some other one says that they can be read.
    "config": """
        r=$(uname -r)
        for f in /proc/config.gz /boot/config-$r /lib/modules/$r/config /usr/lib/modules/$r/config; do
            [ -r $f ] || continue
            echo "configuration $f"
            case $f in *.gz) zcat $f;; *) cat $f;; esac | grep '^CONFIG_FS_DAX='
            exit 0
        done
        grep -oE ' (dax_iomap_rw|vfs_read)$' /proc/kallsyms""",
    "log": "text=$(dmesg) || exit 1; printf '%s\\n' \"$text\" | grep -i dax | tail -n 40; exit 0",
}


@dataclass(frozen=True)
class Mount:
    """A line of the mount table, with the number of its device."""

    entry: MountEntry
    number: str


@dataclass(frozen=True)
class Machine:
    """What a machine is like, whatever place is asked for. ``names``: of block devices by number."""

    release: str
    page_bytes: int
    fs_dax: bool | Unseen
    idle: tuple[Idle, ...]
    regions: tuple[Region, ...]
    namespaces: tuple[Namespace, ...]
    devices: Mapping[str, Device]
    names: Mapping[str, str]
    mounts: tuple[Mount, ...]
    by_ext4: frozenset[str]
    said: tuple[str, ...] | Unseen


def read_machine(answers: Answers) -> Machine:
    files = answers.files
    release, table = files.text(_RELEASE), files.text(MOUNT_TABLE)
    page = re.fullmatch(r"(\d+)( kB)?", answers.outputs["page"].text.strip())
    if release is None or table is None or page is None:
        raise GuestError(f"the machine does not say what it is: release {release!r}, page {answers.outputs['page'].text.strip()!r}")
    mounts = tuple(Mount(entry, line.split()[2]) for entry, line in zip(parse_mounts(table), table.splitlines(), strict=True))
    regions = _regions(files)
    namespaces = tuple(_namespaces(files, regions))
    folder = f"{_EXT4}/"
    return Machine(
        release=release,
        page_bytes=int(page[1]) * (1024 if page[2] else 1),
        fs_dax=_fs_dax(answers.outputs["config"]),
        idle=tuple(_idle(files, namespaces)),
        regions=tuple(regions.values()),
        namespaces=namespaces,
        devices=_devices(files, namespaces, mounts),
        names={number.strip(): path.split("/")[4] for path, number in files.files.items() if number and path.endswith("/dev")},
        mounts=mounts,
        by_ext4=frozenset(path.removeprefix(folder) for path in files.folders if path.startswith(folder)),
        said=_said(answers.outputs["log"]),
    )


def _fs_dax(output: Output) -> bool | Unseen:
    if output.text.startswith("configuration "):
        return "CONFIG_FS_DAX=y" in output.text
    if "vfs_read" in output.text:
        return "dax_iomap_rw" in output.text
    return Unseen("neither the kernel's configuration nor its symbols can be read")


def _said(output: Output) -> tuple[str, ...] | Unseen:
    return tuple(output.text.strip().splitlines()) if output.status == 0 else Unseen(output.why("dmesg"))


def _regions(files: GuestFiles) -> dict[str, Region]:
    found = {}
    for path, real in files.folders.items():
        name, bus = re.fullmatch(rf"{_ND}/(region\d+)", path), re.search(r"/(ndbus\d+)/", real)
        if name and bus:
            provider = files.text(f"{_ND}/{bus[1]}/provider") or "an unknown bus"
            found[name[1]] = Region(name[1], provider, files.text(f"{path}/read_only") == "1")
    return found


def _namespaces(files: GuestFiles, regions: Mapping[str, Region]) -> Iterator[Namespace]:
    # A node hangs off the namespace itself, or off what claims it.
    nodes = {path.split("/")[5]: path.split("/")[-1] for path in files.folders if re.match(rf"{_ND}/[^/]+/(block/|dax\d)", path)}
    for path, real in files.folders.items():
        name, region = re.fullmatch(rf"{_ND}/(namespace[\d.]+)", path), re.search(r"/(region\d+)/", real)
        if not name or not region or region[1] not in regions or files.text(f"{path}/size") in (None, "0"):
            continue
        mode = files.text(f"{path}/mode") or "unknown"
        node = nodes.get(files.text(f"{path}/holder") or name[1])
        sector = re.search(r"\[(\d+)\]", files.text(f"{path}/sector_size") or "")
        labelled = sector is not None and sector[1] != "512"
        yield Namespace(name[1], MODES.get(mode, mode), regions[region[1]], f"/dev/{node}" if node else None, labelled)


def _idle(files: GuestFiles, namespaces: Sequence[Namespace]) -> Iterator[Idle]:
    """Yield what no driver has taken, because its module is not loaded."""
    there = files.folders
    if _ND_PMEM not in there:
        yield from (Idle(namespace.name, "nd_pmem") for namespace in namespaces if namespace.node is None)
    if _E820 in there and f"{_E820}/driver" not in there:
        yield Idle("e820_pmem", "nd_e820")
    # Since 6.7 its driver is that of the platform device of the same name.
    taken = any(f"/sys/bus/{bus}/devices/{_ACPI_NVDIMM}/driver" in there for bus in ("acpi", "platform"))
    if f"/sys/bus/acpi/devices/{_ACPI_NVDIMM}" in there and not taken:
        yield Idle(_ACPI_NVDIMM, "nfit")
    for path, number in files.files.items():
        if path.startswith(_VIRTIO) and (number or "").strip() == _VIRTIO_PMEM and f"{path.rpartition('/')[0]}/driver" not in there:
            yield Idle(path.split("/")[5], "virtio_pmem")


def _devices(files: GuestFiles, namespaces: Sequence[Namespace], mounts: Sequence[Mount]) -> dict[str, Device]:
    """Return the block devices by the kernel's name for them."""
    by_node = {namespace.node: namespace for namespace in namespaces}
    numbers = {files.text(f"{path}/dev"): path.split("/")[4] for path in files.folders if re.fullmatch(rf"{BLOCK}/[^/]+", path)}

    def number(path: str) -> int:
        return int(files.text(path) or 0)

    def queue_dax(name: str) -> bool | Unseen:
        text = files.text(f"{BLOCK}/{name}/queue/dax")
        return Unseen(f"{BLOCK}/{name}/queue/dax cannot be read") if text is None else text == "1"

    def device(name: str) -> Device:
        folder = f"{BLOCK}/{name}"
        kind, below, whole, node, shown = DeviceKind.WHOLE, [], name, f"/dev/{name}", ""
        backing, mapped = files.text(f"{folder}/loop/backing_file"), files.text(f"{folder}/dm/name")
        slaves = [path.rpartition("/")[2] for path in files.folders if path.startswith(f"{folder}/slaves/")]
        if files.text(f"{folder}/partition") is not None:
            whole = files.folders[folder].split("/")[-2]
            kind, below = DeviceKind.PARTITION, [whole]
        elif backing:
            mount = mount_of(mounts, backing)
            kind, shown = DeviceKind.LOOP, mount.entry.folder if mount else ""
            below = [numbers[mount.number]] if mount and mount.number in numbers else []
        elif slaves:
            kind, below = DeviceKind.MAPPED, slaves
        if mapped:
            node = f"/dev/mapper/{mapped}"
        return Device(
            node,
            kind,
            number(f"{folder}/size"),
            queue_dax(whole),
            number(f"{folder}/start"),
            files.text(f"{folder}/ro") == "1",
            by_node.get(node),
            tuple(map(device, below)),
            shown,
        )

    return {name: device(name) for name in numbers.values()}


def mount_of(mounts: Sequence[Mount], path: str) -> Mount | None:
    """Return the mount that a path without links is on: the latest one whose folder it is below."""
    found = None
    for mount in mounts:
        folder = mount.entry.folder.rstrip("/")
        if (path == folder or path.startswith(f"{folder}/")) and (found is None or len(folder) >= len(found.entry.folder.rstrip("/"))):
            found = mount
    return found
