"""Commands end, or are ended, and say what went wrong."""

import logging
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import HostError
from harness.host.deadline import Deadline, wait_until
from harness.host.process import run, start


def test_output_and_status_come_back() -> None:
    done = run(["sh", "-c", "cat; echo err >&2; exit 3"], Deadline.after(30), check=False, stdin="in")
    assert (done.status, done.stdout, done.stderr) == (3, "in", "err\n")


def test_failing_command_shows_its_line_and_last_words() -> None:
    with pytest.raises(HostError, match=r"exit status 7 from: sh -c 'echo oops >&2; exit 7'\noops"):
        run(["sh", "-c", "echo oops >&2; exit 7"], Deadline.after(30))


def test_failing_command_with_a_log_names_the_log(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"(?s)oops.*whole output: .*log"):
        run(["sh", "-c", "echo oops; exit 1"], Deadline.after(30), log=tmp_path / "log")


def test_silent_failure_is_said_to_be_silent() -> None:
    with pytest.raises(HostError, match="it printed nothing"):
        run(["false"], Deadline.after(30))


def test_command_is_ended_with_its_children_at_the_deadline(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    for limit_s in (0.5, 5, 50):  # on a busy computer the shell may not get that far in the first
        with pytest.raises(HostError, match=r"still running after .* so it was ended: sh -c"):
            run(["sh", "-c", f"sleep 1000 & echo $! > {pid}; wait"], Deadline.after(limit_s))
        if pid.is_file() and pid.read_text().endswith("\n"):
            break
    child = int(pid.read_text())
    assert wait_until(lambda: _gone(child), Deadline.after(30))


def test_a_command_that_is_looked_at_gets_its_input_and_comes_back_whole() -> None:
    looks: list[int] = []
    done = run(["sh", "-c", "cat; sleep 2.5; echo end"], Deadline.after(60), stdin="in ", watch=lambda: looks.append(1))
    assert done.stdout == "in end\n"
    assert len(looks) >= 2


def test_who_interrupts_a_command_leaves_none_of_its_children(tmp_path: Path) -> None:
    pid = tmp_path / "pid"

    def interrupt() -> None:
        if pid.is_file() and pid.read_text().endswith("\n"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(["sh", "-c", f"sleep 1000 & echo $! > {pid}; wait"], Deadline.after(60), watch=interrupt)
    child = int(pid.read_text())
    assert wait_until(lambda: _gone(child), Deadline.after(30))


def _gone(process: int) -> bool:
    stat = Path(f"/proc/{process}/stat")
    return not stat.exists() or stat.read_text().split(") ")[-1].startswith("Z")


UNTIL_ENDED = """
import signal, time
from harness.host.process import cleaning_up_first
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored, and stays so
with cleaning_up_first():
    try:
        print("begun", flush=True)
        time.sleep(600)
    finally:
        time.sleep(0.2)
        print("cleaned up", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_process_that_is_to_end_cleans_up_and_then_ends_by_the_signal(number: signal.Signals) -> None:
    process = start([sys.executable, "-c", UNTIL_ENDED], stdout=subprocess.PIPE, new_session=False)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"begun\n"
        for _ in range(2):  # a second one does not interrupt the cleaning
            process.send_signal(number)
        assert (process.stdout.read(), process.wait(60)) == (b"cleaned up\n", -number)
    finally:
        process.kill()


@pytest.mark.parametrize("how", [lambda: run(["no-such-program"], Deadline.after(1)), lambda: start(["no-such-program"])])
def test_missing_program_is_named(how: object) -> None:
    assert callable(how)
    with pytest.raises(HostError, match="cannot run no-such-program: no such program on this computer"):
        how()


def test_started_command_gets_the_streams_it_is_given() -> None:
    reading, writing = os.pipe()
    process = start(["echo", "hello"], stdout=writing)
    os.close(writing)
    assert process.wait() == 0
    with os.fdopen(reading) as stream:
        assert stream.read() == "hello\n"


def test_waiting_asks_at_least_once_and_gives_up_at_the_deadline() -> None:
    asked: list[int] = []

    def condition() -> None:
        asked.append(1)

    assert wait_until(condition, Deadline.after(0)) is None
    assert asked == [1]


def test_inner_deadline_never_outlasts_the_outer_one() -> None:
    outer = Deadline.after(10)
    assert outer.within(1000) == outer
    assert outer.within(1).at_s < outer.at_s
    assert Deadline.after(2, scale=10).limit_s == 20


def test_the_log_has_each_command_with_its_time_and_no_password(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "harness")
    run(["echo", "deb http://me:secret@mirror.invalid/debian trixie main"], Deadline.after(60))
    assert re.search(r"ran echo 'deb http://mirror\.invalid/debian trixie main': \d+\.\d{3} s", caplog.text)
    assert "secret" not in caplog.text
