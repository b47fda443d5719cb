"""What was seen of a place that is to have DAX: a file or a folder with everything below it, down to the region. No judgement."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from harness.model.filesystems import Version
from harness.model.kinds import NamespaceMode


@dataclass(frozen=True)
class Unseen:
    """What could not be looked at, and why not. It is never taken for well."""

    why: str


@dataclass(frozen=True)
class Idle:
    """A device that no driver has taken, and the module that has the driver."""

    device: str
    module: str


@dataclass(frozen=True)
class Region:
    """A region as sysfs names it; ``provider``: what the kernel calls the bus that it found it on."""

    name: str
    provider: str
    read_only: bool = False


@dataclass(frozen=True)
class Namespace:
    """A namespace, ``mode`` in ndctl's words. ``node``: what came of it in /dev; None: nothing, as no driver has taken it.

    ``labelled``: its label keeps a sector size of its own.
    """

    name: str
    mode: str
    region: Region
    node: str | None
    labelled: bool = False

    @property
    def gives_dax(self) -> bool:
        """Whether a file system can have DAX in its mode."""
        return any(mode.traits.queue_dax for mode in NamespaceMode if mode == self.mode)

    @property
    def fsdax_node(self) -> str:
        """The node that it has in the mode fsdax (drivers/nvdimm/namespace_devs.c nvdimm_namespace_disk_name)."""
        region, _, number = self.name.removeprefix("namespace").partition(".")
        return f"/dev/pmem{region}" + (f".{number}" if number != "0" else "")


class DeviceKind(StrEnum):
    """What a block device is to those below it."""

    WHOLE = "whole device"
    PARTITION = "partition"
    MAPPED = "mapped device"
    LOOP = "loop device"


@dataclass(frozen=True)
class Device:
    """A block device. ``below``: what it stands on. ``queue_dax``: of the whole device that a partition is of.

    ``start``: where a partition begins. Both in sectors of 512 bytes. ``folder``: the mount point of the file that a loop device shows.
    """

    node: str
    kind: DeviceKind
    sectors: int
    queue_dax: bool | Unseen
    start: int = 0
    read_only: bool = False
    namespace: Namespace | None = None
    below: tuple["Device", ...] = ()
    folder: str = ""

    @property
    def bottom(self) -> tuple["Device", ...]:
        """The devices that stand on no other."""
        return tuple(leaf for device in self.below for leaf in device.bottom) or (self,)

    @property
    def chain(self) -> Iterator["Device"]:
        """It and all below it, from the top down."""
        yield self
        for device in self.below:
            yield from device.chain

    @property
    def namespaces(self) -> tuple[Namespace, ...]:
        return tuple(device.namespace for device in self.bottom if device.namespace is not None)


@dataclass(frozen=True)
class FilesystemSeen:
    """A file system. ``folder``: where it is mounted, as asked for; None: nowhere. ``mounts``: all its mount points, the latest last.

    ``features``: words of the superblock, as the file system's own tools print them.
    """

    type: str
    block_bytes: int | Unseen
    features: frozenset[str] | Unseen
    folder: str | None = None
    options: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()


@dataclass(frozen=True)
class FileSeen:
    """A file. ``flags``: the letters of lsattr(1). ``dax``: the attribute of statx(2). ``map_sync``: whether MAP_SYNC is given."""

    path: str
    flags: str | Unseen
    dax: bool | Unseen
    map_sync: bool | Unseen


@dataclass(frozen=True)
class FolderSeen:
    """A folder: what is made in it has its flag."""

    path: str
    flags: str | Unseen


@dataclass(frozen=True)
class Evidence:
    """All that was seen for one place.

    ``asked``: the path, or the device that was found. ``release``: of the kernel, ``page_bytes`` of its pages. ``fs_dax``: whether it is
    built with CONFIG_FS_DAX. ``regions`` and ``namespaces``: all that there are. ``namespace`` and ``region``: those that it is about where
    there is no device. ``file``: the one asked for, or one in the folder asked for. ``said``: what the kernel's log has of DAX.
    """

    asked: str
    release: str
    page_bytes: int
    fs_dax: bool | Unseen
    idle: tuple[Idle, ...] = ()
    regions: tuple[Region, ...] = ()
    namespaces: tuple[Namespace, ...] = ()
    namespace: Namespace | None = None
    region: Region | None = None
    device: Device | None = None
    filesystem: FilesystemSeen | Unseen | None = None
    folder: FolderSeen | None = None
    file: FileSeen | None = None
    said: tuple[str, ...] | Unseen = ()

    @property
    def version(self) -> Version:
        major, minor = (int("".join(filter(str.isdigit, word[:3])) or 0) for word in (self.release + ".0").split(".")[:2])
        return major, minor

    @property
    def about(self) -> tuple[Namespace, ...]:
        """The namespaces that it stands on."""
        if self.device is not None:
            return self.device.namespaces
        return () if self.namespace is None else (self.namespace,)

    @property
    def mounted(self) -> FilesystemSeen | None:
        """The file system, where it is mounted."""
        return self.filesystem if isinstance(self.filesystem, FilesystemSeen) and self.filesystem.folder is not None else None
