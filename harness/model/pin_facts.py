"""Facts of long-term pins: io_uring's registered buffers, the memory of an AF_XDP socket, RDMA memory regions."""

from collections.abc import Callable

from harness.model.fact import Kernel, Value, fact
from harness.model.stack import VolumeReading


def _longterm_shared(driver: str) -> Callable[[Kernel, VolumeReading], Value]:
    def value(k: Kernel, v: VolumeReading) -> Value:
        if (v.dax and not v.is_dax_device) or (driver == "io_uring" and not k.since(6, 5)):
            return "EOPNOTSUPP"
        return "EFAULT" if k.since(6, 5) and not v.is_dax_device else "works"

    return value


def _longterm_private(driver: str) -> Callable[[Kernel, VolumeReading], Value]:
    return lambda k, v: "EOPNOTSUPP" if v.dax or (driver == "io_uring" and not k.since(6, 5)) else "works"


def _longterm_copied(driver: str) -> Callable[[Kernel, VolumeReading], Value]:
    def value(k: Kernel, v: VolumeReading) -> Value:
        if driver == "io_uring":
            return "works" if k.since(6, 10) or (k.since(6, 5) and not v.dax) else "EOPNOTSUPP"
        return "EOPNOTSUPP" if v.dax and driver == "xdp" else "works"

    return value


for _driver in ("io_uring", "xdp", "rdma"):
    fact(
        f"longterm_shared_{_driver}",
        f"what a long-term pin by {_driver} of a shared writable file mapping ends in",
        "mm/gup.c check_vma_flags: FOLL_LONGTERM and vma_is_fsdax (false for a page-cache mapping) is EOPNOTSUPP; "
        "writable_file_mapping_allowed is EFAULT since 6.5; up to 6.4 io_uring/rsrc.c io_pin_pages refused files itself (EOPNOTSUPP), "
        "net/xdp/xdp_umem.c and drivers/infiniband/core/umem.c did not; a dax device is not fsdax, and nobody tracks what of it is dirty",
        ("EOPNOTSUPP", "EFAULT", "works"),
        _longterm_shared(_driver),
    )
    fact(
        f"longterm_private_{_driver}",
        f"what a long-term pin by {_driver} of an untouched private file mapping ends in",
        "as longterm_shared; a private page-cache mapping needs no dirty tracking: it is copied on write first and then anonymous",
        ("EOPNOTSUPP", "works"),
        _longterm_private(_driver),
    )
    fact(
        f"longterm_copied_{_driver}",
        f"what a long-term pin by {_driver} of a private file mapping ends in whose every page was copied on write",
        "pin_user_pages_fast looks at page tables first and finds anonymous pages there: drivers/infiniband/core/umem.c, "
        "io_uring/memmap.c since 6.10; net/xdp/xdp_umem.c takes pin_user_pages, which looks at the area",
        ("EOPNOTSUPP", "works"),
        _longterm_copied(_driver),
    )
fact(
    "dax_pin_refused",
    "when a long-term pin of a mapping of a DAX file is refused: before or after its pages are faulted in for writing",
    "mm/gup.c check_vma_flags (6.1) looks at the area first; check_dax_vmas (5.10, gone in 5.11) at those of pinned pages",
    ("before", "after"),
    lambda k, v: "before" if not v.dax or k.since(5, 11) else "after",
)
