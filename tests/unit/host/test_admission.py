"""Places for guests: as many as allowed, and only while there is memory."""

import threading
from pathlib import Path

import pytest
from filelock import FileLock

from harness.errors import HostError
from harness.host.admission import admitted, places
from harness.host.deadline import Deadline
from harness.host.memory import Room
from harness.sizes import GIB, MIB


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMEM_HARNESS_GUESTS", "2")


def soon() -> Deadline:
    """Long enough to look several times, also on a busy computer."""
    return Deadline.after(2)


def full() -> Room:
    return Room(MIB, "in this test")


def empty() -> Room:
    return Room(2 * GIB, "in this test")


def test_there_is_a_place_for_each_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PMEM_HARNESS_GUESTS", raising=False)
    assert places() >= 1


@pytest.mark.parametrize("text", ["0", "-1", "many"])
def test_a_setting_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("PMEM_HARNESS_GUESTS", text)
    with pytest.raises(HostError, match="PMEM_HARNESS_GUESTS is"):
        places()


@pytest.mark.usefixtures("two")
def test_a_third_guest_waits_says_so_and_is_told_the_limit(tmp_path: Path) -> None:
    said: list[str] = []
    with (
        admitted(MIB, soon(), folder=tmp_path),
        admitted(MIB, soon(), folder=tmp_path),
        pytest.raises(HostError, match=r"no place for a guest within 2 s: 2 may run at once \(PMEM_HARNESS_GUESTS\)"),
        admitted(MIB, soon(), said.append, tmp_path),
    ):
        pass
    assert said == ["waiting for a place to run a guest: 2 of at most 2 run on this computer"]
    with admitted(MIB, soon(), folder=tmp_path):
        pass


def test_who_waits_gets_the_next_place_and_not_who_leaves_one_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMEM_HARNESS_GUESTS", "1")
    entered: list[str] = []
    waits = threading.Event()

    def other() -> None:
        with admitted(MIB, Deadline.after(60), lambda text: waits.set(), tmp_path):
            entered.append("the one that waited")

    waiting = threading.Thread(target=other)
    with admitted(MIB, Deadline.after(60), folder=tmp_path):
        waiting.start()
        assert waits.wait(60)
    with admitted(MIB, Deadline.after(60), folder=tmp_path):
        entered.append("the one that came back")
    waiting.join()
    assert entered == ["the one that waited", "the one that came back"]


def test_who_waits_behind_another_one_that_waits_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMEM_HARNESS_GUESTS", "1")
    said: list[str] = []
    with (
        admitted(MIB, soon(), folder=tmp_path),
        FileLock(tmp_path / "queue.lock"),
        pytest.raises(HostError, match="no place for a guest within"),
        admitted(MIB, soon(), said.append, tmp_path),
    ):
        pass
    assert said == ["waiting for a place to run a guest: others wait for one, too"]


@pytest.mark.usefixtures("two")
def test_without_memory_only_one_guest_runs(tmp_path: Path) -> None:
    alone: list[str] = []
    said: list[str] = []
    with admitted(GIB, soon(), alone.append, tmp_path, room=full):
        with (
            pytest.raises(HostError, match="each needs 1GiB of free memory; 1MiB are free in this test"),
            admitted(GIB, soon(), said.append, tmp_path, room=full),
        ):
            pass
        with admitted(GIB, soon(), folder=tmp_path, room=empty):
            pass
    assert said == ["waiting for free memory (1MiB are free in this test) to run a guest: 1 of at most 2 run on this computer"]
    assert alone == ["a guest may need 1GiB, and 1MiB are free in this test: one runs all the same, and no second one beside it"]


def test_a_cache_that_cannot_be_written_is_a_host_error_that_names_the_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(HostError, match=r"cannot make .*places: Not a directory; PMEM_HARNESS_CACHE"),
        admitted(MIB, soon(), folder=tmp_path / "file/places"),
    ):
        pass
