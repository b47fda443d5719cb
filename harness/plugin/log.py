"""The log of a run: ``harness.log`` in the folder of the run, which all of its workers write, and with ``-vv`` the terminal too."""

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from harness.host.log import LogFile, told
from harness.plugin.collect import PLACE
from harness.plugin.options import artifacts_of, make_progress
from harness.record.runs import LOG

log = logging.getLogger(__name__)
#: What shows the log on the terminal, where it is asked for.
_TERMINAL = pytest.StashKey[Callable[[str], object]]()


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("verbose") < 2:
        return
    config.stash[_TERMINAL] = _standard_error(config) if hasattr(config, "workerinput") else make_progress(config)


def _standard_error(config: pytest.Config) -> Callable[[str], object]:
    """Return what says a line where the controller of a distributed run has its standard error. A worker has no terminal of its own."""
    # Duplicated now, because pytest captures what is written later.
    descriptor = os.dup(2)
    config.add_cleanup(lambda: os.close(descriptor))
    return lambda text: os.write(descriptor, text.encode(errors="replace") + b"\n")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> Iterator[None]:
    """Log while the guests of a session live. A session without cases has nothing to log, and gets no folder for it."""
    config = session.config
    with contextlib.ExitStack() as lifetime:
        if any(PLACE in item.stash for item in session.items) and not config.getoption("collectonly"):
            who = getattr(config, "workerinput", {}).get("workerid", "main")
            file = lifetime.enter_context(contextlib.closing(LogFile(artifacts_of(config) / LOG)))
            lifetime.enter_context(told(file.write, who))
            _keep_out_of_failures(config)
            if _TERMINAL in config.stash:
                lifetime.enter_context(told(config.stash[_TERMINAL], who))
            log.info("pytest %s: %d items, process %d", " ".join(map(str, config.invocation_params.args)), len(session.items), os.getpid())
        return (yield)


def _keep_out_of_failures(config: pytest.Config) -> None:
    """Have pytest not print the log again with each failure, where it adds what it captured of all records."""
    capturing = config.pluginmanager.get_plugin("logging-plugin")
    if capturing is not None:
        capturing.report_handler.addFilter(lambda record: not record.name.startswith("harness."))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    began_s = time.monotonic()
    if PLACE in item.stash:
        log.info("%s begins", item.nodeid)
    try:
        return (yield)
    finally:
        if PLACE in item.stash:
            log.info("%s is done after %.2f s", item.nodeid, time.monotonic() - began_s)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report: Any = yield
    if PLACE in item.stash and report.failed:
        log.error("%s failed (%s):\n%s", item.nodeid, report.when, report.longreprtext)
    elif PLACE in item.stash and (report.when == "call" or report.skipped):
        log.info("%s %s", item.nodeid, report.outcome)
    return report  # type: ignore[no-any-return]
