"""Rules for splice, tee and vmsplice."""

from harness.model.clause import Context, Undetermined, clause
from harness.model.expectation import Expectations, open_end, whatever
from harness.model.objects import PAGE, Mapping, OpenFile, Pipe, Socket, SocketKind, take
from harness.model.outcome import How
from harness.model.rules.buffers import sent
from harness.model.rules.effects import refused_direct
from harness.model.rules.moving import (
    end_of,
    file_to_pipe,
    mapped_views,
    moving,
    no_room,
    odd_for_direct,
    pages_of_views,
    readable_bytes,
    socket_full,
    socket_gone,
    source_ends,
    target_refuses,
    with_position,
    write_views,
)
from harness.model.rules.rule import look_up, rule
from harness.model.rules.transfers import MOST_OFFSET
from harness.model.state import State
from harness.model.value import evolve
from harness.ops import Splice, SpliceFlag, Tee, Vmsplice

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
def splice(c: Context, s: State, op: Splice) -> Expectations:
    number, source = end_of(c, s, op.source)
    goal, target = end_of(c, s, op.target)
    if op.length == 0:
        return c.returns("C-SPLICE-07", 0).leaving(s)
    if refused := c.refuses(
        ("ESPIPE", isinstance(source, Pipe) and op.source_offset is not None, "C-SPLICE-03"),
        ("ESPIPE", isinstance(target, Pipe) and op.target_offset is not None, "C-SPLICE-03"),
    ):
        return refused.leaving(s)
    unreadable = isinstance(source, OpenFile) and not source.readable
    unwritable = isinstance(target, OpenFile) and not target.writable
    if refused := c.refuses(("EBADF", unreadable or unwritable, "C-SPLICE-01")):
        return refused.leaving(s)
    if refused := c.refuses(
        ("EINVAL", not isinstance(source, Pipe) and not isinstance(target, Pipe), "C-SPLICE-02"),
        ("EINVAL", number == goal and isinstance(source, Pipe), "C-SPLICE-06"),
        ("EINVAL", (op.source_offset or 0) < 0 or (op.target_offset or 0) < 0, "C-SPLICE-05"),
        ("EINVAL", isinstance(target, Socket) and op.target_offset is not None, "C-SPLICE-05"),
        ("EINVAL", isinstance(target, OpenFile) and target.append, "C-SPLICE-04"),
    ):
        return refused.leaving(s)
    if op.length < 0:
        raise Undetermined("no clause covers a negative length")
    if refused := c.refuses(("EINVAL", isinstance(target, OpenFile) and s.memory(target.memory).is_device, "C-DEVDAX-03")):
        return refused.leaving(s)
    wraps = isinstance(target, OpenFile) and _wraps(target, op.target_offset, op.length)
    if refused := c.refuses(("EINVAL", wraps, "C-SPLICE-08")):
        return refused.leaving(s)
    if isinstance(source, OpenFile) and isinstance(target, Pipe):
        free = target.slots - len(target.views)
        capped = _wraps(source, op.source_offset, min(op.length, free * PAGE))
        if _wraps(source, op.source_offset, op.length) and not capped:
            raise Undetermined("whether the length is looked at before the pipe's free slots is not specified")
        if refused := c.refuses(("EINVAL", capped, "C-SPLICE-08")):
            return refused.leaving(s)
        nonblock = SpliceFlag.NONBLOCK in op.flags or target.nonblock
        return file_to_pipe(c, s, (number, source), (goal, target), op.source_offset, op.length, nonblock=nonblock)
    if isinstance(source, Pipe):
        return _from_pipe(c, s, op, (number, source), (goal, target))
    return _from_socket(s)


def _wraps(of: OpenFile, offset: int | None, length: int) -> bool:
    return (of.position if offset is None else offset) + length > MOST_OFFSET


def _from_socket(s: State) -> Expectations:
    """Return what is expected of splicing from a socket: where nothing moved the state is known, though not whether that was right."""
    reason = "no clause covers splicing from a socket"
    return (open_end(How.RETURNED, reason, low=1), *whatever(s, reason))


def _from_pipe(c: Context, s: State, op: Splice, source: tuple[int, Pipe], target: tuple[int, OpenFile | Pipe | Socket]) -> Expectations:
    (number, of), (goal, into) = source, target
    nonblock = SpliceFlag.NONBLOCK in op.flags or of.nonblock or (isinstance(into, Pipe) and into.nonblock)
    if (ended := source_ends(c, s, of, nonblock=nonblock)) is not None:
        return ended
    if isinstance(into, Pipe):
        if (waits := target_refuses(c, s, into, nonblock=nonblock)) is not None:
            return waits
        return moving(c, "C-SPLICE-30", _movable(of, into, op.length)).by(lambda n: [_between_pipes(s, number, of, goal, into, n)])
    most = min(op.length, of.length)
    if isinstance(into, Socket):
        return _to_socket(c, s, op, (number, of), (goal, into), most, nonblock=nonblock)
    at = into.position if op.target_offset is None else op.target_offset
    if refused := c.refuses(*no_room(c, s, into, at)):
        return refused.leaving(s)
    head, _ = take(of.views, most)
    if refused := c.refuses(("EINVAL", odd_for_direct(c, s.memory(into.memory), into, at, head), "C-SPLICE-21")):
        return refused.leaving(*refused_direct(c, s, into, at, most))

    def written(count: int) -> list[State]:
        head, rest = take(of.views, count)
        after = write_views(c, s, into, at, head).with_object(number, evolve(of, views=rest))
        return [with_position(after, goal, into, op.target_offset, count)]

    return moving(c, "C-SPLICE-20", most).by(written)


def _between_pipes(s: State, number: int, of: Pipe, goal: int, into: Pipe, count: int) -> State:
    head, rest = take(of.views, count)
    return s.with_object(number, evolve(of, views=rest)).with_object(goal, evolve(into, views=(*into.views, *head)))


def _to_socket(
    c: Context, s: State, op: Splice, source: tuple[int, Pipe], target: tuple[int, Socket], most: int, *, nonblock: bool
) -> Expectations:
    (number, of), (goal, into) = source, target
    if (gone := socket_gone(c, s, into)) is not None:
        return gone
    held = into.kind is SocketKind.TCP and SpliceFlag.MORE in op.flags

    def taken(count: int) -> list[State]:
        head, rest = take(of.views, count)
        after = s.with_object(number, evolve(of, views=rest))
        return [after.with_object(goal, evolve(into, views=(*into.views, *pages_of_views(head)), held=held))]

    return (*socket_full(into, most, nonblock=nonblock), *moving(c, "C-SPLICE-40", most).by(taken))


def _movable(of: Pipe, into: Pipe, length: int) -> int:
    """Return how many bytes fit: slots move whole, and the last one in part."""
    free = into.slots - len(into.views)
    return min(length, sum(v.length for v in of.views[:free]))


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
def tee(c: Context, s: State, op: Tee) -> Expectations:
    number, of = look_up(c, s, op.source, Pipe)
    goal, into = look_up(c, s, op.target, Pipe)
    if op.length == 0:
        return c.returns("C-SPLICE-07", 0).leaving(s)
    if refused := c.refuses(("EINVAL", number == goal, "C-SPLICE-06")):
        return refused.leaving(s)
    nonblock = SpliceFlag.NONBLOCK in op.flags or of.nonblock or into.nonblock
    if (ended := source_ends(c, s, of, nonblock=nonblock)) is not None:
        return ended
    if (waits := target_refuses(c, s, into, nonblock=nonblock)) is not None:
        return waits

    def copied(count: int) -> list[State]:
        head, _ = take(of.views, count)
        return [s.with_object(goal, evolve(into, views=(*into.views, *pages_of_views(head))))]

    return moving(c, "C-SPLICE-30", _movable(of, into, op.length)).by(copied)


@rule(Vmsplice)
def vmsplice(c: Context, s: State, op: Vmsplice) -> Expectations:
    goal, into = look_up(c, s, op.pipe, Pipe)
    number, m = look_up(c, s, op.mapping, Mapping)
    if op.length == 0:
        return c.returns("C-SPLICE-07", 0).leaving(s)
    if m.writable and not m.readable:
        raise Undetermined("no clause covers pinning memory that may only be written")
    if (waits := target_refuses(c, s, into, nonblock=SpliceFlag.NONBLOCK in op.flags)) is not None:
        return waits
    there = readable_bytes(s, m, op.offset, op.length)
    if refused := c.refuses(("EFAULT", not m.readable or there == 0, "C-VMS-01")):
        return refused.leaving(s)
    free = into.slots - len(into.views)

    def referred(count: int) -> list[State]:
        states = sent(s, number, op.offset, count)
        views = [mapped_views(c, state, number, op.offset, op.offset + count) for state in states]
        return [x.with_object(goal, evolve(into, views=(*into.views, *v))) for x, v in zip(states, views, strict=True)]

    return moving(c, "C-VMS-02", min(there, free * PAGE - op.offset % PAGE), s.memory(m.memory).volume or "main").by(referred)
