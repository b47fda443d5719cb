"""Offset, length and buffer of O_DIRECT transfers at each power of two: more steps than one would write down."""

from collections.abc import Iterator

import pytest

from harness.ops import Open, OpenFlag, Operation, Pread, Program, Pwrite, Step

PAGE = 4096
ALIGNMENTS = tuple(1 << power for power in range(13))
ROOM = 16 * PAGE


@pytest.mark.stack("e820-fsdax-ext4-dax_always", "nvdimm-fsdax-xfs-dax_always", "e820-fsdax-ext4-dax_never", "disk-xfs")
def test_every_alignment(run_program):
    """O_DIRECT takes every alignment on DAX, and elsewhere those of the device"""
    run_program(Program(tuple(Step(operation) for operation in operations())))


def operations() -> Iterator[Operation]:
    yield Open("f", "a", (OpenFlag.RDWR, OpenFlag.CREAT, OpenFlag.DIRECT))
    yield Pwrite("f", 0, ROOM)
    for odd in ALIGNMENTS:
        # One of the three is odd, then all of them are; a buffer at 4096 lies as one at 0 does.
        for offset, length, shift in ((odd, PAGE, 0), (PAGE, odd, 0), (PAGE, PAGE, odd % PAGE), (odd, odd, odd % PAGE)):
            yield Pwrite("f", offset, length, shift)
            yield Pread("f", offset, length, shift)
    yield Pread("f", 0, ROOM)
