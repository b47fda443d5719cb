"""Facts of fallocate: what it can do on which file system, and what it does to pages on its way."""

from harness.model.fact import fact, traits_of

fact(
    "fallocate_supported",
    "whether a file can be allocated, punched and zeroed by fallocate",
    "fallocate(2) ERRORS; fs/open.c vfs_fallocate: EOPNOTSUPP where the file system has no such function, as ext2",
    (True, False),
    lambda k, v: traits_of(v).fallocates,
)
fact(
    "allocation_unmaps",
    "whether plain allocation waits for pins and unmaps the file first, as punching does",
    "fs/xfs/xfs_file.c xfs_file_fallocate: xfs_break_layouts for every mode; fs/ext4/extents.c ext4_fallocate: not for plain allocation",
    (True, False),
    lambda k, v: v.dax and traits_of(v).allocation_unmaps,
)
fact(
    "shifts_ranges",
    "whether a range of a file can be collapsed, and one inserted",
    "fallocate(2) ERRORS; fs/ext4/extents.c ext4_fallocate, fs/xfs/xfs_file.c xfs_file_fallocate take the flags, mm/shmem.c does not",
    (True, False),
    lambda k, v: traits_of(v).shifts_ranges,
)
fact(
    "unshare_supported",
    "whether fallocate takes FALLOC_FL_UNSHARE_RANGE",
    "fs/xfs/xfs_file.c XFS_FALLOC_FL_SUPPORTED has it, also where no file can share blocks; fs/ext4/extents.c ext4_fallocate refuses it",
    (True, False),
    lambda k, v: traits_of(v).unshares,
)
fact(
    "mixed_modes_end_in",
    "what collapsing, inserting or unsharing together with a flag ends in that does not go with it",
    "fs/open.c vfs_fallocate: one mode of FALLOC_FL_MODE_MASK, else EOPNOTSUPP, since 6.12; before, EINVAL as fallocate(2) ERRORS has it",
    ("EINVAL", "EOPNOTSUPP"),
    lambda k, v: "EOPNOTSUPP" if k.since(6, 12) else "EINVAL",
)
fact(
    "refused_shift_unmaps",
    "whether collapsing and inserting wait for pins and unmap a DAX file before they look at the range",
    "fs/xfs/xfs_file.c xfs_file_fallocate: xfs_break_layouts for every mode; fs/ext4/extents.c: ext4_fallocate calls ext4_break_layouts "
    "since 6.14 and in the stable releases of 6.12, ext4_collapse_range and ext4_insert_range before, once the range is right",
    (True, False),
    lambda k, v: v.dax and k.has(traits_of(v).refused_shift_unmaps_since),
)
fact(
    "refused_collapse_evicts",
    "whether collapsing writes back the cached pages of its range and drops them before it looks at the range",
    "fs/xfs/xfs_file.c xfs_file_fallocate: xfs_flush_unmap_range before everything (5.10), no more since 6.12",
    (True, False),
    lambda k, v: (
        not v.dax and traits_of(v).refused_collapse_evicts_until is not None and not k.has(traits_of(v).refused_collapse_evicts_until)
    ),
)
fact(
    "shift_evicts_before",
    "whether collapsing and inserting also take the cached page of the block before their range",
    "fs/xfs/xfs_bmap_util.c xfs_prepare_shift begins one block earlier; fs/ext4/extents.c at the page of the range",
    (True, False),
    lambda k, v: not v.dax and traits_of(v).shift_evicts_before,
)
fact(
    "shift_drops_copies",
    "whether collapsing and inserting take from private mappings the pages that were copied on write, from the range on",
    "fs/ext4/extents.c ext4_collapse_range, ext4_insert_range: truncate_pagecache, which unmaps with even_cows; "
    "fs/xfs/xfs_bmap_util.c xfs_flush_unmap_range: truncate_pagecache_range, without",
    (True, False),
    lambda k, v: traits_of(v).shift_drops_copies,
)
fact(
    "shift_zeroes_tail",
    "whether collapsing and inserting zero what was stored past the end of the file, in its last page",
    "fs/xfs/xfs_file.c xfs_falloc_setsize sets the size as ftruncate does; fs/ext4/extents.c writes it as a number, but without DAX the "
    "page is written back first, which zeroes it",
    (True, False),
    lambda k, v: not v.dax or traits_of(v).shift_zeroes_tail,
)
