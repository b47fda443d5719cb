"""The files kept from a run: one folder an item, enough to judge it again without a guest and to boot its machine by hand.

``plan.json`` what was to be done, ``stack.json`` the stack as it was, ``observations.json`` what the agent said,
``audit.json`` what was on the volumes after the program, ``run.json`` how the run ended and on what, ``verdict.json`` the judgement (an
output, never read back),
``console.txt`` what the console printed meanwhile, ``kernel.log`` where something went wrong, ``hang.txt`` blocked tasks and registers of
a guest that hung, ``qemu.sh`` the machine.
Every JSON file carries its format.
"""

import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from harness.errors import AgentError, HostError, UsageError
from harness.model.audit_outcome import audit_from
from harness.model.outcome import OBSERVATION_FORMAT, observations_from
from harness.model.stack import StackReading
from harness.record.documents import audit_document, from_text, observations_document, read_text, to_text, typed
from harness.record.item import Item, Record, RunOutcome
from harness.record.script import qemu_script

T = TypeVar("T")
FORMAT = 2
PLAN, STACK, OBSERVATIONS, RUN, VERDICT = "plan.json", "stack.json", "observations.json", "run.json", "verdict.json"
AUDIT = "audit.json"
_WHAT = "an item"
CONSOLE, KERNEL_LOG, HANG, QEMU_SCRIPT = "console.txt", "kernel.log", "hang.txt", "qemu.sh"


def item_folder(artifacts: Path, item: Item) -> Path:
    """Return the folder of ``item``: readable, and free of what a shell or a file system would stumble over."""
    return artifacts / re.sub(r"[^A-Za-z0-9_.+/-]", "_", f"{item.where.path}/{item.where.place}")


def store_record(folder: Path, record: Record, console: str, kernel_log: str, hang: str = "") -> None:
    """Write everything but the verdict; what an earlier run left in the folder goes. Raises HostError, and leaves no half of a record."""
    try:
        _store_record(folder, record, console, kernel_log, hang)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise HostError(
            f"cannot keep what was seen in {folder}: {error.strerror}{f' ({error.filename})' if error.filename else ''}; "
            "free some room, or name another folder with --artifacts"
        ) from error


def _store_record(folder: Path, record: Record, console: str, kernel_log: str, hang: str) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    _write(folder / PLAN, record.item)
    _write(folder / STACK, record.reading)
    if record.observations is not None:
        _write(folder / OBSERVATIONS, observations_document(record.observations), OBSERVATION_FORMAT)
    if record.audit is not None:
        _write(folder / AUDIT, audit_document(record.audit))
    _write(folder / RUN, record.outcome)
    (folder / CONSOLE).write_text(console)
    for name, text in ((KERNEL_LOG, kernel_log), (HANG, hang)):
        if text:
            (folder / name).write_text(text)
    script = folder / QEMU_SCRIPT
    script.write_text(qemu_script(record.outcome.guest.qemu_command))
    script.chmod(0o755)


def store_verdict(folder: Path, verdict: Mapping[str, Any]) -> None:
    """Write the judgement beside what it was made of."""
    _write(folder / VERDICT, verdict)


def load_record(folder: Path) -> Record:
    """Return what :func:`store_record` wrote. Raises UsageError naming the file that is missing or not as it should be."""
    return Record(
        item=_typed(Item, folder / PLAN),
        reading=_typed(StackReading, folder / STACK),
        observations=_said(folder / OBSERVATIONS, OBSERVATION_FORMAT, observations_from),
        outcome=_typed(RunOutcome, folder / RUN),
        audit=_said(folder / AUDIT, FORMAT, audit_from),
    )


def find_records(folder: Path) -> Iterator[Path]:
    """Yield every item's folder at or below ``folder``, sorted."""
    yield from sorted(path.parent for path in folder.rglob(PLAN))


def _write(path: Path, value: Any, format_: int = FORMAT) -> None:
    path.write_text(to_text(value, format_))


def _typed(kind: type[T], path: Path) -> T:
    return typed(kind, read_text(path, _WHAT), FORMAT, str(path))


def _said(path: Path, format_: int, read: Callable[[dict[str, Any]], T]) -> T | None:
    """Return what the agent said, None where there is no such file. Raises UsageError."""
    if not path.exists():
        return None
    try:
        return read(from_text(read_text(path, _WHAT), format_, str(path)))
    except AgentError as error:
        raise UsageError(f"{path}: {error}") from error
