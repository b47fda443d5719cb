"""Formats: how a file system was made or mounted where that is not as usual. One record for each says what the model has to know of it.

What mkfs and mount are told is the guest's affair (``harness/guest/filesystem.py``).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from harness.model.filesystems import ALWAYS, Filesystem, FilesystemTraits, Version, WithoutDax


@dataclass(frozen=True)
class FormatTraits:
    """What is so of a format. The facts of like names have the sources.

    ``filesystems``: those that have it. ``block_bytes``: the size of their blocks. ``features`` and ``without_features``: words of the
    superblock, as the file system's own tools print them, that are there and that are not. ``mounted``: what the mount table shows of it:
    then it is nothing but a word of mount's, and mkfs knows nothing of it. ``mounts_dax_since``: from which kernel on dax=always is given;
    None: on none. ``without_dax``: what becomes of dax=always before that; None: the same as on a device without DAX. ``dax_files``: a file
    can be in DAX state. ``direct_io``: O_DIRECT goes past the page cache. ``largest_inline``: a file of no more bytes may be kept without a
    block. ``shares_blocks``: files can share blocks; None: where that is usual.
    """

    filesystems: tuple[Filesystem, ...]
    block_bytes: int = 4096
    features: tuple[str, ...] = ()
    without_features: tuple[str, ...] = ()
    mounted: str | None = None
    mounts_dax_since: Version | None = ALWAYS
    without_dax: WithoutDax | None = None
    dax_files: bool = True
    direct_io: bool = True
    largest_inline: int = 0
    shares_blocks: bool | None = None

    @property
    def by_mkfs(self) -> bool:
        """Whether mkfs makes it, and not mount alone."""
        return self.mounted is None

    def may_be_inline(self, size: int) -> bool:
        """Whether a file of ``size`` bytes may be kept in its inode, without a block."""
        return self.largest_inline > 0 and size <= self.largest_inline

    def dropped_or_refused(self, filesystem: FilesystemTraits) -> WithoutDax | None:
        """What becomes of dax=always on a kernel that does not give it."""
        return self.without_dax or filesystem.without_dax


class Format(StrEnum):
    """The formats that a case can ask for."""

    STANDARD = "standard"
    BLOCK_1K = "block_1k"
    INLINE_DATA = "inline_data"
    ENCRYPT = "encrypt"
    VERITY = "verity"
    JOURNAL_DATA = "journal_data"
    REFLINK = "reflink"
    NO_REFLINK = "no_reflink"

    @property
    def traits(self) -> FormatTraits:
        return FORMAT_TRAITS[self]

    @property
    def word(self) -> str:
        """What ids and descriptions say of it: nothing of the usual one."""
        return "" if self is Format.STANDARD else str(self)


_EXT4, _XFS = (Filesystem.EXT4,), (Filesystem.XFS,)

FORMAT_TRAITS: Mapping[Format, FormatTraits] = MappingProxyType(
    {
        # As images/ says: blocks of a page; xfs with reflink where its kernel takes that together with DAX.
        Format.STANDARD: FormatTraits(tuple(Filesystem)),
        Format.BLOCK_1K: FormatTraits((*_EXT4, *_XFS), block_bytes=1024, mounts_dax_since=None, dax_files=False),
        Format.INLINE_DATA: FormatTraits(_EXT4, features=("inline_data",), mounts_dax_since=None, largest_inline=256),
        Format.ENCRYPT: FormatTraits(_EXT4, features=("encrypt",)),
        Format.VERITY: FormatTraits(_EXT4, features=("verity",)),
        Format.JOURNAL_DATA: FormatTraits(_EXT4, mounted="data=journal", mounts_dax_since=None, dax_files=False, direct_io=False),
        Format.REFLINK: FormatTraits(
            _XFS, features=("reflink",), mounts_dax_since=(6, 0), without_dax=WithoutDax.REFUSED, shares_blocks=True
        ),
        Format.NO_REFLINK: FormatTraits(_XFS, without_features=("reflink",), shares_blocks=False),
    }
)
