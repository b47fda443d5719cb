"""Ageing: the blocks that a fresh file system hands out next hold the bytes of a foreign writer, so that what should be zero shows.

mkfs leaves free blocks as they are, which on a fresh device is all zero: a kernel that forgets to zero a block would never be seen. So
after mkfs, under a mount of its own, files are filled with tagged bytes and removed. Nothing discards
(mkfs is told not to, ``discard`` is no mount option here), and the mount that follows has forgotten where the allocator was.

Writing goes past the page cache: neither the guest's memory nor its Cached line shows that it was done.
"""

from collections.abc import Sequence

from harness import ops as op
from harness.guest.layout import PlacedVolume
from harness.model.value import evolve
from harness.ops import Program, Step
from harness.ops.tag import FOREIGN_WRITER
from harness.sizes import KIB, MIB

_NAME = ".harness-age"
#: Rounds, each on a mount that nobody has used, as a program's is: how many files of which size are written and removed, and whether their
#: blocks are allocated first. Allocators remember where they were, so what one round does moves none of the next (docs/architecture.md has
#: the measure). More than these 11.75 MiB a volume would not leave the templates of a whole suite within their limit.
_ROUNDS = (((4, 64 * KIB, True),), ((5, 2 * MIB, False), (4, 256 * KIB, False), (8, 64 * KIB, False)))


def aged_volumes(volumes: Sequence[PlacedVolume]) -> tuple[PlacedVolume, ...]:
    """Return the volumes that get a file system which can be written, also those that only the program mounts. A bare node is zeroed, and
    known to be so."""
    return tuple(placed for placed in volumes if placed.volume.mount is not None and not placed.is_read_only)


def mounting(volumes: Sequence[PlacedVolume]) -> Program:
    """Return what mounts ``volumes`` without any option: one that the stack is about may be refused."""
    return Program(tuple(Step(evolve(placed.mounting, options="")) for placed in volumes))


def unmounting(volumes: Sequence[PlacedVolume]) -> Program:
    return Program(tuple(Step(op.UmountVolume(placed.volume.role)) for placed in volumes))


def ageing_requests(volumes: Sequence[PlacedVolume]) -> list[dict[str, object]]:
    """Return the arguments of the agent's request ``age``, round by round."""
    return [_request(volumes, [kind[1:] for kind in kinds for _ in range(kind[0])]) for kinds in _ROUNDS]


def _request(volumes: Sequence[PlacedVolume], kinds: Sequence[tuple[int, bool]]) -> dict[str, object]:
    files = [
        [f"{placed.folder}/{_NAME}-{number}", length, allocated and _can_allocate(placed)]
        for placed in volumes
        for number, (length, allocated) in enumerate(kinds)
    ]
    return {"writer": FOREIGN_WRITER, "files": files}


def _can_allocate(placed: PlacedVolume) -> bool:
    return placed.volume.mount is not None and placed.volume.mount.filesystem.traits.fallocates
