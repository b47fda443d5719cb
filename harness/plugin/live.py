"""The live line: on a terminal, how items have ended so far, how many are left, and what runs, in one line that is kept up.

It takes the place of pytest's letters. What else is printed stands above it, and so does, as soon as it is known, what does not conform.
"""

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TextIO

import pytest

from harness.plugin.collect import PLACE
from harness.plugin.outcome import rows_of
from harness.record.item import Ending
from harness.report.summary import ended_as
from harness.report.tables import can_go_back, make_line

_TICK_S = 1.0
_ERASE = "\r\x1b[2K"
#: What a person has asked to see otherwise.
_OTHERWISE = ("collectonly", "keep_guest", "usepdb", "setupshow", "showfixtures", "markers")


@pytest.hookimpl(trylast=True)  # pytest makes its reporter in the same hook
def pytest_configure(config: pytest.Config) -> None:
    """Have a live line where somebody watches a terminal, and has asked neither for more (``-v``) nor for all output (``-s``)."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if hasattr(config, "workerinput") or reporter is None or not can_go_back(reporter._tw._file):
        return
    wanted_otherwise = any(config.getoption(name, False) for name in _OTHERWISE)
    if config.getoption("verbose") <= 0 and config.getoption("capture") != "no" and not wanted_otherwise:
        # A descriptor of its own: what pytest captures of an item while it runs is what is written to the usual one.
        file = reporter._tw._file
        stream = os.fdopen(os.dup(file.fileno()), "w", encoding=file.encoding, errors="replace")
        config.add_cleanup(stream.close)
        config.pluginmanager.register(LiveLine(reporter, Screen(stream)), "harness-live")


class Screen:
    """The stream that pytest writes to, with a line at its end that goes before anything else is written."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._lock = stream, threading.RLock()
        self._is_shown = False
        self._at_begin = True

    def write(self, text: str) -> int:
        with self._lock:
            self.erase()
            if text:
                self._at_begin = text.endswith("\n")
            written = self._stream.write(text)
            self._stream.flush()
            return written

    def show(self, line: str) -> None:
        """Show the line in the place of the last one, but not behind words whose line has not ended."""
        with self._lock:
            if self._at_begin:
                self.erase()
                self._stream.write(line)
                self._stream.flush()
                self._is_shown = True

    def erase(self) -> None:
        with self._lock:
            if self._is_shown:
                self._stream.write(_ERASE)
                self._stream.flush()
                self._is_shown = False

    @property
    def columns(self) -> int:
        """How wide the terminal is now."""
        return os.get_terminal_size(self._stream.fileno()).columns

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Progress:
    """How far a run is. ``now_s``: the clock, in seconds."""

    def __init__(self, total: int, now_s: Callable[[], float] = time.monotonic) -> None:
        self._total, self._now_s, self._began_s = total, now_s, now_s()
        self._endings: Counter[tuple[str, str]] = Counter()
        self._running: dict[str, float] = {}
        self._done = 0

    def begin(self, node_id: str) -> None:
        self._running[node_id] = self._now_s()

    def end(self, node_id: str) -> None:
        self._running.pop(node_id, None)
        self._done += 1

    def count(self, ending: str, style: str) -> None:
        self._endings[ending, style] += 1

    def line(self) -> list[tuple[str, str]]:
        """Return the parts of the line, with their styles."""
        now_s = self._now_s()
        gone_s = now_s - self._began_s
        parts = [(f"{self._done} of {self._total} done", "bold")]
        parts += [(f", {count} {ending}", style) for (ending, style), count in self._endings.most_common()]
        parts.append((f"; {_minutes(gone_s)} gone", ""))
        if 0 < self._done < self._total:
            parts.append((f", about {_minutes(gone_s / self._done * (self._total - self._done))} left", ""))
        running = [f"{_short(node_id)} {now_s - since_s:.0f} s" for node_id, since_s in self._running.items()]
        return [*parts, (f"; {', '.join(running)}" if running else "", "")]


def _minutes(seconds: float) -> str:
    return f"{seconds // 60:.0f}:{seconds % 60:02.0f}"


def _short(node_id: str) -> str:
    """``cases/splice/tee.yaml::tee[...]`` is ``splice/tee[...]``."""
    file, _, name = node_id.partition("::")
    return "/".join([*file.split("/")[1:-1], name]) if name else node_id


class LiveLine:
    """Shows the line while items run, and is gone before anything else is said at the end."""

    def __init__(self, reporter: Any, screen: Screen) -> None:
        self._reporter, self._screen = reporter, screen
        self._usual = reporter._tw._file
        self._progress: Progress | None = None
        self._over = threading.Event()

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: object, ids: Sequence[str]) -> None:
        # A controller collects nothing itself; every worker has the same items.
        self._begin(len(ids) if any(".yaml::" in name for name in ids) else 0)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Iterator[None]:
        items = getattr(session, "items", [])  # a controller has none
        self._begin(len(items) if any(PLACE in item.stash for item in items) else 0)
        try:
            return (yield)
        finally:
            self._end()

    def _begin(self, total: int) -> None:
        if total == 0 or self._progress is not None:
            return
        self._progress = Progress(total)
        self._reporter.ensure_newline()
        self._reporter.flush()
        self._reporter._tw._file = self._screen
        # pytest's own way to show how far it is.
        self._reporter.showfspath, self._reporter._show_progress_info = False, False
        threading.Thread(target=self._keep_up, daemon=True).start()

    def _end(self) -> None:
        self._over.set()
        self._screen.erase()
        self._reporter._tw._file = self._usual

    def _keep_up(self) -> None:
        while not self._over.wait(_TICK_S):
            self._show()

    def _show(self) -> None:
        if self._progress is not None and not self._over.is_set():
            # The last column stays free: a terminal that is full to it may have begun another line.
            self._screen.show(make_line(self._progress.line(), self._screen.columns - 1, self._reporter.hasmarkup))

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        if self._progress is not None:
            self._progress.begin(nodeid)
            self._show()

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        if self._progress is not None:
            self._progress.end(nodeid)
            self._show()

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if self._progress is None:
            return
        for row in rows_of(report):
            is_known = row.is_known_deviation or row.ended.ending is Ending.UNAVAILABLE
            self._progress.count(ended_as(row), "green" if row.passed else "yellow" if is_known else "red")
            if not row.passed and not is_known and row.ended.ending.has_begun:
                self._reporter.write_line(f"{ended_as(row)}: {row.where.node_id}", red=True)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_report_teststatus(self) -> Iterator[Any]:
        """No letters: the line has the numbers."""
        said = yield
        return (said[0], "", said[2]) if said and self._progress is not None and not self._over.is_set() else said
