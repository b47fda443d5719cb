"""Rules for the ioctls by which files come to share blocks."""

from harness.model.clause import Context, Undetermined, clause
from harness.model.content import are_same
from harness.model.expectation import Expectation, Expectations, Next, Number
from harness.model.objects import Memory, OpenFile, Pipe, Socket
from harness.model.rules.effects import blocks_shared, cleaned, layouts_broken, perhaps_cached, waits_to_share
from harness.model.rules.moving import end_of
from harness.model.rules.rule import block_bytes, may_share, rule, volume_fact
from harness.model.rules.transfers import MOST_OFFSET
from harness.model.state import State
from harness.ops import WRITE, Ficlone, Ficlonerange, Fideduperange

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
clause(
    "C-DEDUPE-01",
    "FIDEDUPERANGE returns 0 and tells of its target whether its bytes are those of the source (status 0, and the length that was asked "
    "for) or not (status 1, and no bytes); no byte of any file changes",
    "ioctl_fideduperange(2); fs/remap_range.c vfs_dedupe_file_range",
)
clause(
    "C-DEDUPE-02",
    "the source of FIDEDUPERANGE has to be a regular file that is open for reading, and the range to lie in it: EINVAL",
    "ioctl_fideduperange(2) ERRORS; fs/remap_range.c vfs_dedupe_file_range",
)
clause(
    "C-DEDUPE-03",
    "FIDEDUPERANGE is EOPNOTSUPP on file systems whose files share no blocks; of xfs made without reflink that is the target's status",
    "ioctl_fideduperange(2) ERRORS; fs/remap_range.c vfs_dedupe_file_range, fs/xfs/xfs_file.c xfs_file_remap_range",
)
clause(
    "C-DEDUPE-04",
    "what is wrong with the target of FIDEDUPERANGE is its status, with no bytes: a closed descriptor EBADF, another file system EXDEV; "
    "ranges that do not begin at blocks, overlap or leave the target, and a file with DAX and one without EINVAL",
    "ioctl_fideduperange(2); fs/remap_range.c vfs_dedupe_file_range_one, generic_remap_checks",
)
clause(
    "C-DEDUPE-05",
    "FIDEDUPERANGE of files with DAX waits until nobody holds a page of them",
    "fs/xfs/xfs_inode.c xfs_ilock2_io_mmap, xfs_mmaplock_two_inodes_and_break_dax_layout",
)
clause(
    "C-DEDUPE-06",
    "with DAX a hole and zeroes that were written are not the same for FIDEDUPERANGE",
    "fs/dax.c dax_range_compare_iter: fact holes_are_zeroes",
)

#: The arbitrary limit of fs/remap_range.c, and the error numbers that a status can be.
_MOST_DEDUPED = 1 << 30
_STATUS = {"EBADF": -9, "EINVAL": -22, "EXDEV": -18, "EOPNOTSUPP": -95}
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


@rule(Fideduperange)
def fideduperange(c: Context, s: State, op: Fideduperange) -> Expectations:
    (_, of), (_, into) = end_of(c, s, op.source), end_of(c, s, op.target)
    start, goal, length = op.source_offset, op.target_offset, op.length
    home = _home(s, of)
    regular = isinstance(of, OpenFile) and s.memory(of.memory).is_file
    if refused := c.refuses(("EINVAL", not regular or not (isinstance(of, OpenFile) and of.readable), "C-DEDUPE-02")):
        return refused.leaving(s)
    if not isinstance(of, OpenFile) or not regular:
        raise Undetermined("no clause covers FIDEDUPERANGE of what is no file")
    one = s.memory(of.memory)
    if refused := c.refuses(("EOPNOTSUPP", not volume_fact(c, "asks_for_blocks", one), "C-DEDUPE-03")):
        return refused.leaving(s)
    if refused := c.refuses(("EINVAL", start < 0 or start + length > one.size, "C-DEDUPE-02")):
        return refused.leaving(s)
    if length > _MOST_DEDUPED:
        raise Undetermined("no clause covers FIDEDUPERANGE of more than 1 GiB")
    closed = (c.process, op.target, WRITE) in s.closed
    wrong = [
        ("EBADF", closed),
        ("EINVAL", goal < 0 or goal + length > MOST_OFFSET),
        ("EXDEV", home != _home(s, into)),
    ]
    if errno := next((errno for errno, condition in wrong if condition), None):
        return _told(c, s, "C-DEDUPE-04", _STATUS[errno], 0)
    if length == 0:
        return _told(c, s, "C-DEDUPE-01", 0, 0)
    if not isinstance(into, OpenFile):
        raise Undetermined("no clause covers FIDEDUPERANGE of what is no file")
    return _deduped(c, s, of.memory, into.memory, (start, goal, length))


def _told(c: Context, s: State, clause_id: str, status: int, count: int) -> Expectations:
    """Return that the call tells ``status`` and ``count`` bytes of its target."""
    return c.returns("C-DEDUPE-01", 0).then(Next(s, _tells(clause_id, status, count)))


def _tells(clause_id: str, status: int, count: int) -> tuple[Number, Number]:
    return (
        Number(clause_id, "status", status, status, f"status {status}", "status {}"),
        Number(clause_id, "bytes_deduped", count, count, f"{count} bytes deduped", "{} bytes deduped"),
    )


def _deduped(c: Context, s: State, source: int, target: int, what: tuple[int, int, int]) -> Expectations:
    """Return what is expected of asking whether two ranges of files of one file system are the same."""
    start, goal, length = what
    one, other = s.memory(source), s.memory(target)
    if not volume_fact(c, "copy_shares_blocks", one):
        return _told(c, s, "C-DEDUPE-03", _STATUS["EOPNOTSUPP"], 0)
    if not may_share(c, one, other):
        return _told(c, s, "C-DEDUPE-04", _STATUS["EINVAL"], 0)
    if one.dax:
        if blocked := c.blocks("C-DEDUPE-05", waits_to_share(c, s, source, target)):
            return blocked.leaving(s)
        s = layouts_broken(layouts_broken(s, source), target)
    block = block_bytes(c, other)
    ends = start + length == one.size and goal + length == other.size
    count = length if ends else length - length % block
    whole = count + -count % block
    overlaps = source == target and goal < start + whole and start < goal + whole
    outside = start >= one.size or goal >= other.size or goal + length > other.size
    if start % block or goal % block or overlaps or outside:
        return _told(c, s, "C-DEDUPE-04", _STATUS["EINVAL"], 0)
    if count == 0:
        return _told(c, s, "C-DEDUPE-01", 0, length)
    same = _are_same(c, one, other, (start, goal, count))
    s = _looked_at(s, source, target, what)
    found: list[Next] = []
    if same is not False:
        found.append(Next(blocks_shared(c, s, source, target, start, goal, count), _tells("C-DEDUPE-01", 0, length)))
    if not same:
        looked = cleaned(cleaned(s, source, start, start + count), target, goal, goal + count)
        found.append(Next(looked, _tells("C-DEDUPE-01", 1, 0)))
    return c.returns("C-DEDUPE-01", 0).then(*found)


def _are_same(c: Context, one: Memory, other: Memory, what: tuple[int, int, int]) -> bool | None:
    """Whether two ranges are the same for FIDEDUPERANGE; None: nobody knows."""
    start, goal, count = what
    same = are_same(one.content.read(start, start + count), other.content.read(goal, goal + count))
    if volume_fact(c, "holes_are_zeroes", one):
        return same
    if one.unwritten.touches(start, start + count) or other.unwritten.touches(goal, goal + count):
        raise Undetermined("no clause covers FIDEDUPERANGE of what is only allocated, with DAX")
    held = {(a - start, b - start) for a, b in one.data.within(start, start + count).spans}
    apart = held != {(a - goal, b - goal) for a, b in other.data.within(goal, goal + count).spans}
    return same if not c.holds("C-DEDUPE-06", apart) else False


def _looked_at(s: State, source: int, target: int, what: tuple[int, int, int]) -> State:
    """Return the state in which pages of both files may have been read into a page cache to be compared."""
    start, goal, length = what
    if s.memory(source).dax:
        return s
    return perhaps_cached(perhaps_cached(s, source, start, start + length), target, goal, goal + length)
