"""What reading and writing share: the contract of both, refusals of O_DIRECT and of flags, buffers that fault half-way."""

from collections.abc import Sequence

from harness.model.clause import Context, Undetermined, clause
from harness.model.expectation import Expectation, Expectations
from harness.model.objects import PAGE, Mapping, Memory, OpenFile, page_floor
from harness.model.outcome import How
from harness.model.rules.buffers import usable_end
from harness.model.rules.rule import block_bytes, look_up, volume_fact
from harness.model.state import State
from harness.model.value import evolve
from harness.ops import Buffer, RwFlag

#: The largest offset that a number of 64 bits can say.
MOST_OFFSET = 2**63 - 1
#: What a copy into DAX moves at a time, at its end.
TAIL_WORD = 4
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
clause(
    "C-DEVDAX-03",
    "a dax device can only be mapped: read, write, splice and their like are EINVAL, and so is sending from or to it, however little",
    "fs/read_write.c vfs_read, vfs_write: FMODE_CAN_READ, FMODE_CAN_WRITE; fs/splice.c warn_unsupported; drivers/dax/device.c dax_fops",
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
    "open(2) NOTES; fs/iomap/direct-io.c bdev_iter_is_aligned: fact dio_address_checked",
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
clause(
    "C-DIO-09",
    "where the file system does not fill holes directly (ext2), an O_DIRECT write that starts in a hole before the end of the file goes "
    "through the page cache from there on, and asks for no alignment",
    "fs/ext2/inode.c ext2_iomap_begin (ENOTBLK), fs/ext2/file.c ext2_dio_write_iter",
)
clause(
    "C-DIO-10",
    "where the file system has no O_DIRECT for a file (ext4 that journals data), it goes through the page cache and asks for no alignment; "
    "statx reports alignments of 0",
    "fs/ext4/file.c ext4_should_use_dio, fs/ext4/inode.c ext4_dio_alignment, ext4_getattr (ext4_dio_supported before 6.1)",
)
clause("C-NODE-01", "a write that starts before the end of a node and goes beyond it writes what fits", "block/fops.c blkdev_write_iter")
clause("C-NODE-02", "a write at or behind the end of a node is ENOSPC", "block/fops.c blkdev_write_iter")
clause(
    "C-NODE-03",
    "the node of a read-only device can be opened for writing; writing, zeroing and punching are EPERM",
    "block/fops.c blkdev_write_iter; block/blk-lib.c blkdev_issue_zeroout",
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


def refused_at_once(
    c: Context, memory: Memory, at: int, buffers: Sequence[Buffer], flags: Sequence[RwFlag], mode: tuple[str, bool, str]
) -> Expectation | None:
    """Return what is expected of a transfer that is refused whatever the file is: for the descriptor's ``mode``, its numbers, its flags."""
    total = sum(b.length for b in buffers)
    numbers = at < 0 or at + total > MOST_OFFSET or any(b.length < 0 for b in buffers)
    asks = total != 0 and RwFlag.DONTCACHE in flags and not memory.is_device
    lacking = asks and not (memory.on_volume and volume_fact(c, "dontcache_supported", memory))
    refused = c.refuses(mode, ("EINVAL", numbers, "C-RW-04"), ("EOPNOTSUPP", lacking, "C-RWF-01"))
    return refused or c.refuses(("EINVAL", memory.is_device, "C-DEVDAX-03"))


def declined(s: State, flags: Sequence[RwFlag], count: int) -> Expectations:
    """Return that the call may say that it would have to wait, where RWF_NOWAIT allows it."""
    if RwFlag.NOWAIT not in flags:
        return ()
    names = ("EAGAIN", "EOPNOTSUPP")
    return Expectation(How.FAILED, "C-RWF-02", f"returns 1..{count}, EAGAIN or EOPNOTSUPP", names=names, asks=True).leaving(s)


def moves(c: Context, flags: Sequence[RwFlag], count: int, clause_id: str, least: int | None = None) -> Expectation:
    """Return what is expected of a transfer that may move ``count`` bytes, and has to move that or ``least``."""
    if RwFlag.NOWAIT in flags and count:
        return c.counts("C-RWF-02", 1, count, f"1..{count}")
    return c.returns(clause_id, count) if least is None else c.counts(clause_id, least, count, f"{least}..{count}")


def shows_itself(m: Mapping, b: Buffer, memory: int, at: int, buffers: Sequence[Buffer]) -> bool:
    """Whether ``b``, a range of ``m`` and one of ``buffers``, shows bytes of the very ``memory`` that these are moved to or from at ``at``.

    Bytes that a single buffer moves onto themselves are none.
    """
    start, total = m.offset + b.offset, sum(other.length for other in buffers)
    shifted = start != at and start < at + b.length and at < start + b.length
    several = len(buffers) > 1 and start < at + total and at < start + b.length
    return m.memory == memory and (shifted or several)


def first_buffers(buffers: Sequence[Buffer], count: int) -> tuple[Buffer, ...]:
    """Return the first ``count`` bytes of ``buffers``."""
    out: list[Buffer] = []
    for b in buffers:
        if count > 0:
            out.append(evolve(b, length=min(b.length, count)))
        count -= b.length
    return tuple(out)


def direct_refusals(c: Context, s: State, memory: Memory, of: OpenFile, at: int, buffers: Sequence[Buffer]) -> list[tuple[str, bool, str]]:
    """Return what an O_DIRECT transfer that starts at ``at`` is refused for; alignment comes before the pages of the buffer."""
    if not of.direct:
        return []
    offset_step = int(volume_fact(c, "dio_offset_alignment", memory))
    rows = [
        ("EINVAL", any(x % offset_step for x in [at, *(b.length for b in buffers)]), "C-DIO-01"),
        ("EINVAL", _is_refused_for_address(c, memory, buffers), "C-DIO-02"),
    ]
    if not memory.dax and not any(condition for _, condition, _ in rows):
        lacking = [b.mapping is not None and not s.memory(look_up(c, s, b.mapping, Mapping)[1].memory).has_struct_pages for b in buffers]
        goes_on = any(lacking) and not lacking[0] and memory.is_node and c.holds("C-DIO-07", True)
        rows.append(("EFAULT", any(lacking) and not goes_on, "C-DIO-03"))
    return rows


def _is_refused_for_address(c: Context, memory: Memory, buffers: Sequence[Buffer]) -> bool:
    step = int(volume_fact(c, "dio_memory_alignment", memory))
    starts = [b.offset if b.mapping else b.shift for b in buffers]
    if not any(start % step for start in starts):
        return False
    in_a_page = len(buffers) == 1 and starts[0] % PAGE + buffers[0].length <= PAGE
    return not in_a_page or volume_fact(c, "dio_address_checked", memory) == "all"


def cached_from(c: Context, memory: Memory, of: OpenFile, at: int, end: int) -> int | None:
    """Return the byte from which on an O_DIRECT write of ``at`` to ``end`` goes through the page cache: where the first hole begins.

    None: all of it goes to the device.
    """
    low, high = page_floor(at), min(end, memory.size)
    if not of.direct or not memory.is_file or low >= high or volume_fact(c, "direct_write_into_hole", memory) == "device":
        return None
    holes = memory.data.gaps(low, high).spans
    return max(at, holes[0][0]) if holes and c.holds("C-DIO-09", True) else None


clause(
    "C-DIO-11",
    "an O_DIRECT write of a file that is refused neither for its alignment nor for a buffer without struct pages is made through the page "
    "cache, at any offset, length and address",
    "open(2) NOTES: fact misaligned_direct_write",
)


def require_whole_blocks(c: Context, memory: Memory, of: OpenFile, at: int, length: int) -> None:
    """Raise Undetermined for an O_DIRECT write of a part of a block into a file that shares some: a part of one cannot be its own."""
    block = block_bytes(c, memory) if memory.is_file else 1
    if of.direct and not memory.dax and memory.was_shared and (at % block or length % block):
        raise Undetermined("no clause covers an O_DIRECT write of a part of a block into a file that shares blocks")


def goes_on_cached(c: Context, memory: Memory, of: OpenFile) -> bool:
    """Whether an O_DIRECT write that the device cannot take is made all the same."""
    direct = of.direct and memory.is_file and not memory.dax
    return direct and volume_fact(c, "misaligned_direct_write", memory) == "page_cache" and c.holds("C-DIO-11", True)


def odd_before_append(c: Context, memory: Memory, of: OpenFile, asked: int) -> tuple[str, bool, str]:
    """Return whether an O_DIRECT write is refused for the offset that was asked for, though it would be appended elsewhere."""
    looks = of.direct and not memory.dax and memory.is_file and bool(volume_fact(c, "direct_append_looks_at_offset", memory))
    return ("EINVAL", looks and asked % int(volume_fact(c, "dio_offset_alignment", memory)) != 0, "C-DIO-08")


def usable_bytes(c: Context, s: State, buffers: Sequence[Buffer], *, into: bool) -> int:
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


def fault_refusals(memory: Memory, of: OpenFile, usable: int, count: int) -> list[tuple[str, bool, str]]:
    whole = of.direct and not memory.dax and memory.is_file
    return [("EFAULT", count > 0 and not usable, "C-RW-07"), ("EFAULT", whole and 0 < usable < count, "C-DIO-06")]
