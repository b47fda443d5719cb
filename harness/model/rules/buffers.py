"""Mappings as buffers: how far they reach, what is read from them and stored into them, which pages are touched."""

from harness.model.clause import Context, Undetermined
from harness.model.content import Pieces, length_of, unknown
from harness.model.objects import HUGE, PAGE, Choice, Mapping, Memory, page_ceil, page_floor
from harness.model.rules.effects import cache, forget_pages, laid, put
from harness.model.spans import mapped_at_once
from harness.model.state import State
from harness.model.value import evolve


def backed_end(s: State, m: Mapping) -> int:
    """Return up to where there is something behind the mapping: the end of its last page, or of the page with the last byte of its file."""
    memory = s.memory(m.memory)
    return max(0, min(m.end, page_ceil(memory.size) - m.offset)) if memory.is_file or memory.is_device else m.end


def usable_end(s: State, m: Mapping) -> int:
    """Return up to where bytes of the mapping can be reached."""
    end = backed_end(s, m)
    if lacks_unit(m, s.memory(m.memory), 0, end):
        raise Undetermined("no clause covers how far a dax device can be reached of which no more may be mapped")
    return end


def lacks_unit(m: Mapping, memory: Memory, start: int, end: int) -> bool:
    """Whether some page of the range can never be mapped: not alone, because its dax device has larger units, and they are forbidden."""
    return memory.unit > PAGE and not m.huge_allowed and not m.sure.covers(page_floor(start), page_ceil(end))


def mapping_reaches(s: State, m: Mapping, start: int, length: int) -> bool:
    """Whether every byte of the range can be reached: see :func:`usable_end`."""
    return start >= 0 and start + length <= usable_end(s, m)


def mapping_bytes(s: State, m: Mapping, start: int, length: int) -> Pieces:
    return s.mapped(m, start, start + length)


def store_into(c: Context, s: State, number: int, start: int, pieces: Pieces) -> State:
    """Return the state after ``pieces`` were stored through mapping ``number`` at ``start`` (by the program or the kernel)."""
    m = s.mapping(number)
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
            data = memory.data.add(page_floor(at), page_ceil(at + length_of(pieces)))
            memory = evolve(laid(memory, at, pieces), size=size, data=data, unsynced=True)
            s = s.with_object(m.memory, memory)
        return s
    low, high = page_floor(start), page_ceil(end)
    overlay = m.overlay
    for a, b in m.private_pages.gaps(low, high).spans:
        overlay = overlay.write(a, s.mapped(m, a, b))
    overlay = overlay.write(start, pieces)
    return s.with_object(number, evolve(m, overlay=overlay, private_pages=m.private_pages.add(low, high)))


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
    end = min(start + length, usable_end(s, s.mapping(number)))
    start = max(start, 0)
    return [s] if start >= end else [s, *received(c, s, number, start, unknown(end - start))]


def touch(s: State, number: int, start: int, end: int, *, write: bool) -> list[State]:
    """Return the states after pages ``start`` to ``end`` of mapping ``number`` were faulted in.

    Where a 2 MiB mapping is possible there are two: the kernel may always fall back to 4 KiB. A write fault that maps a
    whole span allocates all of it (fs/dax.c dax_iomap_pmd_fault asks for the span). Copying a page of a private huge mapping
    on write splits it, and then none of the other pages is mapped (mm/huge_memory.c __split_huge_pmd_locked, vma_is_dax).
    A dax device is mapped in its units, whatever is asked for (drivers/dax/device.c dev_dax_huge_fault).
    """
    m = s.mapping(number)
    low, high = page_floor(start), page_ceil(end)
    if write and not m.shared:
        for a, b in [(a, b) for a, b in _whole_spans(m) if a < high and low < b]:
            m = evolve(m, touched=m.touched.remove(a, b), sure=m.sure.remove(a, b), huge=m.huge.remove(a, b))
    small = evolve(m, touched=m.touched.add(low, high), sure=m.sure.add(low, high))
    if write:
        small = _whole_writable(evolve(small, stored=small.stored.add(low, high), dirty=small.dirty.add(low, high)), low, high)
    memory = s.memory(m.memory)
    s = cache(s, m.memory, m.offset + low, m.offset + high) if m.shared or not write else s
    spans = huge_spans(m, memory, low, high, write=write)
    for a, b in ((low, high), *spans):
        s = _taken_from_others(s, number, m, a, b)
    page_by_page = at_once = s.with_object(number, small)
    for start, _ in spans:
        at_once = mapped_at_once(at_once, number, Choice(start, write))
    if memory.is_device:
        return [at_once]
    return [page_by_page, at_once] if spans else [page_by_page]


def _taken_from_others(s: State, number: int, m: Mapping, low: int, high: int) -> State:
    """Return the state after pages of mapping ``number`` were faulted in: what files share of a DAX file no other mapping is sure to hold.

    Source: fs/dax.c dax_insert_entry unmaps a page of which the blocks are shared before it is mapped, for a load too (6.12).
    """
    if not s.memory(m.memory).dax or not s.memory(m.memory).shared.touches(m.offset + low, m.offset + high):
        return s
    return forget_pages(s, m.memory, m.offset + low, m.offset + high, but=number)


def _whole_writable(m: Mapping, low: int, high: int) -> Mapping:
    """Return the mapping after a store: a span that is mapped at once becomes writable at once."""
    for a, b in _whole_spans(m):
        if a < high and low < b:
            m = evolve(m, stored=m.stored.add(a, b), dirty=m.dirty.add(a, b))
    return m


def _whole_spans(m: Mapping) -> list[tuple[int, int]]:
    """Return the 2 MiB spans of ``m`` that are mapped at once, one by one."""
    return [(at, at + HUGE) for a, b in m.huge.spans for at in range(a, b, HUGE)]


def huge_spans(m: Mapping, memory: Memory, low: int, high: int, *, write: bool) -> list[tuple[int, int]]:
    """Return the 2 MiB spans (bytes of the mapping) that a fault in ``low`` to ``high`` may map at once."""
    if not memory.dax or m.aligned is False or not m.huge_allowed or (write and not m.shared):
        return []
    if memory.is_device and memory.unit < HUGE:
        return []
    spans = []
    first = (m.offset + low) // HUGE * HUGE
    for at in range(first, m.offset + high, HUGE):
        start = at - m.offset
        inside = start >= 0 and start + HUGE <= m.end
        fresh = inside and not m.touched.touches(start, start + HUGE)
        backed = memory.data.union(memory.unwritten.within(at, at + HUGE)).covers(at, at + HUGE)
        hole = not memory.data.touches(at, at + HUGE) and not memory.unwritten.touches(at, at + HUGE)
        if fresh and (backed or hole) and at + HUGE <= page_ceil(memory.size):
            spans.append((start, start + HUGE))
    return spans
