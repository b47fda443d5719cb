"""Layers: block devices that stand between a namespace and its file system. One record for each says what there is to know of it.

How the guest makes one, and finds it again, is an entry of ``harness/guest/layers.py``.
"""

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True)
class LayerTraits:
    """What is so of every volume with a layer on a namespace.

    ``queue_dax``: its queue says that it can be accessed directly, where the namespace's does. ``gives_dax``: a file system can then
    have DAX on it, with all that the namespace gives, MAP_SYNC among it. ``is_partition``: it has no queue of its own, but that of the
    whole device. ``takes_disk``: a virtio disk is part of it. ``driver_option``: what a kernel is built with that can make it.
    """

    queue_dax: bool = True
    gives_dax: bool = True
    is_partition: bool = False
    takes_disk: bool = False
    driver_option: str | None = None


class Layer(StrEnum):
    """What stands between a namespace and its file system: nothing, the first partition of a table, from a page's boundary on or not, a
    linear mapping by the device mapper of the namespace, or of namespace and virtio disk one behind the other, a loop device over a
    file on ext4 with DAX."""

    NONE = "none"
    PARTITION = "partition"
    PARTITION_UNALIGNED = "partition_unaligned"
    DM_LINEAR = "dm_linear"
    DM_MIXED = "dm_mixed"
    LOOP = "loop"

    @property
    def traits(self) -> LayerTraits:
        return _LAYERS[self]


_LAYERS = {
    Layer.NONE: LayerTraits(),
    Layer.PARTITION: LayerTraits(is_partition=True),
    # drivers/dax/super.c fs_dax_get_by_bdev: begin and size in whole pages (bdev_dax_pgoff on 5.10).
    Layer.PARTITION_UNALIGNED: LayerTraits(is_partition=True, gives_dax=False),
    # drivers/md/dm-table.c dm_table_supports_dax: where all its devices do.
    Layer.DM_LINEAR: LayerTraits(driver_option="CONFIG_BLK_DEV_DM"),
    Layer.DM_MIXED: LayerTraits(queue_dax=False, gives_dax=False, takes_disk=True, driver_option="CONFIG_BLK_DEV_DM"),
    # drivers/block/loop.c has no dax device.
    Layer.LOOP: LayerTraits(queue_dax=False, gives_dax=False, driver_option="CONFIG_BLK_DEV_LOOP"),
}
