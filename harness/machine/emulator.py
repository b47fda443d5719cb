"""The QEMU of this host: where it is, how old it is, what it ships."""

import re
import shutil
from pathlib import Path

from harness.errors import HostError
from harness.host import process
from harness.host.deadline import Deadline
from harness.machine.command import Emulator

PROGRAM = "qemu-system-x86_64"
#: Older ones corrupt flags under TCG and panic recent guests in about one boot of ten.
MINIMUM_VERSION = (8, 2, 0)
#: The file of the small firmware that enters a PVH kernel at once.
QBOOT = "qboot.rom"


def find_emulator(program: str = PROGRAM) -> Emulator:
    """Return this host's QEMU. Raises HostError where there is none, or only one older than 8.2."""
    path = shutil.which(program)
    if path is None:
        raise HostError(f"no {program} on this computer: install QEMU {_dotted(MINIMUM_VERSION)} or newer (Debian: qemu-system-x86)")
    said = process.run([path, "--version"], Deadline.after(20)).stdout
    match = re.search(r"version (\d+)\.(\d+)\.(\d+)(?: \(([^)]*)\))?", said)
    if match is None:
        raise HostError(f"{path} --version says no version: {said.strip()!r}")
    version = (int(match[1]), int(match[2]), int(match[3]))
    text = _dotted(version) + (f" ({match[4]})" if match[4] else "")
    if version < MINIMUM_VERSION:
        raise HostError(
            f"{path} is QEMU {text}: {_dotted(MINIMUM_VERSION)} or newer is needed, because older ones panic recent guests under TCG "
            "(Debian 12: take it from the backports suite)"
        )
    folders = process.run([path, "-L", "help"], Deadline.after(20), check=False).stdout.split("\n")
    has_qboot = any((Path(folder.strip()) / QBOOT).is_file() for folder in folders if folder.strip())
    return Emulator(path, version, text, has_qboot)


def _dotted(version: tuple[int, int, int]) -> str:
    return ".".join(str(part) for part in version)
