"""The archive of the agent: the same bytes from the same sources, nothing of the host's in it, and a command line of its own."""

import os
import shutil
import sys
import zipfile
from pathlib import Path

import pytest

from harness.agent.bundle import agent_archive, archive_of
from harness.host.deadline import Deadline
from harness.host.process import run

HARNESS = Path(__file__).parents[3] / "harness"


def test_equal_sources_make_equal_bytes_whenever_they_were_written(tmp_path: Path) -> None:
    copy = tmp_path / "harness"
    shutil.copytree(HARNESS, copy)
    for number, path in enumerate(sorted(copy.rglob("*"))):
        path.chmod(0o700)
        os.utime(path, (10**9 + number, 10**9 + number))
    (copy / "ops" / "__pycache__").mkdir(exist_ok=True)
    assert archive_of(copy) == archive_of(HARNESS) == agent_archive()
    (copy / "ops" / "tag.py").write_text("")
    assert archive_of(copy) != agent_archive()


def test_what_travels_are_sources_that_the_agent_needs(archive: Path) -> None:
    names = zipfile.ZipFile(archive).namelist()
    assert names == sorted(names)
    assert {name.rpartition("/")[0] for name in names} == {"", "harness", "harness/agent", "harness/ops"}
    assert all(name.endswith(".py") for name in names)
    assert "harness/agent/bundle.py" not in names


@pytest.mark.parametrize("words", [[], ["127.0.0.1:0"], ["127.0.0.1:0", "token", "--background"]])
def test_a_command_line_that_cannot_be_meant_is_answered_with_its_form(archive: Path, words: list[str]) -> None:
    done = run([sys.executable, str(archive), *words], Deadline.after(60), check=False)
    assert (done.status, done.stderr) == (2, "usage: agent.pyz ADDRESS:PORT TOKEN_FILE [--foreground]\n")
