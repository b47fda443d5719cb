"""Which version of the harness runs: told where it is a checkout, and never an error."""

import re
from pathlib import Path

from harness.host.deadline import Deadline
from harness.host.process import run
from harness.host.version import read_commit


def git(root: Path, *words: str) -> None:
    who = ("-c", "user.name=nobody", "-c", "user.email=nobody@localhost")
    run(["git", "-C", str(root), *who, *words], Deadline.after(60))


def test_a_checkout_has_its_commit_and_says_where_files_differ_from_it(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / "file").write_text("one")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-q", "-m", "one")
    clean = read_commit(tmp_path)
    assert re.fullmatch("[0-9a-f]{40}", clean)
    (tmp_path / "file").write_text("two")
    read_commit.cache_clear()
    assert read_commit(tmp_path) == f"{clean}-dirty"


def test_what_is_no_checkout_and_what_is_a_broken_one_has_none(tmp_path: Path) -> None:
    assert read_commit(tmp_path) == ""
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / ".git").write_text("gitdir: nowhere")
    assert read_commit(tmp_path / "broken") == ""
