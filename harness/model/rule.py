"""Rules: one function per operation, from a state and what was seen to the states that may follow.

An empty answer is a violation. The helpers here are the few things that many rules do: look a name up, move content into
memory, take pages away.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from harness.model.clause import Context, Undetermined
from harness.model.content import Pieces, length_of, zeroes
from harness.model.operation import Operation
from harness.model.state import Mapping, Memory, Object, OpenFile, Pipe, Socket, State, page_ceil, page_floor

Rule = Callable[[Context, State, Any], list[State]]
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
    return number, thing


def file_memory(s: State, of: OpenFile) -> Memory:
    return s.memory(of.memory)


def volume_fact(c: Context, name: str, memory: Memory) -> str | int | bool:
    """Return a fact of the volume that ``memory`` lies on, in the memory's own DAX state."""
    return c.env.fact(name, memory.volume, memory.dax)


# ---- content into memory ---------------------------------------------------------------------------------------------


def put(c: Context, s: State, number: int, start: int, pieces: Pieces, *, bypass: bool = False) -> State:
    """Return the state after ``pieces`` were written to memory ``number`` at ``start``.

    ``bypass``: past the page cache (O_DIRECT without DAX), which takes the cached pages away first.
    """
    end = start + length_of(pieces)
    memory = s.memory(number)
    low, high = page_floor(start), page_ceil(end)
    if bypass and not memory.dax:
        s = s.detached(number, low, high)
        memory = replace(memory, cached=memory.cached.remove(low, high))
        s = forget_pages(s, number, low, high)
    if memory.is_file and start > memory.size:
        memory = _grown(c, memory, start)
    was_hole = not memory.data.covers(low, high)
    memory = replace(memory, content=memory.content.write(start, pieces))
    if memory.kind in ("file", "node"):
        if memory.is_file:
            memory = replace(memory, size=max(memory.size, end))
        memory = replace(memory, data=memory.data.add(low, high), unwritten=memory.unwritten.remove(low, high))
    s = s.with_object(number, memory)
    if not memory.dax and not bypass and memory.kind in ("file", "node"):
        s = cache(s, number, low, high)
    if memory.dax and was_hole:
        s = forget_pages(s, number, low, high)
    return s


def resized(c: Context, s: State, number: int, size: int) -> State:
    """Return the state after memory ``number`` was truncated or extended to ``size``."""
    memory = s.memory(number)
    if size >= memory.size:
        return s.with_object(number, replace(_grown(c, memory, size), size=size))
    last = page_ceil(size)
    s = removed(s, number, last, page_ceil(memory.size) + 1)
    memory = s.memory(number)
    content = memory.content.write(size, zeroes(page_ceil(memory.size) - size))
    return s.with_object(number, replace(memory, content=content, size=size))


def removed(s: State, number: int, low: int, high: int) -> State:
    """Return the state after the whole pages ``low`` to ``high`` left memory ``number``: a hole is there now."""
    if low >= high:
        return s
    s = forget_pages(s.detached(number, low, high), number, low, high, mapped_too=True)
    memory = s.memory(number)
    memory = replace(
        memory,
        content=memory.content.write(low, zeroes(high - low)),
        data=memory.data.remove(low, high),
        unwritten=memory.unwritten.remove(low, high),
        cached=memory.cached.remove(low, high),
    )
    return s.with_object(number, memory)


def folios_left(c: Context, before: State, after: State, number: int, low: int, high: int) -> list[State]:
    """Return the states that may follow when bytes ``low`` to ``high`` left a file: ``after`` is the one of single pages.

    A page cache may keep several pages as one. Of such a folio the part that goes is zeroed in place, and then the folio
    stays, or all of it goes: a pipe with one of its pages shows zeroes, or no longer shows what is written there later.
    """
    memory = before.memory(number)
    if memory.dax or not memory.is_file or not volume_fact(c, "large_folios", memory):
        return [after]
    kept = after
    for key, thing in before.objects.items():
        if isinstance(thing, Pipe | Socket) and any(v.is_alias and v.memory == number for v in thing.views):
            kept = kept.with_object(key, thing)
    end = page_ceil(max(memory.size, after.memory(number).size))
    states: list[State] = []
    for state in (after, kept, kept.detached(number, low, high), after.detached(number, 0, end), kept.detached(number, 0, end)):
        if state not in states:
            states.append(state)
    return states


def _grown(c: Context, memory: Memory, size: int) -> Memory:
    """Return ``memory`` with its tail beyond the old end as the growth to ``size`` leaves it."""
    tail = page_ceil(memory.size)
    if memory.is_file and memory.size < tail and size > memory.size and volume_fact(c, "tail_zeroed_on_extension", memory):
        return replace(memory, content=memory.content.write(memory.size, zeroes(tail - memory.size)))
    return memory


def cache(s: State, number: int, low: int, high: int) -> State:
    """Return the state with the page-cache pages ``low`` to ``high`` of memory ``number`` present."""
    memory = s.memory(number)
    if memory.dax or memory.kind not in ("file", "node") or low >= high:
        return s
    return s.with_object(number, replace(memory, cached=memory.cached.add(low, high)))


def forget_pages(s: State, number: int, low: int, high: int, *, mapped_too: bool = False) -> State:
    """Return the state in which no page table is sure to hold pages ``low`` to ``high`` of memory ``number``."""
    for key, thing in s.objects.items():
        if isinstance(thing, Mapping) and thing.memory == number:
            start, end = low - thing.offset, high - thing.offset
            if thing.sure.touches(start, end) or (mapped_too and thing.touched.touches(start, end)):
                touched = thing.touched.remove(start, end) if mapped_too else thing.touched
                huge = thing.huge.remove(page_floor(start), page_ceil(end)) if mapped_too else thing.huge
                s = s.with_object(key, replace(thing, sure=thing.sure.remove(start, end), touched=touched, huge=huge))
    return s


# ---- mappings as buffers ---------------------------------------------------------------------------------------------


def mapping_reaches(s: State, m: Mapping, start: int, length: int) -> bool:
    """Whether every page of the range lies in the mapping and, for a file, before the end of the page with its last byte."""
    if start < 0 or start + length > m.length:
        return False
    memory = s.memory(m.memory)
    return not memory.is_file or m.offset + start + length <= page_ceil(memory.size)


def mapping_bytes(s: State, m: Mapping, start: int, length: int) -> Pieces:
    return s.mapped(m, start, start + length)


def store_into(c: Context, s: State, number: int, start: int, pieces: Pieces) -> State:
    """Return the state after ``pieces`` were stored through mapping ``number`` at ``start`` (by the program or the kernel)."""
    _, m = number, s.objects[number]
    assert isinstance(m, Mapping)
    end = start + length_of(pieces)
    if m.shared:
        memory = s.memory(m.memory)
        at = m.offset + start
        size = memory.size
        s = put(c, s, m.memory, at, pieces) if not memory.is_file or at <= size else s
        memory = s.memory(m.memory)
        if memory.is_file:  # a store never moves the end of a file; its bytes past the end stay in the page
            content = memory.content.write(at, pieces)
            data = memory.data.add(page_floor(at), page_ceil(at + length_of(pieces)))
            memory = replace(memory, size=size, content=content, data=data)
            s = s.with_object(m.memory, memory)
        return s
    low, high = page_floor(start), page_ceil(end)
    overlay = m.overlay
    for page in range(low, high, c.env.page):
        if page not in m.private_pages:
            overlay = overlay.write(page, s.mapped(m, page, page + c.env.page))
    overlay = overlay.write(start, pieces)
    return s.with_object(number, replace(m, overlay=overlay, private_pages=m.private_pages.add(low, high)))


def touch(s: State, number: int, start: int, end: int, *, write: bool) -> list[State]:
    """Return the states after pages ``start`` to ``end`` of mapping ``number`` were faulted in.

    Where a 2 MiB mapping is possible there are two: the kernel may always fall back to 4 KiB. A write fault that maps a
    whole span allocates all of it (fs/dax.c dax_iomap_pmd_fault asks for the span). Copying a page of a private huge mapping
    on write splits it, and then none of the other pages is mapped (mm/huge_memory.c __split_huge_pmd_locked, vma_is_dax).
    """
    m = s.objects[number]
    assert isinstance(m, Mapping)
    low, high = page_floor(start), page_ceil(end)
    if write and not m.shared:
        for a, b in [(a, b) for a, b in _whole_spans(m) if a < high and low < b]:
            m = replace(m, touched=m.touched.remove(a, b), sure=m.sure.remove(a, b), huge=m.huge.remove(a, b))
    small = replace(m, touched=m.touched.add(low, high), sure=m.sure.add(low, high))
    memory = s.memory(m.memory)
    s = cache(s, m.memory, m.offset + low, m.offset + high) if m.shared or not write else s
    states = [s.with_object(number, small)]
    spans = huge_spans(m, memory, low, high, write=write)
    if spans:
        big = small
        for a, b in spans:
            big = replace(big, touched=big.touched.add(a, b), sure=big.sure.add(a, b), huge=big.huge.add(a, b))
            if write:
                data = memory.data.add(m.offset + a, m.offset + b)
                memory = replace(memory, data=data, unwritten=memory.unwritten.remove(m.offset + a, m.offset + b))
        states.append(s.with_object(number, big).with_object(m.memory, memory))
    return states


def _whole_spans(m: Mapping) -> list[tuple[int, int]]:
    """Return the 2 MiB spans of ``m`` that are mapped at once, one by one."""
    huge = 2 * 1024 * 1024
    return [(at, at + huge) for a, b in m.huge.spans for at in range(a, b, huge)]


def huge_spans(m: Mapping, memory: Memory, low: int, high: int, *, write: bool) -> list[tuple[int, int]]:
    """Return the 2 MiB spans (bytes of the mapping) that a fault in ``low`` to ``high`` may map at once."""
    huge = 2 * 1024 * 1024
    if not memory.dax or m.aligned is False or not m.huge_allowed or (write and not m.shared):
        return []
    spans = []
    first = (m.offset + low) // huge * huge
    for at in range(first, m.offset + high, huge):
        start = at - m.offset
        inside = start >= 0 and start + huge <= m.length
        fresh = inside and not m.touched.touches(start, start + huge)
        backed = memory.data.covers(at, at + huge) or memory.unwritten.covers(at, at + huge) or _mixed(memory, at, at + huge)
        hole = not memory.data.touches(at, at + huge) and not memory.unwritten.touches(at, at + huge)
        if fresh and (backed or hole) and at + huge <= page_ceil(memory.size):
            spans.append((start, start + huge))
    return spans


def _mixed(memory: Memory, low: int, high: int) -> bool:
    both = memory.data
    for a, b in memory.unwritten.within(low, high).spans:
        both = both.add(a, b)
    return both.covers(low, high)
