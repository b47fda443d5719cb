"""Which version of the harness this is."""

import functools
from pathlib import Path

from harness.errors import HarnessError
from harness.host.deadline import Deadline
from harness.host.process import run

ROOT = Path(__file__).parents[2]


@functools.cache
def read_commit(root: Path = ROOT) -> str:
    """Return the commit of the checkout at ``root``, with ``-dirty`` where files differ from it; empty where it is none."""
    if not (root / ".git").exists():
        return ""
    try:
        return run(["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"], Deadline.after(10)).stdout.strip()
    except (HarnessError, OSError):
        return ""
