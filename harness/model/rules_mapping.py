"""Rules for mappings: making them, loads and stores, and what the kernel reports about their pages."""

from dataclasses import replace

from harness.model.clause import Context, Undetermined, clause
from harness.model.closing import flipped_at_last_close
from harness.model.content import Ranges, literal, tagged
from harness.model.outcome import Observation
from harness.model.rule import (
    cleaned,
    file_memory,
    folios_left,
    layouts_broken,
    look_up,
    mapping_bytes,
    removed,
    rule,
    spoilt,
    store_into,
    touch,
    usable_end,
    volume_fact,
    waits_for_pins,
)
from harness.model.state import HUGE, PAGE, Mapping, Memory, OpenFile, State, page_ceil, page_floor
from harness.ops import (
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

#: Minor faults that the measurement itself may take beside those of the pages in question.
FAULT_NOISE = 0
#: How many pages of a page cache one fault maps at most.
FAULT_AROUND_PAGES = 16

# ---- making and unmaking ---------------------------------------------------------------------------------------------

clause("C-MAP-01", "mmap of an open file, a node or anonymous memory succeeds", "mmap(2)")
clause(
    "C-MAP-02",
    "a length of 0, a file offset or a fixed address inside a page, a mapping without a type, is EINVAL; a negative length ENOMEM, a "
    "negative offset EOVERFLOW",
    "mmap(2) ERRORS; mm/mmap.c do_mmap, file_mmap_ok",
)
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
clause("C-MAP-11", "a file mapping needs a descriptor: EBADF where there is none", "mmap(2) ERRORS")
clause("C-MAP-12", "mprotect to writable of a shared mapping whose descriptor is not open for writing is EACCES", "mprotect(2) ERRORS")
clause(
    "C-MAP-13",
    "madvise at an offset inside a page, or of a negative length, is EINVAL; of nothing it succeeds",
    "madvise(2); mm/madvise.c do_madvise",
)
clause(
    "C-MAP-14",
    "populating against the protection, or of memory without struct pages, is EINVAL",
    "madvise(2) ERRORS; mm/gup.c check_vma_flags, with FOLL_MADV_POPULATE",
)
clause(
    "C-MAP-15",
    "populating behind the end of the file is an error, after the pages before it were faulted in",
    "madvise(2) ERRORS; mm/madvise.c madvise_populate: EFAULT (6.1, 6.12)",
)
clause(
    "C-MAP-16",
    "MADV_DONTNEED and MADV_REMOVE of a locked area, or of memory without struct pages, is EINVAL",
    "madvise(2) ERRORS; mm/madvise.c madvise_dontneed_free_valid_vma, madvise_remove",
)
clause(
    "C-MAP-17",
    "MADV_REMOVE needs a file (EINVAL) and a shared mapping that may be written (EACCES)",
    "madvise(2); mm/madvise.c madvise_remove",
)


@rule(Mmap)
def mmap(c: Context, s: State, op: Mmap) -> list[State]:
    flags = set(op.flags)
    readable, writable = Protection.READ in op.protection, Protection.WRITE in op.protection
    typed, validate, shared = _type_of(flags)
    anonymous = MapFlag.ANONYMOUS in flags
    rows = [
        ("EINVAL", op.length == 0 or op.offset % PAGE != 0 or (op.align != 0 and op.align_shift % PAGE != 0), "C-MAP-02"),
        ("EINVAL", not typed or (validate and anonymous), "C-MAP-02"),
        ("ENOMEM", op.length < 0, "C-MAP-02"),
        ("EOVERFLOW", op.offset < 0 and not anonymous, "C-MAP-02"),
        ("EBADF", op.file is None and not anonymous, "C-MAP-11"),
    ]
    if anonymous or op.file is None:
        return _mmap_anonymous(c, s, op, rows, shared=shared, readable=readable, writable=writable)
    _, of = look_up(c, s, op.file, OpenFile)
    memory = file_memory(s, of)
    asks_sync = MapFlag.SYNC in flags
    offers_sync = memory.kind != "bar" and bool(volume_fact(c, "map_sync", memory))
    looks_at_sync = validate or (memory.is_file and bool(volume_fact(c, "map_sync_asked", memory)))
    if c.refuses(
        *rows,
        ("EACCES", not of.readable or (shared and writable and not of.writable), "C-MAP-03"),
        ("EOPNOTSUPP", asks_sync and not offers_sync and looks_at_sync, "C-MAP-04"),
        ("EINVAL", MapFlag.HUGETLB in flags, "C-MAP-05"),
    ):
        return [s] if c.settled else []
    if not c.returns("C-MAP-01", 0):
        return []
    may_write = not shared or of.writable
    mapping = Mapping(of.memory, op.offset, op.length, shared, readable, writable, sync=asks_sync, may_write=may_write)
    return _mapped(c, s, op, mapping)


def _type_of(flags: set[MapFlag]) -> tuple[bool, bool, bool]:
    """Return whether the flags name a type of mapping, whether that is MAP_SHARED_VALIDATE, and whether it is shared.

    MAP_SHARED_VALIDATE has the bits of both others (include/uapi/linux/mman.h).
    """
    both = MapFlag.SHARED in flags and MapFlag.PRIVATE in flags
    validate = MapFlag.SHARED_VALIDATE in flags or both
    typed = validate or bool({MapFlag.SHARED, MapFlag.PRIVATE} & flags)
    return typed, validate, validate or MapFlag.SHARED in flags


def _mmap_anonymous(
    c: Context, s: State, op: Mmap, rows: list[tuple[str, bool, str]], *, shared: bool, readable: bool, writable: bool
) -> list[State]:
    if MapFlag.HUGETLB in op.flags:
        raise Undetermined("whether huge pages are reserved is not known to the model")
    if c.refuses(*rows):
        return [s] if c.settled else []
    if not c.returns("C-MAP-01", 0):
        return []
    s, number = s.adding(Memory("anonymous", size=op.length))
    return _mapped(c, s, op, Mapping(number, 0, op.length, shared, readable, writable))


def _mapped(c: Context, s: State, op: Mmap, mapping: Mapping) -> list[State]:
    at = c.seen.number("address_mod_2mib")
    if at is not None:
        mapping = replace(mapping, aligned=at % HUGE == op.offset % HUGE)
    if MapFlag.LOCKED in op.flags:
        mapping = replace(mapping, locked=Ranges().add(0, mapping.end))
    s, number = s.adding(mapping)
    s = s.naming(c.process, op.name, number)
    accessible = mapping.readable or mapping.writable
    if (MapFlag.POPULATE in op.flags or MapFlag.LOCKED in op.flags) and accessible and mapping_is_normal(s, mapping):
        return _populate(c, s, number, 0, mapping.end, write=mapping.writable and not mapping.shared)
    return [s]


def mapping_is_normal(s: State, m: Mapping) -> bool:
    """Whether there are struct pages behind a mapping: a BAR's is VM_IO and VM_PFNMAP."""
    return s.memory(m.memory).has_struct_pages


def _populate(c: Context, s: State, number: int, start: int, length: int, *, write: bool) -> list[State]:
    """Return the states after the pages of a range were faulted in, as far as there are any."""
    m = s.objects[number]
    assert isinstance(m, Mapping)
    start = page_floor(start)
    end = min(page_ceil(start + length), usable_end(s, m))
    if start >= end:
        return [s]
    states = [s]
    dax = s.memory(m.memory).dax
    at = start
    while at < end:
        stop = min(end, (m.offset + at) // HUGE * HUGE + HUGE - m.offset) if dax else end
        states = [after for before in states for after in touch(before, number, at, stop, write=write)]
        at = stop
    if write and not m.shared:
        states = [store_into(c, x, number, start, mapping_bytes(x, m, start, end - start)) for x in states]
    return states


@rule(Munmap)
def munmap(c: Context, s: State, op: Munmap) -> list[State]:
    _, m = look_up(c, s, op.mapping, Mapping)
    if not c.returns("C-MAP-06", 0):
        return []
    return [flipped_at_last_close(c, s.without_name(c.process, op.mapping), m.memory)]


@rule(Mprotect)
def mprotect(c: Context, s: State, op: Mprotect) -> list[State]:
    number, m = look_up(c, s, op.mapping, Mapping)
    readable, writable = Protection.READ in op.protection, Protection.WRITE in op.protection
    if c.refuses(("EACCES", writable and not m.may_write, "C-MAP-12")):
        return [s] if c.settled else []
    if not c.returns("C-MAP-07", 0):
        return []
    changed = replace(m, readable=readable, writable=writable, dirty=m.dirty if writable else Ranges())
    s = s.with_object(number, changed)
    if writable and not m.writable and not m.shared and _counts_locks(c, s, m):
        # mm/mprotect.c mprotect_fixup: a locked private area that becomes writable is copied at once.
        states = [s]
        for low, high in m.locked.spans:
            states = [after for before in states for after in _populate(c, before, number, low, high - low, write=True)]
        return states
    return [s]


def _counts_locks(c: Context, s: State, m: Mapping) -> bool:
    """Whether a locked range of the mapping really is locked: that of DAX never is."""
    memory = s.memory(m.memory)
    return not memory.on_volume or bool(volume_fact(c, "mlock_counts", memory))


def _is_locked(c: Context, s: State, m: Mapping, start: int, end: int) -> bool:
    return m.locked.touches(start, end) and mapping_is_normal(s, m) and _counts_locks(c, s, m)


def _range_of(m: Mapping, offset: int, length: int | None) -> tuple[int, int]:
    """Return the range that a call names: its length, and the end of its last page. Raises Undetermined for one outside of the mapping."""
    size = m.length - offset if length is None else length
    end = page_ceil(offset + max(size, 0))
    if size >= 0 and offset % PAGE == 0 and (offset < 0 or end > m.end):
        raise Undetermined("no clause covers what lies outside of a mapping: it depends on what is mapped there")
    return size, end


@rule(Madvise)
def madvise(c: Context, s: State, op: Madvise) -> list[State]:
    number, m = look_up(c, s, op.mapping, Mapping)
    length, end = _range_of(m, op.offset, op.length)
    if c.refuses(("EINVAL", op.offset % PAGE != 0 or length < 0, "C-MAP-13")):
        return [s] if c.settled else []
    if length == 0:
        return [s] if c.returns("C-MAP-13", 0) else []
    if op.advice in (Advice.POPULATE_READ, Advice.POPULATE_WRITE):
        return _madvise_populate(c, s, number, op.offset, end, write=op.advice is Advice.POPULATE_WRITE)
    if op.advice is Advice.REMOVE:
        return _madvise_remove(c, s, m, op.offset, end)
    if op.advice is Advice.DONTNEED:
        refused = _is_locked(c, s, m, op.offset, end) or not mapping_is_normal(s, m)
        if c.refuses(("EINVAL", refused, "C-MAP-16")):
            if not c.settled:
                return []
            # The areas before the first locked one were dropped.
            locked = m.locked.within(op.offset, end).spans
            return [_dropped(s, number, op.offset, locked[0][0])] if locked else [s]
        return [_dropped(s, number, op.offset, end)] if c.returns("C-MAP-09", 0) else []
    if not c.returns("C-MAP-09", 0):
        return []
    whole = op.offset == 0 and end == m.end
    if op.advice is Advice.HUGEPAGE or (op.advice is Advice.NOHUGEPAGE and whole):
        return [s.with_object(number, replace(m, huge_allowed=op.advice is Advice.HUGEPAGE))]
    return [s]


def _dropped(s: State, number: int, start: int, end: int) -> State:
    """Return the state after MADV_DONTNEED: the pages are not mapped, and private copies are lost."""
    m = s.objects[number]
    assert isinstance(m, Mapping)
    m = replace(m, private_pages=m.private_pages.remove(start, end)).without(start, end, present=False)
    return s.with_object(number, m)


def _madvise_populate(c: Context, s: State, number: int, start: int, end: int, *, write: bool) -> list[State]:
    m = s.objects[number]
    assert isinstance(m, Mapping)
    allowed = (m.writable if write else m.readable) and mapping_is_normal(s, m)
    if c.refuses(("EINVAL", not allowed, "C-MAP-14")):
        return [s] if c.settled else []
    behind = end > usable_end(s, m)
    refused = c.refuses(("EFAULT", behind, "C-MAP-15"))
    if (refused and not c.settled) or (not refused and not c.returns("C-MAP-08", 0)):
        return []
    states = _populate(c, s, number, start, end - start, write=write)
    stop = min(end, usable_end(s, m))
    return [_backed(x, m, start, stop - start) for x in states] if write and m.shared and start < stop else states


def _madvise_remove(c: Context, s: State, m: Mapping, start: int, end: int) -> list[State]:
    memory = s.memory(m.memory)
    no_file = memory.kind == "anonymous" and not m.shared
    if c.refuses(
        ("EINVAL", _is_locked(c, s, m, start, end), "C-MAP-16"),
        ("EINVAL", no_file, "C-MAP-17"),
        ("EACCES", not no_file and not (m.shared and m.may_write), "C-MAP-17"),
    ):
        return [s] if c.settled else []
    if not memory.is_file:
        raise Undetermined("MADV_REMOVE is covered for mappings of files only")
    if c.blocks("C-PIN-01", waits_for_pins(c, s, m.memory)):
        return [s] if c.settled else []
    if not c.returns("C-MAP-10", 0):
        return []
    s = layouts_broken(s, m.memory)
    low, high = m.offset + start, min(m.offset + end, page_ceil(memory.size))
    return folios_left(c, s, removed(c, s, m.memory, low, high), m.memory, low, high)


def _backed(s: State, m: Mapping, start: int, length: int) -> State:
    """Return the state with blocks behind the range: a write fault allocates them."""
    memory = s.memory(m.memory)
    if not memory.on_volume:
        return s
    low, high = page_floor(m.offset + start), page_ceil(m.offset + start + length)
    return s.with_object(m.memory, replace(memory, data=memory.data.add(low, high), unwritten=memory.unwritten.remove(low, high)))


# ---- loads and stores ------------------------------------------------------------------------------------------------

clause("C-LOAD-01", "a load shows what was last written there, by whatever way it was written", "mmap(2); fs/dax.c: one copy of the data")
clause("C-LOAD-02", "an access behind the page that holds the end of the file is SIGBUS", "mmap(2) NOTES")
clause(
    "C-LOAD-03",
    "an access that the protection does not allow is SIGSEGV; memory that may be written may be read on this architecture",
    "mmap(2) NOTES; arch/x86/mm/fault.c access_error",
)
clause("C-LOAD-04", "a load or store that the mapping allows ends without a signal", "mmap(2)")
clause(
    "C-LOAD-05",
    "an access before a mapping's first or behind its last page is SIGSEGV: nothing can be reached there",
    "mmap(2); docs/agent-protocol.md",
)
clause(
    "C-FAULT-01",
    "on DAX every page not yet mapped, or not yet mapped writable for a store, takes one fault, or one fault maps a whole huge page",
    "fs/dax.c dax_iomap_pte_fault, dax_iomap_pmd_fault; there is no fault-around (vm_operations without map_pages)",
)
clause("C-FAULT-02", "an access takes no more faults than it has pages", "getrusage(2) ru_minflt, ru_majflt")


@rule(Load)
def load(c: Context, s: State, op: Load) -> list[State]:
    number, m = look_up(c, s, op.mapping, Mapping)
    if op.length > 0 and c.signals(*_signals(s, m, op.offset, op.length, write=False)):
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
    if length > 0 and c.signals(*_signals(s, m, op.offset, length, write=True)):
        return spoilt(c, s, number, op.offset, length if m.writable else 0) if c.settled else []
    if not c.returns("C-LOAD-04", length):
        return []
    pieces = tagged(c.writer, length) if op.value is None else literal((op.value & 0xFFFFFFFF).to_bytes(4, "little"))
    return [store_into(c, after, number, op.offset, pieces) for after in _faulted(c, s, number, op.offset, length, write=True)]


def _signals(s: State, m: Mapping, start: int, length: int, *, write: bool) -> list[tuple[str, bool, str]]:
    """Return what an access is ended by. One that crosses two borders may meet either first: how memory is copied is not specified."""
    allowed = m.writable if write else m.readable or m.writable
    outside_of = start < 0 or start + length > m.end
    end = usable_end(s, m)
    behind = allowed and end < m.end and start < m.end and start + length > end
    return [
        ("SIGSEGV", not allowed, "C-LOAD-03"),
        ("SIGSEGV", allowed and outside_of, "C-LOAD-05"),
        ("SIGBUS", behind, "C-LOAD-02"),
    ]


def _faulted(c: Context, s: State, number: int, start: int, length: int, *, write: bool) -> list[State]:
    """Return the states after the access, those only whose faults are as many as were counted."""
    if length <= 0:
        return [s]
    m = s.objects[number]
    assert isinstance(m, Mapping)
    memory = s.memory(m.memory)
    low, high = page_floor(start), page_ceil(start + length)
    seen = faults_seen(c.seen)
    states = touch(s, number, start, start + length, write=write)
    if seen is None:
        c.doubts("the observation does not say how many faults there were")
    if seen is None or not memory.on_volume:
        return states
    at_most, at_least = (m.dirty, m.stored) if write else (m.sure, m.touched)
    if write and m.shared and not memory.dax:
        at_most = Ranges()  # the kernel may write a page back at any time, and then the next store to it faults
    out = []
    for after in states:
        now = after.objects[number]
        assert isinstance(now, Mapping)
        most = _faults(at_most, now, low, high)
        if memory.dax:
            least = _faults(at_least, now, low, high)
            if c.agrees("C-FAULT-01", least <= seen <= most + FAULT_NOISE, f"{least}..{most} faults", f"{seen} faults"):
                out.append(after)
        elif c.agrees("C-FAULT-02", seen <= most + FAULT_NOISE, f"at most {most} faults", f"{seen} faults"):
            out.append(after)
    return out


def faults_seen(seen: Observation) -> int | None:
    """Return how many faults an access took; one that allocates blocks, or waits for a device, is counted as a major one.

    Source: fs/dax.c dax_iomap_pte_fault returns VM_FAULT_MAJOR where blocks are new; mm/filemap.c filemap_fault where it reads.
    """
    major = seen.number("major_faults")
    return None if seen.minor_faults is None or major is None else seen.minor_faults + major


def _faults(held: Ranges, after: Mapping, low: int, high: int) -> int:
    """Return how many faults an access of ``low`` to ``high`` takes where the pages of ``held`` take none: one for a huge page."""
    missing = Ranges().add(low, high)
    for a, b in held.within(low, high).spans:
        missing = missing.remove(a, b)
    spans = 0
    for a, b in after.huge.spans:
        for at in range(a, b, HUGE):
            if missing.touches(at, at + HUGE):
                spans += 1
                missing = missing.remove(at, at + HUGE)
    return missing.total() // PAGE + spans


# ---- what is reported ------------------------------------------------------------------------------------------------

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
    length, end = _range_of(m, op.offset, op.length)
    both = SyncFlag.SYNC in op.flags and SyncFlag.ASYNC in op.flags
    if c.refuses(("EINVAL", both or op.offset % PAGE != 0, "C-SYNC-02"), ("ENOMEM", length <= -PAGE, "C-SYNC-02")):
        return [s] if c.settled else []
    if page_ceil(length) == 0:
        return [s] if c.returns("C-SYNC-02", 0) else []
    busy = SyncFlag.INVALIDATE in op.flags and _is_locked(c, s, m, op.offset, end)
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
    length, end = _range_of(m, op.offset, op.length)
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
    return _populate(c, s, number, start, end - start, write=m.writable and not m.shared)


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
    wanted.append(("C-LOCK-02", "lo", _is_locked(c, s, m, 0, PAGE)))
    for clause_id, flag, is_set in wanted:
        allowed = f"flag {flag} {'set' if is_set else 'clear'}"
        if not c.agrees(clause_id, (flag in flags) == is_set, allowed, f"VmFlags {told}"):
            return []
    return [s]
