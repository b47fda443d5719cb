"""A run in other programs' forms: what they say of each item is what pytest said, and the forms are as their readers want them."""

import json
import re
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import kcidb_io  # type: ignore[import-untyped]
import pytest
import xmlschema

from harness.__main__ import main
from harness.model.complaint import ReportKind
from harness.record.documents import from_document
from harness.record.item import Ending
from harness.record.judged import judge_folder
from harness.record.runs import Identity
from harness.report.forms.exported import ExportedRow, export_schema, json_lines
from harness.report.forms.junit import junit_xml
from harness.report.forms.kcidb import kcidb_report
from harness.report.forms.ktap import ktap_lines
from harness.report.forms.outcome import Outcome, outcome_of, reason_of_outcome
from harness.report.rows import Row, make_row, make_unset_row
from harness.report.summary import one_of
from tests.fakes import samples
from tests.fakes.leased import FakeGuest, complaint
from tests.fakes.samples import item, ran, stack
from tests.unit.plugin.test_plugin import CASE, Project, make_project
from tests.unit.report.test_report import known, not_run, steps_of, write_fails

pytest_plugins = ["pytester"]

XSD = xmlschema.XMLSchema(Path(__file__).parent / "junit.xsd")
IDENTITY = Identity("20261127-1200-abcd", datetime(2026, 11, 27, 12, tzinfo=UTC), ("pytest",), "c" * 40, "catalog", ("debian_6.12",))


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    return make_project(pytester, monkeypatch)


@pytest.fixture
def rows(tmp_path: Path) -> dict[Outcome, Row]:
    """A row for each thing that an item can come to."""
    failed = samples.row(tmp_path / "failed", FakeGuest(stack(), write_fails))
    ran(tmp_path / "known", FakeGuest(stack(), write_fails))
    deviation = replace(known(steps_of(failed)[0].clause)[0], reference="a bug report # 7")
    found = [
        samples.row(tmp_path / "passed"),
        make_row(judge_folder(tmp_path / "known", (deviation,)), tmp_path / "known"),
        failed,
        one_of([samples.row(tmp_path / "passed"), failed]),
        samples.row(tmp_path / "undetermined", FakeGuest(stack(), not_run)),
        make_unset_row(item(), Ending.NOT_SET_UP, "no such\x1b device\nlast words"),
        make_unset_row(item(), Ending.UNAVAILABLE, "the kernel was built without CONFIG_X"),
    ]
    return {outcome_of(one): one for one in found}


def test_each_item_comes_to_one_thing(rows: dict[Outcome, Row]) -> None:
    assert list(rows) == list(Outcome)
    assert {outcome: reason_of_outcome(row) for outcome, row in rows.items() if outcome is not Outcome.PASSED} == {
        Outcome.KNOWN: "a bug report # 7",
        Outcome.FAILED: "deviates",
        Outcome.FLAKY: "flaky",
        Outcome.UNDETERMINED: "undetermined",
        Outcome.BROKEN: "not set up: no such\x1b device",
        Outcome.UNAVAILABLE: "unavailable: the kernel was built without CONFIG_X",
    }


def test_a_complaint_or_a_crash_of_the_kernel_is_a_failure(tmp_path: Path) -> None:
    complained = samples.row(tmp_path, FakeGuest(stack(), ended=complaint(ReportKind.BUG, "BUG: at fs/dax.c")))
    assert outcome_of(complained) is Outcome.FAILED
    assert outcome_of(make_unset_row(item(), Ending.CRASHED, "")) is Outcome.FAILED
    assert outcome_of(make_unset_row(item(), Ending.HUNG, "")) is Outcome.FAILED
    assert outcome_of(make_unset_row(item(), Ending.LOST, "")) is Outcome.BROKEN


# ---- JUnit -----------------------------------------------------------------------------------------------------------


def test_junit_has_an_element_for_each_item_that_did_not_pass(rows: dict[Outcome, Row]) -> None:
    text = "\n".join(junit_xml(IDENTITY, list(rows.values())))
    XSD.validate(text)
    suite = ElementTree.fromstring(text)[0]
    assert [suite.get(name) for name in ("tests", "failures", "errors", "skipped", "timestamp")] == [
        "7",
        "3",
        "1",
        "2",
        "2026-11-27T12:00:00+00:00",
    ]
    said = [(part.tag, part.get("type"), part.get("message")) for case in suite for part in case if part.tag != "properties"]
    assert said == [
        ("skipped", "pytest.xfail", "a bug report # 7"),
        ("failure", None, "deviates"),
        ("failure", None, "flaky"),
        ("failure", None, "undetermined"),
        ("error", None, "not set up: no such? device"),
        ("skipped", "pytest.skip", "unavailable: the kernel was built without CONFIG_X"),
    ]
    assert "rerun     pytest" in str(suite[2][1].text)


#: What has a second volume does not come up, and of the rest what is on a disk deviates.
MAKE = "lambda stack: broken_boot(stack) if stack.volumes[1:] else FakeGuest(stack, fails if stack.disks else obedient)"


def test_what_pytest_writes_of_the_same_run_has_the_same_names_elements_and_properties(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write("cases/fam/two.yaml", CASE.replace("region: [e820]", "region: [e820]\n  target: [second_pmem]"))
    project.run("cases", "--keep-going", "--junitxml=junit.xml", make=MAKE)
    monkeypatch.chdir(project.root)
    assert main(["export", "--form", "junit", "-o", "ours.xml"]) == 0
    theirs, ours = ((project.root / name).read_text() for name in ("junit.xml", "ours.xml"))
    XSD.validate(theirs)
    XSD.validate(ours)
    assert _cases(theirs) == _cases(ours)
    assert Counter(tag for _, _, tag, _ in _cases(ours)) == {"": 1, "failure": 1, "error": 2}


def _cases(text: str) -> list[tuple[str, str, str, dict[str, str]]]:
    found = []
    for case in ElementTree.fromstring(text).iter("testcase"):
        ended = next((part.tag for part in case if part.tag in {"failure", "error", "skipped"}), "")
        properties = {str(one.get("name")): str(one.get("value")) for one in case.iter("property")}
        found.append((str(case.get("classname")), str(case.get("name")), ended, properties))
    return sorted(found, key=lambda one: one[:2])


# ---- JSON lines ------------------------------------------------------------------------------------------------------


def test_a_line_of_json_is_as_its_schema_says_and_can_be_read_again(rows: dict[Outcome, Row]) -> None:
    schema = export_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    lines = [json.loads(line) for line in json_lines(IDENTITY, list(rows.values()))]
    for line, (outcome, row) in zip(lines, rows.items(), strict=True):
        jsonschema.validate(line, schema)
        assert from_document(ExportedRow, line) == ExportedRow(IDENTITY.id, IDENTITY.began, IDENTITY.commit, outcome, row)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"outcome": "fine"},
        {"began": 7},
        {"row": None},
        {"more": 1},
    ],
    ids=str,
)
def test_the_schema_refuses_what_is_none_of_its_lines(rows: dict[Outcome, Row], change: dict[str, object]) -> None:
    line = json.loads(next(json_lines(IDENTITY, list(rows.values()))))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(line | change, export_schema())


# ---- KTAP ------------------------------------------------------------------------------------------------------------


def test_ktap_counts_families_and_their_items(rows: dict[Outcome, Row]) -> None:
    found = list(rows.values())
    other = replace(found[0], where=replace(found[0].where, family="other"))
    lines = list(ktap_lines(IDENTITY, [*found, other]))
    assert lines[:5] == ["KTAP version 1", f"# run {IDENTITY.id}, harness {'c' * 40}", "1..2", "  KTAP version 1", "  1..7"]
    name = "one[e820-fsdax-ext4-dax_always-debian_6.12]"
    assert [line for line in lines if re.match(" *(not )?ok", line)] == [
        f"  ok 1 {name}",
        f"  ok 2 {name} # XFAIL a bug report no. 7",
        f"  not ok 3 {name}",
        f"  not ok 4 {name}",
        f"  not ok 5 {name} # ERROR undetermined",
        f"  not ok 6 {name} # ERROR not set up: no such? device",
        f"  ok 7 {name} # SKIP unavailable: the kernel was built without CONFIG_X",
        "not ok 1 fam",
        f"  ok 1 {name}",
        "ok 2 other",
    ]
    told = lines[lines.index(f"  ok 2 {name} # XFAIL a bug report no. 7") + 1 : lines.index(f"  not ok 3 {name}")]
    assert all(line.startswith("  # ") for line in told)  # what is told stands before its result
    assert any("observed" in line for line in told)


# ---- kcidb -----------------------------------------------------------------------------------------------------------


def test_kernelci_takes_the_report(rows: dict[Outcome, Row]) -> None:
    document = json.loads("".join(kcidb_report(IDENTITY, list(rows.values()), "me")))
    assert kcidb_io.schema.LATEST.validate(document) == document
    assert [test["status"] for test in document["tests"]] == ["PASS", "FAIL", "FAIL", "FAIL", "ERROR", "MISS", "SKIP"]
    assert {test["path"] for test in document["tests"]} == {"pmem_harness.fam_one.e820-fsdax-ext4-dax_always"}
    builds = {build["id"]: build["checkout_id"] for build in document["builds"]}
    assert {test["build_id"] for test in document["tests"]} == builds.keys()
    assert set(builds.values()) == {checkout["id"] for checkout in document["checkouts"]}
    assert "log_excerpt" not in document["tests"][0]
    assert "observed" in document["tests"][2]["log_excerpt"]


# ---- the command -----------------------------------------------------------------------------------------------------


def test_a_run_is_exported_in_each_form(project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    project.run("cases")
    monkeypatch.chdir(project.root)
    capsys.readouterr()
    for form, first in (("junit", "<?xml"), ("jsonl", '{"format": 1, "run"'), ("ktap", "KTAP version 1\n")):
        assert main(["export", "--form", form]) == 0
        assert capsys.readouterr().out.startswith(first)
    assert main(["export", "--form", "kcidb", "--origin", "me", "latest", "-o", "file"]) == 0
    assert capsys.readouterr().err == "written: file\n"
    assert json.loads((project.root / "file").read_text())["version"] == {"major": 5, "minor": 3}


def test_the_schema_needs_no_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--schema"]) == 0
    assert json.loads(capsys.readouterr().out) == export_schema()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "say in which form: --form junit, jsonl, ktap, kcidb"),
        (("--form", "kcidb"), "--form kcidb needs --origin NAME, and no other form takes it"),
        (("--form", "ktap", "--origin", "me"), "--form kcidb needs --origin NAME, and no other form takes it"),
        (("--form", "kcidb", "--origin", "Me!"), "--origin Me!: lower-case letters, digits and _ only"),
        (("--form", "ktap", "nothing"), "no run is kept in artifacts/runs"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--schema", "-o", "no/such/folder"]) == 3
    assert "cannot write no/such/folder: No such file or directory; name another one" in capsys.readouterr().err


def test_a_run_without_an_item_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("harness.cli.export.find_run", lambda *_: type("Stored", (), {"identity": IDENTITY, "folder": tmp_path})())
    assert main(["export", "--form", "ktap"]) == 2
    assert f"run {IDENTITY.id} has no item" in capsys.readouterr().err
