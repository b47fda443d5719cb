"""Environment variables and settings: read here and nowhere else."""

import os
from pathlib import Path

import platformdirs

PREFIX = "PMEM_HARNESS_"


def cache_root() -> Path:
    """Where images live: ``PMEM_HARNESS_CACHE``, else the user's cache folder."""
    chosen = os.environ.get(PREFIX + "CACHE")
    return _absolute(chosen) if chosen else Path(platformdirs.user_cache_dir("pmem-harness"))


def runtime_root() -> Path | None:
    """Where machine folders (sockets, RAM files) are made: ``PMEM_HARNESS_TMP``, else None: the system's temp folder."""
    chosen = os.environ.get(PREFIX + "TMP")
    return _absolute(chosen) if chosen else None


def _absolute(text: str) -> Path:
    """A folder that means the same to every process, wherever that works."""
    return Path(text).expanduser().absolute()


def templates_root() -> Path:
    """Where saved guests live: ``PMEM_HARNESS_TEMPLATES``, else beside the images."""
    chosen = os.environ.get(PREFIX + "TEMPLATES")
    return _absolute(chosen) if chosen else cache_root() / "templates"


def templates_limit_text() -> str:
    """``PMEM_HARNESS_TEMPLATES_SIZE``: how much room saved guests may take, such as ``8GiB`` (the default)."""
    return os.environ.get(PREFIX + "TEMPLATES_SIZE", "8GiB")


def guests_text() -> str:
    """``PMEM_HARNESS_GUESTS``: how many guests may run at once; empty: as many as there are processors."""
    return os.environ.get(PREFIX + "GUESTS", "")


def accelerator_choice() -> str:
    """``PMEM_HARNESS_ACCEL``: ``auto`` (default), ``kvm`` or ``tcg``."""
    return os.environ.get(PREFIX + "ACCEL", "auto")


def package_mirror() -> str | None:
    """``PMEM_HARNESS_MIRROR``: the package mirror to build images from; None means the host's own apt configuration."""
    return os.environ.get(PREFIX + "MIRROR") or None
