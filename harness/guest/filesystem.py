"""File systems in the guest: what is mounted where, and the commands that make a fresh one."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from harness.errors import GuestError
from harness.guest.link import CommandOutput, GuestCommand
from harness.model.filesystems import Filesystem
from harness.model.kinds import DaxOption
from harness.model.stack import Mount
from harness.sizes import MIB

MOUNT_TABLE = "/proc/self/mountinfo"
#: What the kernel can mount by now, whether built in or loaded.
FILESYSTEMS = "/proc/filesystems"
#: Where set-up mounts volumes, each in a folder named after its role; nothing else is ever mounted below.
MOUNT_FOLDER = "/mnt"
#: How much of a bare node, or of a dax device, is zeroed before a case.
CLEARED_BYTES = 16 * MIB


@dataclass(frozen=True)
class Maker:
    """How the guest comes by a file system; the image chooses the features.

    ``geometry``: an option of mkfs with its value, by which it allocates in whole, aligned 2 MiB units: without it xfs never gets 2 MiB DAX
    mappings, nor does ext4 on 6.1. ``version``: the command that says which mkfs it is. ``dax_words``: what mount is told.
    """

    geometry: tuple[str, str]
    version: tuple[str, ...]
    dax_words: Mapping[DaxOption, str]


#: As ext4 and xfs have them (since 5.8).
_DAX_WORDS = {option: f"dax={option}" for option in DaxOption}
MAKERS: Mapping[Filesystem, Maker] = {
    Filesystem.EXT4: Maker(("-E", "stride=512,stripe_width=512"), ("mkfs.ext4", "-V"), _DAX_WORDS),
    Filesystem.XFS: Maker(("-d", "su=2m,sw=1"), ("mkfs.xfs", "-V"), _DAX_WORDS),
    # It allocates as it likes, and has one word.
    Filesystem.EXT2: Maker(("-E", "stride=512,stripe_width=512"), ("mkfs.ext2", "-V"), {DaxOption.ALWAYS: "dax", DaxOption.NEVER: ""}),
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


def make_commands(filesystem: Filesystem, device: str, mkfs: Mapping[str, tuple[str, ...]]) -> tuple[GuestCommand, ...]:
    """Return what makes a fresh file system: old signatures go first. mkfs itself refuses a device that is in use.

    ``mkfs``: the command by file system, without the device (the image says which features all kernels know).
    """
    command = mkfs.get(str(filesystem))
    if command is None:
        raise GuestError(f"the image does not say how to make {filesystem}: it knows {', '.join(mkfs) or 'nothing'}")
    made = _with_option(command, *MAKERS[filesystem].geometry)
    return (GuestCommand(("wipefs", "--all", "--quiet", device)), GuestCommand((*made, device)))


def _with_option(command: tuple[str, ...], option: str, value: str) -> tuple[str, ...]:
    """Add to the comma-separated value of ``option``: given twice, mke2fs would take only the last."""
    if option not in command:
        return (*command, option, value)
    at = command.index(option) + 1
    return (*command[:at], f"{command[at]},{value}", *command[at + 1 :])


def mount_options(mount: Mount) -> str:
    """Return what mount(2) is told of a file system that the set-up mounts."""
    return "" if mount.dax is None else MAKERS[mount.filesystem].dax_words[mount.dax]


def clear_commands(device: str) -> tuple[GuestCommand, ...]:
    """Return what makes a bare node fresh: its first bytes zero on the medium, none of it in the page cache."""
    return (
        GuestCommand(("blkdiscard", "--force", "--zeroout", "--length", str(CLEARED_BYTES), device)),
        GuestCommand(("blockdev", "--flushbufs", device)),
    )
