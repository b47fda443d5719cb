"""File systems: one record for each says what the model has to know of it. Facts (``facts.py``), audits and complaints ask the record.

How the guest makes one is an entry of ``harness/guest/filesystem.py``, with which features is the image's (``images/rootfs.yaml``).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from harness.model.kinds import DaxOption
from harness.ops.tag import PREPARED_SPAN
from harness.sizes import KIB, MIB

#: The first two numbers of a kernel's release: from this one on something is so.
Version = tuple[int, int]
ALWAYS: Version = (0, 0)
_LARGEST_OFFSET = 2**63 - 1


class WithoutDax(StrEnum):
    """What becomes of a mount with dax=always on a device without DAX."""

    REFUSED = "refused"
    DROPPED = "dropped"


@dataclass(frozen=True)
class Checker:
    """A program that looks for damage and writes nothing. Exit status 0: it found none.

    ``found``: the bits of its exit status that say that it did; None: every other status says so. ``gave_up``: the words with which it
    says that it could not do its work, where the status alone does not.
    """

    command: tuple[str, ...]
    found: int | None = None
    gave_up: str | None = None

    def was_unable(self, status: int, text: str) -> bool:
        """Whether what it printed, and its exit status, say nothing of the volume."""
        other = self.found is not None and status != 0 and not status & self.found
        return other or (self.gave_up is not None and self.gave_up in text)


@dataclass(frozen=True)
class PreparedFile:
    """A file that a volume holds when it is made. ``whole_blocks``: all of it is in blocks of its own. ``source``: which byte of the
    prepared files' writer is its first."""

    name: str
    size: int
    whole_blocks: bool
    source: int


def _prepared(*files: tuple[str, int, bool]) -> tuple[PreparedFile, ...]:
    return tuple(PreparedFile(*file, number * PREPARED_SPAN) for number, file in enumerate(files))


@dataclass(frozen=True)
class FilesystemTraits:
    """What is so of a file system. ``..._since``: from which kernel on; None: on none. The facts of like names have the sources.

    ``without_dax``: what becomes of dax=always on a device without DAX, and ``without_dax_source``. ``dax_by_default``: the mode of a
    mount whose options do not name one. ``dax_per_file``: each file can be in DAX state or not (dax=inode and a flag). ``dax_words``:
    those that mount takes, ``dax_words_since``. ``synchronous_dax``: MAP_SYNC of a DAX file is given. ``looks_at_map_sync``: also
    where the mapping is not MAP_SHARED_VALIDATE. ``huge_dax_faults``: a fault can map 2 MiB of a DAX file at once.
    ``breaks_layouts``: truncating a DAX file first unmaps all of it. ``dioalign_since``: statx says what O_DIRECT asks for.
    ``fills_holes_directly``: an O_DIRECT write does, and not through the page cache. ``writes_misaligned_cached``: from which kernel on,
    and before which, one that is not aligned goes through the page cache. ``fallocates``: fallocate allocates, punches and zeroes.
    ``max_file_blocks``: where blocks are what limits a file. ``tail_zeroed_since``: bytes behind the end are zeroed when the file grows
    over them. ``allocation_unmaps``: plain allocation waits for pins and unmaps, as punching does. ``shifts_ranges``: fallocate collapses
    and inserts ranges; ``shift_evicts_before``, ``shift_drops_copies`` and ``shift_zeroes_tail`` as well as ``refused_shift_unmaps_since``
    and ``refused_collapse_evicts_until`` say how. ``unshares``: it takes FALLOC_FL_UNSHARE_RANGE.
    ``shares_blocks_since``: copy_file_range tries that first. ``refuses_partition_since``: dax=always is refused on a partition that
    could have DAX. ``prepared``: the files of a fresh volume, which nobody can write to. ``file_attributes``: a file has such as
    FS_XFLAG_DAX. ``syncs``: fsync is something that it has. ``direct_io_since``: O_DIRECT is. ``direct_checked_first_until``: before
    that kernel a read with O_DIRECT asks for alignment, of its buffer's address to a logical block too, before anything else.
    ``driver_option``: what a kernel is built with that has the driver which is meant, where not every guest's has. ``package``: what
    its programs come in. ``complaints``: what finds the lines in which it complains (regular expressions); such a line leaves no
    taint.
    """

    without_dax: WithoutDax | None = None
    without_dax_source: str = ""
    dax_by_default: DaxOption = DaxOption.NEVER
    dax_per_file: bool = False
    dax_words: tuple[str, ...] = ("dax", "dax=always", "dax=never", "dax=inode")
    dax_words_since: Version = ALWAYS
    synchronous_dax: bool = False
    looks_at_map_sync: bool = False
    huge_dax_faults: bool = True
    breaks_layouts: bool = True
    dioalign_since: Version | None = (6, 1)
    fills_holes_directly: bool = True
    writes_misaligned_cached: tuple[Version, Version] | None = None
    fallocates: bool = True
    max_file_bytes: int = _LARGEST_OFFSET
    max_file_blocks: int | None = None
    large_folios_since: Version | None = None
    tail_zeroed_since: Version | None = None
    dontcache_since: Version | None = None
    buffered_nowait_write_since: Version | None = None
    allocation_unmaps: bool = False
    shifts_ranges: bool = False
    shift_evicts_before: bool = False
    shift_drops_copies: bool = False
    shift_zeroes_tail: bool = False
    refused_shift_unmaps_since: Version | None = None
    refused_collapse_evicts_until: Version | None = None
    unshares: bool = False
    shares_blocks_since: Version | None = None
    refuses_partition_since: Version | None = None
    direct_append_looks_at_offset: bool = False
    prepared: tuple[PreparedFile, ...] = ()
    file_attributes: bool = True
    syncs: bool = True
    direct_io_since: Version = ALWAYS
    direct_checked_first_until: Version = ALWAYS
    driver_option: str | None = None
    package: str | None = None
    checker: Checker | None = None
    complaints: tuple[str, ...] = ()

    @property
    def is_read_only(self) -> bool:
        return bool(self.prepared)


class Filesystem(StrEnum):
    """The file systems that a case can ask for."""

    EXT4 = "ext4"
    XFS = "xfs"
    EXT2 = "ext2"
    EROFS = "erofs"

    @property
    def traits(self) -> FilesystemTraits:
        return FILESYSTEM_TRAITS[self]


# e2fsck(8): errors corrected (1), reboot needed (2), errors left (4).
_E2FSCK = Checker(("e2fsck", "-fn"), found=1 | 2 | 4)

#: Those that a volume can have, by the name that the mount table has for them.
FILESYSTEM_TRAITS: Mapping[str, FilesystemTraits] = MappingProxyType(
    {
        "ext4": FilesystemTraits(
            without_dax=WithoutDax.REFUSED,
            without_dax_source="fs/ext4/super.c ext4_fill_super (since 5.4): EINVAL where the block device does not support DAX",
            dax_by_default=DaxOption.INODE,
            dax_per_file=True,
            synchronous_dax=True,
            looks_at_map_sync=True,
            max_file_blocks=2**32 - 1,
            writes_misaligned_cached=((6, 15), (6, 17)),
            large_folios_since=(6, 16),
            tail_zeroed_since=(6, 12),
            dontcache_since=(6, 17),
            shifts_ranges=True,
            shift_drops_copies=True,
            refused_shift_unmaps_since=(6, 12),
            package="e2fsprogs",
            checker=_E2FSCK,
            complaints=(
                # fs/ext4/super.c __ext4_error and its like. A warning counts but where it tells of a full directory or inode and of no
                # damage.
                r"EXT4-fs error",
                r"EXT4-fs warning(?!.*(?:index full|Large directory feature is not enabled|Unable to expand inode))",
                r"EXT4-fs: \S+: aborting transaction",
                r"EXT4-fs \(\S+\): (?:shut down requested|Delayed block allocation failed|This should not happen!!)",
                r"EXT4-fs \(\S+\): .*(?:I/O error|IO failure|[Cc]orrupt|checksum|fs with errors|error (?:loading|reading))",
                # fs/jbd2: an aborted journal is a file system that has stopped.
                r"Aborting journal on device",
                r"JBD2(?:: | unexpected failure)",
                # DAX was asked for and is not given: right where a stack or a case asks for it on a device that has none.
                r"EXT4-fs \(\S+\): (?:DAX unsupported|unsupported blocksize for DAX)",
            ),
        ),
        "xfs": FilesystemTraits(
            without_dax=WithoutDax.DROPPED,
            without_dax_source="fs/xfs/xfs_super.c xfs_setup_dax_always: warns and turns DAX off",
            dax_by_default=DaxOption.INODE,
            dax_per_file=True,
            synchronous_dax=True,
            looks_at_map_sync=True,
            large_folios_since=(5, 18),
            tail_zeroed_since=ALWAYS,
            dontcache_since=(6, 14),
            buffered_nowait_write_since=(6, 0),
            allocation_unmaps=True,
            shifts_ranges=True,
            shift_evicts_before=True,
            shift_zeroes_tail=True,
            refused_shift_unmaps_since=ALWAYS,
            refused_collapse_evicts_until=(6, 12),
            unshares=True,
            shares_blocks_since=(6, 0),
            refuses_partition_since=(6, 0),
            direct_append_looks_at_offset=True,
            package="xfsprogs",
            # It has one status for what it found and for what it could not do: the words are those of xfsprogs' do_error.
            checker=Checker(("xfs_repair", "-n"), gave_up="fatal error -- "),
            complaints=(
                # fs/xfs/xfs_message.c puts "XFS (device): " before everything.
                r"XFS \(\S+\): (?:Internal error|.*(?:[Cc]orrupt|CRC error|[Ss]hut[a-z ]*down|page discard|failed|[Ee]rror -?\d))",
                # As with ext4.
                r"XFS \(\S+\): DAX (?:un|not )supported",
            ),
        ),
        # Its own driver: where a kernel lacks that, ext4's takes its name.
        "ext2": FilesystemTraits(
            without_dax=WithoutDax.DROPPED,
            without_dax_source="fs/ext2/super.c ext2_fill_super: says so and turns DAX off",
            dax_words=("dax",),
            huge_dax_faults=False,
            breaks_layouts=False,
            dioalign_since=None,
            fills_holes_directly=False,
            fallocates=False,
            max_file_bytes=536_346_110 * 4096,
            driver_option="CONFIG_EXT2_FS",
            package="e2fsprogs",
            checker=_E2FSCK,
            complaints=(
                # fs/ext2/super.c ext2_error, and ext2_msg where it tells of damage.
                r"EXT2-fs \(\S+\): (?:error|warning): ",
                # As with ext4.
                r"EXT2-fs \(\S+\): (?:DAX unsupported|unsupported blocksize for DAX)",
            ),
        ),
        "erofs": FilesystemTraits(
            without_dax=WithoutDax.DROPPED,
            without_dax_source="fs/erofs/super.c erofs_fc_fill_super: says so and turns DAX off",
            dax_words=("dax", "dax=always", "dax=never"),
            dax_words_since=(5, 15),
            breaks_layouts=False,
            dioalign_since=(6, 7),
            fallocates=False,
            large_folios_since=(6, 2),
            # The first is for whoever reads the stack back: what was mapped of a file with DAX in pages is not mapped 2 MiB at once later.
            prepared=_prepared(
                ("page", 4 * KIB, True), ("plain", 4 * MIB + 64 * KIB, True), ("tail", 64 * KIB + 100, False), ("empty", 0, True)
            ),
            file_attributes=False,
            syncs=False,
            direct_io_since=(5, 15),
            direct_checked_first_until=(6, 15),
            driver_option="CONFIG_EROFS_FS",
            package="erofs-utils",
            checker=Checker(("fsck.erofs", "--extract")),
            complaints=(
                # fs/erofs/super.c: an error comes with the name of a function (_erofs_err), on later kernels without (_erofs_printk).
                r"erofs: \(device \S+\): \w+: ",
                r"erofs \(device \S+\): (?!mounted )",
                # As with ext4.
                r"erofs: .*DAX unsupported by block device",
            ),
        ),
        # On this computer, never in a guest: tests judge what the agent does here.
        "tmpfs": FilesystemTraits(tail_zeroed_since=(6, 12)),
    }
)

#: A volume that the set-up mounts nothing on: its node, and what a program mounts there, of which facts know no more than the DAX state.
NODE = FilesystemTraits(
    dax_per_file=True, synchronous_dax=True, tail_zeroed_since=(6, 12), dontcache_since=(7, 3), buffered_nowait_write_since=(6, 0)
)


def filesystem_traits(name: str | None) -> FilesystemTraits:
    """Return the record of what a volume has; None: nothing is mounted. Raises KeyError for a name that has none."""
    return NODE if name is None else FILESYSTEM_TRAITS[name]
