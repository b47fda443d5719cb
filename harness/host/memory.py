"""How much memory may still be used here: by this computer, and by the control groups that this process is in.

In a container or under a service manager the limit of a control group is reached long before the computer's memory is, and the kernel then
kills. Groups nest, and each has its own limit: the tightest counts. Both hierarchies are read, also where they stand side by side.
Source: Linux Documentation/admin-guide/cgroup-v2.rst (memory.max, memory.high, memory.stat) and cgroup-v1/memory.rst; cgroups(7) for
/proc/PID/cgroup; proc(5) for mountinfo.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from harness.sizes import MIB, format_size

_PROC = Path("/proc/self")


@dataclass(frozen=True)
class Room:
    """Bytes that may still be used, and what sets the bound, in words."""

    free_bytes: int
    bound: str

    def describe(self) -> str:
        return f"{format_size(max(0, self.free_bytes) // MIB * MIB)} are free {self.bound}"


@dataclass(frozen=True)
class _Names:
    """What the files of a hierarchy are called. ``counted`` is the line of the statistics that says what can be given back at once."""

    limits: tuple[str, ...]
    usage: str
    counted: str
    kills_file: str


#: memory.high does not kill, but brings what is above it almost to a stop.
_V2 = _Names(("memory.max", "memory.high"), "memory.current", "inactive_file", "memory.events")
_V1 = _Names(("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file", "memory.oom_control")


@dataclass(frozen=True)
class _Group:
    folder: Path
    names: _Names


def find_room(proc: Path = _PROC) -> Room:
    """Return the smallest of what this computer has available and what each control group above this process leaves.

    Of a group's usage the page cache that nothing has used lately does not count: the kernel drops it before it kills. What is used is
    counted, templates that running guests map included.
    """
    rooms = [Room(psutil.virtual_memory().available, "on this computer"), *(room for group in _groups(proc) for room in _rooms(group))]
    return min(rooms, key=lambda room: room.free_bytes)


def count_kills(proc: Path = _PROC) -> int:
    """Return how many processes of this process's own control group the kernel has killed for want of memory; 0 where nobody counts."""
    return sum(_statistic(group.folder / group.names.kills_file, "oom_kill") for group, _ in _placed(proc))


def _rooms(group: _Group) -> Iterator[Room]:
    usage = _number(group.folder / group.names.usage)
    if usage is None:
        return
    used = usage - _statistic(group.folder / "memory.stat", group.names.counted)
    for name in group.names.limits:
        limit = _number(group.folder / name)
        if limit is not None:
            yield Room(
                limit - used, f"within the memory limit of a control group ({group.folder / name}: {format_size(limit // MIB * MIB)})"
            )


def _groups(proc: Path) -> Iterator[_Group]:
    """Yield the groups that this process is in, and those around them up to where their hierarchy is mounted."""
    for group, mount in _placed(proc):
        for folder in (group.folder, *group.folder.parents):
            yield _Group(folder, group.names)
            if folder == mount:
                break


def _placed(proc: Path) -> Iterator[tuple[_Group, Path]]:
    """Yield this process's group in each hierarchy that counts memory, with the place where that is mounted."""
    paths = dict(_paths(proc))
    for names, root, mount in _mounts(proc):
        path = paths.get(names)
        if path is None:
            continue
        # Inside a container the paths may be those of the outside: what is mounted is then all that can be seen of them.
        inside = path.removeprefix(root.rstrip("/")).lstrip("/") if path == root or path.startswith(root.rstrip("/") + "/") else ""
        folder = mount / inside
        yield _Group(folder if ".." not in inside.split("/") and folder.is_dir() else mount, names), mount


def _paths(proc: Path) -> Iterator[tuple[_Names, str]]:
    """Yield the path of this process's group in both hierarchies, as the lines ``4:memory:/a/b`` and ``0::/a/b`` have them."""
    for line in _lines(proc / "cgroup"):
        number, controllers, path = (*line.split(":", 2), "", "")[:3]
        if "memory" in controllers.split(","):
            yield _V1, path
        elif number == "0" and not controllers:
            yield _V2, path


def _mounts(proc: Path) -> Iterator[tuple[_Names, str, Path]]:
    """Yield where the hierarchies are mounted, and which part of each is."""
    for line in _lines(proc / "mountinfo"):
        fields, _, rest = line.partition(" - ")
        words, kind = fields.split(), rest.split()
        if len(words) < 5 or len(kind) < 3:
            continue
        if kind[0] == "cgroup2":
            yield _V2, words[3], Path(words[4])
        elif kind[0] == "cgroup" and "memory" in kind[2].split(","):
            yield _V1, words[3], Path(words[4])


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(errors="replace").splitlines()
    except OSError:
        return []


def _number(file: Path) -> int | None:
    """Return the number in a file; None: there is no such file, or it says ``max``."""
    text = "".join(_lines(file)).strip()
    return int(text) if text.isdecimal() else None


def _statistic(file: Path, name: str) -> int:
    words = (line.split() for line in _lines(file))
    return next((int(pair[1]) for pair in words if len(pair) == 2 and pair[0] == name and pair[1].isdecimal()), 0)
