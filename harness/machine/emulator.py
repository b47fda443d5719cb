"""The QEMU of this host: where it is, how old it is, what it ships."""

import re
from pathlib import Path

from harness.host import process
from harness.host.deadline import Deadline
from harness.host.tools import QEMU, check_qemu_version, parse_qemu_version, require_tool
from harness.machine.command import Emulator

#: The file of the small firmware that enters a PVH kernel at once.
QBOOT = "qboot.rom"


def find_emulator(program: str = QEMU) -> Emulator:
    """Return this host's QEMU. Raises HostError where there is none, or only one that is too old."""
    path = str(require_tool(program))
    said = process.run([path, "--version"], Deadline.after(20)).stdout
    version = parse_qemu_version(said)
    check_qemu_version(version)
    packaged = re.search(r" \(([^)]*)\)", said)
    text = ".".join(str(part) for part in version) + (f" ({packaged[1]})" if packaged else "")
    folders = process.run([path, "-L", "help"], Deadline.after(20), check=False).stdout.split("\n")
    has_qboot = any((Path(folder.strip()) / QBOOT).is_file() for folder in folders if folder.strip())
    return Emulator(path, version, text, has_qboot)
