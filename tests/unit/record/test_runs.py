"""Runs below the artifacts: found, told, removed, and never taken for what they are not."""

import contextlib
import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from harness.__main__ import main
from harness.errors import UsageError
from harness.host.log import LogFile
from harness.model.outcome import How
from harness.model.verdict import Verdict
from harness.record.item import Ending
from harness.record.runs import (
    IDENTITY,
    LOG,
    Identity,
    begin_run,
    find_run,
    make_run_id,
    now,
    remove_run,
    run_folder,
    store_identity,
    stored_runs,
)
from harness.report.rows import RESULTS, make_unset_row, read_rows, row_line
from tests.fakes.leased import FakeGuest, obedient
from tests.fakes.samples import item, ran, row, stack


def identity(name: str, ended: bool = True) -> Identity:
    made = Identity(name, now(), ("pytest", "cases"), "0123abcd", "cafe", ("debian_6.12",))
    return replace(made, ended=now(), status=1, items=(("conforms", 2), ("deviates", 1))) if ended else made


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
    store_identity(tmp_path, replace(identity("1-a", ended=False), began=now() - timedelta(days=3)))
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


def test_the_latest_run_is_the_one_that_the_link_leads_to(tmp_path: Path) -> None:
    begin(tmp_path, "1-a", "2-b")
    (tmp_path / "latest").unlink()
    (tmp_path / "latest").symlink_to("runs/1-a")
    assert find_run(tmp_path, "latest").folder == run_folder(tmp_path, "1-a")
    (tmp_path / "latest").unlink()
    with pytest.raises(UsageError, match="0 runs are called 'latest'; there are:\n  2-b\n  1-a"):
        find_run(tmp_path, "latest")


def test_where_links_were_copied_the_latest_run_is_that_folder(tmp_path: Path) -> None:
    begin(tmp_path, "1-a")
    (tmp_path / "latest").unlink()
    run_folder(tmp_path, "1-a").rename(tmp_path / "latest")
    assert find_run(tmp_path, "latest").folder == tmp_path / "latest"


BROKEN = [
    ("no JSON", "is not JSON: "),
    ("[]", "has format None, this harness reads 1"),
    ('{"format": 1, "id": 3}', "Identity.id: 3 is not of type str"),
    ("began", "Identity.began: 'yesterday' is no time (ISO 8601)"),
    ("zone", "Identity.began: the time '2026-11-25T17:42:10' does not say its zone"),
]


@pytest.mark.parametrize(("text", "problem"), BROKEN)
def test_what_is_no_identity_is_no_run_and_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, problem: str) -> None:
    begin(tmp_path, "1-a", "2-b")
    path = run_folder(tmp_path, "2-b") / IDENTITY
    began = {"began": "yesterday", "zone": "2026-11-25T17:42:10"}.get(text)
    path.write_text(text if began is None else json.dumps({**json.loads(path.read_text()), "began": began}))
    assert [run.identity.id for run in stored_runs(tmp_path)] == ["1-a"]
    where = ("--artifacts", str(tmp_path))
    assert main(["runs", "list", *where]) == 0
    captured = capsys.readouterr()
    assert f"no run: {path}" in captured.err
    assert problem in captured.err
    assert f"1 runs in {tmp_path}" in captured.out
    assert main(["runs", "show", *where]) == 2
    assert f"latest is no run: {tmp_path}/latest/identity.json" in capsys.readouterr().err
    assert main(["runs", "show", "2-b", *where]) == 2
    assert f"2-b is no run: {path}" in capsys.readouterr().err


def test_runs_are_listed_shown_and_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin(tmp_path, "1-a")
    begin(tmp_path, "2-b", ended=False)
    good = row(tmp_path / "item")
    bad = replace(good, ended=replace(good.ended, ending=Ending.CRASHED), judged=None)
    (run_folder(tmp_path, "1-a") / RESULTS).write_text(row_line(good) + row_line(bad))
    where = ("--artifacts", str(tmp_path))
    assert main(["runs", "list", *where]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said[:3]] == ["run", "2-b", "1-a"]
    assert "has not ended" in said[1]
    assert "exit status 1: 2 conforms, 1 deviates  pytest cases" in said[2]
    assert main(["runs", "show", "1", *where]) == 1
    said_of_one = capsys.readouterr().out
    assert "harness    0123abcd\n" in said_of_one
    assert "guest crashed" in said_of_one
    assert "1 of 2 items conform" in said_of_one
    assert main(["runs", "remove", *where]) == 2
    assert "name the runs to remove" in capsys.readouterr().err
    assert main(["runs", "remove", "--all", *where]) == 0
    assert [run.identity.id for run in stored_runs(tmp_path)] == ["2-b"]


def test_a_row_is_read_again_as_it_was_written(tmp_path: Path) -> None:
    fails = FakeGuest(stack(), lambda operation: replace(obedient(operation), how=How.FAILED, errno="EIO"))
    rows = (row(tmp_path / "one"), row(tmp_path / "two", fails), make_unset_row(item(), Ending.NOT_TRIED, "why"))
    assert [found.judged and found.judged.verdict for found in rows] == [Verdict.CONFORMS, Verdict.DEVIATES, None]
    (tmp_path / RESULTS).write_text("".join(map(row_line, rows)))
    assert read_rows(tmp_path) == rows


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
        ("no JSON", "results.jsonl:2 is not JSON"),
        ('{"format": 1}', "results.jsonl:2 has format 1, this harness reads 2: use the version that wrote it"),
        ('{"format": 2}', "results.jsonl:2: Row: .*missing"),
        ('{"format": 2, "ended": {"ending": "sang"}}', "results.jsonl:2: Row.ended.ending: 'sang' is none of completed, guest crashed"),
        ("[]", "results.jsonl:2 has format None"),
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
    long_ago = now() - timedelta(days=3)
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
