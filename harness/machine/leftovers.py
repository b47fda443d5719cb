"""What a harness left on this computer that ended without its reaper: after a power failure, or when somebody killed both.

The places where folders are left are everybody's, so nothing there is believed before it is known to be ours: a folder, not a link, of
this user, closed to all others as the harness makes them. Only then its owner's mark counts, for only this user can have written it.
"""

import logging
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.host import settings
from harness.machine.custody import MEMORY_FOLDER, OWNER_FILE, PREFIX, process_mark
from harness.machine.reaper import kill_inside, pids_inside

log = logging.getLogger(__name__)

#: A folder without its owner's mark is left alone for so long.
_UNMARKED_S = 60.0
#: No mark is longer.
_MARK_BYTES = 200


@dataclass(frozen=True)
class Leftover:
    """A private folder whose owner is gone, with the processes that work in it still."""

    folder: Path
    pids: tuple[int, ...]
    size_bytes: int


def find_leftovers(roots: Iterable[Path] | None = None) -> tuple[Leftover, ...]:
    """Return this user's private folders whose owner does not run any more, in the places where such folders are made."""
    chosen = settings.runtime_root()
    places = roots or {MEMORY_FOLDER, Path(tempfile.gettempdir()), *((chosen,) if chosen else ())}
    folders = sorted(folder for place in places for folder in place.glob(f"{PREFIX}*") if _is_left(folder))
    log.debug("looked for leftovers in %s: %d", ", ".join(map(str, places)), len(folders))
    return tuple(Leftover(folder, tuple(pids_inside(str(folder))), _size(folder)) for folder in folders)


def remove_leftover(leftover: Leftover) -> bool:
    """End what works in the folder, and remove it; return whether it is gone. One that is a leftover no more is not touched."""
    if _is_left(leftover.folder):
        killed = kill_inside(str(leftover.folder))
        shutil.rmtree(leftover.folder, ignore_errors=True)
        log.info("ended %d processes in %s, whose owner is gone, and removed it", killed, leftover.folder)
    return not os.path.lexists(leftover.folder)


def _is_left(folder: Path) -> bool:
    try:
        found = folder.lstat()
    except OSError:
        return False
    is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and stat.S_IMODE(found.st_mode) & 0o077 == 0
    return is_ours and not _is_owned(folder)


def _is_owned(folder: Path) -> bool:
    """Whether the process that made the folder runs. One without an owner's mark is about to get it, or was left before it did."""
    try:
        said = _read_mark(folder / OWNER_FILE)
    except OSError:
        said = ""
    if not said:
        # The clock may have been set meanwhile, forth or back: what seems to be of the future is not new.
        return abs(time.time() - folder.lstat().st_mtime) < _UNMARKED_S
    pid, _, mark = said.partition(" ")
    try:
        return process_mark(int(pid)) == mark
    except (OSError, ValueError):
        return False


def _read_mark(file: Path) -> str:
    """Return what a plain file says; a link, a pipe or a device in its place says nothing. Raises OSError."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        is_plain = stat.S_ISREG(os.fstat(descriptor).st_mode)
        return os.read(descriptor, _MARK_BYTES).decode(errors="replace") if is_plain else ""
    finally:
        os.close(descriptor)


def _size(folder: Path) -> int:
    return sum(os.lstat(Path(top) / name).st_blocks * 512 for top, _, names in os.walk(folder) for name in names)
