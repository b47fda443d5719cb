"""The bytes that a writer writes: a pure function of (writer, source offset).

A word of 8 bytes is ``A7``, then the writer in two and the number of the word in five groups of 7 bits, most
significant first. ``A7`` stands nowhere else, so a word names its writer and its place wherever it was copied to.
The source offset of a step's first byte is 0, whatever file offset it goes to.
"""

SYNC = 0xA7
WORD = 8
MAX_WRITER = (1 << 14) - 1
#: Who wrote what lies in the free blocks of a volume before a program begins (harness/guest/ageing.py); no step is this writer.
FOREIGN_WRITER = MAX_WRITER


def tag_bytes(writer: int, start: int, length: int) -> bytes:
    """Return bytes ``start`` to ``start + length`` of what ``writer`` (1 to 16383) writes."""
    if not 1 <= writer <= MAX_WRITER:
        raise ValueError(f"writer {writer} is outside 1..{MAX_WRITER}")
    first, last = start // WORD, (start + length + WORD - 1) // WORD
    words = b"".join(_word(writer, number) for number in range(first, last))
    skip = start - first * WORD
    return words[skip : skip + length]


def _word(writer: int, number: int) -> bytes:
    groups = [writer >> 7, writer & 0x7F] + [(number >> shift) & 0x7F for shift in (28, 21, 14, 7, 0)]
    return bytes([SYNC, *groups])
