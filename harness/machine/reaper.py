"""A small process that outlives its owner by a second: it ends what works in the owner's folders, and removes them.

Started once per harness process by ``harness.machine.custody``, by file path, so it imports nothing of ours and starts in some
20 ms. It reads lines from a pipe: ``+PATH`` (a folder of the owner's, which may be about to be made), ``-PATH`` (it was given up) and
``=PATH`` (it is no business of the reaper's any more). The owner's end,
however it comes (SIGKILL included), is seen twice: by the owner's pid descriptor and by the end of the pipe. Then every process of the
same user whose command line names something inside a registered folder is killed, and the folders are removed.

Folders, not process ids: a folder is registered before anything starts in it, so there is no moment at which a QEMU exists that the
reaper cannot find, and a folder's random name cannot be reused as a pid can.
"""

import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Iterator

#: How long the reaper goes on looking after it found nothing: a child of the owner may just be between fork and exec.
QUIET_S = 0.5
POLL_S = 0.05
#: However stubborn a process is, the reaper itself ends.
LIMIT_S = 30.0


def main(pipe_fd: int, owner: int) -> None:
    """Serve until the owner has ended, then clean up."""
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.chdir("/")
    folders = _watch(pipe_fd, owner)
    _clean_up(folders)


def _watch(pipe_fd: int, owner: int) -> set[str]:
    """Return the folders that are still registered when the owner has ended."""
    folders: set[str] = set()
    poller = select.poll()
    poller.register(pipe_fd, select.POLLIN)
    try:
        owner_fd = os.pidfd_open(owner)
    except ProcessLookupError:
        owner_fd = -1
    else:
        poller.register(owner_fd, select.POLLIN)
    os.set_blocking(pipe_fd, False)
    pending = b""
    while True:
        # An owner that ended before its pid descriptor was opened has closed the pipe, or handed it to a child: our parent tells.
        ended = owner_fd == -1 or os.getppid() != owner
        ready = {fd for fd, _ in poller.poll(0 if ended else None)}
        chunk, closed = _read_all(pipe_fd)
        pending += chunk
        *lines, pending = pending.split(b"\n")
        for line in lines:
            path = os.fsdecode(line[1:])
            if line.startswith(b"+"):
                folders.add(path)
            elif line.startswith(b"="):
                folders.discard(path)
            else:
                # Its owner has ended what worked there; this is for what would not end, or was forgotten.
                kill_inside(path)
                shutil.rmtree(path, ignore_errors=True)
                folders.discard(path)
        if ended or closed or owner_fd in ready:
            return folders


def _read_all(pipe_fd: int) -> tuple[bytes, bool]:
    """Return what the pipe holds now, and whether its other end is closed."""
    chunks: list[bytes] = []
    while True:
        try:
            chunk = os.read(pipe_fd, 65536)
        except BlockingIOError:
            return b"".join(chunks), False
        if not chunk:
            return b"".join(chunks), True
        chunks.append(chunk)


def _clean_up(folders: set[str]) -> None:
    now = time.monotonic()
    give_up, quiet_since = now + LIMIT_S, now
    while folders and now < give_up and now - quiet_since < QUIET_S:
        killed = sum(kill_inside(folder) for folder in folders)
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
        now = time.monotonic()
        if killed or any(os.path.lexists(folder) for folder in folders):
            quiet_since = now
        # Waits for what is between fork and exec to show its command line; there is nothing to be notified by.
        select.select([], [], [], POLL_S)
        now = time.monotonic()


def pids_inside(folder: str) -> Iterator[int]:
    """Yield every process of this user, but this one, whose command line names something inside ``folder``."""
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                if _works_inside(int(entry), folder):
                    yield int(entry)
            except OSError:
                pass


def _works_inside(pid: int, folder: str) -> bool:
    """Anybody can name our folder in a command line, so the process must be ours too, in each of its user ids (proc(5), Uid).

    Raises OSError where there is no such process.
    """
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        if os.fsencode(folder) + b"/" not in file.read():
            return False
    with open(f"/proc/{pid}/status", "rb") as file:
        ids = next((line.split()[1:] for line in file if line.startswith(b"Uid:")), [])
    return set(ids) == {str(os.getuid()).encode()}


def kill_inside(folder: str) -> int:
    """Kill every process of this user whose command line names something inside ``folder``; return how many."""
    killed = 0
    for pid in pids_inside(folder):
        try:
            fd = os.pidfd_open(pid)
        except OSError:
            continue
        try:
            # Read again after the descriptor is open: what is killed is what was read, even if the pid was reused in between.
            if _works_inside(pid, folder):
                signal.pidfd_send_signal(fd, signal.SIGKILL)
                killed += 1
        except OSError:
            pass
        finally:
            os.close(fd)
    return killed


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
