"""Rules for pipes, and for read and write, which work on them too."""

from collections.abc import Sequence

from harness.model.clause import Context, Undetermined, clause
from harness.model.content import Pieces, cut, length_of, unknown
from harness.model.expectation import Expectations
from harness.model.objects import PAGE, Mapping, Pipe, View, copy_view, take
from harness.model.rules.buffers import mapping_reaches, received, sent
from harness.model.rules.moving import MOST_SLOTS, SLOTS, end_of, outgoing_bytes, source_ends, unreadable
from harness.model.rules.reads import read_file
from harness.model.rules.rule import look_up, rule
from harness.model.rules.writes import write_file
from harness.model.state import State
from harness.model.value import evolve
from harness.ops import Pipe as PipeOperation
from harness.ops import Read, SetPipeSize, Write

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
def pipe(c: Context, s: State, op: PipeOperation) -> Expectations:
    s, number = s.adding(Pipe(slots=SLOTS, nonblock=op.nonblock))
    return c.returns("C-PIPE-01", 0).leaving(s.naming(c.process, op.name, number))


@rule(SetPipeSize)
def set_pipe_size(c: Context, s: State, op: SetPipeSize) -> Expectations:
    number, of = look_up(c, s, op.pipe, Pipe)
    if op.size >= 1 << 32:
        raise Undetermined("no clause covers a size that does not fit into 32 bits: later kernels cut it off")
    if refused := c.refuses(("EINVAL", op.size < 0 or op.size > 1 << 31, "C-PIPE-14")):
        return refused.leaving(s)
    slots = 1
    while slots * PAGE < op.size:
        slots *= 2
    if slots > MOST_SLOTS:
        raise Undetermined("whether there is memory for a pipe that large is not known to the model")
    if refused := c.refuses(("EBUSY", slots < len(of.views), "C-PIPE-03")):
        return refused.leaving(s)
    return c.returns("C-PIPE-02", slots * PAGE).leaving(s.with_object(number, evolve(of, slots=slots)))


@rule(Read)
def read(c: Context, s: State, op: Read) -> Expectations:
    number, of = end_of(c, s, op.file)
    if not isinstance(of, Pipe):
        return read_file(c, s, op)
    if op.length < 0:
        raise Undetermined("no clause covers a negative length")
    if op.length == 0:
        return c.returns("C-PIPE-15", 0).leaving(s)
    if (ended := source_ends(c, s, of, nonblock=of.nonblock)) is not None:
        return ended
    into = None if op.into is None else look_up(c, s, op.into, Mapping)
    count = min(op.length, of.length)
    if into is not None:
        reaches = into[1].writable and mapping_reaches(s, into[1], op.into_offset, count)
        if c.refuses(("EFAULT", not reaches, "C-PIPE-13")):
            raise Undetermined("how much of a pipe a failed read takes is not specified")
    head, rest = take(of.views, count)
    pieces = s.resolve(head)
    s = s.with_object(number, evolve(of, views=rest))
    expected = c.returns("C-PIPE-04", count)
    if into is None:
        return expected.shows("C-PIPE-05", pieces).leaving(s)
    goes = unknown(count) if _shown_by(head, into[1], op.into_offset) else pieces
    return expected.leaving(*received(c, s, into[0], op.into_offset, goes))


def _shown_by(views: Sequence[View], m: Mapping, start: int) -> bool:
    """Whether the bytes of the views are read into an overlapping part of the pages that they are."""
    at = m.offset + start
    for view in views:
        if view.memory == m.memory and view.memory and view.start != at and view.start < at + view.length and at < view.start + view.length:
            return True
        at += view.length
    return any(m.shared and v.memory == m.memory and v.memory for v in views) and len(views) > 1


@rule(Write)
def write(c: Context, s: State, op: Write) -> Expectations:
    number, of = end_of(c, s, op.file)
    if not isinstance(of, Pipe):
        return write_file(c, s, op)
    if op.length < 0:
        raise Undetermined("no clause covers a negative length")
    if op.length == 0:
        return c.returns("C-PIPE-15", 0).leaving(s)
    if refused := c.refuses(("EPIPE", not of.read_open and not c.progress, "C-PIPE-12")):
        return refused.leaving(s)
    if refused := unreadable(c, s, op.from_, op.from_offset, op.length, "C-PIPE-13"):
        return refused.leaving(s)
    pieces = outgoing_bytes(c, s, op.length, op.from_, op.from_offset)
    filled, count = _appended(of, cut(pieces, c.progress, op.length))
    count += c.progress
    if not of.read_open:
        # It had moved some when the last reader went.
        return c.returns("C-PIPE-09", c.progress).leaving(s)
    if refused := c.refuses(("EAGAIN", count == 0 and of.nonblock, "C-PIPE-11")):
        return refused.leaving(s)
    after = s.with_object(number, evolve(of, views=filled))
    states = [after] if op.from_ is None else sent(after, look_up(c, s, op.from_, Mapping)[0], op.from_offset, count)
    if not of.nonblock and (blocked := c.blocks("C-PIPE-10", count < op.length, count)):
        return blocked.leaving(*states)
    return c.returns("C-PIPE-09", count).leaving(*states)


def _appended(of: Pipe, pieces: Pieces) -> tuple[tuple[View, ...], int]:
    """Return the slots of the pipe after a write of ``pieces``, and how many of its bytes found room."""
    total, at, views = length_of(pieces), 0, list(of.views)
    tail = total % PAGE
    if views and 0 < tail <= views[-1].room:
        last = views[-1]
        joined = (*(last.pieces or ()), *cut(pieces, 0, tail))
        views[-1] = evolve(last, length=last.length + tail, pieces=joined, room=last.room - tail)
        at = tail
    while at < total and len(views) < of.slots:
        part = cut(pieces, at, at + PAGE)
        length = length_of(part)
        views.append(evolve(copy_view(part), room=PAGE - length))
        at += length
    return tuple(views), at
