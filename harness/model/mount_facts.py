"""Facts of mount: what becomes of its words for DAX, by file system and by how that was made."""

from collections.abc import Callable

from harness.model.fact import Kernel, Value, fact
from harness.model.filesystems import ALWAYS, Filesystem, Version, WithoutDax
from harness.model.stack import VolumeReading


def fact_of_mount(filesystem: Filesystem) -> str:
    """Return the name of the fact that tells whether a device is without DAX for a mount: each file system answers with its own."""
    refuses = filesystem.traits.without_dax is WithoutDax.REFUSED
    return f"{filesystem}_refuses_dax_mount" if refuses else f"{filesystem}_drops_dax"


def fact_of_partition(filesystem: Filesystem) -> str:
    """Return the name of the fact that tells whether DAX is refused on a partition; only file systems that look at that have it."""
    return f"{filesystem}_refuses_partition"


def fact_of_words(filesystem: Filesystem) -> str:
    """Return the name of the fact that tells whether mount knows the words for DAX; only file systems that learned them later have it."""
    return f"{filesystem}_knows_dax"


def _knowing_words(since: Version) -> Callable[[Kernel, VolumeReading], Value]:
    return lambda k, v: k.has(since)


def _refusing_partitions(since: Version) -> Callable[[Kernel, VolumeReading], Value]:
    return lambda k, v: v.gives_dax and v.layer.traits.is_partition and k.has(since)


fact(
    "format_mounts_dax",
    "whether a file system can be mounted with dax=always, as it was made",
    "fs/ext4/super.c ext4_fill_super: blocks of a page, no inline data; fs/xfs/xfs_super.c xfs_setup_dax_always: blocks of a page, and "
    "xfs_fs_fill_super before 6.0: no reflink",
    (True, False),
    lambda k, v: k.has(v.format.traits.mounts_dax_since),
)
fact(
    "format_dax_files",
    "whether files can be in DAX state, as their file system was made and mounted",
    "fs/ext4/inode.c ext4_should_enable_dax: blocks of a page, data not journalled; fs/xfs/xfs_iops.c xfs_inode_supports_dax: blocks of a "
    "page",
    (True, False),
    lambda k, v: v.format.traits.dax_files,
)
for _filesystem in Filesystem:
    _ends = "fails" if _filesystem.traits.without_dax is WithoutDax.REFUSED else "succeeds without DAX"
    fact(
        fact_of_mount(_filesystem),
        f"whether mounting with dax=always {_ends}, where the file system is {_filesystem}",
        _filesystem.traits.without_dax_source,
        (True, False),
        lambda k, v: not v.gives_dax,
    )
    if _filesystem.traits.dax_words_since != ALWAYS:
        fact(
            fact_of_words(_filesystem),
            f"whether mount knows dax=always and dax=never, where the file system is {_filesystem}",
            "fs/erofs/super.c erofs_fs_parameters (since 5.15; shown on 6.1, not on 5.10)",
            (True, False),
            _knowing_words(_filesystem.traits.dax_words_since),
        )
    if _filesystem.traits.refuses_partition_since is not None:
        fact(
            fact_of_partition(_filesystem),
            f"whether mounting with dax=always fails on a partition that could have DAX, where the file system is {_filesystem}",
            "fs/xfs/xfs_super.c xfs_setup_dax_always: file systems made with reflink, which are those of kernels whose xfs takes it "
            "together with DAX (since 6.0)",
            (True, False),
            _refusing_partitions(_filesystem.traits.refuses_partition_since),
        )
