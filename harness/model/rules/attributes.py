"""Rules for what statx and the file attributes show."""

from collections.abc import Iterator

from harness.model.clause import Context, Undetermined, clause
from harness.model.expectation import Expectations, Next, Number
from harness.model.objects import Memory, OpenFile
from harness.model.rules.rule import block_bytes, look_up, may_be_inline, rule, volume_fact
from harness.model.state import State
from harness.model.value import evolve
from harness.ops import GetXflags, SetXflags, Statx

clause("C-STAT-01", "statx succeeds on an open descriptor and shows the size of a regular file", "statx(2)")
clause(
    "C-STAT-02",
    "STATX_ATTR_DAX is set exactly on files in DAX state and on dax devices",
    "statx(2); Documentation/filesystems/dax.rst; drivers/dax/device.c dax_open: S_DAX",
)
clause(
    "C-STAT-03",
    "STATX_DIOALIGN, where it is reported, has the alignments that O_DIRECT asks for without DAX, on DAX too, where any alignment works",
    "statx(2); fs/ext4/inode.c ext4_getattr, fs/xfs/xfs_iops.c xfs_vn_getattr look at the block device, not at DAX",
)
clause("C-STAT-04", "statx says in its mask whether it reports STATX_DIOALIGN", "statx(2): stx_mask")
clause(
    "C-STAT-05",
    "statx of a node or a dax device shows the size of the inode that names it, 0",
    "fs/stat.c generic_fillattr; block/bdev.c bdev_statx adds alignments only",
)
clause("C-FLAG-01", "FS_IOC_FSGETXATTR shows FS_XFLAG_DAX as it was last set", "ioctl_xfs_fsgetxattr(2); dax.rst")
clause("C-FLAG-03", "a node or a dax device has no FS_XFLAG_DAX: ENOTTY", "fs/ioctl.c ioctl_fsgetxattr; block/ioctl.c blkdev_ioctl")
clause(
    "C-FLAG-04",
    "where files have no DAX state of their own (ext2), FS_XFLAG_DAX is taken without an error and not kept",
    "include/linux/fileattr.h FS_XFLAG_COMMON, fs/ext2/ioctl.c ext2_fileattr_set: EXT2_FL_USER_MODIFIABLE has no such flag",
)
clause(
    "C-FLAG-05",
    "where a file has no attributes (erofs), neither showing nor setting FS_XFLAG_DAX is known: ENOTTY",
    "fs/ioctl.c ioctl_fsgetxattr: ENOIOCTLCMD without ->fileattr_get; docs/agent-protocol.md: setting begins with showing",
)
clause(
    "C-FLAG-06",
    "before Linux 6.2 setting FS_XFLAG_DAX on a file that shares blocks is EINVAL",
    "fs/xfs/xfs_ioctl.c xfs_ioctl_setattr_xflags: fact shared_can_be_dax",
)
clause("C-FLAG-02", "setting FS_XFLAG_DAX succeeds and changes the state of no open file", "Documentation/filesystems/dax.rst")


@rule(Statx)
def statx(c: Context, s: State, op: Statx) -> Expectations:
    _, of = look_up(c, s, op.file, OpenFile)
    memory = s.memory(of.memory)
    return c.returns("C-STAT-01", 0).then(Next(s, tuple(_shown(c, memory))))


def _shown(c: Context, memory: Memory) -> Iterator[Number]:
    """Yield the fields of struct statx that have to be as they are."""
    if memory.is_file:
        yield _field("C-STAT-01", "size", memory.size)
    if memory.is_bar:
        return
    if not memory.is_file:
        yield _field("C-STAT-05", "size", 0)
    yield _field("C-STAT-02", "dax", int(memory.dax), "DAX")
    reported = bool(volume_fact(c, "dioalign_reported", memory))
    yield _field("C-STAT-04", "dio_supported", int(reported), "STATX_DIOALIGN")
    if may_be_inline(c, memory):
        return
    direct = not memory.is_file or bool(volume_fact(c, "direct_io", memory)) or not c.holds("C-DIO-10", True)
    for name, attribute in (("dio_offset_alignment", "dio_offset_align"), ("dio_memory_alignment", "dio_mem_align")):
        told = int(c.env.fact(name, memory.volume, False, memory.closed_by))
        if name == "dio_offset_alignment" and memory.was_shared and volume_fact(c, "dioalign_of_shared", memory) == "block":
            told = max(told, block_bytes(c, memory))
        yield _field("C-STAT-03", attribute, told if reported and direct else 0)


def _field(clause_id: str, name: str, value: int, words: str = "") -> Number:
    return Number(clause_id, name, value, value, f"{words or name} {value}", f"{words or name} {{}}")


@rule(GetXflags)
def get_xflags(c: Context, s: State, op: GetXflags) -> Expectations:
    _, of = look_up(c, s, op.file, OpenFile)
    memory = s.memory(of.memory)
    if refused := c.refuses(("ENOTTY", memory.is_node or memory.is_device, "C-FLAG-03")):
        return refused.leaving(s)
    if not memory.is_file:
        raise Undetermined("no clause covers FS_IOC_FSGETXATTR of a BAR")
    if refused := c.refuses(("ENOTTY", not volume_fact(c, "file_attributes", memory), "C-FLAG-05")):
        return refused.leaving(s)
    return c.returns("C-FLAG-01", int(memory.dax_flag)).leaving(s)


@rule(SetXflags)
def set_xflags(c: Context, s: State, op: SetXflags) -> Expectations:
    _, of = look_up(c, s, op.file, OpenFile)
    memory = s.memory(of.memory)
    if refused := c.refuses(("ENOTTY", memory.is_node or memory.is_device, "C-FLAG-03")):
        return refused.leaving(s)
    if not memory.is_file:
        raise Undetermined("no clause covers FS_IOC_FSSETXATTR of a BAR")
    if refused := c.refuses(("ENOTTY", not volume_fact(c, "file_attributes", memory), "C-FLAG-05")):
        return refused.leaving(s)
    if not volume_fact(c, "dax_flag_kept", memory):
        return c.returns("C-FLAG-04", 0).leaving(s)
    barred = op.dax and memory.was_shared and not volume_fact(c, "shared_can_be_dax", memory)
    if refused := c.refuses(("EINVAL", barred, "C-FLAG-06")):
        return refused.leaving(s)
    return c.returns("C-FLAG-02", 0).leaving(s.with_object(of.memory, evolve(memory, dax_flag=op.dax)))
