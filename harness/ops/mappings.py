"""Operations on mappings: each is one system call, one load or one store."""

from harness.ops.words import (
    DATA,
    FILE,
    FRAMES,
    MAPPING,
    MINOR_FAULTS,
    READ,
    RESIDENT,
    Count,
    Flag,
    Offset,
    Operation,
    Shown,
    Size,
    maybe_ref,
    new,
    operation,
    ref,
)


class MapFlag(Flag):
    SHARED = "shared", 0x1
    PRIVATE = "private", 0x2
    SHARED_VALIDATE = "shared_validate", 0x3
    SYNC = "sync", 0x80000
    POPULATE = "populate", 0x8000
    ANONYMOUS = "anonymous", 0x20
    HUGETLB = "hugetlb", 0x40000
    HUGE_2MB = "huge_2mb", 21 << 26
    LOCKED = "locked", 0x2000
    NORESERVE = "noreserve", 0x4000


class Protection(Flag):
    NONE = "none", 0
    READ = "read", 1
    WRITE = "write", 2


class Advice(Flag):
    """madvise(2) advice."""

    NORMAL = "normal", 0
    HUGEPAGE = "hugepage", 14
    NOHUGEPAGE = "nohugepage", 15
    DONTNEED = "dontneed", 4
    POPULATE_READ = "populate_read", 22
    POPULATE_WRITE = "populate_write", 23
    REMOVE = "remove", 9


class SyncFlag(Flag):
    """msync(2) flags."""

    SYNC = "sync", 4
    ASYNC = "async", 1
    INVALIDATE = "invalidate", 2


#: An attribute beside the minor faults: those that allocated blocks, or waited for a device.
MAJOR_FAULTS = Shown("major_faults", "major faults taken", "faults")
#: The sizes of /proc/self/smaps, by what they are called there.
SMAPS_SIZES = {
    "Rss": "rss",
    "KernelPageSize": "kernel_page_size",
    "AnonHugePages": "anonymous_huge",
    "FilePmdMapped": "file_pmd_mapped",
    "Shared_Hugetlb": "shared_hugetlb",
    "Locked": "locked",
}


@operation("mmap", Shown("address_mod_2mib", "how far behind a boundary of 2 MiB the mapping begins", "bytes"))
class Mmap(Operation):
    """mmap(2). ``align`` asks for an address that is a multiple of it plus ``align_shift`` (a hint computed by the
    agent inside a reserved range; 0 leaves the choice to the kernel)."""

    name: str = new(MAPPING)
    length: Size
    file: str | None = maybe_ref(FILE, default=None, uses=READ)
    offset: Offset = 0
    protection: tuple[Protection, ...] = (Protection.READ, Protection.WRITE)
    flags: tuple[MapFlag, ...] = (MapFlag.SHARED,)
    align: Size = 0
    align_shift: Size = 0


@operation("munmap")
class Munmap(Operation):
    """munmap(2). What is taken away of a mapping stays without access; without its end, the mapping is shorter from then on."""

    mapping: str = ref(MAPPING)
    offset: Offset = 0
    length: Size | None = None


@operation("mprotect")
class Mprotect(Operation):
    mapping: str = ref(MAPPING)
    protection: tuple[Protection, ...]
    offset: Offset = 0
    length: Size | None = None


@operation("madvise")
class Madvise(Operation):
    mapping: str = ref(MAPPING)
    advice: Advice
    offset: Offset = 0
    length: Size | None = None


@operation("load", DATA, MINOR_FAULTS, MAJOR_FAULTS)
class Load(Operation):
    """Loads of ``length`` bytes; evidence: the bytes, and the minor faults taken."""

    mapping: str = ref(MAPPING)
    offset: Offset
    length: Size


@operation("store", MINOR_FAULTS, MAJOR_FAULTS)
class Store(Operation):
    """Stores of ``length`` tagged bytes, or of one 32-bit little-endian ``value``; evidence: the minor faults taken."""

    mapping: str = ref(MAPPING)
    offset: Offset
    length: Size = 4
    value: Count | None = None


@operation("msync")
class Msync(Operation):
    mapping: str = ref(MAPPING)
    offset: Offset = 0
    length: Size | None = None
    flags: tuple[SyncFlag, ...] = (SyncFlag.SYNC,)


@operation("mincore", RESIDENT)
class Mincore(Operation):
    """mincore(2); evidence: one bit a page."""

    mapping: str = ref(MAPPING)
    offset: Offset = 0
    length: Size | None = None


@operation("pagemap", FRAMES)
class Pagemap(Operation):
    """/proc/self/pagemap; evidence: the physical frame number a page (0: none present)."""

    mapping: str = ref(MAPPING)
    offset: Offset = 0
    length: Size | None = None


@operation(
    "smaps",
    *(Shown(name, f"{field} of the areas of the mapping, together", "bytes") for field, name in SMAPS_SIZES.items()),
    Shown("vm_flags", "VmFlags of the first area"),
)
class Smaps(Operation):
    """/proc/self/smaps of the mapping; evidence: VmFlags and the sizes in bytes."""

    mapping: str = ref(MAPPING)


@operation("mlock")
class Mlock(Operation):
    mapping: str = ref(MAPPING)
    offset: Offset = 0
    length: Size | None = None


@operation("munlock")
class Munlock(Operation):
    mapping: str = ref(MAPPING)
    offset: Offset = 0
    length: Size | None = None
