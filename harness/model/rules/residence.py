"""Rules for what the kernel reports about pages: mincore, pagemap, smaps, msync, locks."""

from harness.model.clause import Context, Undetermined, clause
from harness.model.expectation import AreaFlag, Expectations, Frame, Frames, Next, Number, PhysicalRange, Residence, Where
from harness.model.objects import HUGE, PAGE, Mapping, Memory, page_ceil, page_floor
from harness.model.outcome import Observation
from harness.model.rules.buffers import usable_end
from harness.model.rules.effects import cleaned
from harness.model.rules.pages import FAULT_AROUND_PAGES, is_locked, mapping_is_normal, populate_pages, range_of
from harness.model.rules.rule import look_up, rule, volume_fact
from harness.model.state import State
from harness.model.value import evolve
from harness.ops import Mincore, Mlock, Msync, Munlock, Pagemap, Smaps, SyncFlag

clause("C-SYNC-02", "msync of a mapping succeeds; MS_SYNC and MS_ASYNC together are EINVAL", "msync(2)")
clause(
    "C-CORE-01",
    "mincore of a DAX mapping reports the pages that this page table holds, and no others",
    "mm/mincore.c mincore_pte_range; DAX entries in the page cache are values, not folios",
)
clause("C-SYNC-03", "msync with MS_INVALIDATE of a locked area is EBUSY", "msync(2) ERRORS")
clause("C-CORE-03", "mincore of anonymous memory reports at least the pages that were touched", "mincore(2)")
clause("C-CORE-04", "mincore at an offset inside a page is EINVAL, of a negative length ENOMEM", "mincore(2) ERRORS; mm/mincore.c")
clause("C-CORE-05", "mincore of a mapping succeeds", "mincore(2)")
clause("C-CORE-02", "mincore of a page-cache mapping reports at least the pages that were read, written or touched", "mincore(2)")
clause(
    "C-FRAME-01",
    "a page of a shared DAX mapping that has data is the device's own page: its frame lies in the region",
    "Documentation/filesystems/dax.rst; fs/dax.c dax_iomap_pfn; /proc/pid/pagemap, /proc/iomem",
)
clause(
    "C-FRAME-02", "a page of any other mapping lies in RAM, outside of every pmem region", "mm/filemap.c; /proc/pid/pagemap, /proc/iomem"
)
clause("C-FRAME-03", "a page that was touched is present in the page table until something takes it away", "proc_pid_pagemap(5)")
clause("C-FRAME-04", "a hole that was only read on DAX shows the zero page, outside of every pmem region", "fs/dax.c dax_load_hole")
clause(
    "C-FRAME-05",
    "a page of a DAX mapping that nothing touched is not present",
    "fs/dax.c: vm_operations without map_pages, no fault-around",
)
clause(
    "C-FRAME-07",
    "a page behind the end of the file is not present, nor one that lies further from all that was touched than a fault maps around "
    "itself, or the largest folio of a page there reaches",
    "mmap(2) NOTES; mm/memory.c do_fault_around: 64 KiB; include/linux/pagemap.h MAX_PAGECACHE_ORDER: 2 MiB; fact fault_maps",
)
clause("C-FRAME-06", "/proc/self/pagemap can be read", "proc_pid_pagemap(5)")
clause(
    "C-LOCK-03",
    "mlock of what may not be accessed, or lies behind the end of the file, is ENOMEM, and locks all the same",
    "mlock(2); mm/gup.c __mm_populate",
)
clause("C-SMAPS-02", "smaps shows the protection of a mapping: rd, wr", "proc_pid_smaps(5)")
clause("C-DEVDAX-11", "smaps shows the units of a dax device as its KernelPageSize", "drivers/dax/device.c dev_dax_pagesize")
clause("C-SMAPS-03", "/proc/self/smaps can be read", "proc_pid_smaps(5)")
clause("C-LOCK-01", "mlock and munlock of a mapping succeed, and mlock faults the pages in", "mlock(2)")
clause("C-LOCK-02", "mlock marks a mapping locked, a DAX mapping never", "mm/mlock.c mlock_fixup: vma_is_dax")
clause(
    "C-SMAPS-01",
    "a mapping made with MAP_SYNC shows the flag sf, another one does not",
    "proc_pid_smaps(5); fs/proc/task_mmu.c show_smap_vma_flags",
)


@rule(Msync)
def msync(c: Context, s: State, op: Msync) -> Expectations:
    _, m = look_up(c, s, op.mapping, Mapping)
    length, end = range_of(m, op.offset, op.length)
    both = SyncFlag.SYNC in op.flags and SyncFlag.ASYNC in op.flags
    if refused := c.refuses(("EINVAL", both or op.offset % PAGE != 0, "C-SYNC-02"), ("ENOMEM", length <= -PAGE, "C-SYNC-02")):
        return refused.leaving(s)
    if page_ceil(length) == 0:
        return c.returns("C-SYNC-02", 0).leaving(s)
    if refused := c.refuses(("EINVAL", SyncFlag.SYNC in op.flags and s.memory(m.memory).is_device, "C-DEVDAX-04")):
        return refused.leaving(s)
    busy = SyncFlag.INVALIDATE in op.flags and is_locked(c, s, m, op.offset, end)
    if refused := c.refuses(("EBUSY", busy, "C-SYNC-03")):
        # What lies before the locked part is written back or not.
        return refused.leaving(s)
    cleans = SyncFlag.SYNC in op.flags and m.shared and s.memory(m.memory).on_volume
    return c.returns("C-SYNC-02", 0).leaving(cleaned(s, m.memory) if cleans else s)


@rule(Mincore)
def mincore(c: Context, s: State, op: Mincore) -> Expectations:
    _, m = look_up(c, s, op.mapping, Mapping)
    memory = s.memory(m.memory)
    if memory.is_bar:
        raise Undetermined("no clause covers mincore of a BAR")
    length, end = range_of(m, op.offset, op.length)
    if refused := c.refuses(("EINVAL", op.offset % PAGE != 0, "C-CORE-04"), ("ENOMEM", length < 0, "C-CORE-04")):
        return refused.leaving(s)
    by_table = memory.on_volume and volume_fact(c, "mincore_tells", memory) == "page_table"
    name = "C-CORE-01" if by_table else "C-CORE-02" if memory.on_volume else "C-CORE-03"

    def told(seen: Observation) -> list[Next]:
        pages = tuple([_residence(m, memory, at, by_table=by_table) for at in range(op.offset, end, PAGE)])
        return [Next(s, (Residence(name, pages),))]

    return c.returns("C-CORE-05", 0).lazily(told)


def _residence(m: Mapping, memory: Memory, at: int, *, by_table: bool) -> tuple[bool, bool]:
    """Return whether mincore has to tell a page as resident, and whether it may."""
    if by_table:
        return at in m.sure, at in m.touched
    if not memory.on_volume or at in m.private_pages:
        return at in m.sure, True
    return (m.offset + at) in memory.cached and m.offset + at < memory.size, True


@rule(Pagemap)
def pagemap(c: Context, s: State, op: Pagemap) -> Expectations:
    _, m = look_up(c, s, op.mapping, Mapping)
    memory = s.memory(m.memory)
    length = m.length - op.offset if op.length is None else op.length
    first = page_floor(op.offset)

    def told(seen: Observation) -> list[Next]:
        pages = tuple([_frame(c, s, m, memory, at) for at in range(first, first + page_ceil(max(length, 0)), PAGE)])
        own = _region(c, memory.volume) if memory.on_volume else None
        regions = tuple(filter(None, (_region(c, reading.role) for reading in c.env.reading.volumes)))
        return [Next(s, (Frames(pages, c.env.page, regions, own, memory.volume),))]

    return c.returns("C-FRAME-06", 0).lazily(told)


def _frame(c: Context, s: State, m: Mapping, memory: Memory, at: int) -> Frame | None:
    """Return what is known of the page at ``at``; nothing is of what lies around the mapping."""
    if not 0 <= at < m.end:
        return None
    present = at in m.sure
    near = at < usable_end(s, m) and _may_be_mapped(c, m, memory, at) if memory.on_volume else None
    copied = at in m.private_pages
    if not memory.on_volume or copied or volume_fact(c, "mapping_frames", memory) != "region":
        return Frame(present, near, None, Where.RAM)
    where = Where.ZERO_PAGE_OR_OWN
    if memory.data.covers(page_floor(m.offset + at), page_ceil(m.offset + at + 1)):
        where = Where.OWN
    elif volume_fact(c, "hole_page", memory) == "zero_page" and not memory.unwritten.covers(m.offset + at, m.offset + at + 1):
        where = Where.ZERO_PAGE
    # Blocks that are only allocated: the zero page, or the device's own where a neighbour's write initialised them too.
    return Frame(present, near, at in m.touched, where)


#: So far before and behind its page a fault may map others.
_AROUND = (FAULT_AROUND_PAGES - 1) * PAGE


def _may_be_mapped(c: Context, m: Mapping, memory: Memory, at: int) -> bool:
    """Whether a page was touched, or lies so near to one that was that its fault may have mapped it too."""
    first, last = at, at + PAGE
    if not m.touched.touches(at - _AROUND, last + _AROUND) and volume_fact(c, "fault_maps", memory) == "folio":
        # The largest folio that the page can be of: one lies in the file where its own size divides.
        first = (m.offset + at) // HUGE * HUGE - m.offset
        last = first + HUGE
    return m.touched.touches(first - _AROUND, last + _AROUND)


def _region(c: Context, volume: str) -> PhysicalRange | None:
    reading = c.env.reading.volume(volume)
    if reading.region_start is None or reading.region_size_bytes is None:
        return None
    return reading.region_start, reading.region_size_bytes


@rule(Mlock)
def mlock(c: Context, s: State, op: Mlock) -> Expectations:
    number, m = look_up(c, s, op.mapping, Mapping)
    start, end = _locked_range(m, op.offset, op.length)
    if start >= end:
        return c.returns("C-LOCK-01", 0).leaving(s)
    normal = mapping_is_normal(s, m)
    refused = normal and (not (m.readable or m.writable) or end > usable_end(s, m))
    s = s.with_object(number, evolve(m, locked=m.locked.add(start, end)))
    expected = c.refuses(("ENOMEM", refused, "C-LOCK-03")) or c.returns("C-LOCK-01", 0)
    if not normal or not (m.readable or m.writable):
        return expected.leaving(s)
    return expected.by(lambda _: populate_pages(c, s, number, start, end - start, write=m.writable and not m.shared))


@rule(Munlock)
def munlock(c: Context, s: State, op: Munlock) -> Expectations:
    number, m = look_up(c, s, op.mapping, Mapping)
    start, end = _locked_range(m, op.offset, op.length)
    return c.returns("C-LOCK-01", 0).leaving(s.with_object(number, evolve(m, locked=m.locked.remove(start, end))))


def _locked_range(m: Mapping, offset: int, length: int | None) -> tuple[int, int]:
    """Return the whole pages of a range: mlock rounds both ends (mm/mlock.c do_mlock)."""
    size = m.length - offset if length is None else length
    start, end = page_floor(offset), page_ceil(offset + size)
    if size < 0 or start < 0 or end > m.end:
        raise Undetermined("no clause covers what lies outside of a mapping: it depends on what is mapped there")
    return (start, end) if size or offset % PAGE else (start, start)


@rule(Smaps)
def smaps(c: Context, s: State, op: Smaps) -> Expectations:
    _, m = look_up(c, s, op.mapping, Mapping)
    flags = (
        AreaFlag("C-SMAPS-01", "sf", m.sync),
        AreaFlag("C-SMAPS-02", "rd", m.readable),
        AreaFlag("C-SMAPS-02", "wr", m.writable),
        AreaFlag("C-LOCK-02", "lo", is_locked(c, s, m, 0, PAGE)),
    )
    memory = s.memory(m.memory)
    unit = (Number("C-DEVDAX-11", "kernel_page_size", memory.unit, memory.unit, f"pages of {memory.unit} bytes", "pages of {} bytes"),)
    return c.returns("C-SMAPS-03", 0).then(Next(s, (*flags, *(unit if memory.is_device else ()))))
