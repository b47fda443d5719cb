"""Nothing of a private folder outlives its owner, however the owner ends."""

import os
import sys
from pathlib import Path

import psutil
import pytest

from harness.errors import HostError
from harness.host import process
from harness.host.deadline import Deadline, wait_until
from harness.machine import reaper
from harness.machine.custody import private_folder

OWNER = Path(__file__).parents[2] / "fakes" / "owner.py"
ROOT = Path(__file__).parents[3]


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("way", ["die", "end"])
def test_a_dead_owner_leaves_no_process_no_folder_and_no_reaper(way: str) -> None:
    said = process.run([sys.executable, str(OWNER), way], Deadline.after(30), check=False, env={**os.environ, "PYTHONPATH": str(ROOT)})
    words = said.stdout.split()
    assert len(words) == 4, said
    folder, (worker, bystander, its_reaper) = Path(words[0]), map(int, words[1:])
    try:
        assert wait_until(lambda: is_gone(worker) and is_gone(its_reaper) and not folder.exists(), Deadline.after(60))
        assert not is_gone(bystander)
    finally:
        psutil.Process(bystander).kill()


def test_a_folder_is_private_and_removed_at_the_end() -> None:
    with private_folder() as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        assert len(str(folder)) < 60
        (folder / "ram").touch()
    assert not folder.exists()


def test_a_folder_is_removed_when_the_body_fails() -> None:
    with pytest.raises(ZeroDivisionError), private_folder() as folder:
        raise ZeroDivisionError
    assert not folder.exists()


def test_a_reaper_that_was_ended_is_replaced_by_one_that_knows_every_folder() -> None:
    with private_folder() as first:
        [first_reaper] = find_reapers()
        first_reaper.kill()
        first_reaper.wait(60)
        with private_folder() as second:
            replaced = wait_until(find_reapers, Deadline.after(60))
            assert replaced is not None
            assert replaced[0].pid != first_reaper.pid
            assert second.exists()
        assert first.exists()


def test_no_room_is_a_host_error_that_names_each_place_and_the_setting() -> None:
    with pytest.raises(HostError) as caught, private_folder(room_bytes=1 << 60):
        pass
    assert "MiB free" in str(caught.value)
    assert "PMEM_HARNESS_TMP" in str(caught.value)


def test_a_place_that_does_not_exist_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PMEM_HARNESS_TMP", str(tmp_path / "none"))
    with pytest.raises(HostError, match="No such file"), private_folder():
        pass


def test_the_setting_chooses_the_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PMEM_HARNESS_TMP", str(tmp_path))
    with private_folder() as folder:
        assert folder.parent == tmp_path


def test_the_reaper_imports_nothing_of_ours() -> None:
    source = Path(str(reaper.__file__)).read_text()
    assert "from harness" not in source
    assert "import harness" not in source


def find_reapers() -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process().children()
        if child.status() != psutil.STATUS_ZOMBIE and any(word.endswith("/reaper.py") for word in child.cmdline())
    ]
