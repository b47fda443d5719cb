"""Words to the person."""

import sys
from collections.abc import Iterable
from pathlib import Path

from harness.errors import HostError
from harness.sizes import format_size


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def cannot_write(path: Path, error: OSError) -> HostError:
    """Return what is to be raised where a file that was asked for cannot be written."""
    return HostError(f"cannot write {path}: {error.strerror}; name another one")


def alternatives(values: Iterable[object]) -> str:
    """``1 or 4``."""
    return " or ".join(map(str, values))


def rounded(size_bytes: int) -> str:
    """A size in whole MiB, rounded up."""
    return format_size(-(-size_bytes // 2**20) * 2**20)
