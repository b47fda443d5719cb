"""Rules for making, changing and unmaking mappings."""

from harness.model.clause import Context, Undetermined, clause
from harness.model.closing import flipped_at_last_close
from harness.model.content import Ranges
from harness.model.expectation import Expectation, Expectations, Next
from harness.model.objects import HUGE, PAGE, Mapping, Memory, MemoryKind, OpenFile, page_ceil, page_floor
from harness.model.outcome import Observation
from harness.model.rules.buffers import usable_end
from harness.model.rules.effects import folios_left, layouts_broken, removed
from harness.model.rules.pages import counts_locks, is_locked, mapping_is_normal, populate_pages, range_of
from harness.model.rules.rule import is_closed_node, kernel_fact, look_up, rule, volume_fact, waits_for_pins
from harness.model.state import State
from harness.model.value import evolve
from harness.ops import Advice, Madvise, MapFlag, Mmap, Mprotect, Munmap, Protection

clause("C-MAP-01", "mmap of an open file, a node or anonymous memory succeeds", "mmap(2)")
clause(
    "C-MAP-02",
    "a length of 0, a file offset or a fixed address inside a page, a mapping without a type, is EINVAL; a negative length ENOMEM, a "
    "negative offset EOVERFLOW",
    "mmap(2) ERRORS; mm/mmap.c do_mmap, file_mmap_ok",
)
clause(
    "C-DEVDAX-01",
    "a mapping of a dax device is shared: a private one is EINVAL",
    "drivers/dax/device.c check_vma: VM_MAYSHARE",
)
clause(
    "C-DEVDAX-02",
    "a mapping of a dax device begins and ends at multiples of its units, and where the kernel chooses the place its offset is one: EINVAL",
    "drivers/dax/device.c check_vma; dax_get_unmapped_area chooses an address that is the offset modulo the units",
)
clause(
    "C-DEVDAX-12",
    "where the program chooses the place, an offset inside a unit that is a huge page is not refused: what is mapped begins with the unit",
    "drivers/dax/device.c check_vma does not look at the offset, and arch/x86 pfn_pmd cuts off what is less than 2 MiB",
)
clause(
    "C-DEVDAX-06",
    "a mapping of a dax device is split between its units only: munmap, mprotect and advice of a part of one are EINVAL",
    "drivers/dax/device.c dev_dax_may_split (split up to 5.10), called by mm/mmap.c __split_vma (mm/vma.c since 6.11)",
)
clause("C-MAP-03", "a mapping needs a readable descriptor, a shared writable one a descriptor open for both: EACCES", "mmap(2) ERRORS")
clause(
    "C-MAP-04",
    "MAP_SYNC of a file that is not in DAX state is EOPNOTSUPP, whatever the mapping type; that of a node only with MAP_SHARED_VALIDATE",
    "mmap(2) for MAP_SHARED_VALIDATE; mm/mmap.c do_mmap sets VM_SYNC for the other types too, fs/ext4/file.c ext4_file_mmap looks at it, "
    "block/fops.c does not",
)
clause("C-MAP-05", "MAP_HUGETLB with a file that is not on hugetlbfs is EINVAL", "mmap(2); mm/mmap.c ksys_mmap_pgoff")
clause("C-MAP-06", "munmap of a mapping, or of its last pages, succeeds", "munmap(2)")
clause("C-MAP-07", "mprotect of a mapping succeeds where the descriptor's mode allows it", "mprotect(2)")
clause(
    "C-MAP-20",
    "munmap and mprotect at an offset inside a page are EINVAL, as munmap of nothing is; mprotect of nothing succeeds, and so does that "
    "to what a part is already",
    "munmap(2), mprotect(2) ERRORS; mm/mprotect.c do_mprotect_pkey, mprotect_fixup",
)
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
clause("C-MAP-19", "a kernel that does not know POPULATE_READ and POPULATE_WRITE answers EINVAL", "madvise(2) ERRORS: fact populate_advice")
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
clause(
    "C-MAP-18",
    "a shared mapping of the node of a read-only device needs a descriptor that is not open for writing, whatever its protection: EINVAL",
    "block/fops.c blkdev_mmap, mm/filemap.c generic_file_readonly_mmap: fact refuses_closed_node",
)
_CLOSED = "no clause covers stores into the node of a read-only device"


@rule(Mmap)
def mmap(c: Context, s: State, op: Mmap) -> Expectations:
    flags = set(op.flags)
    readable, writable = Protection.READ in op.protection, Protection.WRITE in op.protection
    typed, validate, shared = _type_of(flags)
    anonymous = MapFlag.ANONYMOUS in flags
    rows = [
        ("EINVAL", op.length == 0 or op.offset % PAGE != 0 or (op.align != 0 and op.align_shift % PAGE != 0), "C-MAP-02"),
        ("EINVAL", not typed or (validate and anonymous), "C-MAP-02"),
        ("ENOMEM", op.length < 0, "C-MAP-02"),
        ("EBADF", op.file is None and not anonymous, "C-MAP-11"),
    ]
    if anonymous or op.file is None:
        return _mmap_anonymous(c, s, op, rows, shared=shared, readable=readable, writable=writable)
    _, of = look_up(c, s, op.file, OpenFile)
    memory = s.memory(of.memory)
    asks_sync = MapFlag.SYNC in flags
    offers_sync = not memory.is_bar and bool(volume_fact(c, "map_sync", memory))
    closed = shared and is_closed_node(c, memory)
    looks_at_sync = validate or (memory.is_file and bool(volume_fact(c, "map_sync_asked", memory)))
    if refused := c.refuses(
        *rows,
        ("EOVERFLOW", op.offset < 0 and not memory.is_device, "C-MAP-02"),
        ("EACCES", not of.readable or (shared and writable and not of.writable), "C-MAP-03"),
        ("EOPNOTSUPP", asks_sync and not offers_sync and looks_at_sync, "C-MAP-04"),
        ("EINVAL", MapFlag.HUGETLB in flags, "C-MAP-05"),
        ("EINVAL", closed and of.writable and bool(volume_fact(c, "refuses_closed_node", memory)), "C-MAP-18"),
    ):
        return refused.leaving(s)
    if closed and writable:
        raise Undetermined(_CLOSED)
    if memory.is_device and (refused := _device_refuses(c, memory, op, shared=shared)):
        return refused.leaving(s)
    offset = op.offset
    if offset % memory.unit:
        if offset + op.length > memory.size:
            raise Undetermined("no clause covers an offset inside a unit of a dax device in a mapping that reaches behind its end")
        offset -= offset % memory.unit if c.holds("C-DEVDAX-12", True) else 0
    may_write = not shared or of.writable
    mapping = Mapping(of.memory, offset, op.length, shared, readable, writable, sync=asks_sync, may_write=may_write)
    return _mapped(c, s, op, mapping)


def _device_refuses(c: Context, memory: Memory, op: Mmap, *, shared: bool) -> Expectation | None:
    """Return how a dax device refuses a mapping, or None."""
    unit, length = memory.unit, page_ceil(op.length)
    odd = length % unit != 0 or (op.offset % unit != 0 if op.align == 0 else op.align_shift % unit != 0)
    chance = op.align == 0 and op.offset % unit != 0 and length == unit
    if op.align % unit or op.offset < 0 or chance:
        raise Undetermined("whether the address of such a mapping of a dax device is a multiple of its units is not known to the model")
    return c.refuses(("EINVAL", not shared, "C-DEVDAX-01"), ("EINVAL", odd, "C-DEVDAX-02"))


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
) -> Expectations:
    if MapFlag.HUGETLB in op.flags:
        raise Undetermined("whether huge pages are reserved is not known to the model")
    if refused := c.refuses(*rows):
        return refused.leaving(s)
    s, number = s.adding(Memory(MemoryKind.ANONYMOUS, size=op.length))
    return _mapped(c, s, op, Mapping(number, 0, op.length, shared, readable, writable))


def _mapped(c: Context, s: State, op: Mmap, mapping: Mapping) -> Expectations:
    """Return what is expected of a mapping that can be made. Only the guest knows where in a huge page it lies."""
    return c.returns("C-MAP-01", 0).lazily(lambda seen: [Next(state) for state in _placed(c, s, op, mapping, seen)])


def _placed(c: Context, s: State, op: Mmap, mapping: Mapping, seen: Observation) -> list[State]:
    at = seen.number("address_mod_2mib")
    memory = s.memory(mapping.memory)
    if memory.is_file and not volume_fact(c, "huge_dax_faults", memory):
        mapping = evolve(mapping, aligned=False)
    elif at is not None:
        mapping = evolve(mapping, aligned=at % HUGE == mapping.offset % HUGE)
    if MapFlag.LOCKED in op.flags:
        mapping = evolve(mapping, locked=Ranges().add(0, mapping.end))
    s, number = s.adding(mapping)
    s = s.naming(c.process, op.name, number)
    accessible = mapping.readable or mapping.writable
    if (MapFlag.POPULATE in op.flags or MapFlag.LOCKED in op.flags) and accessible and mapping_is_normal(s, mapping):
        return populate_pages(c, s, number, 0, mapping.end, write=mapping.writable and not mapping.shared)
    return [s]


@rule(Munmap)
def munmap(c: Context, s: State, op: Munmap) -> Expectations:
    number, m = look_up(c, s, op.mapping, Mapping)
    length, end = range_of(m, op.offset, op.length)
    if refused := c.refuses(
        ("EINVAL", op.offset % PAGE != 0 or length <= 0, "C-MAP-20"), ("EINVAL", _cuts_unit(s, m, op.offset, end), "C-DEVDAX-06")
    ):
        return refused.leaving(s)
    if op.offset == 0 and end == m.end:
        return c.returns("C-MAP-06", 0).leaving(flipped_at_last_close(c, s.without_name(c.process, op.mapping), m.memory))
    if end < m.end:
        raise Undetermined("no clause covers a mapping that has lost its begin, or a part of its middle")
    return c.returns("C-MAP-06", 0).leaving(s.with_object(number, _shortened(m, op.offset)))


def _shortened(m: Mapping, length: int) -> Mapping:
    """Return the mapping without its pages from ``length`` on."""
    end = m.end
    m = evolve(m, private_pages=m.private_pages.remove(length, end)).without(length, end, present=False)
    return evolve(m, length=length, locked=m.locked.remove(length, end))


def _cuts_unit(s: State, m: Mapping, start: int, end: int) -> bool:
    """Whether a border of the range would split a unit of the dax device behind the mapping."""
    unit = s.memory(m.memory).unit
    return start % unit != 0 or (end % unit != 0 and end != m.end)


@rule(Mprotect)
def mprotect(c: Context, s: State, op: Mprotect) -> Expectations:
    number, m = look_up(c, s, op.mapping, Mapping)
    readable, writable = Protection.READ in op.protection, Protection.WRITE in op.protection
    length, end = range_of(m, op.offset, op.length)
    if refused := c.refuses(("EINVAL", op.offset % PAGE != 0, "C-MAP-20")):
        return refused.leaving(s)
    part = (op.offset, end) != (0, m.end)
    if part and (length == 0 or (readable, writable) == (m.readable, m.writable)):
        return c.returns("C-MAP-20", 0).leaving(s)
    if refused := c.refuses(("EACCES", writable and not m.may_write, "C-MAP-12")):
        return refused.leaving(s)
    if part and (refused := c.refuses(("EINVAL", _cuts_unit(s, m, op.offset, end), "C-DEVDAX-06"))):
        return refused.leaving(s)
    if part:
        raise Undetermined("no clause covers a mapping whose parts have different protections")
    if writable and m.shared and is_closed_node(c, s.memory(m.memory)):
        raise Undetermined(_CLOSED)
    changed = evolve(m, readable=readable, writable=writable, dirty=m.dirty if writable else Ranges())
    s = s.with_object(number, changed)
    if writable and not m.writable and not m.shared and counts_locks(c, s, m):
        # mm/mprotect.c mprotect_fixup: a locked private area that becomes writable is copied at once.
        return c.returns("C-MAP-07", 0).by(lambda _: _copied_where_locked(c, s, number, m))
    return c.returns("C-MAP-07", 0).leaving(s)


def _copied_where_locked(c: Context, s: State, number: int, m: Mapping) -> list[State]:
    states = [s]
    for low, high in m.locked.spans:
        states = [after for before in states for after in populate_pages(c, before, number, low, high - low, write=True)]
    return states


@rule(Madvise)
def madvise(c: Context, s: State, op: Madvise) -> Expectations:
    number, m = look_up(c, s, op.mapping, Mapping)
    length, end = range_of(m, op.offset, op.length)
    populating = op.advice in (Advice.POPULATE_READ, Advice.POPULATE_WRITE)
    if refused := c.refuses(
        ("EINVAL", populating and not kernel_fact(c, "populate_advice"), "C-MAP-19"),
        ("EINVAL", op.offset % PAGE != 0 or length < 0, "C-MAP-13"),
    ):
        return refused.leaving(s)
    if length == 0:
        return c.returns("C-MAP-13", 0).leaving(s)
    if populating:
        return _madvise_populate(c, s, number, op.offset, end, write=op.advice is Advice.POPULATE_WRITE)
    if op.advice is Advice.REMOVE:
        return _madvise_remove(c, s, m, op.offset, end)
    if op.advice is Advice.DONTNEED:
        if refused := c.refuses(("EINVAL", is_locked(c, s, m, op.offset, end) or not mapping_is_normal(s, m), "C-MAP-16")):
            # The areas before the first locked one were dropped.
            locked = m.locked.within(op.offset, end).spans
            return refused.leaving(_dropped(s, number, op.offset, locked[0][0]) if locked else s)
        return c.returns("C-MAP-09", 0).leaving(_dropped(s, number, op.offset, end))
    whole = op.offset == 0 and end == m.end
    if s.memory(m.memory).is_device and not whole and m.huge_allowed != (op.advice is not Advice.NOHUGEPAGE):
        if refused := c.refuses(("EINVAL", _cuts_unit(s, m, op.offset, end), "C-DEVDAX-06")):
            return refused.leaving(s)
        raise Undetermined("no clause covers a mapping of a dax device in whose parts different advice is in force")
    if op.advice is Advice.HUGEPAGE or (op.advice is Advice.NOHUGEPAGE and whole):
        s = s.with_object(number, evolve(m, huge_allowed=op.advice is Advice.HUGEPAGE))
    return c.returns("C-MAP-09", 0).leaving(s)


def _dropped(s: State, number: int, start: int, end: int) -> State:
    """Return the state after MADV_DONTNEED: the pages are not mapped, and private copies are lost."""
    m = s.mapping(number)
    m = evolve(m, private_pages=m.private_pages.remove(start, end)).without(start, end, present=False)
    return s.with_object(number, m)


def _madvise_populate(c: Context, s: State, number: int, start: int, end: int, *, write: bool) -> Expectations:
    m = s.mapping(number)
    allowed = (m.writable if write else m.readable) and mapping_is_normal(s, m)
    if refused := c.refuses(("EINVAL", not allowed, "C-MAP-14")):
        return refused.leaving(s)
    expected = c.refuses(("EFAULT", end > usable_end(s, m), "C-MAP-15")) or c.returns("C-MAP-08", 0)
    stop = min(end, usable_end(s, m))
    backs = write and m.shared and start < stop

    def populated(_: int) -> list[State]:
        states = populate_pages(c, s, number, start, end - start, write=write)
        return [_backed(x, m, start, stop - start) for x in states] if backs else states

    return expected.by(populated)


def _madvise_remove(c: Context, s: State, m: Mapping, start: int, end: int) -> Expectations:
    memory = s.memory(m.memory)
    no_file = memory.kind is MemoryKind.ANONYMOUS and not m.shared
    if refused := c.refuses(
        ("EINVAL", is_locked(c, s, m, start, end), "C-MAP-16"),
        ("EINVAL", no_file, "C-MAP-17"),
        ("EACCES", not no_file and not (m.shared and m.may_write), "C-MAP-17"),
    ):
        return refused.leaving(s)
    if refused := c.refuses(("ENODEV", memory.is_device, "C-DEVDAX-08")):
        return refused.leaving(s)
    if not memory.is_file:
        raise Undetermined("MADV_REMOVE is covered for mappings of files only")
    if refused := c.refuses(("EOPNOTSUPP", not volume_fact(c, "fallocate_supported", memory), "C-ALLOC-07")):
        return refused.leaving(s)
    if blocked := c.blocks("C-PIN-01", waits_for_pins(c, s, m.memory)):
        return blocked.leaving(s)
    s = layouts_broken(s, m.memory)
    low, high = m.offset + start, min(m.offset + end, page_ceil(memory.size))
    return c.returns("C-MAP-10", 0).leaving(*folios_left(c, s, removed(c, s, m.memory, low, high), m.memory, low, high))


def _backed(s: State, m: Mapping, start: int, length: int) -> State:
    """Return the state with blocks behind the range: a write fault allocates them."""
    memory = s.memory(m.memory)
    if not memory.on_volume:
        return s
    low, high = page_floor(m.offset + start), page_ceil(m.offset + start + length)
    return s.with_object(m.memory, evolve(memory, data=memory.data.add(low, high), unwritten=memory.unwritten.remove(low, high)))
