"""From rows to what pytest reports: passes and failures, JSON lines, JUnit properties, the summary, the exit status."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.case.claims import claims_of
from harness.host.version import read_commit
from harness.model.known import Known
from harness.plugin.options import KERNELS, artifacts_of, make_progress, run_of
from harness.record.documents import content_key, from_document, to_document
from harness.record.item import Ending
from harness.record.runs import Identity, begin_run, now, store_identity
from harness.report.durations import shard_of
from harness.report.paragraph import describe_row, row_reason
from harness.report.rows import RESULTS, Row, properties_of, row_line
from harness.report.status import ALL_CONFORM, COULD_NOT_RUN, SOME_DEVIATE, WRONG_USAGE, exit_status
from harness.report.summary import FLAKY, SUMMARY, ended_as, make_brief, make_summary, summary_text
from harness.report.tables import WIDTH, lay_out

#: A summary in which nothing is wrong is printed in brief where it has more lines than this; its file has all of it.
_LONGEST_SUMMARY = 24
#: The rows of an item that its next report is to carry.
_NEW_ROWS = pytest.StashKey[list[Row]]()
_ATTRIBUTE = "harness_rows"
#: What is to be told at once, where the next report of an item arrives, unless it was told before.
_TOLD = pytest.StashKey[list[str]]()
_TOLD_ATTRIBUTE = "harness_told"


def keep_row(item: pytest.Item, row: Row) -> None:
    """Have the next report of ``item`` carry ``row``, and JUnit its properties."""
    item.stash.setdefault(_NEW_ROWS, []).append(row)
    item.user_properties.extend(properties_of(row).items())


def tell(item: pytest.Item, text: str) -> None:
    """Have ``text`` printed when the next report of ``item`` arrives, wherever that is, once in a run."""
    item.stash.setdefault(_TOLD, []).append(text)


def fail_unless_passed(row: Row) -> None:
    """Pass, xfail (a known deviation) or fail, with the paragraph of the row."""
    if row.passed:
        return
    if row.judged is not None and row.is_known_deviation:
        pytest.xfail(f"known deviation: {row.judged.reference}")
    pytest.fail(describe_row(row), pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report: Any = yield
    setattr(report, _ATTRIBUTE, item.stash.get(_NEW_ROWS, []))
    setattr(report, _TOLD_ATTRIBUTE, item.stash.get(_TOLD, []))
    item.stash[_NEW_ROWS], item.stash[_TOLD] = [], []
    return report  # type: ignore[no-any-return]


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Iterator[None]:
    """A report leaves a worker as what JSON has."""
    document: Any = yield
    if document and _ATTRIBUTE in document:
        document[_ATTRIBUTE] = [to_document(row) for row in document[_ATTRIBUTE]]
    return document  # type: ignore[no-any-return]


@pytest.hookimpl(wrapper=True)
def pytest_report_from_serializable() -> Iterator[None]:
    report: Any = yield
    if hasattr(report, _ATTRIBUTE):
        setattr(report, _ATTRIBUTE, [from_document(Row, document) for document in getattr(report, _ATTRIBUTE)])
    return report  # type: ignore[no-any-return]


def rows_of(report: object) -> list[Row]:
    """Return the rows that a report carries: of most there are none."""
    return getattr(report, _ATTRIBUTE, [])


#: Called with the exit status and the rows.
End = Callable[[int, list[Row]], None]


class Results:
    """Gathers the rows of a session where its reports arrive, and writes the JSON lines.

    What keeps items from running is told at once, in full, and once: the items that follow have the same to say.
    """

    def __init__(self, folder: Path, progress: Callable[[str], None], begin: Callable[[], None], end: End) -> None:
        """``begin`` and ``end``: make the run known, and how it ended (status, rows). Both may raise OSError."""
        self.rows: list[Row] = []
        self._folder = folder
        self._progress, self._begin, self._end = progress, begin, end
        self._told: set[str] = set()
        self._lost_a_worker = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # What xdist reports of the item that a worker was at when it died.
        self._lost_a_worker = self._lost_a_worker or report.when == "???"  # type: ignore[comparison-overlap]
        for row in rows_of(report):
            self._add(row)
            if row.ended.ending is Ending.NOT_SET_UP:
                self._tell(row_reason(row), describe_row(row))
        for text in getattr(report, _TOLD_ATTRIBUTE, []):
            self._tell(text, text)

    def _is_fine(self) -> bool:
        return all(row.passed or row.is_known_deviation or row.ended.ending is Ending.UNAVAILABLE for row in self.rows)

    def _tell(self, what: str, text: str) -> None:
        if what not in self._told:
            self._told.add(what)
            self._progress(text)

    def _add(self, row: Row) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            if not self.rows:
                self._begin()
            with (self._folder / RESULTS).open("a") as file:
                file.write(row_line(row))
        except OSError as error:
            where = error.filename2 or error.filename or self._folder / RESULTS
            pytest.exit(f"cannot write {where}: {error.strerror}; --artifacts names another folder", COULD_NOT_RUN)
        self.rows.append(row)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
        if not self.rows:
            return
        claims = claims_of(config.rootpath / row.where.case for row in self.rows)
        sections = make_summary(self.rows, claims)
        width, colour = terminalreporter._tw.fullwidth if terminalreporter.hasmarkup else WIDTH, terminalreporter.hasmarkup
        laid_out = [(section.title, lay_out(section.parts, width, colour)) for section in sections]
        if self._is_fine() and terminalreporter.verbosity < 1 and sum(len(lines) for _, lines in laid_out) > _LONGEST_SUMMARY:
            laid_out = [(section.title, lay_out(section.parts, width, colour)) for section in make_brief(self.rows, claims)]
        for title, lines in laid_out:
            terminalreporter.section(title)
            for line in lines:
                terminalreporter.write_line(line)
        try:
            (self._folder / SUMMARY).write_text(summary_text(sections, self.rows))
        except OSError as error:
            terminalreporter.write_line(f"cannot write {self._folder / SUMMARY}: {error.strerror}")
        terminalreporter.write_line(f"evidence: {self._folder}/ (results.jsonl, summary.txt, one folder an item)")

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int | pytest.ExitCode) -> None:
        if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and _may_be_empty(session.config):
            session.exitstatus = self._keep_empty()
        elif exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
            session.exitstatus = WRONG_USAGE
        elif self._lost_a_worker:
            session.exitstatus = COULD_NOT_RUN
        elif self.rows and exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            of_rows = exit_status(self.rows)
            others = SOME_DEVIATE if exitstatus == pytest.ExitCode.TESTS_FAILED else 0
            session.exitstatus = of_rows or others
        if self.rows:
            with contextlib.suppress(OSError):  # what is full or gone was said with the summary
                self._end(int(session.exitstatus), self.rows)

    def _keep_empty(self) -> int:
        """Make a run without items known, so that nobody takes its shard for one that is missing. Return its status."""
        try:
            self._begin()
            self._end(ALL_CONFORM, [])
        except OSError as error:
            self._progress(f"cannot write {error.filename or self._folder}: {error.strerror}; --artifacts names another folder")
            return COULD_NOT_RUN
        self._progress("no item is in this shard: there are fewer storage stacks than shards")
        return ALL_CONFORM


def pytest_configure(config: pytest.Config) -> None:
    # A worker of a distributed run reports to its controller, which gathers.
    if not hasattr(config, "workerinput"):
        results = Results(artifacts_of(config), make_progress(config), *_known_as(config))
        config.pluginmanager.register(results, "harness-results")


def _may_be_empty(config: pytest.Config) -> bool:
    """Whether no item is what may be in this shard. The first one has what there is: where that is nothing, nothing was selected."""
    shard = config.getoption("shard")
    return shard is not None and shard_of(shard)[0] > 1 and not config.getoption("collectonly")


def _known_as(config: pytest.Config) -> tuple[Callable[[], None], End]:
    """Return what makes this run known below the artifacts, and what says how it ended."""
    artifacts, began = Path(config.getoption("artifacts")), now()
    command = ("pytest", *map(str, config.invocation_params.args))

    def identity(**more: Any) -> Identity:
        kernels = config.stash[KERNELS]
        catalog = content_key({name: part for name, part in vars(kernels.catalog).items() if name != "folder"})
        selected = tuple(target.kernel for target in kernels.selected)
        return Identity(run_of(config), began, command, read_commit(), catalog, selected, **more)

    def begin() -> None:
        begin_run(artifacts, identity(), config.getoption("keep_runs"))

    def end(status: int, rows: list[Row]) -> None:
        counts = Counter(map(ended_as, rows))
        store_identity(artifacts, identity(ended=now(), status=status, items=tuple(sorted(counts.items()))))

    return begin, end


#: How an item shows that never began, without -v: what is not tried does not, it is counted at the end.
_LETTERS = {Ending.NOT_SET_UP: "E", Ending.NOT_TRIED: ""}


def pytest_report_teststatus(
    report: pytest.TestReport | pytest.CollectReport,
) -> tuple[str, str, str | tuple[str, dict[str, bool]]] | None:
    """A failure says which word it is: deviates, undetermined, or how the run ended.

    What could not be set up, or was not tried, counts by itself: pytest would print each one again at the end, with its text.
    """
    rows = rows_of(report)
    if not report.failed or not rows:
        return None
    ending, judged = rows[-1].ended.ending, rows[-1].judged
    if report.when == "setup" and ending in _LETTERS:
        return ending, _LETTERS[ending], (ending.upper(), {"red": True})
    if report.when != "call":
        return None
    if judged is not None and judged.known is Known.GONE:
        return "failed", "F", "KNOWN DEVIATION GONE"
    if rows[-1].is_flaky:
        return "failed", "F", FLAKY.upper()
    return "failed", "F", str(ending if judged is None else judged.verdict).upper()
