"""What a final audit found: files, checks, mounts. Typed here, once, from the agent's JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.errors import AgentError
from harness.model.filesystems import FILESYSTEM_TRAITS
from harness.model.outcome import Run, run_from

#: The exit status of what is no program, and above it those of signals.
_NOT_RUN = 126


@dataclass(frozen=True)
class FileSeen:
    """A file as it was found. ``runs``: its content; None where it was not read, ``note`` says why (empty: larger than is read)."""

    path: str
    size: int
    runs: tuple[Run, ...] | None = None
    note: str = ""


@dataclass(frozen=True)
class CheckSeen:
    """What the check of a file system said, with its exit status."""

    command: str
    status: int
    text: str


@dataclass(frozen=True)
class VolumeSeen:
    """One volume. ``unmount``, ``mount``: an errno, empty where it worked; what comes after a failure is None, as is all of a volume that
    was not mounted."""

    role: str
    before: tuple[FileSeen, ...] | None = None
    unmount: str | None = None
    check: CheckSeen | None = None
    mount: str | None = None
    after: tuple[FileSeen, ...] | None = None


@dataclass(frozen=True)
class Audit:
    """``skipped`` says why there is none, or none of the contents; ``took_s`` is the guest's own measure."""

    volumes: tuple[VolumeSeen, ...] = ()
    skipped: str = ""
    took_s: float = 0.0


def audit_from(document: Mapping[str, Any]) -> Audit:
    """Return the typed audit of the agent's answer or of what was stored. Raises AgentError where it breaks the protocol."""
    try:
        volumes = tuple(_volume_from(row) for row in document["volumes"])
        return Audit(volumes, str(document.get("skipped", "")), float(document["took_s"]))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise AgentError(f"an audit is malformed: {error!r}") from error


def _volume_from(row: Mapping[str, Any]) -> VolumeSeen:
    check = row.get("check")
    return VolumeSeen(
        role=_text(row["role"]),
        before=_files_from(row.get("before")),
        unmount=None if row.get("unmount") is None else _text(row["unmount"]),
        check=None if check is None else _check_from(check),
        mount=None if row.get("mount") is None else _text(row["mount"]),
        after=_files_from(row.get("after")),
    )


def _check_from(row: Mapping[str, Any]) -> CheckSeen:
    """One that was not there, was ended at its limit, or could not do its work says nothing of the volume. Raises AgentError."""
    command, status = " ".join(row["argv"]), int(row["status"])
    text = _text(row["stdout"]) + _text(row["stderr"])
    checkers = (traits.checker for traits in FILESYSTEM_TRAITS.values() if traits.checker is not None)
    unable = (checker.was_unable(status, text) for checker in checkers if command.startswith(checker.command[0]))
    if status < 0 or status >= _NOT_RUN or any(unable):
        raise AgentError(f"the check of a volume could not be made: {command} gave exit status {status}\n{text.strip()}")
    return CheckSeen(command, status, text)


def _files_from(rows: Sequence[Mapping[str, Any]] | None) -> tuple[FileSeen, ...] | None:
    if rows is None:
        return None
    return tuple(_file_from(row) for row in rows)


def _file_from(row: Mapping[str, Any]) -> FileSeen:
    runs = row.get("runs")
    seen = FileSeen(
        _text(row["path"]), int(row["size"]), None if runs is None else tuple(run_from(run) for run in runs), _text(row.get("failed", ""))
    )
    at = 0
    for run in seen.runs or ():
        if run.offset != at:
            raise ValueError(f"the runs of {seen.path} do not add up: one starts at {run.offset}, the one before ends at {at}")
        at += run.length
    return seen


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value
