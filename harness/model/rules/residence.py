"""Rules for what the kernel reports about pages: mincore, pagemap, smaps, msync, locks."""

from dataclasses import replace

from harness.model.clause import Context, Undetermined, clause
from harness.model.rules.buffers import usable_end
from harness.model.rules.effects import cleaned
from harness.model.rules.pages import FAULT_AROUND_PAGES, is_locked, mapping_is_normal, populate_pages, range_of
from harness.model.rules.rule import look_up, rule, volume_fact
from harness.model.state import PAGE, Mapping, Memory, State, page_ceil, page_floor
from harness.ops import (
    Mincore,
    Mlock,
    Msync,
    Munlock,
    Pagemap,
    Smaps,
    SyncFlag,
)

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
    "a page behind the end of the file is not present, nor one that lies further from all that was touched than a fault maps around itself",
    "mmap(2) NOTES; mm/memory.c do_fault_around: 64 KiB",
)
clause("C-FRAME-06", "/proc/self/pagemap can be read", "proc_pid_pagemap(5)")
clause(
    "C-LOCK-03",
    "mlock of what may not be accessed, or lies behind the end of the file, is ENOMEM, and locks all the same",
    "mlock(2); mm/gup.c __mm_populate",
)
clause("C-SMAPS-02", "smaps shows the protection of a mapping: rd, wr", "proc_pid_smaps(5)")
clause("C-SMAPS-03", "/proc/self/smaps can be read", "proc_pid_smaps(5)")
clause("C-LOCK-01", "mlock and munlock of a mapping succeed, and mlock faults the pages in", "mlock(2)")
clause("C-LOCK-02", "mlock marks a mapping locked, a DAX mapping never", "mm/mlock.c mlock_fixup: vma_is_dax")
clause(
    "C-SMAPS-01",
    "a mapping made with MAP_SYNC shows the flag sf, another one does not",
    "proc_pid_smaps(5); fs/proc/task_mmu.c show_smap_vma_flags",
)


@rule(Msync)
def msync(c: Context, s: State, op: Msync) -> list[State]:
    _, m = look_up(c, s, op.mapping, Mapping)
    length, end = range_of(m, op.offset, op.length)
    both = SyncFlag.SYNC in op.flags and SyncFlag.ASYNC in op.flags
    if c.refuses(("EINVAL", both or op.offset % PAGE != 0, "C-SYNC-02"), ("ENOMEM", length <= -PAGE, "C-SYNC-02")):
        return [s] if c.settled else []
    if page_ceil(length) == 0:
        return [s] if c.returns("C-SYNC-02", 0) else []
    busy = SyncFlag.INVALIDATE in op.flags and is_locked(c, s, m, op.offset, end)
    if c.refuses(("EBUSY", busy, "C-SYNC-03")):
        # What lies before the locked part is written back or not.
        return [s] if c.settled else []
    if not c.returns("C-SYNC-02", 0):
        return []
    return [cleaned(s, m.memory) if SyncFlag.SYNC in op.flags and m.shared and s.memory(m.memory).on_volume else s]


@rule(Mincore)
def mincore(c: Context, s: State, op: Mincore) -> list[State]:
    _, m = look_up(c, s, op.mapping, Mapping)
    memory = s.memory(m.memory)
    if memory.kind == "bar":
        raise Undetermined("no clause covers mincore of a BAR")
    length, end = range_of(m, op.offset, op.length)
    if c.refuses(("EINVAL", op.offset % PAGE != 0, "C-CORE-04"), ("ENOMEM", length < 0, "C-CORE-04")):
        return [s] if c.settled else []
    if not c.returns("C-CORE-05", 0):
        return []
    pages = (end - op.offset) // PAGE
    bits = c.seen.resident
    if bits is None or len(bits) != pages:
        c.doubts(f"the observation does not say of each of {pages} pages whether it is resident")
        return [s]
    by_table = memory.on_volume and volume_fact(c, "mincore_tells", memory) == "page_table"
    name = "C-CORE-01" if by_table else "C-CORE-02" if memory.on_volume else "C-CORE-03"
    for index, bit in enumerate(bits):
        at = op.offset + index * PAGE
        cached = memory.on_volume and (m.offset + at) in memory.cached and m.offset + at < memory.size
        must = at in m.sure if by_table or not memory.on_volume or at in m.private_pages else cached
        may = at in m.touched if by_table else True
        allowed = f"page {index} {'resident' if must else 'not resident'}"
        if not c.agrees(name, may if bit == "1" else not must, allowed, f"page {index}: {bit}"):
            return []
    return [s]


@rule(Pagemap)
def pagemap(c: Context, s: State, op: Pagemap) -> list[State]:
    _, m = look_up(c, s, op.mapping, Mapping)
    memory = s.memory(m.memory)
    if not c.returns("C-FRAME-06", 0):
        return []
    length = m.length - op.offset if op.length is None else op.length
    frames, pages = c.seen.frames, page_ceil(max(length, 0)) // PAGE
    if frames is None or len(frames) != pages:
        c.doubts(f"the observation does not say of each of {pages} pages where it is")
        return [s]
    for index, frame in enumerate(frames):
        if not _frame_is_right(c, s, m, memory, index, page_floor(op.offset) + index * PAGE, frame):
            return []
    return [s]


def _frame_is_right(c: Context, s: State, m: Mapping, memory: Memory, index: int, at: int, frame: int) -> bool:
    if not 0 <= at < m.end:
        return True  # of what lies around the mapping nothing is known
    if frame == 0:
        return c.agrees("C-FRAME-03", at not in m.sure, f"page {index} present", f"page {index} not present")
    inside = _in_a_region(c, frame)
    where = f"page {index} {'inside' if inside else 'outside of'} the pmem regions (frame {frame:#x})"
    if memory.on_volume and not c.agrees("C-FRAME-07", at < usable_end(s, m) and _may_be_mapped(m, at), f"page {index} not present", where):
        return False
    copied = at in m.private_pages
    on_device = memory.on_volume and volume_fact(c, "mapping_frames", memory) == "region" and not copied
    if not on_device:
        return c.agrees("C-FRAME-02", not inside, f"page {index} in RAM", where)
    if not c.agrees("C-FRAME-05", at in m.touched, f"page {index} not present", where):
        return False
    own = _in_own_region(c, memory, frame)
    if memory.data.covers(page_floor(m.offset + at), page_ceil(m.offset + at + 1)):
        return c.agrees("C-FRAME-01", own, f"page {index} inside the region of {memory.volume}", where)
    if volume_fact(c, "hole_page", memory) == "zero_page" and not memory.unwritten.covers(m.offset + at, m.offset + at + 1):
        return c.agrees("C-FRAME-04", not inside, f"page {index} the zero page", where)
    # Blocks that are only allocated: the zero page, or the device's own where a neighbour's write initialised them too.
    return c.agrees("C-FRAME-04", own or not inside, f"page {index} the zero page or inside the region of {memory.volume}", where)


def _may_be_mapped(m: Mapping, at: int) -> bool:
    """Whether a page was touched, or lies so near to one that was that its fault may have mapped it too."""
    return m.touched.touches(at - (FAULT_AROUND_PAGES - 1) * PAGE, at + FAULT_AROUND_PAGES * PAGE)


def _in_a_region(c: Context, frame: int) -> bool:
    return any(_inside(v.region_start, v.region_size_bytes, frame, c.env.page) for v in c.env.reading.volumes)


def _in_own_region(c: Context, memory: Memory, frame: int) -> bool:
    reading = c.env.reading.volume(memory.volume)
    return _inside(reading.region_start, reading.region_size_bytes, frame, c.env.page)


def _inside(start: int | None, size: int | None, frame: int, page: int) -> bool:
    return start is not None and size is not None and start <= frame * page < start + size


@rule(Mlock)
def mlock(c: Context, s: State, op: Mlock) -> list[State]:
    number, m = look_up(c, s, op.mapping, Mapping)
    start, end = _locked_range(m, op.offset, op.length)
    if start >= end:
        return [s] if c.returns("C-LOCK-01", 0) else []
    normal = mapping_is_normal(s, m)
    refused = normal and (not (m.readable or m.writable) or end > usable_end(s, m))
    s = s.with_object(number, replace(m, locked=m.locked.add(start, end)))
    if c.refuses(("ENOMEM", refused, "C-LOCK-03")):
        if not c.settled:
            return []
    elif not c.returns("C-LOCK-01", 0):
        return []
    if not normal or not (m.readable or m.writable):
        return [s]
    return populate_pages(c, s, number, start, end - start, write=m.writable and not m.shared)


@rule(Munlock)
def munlock(c: Context, s: State, op: Munlock) -> list[State]:
    number, m = look_up(c, s, op.mapping, Mapping)
    start, end = _locked_range(m, op.offset, op.length)
    return [s.with_object(number, replace(m, locked=m.locked.remove(start, end)))] if c.returns("C-LOCK-01", 0) else []


def _locked_range(m: Mapping, offset: int, length: int | None) -> tuple[int, int]:
    """Return the whole pages of a range: mlock rounds both ends (mm/mlock.c do_mlock)."""
    size = m.length - offset if length is None else length
    start, end = page_floor(offset), page_ceil(offset + size)
    if size < 0 or start < 0 or end > m.end:
        raise Undetermined("no clause covers what lies outside of a mapping: it depends on what is mapped there")
    return (start, end) if size or offset % PAGE else (start, start)


@rule(Smaps)
def smaps(c: Context, s: State, op: Smaps) -> list[State]:
    _, m = look_up(c, s, op.mapping, Mapping)
    if not c.returns("C-SMAPS-03", 0):
        return []
    told = c.seen.attribute("vm_flags")
    if not isinstance(told, str) or not told:
        c.doubts("the observation has no VmFlags")
        return [s]
    flags = told.split()
    wanted = [("C-SMAPS-01", "sf", m.sync), ("C-SMAPS-02", "rd", m.readable), ("C-SMAPS-02", "wr", m.writable)]
    wanted.append(("C-LOCK-02", "lo", is_locked(c, s, m, 0, PAGE)))
    for clause_id, flag, is_set in wanted:
        allowed = f"flag {flag} {'set' if is_set else 'clear'}"
        if not c.agrees(clause_id, (flag in flags) == is_set, allowed, f"VmFlags {told}"):
            return []
    return [s]
