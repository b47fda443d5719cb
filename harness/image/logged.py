"""Long commands of a build: what one said when it failed is still there when the unfinished build is not."""

import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from harness.errors import HostError
from harness.host import settings
from harness.host.deadline import Deadline
from harness.host.process import run

_log = logging.getLogger(__name__)

#: What the last build that failed said, in the cache.
FAILED_BUILD_LOG = "failed-build.log"


def run_logged(
    command: Sequence[str], deadline: Deadline, log: Path, *, cwd: Path | None = None, watch: Callable[[], None] | None = None
) -> None:
    """Run a command of a build, with what it says in ``log``, which goes with the build; see ``process.run``.

    Raises HostError that names a copy of the log in the cache.
    """
    try:
        run(command, deadline, cwd=cwd, log=log, watch=watch)
    except HostError as error:
        raise HostError(_naming_a_copy(str(error), log)) from error


def _naming_a_copy(message: str, log: Path) -> str:
    kept = settings.cache_root() / FAILED_BUILD_LOG
    try:
        shutil.copyfile(log, kept)
    except OSError as error:
        _log.warning("the log of a build that failed could not be kept in %s: %s", kept, error)
        return message.replace(f"\nwhole output: {log}", "")
    return message.replace(str(log), str(kept))
