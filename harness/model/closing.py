"""Descriptors that end: closed ones, the ends of pipes and sockets, and all that a process leaves when a signal ends it.

A name stands for the descriptors of one process. A pipe or a connection ends when the last descriptor of an end is closed, in whatever
process; a process that dies closes all of its own.
"""

from collections.abc import Iterable

from harness import ops as op
from harness.model.clause import Context, Undetermined, clause
from harness.model.expectation import Expectations
from harness.model.filesystems import filesystem_traits
from harness.model.kinds import DaxOption
from harness.model.objects import Mapping, OpenFile, Pipe, Ring, Socket, SocketKind, page_ceil
from harness.model.stack import dax_mode
from harness.model.state import State
from harness.model.value import Table, evolve
from harness.ops import READ, WRITE, Operation

clause("C-CLOSE-01", "close of an open descriptor succeeds", "close(2)")
clause(
    "C-CLOSE-02",
    "a descriptor that the process has closed is EBADF, to close as to every other call",
    "close(2), read(2), splice(2) ERRORS",
)


def closed_ends(c: Context, s: State, operation: Operation) -> Expectations | None:
    """Return the answer of a call on a descriptor that was closed, or None where all that it uses are open.

    Calls that look at their numbers first may answer for these: splice and tee of nothing, offsets inside a page or before 0.
    """
    if not s.closed:
        return None
    uses = [(getattr(operation, name), field.metadata.get("uses")) for name, field in operation.fields.items()]
    closed = any((c.process, name, end) in s.closed for name, end in uses if end is not None and name is not None)
    if not closed:
        return None
    if isinstance(operation, op.Splice | op.Tee) and operation.length == 0:
        return c.returns("C-CLOSE-02", 0).leaving(s)
    early = _asked_before_the_descriptor(operation)
    if refused := c.refuses(("EBADF", True, "C-CLOSE-02"), ("EINVAL", early, "C-CLOSE-02")):
        return refused.leaving(s)
    return ()


def _asked_before_the_descriptor(operation: Operation) -> bool:
    if isinstance(operation, op.Pread | op.Pwrite | op.Preadv | op.Pwritev):
        return operation.offset < 0
    if isinstance(operation, op.Mmap):
        return operation.offset % 4096 != 0
    if isinstance(operation, op.Ftruncate):
        return operation.length < 0
    return False


def closing(c: Context, s: State, name: str, end: str | None) -> Expectations:
    """Return what is expected of close(2) of one end of ``name``, or of both."""
    number = s.names.get((c.process, name))
    if number is None:
        raise Undetermined(f"{name} was not made: the step that makes it did not succeed")
    thing = s.objects[number]
    single = isinstance(thing, OpenFile | Ring) or (isinstance(thing, Socket) and thing.kind is SocketKind.XDP)
    ends = (READ, WRITE) if single or end in (None, "both") else (end,)
    gone = [e for e in ends if (c.process, name, e) in s.closed]
    expected = c.refuses(("EBADF", bool(gone), "C-CLOSE-02")) or c.returns("C-CLOSE-01", 0)
    s = evolve(s, closed=s.closed | {(c.process, name, e) for e in ends})
    return expected.leaving(_after_closing(c, s, (number,)))


def without_process(c: Context, s: State, process: str) -> State:
    """Return the state after ``process`` died: its descriptors are closed, its mappings gone."""
    numbers = {number for (who, _), number in s.names.items() if who == process}
    names = Table({key: number for key, number in s.names.items() if key[0] != process})
    return _after_closing(c, evolve(s, names=names), numbers)


def _after_closing(c: Context, s: State, numbers: Iterable[int]) -> State:
    for number in numbers:
        thing = s.objects[number]
        if isinstance(thing, Pipe | Socket):
            readable, writable = s.has_end(number, READ), s.has_end(number, WRITE)
            if isinstance(thing, Socket) and not readable and thing.views:
                thing = evolve(thing, unread=True)
            views = thing.views if readable else ()
            s = s.with_object(number, evolve(thing, read_open=readable, write_open=writable, views=views))
        elif isinstance(thing, OpenFile | Mapping):
            s = flipped_at_last_close(c, s, thing.memory)
    return s


def flipped_at_last_close(c: Context, s: State, number: int) -> State:
    """Return the state in which a file has the DAX state that its flag asks for, where nobody uses it any more."""
    memory = s.memory(number)
    if not memory.is_file or memory.volume in s.mounted:
        return s
    if memory.dax and memory.was_shared and not s.is_used(number) and not c.env.fact("shared_can_be_dax", memory.volume, memory.dax):
        raise Undetermined("whether a file that shares blocks is in DAX state when it is opened again is not known to the model")
    reading = c.env.reading.volume(memory.volume)
    by_flag = reading.gives_dax and dax_mode(reading, filesystem_traits(reading.filesystem)) == DaxOption.INODE
    if not by_flag or memory.dax == memory.dax_flag or s.is_used(number) or not c.env.fact("format_dax_files", memory.volume, memory.dax):
        return s
    if reading.format.traits.may_be_inline(memory.size):
        raise Undetermined("whether a file of so few bytes has a block, without which it is not in DAX state, is not known to the model")
    return s.with_object(number, evolve(memory, dax=memory.dax_flag, cached=memory.cached.remove(0, page_ceil(memory.size))))
