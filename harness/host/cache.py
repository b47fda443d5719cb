"""A store of folders that are either complete or not there.

An entry is built in a folder of its own, written through to the disk, and renamed into place under a lock. Whoever
finds the entry's folder may use it without asking: what an interrupted build left behind has another name.
"""

import errno
import logging
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from tempfile import mkdtemp

from filelock import FileLock, Timeout

from harness.errors import HostError
from harness.host.deadline import Deadline
from harness.host.log import took
from harness.sizes import MIB

log = logging.getLogger(__name__)

Progress = Callable[[str], None]

#: A disk that has no more room than this, when something could not be built, is told of.
_LITTLE_BYTES = 64 * MIB
_REMEDY = "name a folder of yours, with room, with PMEM_HARNESS_CACHE (images and all else) or PMEM_HARNESS_TEMPLATES (templates)"


def content_key(*parts: bytes | str) -> str:
    """Return a short name that differs whenever one of ``parts`` does."""
    digest = sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        digest.update(len(raw).to_bytes(8, "little") + raw)
    return digest.hexdigest()[:16]


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        digest = sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def stored_entry(store: Path, name: str, build: Callable[[Path], None], progress: Progress, deadline: Deadline) -> Path:
    """Return the folder of entry ``name``; where it is missing, ``build`` fills an empty folder that becomes it.

    A second builder of the same entry waits for the first. When ``build`` raises, nothing is kept. Raises HostError
    when the deadline passes while waiting or the store cannot be written.
    """
    entry = store / name
    if entry.is_dir():
        return entry
    try:
        (store / "building").mkdir(parents=True, exist_ok=True)
        (store / "locks").mkdir(exist_ok=True)
    except OSError as error:
        raise _unwritable(store, error) from error
    with _locked(store, name, progress, deadline):
        if entry.is_dir():  # the builder we waited for made it
            return entry
        remove_abandoned(store, name)
        try:
            unfinished = _fresh_folder(store, name)
        except OSError as error:
            raise _unwritable(store, error) from error
        try:
            with took(log, logging.INFO, f"built {entry}"):
                build(unfinished)
                _write_through(unfinished)
                unfinished.rename(entry)
                _sync(store)
        except OSError as error:
            raise HostError(f"could not build {entry}: {error}; nothing of it is kept.{_lack_of_room(store, error)}") from error
        except HostError as error:
            if lack := _lack_of_room(store):
                raise HostError(f"could not build {entry}: {error}\nNothing of it is kept.{lack}") from error
            raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return entry


def _unwritable(store: Path, error: OSError) -> HostError:
    return HostError(f"cannot write the cache {error.filename or store}: {error.strerror}; {_REMEDY}")


def _lack_of_room(store: Path, error: OSError | None = None) -> str:
    """Return what to do where the disk is full, or as good as full; else an empty text."""
    free = shutil.disk_usage(store).free
    if free >= _LITTLE_BYTES and (error is None or error.errno not in (errno.ENOSPC, errno.EDQUOT)):
        return ""
    return f" {free // MIB} MiB are free in {store}: free some room there, or {_REMEDY}"


def remove_entry(store: Path, name: str, progress: Progress, deadline: Deadline, inode: int | None = None) -> bool:
    """Remove entry ``name``; return whether there was one. It vanishes at once, by a rename, and is deleted afterwards.

    ``inode``: only the folder with this number, not one that somebody has put in its place meanwhile.
    """
    entry = store / name
    if not entry.is_dir():
        return False
    (store / "building").mkdir(exist_ok=True)
    (store / "locks").mkdir(exist_ok=True)
    with _locked(store, name, progress, deadline):
        if not entry.is_dir() or inode not in (None, entry.stat().st_ino):
            return False
        dying = _fresh_folder(store, name)
        entry.rename(dying)
        log.info("removed %s", entry)
        shutil.rmtree(dying, ignore_errors=True)
    return True


@contextmanager
def _locked(store: Path, name: str, progress: Progress, deadline: Deadline) -> Iterator[None]:
    path = store / "locks" / f"{name}.lock"
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress(f"waiting for another process that is building {name} (its lock: {path})")
        try:
            with took(log, logging.INFO, f"waited for another process that was building {name}"):
                lock.acquire(timeout=deadline.remaining_s)
        except Timeout as error:
            raise HostError(f"another process holds {path} for more than {deadline.limit_s:.0f} s; is it stuck?") from error
    except OSError as error:
        raise HostError(f"cannot lock {path}: {error.strerror}; is the cache another user's? {_REMEDY}") from error
    try:
        yield
    finally:
        lock.release()


def _fresh_folder(store: Path, name: str) -> Path:
    """A folder that nobody had before: what a killed builder started may still run, and write where that one built."""
    folder = Path(mkdtemp(prefix=f"{name}~", dir=store / "building"))
    folder.chmod(0o755)
    return folder


def remove_abandoned(store: Path, mine: str = "") -> list[str]:
    """Remove the unfinished folders that nobody builds any more, and return their names: their locks are free, or (``mine``) held by us.

    Those of another user, who shares the store, stay.
    """
    removed = []
    for folder in sorted((store / "building").iterdir()) if (store / "building").is_dir() else []:
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            continue
        name = folder.name.rpartition("~")[0]
        lock = FileLock(store / "locks" / f"{name}.lock")
        try:
            if name != mine:
                lock.acquire(timeout=0)
        except (Timeout, OSError) as error:  # OSError: the lock is another user's
            log.debug("left alone: %s (%s)", folder, error)
            continue
        try:
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            lock.release()
        if not folder.exists():
            log.info("removed what an interrupted build left: %s", folder)
            removed.append(folder.name)
    return removed


def _write_through(folder: Path) -> None:
    """Make everything below ``folder`` survive a power cut, so that a name never points at missing bytes."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if not path.is_symlink() and (path.is_file() or path.is_dir()):
            _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
