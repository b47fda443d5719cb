"""The table of verdicts: what stands in it, what a run adds to it, and what is said of one that is broken."""

from dataclasses import replace
from pathlib import Path

import pytest

from harness.__main__ import main
from harness.errors import UsageError
from harness.model.verdict import Verdict
from harness.record.item import Ending, Lifecycle, Target
from harness.record.runs import Identity, begin_run, now, run_folder
from harness.report.columns import Column, add_column, differing, read_columns, without_subjects, write_columns
from harness.report.rows import RESULTS, Guest, Judged, Row, make_unset_row, row_line
from harness.report.verdicts import make_columns
from tests.fakes.samples import item

ROOT = Path(__file__).parents[3]
OLD = Column("debian_6.1", ("6.1.0-cloud",), "2026-01-01", {"fam/one[a]": "conforms", "fam/two[a]": "conforms"})
NEW = Column("debian_6.12", ("6.12.1-cloud",), "2026-01-02", {"fam/one[a]": "deviates", "fam/two[a]": "conforms", "fam/new[a]": "conforms"})


def row(kernel: str = "debian_6.12", release: str = "6.12.1-cloud", ending: Ending = Ending.COMPLETED, flavour: str = "") -> Row:
    found = make_unset_row(item(), ending, "")
    found = replace(found, where=replace(found.where, target=Target(kernel + flavour, kernel)))
    if not ending.has_begun:
        return found
    return replace(found, judged=Judged(Verdict.CONFORMS), guest=Guest(release, "tcg", "", "10.0.0", Lifecycle.RESTORED))


def test_a_run_has_a_column_for_each_kernel_and_flavours_share_it() -> None:
    full = row(release="6.12.1-full", flavour="_full")
    full = replace(full, where=replace(full.where, name="two", lifecycle=Lifecycle.BOOTED))
    variant = row().where.variant_id
    assert make_columns([row(), full, row("debian_6.1", "6.1.0-cloud")], "2026-01-02") == [
        Column(
            "debian_6.12",
            ("6.12.1-cloud", "6.12.1-full"),
            "2026-01-02",
            {f"fam/one[{variant}]": "conforms", f"fam/two[{variant}-booted]": "conforms"},
        ),
        Column("debian_6.1", ("6.1.0-cloud",), "2026-01-02", {f"fam/one[{variant}]": "conforms"}),
    ]


def test_what_says_nothing_of_a_kernel_is_not_in_a_column_and_what_it_cannot_run_is() -> None:
    other = row(ending=Ending.UNAVAILABLE)
    other = replace(other, where=replace(other.where, name="two"))
    (column,) = make_columns([row(), other, *(row(ending=e) for e in Ending if e.says_nothing)], "2026-01-02")
    assert list(column.words.values()) == ["conforms", "unavailable"]
    assert make_columns([row(ending=Ending.NOT_SET_UP)], "2026-01-02") == []


def test_a_run_of_the_same_release_adds_and_one_of_another_takes_the_place() -> None:
    more = Column("debian_6.12", ("6.12.1-cloud", "6.12.1-full"), "2026-01-03", {"fam/one[a]": "conforms"})
    assert add_column([OLD, NEW], more) == [
        OLD,
        Column("debian_6.12", more.releases, "2026-01-03", {**NEW.words, "fam/one[a]": "conforms"}),
    ]
    without = replace(more, words={"fam/one[a]": "unavailable", "fam/rare[a]": "unavailable"})
    assert add_column([NEW], without)[0].words == {**NEW.words, "fam/rare[a]": "unavailable"}
    newer = replace(more, releases=("6.12.2-cloud",))
    assert add_column([NEW, OLD], newer) == [OLD, newer]
    assert add_column([OLD], Column("debian_5.10", ("5.10.0",), "2026-01-03", {}))[0].kernel == "debian_5.10"


def test_items_that_kernels_differ_in_are_those_that_both_ran() -> None:
    assert differing([OLD, NEW]) == ["fam/one[a]"]
    assert differing(without_subjects([OLD, NEW], ["fam/one"])) == []


def test_a_table_is_a_line_an_item_and_is_read_as_it_was_written(tmp_path: Path) -> None:
    full = replace(NEW, releases=("6.12.1-cloud", "6.12.1-full"))
    path = tmp_path / "new/table.tsv"
    write_columns(path, [OLD, full])
    assert path.read_text().splitlines() == [
        "kernel\tdebian_6.1\tdebian_6.12",
        "release\t6.1.0-cloud\t6.12.1-cloud, 6.12.1-full",
        "measured\t2026-01-01\t2026-01-02",
        "fam/new[a]\t\tconforms",
        "fam/one[a]\tconforms\tdeviates",
        "fam/two[a]\tconforms\tconforms",
    ]
    assert read_columns(path) == [OLD, full]
    assert read_columns(tmp_path / "nothing.tsv") == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("item\tdebian_6.1\n", r"verdicts.tsv: the first lines are not those of a table of kernels \(kernel, release, measured\)"),
        ("kernel\ta\nrelease\t6.1.0\nmeasured\tx\nfam/one[a]\n", r"verdicts.tsv:4: 1 fields, not 2"),
        ("kernel\ta\nrelease\tnext\nmeasured\tx\n", r"verdicts.tsv:2: a: .*next"),
    ],
)
def test_a_broken_table_is_wrong_usage_that_names_the_line(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "verdicts.tsv").write_text(text)
    with pytest.raises(UsageError, match=problem):
        read_columns(tmp_path / "verdicts.tsv")


def test_the_projects_own_table_names_cases_and_kernels_that_there_are() -> None:
    table = read_columns(ROOT / "facts/verdicts.tsv")
    assert [item for one in table for item in one.words if not any(ROOT.glob(f"cases/{item.partition('[')[0]}.*"))] == []
    assert [one.age for one in table] == sorted(one.age for one in table)


# ---- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    """A project with one case and a kept run of it."""
    who = Identity("20260102-000000-abcd", now(), ("pytest",), "", "", ("debian_6.12",))
    begin_run(tmp_path / "artifacts", who, keep=5)
    (run_folder(tmp_path / "artifacts", who.id) / RESULTS).write_text(row_line(row()))
    (tmp_path / "cases/fam").mkdir(parents=True)
    (tmp_path / "cases/fam/one.yaml").touch()
    return tmp_path / "artifacts"


def verdicts(artifacts: Path, *words: str) -> int:
    root = artifacts.parent
    return main(["verdicts", *words, "--artifacts", str(artifacts), "--facts", str(root / "facts"), "--cases", str(root / "cases")])


def test_runs_are_added_shown_and_looked_up(artifacts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_columns(artifacts.parent / "facts/verdicts.tsv", [OLD, NEW])
    assert verdicts(artifacts, "--add", "latest") == 0
    told = capsys.readouterr()
    assert f"written: {artifacts.parent}/facts/verdicts.tsv" in told.err
    assert "fam/two" not in (artifacts.parent / "facts/verdicts.tsv").read_text(), "its case is no more"
    assert "1 of 2 items did not come to the same on all kernels on which they were run" in told.out
    assert verdicts(artifacts, "fam/one[a") == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()][-1] == ["fam/one[a]", "conforms", "deviates"]


def test_what_is_not_there_to_be_shown_or_added_is_wrong_usage(artifacts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verdicts(artifacts) == 2
    assert "no table of verdicts in" in capsys.readouterr().err
    write_columns(artifacts.parent / "facts/verdicts.tsv", [NEW])
    assert verdicts(artifacts, "nothing") == 2
    assert "no item of the table has 'nothing' in its name" in capsys.readouterr().err
    (artifacts / "latest" / RESULTS).write_text("")
    assert verdicts(artifacts, "--add", "latest") == 2
    assert "run 20260102-000000-abcd has no item that says something of a kernel" in capsys.readouterr().err
