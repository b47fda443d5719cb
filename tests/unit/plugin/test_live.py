"""The live line, as a terminal gets it."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from io import StringIO
from pathlib import Path

import pytest

from harness.plugin.live import Progress, Screen
from tests.fakes.project import CONFTEST
from tests.unit.plugin.test_plugin import CASE, Project, make_project

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[3]
ERASED = "\r\x1b[2K"
#: On DAX nothing is wrong, on the disk the write fails. Longer than a tick an item takes only where that is asked for.
MAKE = "lambda stack: (sleep(float(environ.get('SLOW', 0))), FakeGuest(stack, *([fails] if 'disk' in stack.describe() else [])))[1]"
BEGIN = "from os import environ\nfrom time import sleep\n"


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    made = make_project(pytester, monkeypatch)
    made.write("cases/fam/two.yaml", CASE)
    made.write("conftest.py", BEGIN + CONFTEST.replace("{make}", MAKE))
    return made


def seen_on_a_terminal(project: Project, *arguments: str, columns: int = 100, **variables: str) -> str:
    """Run pytest on a terminal and return all that it writes there."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    clean = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "PY_COLORS", "CI")}
    environment = clean | {"PYTHONPATH": str(ROOT), "TERM": "xterm", **variables}
    command = [sys.executable, "-m", "pytest", "-p", "harness.plugin", "-p", "no:cacheprovider", *arguments]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=project.root, env=environment)
    os.close(theirs)
    said = bytearray()
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # how a terminal says that nobody is there any more
            break
        if not piece:
            break
        said += piece
    os.close(ours)
    process.wait()
    return said.decode()


def without_colours(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def lines_shown(text: str) -> list[str]:
    """What stood in the live line, one after the other."""
    return re.findall(r"\d+ of \d+ done[^\r\n]*", without_colours(text))


@pytest.mark.parametrize("workers", [[], ["-n", "2"]])
def test_the_line_says_how_items_ended_what_runs_and_what_is_left(project: Project, workers: list[str]) -> None:
    text = seen_on_a_terminal(project, "cases", *workers, SLOW="1.2")
    shown = lines_shown(text)
    assert re.match(r"0 of 4 done; \d+:\d\d gone; fam/(one|two)\[", shown[0]), shown
    assert any(re.match(r"2 of 4 done, .* gone, about \d+:\d\d left", line) for line in shown), shown
    assert re.match(r"4 of 4 done, 2 (conforms|deviates), 2 (conforms|deviates); \d+:\d\d gone$", shown[-1])
    assert all(len(line) <= 99 for line in shown)
    # Kept up while an item runs, not only between two.
    assert any(re.search(r"\] [1-9]\d* s", line) for line in shown), shown


def test_what_does_not_conform_is_named_at_once_above_the_line(project: Project) -> None:
    text = without_colours(seen_on_a_terminal(project, "cases"))
    named = text.index(f"{ERASED}deviates: cases/fam/one.yaml::one[disk-ext4-debian_6.12]\r\n")
    assert named < text.index("= FAILURES =")
    assert "3 of 4 done" in text[named:]


def test_nothing_of_the_line_is_left_at_the_end_or_in_what_pytest_captures(project: Project) -> None:
    text = seen_on_a_terminal(project, "cases", SLOW="1.2")
    after = text[text.index("= FAILURES =") :]
    assert " done" not in after
    assert "Captured" not in after
    assert text.count(ERASED) == len(lines_shown(text))


def test_without_colours_there_is_a_line_and_in_colours_it_has_some(project: Project) -> None:
    plain = seen_on_a_terminal(project, "cases", "-k", "dax", NO_COLOR="1")
    assert len(lines_shown(plain)) > 2
    assert "\x1b[" not in plain.replace(ERASED, "")
    assert "\x1b[32m, 1 conforms" in seen_on_a_terminal(project, "cases", "-k", "dax")


@pytest.mark.parametrize("options", [["-v"], ["-s"], ["--collect-only"]])
def test_whoever_asked_to_see_it_otherwise_gets_pytests_own_output(project: Project, options: list[str]) -> None:
    text = seen_on_a_terminal(project, "cases", *options)
    assert not lines_shown(text)
    assert ERASED not in text


def test_a_terminal_that_cannot_go_back_gets_letters(project: Project) -> None:
    text = without_colours(seen_on_a_terminal(project, "cases", TERM="dumb"))
    assert not lines_shown(text)
    assert re.search(r"cases/fam/one\.yaml \.", text)


def test_tests_that_are_no_cases_keep_their_letters(project: Project) -> None:
    project.write("test_other.py", "def test_it(): pass\n")
    text = without_colours(seen_on_a_terminal(project, "test_other.py"))
    assert re.search(r"test_other\.py \.", text)
    assert not lines_shown(text)


def test_the_time_that_is_left_is_that_of_the_items_so_far() -> None:
    clock = [100.0]
    progress = Progress(10, lambda: clock[0])
    progress.begin("cases/fam/one.yaml::one[a]")
    clock[0] += 65
    assert text_of(progress) == "0 of 10 done; 1:05 gone; fam/one[a] 65 s"
    progress.count("conforms", "green")
    progress.end("cases/fam/one.yaml::one[a]")
    assert text_of(progress) == "1 of 10 done, 1 conforms; 1:05 gone, about 9:45 left"
    progress.begin("test_other.py")
    assert text_of(progress).endswith("; test_other.py 0 s")


def text_of(progress: Progress) -> str:
    return "".join(text for text, _ in progress.line())


def test_the_line_waits_for_the_end_of_words_that_have_begun() -> None:
    stream = StringIO()
    screen = Screen(stream)
    screen.write("half a")
    screen.show("LINE")
    assert stream.getvalue() == "half a"
    screen.write(" line\n")
    screen.show("LINE")
    screen.show("ANOTHER")
    screen.write("more\n")
    assert stream.getvalue() == f"half a line\nLINE{ERASED}ANOTHER{ERASED}more\n"
