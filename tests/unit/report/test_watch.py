"""Splice watch: what is taken for a page of the file's own and what for a copy, and the table that is made of it."""

from dataclasses import replace
from pathlib import Path

import pytest

from harness.__main__ import main
from harness.case.loader import load_plans
from harness.model.outcome import How, Observation, Run, RunKind
from harness.model.watch import Watch, find_carried
from harness.record.item import Record
from harness.record.runs import Identity, begin_run, now, run_folder
from harness.record.store import store_record
from harness.report.columns import Column, read_columns, write_columns
from harness.report.watch import make_columns
from tests.fakes.samples import item, ran

ROOT = Path(__file__).parents[3]
WATCH = Watch("splice to a pipe", moves=1, read=3)
DONE = Observation(1, How.RETURNED, 4096)
LINE = "splice to a pipe[ext4 dax on pmem]"


def seen(*writers: int, moved: Observation = DONE) -> tuple[Observation, ...]:
    """What came of four steps; ``writers``: the steps that wrote what was read, counted from 1."""
    runs = tuple(Run(512 * at, 512, RunKind.TAG, writer) for at, writer in enumerate(writers))
    return (DONE, moved, DONE, Observation(3, How.RETURNED, 512 * len(runs), data=runs))


def test_what_a_later_step_wrote_shows_an_alias_and_what_an_earlier_one_did_a_copy() -> None:
    assert find_carried(WATCH, seen(3)) == "alias"
    assert find_carried(WATCH, seen(1)) == "copy"
    assert find_carried(WATCH, seen(1, 3)) == "mixed"
    assert find_carried(WATCH, seen(2)) == "copy"  # a step that writes what it moves


def test_a_move_that_fails_says_how_and_what_was_not_seen_is_nothing() -> None:
    assert find_carried(WATCH, seen(1, moved=Observation(1, How.FAILED, errno="EINVAL"))) == "EINVAL"
    assert find_carried(WATCH, seen(1, moved=Observation(1, How.BLOCKED))) == "blocked"
    assert find_carried(WATCH, seen(1, moved=Observation(1, How.NOT_RUN))) is None
    assert find_carried(WATCH, seen()) is None
    zeroes = (*seen(1)[:3], Observation(3, How.RETURNED, 4096, data=(Run(0, 4096, RunKind.ZERO),)))
    assert find_carried(WATCH, zeroes) is None
    assert find_carried(WATCH, (*seen(1)[:3], Observation(3, How.BLOCKED))) is None


def watched(folder: Path, *writers: int) -> Record:
    record = ran(folder, chosen=replace(item(), watches=(WATCH,)))
    return replace(record, observations=seen(*writers))


def test_a_kernel_has_a_line_for_each_way_and_storage(tmp_path: Path) -> None:
    column = Column("debian_6.12", ("6.12.95-fake",), "2026-01-02", {LINE: "alias"})
    assert make_columns([watched(tmp_path, 3)], "2026-01-02") == [column]
    both = make_columns([watched(tmp_path, 3), watched(tmp_path, 1)], "2026-01-02")
    assert both == [replace(column, words={LINE: "alias or copy"})]
    unseen = watched(tmp_path, 3)
    assert make_columns([replace(unseen, observations=None)], "2026-01-02") == []


# ---- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    """A kept run of an item that watches."""
    who = Identity("20260102-000000-abcd", now(), ("pytest",), "", "", ("debian_6.12",))
    begin_run(tmp_path / "artifacts", who, keep=5)
    store_record(run_folder(tmp_path / "artifacts", who.id) / "fam/one", watched(tmp_path / "scratch", 3), "", "")
    return tmp_path / "artifacts"


def watch(artifacts: Path, *words: str) -> int:
    return main(["watch", *words, "--artifacts", str(artifacts), "--facts", str(artifacts.parent / "facts")])


def test_runs_are_added_and_storages_of_which_the_same_is_so_share_a_row(artifacts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = "splice to a pipe[xfs dax on pmem]"
    write_columns(artifacts.parent / "facts/watch.tsv", [Column("debian_6.1", ("6.1.0-x",), "2026-01-01", {LINE: "copy", other: "copy"})])
    assert watch(artifacts, "--add", "latest") == 0
    told = capsys.readouterr()
    assert f"written: {artifacts.parent}/facts/watch.tsv" in told.err
    rows = [line.split("  ") for line in told.out.splitlines()[1:]]
    assert [[word.strip() for word in row if word] for row in rows] == [
        ["splice to a pipe", "ext4 dax on pmem", "copy", "alias"],
        ["splice to a pipe", "xfs dax on pmem", "copy", "-"],
        ["1 of 2 are not the same on all kernels"],
    ]
    assert watch(artifacts, "no such way") == 2
    assert "no way of bytes has 'no such way' in its name" in capsys.readouterr().err


def test_without_a_table_and_without_a_run_that_watches_there_is_nothing_to_show(
    artifacts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert watch(artifacts) == 2
    assert "no table of ways of bytes in" in capsys.readouterr().err
    unwatched = ran(artifacts.parent / "scratch")
    store_record(artifacts / "latest/fam/one", unwatched, "", "")
    assert watch(artifacts, "--add", "latest") == 2
    assert "run 20260102-000000-abcd has no item that watches what is moved" in capsys.readouterr().err


def test_the_projects_own_table_tells_of_ways_that_cases_watch() -> None:
    plans = [load_plans(path)[0] for path in ROOT.glob("cases/*/*.yaml") if "\nwatch:" in path.read_text()]
    told = {line.partition("[")[0] for column in read_columns(ROOT / "facts/watch.tsv") for line in column.words}
    assert told == {watch.path for plan in plans for watch in plan.watches}
