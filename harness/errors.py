"""Whose fault it is, said by the class.

A message says what we did, what came back and where to look; the cause stays attached with ``from``.
"""

import re

#: What stands before the lines of a console that a message quotes.
CONSOLE_FOLLOWS = "--- last lines of the console ---"


class HarnessError(Exception):
    """The base of every error that the harness raises on purpose.

    ``logs``: the folder in which console, QEMU's words and QMP transcript are kept, or why they are not; empty where there are none.
    """

    logs: str = ""


class CaseError(HarnessError):
    """The author of a case (or of the data beside it) wrote something that cannot be meant.

    ``where`` is ``file:line`` or a file name; the message starts with it.
    """

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"{where}: {problem}")
        self.where = where
        self.problem = problem


class UsageError(HarnessError):
    """A command line or a setting asks for something that does not exist."""


class HostError(HarnessError):
    """This computer cannot do it: a tool is missing, a disk is full, a process failed."""


class MachineError(HarnessError):
    """QEMU's side failed: it did not start, died, or did not answer QMP."""


class NotReadyError(MachineError):
    """A guest did not come up within its limit: QEMU did not start it, or it did not answer. Whose fault that is, is not known yet."""


class BootError(NotReadyError):
    """The tested kernel did not come up. Carries the last lines of its console."""

    def __init__(self, problem: str, console_tail: str) -> None:
        tail = console_tail.rstrip() or "(the console printed nothing)"
        super().__init__(f"{problem}\n{CONSOLE_FOLLOWS}\n{tail}")
        self.problem = problem
        self.console_tail = console_tail


class GuestError(HarnessError):
    """The guest was reachable and is not any more, or a command in it failed."""


class GuestHungError(GuestError):
    """The guest is there and does not answer, or a step in it neither ends nor blocks."""


class StackMismatchError(GuestError):
    """The storage stack in the guest is not the one that was asked for."""


class AgentError(HarnessError):
    """The agent and the host do not understand each other: a break of the protocol."""


def first_line(text: str) -> str:
    """Return the first line of a message, which says what is the matter."""
    return next(iter(text.splitlines()), "")


def reason_of(message: str) -> str:
    """Return what the messages of equal failures have in common: the message without its console and its numbers."""
    return re.sub(r"0x[0-9a-fA-F]+|\d+", "#", message.partition(CONSOLE_FOLLOWS)[0]).strip()


def logs_of(error: BaseException | None) -> str:
    """Return where the logs of a failure are kept, or why they are not; empty where it has none. What caused it may know."""
    while error is not None:
        if logs := getattr(error, "logs", ""):
            return str(logs)
        error = error.__cause__
    return ""
