"""Writing to a file, in every form."""

from collections.abc import Sequence

from harness.model.clause import Context, Undetermined
from harness.model.content import Pieces, tagged, unknown
from harness.model.expectation import Expectations, either
from harness.model.objects import Mapping, Memory, OpenFile, page_ceil, page_floor
from harness.model.rules.buffers import mapping_bytes, sent, usable_end
from harness.model.rules.effects import perhaps_cached, put, refused_direct
from harness.model.rules.rule import is_closed_node, look_up, volume_fact
from harness.model.rules.transfers import (
    TAIL_WORD,
    cached_from,
    declined,
    direct_refusals,
    fault_refusals,
    first_buffers,
    goes_on_cached,
    moves,
    odd_before_append,
    refused_at_once,
    require_whole_blocks,
    shows_itself,
    usable_bytes,
)
from harness.model.state import State
from harness.model.value import evolve
from harness.ops import Buffer, RwFlag, Write


def write_file(c: Context, s: State, op: Write) -> Expectations:
    """write(2) to a file; pipes have their own rule."""
    return write_buffers(c, s, op.file, None, [Buffer(op.length, op.shift, op.from_, op.from_offset)])


def write_buffers(
    c: Context, s: State, file: str, offset: int | None, buffers: Sequence[Buffer], flags: Sequence[RwFlag] = ()
) -> Expectations:
    number, of = look_up(c, s, file, OpenFile)
    memory = s.memory(of.memory)
    at = of.position if offset is None else offset
    total = sum(b.length for b in buffers)
    if refused := refused_at_once(c, memory, at, buffers, flags, ("EBADF", not of.writable, "C-RW-05")):
        return refused.leaving(s)
    if memory.is_bar:
        raise Undetermined("no clause covers write(2) to a BAR")
    if refused := c.refuses(("EPERM", is_closed_node(c, memory), "C-NODE-03")):
        return refused.leaving(s)
    if not total:
        return either(declined(s, flags, total), lambda: c.returns("C-RW-10", 0).leaving(s))
    return either(declined(s, flags, total), lambda: _writing(c, s, (number, of), offset, buffers, flags))


def _writing(
    c: Context, s: State, file: tuple[int, OpenFile], offset: int | None, buffers: Sequence[Buffer], flags: Sequence[RwFlag]
) -> Expectations:
    """Return what is expected of a write of something that nothing forbids in itself."""
    of = file[1]
    memory = s.memory(of.memory)
    asked = of.position if offset is None else offset
    buffered = RwFlag.NOWAIT in flags and not of.asks_direct and not volume_fact(c, "buffered_nowait_write", memory)
    if refused := c.refuses(("EINVAL", buffered, "C-RWF-04")):
        return refused.leaving(s)
    at = _where(c, memory, of, asked, flags)
    most = memory.size if memory.is_node else int(volume_fact(c, "max_file_bytes", memory))
    full = ("ENOSPC", at >= most, "C-NODE-02") if memory.is_node else ("EFBIG", at >= most, "C-RW-11")
    if refused := c.refuses(full):
        return refused.leaving(s)
    total = sum(b.length for b in buffers)
    if at + total > most and (memory.is_file or c.holds("C-NODE-01", True)):
        total = most - at
        buffers = first_buffers(buffers, total)
    require_whole_blocks(c, memory, of, at, total)
    usable = usable_bytes(c, s, first_buffers(buffers, total), into=False)
    cached = cached_from(c, memory, of, at, at + total)
    odd = [] if cached == at else direct_refusals(c, s, memory, of, at, buffers)
    if any(condition for _, condition, _ in odd) and goes_on_cached(c, memory, of):
        cached, odd = at, []
    if cached is not None and (usable < total or any(condition for _, condition, _ in odd)):
        raise Undetermined(
            "how an O_DIRECT write ends that is refused in part, and made through the page cache in part, is not known to the model"
        )
    if refused := c.refuses(odd_before_append(c, memory, of, asked), *odd):
        return refused.leaving(*refused_direct(c, s, of, at, total))
    if usable < total and not of.direct and volume_fact(c, "short_write_at", memory) == "page":
        usable = max(0, page_floor(at + usable) - at)
    if refused := c.refuses(*fault_refusals(memory, of, usable, total)):
        return refused.leaving(*_spoilt(c, s, of, at, usable, buffers))
    if usable < total and memory.is_file and not memory.dax and any(_grows_under(c, s, of, at + usable, b) for b in buffers):
        raise Undetermined("how much is written of a buffer that is the same file, which grows meanwhile, is not specified")
    early = c.holds("C-RW-09", usable < total)
    total = usable if early else total
    if early and memory.dax and volume_fact(c, "dax_write_tail", memory) == "word":
        torn = moves(c, flags, total, "C-RW-13", max(1, total - TAIL_WORD + 1))
        refused = c.refuses(("EFAULT", True, "C-RW-13")) if total < TAIL_WORD else None
        less = refused.leaving(*_faulted_in(c, s, first_buffers(buffers, total))) if refused else ()
        return (*less, *torn.by(lambda moved: _written(c, s, file, offset, at, moved, buffers)))
    return moves(c, flags, total, "C-RW-06").by(lambda moved: _written(c, s, file, offset, at, moved, buffers, cached))


def _where(c: Context, memory: Memory, of: OpenFile, asked: int, flags: Sequence[RwFlag]) -> int:
    """Return where a write begins for which ``asked`` was asked."""
    at = memory.size if memory.is_file and of.append and c.holds("C-RW-08", True) else asked
    return memory.size if memory.is_file and RwFlag.APPEND in flags and c.holds("C-RWF-03", True) else at


def _spoilt(c: Context, s: State, of: OpenFile, at: int, usable: int, buffers: Sequence[Buffer]) -> list[State]:
    """Return the states after a write was refused for its buffer: nobody knows what it left of what could be read."""
    spoilt = unknown(max(0, min(usable, s.memory(of.memory).size - at)))
    after = _faulted_in(c, s, first_buffers(buffers, usable))
    return [put(c, x, of.memory, at, spoilt, bypass=True) if spoilt else x for x in after]


def _written(
    c: Context,
    s: State,
    file: tuple[int, OpenFile],
    offset: int | None,
    at: int,
    count: int,
    buffers: Sequence[Buffer],
    cached: int | None = None,
) -> list[State]:
    """Return the states after ``count`` bytes of ``buffers`` were written, by O_DIRECT those from ``cached`` on through the page cache."""
    number, of = file
    pieces = _gather(c, s, of, at, first_buffers(buffers, count))
    if offset is None:
        s = s.with_object(number, evolve(of, position=at + count))
    states = [put(c, after, of.memory, at, pieces, bypass=of.direct) for after in _faulted_in(c, s, first_buffers(buffers, count))]
    if cached is None or cached >= at + count:
        return states
    return [perhaps_cached(after, of.memory, cached, at + count) for after in states]


def _grows_under(c: Context, s: State, of: OpenFile, end: int, b: Buffer) -> bool:
    """Whether ``b`` goes on behind the end of the very file that is written, of which a write up to ``end`` lets more be reached."""
    if b.mapping is None:
        return False
    _, m = look_up(c, s, b.mapping, Mapping)
    behind = b.offset + b.length > usable_end(s, m)
    return m.memory == of.memory and behind and end > page_ceil(s.memory(of.memory).size)


def _faulted_in(c: Context, s: State, buffers: Sequence[Buffer]) -> list[State]:
    """Return the states after the pages of mappings among ``buffers`` were read by the kernel."""
    states = [s]
    for b in buffers:
        if b.mapping is not None and b.length:
            number, _ = look_up(c, s, b.mapping, Mapping)
            states = [after for before in states for after in sent(before, number, b.offset, b.length)]
    return states


def _gather(c: Context, s: State, of: OpenFile, at: int, buffers: Sequence[Buffer]) -> Pieces:
    """Return what is written; of a file onto an overlapping part of itself nobody knows."""
    out: list[Pieces] = []
    source = 0
    for b in buffers:
        if b.mapping is None:
            out.append(tagged(c.writer, b.length, source))
        else:
            _, m = look_up(c, s, b.mapping, Mapping)
            itself = shows_itself(m, b, of.memory, at, buffers)
            own = m.private_pages.covers(page_floor(b.offset), page_ceil(b.offset + b.length))
            out.append(unknown(b.length) if itself and not own else mapping_bytes(s, m, b.offset, b.length))
        source += b.length
    return tuple(piece for pieces in out for piece in pieces)
