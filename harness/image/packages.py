"""Fetching and unpacking Debian packages without touching this computer's own apt."""

import logging
import os
import shlex
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HostError
from harness.host import settings
from harness.host.apt import Mirrors, source_lines
from harness.host.cache import Progress, file_sha256
from harness.host.deadline import Deadline
from harness.host.process import run
from harness.host.tools import find_tool, require_tool

_log = logging.getLogger(__name__)

#: What the last build that failed said, in the cache.
FAILED_BUILD_LOG = "failed-build.log"


@dataclass(frozen=True)
class FetchedPackage:
    """A package file that was downloaded and checked by apt."""

    name: str
    version: str
    sha256: str
    file: Path


def mmdebstrap_command(
    suite: str, target: str, mirrors: Mirrors, *, variant: str, form: str, options: Iterable[str] = (), hooks: Iterable[str] = ()
) -> list[str]:
    """Return the mmdebstrap command; ``hooks`` run after everything is installed."""
    return [
        str(require_tool("mmdebstrap")),
        f"--variant={variant}",
        f"--format={form}",
        "--architectures=amd64",
        *options,
        *(f"--customize-hook={hook}" for hook in hooks),
        suite,
        target,
        *source_lines(suite, mirrors),
    ]


def run_mmdebstrap(command: list[str], deadline: Deadline, log: Path) -> None:
    """Run an mmdebstrap command; what it mounts vanishes with its processes, however they end.

    Raises HostError; ``log`` goes with the unfinished build, so the error names a copy of it in the cache.
    """
    try:
        run([*_own_mounts(os.geteuid() == 0, deadline), *command], deadline, log=log)
    except HostError as error:
        raise HostError(_naming_a_copy(str(error), log)) from error


def _naming_a_copy(message: str, log: Path) -> str:
    kept = settings.cache_root() / FAILED_BUILD_LOG
    try:
        shutil.copyfile(log, kept)
    except OSError as error:
        _log.warning("the log of a build that failed could not be kept in %s: %s", kept, error)
        return message.replace(f"\nwhole output: {log}", "")
    return message.replace(str(log), str(kept))


def _own_mounts(is_root: bool, deadline: Deadline) -> tuple[str, ...]:
    """What goes before a command that mounts, so that this computer never sees the mounts.

    As root mmdebstrap binds /dev/shm, /proc and /sys below /tmp. Killed, it leaves them, and whoever then removes that
    folder removes what is in the real /dev/shm. Without root it makes a namespace itself.
    """
    unshare = ("unshare", "--mount", "--propagation", "private")
    usable = is_root and find_tool("unshare") is not None and run([*unshare, "true"], deadline, check=False).status == 0
    return unshare if usable else ()


# Runs with the root of a chroot that has nothing but apt's lists: $1. The meta package leads to the packages that
# have kernel and modules; newer kernels split them in linux-image, linux-binary and linux-modules.
_FETCH = """set -eu
export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
mkdir "$1/fetched"
cd "$1/fetched"
names=
for meta in {package}; do
    names=$(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances "$meta" \
        | grep -E '^linux-(image|binary|modules)-' | sort -u)
done
apt-get -q -o APT::Sandbox::User=root download $names {others}
"""


def fetch_kernel_packages(
    suite: str, package: str | None, others: Iterable[str], mirrors: Mirrors, folder: Path, progress: Progress, deadline: Deadline
) -> tuple[FetchedPackage, ...]:
    """Download the newest kernel that the meta package names (None: no kernel), and the packages ``others``, into ``folder``.

    apt's state is a throwaway one inside mmdebstrap. Raises HostError when the archive cannot be reached or lacks it.
    """
    wanted = package or " ".join(others)
    progress(f"fetching the newest {wanted} of {suite}" + (" with its security updates (about 40 to 130 MB)" if package else ""))
    hook = _FETCH.format(package=shlex.quote(package) if package else "", others=shlex.join(others))
    hooks = [hook, f"copy-out /fetched {shlex.quote(str(folder))}"]
    log = folder / "fetch.log"
    try:
        run_mmdebstrap(mmdebstrap_command(suite, "/dev/null", mirrors, variant="custom", form="null", hooks=hooks), deadline, log)
    except HostError as error:
        raise HostError(f"could not fetch {wanted} of {suite}; is the package mirror reachable?\n{error}") from error
    log.unlink()
    fetched = tuple(_identified(file, deadline) for file in sorted((folder / "fetched").glob("*.deb")))
    _log.info("fetched %s", ", ".join(f"{package.name} {package.version}" for package in fetched))
    return fetched


def unpack(packages: Iterable[FetchedPackage], folder: Path, deadline: Deadline) -> None:
    """Unpack package files below ``folder``; no script of theirs runs."""
    for package in packages:
        run([str(require_tool("dpkg-deb")), "--extract", str(package.file), str(folder)], deadline)


def _identified(file: Path, deadline: Deadline) -> FetchedPackage:
    said = run([str(require_tool("dpkg-deb")), "--field", str(file), "Package", "Version"], deadline).stdout
    fields = dict(line.split(": ", 1) for line in said.splitlines())
    return FetchedPackage(fields["Package"], fields["Version"], file_sha256(file), file)
