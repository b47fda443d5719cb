"""The QEMU of this host: where it is, how old it is, what it ships."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path

from harness.host import process
from harness.host.cache import file_sha256
from harness.host.deadline import Deadline
from harness.host.tools import QEMU, check_qemu_version, parse_qemu_version, require_tool
from harness.machine.command import Emulator

log = logging.getLogger(__name__)

#: The file of the small firmware that enters a PVH kernel at once, and the usual one.
QBOOT, SEABIOS = "qboot.rom", "bios-256k.bin"


def find_emulator(program: str = QEMU) -> Emulator:
    """Return this host's QEMU. Raises HostError where there is none, or only one that is too old."""
    path = str(require_tool(program))
    said = process.run([path, "--version"], Deadline.after(20)).stdout
    version = parse_qemu_version(said)
    check_qemu_version(version)
    packaged = re.search(r" \(([^)]*)\)", said)
    text = ".".join(str(part) for part in version) + (f" ({packaged[1]})" if packaged else "")
    folders = process.run([path, "-L", "help"], Deadline.after(20), check=False).stdout.split("\n")
    firmware = [file for name in (QBOOT, SEABIOS) if (file := _find_file(folders, name)) is not None]
    digest = " ".join(f"{file.name}={file_sha256(file)}" for file in firmware)
    log.debug("QEMU %s is %s; firmware: %s", text, path, digest or "none of the two")
    return Emulator(path, version, text, any(file.name == QBOOT for file in firmware), digest)


def _find_file(folders: Sequence[str], name: str) -> Path | None:
    candidates = (Path(folder.strip()) / name for folder in folders if folder.strip())
    return next((file for file in candidates if file.is_file()), None)
