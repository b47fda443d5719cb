"""The logs of guests that did not come up, kept where they outlive the run: console, QEMU's words, QMP transcript, the machine."""

import contextlib
import itertools
import logging
import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError, logs_of, reason_of
from harness.machine.custody import PREFIX, private_folder
from harness.record.script import qemu_script
from harness.record.store import QEMU_SCRIPT
from harness.sizes import MIB, format_size

log = logging.getLogger(__name__)

#: Below the artifacts: a folder for each reason for which a guest did not come up.
FOLDER = "not-set-up"
#: The whole message of the error, beside the logs.
REASON = "reason.txt"
#: What is in such a folder, in words.
KEPT_FILES = "console.log, qemu.stderr (QEMU's words), qmp.jsonl, and qemu.sh, which starts the machine by hand"
#: Different reasons that one run keeps logs of.
MOST = 20
#: Of a file that is larger, the end is kept.
_LARGEST_BYTES = 4 * MIB
#: The file in which a machine keeps its QEMU command.
_COMMAND = "command"
_PRIVATE = re.compile(rf"[^\s'\"=,;]*/{PREFIX}[^/\s'\"=,;]+")


@dataclass(frozen=True)
class LogKeeper:
    """Keeps logs in ``folder``, once for each reason, at most :data:`MOST` of them; ``locked`` keeps other processes of the run out."""

    folder: Path
    locked: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext

    def clear(self) -> None:
        """Remove everything that was kept."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def keep(self, logs: Path, what: str, message: str) -> str:
        """Copy the files below ``logs``, unless those of an equal failure are kept. Return the folder, or why there is none.

        ``what`` is what was to be set up, in words: the folder is named after it.
        """
        if not any(path.is_file() for path in logs.rglob("*")):
            return ""
        try:
            with self.locked():
                kept = sorted(path.parent for path in self.folder.glob(f"*/{REASON}"))
                same = [path for path in kept if reason_of((path / REASON).read_text()) == reason_of(message)]
                if not same and len(kept) >= MOST:
                    return f"(no logs are kept: {self.folder} has those of {MOST} other failures)"
                return str(same[0] if same else self._copied(logs, what, message))
        except OSError as error:
            log.warning("the logs of %s could not be kept in %s: %s", what, self.folder, error)
            return f"(its logs could not be kept in {self.folder}: {error.strerror})"

    def _copied(self, logs: Path, what: str, message: str) -> Path:
        name = re.sub(r"[^A-Za-z0-9.]+", "_", what).strip("_")
        target = next(path for number in itertools.count(1) if not (path := self.folder / f"{name}-{number}").exists())
        try:
            for path in sorted(path for path in logs.rglob("*") if path.is_file()):
                copy = target / path.relative_to(logs)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(_end_of(path))
                if path.name == _COMMAND:
                    script = copy.with_name(QEMU_SCRIPT)
                    script.write_text(qemu_script(tuple(shlex.split(path.read_text()))))
                    script.chmod(0o755)
            (target / REASON).write_text(message + "\n")
        except BaseException:
            shutil.rmtree(target, ignore_errors=True)
            raise
        return target


def _end_of(path: Path) -> bytes:
    """The file, or of a very large one the end."""
    with path.open("rb") as file:
        left = os.fstat(file.fileno()).st_size - _LARGEST_BYTES
        if left <= 0:
            return file.read()
        file.seek(left)
        return f"(the first {left} bytes are not kept: the file was larger than {format_size(_LARGEST_BYTES)})\n".encode() + file.read()


@contextlib.contextmanager
def kept_logs(keeper: LogKeeper | None, what: str) -> Iterator[Path]:
    """Make a private folder for a machine's logs. An error that leaves the block knows where they are kept, and names no folder that goes.

    ``what``: what is being set up, in words.
    """
    with private_folder() as folder:
        logs = folder / "logs"
        logs.mkdir()
        try:
            yield logs
        except (HarnessError, OSError) as error:
            if not logs_of(error):
                _lasting(error)
                if keeper is not None:
                    error.logs = keeper.keep(logs, what, f"{type(error).__name__}: {error}")  # type: ignore[union-attr]
                log.error("%s: %s: %s", what, type(error).__name__, error)
                log.info("its logs: %s", logs_of(error) or "not kept")
            raise


def is_folder(logs: str) -> bool:
    """Whether ``logs``, as an error has it, is a folder, and not why there is none."""
    return bool(logs) and not logs.startswith("(")


def without_private_folders(text: str) -> str:
    """Return a message that says ``$work``, as the script of the machine does, for a folder that is gone when somebody reads it."""
    return _PRIVATE.sub("$work", text)


def _lasting(error: Exception) -> None:
    """Have an error name no folder that is gone when somebody reads it."""
    error.args = tuple(without_private_folders(word) if isinstance(word, str) else word for word in error.args)
    if isinstance(error, OSError) and error.filename is not None:
        error.filename = without_private_folders(os.fsdecode(error.filename))
