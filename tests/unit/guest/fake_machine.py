"""A machine that answers the doctor's script from tables, without a shell."""

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.guest.ssh import CommandResult, Stream
from harness.host.deadline import Deadline

ND = "/sys/bus/nd/devices"
BUS = "/sys/devices/platform/e820_pmem/ndbus0"

#: A machine with one e820 region, on which ext4 is mounted at /mnt/a, and a disk.
FILES: dict[str, str | None] = {
    "/proc/sys/kernel/osrelease": "6.12.1-amd64",
    "/proc/self/mountinfo": (
        "21 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n30 21 259:0 / /mnt/a rw,noatime - ext4 /dev/pmem0 rw,dax=always\n"
        "31 21 0:40 / /run rw - tmpfs tmpfs rw"
    ),
    f"{ND}/ndbus0/provider": "e820",
    f"{ND}/region0/read_only": "0",
    f"{ND}/namespace0.0/mode": "memory",
    f"{ND}/namespace0.0/size": "268435456",
    f"{ND}/namespace0.0/holder": "",
    "/sys/class/block/pmem0/dev": "259:0",
    "/sys/class/block/pmem0/size": "524288",
    "/sys/class/block/pmem0/ro": "0",
    "/sys/class/block/pmem0/queue/dax": "1",
    "/sys/class/block/vda/dev": "254:0",
    "/sys/class/block/vda/size": "524288",
    "/sys/class/block/vda/queue/dax": "0",
}
FOLDERS = {
    f"{ND}/region0": f"{BUS}/region0",
    f"{ND}/namespace0.0": f"{BUS}/region0/namespace0.0",
    f"{ND}/namespace0.0/block/pmem0": f"{BUS}/region0/namespace0.0/block/pmem0",
    "/sys/bus/nd/drivers/nd_pmem": "/sys/bus/nd/drivers/nd_pmem",
    "/sys/class/block/pmem0": f"{BUS}/region0/namespace0.0/block/pmem0",
    "/sys/class/block/vda": "/sys/devices/pci0000:00/virtio1/block/vda",
    "/sys/fs/ext4/pmem0": "/sys/fs/ext4/pmem0",
    "/sys/fs/ext4/vda": "/sys/fs/ext4/vda",
}
DUMPE2FS = "dumpe2fs 1.47\nFilesystem features:      has_journal extent\nBlock size:               4096"
OUTPUTS = {
    "page": (0, "4096"),
    "config": (0, "configuration /boot/config-6.12.1-amd64\nCONFIG_FS_DAX=y"),
    "log": (0, "[    1.0] pmem0: dax of something\n[    2.0] vda: no dax"),
    "path": (0, "directory\n/mnt/a"),
    "type": (0, "TYPE=ext4"),
    "superblock": (0, DUMPE2FS),
    "block": (0, "4096"),
    "kind": (0, ""),
    "own": (0, "--------------e------- /mnt/a"),
    "file": (0, "/mnt/a/file"),
    "flags": (0, "--------------e------- /mnt/a/file"),
    "statx": (0, "dax 1\nsync 1"),
}


@dataclass
class FakeMachine:
    """See above. ``files`` and ``outputs`` replace those of the same name; None takes a file, an output or a folder away."""

    files: Mapping[str, str | None] = field(default_factory=dict)
    folders: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    closed: tuple[str, ...] = ()
    scripts: list[str] = field(default_factory=list)

    def run(self, command: list[str], deadline: Deadline, *, stdin: bytes = b"", check: bool = True) -> CommandResult:
        script = stdin.decode()
        self.scripts.append(script)
        mark = script.partition("\n")[0].removeprefix("mark=")
        said = []
        if re.search(r"^look \S", script, re.M):
            kept = {path: text for path, text in {**FILES, **self.files}.items() if not path.startswith(self.without or ("-",))}
            said += [f"{mark} closed {path}\n" if path in self.closed else f"{mark} file {path}\n{text}\n" for path, text in kept.items()]
            folders = {path: real for path, real in {**FOLDERS, **self.folders}.items() if not path.startswith(self.without or ("-",))}
            said.append("\n".join([f"{mark} folders {' '.join(folders)}", *folders.values()]) + "\n")
        for name in re.findall(r"begin (\w+)", script):
            status, text = {**OUTPUTS, **self.outputs}.get(name, (0, ""))
            said.append(f"{mark} begin {name}\n{text}\n{mark} run {name} {status}\n")
        return CommandResult("sh -s", 0, "".join([*said, f"{mark} end\n"]), "")

    def open_stream(self, port: int, deadline: Deadline) -> contextlib.AbstractContextManager[Stream]:
        raise NotImplementedError
