"""Rules for futexes and other processes: waiting, waking, forking and reading another process's memory."""

from harness.model.clause import Context, Undetermined, clause
from harness.model.content import Ranges, has_unknown
from harness.model.expectation import Expectations, open_end
from harness.model.objects import Mapping, page_ceil, page_floor
from harness.model.outcome import How
from harness.model.rules.buffers import mapping_bytes, mapping_reaches, sent, store_into, touch, usable_end
from harness.model.rules.rule import look_up, rule, volume_fact
from harness.model.state import State, Waiter
from harness.model.value import evolve
from harness.ops import Fork, FutexWait, FutexWake, ProcessVmReadv

#: The size of a futex word.
WORD = 4
Key = tuple[object, ...]
clause("C-FUTEX-01", "the address of a futex word is a multiple of 4: EINVAL", "futex(2) ERRORS; kernel/futex/core.c get_futex_key")
clause(
    "C-FUTEX-02",
    "a futex word that the process may not read, or that lies behind the page with the end of the file, is EFAULT",
    "futex(2) ERRORS; get_futex_key and futex_get_value_locked, get_user",
)
clause(
    "C-FUTEX-03",
    "a shared futex word needs a struct page: EFAULT for memory that has none; a private one is known by its address alone",
    "kernel/futex/core.c get_futex_key: get_user_pages_fast of a VM_PFNMAP area (mm/gup.c check_vma_flags)",
)
clause(
    "C-FUTEX-04",
    "a shared futex word on the zero page belongs to no file: EFAULT on a hole that a read-only DAX mapping shows",
    "kernel/futex/core.c get_futex_key: a page without mapping; fs/dax.c dax_load_hole",
)
clause(
    "C-FUTEX-05",
    "a shared futex word on anonymous memory that the process may not write is EFAULT",
    "kernel/futex/core.c get_futex_key: a read-only anonymous page",
)
clause("C-FUTEX-06", "FUTEX_WAIT on a word with another value is EAGAIN at once", "futex(2) FUTEX_WAIT")
clause("C-FUTEX-07", "FUTEX_WAIT that was woken returns 0", "futex(2) RETURN VALUE")
clause("C-FUTEX-08", "FUTEX_WAIT that nobody wakes ends in ETIMEDOUT after its timeout", "futex(2) ERRORS")
clause("C-FUTEX-09", "FUTEX_WAIT on a word with the expected value sleeps until it is woken", "futex(2) FUTEX_WAIT")
clause(
    "C-FUTEX-10",
    "FUTEX_WAKE returns how many it woke: those that wait on the same word of the same file or address space, as many as asked for at most",
    "futex(2) FUTEX_WAKE; kernel/futex/core.c futex_match",
)


@rule(FutexWait)
def futex_wait(c: Context, s: State, op: FutexWait) -> Expectations:
    waiting = next((w for w in s.waiters if w.step == c.step), None)
    if waiting is not None:
        return _end_of_wait(c, [s], op, waiting)
    number, m = look_up(c, s, op.mapping, Mapping)
    if refused := c.refuses(*_word_refusals(c, s, m, op.offset, op.private, reads=True)):
        return refused.leaving(s)
    word = mapping_bytes(s, m, op.offset, WORD)
    if has_unknown(word):
        raise Undetermined("the value of the futex word is not known to the model")
    value = int.from_bytes(b"".join(piece.bytes() for piece in word), "little")
    # Looking at the word faults its page in, whatever is done to find the key.
    states = [after for taken in _key_taken(c, s, number, op.offset, op.private) for after in sent(taken, number, op.offset, WORD)]
    if refused := c.refuses(("EAGAIN", value != op.value & 0xFFFFFFFF, "C-FUTEX-06")):
        return refused.leaving(*states)
    return _end_of_wait(c, states, op, Waiter(c.step, _key(s, number, op.offset, op.private)))


def _end_of_wait(c: Context, states: list[State], op: FutexWait, waiter: Waiter) -> Expectations:
    """Return what is expected of a wait in its queue: woken, timed out, or asleep still."""
    others = [evolve(s, waiters=tuple(w for w in s.waiters if w.step != waiter.step)) for s in states]
    if waiter.woken:
        return c.returns("C-FUTEX-07", 0).leaving(*others)
    if expired := c.refuses(("ETIMEDOUT", op.timeout_ms is not None, "C-FUTEX-08")):
        slow = open_end(How.BLOCKED, "the timeout is longer than the limit that tells blocked from slow")
        return (slow, *expired.leaving(*others))
    if asleep := c.blocks("C-FUTEX-09", True):
        return asleep.leaving(*(evolve(s, waiters=(*s.waiters, waiter)) for s in others))
    return c.returns("C-FUTEX-09", 0).leaving(*others)


@rule(FutexWake)
def futex_wake(c: Context, s: State, op: FutexWake) -> Expectations:
    number, m = look_up(c, s, op.mapping, Mapping)
    if refused := c.refuses(*_word_refusals(c, s, m, op.offset, op.private, reads=False)):
        return refused.leaving(s)
    key = _key(s, number, op.offset, op.private)
    asleep = [w.step for w in s.waiters if w.key == key and not w.woken]
    woken = asleep[: max(op.count, 1)]
    waiters = tuple(evolve(w, woken=True) if w.step in woken else w for w in s.waiters)
    states = _key_taken(c, s, number, op.offset, op.private)
    return c.returns("C-FUTEX-10", len(woken)).leaving(*(evolve(state, waiters=waiters) for state in states))


def _word_refusals(c: Context, s: State, m: Mapping, offset: int, private: bool, *, reads: bool) -> list[tuple[str, bool, str]]:
    """Return why the word cannot be a futex. A wake of a private one ``reads`` nothing: its address is enough."""
    aligned = offset % WORD == 0
    looked_at = aligned and (reads or not private)
    usable = (m.readable or m.writable) and mapping_reaches(s, m, offset, WORD)
    memory = s.memory(m.memory)
    shared = aligned and usable and not private
    in_file = memory.on_volume
    hole = in_file and not memory.data.touches(*_page(m.offset + offset)) and _page(offset)[0] not in m.private_pages
    if shared and in_file and memory.dax and not m.writable and memory.shared.touches(*_page(m.offset + offset)):
        raise Undetermined("whether a word in a block that files share can be a futex, where it is only read, is not known to the model")
    on_zero_page = shared and hole and not m.writable and volume_fact(c, "futex_on_readonly_hole", memory) == "EFAULT"
    anonymous = not m.shared and (not in_file or _page(offset)[0] in m.private_pages)
    return [
        ("EINVAL", not aligned, "C-FUTEX-01"),
        ("EFAULT", looked_at and not usable, "C-FUTEX-02"),
        ("EFAULT", shared and not memory.has_struct_pages, "C-FUTEX-03"),
        ("EFAULT", on_zero_page, "C-FUTEX-04"),
        ("EFAULT", shared and anonymous and not m.writable, "C-FUTEX-05"),
    ]


def _key(s: State, number: int, offset: int, private: bool) -> Key:
    """Return what two futex words must have in common to be one: file and offset, or address space and address.

    A mapping belongs to one address space, so its number and the offset in it stand for the address.
    """
    m = s.mapping(number)
    if private:
        return ("private", number, offset)
    if m.shared or (not m.writable and s.memory(m.memory).on_volume):
        return ("memory", m.memory, m.offset + offset)
    return ("address space", number, offset)


def _key_taken(c: Context, s: State, number: int, offset: int, private: bool) -> list[State]:
    """Return the states after the kernel looked at the word: a shared one in a writable mapping is faulted for writing."""
    m = s.mapping(number)
    if private or s.memory(m.memory).is_bar:
        return [s]
    low, high = _page(offset)
    states = touch(s, number, low, high, write=m.writable)
    if not m.writable:
        return states
    return [store_into(c, state, number, low, mapping_bytes(state, m, low, high - low)) for state in states]


def _page(offset: int) -> tuple[int, int]:
    return page_floor(offset), page_ceil(offset + 1)


clause("C-FORK-01", "fork succeeds; shared mappings stay shared, private ones become copies, descriptors are the same", "fork(2)")
clause(
    "C-VMREAD-01",
    "process_vm_readv returns the bytes up to the end, or up to the first page that the target may not read",
    "process_vm_readv(2); mm/process_vm_access.c process_vm_rw_single_vec",
)
clause("C-VMREAD-02", "process_vm_readv shows what the target would load there", "process_vm_readv(2)")
clause("C-VMREAD-03", "process_vm_readv of memory that the target may not read at all is EFAULT", "process_vm_readv(2) ERRORS")
clause(
    "C-VMREAD-04",
    "process_vm_readv needs struct pages behind the target's memory: EFAULT where there are none",
    "mm/process_vm_access.c pin_user_pages_remote; mm/gup.c check_vma_flags: VM_IO and VM_PFNMAP are EFAULT",
)


@rule(Fork)
def fork(c: Context, s: State, op: Fork) -> Expectations:
    s = evolve(s, processes=(*s.processes, op.process))
    for (process, name), number in tuple(s.names.items()):
        if process != c.process:
            continue
        thing = s.objects[number]
        if isinstance(thing, Mapping):
            s, number = s.adding(_inherited(thing))
        s = s.naming(op.process, name, number)
    s = evolve(s, closed=s.closed | {(op.process, name, end) for who, name, end in s.closed if who == c.process})
    return c.returns("C-FORK-01", 0).leaving(_write_protected(s, c.process))


def _write_protected(s: State, process: str) -> State:
    """Return the state in which the parent's private pages are shared with the child: the next store to each copies it again."""
    for (who, _), number in s.names.items():
        thing = s.objects[number]
        if who == process and isinstance(thing, Mapping) and not thing.shared and thing.dirty.spans:
            s = s.with_object(number, evolve(thing, dirty=Ranges()))
    return s


def _inherited(m: Mapping) -> Mapping:
    """Return the child's copy of a mapping. Page tables are copied only where there are anonymous pages; locks are not."""
    copied = bool(m.private_pages.spans)
    return evolve(
        m,
        touched=m.touched if copied else Ranges(),
        sure=m.sure if copied else Ranges(),
        huge=m.huge if copied else Ranges(),
        stored=m.stored if copied else Ranges(),
        dirty=Ranges(),
        locked=Ranges(),
    )


@rule(ProcessVmReadv)
def process_vm_readv(c: Context, s: State, op: ProcessVmReadv) -> Expectations:
    number = s.names.get((op.target, op.mapping))
    m = None if number is None else s.objects[number]
    if number is None or not isinstance(m, Mapping):
        raise Undetermined(f"{op.mapping} of {op.target} was not made: the step that makes it did not succeed")
    if op.length <= 0 or op.offset < 0:
        raise Undetermined("no clause covers reading nothing, or before the mapping")
    memory = s.memory(m.memory)
    count = min(op.length, usable_end(s, m) - op.offset)
    if refused := c.refuses(
        ("EFAULT", not memory.has_struct_pages, "C-VMREAD-04"),
        ("EFAULT", not m.readable or count <= 0, "C-VMREAD-03"),
    ):
        return refused.leaving(s)
    read = c.returns("C-VMREAD-01", count).shows("C-VMREAD-02", mapping_bytes(s, m, op.offset, count))
    return read.leaving(*touch(s, number, op.offset, op.offset + count, write=False))
