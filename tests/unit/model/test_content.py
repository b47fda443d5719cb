"""Content and ranges against what they stand for: a list of bytes, a set of positions."""

from hypothesis import given
from hypothesis import strategies as st

from harness.model.content import Content, Origin, Piece, Ranges, are_same, length_of, literal, tagged, unknown, zeroes

SPACE = 40
SPAN = st.tuples(st.integers(-3, SPACE), st.integers(-3, SPACE))


@given(st.lists(st.tuples(st.booleans(), SPAN), max_size=30), SPAN)
def test_ranges_are_a_set_of_positions(changes: list[tuple[bool, tuple[int, int]]], asked: tuple[int, int]) -> None:
    ranges, positions = Ranges(), set[int]()
    for adds, (start, end) in changes:
        ranges = ranges.add(start, end) if adds else ranges.remove(start, end)
        positions = positions | set(range(start, end)) if adds else positions - set(range(start, end))
    start, end = asked
    inside = positions & set(range(start, end))
    assert {at for a, b in ranges.spans for at in range(a, b)} == positions
    assert all(b < a for (_, b), (a, _) in zip(ranges.spans, ranges.spans[1:], strict=False))
    assert {at for a, b in ranges.within(start, end).spans for at in range(a, b)} == inside
    assert ranges.covers(start, end) == (inside == set(range(start, end)))
    assert ranges.touches(start, end) == bool(inside)
    assert (start in ranges) == (start in positions)
    assert ranges.total() == len(positions)


@st.composite
def written(draw: st.DrawFn) -> tuple[int, tuple[Piece, ...]]:
    start, length = draw(st.integers(0, SPACE)), draw(st.integers(0, 12))
    kind = draw(st.sampled_from(["tag", "zero", "raw", "unknown", "two"]))
    if kind == "two":
        return start, (*tagged(draw(st.integers(1, 3)), length, draw(st.integers(0, 9))), *zeroes(draw(st.integers(0, 5))))
    made = {
        "tag": tagged(draw(st.integers(1, 3)), length, draw(st.integers(0, 9))),
        "zero": zeroes(length),
        "raw": literal(bytes(range(length))),
        "unknown": unknown(length),
    }
    return start, made[kind]


def cells(pieces: tuple[Piece, ...]) -> list[object]:
    """One entry a byte: where it comes from."""
    found: list[object] = []
    for piece in pieces:
        for at in range(piece.length):
            found.append(
                (piece.origin, piece.writer, piece.source + at) if piece.origin is Origin.TAG else (piece.origin, piece.raw[at : at + 1])
            )
    return found


@given(st.lists(written(), max_size=25), SPAN, st.sampled_from([Origin.ZERO, Origin.UNKNOWN]))
def test_content_is_a_list_of_bytes(writes: list[tuple[int, tuple[Piece, ...]]], asked: tuple[int, int], filler: Origin) -> None:
    content = Content(filler=filler)
    naive: list[object] = [(filler, b"")] * (SPACE * 2)
    for start, pieces in writes:
        content = content.write(start, pieces)
        naive[start : start + length_of(pieces)] = cells(pieces)
    start, end = max(0, asked[0]), asked[1]
    assert cells(content.read(start, end)) == naive[start : max(start, end)]
    assert all(piece.length > 0 for _, piece in content.extents)
    assert all(a + piece.length <= b for (a, piece), (b, _) in zip(content.extents, content.extents[1:], strict=False))


PIECES = st.lists(
    st.sampled_from([*tagged(1, 3), *tagged(1, 2, 3), *tagged(2, 5), *zeroes(4), *literal(b"\0\0"), *literal(b"abc")]), max_size=6
)


@given(PIECES, PIECES)
def test_strings_are_the_same_where_their_bytes_are(one: list[Piece], other: list[Piece]) -> None:
    lengths = length_of(one), length_of(other)
    first, second = (*one, *zeroes(max(0, lengths[1] - lengths[0]))), (*other, *zeroes(max(0, lengths[0] - lengths[1])))
    in_bytes = [b"".join(piece.bytes() for piece in pieces) for pieces in (first, second)]
    assert are_same(first, second) is (in_bytes[0] == in_bytes[1])


def test_whether_what_nobody_knows_is_the_same_nobody_knows() -> None:
    assert are_same((*unknown(4), *tagged(1, 4)), (*zeroes(4), *tagged(1, 4))) is None
    assert are_same((*unknown(4), *tagged(1, 4)), (*zeroes(4), *tagged(2, 4))) is False
    assert are_same((), ()) is True


@given(st.lists(written(), max_size=10), st.integers(0, SPACE), st.integers(-SPACE, SPACE))
def test_what_moves_leaves_a_gap_or_takes_the_place_of_what_was_there(
    writes: list[tuple[int, tuple[Piece, ...]]], start: int, by: int
) -> None:
    start = max(start, -by)
    content, ranges = Content(), Ranges()
    for at, pieces in writes:
        content, ranges = content.write(at, pieces), ranges.add(at, at + length_of(pieces))
    before = cells(content.read(0, 3 * SPACE))
    gap: list[object] = [(Origin.ZERO, b"")] * max(by, 0)
    moved = content.moved(start, by)
    assert cells(moved.read(0, 2 * SPACE)) == [*before[: min(start, start + by)], *gap, *before[start:]][: 2 * SPACE]
    assert all(a + piece.length <= b for (a, piece), (b, _) in zip(moved.extents, moved.extents[1:], strict=False))
    positions = {at for a, b in ranges.spans for at in range(a, b)}
    kept = {at for at in positions if at < min(start, start + by)} | {at + by for at in positions if at >= start}
    assert {at for a, b in ranges.moved(start, by).spans for at in range(a, b)} == kept
    assert all(b < a for (_, b), (a, _) in zip(ranges.moved(start, by).spans, ranges.moved(start, by).spans[1:], strict=False))
