"""Rules for long-term pins: registered buffers of io_uring, the memory of an AF_XDP socket, RDMA memory regions.

All three take the same way through mm/gup.c. They differ in what they look at themselves, and in whether they try the
page tables alone first, which never sees the file behind a page copied on write.
"""

from harness.model.clause import Context, Undetermined, clause
from harness.model.expectation import Expectation, Expectations
from harness.model.objects import PAGE, Mapping, Memory, RdmaDevice, RdmaRegion, Ring, Socket, SocketKind, page_ceil, page_floor
from harness.model.outcome import How
from harness.model.rules.buffers import mapping_bytes, mapping_reaches, store_into, touch, usable_end
from harness.model.rules.rule import look_up, rule, volume_fact
from harness.model.state import State
from harness.model.value import evolve
from harness.ops import (
    IoUringRegister,
    IoUringSetup,
    IoUringUnregister,
    RdmaAccess,
    RdmaDeregister,
    RdmaOpen,
    RdmaRegister,
    XdpSocket,
    XdpUmem,
)

clause("C-LTP-01", "memory without struct pages cannot be pinned: EFAULT", "mm/gup.c check_vma_flags: VM_IO and VM_PFNMAP")
clause(
    "C-LTP-02",
    "a shared mapping of a DAX file cannot be pinned for long: EOPNOTSUPP",
    "mm/gup.c check_vma_flags, check_dax_vmas up to 5.10: truncate would have to wait for it without end; fact dax_pin_refused",
)
clause(
    "C-LTP-03",
    "a shared writable mapping of a file in the page cache cannot be pinned for long, or can, as the kernel's version has it",
    "mm/gup.c writable_file_mapping_allowed (since 6.5): EFAULT; io_uring/rsrc.c io_pin_pages (up to 6.4): EOPNOTSUPP",
)
clause(
    "C-LTP-04",
    "a private mapping of a file that was not copied page by page is refused where its kind of file or the caller refuses it",
    "mm/gup.c check_vma_flags; io_uring/rsrc.c io_pin_pages up to 6.4",
)
clause(
    "C-LTP-05",
    "a private mapping of a file with every page copied on write is anonymous to a caller that looks at page tables first",
    "mm/gup.c gup_fast; the others see the area, and so the file",
)
clause(
    "C-LTP-09",
    "a mapping of a dax device can be pinned for long, unless the caller refuses all files, as io_uring did",
    "mm/gup.c check_vma_flags: vma_is_fsdax is false for a character device; io_uring/rsrc.c io_pin_pages up to 6.4: EOPNOTSUPP",
)
clause("C-LTP-06", "a long-term pin for writing needs memory that the process may write: EFAULT", "mm/gup.c check_vma_flags")
clause(
    "C-LTP-07",
    "pages behind the end of the file cannot be pinned: EFAULT; AF_XDP makes ENOMEM of it where some pages could",
    "mm/gup.c __get_user_pages; net/xdp/xdp_umem.c xdp_umem_pin_pages",
)
clause("C-LTP-08", "memory that nothing forbids is pinned", "io_uring_register(2); kernel AF_XDP documentation; ibv_reg_mr(3)")
clause("C-URING-01", "io_uring_setup gives a ring", "io_uring_setup(2)")
clause("C-URING-02", "a ring has one set of buffers: registering another is EBUSY", "io_uring_register(2) ERRORS")
clause("C-URING-03", "unregistering buffers succeeds, and is ENXIO where there are none", "io_uring_register(2) ERRORS")
clause("C-XDP-01", "an AF_XDP socket is made", "Documentation/networking/af_xdp.rst")
clause("C-XDP-02", "a socket has one umem: registering another is EBUSY", "net/xdp/xsk.c xsk_setsockopt")
clause("C-XDP-03", "a umem starts at a page and is a whole number of chunks: EINVAL", "net/xdp/xdp_umem.c xdp_umem_reg")
clause(
    "C-XDP-04",
    "another kind of socket knows no umem: EOPNOTSUPP (Unix), ENOPROTOOPT (TCP)",
    "net/core/sock.c sock_no_setsockopt; net/ipv4/tcp.c",
)
clause("C-RDMA-01", "an RDMA device and a protection domain are opened", "ibv_open_device(3), ibv_alloc_pd(3)")
clause("C-RDMA-02", "deregistering a region succeeds", "ibv_dereg_mr(3)")
clause("C-RDMA-03", "remote writing needs local writing: EINVAL", "include/rdma/ib_verbs.h ib_check_mr_access; ibv_reg_mr(3)")
clause("C-URING-04", "a ring has 1 to 32768 entries: EINVAL", "io_uring_setup(2) ERRORS; io_uring/io_uring.c IORING_MAX_ENTRIES")
#: How many entries a ring may be asked for.
MOST_ENTRIES = 32768
#: The size of an AF_XDP chunk.
CHUNK = 4096


def _pin_refusals(c: Context, s: State, m: Mapping, start: int, length: int, driver: str) -> list[tuple[str, bool, str]]:
    """Return why the range cannot be pinned for writing and for long, in the kernel's order: the first reason is the only one."""
    memory = s.memory(m.memory)
    if start < 0 or start + length > m.end or length <= 0:
        raise Undetermined("no clause covers pinning nothing, or behind the end of the mapping")
    answer, clause_id = _answer_for_file(c, memory, m, start, length, driver) if memory.on_volume else ("works", "C-LTP-08")
    refused = (answer, answer != "works", clause_id)
    # io_uring's own check of old kernels comes after the pages were pinned, and so did that for DAX; mm/gup.c then looks at the file first.
    late = answer == "EOPNOTSUPP" and (not _is_fsdax(memory) or _refused_after(c, memory))
    some = mapping_reaches(s, m, start, 1)
    # Of pages that were pinned the areas are looked at, however many they are.
    reaches = some if late and _is_fsdax(memory) else mapping_reaches(s, m, start, length)
    behind_end = "ENOMEM" if driver == "xdp" and some else "EFAULT"
    return _first(
        [
            ("EFAULT", not memory.has_struct_pages, "C-LTP-01"),
            *(() if late else (refused,)),
            ("EFAULT", not m.writable, "C-LTP-06"),
            (behind_end, not reaches, "C-LTP-07"),
            *((refused,) if late else ()),
        ]
    )


def _is_fsdax(memory: Memory) -> bool:
    """Whether this is what the kernel asks of an area that is to be pinned for long (include/linux/fs.h vma_is_fsdax)."""
    return memory.dax and not memory.is_device


def _refused_after(c: Context, memory: Memory) -> bool:
    """Whether what cannot be pinned for long is told when its pages were faulted in and pinned already."""
    return memory.on_volume and volume_fact(c, "dax_pin_refused", memory) == "after"


def _answer_for_file(c: Context, memory: Memory, m: Mapping, start: int, length: int, driver: str) -> tuple[str, str]:
    low, high = page_floor(start), page_ceil(start + length)
    if m.shared:
        if not m.writable and not memory.dax:
            return "works", "C-LTP-03"
        clause_id = "C-LTP-09" if memory.is_device else "C-LTP-02" if memory.dax else "C-LTP-03"
        return str(volume_fact(c, f"longterm_shared_{driver}", memory)), clause_id
    untouched = str(volume_fact(c, f"longterm_private_{driver}", memory))
    if not m.private_pages.touches(low, high) or not m.writable:  # what may not be written is not found writable in page tables
        return untouched, "C-LTP-04"
    copied = str(volume_fact(c, f"longterm_copied_{driver}", memory))
    if m.private_pages.covers(low, high) or copied == untouched:
        return copied, "C-LTP-05"
    # Page tables gave some pages, then the area refused the rest: io_uring makes EFAULT of a part, RDMA asks once more, which finds all
    # in the page tables where the refusal came after they were copied.
    first = low in m.private_pages
    if first and driver == "rdma" and _refused_after(c, memory):
        return "works", "C-LTP-05"
    return ("EFAULT" if first and driver == "io_uring" else untouched), "C-LTP-04"


def _first(rows: list[tuple[str, bool, str]]) -> list[tuple[str, bool, str]]:
    out: list[tuple[str, bool, str]] = []
    held = False
    for errno, condition, clause_id in rows:
        out.append((errno, condition and not held, clause_id))
        held = held or condition
    return out


def _pinned(c: Context, s: State, number: int, start: int, length: int) -> list[State]:
    """Return the states after every page of the range was faulted in: for writing, private pages are copied by that."""
    m = s.mapping(number)
    low, high = page_floor(start), page_ceil(start + length)
    states = touch(s, number, low, high, write=True)
    return [store_into(c, state, number, low, mapping_bytes(state, m, low, high - low)) for state in states]


def _after_refusal(c: Context, s: State, number: int, start: int, length: int) -> list[State]:
    """Return the states after a refusal: it may have come when the pages were faulted in already, private ones copied by that."""
    m = s.mapping(number)
    memory = s.memory(m.memory)
    if not m.writable or not memory.has_struct_pages:
        return [s]
    if _is_fsdax(memory):
        stop = min(start + length, usable_end(s, m))
        return _pinned(c, s, number, start, stop - start) if start < stop and _refused_after(c, memory) else [s]
    if (m.shared and not memory.is_device) or not mapping_reaches(s, m, start, length):
        return [s]
    return [s, *_pinned(c, s, number, start, length)]


@rule(IoUringSetup)
def io_uring_setup(c: Context, s: State, op: IoUringSetup) -> Expectations:
    if refused := c.refuses(("EINVAL", not 0 < op.entries <= MOST_ENTRIES, "C-URING-04")):
        return refused.leaving(s)
    s, number = s.adding(Ring())
    return c.returns("C-URING-01", 0).leaving(s.naming(c.process, op.name, number))


@rule(IoUringRegister)
def io_uring_register(c: Context, s: State, op: IoUringRegister) -> Expectations:
    ring_number, ring = look_up(c, s, op.ring, Ring)
    number, m = look_up(c, s, op.mapping, Mapping)
    length = m.length - op.offset if op.length is None else op.length
    if refused := c.refuses(("EBUSY", ring.registered, "C-URING-02")):
        return refused.leaving(s)
    if refused := c.refuses(*_pin_refusals(c, s, m, op.offset, length, "io_uring")):
        return refused.leaving(*_after_refusal(c, s, number, op.offset, length))
    ringed = s.with_object(ring_number, evolve(ring, registered=True))
    return c.returns("C-LTP-08", 0).leaving(*_pinned(c, ringed, number, op.offset, length))


@rule(IoUringUnregister)
def io_uring_unregister(c: Context, s: State, op: IoUringUnregister) -> Expectations:
    number, ring = look_up(c, s, op.ring, Ring)
    if refused := c.refuses(("ENXIO", not ring.registered, "C-URING-03")):
        return refused.leaving(s)
    return c.returns("C-URING-03", 0).leaving(s.with_object(number, evolve(ring, registered=False)))


@rule(XdpSocket)
def xdp_socket(c: Context, s: State, op: XdpSocket) -> Expectations:
    s, number = s.adding(Socket(SocketKind.XDP))
    return c.returns("C-XDP-01", 0).leaving(s.naming(c.process, op.name, number))


@rule(XdpUmem)
def xdp_umem(c: Context, s: State, op: XdpUmem) -> Expectations:
    socket_number, socket = look_up(c, s, op.socket, Socket)
    number, m = look_up(c, s, op.mapping, Mapping)
    length = m.length - op.offset if op.length is None else op.length
    if refused := c.refuses(
        ("EOPNOTSUPP", socket.kind is SocketKind.UNIX, "C-XDP-04"), ("ENOPROTOOPT", socket.kind is SocketKind.TCP, "C-XDP-04")
    ):
        return refused.leaving(s)
    if refused := c.refuses(("EBUSY", socket.sends > 0, "C-XDP-02")):
        return refused.leaving(s)
    if refused := c.refuses(("EINVAL", op.offset % PAGE != 0 or length % CHUNK != 0, "C-XDP-03")):
        return refused.leaving(s)
    if refused := c.refuses(*_pin_refusals(c, s, m, op.offset, length, "xdp")):
        return refused.leaving(*_after_refusal(c, s, number, op.offset, length))
    owned = s.with_object(socket_number, evolve(socket, sends=1))
    return c.returns("C-LTP-08", 0).leaving(*_pinned(c, owned, number, op.offset, length))


@rule(RdmaOpen)
def rdma_open(c: Context, s: State, op: RdmaOpen) -> Expectations:
    lacking = "the guest has no RDMA device: its kernel lacks soft-RoCE (CONFIG_RDMA_RXE), or its modules"
    none = Expectation(How.FAILED, "", "", names=("ENODEV",), unsure=lacking).leaving(s)
    slow = Expectation(How.BLOCKED, "", "", unsure="opening an RDMA device is more than one system call, and one of them took its time")
    opened, number = s.adding(RdmaDevice())
    return (*c.returns("C-RDMA-01", 0).leaving(opened.naming(c.process, op.name, number)), *none, *slow.leaving(s))


@rule(RdmaRegister)
def rdma_register(c: Context, s: State, op: RdmaRegister) -> Expectations:
    look_up(c, s, op.device, RdmaDevice)
    number, m = look_up(c, s, op.mapping, Mapping)
    length = m.length - op.offset if op.length is None else op.length
    local, remote = RdmaAccess.LOCAL_WRITE in op.access, RdmaAccess.REMOTE_WRITE in op.access
    if refused := c.refuses(("EINVAL", remote and not local, "C-RDMA-03")):
        return refused.leaving(s)
    if not local:
        raise Undetermined("no clause covers a region that is only read")
    if refused := c.refuses(*_pin_refusals(c, s, m, op.offset, length, "rdma")):
        return refused.leaving(*_after_refusal(c, s, number, op.offset, length))
    states = []
    for state in _pinned(c, s, number, op.offset, length):
        state, region = state.adding(RdmaRegion(number))
        states.append(state.naming(c.process, op.name, region))
    return c.returns("C-LTP-08", 0).leaving(*states)


@rule(RdmaDeregister)
def rdma_deregister(c: Context, s: State, op: RdmaDeregister) -> Expectations:
    look_up(c, s, op.region, RdmaRegion)
    return c.returns("C-RDMA-02", 0).leaving(s.without_name(c.process, op.region))
