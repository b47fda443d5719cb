"""A complaint of the kernel is known when it is seen, and where it came from; other lines are none."""

import re
from collections.abc import Iterator

import pytest

from harness.model.complaint import PATTERNS, Patterns, ReportKind, find_report, fingerprint, without_stamp

T = "[   12.345678] "
COMPLAINTS = [
    (ReportKind.PANIC, "Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)"),
    (ReportKind.OOPS, "BUG: kernel NULL pointer dereference, address: 0000000000000008"),
    (ReportKind.OOPS, "BUG: unable to handle page fault for address: ffffc90000a00000"),
    (ReportKind.OOPS, "Oops: 0000 [#1] PREEMPT SMP NOPTI"),
    (ReportKind.OOPS, "Oops: Oops: 0002 [#1] SMP"),
    (ReportKind.OOPS, "invalid opcode: 0000 [#1] PREEMPT SMP"),
    (ReportKind.BUG, "kernel BUG at fs/dax.c:1234!"),
    (ReportKind.BUG, "BUG: Bad page state in process dd  pfn:12345"),
    (ReportKind.BUG, "BUG: sleeping function called from invalid context at mm/slab.h:494"),
    (ReportKind.BUG, "BUG: KASAN: use-after-free in dax_unlock_entry+0x1/0x2"),
    (ReportKind.WARNING, "WARNING: CPU: 0 PID: 312 at fs/dax.c:380 dax_insert_entry+0x2b8/0x310"),
    (ReportKind.WARNING, "WARNING: fs/dax.c:380 at dax_insert_entry+0x2b8/0x310, CPU#0: dd/312"),
    (ReportKind.HUNG_TASK, "INFO: task dd:312 blocked for more than 60 seconds."),
    (ReportKind.SOFT_LOCKUP, "watchdog: BUG: soft lockup - CPU#0 stuck for 67s! [dd:312]"),
    (ReportKind.HARD_LOCKUP, "watchdog: Watchdog detected hard LOCKUP on cpu 0"),
    (ReportKind.RCU_STALL, "rcu: INFO: rcu_preempt self-detected stall on CPU"),
    (ReportKind.RCU_STALL, "rcu: INFO: rcu_sched detected stalls on CPUs/tasks:"),
    (ReportKind.RCU_STALL, "rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 0-... }"),
    (ReportKind.LOCKDEP, "WARNING: possible circular locking dependency detected"),
    (ReportKind.LOCKDEP, "WARNING: possible recursive locking detected"),
    (ReportKind.LOCKDEP, "WARNING: suspicious RCU usage"),
    (ReportKind.LOCKDEP, "WARNING: inconsistent lock state"),
    (ReportKind.LOCKDEP, "WARNING: bad unlock balance detected!"),
    (ReportKind.LOCKDEP, "INFO: trying to register non-static key."),
    (ReportKind.GENERAL_PROTECTION, "general protection fault, probably for non-canonical address 0xdead000000000100: 0000 [#1]"),
    (ReportKind.GENERAL_PROTECTION, "Oops: general protection fault, probably for non-canonical address 0xdead000000000122: 0000 [#1]"),
    (ReportKind.OUT_OF_MEMORY, "Out of memory: Killed process 312 (mkfs.xfs) total-vm:1234kB"),
]
#: Complaints that leave no taint. Provoked on a guest: lines as they came from Debian's 6.12 or 6.1, with what was done. Else: the format
#: in that kernel's binary, or in the source file that is named.
UNTAINTED = [
    # sysfs: echo boo > /sys/fs/ext4/pmem0/trigger_fs_error
    (ReportKind.FILE_SYSTEM, "EXT4-fs error (device pmem0): trigger_test_error:129: comm sh: boo"),
    # the same with errors=remount-ro, then a file made, and mounted again
    (ReportKind.FILE_SYSTEM, "EXT4-fs (pmem0): Remounting filesystem read-only"),
    (ReportKind.FILE_SYSTEM, "EXT4-fs error (device pmem0) in __ext4_new_inode:1096: Journal has aborted"),
    (ReportKind.FILE_SYSTEM, "EXT4-fs (pmem0): warning: mounting fs with errors, running e2fsck is recommended"),
    (
        ReportKind.FILE_SYSTEM,
        "EXT4-fs warning (device pmem0): ext4_clear_journal_err:6243: Filesystem error recorded from previous mount: IO failure",
    ),
    # the block of the group descriptors cleared
    (ReportKind.FILE_SYSTEM, "EXT4-fs (pmem0): group descriptors corrupted!"),
    # a directory's block overwritten on the device
    (
        ReportKind.FILE_SYSTEM,
        "EXT4-fs error (device pmem0): htree_dirblock_to_tree:1109: inode #12: block 4107: comm ls: bad entry in directory: "
        "directory entry overrun - offset=0, inode=1110997328, rec_len=34748, size=4096 fake=0",
    ),
    # the same, while it was mounted
    (
        ReportKind.FILE_SYSTEM,
        "JBD2: Spotted dirty metadata buffer (dev = pmem0, blocknr = 4107). There's a risk of filesystem corruption in case of system "
        "crash.",
    ),
    # EXT4_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH
    (ReportKind.FILE_SYSTEM, "EXT4-fs (pmem0): shut down requested (2)"),
    (ReportKind.FILE_SYSTEM, "Aborting journal on device pmem0-8."),
    # bytes in the superblock overwritten
    (ReportKind.FILE_SYSTEM, "EXT4-fs (pmem0): VFS: Found ext4 filesystem with invalid superblock checksum.  Run e2fsck?"),
    # mount -o dax=always of 1 KiB blocks, and of a virtio disk
    (ReportKind.FILE_SYSTEM, "EXT4-fs (pmem0): unsupported blocksize for DAX"),
    (ReportKind.FILE_SYSTEM, "EXT2-fs (pmem0): unsupported blocksize for DAX"),
    (ReportKind.FILE_SYSTEM, "EXT2-fs (pmem0s): DAX unsupported by block device. Turning off DAX."),
    (ReportKind.FILE_SYSTEM, "EXT2-fs (pmem0): error: ext2_lookup: deleted inode referenced: 12"),
    (ReportKind.FILE_SYSTEM, "EXT2-fs (pmem0): warning: mounting unchecked fs, running e2fsck is recommended"),
    (ReportKind.FILE_SYSTEM, "EXT4-fs (vdb): DAX unsupported by block device."),
    # fs/ext4: inode.c ext4_map_blocks callers, page-io.c ext4_end_bio, super.c
    (
        ReportKind.FILE_SYSTEM,
        "EXT4-fs warning (device pmem0): ext4_end_bio:343: I/O error 10 writing to inode 12 starting block 8750)",
    ),
    (
        ReportKind.FILE_SYSTEM,
        "EXT4-fs (pmem0): Delayed block allocation failed for inode 12 at logical offset 0 with max blocks 16 with error 117",
    ),
    (ReportKind.FILE_SYSTEM, "EXT4-fs (pmem0): This should not happen!! Data will be lost"),
    (ReportKind.FILE_SYSTEM, "EXT4-fs (pmem0): I/O error while writing superblock"),
    (ReportKind.FILE_SYSTEM, "EXT4-fs (pmem0): error loading journal"),
    (ReportKind.FILE_SYSTEM, "EXT4-fs (pmem0): IO failure"),
    (ReportKind.FILE_SYSTEM, "EXT4-fs (pmem0): error reading group 3"),
    (ReportKind.FILE_SYSTEM, "EXT4-fs: ext4_do_update_inode:5125: aborting transaction: IO failure in __ext4_handle_dirty_metadata"),
    # fs/jbd2/commit.c jbd2_journal_commit_transaction, fs/jbd2/transaction.c
    (ReportKind.FILE_SYSTEM, "JBD2: Detected IO errors while flushing file data on pmem0-8"),
    (ReportKind.FILE_SYSTEM, "JBD2 unexpected failure: jbd2_journal_revoke: !buffer_revoked(bh);"),
    # ioctl XFS_IOC_GOINGDOWN with XFS_FSOP_GOING_FLAGS_NOLOGFLUSH
    (ReportKind.FILE_SYSTEM, "XFS (pmem1): User initiated shutdown received."),
    (
        ReportKind.FILE_SYSTEM,
        "XFS (pmem1): Log I/O Error (0x6) detected at xfs_fs_goingdown+0x55/0xb0 [xfs] (fs/xfs/xfs_fsops.c:454).  "
        "Shutting down filesystem.",
    ),
    # a directory's block overwritten on the device
    (
        ReportKind.FILE_SYSTEM,
        "XFS (pmem1): Metadata CRC error detected at xfs_dir3_data_read_verify+0xd4/0x110 [xfs], xfs_dir3_data block 0xff8",
    ),
    (ReportKind.FILE_SYSTEM, "XFS (pmem1): First 128 bytes of corrupted metadata buffer:"),
    (
        ReportKind.FILE_SYSTEM,
        'XFS (pmem1): metadata I/O error in "xfs_da_read_buf+0xfd/0x190 [xfs]" at daddr 0xff8 len 8 error 74',
    ),
    # bytes in the superblock overwritten
    (ReportKind.FILE_SYSTEM, "XFS (pmem1): SB validate failed with error -74."),
    # bytes in the superblock of erofs overwritten, seen on 7.3; before that with the name of a function
    (ReportKind.FILE_SYSTEM, "erofs (device pmem0): invalid checksum 0x4fe6e60d, 0x8674c107 expected"),
    (ReportKind.FILE_SYSTEM, "erofs: (device pmem0): erofs_read_superblock: cannot find valid erofs superblock"),
    # mount -t erofs -o dax=always of a namespace without struct pages
    (ReportKind.FILE_SYSTEM, "erofs: DAX unsupported by block device. Turning off DAX."),
    # a loop device cut short beneath the file system
    (ReportKind.FILE_SYSTEM, "XFS (loop0): log I/O error -5"),
    (ReportKind.FILE_SYSTEM, "XFS (loop0): Filesystem has been shut down due to log error (0x2)."),
    (ReportKind.FILE_SYSTEM, "XFS (loop0): page discard on page 0000000012db8ff8, inode 0x87, pos 0."),
    (ReportKind.FILE_SYSTEM, "loop0: writeback error on inode 134, offset 0, sector 24768"),
    (ReportKind.BLOCK_DEVICE, "cat: attempt to access beyond end of device"),
    (ReportKind.BLOCK_DEVICE, "I/O error, dev loop0, sector 20482 op 0x0:(READ) flags 0x80700 phys_seg 9 prio class 2"),
    # fs/xfs: xfs_error.c xfs_error_report, xfs_fsops.c, xfs_super.c xfs_setup_dax_always, libxfs/xfs_ag_resv.c
    (
        ReportKind.FILE_SYSTEM,
        "XFS (pmem0): Internal error xfs_trans_cancel at line 1097 of file fs/xfs/xfs_trans.c.  Caller xfs_create+0x1/0x2 [xfs]",
    ),
    (
        ReportKind.FILE_SYSTEM,
        "XFS (pmem0): Corruption of in-memory data (0x8) detected at xfs_trans_cancel+0x1/0x2 [xfs] (fs/xfs/xfs_trans.c:1098).  "
        "Shutting down filesystem.",
    ),
    (ReportKind.FILE_SYSTEM, "XFS (pmem0): ondisk log corrupt, shutting down fs!"),
    (ReportKind.FILE_SYSTEM, "XFS (pmem0): DAX unsupported by block device. Turning off DAX."),
    (ReportKind.FILE_SYSTEM, "XFS (pmem0): DAX not supported for blocksize. Turning off DAX."),
    (
        ReportKind.FILE_SYSTEM,
        "XFS (pmem0): Block device removal (0x20) detected at xfs_fs_shutdown+0x1/0x2 [xfs] (fs/xfs/xfs_super.c:1190).  "
        "Shutting down filesystem.",
    ),
    (ReportKind.FILE_SYSTEM, "XFS (pmem0): log mount failed"),
    (ReportKind.FILE_SYSTEM, "XFS (pmem0): Error -5 reserving per-AG metadata reserve pool."),
    (ReportKind.FILE_SYSTEM, "XFS (pmem0): xfs_ialloc_read_agi() returned error -117, agno 0"),
    (ReportKind.FILE_SYSTEM, "VFS: Busy inodes after unmount of pmem0 (ext4)"),
    # echo '70000 8' > /sys/block/pmem0/badblocks, and the node read
    (ReportKind.BLOCK_DEVICE, "Buffer I/O error on dev pmem0, logical block 8750, async page read"),
    # block/blk-mq.c blk_errors, block/blk-core.c bio_check_ro
    (ReportKind.BLOCK_DEVICE, "critical medium error, dev vda, sector 2048 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 2"),
    (ReportKind.BLOCK_DEVICE, "blk_update_request: I/O error, dev vda, sector 2048 op 0x1:(WRITE) flags 0x800 phys_seg 1 prio class 0"),
    (ReportKind.BLOCK_DEVICE, "Trying to write to read-only block-device vda"),
    # madvise MADV_HWPOISON of a DAX mapping
    (ReportKind.MEMORY_FAILURE, "Memory failure: 0x109400: Sending SIGBUS to python3:596 due to hardware memory corruption"),
    (ReportKind.MEMORY_FAILURE, "Memory failure: 0x109400: recovery action for dax page: Recovered"),
    # arch/x86/kernel/cpu/mce/core.c, arch/x86/mm/fault.c
    (ReportKind.MEMORY_FAILURE, "mce: [Hardware Error]: Machine check events logged"),
    (ReportKind.MEMORY_FAILURE, "MCE: Killing python3:596 due to hardware memory corruption fault at 7f717f8b0000"),
    (ReportKind.MEMORY_FAILURE, "mce: Uncorrected hardware memory error in user-access at 109400000"),
    (ReportKind.MEMORY_FAILURE, "mce: Memory error not recovered"),
    # an e820 region, where it is expected
    (ReportKind.PMEM, "nd_pmem namespace1.0: unable to guarantee persistence of writes"),
    # drivers/nvdimm: pmem.c pmem_attach_disk, btt.c discover_arenas and btt_submit_bio, pfn_devs.c nd_pfn_validate, region.c, bus.c
    (ReportKind.PMEM, "nd_pmem namespace0.0: could not reserve region [mem 0x100000000-0x10fffffff]"),
    (ReportKind.PMEM, "nd_pmem btt0.0: Found corrupted metadata!"),
    (ReportKind.PMEM, "nd_pmem btt0.0: Error persistently tracking bad blocks at 0x10"),
    (ReportKind.PMEM, "nd_pmem btt0.0: io error in READ sector 8, len 4096,"),
    (ReportKind.PMEM, "nd_pmem pfn0.0: resource end misaligned"),
    (ReportKind.PMEM, "device_dax dax0.0: mapping0: 0x100200000-0x10fffffff could not reserve range"),
    (ReportKind.PMEM, "device_dax dax0.0: static pgmap / multi-range device conflict"),
    (ReportKind.PMEM, "dax_pmem dax0.0: could not reserve metadata"),
    (ReportKind.PMEM, "nd_region region0: failed to register 1 namespace, continuing..."),
    (ReportKind.PMEM, "nd_bus ndbus0: nd_region.probe(region0) error -6"),
    (ReportKind.PMEM, "nvdimm nmem0: failed to unlock dimm: -5"),
    # drivers/acpi/nfit/core.c acpi_nfit_register_region, ars_status_process_records
    (ReportKind.PMEM, "nfit ACPI0012:00: failed to register spa range 1"),
    (ReportKind.PMEM, "nfit ACPI0012:00: ARS: range 1 ARS failed (-5)"),
]
HARMLESS = [
    T + "traps: a.out[312] general protection fault ip:401136 sp:7ffc error:0 in a.out",
    T + "EXT4-fs (pmem0): DAX enabled. Warning: EXPERIMENTAL, use at your own risk",
    T + "EXT2-fs (pmem0): DAX enabled. Warning: EXPERIMENTAL, use at your own risk",
    # What set-ups and programs of sound guests print, most of it seen on Debian's 6.1 and 6.12.
    T + "EXT4-fs (pmem0): mounted filesystem 0e0f2330-1d15-49a4-8710-8af7e21b4b46 r/w with ordered data mode. Quota mode: none.",
    T + "EXT4-fs (pmem0): re-mounted 2c97d9ae-64a7-4ff1-96e9-9140dad56a7c ro.",
    T + "EXT4-fs (pmem0): unmounting filesystem 0e0f2330-1d15-49a4-8710-8af7e21b4b46.",
    T + "EXT4-fs (pmem1): VFS: Can't find ext4 filesystem",
    T + "EXT4-fs warning (device pmem0): ext4_dx_add_entry:2534: Directory (ino: 12) index full, reach max htree level :2",
    T + "EXT4-fs warning (device pmem0): ext4_dx_add_entry:2537: Large directory feature is not enabled on this filesystem",
    T + "EXT4-fs warning (device pmem0): ext4_expand_extra_isize_ea:2834: Unable to expand inode 12. Delete some EAs or run e2fsck.",
    T + "XFS (pmem0): Mounting V5 Filesystem a46254cd-9f61-4c15-a2b0-eaf8cc4ade00",
    T + "XFS (pmem0): Ending clean mount",
    T + "XFS (pmem0): DAX enabled. Warning: EXPERIMENTAL, use at your own risk",
    T + "XFS (pmem1): Starting recovery (logdev: internal)",
    T + "erofs: (device pmem0): mounted with root inode @ nid 36.",
    T + "erofs (device pmem0): mounted with root inode @ nid 36.",
    T + "erofs: Unknown parameter 'dax'",
    T + "nd_pmem btt0.0: No existing arenas",
    T + "device_dax dax0.0: python3: dax_mmap: fail, attempted private mapping",
    T + "device_dax dax0.0: python3: dax_mmap: fail, unaligned vma (0x7f2f071e0000 - 0x7f2f071e1000, 0x1fffff)",
    T + "python3 (178): drop_caches: 3",
    T + "loop0: detected capacity change from 0 to 40960",
    T + "acpi/hmat: failed to reserve 0x100000000 - 0x190200000 in pxm: 0",
    T + "workqueue: wait_rcu_exp_gp hogged CPU for >10000us 4 times, consider switching to WQ_UNBOUND",
    # Mixing O_DIRECT with a pinned or mapped page cache is the program's doing (mm/filemap.c dio_warn_stale_pagecache).
    T + "Page cache invalidation failure on direct I/O.  Possible data corruption due to collision with buffered I/O!",
    "EXT4-fs error (device pmem0): said by a program",
    "WARNING: CPU: 0 PID: 1 at a program that imitates the kernel",
    "Kernel panic - not syncing: said by a program",
    "",
]
EVERY_COMPLAINT = [*COMPLAINTS, *UNTAINTED]


@pytest.mark.parametrize(("kind", "said"), EVERY_COMPLAINT, ids=[f"{kind}-{said[:40]}" for kind, said in EVERY_COMPLAINT])
def test_a_complaint_of_the_kernel_is_recognized(kind: ReportKind, said: str) -> None:
    assert find_report(T + said) is kind
    assert find_report("[    1.000000][  T312] " + said) is kind
    assert find_report("half a line of a program" + T + said) is kind


@pytest.mark.parametrize("line", HARMLESS)
def test_other_lines_are_no_complaint(line: str) -> None:
    assert find_report(line) is None


#: An alternative in a pattern: ``(?:one|two)`` without anything nested.
_CHOICE = re.compile(r"\((?:\?:|\?!)([^()]*\|[^()]*)\)")


def mutants(patterns: Patterns) -> Iterator[tuple[str, Patterns]]:
    """Yield the patterns with one of them gone, and those that leave no taint with one of their alternatives gone, with a name."""
    for position, (kind, pattern) in enumerate(patterns):
        yield f"without {pattern.pattern}", (*patterns[:position], *patterns[position + 1 :])
        if kind not in {kind for kind, _ in UNTAINTED}:
            continue
        for choice in _CHOICE.finditer(pattern.pattern):
            words = choice[1].split("|")
            for word in words:
                left = "|".join(other for other in words if other != word)
                text = pattern.pattern[: choice.start(1)] + left + pattern.pattern[choice.end(1) :]
                yield f"without {word} in {pattern.pattern}", (*patterns[:position], (kind, re.compile(text)), *patterns[position + 1 :])


def test_a_pattern_or_an_alternative_that_is_gone_is_missed() -> None:
    known = [(T + said, kind) for kind, said in EVERY_COMPLAINT] + [(line, None) for line in HARMLESS]

    def passes(patterns: Patterns) -> bool:
        return all(find_report(line, patterns) is kind for line, kind in known)

    whole = tuple(mutants(PATTERNS))
    assert passes(PATTERNS)
    assert len(whole) > 60
    survivors = [name for name, left in whole if passes(left)]
    assert survivors == []


def test_what_the_kernel_said_is_known_without_its_time() -> None:
    assert without_stamp("half a line" + T + "nd_pmem x: y") == "nd_pmem x: y"
    assert without_stamp("no stamp") == "no stamp"


CRASH = """[    3.1] BUG: kernel NULL pointer dereference, address: 0000000000000008
[    3.2] RIP: 0010:dax_insert_entry+0x1f/0x310
[    3.3] Call Trace:
[    3.4]  <TASK>
[    3.5]  ? __die+0x23/0x70
[    3.6]  dax_fault_iter+0x2b8/0x310
[    3.7]  dax_iomap_pte_fault+0x1a/0x30
[    3.8]  ext4_dax_huge_fault.constprop.0+0x1a/0x30
[    3.9]  __do_fault+0x1a/0x30
[    3.9]  handle_mm_fault+0x1a/0x30
[    4.0]  </TASK>
[    4.1] RIP: 0033:0x7f1234
"""


def test_a_crash_is_named_by_its_innermost_frames() -> None:
    assert fingerprint(CRASH) == ("dax_insert_entry < dax_fault_iter < dax_iomap_pte_fault < ext4_dax_huge_fault.constprop.0 < __do_fault")


def test_the_same_crash_at_other_addresses_has_the_same_name() -> None:
    assert fingerprint(CRASH.replace("+0x1", "+0x2").replace("[    3", "[   93")) == fingerprint(CRASH)


def test_a_complaint_without_frames_has_no_name() -> None:
    assert fingerprint("[    3.1] Kernel panic - not syncing: no init\n") == ""
