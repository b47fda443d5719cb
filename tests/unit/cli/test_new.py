"""A first case of one's own; and the comment by which an editor finds the form of a case."""

import json
import os
from pathlib import Path

import pytest

from harness.__main__ import main
from harness.case.loader import load_plans
from harness.case.schema import case_schema
from harness.cli.new import SCHEMA, SCHEMA_COMMENT
from tests.unit.plugin.test_plugin import Project, make_project

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[3]
CASES = sorted(path for path in ROOT.glob("cases/*/*.yaml") if path.name != "family.yaml")


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    made = make_project(pytester, monkeypatch)
    made.write(f"cases/{SCHEMA}", "{}")
    made.write(
        "conftest.py",
        'pytest_plugins = ["harness.plugin"]\nfrom tests.fakes.leased import FakeGuest, FakeHost\n'
        "def pytest_harness_booter(config):\n    return FakeHost(FakeGuest).boot\n",
    )
    monkeypatch.chdir(made.root)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return made


def test_a_new_case_is_written_and_run(project: Project, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "case", "mine/first"]) in (0, 1)  # a fake guest reads nothing back; that it ran is what counts
    said = capfd.readouterr()
    assert "written: cases/mine/family.yaml, of a new family" in said.err
    assert "written: cases/mine/first.yaml, 2 variants: e820-fsdax-ext4-dax_always, e820-fsdax-ext4-dax_never" in said.err
    assert "running it: pytest cases/mine/first.yaml" in said.err
    assert (project.root / "artifacts/latest/results.jsonl").read_text().count("\n") == 2
    assert (project.root / "cases/mine/first.yaml").read_text().startswith(f"{SCHEMA_COMMENT}\ntitle: In first what is stored is read\n")
    assert (project.root / "cases/mine/family.yaml").read_text() == "title: Mine\n"


def test_a_case_that_is_only_to_be_written_says_what_runs_it(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    title = "Nothing: a title # with signs"
    assert main(["new", "case", "fam/mine", "--title", title, "--no-run"]) == 0
    assert "run it: pytest cases/fam/mine.yaml" in capsys.readouterr().err
    assert load_plans(Path("cases/fam/mine.yaml"))[0].case.title == title


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("first", "'first': FAMILY/NAME, each of lower-case letters, digits and _"),
        ("Fam/first", "'Fam/first': FAMILY/NAME"),
        ("../x/first", "'../x/first': FAMILY/NAME"),
        ("fam/one", "cases/fam/one.yaml is there already: give the new case another name"),
    ],
)
def test_a_name_that_cannot_be_is_refused(project: Project, name: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "case", name]) == 2
    assert said in capsys.readouterr().err


def test_elsewhere_than_in_the_harness_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new", "case", "fam/one"]) == 2
    assert "cases is no folder of cases (it has no schema.json): run this in the root of the harness" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_told(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    (project.root / "cases/mine").write_text("")
    assert main(["new", "case", "mine/first"]) == 3
    assert "cannot write cases/mine/first.yaml: " in capsys.readouterr().err


def test_the_form_of_a_case_that_editors_find_is_that_of_now() -> None:
    assert json.loads((ROOT / "cases" / SCHEMA).read_text()) == json.loads(json.dumps(case_schema())), (
        "python -m harness schema > cases/schema.json"
    )


@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_case_leads_an_editor_to_its_form(path: Path) -> None:
    assert path.read_text().partition("\n")[0] == SCHEMA_COMMENT
