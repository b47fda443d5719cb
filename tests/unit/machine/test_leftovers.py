"""What a harness left behind: found by its owner's mark, and never taken from one that runs."""

import os
import sys
import time
from pathlib import Path

import psutil

from harness.host import process
from harness.host.deadline import Deadline, wait_until
from harness.machine.custody import OWNER_FILE, private_folder, process_mark
from harness.machine.leftovers import find_leftovers, remove_leftover


def left_by(root: Path, mark: str, name: str = "pmemh-left") -> Path:
    folder = root / name
    folder.mkdir()
    (folder / OWNER_FILE).write_text(mark)
    (folder / "ram").write_bytes(bytes(5000))
    return folder


def test_what_belongs_to_a_process_that_runs_is_no_leftover(tmp_path: Path) -> None:
    left_by(tmp_path, f"{os.getpid()} {process_mark(os.getpid())}")
    assert find_leftovers([tmp_path]) == ()


def test_what_belonged_to_a_process_with_the_same_number_is_one(tmp_path: Path) -> None:
    folder = left_by(tmp_path, f"{os.getpid()} 1 another-boot")
    (found,) = find_leftovers([tmp_path])
    assert found.folder == folder
    assert found.size_bytes >= 5000


def test_a_folder_without_a_mark_is_one_when_it_is_old(tmp_path: Path) -> None:
    folder = tmp_path / "pmemh-unmarked"
    folder.mkdir()
    assert find_leftovers([tmp_path]) == ()
    long_ago = time.time() - 3600
    os.utime(folder, (long_ago, long_ago))
    assert [left.folder for left in find_leftovers([tmp_path])] == [folder]


def test_a_leftover_goes_with_the_processes_that_work_in_it(tmp_path: Path) -> None:
    folder = left_by(tmp_path, "999999999 1 gone")
    worker = process.start([sys.executable, "-c", "import time; time.sleep(600)", str(folder / "ram")])
    assert wait_until(lambda: any(left.pids for left in find_leftovers([tmp_path])), Deadline.after(10))
    (found,) = find_leftovers([tmp_path])
    assert found.pids == (worker.pid,)
    remove_leftover(found)
    worker.wait(10)
    assert not folder.exists()
    assert not psutil.pid_exists(worker.pid)


def test_a_private_folder_carries_its_owners_mark() -> None:
    with private_folder() as folder:
        assert (folder / OWNER_FILE).read_text() == f"{os.getpid()} {process_mark(os.getpid())}"
