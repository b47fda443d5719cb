"""How many guests run on this computer at once: as many as it has processors, while there is memory for one more.

The places are locked files, so they are shared by every harness of this user, and free again however their holder ends. Who waits holds the
queue, another locked file: the next place is his, and not that of somebody who leaves one and comes back at once.
"""

import contextlib
import itertools
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from harness.errors import HostError
from harness.host import settings
from harness.host.cache import Progress
from harness.host.deadline import Deadline, wait_until
from harness.host.log import took
from harness.host.memory import Room, find_room
from harness.sizes import MIB, format_size

log = logging.getLogger(__name__)

#: What has to be free beyond what a guest needs.
_SPARE_BYTES = 256 * MIB
_POLL_S = 0.1
_MOST = 512


def places() -> int:
    """Return how many guests may run at once: the setting, else the processors that this process may use. Raises HostError."""
    text = settings.guests_text()
    if not text:
        return max(1, len(os.sched_getaffinity(0)))
    if not text.isdecimal() or not 1 <= int(text) <= _MOST:
        raise HostError(f"{settings.PREFIX}GUESTS is {text!r}: how many guests may run at once, 1 to {_MOST}")
    return int(text)


@contextlib.contextmanager
def admitted(
    need_bytes: int,
    deadline: Deadline,
    progress: Progress = lambda _: None,
    folder: Path | None = None,
    room: Callable[[], Room] = find_room,
) -> Iterator[None]:
    """Wait for a place and for ``need_bytes`` of free memory, and hold the place.

    Whoever is alone here is always let in, and told where memory is short: waiting would not help. Raises HostError when the deadline
    passes first, or where places cannot be kept.
    """
    folder = folder or settings.cache_root() / "places"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HostError(f"cannot make {folder}: {error.strerror}; {settings.PREFIX}CACHE names another folder than the cache") from error
    locks = [FileLock(folder / f"{number}.lock") for number in range(places())]
    queue = FileLock(folder / "queue.lock")
    told: list[str] = []
    rounds = itertools.count(1)

    def tell(text: str) -> None:
        if not told:
            told.append(text)
            log.info(text)
            progress(text)

    def enter() -> FileLock | None:
        if not queue.is_locked and not _taken(queue):
            if next(rounds) > 1:
                tell("waiting for a place to run a guest: others wait for one, too")
            return None
        free = [lock for lock in locks if _taken(lock)]
        now = room()
        enough = now.free_bytes >= need_bytes + _SPARE_BYTES
        chosen = free[0] if free and (enough or len(free) == len(locks)) else None
        for lock in free:
            if lock is not chosen:
                lock.release()
        running = f"{len(locks) - len(free)} of at most {len(locks)} run on this computer"
        if chosen is None:
            why = f"free memory ({now.describe()})" if free else "a place"
            # Somebody else who looks at this moment holds all places that are free, and none a moment later.
            if next(rounds) > 1:
                tell(f"waiting for {why} to run a guest: {running}")
        elif not enough:
            tell(f"a guest may need {format_size(need_bytes)}, and {now.describe()}: one runs all the same, and no second one beside it")
        return chosen

    with took(log, logging.DEBUG, "asked for a place for a guest"):
        try:
            lock = wait_until(enter, deadline, _POLL_S)
        finally:
            queue.release()
    if lock is None:
        raise HostError(
            f"no place for a guest within {deadline.limit_s:.0f} s: {len(locks)} may run at once ({settings.PREFIX}GUESTS), and each "
            f"needs {format_size(need_bytes)} of free memory; {room().describe()}"
        )
    log.debug("have the place %s; %s", lock.lock_file, room().describe())
    try:
        yield
    finally:
        lock.release()


def _taken(lock: FileLock) -> bool:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    except OSError as error:
        raise HostError(f"cannot lock {lock.lock_file}: {error.strerror}; is it another user's? {settings.PREFIX}CACHE moves it") from error
    return True
