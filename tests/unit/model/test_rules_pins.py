"""Long-term pins by io_uring, AF_XDP and RDMA, on hand-written observations."""

import pytest

from harness.model.facts import Env
from harness.model.outcome import Observation
from harness.model.verdict import Verdict
from harness.ops import (
    IoUringRegister,
    IoUringSetup,
    IoUringUnregister,
    Load,
    MapFlag,
    Mmap,
    Open,
    OpenFlag,
    Operation,
    Protection,
    Pwrite,
    RdmaAccess,
    RdmaDeregister,
    RdmaOpen,
    RdmaRegister,
    Store,
    XdpSocket,
    XdpUmem,
)
from tests.unit.model.stacks import DAX, PAGE_CACHE, Row, env, failed, judged, returned, tag, volume

OLD = "6.1.0-40-cloud-amd64"
#: It looks at what was pinned, and not before.
OLDEST = "5.10.0-46-cloud-amd64"
DAX_OLDEST = env(volume(dax=True), release=OLDEST)
DAX_OLD, PAGE_CACHE_OLD = env(volume(dax=True), release=OLD), env(volume(dax=False), release=OLD)

FILE: list[Row] = [(Open("f", "a", (OpenFlag.RDWR, OpenFlag.CREAT)), returned()), (Pwrite("f", 0, 8192), returned(8192))]
SHARED: list[Row] = [*FILE, (Mmap("m", 8192, "f"), returned())]
READ_ONLY: list[Row] = [*FILE, (Mmap("m", 8192, "f", protection=(Protection.READ,)), returned())]
PRIVATE: list[Row] = [*FILE, (Mmap("m", 8192, "f", flags=(MapFlag.PRIVATE,)), returned())]
COPIED: list[Row] = [*PRIVATE, (Store("m", 0, 8192), returned(8192))]
HALF: list[Row] = [*PRIVATE, (Store("m", 0, 4096), returned(4096))]
ANONYMOUS: list[Row] = [(Mmap("m", 8192, flags=(MapFlag.PRIVATE, MapFlag.ANONYMOUS)), returned())]
BAR: list[Row] = [(Open("b", "bar:", (OpenFlag.RDWR,)), returned()), (Mmap("m", 8192, "b"), returned())]
ALL_BEHIND_END: list[Row] = [(Open("f", "a", (OpenFlag.RDWR, OpenFlag.CREAT)), returned()), (Mmap("m", 8192, "f"), returned())]
BEHIND_END: list[Row] = [*FILE, (Mmap("m", 16384, "f", flags=(MapFlag.PRIVATE,)), returned())]

RING: Row = (IoUringSetup("r"), returned())
SOCKET: Row = (XdpSocket("x"), returned())
RDMA: Row = (RdmaOpen("d"), returned())
DRIVERS: dict[str, tuple[Row, Operation]] = {
    "io_uring": (RING, IoUringRegister("r", "m")),
    "xdp": (SOCKET, XdpUmem("x", "m")),
    "rdma": (RDMA, RdmaRegister("region", "d", "m")),
}
WORKS = "works"


def answer(word: str) -> Observation:
    return returned() if word == WORKS else failed(word)


@pytest.mark.parametrize(
    ("where", "memory", "io_uring", "xdp", "rdma"),
    [
        (DAX, SHARED, "EOPNOTSUPP", "EOPNOTSUPP", "EOPNOTSUPP"),
        (DAX_OLD, SHARED, "EOPNOTSUPP", "EOPNOTSUPP", "EOPNOTSUPP"),
        (PAGE_CACHE, SHARED, "EFAULT", "EFAULT", "EFAULT"),
        (PAGE_CACHE_OLD, SHARED, "EOPNOTSUPP", WORKS, WORKS),
        (DAX, READ_ONLY, "EOPNOTSUPP", "EOPNOTSUPP", "EOPNOTSUPP"),
        (PAGE_CACHE, READ_ONLY, "EFAULT", "EFAULT", "EFAULT"),
        (PAGE_CACHE_OLD, READ_ONLY, "EFAULT", "EFAULT", "EFAULT"),
        (DAX, PRIVATE, "EOPNOTSUPP", "EOPNOTSUPP", "EOPNOTSUPP"),
        (PAGE_CACHE, PRIVATE, WORKS, WORKS, WORKS),
        (PAGE_CACHE_OLD, PRIVATE, "EOPNOTSUPP", WORKS, WORKS),
        (DAX, COPIED, WORKS, "EOPNOTSUPP", WORKS),
        (DAX_OLD, COPIED, "EOPNOTSUPP", "EOPNOTSUPP", WORKS),
        (PAGE_CACHE, COPIED, WORKS, WORKS, WORKS),
        (PAGE_CACHE_OLD, COPIED, "EOPNOTSUPP", WORKS, WORKS),
        (DAX, HALF, "EFAULT", "EOPNOTSUPP", "EOPNOTSUPP"),
        (DAX_OLDEST, SHARED, "EOPNOTSUPP", "EOPNOTSUPP", "EOPNOTSUPP"),
        (DAX_OLDEST, PRIVATE, "EOPNOTSUPP", "EOPNOTSUPP", "EOPNOTSUPP"),
        (DAX_OLDEST, HALF, "EOPNOTSUPP", "EOPNOTSUPP", WORKS),  # asked once more, it finds what the refusal has copied
        (DAX_OLDEST, BEHIND_END, "EOPNOTSUPP", "EOPNOTSUPP", "EOPNOTSUPP"),
        (DAX_OLDEST, ALL_BEHIND_END, "EFAULT", "EFAULT", "EFAULT"),
        (DAX, ALL_BEHIND_END, "EOPNOTSUPP", "EOPNOTSUPP", "EOPNOTSUPP"),
        (DAX, ANONYMOUS, WORKS, WORKS, WORKS),
        (DAX, BAR, "EFAULT", "EFAULT", "EFAULT"),
        (PAGE_CACHE, BEHIND_END, "EFAULT", "ENOMEM", "EFAULT"),
    ],
)
def test_what_can_be_pinned_for_long(where: Env, memory: list[Row], io_uring: str, xdp: str, rdma: str) -> None:
    for driver, allowed in (("io_uring", io_uring), ("xdp", xdp), ("rdma", rdma)):
        made, pin = DRIVERS[driver]
        for word in (WORKS, "EFAULT", "EOPNOTSUPP", "ENOMEM"):
            wanted = Verdict.CONFORMS if word == allowed else Verdict.DEVIATES
            assert judged(where, *memory, made, (pin, answer(word))).steps[-1].verdict is wanted, (driver, word)


def test_a_pin_of_a_private_mapping_copies_its_pages() -> None:
    rows = [*PRIVATE, RING, (IoUringRegister("r", "m"), returned()), (Pwrite("f", 0, 8192), returned(8192))]
    assert judged(PAGE_CACHE, *rows, (Load("m", 0, 8192), returned(8192, tag(8192, 2)))).verdict is Verdict.CONFORMS
    assert judged(PAGE_CACHE, *rows, (Load("m", 0, 8192), returned(8192, tag(8192, 6)))).verdict is Verdict.DEVIATES


def test_a_refusal_of_an_old_kernel_may_have_copied_the_pages() -> None:
    rows = [*PRIVATE, RING, (IoUringRegister("r", "m"), failed("EOPNOTSUPP")), (Pwrite("f", 0, 8192), returned(8192))]
    for writer in (2, 6):
        assert judged(PAGE_CACHE_OLD, *rows, (Load("m", 0, 8192), returned(8192, tag(8192, writer)))).verdict is Verdict.CONFORMS
    assert judged(PAGE_CACHE_OLD, *rows, (Load("m", 0, 8192), returned(8192, tag(8192, 9)))).verdict is Verdict.DEVIATES


@pytest.mark.parametrize(("where", "writer"), [(DAX_OLDEST, 2), (DAX, 6)])
def test_a_refusal_that_comes_after_the_faults_leaves_private_pages_copied(where: Env, writer: int) -> None:
    rows = [*PRIVATE, RING, (IoUringRegister("r", "m"), failed("EOPNOTSUPP")), (Pwrite("f", 0, 8192), returned(8192))]
    for other in (2, 6):
        wanted = Verdict.CONFORMS if other == writer else Verdict.DEVIATES
        assert judged(where, *rows, (Load("m", 0, 8192), returned(8192, tag(8192, other)))).verdict is wanted


@pytest.mark.parametrize(("where", "faults"), [(DAX_OLDEST, 0), (DAX, 2)])
def test_a_refusal_that_comes_after_the_faults_leaves_shared_pages_mapped(where: Env, faults: int) -> None:
    rows = [*SHARED, RING, (IoUringRegister("r", "m"), failed("EOPNOTSUPP"))]
    for count in (0, 2):
        wanted = Verdict.CONFORMS if count == faults else Verdict.DEVIATES
        assert judged(where, *rows, (Store("m", 0, 8192), returned(8192, minor_faults=count))).verdict is wanted


def test_a_ring_has_one_set_of_buffers_until_it_is_unregistered() -> None:
    register, unregister = IoUringRegister("r", "m"), IoUringUnregister("r")
    rows = [*ANONYMOUS, RING, (register, returned())]
    assert judged(DAX, *rows, (register, failed("EBUSY"))).verdict is Verdict.CONFORMS
    assert judged(DAX, *rows, (register, returned())).verdict is Verdict.DEVIATES
    assert judged(DAX, *rows, (unregister, returned()), (register, returned())).verdict is Verdict.CONFORMS
    assert judged(DAX, RING, (unregister, failed("ENXIO"))).verdict is Verdict.CONFORMS
    assert judged(DAX, RING, (unregister, returned())).verdict is Verdict.DEVIATES


def test_a_socket_has_one_umem_of_whole_chunks() -> None:
    assert (
        judged(DAX, *ANONYMOUS, SOCKET, (XdpUmem("x", "m"), returned()), (XdpUmem("x", "m"), failed("EBUSY"))).verdict is Verdict.CONFORMS
    )
    assert judged(DAX, *ANONYMOUS, SOCKET, (XdpUmem("x", "m", 0, 5000), failed("EINVAL"))).verdict is Verdict.CONFORMS
    assert judged(DAX, *ANONYMOUS, SOCKET, (XdpUmem("x", "m", 0, 5000), returned())).verdict is Verdict.DEVIATES


def test_a_region_is_registered_and_deregistered() -> None:
    rows = [*ANONYMOUS, RDMA, (RdmaRegister("region", "d", "m"), returned())]
    assert judged(DAX, *rows, (RdmaDeregister("region"), returned())).verdict is Verdict.CONFORMS
    assert judged(DAX, *rows, (RdmaDeregister("region"), failed("EBUSY"))).verdict is Verdict.DEVIATES


def test_a_region_for_remote_writing_needs_local_writing_and_one_for_reading_has_no_clause() -> None:
    remote = RdmaRegister("region", "d", "m", access=(RdmaAccess.REMOTE_WRITE,))
    reading = RdmaRegister("region", "d", "m", access=(RdmaAccess.REMOTE_READ,))
    assert judged(DAX, *ANONYMOUS, RDMA, (remote, failed("EINVAL"))).verdict is Verdict.CONFORMS
    assert judged(DAX, *ANONYMOUS, RDMA, (reading, returned())).verdict is Verdict.UNDETERMINED


@pytest.mark.parametrize("make", [IoUringSetup("r"), XdpSocket("x"), RdmaOpen("d")])
def test_what_a_pin_needs_is_made_or_the_step_deviates(make: Operation) -> None:
    assert judged(DAX, (make, returned())).verdict is Verdict.CONFORMS
    assert judged(DAX, (make, failed("ENOMEM"))).verdict is Verdict.DEVIATES


def test_pinning_nothing_is_undetermined() -> None:
    assert judged(DAX, *ANONYMOUS, RING, (IoUringRegister("r", "m", 0, 0), failed("EFAULT"))).verdict is Verdict.UNDETERMINED


def test_a_guest_without_an_rdma_device_says_nothing_of_its_kernel() -> None:
    assert judged(DAX, (RdmaOpen("d"), failed("ENODEV"))).verdict is Verdict.UNDETERMINED
    assert judged(DAX, (RdmaOpen("d"), failed("EPERM"))).verdict is Verdict.DEVIATES
