"""The test suite as a command starts it: pytest in a process of its own, whose output is the user's to see."""

import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.host.process import ending_together, start
from harness.record.runs import LATEST, StoredRun, find_run
from harness.report.status import ALL_CONFORM, SOME_DEVIATE


def run_suite(arguments: Sequence[str], artifacts: Path) -> tuple[int, StoredRun | None]:
    """Run pytest with ``arguments``; return its exit status and the run that it kept (None: it did not come to run items).

    Ctrl-C is handed on to pytest, which cleans up and is waited for, and so is what ends this process.
    """
    before = _latest(artifacts)
    process = start([sys.executable, "-m", "pytest", *arguments, "--artifacts", str(artifacts)], stdout=1, stderr=2)
    with ending_together(process):
        try:
            status = process.wait()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            process.wait()
            raise
    after = _latest(artifacts)
    return status, None if after == before or after is None else find_run(artifacts, LATEST)


def has_run(status: int) -> bool:
    """Whether a status of pytest says that the items ran, whatever they showed."""
    return status in (ALL_CONFORM, SOME_DEVIATE)


def _latest(artifacts: Path) -> Path | None:
    link = artifacts / LATEST
    return link.resolve() if link.exists() else None
