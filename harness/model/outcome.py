"""What the guest saw: how each step ended, with its evidence. Typed here, once, from the agent's JSON."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from harness.errors import AgentError
from harness.model.tag import tag_bytes

OBSERVATION_FORMAT = 1


class How(StrEnum):
    """How a step ended."""

    RETURNED = "returned"
    FAILED = "failed"
    SIGNAL = "signal"
    BLOCKED = "blocked"
    STARTED = "started"
    NOT_RUN = "not_run"


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
    """Return the typed observations of the agent's answer. Raises AgentError where the document breaks the protocol."""
    if document.get("format") != OBSERVATION_FORMAT:
        raise AgentError(f"the observations have format {document.get('format')!r}, this harness reads {OBSERVATION_FORMAT}")
    try:
        return tuple(_observation(entry) for entry in document["steps"])
    except (KeyError, TypeError, ValueError) as error:
        raise AgentError(f"an observation is malformed: {error!r}") from error


def _observation(entry: Mapping[str, Any]) -> Observation:
    data = entry.get("data")
    frames = entry.get("frames")
    return Observation(
        step=int(entry["step"]),
        how=How(entry["how"]),
        value=int(entry.get("value", 0)),
        errno=entry.get("errno"),
        signal=entry.get("signal"),
        data=None if data is None else tuple(run_from(row) for row in data),
        resident=entry.get("resident"),
        frames=None if frames is None else tuple(int(f) for f in frames),
        minor_faults=entry.get("minor_faults"),
        attributes=tuple(sorted(entry.get("attributes", {}).items())),
    )


def run_from(row: list[Any]) -> Run:
    """Return one run of the agent's. Raises IndexError, TypeError or ValueError where it is none."""
    offset, length, kind = int(row[0]), int(row[1]), RunKind(row[2])
    if kind is RunKind.TAG:
        return Run(offset, length, kind, writer=int(row[3]), source=int(row[4]))
    if kind is RunKind.RAW:
        return Run(offset, length, kind, raw=bytes.fromhex(row[3]))
    return Run(offset, length, kind)
