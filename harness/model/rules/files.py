"""Rules for open files: reading and writing, position, durability, size."""

from harness.model.clause import Context, Undetermined, clause
from harness.model.content import all_zero
from harness.model.expectation import Expectation, Expectations
from harness.model.objects import Memory, OpenFile, page_ceil
from harness.model.outcome import How
from harness.model.rules.effects import cleaned, folios_left, parted_by_growth, resized
from harness.model.rules.reads import chosen_offset, read_buffers
from harness.model.rules.rule import block_bytes, look_up, rule, volume_fact, waits_for_pins
from harness.model.rules.writes import write_buffers
from harness.model.state import State
from harness.model.value import evolve
from harness.ops import (
    Buffer,
    Fdatasync,
    Fsync,
    Ftruncate,
    Lseek,
    Pread,
    Preadv,
    Pwrite,
    Pwritev,
    Whence,
)

clause(
    "C-OVERLAY-03",
    "fsync of a file of an overlay that lies below succeeds, whatever the file system below has",
    "fs/overlayfs/file.c ovl_fsync",
)


@rule(Pread)
def pread(c: Context, s: State, op: Pread) -> Expectations:
    return read_buffers(c, s, op.file, chosen_offset(op.offset, op.flags), [Buffer(op.length, op.shift, op.into, op.into_offset)], op.flags)


@rule(Preadv)
def preadv(c: Context, s: State, op: Preadv) -> Expectations:
    return read_buffers(c, s, op.file, chosen_offset(op.offset, op.flags), op.buffers, op.flags)


@rule(Pwrite)
def pwrite(c: Context, s: State, op: Pwrite) -> Expectations:
    return write_buffers(
        c, s, op.file, chosen_offset(op.offset, op.flags), [Buffer(op.length, op.shift, op.from_, op.from_offset)], op.flags
    )


@rule(Pwritev)
def pwritev(c: Context, s: State, op: Pwritev) -> Expectations:
    return write_buffers(c, s, op.file, chosen_offset(op.offset, op.flags), op.buffers, op.flags)


clause("C-SEEK-01", "lseek sets the position and returns it", "lseek(2)")
clause("C-SEEK-02", "SEEK_DATA and SEEK_HOLE at or behind the end are ENXIO", "lseek(2) ERRORS")
clause("C-SYNC-01", "fsync and fdatasync of a file or a node succeed", "fsync(2)")
clause(
    "C-SYNC-04",
    "where a file system has no fsync (erofs), fsync and fdatasync are EINVAL; msync asks for none where nobody could have stored",
    "fsync(2) ERRORS; fs/sync.c vfs_fsync_range; mm/mmap.c do_mmap: no VM_SHARED, which mm/msync.c asks for, without FMODE_WRITE",
)
clause(
    "C-DEVDAX-04",
    "fsync, fdatasync and msync with MS_SYNC of a dax device are EINVAL: there is nothing to write back",
    "fs/sync.c vfs_fsync_range; drivers/dax/device.c dax_fops has no fsync",
)
clause("C-DEVDAX-05", "lseek of a dax device returns 0 whatever it is asked, and moves nothing", "drivers/dax/device.c: noop_llseek")
clause("C-SIZE-01", "ftruncate sets the size; what is gained reads as zeroes, what is cut off is lost", "ftruncate(2)")
clause("C-SIZE-02", "ftruncate needs a regular file open for writing, and a length of 0 or more: EINVAL", "ftruncate(2) ERRORS")
clause(
    "C-PIN-01",
    "truncate and punch of a DAX file wait until no page of the file is pinned by anyone",
    "fs/ext4/inode.c ext4_break_layouts; fs/xfs/xfs_file.c xfs_break_dax_layouts; fs/dax.c dax_layout_busy_page",
)
clause(
    "C-SEEK-03",
    "lseek to before the first byte, or behind the end of a node or of what a file may hold, is EINVAL",
    "lseek(2) ERRORS; fs/read_write.c vfs_setpos",
)
clause(
    "C-SEEK-04",
    "SEEK_DATA goes to where data may be, past zeroes only, or is ENXIO where only zeroes follow; SEEK_HOLE to where "
    "zeroes are, or to the end",
    "lseek(2); how finely data and holes are told apart is the file system's affair",
)
clause("C-SEEK-05", "SEEK_DATA and SEEK_HOLE of a node are EINVAL", "block/fops.c blkdev_llseek, fs/read_write.c fixed_size_llseek")
clause("C-SIZE-03", "ftruncate to more than the file system can hold is EFBIG", "ftruncate(2) ERRORS; fs/attr.c inode_newsize_ok")


@rule(Lseek)
def lseek(c: Context, s: State, op: Lseek) -> Expectations:
    number, of = look_up(c, s, op.file, OpenFile)
    memory = s.memory(of.memory)
    if memory.is_bar:
        raise Undetermined("no clause covers lseek of a BAR")
    if memory.is_device and c.holds("C-DEVDAX-05", True):
        return c.returns("C-DEVDAX-05", 0).leaving(s)
    if op.whence in (Whence.DATA, Whence.HOLE):
        return _seek_extent(c, s, op, number, of, memory)
    base = {Whence.SET: 0, Whence.CUR: of.position, Whence.END: memory.size}[op.whence]
    most = memory.size if memory.is_node else int(volume_fact(c, "max_file_bytes", memory))
    asks = op.whence is Whence.CUR and op.offset == 0
    if refused := c.refuses(("EINVAL", not asks and not 0 <= base + op.offset <= most, "C-SEEK-03")):
        return refused.leaving(s)
    return c.returns("C-SEEK-01", base + op.offset).leaving(s.with_object(number, evolve(of, position=base + op.offset)))


def _seek_extent(c: Context, s: State, op: Lseek, number: int, of: OpenFile, memory: Memory) -> Expectations:
    if refused := c.refuses(("EINVAL", memory.is_node, "C-SEEK-05")):
        return refused.leaving(s)
    if refused := c.refuses(("ENXIO", op.offset < 0 or op.offset >= memory.size, "C-SEEK-02")):
        return refused.leaving(s)
    nothing: Expectations = ()
    only_zeroes = 0 <= op.offset < memory.size and all_zero(memory.content.read(op.offset, memory.size))
    if op.whence is Whence.DATA and only_zeroes:
        words = "a position, or ENXIO where only zeroes follow"
        nothing = Expectation(How.FAILED, "C-SEEK-04", words, names=("ENXIO",), asks=True).leaving(s)
    span = f"{op.offset}..{memory.size}, past zeroes only"
    block = block_bytes(c, memory)
    there = c.counts("C-SEEK-04", op.offset, memory.size, span, lambda at: _may_seek_to(memory, op, at, block))
    return (*nothing, *there.by(lambda at: [s.with_object(number, evolve(of, position=at))]))


def _may_seek_to(memory: Memory, op: Lseek, at: int, block: int) -> bool:
    if op.whence is Whence.DATA:
        return op.offset <= at < memory.size and all_zero(memory.content.read(op.offset, at))
    begins = at == op.offset or at % block == 0
    end = min(memory.size, at - at % block + block)
    return at == memory.size or (begins and op.offset <= at < memory.size and all_zero(memory.content.read(at, end)))


@rule(Fsync)
def fsync(c: Context, s: State, op: Fsync) -> Expectations:
    return _synced(c, s, op.file)


@rule(Fdatasync)
def fdatasync(c: Context, s: State, op: Fdatasync) -> Expectations:
    return _synced(c, s, op.file)


def _synced(c: Context, s: State, file: str) -> Expectations:
    _, of = look_up(c, s, file, OpenFile)
    if s.memory(of.memory).is_bar:
        raise Undetermined("no clause covers syncing a BAR")
    if of.layered and s.memory(of.memory).closed_by and c.holds("C-OVERLAY-03", True):
        return c.returns("C-OVERLAY-03", 0).leaving(s)
    if refused := c.refuses(("EINVAL", s.memory(of.memory).is_device, "C-DEVDAX-04"), _never_syncs(c, s.memory(of.memory))):
        return refused.leaving(s)
    return c.returns("C-SYNC-01", 0).leaving(cleaned(s, of.memory))


def _never_syncs(c: Context, memory: Memory) -> tuple[str, bool, str]:
    """Return whether syncing a file is refused because its file system has no such thing."""
    return ("EINVAL", memory.is_file and not volume_fact(c, "fsync_supported", memory), "C-SYNC-04")


@rule(Ftruncate)
def ftruncate(c: Context, s: State, op: Ftruncate) -> Expectations:
    _, of = look_up(c, s, op.file, OpenFile)
    memory = s.memory(of.memory)
    if refused := c.refuses(("EINVAL", not memory.is_file or not of.writable or op.length < 0, "C-SIZE-02")):
        return refused.leaving(s)
    if refused := c.refuses(("EFBIG", op.length > int(volume_fact(c, "max_file_bytes", memory)), "C-SIZE-03")):
        return refused.leaving(s)
    if blocked := c.blocks("C-PIN-01", waits_for_pins(c, s, of.memory)):
        return blocked.leaving(s)
    after = parted_by_growth(c, s, resized(c, s, of.memory, op.length), of.memory)
    return c.returns("C-SIZE-01", 0).leaving(*folios_left(c, s, after, of.memory, page_ceil(op.length), page_ceil(memory.size)))
