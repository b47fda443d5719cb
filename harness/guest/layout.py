"""Which device and which folder of the guest stand for each volume of a stack."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.errors import GuestError
from harness.guest.filesystem import MOUNT_FOLDER, mount_options
from harness.guest.layers import Base
from harness.guest.pmem import PmemRegion, RegionPlacement, find_namespace, find_region
from harness.model.layers import Layer
from harness.model.stack import OVERLAY, Disk, Namespace, StorageStack, Volume
from harness.ops import MountVolume

OVERLAY_FOLDER = f"{MOUNT_FOLDER}/{OVERLAY}"
_IVSHMEM = ("0x1af4", "0x1110")


@dataclass(frozen=True)
class PlacedVolume:
    """A volume with its node in the guest, and the folder where it is mounted. ``base``: what its layer stands on, where it has one."""

    volume: Volume
    node: str
    folder: str
    base: Base | None = None

    @property
    def name(self) -> str:
        """What the kernel calls the device, and /dev its node."""
        return self.node.removeprefix("/dev/")

    @property
    def namespace_name(self) -> str:
        """The same of the namespace's device, which a layer stands on."""
        return self.name if self.base is None else self.base.name

    @property
    def block(self) -> str:
        """The folder of its block device in sysfs."""
        return f"{self.whole}/{self.name}" if self.volume.layer.traits.is_partition else self.whole

    @property
    def whole(self) -> str:
        """The folder of the block device that has the queue: for a partition the whole one."""
        return f"/sys/block/{self.namespace_name if self.volume.layer.traits.is_partition else self.name}"

    @property
    def is_read_only(self) -> bool:
        """Whether it has a file system that nobody can write to."""
        return self.volume.mount is not None and not self.volume.mounts_to_write

    @property
    def mounting(self) -> MountVolume:
        """What mounts it as the set-up does."""
        mount = self.volume.mount
        assert mount is not None
        return MountVolume(self.volume.role, str(mount.filesystem), mount_options(mount))

    def root(self, mount_in_program: bool) -> str:
        """What paths of the volume start at: the folder, or the node itself where nothing is ever mounted."""
        return self.node if self.volume.mount is None and not mount_in_program else self.folder


@dataclass(frozen=True)
class Layout:
    """A stack in a guest. ``bar``: the file that is the memory BAR of the ivshmem device."""

    stack: StorageStack
    volumes: tuple[PlacedVolume, ...]
    bar: str | None = None

    @property
    def roots(self) -> dict[str, str]:
        """What the agent is told as ``roots``."""
        roots = {v.volume.role: v.root(self.stack.mount_in_program) for v in self.volumes} | dict.fromkeys(self.overlays, OVERLAY_FOLDER)
        return roots if self.bar is None else {**roots, "bar": self.bar}

    @property
    def overlays(self) -> tuple[str, ...]:
        """What paths of an overlay that a program can mount begin with; nothing where it can mount none."""
        return (OVERLAY,) if self.stack.can_overlay else ()

    @property
    def devices(self) -> dict[str, str]:
        return {v.volume.role: v.node for v in self.volumes}

    @property
    def mounted(self) -> tuple[PlacedVolume, ...]:
        """The volumes that set-up mounts."""
        return () if self.stack.mount_in_program else tuple(v for v in self.volumes if v.volume.mount is not None)


def layer_base(placed: PlacedVolume, disks: Mapping[str, str]) -> Base | None:
    """Return what the layer of a volume is made on, where it has one: the volume is ``placed`` on the namespace itself.

    Raises GuestError where a disk is missing.
    """
    if placed.volume.layer is Layer.NONE:
        return None
    disk = placed.volume.layer_disk
    return Base(placed.node, placed.volume.role, "" if disk is None else _disk_node(disk, disks))


def _disk_node(disk: Disk, disks: Mapping[str, str]) -> str:
    if disk.name not in disks:
        there = ", ".join(filter(None, disks)) or "none"
        raise GuestError(f"the guest has no disk with the serial {disk.name!r}; it has: {there}")
    return f"/dev/{disks[disk.name]}"


def region_placement(namespace: Namespace, placements: Sequence[RegionPlacement]) -> RegionPlacement:
    """Return where the region of a namespace lies. Raises GuestError where the machine has none of that name."""
    for placement in placements:
        if placement.name == namespace.region.name:
            return placement
    known = ", ".join(p.name for p in placements) or "none"
    raise GuestError(f"the machine has no region {namespace.region.name!r}; it has: {known}")


def place_volume(
    volume: Volume, placements: Sequence[RegionPlacement], regions: Sequence[PmemRegion], disks: Mapping[str, str]
) -> PlacedVolume:
    """Return the device and the folder of a volume, without its layer. Raises GuestError that says what the guest has instead."""
    folder = f"{MOUNT_FOLDER}/{volume.role}"
    if isinstance(volume.device, Disk):
        return PlacedVolume(volume, _disk_node(volume.device, disks), folder)
    region = find_region(regions, region_placement(volume.device, placements))
    namespace = find_namespace(region, volume.device) or next((n for n in region.namespaces if n.node is not None), None)
    if namespace is None or namespace.node is None:
        raise GuestError(f"no device came of {region.describe()}: {region.namespaces}")
    return PlacedVolume(volume, f"/dev/{namespace.node}", folder)


def find_bar(files: Mapping[str, str | None]) -> str:
    """Return the memory BAR of the ivshmem device, from vendor and device of every PCI device. Raises GuestError."""
    for path, vendor in files.items():
        folder, _, name = path.rpartition("/")
        if name == "vendor" and ((vendor or "").strip(), (files.get(f"{folder}/device") or "").strip()) == _IVSHMEM:
            return f"{folder}/resource2"
    raise GuestError("the guest has no ivshmem device, whose memory BAR the stack asks for")
