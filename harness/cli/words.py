"""Words to the person."""

import sys

from harness.sizes import format_size


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def rounded(size_bytes: int) -> str:
    """A size in whole MiB, rounded up."""
    return format_size(-(-size_bytes // 2**20) * 2**20)
