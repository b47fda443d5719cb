"""What each file system asks for where a file is to have DAX, and the commands by which it is had. One record each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from harness.model.filesystems import FILESYSTEM_TRAITS, FilesystemTraits, Version

#: Since then each file has a state of its own, and ``dax=`` three values.
PER_FILE_SINCE: Version = (5, 8)


@dataclass(frozen=True)
class FeatureConflict:
    """A feature with which mount refuses dax=always: ``applies`` takes the kernel's version and whether it is on a partition."""

    feature: str
    applies: Callable[[Version, bool], bool]
    why: str


@dataclass(frozen=True)
class DaxNeeds:
    """What a file system asks for. ``mkfs``: the command, but for the size of a block (``{block}``) and the device; empty where it is not
    made empty. ``superblock``: the command that says how it was made, but for the device (``{node}``) or where it is mounted, if it is
    (``{place}``); empty where none is known. ``set_flag``: the command that gives a file its flag, without the file. ``conflicts``:
    features. ``option_conflicts``: words of the mount table under which no file has DAX, and why. ``packs``: how a file may be kept so that
    it alone has none, and ``image``: the command that makes a file system without that of a folder, but for device and folder.
    """

    traits: FilesystemTraits
    mkfs: str
    superblock: str
    set_flag: str = ""
    conflicts: tuple[FeatureConflict, ...] = ()
    option_conflicts: tuple[tuple[str, str], ...] = ()
    packs: str = ""
    image: str = ""

    def word(self, value: str, version: Version) -> str:
        """What mount is told for ``always`` or ``inode``."""
        return f"dax={value}" if self.has_files(version) else "dax"

    def has_files(self, version: Version) -> bool:
        """Whether each file has a state of its own."""
        return self.traits.dax_per_file and version >= PER_FILE_SINCE

    def mode(self, options: tuple[str, ...], version: Version) -> str:
        """Return the DAX mode that the options of a mount mean."""
        for option in options:
            if option == "dax":
                return "always"
            if option.startswith("dax="):
                return option.removeprefix("dax=")
        return str(self.traits.dax_by_default) if self.has_files(version) else "never"


_DUMPE2FS = "dumpe2fs -h {node}"
#: The file system that is made where there is none.
USUAL = "ext4"
NEEDS: Mapping[str, DaxNeeds] = MappingProxyType(
    {
        "ext4": DaxNeeds(
            FILESYSTEM_TRAITS["ext4"],
            "mkfs.ext4 -F -b {block}",
            _DUMPE2FS,
            "chattr +x",
            (
                # fs/ext4/super.c ext4_check_feature_compatibility.
                FeatureConflict(
                    "inline_data", lambda version, partition: True, "mount refuses dax=always where files may be kept in inodes"
                ),
            ),
            # fs/ext4/super.c: refused together with dax=always; inode.c ext4_should_enable_dax: no file has both.
            (("data=journal", "all data goes through the journal"),),
        ),
        "xfs": DaxNeeds(
            FILESYSTEM_TRAITS["xfs"],
            "mkfs.xfs -f -b size={block}",
            "xfs_info {place}",
            "xfs_io -c 'chattr +x'",
            (
                # fs/xfs/xfs_super.c xfs_setup_dax_always; before 6.0 in xfs_fs_fill_super.
                FeatureConflict("reflink", lambda version, _: version < (6, 0), "before Linux 6.0 mount refuses dax=always with reflink"),
                FeatureConflict(
                    "reflink",
                    lambda version, partition: partition and version >= (6, 0),
                    "mount refuses dax=always with reflink on a partition",
                ),
            ),
        ),
        # It has neither features in its way nor flags, and one word.
        "ext2": DaxNeeds(FILESYSTEM_TRAITS["ext2"], "mkfs.ext2 -F -b {block}", _DUMPE2FS),
        # It is made of the files that it has from then on.
        "erofs": DaxNeeds(
            FILESYSTEM_TRAITS["erofs"],
            "",
            "",
            # fs/erofs/inode.c: a file has DAX whose blocks are as they are read.
            packs="it is compressed, or its end lies beside its inode",
            image="mkfs.erofs -E noinline_data",
        ),
    }
)
#: File systems that have DAX under conditions of their own, of which nothing is known here.
OTHERS = frozenset({"virtiofs"})


def by_driver(type_: str, of_ext4: bool = True) -> str:
    """Return the file system whose driver mounts ``type_``: that of ext4 answers to the names of those before it, where it has them."""
    return "ext4" if type_ in ("ext3", "ext2") and of_ext4 else type_
