"""The doctor's eyes: what a machine shows of the links that DAX hangs on, put together as evidence. Reads only, and needs no root.

What cannot be read, for want of a tool or of permission, is evidence that is unseen.
"""

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from harness.errors import GuestError
from harness.guest.looking import Output, look
from harness.guest.seen_machine import BLOCK, MACHINE_PATTERNS, MACHINE_QUESTIONS, Machine, Mount, mount_of, read_machine
from harness.guest.ssh import Shell
from harness.host.deadline import Deadline
from harness.model.dax.evidence import (
    Device,
    Evidence,
    FileSeen,
    FilesystemSeen,
    FolderSeen,
    Namespace,
    Region,
    Unseen,
)
from harness.model.dax.needs import NEEDS, by_driver

#: Asks statx(2) for the attribute, and mmap(2) for MAP_SYNC to read, which maps nothing in. Not even the time of access is changed.
_PROGRAM = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
path, page = os.fsencode(sys.argv[1]), int(sys.argv[2])
found = ctypes.create_string_buffer(256)
if libc.statx(-100, path, 0, 0, found):
    sys.exit(os.strerror(ctypes.get_errno()))
print("dax", int.from_bytes(found[8:16], sys.byteorder) >> 21 & 1)
try:
    file = os.open(path, os.O_RDONLY | os.O_NOATIME)
except OSError as error:
    sys.exit("sync not asked: " + error.strerror)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
mapped = libc.mmap(None, page, 1, 0x80003, file, 0)
print("sync", int(mapped != ctypes.c_void_p(-1).value))
"""


@dataclass(frozen=True)
class _Place:
    """What is to be looked at: a path, the device below it, where that is mounted; or a namespace or a region alone."""

    asked: str
    name: str | None = None
    mount: Mount | None = None
    path: str | None = None
    namespace: Namespace | None = None
    region: Region | None = None


def examine(shell: Shell, path: str | None, deadline: Deadline) -> Iterator[Evidence]:
    """Yield what a machine shows of ``path``; None: of every place with persistent memory, mounted or not.

    Raises GuestError where the machine is lost, says nothing of itself, or has no such path.
    """
    questions = dict(MACHINE_QUESTIONS)
    if path is not None:
        questions["path"] = f'p=$(readlink -f -- {shlex.quote(path)}) && stat -c "%F" -- "$p" && printf "%s" "$p"'
    answers = look(shell, MACHINE_PATTERNS, questions, deadline)
    machine = read_machine(answers)
    places = _all_places(machine) if path is None else (_find_place(machine, path, answers.outputs["path"]),)
    for place in places:
        yield _look_at(shell, machine, place, deadline)


# ---- places -----------------------------------------------------------------------------------------------------------


def _all_places(machine: Machine) -> tuple[_Place, ...]:
    """Return every place with persistent memory: what is mounted, then devices, then namespaces and regions of which there is none."""
    places: list[_Place] = []
    for mount in machine.mounts:
        name = machine.names.get(mount.number)
        if name is not None and machine.devices[name].namespaces:
            places.append(_Place(mount.entry.folder, name, mount, mount.entry.folder))
    used = {space for place in places if place.name for space in machine.devices[place.name].namespaces}
    for namespace in machine.namespaces:
        if namespace not in used:
            places.append(_place_of(machine, namespace))
    busy = {namespace.region for namespace in machine.namespaces}
    places += [_Place(region.name, region=region) for region in machine.regions if region not in busy]
    return tuple(places) or (_Place("this machine"),)


def _place_of(machine: Machine, namespace: Namespace) -> _Place:
    """Return the place of a namespace on which nothing is mounted: its device, or a partition or a mapping that stands on that."""
    upper = [name for name, device in machine.devices.items() if namespace in device.namespaces]
    if not upper:
        return _Place(namespace.node or namespace.name, namespace=namespace)
    name = max(upper, key=lambda name: len(tuple(machine.devices[name].chain)))
    return _Place(machine.devices[name].node, name)


def _find_place(machine: Machine, path: str, output: Output) -> _Place:
    kind, _, real = output.text.strip().partition("\n")
    if output.status:
        return _missing(machine, path, output)
    if kind == "block special file":
        return _of_device(machine, path, real)
    for namespace in machine.namespaces:
        if namespace.node == real:
            return _Place(path, namespace=namespace)
    if kind not in ("directory", "regular file", "regular empty file"):
        raise GuestError(f"{path} is a {kind}: ask for a file, a folder, a mount point or a block device")
    mount = mount_of(machine.mounts, real)
    return _Place(path, machine.names.get(mount.number) if mount else None, mount, real)


def _of_device(machine: Machine, path: str, real: str) -> _Place:
    name = real.removeprefix("/dev/")
    if name not in machine.devices:
        raise GuestError(f"{path} is {real}, a block device that {BLOCK} does not list")
    mount = next((m for m in reversed(machine.mounts) if machine.names.get(m.number) == name), None)
    return _Place(path, name, mount, mount.entry.folder if mount else None)


def _missing(machine: Machine, path: str, output: Output) -> _Place:
    """Return the place of a device that is not there, though it could be; raise GuestError for any other path."""
    if not re.fullmatch(r"/dev/(pmem|dax)[\d.]+s?", path):
        raise GuestError(output.why(f"cannot look at {path}"))
    number = re.split(r"\.", path.rstrip("s").removeprefix("/dev/pmem").removeprefix("/dev/dax"))
    wanted = f"namespace{number[0]}.{number[1] if len(number) > 1 else 0}"
    namespace = next((space for space in machine.namespaces if space.name == wanted), None)
    region = next((region for region in machine.regions if region.name == f"region{number[0]}"), None)
    return _Place(path, namespace=namespace, region=region)


# ---- one place --------------------------------------------------------------------------------------------------------


def _look_at(shell: Shell, machine: Machine, place: _Place, deadline: Deadline) -> Evidence:
    device = machine.devices[place.name] if place.name is not None else None
    answers = look(shell, (), _questions(machine, place, device), deadline)
    outputs = answers.outputs
    folder, file = _path_seen(place, outputs)
    return Evidence(
        asked=place.asked,
        release=machine.release,
        page_bytes=machine.page_bytes,
        fs_dax=machine.fs_dax,
        idle=machine.idle,
        regions=machine.regions,
        namespaces=machine.namespaces,
        namespace=place.namespace,
        region=place.region,
        device=device,
        filesystem=_filesystem(machine, place, outputs),
        folder=folder,
        file=file,
        said=_about(machine.said, device),
    )


def _questions(machine: Machine, place: _Place, device: Device | None) -> dict[str, str]:
    questions = {"none": ":"}
    folder = place.mount.entry.folder if place.mount else ""
    if device is not None:
        node = shlex.quote(device.node)
        listed = f"[ -r {node} ] || lsblk -Pdno FSTYPE,PTTYPE {node}"
        questions["type"] = f"blkid -p -o export -s TYPE -s PTTYPE {node} || {{ s=$?; {listed}; exit $s; }}"
        questions["superblock"] = "; ".join(_superblock_questions(machine, place, node, shlex.quote(folder) if folder else node))
    if folder:
        questions["block"] = f"stat -f -c %S {shlex.quote(folder)}"
    if place.path is not None:
        first = f'p={shlex.quote(place.path)}; [ -d "$p" ] && p=$(find "$p" -xdev -maxdepth 1 -type f 2>/dev/null | head -n 1)'
        questions["kind"] = f"[ -d {shlex.quote(place.path)} ]"
        questions["own"] = f"lsattr -d {shlex.quote(place.path)}"
        questions["file"] = f'{first}; printf %s "$p"'
        questions["flags"] = f'{first}; lsattr -d "$p"'
        xfs_io = "xfs_io -r -c 'statx -r' \"$p\""
        python = f'python3 -I -S -c {shlex.quote(_PROGRAM)} "$p" {machine.page_bytes}'
        questions["statx"] = f"{first}; if command -v python3 >/dev/null; then {python}; else {xfs_io}; fi"
    return questions


def _path_seen(place: _Place, outputs: Mapping[str, Output]) -> tuple[FolderSeen | None, FileSeen | None]:
    if place.path is None:
        return None, None
    is_folder = outputs["kind"].status == 0
    folder = FolderSeen(place.path, _flags(outputs["own"])) if is_folder else None
    path = outputs["file"].text.strip("\n")
    return folder, FileSeen(path, _flags(outputs["flags"]), *_states(outputs["statx"])) if path else None


def _flags(output: Output) -> str | Unseen:
    word = output.text.split(" ")[0]
    return word.replace("-", "") if output.status == 0 and re.fullmatch("[-A-Za-z]+", word) else Unseen(output.why("lsattr"))


def _states(output: Output) -> tuple[bool | Unseen, bool | Unseen]:
    """Return whether statx says that a file has DAX, and whether it is mapped with MAP_SYNC."""
    by_program = {word: value == "1" for word, value in re.findall(r"^(dax|sync) ([01])$", output.text, re.M)}
    unseen = Unseen(output.why("statx (python3 or xfs_io)"))
    if by_program:
        return by_program.get("dax", unseen), by_program.get("sync", Unseen(output.why("mmap")))
    by_tool = re.search(r"^stat.attributes = (0x[0-9a-f]+)", output.text, re.M)
    if by_tool:
        return bool(int(by_tool[1], 16) >> 21 & 1), Unseen("there is no python3")
    return unseen, unseen


def _filesystem(machine: Machine, place: _Place, outputs: Mapping[str, Output]) -> FilesystemSeen | Unseen | None:
    mount = place.mount
    if mount is None:
        kind = _found_type(outputs["type"]) if place.name is not None else None
        if not isinstance(kind, str):
            return kind
    else:
        kind = _mounted_type(machine, place) or ""
    block, features = _superblock(outputs.get("superblock", Output(0, "not asked")))
    folders = tuple(m.entry.folder for m in machine.mounts if mount is not None and m.number == mount.number)
    if "block" in outputs and outputs["block"].text.strip().isdigit():
        block = int(outputs["block"].text)
    return FilesystemSeen(kind, block, features, mount.entry.folder if mount else None, mount.entry.options if mount else (), folders)


def _found_type(output: Output) -> str | Unseen | None:
    """Return what is on a device, from what blkid said, or lsblk in its place; None: nothing is."""
    found = dict(re.findall(r'\b(FSTYPE|TYPE|PTTYPE)="?([^"\s]+)', output.text))
    if type_ := found.get("TYPE") or found.get("FSTYPE"):
        return by_driver(type_)
    if "PTTYPE" in found:
        return f"a partition table ({found['PTTYPE']})"
    lines = output.text.strip().splitlines()
    return Unseen(f"blkid: {lines[0]}") if lines else None if output.status in (0, 2) else Unseen(output.why("blkid"))


def _superblock_questions(machine: Machine, place: _Place, node: str, where: str) -> Iterator[str]:
    """Yield what asks for the superblock: of the file system that is mounted, or of each that could be there."""
    mounted = _mounted_type(machine, place)
    asking = list(NEEDS.values()) if mounted is None else [NEEDS[mounted]] if mounted in NEEDS else []
    yield from dict.fromkeys(needs.superblock.format(node=node, place=where) for needs in asking if needs.superblock)
    yield ":"


def _mounted_type(machine: Machine, place: _Place) -> str | None:
    return None if place.mount is None else by_driver(place.mount.entry.filesystem, place.name in machine.by_ext4)


def _superblock(output: Output) -> tuple[int | Unseen, frozenset[str] | Unseen]:
    """Return the size of a block and the features, from what the tools of either family of file systems said."""
    features, block = (re.search(rf"^{name}: *(.*)$", output.text, re.M) for name in ("Filesystem features", "Block size"))
    if features and block:
        return int(block[1]), frozenset(features[1].split())
    if block := re.search(r"^data +=.* bsize=(\d+)", output.text, re.M):
        return int(block[1]), frozenset(re.findall(r"(\w+)=1\b", output.text))
    why = Unseen(output.why("the superblock"))
    return why, why


def _about(said: tuple[str, ...] | Unseen, device: Device | None) -> tuple[str, ...] | Unseen:
    """Return the latest lines of the kernel's log that name the device."""
    if isinstance(said, Unseen) or device is None:
        return () if device is None else said
    name = device.node.rpartition("/")[2]
    return tuple(line for line in said if re.search(rf"\b{re.escape(name)}\b", line))[-3:]
