"""Storage stacks: what is asked for, what the guest says it has, and where the two differ."""

from dataclasses import dataclass

from harness.model.filesystems import Filesystem, FilesystemTraits
from harness.model.formats import Format
from harness.model.kinds import Alignment, DaxOption, NamespaceMode, PageMap, RegionKind, is_dax_device, is_synchronous
from harness.model.layers import Layer
from harness.sizes import MIB, format_size

#: The volume that a case's plain paths name, and the other ones a program can reach.
MAIN = "main"
TARGET = "target"
#: What paths name that are on both, one laid over the other.
OVERLAY = "overlay"
#: What storage is called whose host has to be asked before anything is durable.
ASYNCHRONOUS = "asynchronous"


@dataclass(frozen=True)
class Region:
    """A physical pmem range: ``size_bytes`` usable, and for an NVDIMM the label area beside it."""

    name: str
    kind: RegionKind
    size_bytes: int = 256 * MIB
    label_bytes: int = 0


@dataclass(frozen=True)
class Namespace:
    """What is made of a region. An e820 region is fsdax with its struct pages in RAM as it comes (``map`` mem).

    ``align``: the units in which a dax device is mapped; None for everything else. ``half``: which half of the region it has, 0 or 1;
    None: all of it.
    """

    region: Region
    mode: NamespaceMode = NamespaceMode.FSDAX
    map: PageMap | None = PageMap.MEM
    align: Alignment | None = None
    half: int | None = None


@dataclass(frozen=True)
class Disk:
    """A plain virtio block device."""

    name: str = "disk"
    size_bytes: int = 256 * MIB


@dataclass(frozen=True)
class Mount:
    """A file system made on a volume and how it is mounted; ``dax`` None leaves the option out (a plain disk)."""

    filesystem: Filesystem
    dax: DaxOption | None
    format: Format = Format.STANDARD


@dataclass(frozen=True)
class Volume:
    """One device and what is on it; without a mount the program works on the bare node, or on the dax device."""

    role: str
    device: Namespace | Disk
    mount: Mount | None
    layer: Layer = Layer.NONE

    @property
    def is_pmem(self) -> bool:
        return isinstance(self.device, Namespace)

    @property
    def is_read_only(self) -> bool:
        """Whether the kernel lets nobody write to the device."""
        return isinstance(self.device, Namespace) and self.device.region.kind.traits.read_only

    @property
    def mounts_to_write(self) -> bool:
        """Whether it has a file system that can be written."""
        return self.mount is not None and not self.mount.filesystem.traits.is_read_only

    @property
    def layer_disk(self) -> Disk | None:
        """The disk that is part of the layer."""
        return Disk(f"{self.role}_half") if self.layer.traits.takes_disk else None

    @property
    def align(self) -> Alignment | None:
        """The units in which a dax device is to be mapped; None for any other volume."""
        return self.device.align if isinstance(self.device, Namespace) else None

    @property
    def is_dax_device(self) -> bool:
        return self.align is not None

    @property
    def asks_dax(self) -> bool:
        """Whether this volume, or files on it from their creation, are to be in DAX state."""
        return self.is_dax_device or (self.mount is not None and self.mount.dax is DaxOption.ALWAYS)

    def describe(self) -> str:
        """Return one line: ``e820 256MiB -> fsdax map=mem -> ext4 -> dax=always``."""
        if isinstance(self.device, Namespace):
            region = self.device.region
            parts = [f"{region.kind} {format_size(region.size_bytes)}", str(self.device.mode)]
            if self.device.map is not None and self.device.mode.traits.has_page_map:
                parts[-1] += f" map={self.device.map}"
            if self.device.align is not None:
                parts[-1] += f" align={self.device.align}"
            if self.device.half is not None:
                parts[-1] += f" half={self.device.half}"
        else:
            parts = [f"virtio disk {format_size(self.device.size_bytes)}"]
        if self.layer is not Layer.NONE:
            parts.append(str(self.layer))
        if self.mount is None:
            parts.append("dax device" if self.is_dax_device else "bare node")
        else:
            parts.append(" ".join(filter(None, (self.mount.filesystem, self.mount.format.word))))
            if self.mount.dax is not None:
                parts.append(f"dax={self.mount.dax}")
        return " -> ".join(parts)


@dataclass(frozen=True)
class StorageStack:
    """What a guest is to have: the main volume first, and the extra devices that a case asks for.

    ``mount_in_program`` leaves every mount to the program (the refusal of a mount is then the subject).
    ``ivshmem`` adds a PCI device whose BAR is memory without struct pages.
    """

    volumes: tuple[Volume, ...]
    mount_in_program: bool = False
    ivshmem: bool = False

    @property
    def main(self) -> Volume:
        return self.volumes[0]

    @property
    def can_overlay(self) -> bool:
        """Whether there is something to lay over the main volume, to which nobody can write, and set-up mounts both."""
        mounted = not self.mount_in_program and all(volume.mount is not None for volume in self.volumes)
        return mounted and len(self.volumes) > 1 and not self.main.mounts_to_write

    @property
    def regions(self) -> tuple[Region, ...]:
        return tuple(dict.fromkeys(v.device.region for v in self.volumes if isinstance(v.device, Namespace)))

    @property
    def namespaces(self) -> tuple[tuple[Namespace, ...], ...]:
        """The namespaces, region by region."""
        every = [v.device for v in self.volumes if isinstance(v.device, Namespace)]
        return tuple(tuple(one for one in every if one.region == region) for region in self.regions)

    @property
    def disks(self) -> tuple[Disk, ...]:
        own = (v.device if isinstance(v.device, Disk) else v.layer_disk for v in self.volumes)
        return tuple(disk for disk in own if disk is not None)

    def describe(self) -> str:
        """Return one line for the main volume and one ``role: ...`` for each other."""
        lines = [self.main.describe()] + [f"{v.role}: {v.describe()}" for v in self.volumes[1:]]
        lines += ["bar: memory of a PCI device"] if self.ivshmem else []
        return "; ".join(lines)


@dataclass(frozen=True)
class VolumeReading:
    """A volume as the guest says it is. Sizes in bytes; a field is None where the guest has no such thing.

    ``dax``: the statx attribute STATX_ATTR_DAX of a fresh file (a mounted volume) or of a dax device, False for a bare node.
    ``logical_block_bytes``: 1 for a dax device, which has no blocks. ``align_bytes``: the units in which a dax device is mapped.
    ``frame_in_region``: whether the physical frame behind a shared mapping of a fresh file (or of the node) lies in the region.
    ``half``: of the region, which the namespace has (None: not one). ``format``: what was asked for, ``features``: what the superblock says
    of itself, read only where that is not as usual. ``filesystem_block_bytes``: as the superblock says it then, else as the mount does.
    ``read_only``: the block device; ``has_labels`` and ``persistence_domain``: the region (None where the kernel knows of none).
    """

    role: str
    device: str
    root: str
    filesystem: str | None
    mount_options: tuple[str, ...]
    dax: bool
    queue_dax: bool
    logical_block_bytes: int
    filesystem_block_bytes: int | None
    size_bytes: int
    region_start: int | None = None
    region_size_bytes: int | None = None
    provider: str | None = None
    namespace_mode: str | None = None
    page_map: str | None = None
    frame_in_region: bool | None = None
    read_only: bool = False
    has_labels: bool | None = None
    persistence_domain: str | None = None
    align_bytes: int | None = None
    layer: Layer = Layer.NONE
    half: int | None = None
    format: Format = Format.STANDARD
    features: tuple[str, ...] = ()

    @property
    def is_dax_device(self) -> bool:
        return is_dax_device(self.namespace_mode)

    @property
    def gives_dax(self) -> bool:
        """Whether a file system can have DAX on it."""
        return self.queue_dax and self.layer.traits.gives_dax

    @property
    def storage(self) -> str:
        """What facts depend on beside the kernel: ``ext4 dax on pmem``, ``node on pmem sector``, ``device dax on pmem devdax``,
        ``ext4 block_1k on disk``; of a file system that a program is to mount only the format is known: ``node block_1k on pmem``.

        Pmem that only its host makes durable is ``asynchronous pmem``, and what is on a layer is so ``through`` it.
        """
        direct = any(mode.traits.queue_dax for mode in NamespaceMode if mode == self.namespace_mode)
        medium = "disk" if self.region_start is None else "pmem" if direct else f"pmem {self.namespace_mode}"
        waits = "" if is_synchronous(self.provider) else ASYNCHRONOUS
        kind = self.filesystem or ("device" if self.is_dax_device else "node")
        through = "" if self.layer is Layer.NONE else f"through {self.layer}"
        return " ".join(filter(None, (kind, self.format.word, "dax" if self.dax else "", "on", waits, medium, through)))


@dataclass(frozen=True)
class StackReading:
    """The stack as it IS, read back from the guest."""

    kernel_release: str
    volumes: tuple[VolumeReading, ...]
    page_bytes: int = 4096
    facts: tuple[tuple[str, str], ...] = ()

    def volume(self, role: str) -> VolumeReading:
        """Raises KeyError where the guest has no such volume."""
        for volume in self.volumes:
            if volume.role == role:
                return volume
        raise KeyError(role)


def find_mismatches(asked: StorageStack, got: StackReading) -> list[str]:
    """Return every difference between the stack that was asked for and the one that the guest has, both shown."""
    differences: list[str] = []
    present = {v.role: v for v in got.volumes}
    for volume in asked.volumes:
        reading = present.get(volume.role)
        if reading is None:
            differences.append(f"{volume.role}: asked for {volume.describe()}, the guest has no such volume")
            continue
        for name, want, have in _comparisons(volume, reading, asked.mount_in_program):
            if want != have:
                differences.append(f"{volume.role}: {name}: asked for {want}, the guest has {have}")
    return differences


def _comparisons(volume: Volume, got: VolumeReading, mount_in_program: bool) -> list[tuple[str, object, object]]:
    rows: list[tuple[str, object, object]] = []
    if isinstance(volume.device, Namespace):
        region = volume.device.region
        traits, mode = region.kind.traits, volume.device.mode
        rows += [
            ("provider of the region", traits.provider, got.provider),
            ("size of the region", region.size_bytes, got.region_size_bytes),
            ("persistence domain of the region", traits.persistence_domain, got.persistence_domain),
            ("read-only", traits.read_only, got.read_only),
            ("namespace mode", str(mode), got.namespace_mode),
            ("half of the region", volume.device.half, got.half),
            ("layer", volume.layer, got.layer),
            ("queue/dax", mode.traits.queue_dax and volume.layer.traits.queue_dax, got.queue_dax),
        ]
        # A raw namespace is as it came: where nothing was ever written into the label area, the kernel sees no labels.
        made = volume.device.mode.traits.has_page_map or volume.device.mode.traits.sets_sector_size
        if made or not traits.has_labels:
            rows.append(("labels of the region", traits.has_labels, got.has_labels))
        if mode.traits.has_page_map and volume.device.map is not None:
            rows.append(("page map of the namespace", str(volume.device.map), got.page_map))
        if volume.device.align is not None:
            align = volume.device.align.bytes
            whole = 0 < got.size_bytes <= region.size_bytes and got.size_bytes % align == 0
            rows += [("alignment of the dax device", align, got.align_bytes), ("size in whole units of that", True, whole)]
    else:
        rows += [("queue/dax", False, got.queue_dax), ("provider of the region", None, got.provider)]
    if volume.mount is not None:
        rows += _of_format(volume.mount, got)
    if mount_in_program:
        return rows
    if volume.mount is None:
        rows += [("file system", None, got.filesystem), ("DAX state of the node", volume.asks_dax, got.dax)]
        if volume.is_pmem:
            rows.append(("physical frame of a mapping of the node inside the region", volume.asks_dax, got.frame_in_region))
        return rows
    rows.append(("file system", str(volume.mount.filesystem), got.filesystem))
    if volume.mount.dax is not None:
        rows.append(("mount option dax", str(volume.mount.dax), dax_mode(got, volume.mount.filesystem.traits)))
    rows.append(("DAX state of a fresh file (statx)", volume.asks_dax, got.dax))
    if volume.is_pmem:
        rows.append(("physical frame of a mapping inside the region", volume.asks_dax, got.frame_in_region))
    return rows


def _of_format(mount: Mount, got: VolumeReading) -> list[tuple[str, object, object]]:
    """Return what tells whether a file system was made, and mounted, as it was asked for."""
    traits = mount.format.traits
    rows: list[tuple[str, object, object]] = []
    if got.filesystem_block_bytes is not None:
        rows.append(("block size of the file system", traits.block_bytes, got.filesystem_block_bytes))
    rows += [(f"feature {feature}", True, feature in got.features) for feature in traits.features]
    rows += [(f"feature {feature}", False, feature in got.features) for feature in traits.without_features]
    if traits.mounted is not None:
        rows.append((f"mount option {traits.mounted}", True, traits.mounted in got.mount_options))
    return rows


def dax_mode(got: VolumeReading, traits: FilesystemTraits) -> str:
    """Return the DAX mode that the mount table shows; ``traits`` say what a table means that shows none."""
    for option in got.mount_options:
        if option == "dax":
            return str(DaxOption.ALWAYS)
        if option.startswith("dax="):
            return option.removeprefix("dax=")
    return str(traits.dax_by_default)
