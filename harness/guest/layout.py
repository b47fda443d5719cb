"""Which device and which folder of the guest stand for each volume of a stack."""

from dataclasses import dataclass

from harness.guest.pmem import RegionPlacement
from harness.model.stack import StorageStack, Volume


@dataclass(frozen=True)
class PlacedVolume:
    """A volume with its node in the guest, the folder where it is mounted, and where its region is (none: a disk)."""

    volume: Volume
    node: str
    folder: str
    placement: RegionPlacement | None

    @property
    def block(self) -> str:
        return self.node.removeprefix("/dev/")

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
        roots = {v.volume.role: v.root(self.stack.mount_in_program) for v in self.volumes}
        return roots if self.bar is None else {**roots, "bar": self.bar}

    @property
    def devices(self) -> dict[str, str]:
        return {v.volume.role: v.node for v in self.volumes}

    @property
    def mounted(self) -> tuple[PlacedVolume, ...]:
        """The volumes that set-up mounts."""
        return () if self.stack.mount_in_program else tuple(v for v in self.volumes if v.volume.mount is not None)
