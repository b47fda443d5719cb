"""Large files that are mostly zero: nothing of them is lost, and nothing is stored twice."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.host.sparse import checksum, copy_sparse
from harness.sizes import KIB, MIB

PIECES = st.lists(st.tuples(st.integers(0, 4 * MIB), st.binary(min_size=1, max_size=200)), max_size=5)


def made(path: Path, size: int, pieces: list[tuple[int, bytes]]) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
        for offset, data in pieces:
            file.seek(min(offset, size - len(data)))
            file.write(data)
    return path


@settings(max_examples=30, deadline=None, derandomize=True)
@given(size=st.integers(200, 4 * MIB), pieces=PIECES)
def test_a_copy_is_equal_byte_for_byte_and_in_its_checksum(
    tmp_path_factory: pytest.TempPathFactory, size: int, pieces: list[tuple[int, bytes]]
) -> None:
    folder = tmp_path_factory.mktemp("sparse")
    source = made(folder / "a", size, pieces)
    copy_sparse(source, folder / "b")
    assert (folder / "b").read_bytes() == source.read_bytes()
    assert checksum(folder / "b") == checksum(source)


def test_what_is_zero_is_not_stored(tmp_path: Path) -> None:
    source = tmp_path / "a"
    source.write_bytes(bytes(8 * MIB) + b"x")
    copy_sparse(source, tmp_path / "b")
    assert (tmp_path / "b").stat().st_size == 8 * MIB + 1
    assert (tmp_path / "b").stat().st_blocks * 512 <= 128 * KIB


def test_one_bit_or_one_byte_less_is_another_checksum(tmp_path: Path) -> None:
    path = made(tmp_path / "a", MIB, [(500_000, b"hello")])
    before = checksum(path)
    made(path, MIB, [(500_000, b"iello")])
    assert checksum(path) != before
    made(path, MIB, [(500_001, b"hello")])
    assert checksum(path) != before
    made(path, MIB - 1, [(500_000, b"hello")])
    assert checksum(path) != before
