"""The programs that we need on this computer: finding them, and telling which are missing."""

import logging
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HostError
from harness.host.deadline import Deadline
from harness.host.process import run

log = logging.getLogger(__name__)

QEMU = "qemu-system-x86_64"
OLDEST_QEMU = (8, 2)

# Debian keeps some of these where an ordinary user's PATH does not look.
_MORE_FOLDERS = "/usr/local/sbin:/usr/sbin:/sbin"


@dataclass(frozen=True)
class Tool:
    """A program, the Debian package that has it, and what we do with it."""

    program: str
    package: str
    purpose: str


RUN_TOOLS = (Tool(QEMU, "qemu-system-x86", "runs the guests"),)
BUILD_TOOLS = (
    Tool("mmdebstrap", "mmdebstrap", "makes the root file system and reads what a suite has"),
    Tool("apt-cache", "apt", "tells which kernels a suite has"),
    Tool("apt-get", "apt", "downloads kernel packages"),
    Tool("dpkg-deb", "dpkg", "unpacks kernel packages"),
    Tool("depmod", "kmod", "lists what a kernel module depends on"),
    Tool("fakeroot", "fakeroot", "keeps the owners of files in the root file system without being root"),
    Tool("mke2fs", "e2fsprogs", "makes the image of the root file system"),
    Tool("newuidmap", "uidmap", "lets mmdebstrap work without root"),
    Tool("tar", "tar", "unpacks the root file system"),
    Tool("zstd", "zstd", "uncompresses kernels"),
    Tool("lz4", "lz4", "uncompresses kernels"),
)
#: Beside these: what compiles a kernel from source, which is done only where somebody asks for it.
COMPILE_TOOLS = (
    Tool("gcc", "gcc", "compiles kernels"),
    Tool("make", "make", "compiles kernels"),
    Tool("flex", "flex", "reads the options of kernels"),
    Tool("bison", "bison", "reads the options of kernels"),
    Tool("bc", "bc", "computes constants of kernels"),
    Tool("patch", "patch", "applies patches to kernels"),
    Tool("xz", "xz-utils", "unpacks the source of kernels"),
)
#: What looks at the page of results, in tests.
PAGE_TOOLS = (Tool("chromium", "chromium", "shows the page"),)
#: A header that objtool, which every x86-64 kernel is made with, includes; and its package.
_HEADER, _HEADER_PACKAGE = "libelf.h", "libelf-dev"


def find_tool(program: str) -> Path | None:
    """Return where ``program`` is, looking in the administrator's folders too, or None."""
    found = shutil.which(program) or shutil.which(program, path=_MORE_FOLDERS)
    log.debug("%s is %s", program, found or "not here")
    return Path(found) if found else None


def require_tool(program: str) -> Path:
    """Return where ``program`` is; raise HostError naming the Debian package that has it."""
    found = find_tool(program)
    if found is None:
        package = next((tool.package for tool in RUN_TOOLS + BUILD_TOOLS + COMPILE_TOOLS if tool.program == program), program)
        raise HostError(f"{program} is not on this computer: install the package {package}, or run ./bootstrap, which does it")
    return found


def missing_tools(tools: Iterable[Tool]) -> tuple[Tool, ...]:
    """Return those of ``tools`` that are not on this computer."""
    return tuple(tool for tool in tools if find_tool(tool.program) is None)


def missing_to_compile() -> tuple[str, ...]:
    """Return the Debian packages, sorted, that have to be installed before a kernel can be compiled on this computer."""
    packages = {tool.package for tool in missing_tools(COMPILE_TOOLS)}
    include = f"#include <{_HEADER}>\n"
    if "gcc" in packages or run(["gcc", "-E", "-x", "c", "-"], Deadline.after(60), check=False, stdin=include).status != 0:
        packages.add(_HEADER_PACKAGE)
    return tuple(sorted(packages))


def require_to_compile() -> None:
    """Raise HostError, with what to install, where a kernel cannot be compiled on this computer."""
    if packages := missing_to_compile():
        raise HostError(
            f"a kernel cannot be compiled on this computer yet. Install what is missing: apt-get install {' '.join(packages)};"
            " or run ./bootstrap build with the same arguments, which does it"
        )


def parse_qemu_version(said: str) -> tuple[int, int, int]:
    """Return the version in the output of ``--version``. Raises HostError when there is none."""
    match = re.search(r"version (\d+)\.(\d+)(?:\.(\d+))?", said)
    if match is None:
        raise HostError(f"cannot read a version from what {QEMU} --version printed: {said.strip()[:200]!r}")
    return int(match[1]), int(match[2]), int(match[3] or 0)


def check_qemu_version(version: tuple[int, int, int]) -> None:
    """Raise HostError when QEMU of this version is too old for the guests."""
    if version[:2] < OLDEST_QEMU:
        is_, needed = ".".join(map(str, version)), ".".join(map(str, OLDEST_QEMU))
        raise HostError(
            f"QEMU {is_} is too old: {needed} or newer is required, because older ones panic recent kernels at boot under TCG, about"
            " once in ten boots. On Debian 12 install qemu-system-x86 from bookworm-backports, or run ./bootstrap, which does it"
        )
