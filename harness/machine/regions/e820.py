"""e820 regions: parts of the machine's RAM that the kernel is told to leave alone (``memmap=size!start``)."""

from collections.abc import Sequence

from harness.machine.regions.maker import Placement, RegionMaker
from harness.sizes import MIB


def memmap_argument(placement: Placement) -> str:
    """Return the ``memmap=`` argument that makes this range of RAM an e820 pmem region."""
    return f"memmap={placement.size_bytes // MIB}M!{placement.start // MIB}M"


def _kernel_words(placements: Sequence[Placement]) -> list[str]:
    return [memmap_argument(placement) for placement in placements]


MAKER = RegionMaker(in_ram=True, kernel_words=_kernel_words)
