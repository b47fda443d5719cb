"""From rows to what pytest reports: passes and failures, JSON lines, JUnit properties, the summary, the exit status."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.case.loader import load_nearest_claims
from harness.errors import CaseError
from harness.model.claims import Claim
from harness.model.known import Known
from harness.run.documents import from_document, to_document
from harness.run.report import (
    COULD_NOT_RUN,
    ROW_FORMAT,
    SOME_DEVIATE,
    WRONG_USAGE,
    Row,
    describe_row,
    exit_status,
    make_summary,
    summary_text,
)

RESULTS, SUMMARY = "results.jsonl", "summary.txt"
#: The rows of an item that its next report is to carry.
_NEW_ROWS = pytest.StashKey[list[Row]]()
_ALL_ROWS = pytest.StashKey[list[Row]]()
_ATTRIBUTE = "harness_rows"


def keep_row(item: pytest.Item, row: Row) -> None:
    """Have the next report of ``item`` carry ``row``, and JUnit its properties."""
    item.stash.setdefault(_NEW_ROWS, []).append(row)
    properties = {
        "stack": row.stack,
        "kernel": row.kernel,
        "release": row.release,
        "kernel_args": row.kernel_args,
        "accelerator": row.accelerator,
        "qemu": row.qemu_version,
        "lifecycle": row.lifecycle,
        "ending": row.ending,
        "verdict": row.verdict or "none",
        "known": row.known,
        "versions": " ".join(f"{name}={version}" for name, version in row.versions),
        "artifacts": row.folder,
    }
    item.user_properties.extend((name, value) for name, value in properties.items() if value)


def fail_unless_passed(row: Row) -> None:
    """Pass, xfail (a known deviation) or fail, with the paragraph of the row."""
    if row.passed:
        return
    if row.is_known_deviation:
        pytest.xfail(f"known deviation: {row.reference}\n{describe_row(row)}")
    pytest.fail(describe_row(row), pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report: Any = yield
    rows = item.stash.get(_NEW_ROWS, [])
    setattr(report, _ATTRIBUTE, [to_document(row) for row in rows])
    rows.clear()
    return report  # type: ignore[no-any-return]


class Results:
    """Gathers the rows of a session where its reports arrive, and writes the JSON lines."""

    def __init__(self, folder: Path) -> None:
        self.rows: list[Row] = []
        self._folder = folder
        self._lost_a_worker = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # What xdist reports of the item that a worker was at when it died.
        self._lost_a_worker = self._lost_a_worker or report.when == "???"  # type: ignore[comparison-overlap]
        for document in getattr(report, _ATTRIBUTE, []):
            self._add(from_document(Row, json.loads(json.dumps(document))))

    def _add(self, row: Row) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / RESULTS).open("a" if self.rows else "w") as file:
            file.write(json.dumps({"format": ROW_FORMAT, **to_document(row)}) + "\n")
        self.rows.append(row)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
        if not self.rows:
            return
        sections = make_summary(self.rows, find_claims(self.rows, config.rootpath))
        for section in sections:
            terminalreporter.section(section.title)
            for line in section.lines:
                terminalreporter.write_line(line)
        (self._folder / SUMMARY).write_text(summary_text(sections, self.rows))
        terminalreporter.write_line(f"evidence: {self._folder}/ (results.jsonl, summary.txt, one folder an item)")

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int | pytest.ExitCode) -> None:
        if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
            session.exitstatus = WRONG_USAGE
        elif self._lost_a_worker:
            session.exitstatus = COULD_NOT_RUN
        elif self.rows and exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            of_rows = exit_status(self.rows)
            others = SOME_DEVIATE if exitstatus == pytest.ExitCode.TESTS_FAILED else 0
            session.exitstatus = of_rows or others


def find_claims(rows: list[Row], root: Path) -> dict[str, Claim]:
    """Return the registries of claims that belong to the cases of ``rows``."""
    claims: dict[str, Claim] = {}
    for folder in dict.fromkeys((root / row.case.split("::")[0]).parent for row in rows):
        try:
            claims |= load_nearest_claims(folder / "case")
        except CaseError:
            continue
    return claims


def pytest_configure(config: pytest.Config) -> None:
    # A worker of a distributed run reports to its controller, which gathers.
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Results(Path(config.getoption("artifacts"))), "harness-results")


def pytest_report_teststatus(report: pytest.TestReport | pytest.CollectReport) -> tuple[str, str, str] | None:
    """A failure says which word it is: deviates, undetermined, or how the run ended."""
    rows = getattr(report, _ATTRIBUTE, [])
    if report.when != "call" or not report.failed or not rows:
        return None
    last = rows[-1]
    word = last["verdict"] if last["verdict"] and last["ending"] == "completed" else last["ending"]
    if last["known"] == str(Known.GONE):
        word = "known deviation gone"
    return "failed", "F", str(word).upper()
