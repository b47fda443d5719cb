"""A scripted agent: answers requests by what they ask, and keeps them."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from harness.errors import GuestError
from harness.guest.ssh import CommandResult, Stream
from harness.host.deadline import Deadline

Answer = dict[str, Any] | Callable[[dict[str, Any]], dict[str, Any]]


@dataclass
class FakeStream:
    """The far end of a link. ``script`` has the answer of each kind of request; ``raw`` lines go out instead, in order."""

    script: dict[str, Answer] = field(default_factory=dict)
    raw: list[bytes] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    _out: bytes = b""

    def send(self, data: bytes, deadline: Deadline) -> None:
        request = json.loads(data)
        self.asked.append(request)
        if self.raw:
            self._out += self.raw.pop(0)
        elif request["do"] in self.script:
            answer = self.script[request["do"]]
            said = answer(request) if callable(answer) else answer
            self._out += json.dumps({"id": request["id"], "ok": True, **said}).encode() + b"\n"

    def receive(self, deadline: Deadline) -> bytes:
        if not self._out:
            raise GuestError("the guest closed the connection while it should answer")
        # In small pieces, as a network may deliver it.
        piece, self._out = self._out[:50], self._out[50:]
        return piece

    def commands(self) -> list[list[str]]:
        return [c["argv"] for request in self.asked if request["do"] == "commands" for c in request["commands"]]


@dataclass
class FakeShell:
    """An SSH connection that runs nothing: each command gets the next output."""

    outputs: list[str]
    stream: FakeStream = field(default_factory=FakeStream)
    ran: list[tuple[list[str], bytes]] = field(default_factory=list)

    def run(self, command: list[str], deadline: Deadline, *, stdin: bytes = b"", check: bool = True) -> CommandResult:
        self.ran.append((command, stdin))
        return CommandResult(" ".join(command), 0, self.outputs.pop(0), "")

    @contextmanager
    def open_stream(self, port: int, deadline: Deadline) -> Iterator[Stream]:
        yield self.stream


def soon() -> Deadline:
    return Deadline.after(120)
