"""What a harness left on this computer that ended without its reaper: after a power failure, or when somebody killed both."""

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.host import settings
from harness.machine.custody import MEMORY_FOLDER, OWNER_FILE, PREFIX, process_mark
from harness.machine.reaper import kill_inside, pids_inside

#: A folder without its owner's mark is left alone for so long.
_UNMARKED_S = 60.0


@dataclass(frozen=True)
class Leftover:
    """A private folder whose owner is gone, with the processes that work in it still."""

    folder: Path
    pids: tuple[int, ...]
    size_bytes: int


def find_leftovers(roots: Iterable[Path] | None = None) -> tuple[Leftover, ...]:
    """Return the private folders whose owner does not run any more, in the places where such folders are made."""
    chosen = settings.runtime_root()
    places = roots or {MEMORY_FOLDER, Path(tempfile.gettempdir()), *((chosen,) if chosen else ())}
    folders = sorted(folder for place in places for folder in place.glob(f"{PREFIX}*") if folder.is_dir())
    return tuple(Leftover(f, tuple(pids_inside(str(f))), _size(f)) for f in folders if not _is_owned(f))


def remove_leftover(leftover: Leftover) -> bool:
    """End what works in the folder, and remove it; return whether it is gone."""
    kill_inside(str(leftover.folder))
    shutil.rmtree(leftover.folder, ignore_errors=True)
    return not leftover.folder.exists()


def _is_owned(folder: Path) -> bool:
    """Whether the process that made the folder runs. One without an owner's mark is about to get it, or was left before it did."""
    try:
        pid, _, mark = (folder / OWNER_FILE).read_text().partition(" ")
    except PermissionError:  # another user's
        return True
    except OSError:
        with contextlib.suppress(OSError):
            return time.time() - folder.stat().st_mtime < _UNMARKED_S
        return False
    try:
        return process_mark(int(pid)) == mark
    except (OSError, ValueError):
        return False


def _size(folder: Path) -> int:
    return sum(os.lstat(Path(top) / name).st_blocks * 512 for top, _, names in os.walk(folder) for name in names)
