"""What a step came to, as the answer has it (docs/agent-protocol.md), and why there may be none."""

from typing import Any

from harness.agent.syscalls import errno_name

Outcome = dict[str, Any]


class ProtocolError(Exception):
    """The request cannot be meant: an unknown request, volume or process, or a name of the wrong kind."""


class HangError(Exception):
    """A step still ran at its limit, or a process of the program could not be ended."""


class HostGoneError(Exception):
    """Nobody listens any more: the program ends and so does the session."""


class MissingNameError(Exception):
    """A step refers to a name that no earlier step made."""


def returned(value: int = 0, **evidence: Any) -> Outcome:
    return {"how": "returned", "value": value, **evidence}


def failed(number: int, **evidence: Any) -> Outcome:
    return {"how": "failed", "errno": errno_name(number), **evidence}


def outcome(result: int) -> Outcome:
    """The plain outcome of :func:`harness.agent.syscalls.call`."""
    return returned(result) if result >= 0 else failed(-result)


def nothing_or_errno(result: int) -> Outcome:
    """The outcome of a call whose result says nothing but success (a descriptor, an address)."""
    return returned(0) if result >= 0 else failed(-result)
