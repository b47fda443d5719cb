"""File systems in the guest: what is mounted where, and the commands that make a fresh one."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from harness.errors import GuestError
from harness.guest.link import CommandOutput, GuestCommand
from harness.model.filesystems import Filesystem
from harness.model.formats import Format
from harness.model.kinds import DaxOption
from harness.model.stack import Mount
from harness.ops.tag import PREPARED_WRITER
from harness.sizes import MIB

MOUNT_TABLE = "/proc/self/mountinfo"
#: What the kernel can mount by now, whether built in or loaded.
FILESYSTEMS = "/proc/filesystems"
#: Where set-up mounts volumes, each in a folder named after its role; nothing else is ever mounted below.
MOUNT_FOLDER = "/mnt"
#: How much of a bare node, or of a dax device, is zeroed before a case.
CLEARED_BYTES = 16 * MIB
#: Where the files are made, in memory, that mkfs takes into a file system which nobody can write to.
PREPARED_FOLDER = "/tmp/pmem-harness-prepared"


#: What superblocks say, by node: the size of a block in bytes, and the features.
Superblocks = Mapping[str, tuple[int, tuple[str, ...]]]


@dataclass(frozen=True)
class Formats:
    """How a file system is made otherwise than usual, and how that is seen.

    ``options``: the option of mkfs with its value, for each format that mkfs makes. ``superblock``: the command that says what was made,
    without the device; ``said`` finds the size of a block and the features in that.
    """

    options: Mapping[Format, tuple[str, str]]
    superblock: tuple[str, ...]
    said: re.Pattern[str]


@dataclass(frozen=True)
class Maker:
    """How the guest comes by a file system; the image chooses the features of the usual format.

    ``geometry``: an option of mkfs with its value, by which it allocates in whole, aligned 2 MiB units: without it xfs never gets 2 MiB DAX
    mappings, nor does ext4 on 6.1. ``version``: the command that says which mkfs it is. ``dax_words``: what mount is told. ``formats``: how
    it is made otherwise; None: never.
    """

    geometry: tuple[str, str]
    version: tuple[str, ...]
    dax_words: Mapping[DaxOption, str]
    formats: Formats | None = None

    def option_of(self, format_: Format) -> tuple[str, str] | None:
        """The option of mkfs by which a format comes about; None: none does."""
        return None if self.formats is None else self.formats.options.get(format_)


#: As ext4 and xfs have them (since 5.8).
_DAX_WORDS = {option: f"dax={option}" for option in DaxOption}
_EXT4_FORMATS = Formats(
    {
        Format.BLOCK_1K: ("-b", "1024"),
        Format.INLINE_DATA: ("-O", "inline_data"),
        Format.ENCRYPT: ("-O", "encrypt"),
        Format.VERITY: ("-O", "verity"),
    },
    ("dumpe2fs", "-h"),
    re.compile(r"^Filesystem features:(?P<features>.*)$(?s:.*)^Block size: *(?P<block>[0-9]+)$", re.M),
)
_XFS_FORMATS = Formats(
    {
        Format.BLOCK_1K: ("-b", "size=1024"),
        Format.REFLINK: ("-m", "reflink=1"),
        Format.NO_REFLINK: ("-m", "reflink=0"),
    },
    ("xfs_db", "-r", "-c", "version", "-c", "sb 0", "-c", "print blocksize"),
    re.compile(r"^versionnum [^=]*=(?P<features>.*)$(?s:.*)^blocksize = (?P<block>[0-9]+)$", re.M),
)
MAKERS: Mapping[Filesystem, Maker] = {
    Filesystem.EXT4: Maker(("-E", "stride=512,stripe_width=512"), ("mkfs.ext4", "-V"), _DAX_WORDS, _EXT4_FORMATS),
    Filesystem.XFS: Maker(("-d", "su=2m,sw=1"), ("mkfs.xfs", "-V"), _DAX_WORDS, _XFS_FORMATS),
    # It allocates as it likes, and has one word.
    Filesystem.EXT2: Maker(("-E", "stride=512,stripe_width=512"), ("mkfs.ext2", "-V"), {DaxOption.ALWAYS: "dax", DaxOption.NEVER: ""}),
    # No DAX is what it has without a word, also where it knows none. Whoever mounts it to read can do so on a device that is read-only.
    Filesystem.EROFS: Maker(("--dsunit", "512"), ("mkfs.erofs", "-V"), {DaxOption.ALWAYS: "dax=always", DaxOption.NEVER: ""}),
}


@dataclass(frozen=True)
class MountEntry:
    """One line of the mount table. ``options``: those of the mount, then those of the file system."""

    device: str
    folder: str
    filesystem: str
    options: tuple[str, ...]


def parse_mounts(text: str) -> tuple[MountEntry, ...]:
    """Return the mount table in mounting order. Raises GuestError for a line that is none."""
    entries = []
    for line in text.splitlines():
        head, dash, tail = line.partition(" - ")
        fields, rest = head.split(" "), tail.split(" ")
        if not dash or len(fields) < 6 or len(rest) < 3:
            raise GuestError(f"the guest's mount table has a line that is none: {line!r}")
        options = tuple(dict.fromkeys([*fields[5].split(","), *rest[2].split(",")]))
        entries.append(MountEntry(_unescaped(rest[1]), _unescaped(fields[4]), rest[0], options))
    return tuple(entries)


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def missing_filesystems(text: str, wanted: Iterable[Filesystem]) -> tuple[Filesystem, ...]:
    """Return those of ``wanted`` that are not in ``text``, which is :data:`FILESYSTEMS`, sorted."""
    there = {line.split()[-1] for line in text.splitlines() if line.split()}
    return tuple(sorted(filesystem for filesystem in set(wanted) if str(filesystem) not in there))


def require_filesystem(filesystem: Filesystem, text: str, output: CommandOutput) -> None:
    """Raise GuestError where a file system is still not in ``text``, with its option and what modprobe said."""
    if missing_filesystems(text, [filesystem]):
        said = (output.stderr or output.stdout).strip() or "nothing"
        raise GuestError(
            f"the guest's kernel has no file system {filesystem} (CONFIG_{str(filesystem).upper()}_FS): {FILESYSTEMS} does not list it, and"
            f" modprobe {filesystem} ended with status {output.status} and said: {said}"
        )


def unmount_commands(mounts: tuple[MountEntry, ...], devices: frozenset[str]) -> tuple[GuestCommand, ...]:
    """Return what unmounts everything that is of ``devices`` or below MOUNT_FOLDER, the latest mount first."""
    ours = [m for m in mounts if m.device in devices or m.folder.startswith(f"{MOUNT_FOLDER}/")]
    return tuple(GuestCommand(("umount", m.folder)) for m in reversed(ours))


def make_commands(mount: Mount, device: str, mkfs: Mapping[str, tuple[str, ...]]) -> tuple[GuestCommand, ...]:
    """Return what makes a fresh file system: old signatures go first. mkfs itself refuses a device that is in use.

    ``mkfs``: the command by file system, without the device (the image says which features all kernels know). One that nobody can write to
    is made of what is in PREPARED_FOLDER.
    """
    maker, command = MAKERS[mount.filesystem], mkfs.get(str(mount.filesystem))
    if command is None:
        raise GuestError(f"the image does not say how to make {mount.filesystem}: it knows {', '.join(mkfs) or 'nothing'}")
    made = _with_option(command, *maker.geometry)
    if option := maker.option_of(mount.format):
        made = _with_option(made, *option)
    source = (PREPARED_FOLDER,) if mount.filesystem.traits.prepared else ()
    return (GuestCommand(("wipefs", "--all", "--quiet", device)), GuestCommand((*made, device, *source)))


def _with_option(command: tuple[str, ...], option: str, value: str) -> tuple[str, ...]:
    """Add to the comma-separated value of ``option``, in the place of what has the same name there: mke2fs would take only the last of
    two options, and mkfs.xfs refuses two values of one name."""
    if option not in command:
        return (*command, option, value)
    at = command.index(option) + 1
    kept = [word for word in command[at].split(",") if _name(word) != _name(value)]
    return (*command[:at], ",".join([*kept, value]), *command[at + 1 :])


def _name(value: str) -> str:
    """``size`` of ``size=4096``, ``inline_data`` of ``^inline_data``, nothing of ``4096``."""
    return re.sub("=.*|^[0-9]+$", "", value).removeprefix("^")


def superblock_command(mount: Mount, device: str) -> GuestCommand | None:
    """Return what says how the file system on ``device`` was made; None where that is as usual."""
    formats = MAKERS[mount.filesystem].formats
    if formats is None or mount.format not in formats.options:
        return None
    return GuestCommand((*formats.superblock, device))


def parse_superblock(mount: Mount, text: str) -> tuple[int, tuple[str, ...]]:
    """Return the size of a block in bytes, and the features in small letters. Raises GuestError for a text that does not say them."""
    formats = MAKERS[mount.filesystem].formats
    found = None if formats is None else formats.said.search(text)
    if found is None:
        raise GuestError(f"the guest does not say how the {mount.filesystem} of a volume was made, but: {text.strip()!r}")
    return int(found["block"]), tuple(re.findall("[a-z0-9_]+", found["features"].lower()))


def mount_options(mount: Mount) -> str:
    """Return what mount(2) is told of a file system that the set-up mounts."""
    dax = "" if mount.dax is None else MAKERS[mount.filesystem].dax_words[mount.dax]
    read_only = "ro" if mount.filesystem.traits.is_read_only else ""
    return ",".join(filter(None, (read_only, dax, mount.format.traits.mounted)))


def prepared_request(mounts: Iterable[Mount]) -> dict[str, object] | None:
    """Return the arguments of the agent's request ``prepare`` for the file systems that are made of files; None where there are none."""
    files = {file.name: [f"{PREPARED_FOLDER}/{file.name}", file.size, file.source] for m in mounts for file in m.filesystem.traits.prepared}
    return {"writer": PREPARED_WRITER, "files": list(files.values())} if files else None


def clear_commands(device: str) -> tuple[GuestCommand, ...]:
    """Return what makes a bare node fresh: its first bytes zero on the medium, none of it in the page cache."""
    return (
        GuestCommand(("blkdiscard", "--force", "--zeroout", "--length", str(CLEARED_BYTES), device)),
        GuestCommand(("blockdev", "--flushbufs", device)),
    )
