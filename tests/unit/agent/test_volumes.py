"""What the agent does to volumes beside programs, as far as a computer without spare devices shows it."""

import os
from pathlib import Path

import pytest

from harness.agent.volumes import age, look, prepare
from harness.model.audit import FILE_LIMIT_BYTES
from harness.model.audit_outcome import VolumeSeen, audit_from
from harness.ops.tag import FOREIGN_WRITER, PREPARED_SPAN, PREPARED_WRITER, tag_bytes
from harness.sizes import MIB
from tests.unit.agent.conftest import Client


def test_a_volume_that_is_not_mounted_is_only_named(client: Client, tmp_path: Path) -> None:
    volume = {"role": "main", "folder": str(tmp_path), "device": "/dev/null", "filesystem": "ext4", "options": ""}
    answer = client.ask("audit", above=[], volumes=[volume], file_limit=FILE_LIMIT_BYTES, busy_s=1)
    assert answer["ok"], answer
    assert audit_from(answer).volumes == (VolumeSeen("main"),)


def test_all_files_are_found_in_folders_too_with_their_runs(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner/b").write_bytes(tag_bytes(7, 0, 4096) + bytes(4096))
    (tmp_path / "a").write_bytes(b"")
    (tmp_path / "link").symlink_to("a")
    a, b, link = look(str(tmp_path), 1 * MIB)
    assert a == {"path": "a", "size": 0, "runs": []}
    assert b == {"path": "inner/b", "size": 8192, "runs": [[0, 4096, "tag", 7, 0], [4096, 4096, "zero"]]}
    assert link["failed"].startswith("it is no regular file")


def test_a_long_file_is_read_in_pieces_whose_runs_add_up(tmp_path: Path) -> None:
    path = tmp_path / "long"
    with path.open("wb") as file:
        file.truncate(9 * MIB)
        file.seek(6 * MIB)
        file.write(tag_bytes(3, 0, 3 * MIB))
    (row,) = look(str(tmp_path), 9 * MIB)
    assert row["runs"] == [[0, 6 * MIB, "zero"], [6 * MIB, 2 * MIB, "tag", 3, 0], [8 * MIB, MIB, "tag", 3, 2 * MIB]]


def test_a_file_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(4097))
    assert look(str(tmp_path), 4096) == [{"path": "large", "size": 4097, "larger": True}]


def test_a_file_that_cannot_be_read_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bad").write_bytes(b"12345678")

    def fail(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "read", fail)
    assert look(str(tmp_path), 4096) == [{"path": "bad", "size": 8, "failed": "EIO"}]


def test_the_begin_of_a_device_is_cleared_through_a_mapping(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "device"
    path.write_bytes(b"x" * 3 * 4096)
    assert client.ask("clear", path=str(path), length=2 * 4096)["ok"]
    assert path.read_bytes() == bytes(2 * 4096) + b"x" * 4096


def test_a_device_that_cannot_be_mapped_says_so(client: Client, tmp_path: Path) -> None:
    (tmp_path / "device").write_bytes(b"x")
    answer = client.ask("clear", path=str(tmp_path / "device"), length=0)
    assert (answer["ok"], answer["kind"]) == (False, "failed")
    assert "0 bytes could not be mapped" in answer["error"]


def test_ageing_leaves_no_file_and_wrote_the_foreign_writers_bytes(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = {str(tmp_path / "one"): 3 * MIB, str(tmp_path / "two"): 65536}
    kept: dict[str, bytes] = {}
    unlink = os.unlink

    def keep(path: str) -> None:
        kept[path] = Path(path).read_bytes()
        unlink(path)

    monkeypatch.setattr(os, "unlink", keep)
    try:
        age({"writer": FOREIGN_WRITER, "files": [[path, length, length < MIB] for path, length in lengths.items()]})
    except OSError as error:
        pytest.skip(f"{tmp_path} is on a file system without O_DIRECT: {error}")
    assert list(tmp_path.iterdir()) == []
    assert kept == {path: tag_bytes(FOREIGN_WRITER, 0, length) for path, length in lengths.items()}


def test_prepared_files_have_the_bytes_of_their_writer_from_where_they_are_told(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "for it"
    prepare({"writer": PREPARED_WRITER, "files": [[f"{folder}/a", 300_000, 0], [f"{folder}/b", 100, PREPARED_SPAN], [f"{folder}/c", 0, 0]]})
    assert (folder / "a").read_bytes() == tag_bytes(PREPARED_WRITER, 0, 300_000)
    assert (folder / "b").read_bytes() == tag_bytes(PREPARED_WRITER, PREPARED_SPAN, 100)
    assert (folder / "c").read_bytes() == b""


def test_a_program_of_too_many_steps_is_refused_at_the_door(client: Client) -> None:
    steps = [{"call": "meminfo"}] * PREPARED_WRITER
    answer = client.ask("run", program={"format": 1, "steps": steps}, roots={}, devices={})
    assert (answer["kind"], "at most 16381" in answer["error"]) == ("protocol", True)
