"""Rules: one function per operation, from a state and what was seen to the states that may follow.

An empty answer is a violation. The helpers here are the few things that many rules do: look a name up, move content into
memory, take pages away.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from harness.model.clause import Context, Undetermined
from harness.model.content import Pieces, Ranges, length_of, unknown, zeroes
from harness.model.state import Mapping, Memory, Object, OpenFile, Pipe, Socket, State, outside, page_ceil, page_floor
from harness.ops import Operation

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


def first_data(memory: Memory, start: int, end: int) -> int:
    """Return the first byte from ``start`` on that has data, or ``end``."""
    spans = memory.data.within(start, end).spans
    return spans[0][0] if spans else end


def volume_fact(c: Context, name: str, memory: Memory) -> str | int | bool:
    """Return a fact of the volume that ``memory`` lies on, in the memory's own DAX state."""
    return c.env.fact(name, memory.volume, memory.dax)


def waits_for_pins(c: Context, s: State, number: int) -> bool:
    """Whether taking pages from memory ``number`` waits for somebody who holds one of them."""
    memory = s.memory(number)
    if not memory.is_file or not s.is_pinned(number) or not volume_fact(c, "truncate_waits_for_pins", memory):
        return False
    if not any(isinstance(s.objects[n], Mapping) and s.objects[n].memory == number for n in s.names.values()):  # type: ignore[union-attr]
        raise Undetermined("no clause covers this combination of pins and mappings")
    return True


# ---- content into memory ---------------------------------------------------------------------------------------------


def put(c: Context, s: State, number: int, start: int, pieces: Pieces, *, bypass: bool = False) -> State:
    """Return the state after ``pieces`` were written to memory ``number`` at ``start``. Nothing written changes nothing.

    ``bypass``: past the page cache (O_DIRECT without DAX), which takes the cached pages away first.
    """
    end = start + length_of(pieces)
    if start == end:
        return s
    memory = s.memory(number)
    low, high = page_floor(start), page_ceil(end)
    if bypass and not memory.dax:
        s = evicted(c, s, number, low, high)
        memory = s.memory(number)
    if memory.is_file and start > memory.size:
        memory = grown(c, memory, start)
    was_hole = not memory.data.covers(low, high)
    memory = replace(memory, content=memory.content.write(start, pieces), unsynced=True)
    if memory.on_volume:
        if memory.is_file:
            memory = replace(memory, size=max(memory.size, end))
        memory = replace(memory, data=memory.data.add(low, high), unwritten=memory.unwritten.remove(low, high))
    s = s.with_object(number, memory)
    if not bypass:
        s = cache(s, number, low, high)
    if memory.dax and was_hole:
        s = forget_pages(s, number, low, high)
    return s


def evicted(c: Context, s: State, number: int, low: int, high: int) -> State:
    """Return the state after a direct write took the cached pages ``low`` to ``high`` away; a large folio goes as a whole."""
    memory = s.memory(number)
    s = forget_pages(s.detached(number, low, high), number, low, high)
    memory = replace(memory, cached=memory.cached.remove(low, high), perhaps=memory.perhaps.remove(low, high))
    s = s.with_object(number, memory)
    return neighbours_in_doubt(c, s, number)


def refused_direct(c: Context, s: State, of: OpenFile, at: int, length: int) -> list[State]:
    """Return the states after an O_DIRECT write was refused: the cached pages of its range may be gone all the same.

    Source: fs/iomap/direct-io.c __iomap_dio_rw invalidates them before iomap_dio_bio_iter looks at the alignment; block/fops.c does alike.
    """
    memory = s.memory(of.memory)
    if not of.direct or memory.dax or not memory.on_volume or length <= 0:
        return [s]
    gone = evicted(c, s, of.memory, page_floor(max(at, 0)), page_ceil(max(at, 0) + length))
    return [s] if gone == s else [s, gone]


def neighbours_in_doubt(c: Context, s: State, number: int) -> State:
    """Return the state in which any page of a file may have left its cache, where pages are kept several in one."""
    memory = s.memory(number)
    if not memory.is_file or memory.dax or not volume_fact(c, "large_folios", memory):
        return s
    perhaps = memory.perhaps
    for a, b in memory.cached.spans:
        perhaps = perhaps.add(a, b)
    s = s.with_object(number, replace(memory, cached=Ranges(), perhaps=perhaps))
    return forget_pages(s, number, 0, page_ceil(max(memory.size, 1)))


def resized(c: Context, s: State, number: int, size: int) -> State:
    """Return the state after memory ``number`` was truncated or extended to ``size``.

    Private copies behind the new end go with the pages (mm/memory.c unmap_mapping_range with even_cows). On DAX all of the file is
    unmapped, however little goes (fs/dax.c dax_layout_busy_page).
    """
    memory = s.memory(number)
    s = layouts_broken(s, number)
    if size >= memory.size:
        return s.with_object(number, replace(grown(c, memory, size), size=size))
    last = page_ceil(size)
    s = removed(c, s, number, last, page_ceil(memory.size) + 1)
    s = _without_copies(s, number, last)
    memory = s.memory(number)
    content = memory.content.write(size, zeroes(page_ceil(memory.size) - size))
    return s.with_object(number, replace(memory, content=content, size=size))


def _without_copies(s: State, number: int, start: int) -> State:
    """Return the state in which no private mapping has a page of its own of what lies from ``start`` on in memory ``number``."""
    for key, thing in s.objects.items():
        if isinstance(thing, Mapping) and thing.memory == number and not thing.shared:
            low, end = max(0, start - thing.offset), thing.end
            for a, b in thing.private_pages.within(low, end).spans:
                thing = replace(thing, private_pages=thing.private_pages.remove(a, b)).without(a, b, present=False)
                s = s.with_object(key, thing)
    return s


def layouts_broken(s: State, number: int) -> State:
    """Return the state after the kernel made sure that nobody uses a page of a DAX file: none of its pages is mapped any more.

    Source: fs/dax.c dax_layout_busy_page, called by ext4_break_layouts and xfs_break_dax_layouts for the whole file (up to 6.12).
    """
    memory = s.memory(number)
    if not memory.is_file or not memory.dax:
        return s
    return forget_pages(s, number, 0, 1 << 62, mapped_too=True)


def removed(c: Context, s: State, number: int, low: int, high: int) -> State:
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
        perhaps=memory.perhaps.remove(low, high),
    )
    return neighbours_in_doubt(c, s.with_object(number, memory), number)


def folios_left(c: Context, before: State, after: State, number: int, low: int, high: int) -> list[State]:
    """Return the states that may follow when bytes ``low`` to ``high`` left a file: ``after`` is the one of single pages.

    A page cache may keep several pages as one. Of such a folio the part that goes is zeroed in place, and then the folio
    stays, or all of it goes: a pipe with one of its pages shows zeroes, or no longer shows what is written there later. Where all of a
    file goes, no folio is left in part.
    """
    memory = before.memory(number)
    straddled = low > 0 or high < page_ceil(memory.size)
    if memory.dax or not memory.is_file or not straddled or low >= high or not volume_fact(c, "large_folios", memory):
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


def parted_by_growth(c: Context, before: State, after: State, number: int) -> State:
    """Return ``after``, in which a file may have grown: the folio that its new end is in is split then, which unmaps its pages.

    Source: mm/truncate.c truncate_setsize, truncate_inode_partial_folio; mm/huge_memory.c unmap_folio.
    """
    memory = before.memory(number)
    if memory.dax or after.memory(number).size <= memory.size or not volume_fact(c, "large_folios", memory):
        return after
    return forget_pages(after, number, 0, page_ceil(memory.size))


def grown(c: Context, memory: Memory, size: int) -> Memory:
    """Return ``memory`` with its tail beyond the old end as the growth to ``size`` leaves it."""
    tail = page_ceil(memory.size)
    if memory.is_file and memory.size < tail and size > memory.size and volume_fact(c, "tail_zeroed_on_extension", memory):
        return replace(memory, content=memory.content.write(memory.size, zeroes(tail - memory.size)))
    return memory


def cache(s: State, number: int, low: int, high: int) -> State:
    """Return the state with the page-cache pages ``low`` to ``high`` of memory ``number`` present."""
    memory = s.memory(number)
    if memory.dax or not memory.on_volume or low >= high:
        return s
    return s.with_object(number, replace(memory, cached=memory.cached.add(low, high), perhaps=memory.perhaps.remove(low, high)))


def forget_pages(s: State, number: int, low: int, high: int, *, mapped_too: bool = False) -> State:
    """Return the state in which no page table is sure to hold pages ``low`` to ``high`` of memory ``number``; copies are none of them.

    ``mapped_too``: they were taken out of the page tables, so none holds them.
    """
    for key, thing in s.objects.items():
        if isinstance(thing, Mapping) and thing.memory == number:
            start, end = max(0, low - thing.offset), min(high - thing.offset, thing.end)
            if start < end and (thing.sure.touches(start, end) or (mapped_too and thing.touched.touches(start, end))):
                s = s.with_object(key, thing.without(start, end, present=not mapped_too))
    return s


def cleaned(s: State, number: int) -> State:
    """Return the state after the dirty pages of memory ``number`` were written back: the next store to each faults again.

    Source: fs/dax.c dax_writeback_one and mm/page-writeback.c clear_page_dirty_for_io: page_mkclean write-protects.
    """
    for key, thing in s.objects.items():
        if isinstance(thing, Mapping) and thing.memory == number and thing.shared and thing.dirty.spans:
            s = s.with_object(key, replace(thing, dirty=Ranges()))
    memory = replace(s.memory(number), unsynced=False)
    tail = page_ceil(memory.size) - memory.size
    if memory.is_file and not memory.dax and tail:
        # What was stored behind the end is zeroed on its way to the medium (fs/ext4/page-io.c, fs/iomap/buffered-io.c folio_zero_segment).
        memory = replace(memory, content=memory.content.write(memory.size, zeroes(tail)))
    return s.with_object(number, memory)


# ---- mappings as buffers ---------------------------------------------------------------------------------------------


def usable_end(s: State, m: Mapping) -> int:
    """Return up to where bytes of the mapping can be reached: the end of its last page, or of the page with the last byte of its file."""
    memory = s.memory(m.memory)
    return max(0, min(m.end, page_ceil(memory.size) - m.offset)) if memory.is_file else m.end


def mapping_reaches(s: State, m: Mapping, start: int, length: int) -> bool:
    """Whether every byte of the range can be reached: see :func:`usable_end`."""
    return start >= 0 and start + length <= usable_end(s, m)


def mapping_bytes(s: State, m: Mapping, start: int, length: int) -> Pieces:
    return s.mapped(m, start, start + length)


def overlaps(s: State, m: Mapping, start: int, length: int, memory: int, at: int) -> bool:
    """Whether the range of the mapping shows bytes of ``memory`` that lie in ``at`` to ``at + length``, but not at the same place."""
    if m.memory != memory or m.offset + start == at:
        return False
    return m.offset + start < at + length and at < m.offset + start + length


def store_into(c: Context, s: State, number: int, start: int, pieces: Pieces) -> State:
    """Return the state after ``pieces`` were stored through mapping ``number`` at ``start`` (by the program or the kernel)."""
    m = s.objects[number]
    assert isinstance(m, Mapping)
    end = start + length_of(pieces)
    if start == end:
        return s
    if m.shared:
        memory = s.memory(m.memory)
        at = m.offset + start
        size = memory.size
        s = put(c, s, m.memory, at, pieces) if not memory.is_file or at <= size else s
        memory = s.memory(m.memory)
        if memory.is_file:  # a store never moves the end of a file; its bytes past the end stay in the page
            content = memory.content.write(at, pieces)
            data = memory.data.add(page_floor(at), page_ceil(at + length_of(pieces)))
            memory = replace(memory, size=size, content=content, data=data, unsynced=True)
            s = s.with_object(m.memory, memory)
        return s
    low, high = page_floor(start), page_ceil(end)
    overlay = m.overlay
    for a, b in outside(m.private_pages, low, high):
        overlay = overlay.write(a, s.mapped(m, a, b))
    overlay = overlay.write(start, pieces)
    return s.with_object(number, replace(m, overlay=overlay, private_pages=m.private_pages.add(low, high)))


def received(c: Context, s: State, number: int, start: int, pieces: Pieces) -> list[State]:
    """Return the states after the kernel wrote ``pieces`` into mapping ``number`` at ``start``: its pages are faulted in for it."""
    if not pieces:
        return [s]
    return [store_into(c, after, number, start, pieces) for after in touch(s, number, start, start + length_of(pieces), write=True)]


def sent(s: State, number: int, start: int, length: int) -> list[State]:
    """Return the states after the kernel read ``length`` bytes of mapping ``number`` from ``start`` on."""
    return touch(s, number, start, start + length, write=False) if length > 0 else [s]


def spoilt(c: Context, s: State, number: int, start: int, length: int) -> list[State]:
    """Return the states after a store of which nobody knows how far it came: nothing of it happened, or something."""
    end = min(start + length, usable_end(s, _mapping(s, number)))
    start = max(start, 0)
    return [s] if start >= end else [s, *received(c, s, number, start, unknown(end - start))]


def _mapping(s: State, number: int) -> Mapping:
    m = s.objects[number]
    assert isinstance(m, Mapping)
    return m


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
    if write:
        small = replace(small, stored=small.stored.add(low, high), dirty=small.dirty.add(low, high))
    memory = s.memory(m.memory)
    s = cache(s, m.memory, m.offset + low, m.offset + high) if m.shared or not write else s
    states = [s.with_object(number, _whole_writable(small, low, high) if write else small)]
    spans = huge_spans(m, memory, low, high, write=write)
    if spans:
        big = small
        for a, b in spans:
            big = replace(big, touched=big.touched.add(a, b), sure=big.sure.add(a, b), huge=big.huge.add(a, b))
            if write:
                data = memory.data.add(m.offset + a, m.offset + b)
                memory = replace(memory, data=data, unwritten=memory.unwritten.remove(m.offset + a, m.offset + b))
                big = replace(big, stored=big.stored.add(a, b), dirty=big.dirty.add(a, b))
        states.append(s.with_object(number, big).with_object(m.memory, memory))
    return states


def _whole_writable(m: Mapping, low: int, high: int) -> Mapping:
    """Return the mapping after a store: a span that is mapped at once becomes writable at once."""
    for a, b in _whole_spans(m):
        if a < high and low < b:
            m = replace(m, stored=m.stored.add(a, b), dirty=m.dirty.add(a, b))
    return m


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
        inside = start >= 0 and start + huge <= m.end
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
