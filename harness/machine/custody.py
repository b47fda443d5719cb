"""Private folders that never outlive the process that made them, nor do the processes that work in them."""

import atexit
import contextlib
import logging
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from harness.errors import HostError
from harness.host import process, settings
from harness.machine import reaper
from harness.sizes import MIB, format_size

log = logging.getLogger(__name__)

#: RAM files are best kept on a memory file system; it must have this much room beyond what the machine may fill.
MEMORY_FOLDER = Path("/dev/shm")
_SPARE_BYTES = 256 * MIB
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
#: How private folders are called, and the file in each that says whose it is.
PREFIX = "pmemh-"
OWNER_FILE = "owner"
#: What helps where a private folder cannot take what it should.
REMEDY = f"free some room, or name another folder with {settings.PREFIX}TMP"


@contextlib.contextmanager
def private_folder(room_bytes: int = 0) -> Iterator[Path]:
    """Make a folder (mode 0700, short path) with room for ``room_bytes`` and remove it at the end.

    If this process ends in any other way, its reaper kills every process whose command line names something in the folder, and
    removes it, within about a second. Raises HostError when no place has the room.
    """
    folder = Path(tempfile.mktemp(prefix=PREFIX, dir=_choose_root(room_bytes)))
    _custodian().keep(folder)
    try:
        _make(folder)
        log.debug("made %s with room for %s", folder, format_size(room_bytes))
        yield folder
    finally:
        log.debug("removing %s", folder)
        shutil.rmtree(folder, ignore_errors=True)
        _custodian().release(folder)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700)
        (folder / OWNER_FILE).write_text(f"{os.getpid()} {process_mark(os.getpid())}")
    except OSError as error:
        raise HostError(f"cannot make the folder {folder} for a machine: {error.strerror}; {REMEDY}") from error


def process_mark(pid: int) -> str:
    """Return what tells this process from a later one with the same number: when it began, in ticks since boot, and the boot.

    Raises OSError where there is no such process.
    """
    # The name of the program, which stands in brackets before, may have spaces in it.
    began = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return f"{began} {_BOOT_ID.read_text().strip()}"


@contextlib.contextmanager
def removed_if_killed(folder: Path) -> Iterator[None]:
    """Have ``folder``, which exists, removed if this process is killed meanwhile; otherwise it is left alone."""
    _custodian().keep(folder)
    try:
        yield
    finally:
        _custodian().forget(folder)


def _choose_root(room_bytes: int) -> Path:
    """Return the setting's folder, else the memory file system where it has room, else the system's temp folder."""
    chosen = settings.runtime_root()
    candidates = [chosen] if chosen else [MEMORY_FOLDER, Path(tempfile.gettempdir())]
    said = []
    for root in candidates:
        try:
            room = shutil.disk_usage(root).free
        except OSError as error:
            said.append(f"{root}: {error.strerror}")
            continue
        if not os.access(root, os.W_OK):
            said.append(f"{root}: not writable")
        elif room < room_bytes + _SPARE_BYTES:
            said.append(f"{root}: {room // MIB} MiB free")
        else:
            return root
    needed = (room_bytes + _SPARE_BYTES) // MIB
    raise HostError(f"no folder for a machine's memory and disks, which may need {needed} MiB: {'; '.join(said)}; {REMEDY}")


class _Custodian:
    """This process's end of the pipe to its reaper."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._lock = threading.Lock()
        self._kept: set[Path] = set()
        self._pipe_fd = self._start_reaper()

    def keep(self, folder: Path) -> None:
        with self._lock:
            self._kept.add(folder)
            self._tell(f"+{folder}")

    def release(self, folder: Path) -> None:
        with self._lock:
            self._kept.discard(folder)
            self._tell(f"-{folder}")

    def forget(self, folder: Path) -> None:
        with self._lock:
            self._kept.discard(folder)
            self._tell(f"={folder}")

    def _tell(self, line: str) -> None:
        try:
            os.write(self._pipe_fd, os.fsencode(line) + b"\n")
        except BrokenPipeError:
            # Someone ended our reaper. A new one takes over everything that is still kept.
            log.warning("the reaper of this process, %d, is gone: a new one takes over %d folders", self._reaper.pid, len(self._kept))
            os.close(self._pipe_fd)
            self._pipe_fd = self._start_reaper()
            os.write(self._pipe_fd, b"".join(b"+" + os.fsencode(folder) + b"\n" for folder in self._kept))

    def _start_reaper(self) -> int:
        read_fd, write_fd = os.pipe()
        try:
            # Its own session: a signal to our process group (Ctrl-C) does not reach it. -I -S: nothing but the standard library.
            self._reaper = process.start(
                [sys.executable, "-I", "-S", str(Path(reaper.__file__)), str(read_fd), str(self.owner)],
                pass_fds=[read_fd],
                new_session=False,
            )
        except BaseException:
            os.close(write_fd)
            raise
        finally:
            os.close(read_fd)
        return write_fd

    def close(self) -> None:
        """Let the reaper end now and wait for it, so that a process that ends in order leaves nothing behind even for a moment."""
        os.close(self._pipe_fd)
        self._reaper.wait()


_current: _Custodian | None = None
_current_lock = threading.Lock()


def _custodian() -> _Custodian:
    """Return this process's custodian; after a fork the child gets one of its own."""
    global _current
    with _current_lock:
        if _current is None or _current.owner != os.getpid():
            _current = _Custodian()
            atexit.register(_close, _current)
        return _current


def _close(custodian: _Custodian) -> None:
    if custodian.owner == os.getpid():
        custodian.close()
