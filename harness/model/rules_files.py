"""Rules for files: opening, reading and writing in every form, size, allocation, attributes."""

from collections.abc import Sequence
from dataclasses import replace
from types import MappingProxyType

from harness.model.clause import Context, Undetermined, clause
from harness.model.closing import closing
from harness.model.content import Pieces, all_zero, cut, tagged, unknown, zeroes
from harness.model.outcome import How
from harness.model.rule import (
    cache,
    cleaned,
    file_memory,
    first_data,
    folios_left,
    forget_pages,
    grown,
    layouts_broken,
    look_up,
    mapping_bytes,
    overlaps,
    parted_by_growth,
    put,
    received,
    refused_direct,
    removed,
    resized,
    rule,
    sent,
    usable_end,
    volume_fact,
    waits_for_pins,
)
from harness.model.state import PAGE, Mapping, Memory, OpenFile, State, page_ceil, page_floor, unknown_content
from harness.ops import (
    AllocateFlag,
    Buffer,
    Close,
    Fallocate,
    Fdatasync,
    Fsync,
    Ftruncate,
    GetXflags,
    Lseek,
    Open,
    OpenFlag,
    Pread,
    Preadv,
    Pwrite,
    Pwritev,
    Read,
    RwFlag,
    SetXflags,
    Statx,
    Whence,
    Write,
)
from harness.sizes import MIB

# ---- opening and closing ---------------------------------------------------------------------------------------------

clause("C-OPEN-01", "open of an existing file, or with O_CREAT, gives a descriptor", "open(2)")
clause("C-OPEN-02", "open of a missing file without O_CREAT is ENOENT", "open(2) ERRORS")
clause("C-OPEN-03", "O_TRUNC waits, as ftruncate does, until no page of a DAX file is pinned", "fs/ext4/inode.c ext4_break_layouts; probe")

#: The largest offset that a number of 64 bits can say.
MOST_OFFSET = 2**63 - 1
#: What a copy into DAX moves at a time, at its end.
_WORD = 4
#: How much of a bare node the set-up zeroes; what stands behind it is unknown.
NODE_KNOWN_BYTES = 16 * MIB


def _split_path(path: str) -> tuple[str, str]:
    role, colon, name = path.partition(":")
    return (role, name) if colon else ("main", path)


@rule(Open)
def open_file(c: Context, s: State, op: Open) -> list[State]:
    volume, path = _split_path(op.path)
    if volume == "bar":
        return _opened(c, s, op, *_ensure(s, ("bar", ""), Memory("bar", "bar", "", 1 << 30, unknown_content())))
    reading = c.env.reading.volume(volume)
    mounted = volume in s.mounted or reading.filesystem is not None
    if not mounted:
        content = unknown_content().write(0, zeroes(NODE_KNOWN_BYTES))
        node = Memory("node", volume, reading.device, reading.size_bytes, content)
        node = replace(node, data=node.data.add(0, reading.size_bytes))
        return _opened(c, s, op, *_ensure(s, (volume, ""), node))
    known = s.files.get((volume, path))
    if known is None:
        if c.refuses(("ENOENT", OpenFlag.CREAT not in op.flags, "C-OPEN-02")):
            return [s] if c.settled else []
        dax = s.mounted.get(volume, reading.dax)
        s, number = _ensure(s, (volume, path), Memory("file", volume, path, dax=dax))
        return _opened(c, s, op, s, number)
    if OpenFlag.TRUNC in op.flags:
        if c.blocks("C-OPEN-03", waits_for_pins(c, s, known)):
            return [s] if c.settled else []
        s = resized(c, s, known, 0)
    return _opened(c, s, op, s, known)


def _ensure(s: State, key: tuple[str, str], memory: Memory) -> tuple[State, int]:
    if key in s.files:
        return s, s.files[key]
    s, number = s.adding(memory)
    return replace(s, files=MappingProxyType({**s.files, key: number})), number


def _opened(c: Context, before: State, op: Open, s: State, memory: int) -> list[State]:
    if not c.returns("C-OPEN-01", 0):
        return []
    of = OpenFile(
        memory,
        readable=OpenFlag.WRONLY not in op.flags,
        writable=bool({OpenFlag.WRONLY, OpenFlag.RDWR} & set(op.flags)),
        append=OpenFlag.APPEND in op.flags,
        direct=OpenFlag.DIRECT in op.flags,
        nonblock=OpenFlag.NONBLOCK in op.flags,
    )
    s, number = s.adding(of)
    return [s.naming(c.process, op.name, number)]


@rule(Close)
def close(c: Context, s: State, op: Close) -> list[State]:
    return closing(c, s, op.name, op.end)


# ---- reading ---------------------------------------------------------------------------------------------------------

clause("C-RW-01", "reading needs a descriptor open for reading: EBADF", "read(2) ERRORS")
clause(
    "C-RW-02", "a read returns all bytes up to the end of the file, and 0 at or behind it", "read(2); mm/filemap.c, fs/dax.c dax_iomap_rw"
)
clause(
    "C-RW-03", "a read shows what was last written there, by whatever way it was written", "POSIX read(); fs/dax.c: one copy of the data"
)
clause(
    "C-RW-04",
    "a negative offset, or one from which the length reaches past 2^63, is EINVAL",
    "pread(2) ERRORS; fs/read_write.c rw_verify_area",
)
clause("C-RW-05", "writing needs a descriptor open for writing: EBADF", "write(2) ERRORS")
clause("C-RW-06", "a write to a regular file or a node with room writes all bytes", "write(2)")
clause("C-RW-07", "a buffer that the process may not read or write is EFAULT", "read(2), write(2) ERRORS")
clause(
    "C-RW-08",
    "on Linux a file opened with O_APPEND is appended to, whatever offset pwrite names; a node is not",
    "pwrite(2) BUGS; block/fops.c blkdev_write_iter does without generic_write_checks",
)
clause(
    "C-DIO-01",
    "without DAX the offset and the length of an O_DIRECT transfer must be multiples of the logical block size: EINVAL",
    "open(2) NOTES; fs/iomap/direct-io.c iomap_dio_bio_iter; block/fops.c blkdev_direct_IO",
)
clause(
    "C-DIO-02",
    "without DAX the address of an O_DIRECT buffer must be aligned as the queue's DMA alignment says: EINVAL",
    "open(2) NOTES; fs/iomap/direct-io.c bdev_iter_is_aligned",
)
clause(
    "C-DIO-03",
    "an O_DIRECT transfer without DAX needs struct pages behind its buffer: EFAULT for memory that has none",
    "mm/gup.c check_vma_flags: VM_IO and VM_PFNMAP are EFAULT",
)
clause(
    "C-DIO-04", "an O_DIRECT read at or behind the end of the file returns 0, however it is aligned", "fs/iomap/direct-io.c __iomap_dio_rw"
)
clause(
    "C-DIO-05",
    "an O_DIRECT read asks for alignment and struct pages only from the first byte on that has data: the zeroes of a hole or of "
    "blocks that are only allocated are written by the CPU",
    "fs/iomap/direct-io.c iomap_dio_iter: iomap_dio_hole_iter for IOMAP_HOLE and IOMAP_UNWRITTEN, before any check of iomap_dio_bio_iter",
)
clause(
    "C-DIO-06",
    "an O_DIRECT transfer of a file without DAX is EFAULT as a whole where the process may not use some page of its buffer, to a read also "
    "one that no byte of the file would reach",
    "fs/iomap/direct-io.c __iomap_dio_rw: an error of one extent is that of the call, and the hole behind the end is an extent too",
)
clause(
    "C-DIO-07",
    "on a node, what O_DIRECT cannot move goes through the page cache, from the first page without a struct page on, if any came before it",
    "block/fops.c __blkdev_direct_IO_simple moves what could be pinned; blkdev_write_iter and blkdev_read_iter go on buffered",
)
clause(
    "C-DIO-08",
    "where the file system looks at the offset before it appends, an O_DIRECT write that appends is EINVAL for an unaligned offset too",
    "fs/xfs/xfs_file.c xfs_file_dio_write looks at ki_pos before xfs_file_write_checks moves it to the end",
)
clause("C-NODE-01", "a write that starts before the end of a node and goes beyond it writes what fits", "block/fops.c blkdev_write_iter")
clause("C-NODE-02", "a write at or behind the end of a node is ENOSPC", "block/fops.c blkdev_write_iter")
clause(
    "C-RW-12",
    "on DAX a read that begins in a hole and whose buffer the process may not write returns 0, as if the file ended there",
    "fs/dax.c dax_iomap_iter returns iov_iter_zero, which moved nothing, and dax_iomap_rw takes that for the end (6.1, "
    "6.12); read(2) has EFAULT",
)
clause(
    "C-RW-13",
    "a write into DAX moves whole words: it may end up to three bytes before the page of the buffer that cannot be read, or be EFAULT "
    "where no more than those come before it",
    "arch/x86/lib/copy_user_uncached_64.S copy_to_nontemporal: fact dax_write_tail",
)
clause(
    "C-RW-09",
    "a transfer ends early at the first page of the buffer that the process may not use",
    "fs/dax.c dax_iomap_iter, mm/filemap.c generic_perform_write and filemap_read, block/fops.c __blkdev_direct_IO_simple",
)


clause(
    "C-RWF-01",
    "a transfer with a flag that the kernel or the file does not support is EOPNOTSUPP",
    "preadv2(2) ERRORS; fs.h kiocb_set_rw_flags",
)
clause(
    "C-RWF-02",
    "with RWF_NOWAIT a transfer moves what it can without waiting, at least a byte, or is EAGAIN; EOPNOTSUPP where the file cannot say",
    "preadv2(2); include/linux/fs.h kiocb_set_rw_flags, FMODE_NOWAIT",
)
clause(
    "C-RWF-04",
    "a write with RWF_NOWAIT through a descriptor without O_DIRECT is EINVAL where the file system cannot write so",
    "fs/read_write.c generic_write_checks: FOP_BUFFER_WASYNC (6.12), FMODE_BUF_WASYNC (since 6.0)",
)
clause("C-RWF-03", "a write with RWF_APPEND goes to the end of the file, whatever offset it names", "pwritev2(2)")


@rule(Pread)
def pread(c: Context, s: State, op: Pread) -> list[State]:
    return _read(c, s, op.file, _offset(op.offset, op.flags), [Buffer(op.length, op.shift, op.into, op.into_offset)], op.flags)


@rule(Preadv)
def preadv(c: Context, s: State, op: Preadv) -> list[State]:
    return _read(c, s, op.file, _offset(op.offset, op.flags), op.buffers, op.flags)


def _offset(offset: int, flags: Sequence[RwFlag]) -> int | None:
    """Return where a transfer begins; to preadv2 and pwritev2, which are called for flags only, -1 is the file's own position."""
    return None if flags and offset == -1 else offset


def read_file(c: Context, s: State, op: Read) -> list[State]:
    """read(2) of a file; pipes have their own rule."""
    return _read(c, s, op.file, None, [Buffer(op.length, op.shift, op.into, op.into_offset)])


def _unsupported(c: Context, memory: Memory, flags: Sequence[RwFlag]) -> tuple[str, bool, str]:
    lacking = RwFlag.DONTCACHE in flags and not (memory.on_volume and volume_fact(c, "dontcache_supported", memory))
    return ("EOPNOTSUPP", lacking, "C-RWF-01")


def _declines(c: Context, flags: Sequence[RwFlag], count: int) -> bool:
    """Whether the call said that it would have to wait, which RWF_NOWAIT allows."""
    if RwFlag.NOWAIT not in flags or c.seen.how is not How.FAILED or c.seen.errno not in ("EAGAIN", "EOPNOTSUPP"):
        return False
    return c.agrees("C-RWF-02", True, f"returns 1..{count}, EAGAIN or EOPNOTSUPP", c.seen.describe())


def _moved(c: Context, flags: Sequence[RwFlag], count: int, clause_id: str, least: int | None = None) -> int | None:
    """Return how many bytes a transfer moved that may move ``count``, and has to move that or ``least``; None where it did not do that."""
    if RwFlag.NOWAIT in flags and count:
        clause_id, least = "C-RWF-02", 1
    if least is None:
        return count if c.returns(clause_id, count) else None
    return c.seen.value if c.counts(clause_id, lambda n: least <= n <= count, f"{least}..{count}") else None


def _read(c: Context, s: State, file: str, offset: int | None, buffers: Sequence[Buffer], flags: Sequence[RwFlag] = ()) -> list[State]:
    number, of = look_up(c, s, file, OpenFile)
    memory = file_memory(s, of)
    at = of.position if offset is None else offset
    total = sum(b.length for b in buffers)
    if c.refuses(
        ("EBADF", not of.readable, "C-RW-01"),
        ("EINVAL", at < 0 or at + total > MOST_OFFSET or any(b.length < 0 for b in buffers), "C-RW-04"),
        _unsupported(c, memory, flags if total else ()),
    ):
        return [s] if c.settled else []
    if memory.kind == "bar":
        raise Undetermined("no clause covers read(2) of a BAR")
    if _declines(c, flags, total):
        return [s]
    behind = of.direct and not memory.dax and memory.is_file and at >= memory.size
    if behind and c.holds("C-DIO-04", True):
        return [s] if c.returns("C-DIO-04", 0) else []
    count = min(total, max(0, memory.size - at))
    asked = _first(buffers, count) if memory.kind == "node" else tuple(buffers)
    start = first_data(memory, at, at + total) if memory.is_file and not memory.dax and not behind else at
    skip = start - at if of.direct and c.holds("C-DIO-05", start > at) else 0
    if (count or behind) and skip < total and c.refuses(*_direct_refusals(c, s, memory, of, at + skip, _after(asked, skip))):
        return [s] if c.settled else []
    # An O_DIRECT read goes on into the hole behind the end, and asks for all of its buffer.
    needed = total if count and of.direct and memory.is_file and not memory.dax else count
    usable = _usable(c, s, _first(buffers, needed), into=True)
    if count and not usable and _hole_hides_fault(c, memory, at):
        return [s] if c.returns("C-RW-12", 0) else []
    if c.refuses(*_fault_refusals(memory, of, usable, needed)):
        return _scatter(c, s, _first(buffers, usable), unknown(usable)) if c.settled else []
    usable = min(usable, count)
    count = usable if c.holds("C-RW-09", usable < count) else count
    moved = _moved(c, flags, count, "C-RW-02")
    if moved is None:
        return []
    count = moved
    pieces = memory.content.read(at, at + count)
    if count and all(b.mapping is None for b in buffers) and not c.shows("C-RW-03", pieces):
        return []
    if not of.direct:
        s = cache(s, of.memory, page_floor(at), page_ceil(at + count))
        end, stop = at + count, min(at + 2 * count, memory.size)
        if not memory.dax and end < stop:
            s = replace(s, read_ahead=s.read_ahead + (stop - end) - memory.cached.within(end, stop).total())
    if offset is None:
        s = s.with_object(number, replace(of, position=at + count))
    return _scatter(c, s, buffers, unknown(count) if _into_itself(c, s, of.memory, at, _first(buffers, count)) else pieces)


def _hole_hides_fault(c: Context, memory: Memory, at: int) -> bool:
    """Whether a read that begins in a hole, or in blocks that are only allocated, says nothing of a buffer that cannot be used."""
    if not memory.is_file or memory.data.touches(at, at + 1) or volume_fact(c, "hole_into_bad_buffer", memory) == "EFAULT":
        return False
    return c.holds("C-RW-12", True)


def _into_itself(c: Context, s: State, memory: int, at: int, buffers: Sequence[Buffer]) -> bool:
    """Whether a file is read into an overlapping part of itself: what that becomes is not specified."""
    total = sum(b.length for b in buffers)
    for b in buffers:
        if b.mapping is not None:
            _, m = look_up(c, s, b.mapping, Mapping)
            if m.shared and (overlaps(s, m, b.offset, b.length, memory, at) or (len(buffers) > 1 and _meets(m, b, memory, at, total))):
                return True
    return False


def _meets(m: Mapping, b: Buffer, memory: int, at: int, total: int) -> bool:
    start = m.offset + b.offset
    return m.memory == memory and start < at + total and at < start + b.length


def _first(buffers: Sequence[Buffer], count: int) -> tuple[Buffer, ...]:
    """Return the first ``count`` bytes of ``buffers``."""
    out: list[Buffer] = []
    for b in buffers:
        if count > 0:
            out.append(replace(b, length=min(b.length, count)))
        count -= b.length
    return tuple(out)


def _after(buffers: Sequence[Buffer], count: int) -> tuple[Buffer, ...]:
    """Return ``buffers`` without their first ``count`` bytes."""
    out: list[Buffer] = []
    for b in buffers:
        gone = min(b.length, max(0, count))
        if gone < b.length:
            out.append(replace(b, length=b.length - gone, shift=b.shift + gone, offset=b.offset + gone))
        count -= b.length
    return tuple(out)


def _direct_refusals(c: Context, s: State, memory: Memory, of: OpenFile, at: int, buffers: Sequence[Buffer]) -> list[tuple[str, bool, str]]:
    """Return what an O_DIRECT transfer that starts at ``at`` is refused for; alignment comes before the pages of the buffer."""
    if not of.direct:
        return []
    offset_step = int(volume_fact(c, "dio_offset_alignment", memory))
    memory_step = int(volume_fact(c, "dio_memory_alignment", memory))
    rows = [
        ("EINVAL", any(x % offset_step for x in [at, *(b.length for b in buffers)]), "C-DIO-01"),
        ("EINVAL", any((b.offset if b.mapping else b.shift) % memory_step for b in buffers), "C-DIO-02"),
    ]
    if not memory.dax and not any(condition for _, condition, _ in rows):
        lacking = [b.mapping is not None and not s.memory(look_up(c, s, b.mapping, Mapping)[1].memory).has_struct_pages for b in buffers]
        goes_on = any(lacking) and not lacking[0] and memory.kind == "node" and c.holds("C-DIO-07", True)
        rows.append(("EFAULT", any(lacking) and not goes_on, "C-DIO-03"))
    return rows


def _odd_before_append(c: Context, memory: Memory, of: OpenFile, asked: int) -> tuple[str, bool, str]:
    """Return whether an O_DIRECT write is refused for the offset that was asked for, though it would be appended elsewhere."""
    looks = of.direct and not memory.dax and memory.is_file and bool(volume_fact(c, "direct_append_looks_at_offset", memory))
    return ("EINVAL", looks and asked % int(volume_fact(c, "dio_offset_alignment", memory)) != 0, "C-DIO-08")


def _usable(c: Context, s: State, buffers: Sequence[Buffer], *, into: bool) -> int:
    """Return how many bytes there are before the first that the process may not read, or write (``into``)."""
    usable = 0
    for b in buffers:
        reach = b.length
        if b.mapping is not None:
            _, m = look_up(c, s, b.mapping, Mapping)
            end = usable_end(s, m) if b.offset >= 0 else 0
            reach = max(0, min(b.length, end - b.offset)) if (m.writable if into else m.readable or m.writable) else 0
        usable += reach
        if reach < b.length:
            break
    return usable


def _fault_refusals(memory: Memory, of: OpenFile, usable: int, count: int) -> list[tuple[str, bool, str]]:
    whole = of.direct and not memory.dax and memory.is_file
    return [("EFAULT", count > 0 and not usable, "C-RW-07"), ("EFAULT", whole and 0 < usable < count, "C-DIO-06")]


def _scatter(c: Context, s: State, buffers: Sequence[Buffer], pieces: Pieces) -> list[State]:
    """Return the states after ``pieces`` went into ``buffers``; a mapping's pages are faulted in for it."""
    states = [s]
    at = 0
    for b in buffers:
        part = cut(pieces, at, at + b.length)
        at += b.length
        if b.mapping is not None and part:
            number, _ = look_up(c, s, b.mapping, Mapping)
            states = [after for before in states for after in received(c, before, number, b.offset, part)]
    return states


# ---- writing ---------------------------------------------------------------------------------------------------------


@rule(Pwrite)
def pwrite(c: Context, s: State, op: Pwrite) -> list[State]:
    return _write(c, s, op.file, _offset(op.offset, op.flags), [Buffer(op.length, op.shift, op.from_, op.from_offset)], op.flags)


@rule(Pwritev)
def pwritev(c: Context, s: State, op: Pwritev) -> list[State]:
    return _write(c, s, op.file, _offset(op.offset, op.flags), op.buffers, op.flags)


def write_file(c: Context, s: State, op: Write) -> list[State]:
    """write(2) to a file; pipes have their own rule."""
    return _write(c, s, op.file, None, [Buffer(op.length, op.shift, op.from_, op.from_offset)])


def _write(c: Context, s: State, file: str, offset: int | None, buffers: Sequence[Buffer], flags: Sequence[RwFlag] = ()) -> list[State]:
    number, of = look_up(c, s, file, OpenFile)
    memory = file_memory(s, of)
    at = of.position if offset is None else offset
    total = sum(b.length for b in buffers)
    if c.refuses(
        ("EBADF", not of.writable, "C-RW-05"),
        ("EINVAL", at < 0 or at + total > MOST_OFFSET or any(b.length < 0 for b in buffers), "C-RW-04"),
        _unsupported(c, memory, flags if total else ()),
    ):
        return [s] if c.settled else []
    if memory.kind == "bar":
        raise Undetermined("no clause covers write(2) to a BAR")
    if _declines(c, flags, total):
        return [s]
    if not total:
        return [s] if c.returns("C-RW-10", 0) else []
    buffered = RwFlag.NOWAIT in flags and not of.direct and not volume_fact(c, "buffered_nowait_write", memory)
    if c.refuses(("EINVAL", buffered, "C-RWF-04")):
        return [s] if c.settled else []
    asked = at
    if memory.is_file and of.append and c.holds("C-RW-08", True):
        at = memory.size
    if memory.is_file and RwFlag.APPEND in flags and c.holds("C-RWF-03", True):
        at = memory.size
    if memory.kind == "node":
        if c.refuses(("ENOSPC", at >= memory.size, "C-NODE-02")):
            return [s] if c.settled else []
        if at + total > memory.size and c.holds("C-NODE-01", True):
            total = memory.size - at
            buffers = _first(buffers, total)
    elif memory.is_file:
        most = int(volume_fact(c, "max_file_bytes", memory))
        if c.refuses(("EFBIG", at >= most, "C-RW-11")):
            return [s] if c.settled else []
        total = min(total, most - at)
        buffers = _first(buffers, total)
    if c.refuses(_odd_before_append(c, memory, of, asked), *_direct_refusals(c, s, memory, of, at, buffers)):
        return refused_direct(c, s, of, at, total) if c.settled else []
    usable = _usable(c, s, _first(buffers, total), into=False)
    if c.refuses(*_fault_refusals(memory, of, usable, total)):
        spoilt = unknown(max(0, min(usable, memory.size - at)))
        after = _faulted_in(c, s, _first(buffers, usable))
        return [put(c, x, of.memory, at, spoilt, bypass=True) if spoilt else x for x in after] if c.settled else []
    if usable < total and memory.is_file and not memory.dax and any(_grows_under(c, s, of, at + usable, b) for b in buffers):
        raise Undetermined("how much is written of a buffer that is the same file, which grows meanwhile, is not specified")
    early = c.holds("C-RW-09", usable < total)
    total = usable if early else total
    words = early and memory.dax and volume_fact(c, "dax_write_tail", memory) == "word"
    if words and total < _WORD and c.seen.how is How.FAILED and c.refuses(("EFAULT", True, "C-RW-13")):
        return _faulted_in(c, s, _first(buffers, total)) if c.settled else []
    least = max(1, total - _WORD + 1) if words else None
    moved = _moved(c, flags, total, "C-RW-13" if words else "C-RW-06", least)
    if moved is None:
        return []
    total = moved
    pieces = _gather(c, s, of, at, _first(buffers, total))
    if offset is None:
        s = s.with_object(number, replace(of, position=at + total))
    return [put(c, after, of.memory, at, pieces, bypass=of.direct) for after in _faulted_in(c, s, _first(buffers, total))]


def _grows_under(c: Context, s: State, of: OpenFile, end: int, b: Buffer) -> bool:
    """Whether ``b`` goes on behind the end of the very file that is written, of which a write up to ``end`` lets more be reached."""
    if b.mapping is None:
        return False
    _, m = look_up(c, s, b.mapping, Mapping)
    behind = b.offset + b.length > usable_end(s, m)
    return m.memory == of.memory and behind and end > page_ceil(s.memory(of.memory).size)


def _faulted_in(c: Context, s: State, buffers: Sequence[Buffer]) -> list[State]:
    """Return the states after the pages of mappings among ``buffers`` were read by the kernel."""
    states = [s]
    for b in buffers:
        if b.mapping is not None and b.length:
            number, _ = look_up(c, s, b.mapping, Mapping)
            states = [after for before in states for after in sent(before, number, b.offset, b.length)]
    return states


def _gather(c: Context, s: State, of: OpenFile, at: int, buffers: Sequence[Buffer]) -> Pieces:
    """Return what is written; of a file onto an overlapping part of itself nobody knows."""
    out: list[Pieces] = []
    source = 0
    total = sum(b.length for b in buffers)
    for b in buffers:
        if b.mapping is None:
            out.append(tagged(c.writer, b.length, source))
        else:
            _, m = look_up(c, s, b.mapping, Mapping)
            itself = overlaps(s, m, b.offset, b.length, of.memory, at) or (len(buffers) > 1 and _meets(m, b, of.memory, at, total))
            own = m.private_pages.covers(page_floor(b.offset), page_ceil(b.offset + b.length))
            out.append(unknown(b.length) if itself and not own else mapping_bytes(s, m, b.offset, b.length))
        source += b.length
    return tuple(piece for pieces in out for piece in pieces)


# ---- position, durability, size, allocation --------------------------------------------------------------------------

clause("C-SEEK-01", "lseek sets the position and returns it", "lseek(2)")
clause("C-SEEK-02", "SEEK_DATA and SEEK_HOLE at or behind the end are ENXIO", "lseek(2) ERRORS")
clause("C-SYNC-01", "fsync and fdatasync of a file or a node succeed", "fsync(2)")
clause("C-SIZE-01", "ftruncate sets the size; what is gained reads as zeroes, what is cut off is lost", "ftruncate(2)")
clause("C-SIZE-02", "ftruncate needs a regular file open for writing, and a length of 0 or more: EINVAL", "ftruncate(2) ERRORS")
clause("C-ALLOC-01", "fallocate allocates, punches or zeroes without changing any other byte", "fallocate(2)")
clause("C-ALLOC-02", "a length of 0 or less, or a negative offset, is EINVAL; a descriptor not open for writing EBADF", "fallocate(2)")
clause("C-ALLOC-03", "punching a hole needs FALLOC_FL_KEEP_SIZE: EOPNOTSUPP without", "fallocate(2) ERRORS")
clause(
    "C-PIN-01",
    "truncate and punch of a DAX file wait until no page of the file is pinned by anyone",
    "fs/ext4/inode.c ext4_break_layouts; fs/xfs/xfs_file.c xfs_break_dax_layouts; fs/dax.c dax_layout_busy_page",
)


clause(
    "C-RW-10", "a write of nothing returns 0 and changes nothing, neither size nor position", "write(2); mm/filemap.c generic_write_checks"
)
clause(
    "C-RW-11",
    "a write at or behind the largest offset of its file system is EFBIG",
    "write(2) ERRORS; fs/read_write.c generic_write_check_limits",
)
clause(
    "C-SEEK-03",
    "lseek to before the first byte, or behind the end of a node or of what a file may hold, is EINVAL",
    "lseek(2) ERRORS; fs/read_write.c vfs_setpos",
)
clause(
    "C-SEEK-04",
    "SEEK_DATA goes to where data may be, past zeroes only, or is ENXIO where only zeroes follow; SEEK_HOLE to where "
    "zeroes are, or to the end",
    "lseek(2); how finely data and holes are told apart is the file system's affair",
)
clause("C-SEEK-05", "SEEK_DATA and SEEK_HOLE of a node are EINVAL", "block/fops.c blkdev_llseek, fs/read_write.c fixed_size_llseek")
clause("C-SIZE-03", "ftruncate to more than the file system can hold is EFBIG", "ftruncate(2) ERRORS; fs/attr.c inode_newsize_ok")
clause("C-ALLOC-04", "punching and zeroing exclude each other: EOPNOTSUPP", "fs/open.c vfs_fallocate")
clause("C-ALLOC-05", "a range that ends behind what the file system can hold is EFBIG", "fallocate(2) ERRORS")
clause(
    "C-ALLOC-06",
    "of a node only whole logical blocks can be zeroed or punched (EINVAL), punched only where the device can "
    "(EOPNOTSUPP), never allocated",
    "block/fops.c blkdev_fallocate",
)


@rule(Lseek)
def lseek(c: Context, s: State, op: Lseek) -> list[State]:
    number, of = look_up(c, s, op.file, OpenFile)
    memory = file_memory(s, of)
    if memory.kind == "bar":
        raise Undetermined("no clause covers lseek of a BAR")
    if op.whence in (Whence.DATA, Whence.HOLE):
        return _seek_extent(c, s, op, number, of, memory)
    base = {Whence.SET: 0, Whence.CUR: of.position, Whence.END: memory.size}[op.whence]
    most = memory.size if memory.kind == "node" else int(volume_fact(c, "max_file_bytes", memory))
    asks = op.whence is Whence.CUR and op.offset == 0
    if c.refuses(("EINVAL", not asks and not 0 <= base + op.offset <= most, "C-SEEK-03")):
        return [s] if c.settled else []
    if not c.returns("C-SEEK-01", base + op.offset):
        return []
    return [s.with_object(number, replace(of, position=base + op.offset))]


def _seek_extent(c: Context, s: State, op: Lseek, number: int, of: OpenFile, memory: Memory) -> list[State]:
    if c.refuses(("EINVAL", memory.kind == "node", "C-SEEK-05")):
        return [s] if c.settled else []
    if c.refuses(("ENXIO", op.offset < 0 or op.offset >= memory.size, "C-SEEK-02")):
        return [s] if c.settled else []
    if c.seen.how is How.FAILED:
        rest = all_zero(memory.content.read(op.offset, memory.size))
        right = op.whence is Whence.DATA and c.seen.errno == "ENXIO" and 0 <= op.offset < memory.size and rest
        return [s] if c.agrees("C-SEEK-04", right, "a position, or ENXIO where only zeroes follow", c.seen.describe()) else []
    if not c.counts("C-SEEK-04", lambda at: _may_seek_to(memory, op, at), f"{op.offset}..{memory.size}, past zeroes only"):
        return []
    return [s.with_object(number, replace(of, position=c.seen.value))]


def _may_seek_to(memory: Memory, op: Lseek, at: int) -> bool:
    if op.whence is Whence.DATA:
        return op.offset <= at < memory.size and all_zero(memory.content.read(op.offset, at))
    begins = at == op.offset or at % PAGE == 0
    end = min(memory.size, page_ceil(at + 1))
    return at == memory.size or (begins and op.offset <= at < memory.size and all_zero(memory.content.read(at, end)))


@rule(Fsync)
def fsync(c: Context, s: State, op: Fsync) -> list[State]:
    return _synced(c, s, op.file)


@rule(Fdatasync)
def fdatasync(c: Context, s: State, op: Fdatasync) -> list[State]:
    return _synced(c, s, op.file)


def _synced(c: Context, s: State, file: str) -> list[State]:
    _, of = look_up(c, s, file, OpenFile)
    if file_memory(s, of).kind == "bar":
        raise Undetermined("no clause covers syncing a BAR")
    return [cleaned(s, of.memory)] if c.returns("C-SYNC-01", 0) else []


@rule(Ftruncate)
def ftruncate(c: Context, s: State, op: Ftruncate) -> list[State]:
    _, of = look_up(c, s, op.file, OpenFile)
    memory = file_memory(s, of)
    if c.refuses(("EINVAL", not memory.is_file or not of.writable or op.length < 0, "C-SIZE-02")):
        return [s] if c.settled else []
    if c.refuses(("EFBIG", op.length > int(volume_fact(c, "max_file_bytes", memory)), "C-SIZE-03")):
        return [s] if c.settled else []
    if c.blocks("C-PIN-01", waits_for_pins(c, s, of.memory)):
        return [s] if c.settled else []
    if not c.returns("C-SIZE-01", 0):
        return []
    after = parted_by_growth(c, s, resized(c, s, of.memory, op.length), of.memory)
    return folios_left(c, s, after, of.memory, page_ceil(op.length), page_ceil(memory.size))


@rule(Fallocate)
def fallocate(c: Context, s: State, op: Fallocate) -> list[State]:
    _, of = look_up(c, s, op.file, OpenFile)
    memory = file_memory(s, of)
    punch, keep = AllocateFlag.PUNCH_HOLE in op.flags, AllocateFlag.KEEP_SIZE in op.flags
    zero = AllocateFlag.ZERO_RANGE in op.flags
    if c.refuses(
        ("EBADF", not of.writable, "C-ALLOC-02"),
        ("EINVAL", op.offset < 0 or op.length <= 0, "C-ALLOC-02"),
        ("EOPNOTSUPP", punch and not keep, "C-ALLOC-03"),
        ("EOPNOTSUPP", punch and zero, "C-ALLOC-04"),
    ):
        return [s] if c.settled else []
    if memory.kind == "node":
        return _fallocate_node(c, s, of.memory, op, punch=punch, zero=zero, keep=keep)
    if not memory.is_file:
        raise Undetermined("no clause covers fallocate of a BAR")
    if c.refuses(("EFBIG", op.offset + op.length > int(volume_fact(c, "max_file_bytes", memory)), "C-ALLOC-05")):
        return [s] if c.settled else []
    takes = punch or zero
    if not punch and op.length > c.env.reading.volume(memory.volume).size_bytes // 4:
        raise Undetermined("how much room a volume has left is not known to the model")
    breaks = takes or bool(volume_fact(c, "allocation_unmaps", memory))
    if breaks and c.blocks("C-PIN-01", waits_for_pins(c, s, of.memory)):
        return [s] if c.settled else []
    if not c.returns("C-ALLOC-01", 0):
        return []
    before = layouts_broken(s, of.memory) if breaks else s
    after = _allocated(c, before, of.memory, op, punch=punch, zero=zero, keep=keep)
    after = parted_by_growth(c, before, after, of.memory)
    if not takes:
        return [after]
    return folios_left(c, before, after, of.memory, page_ceil(op.offset), page_floor(op.offset + op.length))


def _fallocate_node(c: Context, s: State, number: int, op: Fallocate, *, punch: bool, zero: bool, keep: bool) -> list[State]:
    memory = s.memory(number)
    step = c.env.reading.volume(memory.volume).logical_block_bytes
    end = op.offset + op.length
    behind = op.offset >= memory.size or (end > memory.size and not keep)
    end = min(end, memory.size)
    odd = bool((op.offset | (end - op.offset)) % step)
    if c.refuses(("EINVAL", behind or odd, "C-ALLOC-06"), ("EOPNOTSUPP", not punch and not zero, "C-ALLOC-06")):
        return [s] if c.settled else []
    low, high = page_floor(op.offset), page_ceil(end)
    if punch and c.seen.how is How.FAILED:
        right = c.agrees("C-ALLOC-06", c.seen.errno == "EOPNOTSUPP", "returns 0 or EOPNOTSUPP", c.seen.describe())
        # The page cache has lost its pages before the device says that it cannot: what was not written back is gone.
        lost = replace(memory, content=memory.content.write(low, unknown(high - low)), cached=memory.cached.remove(low, high))
        return [forget_pages(s.detached(number, low, high).with_object(number, lost), number, low, high)] if right else []
    if not c.returns("C-ALLOC-06", 0):
        return []
    s = forget_pages(s.detached(number, low, high), number, low, high)
    memory = s.memory(number)
    content = memory.content.write(op.offset, zeroes(end - op.offset))
    return [s.with_object(number, replace(memory, content=content, cached=memory.cached.remove(low, high)))]


def _allocated(c: Context, s: State, number: int, op: Fallocate, *, punch: bool, zero: bool, keep: bool) -> State:
    start, end = op.offset, op.offset + op.length
    memory = s.memory(number)
    if not keep and end > memory.size:
        memory = replace(grown(c, memory, end), size=end)
        s = s.with_object(number, memory)
    if punch or zero:
        stop = min(end, page_ceil(memory.size))
        low, high = page_ceil(start), page_floor(end)
        memory = replace(memory, content=memory.content.write(start, zeroes(max(0, stop - start)))) if low >= high else memory
        if low < high:
            s = removed(c, s, number, low, high)
            memory = s.memory(number)
            content = memory.content.write(start, zeroes(low - start)).write(high, zeroes(max(0, min(end, stop) - high)))
            memory = replace(memory, content=content)
    if not punch:
        gained = memory.unwritten
        for a, b in _holes(memory, page_floor(start), page_ceil(end)):
            gained = gained.add(a, b)
        memory = replace(memory, unwritten=gained)
    return s.with_object(number, memory)


def _holes(memory: Memory, low: int, high: int) -> list[tuple[int, int]]:
    holes = [(low, high)]
    for a, b in memory.data.within(low, high).spans:
        holes = [part for x, y in holes for part in ((x, min(y, a)), (max(x, b), y)) if part[0] < part[1]]
    return holes


# ---- attributes ------------------------------------------------------------------------------------------------------

clause("C-STAT-01", "statx succeeds on an open descriptor and shows the size of a regular file", "statx(2)")
clause("C-STAT-02", "STATX_ATTR_DAX is set exactly on files in DAX state", "statx(2); Documentation/filesystems/dax.rst")
clause(
    "C-STAT-03",
    "STATX_DIOALIGN reports the alignments that O_DIRECT asks for without DAX, on DAX too, where any alignment works",
    "statx(2); fs/ext4/inode.c ext4_getattr, fs/xfs/xfs_iops.c xfs_vn_getattr look at the block device, not at DAX",
)
clause("C-STAT-04", "statx says in its mask whether it reports STATX_DIOALIGN", "statx(2): stx_mask")
clause(
    "C-STAT-05",
    "statx of a node shows the size of the inode that names it, 0",
    "fs/stat.c generic_fillattr; block/bdev.c bdev_statx adds alignments only",
)
clause("C-FLAG-01", "FS_IOC_FSGETXATTR shows FS_XFLAG_DAX as it was last set", "ioctl_xfs_fsgetxattr(2); dax.rst")
clause("C-FLAG-03", "a node has no FS_XFLAG_DAX: ENOTTY", "fs/ioctl.c ioctl_fsgetxattr; block/ioctl.c blkdev_ioctl")
clause("C-FLAG-02", "setting FS_XFLAG_DAX succeeds and changes the state of no open file", "Documentation/filesystems/dax.rst")


@rule(Statx)
def statx(c: Context, s: State, op: Statx) -> list[State]:
    _, of = look_up(c, s, op.file, OpenFile)
    memory = file_memory(s, of)
    if not c.returns("C-STAT-01", 0):
        return []
    seen = c.seen
    if memory.is_file and not c.agrees(
        "C-STAT-01", seen.number("size") == memory.size, f"size {memory.size}", f"size {seen.attribute('size')}"
    ):
        return []
    if memory.kind == "bar":
        return [s]
    if memory.kind == "node" and not c.agrees("C-STAT-05", seen.number("size") == 0, "size 0", f"size {seen.attribute('size')}"):
        return []
    if not c.agrees("C-STAT-02", seen.number("dax") == int(memory.dax), f"DAX {int(memory.dax)}", f"DAX {seen.attribute('dax')}"):
        return []
    reported, told_so = bool(volume_fact(c, "dioalign_reported", memory)), seen.number("dio_supported")
    if not c.agrees("C-STAT-04", told_so == int(reported), f"STATX_DIOALIGN {int(reported)}", f"STATX_DIOALIGN {told_so}"):
        return []
    if reported:
        for name, attribute in (("dio_offset_alignment", "dio_offset_align"), ("dio_memory_alignment", "dio_mem_align")):
            step, told = c.env.fact(name, memory.volume, dax=False), seen.number(attribute)
            if not c.agrees("C-STAT-03", told == step, f"{attribute} {step}", f"{attribute} {told}"):
                return []
    return [s]


@rule(GetXflags)
def get_xflags(c: Context, s: State, op: GetXflags) -> list[State]:
    _, of = look_up(c, s, op.file, OpenFile)
    memory = file_memory(s, of)
    if c.refuses(("ENOTTY", memory.kind == "node", "C-FLAG-03")):
        return [s] if c.settled else []
    if not memory.is_file:
        raise Undetermined("no clause covers FS_IOC_FSGETXATTR of a BAR")
    return [s] if c.returns("C-FLAG-01", int(memory.dax_flag)) else []


@rule(SetXflags)
def set_xflags(c: Context, s: State, op: SetXflags) -> list[State]:
    _, of = look_up(c, s, op.file, OpenFile)
    memory = file_memory(s, of)
    if c.refuses(("ENOTTY", memory.kind == "node", "C-FLAG-03")):
        return [s] if c.settled else []
    if not memory.is_file:
        raise Undetermined("no clause covers FS_IOC_FSSETXATTR of a BAR")
    if not c.returns("C-FLAG-02", 0):
        return []
    return [s.with_object(of.memory, replace(memory, dax_flag=op.dax))]
