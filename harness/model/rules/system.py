"""Rules for the system around a program: mounting, the page cache as a whole, and what /proc/meminfo counts."""

from collections.abc import Sequence

from harness.model.clause import Context, Undetermined, clause
from harness.model.content import Ranges, zeroes
from harness.model.expectation import ANY, Expectations, Next, Number, either, open_end
from harness.model.fact import FACTS
from harness.model.filesystems import FILESYSTEM_TRAITS, NODE, Filesystem, WithoutDax
from harness.model.mount_facts import fact_of_mount, fact_of_partition, fact_of_words
from harness.model.objects import Memory, page_ceil
from harness.model.outcome import How, Observation
from harness.model.prepared import with_prepared
from harness.model.rules.effects import laid, used_pages
from harness.model.rules.rule import rule
from harness.model.stack import OVERLAY
from harness.model.state import State
from harness.model.value import evolve
from harness.ops import DropCaches, Meminfo, MountOverlay, MountVolume, UmountVolume
from harness.sizes import MIB

#: What the guest's own doings may add to the page cache, or take from it, between two looks.
CACHED_NOISE = MIB // 2
clause("C-MOUNT-01", "a file system is mounted", "mount(2)")
clause(
    "C-MOUNT-02",
    "where the file system refuses it (ext4), dax=always on a device without DAX (no struct pages, or no direct access at all) is EINVAL",
    "fs/ext4/super.c ext4_fill_super (since 5.4)",
)
clause(
    "C-MOUNT-07",
    "a word for DAX that the file system does not know is EINVAL: where files have no DAX state of their own that is dax=inode (erofs), or "
    "all but the word dax (ext2)",
    "fs/ext2/super.c parse_options; fs/erofs/super.c erofs_dax_param_enums",
)
clause(
    "C-MOUNT-11",
    "before it had DAX, a file system knows no word for it: EINVAL (erofs, before 5.15)",
    "fs/erofs/super.c erofs_fs_parameters",
)
clause(
    "C-MOUNT-08",
    "dax=always of a file system that cannot have it as it was made is EINVAL (ext4 with blocks smaller than a page or with inline data; "
    "xfs with reflink, before 6.0), or goes on without DAX (xfs with blocks smaller than a page)",
    "fs/ext4/super.c ext4_fill_super; fs/xfs/xfs_super.c xfs_setup_dax_always, xfs_fs_fill_super (5.10)",
)
clause(
    "C-MOUNT-09",
    "data=journal and dax=always exclude each other on ext4: EINVAL",
    "fs/ext4/super.c ext4_fill_super, ext4_load_and_init_journal",
)
clause(
    "C-MOUNT-10",
    "xfs with reflink refuses dax=always on a partition that could have DAX: EINVAL",
    "fs/xfs/xfs_super.c xfs_setup_dax_always (since 6.0)",
)
clause("C-OVERLAY-01", "overlayfs is mounted over a file system that nobody can write to", "mount(2); fs/overlayfs/super.c ovl_fill_super")
clause("C-MOUNT-03", "a device that is mounted there already is EBUSY", "mount(2) ERRORS")
clause("C-DEVDAX-09", "a dax device is no block device: mounting it is ENOTBLK", "mount(2) ERRORS; block/bdev.c lookup_bdev")
clause("C-MOUNT-04", "umount of an unused mount succeeds", "umount2(2)")
clause("C-MOUNT-05", "umount while a file on it is open or mapped is EBUSY, and EINVAL where nothing is mounted", "umount2(2) ERRORS")
clause(
    "C-MOUNT-06",
    "a device that is read-only is mounted read-only, or not at all: EACCES",
    "mount(2) ERRORS; fs/super.c setup_bdev_super (get_tree_bdev before 6.6)",
)
clause("C-CACHE-01", "dropping caches succeeds; clean pages that nobody uses go, the others stay", "proc_sys_vm(5) drop_caches")
clause("C-CACHE-02", "/proc/meminfo can be read", "proc_meminfo(5)")
clause(
    "C-CACHE-03",
    "the page cache grows by the pages that were brought in, at most as much again by readahead; DAX brings in none",
    "proc_meminfo(5): Cached for files, Buffers for nodes; mm/readahead.c: no more ahead than the request or the window; "
    "fs/dax.c: the entries of a DAX file are values, not pages",
)


@rule(MountVolume)
def mount(c: Context, s: State, op: MountVolume) -> Expectations:
    slow = open_end(How.BLOCKED, "the kernel may wait for the module of a file system as long as the guest takes to load it")
    return either((slow,), lambda: _mounting(c, s, op))


def _mounting(c: Context, s: State, op: MountVolume) -> Expectations:
    if refused := c.refuses(("ENOTBLK", c.env.reading.volume(op.volume).is_dax_device, "C-DEVDAX-09")):
        return refused.leaving(s)
    words = op.options.split(",")
    asked = [word for word in words if word.partition("=")[0] == "dax"]
    unknown = any(word not in _known_words(op) for word in asked)
    early = bool(asked) and not _knows_words(c, op)
    wants = not unknown and not early and _dax_wanted(words)
    without, made_without = _without_dax(c, op), _made_without_dax(c, op)
    journals = "data=journal" in words
    asks, closed = "ro" in words, c.env.reading.volume(op.volume).read_only
    if asks and not closed and not _is_read_only(op):
        raise Undetermined("what a read-only mount of a device that can be written allows is not known to the model")
    if refused := c.refuses(
        ("EBUSY", op.volume in s.mounted or _set_up(c, op.volume), "C-MOUNT-03"),
        ("EACCES", closed and not asks, "C-MOUNT-06"),
        ("EINVAL", wants and without is WithoutDax.REFUSED, "C-MOUNT-02"),
        ("EINVAL", wants and made_without is WithoutDax.REFUSED, "C-MOUNT-08"),
        ("EINVAL", wants and journals, "C-MOUNT-09"),
        ("EINVAL", unknown, "C-MOUNT-07"),
        ("EINVAL", early, "C-MOUNT-11"),
        ("EINVAL", wants and without is None and _refuses_partition(c, op), "C-MOUNT-10"),
    ):
        return refused.leaving(s)
    if journals:
        raise Undetermined("what data=journal makes of a file is judged only where the set-up mounts")
    if wants and made_without is WithoutDax.DROPPED:
        wants = not c.holds("C-MOUNT-08", True)
    wants = wants and without is not WithoutDax.DROPPED
    s = evolve(s, mounted=s.mounted.having(op.volume, wants))
    for number, memory in _memories(s, op.volume):
        s = s.with_object(number, evolve(memory, dax=wants))
    s = with_prepared(c.env, s, op.volume, op.filesystem, dax=wants)
    return c.returns("C-MOUNT-01", 0).leaving(s)


def _without_dax(c: Context, op: MountVolume) -> WithoutDax | None:
    """What becomes of DAX that is asked for on this volume; None: it is given, or nobody knows the file system."""
    if op.filesystem not in set(Filesystem):
        return None
    filesystem = Filesystem(op.filesystem)
    return filesystem.traits.without_dax if c.env.fact(fact_of_mount(filesystem), op.volume) else None


def _refuses_partition(c: Context, op: MountVolume) -> bool:
    name = fact_of_partition(Filesystem(op.filesystem)) if op.filesystem in set(Filesystem) else ""
    return name in FACTS and bool(c.env.fact(name, op.volume))


def _made_without_dax(c: Context, op: MountVolume) -> WithoutDax | None:
    """What becomes of dax=always for how the file system was made; None: it is given, or nobody knows the file system."""
    if op.filesystem not in set(Filesystem) or c.env.fact("format_mounts_dax", op.volume):
        return None
    return c.env.reading.volume(op.volume).format.traits.dropped_or_refused(Filesystem(op.filesystem).traits)


def _set_up(c: Context, volume: str) -> bool:
    """Whether the set-up mounted a volume, and not the program."""
    return any(v.role == volume and v.filesystem is not None for v in c.env.reading.volumes)


def _known_words(op: MountVolume) -> tuple[str, ...]:
    """The words for DAX of a file system; of one that nobody knows those of the others."""
    return FILESYSTEM_TRAITS.get(op.filesystem, NODE).dax_words


def _knows_words(c: Context, op: MountVolume) -> bool:
    name = fact_of_words(Filesystem(op.filesystem)) if op.filesystem in set(Filesystem) else ""
    return name not in FACTS or bool(c.env.fact(name, op.volume))


def _is_read_only(op: MountVolume) -> bool:
    return op.filesystem in FILESYSTEM_TRAITS and FILESYSTEM_TRAITS[op.filesystem].is_read_only


def _dax_wanted(words: Sequence[str]) -> bool:
    if "dax=inode" in words:
        raise Undetermined("what dax=inode makes of a file is judged only where the set-up mounts")
    return "dax" in words or "dax=always" in words


@rule(MountOverlay)
def mount_overlay(c: Context, s: State, op: MountOverlay) -> Expectations:
    if OVERLAY in s.mounted:
        raise Undetermined("no clause covers a second overlay")
    return c.returns("C-OVERLAY-01", 0).leaving(evolve(s, mounted=s.mounted.having(OVERLAY, False)))


@rule(UmountVolume)
def umount(c: Context, s: State, op: UmountVolume) -> Expectations:
    if refused := c.refuses(
        ("EINVAL", op.volume not in s.mounted and not _set_up(c, op.volume), "C-MOUNT-05"),
        ("EBUSY", any(s.is_used(number) for number, _ in _memories(s, op.volume)), "C-MOUNT-05"),
    ):
        return refused.leaving(s)
    expected = c.returns("C-MOUNT-04", 0)
    if _set_up(c, op.volume):
        return (expected.unjudged_for("what the guest has below the mount point of a volume is not known to the model"),)
    s = evolve(s, mounted=s.mounted.without(op.volume))
    for number, memory in _memories(s, op.volume):
        tail = page_ceil(memory.size) - memory.size
        kept = memory if memory.dax else laid(memory, memory.size, zeroes(tail))
        s = s.with_object(number, evolve(kept, cached=Ranges(), perhaps=Ranges()))
    return expected.leaving(s)


def _memories(s: State, volume: str) -> list[tuple[int, Memory]]:
    """Return the files of a volume that the model knows."""
    return [(n, thing) for n, thing in s.objects.items() if isinstance(thing, Memory) and thing.is_file and thing.volume == volume]


@rule(DropCaches)
def drop_caches(c: Context, s: State, op: DropCaches) -> Expectations:
    """The pages of a file that was synced are lost unless somebody uses them; which of another's are clean is the writeback's affair."""
    expected = c.returns("C-CACHE-01", 0)
    s = evolve(s, meminfo=None)
    for number, memory in s.objects.items():
        if isinstance(memory, Memory) and memory.cached.spans:
            used = used_pages(s, number, memory)
            perhaps = memory.perhaps
            for low, high in memory.cached.spans:
                perhaps = perhaps.add(low, high) if memory.unsynced else perhaps.remove(low, high)
            for low, high in used.spans:
                perhaps = perhaps.remove(low, high)
            s = s.with_object(number, evolve(memory, cached=used, perhaps=perhaps))
    return expected.leaving(s)


@rule(Meminfo)
def meminfo(c: Context, s: State, op: Meminfo) -> Expectations:
    """``State.meminfo`` is what the page cache holds beside the pages of the program's files, as of the last look."""
    memories = [m for m in s.objects.values() if isinstance(m, Memory)]
    surely = sum(m.cached.total() for m in memories)
    perhaps = sum(m.perhaps.total() for m in memories)
    evidence: tuple[Number, ...] = ()
    if s.meminfo is not None:
        low, high = s.meminfo
        slack = max(CACHED_NOISE, surely // 10)
        least, most = low + surely - slack, high + surely + perhaps + slack + s.read_ahead
        allowed = f"{least}..{most} bytes cached ({surely} of it this program's)"
        evidence = (Number("C-CACHE-03", "value", least, most, allowed, "{} bytes cached"),)

    def looked(seen: Observation) -> list[Next]:
        return [Next(evolve(s, meminfo=(seen.value - surely - perhaps, seen.value - surely), read_ahead=0), evidence)]

    return c.counts("C-CACHE-02", 1, ANY, "a size").lazily(looked)
