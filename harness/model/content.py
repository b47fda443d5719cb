"""Content by origin: which writer's bytes stand where, never the bytes themselves."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate, pairwise
from operator import itemgetter

from harness.model.outcome import Run, RunKind
from harness.model.value import evolve, hashed_once
from harness.ops.tag import FOREIGN_WRITER, PREPARED_SPAN, PREPARED_WRITER, tag_bytes


class Origin(StrEnum):
    ZERO = "zero"
    TAG = "tag"
    RAW = "raw"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Piece:
    """``length`` bytes of one origin: zeroes, what ``writer`` wrote from ``source`` on, literal bytes, or unknown ones."""

    length: int
    origin: Origin = Origin.ZERO
    writer: int = 0
    source: int = 0
    raw: bytes = b""

    def part(self, start: int, end: int) -> "Piece":
        """Return bytes ``start`` to ``end`` of this piece."""
        if end - start == self.length:
            return self
        source = self.source + start if self.origin is Origin.TAG else self.source
        return Piece(end - start, self.origin, self.writer, source, self.raw[start:end])

    def bytes(self) -> bytes:
        if self.origin is Origin.TAG:
            return tag_bytes(self.writer, self.source, self.length)
        return self.raw if self.origin is Origin.RAW else b"\0" * self.length

    def describe(self) -> str:
        if self.origin is Origin.TAG and self.writer == FOREIGN_WRITER:
            return f"left from before the program (byte {self.source} of what was removed from the volume then)"
        if self.origin is Origin.TAG and self.writer == PREPARED_WRITER:
            number, at = divmod(self.source, PREPARED_SPAN)
            return f"made with the volume (byte {at} of file {number + 1})"
        if self.origin is Origin.TAG:
            return f"step {self.writer} (its bytes from {self.source})"
        return {Origin.ZERO: "zeroes", Origin.RAW: f"bytes {self.raw[:8].hex(' ')}", Origin.UNKNOWN: "anything"}[self.origin]


Pieces = tuple[Piece, ...]


def tagged(writer: int, length: int, source: int = 0) -> Pieces:
    return (Piece(length, Origin.TAG, writer, source),) if length else ()


def zeroes(length: int) -> Pieces:
    return (Piece(length),) if length else ()


def unknown(length: int) -> Pieces:
    return (Piece(length, Origin.UNKNOWN),) if length else ()


def literal(raw: bytes) -> Pieces:
    return (Piece(len(raw), Origin.RAW, raw=raw),) if raw else ()


def length_of(pieces: Iterable[Piece]) -> int:
    return sum(p.length for p in pieces)


def cut(pieces: Pieces, start: int, end: int) -> Pieces:
    """Return bytes ``start`` to ``end`` of the string that ``pieces`` make."""
    out: list[Piece] = []
    at = 0
    for piece in pieces:
        low, high = max(start, at), min(end, at + piece.length)
        if low < high:
            out.append(piece.part(low - at, high - at))
        at += piece.length
    return tuple(out)


def merged(pieces: Pieces) -> Pieces:
    """Return the same content in as few pieces as its origins allow."""
    out: list[Piece] = []
    for piece in pieces:
        last = out[-1] if out else None
        if last is not None and last.origin is piece.origin and _continues(last, piece):
            out[-1] = evolve(last, length=last.length + piece.length, raw=last.raw + piece.raw)
        else:
            out.append(piece)
    return tuple(out)


def _continues(last: Piece, piece: Piece) -> bool:
    return last.origin is not Origin.TAG or (last.writer == piece.writer and last.source + last.length == piece.source)


@dataclass(frozen=True)
class Mismatch:
    """The first place where what was seen is not what is allowed."""

    offset: int
    length: int
    observed: str
    allowed: str


def find_mismatch(expected: Pieces, observed: tuple[Run, ...]) -> Mismatch | None:
    """Return the first stretch of ``observed`` that differs from ``expected`` byte for byte, or None."""
    seen_length = sum(run.length for run in observed)
    if seen_length != length_of(expected):
        return Mismatch(0, seen_length, f"{seen_length} bytes", f"{length_of(expected)} bytes")
    starts: list[tuple[int, Piece]] = []
    at = 0
    for piece in expected:
        starts.append((at, piece))
        at += piece.length
    index = 0
    at = 0
    for run in observed:
        end = at + run.length
        while at < end:
            start, piece = starts[index]
            stop = min(end, start + piece.length)
            seen = _run_piece(run).part(at - (end - run.length), stop - (end - run.length))
            want = piece.part(at - start, stop - start)
            if not _same(want, seen):
                return Mismatch(at, stop - at, seen.describe(), want.describe())
            at = stop
            if at == start + piece.length:
                index += 1
    return None


def are_same(one: Pieces, other: Pieces) -> bool | None:
    """Whether two strings of one length have the same bytes; None: nobody knows."""
    known: bool | None = True
    borders = sorted({0, *_borders(one), *_borders(other)})
    for start, end in pairwise(borders):
        (first,), (second,) = cut(one, start, end), cut(other, start, end)
        if Origin.UNKNOWN in (first.origin, second.origin):
            known = None
        elif not _same(first, second):
            return False
    return known


def _borders(pieces: Pieces) -> Iterator[int]:
    """Yield where each piece ends."""
    return accumulate(p.length for p in pieces)


def has_unknown(pieces: Pieces) -> bool:
    return any(p.origin is Origin.UNKNOWN for p in pieces)


def all_zero(pieces: Pieces) -> bool:
    """Whether the pieces may be all zeroes: they are, or nobody knows what they are."""
    return all(p.origin in (Origin.ZERO, Origin.UNKNOWN) or not p.bytes().strip(b"\0") for p in pieces)


def _run_piece(run: Run) -> Piece:
    if run.kind is RunKind.TAG:
        return Piece(run.length, Origin.TAG, run.writer, run.source)
    if run.kind is RunKind.RAW:
        return Piece(run.length, Origin.RAW, raw=run.raw)
    return Piece(run.length)


def _same(want: Piece, seen: Piece) -> bool:
    if want.origin is Origin.UNKNOWN or want == seen:
        return True
    return want.bytes() == seen.bytes()


# ---- ranges and maps of content --------------------------------------------------------------------------------------


_LOW, _HIGH = itemgetter(0), itemgetter(1)


@hashed_once
@dataclass(frozen=True)
class Ranges:
    """A set of byte (or page) positions as sorted, disjoint, half-open ranges; neighbours that touch are one."""

    spans: tuple[tuple[int, int], ...] = ()

    def add(self, start: int, end: int) -> "Ranges":
        if start >= end:
            return self
        first, last = bisect_left(self.spans, start, key=_HIGH), bisect_right(self.spans, end, key=_LOW)
        if first < last:
            start, end = min(start, self.spans[first][0]), max(end, self.spans[last - 1][1])
        return Ranges((*self.spans[:first], (start, end), *self.spans[last:]))

    def remove(self, start: int, end: int) -> "Ranges":
        first, last = self._meeting(start, end)
        if first >= last:
            return self
        low, high = self.spans[first][0], self.spans[last - 1][1]
        left = ((low, start),) if low < start else ()
        right = ((end, high),) if end < high else ()
        return Ranges((*self.spans[:first], *left, *right, *self.spans[last:]))

    def within(self, start: int, end: int) -> "Ranges":
        """Return the part of this set inside ``start`` to ``end``."""
        first, last = self._meeting(start, end)
        return Ranges(tuple((max(a, start), min(b, end)) for a, b in self.spans[first:last]))

    def gaps(self, start: int, end: int) -> "Ranges":
        """Return the part of ``start`` to ``end`` that is not in this set."""
        left = Ranges().add(start, end)
        for a, b in self.within(start, end).spans:
            left = left.remove(a, b)
        return left

    def union(self, other: "Ranges") -> "Ranges":
        both = self
        for a, b in other.spans:
            both = both.add(a, b)
        return both

    def moved(self, start: int, by: int) -> "Ranges":
        """Return this set with what lies from ``start`` on ``by`` positions further. Where it moves back, what it moves over is gone."""
        moved = Ranges(tuple((max(a, start) + by, b + by) for a, b in self.spans if b > start))
        return self.within(0, min(start, start + by)).union(moved)

    def covers(self, start: int, end: int) -> bool:
        at = bisect_right(self.spans, start, key=_LOW) - 1
        return start >= end or (at >= 0 and end <= self.spans[at][1])

    def touches(self, start: int, end: int) -> bool:
        first, last = self._meeting(start, end)
        return first < last

    def total(self) -> int:
        return sum(b - a for a, b in self.spans)

    def __contains__(self, position: int) -> bool:
        return self.covers(position, position + 1)

    def _meeting(self, start: int, end: int) -> tuple[int, int]:
        """Return the first span that has a position in ``start`` to ``end``, and the first behind those that have one."""
        if start >= end:
            return 0, 0
        return bisect_right(self.spans, start, key=_HIGH), bisect_left(self.spans, end, key=_LOW)


@hashed_once
@dataclass(frozen=True)
class Content:
    """What stands where in a file or in memory; ``filler`` everywhere that nothing was written. Extents are sorted and disjoint."""

    extents: tuple[tuple[int, Piece], ...] = ()
    filler: Origin = Origin.ZERO

    def read(self, start: int, end: int) -> Pieces:
        """Return bytes ``start`` to ``end``."""
        out: list[Piece] = []
        at = start
        first, last = self._meeting(start, end)
        for offset, piece in self.extents[first:last]:
            low, high = max(start, offset), min(end, offset + piece.length)
            if at < low:
                out.append(Piece(low - at, self.filler))
            out.append(piece.part(low - offset, high - offset))
            at = high
        if at < end:
            out.append(Piece(end - at, self.filler))
        return tuple(out)

    def write(self, start: int, pieces: Pieces) -> "Content":
        """Return this content with ``pieces`` at ``start``."""
        written: list[tuple[int, Piece]] = []
        end = start
        for piece in pieces:
            written.append((end, piece))
            end += piece.length
        if start == end:
            return self
        first, last = self._meeting(start, end)
        if first < last:
            offset, piece = self.extents[first]
            if offset < start:
                written.insert(0, (offset, piece.part(0, start - offset)))
            offset, piece = self.extents[last - 1]
            if end < offset + piece.length:
                written.append((end, piece.part(end - offset, piece.length)))
        return Content((*self.extents[:first], *written, *self.extents[last:]), self.filler)

    def moved(self, start: int, by: int) -> "Content":
        """Return this content with what stands from ``start`` on ``by`` bytes further: behind a gap of ``filler``, or, where it moves back,
        in place of what stood there."""
        kept: list[tuple[int, Piece]] = []
        moved: list[tuple[int, Piece]] = []
        stop = min(start, start + by)
        for offset, piece in self.extents:
            if offset < stop:
                kept.append((offset, piece.part(0, min(stop - offset, piece.length))))
            if offset + piece.length > start:
                first = max(offset, start)
                moved.append((first + by, piece.part(first - offset, piece.length)))
        return Content((*kept, *moved), self.filler)

    def _meeting(self, start: int, end: int) -> tuple[int, int]:
        """Return the first extent that has a byte in ``start`` to ``end``, and the first behind those that have one."""
        first = bisect_right(self.extents, start, key=_LOW)
        if first and self.extents[first - 1][0] + self.extents[first - 1][1].length > start:
            first -= 1
        return first, max(first, bisect_left(self.extents, end, key=_LOW))
