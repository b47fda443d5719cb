"""The bytes that a writer writes: a pure function of (writer, source offset).

A word of 8 bytes is ``A7``, then the writer in two and the number of the word in five groups of 7 bits, most
significant first. ``A7`` stands nowhere else, so a word names its writer and its place wherever it was copied to.
The source offset of a step's first byte is 0, whatever file offset it goes to.

The two last groups repeat every 16384 words (128 KiB), so a block is a copy of a template with the other groups set by slice assignment.
"""

import functools

SYNC = 0xA7
WORD = 8
MAX_WRITER = (1 << 14) - 1
#: Who wrote what lies in the free blocks of a volume before a program begins (harness/guest/ageing.py); no step is this writer.
FOREIGN_WRITER = MAX_WRITER
#: Who wrote the files that a volume holds when it is made, where no program can write to it; the next file's bytes follow at PREPARED_SPAN.
PREPARED_WRITER = MAX_WRITER - 1
PREPARED_SPAN = 1 << 30
_BLOCK_WORDS = 1 << 14
#: After so many bytes only the upper groups of the number change.
BLOCK = _BLOCK_WORDS * WORD


def tag_bytes(writer: int, start: int, length: int) -> bytes:
    """Return bytes ``start`` to ``start + length`` of what ``writer`` (1 to 16383) writes."""
    if not 1 <= writer <= MAX_WRITER:
        raise ValueError(f"writer {writer} is outside 1..{MAX_WRITER}")
    if length <= 0:
        return b""
    word, last = start // WORD, (start + length + WORD - 1) // WORD
    skip = start - word * WORD
    pieces = []
    while word < last:
        block, inside = divmod(word, _BLOCK_WORDS)
        count = min(_BLOCK_WORDS - inside, last - word)
        pieces.append(_part_of_block(writer, block, inside, count))
        word += count
    whole = bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)
    return whole if len(whole) == length else whole[skip : skip + length]


def _part_of_block(writer: int, block: int, inside: int, count: int) -> bytearray:
    piece = bytearray(_template()[inside * WORD : (inside + count) * WORD])
    groups = (writer >> 7, writer & 0x7F, (block >> 14) & 0x7F, (block >> 7) & 0x7F, block & 0x7F)
    for place, group in enumerate(groups, 1):
        if group:  # the template has zeroes there
            piece[place::WORD] = bytes([group]) * count
    return piece


@functools.cache
def _template() -> bytes:
    block = bytearray(BLOCK)
    block[0::8] = bytes([SYNC]) * _BLOCK_WORDS
    block[7::8] = bytes(range(128)) * 128
    block[6::8] = b"".join(bytes([group]) * 128 for group in range(128))
    return bytes(block)
