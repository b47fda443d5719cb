"""What a harness left behind: found by its owner's mark, and never taken from one that runs."""

import os
import sys
import time
from pathlib import Path

import psutil
import pytest

from harness.host import process
from harness.host.deadline import Deadline, wait_until
from harness.machine.custody import OWNER_FILE, private_folder, process_mark
from harness.machine.leftovers import Leftover, find_leftovers, remove_leftover

#: A user who is not this one: nobody, on Debian.
OTHER = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file to another user")


def left_by(root: Path, mark: str, name: str = "pmemh-left") -> Path:
    folder = root / name
    folder.mkdir(mode=0o700)
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
    folder.mkdir(mode=0o700)
    assert find_leftovers([tmp_path]) == ()
    long_ago = time.time() - 3600
    os.utime(folder, (long_ago, long_ago))
    assert [left.folder for left in find_leftovers([tmp_path])] == [folder]


def test_a_folder_without_a_mark_is_one_too_when_the_clock_was_set_back_an_hour_since(tmp_path: Path) -> None:
    folder = tmp_path / "pmemh-unmarked"
    folder.mkdir(mode=0o700)
    to_come = time.time() + 3600
    os.utime(folder, (to_come, to_come))
    assert [left.folder for left in find_leftovers([tmp_path])] == [folder]


def test_a_leftover_goes_with_the_processes_that_work_in_it(tmp_path: Path) -> None:
    folder = left_by(tmp_path, "999999999 1 gone")
    worker = process.start([sys.executable, "-c", "import time; time.sleep(600)", str(folder / "ram")])
    assert wait_until(lambda: any(left.pids for left in find_leftovers([tmp_path])), Deadline.after(60))
    (found,) = find_leftovers([tmp_path])
    assert found.pids == (worker.pid,)
    remove_leftover(found)
    worker.wait(60)
    assert not folder.exists()
    assert not psutil.pid_exists(worker.pid)


def test_a_private_folder_carries_its_owners_mark() -> None:
    with private_folder() as folder:
        assert (folder / OWNER_FILE).read_text() == f"{os.getpid()} {process_mark(os.getpid())}"


# ---- what is not ours -------------------------------------------------------------------------------------------------


@needs_root
def test_a_folder_of_another_user_is_not_touched_whatever_its_mark_says(tmp_path: Path) -> None:
    folder = left_by(tmp_path, "999999999 1 gone")
    os.chown(folder, OTHER, OTHER)
    assert find_leftovers([tmp_path]) == ()
    assert not remove_leftover(Leftover(folder, (), 0))
    assert (folder / "ram").exists()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    target = left_by(tmp_path, "999999999 1 gone", name="elsewhere")
    link = tmp_path / "pmemh-link"
    link.symlink_to(target)
    assert find_leftovers([tmp_path]) == ()
    assert not remove_leftover(Leftover(link, (), 0))
    assert (target / "ram").exists()


def test_a_folder_that_others_may_write_to_was_not_made_by_a_harness(tmp_path: Path) -> None:
    folder = left_by(tmp_path, "999999999 1 gone")
    folder.chmod(0o777)
    assert find_leftovers([tmp_path]) == ()


@pytest.mark.parametrize("forge", ["link", "pipe", "folder"])
def test_a_mark_that_is_no_plain_file_is_not_read(tmp_path: Path, forge: str) -> None:
    folder = left_by(tmp_path, "")
    mark, elsewhere = folder / OWNER_FILE, tmp_path / "elsewhere"
    elsewhere.write_text("999999999 1 gone")
    mark.unlink()
    if forge == "link":
        mark.symlink_to(elsewhere)
    elif forge == "pipe":
        os.mkfifo(mark)
    else:
        mark.mkdir()
    assert find_leftovers([tmp_path]) == ()
    long_ago = time.time() - 3600
    os.utime(folder, (long_ago, long_ago))
    (found,) = find_leftovers([tmp_path])
    assert remove_leftover(found)
    assert elsewhere.exists()


def test_a_folder_that_got_an_owner_since_it_was_found_stays(tmp_path: Path) -> None:
    folder = left_by(tmp_path, "999999999 1 gone")
    (found,) = find_leftovers([tmp_path])
    (folder / OWNER_FILE).write_text(f"{os.getpid()} {process_mark(os.getpid())}")
    assert not remove_leftover(found)
    assert folder.exists()


@needs_root
def test_a_process_of_another_user_that_names_the_folder_is_not_killed(tmp_path: Path) -> None:
    folder = left_by(tmp_path, "999999999 1 gone")
    code = f"import os, sys, time; os.setgid({OTHER}); os.setuid({OTHER}); print('up', flush=True); time.sleep(600)"
    reading, writing = os.pipe()
    foreign = process.start([sys.executable, "-c", code, str(folder / "ram")], stdout=writing)
    os.close(writing)
    try:
        assert os.read(reading, 2) == b"up"
        (found,) = find_leftovers([tmp_path])
        assert found.pids == ()
        assert remove_leftover(found)
        assert foreign.poll() is None
    finally:
        os.close(reading)
        foreign.kill()
        foreign.wait()
