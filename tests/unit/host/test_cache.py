"""The store holds complete entries or none, whoever builds and however that ends."""

import threading
from pathlib import Path

import pytest
from filelock import FileLock

from harness.errors import HostError
from harness.host.cache import content_key, file_sha256, remove_entry, stored_entry
from harness.host.deadline import Deadline


def silent(_: str) -> None:
    pass


def soon() -> Deadline:
    return Deadline.after(120)


def write_one(folder: Path) -> None:
    (folder / "file").write_text("content")


def test_entry_is_built_once_and_found_afterwards(tmp_path: Path) -> None:
    builds: list[Path] = []

    def build(folder: Path) -> None:
        builds.append(folder)
        write_one(folder)

    first = stored_entry(tmp_path / "store", "a", build, silent, soon())
    second = stored_entry(tmp_path / "store", "a", build, silent, soon())
    assert first == second == tmp_path / "store/a"
    assert (first / "file").read_text() == "content"
    assert len(builds) == 1


def test_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def build(folder: Path) -> None:
        write_one(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stored_entry(tmp_path, "a", build, silent, soon())
    assert not (tmp_path / "a").exists()
    assert list((tmp_path / "building").iterdir()) == []


def test_what_a_killed_builder_left_is_never_used_and_gets_removed(tmp_path: Path) -> None:
    for name in ("a~1", "other~2"):
        (tmp_path / "building" / name).mkdir(parents=True)
        (tmp_path / "building" / name / "half").write_text("half-made")
    entry = stored_entry(tmp_path, "a", write_one, silent, soon())
    assert [path.name for path in entry.iterdir()] == ["file"]
    assert list((tmp_path / "building").iterdir()) == []


def test_folder_of_a_killed_builder_is_not_built_in_again(tmp_path: Path) -> None:
    folders: list[Path] = []

    def build(folder: Path) -> None:
        folders.append(folder)
        raise OSError("ended")

    for _ in range(2):
        with pytest.raises(HostError):
            stored_entry(tmp_path, "a", build, silent, soon())
    assert folders[0] != folders[1]


def test_unfinished_folder_of_a_living_builder_stays(tmp_path: Path) -> None:
    (tmp_path / "building/other~3").mkdir(parents=True)
    (tmp_path / "locks").mkdir()
    with FileLock(tmp_path / "locks/other.lock"):
        stored_entry(tmp_path, "a", write_one, silent, soon())
        assert (tmp_path / "building/other~3").is_dir()


def test_second_builder_says_that_it_waits_and_takes_what_the_first_made(tmp_path: Path) -> None:
    building, waiting = threading.Event(), threading.Event()

    def slow(folder: Path) -> None:
        building.set()
        assert waiting.wait(30)
        write_one(folder)

    def never(_: Path) -> None:
        raise AssertionError("the second builder must not build")

    said: list[str] = []

    def heard(text: str) -> None:
        said.append(text)
        waiting.set()

    first = threading.Thread(target=stored_entry, args=(tmp_path, "a", slow, silent, soon()))
    first.start()
    assert building.wait(30)
    entry = stored_entry(tmp_path, "a", never, heard, soon())
    first.join()
    assert (entry / "file").is_file()
    assert said[0].startswith("waiting for another process that is building a")


def test_waiting_for_another_builder_ends_with_the_deadline(tmp_path: Path) -> None:
    (tmp_path / "locks").mkdir()
    with FileLock(tmp_path / "locks/a.lock"), pytest.raises(HostError, match=r"another process holds .*a\.lock .*stuck"):
        stored_entry(tmp_path, "a", write_one, silent, Deadline.after(0.05))


def test_unwritable_cache_names_the_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match=r"cannot write the cache .*PMEM_HARNESS_CACHE"):
        stored_entry(tmp_path / "file/store", "a", write_one, silent, soon())


def test_disk_trouble_during_a_build_is_the_hosts_fault(tmp_path: Path) -> None:
    def build(_: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(HostError, match=r"could not build .*No space left"):
        stored_entry(tmp_path, "a", build, silent, soon())


def test_removed_entry_is_gone_and_a_missing_one_is_reported(tmp_path: Path) -> None:
    stored_entry(tmp_path, "a", write_one, silent, soon())
    assert remove_entry(tmp_path, "a", silent, soon())
    assert not (tmp_path / "a").exists()
    assert not remove_entry(tmp_path, "a", silent, soon())


def test_key_depends_on_every_part_and_on_where_parts_end() -> None:
    assert content_key("a", "b") == content_key(b"a", "b")
    assert len({content_key("a", "b"), content_key("ab"), content_key("ab", ""), content_key("a", "c")}) == 4


def test_file_hash_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    assert file_sha256(tmp_path / "f") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
