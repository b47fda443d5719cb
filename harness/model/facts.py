"""Facts: every difference between kernels, file systems and modes, in one table.

A rule asks ``env.fact(name, volume)``; nothing else in the model looks at a kernel's version. Each fact has a meaning, a source and the
values it can take. Cases say which facts they probe: what a guest showed there is possible with one value only.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from harness.model import allocation_facts, direct_facts, mount_facts, pin_facts
from harness.model.fact import FACTS, Value, fact, kernel_of, traits_of
from harness.model.filesystems import FILESYSTEM_TRAITS, FilesystemTraits
from harness.model.kinds import is_synchronous
from harness.model.stack import StackReading
from harness.model.value import evolve

#: Importing them enters their facts.
FAMILIES = (allocation_facts, direct_facts, mount_facts, pin_facts)
__all__ = ["FACTS", "Env"]


def _largest(traits: FilesystemTraits, block_bytes: int) -> int:
    return traits.max_file_bytes if traits.max_file_blocks is None else traits.max_file_blocks * block_bytes


@dataclass(frozen=True)
class Env:
    """The stack as it is, and through it every fact.

    ``overrides`` replace the values of facts, for files in the DAX state that their volume has from its mount (tests flip them so, and
    measuring tries them). ``measured`` replaces them by fact and storage: a kernel's own table, where it is not as its version says.
    """

    reading: StackReading
    overrides: Mapping[str, Value] = field(default_factory=lambda: MappingProxyType({}))
    asked: set[str] = field(default_factory=set, compare=False)
    measured: Mapping[tuple[str, str], Value] = field(default_factory=lambda: MappingProxyType({}))

    def fact(self, name: str, volume: str, dax: bool | None = None, filesystem: str | None = None) -> Value:
        """Return the value of fact ``name`` on ``volume`` (a role). ``dax`` overrides the state of a single file, ``filesystem`` what
        set-up mounted there where that is nothing."""
        entry = FACTS[name]
        self.asked.add(name)
        reading = self.reading.volume(volume)
        if filesystem is not None and reading.filesystem is None:
            reading = evolve(reading, filesystem=filesystem)
        if dax is not None and dax != reading.dax:
            reading = evolve(reading, dax=dax)
        elif name in self.overrides:
            return self.overrides[name]
        if self.measured and (name, reading.storage) in self.measured:
            return self.measured[name, reading.storage]
        return entry.value(kernel_of(self.reading.kernel_release), reading)

    def number(self, name: str, volume: str, dax: bool | None = None) -> int:
        value = self.fact(name, volume, dax)
        return value if isinstance(value, int) else int(value)

    @property
    def page(self) -> int:
        return self.reading.page_bytes


fact(
    "splice_to_pipe",
    "whether splicing from a buffered file fills a pipe with copies or with aliases of cached pages",
    "fs/splice.c: filemap_splice_read puts page-cache pages into the pipe; copy_splice_read is taken for DAX since 6.5, "
    "generic_file_splice_read through ->read_iter (dax_iomap_rw copies) before (6.1)",
    ("copy", "alias"),
    lambda k, v: "copy" if v.dax else "alias",
)
fact(
    "sendfile_to_pipe",
    "what sendfile from a buffered file fills a pipe with: copies or aliases of cached pages as splice does, or what it wrote into it",
    "fs/read_write.c do_sendfile: splice_file_to_pipe (since 5.12); before, do_splice_direct through a pipe of the kernel's own, and "
    "fs/splice.c default_file_splice_write writes its pages into the target (5.10)",
    ("written", "copy", "alias"),
    lambda k, v: "written" if not k.since(5, 12) else "copy" if v.dax else "alias",
)
fact(
    "packed_end_dax",
    "whether a file can be in DAX state whose end is kept beside its inode",
    "fs/erofs/inode.c erofs_read_inode: S_DAX for the layouts FLAT_PLAIN and CHUNK_BASED only (since 5.15)",
    (False, True),
    lambda k, v: False,
)
fact(
    "fsync_supported",
    "whether a file can be synced",
    "fs/sync.c vfs_fsync_range: EINVAL where the file system has no such function, as erofs",
    (True, False),
    lambda k, v: traits_of(v).syncs,
)
fact(
    "file_attributes",
    "whether a file has attributes, such as FS_XFLAG_DAX",
    "ioctl_xfs_fsgetxattr(2); fs/ioctl.c ioctl_fsgetxattr: ENOTTY where the file system has no ->fileattr_get, as erofs",
    (True, False),
    lambda k, v: traits_of(v).file_attributes,
)
fact(
    "dax_flag_kept",
    "whether FS_XFLAG_DAX is kept where it was set",
    "ioctl_xfs_fsgetxattr(2); fs/ext2/ioctl.c ext2_fileattr_set keeps what is in EXT2_FL_USER_MODIFIABLE",
    (True, False),
    lambda k, v: traits_of(v).dax_per_file,
)
fact(
    "map_sync",
    "whether mmap accepts MAP_SYNC",
    "mmap(2); fs/ext4/file.c ext4_file_mmap, include/linux/dax.h daxdev_mapping_supported: DAX inode on a synchronous dax device; "
    "drivers/dax/device.c: FOP_MMAP_SYNC (mmap_supported_flags up to 6.9), and no such question",
    (True, False),
    lambda k, v: v.is_dax_device or (v.dax and traits_of(v).synchronous_dax and is_synchronous(v.provider)),
)
fact(
    "mapping_frames",
    "where the physical frames of a shared mapping with data are: in the pmem region or in RAM",
    "fs/dax.c dax_insert_entry/vmf_insert_mixed maps the device's page; mm/filemap.c filemap_fault maps a page-cache folio",
    ("region", "ram"),
    lambda k, v: "region" if v.dax else "ram",
)
fact(
    "hole_page",
    "what a read fault on a hole maps: the shared zero page or a page-cache page",
    "fs/dax.c dax_load_hole (since 4.15); mm/filemap.c filemap_fault",
    ("zero_page", "page_cache"),
    lambda k, v: "zero_page" if v.dax else "page_cache",
)
fact(
    "truncate_waits_for_pins",
    "whether truncate and punch wait until no page of the file is referenced by anyone else",
    "fs/ext4/inode.c ext4_break_layouts, fs/xfs/xfs_file.c xfs_break_dax_layouts (since 4.17/4.18)",
    (True, False),
    lambda k, v: v.dax,
)
fact(
    "truncate_unmaps",
    "whether truncating a file first unmaps all of it, however little goes",
    "fs/dax.c dax_layout_busy_page (up to 6.12); fs/ext2/inode.c ext2_setsize does without",
    (True, False),
    lambda k, v: v.dax and traits_of(v).breaks_layouts,
)
fact(
    "huge_dax_faults",
    "whether a fault can map 2 MiB of a DAX file at once",
    "fs/ext4/file.c ext4_dax_huge_fault, fs/xfs/xfs_file.c xfs_filemap_huge_fault; fs/ext2/file.c ext2_dax_vm_ops has no huge_fault",
    (True, False),
    lambda k, v: v.dax and traits_of(v).huge_dax_faults,
)
fact(
    "large_folios",
    "whether the page cache of a file keeps several pages as one, so that punching one of them zeroes it in place",
    "mm/truncate.c truncate_inode_partial_folio; mapping_set_large_folios in fs/xfs/xfs_icache.c (since 5.18) and "
    "fs/ext4/inode.c (since 6.16)",
    (True, False),
    lambda k, v: not v.dax and k.has(traits_of(v).large_folios_since),
)
fact(
    "fault_maps",
    "what a fault of the page cache may map beside its page: what lies around it, or also the whole folio of each such page",
    "mm/filemap.c filemap_map_pages, mm/memory.c finish_fault: the whole folio since 6.18 (commits 357b92761d94, 19773df031bc); "
    "shown on 7.2",
    ("around", "folio"),
    lambda k, v: "folio" if k.since(6, 18) and not v.dax and k.has(traits_of(v).large_folios_since) else "around",
)
fact(
    "tail_zeroed_on_extension",
    "whether bytes stored past the end of the file, in its last page, are zeroed when the file grows over them",
    "fs/xfs/xfs_iops.c xfs_setattr_size zeroes from the old size on; ext4 does since 6.12: shown by a probe on 6.12, not on 6.1; "
    "fs/ext2/inode.c ext2_setsize does not (6.12)",
    (True, False),
    lambda k, v: k.has(traits_of(v).tail_zeroed_since),
)
fact(
    "mincore_tells",
    "what mincore looks at for a page that this mapping has not touched: this page table, or the page cache",
    "mm/mincore.c mincore_pte_range/__mincore_unmapped_range: the page cache where there is a mapping; a DAX mapping has no folios "
    "there, only value entries, which filemap_get_incore_folio does not count",
    ("page_table", "page_cache"),
    lambda k, v: "page_table" if v.dax else "page_cache",
)
fact(
    "advice_looks_at_offset",
    "whether posix_fadvise and readahead refuse an offset before 0",
    "mm/fadvise.c generic_fadvise looks at the length only (5.10, 6.12, 6.18: shown); at both, shown on 7.2 and 7.3",
    (True, False),
    lambda k, v: k.since(7, 2),
)
fact(
    "populate_advice",
    "whether madvise knows POPULATE_READ and POPULATE_WRITE",
    "madvise(2): since 5.14",
    (True, False),
    lambda k, v: k.since(5, 14),
)
fact(
    "refuses_closed_node",
    "whether a shared mapping of the node of a read-only device is refused through a descriptor that could write",
    "block/fops.c blkdev_mmap (6.5, and the stable releases of 6.1); fs/block_dev.c of 5.10 maps it as any other",
    (True, False),
    lambda k, v: k.since(6, 1),
)
fact(
    "mlock_counts",
    "whether mlock marks the mapping locked (VmFlags lo, VmLck grows)",
    "mm/mlock.c mlock_fixup: vma_is_dax areas are left as they are, only populated",
    (True, False),
    lambda k, v: not v.dax,
)


fact(
    "futex_on_readonly_hole",
    "what FUTEX_WAIT on a read-only shared mapping of a hole ends in",
    "kernel/futex/core.c get_futex_key: the zero page has no mapping, so EFAULT on DAX; a page-cache page has one",
    ("EFAULT", "works"),
    lambda k, v: "EFAULT" if v.dax else "works",
)
fact(
    "max_file_bytes",
    "the largest size and offset of a file, in bytes",
    "fs/ext4/super.c ext4_max_size: 2^32 - 1 blocks; fs/xfs/xfs_super.c and mm/shmem.c: MAX_LFS_FILESIZE; "
    "fs/ext2/super.c ext2_max_size: with all that points to its blocks less than 2^32 sectors",
    tuple(sorted({_largest(traits, bytes_) for traits in FILESYSTEM_TRAITS.values() for bytes_ in (1024, 4096)})),
    lambda k, v: _largest(traits_of(v), v.format.traits.block_bytes),
)
fact(
    "dontcache_supported",
    "whether a file knows RWF_DONTCACHE",
    "include/linux/fs.h kiocb_set_rw_flags (since 6.14); FOP_DONTCACHE of ext4 since 6.17, of a node since 7.3: shown there and not on the "
    "release before; never on DAX",
    (True, False),
    lambda k, v: not v.dax and k.has(traits_of(v).dontcache_since),
)
fact(
    "copy_shares_blocks",
    "whether copy_file_range first tries to share blocks, which needs whole blocks and, on DAX, pages that nobody holds",
    "fs/read_write.c vfs_copy_file_range; fs/xfs/xfs_file.c xfs_file_remap_range, xfs_reflink_remap_prep: file systems made with reflink, "
    "which usually are those of kernels whose xfs takes it together with DAX (fs/xfs/xfs_super.c xfs_fs_fill_super: since 6.0)",
    (True, False),
    lambda k, v: k.has(traits_of(v).shares_blocks_since) if v.format.traits.shares_blocks is None else v.format.traits.shares_blocks,
)
fact(
    "asks_for_blocks",
    "whether FIDEDUPERANGE is asked of a file's blocks, which may still be none to share, or refused for all files of the kind",
    "fs/remap_range.c vfs_dedupe_file_range: EOPNOTSUPP where the file system has no ->remap_file_range, as all but xfs",
    (True, False),
    lambda k, v: traits_of(v).shares_blocks_since is not None,
)
fact(
    "holes_are_zeroes",
    "whether FIDEDUPERANGE takes a hole for the same as zeroes that were written",
    "fs/remap_range.c vfs_dedupe_file_range_compare reads both into the page cache; fs/dax.c dax_range_compare_iter looks for holes first",
    (True, False),
    lambda k, v: not v.dax,
)
fact(
    "dax_shares_blocks",
    "whether files in DAX state share blocks, where others of their file system do",
    "fs/xfs/xfs_reflink.c xfs_reflink_remap_prep: EINVAL for any DAX file before 6.0, since then where one of two is",
    (True, False),
    lambda k, v: k.since(6, 0),
)
fact(
    "shared_can_be_dax",
    "whether FS_XFLAG_DAX can be set on a file that shares blocks, and such a file be in DAX state when it is opened again",
    "fs/xfs/xfs_iops.c xfs_inode_supports_dax, fs/xfs/xfs_ioctl.c xfs_ioctl_setattr_xflags: not before 6.2 (commit 480017957d63)",
    (True, False),
    lambda k, v: k.since(6, 2),
)
fact(
    "splice_moves",
    "whether splice and its like move all that can move, or stop at the first page",
    "mm/filemap.c filemap_splice_read, fs/splice.c copy_splice_read, iter_file_splice_write, splice_pipe_to_pipe, link_pipe, iter_to_pipe "
    "(6.12), generic_file_splice_read (6.1): each goes on until the length, the slots or the source end; shown on 6.1 and 6.12",
    ("all", "page"),
    lambda k, v: "all",
)
fact(
    "hole_into_bad_buffer",
    "what a read of a hole into memory that the process may not write ends in",
    "fs/dax.c dax_iomap_iter returns what iov_iter_zero moved, 0, and that ends the call as the end of a file does; "
    "mm/filemap.c filemap_read",
    ("EFAULT", "0"),
    lambda k, v: "0" if v.dax else "EFAULT",
)
fact(
    "dax_write_tail",
    "how a write into DAX ends before a byte of the buffer that cannot be read: at that byte, or up to three bytes before it",
    "arch/x86/lib/copy_user_uncached_64.S copy_to_nontemporal (since 6.4) stores words of four bytes and gives up at the first that it "
    "cannot load; before, arch/x86/lib/copy_user_64.S went on byte by byte",
    ("byte", "word"),
    lambda k, v: "word" if v.dax and k.since(6, 4) else "byte",
)
fact(
    "short_write_at",
    "where a write into the page cache ends before a byte of the buffer that cannot be read: at that byte, or at the begin of the page of "
    "the file that it would have gone to",
    "mm/filemap.c generic_perform_write, fs/iomap/buffered-io.c: fault_in_iov_iter_readable says how much cannot be read (since 5.16); "
    "iov_iter_fault_in_readable refused the part of a page as a whole (5.10)",
    ("byte", "page"),
    lambda k, v: "byte" if v.dax or k.since(5, 16) else "page",
)
fact(
    "buffered_nowait_write",
    "whether a file takes writes with RWF_NOWAIT without O_DIRECT",
    "fs/xfs/xfs_file.c and block/fops.c: FOP_BUFFER_WASYNC (FMODE_BUF_WASYNC since 6.0); not fs/ext4/file.c",
    (True, False),
    lambda k, v: k.has(traits_of(v).buffered_nowait_write_since),
)
fact(
    "map_sync_asked",
    "whether a file system looks at MAP_SYNC of mappings that are not MAP_SHARED_VALIDATE",
    "fs/ext4/file.c ext4_file_mmap and fs/xfs/xfs_file.c xfs_file_mmap call daxdev_mapping_supported; mm/shmem.c does not",
    (True, False),
    lambda k, v: traits_of(v).looks_at_map_sync,
)
