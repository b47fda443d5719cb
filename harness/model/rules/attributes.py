"""Rules for what statx and the file attributes show."""

from dataclasses import replace

from harness.model.clause import Context, Undetermined, clause
from harness.model.rules.rule import file_memory, look_up, rule, volume_fact
from harness.model.state import OpenFile, State
from harness.ops import (
    GetXflags,
    SetXflags,
    Statx,
)

clause("C-STAT-01", "statx succeeds on an open descriptor and shows the size of a regular file", "statx(2)")
clause("C-STAT-02", "STATX_ATTR_DAX is set exactly on files in DAX state", "statx(2); Documentation/filesystems/dax.rst")
clause(
    "C-STAT-03",
    "STATX_DIOALIGN reports the alignments that O_DIRECT asks for without DAX, on DAX too, where any alignment works",
    "statx(2); fs/ext4/inode.c ext4_getattr, fs/xfs/xfs_iops.c xfs_vn_getattr look at the block device, not at DAX",
)
clause("C-STAT-04", "statx says in its mask whether it reports STATX_DIOALIGN", "statx(2): stx_mask")
clause(
    "C-STAT-05",
    "statx of a node shows the size of the inode that names it, 0",
    "fs/stat.c generic_fillattr; block/bdev.c bdev_statx adds alignments only",
)
clause("C-FLAG-01", "FS_IOC_FSGETXATTR shows FS_XFLAG_DAX as it was last set", "ioctl_xfs_fsgetxattr(2); dax.rst")
clause("C-FLAG-03", "a node has no FS_XFLAG_DAX: ENOTTY", "fs/ioctl.c ioctl_fsgetxattr; block/ioctl.c blkdev_ioctl")
clause("C-FLAG-02", "setting FS_XFLAG_DAX succeeds and changes the state of no open file", "Documentation/filesystems/dax.rst")


@rule(Statx)
def statx(c: Context, s: State, op: Statx) -> list[State]:
    _, of = look_up(c, s, op.file, OpenFile)
    memory = file_memory(s, of)
    if not c.returns("C-STAT-01", 0):
        return []
    seen = c.seen
    if memory.is_file and not c.agrees(
        "C-STAT-01", seen.number("size") == memory.size, f"size {memory.size}", f"size {seen.attribute('size')}"
    ):
        return []
    if memory.kind == "bar":
        return [s]
    if memory.kind == "node" and not c.agrees("C-STAT-05", seen.number("size") == 0, "size 0", f"size {seen.attribute('size')}"):
        return []
    if not c.agrees("C-STAT-02", seen.number("dax") == int(memory.dax), f"DAX {int(memory.dax)}", f"DAX {seen.attribute('dax')}"):
        return []
    reported, told_so = bool(volume_fact(c, "dioalign_reported", memory)), seen.number("dio_supported")
    if not c.agrees("C-STAT-04", told_so == int(reported), f"STATX_DIOALIGN {int(reported)}", f"STATX_DIOALIGN {told_so}"):
        return []
    if reported:
        for name, attribute in (("dio_offset_alignment", "dio_offset_align"), ("dio_memory_alignment", "dio_mem_align")):
            step, told = c.env.fact(name, memory.volume, dax=False), seen.number(attribute)
            if not c.agrees("C-STAT-03", told == step, f"{attribute} {step}", f"{attribute} {told}"):
                return []
    return [s]


@rule(GetXflags)
def get_xflags(c: Context, s: State, op: GetXflags) -> list[State]:
    _, of = look_up(c, s, op.file, OpenFile)
    memory = file_memory(s, of)
    if c.refuses(("ENOTTY", memory.kind == "node", "C-FLAG-03")):
        return [s] if c.settled else []
    if not memory.is_file:
        raise Undetermined("no clause covers FS_IOC_FSGETXATTR of a BAR")
    return [s] if c.returns("C-FLAG-01", int(memory.dax_flag)) else []


@rule(SetXflags)
def set_xflags(c: Context, s: State, op: SetXflags) -> list[State]:
    _, of = look_up(c, s, op.file, OpenFile)
    memory = file_memory(s, of)
    if c.refuses(("ENOTTY", memory.kind == "node", "C-FLAG-03")):
        return [s] if c.settled else []
    if not memory.is_file:
        raise Undetermined("no clause covers FS_IOC_FSSETXATTR of a BAR")
    if not c.returns("C-FLAG-02", 0):
        return []
    return [s.with_object(of.memory, replace(memory, dax_flag=op.dax))]
