"""The log: whole lines that say when, who and where, in a file that several processes share; nothing where nobody asked for it."""

import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness.host.log import LogFile, told, took

HEAD = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} "
log = logging.getLogger("harness.some.module")

WRITER = """
import logging, sys
from pathlib import Path
from harness.host.log import LogFile, told
file = LogFile(Path(sys.argv[1]))
with told(file.write, sys.argv[2]):
    for number in range(300):
        logging.getLogger("harness.writer").info("%d\\n%s\\nend of %d", number, "x" * 20_000, number)
"""


def test_every_line_says_when_who_how_bad_and_where() -> None:
    said: list[str] = []
    with told(said.append, "gw3"):
        log.warning("no clone for %s:\nthe console\nlast words", "a stack")
    (text,) = said
    heads = [re.fullmatch(HEAD + r"gw3 WARNING some\.module: (.*)", line) for line in text.splitlines()]
    assert [head and head[1] for head in heads] == ["no clone for a stack:", "| the console", "| last words"]


def test_all_levels_are_told_and_none_when_the_block_is_left() -> None:
    said: list[str] = []
    before = logging.getLogger("harness").level
    with told(said.append):
        log.debug("each request")
    log.error("nobody listens")
    assert len(said) == 1
    assert logging.getLogger("harness").level == before


def test_the_file_and_its_folder_are_made_when_there_is_something_to_say(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "one" / "harness.log"
    file = LogFile(path)
    with told(file.write):
        assert not path.parent.exists()
        log.info("first")
    file.close()
    file.close()
    assert path.read_text().endswith(" INFO    some.module: first\n")


def test_processes_that_share_a_file_leave_whole_records_in_it(tmp_path: Path) -> None:
    path = tmp_path / "harness.log"
    command = [sys.executable, "-c", WRITER, str(path)]
    writers = [subprocess.Popen([*command, f"gw{number}"]) for number in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    lines = path.read_text().splitlines()
    assert len(lines) == 3 * 300 * 3
    for first, second, third in zip(lines[::3], lines[1::3], lines[2::3], strict=True):
        found = re.fullmatch(HEAD + r"(gw\d) INFO    writer: (\d+)", first)
        assert found
        assert re.fullmatch(HEAD + found[1] + r" INFO    writer: \| x{20000}", second)
        assert re.fullmatch(HEAD + found[1] + rf" INFO    writer: \| end of {found[2]}", third)


def test_a_log_that_cannot_be_written_is_lost_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with told(LogFile(tmp_path / "file" / "harness.log").write):
        log.error("lost")


def test_warnings_are_on_nobodys_terminal_who_did_not_ask_for_them() -> None:
    code = "import logging, harness; logging.getLogger('harness.lease.clone').error('no clones')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_what_takes_time_is_logged_with_its_seconds_and_with_what_ended_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "harness")
    with took(log, logging.DEBUG, "asked"):
        pass
    with pytest.raises(ValueError, match="no answer"), took(log, logging.DEBUG, "asked"):
        raise ValueError("no answer\nand much more")
    assert re.fullmatch(r"asked: 0\.\d{3} s", caplog.messages[0])
    assert re.fullmatch(r"asked: ValueError after 0\.\d{3} s: no answer", caplog.messages[1])
