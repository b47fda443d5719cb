"""How the guest comes by regions of kinds whose drivers the initrd does not load."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from harness.guest.link import GuestCommand
from harness.model.kinds import RegionKind


@dataclass(frozen=True)
class Bringing:
    """What has the regions of a kind come: ``drivers``, in the order of loading, and what then makes regions of the memory (a script)."""

    drivers: tuple[str, ...]
    making: str = ""


BRINGING: Mapping[RegionKind, Bringing] = {
    RegionKind.VIRTIO_PMEM: Bringing(("virtio_pmem",)),
    RegionKind.CXL: Bringing(
        ("cxl_acpi", "cxl_pci", "cxl_mem", "cxl_pmem", "cxl_port"),
        "for mem in $(cd /sys/bus/cxl/devices && ls -d mem*); do cxl create-region -t pmem -m -d decoder0.0 -w 1 $mem || exit; done",
    ),
    # The driver of e820 regions has them already, and no other driver takes them unasked. They are all one device.
    RegionKind.RAMDAX: Bringing(
        ("ramdax",),
        "cd /sys/bus/platform && test -e drivers/ramdax/e820_pmem || { echo ramdax > devices/e820_pmem/driver_override"
        " && echo e820_pmem > drivers/e820_pmem/unbind && echo e820_pmem > drivers/ramdax/bind; }",
    ),
}
#: What waits until everything on the buses of regions has met its driver.
_SETTLED = "cat /sys/bus/nd/devices/ndbus*/wait_probe"


def bringing_commands(kinds: Iterable[RegionKind]) -> tuple[GuestCommand, ...]:
    """Return what has regions of these kinds come. What is built in needs no module: a region that is missing then is told as such."""
    wanted = [BRINGING[kind] for kind in dict.fromkeys(kinds) if kind in BRINGING]
    if not wanted:
        return ()
    drivers = (driver for one in wanted for driver in one.drivers)
    return (
        GuestCommand(("modprobe", "-a", *drivers), may_fail=True),
        *(GuestCommand(("sh", "-c", one.making)) for one in wanted if one.making),
        GuestCommand(("sh", "-c", _SETTLED), may_fail=True),
    )
