"""Bytes as runs: whose tagged bytes, zeroes, or neither (docs/agent-protocol.md)."""

import functools
from collections.abc import Callable
from typing import Any

from harness.ops.tag import BLOCK, SYNC, WORD, tag_bytes

_ZERO_WORD = bytes(WORD)


def decode(data: bytes) -> list[list[Any]]:
    """Return the runs that ``data`` consists of, in order and without gaps: tag, zero or raw (docs/agent-protocol.md)."""
    size = len(data)
    if size and data.count(0) == size:
        return [[0, size, "zero"]]
    runs: list[list[Any]] = []
    position, tag, zero = 0, -1, -1
    while position < size:
        if tag < position:
            tag = _find_word(data, position)
        if zero < position:
            zero = data.find(_ZERO_WORD, position)
            zero = size if zero < 0 else zero
        if zero < tag:
            _add_raw(runs, data, position, zero)
            length = _common(data, zero, lambda _, count: bytes(count))
            runs.append([zero, length, "zero"])
            position = zero + length
        elif tag < size:
            writer = data[tag + 1] << 7 | data[tag + 2]
            number = functools.reduce(lambda value, group: value << 7 | group, data[tag + 3 : tag + 8], 0)
            source = number * WORD
            back = _common_back(data, position, tag, writer, source)
            _add_raw(runs, data, position, tag - back)
            length = _common(data, tag, functools.partial(_continue, writer, source))
            if length % WORD:  # a word in part: what is a whole word of another run is not taken from it
                length = min(length, _find_word(data, tag + length // WORD * WORD) - tag)
            runs.append([tag - back, back + length, "tag", writer, source - back])
            position = tag + length
        else:
            _add_raw(runs, data, position, size)
            position = size
    return runs


def _add_raw(runs: list[list[Any]], data: bytes, start: int, end: int) -> None:
    if start < end:
        runs.append([start, end - start, "raw", data[start:end].hex()])


def _find_word(data: bytes, position: int) -> int:
    """Return where the next whole tagged word begins, or the length of ``data``."""
    while True:
        position = data.find(SYNC, position)
        if position < 0 or position + WORD > len(data):
            return len(data)
        word = data[position + 1 : position + WORD]
        if max(word) < 0x80 and (word[0] or word[1]):
            return position
        position += 1


def _continue(writer: int, source: int, done: int, count: int) -> bytes:
    return tag_bytes(writer, source + done, count)


def _common(data: bytes, start: int, expected: Callable[[int, int], bytes]) -> int:
    """Return for how many bytes from ``start`` on ``data`` equals ``expected(done, count)``, asked in growing pieces."""
    done, step, left = 0, 512, len(data) - start
    while done < left:
        count = min(step, left - done)
        piece = expected(done, count)
        have = data[start + done : start + done + count]
        if have == piece:
            done += count
            step = min(step * 4, BLOCK)
            continue
        low, high = 0, count  # the first `low` bytes agree, the first `high` do not
        while high - low > 1:
            middle = (low + high) // 2
            if have[low:middle] == piece[low:middle]:
                low = middle
            else:
                high = middle
        return done + low
    return done


def _common_back(data: bytes, position: int, tag: int, writer: int, source: int) -> int:
    """Return how many bytes before ``tag`` continue its run backwards, at most to ``position``."""
    most = min(tag - position, source, WORD - 1)
    before = tag_bytes(writer, source - most, most)
    for count in range(most):
        if data[tag - 1 - count] != before[most - 1 - count]:
            return count
    return most
