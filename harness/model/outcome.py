"""What the guest saw: how each step ended, with its evidence. Typed here, once, from the agent's JSON."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from harness.errors import AgentError
from harness.ops.tag import MAX_WRITER, tag_bytes

OBSERVATION_FORMAT = 1


class How(StrEnum):
    """How a step ended."""

    RETURNED = "returned"
    FAILED = "failed"
    SIGNAL = "signal"
    BLOCKED = "blocked"
    STARTED = "started"
    NOT_RUN = "not_run"


#: What a step may show whatever its operation: where a process that sleeps is, and the name that nobody made for one that was not run.
ALWAYS_SHOWN = frozenset({"state", "syscall", "wchan", "missing"})


class RunKind(StrEnum):
    TAG = "tag"
    ZERO = "zero"
    RAW = "raw"


@dataclass(frozen=True)
class Run:
    """A stretch of observed bytes: what one writer wrote from ``source`` on, zeroes, or bytes that no tag explains."""

    offset: int
    length: int
    kind: RunKind
    writer: int = 0
    source: int = 0
    raw: bytes = b""

    def bytes(self) -> bytes:
        if self.kind is RunKind.TAG:
            return tag_bytes(self.writer, self.source, self.length)
        return self.raw if self.kind is RunKind.RAW else b"\0" * self.length


@dataclass(frozen=True)
class Observation:
    """One step as the guest saw it.

    ``value``: what the call returned (RETURNED). ``errno``: its name (FAILED). ``signal``: its name (SIGNAL).
    ``data``: the bytes read, loaded or received. ``attributes``: whatever else was measured, by name.
    """

    step: int
    how: How
    value: int = 0
    errno: str | None = None
    signal: str | None = None
    data: tuple[Run, ...] | None = None
    resident: str | None = None
    frames: tuple[int, ...] | None = None
    minor_faults: int | None = None
    attributes: tuple[tuple[str, int | str], ...] = ()

    @property
    def evidence(self) -> frozenset[str]:
        """The names of what was seen beside how the step ended (harness.ops.words.Shown)."""
        parts = (("data", self.data), ("resident", self.resident), ("frames", self.frames), ("minor_faults", self.minor_faults))
        return frozenset([name for name, part in parts if part is not None] + [name for name, _ in self.attributes])

    def attribute(self, name: str) -> int | str | None:
        return dict(self.attributes).get(name)

    def number(self, name: str) -> int | None:
        value = self.attribute(name)
        return value if isinstance(value, int) else None

    def describe(self) -> str:
        if self.how is How.RETURNED:
            return f"returned {self.value}"
        if self.how is How.FAILED:
            return self.errno or "failed"
        if self.how is How.SIGNAL:
            return self.signal or "a signal"
        return {How.BLOCKED: "blocked", How.STARTED: "started", How.NOT_RUN: "not run"}[self.how]

    def data_bytes(self) -> bytes:
        """Return the observed bytes; an observation without data has none."""
        return b"".join(run.bytes() for run in self.data or ())


def observations_from(document: Mapping[str, Any]) -> tuple[Observation, ...]:
    """Return the typed observations of the agent's answer, or of what was stored of it.

    Raises AgentError, naming step and field, for whatever the protocol does not allow: nothing is guessed, and nothing that is missing
    is made up, because a default would be taken for something that was seen.
    """
    if document.get("format") != OBSERVATION_FORMAT:
        raise AgentError(f"the observations have format {document.get('format')!r}, this harness reads {OBSERVATION_FORMAT}")
    entries = document.get("steps")
    if not isinstance(entries, list):
        raise AgentError(f"the observations have no list of steps, but {_shown(entries)}")
    return tuple(_observation(entry, position) for position, entry in enumerate(entries))


#: What an entry may hold beside ``step`` and ``how``.
_FIELDS = ("value", "errno", "signal", "data", "resident", "frames", "minor_faults", "attributes")
#: The field without which an observation of a kind says nothing, and which no other kind has.
_ESSENTIAL = {How.RETURNED: "value", How.FAILED: "errno", How.SIGNAL: "signal"}
#: ENOENT, and E524 for what errno(3) does not name.
_ERRNO = re.compile(r"E[A-Z0-9]+")
#: SIGBUS, and for what signal(7) does not name its number.
_SIGNAL = re.compile(r"SIG[A-Z0-9+]+|signal \d+")


def _observation(entry: Any, position: int) -> Observation:
    if not isinstance(entry, dict):
        raise AgentError(f"observation {position} is {_shown(entry)}, not a mapping")
    if not _is_count(entry.get("step")):
        raise AgentError(f"observation {position}: step is {_shown(entry.get('step'))}, not the number of a step")
    step = int(entry["step"])
    words = [str(how) for how in How]
    if entry.get("how") not in words:
        raise _broken(step, "how", entry.get("how"), f"one of {', '.join(words)}")
    how = How(entry["how"])
    unknown = sorted(entry.keys() - {"step", "how", *_FIELDS})
    if unknown:
        raise AgentError(f"the observation of step {step} has the unknown field {unknown[0]!r}")
    for kind, field in _ESSENTIAL.items():
        if (kind is how) != (entry.get(field) is not None):
            problem = f"is {how} and has no {field}" if kind is how else f"is {how} and yet has the field {field}"
            raise AgentError(f"the observation of step {step} {problem}")
    value = _checked(step, entry, "value", _is_count, "what a call returns")
    data = _data(step, entry.get("data"))
    if how is How.RETURNED and data is not None and sum(run.length for run in data) != value:
        raise AgentError(f"the observation of step {step}: {sum(run.length for run in data)} bytes of data, and the call returned {value}")
    frames = _checked(step, entry, "frames", lambda rows: isinstance(rows, list) and all(map(_is_count, rows)), "a list of frame numbers")
    return Observation(
        step=step,
        how=how,
        value=0 if value is None else value,
        errno=_checked(step, entry, "errno", lambda name: _is_word(name, _ERRNO), "the name of an error such as ENOENT"),
        signal=_checked(step, entry, "signal", lambda name: _is_word(name, _SIGNAL), "the name of a signal such as SIGBUS"),
        data=data,
        resident=_checked(step, entry, "resident", lambda text: _is_word(text, _RESIDENT), "one 0 or 1 a page"),
        frames=None if frames is None else tuple(frames),
        minor_faults=_checked(step, entry, "minor_faults", _is_count, "a number of faults"),
        attributes=_attributes(step, entry.get("attributes")),
    )


_RESIDENT = re.compile(r"[01]*")


def _checked(step: int, entry: Mapping[str, Any], field: str, fits: Callable[[Any], bool], wanted: str) -> Any:
    found = entry.get(field)
    if found is not None and not fits(found):
        raise _broken(step, field, found, wanted)
    return found


def _attributes(step: int, found: Any) -> tuple[tuple[str, int | str], ...]:
    if found is None:
        return ()
    if not isinstance(found, dict):
        raise _broken(step, "attributes", found, "a mapping")
    for name, value in found.items():
        if not (isinstance(name, str) and (_is_number(value) or isinstance(value, str))):
            raise _broken(step, f"the attribute {name}", value, "a number or a word")
    return tuple(sorted(found.items()))


def _data(step: int, rows: Any) -> tuple[Run, ...] | None:
    """Return the runs of observed bytes: from 0 on and without a gap, or what lies between was seen by nobody."""
    if rows is None:
        return None
    if not isinstance(rows, list):
        raise _broken(step, "data", rows, "a list of runs")
    runs: list[Run] = []
    end = 0
    for position, row in enumerate(rows):
        run = _run(row)
        if run is None:
            raise _broken(step, f"data[{position}]", row, "[offset, length, zero], [offset, length, raw, hex] or [.., tag, writer, source]")
        if run.offset != end:
            raise AgentError(f"the observation of step {step}: data[{position}] begins at {run.offset}, the run before it ends at {end}")
        end += run.length
        runs.append(run)
    return tuple(runs)


def run_from(row: Any) -> Run:
    """Return one run of the agent's. Raises ValueError where it is none."""
    run = _run(row)
    if run is None:
        raise ValueError(f"{_shown(row)} is no run of bytes")
    return run


def _run(row: Any) -> Run | None:
    """Return a run, or None for what is none."""
    if not (isinstance(row, list) and len(row) >= 3 and _is_count(row[0]) and _is_count(row[1]) and row[1] > 0):
        return None
    match row:
        case [offset, length, "zero"]:
            return Run(offset, length, RunKind.ZERO)
        case [offset, length, "tag", writer, source] if _is_count(writer) and 0 < writer <= MAX_WRITER and _is_count(source):
            return Run(offset, length, RunKind.TAG, writer=writer, source=source)
        case [offset, length, "raw", str(text)] if len(text) == 2 * length and _HEXADECIMAL.fullmatch(text):
            return Run(offset, length, RunKind.RAW, raw=bytes.fromhex(text))
    return None


_HEXADECIMAL = re.compile(r"[0-9a-f]+")


def _is_number(value: Any) -> bool:
    """Whether ``value`` is an integer; for Python True is one, for a kernel it is not."""
    return isinstance(value, int) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return _is_number(value) and bool(value >= 0)


def _is_word(value: Any, pattern: re.Pattern[str]) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _broken(step: int, field: str, found: Any, wanted: str) -> AgentError:
    return AgentError(f"the observation of step {step}: {field} is {_shown(found)}, not {wanted}")


def _shown(value: Any) -> str:
    return repr(value)[:100]
