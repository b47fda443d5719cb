"""What is known of the pages of a mapping: faults, locks, kinds."""

from harness.model.clause import Context, Undetermined
from harness.model.objects import HUGE, PAGE, Mapping, page_ceil, page_floor
from harness.model.rules.buffers import mapping_bytes, store_into, touch, usable_end
from harness.model.rules.rule import volume_fact
from harness.model.spans import joined
from harness.model.state import State

#: Minor faults that the measurement itself may take beside those of the pages in question.
FAULT_NOISE = 0
#: How many pages of a page cache one fault maps at most.
FAULT_AROUND_PAGES = 16


def mapping_is_normal(s: State, m: Mapping) -> bool:
    """Whether there are struct pages behind a mapping: a BAR's is VM_IO and VM_PFNMAP."""
    return s.memory(m.memory).has_struct_pages


def populate_pages(c: Context, s: State, number: int, start: int, length: int, *, write: bool) -> list[State]:
    """Return the states after the pages of a range were faulted in, as far as there are any."""
    m = s.mapping(number)
    start = page_floor(start)
    end = min(page_ceil(start + length), usable_end(s, m))
    if start >= end:
        return [s]
    states = [s]
    dax = s.memory(m.memory).dax
    at = start
    while at < end:
        stop = min(end, (m.offset + at) // HUGE * HUGE + HUGE - m.offset) if dax else end
        states = joined([after for before in states for after in touch(before, number, at, stop, write=write)])
        at = stop
    if write and not m.shared:
        states = [store_into(c, x, number, start, mapping_bytes(x, m, start, end - start)) for x in states]
    return states


def counts_locks(c: Context, s: State, m: Mapping) -> bool:
    """Whether a locked range of the mapping really is locked: that of DAX never is."""
    memory = s.memory(m.memory)
    return not memory.on_volume or bool(volume_fact(c, "mlock_counts", memory))


def is_locked(c: Context, s: State, m: Mapping, start: int, end: int) -> bool:
    return m.locked.touches(start, end) and mapping_is_normal(s, m) and counts_locks(c, s, m)


def range_of(m: Mapping, offset: int, length: int | None) -> tuple[int, int]:
    """Return the range that a call names: its length, and the end of its last page. Raises Undetermined for one outside of the mapping."""
    size = m.length - offset if length is None else length
    end = page_ceil(offset + max(size, 0))
    if size >= 0 and offset % PAGE == 0 and (offset < 0 or end > m.end):
        raise Undetermined("no clause covers what lies outside of a mapping: it depends on what is mapped there")
    return size, end
