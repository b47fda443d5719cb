"""Rules for the ioctls by which files come to share blocks."""

from harness.model.clause import Context, Undetermined, clause
from harness.model.expectation import Expectation, Expectations
from harness.model.objects import Memory, OpenFile, Pipe, Socket
from harness.model.rules.effects import blocks_shared, cleaned, layouts_broken, waits_to_share
from harness.model.rules.moving import end_of
from harness.model.rules.rule import block_bytes, may_share, rule, volume_fact
from harness.model.rules.transfers import MOST_OFFSET
from harness.model.state import State
from harness.ops import Ficlone, Ficlonerange

clause(
    "C-CLONE-01",
    "FICLONE and FICLONERANGE return 0: the range of the target has the bytes of the source's, and keeps them whatever is written to the "
    "source later; the target grows to hold it, and nothing else in it changes. A length of 0 is up to the end of the source",
    "ioctl_ficlonerange(2); fs/remap_range.c vfs_clone_file_range; fs/xfs/xfs_reflink.c xfs_reflink_remap_blocks",
)
clause(
    "C-CLONE-02",
    "cloning between different file systems is EXDEV: nodes and dax devices are on one, pipes on another",
    "ioctl_ficlonerange(2) ERRORS; fs/remap_range.c vfs_clone_file_range compares i_sb",
)
clause(
    "C-CLONE-03",
    "cloning needs regular files (EINVAL), the source open for reading, the target for writing and not for appending (EBADF)",
    "ioctl_ficlonerange(2) ERRORS; fs/read_write.c generic_file_rw_checks",
)
clause(
    "C-CLONE-04",
    "cloning is EOPNOTSUPP where files cannot share blocks: all file systems but xfs, and one of xfs made without reflink",
    "ioctl_ficlonerange(2) ERRORS; fs/remap_range.c vfs_clone_file_range; fs/xfs/xfs_file.c xfs_file_remap_range",
)
clause(
    "C-CLONE-05",
    "a range that begins before 0 or ends behind the largest offset cannot be cloned: EINVAL",
    "fs/remap_range.c remap_verify_area, fs/read_write.c generic_write_check_limits",
)
clause(
    "C-CLONE-06",
    "both ranges have to begin at a block and to be of whole blocks (EINVAL), but where the source's ends at the end of its file and the "
    "target's at that of its own or behind it",
    "ioctl_ficlonerange(2) ERRORS; fs/remap_range.c generic_remap_checks, generic_remap_check_len",
)
clause(
    "C-CLONE-07",
    "a range that begins or ends behind the end of the source cannot be cloned: EINVAL",
    "fs/remap_range.c generic_remap_checks: the call cannot be shortened",
)
clause("C-CLONE-08", "ranges of one file that overlap cannot be cloned: EINVAL", "fs/remap_range.c generic_remap_checks")
clause(
    "C-CLONE-09",
    "a file with DAX and one without share no blocks (EINVAL), nor do two with DAX before Linux 6.0",
    "fs/xfs/xfs_reflink.c xfs_reflink_remap_prep: fact dax_shares_blocks",
)
clause(
    "C-CLONE-10",
    "cloning between files with DAX waits until nobody holds a page of them, whatever it is asked for",
    "fs/xfs/xfs_inode.c xfs_ilock2_io_mmap, xfs_mmaplock_two_inodes_and_break_dax_layout",
)
clause(
    "C-CLONE-11",
    "cloning up to the end from the end of the source on, as all of an empty file, returns 0 and changes nothing",
    "fs/remap_range.c __generic_remap_file_range_prep",
)

#: What a descriptor is of.
End = OpenFile | Pipe | Socket


@rule(Ficlone)
def ficlone(c: Context, s: State, op: Ficlone) -> Expectations:
    return _cloned(c, s, op.source, op.target, (0, 0, 0))


@rule(Ficlonerange)
def ficlonerange(c: Context, s: State, op: Ficlonerange) -> Expectations:
    return _cloned(c, s, op.source, op.target, (op.source_offset, op.target_offset, op.length))


def _cloned(c: Context, s: State, source: str, target: str, what: tuple[int, int, int]) -> Expectations:
    """Return what is expected of cloning ``what``: from where in the source, to where in the target, and how many bytes."""
    (_, of), (_, into) = end_of(c, s, source), end_of(c, s, target)
    start, goal, length = what
    if refused := _refused_at_all(c, s, of, into, what):
        return refused.leaving(s)
    if not isinstance(of, OpenFile) or not isinstance(into, OpenFile) or not s.memory(of.memory).is_file:
        raise Undetermined("no clause covers cloning what is no file")
    one, other = s.memory(of.memory), s.memory(into.memory)
    if refused := c.refuses(("EINVAL", not may_share(c, one, other), "C-CLONE-09")):
        return refused.leaving(s)
    if one.dax:
        if blocked := c.blocks("C-CLONE-10", waits_to_share(c, s, of.memory, into.memory)):
            return blocked.leaving(s)
        s = layouts_broken(layouts_broken(s, of.memory), into.memory)
    if length == 0 and start == one.size and c.holds("C-CLONE-11", True):
        return c.returns("C-CLONE-11", 0).leaving(s)
    length = length or one.size - start
    if refused := _refused_range(c, one, other, (start, goal, length), same=of.memory == into.memory):
        return refused.leaving(s)
    odd = length % block_bytes(c, other) != 0
    if refused := c.refuses(("EINVAL", odd and goal + length < other.size, "C-CLONE-06")):
        return refused.leaving(cleaned(cleaned(s, of.memory, start, start + length), into.memory, goal, goal + length))
    return c.returns("C-CLONE-01", 0).leaving(blocks_shared(c, s, of.memory, into.memory, start, goal, length))


def _refused_at_all(c: Context, s: State, of: End, into: End, what: tuple[int, int, int]) -> Expectation | None:
    """Return what cloning between such ends is refused with. Kernels look at the range before or behind that."""
    start, goal, length = what
    far = min(start, goal, length) < 0 or max(start, goal) + length > MOST_OFFSET
    apart = _home(s, of) != _home(s, into)
    if refused := c.refuses(("EXDEV", apart, "C-CLONE-02"), ("EINVAL", apart and far, "C-CLONE-05")):
        return refused
    if not isinstance(of, OpenFile) or not isinstance(into, OpenFile) or not s.memory(of.memory).is_file:
        return c.refuses(("EINVAL", True, "C-CLONE-03"))
    shut = not (of.readable and into.writable and not into.append)
    if refused := c.refuses(("EBADF", shut, "C-CLONE-03"), ("EINVAL", shut and far, "C-CLONE-05")):
        return refused
    shares = bool(volume_fact(c, "copy_shares_blocks", s.memory(of.memory)))
    return c.refuses(("EOPNOTSUPP", not shares, "C-CLONE-04"), ("EINVAL", far, "C-CLONE-05"))


def _home(s: State, end: End) -> str:
    """Return what file system an end is on. Raises Undetermined where the model does not know."""
    if not isinstance(end, OpenFile):
        return "pipes"
    memory = s.memory(end.memory)
    if end.layered or memory.is_bar:
        raise Undetermined("no clause covers sharing blocks through an overlay, or of a BAR")
    return memory.volume if memory.is_file else "devices"


def _refused_range(c: Context, one: Memory, other: Memory, what: tuple[int, int, int], *, same: bool) -> Expectation | None:
    """Return what the numbers of a range are refused with that is to be cloned from ``one`` to ``other``."""
    start, goal, length = what
    block = block_bytes(c, other)
    whole = length + -length % block if start + length == one.size else length
    return c.refuses(
        ("EINVAL", bool(start % block or goal % block or whole % block), "C-CLONE-06"),
        ("EINVAL", start >= one.size or start + length > one.size, "C-CLONE-07"),
        ("EINVAL", same and goal < start + whole and start < goal + whole, "C-CLONE-08"),
        ("EINVAL", goal + length > int(volume_fact(c, "max_file_bytes", other)), "C-CLONE-05"),
    )
