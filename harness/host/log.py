"""The log of what the harness did: in a file that the processes of a run share, and on a person's terminal.

A module that starts, keeps, asks or ends something has a logger of its own name. ERROR: what could not be done. WARNING: what was tried
again, or caught and passed over. INFO: what began and ended, and why it was chosen. DEBUG: each request and command, with its time.
No record carries a secret: neither the agent's token nor what a program reads or writes.
"""

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from harness.errors import first_line

#: The logger above those of all modules.
_ALL = "harness"


class LogFile:
    """A file that several processes append to: each record is one write, and so stays in one piece.

    It is made, with its folder, by the first record, and held (a shared flock) until it is closed or the process ends: so it can be told
    that the run goes on.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def write(self, text: str) -> None:
        """Append ``text`` and a line end. Raises OSError."""
        if self._descriptor is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(self._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        os.write(self._descriptor, text.encode(errors="replace") + b"\n")

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = None


@contextlib.contextmanager
def told(say: Callable[[str], object], who: str = "") -> Iterator[None]:
    """Hand every record, of all levels, to ``say`` as whole lines that name ``who``. One that cannot be said (OSError) is lost, no more."""
    logger, handler = logging.getLogger(_ALL), _Telling(say)
    before = logger.level
    handler.setFormatter(_Lines(who))
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


@contextlib.contextmanager
def took(log: logging.Logger, level: int, what: str) -> Iterator[None]:
    """Log ``what`` with the seconds that the block took, and with the error that left it, where one did."""
    started_s = time.monotonic()
    try:
        yield
    except BaseException as error:
        log.log(level, "%s: %s after %.3f s: %s", what, type(error).__name__, time.monotonic() - started_s, first_line(str(error)))
        raise
    log.log(level, "%s: %.3f s", what, time.monotonic() - started_s)


class _Telling(logging.Handler):
    def __init__(self, say: Callable[[str], object]) -> None:
        super().__init__()
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError):
            self._say(self.format(record))


class _Lines(logging.Formatter):
    """Every line has its own head, so that each one says when, who and where, whatever is cut out of the log."""

    def __init__(self, who: str) -> None:
        super().__init__()
        self._who = f" {who}" if who else ""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
        head = f"{when}{self._who} {record.levelname:7} {record.name.removeprefix(f'{_ALL}.')}: "
        first, *others = super().format(record).splitlines() or [""]
        return "\n".join([head + first, *(f"{head}| {line}" for line in others)])
