"""The kinds of regions and namespaces, and the words of the DAX option. Each kind is one record: whoever needs to know something of a
kind asks its record, and nobody compares names.

How a machine gets a region of a kind is a file of ``harness/machine/regions/``. File systems are in ``filesystems.py``.
"""

import itertools
from collections.abc import Set
from dataclasses import dataclass, replace
from enum import StrEnum

from harness.sizes import parse_size


class DaxOption(StrEnum):
    """The values of the ``dax=`` mount option."""

    ALWAYS = "always"
    NEVER = "never"
    INODE = "inode"


class PageMap(StrEnum):
    """Where the struct pages of a namespace are kept that has them: in RAM or on the device (``ndctl --map``)."""

    MEM = "mem"
    DEV = "dev"


class Alignment(StrEnum):
    """The units in which a dax device is mapped (``ndctl --align``)."""

    PAGE = "4KiB"
    HUGE = "2MiB"

    @property
    def bytes(self) -> int:
        return parse_size(self)


@dataclass(frozen=True)
class ModeTraits:
    """What is so of every namespace in a mode.

    ``has_page_map``: it has struct pages, which are kept somewhere. ``queue_dax``: its block device says in ``queue/dax`` that it can
    be accessed directly. ``sets_sector_size``: it brings a sector size of its own, which the label then keeps. ``dax_device``: what
    comes of it is no block device but a character device that can only be mapped.
    """

    has_page_map: bool = False
    queue_dax: bool = False
    sets_sector_size: bool = False
    dax_device: bool = False


class NamespaceMode(StrEnum):
    """The modes of a namespace, as ndctl has them."""

    RAW = "raw"
    SECTOR = "sector"
    FSDAX = "fsdax"
    DEVDAX = "devdax"

    @property
    def traits(self) -> ModeTraits:
        return _MODES[self]


_MODES = {
    NamespaceMode.RAW: ModeTraits(),
    NamespaceMode.SECTOR: ModeTraits(sets_sector_size=True),
    NamespaceMode.FSDAX: ModeTraits(has_page_map=True, queue_dax=True),
    NamespaceMode.DEVDAX: ModeTraits(has_page_map=True, dax_device=True),
}


@dataclass(frozen=True)
class RegionTraits:
    """What is so of every region of a kind.

    ``provider``: what the kernel calls the bus that it found the region on. ``has_labels``: there is an area that says which namespaces
    it has; without one it is a single namespace. ``labels_inside``: that area is the last bytes of the region, and not beside it.
    ``driver_options``: what a kernel is built with that has the drivers, where not every guest's has. ``namespaces``: the modes and page
    maps in which cases can have it (the page map of a mode that has none means nothing). ``synchronous``: what a flush of the processor's
    caches has written is durable, so that the dax device takes MAP_SYNC; no host has to be asked. ``read_only``: the kernel makes it so.
    ``persistence_domain``: what the kernel is told to survive a power failure, in sysfs's words.
    """

    provider: str
    has_labels: bool
    namespaces: Set[tuple[NamespaceMode, PageMap]]
    labels_inside: bool = False
    driver_options: tuple[str, ...] = ()
    synchronous: bool = True
    read_only: bool = False
    persistence_domain: str | None = None


class RegionKind(StrEnum):
    """What provides a physical pmem range."""

    E820 = "e820"
    NVDIMM = "nvdimm"
    NVDIMM_UNLABELLED = "nvdimm_unlabelled"
    NVDIMM_UNARMED = "nvdimm_unarmed"
    NVDIMM_MEM_CTRL = "nvdimm_mem_ctrl"
    NVDIMM_CPU = "nvdimm_cpu"
    VIRTIO_PMEM = "virtio_pmem"
    CXL = "cxl"
    RAMDAX = "ramdax"

    @property
    def traits(self) -> RegionTraits:
        return _REGIONS[self]


_NVDIMM = RegionTraits(
    provider="ACPI.NFIT",  # drivers/acpi/nfit/core.c
    has_labels=True,
    namespaces=frozenset(itertools.product(NamespaceMode, PageMap)),
)
_REGIONS = {
    RegionKind.E820: RegionTraits(
        provider="e820",  # drivers/nvdimm/e820.c
        has_labels=False,
        # As the kernel makes it, and what ndctl makes of it without a label: that stands in its first bytes.
        namespaces=frozenset({(NamespaceMode.FSDAX, PageMap.MEM), *itertools.product([NamespaceMode.DEVDAX], PageMap)}),
    ),
    RegionKind.NVDIMM: _NVDIMM,
    RegionKind.NVDIMM_UNLABELLED: replace(_NVDIMM, has_labels=False),
    # A dax device is filled through a mapping, and the kernel does not say of one that it is read-only.
    RegionKind.NVDIMM_UNARMED: replace(
        _NVDIMM,
        read_only=True,
        namespaces=frozenset(itertools.product((mode for mode in NamespaceMode if not mode.traits.dax_device), PageMap)),
    ),
    RegionKind.NVDIMM_MEM_CTRL: replace(_NVDIMM, persistence_domain="memory_controller"),
    RegionKind.NVDIMM_CPU: replace(_NVDIMM, persistence_domain="cpu_cache"),
    RegionKind.VIRTIO_PMEM: RegionTraits(
        provider="virtio-pmem",  # drivers/nvdimm/virtio_pmem.c
        has_labels=False,
        namespaces=frozenset({(NamespaceMode.FSDAX, PageMap.MEM)}),  # as the kernel makes it
        synchronous=False,  # the host is asked to write: virtio_pmem.c async_pmem_flush
    ),
    RegionKind.CXL: RegionTraits(
        provider="CXL",  # drivers/cxl/pmem.c
        has_labels=True,
        namespaces=frozenset({(NamespaceMode.FSDAX, PageMap.MEM)}),
        persistence_domain="memory_controller",  # drivers/cxl/pmem.c cxl_pmem_region_probe
        driver_options=("CONFIG_CXL_PMEM", "CONFIG_CXL_REGION"),
    ),
    # An e820 region under another driver (since 6.19), which gives it labels.
    RegionKind.RAMDAX: replace(
        _NVDIMM,
        provider="ramdax",  # drivers/nvdimm/ramdax.c
        labels_inside=True,
        driver_options=("CONFIG_RAMDAX",),
    ),
}


def is_synchronous(provider: str | None) -> bool:
    """Whether the regions on such a bus are synchronous; what no kind has, a disk among it, is not known to be otherwise."""
    return all(kind.traits.synchronous for kind in RegionKind if kind.traits.provider == provider)


def is_dax_device(mode: str | None) -> bool:
    """Whether a namespace in this mode is a dax device; None: there is no namespace."""
    return any(known.traits.dax_device for known in NamespaceMode if known == mode)
