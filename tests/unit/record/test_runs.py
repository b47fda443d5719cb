"""Runs below the artifacts: found, told, removed, and never taken for what they are not."""

import contextlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from harness.__main__ import main
from harness.errors import UsageError
from harness.host.log import LogFile
from harness.record.runs import (
    LOG,
    Identity,
    begin_run,
    find_run,
    make_run_id,
    now_text,
    remove_run,
    run_folder,
    store_identity,
    stored_runs,
)
from harness.report.rows import RESULTS, read_rows, row_line
from tests.fakes.samples import ran, row


def identity(name: str, ended: bool = True) -> Identity:
    made = Identity(name, now_text(), ("pytest", "cases"), "0123abcd", "cafe", ("debian_6.12",))
    return replace(made, ended=now_text(), status=1, items=(("conforms", 2), ("deviates", 1))) if ended else made


def begin(artifacts: Path, *names: str, keep: int = 10, ended: bool = True) -> None:
    for name in names:
        begin_run(artifacts, identity(name, ended), keep)


def test_the_newest_run_is_the_latest_and_ids_sort_by_time(tmp_path: Path) -> None:
    first, second = make_run_id("ffff"), make_run_id("0000")
    assert first[:15] <= second[:15]
    begin(tmp_path, "1-a", "2-b")
    assert (tmp_path / "latest").resolve() == run_folder(tmp_path, "2-b")
    assert [run.identity.id for run in stored_runs(tmp_path)] == ["2-b", "1-a"]
    assert find_run(tmp_path, "latest").identity == stored_runs(tmp_path)[0].identity
    assert find_run(tmp_path, "1").identity.id == "1-a"


def test_a_run_that_goes_on_is_never_pruned_until_it_never_will_end(tmp_path: Path) -> None:
    begin(tmp_path, "1-a", ended=False)
    begin(tmp_path, "2-b", "3-c", keep=1)
    assert [run.identity.id for run in stored_runs(tmp_path)] == ["3-c", "1-a"]
    long_ago = (datetime.now(UTC) - timedelta(days=3)).isoformat(timespec="seconds")
    store_identity(tmp_path, replace(identity("1-a", ended=False), began=long_ago))
    begin(tmp_path, "4-d", keep=1)
    assert [run.identity.id for run in stored_runs(tmp_path)] == ["4-d"]


def test_when_the_latest_is_removed_the_one_before_is_it(tmp_path: Path) -> None:
    begin(tmp_path, "1-a", "2-b")
    remove_run(tmp_path, find_run(tmp_path, "latest"))
    assert (tmp_path / "latest").resolve() == run_folder(tmp_path, "1-a")
    remove_run(tmp_path, find_run(tmp_path, "latest"))
    assert not (tmp_path / "latest").is_symlink()


def test_a_run_that_is_not_there_or_not_the_only_one_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no run is kept in .*; pytest makes one there"):
        find_run(tmp_path, "latest")
    begin(tmp_path, "20-a", "20-b", "30-c")
    with pytest.raises(UsageError, match="2 runs are called '20'; there are:\n  20-b\n  20-a"):
        find_run(tmp_path, "20")
    with pytest.raises(UsageError, match="0 runs are called 'x'; there are:\n  30-c"):
        find_run(tmp_path, "x")


def test_what_is_no_identity_is_no_run(tmp_path: Path) -> None:
    begin(tmp_path, "1-a")
    for name, text in (("2-b", "no JSON"), ("3-c", json.dumps({"id": 3})), ("4-d", json.dumps([]))):
        run_folder(tmp_path, name).mkdir()
        (run_folder(tmp_path, name) / "identity.json").write_text(text)
    assert [run.identity.id for run in stored_runs(tmp_path)] == ["1-a"]


def test_runs_are_listed_shown_and_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin(tmp_path, "1-a")
    begin(tmp_path, "2-b", ended=False)
    good = row(tmp_path / "item")
    bad = replace(good, ending="guest crashed", verdict=None, node_id="cases/x.yaml::x[y]")
    (run_folder(tmp_path, "1-a") / RESULTS).write_text(row_line(good) + row_line(bad))
    where = ("--artifacts", str(tmp_path))
    assert main(["runs", "list", *where]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said[:2]] == ["2-b", "1-a"]
    assert "has not ended" in said[0]
    assert "exit status 1: 2 conforms, 1 deviates  pytest cases" in said[1]
    assert main(["runs", "show", "1", *where]) == 1
    said_of_one = capsys.readouterr().out
    assert "harness    0123abcd\n" in said_of_one
    assert "guest crashed" in said_of_one
    assert "1 of 2 items conform" in said_of_one
    assert main(["runs", "remove", *where]) == 2
    assert "name the runs to remove" in capsys.readouterr().err
    assert main(["runs", "remove", "--all", *where]) == 0
    assert [run.identity.id for run in stored_runs(tmp_path)] == ["2-b"]


def test_commands_judge_the_latest_run_where_no_folder_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["judge", "--artifacts", str(tmp_path)]) == 2
    assert "no run is kept in" in capsys.readouterr().err
    begin(tmp_path, "1-a")
    ran(run_folder(tmp_path, "1-a") / "fam/one/x")
    assert main(["judge", "--artifacts", str(tmp_path)]) == 0
    assert main(["judge", "--artifacts", str(tmp_path), "--run", "1"]) == 0
    assert capsys.readouterr().out.count("1 of 1 items conform") == 2
    assert main(["judge", str(tmp_path), "--run", "1"]) == 2
    assert "name folders or --run, not both" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("no JSON", "results.jsonl:2 is no row"),
        ('{"format": 0}', "has another format than 1"),
        ('{"format": 1}', "is no row"),
        ("[]", "is no row"),
    ],
)
def test_a_line_that_is_no_row_is_named(tmp_path: Path, line: str, words: str) -> None:
    (tmp_path / RESULTS).write_text(row_line(row(tmp_path / "item")) + line + "\n")
    with pytest.raises(UsageError, match=words):
        read_rows(tmp_path)
    assert read_rows(tmp_path / "none") == ()


def test_a_run_that_goes_on_is_not_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin(tmp_path, "1-a", ended=False)
    log = LogFile(run_folder(tmp_path, "1-a") / LOG)
    log.write("something was done")
    assert main(["runs", "remove", "1-a", "--artifacts", str(tmp_path)]) == 2
    assert "the run 1-a goes on: end it first (Ctrl-C where it was started)" in capsys.readouterr().err
    assert find_run(tmp_path, "1-a").goes_on
    log.close()
    assert main(["runs", "remove", "1-a", "--artifacts", str(tmp_path)]) == 0
    assert stored_runs(tmp_path) == ()


def test_a_run_that_seems_too_old_to_go_on_and_does_is_left_alone(tmp_path: Path) -> None:
    long_ago = (datetime.now(UTC) - timedelta(days=3)).isoformat(timespec="seconds")
    store_identity(tmp_path, replace(identity("1-a", ended=False), began=long_ago))
    with contextlib.closing(LogFile(run_folder(tmp_path, "1-a") / LOG)) as log:
        log.write("something was done")
        begin(tmp_path, "2-b", keep=1)
        assert main(["runs", "remove", "--all", "--artifacts", str(tmp_path)]) == 0
        assert [run.identity.id for run in stored_runs(tmp_path)] == ["1-a"]
    begin(tmp_path, "3-c", keep=1)
    assert [run.identity.id for run in stored_runs(tmp_path)] == ["3-c"]


def test_a_run_that_was_ended_before_its_first_item_keeps_its_log_until_older_runs_go(tmp_path: Path) -> None:
    for name in ("1-a", "3-c"):
        with contextlib.closing(LogFile(run_folder(tmp_path, name) / LOG)) as log:
            log.write("something was done")
    with contextlib.closing(LogFile(run_folder(tmp_path, "2-b") / LOG)) as log:
        log.write("something is being done")
        begin(tmp_path, "0-x", "4-d", keep=2)
        assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["0-x", "1-a", "2-b", "3-c", "4-d"]
        begin(tmp_path, "5-e", "6-f", keep=2)
        assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["2-b", "5-e", "6-f"]
