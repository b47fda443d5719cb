"""Rules for pipes and sockets, and for all that moves pages into and out of them: splice, sendfile, tee, vmsplice, send.

A pipe is a row of slots of at most a page. What fills a slot is a copy, or an alias: a reference to a page that a file, or
a mapping, still has. Which of the two decides what a reader sees after the file was changed. Counts are accepted by
condition; the state takes the count that was seen.
"""

from collections.abc import Sequence
from dataclasses import replace

from harness.model.clause import Context, Undetermined, clause
from harness.model.content import Pieces, cut, length_of, tagged, unknown, zeroes
from harness.model.outcome import How
from harness.model.rule import (
    cache,
    cleaned,
    first_data,
    layouts_broken,
    look_up,
    mapping_bytes,
    mapping_reaches,
    put,
    received,
    refused_direct,
    rule,
    sent,
    volume_fact,
    waits_for_pins,
)
from harness.model.rules_files import MOST_OFFSET, read_file, write_file
from harness.model.state import PAGE, Mapping, Memory, OpenFile, Pipe, Socket, State, View, copy_view, page_ceil, page_floor, take
from harness.ops import (
    CopyFileRange,
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
from harness.ops import Pipe as PipeOperation

#: A connected pair of stream sockets takes this much without a reader (net.core.wmem_default, tcp_rmem: more than that).
SOCKET_SURE_BYTES = 64 * 1024
#: Of a zero-copy send over loopback, this much reaches the receiver's queue at once, where it is a copy (tcp_rmem: the
#: first window is about half the receive buffer), and no more than that much: the buffer itself, nobody reading.
DELIVERED_SURE_BYTES = 32 * 1024
DELIVERED_MOST_BYTES = 192 * 1024
#: What the sender's side holds for sure, and never more than.
SENDER_SURE_BYTES = 512 * 1024
#: A pipe of more slots than this is a matter of memory.
MOST_SLOTS = 1 << 16
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
clause("C-PIPE-14", "a pipe of a negative size, or of more than 2 GiB, is EINVAL", "fs/pipe.c round_pipe_size, pipe_set_size")
clause("C-PIPE-15", "reading or writing nothing returns 0, whoever has the other end", "fs/pipe.c pipe_read, pipe_write")
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
    if op.size >= 1 << 32:
        raise Undetermined("no clause covers a size that does not fit into 32 bits: later kernels cut it off")
    if c.refuses(("EINVAL", op.size < 0 or op.size > 1 << 31, "C-PIPE-14")):
        return [s] if c.settled else []
    slots = 1
    while slots * PAGE < op.size:
        slots *= 2
    if slots > MOST_SLOTS:
        raise Undetermined("whether there is memory for a pipe that large is not known to the model")
    if c.refuses(("EBUSY", slots < len(of.views), "C-PIPE-03")):
        return [s] if c.settled else []
    return [s.with_object(number, replace(of, slots=slots))] if c.returns("C-PIPE-02", slots * PAGE) else []


@rule(Read)
def read(c: Context, s: State, op: Read) -> list[State]:
    number, of = _end(c, s, op.file)
    if not isinstance(of, Pipe):
        return read_file(c, s, op)
    if op.length < 0:
        raise Undetermined("no clause covers a negative length")
    if op.length == 0:
        return [s] if c.returns("C-PIPE-15", 0) else []
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
    if into is None:
        return [s]
    return received(c, s, into[0], op.into_offset, unknown(count) if _shown_by(head, into[1], op.into_offset) else pieces)


def _shown_by(views: Sequence[View], m: Mapping, start: int) -> bool:
    """Whether the bytes of the views are read into an overlapping part of the pages that they are."""
    at = m.offset + start
    for view in views:
        if view.memory == m.memory and view.memory and view.start != at and view.start < at + view.length and at < view.start + view.length:
            return True
        at += view.length
    return any(m.shared and v.memory == m.memory and v.memory for v in views) and len(views) > 1


@rule(Write)
def write(c: Context, s: State, op: Write) -> list[State]:
    number, of = _end(c, s, op.file)
    if not isinstance(of, Pipe):
        return write_file(c, s, op)
    if op.length < 0:
        raise Undetermined("no clause covers a negative length")
    if op.length == 0:
        return [s] if c.returns("C-PIPE-15", 0) else []
    if c.refuses(("EPIPE", not of.read_open and not c.progress, "C-PIPE-12")):
        return [s] if c.settled else []
    pieces = _outgoing(c, s, op.length, op.from_, op.from_offset, "C-PIPE-13")
    if pieces is None:
        return [s] if c.settled else []
    filled, count = _appended(of, cut(pieces, c.progress, op.length))
    count += c.progress
    if not of.read_open:
        # It had moved some when the last reader went.
        return [s] if c.returns("C-PIPE-09", c.progress) else []
    if c.refuses(("EAGAIN", count == 0 and of.nonblock, "C-PIPE-11")):
        return [s] if c.settled else []
    after = s.with_object(number, replace(of, views=filled))
    states = [after] if op.from_ is None else sent(after, look_up(c, s, op.from_, Mapping)[0], op.from_offset, count)
    if not of.nonblock and c.blocks("C-PIPE-10", count < op.length):
        c.progress = count
        return states if c.settled else []
    return states if c.returns("C-PIPE-09", count) else []


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
clause(
    "C-SPLICE-08",
    "an offset from which the length reaches past 2^63 is EINVAL",
    "fs/read_write.c rw_verify_area, called by do_sendfile and fs/splice.c do_splice; for a splice from a file 6.1 asks later, in "
    "do_splice_to, and for what the free slots take",
)
clause(
    "C-SPLICE-09",
    "sendfile from what the file system cannot hold is EOVERFLOW",
    "fs/read_write.c do_sendfile: the smaller s_maxbytes of both ends",
)
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
    readable = m.readable or m.writable
    if c.refuses(("EFAULT", not readable or not mapping_reaches(s, m, offset, length), clause_id)):
        if readable and mapping_reaches(s, m, offset, 1):
            raise Undetermined("how much of a buffer that can be read in part is written is not specified")
        return None
    return mapping_bytes(s, m, offset, length)


def _pages_of(views: Sequence[View]) -> tuple[View, ...]:
    """Return ``views`` without the right to append: what another pipe or a socket gets."""
    return tuple(replace(v, room=0) for v in views)


# ---- from a file -----------------------------------------------------------------------------------------------------

clause(
    "C-SPLICE-10",
    "from a file the length moves, or what the file has, or what the free slots take; 0 only at its end",
    "splice(2), sendfile(2); mm/filemap.c filemap_splice_read and fs/splice.c copy_splice_read (6.12), generic_file_splice_read (6.1): "
    "fact splice_moves",
)
clause(
    "C-SPLICE-11",
    "from an O_DIRECT descriptor without DAX offset and length must be multiples of the logical block size, from the first data on: EINVAL",
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
    """Return whether an O_DIRECT source refuses: the kernel reads into whole pages of its own, so only offset and length can be odd."""
    memory = s.memory(of.memory)
    step = int(volume_fact(c, "dio_offset_alignment", memory)) if of.direct and not memory.dax else 1
    length = min(length, slots * PAGE)
    start = first_data(memory, at, at + length) if memory.is_file else at
    odd = start % step != 0 or (length - (start - at)) % step != 0
    return ("EINVAL", odd and at < memory.size and start < at + length, "C-SPLICE-11")


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


def _counted(c: Context, clause_id: str, most: int, volume: str = "main") -> bool:
    """Whether the call moved ``most``; a kernel that stops at the first page moves less, and its fact says so."""
    known = any(reading.role == volume for reading in c.env.reading.volumes)
    if c.env.fact("splice_moves", volume if known else c.env.reading.volumes[0].role) == "all":
        return c.counts(clause_id, lambda n: n == most, str(most))
    most = min(most, PAGE)
    return c.counts(clause_id, lambda n: 0 < n <= most if most else n == 0, f"1..{most}" if most else "0")


def _advanced(s: State, number: int, of: OpenFile, offset: int | None, count: int) -> State:
    """Return the state with the file's own position moved on, where that is the one in use."""
    return s if offset is not None else s.with_object(number, replace(of, position=of.position + count))


# ---- into a file -----------------------------------------------------------------------------------------------------

clause(
    "C-SPLICE-20",
    "into a file the length moves, or what the pipe holds",
    "splice(2); fs/splice.c iter_file_splice_write: fact splice_moves",
)
clause(
    "C-SPLICE-21",
    "into an O_DIRECT descriptor without DAX offset, count and every slot, in its page too, must be aligned to the "
    "logical block size: EINVAL",
    "open(2) NOTES; fs/splice.c iter_file_splice_write hands the slots on as they are; lib/iov_iter.c iov_iter_is_aligned",
)


def _odd_for_direct(c: Context, memory: Memory, of: OpenFile, at: int, views: Sequence[View]) -> bool:
    if not of.direct or memory.dax:
        return False
    step = int(volume_fact(c, "dio_offset_alignment", memory))
    return at % step != 0 or any(v.length % step != 0 or v.offset_in_page % step != 0 for v in views)


def _written(c: Context, s: State, of: OpenFile, at: int, views: tuple[View, ...]) -> State:
    """Return the state after ``views`` were written to the file: the bytes are copied, whatever they were in the pipe.

    What a file becomes when it is written from an overlapping part of itself nobody knows.
    """
    memory = s.memory(of.memory)
    end = at + sum(v.length for v in views)
    if memory.kind == "bar" or (memory.kind == "node" and end > memory.size):
        raise Undetermined("no clause covers splicing to a BAR, or across the end of a node")
    goal = at
    pieces = s.resolve(views)
    for view in views:
        own = view.memory == of.memory and view.memory and view.start != goal
        if own and view.start < end and at < view.start + view.length:
            pieces = unknown(end - at)
        goal += view.length
    return put(c, s, of.memory, at, pieces, bypass=of.direct)


# ---- splice ----------------------------------------------------------------------------------------------------------

clause(
    "C-SPLICE-30",
    "between pipes the length moves, or what is there, or what the free slots take",
    "splice(2), tee(2); fs/splice.c splice_pipe_to_pipe, link_pipe: fact splice_moves",
)
clause(
    "C-SPLICE-40",
    "into a socket the length moves, or what is there, where the socket has room",
    "splice(2); fs/splice.c splice_to_socket: fact splice_moves",
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
    if op.length < 0:
        raise Undetermined("no clause covers a negative length")
    if isinstance(target, OpenFile) and c.refuses(("EINVAL", _wraps(target, op.target_offset, op.length), "C-SPLICE-08")):
        return [s] if c.settled else []
    if isinstance(source, OpenFile) and isinstance(target, Pipe):
        free = target.slots - len(target.views)
        capped = _wraps(source, op.source_offset, min(op.length, free * PAGE))
        if _wraps(source, op.source_offset, op.length) and not capped:
            raise Undetermined("whether the length is looked at before the pipe's free slots is not specified")
        if c.refuses(("EINVAL", capped, "C-SPLICE-08")):
            return [s] if c.settled else []
        nonblock = SpliceFlag.NONBLOCK in op.flags or target.nonblock
        return _file_to_pipe(c, s, (number, source), (goal, target), op.source_offset, op.length, nonblock=nonblock)
    if isinstance(source, Pipe):
        return _from_pipe(c, s, op, (number, source), (goal, target))
    return _from_socket(c, s)


def _wraps(of: OpenFile, offset: int | None, length: int) -> bool:
    return (of.position if offset is None else offset) + length > MOST_OFFSET


def _from_socket(c: Context, s: State) -> list[State]:
    """Return the state after splicing from a socket: where nothing moved it is known, though not whether that was right."""
    if c.seen.how is How.RETURNED and c.seen.value > 0:
        raise Undetermined("no clause covers splicing from a socket")
    c.doubts("no clause covers splicing from a socket")
    return [s]


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
    if not _counted(c, "C-SPLICE-10", most, s.memory(of.memory).volume):
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
        held = into.kind == "tcp" and SpliceFlag.MORE in op.flags
        return [s.with_object(goal, replace(into, views=(*into.views, *_pages_of(head)), held=held))]
    at = into.position if op.target_offset is None else op.target_offset
    if c.refuses(*_no_room(c, s, into, at)):
        return [s] if c.settled else []
    head, rest = take(of.views, most)
    if c.refuses(("EINVAL", _odd_for_direct(c, s.memory(into.memory), into, at, head), "C-SPLICE-21")):
        return refused_direct(c, s, into, at, most) if c.settled else []
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
    gone = _receiver_gone(c, s, into)
    if gone is not None:
        return gone
    if into.length + most <= SOCKET_SURE_BYTES:
        return None
    full = c.seen.describe() == ("EAGAIN" if nonblock else "blocked")
    if full and c.agrees("C-SOCK-04", True, "stops taking bytes", c.seen.describe()):
        raise Undetermined("how much a socket took before it stopped is not known to the model")
    return None


def _receiver_gone(c: Context, s: State, into: Socket) -> list[State] | None:
    """Return the answer of a connection whose receiving end is closed, or None where it is open.

    TCP takes what is sent first after a close that left nothing unread: only the reset that comes back says that nobody is there.
    """
    if into.read_open:
        return None
    if into.kind == "tcp" and c.seen.how is How.RETURNED and not into.unread:
        c.doubts("whether a TCP connection has learned yet that its receiver is gone is a matter of timing")
        return [s]
    errno = "ECONNRESET" if into.kind == "tcp" else "EPIPE"
    return [s] if c.refuses(("EPIPE", True, "C-SOCK-08"), (errno, True, "C-SOCK-08")) and c.settled else []


def _no_room(c: Context, s: State, of: OpenFile, at: int) -> list[tuple[str, bool, str]]:
    """Return what a write at ``at`` is refused with because nothing can be there."""
    memory = s.memory(of.memory)
    return [
        ("EFBIG", _too_far(c, s, of, at), "C-RW-11"),
        ("ENOSPC", memory.kind == "node" and at >= memory.size, "C-NODE-02"),
    ]


def _too_far(c: Context, s: State, of: OpenFile, at: int) -> bool:
    memory = s.memory(of.memory)
    return memory.is_file and at >= int(volume_fact(c, "max_file_bytes", memory))


# ---- sendfile --------------------------------------------------------------------------------------------------------


@rule(Sendfile)
def sendfile(c: Context, s: State, op: Sendfile) -> list[State]:
    number, source = look_up(c, s, op.source, OpenFile)
    goal, target = _end(c, s, op.target)
    at = source.position if op.offset is None else op.offset
    unwritable = isinstance(target, OpenFile) and not target.writable
    if c.refuses(
        ("EBADF", not source.readable or unwritable, "C-SPLICE-01"),
        ("EINVAL", at < 0, "C-SPLICE-05"),
        ("EINVAL", op.length > 0 and at + op.length > MOST_OFFSET, "C-SPLICE-08"),
    ):
        return [s] if c.settled else []
    ends = [end for end in (source, target) if isinstance(end, OpenFile)]
    # Nothing may be sent from the very end of what can be, something not.
    last = at if op.length else at - 1
    if c.refuses(("EOVERFLOW", any(_too_far(c, s, end, last) for end in ends), "C-SPLICE-09")):
        return [s] if c.settled else []
    if c.refuses(("EINVAL", isinstance(target, OpenFile) and target.append, "C-SPLICE-04")):
        return [s] if c.settled else []
    if op.length == 0:
        return [s] if c.returns("C-SPLICE-07", 0) else []
    if isinstance(target, Pipe):
        return _file_to_pipe(c, s, (number, source), (goal, target), op.offset, op.length, nonblock=target.nonblock)
    if isinstance(target, Socket):
        return _file_to_socket(c, s, op, (number, source), (goal, target), at)
    return _file_to_file(c, s, (number, source, op.offset), (goal, target, None), op.length, "C-SPLICE-10")


def _file_to_socket(c: Context, s: State, op: Sendfile, source: tuple[int, OpenFile], target: tuple[int, Socket], at: int) -> list[State]:
    (number, of), (goal, into) = source, target
    # The kernel's own pipe has 16 slots, filled and emptied until all has moved.
    if c.refuses(_direct_refusal(c, s, of, at, op.length, SLOTS)):
        return [s] if c.settled else []
    most, copies = _file_moves(c, s, of, at, op.length, SLOTS + op.length // PAGE + 1)
    stopped = _socket_stops(c, s, into, most, nonblock=False) if most else None
    if stopped is not None:
        return stopped
    if of.direct and not s.memory(of.memory).dax and op.length > SLOTS * PAGE:
        raise Undetermined("no clause covers a long sendfile from an O_DIRECT descriptor to a socket")
    if not _counted(c, "C-SPLICE-10", most, s.memory(of.memory).volume):
        return []
    s, views = _file_views(c, s, of, at, c.seen.value, copies=copies)
    # Told that more will come, which a file that ends earlier does not keep, TCP holds the last bytes back (fs/splice.c, SPLICE_F_MORE).
    held = into.kind == "tcp" and c.seen.value < op.length
    s = s.with_object(goal, replace(into, views=(*into.views, *views), held=held))
    return [_advanced(s, number, of, op.offset, c.seen.value)]


def _file_to_file(
    c: Context,
    s: State,
    source: tuple[int, OpenFile, int | None],
    target: tuple[int, OpenFile, int | None],
    length: int,
    clause_id: str,
) -> list[State]:
    """Return the states after bytes went from file to file through a pipe of the kernel's, 16 pages at a time.

    Each of source and target is the object's number, the description and the offset that was given (None: its own position). An end
    that an O_DIRECT descriptor refuses in a later round ends the call with what went before.
    """
    (number, of, offset), (goal, into, target_offset) = source, target
    at = of.position if offset is None else offset
    to = into.position if target_offset is None else target_offset
    if s.memory(into.memory).kind == "bar" or s.memory(of.memory).kind == "bar":
        raise Undetermined("no clause covers moving bytes from or to a BAR")
    most, copies = _file_moves(c, s, of, at, length, SLOTS + length // PAGE + 2)
    if of.memory == into.memory and s.memory(of.memory).is_file:
        most = _fed_by_itself(s.memory(of.memory).size, at, to, length)
    moved, refusal = _rounds(c, s, (of, at), (into, to), length, most, copies=copies)
    if refusal is not None and not moved:
        if c.refuses(refusal):
            return refused_direct(c, s, into, to, most) if c.settled else []
        moved = most
    if most and c.refuses(*_no_room(c, s, into, to)):
        return [s] if c.settled else []
    if not _counted(c, clause_id, moved, s.memory(of.memory).volume):
        return []
    count = c.seen.value
    if of.memory == into.memory and at < to + count and to < at + count and at != to:
        s = put(c, s, into.memory, to, unknown(count), bypass=into.direct)
    elif count:
        s, views = _file_views(c, s, of, at, count, copies=copies)
        s = _written(c, s, into, to, views)
    s = _advanced(s, goal, into, target_offset, count)
    return [_advanced(s, number, of, offset, count)]


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
        refusal = _direct_refusal(c, s, of, at + moved, asked, SLOTS)
        if refusal[1]:
            return moved, refusal
        count = min(most - moved, asked if copies else SLOTS * PAGE - (at + moved) % PAGE)
        _, views = _file_views(c, s, of, at + moved, count, copies=copies)
        if _odd_for_direct(c, s.memory(into.memory), into, to + moved, views):
            return moved, ("EINVAL", True, "C-SPLICE-21")
        moved += count
    return moved, None


# ---- copying between files -------------------------------------------------------------------------------------------

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
def copy_file_range(c: Context, s: State, op: CopyFileRange) -> list[State]:
    source_number, source = look_up(c, s, op.source, OpenFile)
    target_number, target = look_up(c, s, op.target, OpenFile)
    from_memory, to_memory = s.memory(source.memory), s.memory(target.memory)
    start = source.position if op.source_offset is None else op.source_offset
    goal = target.position if op.target_offset is None else op.target_offset
    if c.refuses(
        ("EINVAL", not from_memory.is_file or not to_memory.is_file, "C-COPY-03"),
        ("EBADF", not source.readable or not target.writable or target.append, "C-COPY-03"),
        ("EXDEV", from_memory.volume != to_memory.volume, "C-COPY-02"),
    ):
        return [s] if c.settled else []
    length = op.length if start < 0 else min(op.length, max(0, from_memory.size - start))
    wraps = any(at < 0 and at + op.length >= 0 for at in (start, goal))
    if c.refuses(
        ("EOVERFLOW", wraps, "C-COPY-05"),
        ("EINVAL", start < 0 or goal < 0, "C-COPY-05"),
        ("EFBIG", goal >= 0 and _too_far(c, s, target, goal), "C-RW-11"),
        ("EINVAL", source.memory == target.memory and goal + length > start and goal < start + length, "C-COPY-04"),
    ):
        return [s] if c.settled else []
    if length == 0:
        return [s] if c.returns("C-COPY-06", 0) else []
    pair = (source_number, source, op.source_offset), (target_number, target, op.target_offset)
    if not volume_fact(c, "copy_shares_blocks", to_memory) or from_memory.dax != to_memory.dax:
        return _file_to_file(c, s, *pair, length, "C-COPY-01")
    if from_memory.dax:
        held = any(waits_for_pins(c, s, n) for n in (source.memory, target.memory))
        if c.blocks("C-COPY-07", held):
            return [s] if c.settled else []
        s = layouts_broken(layouts_broken(s, source.memory), target.memory)
    shared = _shareable(from_memory, to_memory, start, goal, length)
    if not shared:
        return _file_to_file(c, s, *pair, length, "C-COPY-01")
    if not _counted(c, "C-COPY-01", shared, to_memory.volume):
        return []
    return [_shared(c, s, *pair, start, goal, c.seen.value)]


def _shareable(source: Memory, target: Memory, start: int, goal: int, length: int) -> int:
    """Return how many bytes sharing blocks copies: whole blocks, and a part of one only at the end of both files. 0: it is refused."""
    if start % PAGE or goal % PAGE:
        return 0
    if start + length < source.size:
        length -= length % PAGE
    if length % PAGE and goal + length < target.size:
        length -= length % PAGE
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
    """Return the state after blocks were shared: the target's pages leave its cache, the source's were written back first."""
    (number, of, offset), (other, into, target_offset) = source, target
    s = cleaned(cleaned(s, of.memory), into.memory)
    pieces = s.memory(of.memory).content.read(start, start + count)
    s = put(c, s, into.memory, goal, pieces, bypass=True)
    if s.memory(into.memory).dax:
        s = layouts_broken(s, into.memory)
    s = _advanced(s, other, into, target_offset, count)
    return _advanced(s, number, of, offset, count)


# ---- tee and vmsplice ------------------------------------------------------------------------------------------------

clause(
    "C-VMS-01",
    "vmsplice of memory that cannot be read, or has no struct pages, is EFAULT; what can be read before that moves",
    "vmsplice(2); mm/gup.c check_vma_flags: VM_IO and VM_PFNMAP are EFAULT; fs/splice.c iter_to_pipe",
)
clause(
    "C-VMS-02",
    "vmsplice moves the length, or what can be read, or what the free slots take, page by page",
    "vmsplice(2); fs/splice.c iter_to_pipe, add_to_pipe: fact splice_moves",
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
    if not _counted(c, "C-VMS-02", min(there, free * PAGE - op.offset % PAGE), s.memory(m.memory).volume or "main"):
        return []
    end = op.offset + c.seen.value
    states = []
    for state in sent(s, number, op.offset, end - op.offset):
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
        return copy_view(zeroes(length), start % PAGE)  # the zero page, which no store ever changes
    at = m.offset + start
    if memory.is_file and volume_fact(c, "hole_page", memory) == "zero_page" and page_floor(at) not in memory.data:
        return copy_view(zeroes(length), start % PAGE)
    return View(length, memory=m.memory, start=at, pins=True)


# ---- sockets ---------------------------------------------------------------------------------------------------------

clause("C-SOCK-01", "a connected pair of stream sockets is made", "socketpair(2), tcp(7)")
clause("C-SOCK-02", "SO_ZEROCOPY can be set on TCP, and is EOPNOTSUPP on Unix sockets", "net/core/sock.c sock_setsockopt; msg_zerocopy.rst")
clause("C-SOCK-03", "send takes the bytes; all of them where the socket has room", "send(2)")
clause(
    "C-SOCK-08",
    "sending to a connection whose receiving end is closed is EPIPE, or ECONNRESET on TCP (the signal is ignored)",
    "send(2) ERRORS; net/ipv4/tcp_input.c tcp_reset",
)
clause("C-SOCK-09", "receiving from a connection whose sending end is closed gives what is there, and then 0", "recv(2)")
clause("C-SOCK-10", "what was sent with the word that more comes may be held back for a moment", "splice(2) SPLICE_F_MORE; tcp(7) TCP_CORK")
clause("C-SOCK-05", "send from memory that cannot be read is EFAULT", "send(2) ERRORS")
clause(
    "C-SOCK-06",
    "recv with MSG_WAITALL returns the length, and waits while there is less; without waiting it returns what is there, or EAGAIN; of a "
    "lot that was sent over TCP the end may still be on its way",
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
    if op.length < 0:
        raise Undetermined("no clause covers a negative length")
    gone = _receiver_gone(c, s, of) if op.length or of.kind == "unix" else None
    if gone is not None:
        return gone
    if op.length == 0:
        return [s] if c.returns("C-SOCK-03", 0) else []
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
    after = s.with_object(number, replace(of, views=(*of.views, copy_view(cut(pieces, 0, c.seen.value))), held=False))
    return [after] if op.from_ is None else sent(after, look_up(c, s, op.from_, Mapping)[0], op.from_offset, c.seen.value)


def _sent(c: Context, op: Send, fits: bool) -> bool:
    if fits or SendFlag.DONTWAIT not in op.flags:
        return c.returns("C-SOCK-03", op.length)
    return c.counts("C-SOCK-03", lambda n: 0 < n <= op.length, f"1..{op.length}")


def _send_zerocopy(c: Context, s: State, op: Send, number: int, of: Socket) -> list[State]:
    queued = of.length
    if queued + op.length > SENDER_SURE_BYTES or SendFlag.DONTWAIT in op.flags:
        raise Undetermined("how much of a large zero-copy send waits at the sender is not specified")
    if DELIVERED_SURE_BYTES < queued + op.length <= DELIVERED_MOST_BYTES:
        raise Undetermined("how much of a zero-copy send reaches the receiver at once is not specified")
    if op.from_ is None:
        if not _sent(c, op, True):
            return []
        tail = View(op.length, pieces=tagged(c.writer, op.length))
        return [s.with_object(number, replace(of, views=(*of.views, tail), sends=of.sends + 1))]
    mapping, m = look_up(c, s, op.from_, Mapping)
    there = _readable_bytes(s, m, op.from_offset, op.length)
    if c.refuses(("EFAULT", not m.readable or there == 0, "C-ZC-01")):
        return [s] if c.settled else []
    if there < op.length:
        raise Undetermined("how much of a buffer that can be read in part is sent is not specified")
    if not _sent(c, op, True):
        return []
    states = []
    for state in sent(s, mapping, op.from_offset, op.length):
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
    if op.length < 0 or of.kind not in ("tcp", "unix"):
        raise Undetermined("no clause covers receiving a negative length, or from this kind of socket")
    if op.length == 0:
        c.doubts("no clause covers receiving nothing")
        return [s]
    there = min(op.length, of.length)
    if not of.write_open and there < op.length and not (op.flags and of.held):
        if not c.returns("C-SOCK-09", there):
            return []
    elif op.flags:
        if of.held:
            return _recv_held(c, s, number, of, there)
        if c.refuses(("EAGAIN", there == 0, "C-SOCK-06")):
            return [s] if c.settled else []
        sure = min(there, DELIVERED_SURE_BYTES) if of.kind == "tcp" else there
        if not c.counts("C-SOCK-06", lambda n: sure <= n <= there, f"{sure}..{there}" if sure < there else str(there)):
            return []
    else:
        if c.blocks("C-SOCK-06", of.length < op.length):
            return [s] if c.settled else []
        if not c.returns("C-SOCK-06", op.length):
            return []
    return _received_from(c, s, number, of, c.seen.value)


def _recv_held(c: Context, s: State, number: int, of: Socket, there: int) -> list[State]:
    """Return the states after not waiting for bytes of which the sender may hold the last back (tcp(7) TCP_CORK: up to 200 ms)."""
    if c.seen.how is How.FAILED:
        return [s] if c.agrees("C-SOCK-10", c.seen.errno == "EAGAIN", f"returns 0..{there}, or EAGAIN", c.seen.describe()) else []
    if not c.counts("C-SOCK-10", lambda n: 0 <= n <= there, f"0..{there}"):
        return []
    return _received_from(c, s, number, of, c.seen.value)


def _received_from(c: Context, s: State, number: int, of: Socket, count: int) -> list[State]:
    head, rest = take(of.views, count)
    if count and not c.shows("C-SOCK-07", s.resolve(head)):
        return []
    return [s.with_object(number, replace(of, views=rest, held=of.held and bool(rest)))]


@rule(RecvErrqueue)
def recv_errqueue(c: Context, s: State, op: RecvErrqueue) -> list[State]:
    number, of = look_up(c, s, op.socket, Socket)
    if not of.read_open or not of.write_open:
        raise Undetermined("no clause covers the error queue of a connection that ends")
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
