"""What all that moves pages shares: ends that are open, pages taken from a file, pages written into one, room in pipes and sockets."""

from collections.abc import Sequence

from harness.model.clause import Context, Undetermined, clause
from harness.model.content import Pieces, cut, tagged, unknown, zeroes
from harness.model.expectation import Expectation, Expectations, open_end
from harness.model.objects import (
    PAGE,
    Mapping,
    Memory,
    MemoryKind,
    OpenFile,
    Pipe,
    Socket,
    SocketKind,
    View,
    copy_view,
    page_ceil,
    page_floor,
)
from harness.model.outcome import How
from harness.model.rules.buffers import mapping_bytes, mapping_reaches
from harness.model.rules.effects import cache, perhaps_cached, put
from harness.model.rules.rule import first_data, is_closed_node, look_up, require_whole_pages, volume_fact
from harness.model.rules.transfers import cached_from, goes_on_cached, require_whole_blocks
from harness.model.state import State
from harness.model.value import evolve

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


def end_of(c: Context, s: State, name: str) -> tuple[int, OpenFile | Pipe | Socket]:
    number, thing = look_up(c, s, name, object)  # type: ignore[type-var]
    if not isinstance(thing, OpenFile | Pipe | Socket):
        raise Undetermined(f"{name} is a {type(thing).__name__}")
    return number, thing


def source_ends(c: Context, s: State, of: Pipe, *, nonblock: bool) -> Expectations | None:
    """Return what is expected of taking from a pipe with nothing in it, or None where there is something."""
    empty = not of.views
    if empty and c.holds("C-PIPE-08", not of.write_open):
        return c.returns("C-PIPE-08", 0).leaving(s)
    waits = c.refuses(("EAGAIN", empty and nonblock, "C-PIPE-07")) or (None if nonblock else c.blocks("C-PIPE-06", empty))
    return waits.leaving(s) if waits else None


def target_refuses(c: Context, s: State, of: Pipe, *, nonblock: bool) -> Expectations | None:
    """Return what is expected of filling a pipe without a free slot, or None where there is one."""
    full = len(of.views) >= of.slots
    if refused := c.refuses(("EPIPE", not of.read_open, "C-PIPE-12"), ("EAGAIN", of.read_open and full and nonblock, "C-PIPE-11")):
        return refused.leaving(s)
    if not nonblock and (blocked := c.blocks("C-PIPE-10", full)):
        return blocked.leaving(s)
    return None


def unreadable(c: Context, s: State, from_: str | None, offset: int, length: int, clause_id: str) -> Expectation | None:
    """Return what is expected where a buffer cannot be read, None where it can. Raises Undetermined where it can be in part."""
    if from_ is None:
        return None
    _, m = look_up(c, s, from_, Mapping)
    readable = m.readable or m.writable
    refused = c.refuses(("EFAULT", not readable or not mapping_reaches(s, m, offset, length), clause_id))
    if refused and readable and mapping_reaches(s, m, offset, 1):
        raise Undetermined("how much of a buffer that can be read in part is written is not specified")
    return refused


def outgoing_bytes(c: Context, s: State, length: int, from_: str | None, offset: int) -> Pieces:
    """Return what a buffer holds."""
    return tagged(c.writer, length) if from_ is None else mapping_bytes(s, look_up(c, s, from_, Mapping)[1], offset, length)


def pages_of_views(views: Sequence[View]) -> tuple[View, ...]:
    """Return ``views`` without the right to append: what another pipe or a socket gets."""
    return tuple(evolve(v, room=0) for v in views)


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


def file_moves(c: Context, s: State, of: OpenFile, at: int, length: int, slots: int, fact: str = "splice_to_pipe") -> tuple[int, bool]:
    """Return how many bytes can move from ``of`` at ``at`` into ``slots`` free slots, and whether they are copies, as ``fact`` says."""
    memory = s.memory(of.memory)
    if memory.is_bar:
        raise Undetermined("no clause covers splicing from a BAR")
    copies = of.direct or volume_fact(c, "direct_io_splice" if of.asks_direct else fact, memory) != "alias"
    # A page of the cache is taken as it lies in the file, so an odd offset costs part of the first slot.
    room = slots * PAGE if copies else slots * PAGE - at % PAGE
    return min(length, room, max(0, memory.size - at)), copies


def direct_refusal(c: Context, s: State, of: OpenFile, at: int, length: int, slots: int) -> tuple[str, bool, str]:
    """Return whether an O_DIRECT source refuses: the kernel reads into whole pages of its own, so only offset and length can be odd."""
    memory = s.memory(of.memory)
    step = int(volume_fact(c, "dio_offset_alignment", memory)) if of.direct and not memory.dax else 1
    length = min(length, slots * PAGE)
    start = first_data(memory, at, at + length) if memory.is_file else at
    odd = start % step != 0 or (length - (start - at)) % step != 0
    if odd and start < at + length:
        require_whole_pages(c, memory, start)
    return ("EINVAL", odd and at < memory.size and start < at + length, "C-SPLICE-11")


def file_views(s: State, of: OpenFile, at: int, count: int, *, copies: bool) -> tuple[State, tuple[View, ...]]:
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


def moving(c: Context, clause_id: str, most: int, volume: str = "main") -> Expectation:
    """Return that the call moves ``most``; a kernel that stops at the first page moves less, and its fact says so."""
    known = any(reading.role == volume for reading in c.env.reading.volumes)
    if c.env.fact("splice_moves", volume if known else c.env.reading.volumes[0].role) == "all":
        return c.returns(clause_id, most)
    most = min(most, PAGE)
    return c.counts(clause_id, min(most, 1), most, f"1..{most}" if most else "0")


def with_position(s: State, number: int, of: OpenFile, offset: int | None, count: int) -> State:
    """Return the state with the file's own position moved on, where that is the one in use."""
    return s if offset is not None else s.with_object(number, evolve(of, position=of.position + count))


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


def odd_for_direct(c: Context, memory: Memory, of: OpenFile, at: int, views: Sequence[View]) -> bool:
    """Whether what moves through an O_DIRECT descriptor is refused for its alignment."""
    return _is_misaligned(c, memory, of, at, views) and not goes_on_cached(c, memory, of)


def _is_misaligned(c: Context, memory: Memory, of: OpenFile, at: int, views: Sequence[View]) -> bool:
    if not of.direct or memory.dax:
        return False
    step = int(volume_fact(c, "dio_offset_alignment", memory))
    if cached_from(c, memory, of, at, at + sum(v.length for v in views)) is not None:
        raise Undetermined(
            "what moves into holes through an O_DIRECT descriptor, where that goes through the page cache, is not known to the model"
        )
    return at % step != 0 or any(v.length % step != 0 or v.offset_in_page % step != 0 for v in views)


def write_views(c: Context, s: State, of: OpenFile, at: int, views: tuple[View, ...]) -> State:
    """Return the state after ``views`` were written to the file: the bytes are copied, whatever they were in the pipe.

    What a file becomes when it is written from an overlapping part of itself nobody knows.
    """
    memory = s.memory(of.memory)
    end = at + sum(v.length for v in views)
    if memory.is_bar or (memory.is_node and end > memory.size):
        raise Undetermined("no clause covers splicing to a BAR, or across the end of a node")
    require_whole_blocks(c, memory, of, at, end - at)
    goal = at
    pieces = s.resolve(views)
    for view in views:
        own = view.memory == of.memory and view.memory and view.start != goal
        if own and view.start < end and at < view.start + view.length:
            pieces = unknown(end - at)
        goal += view.length
    after = put(c, s, of.memory, at, pieces, bypass=of.direct)
    cached = _is_misaligned(c, memory, of, at, views) and goes_on_cached(c, memory, of)
    return perhaps_cached(after, of.memory, at, end) if cached else after


def file_to_pipe(
    c: Context,
    s: State,
    source: tuple[int, OpenFile],
    target: tuple[int, Pipe],
    offset: int | None,
    length: int,
    *,
    nonblock: bool,
    fact: str = "splice_to_pipe",
) -> Expectations:
    (number, of), (goal, into) = source, target
    if (waits := target_refuses(c, s, into, nonblock=nonblock)) is not None:
        return waits
    if refused := c.refuses(("EINVAL", s.memory(of.memory).is_device, "C-DEVDAX-03")):
        return refused.leaving(s)
    at = of.position if offset is None else offset
    free = into.slots - len(into.views)
    if refused := c.refuses(direct_refusal(c, s, of, at, length, free)):
        return refused.leaving(s)
    most, copies = file_moves(c, s, of, at, length, free, fact)

    def moved(count: int) -> list[State]:
        after, views = file_views(s, of, at, count, copies=copies)
        after = after.with_object(goal, evolve(into, views=(*into.views, *views)))
        return [with_position(after, number, of, offset, count)]

    return moving(c, "C-SPLICE-10", most, s.memory(of.memory).volume).by(moved)


def socket_gone(c: Context, s: State, into: Socket) -> Expectations | None:
    """Return what is expected of sending to a connection whose receiving end is closed, or None where it is open.

    TCP takes what is sent first after a close that left nothing unread: only the reset that comes back says that nobody is there.
    """
    if into.read_open:
        return None
    errno = "ECONNRESET" if into.kind is SocketKind.TCP else "EPIPE"
    refused = c.refuses(("EPIPE", True, "C-SOCK-08"), (errno, True, "C-SOCK-08"))
    timing = "whether a TCP connection has learned yet that its receiver is gone is a matter of timing"
    late = Expectation(How.RETURNED, "", "", unsure=timing).leaving(s) if into.kind is SocketKind.TCP and not into.unread else ()
    return (*late, *(refused.leaving(s) if refused else ()))


def socket_full(into: Socket, most: int, *, nonblock: bool) -> Expectations:
    """Return that a socket may take no more, where it may. Raises Undetermined for a kind that no clause covers."""
    if not into.kind.is_stream:
        raise Undetermined(f"no clause covers sending to a {into.kind.value} socket")
    if into.length + most <= SOCKET_SURE_BYTES:
        return ()
    how, names = (How.FAILED, ("EAGAIN",)) if nonblock else (How.BLOCKED, ())
    return (open_end(how, "how much a socket took before it stopped is not known to the model", clause="C-SOCK-04", names=names),)


def no_room(c: Context, s: State, of: OpenFile, at: int) -> list[tuple[str, bool, str]]:
    """Return what a write at ``at`` is refused with because nothing can be written there."""
    memory = s.memory(of.memory)
    return [
        ("EPERM", is_closed_node(c, memory), "C-NODE-03"),
        ("EFBIG", is_too_far(c, s, of, at), "C-RW-11"),
        ("ENOSPC", memory.is_node and at >= memory.size, "C-NODE-02"),
    ]


def is_too_far(c: Context, s: State, of: OpenFile, at: int) -> bool:
    memory = s.memory(of.memory)
    return memory.is_file and at >= int(volume_fact(c, "max_file_bytes", memory))


def readable_bytes(s: State, m: Mapping, start: int, length: int) -> int:
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


def mapped_views(c: Context, s: State, number: int, start: int, end: int) -> tuple[View, ...]:
    """Return one view a page of what the page table of mapping ``number`` refers to."""
    m = s.mapping(number)
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
    if memory.kind is MemoryKind.ANONYMOUS and not m.shared:
        return copy_view(zeroes(length), start % PAGE)  # the zero page, which no store ever changes
    at = m.offset + start
    if memory.is_file and volume_fact(c, "hole_page", memory) == "zero_page" and page_floor(at) not in memory.data:
        return copy_view(zeroes(length), start % PAGE)
    return View(length, memory=m.memory, start=at, pins=True)
