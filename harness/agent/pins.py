"""Long-term pins."""

import ctypes
import errno
import functools
import struct
from typing import Any

from harness.agent.outcome import Outcome, failed, nothing_or_errno, outcome, returned
from harness.agent.performer import Ends, Performer, bits, doer
from harness.agent.syscalls import call
from harness.ops.pins import IoUringRegister, IoUringSetup, IoUringUnregister, RdmaDeregister, RdmaOpen, RdmaRegister, XdpSocket, XdpUmem

_AF_XDP, _SOCK_RAW, _SOL_XDP, _XDP_UMEM_REG, _XDP_CHUNK = 44, 3, 283, 4, 4096


@doer
def do_io_uring_setup(me: Performer, op: IoUringSetup) -> Outcome:
    parameters = ctypes.create_string_buffer(120)
    descriptor = call("io_uring_setup", op.entries, ctypes.addressof(parameters))
    if descriptor >= 0:
        me.add(op.name, Ends(descriptor, descriptor))
    return nothing_or_errno(descriptor)


@doer
def do_io_uring_register(me: Performer, op: IoUringRegister) -> Outcome:
    vector = me.scratch.iovec([me.mapping(op.mapping).part(op.offset, op.length)])
    return outcome(call("io_uring_register", me.source(op.ring), 0, vector, 1))


@doer
def do_io_uring_unregister(me: Performer, op: IoUringUnregister) -> Outcome:
    return outcome(call("io_uring_register", me.source(op.ring), 1, 0, 0))


@doer
def do_xdp_socket(me: Performer, op: XdpSocket) -> Outcome:
    descriptor = call("socket", _AF_XDP, _SOCK_RAW, 0)
    if descriptor >= 0:
        me.add(op.name, Ends(descriptor, descriptor))
    return nothing_or_errno(descriptor)


@doer
def do_xdp_umem(me: Performer, op: XdpUmem) -> Outcome:
    address, size = me.mapping(op.mapping).part(op.offset, op.length)
    # The first version of struct xdp_umem_reg (24 bytes), which every kernel takes.
    record = ctypes.create_string_buffer(struct.pack("=QQII", address, size, _XDP_CHUNK, 0), 24)
    return outcome(call("setsockopt", me.source(op.socket), _SOL_XDP, _XDP_UMEM_REG, ctypes.addressof(record), 24))


class RdmaHandle:
    """An RDMA device with its protection domain."""

    def __init__(self, library: Any, domain: int) -> None:
        self.library, self.domain = library, domain


@functools.cache
def _rdma_library() -> Any:
    """libibverbs, or None where the guest has none."""
    try:
        library = ctypes.CDLL("libibverbs.so.1", use_errno=True)
    except OSError:
        return None
    for name, result, arguments in (
        ("ibv_get_device_list", ctypes.c_void_p, [ctypes.c_void_p]),
        ("ibv_open_device", ctypes.c_void_p, [ctypes.c_void_p]),
        ("ibv_alloc_pd", ctypes.c_void_p, [ctypes.c_void_p]),
        ("ibv_reg_mr", ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]),
        ("ibv_dereg_mr", ctypes.c_int, [ctypes.c_void_p]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


@doer
def do_rdma_open(me: Performer, op: RdmaOpen) -> Outcome:
    library = _rdma_library()
    if library is None:
        return failed(errno.ENODEV, attributes={"reason": "the guest has no libibverbs"})
    count = ctypes.c_int()
    devices = library.ibv_get_device_list(ctypes.addressof(count))
    if not devices or count.value == 0:
        return failed(errno.ENODEV, attributes={"reason": "the guest has no RDMA device"})
    first = ctypes.c_void_p.from_address(devices).value
    context = library.ibv_open_device(first)
    domain = library.ibv_alloc_pd(context) if context else None
    if not domain:
        return failed(ctypes.get_errno() or errno.EIO)
    me.names[op.name] = RdmaHandle(library, domain)
    return returned()


@doer
def do_rdma_register(me: Performer, op: RdmaRegister) -> Outcome:
    verbs = me.named(op.device)
    address, size = me.mapping(op.mapping).part(op.offset, op.length)
    region = verbs.library.ibv_reg_mr(verbs.domain, address, size, bits(op.access))
    if not region:
        return failed(ctypes.get_errno())
    me.names[op.name] = RdmaHandle(verbs.library, region)
    return returned()


@doer
def do_rdma_deregister(me: Performer, op: RdmaDeregister) -> Outcome:
    verbs = me.named(op.region)
    number = verbs.library.ibv_dereg_mr(verbs.domain)
    if number == 0:
        del me.names[op.region]
    return returned() if number == 0 else failed(number)
