"""Volumes before and after a program."""

import ctypes
import errno
import os
import stat
import time
from typing import Any, NoReturn

from harness.agent.content import decode
from harness.agent.memory import anonymous
from harness.agent.requests import run_command, taint
from harness.agent.syscalls import call, errno_name, read_text
from harness.agent.system import mount, unmount
from harness.ops.files import OpenFlag
from harness.ops.mappings import MapFlag, Protection
from harness.ops.tag import BLOCK, tag_bytes

_DIRECT_STEP = 2 << 20


def age(request: dict[str, Any]) -> dict[str, Any]:
    """Fill ``files`` with the bytes of ``writer``, past the page cache, and remove them: their blocks keep the bytes.

    A file is path, length, and whether its blocks are allocated before they are written: allocators tell the two apart.
    """
    writer = int(request["writer"])
    buffer = anonymous(_DIRECT_STEP)
    try:
        for path, length, allocated in request["files"]:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | OpenFlag.DIRECT.bits, 0o600)
            try:
                if allocated:
                    os.posix_fallocate(descriptor, 0, length)
                for at in range(0, length, _DIRECT_STEP):
                    count = min(_DIRECT_STEP, length - at)
                    for inside in range(0, count, BLOCK):  # what is written here stays in the memory of a saved guest
                        part = tag_bytes(writer, at + inside, min(BLOCK, count - inside))
                        ctypes.memmove(buffer + inside, part, len(part))
                    written = call("pwrite64", descriptor, buffer, count, at)
                    if written != count:
                        raise OSError(-min(written, 0) or errno.EIO, f"{written} bytes of {count} were written", path)
            finally:
                os.close(descriptor)
    finally:
        call("munmap", buffer, _DIRECT_STEP)
    os.sync()
    for path, _, _ in request["files"]:
        os.unlink(path)
    os.sync()
    return {}


def prepare(request: dict[str, Any]) -> dict[str, Any]:
    """Make ``files`` with the bytes of ``writer``, and their folders. A file is path, length, and which of the writer's bytes is first."""
    writer = int(request["writer"])
    for path, length, source in request["files"]:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            for at in range(0, length, BLOCK):
                file.write(tag_bytes(writer, source + at, min(BLOCK, length - at)))
    return {}


def clear(request: dict[str, Any]) -> dict[str, Any]:
    """Zero the first ``length`` bytes of the dax device ``path`` through a mapping: it knows no write(2)."""
    path, length = request["path"], int(request["length"])
    descriptor = os.open(path, os.O_RDWR)
    try:
        address = call("mmap", 0, length, Protection.READ.bits | Protection.WRITE.bits, MapFlag.SHARED.bits, descriptor, 0)
    finally:
        os.close(descriptor)
    if address < 0:
        raise OSError(-address, f"{length} bytes could not be mapped", path)
    ctypes.memset(address, 0, length)
    call("munmap", address, length)
    return {}


_LOOK_STEP = 4 << 20


def audit(request: dict[str, Any]) -> dict[str, Any]:
    """Read every file of each of ``volumes``, unmount, run ``check``, mount again, and read once more (docs/agent-protocol.md)."""
    begun = time.monotonic()
    limit, patience_s = int(request["file_limit"]), float(request["busy_s"])
    for folder in filter(_is_mounted, request["above"]):
        _unmount_when_free(folder, patience_s)
    rows = [_audit_volume(volume, limit, patience_s) for volume in request["volumes"]]
    return {"volumes": rows, "took_s": round(time.monotonic() - begun, 3), "taint": taint()}


def _audit_volume(volume: dict[str, Any], limit: int, patience_s: float) -> dict[str, Any]:
    """One volume; what follows a step that failed is not there."""
    folder, device = volume["folder"], volume["device"]
    row: dict[str, Any] = {"role": volume["role"]}
    if not _is_mounted(folder):
        return row
    begun = time.monotonic()
    row["before"] = look(folder, limit)
    looked = time.monotonic()
    row["unmount"] = _name_of(_unmount_when_free(folder, patience_s))
    unmounted = time.monotonic()
    if not row["unmount"]:
        if volume.get("check"):
            row["check"] = run_command(list(volume["check"]), b"", float(volume["limit_s"]))
        checked = time.monotonic()
        row["mount"] = _name_of(mount(device, folder, volume["filesystem"], volume["options"]))
        mounted = time.monotonic()
        if not row["mount"]:
            row["after"] = look(folder, limit)
        parts = (looked - begun, unmounted - looked, checked - unmounted, mounted - checked, time.monotonic() - mounted)
        row["parts_s"] = [round(part, 4) for part in parts]
    return row


def _is_mounted(folder: str) -> bool:
    """Whether something is mounted at ``folder``, by the kernel's table: the folder itself may answer for what lies below it."""
    return any(line.split(" ")[4] == folder for line in read_text("/proc/self/mountinfo").splitlines())


def _name_of(result: int) -> str:
    return "" if result >= 0 else errno_name(-result)


def _unmount_when_free(folder: str, patience_s: float) -> int:
    """Unmount; what held a file may be let go a little after the process that had it (io_uring does so in a worker)."""
    end_at = time.monotonic() + patience_s
    while True:
        result = unmount(folder)
        if result != -errno.EBUSY or time.monotonic() > end_at:
            return result
        time.sleep(0.02)


def look(folder: str, limit: int) -> list[dict[str, Any]]:
    """Return everything below ``folder`` that is no folder, by path, with its size and content."""
    found = []
    for place, _, names in os.walk(folder, onerror=_raise):
        for name in names:
            path = os.path.join(place, name)
            found.append({"path": os.path.relpath(path, folder), **_look_at(path, limit)})
    return sorted(found, key=lambda row: str(row["path"]))


def _raise(error: OSError) -> NoReturn:
    raise error


def _look_at(path: str, limit: int) -> dict[str, Any]:
    """Size and runs of one file; ``failed``: the error of the call that did not work; ``larger``: it was not read."""
    status = os.lstat(path)
    if not stat.S_ISREG(status.st_mode):
        return {"size": status.st_size, "failed": f"it is no regular file (mode {status.st_mode:o})"}
    if status.st_size > limit:
        return {"size": status.st_size, "larger": True}
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            runs: list[list[Any]] = []
            at = 0
            while data := os.read(descriptor, _LOOK_STEP):
                _join_runs(runs, at, decode(data))
                at += len(data)
        finally:
            os.close(descriptor)
    except OSError as error:
        return {"size": status.st_size, "failed": _name_of(-(error.errno or errno.EIO))}
    return {"size": status.st_size, "runs": runs}


def _join_runs(runs: list[list[Any]], at: int, more: list[list[Any]]) -> None:
    """Add the runs of what was read from ``at`` on to those before it; zeroes go on as one run."""
    for run in more:
        if runs and run[2] == runs[-1][2] == "zero":
            runs[-1][1] += run[1]
        else:
            runs.append([run[0] + at, *run[1:]])
