"""Facts of O_DIRECT: what it asks for, and what becomes of what does not fit."""

from harness.model.fact import Kernel, fact, traits_of
from harness.model.filesystems import Version
from harness.model.stack import VolumeReading


def _is_between(kernel: Kernel, bounds: tuple[Version, Version] | None) -> bool:
    return bounds is not None and kernel.has(bounds[0]) and not kernel.has(bounds[1])


def _checks_first(kernel: Kernel, volume: VolumeReading) -> bool:
    return not kernel.has(traits_of(volume).direct_checked_first_until)


fact(
    "dio_offset_alignment",
    "what an O_DIRECT offset and length must be a multiple of, in bytes",
    "fs/iomap/direct-io.c iomap_dio_bio_iter and block/fops.c blkdev_dio_invalid/unaligned: the logical block size; "
    "DAX goes through dax_iomap_rw, which copies with the CPU and checks nothing (6.1, 6.12)",
    (1, 512, 4096),
    lambda k, v: 1 if v.dax else v.logical_block_bytes,
)
fact(
    "dio_memory_alignment",
    "what the address of an O_DIRECT buffer must be a multiple of, in bytes",
    "fs/iomap/direct-io.c with bdev_iter_is_aligned (since 6.0): queue dma_alignment, 511 as blk_set_default_limits has it "
    "and as pmem keeps it; drivers/block/virtio_blk.c keeps it too; fs/erofs/data.c erofs_file_read_iter (before 6.15): the logical block "
    "size; none on DAX",
    (1, 4, 512, 4096),
    lambda k, v: 1 if v.dax else v.logical_block_bytes if _checks_first(k, v) else 512,
)
fact(
    "dio_address_checked",
    "which O_DIRECT transfers are refused for the address of their buffer: all, or not those of one buffer inside of a page",
    "block/blk.h bio_may_need_split: since 6.18 what needs no split is not looked at (commits 7eac33186957, 5ff3f74e145a), until 7.2 "
    "(9b0c3673c885); shown on 6.18, not on 6.17 and 7.2",
    ("all", "several_pages"),
    lambda k, v: "several_pages" if k.since(6, 18) and not k.since(7, 2) and not v.dax else "all",
)
fact(
    "dioalign_of_shared",
    "what statx says that an O_DIRECT offset of a file has to be a multiple of that shares blocks: of a sector, as of any file, or a block",
    "fs/xfs/xfs_iops.c xfs_report_dioalign: blocks since 6.14 (commits 468210ec76e1, 7422bbd03021); shown on 7.3, not on 6.12",
    ("sector", "block"),
    lambda k, v: "block" if k.since(6, 14) else "sector",
)
fact(
    "direct_io_offered",
    "whether a file can be opened with O_DIRECT",
    "open(2) ERRORS; fs/open.c do_dentry_open; fs/erofs/data.c erofs_aops has ->direct_IO since 5.15 (shown on 6.1, not on 5.10)",
    (True, False),
    lambda k, v: k.has(traits_of(v).direct_io_since),
)
fact(
    "direct_read_checked_first",
    "whether a read with O_DIRECT asks for alignment before it looks where the file ends",
    "fs/erofs/data.c erofs_file_read_iter (6.12, not 6.17); the others leave both to fs/iomap/direct-io.c __iomap_dio_rw",
    (True, False),
    lambda k, v: not v.dax and _checks_first(k, v),
)
fact(
    "direct_write_into_hole",
    "whether an O_DIRECT write that starts in a hole of the file goes to the device or through the page cache, which asks for no alignment",
    "fs/ext2/inode.c ext2_iomap_begin is ENOTBLK there, and fs/ext2/file.c ext2_dio_write_iter goes on with generic_perform_write",
    ("device", "page_cache"),
    lambda k, v: "device" if v.dax or traits_of(v).fills_holes_directly else "page_cache",
)
fact(
    "misaligned_direct_write",
    "what becomes of an O_DIRECT write of a file that is not aligned, or of a buffer without struct pages: it is refused, or goes through "
    "the page cache",
    "open(2) NOTES has both; fs/ext4/inode.c ext4_iomap_end answers ENOTBLK where nothing was written, and fs/iomap/iter.c iomap_iter "
    "handed that on in place of the error from commit bc264fea0f6f (6.15) on, until it looked at the status first; "
    "shown on 6.16, not on 6.12 and 6.17",
    ("refused", "page_cache"),
    lambda k, v: "page_cache" if not v.dax and _is_between(k, traits_of(v).writes_misaligned_cached) else "refused",
)
fact(
    "direct_io",
    "whether O_DIRECT of a file goes past the page cache, or through it, which asks for no alignment",
    "fs/ext4/inode.c ext4_dio_alignment, fs/ext4/file.c ext4_should_use_dio (ext4_dio_supported before 6.1): not where data is journalled",
    (True, False),
    lambda k, v: v.format.traits.direct_io,
)
fact(
    "direct_io_splice",
    "what splice from an O_DIRECT descriptor fills a pipe with, where that goes through the page cache: copies or aliases of cached pages",
    "fs/splice.c vfs_splice_read takes copy_splice_read for O_DIRECT (since 6.5, 6.12); generic_file_splice_read went through ->read_iter, "
    "which read the page cache into the pipe as pages; shown on 5.10, 6.1 and 6.12",
    ("copy", "alias"),
    lambda k, v: "copy" if v.dax or k.since(6, 5) else "alias",
)
fact(
    "dioalign_reported",
    "whether statx fills STATX_DIOALIGN in",
    "statx(2): since 6.1, for ext4, xfs and block devices alike (block/bdev.c bdev_statx_dioalign, later bdev_statx); not for a dax "
    "device, and not in fs/ext2/inode.c ext2_getattr",
    (True, False),
    lambda k, v: k.has(traits_of(v).dioalign_since) and not v.is_dax_device,
)
fact(
    "direct_append_looks_at_offset",
    "whether an O_DIRECT write through a descriptor with O_APPEND is refused for the offset that it asks for",
    "fs/xfs/xfs_file.c xfs_file_dio_write; fs/ext4/file.c ext4_dio_write_checks comes after ext4_write_checks",
    (True, False),
    lambda k, v: not v.dax and traits_of(v).direct_append_looks_at_offset,
)
