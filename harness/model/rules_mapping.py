"""Rules for mappings: making them, loads and stores, and what the kernel reports about their pages."""

from dataclasses import replace

from harness.model.clause import Context, Undetermined, clause
from harness.model.content import Ranges, literal, tagged
from harness.model.operation import (
    Advice,
    Load,
    Madvise,
    MapFlag,
    Mincore,
    Mlock,
    Mmap,
    Mprotect,
    Msync,
    Munlock,
    Munmap,
    Pagemap,
    Protection,
    Smaps,
    Store,
    SyncFlag,
)
from harness.model.rule import (
    file_memory,
    folios_left,
    look_up,
    mapping_bytes,
    mapping_reaches,
    removed,
    rule,
    store_into,
    touch,
    volume_fact,
)
from harness.model.state import HUGE, PAGE, Mapping, Memory, OpenFile, State, page_ceil, page_floor

#: Minor faults that the measurement itself may take beside those of the pages in question.
FAULT_NOISE = 16

# ---- making and unmaking ---------------------------------------------------------------------------------------------

clause("C-MAP-01", "mmap of an open file, a node or anonymous memory succeeds", "mmap(2)")
clause("C-MAP-02", "a length of 0, or a file offset inside a page, is EINVAL", "mmap(2) ERRORS")
clause("C-MAP-03", "a mapping needs a readable descriptor, a shared writable one a descriptor open for both: EACCES", "mmap(2) ERRORS")
clause(
    "C-MAP-04",
    "MAP_SYNC of a file that is not in DAX state is EOPNOTSUPP, whatever the mapping type; that of a node only with MAP_SHARED_VALIDATE",
    "mmap(2) for MAP_SHARED_VALIDATE; mm/mmap.c do_mmap sets VM_SYNC for the other types too, fs/ext4/file.c ext4_file_mmap looks at it, "
    "block/fops.c does not",
)
clause("C-MAP-05", "MAP_HUGETLB with a file that is not on hugetlbfs is EINVAL", "mmap(2); mm/mmap.c ksys_mmap_pgoff")
clause("C-MAP-06", "munmap of a mapping succeeds", "munmap(2)")
clause("C-MAP-07", "mprotect of a mapping succeeds where the descriptor's mode allows it", "mprotect(2)")
clause("C-MAP-08", "POPULATE_READ and POPULATE_WRITE fault every page in", "madvise(2), since 5.14")
clause("C-MAP-09", "madvise with advice that changes no content succeeds", "madvise(2)")
clause("C-MAP-10", "MADV_REMOVE punches a hole into the file behind a shared mapping", "madvise(2)")


@rule(Mmap)
def mmap(c: Context, s: State, op: Mmap) -> list[State]:
    flags = set(op.flags)
    readable, writable = Protection.READ in op.protection, Protection.WRITE in op.protection
    shared = MapFlag.PRIVATE not in flags
    if op.file is None:
        return _mmap_anonymous(c, s, op, shared=shared, readable=readable, writable=writable)
    _, of = look_up(c, s, op.file, OpenFile)
    memory = file_memory(s, of)
    asks_sync = MapFlag.SYNC in flags
    offers_sync = memory.kind != "bar" and bool(volume_fact(c, "map_sync", memory))
    looks_at_sync = memory.is_file or MapFlag.SHARED_VALIDATE in flags
    if c.refuses(
        ("EINVAL", op.length <= 0 or op.offset % PAGE != 0, "C-MAP-02"),
        ("EACCES", not of.readable or (shared and writable and not of.writable), "C-MAP-03"),
        ("EOPNOTSUPP", asks_sync and not offers_sync and looks_at_sync, "C-MAP-04"),
        ("EINVAL", MapFlag.HUGETLB in flags, "C-MAP-05"),
    ):
        return [s] if c.settled else []
    if not c.returns("C-MAP-01", 0):
        return []
    mapping = Mapping(of.memory, op.offset, op.length, shared, readable, writable, sync=asks_sync)
    return _mapped(c, s, op, mapping)


def _mmap_anonymous(c: Context, s: State, op: Mmap, *, shared: bool, readable: bool, writable: bool) -> list[State]:
    if MapFlag.HUGETLB in op.flags:
        raise Undetermined("whether huge pages are reserved is not known to the model")
    if c.refuses(("EINVAL", op.length <= 0, "C-MAP-02")):
        return [s] if c.settled else []
    if not c.returns("C-MAP-01", 0):
        return []
    s, number = s.adding(Memory("anonymous", size=op.length))
    return _mapped(c, s, op, Mapping(number, 0, op.length, shared, readable, writable))


def _mapped(c: Context, s: State, op: Mmap, mapping: Mapping) -> list[State]:
    at = c.seen.number("address_mod_2mib")
    if at is not None:
        mapping = replace(mapping, aligned=at % HUGE == op.offset % HUGE)
    mapping = replace(mapping, locked=MapFlag.LOCKED in op.flags)
    s, number = s.adding(mapping)
    s = s.naming(c.process, op.name, number)
    if MapFlag.POPULATE in op.flags or MapFlag.LOCKED in op.flags:
        return _populate(c, s, number, 0, op.length, write=mapping.writable and not mapping.shared)
    return [s]


def _populate(c: Context, s: State, number: int, start: int, length: int, *, write: bool) -> list[State]:
    m = s.objects[number]
    assert isinstance(m, Mapping)
    end = start + length
    memory = s.memory(m.memory)
    if memory.is_file:
        end = min(end, page_ceil(memory.size) - m.offset)
    if start >= end:
        return [s]
    states = [s]
    step = HUGE if memory.dax else end - start
    at = start
    while at < end:
        stop = min(end, (m.offset + at) // step * step + step - m.offset) if memory.dax else end
        states = [after for before in states for after in touch(before, number, at, stop, write=write)]
        at = stop
    if write and not m.shared:
        states = [store_into(c, x, number, start, mapping_bytes(x, m, start, end - start)) for x in states]
    return states


@rule(Munmap)
def munmap(c: Context, s: State, op: Munmap) -> list[State]:
    look_up(c, s, op.mapping, Mapping)
    return [s.without_name(c.process, op.mapping)] if c.returns("C-MAP-06", 0) else []


@rule(Mprotect)
def mprotect(c: Context, s: State, op: Mprotect) -> list[State]:
    number, m = look_up(c, s, op.mapping, Mapping)
    if not c.returns("C-MAP-07", 0):
        return []
    changed = replace(m, readable=Protection.READ in op.protection, writable=Protection.WRITE in op.protection)
    return [s.with_object(number, changed)]


@rule(Madvise)
def madvise(c: Context, s: State, op: Madvise) -> list[State]:
    number, m = look_up(c, s, op.mapping, Mapping)
    length = m.length - op.offset if op.length is None else op.length
    if op.advice in (Advice.POPULATE_READ, Advice.POPULATE_WRITE):
        write = op.advice is Advice.POPULATE_WRITE
        if not mapping_reaches(s, m, op.offset, length):
            raise Undetermined("no clause covers populating behind the end of the file")
        if not c.returns("C-MAP-08", 0):
            return []
        if write and m.shared:
            return [_backed(x, m, op.offset, length) for x in _populate(c, s, number, op.offset, length, write=True)]
        return _populate(c, s, number, op.offset, length, write=write)
    if op.advice is Advice.REMOVE:
        memory = s.memory(m.memory)
        if not memory.is_file or op.offset % PAGE or length % PAGE or not m.shared:
            raise Undetermined("MADV_REMOVE is covered for whole pages of a shared file mapping only")
        if not c.returns("C-MAP-10", 0):
            return []
        low, high = m.offset + op.offset, m.offset + op.offset + length
        return folios_left(c, s, removed(s, m.memory, low, high), m.memory, low, high)
    if not c.returns("C-MAP-09", 0):
        return []
    if op.advice in (Advice.HUGEPAGE, Advice.NOHUGEPAGE):
        return [s.with_object(number, replace(m, huge_allowed=op.advice is Advice.HUGEPAGE))]
    if op.advice is Advice.DONTNEED:
        gone = replace(
            m,
            touched=m.touched.remove(op.offset, op.offset + length),
            sure=m.sure.remove(op.offset, op.offset + length),
            huge=m.huge.remove(op.offset, op.offset + length),
            private_pages=m.private_pages.remove(op.offset, op.offset + length),
        )
        return [s.with_object(number, gone)]
    return [s]


def _backed(s: State, m: Mapping, start: int, length: int) -> State:
    """Return the state with blocks behind the range: a write fault allocates them."""
    memory = s.memory(m.memory)
    low, high = page_floor(m.offset + start), page_ceil(m.offset + start + length)
    return s.with_object(m.memory, replace(memory, data=memory.data.add(low, high), unwritten=memory.unwritten.remove(low, high)))


# ---- loads and stores ------------------------------------------------------------------------------------------------

clause("C-LOAD-01", "a load shows what was last written there, by whatever way it was written", "mmap(2); fs/dax.c: one copy of the data")
clause("C-LOAD-02", "an access behind the page that holds the end of the file is SIGBUS", "mmap(2) NOTES")
clause("C-LOAD-03", "an access that the protection does not allow is SIGSEGV", "mmap(2)")
clause("C-LOAD-04", "a load or store that the mapping allows ends without a signal", "mmap(2)")
clause(
    "C-FAULT-01",
    "on DAX every page not yet mapped takes one fault, or one fault maps a whole huge page",
    "fs/dax.c dax_iomap_pte_fault, dax_iomap_pmd_fault; there is no fault-around (vm_operations without map_pages)",
)
clause("C-FAULT-02", "an access takes no more faults than it has pages", "getrusage(2) ru_minflt")


@rule(Load)
def load(c: Context, s: State, op: Load) -> list[State]:
    number, m = look_up(c, s, op.mapping, Mapping)
    if c.signals("C-LOAD-03", "SIGSEGV", not m.readable):
        return [s] if c.settled else []
    if c.signals("C-LOAD-02", "SIGBUS", not mapping_reaches(s, m, op.offset, op.length)):
        return [s] if c.settled else []
    if not c.returns("C-LOAD-04", op.length):
        return []
    if not c.shows("C-LOAD-01", mapping_bytes(s, m, op.offset, op.length)):
        return []
    return _faulted(c, s, number, op.offset, op.length, write=False)


@rule(Store)
def store(c: Context, s: State, op: Store) -> list[State]:
    number, m = look_up(c, s, op.mapping, Mapping)
    length = op.length if op.value is None else 4
    if c.signals("C-LOAD-03", "SIGSEGV", not m.writable):
        return [s] if c.settled else []
    if c.signals("C-LOAD-02", "SIGBUS", not mapping_reaches(s, m, op.offset, length)):
        return [s] if c.settled else []
    if not c.returns("C-LOAD-04", length):
        return []
    pieces = tagged(c.writer, length) if op.value is None else literal((op.value & 0xFFFFFFFF).to_bytes(4, "little"))
    return [store_into(c, after, number, op.offset, pieces) for after in _faulted(c, s, number, op.offset, length, write=True)]


def _faulted(c: Context, s: State, number: int, start: int, length: int, *, write: bool) -> list[State]:
    """Return the states after the access, those only whose faults are as many as were counted."""
    m = s.objects[number]
    assert isinstance(m, Mapping)
    memory = s.memory(m.memory)
    low, high = page_floor(start), page_ceil(start + length)
    seen = c.seen.minor_faults
    before = m
    states = touch(s, number, start, start + length, write=write)
    if seen is None or memory.kind != "file":
        return states
    out = []
    for after in states:
        now = after.objects[number]
        assert isinstance(now, Mapping)
        most = _faults(before, now, low, high, certain=False)
        if memory.dax:
            least = 0 if write else _faults(before, now, low, high, certain=True)
            if c.agrees("C-FAULT-01", least <= seen <= most + FAULT_NOISE, f"{least}..{most} faults", f"{seen} faults"):
                out.append(after)
        elif c.agrees("C-FAULT-02", seen <= most + FAULT_NOISE, f"at most {most} faults", f"{seen} faults"):
            out.append(after)
    return out


def _faults(before: Mapping, after: Mapping, low: int, high: int, *, certain: bool) -> int:
    """Return how many faults lead from ``before`` to ``after`` inside ``low`` to ``high``.

    ``certain``: count only pages that were not mapped for sure; else every page that may have been missing.
    """
    held = before.touched if certain else before.sure
    huge = after.huge
    for a, b in before.huge.spans:
        huge = huge.remove(a, b)
    spans = huge.within(low, high)
    small = Ranges(((low, high),))
    for a, b in [*held.spans, *huge.spans]:
        small = small.remove(a, b)
    return small.total() // PAGE + sum(-(-(b - a) // HUGE) for a, b in spans.spans)


# ---- what is reported ------------------------------------------------------------------------------------------------

clause("C-SYNC-02", "msync of a mapping succeeds; MS_SYNC and MS_ASYNC together are EINVAL", "msync(2)")
clause(
    "C-CORE-01",
    "mincore of a DAX mapping reports the pages that this page table holds, and no others",
    "mm/mincore.c mincore_pte_range; DAX entries in the page cache are values, not folios",
)
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
clause("C-LOCK-01", "mlock and munlock of a mapping succeed, and mlock faults the pages in", "mlock(2)")
clause("C-LOCK-02", "mlock marks a mapping locked, a DAX mapping never", "mm/mlock.c mlock_fixup: vma_is_dax")
clause(
    "C-SMAPS-01",
    "a mapping made with MAP_SYNC shows the flag sf, another one does not",
    "proc_pid_smaps(5); fs/proc/task_mmu.c show_smap_vma_flags",
)


@rule(Msync)
def msync(c: Context, s: State, op: Msync) -> list[State]:
    look_up(c, s, op.mapping, Mapping)
    both = SyncFlag.SYNC in op.flags and SyncFlag.ASYNC in op.flags
    if c.refuses(("EINVAL", both or op.offset % PAGE != 0, "C-SYNC-02")):
        return [s] if c.settled else []
    return [s] if c.returns("C-SYNC-02", 0) else []


@rule(Mincore)
def mincore(c: Context, s: State, op: Mincore) -> list[State]:
    _, m = look_up(c, s, op.mapping, Mapping)
    memory = s.memory(m.memory)
    length = m.length - op.offset if op.length is None else op.length
    if memory.kind not in ("file", "node"):
        raise Undetermined("no clause covers mincore of anonymous memory")
    if not c.counts("C-CORE-02", lambda value: value >= 0, "0"):
        return []
    bits = c.seen.resident or ""
    by_table = volume_fact(c, "mincore_tells", memory) == "page_table"
    name = "C-CORE-01" if by_table else "C-CORE-02"
    for index in range(page_ceil(length) // PAGE):
        at = op.offset + index * PAGE
        resident = index < len(bits) and bits[index] == "1"
        must = at in m.sure if by_table else (m.offset + at) in memory.cached and m.offset + at < memory.size
        may = at in m.touched if by_table else True
        if not c.agrees(
            name,
            may if resident else not must,
            f"page {index} {'resident' if must else 'not resident'}",
            f"page {index}: {bits[index : index + 1]}",
        ):
            return []
    return [s]


@rule(Pagemap)
def pagemap(c: Context, s: State, op: Pagemap) -> list[State]:
    _, m = look_up(c, s, op.mapping, Mapping)
    memory = s.memory(m.memory)
    if not c.counts("C-FRAME-03", lambda value: value >= 0, "0"):
        return []
    for index, frame in enumerate(c.seen.frames or ()):
        if not _frame_is_right(c, m, memory, index, op.offset + index * PAGE, frame):
            return []
    return [s]


def _frame_is_right(c: Context, m: Mapping, memory: Memory, index: int, at: int, frame: int) -> bool:
    if frame == 0:
        return c.agrees("C-FRAME-03", at not in m.sure, f"page {index} present", f"page {index} not present")
    inside = _in_a_region(c, frame)
    where = f"page {index} {'inside' if inside else 'outside of'} the pmem regions (frame {frame:#x})"
    copied = at in m.private_pages
    on_device = memory.kind in ("file", "node") and volume_fact(c, "mapping_frames", memory) == "region" and not copied
    if not on_device:
        return c.agrees("C-FRAME-02", not inside, f"page {index} in RAM", where)
    if memory.data.covers(page_floor(m.offset + at), page_ceil(m.offset + at + 1)):
        own = _in_own_region(c, memory, frame)
        return c.agrees("C-FRAME-01", own, f"page {index} inside the region of {memory.volume}", where)
    if volume_fact(c, "hole_page", memory) == "zero_page" and not memory.unwritten.covers(m.offset + at, m.offset + at + 1):
        return c.agrees("C-FRAME-04", not inside, f"page {index} the zero page", where)
    return True


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
    length = m.length - op.offset if op.length is None else op.length
    if not mapping_reaches(s, m, op.offset, length):
        raise Undetermined("no clause covers locking behind the end of the file")
    if not c.returns("C-LOCK-01", 0):
        return []
    s = s.with_object(number, replace(m, locked=True))
    return _populate(c, s, number, op.offset, length, write=m.writable and not m.shared)


@rule(Munlock)
def munlock(c: Context, s: State, op: Munlock) -> list[State]:
    number, m = look_up(c, s, op.mapping, Mapping)
    return [s.with_object(number, replace(m, locked=False))] if c.returns("C-LOCK-01", 0) else []


@rule(Smaps)
def smaps(c: Context, s: State, op: Smaps) -> list[State]:
    _, m = look_up(c, s, op.mapping, Mapping)
    memory = s.memory(m.memory)
    flags = str(c.seen.attribute("vm_flags") or "").split()
    if not c.agrees("C-SMAPS-01", ("sf" in flags) == m.sync, f"flag sf {'set' if m.sync else 'clear'}", f"VmFlags {' '.join(flags)}"):
        return []
    if memory.kind in ("file", "node"):
        locks = m.locked and bool(volume_fact(c, "mlock_counts", memory))
        if not c.agrees("C-LOCK-02", ("lo" in flags) == locks, f"flag lo {'set' if locks else 'clear'}", f"VmFlags {' '.join(flags)}"):
            return []
    return [s]
