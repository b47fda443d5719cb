"""Rules for sendfile and copy_file_range."""

from harness.model.clause import Context, Undetermined, clause
from harness.model.content import unknown
from harness.model.expectation import Expectations
from harness.model.objects import PAGE, Memory, OpenFile, Pipe, Socket, SocketKind
from harness.model.rules.effects import blocks_shared, layouts_broken, put, refused_direct, waits_to_share
from harness.model.rules.moving import (
    SLOTS,
    direct_refusal,
    end_of,
    file_moves,
    file_to_pipe,
    file_views,
    is_too_far,
    moving,
    no_room,
    odd_for_direct,
    socket_full,
    socket_gone,
    with_position,
    write_views,
)
from harness.model.rules.rule import block_bytes, look_up, may_share, rule, volume_fact
from harness.model.rules.transfers import MOST_OFFSET
from harness.model.state import State
from harness.model.value import evolve
from harness.ops import CopyFileRange, Sendfile


@rule(Sendfile)
def sendfile(c: Context, s: State, op: Sendfile) -> Expectations:
    number, source = look_up(c, s, op.source, OpenFile)
    goal, target = end_of(c, s, op.target)
    at = source.position if op.offset is None else op.offset
    unwritable = isinstance(target, OpenFile) and not target.writable
    if refused := c.refuses(
        ("EBADF", not source.readable or unwritable, "C-SPLICE-01"),
        ("EINVAL", at < 0, "C-SPLICE-05"),
        ("EINVAL", op.length > 0 and at + op.length > MOST_OFFSET, "C-SPLICE-08"),
    ):
        return refused.leaving(s)
    ends = [end for end in (source, target) if isinstance(end, OpenFile)]
    # Nothing may be sent from the very end of what can be, something not.
    last = at if op.length else at - 1
    if refused := c.refuses(("EOVERFLOW", any(is_too_far(c, s, end, last) for end in ends), "C-SPLICE-09")):
        return refused.leaving(s)
    if refused := c.refuses(("EINVAL", isinstance(target, OpenFile) and target.append, "C-SPLICE-04")):
        return refused.leaving(s)
    device = any(s.memory(end.memory).is_device for end in ends)
    if device and op.length == 0:
        raise Undetermined("no clause covers sending nothing from or to a dax device")
    if op.length == 0:
        return c.returns("C-SPLICE-07", 0).leaving(s)
    if refused := c.refuses(("EINVAL", device and not isinstance(target, Pipe), "C-DEVDAX-03")):
        return refused.leaving(s)
    if isinstance(target, Pipe):
        memory, fact = s.memory(source.memory), "sendfile_to_pipe"
        # What is written fills up the last page of what is there, and waits for room for all of it.
        fits = not target.views and min(op.length, memory.size - at) <= target.slots * PAGE
        if volume_fact(c, fact, memory) == "written" and not fits:
            raise Undetermined("no clause covers a sendfile that writes into a pipe with something in it, or more than it holds")
        return file_to_pipe(c, s, (number, source), (goal, target), op.offset, op.length, nonblock=target.nonblock, fact=fact)
    if isinstance(target, Socket):
        return _file_to_socket(c, s, op, (number, source), (goal, target), at)
    return _file_to_file(c, s, (number, source, op.offset), (goal, target, None), op.length, "C-SPLICE-10")


def _file_to_socket(c: Context, s: State, op: Sendfile, source: tuple[int, OpenFile], target: tuple[int, Socket], at: int) -> Expectations:
    (number, of), (goal, into) = source, target
    # The kernel's own pipe has 16 slots, filled and emptied until all has moved.
    if refused := c.refuses(direct_refusal(c, s, of, at, op.length, SLOTS)):
        return refused.leaving(s)
    most, copies = file_moves(c, s, of, at, op.length, SLOTS + op.length // PAGE + 1)
    if most and (gone := socket_gone(c, s, into)) is not None:
        return gone
    full = socket_full(into, most, nonblock=False) if most else ()
    if of.direct and not s.memory(of.memory).dax and op.length > SLOTS * PAGE:
        raise Undetermined("no clause covers a long sendfile from an O_DIRECT descriptor to a socket")

    def moved(count: int) -> list[State]:
        after, views = file_views(s, of, at, count, copies=copies)
        # Told that more will come, which a file that ends earlier does not keep, TCP holds the last bytes back (fs/splice.c SPLICE_F_MORE).
        held = into.kind is SocketKind.TCP and count < op.length
        after = after.with_object(goal, evolve(into, views=(*into.views, *views), held=held))
        return [with_position(after, number, of, op.offset, count)]

    return (*full, *moving(c, "C-SPLICE-10", most, s.memory(of.memory).volume).by(moved))


def _file_to_file(
    c: Context,
    s: State,
    source: tuple[int, OpenFile, int | None],
    target: tuple[int, OpenFile, int | None],
    length: int,
    clause_id: str,
) -> Expectations:
    """Return what is expected of bytes that go from file to file through a pipe of the kernel's, 16 pages at a time.

    Each of source and target is the object's number, the description and the offset that was given (None: its own position). An end
    that an O_DIRECT descriptor refuses in a later round ends the call with what went before.
    """
    (number, of, offset), (goal, into, target_offset) = source, target
    at = of.position if offset is None else offset
    to = into.position if target_offset is None else target_offset
    if s.memory(into.memory).is_bar or s.memory(of.memory).is_bar:
        raise Undetermined("no clause covers moving bytes from or to a BAR")
    most, copies = file_moves(c, s, of, at, length, SLOTS + length // PAGE + 2)
    if of.memory == into.memory and s.memory(of.memory).is_file:
        most = _fed_by_itself(s.memory(of.memory).size, at, to, length)
    moves, refusal = _rounds(c, s, (of, at), (into, to), length, most, copies=copies)
    if refusal is not None and not moves:
        if refused := c.refuses(refusal):
            return refused.leaving(*refused_direct(c, s, into, to, most))
        moves = most
    if most and (refused := c.refuses(*no_room(c, s, into, to))):
        return refused.leaving(s)

    def moved(count: int) -> list[State]:
        after = s
        if of.memory == into.memory and at < to + count and to < at + count and at != to:
            after = put(c, s, into.memory, to, unknown(count), bypass=into.direct)
        elif count:
            after, views = file_views(s, of, at, count, copies=copies)
            after = write_views(c, after, into, to, views)
        after = with_position(after, goal, into, target_offset, count)
        return [with_position(after, number, of, offset, count)]

    return moving(c, clause_id, moves, s.memory(of.memory).volume).by(moved)


def _fed_by_itself(size: int, at: int, to: int, length: int) -> int:
    """Return how many bytes move within one file of ``size``: what is written behind its end is read again in a later round."""
    moved = 0
    while moved < length:
        count = min(length - moved, SLOTS * PAGE, size - at - moved)
        if count <= 0:
            break
        moved += count
        size = max(size, to + moved)
    return moved


def _rounds(
    c: Context, s: State, source: tuple[OpenFile, int], target: tuple[OpenFile, int], length: int, most: int, *, copies: bool
) -> tuple[int, tuple[str, bool, str] | None]:
    """Return how many bytes move before an end refuses, and the row of that refusal (None: all that can move does)."""
    (of, at), (into, to) = source, target
    if not of.direct and not into.direct:
        return most, None
    moved = 0
    while moved < most:
        asked = min(length - moved, SLOTS * PAGE)
        refusal = direct_refusal(c, s, of, at + moved, asked, SLOTS)
        if refusal[1]:
            return moved, refusal
        count = min(most - moved, asked if copies else SLOTS * PAGE - (at + moved) % PAGE)
        _, views = file_views(s, of, at + moved, count, copies=copies)
        if odd_for_direct(c, s.memory(into.memory), into, to + moved, views):
            return moved, ("EINVAL", True, "C-SPLICE-21")
        moved += count
    return moved, None


clause(
    "C-COPY-01",
    "copy_file_range copies the length, or up to the end of the source; where blocks are shared it may stop at the last whole block",
    "copy_file_range(2); fs/read_write.c vfs_copy_file_range, fs/remap_range.c generic_remap_checks, generic_remap_check_len",
)
clause("C-COPY-02", "between different file systems copy_file_range is EXDEV", "copy_file_range(2), since 5.19")
clause(
    "C-COPY-03",
    "copy_file_range needs regular files (EINVAL), the source open for reading, the target for writing and not for appending (EBADF)",
    "copy_file_range(2) ERRORS; fs/read_write.c generic_file_rw_checks",
)
clause(
    "C-COPY-04",
    "copy_file_range to an overlapping part of the same file is EINVAL; the length is cut to the end of the source before that is asked",
    "copy_file_range(2) ERRORS; fs/read_write.c generic_copy_file_checks",
)
clause(
    "C-COPY-05",
    "copy_file_range at an offset before 0 is EINVAL, or EOVERFLOW where offset and length together pass 0",
    "fs/read_write.c generic_copy_file_checks compares them unsigned, rw_verify_area",
)
clause("C-COPY-06", "copying nothing returns 0 and changes nothing", "copy_file_range(2); fs/read_write.c vfs_copy_file_range")
clause(
    "C-COPY-07",
    "copy_file_range on DAX waits, where blocks can be shared, until nobody holds a page of either file",
    "fs/xfs/xfs_inode.c xfs_ilock2_io_mmap, xfs_mmaplock_two_inodes_and_break_dax_layout",
)


@rule(CopyFileRange)
def copy_file_range(c: Context, s: State, op: CopyFileRange) -> Expectations:
    source_number, source = look_up(c, s, op.source, OpenFile)
    target_number, target = look_up(c, s, op.target, OpenFile)
    from_memory, to_memory = s.memory(source.memory), s.memory(target.memory)
    start = source.position if op.source_offset is None else op.source_offset
    goal = target.position if op.target_offset is None else op.target_offset
    if refused := c.refuses(
        ("EINVAL", not from_memory.is_file or not to_memory.is_file, "C-COPY-03"),
        ("EBADF", not source.readable or not target.writable or target.append, "C-COPY-03"),
        ("EXDEV", from_memory.volume != to_memory.volume, "C-COPY-02"),
    ):
        return refused.leaving(s)
    length = op.length if start < 0 else min(op.length, max(0, from_memory.size - start))
    wraps = any(at < 0 and at + op.length >= 0 for at in (start, goal))
    if refused := c.refuses(
        ("EOVERFLOW", wraps, "C-COPY-05"),
        ("EINVAL", start < 0 or goal < 0, "C-COPY-05"),
        ("EFBIG", goal >= 0 and is_too_far(c, s, target, goal), "C-RW-11"),
        ("EINVAL", source.memory == target.memory and goal + length > start and goal < start + length, "C-COPY-04"),
    ):
        return refused.leaving(s)
    if length == 0:
        return c.returns("C-COPY-06", 0).leaving(s)
    pair = (source_number, source, op.source_offset), (target_number, target, op.target_offset)
    if not volume_fact(c, "copy_shares_blocks", to_memory) or not may_share(c, from_memory, to_memory):
        return _file_to_file(c, s, *pair, length, "C-COPY-01")
    if from_memory.dax:
        if blocked := c.blocks("C-COPY-07", waits_to_share(c, s, source.memory, target.memory)):
            return blocked.leaving(s)
        s = layouts_broken(layouts_broken(s, source.memory), target.memory)
    shared = _shareable(from_memory, to_memory, start, goal, length, block_bytes(c, to_memory))
    if not shared:
        return _file_to_file(c, s, *pair, length, "C-COPY-01")
    return moving(c, "C-COPY-01", shared, to_memory.volume).by(lambda count: [_shared(c, s, *pair, start, goal, count)])


def _shareable(source: Memory, target: Memory, start: int, goal: int, length: int, block: int) -> int:
    """Return how many bytes sharing blocks copies: whole blocks, and a part of one only at the end of both files. 0: it is refused."""
    if start % block or goal % block:
        return 0
    if start + length < source.size:
        length -= length % block
    if length % block and goal + length < target.size:
        length -= length % block
    return length


def _shared(
    c: Context,
    s: State,
    source: tuple[int, OpenFile, int | None],
    target: tuple[int, OpenFile, int | None],
    start: int,
    goal: int,
    count: int,
) -> State:
    """Return the state after blocks were shared."""
    (number, of, offset), (other, into, target_offset) = source, target
    s = blocks_shared(c, s, of.memory, into.memory, start, goal, count)
    s = with_position(s, other, into, target_offset, count)
    return with_position(s, number, of, offset, count)
