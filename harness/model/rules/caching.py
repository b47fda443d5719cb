"""Rules for calls that ask for writing back, or advise the page cache: whatever they do, every byte stays what it is."""

from harness.model.clause import Context, Undetermined, clause
from harness.model.content import all_zero, unknown, zeroes
from harness.model.expectation import Expectations
from harness.model.objects import Memory, OpenFile, page_ceil, page_floor
from harness.model.rules.effects import cleaned, laid, used_pages, write_protected
from harness.model.rules.moving import end_of
from harness.model.rules.rule import kernel_fact, rule
from harness.model.stack import TARGET
from harness.model.state import State
from harness.model.value import evolve
from harness.ops import Fadvise, FileAdvice, RangeSyncFlag, Readahead, SyncFileRange, Syncfs

clause(
    "C-SYNC-05",
    "syncfs succeeds on a descriptor of anything, and writes back what is dirty of its file system; a node is on devtmpfs",
    "syncfs(2); fs/sync.c syncfs, sync_filesystem; fs/overlayfs/super.c ovl_sync_fs: the file system above",
)
clause("C-SYNC-06", "sync_file_range of a file or a node succeeds", "sync_file_range(2)")
clause(
    "C-SYNC-07",
    "sync_file_range of an offset before 0, or of a range that ends before it begins or behind the largest offset, is EINVAL",
    "sync_file_range(2) ERRORS; fs/sync.c sync_file_range",
)
clause("C-SYNC-08", "sync_file_range of a pipe or a dax device is ESPIPE", "sync_file_range(2) ERRORS; fs/sync.c sync_file_range")
clause(
    "C-ADVISE-01",
    "advice of any kind succeeds; it may bring pages into the page cache, or take from it those that nobody holds; DAX has none, and "
    "nothing changes",
    "posix_fadvise(2); mm/fadvise.c generic_fadvise: IS_DAX",
)
clause(
    "C-ADVISE-02",
    "advice for a pipe is ESPIPE, for a negative length EINVAL, and so is it for an offset before 0 where the kernel looks at that",
    "posix_fadvise(2) ERRORS; mm/fadvise.c generic_fadvise; fact advice_looks_at_offset",
)
clause("C-ADVISE-03", "readahead of a file or a node succeeds, and does what the advice willneed does", "readahead(2)")
clause("C-ADVISE-04", "readahead through a descriptor that cannot read is EBADF", "readahead(2) ERRORS")
clause(
    "C-ADVISE-05",
    "readahead of what is neither a file nor a node, or of a negative length, is EINVAL, and so is an offset before 0 as with advice",
    "readahead(2) ERRORS; mm/readahead.c ksys_readahead, mm/fadvise.c generic_fadvise",
)
_LARGEST = 2**63 - 1
_NO_BAR = "no clause covers syncing or advising a BAR"


@rule(Syncfs)
def syncfs(c: Context, s: State, op: Syncfs) -> Expectations:
    of = _what(c, s, op.file)
    done = c.returns("C-SYNC-05", 0)
    if not isinstance(of, OpenFile) or not s.memory(of.memory).is_file:
        return done.leaving(s)
    volume = TARGET if of.layered else s.memory(of.memory).volume
    for number, memory in s.objects.items():
        if isinstance(memory, Memory) and memory.is_file and memory.volume == volume and memory.closed_by is None:
            s = cleaned(s, number)
    return done.leaving(s)


@rule(SyncFileRange)
def sync_file_range(c: Context, s: State, op: SyncFileRange) -> Expectations:
    of = _what(c, s, op.file)
    no_range = op.offset < 0 or op.length < 0 or op.offset + op.length > _LARGEST
    other = not isinstance(of, OpenFile) or s.memory(of.memory).is_device
    if refused := c.refuses(("EINVAL", no_range, "C-SYNC-07")):
        return refused.leaving(s)
    if refused := c.refuses(("ESPIPE", other, "C-SYNC-08")):
        return refused.leaving(s)
    done = c.returns("C-SYNC-06", 0)
    if not isinstance(of, OpenFile) or of.layered or RangeSyncFlag.WRITE not in op.flags:
        return done.leaving(s)  # an overlay's file has no pages of its own, and nobody asks the file below
    end = op.offset + op.length if op.length else _LARGEST
    return done.leaving(_written_back(s, of.memory, op.offset, end, waited=len(set(op.flags)) == len(RangeSyncFlag)))


@rule(Fadvise)
def fadvise(c: Context, s: State, op: Fadvise) -> Expectations:
    of = _what(c, s, op.file)
    if refused := c.refuses(("ESPIPE", not isinstance(of, OpenFile), "C-ADVISE-02")):
        return refused.leaving(s)
    if refused := c.refuses(("EINVAL", _no_range(c, op.offset, op.length), "C-ADVISE-02")):
        return refused.leaving(s)
    done = c.returns("C-ADVISE-01", 0)
    if not isinstance(of, OpenFile) or s.memory(of.memory).dax:
        return done.leaving(s)
    if op.advice is FileAdvice.WILLNEED:
        return done.leaving(_brought_in(s, of.memory, op.offset, op.length))
    if op.advice is FileAdvice.DONTNEED:
        return done.leaving(_given_up(s, of.memory, op.offset, op.length))
    return done.leaving(s)


@rule(Readahead)
def readahead(c: Context, s: State, op: Readahead) -> Expectations:
    of = _what(c, s, op.file)
    if refused := c.refuses(("EBADF", isinstance(of, OpenFile) and not of.readable, "C-ADVISE-04")):
        return refused.leaving(s)
    other = not isinstance(of, OpenFile) or s.memory(of.memory).is_device
    if refused := c.refuses(("EINVAL", other or _no_range(c, op.offset, op.length), "C-ADVISE-05")):
        return refused.leaving(s)
    done = c.returns("C-ADVISE-03", 0)
    if not isinstance(of, OpenFile) or s.memory(of.memory).dax:
        return done.leaving(s)
    return done.leaving(_brought_in(s, of.memory, op.offset, op.length))


def _what(c: Context, s: State, name: str) -> object:
    """Return what a descriptor is of. Raises Undetermined for a BAR."""
    _, of = end_of(c, s, name)
    if isinstance(of, OpenFile) and s.memory(of.memory).is_bar:
        raise Undetermined(_NO_BAR)
    return of


def _no_range(c: Context, offset: int, length: int) -> bool:
    """Whether there can be no such range to advise about."""
    return length < 0 or (offset < 0 and bool(kernel_fact(c, "advice_looks_at_offset")))


def _brought_in(s: State, number: int, offset: int, length: int) -> State:
    """Return the state after pages were asked for: as far as there is a file, each may be there now."""
    memory = s.memory(number)
    end = page_ceil(memory.size if length == 0 else min(memory.size, offset + length))
    perhaps = memory.perhaps
    if offset >= 0:
        for low, high in memory.cached.gaps(page_floor(offset), end).spans:
            perhaps = perhaps.add(low, high)
    return s.with_object(number, evolve(memory, perhaps=perhaps))


def _given_up(s: State, number: int, offset: int, length: int) -> State:
    """Return the state after pages were given up: of the whole pages of the range, each may be gone that nobody holds.

    What is dirty of them is written first, and nobody waits for it. The page with the end of a file goes where the range ends there.
    """
    whole = length == 0 or offset + length > _LARGEST
    s = _written_back(s, number, offset, _LARGEST if whole else offset + length, waited=False)
    memory = s.memory(number)
    to_end = whole or (memory.is_file and offset + length == memory.size)
    high = page_ceil(memory.size) if to_end else page_floor(offset + length)
    gone = memory.cached.within(page_ceil(max(offset, 0)), high)
    for start, end in used_pages(s, number, memory).spans:
        gone = gone.remove(start, end)
    cached = memory.cached
    for start, end in gone.spans:
        cached = cached.remove(start, end)
    return s.with_object(number, evolve(memory, cached=cached, perhaps=memory.perhaps.union(gone)))


def _written_back(s: State, number: int, start: int, end: int, *, waited: bool) -> State:
    """Return the state after dirty pages of a range were written back, or as many of them as the kernel took up where nobody ``waited``.

    Source: mm/page-writeback.c clear_page_dirty_for_io; fs/dax.c dax_writeback_mapping_range, which does nothing unless somebody waits.
    """
    memory = s.memory(number)
    if memory.dax:
        return write_protected(s, number) if waited else s
    tail = page_ceil(memory.size) - memory.size
    if not memory.is_file or not tail or page_floor(start) >= page_ceil(memory.size) or end <= page_floor(memory.size):
        return s
    # What was stored behind the end is zeroed on its way to the medium.
    if waited:
        return s.with_object(number, laid(memory, memory.size, zeroes(tail)))
    known = all_zero(memory.content.read(memory.size, memory.size + tail))
    return s if known else s.with_object(number, laid(memory, memory.size, unknown(tail)))
