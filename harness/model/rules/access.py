"""Rules for loads and stores."""

from harness.model.clause import Context, clause
from harness.model.content import Ranges, literal, tagged
from harness.model.expectation import ANY, Expectations, Next, Number
from harness.model.objects import HUGE, PAGE, Mapping, Memory, page_ceil, page_floor
from harness.model.rules.buffers import backed_end, lacks_unit, mapping_bytes, spoilt, store_into, touch
from harness.model.rules.pages import FAULT_NOISE
from harness.model.rules.rule import look_up, rule
from harness.model.state import State
from harness.ops import Load, Store

clause("C-LOAD-01", "a load shows what was last written there, by whatever way it was written", "mmap(2); fs/dax.c: one copy of the data")
clause(
    "C-LOAD-02",
    "an access behind the page that holds the end of the file, or behind the end of a dax device, is SIGBUS",
    "mmap(2) NOTES; drivers/dax/device.c dax_pgoff_to_phys",
)
clause(
    "C-DEVDAX-10",
    "where huge pages are forbidden, an access to what is not yet mapped of a dax device whose units they are is SIGBUS",
    "mm/memory.c __handle_mm_fault, mm/huge_memory.c __thp_vma_allowable_orders: VM_NOHUGEPAGE; drivers/dax/device.c __dev_dax_pte_fault",
)
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
_NO_FAULTS = "the observation does not say how many faults there were"


@rule(Load)
def load(c: Context, s: State, op: Load) -> Expectations:
    number, m = look_up(c, s, op.mapping, Mapping)
    if op.length > 0 and (ended := c.signals(*_signals(s, m, op.offset, op.length, write=False))):
        return ended.leaving(s)
    loaded = c.returns("C-LOAD-04", op.length).shows("C-LOAD-01", mapping_bytes(s, m, op.offset, op.length))
    return loaded.then(*_faulted(s, number, op.offset, op.length, write=False))


@rule(Store)
def store(c: Context, s: State, op: Store) -> Expectations:
    number, m = look_up(c, s, op.mapping, Mapping)
    length = op.length if op.value is None else 4
    if length > 0 and (ended := c.signals(*_signals(s, m, op.offset, length, write=True))):
        return ended.leaving(*spoilt(c, s, number, op.offset, length if m.writable else 0))
    pieces = tagged(c.writer, length) if op.value is None else literal((op.value & 0xFFFFFFFF).to_bytes(4, "little"))
    faulted = _faulted(s, number, op.offset, length, write=True)
    after = [Next(store_into(c, found.state, number, op.offset, pieces), found.evidence) for found in faulted]
    return c.returns("C-LOAD-04", length).then(*after)


def _signals(s: State, m: Mapping, start: int, length: int, *, write: bool) -> list[tuple[str, bool, str]]:
    """Return what an access is ended by. One that crosses two borders may meet either first: how memory is copied is not specified."""
    allowed = m.writable if write else m.readable or m.writable
    outside_of = start < 0 or start + length > m.end
    end = backed_end(s, m)
    behind = allowed and end < m.end and start < m.end and start + length > end
    return [
        ("SIGSEGV", not allowed, "C-LOAD-03"),
        ("SIGSEGV", allowed and outside_of, "C-LOAD-05"),
        ("SIGBUS", behind, "C-LOAD-02"),
        ("SIGBUS", allowed and not outside_of and lacks_unit(m, s.memory(m.memory), start, start + length), "C-DEVDAX-10"),
    ]


def _faulted(s: State, number: int, start: int, length: int, *, write: bool) -> list[Next]:
    """Return the states after the access, each with the faults that it takes then."""
    if length <= 0:
        return [Next(s)]
    m = s.mapping(number)
    memory = s.memory(m.memory)
    low, high = page_floor(start), page_ceil(start + length)
    states = touch(s, number, start, start + length, write=write)
    if not memory.on_volume:
        return [Next(after, (Number("", "faults", 0, ANY, "", "", _NO_FAULTS),)) for after in states]
    # A page of a dax device is writable from its first fault on, if it may be written: nobody waits for what becomes dirty
    # (mm/mmap.c vma_wants_writenotify).
    at_most, at_least = (m.dirty, m.stored) if write and not memory.is_device else (m.sure, m.touched)
    if write and m.shared and not memory.dax:
        at_most = Ranges()  # the kernel may write a page back at any time, and then the next store to it faults
    return [Next(after, (_counted(after, number, memory, (at_least, at_most), low, high),)) for after in states]


def _counted(after: State, number: int, memory: Memory, held: tuple[Ranges, Ranges], low: int, high: int) -> Number:
    """Return how many faults the access takes that leaves ``after``, where the pages of ``held`` take none: perhaps, and surely."""
    now = after.mapping(number)
    most = _faults(held[1], now, low, high)
    if not memory.dax:
        return Number("C-FAULT-02", "faults", 0, most + FAULT_NOISE, f"at most {most} faults", "{} faults", _NO_FAULTS)
    least = _faults(held[0], now, low, high)
    return Number("C-FAULT-01", "faults", least, most + FAULT_NOISE, f"{least}..{most} faults", "{} faults", _NO_FAULTS)


def _faults(held: Ranges, after: Mapping, low: int, high: int) -> int:
    """Return how many faults an access of ``low`` to ``high`` takes where the pages of ``held`` take none: one for a huge page."""
    missing = held.gaps(low, high)
    spans = 0
    for a, b in after.huge.spans:
        for at in range(a, b, HUGE):
            if missing.touches(at, at + HUGE):
                spans += 1
                missing = missing.remove(at, at + HUGE)
    return missing.total() // PAGE + spans
