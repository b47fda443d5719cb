"""Large files that are mostly zero: copied and digested by what is in them."""

import errno
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

#: What is all zero in a piece of this size is not stored.
_PIECE = 64 * 1024
_ZEROES = bytes(_PIECE)


def copy_sparse(source: Path, target: Path) -> None:
    """Copy a file; what is zero becomes a hole. Raises OSError."""
    with source.open("rb", buffering=0) as reading, target.open("wb", buffering=0) as writing:
        writing.truncate(os.fstat(reading.fileno()).st_size)
        for offset, piece in _pieces(reading.fileno()):
            _write_all(writing.fileno(), piece, offset)


def checksum(path: Path) -> str:
    """Return size and CRC-32 of a file's content, as text: equal for a file and its sparse copy. Raises OSError."""
    crc = 0
    with path.open("rb", buffering=0) as reading:
        size = os.fstat(reading.fileno()).st_size
        for offset, piece in _pieces(reading.fileno()):
            crc = zlib.crc32(piece, zlib.crc32(offset.to_bytes(8, "little"), crc))
    return f"{size}:{crc:08x}"


def _pieces(descriptor: int) -> Iterator[tuple[int, bytes]]:
    """Yield offset and content of every piece that is not all zero; pieces start at multiples of their size."""
    size = os.fstat(descriptor).st_size
    at = 0
    while at < size:
        try:
            at = os.lseek(descriptor, at, os.SEEK_DATA) // _PIECE * _PIECE
            end = os.lseek(descriptor, at, os.SEEK_HOLE)
            if end <= at:  # a piece that begins with a hole
                end = at + _PIECE
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole up to the end
                return
            raise
        while at < end:
            piece = os.pread(descriptor, _PIECE, at)
            if not piece:
                return
            if piece != _ZEROES[: len(piece)]:
                yield at, piece
            at += _PIECE


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written
