"""A case: what its file says, checked but not yet bound to a variant."""

from dataclasses import dataclass

from harness.case.axes import Axes, Condition
from harness.case.tree import Table, Word
from harness.model.filesystems import ALWAYS, Version

#: The kernel flavours that a case can need; the default needs none.
KERNEL_FLAVOURS = ("full",)


#: The kernel options that a case can need beyond those of every guest (``options:`` in images/kernels.yaml), with what they are for.
KERNEL_OPTIONS = {
    "CONFIG_EXT2_FS": "ext2 by its own driver",
    "CONFIG_EROFS_FS": "erofs",
    "CONFIG_BLK_DEV_DM": "the device mapper",
    "CONFIG_BLK_DEV_LOOP": "loop devices",
    "CONFIG_XDP_SOCKETS": "AF_XDP sockets",
    "CONFIG_RDMA_RXE": "soft-RoCE, the RDMA device of a guest",
    "CONFIG_INFINIBAND_USER_ACCESS": "RDMA verbs for programs",
    "CONFIG_CXL_PMEM": "persistent memory behind CXL",
    "CONFIG_CXL_REGION": "regions of CXL memory",
    "CONFIG_RAMDAX": "memmap= regions with labels",
}

#: The options without which an operation, by the beginning of its name, is not there at all: what it then says is no word about pmem.
OPTIONS_OF_OPERATIONS = {
    "xdp_": ("CONFIG_XDP_SOCKETS",),
    "rdma_": ("CONFIG_RDMA_RXE", "CONFIG_INFINIBAND_USER_ACCESS"),
}


@dataclass(frozen=True)
class Needs:
    """What a case cannot do without: a kernel flavour other than the default, a PCI device with memory without struct pages, options.

    ``kernel_options``: names with ``CONFIG_``; on a kernel that lacks one the case is unavailable, as it is on one before ``since``.
    """

    kernel_flavour: str | None = None
    ivshmem: bool = False
    kernel_options: tuple[str, ...] = ()
    since: Version = ALWAYS


@dataclass(frozen=True)
class DecidesText:
    """An entry of ``decides`` as written: for the variants of ``condition`` the step decides the claim."""

    claim: str
    condition: Condition
    step: str
    holds_if: Table
    where: str


@dataclass(frozen=True)
class WatchText:
    """An entry of ``watch`` as written, its steps by their ids."""

    path: Word
    moves: Word
    read: Word


@dataclass(frozen=True)
class Case:
    """A case file. ``steps`` still has its ``$parameters``; a plan is a case bound to one variant.

    ``probes``: the facts of the model that it measures on the stacks that it runs on. ``watch``: the ways of bytes of which it shows what
    they make of them. ``full``: the variants that only a full run has.
    """

    path: str
    family: str
    name: str
    title: str
    claims: tuple[str, ...]
    decides: tuple[DecidesText, ...]
    probes: tuple[str, ...]
    watch: tuple[WatchText, ...]
    axes: Axes
    full: Condition | None
    needs: Needs
    mount_in_program: bool
    steps: tuple[Table, ...]
    notes: str


@dataclass(frozen=True)
class Family:
    """The cases of one folder. ``does_not_apply`` says of storages and regions without cases why there are none."""

    name: str
    title: str
    does_not_apply: tuple[tuple[Condition, str], ...]
