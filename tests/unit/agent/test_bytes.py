"""The generator of tagged bytes against their definition, and the agent's decoder against the generator."""

import random
from typing import Any

import pytest

from harness.agent.content import decode
from harness.model.outcome import observations_from
from harness.ops import tag
from harness.ops.tag import tag_bytes

BLOCK = 128 * 1024


def defined(writer: int, start: int, length: int) -> bytes:
    """The tagged bytes as their definition says (harness/ops/tag.py), one by one."""

    def byte(at: int) -> int:
        groups = [writer >> 7, writer, *((at // 8) >> shift for shift in (28, 21, 14, 7, 0))]
        return 0xA7 if at % 8 == 0 else groups[at % 8 - 1] & 0x7F

    return bytes(map(byte, range(start, start + length)))


@pytest.mark.parametrize("writer", [1, 127, 128, 129, tag.MAX_WRITER])
@pytest.mark.parametrize("start", [0, 1, 7, 8, 1023, 4096, BLOCK - 16, BLOCK - 3, 5 * BLOCK + 13, 8 * (1 << 21) + 5, 8 * (1 << 28) - 9])
@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 100, 4096, 5000])
def test_the_fast_generator_equals_the_definition(writer: int, start: int, length: int) -> None:
    assert tag_bytes(writer, start, length) == defined(writer, start, length)


def test_the_fast_generator_crosses_blocks() -> None:
    assert tag_bytes(300, BLOCK - 100, 2 * BLOCK) == defined(300, BLOCK - 100, 2 * BLOCK)


def bytes_of(runs: list[list[Any]]) -> bytes:
    size = sum(run[1] for run in runs)
    document = {"format": 1, "steps": [{"step": 0, "how": "returned", "value": size, "data": runs}]}
    return observations_from(document)[0].data_bytes()


def assert_covers(runs: list[list[Any]], data: bytes) -> None:
    position = 0
    for run in runs:
        assert run[0] == position
        assert run[1] > 0
        position += run[1]
    assert position == len(data)
    assert bytes_of(runs) == data


def test_one_writer_is_one_run() -> None:
    assert decode(tag.tag_bytes(3, 0, 65536)) == [[0, 65536, "tag", 3, 0]]


def test_a_long_run_over_many_blocks_is_one_run() -> None:
    assert decode(tag_bytes(9, 12345, 20 * BLOCK + 3)) == [[0, 20 * BLOCK + 3, "tag", 9, 12345]]


@pytest.mark.parametrize("shift", range(9))
@pytest.mark.parametrize("source", [0, 3, 4096, 4101])
def test_a_copy_at_any_alignment_is_decoded(shift: int, source: int) -> None:
    data = b"\xee" * shift + tag.tag_bytes(5, source, 1000)
    runs = decode(data)
    assert runs[-1] == [shift, 1000, "tag", 5, source]
    assert_covers(runs, data)


def test_nothing_is_no_run() -> None:
    assert decode(b"") == []


def test_zeroes_only_are_zero_however_few() -> None:
    assert decode(bytes(3)) == [[0, 3, "zero"]]
    assert decode(bytes(100_000)) == [[0, 100_000, "zero"]]


def test_eight_zeroes_are_zero_and_fewer_are_raw() -> None:
    assert decode(b"ab" + bytes(8) + b"c") == [[0, 2, "raw", "6162"], [2, 8, "zero"], [10, 1, "raw", "63"]]
    assert decode(b"ab" + bytes(4) + b"c") == [[0, 7, "raw", "61620000000063"]]


def test_short_bytes_alone_are_raw() -> None:
    data = tag.tag_bytes(2, 0, 5)
    assert decode(data) == [[0, 5, "raw", data.hex()]]


def test_partial_words_at_both_ends_belong_to_their_run() -> None:
    data = tag.tag_bytes(2, 4099, 30)
    assert decode(data) == [[0, 30, "tag", 2, 4099]]


def test_an_overwrite_in_the_middle_makes_three_runs() -> None:
    old, new = tag.tag_bytes(1, 0, 8192), tag.tag_bytes(2, 0, 1000)
    data = old[:2048] + new + old[3048:]
    assert decode(data) == [[0, 2048, "tag", 1, 0], [2048, 1000, "tag", 2, 0], [3048, 5144, "tag", 1, 3048]]


def test_bytes_of_no_writer_are_raw() -> None:
    data = bytes([0xA7, 0, 0, 1, 1, 1, 1, 1]) + bytes([0xA7, 1, 0x80, 1, 1, 1, 1, 1])
    assert decode(data) == [[0, 16, "raw", data.hex()]]


def test_any_patchwork_decodes_to_itself() -> None:
    chance = random.Random(7)
    for _ in range(300):
        pieces = []
        for _ in range(chance.randrange(1, 12)):
            length = chance.choice([1, 3, 7, 8, 13, 100, 512, 4096])
            start = chance.choice([0, 1, 8, 4095, 100_000])
            pieces.append(
                chance.choice([bytes(length), chance.randbytes(length), tag.tag_bytes(chance.choice([1, 2, 128, 200]), start, length)])
            )
        data = b"".join(pieces)
        assert_covers(decode(data), data)
