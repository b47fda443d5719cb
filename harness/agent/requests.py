"""What a session answers beside programs: who it is, commands, files, the kernel's log."""

import contextlib
import fcntl
import functools
import hashlib
import os
import select
import signal
import struct
import sys
import time
from typing import Any

from harness.agent.program import perform_here
from harness.agent.syscalls import read_text
from harness.ops.codec import PROGRAM_FORMAT

#: linux/random.h
RNDADDENTROPY, RNDRESEEDCRNG = 0x40085203, 0x5207


def wake(time_s: float, seed: bytes) -> None:
    """Set the clock and feed the kernel's random numbers in a guest that slept in a file and shares its past with others."""
    time.clock_settime(time.CLOCK_REALTIME, time_s)
    with open("/dev/urandom", "wb", buffering=0) as device:
        entropy = struct.pack(f"ii{len(seed)}s", 8 * len(seed), len(seed), seed)
        fcntl.ioctl(device, RNDADDENTROPY, entropy)
        fcntl.ioctl(device, RNDRESEEDCRNG)


def hello(request: dict[str, Any]) -> dict[str, Any]:
    """Say who this is. A host that restored the guest from a saved one sends the time and a seed."""
    if "seed" in request:
        wake(float(request["time_s"]), bytes.fromhex(request["seed"]))
    return {**identity(), "time_s": time.time(), "monotonic_s": time.monotonic()}


@functools.cache
def identity() -> dict[str, Any]:
    """What does not change while the agent runs: asked once before the first connection, it costs no later one anything."""
    return {
        "agent": hashlib.sha256(_archive()).hexdigest(),
        "format": PROGRAM_FORMAT,
        "python": sys.version.split()[0],
        "kernel": os.uname().release,
    }


def _archive() -> bytes:
    """Return the file that this module was loaded from."""
    with open(__loader__.archive, "rb") as file:  # type: ignore[name-defined]
        return bytes(file.read())


def commands(request: dict[str, Any]) -> dict[str, Any]:
    """Run command lines one after the other; stop after the first that fails, unless it may (``may_fail``)."""
    results: list[dict[str, Any]] = []
    for entry in request["commands"]:
        result = run_command(list(entry["argv"]), entry.get("stdin", "").encode(), entry.get("limit_s", 120))
        results.append(result)
        if result["status"] != 0 and not entry.get("may_fail"):
            break
    return {"results": results}


def run_command(argv: list[str], stdin: bytes, limit_s: float) -> dict[str, Any]:
    """Run one command line; return its row of the answer. At the limit it is ended."""
    begun = time.monotonic()
    files = [os.memfd_create(name, os.MFD_CLOEXEC) for name in ("stdin", "stdout", "stderr")]
    try:
        os.write(files[0], stdin)
        os.lseek(files[0], 0, os.SEEK_SET)
        pid = os.posix_spawnp(
            argv[0],
            argv,
            {**os.environ, "LC_ALL": "C"},
            file_actions=[(os.POSIX_SPAWN_DUP2, descriptor, number) for number, descriptor in enumerate(files)],
            setpgroup=0,
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM],
        )
        status = _wait_for(pid, limit_s)
        out, err = (os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode(errors="replace") for descriptor in files[1:])
    except FileNotFoundError:
        status, out, err = 127, "", f"{argv[0]}: no such program in the guest"
    finally:
        for descriptor in files:
            os.close(descriptor)
    if status is None:
        status, err = -int(signal.SIGKILL), f"{err}\n(still running after {limit_s:.0f} s, so it was ended)"
    return {"argv": argv, "status": status, "stdout": out, "stderr": err, "took_s": round(time.monotonic() - begun, 3)}


def _wait_for(pid: int, limit_s: float) -> int | None:
    """Return the exit status of a child (minus the signal), or None where it had to be killed at the limit."""
    pidfd = os.pidfd_open(pid)
    try:
        waiting = select.poll()
        waiting.register(pidfd, select.POLLIN)
        in_time = bool(waiting.poll(limit_s * 1000))
        if not in_time:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    finally:
        os.close(pidfd)
    return os.waitstatus_to_exitcode(status) if in_time else None


def read_files(request: dict[str, Any]) -> dict[str, Any]:
    """Return the text of every file that matches one of ``patterns`` (None: unreadable), where folders really are, and the
    block size of the file system that each is on."""
    import glob  # the first answer does not wait for it

    files: dict[str, str | None] = {}
    folders: dict[str, str] = {}
    block_bytes: dict[str, int] = {}
    for pattern in request["patterns"]:
        for path in sorted(glob.glob(pattern)):
            if os.path.isdir(path):
                folders[path] = os.path.realpath(path)
                block_bytes[path] = os.statvfs(path).f_bsize
                continue
            try:
                with open(path, "rb") as file:
                    files[path] = file.read(1 << 20).decode(errors="replace")
            except OSError:
                files[path] = None
    return {"files": files, "folders": folders, "block_bytes": block_bytes}


def taint() -> int | None:
    """Return the kernel's taint flags, or None where they cannot be read."""
    try:
        return int(read_text("/proc/sys/kernel/tainted"))
    except OSError:
        return None


def remove_files(request: dict[str, Any]) -> dict[str, Any]:
    for path in request["paths"]:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    return {}


def make_empty(folder: str) -> None:
    """Have the folder be there with nothing in it."""
    try:
        os.mkdir(folder)
    except FileExistsError:
        _remove_all_in(folder)


def _remove_all_in(folder: str) -> None:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                _remove_all_in(entry.path)
                os.rmdir(entry.path)
            else:
                os.unlink(entry.path)


def inspect(request: dict[str, Any]) -> dict[str, Any]:
    """Do the steps of a short program in this process, then read files and remove some: what a restored guest is, in one round trip.

    There is no process of the program's own and nobody who supervises it: only what cannot block or crash belongs here.
    """
    seen = perform_here(request)
    found = read_files(request)
    remove_files({"paths": request["remove"]})
    return {"observations": {"format": PROGRAM_FORMAT, "steps": seen}, **found}


def kernel_log(request: dict[str, Any]) -> dict[str, Any]:
    """Return the kernel's messages with a sequence number of ``after`` or more, and the number to go on from."""
    after = int(request.get("after", 0))
    following = after
    lines: list[list[int | str]] = []
    descriptor = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    try:
        while True:
            try:
                record = os.read(descriptor, 16384).decode(errors="replace")
            except BrokenPipeError:  # what stood here was overwritten meanwhile
                continue
            except BlockingIOError:
                break
            head, _, text = record.partition(";")
            level, sequence, microseconds = (int(number) for number in head.split(",")[:3])
            if sequence >= after:
                lines.append([sequence, microseconds, level & 7, text.split("\n")[0]])
                following = sequence + 1
    finally:
        os.close(descriptor)
    return {"lines": lines, "next": following}
