"""Rules for loads and stores."""

from harness.model.clause import Context, clause
from harness.model.content import Ranges, literal, tagged
from harness.model.outcome import Observation
from harness.model.rules.buffers import mapping_bytes, spoilt, store_into, touch, usable_end
from harness.model.rules.pages import FAULT_NOISE
from harness.model.rules.rule import look_up, rule
from harness.model.state import HUGE, PAGE, Mapping, State, page_ceil, page_floor
from harness.ops import (
    Load,
    Store,
)

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
