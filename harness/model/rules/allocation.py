"""The rule for fallocate: allocating, punching, zeroing, unsharing, and shifting what stands behind a range."""

from collections.abc import Iterable

from harness.model.clause import Context, Undetermined, clause
from harness.model.content import Ranges, unknown, zeroes
from harness.model.expectation import Expectation, Expectations
from harness.model.objects import PAGE, Memory, OpenFile, Pipe, Socket, page_ceil, page_floor
from harness.model.outcome import How
from harness.model.rules.effects import (
    folios_left,
    forget_pages,
    grown,
    laid,
    layouts_broken,
    parted_by_growth,
    removed,
    without_copies,
)
from harness.model.rules.rule import block_bytes, is_closed_node, kernel_fact, look_up, may_be_inline, rule, volume_fact, waits_for_pins
from harness.model.state import State
from harness.model.value import evolve
from harness.ops import AllocateFlag, Fallocate

clause("C-DEVDAX-08", "fallocate and MADV_REMOVE of a dax device are ENODEV", "fs/open.c vfs_fallocate: neither a file nor a block device")
clause("C-ALLOC-01", "fallocate allocates, punches, zeroes or unshares without changing any other byte", "fallocate(2)")
clause("C-ALLOC-02", "a length of 0 or less, or a negative offset, is EINVAL; a descriptor not open for writing EBADF", "fallocate(2)")
clause("C-ALLOC-03", "punching a hole needs FALLOC_FL_KEEP_SIZE: EOPNOTSUPP without", "fallocate(2) ERRORS")
clause("C-ALLOC-04", "punching and zeroing exclude each other: EOPNOTSUPP", "fs/open.c vfs_fallocate")
clause("C-ALLOC-05", "a range that ends behind what the file system can hold is EFBIG", "fallocate(2) ERRORS")
clause(
    "C-ALLOC-07",
    "on a file system without fallocate (ext2) fallocate and MADV_REMOVE are EOPNOTSUPP",
    "fallocate(2) ERRORS; fs/open.c vfs_fallocate",
)
clause(
    "C-ALLOC-06",
    "of a node only whole logical blocks can be zeroed or punched (EINVAL), punched only where the device can "
    "(EOPNOTSUPP), never allocated, unshared or shifted",
    "block/fops.c blkdev_fallocate",
)
clause(
    "C-ALLOC-08",
    "collapsing and inserting go with no other flag, unsharing only with FALLOC_FL_KEEP_SIZE: EINVAL or EOPNOTSUPP, as the kernel has it",
    "fallocate(2); fs/open.c vfs_fallocate; fact mixed_modes_end_in",
)
clause(
    "C-ALLOC-09",
    "where a file system cannot collapse and insert ranges, or not unshare them, they are EOPNOTSUPP",
    "fallocate(2) ERRORS; facts shifts_ranges, unshare_supported",
)
clause(
    "C-ALLOC-10",
    "collapsing takes a range out and moves what stands behind it there, inserting moves it behind zeroes; the size follows, and every "
    "mapping and later read shows it so",
    "fallocate(2); fs/ext4/extents.c ext4_collapse_range, ext4_insert_range; fs/xfs/xfs_bmap_util.c xfs_collapse_file_space, "
    "xfs_insert_file_space",
)
clause(
    "C-ALLOC-11",
    "collapsing and inserting need whole blocks of the file system, collapsing a range that ends before the end of the file, inserting one "
    "that begins before it: EINVAL",
    "fallocate(2) ERRORS",
)
clause("C-ALLOC-12", "inserting into a file that would then be larger than the file system can hold is EFBIG", "fallocate(2) ERRORS")

_SHIFTING = frozenset({AllocateFlag.COLLAPSE_RANGE, AllocateFlag.INSERT_RANGE})


@rule(Fallocate)
def fallocate(c: Context, s: State, op: Fallocate) -> Expectations:
    _, of = look_up(c, s, op.file, OpenFile)
    memory = s.memory(of.memory)
    punch, keep = AllocateFlag.PUNCH_HOLE in op.flags, AllocateFlag.KEEP_SIZE in op.flags
    zero, unshare = AllocateFlag.ZERO_RANGE in op.flags, AllocateFlag.UNSHARE_RANGE in op.flags
    mixed = _mixes_modes(frozenset(op.flags))
    if refused := c.refuses(
        ("EBADF", not of.writable, "C-ALLOC-02"),
        ("EINVAL", op.offset < 0 or op.length <= 0, "C-ALLOC-02"),
        ("EOPNOTSUPP", punch and not keep, "C-ALLOC-03"),
        ("EOPNOTSUPP", punch and zero, "C-ALLOC-04"),
        (str(kernel_fact(c, "mixed_modes_end_in")) if mixed else "", mixed, "C-ALLOC-08"),
    ):
        return refused.leaving(s)
    if refused := c.refuses(("ENODEV", memory.is_device, "C-DEVDAX-08")):
        return refused.leaving(s)
    if memory.is_node:
        if refused := c.refuses(("EOPNOTSUPP", unshare or not _SHIFTING.isdisjoint(op.flags), "C-ALLOC-06")):
            return refused.leaving(s)
        return _fallocate_node(c, s, of.memory, op, punch=punch, zero=zero, keep=keep)
    if not memory.is_file:
        raise Undetermined("no clause covers fallocate of a BAR")
    if refused := c.refuses(("EFBIG", op.offset + op.length > int(volume_fact(c, "max_file_bytes", memory)), "C-ALLOC-05")):
        return refused.leaving(s)
    if refused := c.refuses(("EOPNOTSUPP", not volume_fact(c, "fallocate_supported", memory), "C-ALLOC-07")):
        return refused.leaving(s)
    if not _SHIFTING.isdisjoint(op.flags):
        return _shift(c, s, of.memory, op)
    if unshare and (refused := _cannot(c, memory, "unshare_supported")):
        return refused.leaving(s)
    takes = punch or zero
    if not punch and op.length > c.env.reading.volume(memory.volume).size_bytes // 4:
        raise Undetermined("how much room a volume has left is not known to the model")
    breaks = takes or bool(volume_fact(c, "allocation_unmaps", memory))
    if breaks and (blocked := c.blocks("C-PIN-01", waits_for_pins(c, s, of.memory))):
        return blocked.leaving(s)
    expected = c.returns("C-ALLOC-01", 0)
    before = layouts_broken(s, of.memory) if breaks else s
    if unshare and memory.dax and memory.shared.touches(op.offset, op.offset + op.length):
        # What is mapped of shared blocks may be other blocks afterwards.
        before = forget_pages(before, of.memory, page_floor(op.offset), page_ceil(op.offset + op.length))
    after = _allocated(c, before, of.memory, op, punch=punch, zero=zero, keep=keep)
    after = parted_by_growth(c, before, after, of.memory)
    if not takes:
        return expected.leaving(after)
    return expected.leaving(*folios_left(c, before, after, of.memory, page_ceil(op.offset), page_floor(op.offset + op.length)))


def _mixes_modes(flags: frozenset[AllocateFlag]) -> bool:
    """Whether a flag that wants to be alone, or with FALLOC_FL_KEEP_SIZE at most, has others beside it."""
    alone = bool(_SHIFTING & flags) and len(flags) > 1
    return alone or (AllocateFlag.UNSHARE_RANGE in flags and bool(flags - {AllocateFlag.UNSHARE_RANGE, AllocateFlag.KEEP_SIZE}))


def _cannot(c: Context, memory: Memory, fact: str) -> Expectation | None:
    """Return how the file system of a file refuses what ``fact`` says that it cannot do, or None."""
    if c.env.reading.volume(memory.volume).filesystem is None:
        raise Undetermined("what the file system can do that the program mounted is not known to the model")
    return c.refuses(("EOPNOTSUPP", not volume_fact(c, fact, memory), "C-ALLOC-09"))


def _shift(c: Context, s: State, number: int, op: Fallocate) -> Expectations:
    """Collapsing or inserting a range."""
    memory = s.memory(number)
    if refused := _cannot(c, memory, "shifts_ranges"):
        return refused.leaving(s)
    if may_be_inline(c, memory):
        raise Undetermined("what becomes of a file that its inode may hold is not known to the model")
    collapse = AllocateFlag.COLLAPSE_RANGE in op.flags
    refused = c.refuses(*_shift_refusals(c, memory, op, collapse=collapse))
    if refused is None or volume_fact(c, "refused_shift_unmaps", memory):
        if blocked := c.blocks("C-PIN-01", waits_for_pins(c, s, number)):
            return blocked.leaving(s)
        s = layouts_broken(s, number)
    if refused is not None:
        if collapse and volume_fact(c, "refused_collapse_evicts", memory):
            evicted = _evicted(c, s, number, page_floor(op.offset), page_ceil(op.offset + op.length))
            return refused.leaving(*(after for after, _ in evicted))
        return refused.leaving(s)
    if memory.unwritten.touches(page_ceil(memory.size), int(volume_fact(c, "max_file_bytes", memory))):
        raise Undetermined("what becomes of blocks that are allocated behind the end of a file is not known to the model")
    done = c.returns("C-ALLOC-10", 0)
    if collapse:
        return done.by(lambda _: _shifted(c, s, number, op.offset, op.offset + op.length, -op.length))
    return done.by(lambda _: _shifted(c, s, number, op.offset, op.offset, op.length))


def _shift_refusals(c: Context, memory: Memory, op: Fallocate, *, collapse: bool) -> list[tuple[str, bool, str]]:
    odd = (op.offset | op.length) % block_bytes(c, memory) != 0
    outside = op.offset + op.length >= memory.size if collapse else op.offset >= memory.size
    too_large = not collapse and memory.size + op.length > int(volume_fact(c, "max_file_bytes", memory))
    return [("EINVAL", odd or outside, "C-ALLOC-11"), ("EFBIG", too_large, "C-ALLOC-12")]


def _shifted(c: Context, s: State, number: int, offset: int, start: int, by: int) -> list[State]:
    """Return the states after what stands from ``start`` on was moved ``by`` bytes, by a call on the range from ``offset`` on.

    Everything from there on is written back first, and leaves the page cache and the page tables.
    """
    memory = s.memory(number)
    if volume_fact(c, "shift_zeroes_tail", memory):
        memory = laid(memory, memory.size, zeroes(page_ceil(memory.size) - memory.size))
        s = s.with_object(number, memory)
    before = block_bytes(c, memory) if volume_fact(c, "shift_evicts_before", memory) else 0
    copies = page_floor(offset) if volume_fact(c, "shift_drops_copies", memory) else page_ceil(memory.size + by)
    cut = (page_floor(offset), page_ceil(start)) if before and by < 0 else None
    states = _all_evicted(c, s, number, page_floor(max(0, offset - before)), cut)
    return [without_copies(x.with_object(number, _moved(x.memory(number), start, by)), number, copies) for x in states]


def _all_evicted(c: Context, s: State, number: int, low: int, cut: tuple[int, int] | None) -> list[State]:
    """Return the states after all of a file from ``low`` on left the page cache, and ``cut`` of it before (fs/xfs/xfs_bmap_util.c
    xfs_collapse_file_space punches the range first)."""
    end = page_ceil(s.memory(number).size)
    if cut is None:
        return [after for after, _ in _evicted(c, s, number, low, end)]
    states: dict[State, None] = {}
    for once, over in _evicted(c, s, number, *cut):
        if over is not None:  # it is gone, and the page before with it
            states[_let_go(c, once, number, (low, end), ())] = None
        else:
            states.update((after, None) for after, first in _evicted(c, once, number, low, end) if first is None or first[1] <= cut[0])
    return list(states)


def _moved(memory: Memory, start: int, by: int) -> Memory:
    """Return a file in which what stands from ``start`` on stands ``by`` bytes further."""
    return evolve(
        memory,
        content=memory.content.moved(start, by),
        data=_whole_pages(memory.data.moved(start, by)),
        unwritten=_whole_pages(memory.unwritten.moved(start, by)),
        shared=_whole_pages(memory.shared.moved(start, by)),
        size=memory.size + by,
    )


def _whole_pages(ranges: Ranges) -> Ranges:
    """Return the pages that have a byte of ``ranges``: blocks that are smaller move by less than a page."""
    pages = Ranges()
    for low, high in ranges.spans:
        pages = pages.add(page_floor(low), page_ceil(high))
    return pages


Folio = tuple[int, int]


def _evicted(c: Context, s: State, number: int, low: int, high: int) -> list[tuple[State, Folio | None]]:
    """Return the states after the pages ``low`` to ``high`` of a file were written back and left the page cache, each with the folio
    that lay over the begin. The file is as it was."""
    ends = _folios_over(c, s, number, high) if high < page_ceil(s.memory(number).size) else [None]
    found: dict[State, Folio | None] = {}
    for first in _folios_over(c, s, number, low):
        for last in ends:
            apart = first is None or last is None or first[1] <= last[0]
            if first == last or (apart and (first is None or first[1] <= high)):
                over = [folio for folio in dict.fromkeys((first, last)) if folio is not None]
                found.setdefault(_let_go(c, s, number, (low, high), over), first)
    return list(found.items())


def _folios_over(c: Context, s: State, number: int, at: int) -> list[Folio | None]:
    """Return the folios that ``at`` may lie inside of, and of which somebody holds a page, or none: one lies where its own size divides."""
    memory = s.memory(number)
    if memory.dax or not volume_fact(c, "large_folios", memory):
        return [None]
    views = [v for thing in s.objects.values() if isinstance(thing, Pipe | Socket) for v in thing.views if v.memory == number]
    folios = [(at - at % size, at - at % size + size) for size in (PAGE << order for order in range(1, 10)) if at % size]
    return [None, *(f for f in folios if any(v.start < f[1] and f[0] < v.start + v.length for v in views))]


def _let_go(c: Context, s: State, number: int, span: tuple[int, int], folios: Iterable[Folio]) -> State:
    """Return the state after the clean pages of ``span`` left the page cache. Pipes keep them as they were.

    Of ``folios``, of which a part is in it, that part is zeroed in place, and then all of them goes, because who holds a page of one
    keeps it from being split (mm/truncate.c truncate_inode_partial_folio).
    """
    memory = s.memory(number)
    for low, high in folios:
        start, end = max(low, span[0]), min(high, span[1])
        s = s.with_object(number, laid(memory, start, zeroes(end - start))).detached(number, start, end)
        s = s.with_object(number, memory).detached(number, low, high)
    s = removed(c, s, number, *span)
    return s.with_object(number, evolve(s.memory(number), content=memory.content, data=memory.data, unwritten=memory.unwritten))


def _fallocate_node(c: Context, s: State, number: int, op: Fallocate, *, punch: bool, zero: bool, keep: bool) -> Expectations:
    memory = s.memory(number)
    step = c.env.reading.volume(memory.volume).logical_block_bytes
    end = op.offset + op.length
    behind = op.offset >= memory.size or (end > memory.size and not keep)
    end = min(end, memory.size)
    odd = bool((op.offset | (end - op.offset)) % step)
    if refused := c.refuses(("EINVAL", behind or odd, "C-ALLOC-06"), ("EOPNOTSUPP", not punch and not zero, "C-ALLOC-06")):
        return refused.leaving(s)
    low, high = page_floor(op.offset), page_ceil(end)
    s = forget_pages(s.detached(number, low, high), number, low, high)
    if refused := c.refuses(("EPERM", is_closed_node(c, memory), "C-NODE-03")):
        return refused.leaving(s)
    memory = s.memory(number)
    cached = memory.cached.remove(low, high)
    zeroed = evolve(laid(memory, op.offset, zeroes(end - op.offset)), cached=cached)
    done = c.returns("C-ALLOC-06", 0).leaving(s.with_object(number, zeroed))
    if not punch:
        return done
    # The page cache has lost its pages before the device says that it cannot: what was not written back is gone.
    lost = evolve(laid(memory, low, unknown(high - low)), cached=cached)
    cannot = Expectation(How.FAILED, "C-ALLOC-06", "returns 0 or EOPNOTSUPP", names=("EOPNOTSUPP",), asks=True).leaving(
        s.with_object(number, lost)
    )
    return (*done, *cannot)


def _allocated(c: Context, s: State, number: int, op: Fallocate, *, punch: bool, zero: bool, keep: bool) -> State:
    start, end = op.offset, op.offset + op.length
    memory = s.memory(number)
    if not keep and end > memory.size:
        memory = evolve(grown(c, memory, end), size=end)
        s = s.with_object(number, memory)
    if punch or zero:
        stop = min(end, page_ceil(memory.size))
        if block_bytes(c, memory) < PAGE:
            # A page that goes in part is unmapped or not (fs/xfs/xfs_bmap_util.c xfs_flush_unmap_range, fs/ext4/inode.c ext4_punch_hole).
            s = forget_pages(s, number, page_floor(start), page_ceil(end))
        low, high = page_ceil(start), page_floor(end)
        memory = laid(memory, start, zeroes(max(0, stop - start))) if low >= high else memory
        if low < high:
            s = removed(c, s, number, low, high)
            memory = laid(laid(s.memory(number), start, zeroes(low - start)), high, zeroes(max(0, min(end, stop) - high)))
    if not punch:
        holes = memory.data.gaps(page_floor(start), page_ceil(end))
        memory = evolve(memory, unwritten=memory.unwritten.union(holes))
    return s.with_object(number, memory)
