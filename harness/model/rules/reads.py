"""Reading from a file, in every form."""

from collections.abc import Sequence

from harness.model.clause import Context, Undetermined
from harness.model.content import Pieces, cut, unknown
from harness.model.expectation import Expectations, either
from harness.model.objects import Mapping, Memory, OpenFile, page_ceil, page_floor
from harness.model.rules.buffers import received
from harness.model.rules.effects import cache
from harness.model.rules.rule import first_data, look_up, require_whole_pages, volume_fact
from harness.model.rules.transfers import (
    declined,
    direct_refusals,
    fault_refusals,
    first_buffers,
    moves,
    refused_at_once,
    shows_itself,
    usable_bytes,
)
from harness.model.state import State
from harness.model.value import evolve
from harness.ops import Buffer, Read, RwFlag


def chosen_offset(offset: int, flags: Sequence[RwFlag]) -> int | None:
    """Return where a transfer begins; to preadv2 and pwritev2, which are called for flags only, -1 is the file's own position."""
    return None if flags and offset == -1 else offset


def read_file(c: Context, s: State, op: Read) -> Expectations:
    """read(2) of a file; pipes have their own rule."""
    return read_buffers(c, s, op.file, None, [Buffer(op.length, op.shift, op.into, op.into_offset)])


def read_buffers(
    c: Context, s: State, file: str, offset: int | None, buffers: Sequence[Buffer], flags: Sequence[RwFlag] = ()
) -> Expectations:
    number, of = look_up(c, s, file, OpenFile)
    memory = s.memory(of.memory)
    at = of.position if offset is None else offset
    total = sum(b.length for b in buffers)
    if refused := refused_at_once(c, memory, at, buffers, flags, ("EBADF", not of.readable, "C-RW-01")):
        return refused.leaving(s)
    if memory.is_bar:
        raise Undetermined("no clause covers read(2) of a BAR")
    return either(declined(s, flags, total), lambda: _reading(c, s, (number, of), offset, buffers, flags))


def _reading(
    c: Context, s: State, file: tuple[int, OpenFile], offset: int | None, buffers: Sequence[Buffer], flags: Sequence[RwFlag]
) -> Expectations:
    """Return what is expected of a read that nothing forbids in itself."""
    of = file[1]
    memory = s.memory(of.memory)
    at = of.position if offset is None else offset
    total = sum(b.length for b in buffers)
    first = of.direct and total > 0 and memory.is_file and bool(volume_fact(c, "direct_read_checked_first", memory))
    if first and (refused := c.refuses(*direct_refusals(c, s, memory, of, at, buffers))):
        return refused.leaving(s)
    behind = of.direct and not memory.dax and memory.is_file and at >= memory.size
    if behind and c.holds("C-DIO-04", True):
        return c.returns("C-DIO-04", 0).leaving(s)
    count = min(total, max(0, memory.size - at))
    asked = first_buffers(buffers, count) if memory.is_node else tuple(buffers)
    start = first_data(memory, at, at + total) if memory.is_file and not memory.dax and not behind else at
    skip = start - at if of.direct and c.holds("C-DIO-05", start > at) else 0
    if (count or behind) and skip < total and (refused := c.refuses(*direct_refusals(c, s, memory, of, at + skip, _after(asked, skip)))):
        require_whole_pages(c, memory, at + skip)
        return refused.leaving(s)
    # An O_DIRECT read goes on into the hole behind the end, and asks for all of its buffer.
    needed = total if count and of.direct and memory.is_file and not memory.dax else count
    usable = usable_bytes(c, s, first_buffers(buffers, needed), into=True)
    if count and not usable and _hole_hides_fault(c, memory, at):
        return c.returns("C-RW-12", 0).leaving(s)
    if refused := c.refuses(*fault_refusals(memory, of, usable, needed)):
        return refused.leaving(*_scatter(c, s, first_buffers(buffers, usable), unknown(usable)))
    usable = min(usable, count)
    count = usable if c.holds("C-RW-09", usable < count) else count
    expected = moves(c, flags, count, "C-RW-02")
    if count and all(b.mapping is None for b in buffers):
        expected = expected.shows("C-RW-03", memory.content.read(at, at + count))
    return expected.by(lambda moved: _read(c, s, file, offset, at, moved, buffers))


def _read(
    c: Context, s: State, file: tuple[int, OpenFile], offset: int | None, at: int, count: int, buffers: Sequence[Buffer]
) -> list[State]:
    """Return the states after ``count`` bytes were read."""
    number, of = file
    memory = s.memory(of.memory)
    pieces = memory.content.read(at, at + count)
    if not of.direct:
        s = cache(s, of.memory, page_floor(at), page_ceil(at + count))
        end, stop = at + count, min(at + 2 * count, memory.size)
        if not memory.dax and end < stop:
            s = evolve(s, read_ahead=s.read_ahead + (stop - end) - memory.cached.within(end, stop).total())
    if offset is None:
        s = s.with_object(number, evolve(of, position=at + count))
    return _scatter(c, s, buffers, unknown(count) if _into_itself(c, s, of.memory, at, first_buffers(buffers, count)) else pieces)


def _hole_hides_fault(c: Context, memory: Memory, at: int) -> bool:
    """Whether a read that begins in a hole, or in blocks that are only allocated, says nothing of a buffer that cannot be used."""
    if not memory.is_file or memory.data.touches(at, at + 1) or volume_fact(c, "hole_into_bad_buffer", memory) == "EFAULT":
        return False
    return c.holds("C-RW-12", True)


def _into_itself(c: Context, s: State, memory: int, at: int, buffers: Sequence[Buffer]) -> bool:
    """Whether a file is read into an overlapping part of itself: what that becomes is not specified."""
    for b in buffers:
        if b.mapping is not None:
            _, m = look_up(c, s, b.mapping, Mapping)
            if m.shared and shows_itself(m, b, memory, at, buffers):
                return True
    return False


def _after(buffers: Sequence[Buffer], count: int) -> tuple[Buffer, ...]:
    """Return ``buffers`` without their first ``count`` bytes."""
    out: list[Buffer] = []
    for b in buffers:
        gone = min(b.length, max(0, count))
        if gone < b.length:
            out.append(evolve(b, length=b.length - gone, shift=b.shift + gone, offset=b.offset + gone))
        count -= b.length
    return tuple(out)


def _scatter(c: Context, s: State, buffers: Sequence[Buffer], pieces: Pieces) -> list[State]:
    """Return the states after ``pieces`` went into ``buffers``; a mapping's pages are faulted in for it."""
    states = [s]
    at = 0
    for b in buffers:
        part = cut(pieces, at, at + b.length)
        at += b.length
        if b.mapping is not None and part:
            number, _ = look_up(c, s, b.mapping, Mapping)
            states = [after for before in states for after in received(c, before, number, b.offset, part)]
    return states
