"""The log of a run: where it is, what is in it, and who of several workers says what."""

import re

import pytest

from harness.host.log import LogFile
from harness.record.runs import LOG, stored_runs
from tests.fakes.project import FAILING, GOOD
from tests.unit.plugin.test_plugin import ON_DISK, Project, make_project, text

pytest_plugins = ["pytester"]


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    return make_project(pytester, monkeypatch)


def log_of(project: Project) -> str:
    return (project.root / "artifacts/latest" / LOG).read_text()


def test_a_run_leaves_the_log_of_what_was_done_in_its_folder(project: Project) -> None:
    result = project.run("cases", make=FAILING)
    log = log_of(project)
    assert re.search(r" main INFO    plugin\.log: pytest .* cases.*: 2 items, process \d+", log)
    assert f" main INFO    plugin.log: {ON_DISK} begins" in log
    assert re.search(r" main INFO    lease\.pool: got a guest of debian_6\.12 \(restored\) with virtio disk .*: \d+\.\d{3} s", log)
    assert f" main ERROR   plugin.log: {ON_DISK} failed (call):" in log
    assert re.search(r" main ERROR   plugin\.log: \|   observed +EIO", log)
    assert re.search(re.escape(f"{ON_DISK} is done after ") + r"\d+\.\d\d s", log)
    assert "lease.pool" not in text(result)


def test_what_could_not_be_set_up_is_in_the_log_with_its_message(project: Project) -> None:
    project.run("cases", make="broken_boot")
    log = log_of(project)
    assert re.search(r" main ERROR   lease\.ledger: virtio disk .* could not be set up on debian_6\.12: BootError: the kernel did not", log)
    assert " main ERROR   lease.ledger: | last words" in log


def test_vv_shows_the_log_and_v_does_not(project: Project) -> None:
    assert "lease.pool: got a guest" not in text(project.run("-v", "cases"))
    shown = text(project.run("-vv", "cases"))
    assert re.search(r"^\d{4}-.* main INFO    lease\.pool: got a guest", shown, re.MULTILINE)
    assert "lease.pool: got a guest" in log_of(project)


@pytest.mark.parametrize("verbosity", ["-v", "-vv"])
def test_workers_write_one_file_and_are_told_apart(project: Project, verbosity: str) -> None:
    result = project.run_apart("cases", verbosity, "-n", "2", make=GOOD)
    assert result.ret == 0
    lines = log_of(project).splitlines()
    assert {line.split()[2] for line in lines} == {"gw0", "gw1"}
    assert [len(re.findall(f" gw{number} INFO    lease.pool: got a guest", log_of(project))) for number in (0, 1)] == [1, 1]
    shown = re.findall(r" (gw\d) INFO    lease\.pool: got a guest", text(result))
    assert sorted(shown) == (["gw0", "gw1"] if verbosity == "-vv" else [])


def test_a_session_without_cases_has_no_log_and_no_folder(project: Project) -> None:
    project.write("test_plain.py", "def test_plain():\n    import logging\n    logging.getLogger('harness.x').warning('nobody asked')\n")
    assert project.run("test_plain.py").ret == 0
    assert not (project.root / "artifacts").exists()


def test_the_log_does_not_go_into_what_pytest_says_of_a_failure(project: Project) -> None:
    assert "Captured log" not in text(project.run("cases", make=FAILING))


def test_a_log_that_cannot_be_written_ends_no_run(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(LogFile, "write", full)
    result = project.run("cases")
    result.assert_outcomes(passed=2)


#: A guest that looks, when it is booted, whether the runs that are stored go on.
LOOKING = (
    "lambda stack: (open('looked', 'a').write(str([run.goes_on for run in __import__('harness.record.runs', fromlist=['x'])"
    ".stored_runs(__import__('pathlib').Path('artifacts'))])), FakeGuest(stack))[1]"
)


def test_a_run_that_goes_on_is_told_by_who_holds_its_log(project: Project) -> None:
    assert project.run("cases", make=LOOKING).ret == 0
    # The run is stored with its first item.
    assert (project.root / "looked").read_text() == "[][True]"
    (run,) = stored_runs(project.root / "artifacts")
    assert not run.goes_on
