"""The table of facts, and what an entry is made of. What is in it stands in ``facts.py`` and the files that it names."""

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass

from harness.model.filesystems import FilesystemTraits, Version, filesystem_traits
from harness.model.stack import VolumeReading

Value = str | int | bool


@dataclass(frozen=True)
class Kernel:
    """The first two numbers of a release."""

    major: int
    minor: int

    def since(self, major: int, minor: int) -> bool:
        return (self.major, self.minor) >= (major, minor)

    def has(self, since: Version | None) -> bool:
        """Whether what came with kernel ``since`` is there; None: it never came."""
        return since is not None and self.since(*since)

    @property
    def age(self) -> tuple[int, int]:
        """By this the oldest kernel comes first."""
        return self.major, self.minor


@functools.cache
def kernel_of(release: str) -> Kernel:
    """Return the numbers of a release such as ``6.12.95+deb13-cloud-amd64``. Raises ValueError where there are none."""
    match = re.match(r"(\d+)\.(\d+)", release)
    if match is None:
        raise ValueError(f"{release!r} does not start with a kernel version")
    return Kernel(int(match[1]), int(match[2]))


@dataclass(frozen=True)
class Fact:
    """A named property of a stack. ``values`` are all it can take; a test flips it to each other one."""

    name: str
    means: str
    source: str
    values: tuple[Value, ...]
    value: Callable[[Kernel, VolumeReading], Value]


FACTS: dict[str, Fact] = {}


def fact(name: str, means: str, source: str, values: tuple[Value, ...], value: Callable[[Kernel, VolumeReading], Value]) -> None:
    """Enter a fact into the table. Raises ValueError for a name that is taken."""
    if name in FACTS:
        raise ValueError(f"fact {name} is defined twice")
    FACTS[name] = Fact(name, means, source, values, value)


def traits_of(volume: VolumeReading) -> FilesystemTraits:
    """Return the record of the file system on a volume."""
    return filesystem_traits(volume.filesystem)
