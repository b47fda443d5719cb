"""The operations of a program: each is one system call, one load or one store.

One frozen dataclass per operation is the only place where its name and arguments are listed: the case loader reads
YAML by these fields, the plan prints them, the agent receives them as JSON and the model judges them. A field that
names something earlier steps made says so with :func:`ref`; one that names something new says so with :func:`new`.
Lengths and offsets are bytes. A trailing underscore in a field's name is dropped in YAML and JSON (``from_`` is ``from``).

Exceptions to one call per operation are set-up that no clause judges beyond success: ``tcp_pair`` (socket to accept),
``xdp_socket``, ``rdma_open``.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, TypeVar, dataclass_transform

from harness.errors import UsageError
from harness.model.tag import FOREIGN_WRITER

# ---- names and flags -------------------------------------------------------------------------------------------------

#: What a name can stand for.
FILE, PIPE, SOCKET, MAPPING, RING, RDMA, RDMA_REGION, PROCESS, LABEL = (
    "file",
    "pipe",
    "socket",
    "mapping",
    "ring",
    "rdma",
    "rdma_region",
    "process",
    "label",
)


def ref(*kinds: str) -> Any:
    """A field that names something made by an earlier step, of one of ``kinds``."""
    return dataclasses.field(metadata={"refers": kinds})


def maybe_ref(*kinds: str, default: None) -> Any:
    """Like :func:`ref`, and may be left out."""
    return dataclasses.field(default=default, metadata={"refers": kinds})


def new(kind: str) -> Any:
    """A field that gives a name to what this step makes."""
    return dataclasses.field(metadata={"makes": kind})


class OpenFlag(StrEnum):
    """O_RDONLY and friends; creat opens with mode 0644."""

    RDONLY = "rdonly"
    WRONLY = "wronly"
    RDWR = "rdwr"
    CREAT = "creat"
    TRUNC = "trunc"
    APPEND = "append"
    DIRECT = "direct"
    NONBLOCK = "nonblock"
    SYNC = "sync"
    DSYNC = "dsync"


class RwFlag(StrEnum):
    """RWF_NOWAIT and friends of preadv2(2) and pwritev2(2)."""

    HIPRI = "hipri"
    DSYNC = "dsync"
    SYNC = "sync"
    NOWAIT = "nowait"
    APPEND = "append"
    DONTCACHE = "dontcache"


class SpliceFlag(StrEnum):
    MOVE = "move"
    NONBLOCK = "nonblock"
    MORE = "more"
    GIFT = "gift"


class MapFlag(StrEnum):
    SHARED = "shared"
    PRIVATE = "private"
    SHARED_VALIDATE = "shared_validate"
    SYNC = "sync"
    POPULATE = "populate"
    ANONYMOUS = "anonymous"
    HUGETLB = "hugetlb"
    HUGE_2MB = "huge_2mb"
    LOCKED = "locked"
    NORESERVE = "noreserve"


class Protection(StrEnum):
    NONE = "none"
    READ = "read"
    WRITE = "write"


class Advice(StrEnum):
    """madvise(2) advice."""

    NORMAL = "normal"
    HUGEPAGE = "hugepage"
    NOHUGEPAGE = "nohugepage"
    DONTNEED = "dontneed"
    POPULATE_READ = "populate_read"
    POPULATE_WRITE = "populate_write"
    REMOVE = "remove"


class SyncFlag(StrEnum):
    """msync(2) flags."""

    SYNC = "sync"
    ASYNC = "async"
    INVALIDATE = "invalidate"


class AllocateFlag(StrEnum):
    """fallocate(2) modes; none of them allocates and extends."""

    KEEP_SIZE = "keep_size"
    PUNCH_HOLE = "punch_hole"
    ZERO_RANGE = "zero_range"


class SendFlag(StrEnum):
    ZEROCOPY = "zerocopy"
    DONTWAIT = "dontwait"


class Whence(StrEnum):
    SET = "set"
    CUR = "cur"
    END = "end"
    DATA = "data"
    HOLE = "hole"


class RdmaAccess(StrEnum):
    LOCAL_WRITE = "local_write"
    REMOTE_WRITE = "remote_write"
    REMOTE_READ = "remote_read"


@dataclass(frozen=True)
class Buffer:
    """One element of an iovec: ``length`` bytes of a private buffer whose address is ``shift`` past a page boundary,
    or of ``mapping`` from ``offset`` on."""

    length: int
    shift: int = 0
    mapping: str | None = dataclasses.field(default=None, metadata={"refers": (MAPPING,)})
    offset: int = 0


# ---- operations ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Operation:
    """The base: ``call`` is the name in YAML, JSON and reports."""

    call: ClassVar[str] = ""


OPERATIONS: dict[str, type[Operation]] = {}
T = TypeVar("T", bound=Operation)


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field, ref, maybe_ref, new))
def operation(call: str) -> Callable[[type[T]], type[T]]:
    """Register the decorated dataclass under ``call``."""

    def register(cls: type[T]) -> type[T]:
        made = dataclass(frozen=True)(cls)
        made.call = call
        OPERATIONS[call] = made
        return made

    return register


# files


@operation("open")
class Open(Operation):
    """open(2). ``path`` is a file on the main volume, or ``target:file``; on a bare node every path is the node;
    ``bar:`` is the memory BAR of the ivshmem device."""

    name: str = new(FILE)
    path: str
    flags: tuple[OpenFlag, ...] = (OpenFlag.RDONLY,)


@operation("close")
class Close(Operation):
    """close(2). Of a pipe or a pair of sockets ``end`` says which: read, write, or both."""

    name: str = ref(FILE, PIPE, SOCKET, RING)
    end: str | None = None


@operation("read")
class Read(Operation):
    """read(2) into a private buffer whose address is ``shift`` past a page boundary, or into a mapping."""

    file: str = ref(FILE, PIPE)
    length: int
    shift: int = 0
    into: str | None = maybe_ref(MAPPING, default=None)
    into_offset: int = 0


@operation("write")
class Write(Operation):
    """write(2) of tagged bytes, or from a mapping."""

    file: str = ref(FILE, PIPE)
    length: int
    shift: int = 0
    from_: str | None = maybe_ref(MAPPING, default=None)
    from_offset: int = 0


@operation("pread")
class Pread(Operation):
    """pread(2); with ``flags`` preadv2(2) with one element."""

    file: str = ref(FILE)
    offset: int
    length: int
    shift: int = 0
    into: str | None = maybe_ref(MAPPING, default=None)
    into_offset: int = 0
    flags: tuple[RwFlag, ...] = ()


@operation("pwrite")
class Pwrite(Operation):
    """pwrite(2); with ``flags`` pwritev2(2) with one element."""

    file: str = ref(FILE)
    offset: int
    length: int
    shift: int = 0
    from_: str | None = maybe_ref(MAPPING, default=None)
    from_offset: int = 0
    flags: tuple[RwFlag, ...] = ()


@operation("preadv")
class Preadv(Operation):
    """preadv(2), or preadv2(2) with ``flags``."""

    file: str = ref(FILE)
    offset: int
    buffers: tuple[Buffer, ...]
    flags: tuple[RwFlag, ...] = ()


@operation("pwritev")
class Pwritev(Operation):
    """pwritev(2), or pwritev2(2) with ``flags``."""

    file: str = ref(FILE)
    offset: int
    buffers: tuple[Buffer, ...]
    flags: tuple[RwFlag, ...] = ()


@operation("lseek")
class Lseek(Operation):
    """lseek(2)."""

    file: str = ref(FILE)
    offset: int
    whence: Whence = Whence.SET


@operation("fsync")
class Fsync(Operation):
    file: str = ref(FILE)


@operation("fdatasync")
class Fdatasync(Operation):
    file: str = ref(FILE)


@operation("ftruncate")
class Ftruncate(Operation):
    file: str = ref(FILE)
    length: int


@operation("fallocate")
class Fallocate(Operation):
    file: str = ref(FILE)
    offset: int
    length: int
    flags: tuple[AllocateFlag, ...] = ()


@operation("copy_file_range")
class CopyFileRange(Operation):
    """copy_file_range(2); an offset left out means the file's own position."""

    source: str = ref(FILE)
    target: str = ref(FILE)
    length: int
    source_offset: int | None = None
    target_offset: int | None = None


@operation("statx")
class Statx(Operation):
    """statx(2) with AT_EMPTY_PATH: size, blocks, the DAX attribute and its mask bit, STATX_DIOALIGN."""

    file: str = ref(FILE)


@operation("get_xflags")
class GetXflags(Operation):
    """ioctl FS_IOC_FSGETXATTR; the value is 1 where FS_XFLAG_DAX is set."""

    file: str = ref(FILE)


@operation("set_xflags")
class SetXflags(Operation):
    """ioctl FS_IOC_FSSETXATTR that sets or clears FS_XFLAG_DAX and keeps the rest."""

    file: str = ref(FILE)
    dax: bool


# pipes, splice and sockets


@operation("pipe")
class Pipe(Operation):
    """pipe2(2). One name stands for both ends: a read is from the one, a write to the other."""

    name: str = new(PIPE)
    nonblock: bool = False


@operation("set_pipe_size")
class SetPipeSize(Operation):
    """fcntl(2) F_SETPIPE_SZ."""

    pipe: str = ref(PIPE)
    size: int


@operation("splice")
class Splice(Operation):
    """splice(2); an offset left out means the file's own position (for a pipe or a socket there is no other)."""

    source: str = ref(FILE, PIPE, SOCKET)
    target: str = ref(FILE, PIPE, SOCKET)
    length: int
    source_offset: int | None = None
    target_offset: int | None = None
    flags: tuple[SpliceFlag, ...] = ()


@operation("sendfile")
class Sendfile(Operation):
    """sendfile(2); without ``offset`` from the file's own position."""

    source: str = ref(FILE)
    target: str = ref(FILE, PIPE, SOCKET)
    length: int
    offset: int | None = None


@operation("tee")
class Tee(Operation):
    source: str = ref(PIPE)
    target: str = ref(PIPE)
    length: int
    flags: tuple[SpliceFlag, ...] = ()


@operation("vmsplice")
class Vmsplice(Operation):
    """vmsplice(2) of one range of a mapping into a pipe."""

    pipe: str = ref(PIPE)
    mapping: str = ref(MAPPING)
    offset: int
    length: int
    flags: tuple[SpliceFlag, ...] = ()


@operation("tcp_pair")
class TcpPair(Operation):
    """Two connected TCP sockets over the guest's loopback; what is sent to the name is received from it."""

    name: str = new(SOCKET)


@operation("unix_pair")
class UnixPair(Operation):
    """socketpair(2) of stream sockets; what is sent to the name is received from it."""

    name: str = new(SOCKET)


@operation("set_zerocopy")
class SetZerocopy(Operation):
    """setsockopt(2) SO_ZEROCOPY on the sending socket."""

    socket: str = ref(SOCKET)


@operation("send")
class Send(Operation):
    """send(2) of tagged bytes, or from a mapping."""

    socket: str = ref(SOCKET)
    length: int
    from_: str | None = maybe_ref(MAPPING, default=None)
    from_offset: int = 0
    flags: tuple[SendFlag, ...] = ()


@operation("recv")
class Recv(Operation):
    """recv(2) with MSG_WAITALL (without ``flags``), so that the count is not a matter of timing."""

    socket: str = ref(SOCKET)
    length: int
    flags: tuple[SendFlag, ...] = ()


@operation("recv_errqueue")
class RecvErrqueue(Operation):
    """recvmsg(2) MSG_ERRQUEUE on the sending socket, after poll(2) said there is something: zero-copy completions."""

    socket: str = ref(SOCKET)


# mappings


@operation("mmap")
class Mmap(Operation):
    """mmap(2). ``align`` asks for an address that is a multiple of it plus ``align_shift`` (a hint computed by the
    agent inside a reserved range; 0 leaves the choice to the kernel)."""

    name: str = new(MAPPING)
    length: int
    file: str | None = maybe_ref(FILE, default=None)
    offset: int = 0
    protection: tuple[Protection, ...] = (Protection.READ, Protection.WRITE)
    flags: tuple[MapFlag, ...] = (MapFlag.SHARED,)
    align: int = 0
    align_shift: int = 0


@operation("munmap")
class Munmap(Operation):
    """munmap(2) of the whole mapping."""

    mapping: str = ref(MAPPING)


@operation("mprotect")
class Mprotect(Operation):
    mapping: str = ref(MAPPING)
    protection: tuple[Protection, ...]


@operation("madvise")
class Madvise(Operation):
    mapping: str = ref(MAPPING)
    advice: Advice
    offset: int = 0
    length: int | None = None


@operation("load")
class Load(Operation):
    """Loads of ``length`` bytes; evidence: the bytes, and the minor faults taken."""

    mapping: str = ref(MAPPING)
    offset: int
    length: int


@operation("store")
class Store(Operation):
    """Stores of ``length`` tagged bytes, or of one 32-bit little-endian ``value``; evidence: the minor faults taken."""

    mapping: str = ref(MAPPING)
    offset: int
    length: int = 4
    value: int | None = None


@operation("msync")
class Msync(Operation):
    mapping: str = ref(MAPPING)
    offset: int = 0
    length: int | None = None
    flags: tuple[SyncFlag, ...] = (SyncFlag.SYNC,)


@operation("mincore")
class Mincore(Operation):
    """mincore(2); evidence: one bit a page."""

    mapping: str = ref(MAPPING)
    offset: int = 0
    length: int | None = None


@operation("pagemap")
class Pagemap(Operation):
    """/proc/self/pagemap; evidence: the physical frame number a page (0: none present)."""

    mapping: str = ref(MAPPING)
    offset: int = 0
    length: int | None = None


@operation("smaps")
class Smaps(Operation):
    """/proc/self/smaps of the mapping; evidence: VmFlags and the sizes in bytes."""

    mapping: str = ref(MAPPING)


@operation("mlock")
class Mlock(Operation):
    mapping: str = ref(MAPPING)
    offset: int = 0
    length: int | None = None


@operation("munlock")
class Munlock(Operation):
    mapping: str = ref(MAPPING)
    offset: int = 0
    length: int | None = None


# futexes and other processes


@operation("futex_wait")
class FutexWait(Operation):
    """futex(2) FUTEX_WAIT while the 32-bit word is ``value``; ``timeout_ms`` None waits for ever."""

    mapping: str = ref(MAPPING)
    offset: int
    value: int
    private: bool = False
    timeout_ms: int | None = None


@operation("futex_wake")
class FutexWake(Operation):
    mapping: str = ref(MAPPING)
    offset: int
    count: int = 1
    private: bool = False


@operation("fork")
class Fork(Operation):
    """fork(2): the new process has all names of the one that does it, and later makes its own."""

    process: str = new(PROCESS)


@operation("process_vm_readv")
class ProcessVmReadv(Operation):
    """process_vm_readv(2) of a range of a mapping as ``target`` has it."""

    target: str = ref(PROCESS)
    mapping: str = ref(MAPPING)
    offset: int
    length: int


@operation("join")
class Join(Operation):
    """Wait for a step that was started with ``start: label``; its outcome is this step's outcome."""

    label: str = ref(LABEL)


# long-term pins


@operation("io_uring_setup")
class IoUringSetup(Operation):
    name: str = new(RING)
    entries: int = 4


@operation("io_uring_register")
class IoUringRegister(Operation):
    """io_uring_register(2) IORING_REGISTER_BUFFERS with one buffer."""

    ring: str = ref(RING)
    mapping: str = ref(MAPPING)
    offset: int = 0
    length: int | None = None


@operation("io_uring_unregister")
class IoUringUnregister(Operation):
    """io_uring_register(2) IORING_UNREGISTER_BUFFERS."""

    ring: str = ref(RING)


@operation("xdp_socket")
class XdpSocket(Operation):
    """socket(2) AF_XDP."""

    name: str = new(SOCKET)


@operation("xdp_umem")
class XdpUmem(Operation):
    """setsockopt(2) XDP_UMEM_REG over a range of a mapping, in chunks of 4 KiB."""

    socket: str = ref(SOCKET)
    mapping: str = ref(MAPPING)
    offset: int = 0
    length: int | None = None


@operation("rdma_open")
class RdmaOpen(Operation):
    """ibv_open_device and ibv_alloc_pd of the guest's soft-RoCE device."""

    name: str = new(RDMA)


@operation("rdma_register")
class RdmaRegister(Operation):
    """ibv_reg_mr over a range of a mapping."""

    name: str = new(RDMA_REGION)
    device: str = ref(RDMA)
    mapping: str = ref(MAPPING)
    offset: int = 0
    length: int | None = None
    access: tuple[RdmaAccess, ...] = (RdmaAccess.LOCAL_WRITE,)


@operation("rdma_deregister")
class RdmaDeregister(Operation):
    """ibv_dereg_mr."""

    region: str = ref(RDMA_REGION)


# the system


@operation("mount")
class MountVolume(Operation):
    """mount(2) of a volume's device on its mount point; ``options`` is the data string."""

    volume: str = "main"
    filesystem: str = "ext4"
    options: str = ""


@operation("umount")
class UmountVolume(Operation):
    volume: str = "main"


@operation("drop_caches")
class DropCaches(Operation):
    """Write 3 to /proc/sys/vm/drop_caches: clean, unused page cache goes."""


@operation("meminfo")
class Meminfo(Operation):
    """/proc/meminfo; the value is Cached and Buffers together, in bytes: the whole page cache."""


# ---- programs --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pin:
    """The outcome that a case is about: exactly one of the four is set."""

    returns: int | None = None
    errno: str | None = None
    signal: str | None = None
    blocked: bool | None = None

    def describe(self) -> str:
        if self.returns is not None:
            return f"returns {self.returns}"
        if self.errno is not None:
            return self.errno
        if self.signal is not None:
            return self.signal
        return "blocked" if self.blocked else "not blocked"


@dataclass(frozen=True)
class Step:
    """One operation with who does it. ``start`` gives the step a label and does not wait for it beyond the limit
    that tells blocked from slow. ``line`` is where the case says it (0: nowhere)."""

    operation: Operation
    process: str = "main"
    start: str | None = None
    pin: Pin | None = None
    line: int = 0


#: Each step is a writer; the last one is kept for what lay on the medium before.
MAX_STEPS = FOREIGN_WRITER - 1


@dataclass(frozen=True)
class Program:
    """Steps in the order in which they are begun. The writer of the bytes a step writes is its index plus 1.

    Raises ValueError for more than MAX_STEPS.
    """

    steps: tuple[Step, ...]

    def __post_init__(self) -> None:
        if len(self.steps) > MAX_STEPS:
            raise ValueError(f"a program has at most {MAX_STEPS} steps, each a writer of its own; this one has {len(self.steps)}")


PROGRAM_FORMAT = 1


def arguments(op: Operation) -> dict[str, Any]:
    """Return the arguments of ``op`` as YAML and JSON have them: names without underscore, flags as words."""
    return {field.name.rstrip("_"): _plain(getattr(op, field.name)) for field in dataclasses.fields(op)}


def _plain(value: Any) -> Any:
    if isinstance(value, StrEnum):
        return str(value)
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name.rstrip("_"): _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return value


#: The guard before and behind each mapping; the agent puts it there.
GUARD_BYTES = 4096
_HUGE_BYTES = 2 * 1024 * 1024
_WORD = 4


def find_out_of_reach(steps: Sequence[Step]) -> tuple[int, str] | None:
    """Return the first step that reaches further past a mapping than its guard pages, and what is wrong with it; None where none does.

    Up to the end of a mapping's last page there is the mapping, in the page before and behind it a guard without access. What lies
    further is the agent's own, and no step of a program's may touch it.
    """
    lengths: dict[str, int] = {}
    for index, step in enumerate(steps):
        made = step.operation
        if isinstance(made, Mmap):
            page = _HUGE_BYTES if MapFlag.HUGETLB in made.flags else GUARD_BYTES
            lengths[made.name] = -(-made.length // page) * page
        for name, start, length in mapping_ranges(made):
            whole = lengths.get(name)
            if whole is None:
                continue
            end = max(start, whole) if length is None else start + length
            if not -GUARD_BYTES <= start <= end <= whole + GUARD_BYTES:
                return index, (
                    f"{describe(made)} reaches from byte {start} to {end} of the mapping {name!r}, whose pages have {whole}: "
                    f"a step may reach {GUARD_BYTES} bytes before and behind them, into guards without access, and no further"
                )
    return None


def mapping_ranges(op: Operation) -> Iterator[tuple[str, int, int | None]]:
    """Yield name, start and length (None: the rest) of every range of a mapping that ``op`` names."""
    given: dict[str, Any] = {field.name: getattr(op, field.name) for field in dataclasses.fields(op)}
    for buffer in given.get("buffers", ()):
        if buffer.mapping is not None:
            yield buffer.mapping, buffer.offset, buffer.length
    for key in ("into", "from_"):
        if given.get(key) is not None:
            yield given[key], given[f"{key.rstrip('_')}_offset"], given["length"]
    if "mapping" in given and "offset" in given:
        is_word = isinstance(op, FutexWait | FutexWake) or (isinstance(op, Store) and op.value is not None)
        yield given["mapping"], given["offset"], _WORD if is_word else given["length"]


def program_document(program: Program) -> dict[str, Any]:
    """Return the program as the JSON document that the agent reads (docs/agent-protocol.md).

    Raises UsageError for a step that reaches further past a mapping than its guard pages.
    """
    found = find_out_of_reach(program.steps)
    if found is not None:
        raise UsageError(f"step {found[0] + 1} of {len(program.steps)}: {found[1]}")
    steps = [{"call": s.operation.call, "process": s.process, "start": s.start, "args": arguments(s.operation)} for s in program.steps]
    return {"format": PROGRAM_FORMAT, "steps": steps}


def describe(op: Operation) -> str:
    """Return ``pwrite(f, offset=0, length=1000)``: the first name bare, then every argument that is not its default."""
    words: list[str] = []
    for field in dataclasses.fields(op):
        value = getattr(op, field.name)
        if field.default is not dataclasses.MISSING and value == field.default:
            continue
        plain = _plain(value)
        text = "|".join(map(str, plain)) if isinstance(plain, list) and all(isinstance(p, str) for p in plain) else str(plain)
        named = "refers" in field.metadata or "makes" in field.metadata
        words.append(text if named and not words else f"{field.name.rstrip('_')}={text}")
    return f"{op.call}({', '.join(words)})"
