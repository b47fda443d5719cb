"""What a machine has to know of a region kind: one record, which each kind makes of its own functions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from harness.errors import MachineError
from harness.machine.options import Memory
from harness.model.kinds import RegionKind
from harness.model.stack import Region

Regions = Sequence[Region]
#: Asks QEMU: a QMP command, and perhaps its arguments, to what it answers. Raises MachineError.
Ask = Callable[..., object]


@dataclass(frozen=True)
class Placement:
    """Where a region lies in the guest's physical memory; compare it with ``/proc/iomem``."""

    name: str
    kind: RegionKind
    start: int
    size_bytes: int

    @property
    def end(self) -> int:
        """The first byte behind the region."""
        return self.start + self.size_bytes


@dataclass(frozen=True)
class Room:
    """What is kept free behind RAM for devices that are memory: slots for DIMMs, and bytes of the guest's address space."""

    slots: int = 0
    size_bytes: int = 0


@dataclass(frozen=True)
class RegionMaker:
    """How a machine gets its regions of one kind. What takes ``Regions`` is given all that the machine has of that kind.

    ``problems``: why a region cannot work, each with its fix. ``in_ram``: the regions are parts of RAM, which is larger by them, and where
    they lie is decided before QEMU starts; ``kernel_words`` tell the kernel. ``files``: the files behind the others, by name, with their
    sizes in bytes. ``options``: the options of QEMU that make them; ``machine_options`` and ``cpu_words`` go into ``-machine`` and
    ``-cpu``, ``room`` into ``-m``. ``placements``: where QEMU put those that are not parts of RAM; raises MachineError.
    ``boots_with_qboot``: the small firmware is enough. ``never_saved``: why a machine with such a region cannot be saved; empty: it can.
    """

    problems: Callable[[Region], list[str]] = lambda region: []
    in_ram: bool = False
    kernel_words: Callable[[Sequence[Placement]], list[str]] = lambda placements: []
    files: Callable[[Regions], Mapping[str, int]] = lambda regions: {}
    options: Callable[[Regions, Memory], list[str]] = lambda regions, memory: []
    machine_options: Mapping[str, str] = field(default_factory=dict)
    cpu_words: tuple[str, ...] = ()
    room: Callable[[Regions], Room] = lambda regions: Room()
    placements: Callable[[Regions, Ask], list[Placement]] = lambda regions, ask: []
    boots_with_qboot: bool = True
    never_saved: str = ""


def listed_placements(regions: Regions, ask: Ask, key: str) -> list[Placement]:
    """Return where regions are that QEMU lists as memory devices, each of which has its start as ``key``. Raises MachineError."""
    devices = ask("query-memory-devices")
    listed = [device["data"] for device in devices] if isinstance(devices, list) else []
    starts = {data.get("id"): int(data[key]) for data in listed if key in data}
    lost = [region.name for region in regions if region.name not in starts]
    if lost:
        kinds = " and ".join(dict.fromkeys(region.kind for region in regions))
        raise MachineError(f"QEMU does not list the {kinds} regions {', '.join(lost)}; it said: {devices}")
    return [Placement(region.name, region.kind, starts[region.name], region.size_bytes) for region in regions]
