"""Long-term pins: what holds pages for a device."""

from harness.ops.words import (
    MAPPING,
    RDMA,
    RDMA_REGION,
    READ,
    RING,
    SOCKET,
    Count,
    Flag,
    Offset,
    Operation,
    Shown,
    Size,
    new,
    operation,
    ref,
)


class RdmaAccess(Flag):
    LOCAL_WRITE = "local_write", 1
    REMOTE_WRITE = "remote_write", 2
    REMOTE_READ = "remote_read", 4


@operation("io_uring_setup")
class IoUringSetup(Operation):
    name: str = new(RING)
    entries: Count = 4


@operation("io_uring_register")
class IoUringRegister(Operation):
    """io_uring_register(2) IORING_REGISTER_BUFFERS with one buffer."""

    ring: str = ref(RING, uses=READ)
    mapping: str = ref(MAPPING)
    offset: Offset = 0
    length: Size | None = None


@operation("io_uring_unregister")
class IoUringUnregister(Operation):
    """io_uring_register(2) IORING_UNREGISTER_BUFFERS."""

    ring: str = ref(RING, uses=READ)


@operation("xdp_socket")
class XdpSocket(Operation):
    """socket(2) AF_XDP."""

    name: str = new(SOCKET)


@operation("xdp_umem")
class XdpUmem(Operation):
    """setsockopt(2) XDP_UMEM_REG over a range of a mapping, in chunks of 4 KiB."""

    socket: str = ref(SOCKET, uses=READ)
    mapping: str = ref(MAPPING)
    offset: Offset = 0
    length: Size | None = None


@operation("rdma_open", Shown("reason", "what the guest lacks, where it has no RDMA device"))
class RdmaOpen(Operation):
    """ibv_open_device and ibv_alloc_pd of the guest's soft-RoCE device."""

    name: str = new(RDMA)


@operation("rdma_register")
class RdmaRegister(Operation):
    """ibv_reg_mr over a range of a mapping."""

    name: str = new(RDMA_REGION)
    device: str = ref(RDMA)
    mapping: str = ref(MAPPING)
    offset: Offset = 0
    length: Size | None = None
    access: tuple[RdmaAccess, ...] = (RdmaAccess.LOCAL_WRITE,)


@operation("rdma_deregister")
class RdmaDeregister(Operation):
    """ibv_dereg_mr."""

    region: str = ref(RDMA_REGION)
