"""Rules for pipes and sockets, and for all that moves pages into and out of them: splice, sendfile, tee, vmsplice, send.

A pipe is a row of slots of at most a page. What fills a slot is a copy, or an alias: a reference to a page that a file, or
a mapping, still has. Which of the two decides what a reader sees after the file was changed. Counts are accepted by
condition; the state takes the count that was seen.
"""

from collections.abc import Sequence
from dataclasses import replace

from harness.model.clause import Context, Undetermined, clause
from harness.model.content import Pieces, cut, length_of, tagged, zeroes
from harness.model.operation import Pipe as PipeOperation
from harness.model.operation import (
    Read,
    Recv,
    RecvErrqueue,
    Send,
    Sendfile,
    SendFlag,
    SetPipeSize,
    SetZerocopy,
    Splice,
    SpliceFlag,
    TcpPair,
    Tee,
    UnixPair,
    Vmsplice,
    Write,
)
from harness.model.rule import cache, look_up, mapping_bytes, mapping_reaches, put, rule, store_into, touch, volume_fact
from harness.model.rules_files import read_file, write_file
from harness.model.state import PAGE, Mapping, Memory, OpenFile, Pipe, Socket, State, View, copy_view, page_ceil, page_floor, take

#: A connected pair of stream sockets takes this much without a reader (net.core.wmem_default, tcp_rmem: more than that).
SOCKET_SURE_BYTES = 64 * 1024
#: Of a zero-copy send over loopback, this much reaches the receiver's queue at once, where it is a copy (tcp_rmem: the
#: first window is about half the receive buffer), and no more than that much: the buffer itself, nobody reading.
DELIVERED_SURE_BYTES = 32 * 1024
DELIVERED_MOST_BYTES = 192 * 1024
#: What the sender's side holds for sure, and never more than.
SENDER_SURE_BYTES = 512 * 1024
#: The slots of the pipe that sendfile uses inside the kernel, and of every new pipe.
SLOTS = 16

# ---- pipes -----------------------------------------------------------------------------------------------------------

clause("C-PIPE-01", "pipe2 gives a pipe of 16 slots, each for at most one page", "pipe(7); include/linux/pipe_fs_i.h PIPE_DEF_BUFFERS")
clause("C-PIPE-02", "F_SETPIPE_SZ rounds up to a power of two of pages and returns that", "fcntl(2); fs/pipe.c round_pipe_size")
clause("C-PIPE-03", "a pipe cannot become smaller than its filled slots: EBUSY", "fcntl(2) ERRORS; fs/pipe.c pipe_resize_ring")
clause("C-PIPE-04", "a read from a pipe returns what is there, up to the length", "pipe(7); fs/pipe.c pipe_read")
clause("C-PIPE-05", "a pipe gives its bytes in order: copies as they were, aliases as their page is now", "pipe(7); fs/pipe.c pipe_read")
clause("C-PIPE-06", "taking from an empty pipe with a writer waits", "pipe(7), splice(2); fs/splice.c splice_from_pipe_next, ipipe_prep")
clause("C-PIPE-07", "taking from an empty pipe with a writer, non-blocking, is EAGAIN", "pipe(7), splice(2) SPLICE_F_NONBLOCK")
clause("C-PIPE-08", "taking from an empty pipe without writers gives 0", "pipe(7)")
clause(
    "C-PIPE-09",
    "a write to a pipe fills free slots page by page; a tail smaller than a page may go behind what the last write left in its slot",
    "pipe(7); fs/pipe.c pipe_write, PIPE_BUF_FLAG_CAN_MERGE",
)
clause("C-PIPE-10", "filling a pipe that has no free slot waits", "pipe(7), splice(2); fs/splice.c wait_for_space, opipe_prep")
clause("C-PIPE-11", "filling a pipe that has no free slot, non-blocking, is EAGAIN", "pipe(7), splice(2) SPLICE_F_NONBLOCK")
clause("C-PIPE-12", "filling a pipe that nobody reads is EPIPE (the signal is ignored)", "pipe(7)")
clause("C-PIPE-13", "a buffer that the process may not read or write is EFAULT", "read(2), write(2) ERRORS")


@rule(PipeOperation)
def pipe(c: Context, s: State, op: PipeOperation) -> list[State]:
    if not c.returns("C-PIPE-01", 0):
        return []
    s, number = s.adding(Pipe(slots=SLOTS, nonblock=op.nonblock))
    return [s.naming(c.process, op.name, number)]


@rule(SetPipeSize)
def set_pipe_size(c: Context, s: State, op: SetPipeSize) -> list[State]:
    number, of = look_up(c, s, op.pipe, Pipe)
    if op.size < 0 or op.size > 1 << 20:
        raise Undetermined("no clause covers a pipe of more than 1 MiB")
    slots = 1
    while slots * PAGE < op.size:
        slots *= 2
    if c.refuses(("EBUSY", slots < len(of.views), "C-PIPE-03")):
        return [s] if c.settled else []
    return [s.with_object(number, replace(of, slots=slots))] if c.returns("C-PIPE-02", slots * PAGE) else []


@rule(Read)
def read(c: Context, s: State, op: Read) -> list[State]:
    number, of = _end(c, s, op.file)
    if not isinstance(of, Pipe):
        return read_file(c, s, op)
    if op.length <= 0:
        raise Undetermined("no clause covers reading nothing from a pipe")
    ended = _source_ends(c, s, of, nonblock=of.nonblock)
    if ended is not None:
        return ended
    into = None if op.into is None else look_up(c, s, op.into, Mapping)
    count = min(op.length, of.length)
    if into is not None:
        reaches = into[1].writable and mapping_reaches(s, into[1], op.into_offset, count)
        if c.refuses(("EFAULT", not reaches, "C-PIPE-13")):
            raise Undetermined("how much of a pipe a failed read takes is not specified")
    if not c.returns("C-PIPE-04", count):
        return []
    head, rest = take(of.views, count)
    pieces = s.resolve(head)
    if into is None and not c.shows("C-PIPE-05", pieces):
        return []
    s = s.with_object(number, replace(of, views=rest))
    return [s if into is None else store_into(c, s, into[0], op.into_offset, pieces)]


@rule(Write)
def write(c: Context, s: State, op: Write) -> list[State]:
    number, of = _end(c, s, op.file)
    if not isinstance(of, Pipe):
        return write_file(c, s, op)
    if op.length <= 0:
        raise Undetermined("no clause covers writing nothing to a pipe")
    pieces = _outgoing(c, s, op.length, op.from_, op.from_offset, "C-PIPE-13")
    if pieces is None:
        return [s] if c.settled else []
    filled, count = _appended(of, pieces)
    if c.refuses(("EPIPE", not of.read_open, "C-PIPE-12"), ("EAGAIN", count == 0 and of.nonblock, "C-PIPE-11")):
        return [s] if c.settled else []
    after = s.with_object(number, replace(of, views=filled))
    if not of.nonblock and c.blocks("C-PIPE-10", count < op.length):
        return [after] if c.settled else []
    return [after] if c.returns("C-PIPE-09", count) else []


def _appended(of: Pipe, pieces: Pieces) -> tuple[tuple[View, ...], int]:
    """Return the slots of the pipe after a write of ``pieces``, and how many of its bytes found room."""
    total, at, views = length_of(pieces), 0, list(of.views)
    tail = total % PAGE
    if views and 0 < tail <= views[-1].room:
        last = views[-1]
        joined = (*(last.pieces or ()), *cut(pieces, 0, tail))
        views[-1] = replace(last, length=last.length + tail, pieces=joined, room=last.room - tail)
        at = tail
    while at < total and len(views) < of.slots:
        part = cut(pieces, at, at + PAGE)
        length = length_of(part)
        views.append(replace(copy_view(part), room=PAGE - length))
        at += length
    return tuple(views), at


# ---- what many of them ask -------------------------------------------------------------------------------------------

clause("C-SPLICE-01", "the source must be open for reading and the target for writing: EBADF", "splice(2) ERRORS")
clause("C-SPLICE-02", "splice between two ends of which neither is a pipe is EINVAL", "splice(2) ERRORS")
clause("C-SPLICE-03", "an offset for a pipe is ESPIPE", "splice(2) ERRORS")
clause("C-SPLICE-04", "a target opened with O_APPEND is EINVAL", "splice(2) ERRORS; fs/splice.c do_splice_direct for sendfile")
clause("C-SPLICE-05", "a negative offset, or an offset for a socket, is EINVAL", "fs/splice.c do_splice; fs/read_write.c rw_verify_area")
clause("C-SPLICE-06", "splicing or teeing a pipe into itself is EINVAL", "splice(2), tee(2) ERRORS")
clause("C-SPLICE-07", "moving 0 bytes returns 0", "splice(2), tee(2), vmsplice(2)")


def _end(c: Context, s: State, name: str) -> tuple[int, OpenFile | Pipe | Socket]:
    number, thing = look_up(c, s, name, object)  # type: ignore[type-var]
    if not isinstance(thing, OpenFile | Pipe | Socket):
        raise Undetermined(f"{name} is a {type(thing).__name__}")
    return number, thing


def _source_ends(c: Context, s: State, of: Pipe, *, nonblock: bool) -> list[State] | None:
    """Return the answer of taking from a pipe with nothing in it, or None where there is something."""
    empty = not of.views
    if empty and c.holds("C-PIPE-08", not of.write_open):
        return [s] if c.returns("C-PIPE-08", 0) else []
    if c.refuses(("EAGAIN", empty and nonblock, "C-PIPE-07")) or (not nonblock and c.blocks("C-PIPE-06", empty)):
        return [s] if c.settled else []
    return None


def _target_refuses(c: Context, s: State, of: Pipe, *, nonblock: bool) -> list[State] | None:
    """Return the answer of filling a pipe without a free slot, or None where there is one."""
    full = len(of.views) >= of.slots
    if c.refuses(("EPIPE", not of.read_open, "C-PIPE-12"), ("EAGAIN", of.read_open and full and nonblock, "C-PIPE-11")):
        return [s] if c.settled else []
    if not nonblock and c.blocks("C-PIPE-10", full):
        return [s] if c.settled else []
    return None


def _outgoing(c: Context, s: State, length: int, from_: str | None, offset: int, clause_id: str) -> Pieces | None:
    """Return what a buffer holds, or None where it cannot be read: then :attr:`Context.settled` says whether that was seen."""
    if from_ is None:
        return tagged(c.writer, length)
    _, m = look_up(c, s, from_, Mapping)
    if c.refuses(("EFAULT", not m.readable or not mapping_reaches(s, m, offset, length), clause_id)):
        if m.readable and mapping_reaches(s, m, offset, 1) and not c.settled:
            raise Undetermined("how much of a buffer that can be read in part is written is not specified")
        return None
    return mapping_bytes(s, m, offset, length)


def _pages_of(views: Sequence[View]) -> tuple[View, ...]:
    """Return ``views`` without the right to append: what another pipe or a socket gets."""
    return tuple(replace(v, room=0) for v in views)


# ---- from a file -----------------------------------------------------------------------------------------------------

clause(
    "C-SPLICE-10",
    "from a file at least 1 byte moves and at most the length, what the file has, and what the free slots take; 0 only at its end",
    "splice(2), sendfile(2); mm/filemap.c filemap_splice_read and fs/splice.c copy_splice_read (6.12), generic_file_splice_read (6.1)",
)
clause(
    "C-SPLICE-11",
    "from an O_DIRECT descriptor without DAX offset and length must be multiples of the logical block size: EINVAL",
    "open(2) NOTES; fs/splice.c copy_splice_read calls ->read_iter (6.12), generic_file_splice_read too (6.1)",
)


def _file_moves(c: Context, s: State, of: OpenFile, at: int, length: int, slots: int) -> tuple[int, bool]:
    """Return how many bytes can move from ``of`` at ``at`` into ``slots`` free slots, and whether they are copies."""
    memory = s.memory(of.memory)
    if memory.kind == "bar":
        raise Undetermined("no clause covers splicing from a BAR")
    copies = of.direct or volume_fact(c, "splice_to_pipe", memory) == "copy"
    # A page of the cache is taken as it lies in the file, so an odd offset costs part of the first slot.
    room = slots * PAGE if copies else slots * PAGE - at % PAGE
    return min(length, room, max(0, memory.size - at)), copies


def _direct_refusal(c: Context, s: State, of: OpenFile, at: int, length: int, slots: int) -> tuple[str, bool, str]:
    memory = s.memory(of.memory)
    step = int(volume_fact(c, "dio_offset_alignment", memory)) if of.direct and not memory.dax else 1
    odd = at % step != 0 or min(length, slots * PAGE) % step != 0
    return ("EINVAL", odd and at < memory.size, "C-SPLICE-11")


def _file_views(c: Context, s: State, of: OpenFile, at: int, count: int, *, copies: bool) -> tuple[State, tuple[View, ...]]:
    """Return the slots that ``count`` bytes of ``of`` fill, and the state with the pages that they are in the cache."""
    end = at + count
    if copies:
        if not of.direct:
            s = cache(s, of.memory, page_floor(at), page_ceil(end))
        pieces = s.memory(of.memory).content.read(at, end)
        return s, tuple(copy_view(cut(pieces, x, min(x + PAGE, count))) for x in range(0, count, PAGE))
    s = cache(s, of.memory, page_floor(at), page_ceil(end))
    starts = [at, *range(page_floor(at) + PAGE, end, PAGE)]
    stops = [*starts[1:], end]
    return s, tuple(View(b - a, memory=of.memory, start=a) for a, b in zip(starts, stops, strict=True) if a < b)


def _counted(c: Context, clause_id: str, most: int) -> bool:
    return c.counts(clause_id, lambda n: 0 < n <= most if most else n == 0, f"1..{most}" if most else "0")


def _advanced(s: State, number: int, of: OpenFile, offset: int | None, count: int) -> State:
    """Return the state with the file's own position moved on, where that is the one in use."""
    return s if offset is not None else s.with_object(number, replace(of, position=of.position + count))


# ---- into a file -----------------------------------------------------------------------------------------------------

clause(
    "C-SPLICE-20",
    "into a file at least 1 byte moves and at most the length and what the pipe holds",
    "splice(2); fs/splice.c iter_file_splice_write",
)
clause(
    "C-SPLICE-21",
    "into an O_DIRECT descriptor without DAX offset, count and every slot must be aligned to the logical block size: EINVAL",
    "open(2) NOTES; fs/splice.c iter_file_splice_write hands the slots on as they are; lib/iov_iter.c iov_iter_is_aligned",
)


def _odd_for_direct(c: Context, memory: Memory, of: OpenFile, at: int, views: Sequence[View]) -> bool:
    if not of.direct or memory.dax:
        return False
    step = int(volume_fact(c, "dio_offset_alignment", memory))
    return at % step != 0 or any(v.length % step != 0 for v in views)


def _written(c: Context, s: State, of: OpenFile, at: int, views: tuple[View, ...]) -> State:
    """Return the state after ``views`` were written to the file: the bytes are copied, whatever they were in the pipe."""
    memory = s.memory(of.memory)
    end = at + sum(v.length for v in views)
    if memory.kind == "bar" or (memory.kind == "node" and end > memory.size):
        raise Undetermined("no clause covers splicing to a BAR, or across the end of a node")
    goal = at
    for view in views:
        own = view.is_alias and view.memory == of.memory and view.start != goal
        if own and view.start < end and at < view.start + view.length:
            raise Undetermined("what a file becomes when it is written from an overlapping part of itself is not specified")
        goal += view.length
    return put(c, s, of.memory, at, s.resolve(views), bypass=of.direct)


# ---- splice ----------------------------------------------------------------------------------------------------------

clause(
    "C-SPLICE-30",
    "between pipes at least 1 byte moves and at most the length, what is there, and what the free slots take",
    "splice(2), tee(2); fs/splice.c splice_pipe_to_pipe, link_pipe",
)
clause(
    "C-SPLICE-40", "into a socket at least 1 byte moves and at most the length and what is there", "splice(2); fs/splice.c splice_to_socket"
)
clause(
    "C-SOCK-04",
    "a socket without a reader may stop taking bytes, but only after it took as many as its default buffers hold",
    "socket(7) SO_SNDBUF; tcp(7) tcp_wmem, tcp_rmem",
)


@rule(Splice)
def splice(c: Context, s: State, op: Splice) -> list[State]:
    number, source = _end(c, s, op.source)
    goal, target = _end(c, s, op.target)
    if op.length == 0:
        return [s] if c.returns("C-SPLICE-07", 0) else []
    if c.refuses(
        ("ESPIPE", isinstance(source, Pipe) and op.source_offset is not None, "C-SPLICE-03"),
        ("ESPIPE", isinstance(target, Pipe) and op.target_offset is not None, "C-SPLICE-03"),
    ):
        return [s] if c.settled else []
    unreadable = isinstance(source, OpenFile) and not source.readable
    unwritable = isinstance(target, OpenFile) and not target.writable
    if c.refuses(("EBADF", unreadable or unwritable, "C-SPLICE-01")):
        return [s] if c.settled else []
    if c.refuses(
        ("EINVAL", not isinstance(source, Pipe) and not isinstance(target, Pipe), "C-SPLICE-02"),
        ("EINVAL", number == goal and isinstance(source, Pipe), "C-SPLICE-06"),
        ("EINVAL", (op.source_offset or 0) < 0 or (op.target_offset or 0) < 0, "C-SPLICE-05"),
        ("EINVAL", isinstance(target, Socket) and op.target_offset is not None, "C-SPLICE-05"),
        ("EINVAL", isinstance(target, OpenFile) and target.append, "C-SPLICE-04"),
    ):
        return [s] if c.settled else []
    if isinstance(source, OpenFile) and isinstance(target, Pipe):
        nonblock = SpliceFlag.NONBLOCK in op.flags or target.nonblock
        return _file_to_pipe(c, s, (number, source), (goal, target), op.source_offset, op.length, nonblock=nonblock)
    if isinstance(source, Pipe):
        return _from_pipe(c, s, op, (number, source), (goal, target))
    raise Undetermined("no clause covers splicing from a socket")


def _file_to_pipe(
    c: Context,
    s: State,
    source: tuple[int, OpenFile],
    target: tuple[int, Pipe],
    offset: int | None,
    length: int,
    *,
    nonblock: bool,
) -> list[State]:
    (number, of), (goal, into) = source, target
    refused = _target_refuses(c, s, into, nonblock=nonblock)
    if refused is not None:
        return refused
    at = of.position if offset is None else offset
    free = into.slots - len(into.views)
    if c.refuses(_direct_refusal(c, s, of, at, length, free)):
        return [s] if c.settled else []
    most, copies = _file_moves(c, s, of, at, length, free)
    if not _counted(c, "C-SPLICE-10", most):
        return []
    s, views = _file_views(c, s, of, at, c.seen.value, copies=copies)
    s = s.with_object(goal, replace(into, views=(*into.views, *views)))
    return [_advanced(s, number, of, offset, c.seen.value)]


def _from_pipe(c: Context, s: State, op: Splice, source: tuple[int, Pipe], target: tuple[int, OpenFile | Pipe | Socket]) -> list[State]:
    (number, of), (goal, into) = source, target
    nonblock = SpliceFlag.NONBLOCK in op.flags or of.nonblock or (isinstance(into, Pipe) and into.nonblock)
    ended = _source_ends(c, s, of, nonblock=nonblock)
    if ended is not None:
        return ended
    if isinstance(into, Pipe):
        refused = _target_refuses(c, s, into, nonblock=nonblock)
        if refused is not None:
            return refused
        if not _counted(c, "C-SPLICE-30", _movable(of, into, op.length)):
            return []
        head, rest = take(of.views, c.seen.value)
        s = s.with_object(number, replace(of, views=rest))
        return [s.with_object(goal, replace(into, views=(*into.views, *head)))]
    most = min(op.length, of.length)
    if isinstance(into, Socket):
        stopped = _socket_stops(c, s, into, most, nonblock=nonblock)
        if stopped is not None:
            return stopped
        if not _counted(c, "C-SPLICE-40", most):
            return []
        head, rest = take(of.views, c.seen.value)
        s = s.with_object(number, replace(of, views=rest))
        return [s.with_object(goal, replace(into, views=(*into.views, *_pages_of(head))))]
    at = into.position if op.target_offset is None else op.target_offset
    head, rest = take(of.views, most)
    if c.refuses(("EINVAL", _odd_for_direct(c, s.memory(into.memory), into, at, head), "C-SPLICE-21")):
        return [s] if c.settled else []
    if not _counted(c, "C-SPLICE-20", most):
        return []
    head, rest = take(of.views, c.seen.value)
    s = _written(c, s, into, at, head)
    s = s.with_object(number, replace(of, views=rest))
    return [_advanced(s, goal, into, op.target_offset, c.seen.value)]


def _movable(of: Pipe, into: Pipe, length: int) -> int:
    """Return how many bytes fit: slots move whole, and the last one in part."""
    free = into.slots - len(into.views)
    return min(length, sum(v.length for v in of.views[:free]))


def _socket_stops(c: Context, s: State, into: Socket, most: int, *, nonblock: bool) -> list[State] | None:
    """Return the answer of a socket that takes no more, where it may do so and did; else None."""
    if into.kind not in ("tcp", "unix"):
        raise Undetermined(f"no clause covers sending to a {into.kind} socket")
    if into.length + most <= SOCKET_SURE_BYTES:
        return None
    full = c.seen.describe() == ("EAGAIN" if nonblock else "blocked")
    if full and c.agrees("C-SOCK-04", True, "stops taking bytes", c.seen.describe()):
        raise Undetermined("how much a socket took before it stopped is not known to the model")
    return None


# ---- sendfile --------------------------------------------------------------------------------------------------------


@rule(Sendfile)
def sendfile(c: Context, s: State, op: Sendfile) -> list[State]:
    number, source = look_up(c, s, op.source, OpenFile)
    goal, target = _end(c, s, op.target)
    at = source.position if op.offset is None else op.offset
    unwritable = isinstance(target, OpenFile) and not target.writable
    if c.refuses(("EBADF", not source.readable or unwritable, "C-SPLICE-01"), ("EINVAL", at < 0, "C-SPLICE-05")):
        return [s] if c.settled else []
    if c.refuses(("EINVAL", isinstance(target, OpenFile) and target.append, "C-SPLICE-04")):
        return [s] if c.settled else []
    if op.length == 0:
        return [s] if c.returns("C-SPLICE-07", 0) else []
    if isinstance(target, Pipe):
        return _file_to_pipe(c, s, (number, source), (goal, target), op.offset, op.length, nonblock=target.nonblock)
    # The kernel's own pipe has 16 slots, filled and emptied until all has moved.
    if c.refuses(_direct_refusal(c, s, source, at, op.length, SLOTS)):
        return [s] if c.settled else []
    most, copies = _file_moves(c, s, source, at, op.length, SLOTS + op.length // PAGE + 1)
    if isinstance(target, Socket):
        stopped = _socket_stops(c, s, target, most, nonblock=False)
        if stopped is not None:
            return stopped
        if not _counted(c, "C-SPLICE-10", most):
            return []
        s, views = _file_views(c, s, source, at, c.seen.value, copies=copies)
        s = s.with_object(goal, replace(target, views=(*target.views, *views)))
        return [_advanced(s, number, source, op.offset, c.seen.value)]
    _, views = _file_views(c, s, source, at, most, copies=copies)
    into = s.memory(target.memory)
    if c.refuses(("EINVAL", _odd_for_direct(c, into, target, target.position, views[:SLOTS]), "C-SPLICE-21")):
        return [s] if c.settled else []
    if not _counted(c, "C-SPLICE-10", most):
        return []
    count = c.seen.value
    if source.memory == target.memory and at < target.position + count and target.position < at + count and at != target.position:
        raise Undetermined("what a file becomes when it is written from an overlapping part of itself is not specified")
    s, views = _file_views(c, s, source, at, count, copies=copies)
    if count:
        s = _written(c, s, target, target.position, views)
    s = _advanced(s, goal, target, None, count)
    return [_advanced(s, number, source, op.offset, count)]


# ---- tee and vmsplice ------------------------------------------------------------------------------------------------

clause(
    "C-VMS-01",
    "vmsplice of memory that cannot be read, or has no struct pages, is EFAULT; what can be read before that moves",
    "vmsplice(2); mm/gup.c check_vma_flags: VM_IO and VM_PFNMAP are EFAULT; fs/splice.c iter_to_pipe",
)
clause(
    "C-VMS-02",
    "vmsplice moves at least 1 byte and at most the length, what can be read, and what the free slots take, page by page",
    "vmsplice(2); fs/splice.c iter_to_pipe, add_to_pipe",
)


@rule(Tee)
def tee(c: Context, s: State, op: Tee) -> list[State]:
    number, of = look_up(c, s, op.source, Pipe)
    goal, into = look_up(c, s, op.target, Pipe)
    if op.length == 0:
        return [s] if c.returns("C-SPLICE-07", 0) else []
    if c.refuses(("EINVAL", number == goal, "C-SPLICE-06")):
        return [s] if c.settled else []
    nonblock = SpliceFlag.NONBLOCK in op.flags or of.nonblock or into.nonblock
    ended = _source_ends(c, s, of, nonblock=nonblock)
    if ended is not None:
        return ended
    refused = _target_refuses(c, s, into, nonblock=nonblock)
    if refused is not None:
        return refused
    if not _counted(c, "C-SPLICE-30", _movable(of, into, op.length)):
        return []
    head, _ = take(of.views, c.seen.value)
    return [s.with_object(goal, replace(into, views=(*into.views, *_pages_of(head))))]


@rule(Vmsplice)
def vmsplice(c: Context, s: State, op: Vmsplice) -> list[State]:
    goal, into = look_up(c, s, op.pipe, Pipe)
    number, m = look_up(c, s, op.mapping, Mapping)
    if op.length == 0:
        return [s] if c.returns("C-SPLICE-07", 0) else []
    if m.writable and not m.readable:
        raise Undetermined("no clause covers pinning memory that may only be written")
    refused = _target_refuses(c, s, into, nonblock=SpliceFlag.NONBLOCK in op.flags)
    if refused is not None:
        return refused
    there = _readable_bytes(s, m, op.offset, op.length)
    if c.refuses(("EFAULT", not m.readable or there == 0, "C-VMS-01")):
        return [s] if c.settled else []
    free = into.slots - len(into.views)
    if not _counted(c, "C-VMS-02", min(there, free * PAGE - op.offset % PAGE)):
        return []
    end = op.offset + c.seen.value
    states = []
    for state in _faulted_in(s, number, op.offset, end):
        views = _mapped_views(c, state, number, op.offset, end)
        states.append(state.with_object(goal, replace(into, views=(*into.views, *views))))
    return states


def _readable_bytes(s: State, m: Mapping, start: int, length: int) -> int:
    """Return how many bytes from ``start`` on can be pinned, up to the first page that cannot."""
    if not s.memory(m.memory).has_struct_pages:
        return 0
    there = 0
    while there < length:
        step = min(length - there, PAGE - (start + there) % PAGE)
        if not mapping_reaches(s, m, start + there, step):
            break
        there += step
    return there


def _faulted_in(s: State, number: int, start: int, end: int) -> list[State]:
    m = s.objects[number]
    assert isinstance(m, Mapping)
    anonymous = s.memory(m.memory).kind == "anonymous"
    return [s] if anonymous else touch(s, number, start, end, write=False)


def _mapped_views(c: Context, s: State, number: int, start: int, end: int) -> tuple[View, ...]:
    """Return one view a page of what the page table of mapping ``number`` refers to."""
    m = s.objects[number]
    assert isinstance(m, Mapping)
    memory = s.memory(m.memory)
    views = []
    while start < end:
        stop = min(end, page_floor(start) + PAGE)
        views.append(_page_view(c, s, number, m, memory, start, stop))
        start = stop
    return tuple(views)


def _page_view(c: Context, s: State, number: int, m: Mapping, memory: Memory, start: int, stop: int) -> View:
    length = stop - start
    if page_floor(start) in m.private_pages:
        if len(s.processes) > 1:
            raise Undetermined("who keeps a private page that a pipe refers to and processes share is not known to the model")
        return View(length, start=start, overlay=number)
    if memory.kind == "anonymous" and not m.shared:
        return copy_view(zeroes(length))  # the zero page, which no store ever changes
    at = m.offset + start
    if memory.is_file and volume_fact(c, "hole_page", memory) == "zero_page" and page_floor(at) not in memory.data:
        return copy_view(zeroes(length))
    return View(length, memory=m.memory, start=at, pins=True)


# ---- sockets ---------------------------------------------------------------------------------------------------------

clause("C-SOCK-01", "a connected pair of stream sockets is made", "socketpair(2), tcp(7)")
clause("C-SOCK-02", "SO_ZEROCOPY can be set on TCP, and is EOPNOTSUPP on Unix sockets", "net/core/sock.c sock_setsockopt; msg_zerocopy.rst")
clause("C-SOCK-03", "send takes the bytes; all of them where the socket has room", "send(2)")
clause("C-SOCK-05", "send from memory that cannot be read is EFAULT", "send(2) ERRORS")
clause(
    "C-SOCK-06",
    "recv with MSG_WAITALL returns the length, and waits while there is less; without waiting it returns what is there, or EAGAIN",
    "recv(2)",
)
clause(
    "C-SOCK-07",
    "a socket gives its bytes in order: copies as they were, spliced pages as they are now",
    "tcp(7); net/core/skbuff.c skb_splice_from_iter (since 6.5), net/ipv4/tcp.c do_tcp_sendpages and net/unix unix_stream_sendpage (6.1)",
)
clause(
    "C-ZC-01",
    "a zero-copy send needs struct pages that it can pin: EFAULT",
    "net/core/datagram.c __zerocopy_sg_from_iter; mm/gup.c check_vma_flags",
)
clause(
    "C-ZC-02",
    "over loopback, zero-copy data is copied when it reaches the receiver's queue, and its pages are let go",
    "net/core/dev.c __netif_receive_skb_core calls skb_orphan_frags_rx; Documentation/networking/msg_zerocopy.rst Loopback",
)
clause(
    "C-ZC-03",
    "each zero-copy send is completed once, in order, as copied over loopback; while its data waits at the sender, it is not",
    "Documentation/networking/msg_zerocopy.rst Notification Reception",
)


@rule(TcpPair)
def tcp_pair(c: Context, s: State, op: TcpPair) -> list[State]:
    return _socket_made(c, s, op.name, "tcp")


@rule(UnixPair)
def unix_pair(c: Context, s: State, op: UnixPair) -> list[State]:
    return _socket_made(c, s, op.name, "unix")


def _socket_made(c: Context, s: State, name: str, kind: str) -> list[State]:
    if not c.returns("C-SOCK-01", 0):
        return []
    s, number = s.adding(Socket(kind))
    return [s.naming(c.process, name, number)]


@rule(SetZerocopy)
def set_zerocopy(c: Context, s: State, op: SetZerocopy) -> list[State]:
    number, of = look_up(c, s, op.socket, Socket)
    if c.refuses(("EOPNOTSUPP", of.kind == "unix", "C-SOCK-02")):
        return [s] if c.settled else []
    return [s.with_object(number, replace(of, zerocopy=True))] if c.returns("C-SOCK-02", 0) else []


@rule(Send)
def send(c: Context, s: State, op: Send) -> list[State]:
    number, of = look_up(c, s, op.socket, Socket)
    if op.length <= 0:
        raise Undetermined("no clause covers sending nothing")
    if SendFlag.ZEROCOPY in op.flags and of.zerocopy:
        return _send_zerocopy(c, s, op, number, of)
    pieces = _outgoing(c, s, op.length, op.from_, op.from_offset, "C-SOCK-05")
    if pieces is None:
        return [s] if c.settled else []
    stopped = _socket_stops(c, s, of, op.length, nonblock=SendFlag.DONTWAIT in op.flags)
    if stopped is not None:
        return stopped
    if not _sent(c, op, of.length + op.length <= SOCKET_SURE_BYTES):
        return []
    return [s.with_object(number, replace(of, views=(*of.views, copy_view(cut(pieces, 0, c.seen.value)))))]


def _sent(c: Context, op: Send, fits: bool) -> bool:
    if fits or SendFlag.DONTWAIT not in op.flags:
        return c.returns("C-SOCK-03", op.length)
    return _counted(c, "C-SOCK-03", op.length)


def _send_zerocopy(c: Context, s: State, op: Send, number: int, of: Socket) -> list[State]:
    queued = of.length
    if queued + op.length > SENDER_SURE_BYTES or SendFlag.DONTWAIT in op.flags:
        raise Undetermined("how much of a large zero-copy send waits at the sender is not specified")
    if DELIVERED_SURE_BYTES < queued + op.length <= DELIVERED_MOST_BYTES:
        raise Undetermined("how much of a zero-copy send reaches the receiver at once is not specified")
    if op.from_ is None:
        if not _sent(c, op, True):
            return []
        sent = View(op.length, pieces=tagged(c.writer, op.length))
        return [s.with_object(number, replace(of, views=(*of.views, sent), sends=of.sends + 1))]
    mapping, m = look_up(c, s, op.from_, Mapping)
    there = _readable_bytes(s, m, op.from_offset, op.length)
    if c.refuses(("EFAULT", not m.readable or there == 0, "C-ZC-01")):
        return [s] if c.settled else []
    if there < op.length:
        raise Undetermined("how much of a buffer that can be read in part is sent is not specified")
    if not _sent(c, op, True):
        return []
    states = []
    for state in _faulted_in(s, mapping, op.from_offset, op.from_offset + op.length):
        pages = _mapped_views(c, state, mapping, op.from_offset, op.from_offset + op.length)
        arrived, left = take(pages, max(0, DELIVERED_SURE_BYTES - queued))
        perhaps, waiting = take(left, max(0, DELIVERED_MOST_BYTES - max(queued, DELIVERED_SURE_BYTES)))
        if perhaps and any(v.overlay for v in perhaps):
            raise Undetermined("no clause covers a large zero-copy send of private pages")
        copied = tuple(copy_view(state.resolve((v,))) for v in arrived)
        unsure = tuple(replace(v, pieces=state.resolve((v,)), pins=False) for v in perhaps)
        if not c.holds("C-ZC-02", True):
            copied = arrived
        queue = (*of.views, *copied, *unsure, *waiting)
        states.append(state.with_object(number, replace(of, views=queue, sends=of.sends + 1)))
    return states


@rule(Recv)
def recv(c: Context, s: State, op: Recv) -> list[State]:
    number, of = look_up(c, s, op.socket, Socket)
    if op.length <= 0 or of.kind not in ("tcp", "unix"):
        raise Undetermined("no clause covers receiving nothing, or from this kind of socket")
    there = min(op.length, of.length)
    if op.flags:
        if c.refuses(("EAGAIN", there == 0, "C-SOCK-06")):
            return [s] if c.settled else []
        if not _counted(c, "C-SOCK-06", there):
            return []
    else:
        if c.blocks("C-SOCK-06", of.length < op.length):
            return [s] if c.settled else []
        if not c.returns("C-SOCK-06", op.length):
            return []
    head, rest = take(of.views, c.seen.value)
    if not c.shows("C-SOCK-07", s.resolve(head)):
        return []
    return [s.with_object(number, replace(of, views=rest))]


@rule(RecvErrqueue)
def recv_errqueue(c: Context, s: State, op: RecvErrqueue) -> list[State]:
    number, of = look_up(c, s, op.socket, Socket)
    waiting = of.sends - of.completed
    held = any(v.pins for v in of.views)
    if held and waiting > 1:
        raise Undetermined("which of several zero-copy sends still wait at the sender is not known to the model")
    if c.blocks("C-ZC-03", waiting == 0 or held):
        return [s] if c.settled else []
    if not c.returns("C-ZC-03", 0):
        return []
    done, low = c.seen.number("completions") or 0, c.seen.number("lo")
    right = 1 <= done <= waiting and low == of.completed and c.seen.number("copied") == 1
    allowed = f"1..{waiting} completions from {of.completed} on, copied"
    seen = f"{done} completions from {low} on, copied {c.seen.number('copied')}"
    if not c.agrees("C-ZC-03", right, allowed, seen):
        return []
    return [s.with_object(number, replace(of, completed=of.completed + done))]
