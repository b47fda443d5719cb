"""Rules: one function per operation, from a state to what the step may show there, and the states that follow.

The helpers here are the few things that many rules do: look a name up, ask a fact of a volume.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from harness.model.clause import Context, Undetermined
from harness.model.content import all_zero
from harness.model.expectation import Expectations
from harness.model.objects import PAGE, Mapping, Memory, Object, OpenFile
from harness.model.stack import TARGET
from harness.model.state import State
from harness.ops import Operation

Rule = Callable[[Context, State, Any], Expectations]
RULES: dict[type[Operation], Rule] = {}
T = TypeVar("T", bound=Object)


def rule(operation: type[Operation]) -> Callable[[Rule], Rule]:
    """Register the decorated function as the rule of ``operation``."""

    def register(function: Rule) -> Rule:
        RULES[operation] = function
        return function

    return register


def look_up(c: Context, s: State, name: str, kind: type[T]) -> tuple[int, T]:
    """Return the number and the object that ``name`` stands for; undetermined where its maker did not make it."""
    try:
        number = s.number(c.process, name)
    except KeyError:
        raise Undetermined(f"{name} was not made: the step that makes it did not succeed") from None
    thing = s.objects[number]
    if not isinstance(thing, kind):
        raise Undetermined(f"{name} is not a {kind.__name__}")
    if isinstance(thing, OpenFile) and thing.layered and was_copied_up(s, s.memory(thing.memory)):
        raise Undetermined("what a descriptor shows that an overlay gave before the file was copied up is not known to the model")
    return number, thing


def was_copied_up(s: State, memory: Memory) -> bool:
    """Whether an overlay has a copy of a file of what it lies over."""
    return memory.closed_by is not None and (TARGET, above(memory.path)) in s.files


def above(path: str) -> str:
    """Return where an overlay keeps a file of its own, on the volume that lies above."""
    return f"upper/{path}"


def first_data(memory: Memory, start: int, end: int) -> int:
    """Return the first byte from ``start`` on that has data, or ``end``."""
    spans = memory.data.within(start, end).spans
    return spans[0][0] if spans else end


def volume_fact(c: Context, name: str, memory: Memory) -> str | int | bool:
    """Return a fact of the volume that ``memory`` lies on, in the memory's own DAX state."""
    return c.env.fact(name, memory.volume, memory.dax, memory.closed_by)


def kernel_fact(c: Context, name: str) -> str | int | bool:
    """Return a fact that is the same on every volume."""
    return c.env.fact(name, c.env.reading.volumes[0].role)


def block_bytes(c: Context, memory: Memory) -> int:
    """Return the size of the blocks that a file consists of; a page where its file system does not say."""
    return c.env.reading.volume(memory.volume).filesystem_block_bytes or PAGE


def may_be_inline(c: Context, memory: Memory) -> bool:
    """Whether a file is so small that it may be kept in its inode, without a block."""
    return memory.is_file and c.env.reading.volume(memory.volume).format.traits.may_be_inline(memory.size)


def require_whole_pages(c: Context, memory: Memory, at: int) -> None:
    """Raise Undetermined where a page can be a hole in part and ``at`` may lie in that: the model counts data in pages."""
    block = block_bytes(c, memory) if memory.is_file else PAGE
    if block < PAGE and all_zero(memory.content.read(at - at % block, at - at % block + block)):
        raise Undetermined("whether there is a hole in a part of a page is not known to the model")


def is_closed_node(c: Context, memory: Memory) -> bool:
    """Whether ``memory`` is the node of a device that is read-only."""
    return memory.is_node and c.env.reading.volume(memory.volume).read_only


def may_share(c: Context, one: Memory, other: Memory) -> bool:
    """Whether two files may share blocks for the DAX states that they are in."""
    return one.dax == other.dax and (not one.dax or bool(volume_fact(c, "dax_shares_blocks", one)))


def waits_for_pins(c: Context, s: State, number: int) -> bool:
    """Whether taking pages from memory ``number`` waits for somebody who holds one of them."""
    memory = s.memory(number)
    if memory.dax and memory.is_file and s.is_pinned(number) and not volume_fact(c, "truncate_unmaps", memory):
        raise Undetermined("no clause covers cutting a file with pinned pages on this file system")
    if not memory.is_file or not s.is_pinned(number) or not volume_fact(c, "truncate_waits_for_pins", memory):
        return False
    if not any(isinstance(s.objects[n], Mapping) and s.objects[n].memory == number for n in s.names.values()):  # type: ignore[union-attr]
        raise Undetermined("no clause covers this combination of pins and mappings")
    return True
