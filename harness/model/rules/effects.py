"""What many operations do to memory: content put into it, pages taken away, caches and copies that follow. Bytes are written here."""

from harness.model.clause import Context, Undetermined
from harness.model.content import Pieces, Ranges, length_of, unknown, zeroes
from harness.model.objects import Mapping, Memory, OpenFile, Pipe, Socket, page_ceil, page_floor
from harness.model.rules.rule import block_bytes, volume_fact, waits_for_pins
from harness.model.state import State
from harness.model.value import evolve


def laid(memory: Memory, start: int, pieces: Pieces) -> Memory:
    """Return ``memory`` with ``pieces`` at ``start``. Whatever changes a byte of a memory does it here."""
    return evolve(memory, content=memory.content.write(start, pieces))


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
    moves = not memory.data.covers(low, high) or memory.shared.touches(low, high)
    memory = evolve(laid(memory, start, pieces), unsynced=True)
    if memory.on_volume:
        if memory.is_file:
            memory = evolve(memory, size=max(memory.size, end))
        allocated = memory.data.add(low, high)
        memory = evolve(memory, data=allocated, unwritten=memory.unwritten.remove(low, high), shared=memory.shared.remove(low, high))
    s = s.with_object(number, memory)
    if not bypass:
        s = cache(s, number, low, high)
    # Of a hole or of a block that others have too something else is mapped afterwards (fs/dax.c dax_iomap_iter, dax_insert_entry).
    if memory.dax and moves:
        s = forget_pages(s, number, low, high)
    return s


def evicted(c: Context, s: State, number: int, low: int, high: int) -> State:
    """Return the state after a direct write took the cached pages ``low`` to ``high`` away; a large folio goes as a whole."""
    memory = s.memory(number)
    s = forget_pages(s.detached(number, low, high), number, low, high)
    memory = evolve(memory, cached=memory.cached.remove(low, high), perhaps=memory.perhaps.remove(low, high))
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


def perhaps_cached(s: State, number: int, start: int, end: int) -> State:
    """Return the state in which pages may be in the cache still that were written to the medium and are no longer wanted there."""
    memory = s.memory(number)
    return s.with_object(number, evolve(memory, perhaps=memory.perhaps.add(page_floor(start), page_ceil(end))))


def neighbours_in_doubt(c: Context, s: State, number: int) -> State:
    """Return the state in which any page of a file may have left its cache, where pages are kept several in one."""
    memory = s.memory(number)
    if not memory.is_file or memory.dax or not volume_fact(c, "large_folios", memory):
        return s
    s = s.with_object(number, evolve(memory, cached=Ranges(), perhaps=memory.perhaps.union(memory.cached)))
    return forget_pages(s, number, 0, page_ceil(max(memory.size, 1)))


def resized(c: Context, s: State, number: int, size: int) -> State:
    """Return the state after memory ``number`` was truncated or extended to ``size``.

    Private copies behind the new end go with the pages (mm/memory.c unmap_mapping_range with even_cows). On DAX all of the file may be
    unmapped, however little goes (fs/dax.c dax_layout_busy_page).
    """
    memory = s.memory(number)
    s = layouts_broken(s, number) if volume_fact(c, "truncate_unmaps", memory) else s
    if size >= memory.size:
        return s.with_object(number, evolve(grown(c, memory, size), size=size))
    last = page_ceil(size)
    s = removed(c, s, number, last, page_ceil(memory.size) + 1)
    s = without_copies(s, number, last)
    memory = s.memory(number)
    return s.with_object(number, evolve(laid(memory, size, zeroes(page_ceil(memory.size) - size)), size=size))


def without_copies(s: State, number: int, start: int) -> State:
    """Return the state in which no private mapping has a page of its own of what lies from ``start`` on in memory ``number``."""
    for key, thing in s.objects.items():
        if isinstance(thing, Mapping) and thing.memory == number and not thing.shared:
            low, end = max(0, start - thing.offset), thing.end
            for a, b in thing.private_pages.within(low, end).spans:
                thing = evolve(thing, private_pages=thing.private_pages.remove(a, b)).without(a, b, present=False)
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
    memory = evolve(
        laid(memory, low, zeroes(high - low)),
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
        return laid(memory, memory.size, zeroes(tail - memory.size))
    return memory


def cache(s: State, number: int, low: int, high: int) -> State:
    """Return the state with the page-cache pages ``low`` to ``high`` of memory ``number`` present."""
    memory = s.memory(number)
    if memory.dax or not memory.on_volume or low >= high:
        return s
    return s.with_object(number, evolve(memory, cached=memory.cached.add(low, high), perhaps=memory.perhaps.remove(low, high)))


def forget_pages(s: State, number: int, low: int, high: int, *, mapped_too: bool = False, but: int | None = None) -> State:
    """Return the state in which no page table is sure to hold pages ``low`` to ``high`` of memory ``number``; copies are none of them.

    ``mapped_too``: they were taken out of the page tables, so none holds them. ``but``: the mapping that keeps them.
    """
    for key, thing in s.objects.items():
        if isinstance(thing, Mapping) and thing.memory == number and key != but:
            start, end = max(0, low - thing.offset), min(high - thing.offset, thing.end)
            if start < end and (thing.sure.touches(start, end) or (mapped_too and thing.touched.touches(start, end))):
                s = s.with_object(key, thing.without(start, end, present=not mapped_too))
    return s


def waits_to_share(c: Context, s: State, source: int, target: int) -> bool:
    """Whether sharing blocks of two files with DAX waits for somebody who holds a page of one of them.

    Source: fs/xfs/xfs_inode.c xfs_mmaplock_two_inodes_and_break_dax_layout.
    """
    first, second = min(source, target), max(source, target)
    if first != second and s.is_pinned(second) and not s.is_pinned(first):
        raise Undetermined("no clause covers sharing blocks with such a page held")
    return waits_for_pins(c, s, first)


def blocks_shared(c: Context, s: State, source: int, target: int, start: int, goal: int, count: int) -> State:
    """Return the state after memory ``target`` came to share the blocks of ``count`` bytes of memory ``source``.

    Both are written back before, and the target's pages leave its cache. What is a hole in the source, or only allocated, is a hole in
    the target. With the end of the source goes what is behind it in its last block.
    Source: fs/xfs/xfs_reflink.c xfs_reflink_remap_prep, xfs_reflink_remap_extent.
    """
    s = cleaned(layouts_broken(s, source), source, start, start + count)
    s = cleaned(layouts_broken(s, target), target, goal, goal + count)
    of, into = s.memory(source), s.memory(target)
    low, high = page_floor(min(goal, into.size)), page_ceil(goal + count)
    s = _cut_from_cache(c, s, target, low, high)
    s = put(c, s, target, goal, of.content.read(start, start + count), bypass=True)
    memory = s.memory(target)
    tail = -count % block_bytes(c, memory)
    memory = laid(memory, goal + count, of.content.read(start + count, start + count + tail))
    data = into.data.remove(page_ceil(goal), high if goal + count == memory.size else page_floor(goal + count))
    for a, b in of.data.within(start, start + count).spans:
        data = data.add(page_floor(a - start + goal), page_ceil(b - start + goal))
    s = s.with_object(target, evolve(memory, data=data, shared=memory.shared.add(page_floor(goal), high), was_shared=True))
    of = s.memory(source)
    return s.with_object(source, evolve(of, shared=of.shared.add(page_floor(start), page_ceil(start + count)), was_shared=True))


def _cut_from_cache(c: Context, s: State, number: int, low: int, high: int) -> State:
    """Return the state after the cached pages ``low`` to ``high`` were taken away, as if a hole was punched.

    What somebody holds of a folio that is kept in part may be zeroed in place first (mm/truncate.c truncate_inode_partial_folio).
    """
    memory = s.memory(number)
    if memory.dax:
        return s
    if (low > 0 or high < page_ceil(memory.size)) and volume_fact(c, "large_folios", memory):
        blank = s.with_object(number, laid(memory, low, unknown(high - low)))
        s = blank.detached(number, low, high).with_object(number, memory)
    return evicted(c, s, number, low, high)


def cleaned(s: State, number: int, start: int = 0, end: int = 1 << 62) -> State:
    """Return the state after the dirty pages of memory ``number``, or those of a range, were written back: the next store to each faults
    again.

    Source: fs/dax.c dax_writeback_one and mm/page-writeback.c clear_page_dirty_for_io: page_mkclean write-protects.
    """
    s = write_protected(s, number)
    memory = s.memory(number)
    memory = evolve(memory, unsynced=memory.unsynced and not (start == 0 and memory.size <= end))
    tail = page_ceil(memory.size) - memory.size
    if memory.is_file and not memory.dax and tail and page_ceil(end) >= memory.size:
        # What was stored behind the end is zeroed on its way to the medium (fs/ext4/page-io.c, fs/iomap/buffered-io.c folio_zero_segment).
        memory = laid(memory, memory.size, zeroes(tail))
    return s.with_object(number, memory)


def write_protected(s: State, number: int) -> State:
    """Return the state in which no store is sure to find its page of memory ``number`` writable: a huge one is written back as a whole."""
    for key, thing in s.objects.items():
        if isinstance(thing, Mapping) and thing.memory == number and thing.shared and thing.dirty.spans:
            s = s.with_object(key, evolve(thing, dirty=Ranges()))
    return s


def used_pages(s: State, number: int, memory: Memory) -> Ranges:
    """Return the cached pages that someone holds: mapped ones, and those that a pipe or a socket refers to."""
    used = Ranges()
    for thing in s.objects.values():
        if isinstance(thing, Mapping) and thing.memory == number:
            for low, high in thing.sure.spans:
                used = used.add(thing.offset + low, thing.offset + high)
        elif isinstance(thing, Pipe | Socket):
            for view in thing.views:
                if view.is_alias and view.memory == number:
                    used = used.add(view.start, page_ceil(view.start + view.length))
    kept = Ranges()
    for low, high in used.spans:
        for start, end in memory.cached.within(low, high).spans:
            kept = kept.add(start, end)
    return kept
