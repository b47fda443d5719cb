"""mmdebstrap: its command, run so that nothing of it stays behind."""

import os
from collections.abc import Iterable
from pathlib import Path

from harness.host.apt import Mirrors, base_suite, source_lines
from harness.host.deadline import Deadline
from harness.host.process import run
from harness.host.tools import find_tool, require_tool
from harness.image.logged import run_logged


def mmdebstrap_command(
    suite: str, target: str, mirrors: Mirrors, *, variant: str, form: str, options: Iterable[str] = (), hooks: Iterable[str] = ()
) -> list[str]:
    """Return the mmdebstrap command; ``hooks`` run after everything is installed. A suite that adds to another one comes before it."""
    base = base_suite(suite)
    return [
        str(require_tool("mmdebstrap")),
        f"--variant={variant}",
        f"--format={form}",
        "--architectures=amd64",
        *([] if suite == base else [f'--aptopt=APT::Default-Release "{suite}"']),
        *options,
        *(f"--customize-hook={hook}" for hook in hooks),
        base,
        target,
        *source_lines(suite, mirrors),
    ]


def run_mmdebstrap(command: list[str], deadline: Deadline, log: Path) -> None:
    """Run an mmdebstrap command; what it mounts vanishes with its processes, however they end.

    Raises HostError; ``log`` goes with the unfinished build, so the error names a copy of it in the cache.
    """
    run_logged([*_own_mounts(os.geteuid() == 0, deadline), *command], deadline, log)


def _own_mounts(is_root: bool, deadline: Deadline) -> tuple[str, ...]:
    """What goes before a command that mounts, so that this computer never sees the mounts.

    As root mmdebstrap binds /dev/shm, /proc and /sys below /tmp. Killed, it leaves them, and whoever then removes that
    folder removes what is in the real /dev/shm. Without root it makes a namespace itself.
    """
    unshare = ("unshare", "--mount", "--propagation", "private")
    usable = is_root and find_tool("unshare") is not None and run([*unshare, "true"], deadline, check=False).status == 0
    return unshare if usable else ()
