"""Mount tables, and the commands that make a volume fresh."""

import pytest

from harness.errors import GuestError
from harness.guest.ageing import ageing_requests
from harness.guest.filesystem import (
    MAKERS,
    MountEntry,
    clear_commands,
    make_commands,
    mount_options,
    parse_mounts,
    parse_superblock,
    superblock_command,
    unmount_commands,
)
from harness.guest.layout import PlacedVolume
from harness.model.filesystems import Filesystem
from harness.model.formats import Format
from harness.model.kinds import DaxOption
from harness.model.stack import Disk, Mount, Volume

TABLE = """\
22 1 0:20 / / rw,relatime - overlay overlay rw,lowerdir=/lower
30 22 259:0 / /mnt/main rw,relatime shared:1 - ext4 /dev/pmem0 rw,dax=always
31 22 259:0 / /mnt/a\\040b rw - ext4 /dev/pmem0 rw,dax=always
32 22 254:0 / /srv ro - xfs /dev/vdb ro
"""


def test_the_mount_table_is_read_with_both_kinds_of_options() -> None:
    mounts = parse_mounts(TABLE)
    assert mounts[1] == MountEntry("/dev/pmem0", "/mnt/main", "ext4", ("rw", "relatime", "dax=always"))
    assert mounts[2].folder == "/mnt/a b"


def test_a_line_that_is_no_mount_is_a_guest_error() -> None:
    with pytest.raises(GuestError, match="the guest's mount table has a line that is none: 'hm'"):
        parse_mounts("hm")


def test_everything_of_the_device_and_everything_in_the_way_is_unmounted_latest_first() -> None:
    mounts = parse_mounts(TABLE)
    assert [c.argv for c in unmount_commands(mounts, frozenset({"/dev/vdb"}))] == [
        ("umount", "/srv"),
        ("umount", "/mnt/a b"),
        ("umount", "/mnt/main"),
    ]
    assert not any(c.may_fail for c in unmount_commands(mounts, frozenset()))


def test_ext4_is_made_in_units_of_two_mebibytes() -> None:
    wipe, make = make_commands(Mount(Filesystem.EXT4, None), "/dev/pmem0", {"ext4": ("mkfs.ext4", "-E", "nodiscard", "-q")})
    assert wipe.argv == ("wipefs", "--all", "--quiet", "/dev/pmem0")
    assert make.argv == ("mkfs.ext4", "-E", "nodiscard,stride=512,stripe_width=512", "-q", "/dev/pmem0")


def test_xfs_is_made_in_units_of_two_mebibytes() -> None:
    _, make = make_commands(Mount(Filesystem.XFS, None), "/dev/pmem0", {"xfs": ("mkfs.xfs", "-f")})
    assert make.argv == ("mkfs.xfs", "-f", "-d", "su=2m,sw=1", "/dev/pmem0")


def test_ext2_is_mounted_with_the_only_word_that_it_knows() -> None:
    assert mount_options(Mount(Filesystem.EXT2, DaxOption.ALWAYS)) == "dax"
    assert mount_options(Mount(Filesystem.EXT2, DaxOption.NEVER)) == ""
    assert mount_options(Mount(Filesystem.EXT4, DaxOption.NEVER)) == "dax=never"


def test_erofs_is_mounted_to_read_and_without_a_word_where_it_is_to_have_no_dax() -> None:
    assert mount_options(Mount(Filesystem.EROFS, DaxOption.ALWAYS)) == "ro,dax=always"
    assert mount_options(Mount(Filesystem.EROFS, DaxOption.NEVER)) == mount_options(Mount(Filesystem.EROFS, None)) == "ro"


def made(filesystem: Filesystem, format_: Format) -> str:
    mkfs = {
        "ext4": ("mkfs.ext4", "-b", "4096", "-O", "^verity,^orphan_file"),
        "xfs": ("mkfs.xfs", "-b", "size=4096", "-m", "crc=1,reflink=1"),
    }
    return " ".join(make_commands(Mount(filesystem, None, format_), "/dev/x", mkfs)[1].argv)


def test_a_format_takes_the_place_of_what_the_image_says_of_the_same_thing() -> None:
    assert "-b 1024 -O ^verity,^orphan_file -E" in made(Filesystem.EXT4, Format.BLOCK_1K)
    assert "-b 4096 -O ^orphan_file,verity -E" in made(Filesystem.EXT4, Format.VERITY)
    assert "-b 4096 -O ^verity,^orphan_file,inline_data -E" in made(Filesystem.EXT4, Format.INLINE_DATA)
    assert "-b size=1024 -m crc=1,reflink=1" in made(Filesystem.XFS, Format.BLOCK_1K)
    assert "-b size=4096 -m crc=1,reflink=0" in made(Filesystem.XFS, Format.NO_REFLINK)


def test_data_that_is_journalled_is_a_word_of_mount_alone() -> None:
    assert mount_options(Mount(Filesystem.EXT4, DaxOption.NEVER, Format.JOURNAL_DATA)) == "dax=never,data=journal"
    assert mount_options(Mount(Filesystem.EXT4, None, Format.JOURNAL_DATA)) == "data=journal"
    assert made(Filesystem.EXT4, Format.JOURNAL_DATA) == made(Filesystem.EXT4, Format.STANDARD)


@pytest.mark.parametrize("format_", Format)
def test_every_format_is_made_where_the_model_says_so(format_: Format) -> None:
    makers = {filesystem for filesystem, maker in MAKERS.items() if maker.formats is not None and format_ in maker.formats.options}
    by_mkfs = format_.traits.by_mkfs and format_ is not Format.STANDARD
    assert makers == (set(format_.traits.filesystems) if by_mkfs else set())


DUMPE2FS = """\
Filesystem volume name:   <none>
Filesystem features:      has_journal ext_attr inline_data
Block size:               1024
"""
XFS_DB = """\
versionnum [0xb4a5+0x18a] = V5,NLINK,DIRV2,CRC,FTYPE,REFLINK
blocksize = 4096
"""


def test_superblocks_say_the_size_of_a_block_and_features() -> None:
    ext4, xfs = Mount(Filesystem.EXT4, None, Format.BLOCK_1K), Mount(Filesystem.XFS, None, Format.REFLINK)
    assert parse_superblock(ext4, DUMPE2FS) == (1024, ("has_journal", "ext_attr", "inline_data"))
    assert parse_superblock(xfs, XFS_DB) == (4096, ("v5", "nlink", "dirv2", "crc", "ftype", "reflink"))
    with pytest.raises(GuestError, match=r"the guest does not say how the xfs of a volume was made, but: 'xfs_db: bad magic'"):
        parse_superblock(xfs, "xfs_db: bad magic\n")


def test_only_what_is_not_as_usual_is_asked_how_it_was_made() -> None:
    asked = superblock_command(Mount(Filesystem.EXT4, None, Format.ENCRYPT), "/dev/x")
    assert asked is not None
    assert asked.argv == ("dumpe2fs", "-h", "/dev/x")
    assert superblock_command(Mount(Filesystem.EXT4, None), "/dev/x") is None
    assert superblock_command(Mount(Filesystem.EXT2, None), "/dev/x") is None
    assert superblock_command(Mount(Filesystem.EXT4, None, Format.JOURNAL_DATA), "/dev/x") is None


def test_a_file_that_ages_a_volume_is_allocated_first_where_the_file_system_can() -> None:
    def allocated(filesystem: Filesystem) -> set[object]:
        volume = Volume("main", Disk(), Mount(filesystem, None))
        requests = ageing_requests([PlacedVolume(volume, "/dev/vdb", "/mnt/main")])
        return {file[2] for request in requests for file in request["files"]}  # type: ignore[attr-defined]

    assert allocated(Filesystem.EXT4) == {True, False}
    assert allocated(Filesystem.EXT2) == {False}


def test_a_file_system_that_the_image_cannot_make_is_a_guest_error() -> None:
    with pytest.raises(GuestError, match="the image does not say how to make xfs: it knows ext4"):
        make_commands(Mount(Filesystem.XFS, None), "/dev/x", {"ext4": ("mkfs.ext4",)})
    with pytest.raises(GuestError, match="it knows nothing"):
        make_commands(Mount(Filesystem.XFS, None), "/dev/x", {})


def test_a_bare_node_is_zeroed_and_dropped_from_the_page_cache() -> None:
    assert [c.argv[0] for c in clear_commands("/dev/pmem0")] == ["blkdiscard", "blockdev"]
    assert "16777216" in clear_commands("/dev/pmem0")[0].argv
