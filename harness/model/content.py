"""Content by origin: which writer's bytes stand where, never the bytes themselves."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum

from harness.model.outcome import Run, RunKind
from harness.model.tag import FOREIGN_WRITER, tag_bytes


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
        if self.origin is Origin.TAG:
            return replace(self, length=end - start, source=self.source + start)
        if self.origin is Origin.RAW:
            return replace(self, length=end - start, raw=self.raw[start:end])
        return replace(self, length=end - start)

    def bytes(self) -> bytes:
        if self.origin is Origin.TAG:
            return tag_bytes(self.writer, self.source, self.length)
        return self.raw if self.origin is Origin.RAW else b"\0" * self.length

    def describe(self) -> str:
        if self.origin is Origin.TAG and self.writer == FOREIGN_WRITER:
            return f"left from before the program (byte {self.source} of what was removed from the volume then)"
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
            out[-1] = replace(last, length=last.length + piece.length, raw=last.raw + piece.raw)
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
                return Mismatch(at, stop - at, _seen_word(seen), want.describe())
            at = stop
            if at == start + piece.length:
                index += 1
    return None


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


def _seen_word(piece: Piece) -> str:
    return piece.describe()


# ---- ranges and maps of content --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ranges:
    """A set of byte (or page) positions as sorted, disjoint, half-open ranges."""

    spans: tuple[tuple[int, int], ...] = ()

    def add(self, start: int, end: int) -> "Ranges":
        if start >= end:
            return self
        keep: list[tuple[int, int]] = []
        for low, high in self.spans:
            if high < start or low > end:
                keep.append((low, high))
            else:
                start, end = min(start, low), max(end, high)
        return Ranges(tuple(sorted([*keep, (start, end)])))

    def remove(self, start: int, end: int) -> "Ranges":
        out: list[tuple[int, int]] = []
        for low, high in self.spans:
            if low < min(high, start):
                out.append((low, min(high, start)))
            if max(low, end) < high:
                out.append((max(low, end), high))
        return Ranges(tuple(out))

    def within(self, start: int, end: int) -> "Ranges":
        """Return the part of this set inside ``start`` to ``end``."""
        return Ranges(tuple((max(a, start), min(b, end)) for a, b in self.spans if max(a, start) < min(b, end)))

    def covers(self, start: int, end: int) -> bool:
        return start >= end or any(low <= start and end <= high for low, high in self.spans)

    def touches(self, start: int, end: int) -> bool:
        return bool(self.within(start, end).spans)

    def total(self) -> int:
        return sum(b - a for a, b in self.spans)

    def __contains__(self, position: int) -> bool:
        return any(low <= position < high for low, high in self.spans)


@dataclass(frozen=True)
class Content:
    """What stands where in a file or in memory; ``filler`` everywhere that nothing was written."""

    extents: tuple[tuple[int, Piece], ...] = field(default=())
    filler: Origin = Origin.ZERO

    def read(self, start: int, end: int) -> Pieces:
        """Return bytes ``start`` to ``end``."""
        out: list[Piece] = []
        at = start
        for offset, piece in self.extents:
            low, high = max(start, offset), min(end, offset + piece.length)
            if low >= high:
                continue
            if at < low:
                out.append(Piece(low - at, self.filler))
            out.append(piece.part(low - offset, high - offset))
            at = high
        if at < end:
            out.append(Piece(end - at, self.filler))
        return tuple(out)

    def write(self, start: int, pieces: Pieces) -> "Content":
        """Return this content with ``pieces`` at ``start``."""
        end = start + length_of(pieces)
        kept: list[tuple[int, Piece]] = []
        for offset, piece in self.extents:
            if offset < start:
                kept.append((offset, piece.part(0, min(piece.length, start - offset))))
            if offset + piece.length > end:
                low = max(offset, end)
                kept.append((low, piece.part(low - offset, piece.length)))
        at = start
        for piece in pieces:
            kept.append((at, piece))
            at += piece.length
        return replace(self, extents=tuple(sorted(kept, key=lambda e: e[0])))
