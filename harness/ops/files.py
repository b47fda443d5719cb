"""Operations on files."""

from harness.ops.words import (
    DATA,
    FILE,
    MAPPING,
    PIPE,
    READ,
    RING,
    SOCKET,
    WRITE,
    Flag,
    Frozen,
    Offset,
    Operation,
    Shown,
    Size,
    VolumePath,
    frozen,
    maybe_ref,
    new,
    operation,
    ref,
)


class OpenFlag(Flag):
    """O_RDONLY and friends; creat opens with mode 0644."""

    RDONLY = "rdonly", 0o0
    WRONLY = "wronly", 0o1
    RDWR = "rdwr", 0o2
    CREAT = "creat", 0o100
    TRUNC = "trunc", 0o1000
    APPEND = "append", 0o2000
    DIRECT = "direct", 0o40000
    NONBLOCK = "nonblock", 0o4000
    SYNC = "sync", 0o4010000
    DSYNC = "dsync", 0o10000


class RwFlag(Flag):
    """RWF_NOWAIT and friends of preadv2(2) and pwritev2(2)."""

    HIPRI = "hipri", 0x1
    DSYNC = "dsync", 0x2
    SYNC = "sync", 0x4
    NOWAIT = "nowait", 0x8
    APPEND = "append", 0x10
    DONTCACHE = "dontcache", 0x80


class Whence(Flag):
    SET = "set", 0
    CUR = "cur", 1
    END = "end", 2
    DATA = "data", 3
    HOLE = "hole", 4


class AllocateFlag(Flag):
    """fallocate(2) modes; none of them allocates and extends."""

    KEEP_SIZE = "keep_size", 0x1
    PUNCH_HOLE = "punch_hole", 0x2
    COLLAPSE_RANGE = "collapse_range", 0x8
    ZERO_RANGE = "zero_range", 0x10
    INSERT_RANGE = "insert_range", 0x20
    UNSHARE_RANGE = "unshare_range", 0x40


class RangeSyncFlag(Flag):
    """SYNC_FILE_RANGE_WAIT_BEFORE and friends; all three together write and wait."""

    WAIT_BEFORE = "wait_before", 1
    WRITE = "write", 2
    WAIT_AFTER = "wait_after", 4


class FileAdvice(Flag):
    """posix_fadvise(2) advice."""

    NORMAL = "normal", 0
    RANDOM = "random", 1
    SEQUENTIAL = "sequential", 2
    WILLNEED = "willneed", 3
    DONTNEED = "dontneed", 4
    NOREUSE = "noreuse", 5


@frozen
class Buffer(Frozen):
    """One element of an iovec: ``length`` bytes of a private buffer whose address is ``shift`` past a page boundary,
    or of ``mapping`` from ``offset`` on."""

    length: Size
    shift: Size = 0
    mapping: str | None = maybe_ref(MAPPING, default=None)
    offset: Offset = 0


@operation("open")
class Open(Operation):
    """open(2). ``path`` is a file on the main volume, or ``target:file``; on a bare node every path is the node;
    ``bar:`` is the memory BAR of the ivshmem device."""

    name: str = new(FILE)
    path: VolumePath
    flags: tuple[OpenFlag, ...] = (OpenFlag.RDONLY,)


@operation("close")
class Close(Operation):
    """close(2). Of a pipe or a pair of sockets ``end`` says which: read, write, or both."""

    name: str = ref(FILE, PIPE, SOCKET, RING)
    end: str | None = None


@operation("read", DATA)
class Read(Operation):
    """read(2) into a private buffer whose address is ``shift`` past a page boundary, or into a mapping."""

    file: str = ref(FILE, PIPE, uses=READ)
    length: Size
    shift: Size = 0
    into: str | None = maybe_ref(MAPPING, default=None)
    into_offset: Size = 0


@operation("write")
class Write(Operation):
    """write(2) of tagged bytes, or from a mapping."""

    file: str = ref(FILE, PIPE, uses=WRITE)
    length: Size
    shift: Size = 0
    from_: str | None = maybe_ref(MAPPING, default=None)
    from_offset: Size = 0


@operation("pread", DATA)
class Pread(Operation):
    """pread(2); with ``flags`` preadv2(2) with one element."""

    file: str = ref(FILE, uses=READ)
    offset: Offset
    length: Size
    shift: Size = 0
    into: str | None = maybe_ref(MAPPING, default=None)
    into_offset: Size = 0
    flags: tuple[RwFlag, ...] = ()


@operation("pwrite")
class Pwrite(Operation):
    """pwrite(2); with ``flags`` pwritev2(2) with one element."""

    file: str = ref(FILE, uses=WRITE)
    offset: Offset
    length: Size
    shift: Size = 0
    from_: str | None = maybe_ref(MAPPING, default=None)
    from_offset: Size = 0
    flags: tuple[RwFlag, ...] = ()


@operation("preadv", DATA)
class Preadv(Operation):
    """preadv(2), or preadv2(2) with ``flags``."""

    file: str = ref(FILE, uses=READ)
    offset: Offset
    buffers: tuple[Buffer, ...]
    flags: tuple[RwFlag, ...] = ()


@operation("pwritev")
class Pwritev(Operation):
    """pwritev(2), or pwritev2(2) with ``flags``."""

    file: str = ref(FILE, uses=WRITE)
    offset: Offset
    buffers: tuple[Buffer, ...]
    flags: tuple[RwFlag, ...] = ()


@operation("lseek")
class Lseek(Operation):
    """lseek(2)."""

    file: str = ref(FILE, uses=READ)
    offset: Offset
    whence: Whence = Whence.SET


@operation("fsync")
class Fsync(Operation):
    file: str = ref(FILE, uses=WRITE)


@operation("fdatasync")
class Fdatasync(Operation):
    file: str = ref(FILE, uses=WRITE)


@operation("syncfs")
class Syncfs(Operation):
    """syncfs(2): writes back what is dirty of the file system that the descriptor is on."""

    file: str = ref(FILE, PIPE, uses=READ)


@operation("sync_file_range")
class SyncFileRange(Operation):
    """sync_file_range(2); a length of 0 means up to the end."""

    file: str = ref(FILE, PIPE, uses=READ)
    offset: Offset
    length: Offset
    flags: tuple[RangeSyncFlag, ...] = ()


@operation("fadvise")
class Fadvise(Operation):
    """posix_fadvise(2); a length of 0 means up to the end."""

    file: str = ref(FILE, PIPE, uses=READ)
    advice: FileAdvice
    offset: Offset = 0
    length: Offset = 0


@operation("readahead")
class Readahead(Operation):
    """readahead(2)."""

    file: str = ref(FILE, PIPE, uses=READ)
    offset: Offset
    length: Size


@operation("ftruncate")
class Ftruncate(Operation):
    file: str = ref(FILE, uses=WRITE)
    length: Size


@operation("fallocate")
class Fallocate(Operation):
    file: str = ref(FILE, uses=WRITE)
    offset: Offset
    length: Size
    flags: tuple[AllocateFlag, ...] = ()


@operation("copy_file_range")
class CopyFileRange(Operation):
    """copy_file_range(2); an offset left out means the file's own position."""

    source: str = ref(FILE, uses=READ)
    target: str = ref(FILE, uses=WRITE)
    length: Size
    source_offset: Offset | None = None
    target_offset: Offset | None = None


@operation("ficlone")
class Ficlone(Operation):
    """ioctl FICLONE: the target becomes as long as the source is, if it is shorter, and shares all of its blocks."""

    source: str = ref(FILE, PIPE, uses=READ)
    target: str = ref(FILE, PIPE, uses=WRITE)


@operation("ficlonerange")
class Ficlonerange(Operation):
    """ioctl FICLONERANGE; a ``length`` of 0 is up to the end of the source."""

    source: str = ref(FILE, PIPE, uses=READ)
    target: str = ref(FILE, PIPE, uses=WRITE)
    length: Size
    source_offset: Offset = 0
    target_offset: Offset = 0


@operation(
    "fideduperange",
    Shown("status", "what became of the target: 0 its bytes are the same, 1 they differ, below 0 minus an error number"),
    Shown("bytes_deduped", "how many bytes are the same", "bytes"),
)
class Fideduperange(Operation):
    """ioctl FIDEDUPERANGE with one target: it shares the blocks of the source's range where its bytes are the same."""

    source: str = ref(FILE, PIPE, uses=READ)
    target: str = ref(FILE, PIPE)
    length: Size
    source_offset: Offset = 0
    target_offset: Offset = 0


@operation(
    "statx",
    Shown("size", "stx_size", "bytes"),
    Shown("blocks", "stx_blocks", "512 bytes"),
    Shown("dax", "STATX_ATTR_DAX"),
    Shown("dax_mask", "whether STATX_ATTR_DAX is in stx_attributes_mask"),
    Shown("dio_mem_align", "stx_dio_mem_align", "bytes"),
    Shown("dio_offset_align", "stx_dio_offset_align", "bytes"),
    Shown("dio_supported", "whether STATX_DIOALIGN is in stx_mask"),
)
class Statx(Operation):
    """statx(2) with AT_EMPTY_PATH: size, blocks, the DAX attribute and its mask bit, STATX_DIOALIGN."""

    file: str = ref(FILE, uses=READ)


@operation("get_xflags")
class GetXflags(Operation):
    """ioctl FS_IOC_FSGETXATTR; the value is 1 where FS_XFLAG_DAX is set."""

    file: str = ref(FILE, uses=READ)


@operation("set_xflags")
class SetXflags(Operation):
    """ioctl FS_IOC_FSSETXATTR that sets or clears FS_XFLAG_DAX and keeps the rest."""

    file: str = ref(FILE, uses=READ)
    dax: bool
