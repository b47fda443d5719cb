"""A suite divided into shards, the jobs that a CI system makes of them, and the one run that comes of all."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from harness.__main__ import main
from harness.case.loader import load_plans
from harness.image.bundle import image_store
from harness.image.catalog import load_catalog
from harness.record.runs import stored_runs
from harness.report.durations import USUAL, Duration, divide, find_shard, length_of, read_durations, write_durations
from harness.report.rows import Row, read_rows
from tests.fakes.project import FAILING, GOOD
from tests.unit.host.test_bootstrap import bootstrap
from tests.unit.plugin.test_plugin import CASE, Project, make_project

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[3]


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Two cases on three stacks, below the folder that commands run in."""
    made = make_project(pytester, monkeypatch)
    made.write("cases/fam/one.yaml", CASE.replace("region: [e820]", "region: [e820, nvdimm]"))
    made.write("cases/fam/two.yaml", CASE.replace("region: [e820]", "region: [e820, nvdimm]"))
    monkeypatch.chdir(made.root)
    return made


def run_shards(project: Project, *shards: str, make: str = GOOD) -> None:
    for shard in shards:
        project.run("cases", "--shard", shard, "--artifacts", f"shards/{shard[0]}", make=make)


def ids(rows: Sequence[Row]) -> list[str]:
    return sorted(row.where.node_id for row in rows)


# ---- dividing --------------------------------------------------------------------------------------------------------


def test_lists_are_about_equally_long() -> None:
    lengths = {"a": 7.0, "b": 5.0, "c": 4.0, "d": 3.0, "e": 2.0, "f": 2.0}
    lists = divide(lengths, 3)
    assert sorted(key for one in lists for key in one) == sorted(lengths)
    assert [sum(lengths[key] for key in one) for one in lists] == [9, 7, 7]
    assert divide({"a": 1.0}, 2) == [["a"], []]


def test_a_stack_is_as_long_as_its_items_and_its_making(tmp_path: Path) -> None:
    write_durations(tmp_path / "table", {"known": Duration(3.0, 0.5)})
    table = read_durations(tmp_path / "table")
    assert (length_of("known", 4, table), length_of("new", 4, table)) == (5.0, USUAL.of(4))
    assert read_durations(tmp_path / "none") == {}


@pytest.mark.parametrize("row", ["a stack\t1", "a stack\t1\ttwo", "a stack\t1\t2\t3"])
def test_a_table_of_durations_that_is_none_is_refused_with_its_line(tmp_path: Path, row: str) -> None:
    (tmp_path / "table").write_text(f"stack\tmaking_s\titem_s\n{row}\n")
    with pytest.raises(Exception, match=r"table:2: not a stack and two numbers of seconds"):
        read_durations(tmp_path / "table")


def test_the_projects_own_table_has_stacks_that_there_are() -> None:
    table = read_durations(ROOT / "facts/durations.tsv")
    there = {plan.stack.describe() for path in ROOT.glob("cases/*/*.yaml") if path.name != "family.yaml" for plan in load_plans(path)}
    assert len(table) > 50
    assert table.keys() - there == set()


def test_each_item_is_in_one_shard_and_a_stack_never_in_two(project: Project) -> None:
    shards = []
    for number in (1, 2):
        result = project.run("--collect-only", "-q", "cases", "--shard", f"{number}/2")
        shards.append([line for line in result.outlines if "::" in line])
    assert sorted(map(len, shards)) == [2, 4]
    assert len({*shards[0], *shards[1]}) == 6
    places = [{line.partition("[")[2] for line in shard} for shard in shards]
    assert not places[0] & places[1]


@pytest.mark.parametrize("word", ["0/2", "3/2", "1", "1/2/3", "a/b", ""])
def test_what_is_no_shard_is_refused(project: Project, word: str) -> None:
    result = project.run_apart("cases", f"--shard={word}", make=GOOD)
    assert result.ret == 2
    result.stderr.fnmatch_lines([f"ERROR: --shard: '{word}' is no shard: K/N, such as 1/4, with K from 1 to N"])


@pytest.mark.parametrize("command", [("pytest", "--shard", "2/3"), ("pytest", "--shard=2/3", "-q")])
def test_the_shard_of_a_command_line_is_found(command: tuple[str, ...]) -> None:
    assert find_shard(command) == (2, 3)
    assert find_shard(("pytest", "cases")) is None


# ---- merging ---------------------------------------------------------------------------------------------------------


def test_shards_are_one_run_with_all_that_is_kept_of_them(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.run("cases")
    whole = project.rows()
    run_shards(project, "1/2", "2/2")
    capsys.readouterr()
    assert main(["merge", "shards/1", "shards/2", "--artifacts", "merged"]) == 0
    said = capsys.readouterr()
    assert "2 runs are one now, 6 items: merged/runs/" in said.err
    assert "missing" not in said.err
    assert "claimed" in said.out
    (run,) = stored_runs(Path("merged"))
    rows = read_rows(run.folder)
    assert ids(rows) == ids(whole)
    assert all(Path(row.ended.folder, "plan.json").is_file() and row.ended.folder.startswith("merged/runs/") for row in rows)
    assert (run.identity.status, dict(run.identity.items)) == (0, {"conforms": 6})
    assert (run.folder / "summary.txt").is_file()
    assert (run.folder / "harness.log").read_text().count("is done after") == 6
    assert main(["judge", "--artifacts", "merged"]) == 0


def test_a_shard_that_is_missing_is_named(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    run_shards(project, "1/3", "3/3")
    assert main(["merge", "shards/1", "shards/3", "--artifacts", "merged"]) == 3
    assert "missing: shard 2/3 of debian_6.12\n" in capsys.readouterr().err
    (run,) = stored_runs(Path("merged"))
    assert run.identity.status == 3


def test_a_shard_without_items_is_not_missing(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    many = [f"{number}/9" for number in range(1, 10)]
    for shard in many:
        result = project.run("cases", "--shard", shard, "--artifacts", f"shards/{shard[0]}")
        assert result.ret == 0
    result.stdout.fnmatch_lines(["no item is in this shard: there are fewer storage stacks than shards"])
    assert main(["merge", *(f"shards/{shard[0]}" for shard in many), "--artifacts", "merged"]) == 0
    assert "missing" not in capsys.readouterr().err
    (run,) = stored_runs(Path("merged"))
    assert dict(run.identity.items) == {"conforms": 6}
    assert main(["runs", "list", "--artifacts", "shards/9"]) == 0
    for command in (["export", "--form", "junit"], ["report"], ["judge"]):
        assert main([*command, "--artifacts", "shards/9"]) == 2
        assert re.search("(has|holds) no item", capsys.readouterr().err)


@pytest.mark.parametrize("shard", ["1/2", "2/2"])
def test_where_nothing_is_selected_the_first_shard_is_wrong_usage(project: Project, shard: str) -> None:
    assert project.run("cases", "-k", "nothing", "--shard", shard).ret == (2 if shard == "1/2" else 0)


def test_a_shard_without_items_that_cannot_be_kept_says_where(project: Project) -> None:
    Path("file").write_text("")
    result = project.run("cases", "--shard", "9/9", "--artifacts", "file/artifacts")
    assert result.ret == 3
    result.stdout.fnmatch_lines(["cannot write *file/artifacts*: Not a directory; --artifacts names another folder"])


def test_a_shard_that_did_not_end_is_named(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    run_shards(project, "1/1")
    (identity,) = Path("shards").glob("1/runs/*/identity.json")
    identity.write_text(re.sub(r'"ended": "[^"]*"', '"ended": null', identity.read_text()))
    assert main(["merge", "shards/1", "--artifacts", "merged"]) == 3
    assert "did not end: pytest " in capsys.readouterr().err


def test_a_job_that_kept_no_run_is_told_and_the_others_are_merged(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    run_shards(project, "1/2")
    Path("shards/2").mkdir()
    assert main(["merge", "shards/1", "shards/2", "--artifacts", "merged"]) == 3
    said = capsys.readouterr().err
    assert "no run is kept in shards/2/runs" in said
    assert "missing: shard 2/2 of debian_6.12\n" in said
    assert len(stored_runs(Path("merged"))) == 1


def test_a_deviation_in_one_shard_is_one_of_the_run(project: Project) -> None:
    run_shards(project, "1/2")
    run_shards(project, "2/2", make=FAILING)
    assert main(["merge", "shards/1", "shards/2", "--artifacts", "merged"]) == 1


def test_runs_that_are_no_shards_of_one_suite_are_refused(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    run_shards(project, "1/2", "2/2")
    assert main(["merge", "shards/1", "shards/1", "shards/2"]) == 0  # the same run twice is one
    project.run("cases", "--artifacts", "shards/whole")
    capsys.readouterr()
    assert main(["merge", "shards/1", "shards/whole"]) == 2
    assert "they are no shards of one suite" in capsys.readouterr().err
    (identity,) = Path("shards").glob("2/runs/*/identity.json")
    identity.write_text(re.sub(r'"catalog": "[^"]*"', '"catalog": "another"', identity.read_text()))
    assert main(["merge", "shards/1", "shards/2"]) == 2
    assert "have not the same catalogue of kernels: " in capsys.readouterr().err


def test_a_folder_without_a_run_and_one_that_cannot_be_written_are_told(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["merge", "nowhere"]) == 2
    assert "no run is kept in nowhere/runs" in capsys.readouterr().err
    run_shards(project, "1/1")
    Path("file").write_text("")
    assert main(["merge", "shards/1", "--artifacts", "file"]) == 3
    assert "cannot write file: Not a directory" in capsys.readouterr().err


# ---- jobs ------------------------------------------------------------------------------------------------------------


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert main(["matrix", *arguments]) == 0
    return capsys.readouterr().out


def test_a_matrix_has_a_job_for_each_kernel_and_shard(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PMEM_HARNESS_CACHE", str(tmp_path / "cache"))
    jobs = json.loads(printed(capsys, "--shards", "2", "--kernel", "debian_6.1", "--kernel", "debian_7.3", "--", "--full", "-k", "a or b"))[
        "include"
    ]
    assert [job["name"] for job in jobs] == ["debian_6.1 1/2", "debian_6.1 2/2", "debian_7.3 1/2", "debian_7.3 2/2"]
    assert shlex.split(jobs[1]["arguments"]) == ["--kernel", "debian_6.1", "--shard", "2/2", "--full", "-k", "a or b"]
    assert jobs[0]["cache_key"] == jobs[1]["cache_key"] != jobs[2]["cache_key"]
    rootfs, kernel, full = jobs[0]["cache_paths"].splitlines()
    assert rootfs.startswith("~/cache/images/rootfs-")
    assert kernel.startswith("~/cache/images/debian_6.1-")
    assert full.startswith("~/cache/images/debian_6.1_full-")
    assert Path(rootfs).expanduser().parent == image_store()


def test_a_line_for_github_is_one_line_and_the_same_matrix(capsys: pytest.CaptureFixture[str]) -> None:
    line = printed(capsys, "--shards", "3", "--form", "github")
    assert line.count("\n") == 1
    assert json.loads(line.removeprefix("matrix=")) == json.loads(printed(capsys, "--shards", "3"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "say into how many shards (--shards N)"),
        (("--shards", "2", "--record", "latest"), "say into how many shards (--shards N)"),
        (("--shards", "0"), "--shards is 0: 1 or more"),
        (("--shards", "2", "--kernel", "nothing"), "no kernel 'nothing'"),
        (("--record", "latest", "--artifacts", "nowhere"), "no run is kept in nowhere/runs"),
    ],
)
def test_a_matrix_that_cannot_be_meant_is_refused(arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["matrix", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_kernel_of_a_path_is_none_that_a_job_could_have(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tree").mkdir()
    assert main(["matrix", "--shards", "2", "--kernel", str(tmp_path / "tree")]) == 2
    assert "a job of a CI system knows kernels by their names in images/kernels.yaml only" in capsys.readouterr().err


def test_durations_are_kept_from_a_run(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.run("cases")
    assert main(["matrix", "--record", "latest", "--facts", "facts"]) == 0
    assert "written: facts/durations.tsv, 3 storage stacks" in capsys.readouterr().err
    table = read_durations(Path("facts/durations.tsv"))
    assert {stack.partition(" ")[0] for stack in table} == {"e820", "nvdimm", "virtio"}
    (project.root / "artifacts/latest/harness.log").unlink()
    assert main(["matrix", "--record", "latest", "--facts", "facts"]) == 2
    assert "does not say how long its items took" in capsys.readouterr().err


# ---- the files of CI systems -----------------------------------------------------------------------------------------

GITHUB, GITLAB = ROOT / ".github/workflows/cases.yml", ROOT / ".gitlab-ci.yml"


def test_the_files_of_ci_systems_are_as_those_want_them(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    child = tmp_path / "child.yml"
    child.write_text(printed(capsys, "--shards", "2", "--form", "gitlab", "--", "--full"))
    for schema, file in (("github-workflows", GITHUB), ("gitlab-ci", GITLAB), ("gitlab-ci", child)):
        command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", str(file)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def test_the_kernels_that_a_workflow_names_are_those_of_the_catalogue() -> None:
    named = re.findall(r"debian_[0-9.]+", GITHUB.read_text())
    assert len(named) == 4
    assert set(named) <= load_catalog().kernels.keys()


def test_actions_are_pinned_to_commits() -> None:
    uses = re.findall(r"uses: (\S+)", GITHUB.read_text())
    assert len(uses) > 3
    assert [one for one in uses if not re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", one)] == []


def test_what_a_workflow_takes_of_a_job_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    (job,) = json.loads(printed(capsys, "--shards", "1"))["include"]
    assert set(re.findall(r"\$\{\{ matrix\.(\w+) \}\}", GITHUB.read_text())) <= job.keys()


def test_the_words_that_the_files_start_are_commands(capsys: pytest.CaptureFixture[str]) -> None:
    child = yaml.safe_load(printed(capsys, "--shards", "2", "--form", "gitlab"))
    scripts = [line for job in child.values() if isinstance(job, dict) for line in job.get("script", [])]
    text = "\n".join([GITHUB.read_text(), GITLAB.read_text(), *scripts])
    assert set(re.findall(r"-m harness (\w+)", text)) == {"matrix", "merge"}
    assert sum("--shard " in line for line in scripts) == 2


def test_what_runs_a_command_has_installed_the_lock_first(capsys: pytest.CaptureFixture[str]) -> None:
    child = yaml.safe_load(printed(capsys, "--shards", "2", "--form", "gitlab"))
    github = yaml.safe_load(GITHUB.read_text())["jobs"].values()
    jobs = [*child.values(), yaml.safe_load(GITLAB.read_text())["plan"]]
    scripts = ["\n".join(map(str, job["script"])) for job in jobs if isinstance(job, dict) and "script" in job]
    scripts += ["\n".join(step.get("run", "") for step in job["steps"]) for job in github]
    running = [script for script in scripts if ".venv/bin/python -m harness" in script]
    assert len(running) == 4
    for script in running:
        before = script.partition(".venv/bin/python")[0]
        assert " ".join(bootstrap.LOCKED) in before
