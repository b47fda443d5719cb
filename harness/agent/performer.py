"""What a process of a program has: its names, its place, its buffers; and who does which operation."""

import ctypes
import os
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from harness.agent.content import decode
from harness.agent.memory import Guards, Mapping, Scratch
from harness.agent.outcome import MissingNameError, Outcome, ProtocolError, failed, returned
from harness.agent.syscalls import call
from harness.ops.tag import tag_bytes
from harness.ops.words import Flag, Operation


class Ends:
    """Descriptors under one name: ``read`` is the end that is read from, ``write`` the other (a file: the same)."""

    def __init__(self, read: int, write: int) -> None:
        self.read, self.write = read, write

    def close(self) -> None:
        """Close what is still open, without an outcome."""
        for descriptor in {self.read, self.write} - {-1}:
            call("close", descriptor)


class Place:
    """Where the program works: the root of each volume (a folder or a node) and its device."""

    def __init__(self, roots: dict[str, str], devices: dict[str, str]) -> None:
        self.roots, self.devices = roots, devices
        self.folders = {role for role, root in roots.items() if os.path.isdir(root)}

    def path(self, text: str) -> bytes:
        role, colon, name = text.partition(":")
        if not colon:
            role, name = "main", text
        if role not in self.roots:
            raise ProtocolError(f"the path {text!r} names the volume {role!r}: known are {', '.join(self.roots)}")
        root = self.roots[role]
        return os.fsencode(os.path.join(root, name) if role in self.folders else root)

    def device(self, role: str) -> tuple[bytes, bytes]:
        if role not in self.roots or role not in self.devices:
            raise ProtocolError(f"unknown volume {role!r}: known are {', '.join(self.devices)}")
        return os.fsencode(self.devices[role]), os.fsencode(self.roots[role])


class Performer:
    """The names that a program has made, as one process of it has them. ``made``: what they stand for or stood for."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.names: dict[str, Any] = {}
        self.made: list[Ends | Mapping] = []
        self.scratch = Scratch()
        self.guards = Guards()
        self.writer = 0
        self.remote: tuple[int, int] = (0, 0)

    def add(self, name: str, thing: Ends | Mapping) -> None:
        """Have the name stand for what a step has made."""
        self.names[name] = thing
        self.made.append(thing)

    def give_back(self) -> None:
        """Close and unmap all that was made, so that this process is as it was when it had no name yet."""
        for thing in self.made:
            thing.close()
        self.made.clear()
        self.names.clear()
        self.guards.close()
        self.scratch.shrink()

    def named(self, name: str) -> Any:
        try:
            return self.names[name]
        except KeyError:
            raise MissingNameError(name) from None

    def source(self, name: str) -> int:
        return int(self.named(name).read)

    def target(self, name: str) -> int:
        return int(self.named(name).write)

    def mapping(self, name: str) -> Mapping:
        found = self.named(name)
        if not isinstance(found, Mapping):
            raise ProtocolError(f"{name!r} is not a mapping")
        return found

    def tagged(self, length: int, shift: int = 0, start: int = 0) -> int:
        return self.scratch.filled(tag_bytes(self.writer, start, length), shift)

    def outgoing(self, length: int, shift: int, from_: str | None, from_offset: int) -> int:
        if from_ is None:
            return self.tagged(length, shift)
        return self.mapping(from_).address + from_offset

    def arrived(self, result: int, address: int, into: str | None = None) -> Outcome:
        """The outcome of a call that reads into a private buffer: its data; into a mapping: none."""
        if result < 0:
            return failed(-result)
        if into is not None:
            return returned(result)
        return returned(result, data=decode(ctypes.string_at(address, result)))

    def incoming(self, length: int, shift: int, into: str | None, into_offset: int) -> int:
        if into is None:
            return self.scratch.poisoned(length, shift)
        return self.mapping(into).address + into_offset


def bits(flags: Iterable[Flag]) -> int:
    """Return the bits of ``flags``, or'ed."""
    value = 0
    for flag in flags:
        value |= flag.bits
    return value


Doer = TypeVar("Doer", bound=Callable[..., Outcome])

#: Who does an operation, by its class: every ``do_`` function of the families (harness/agent/doers.py).
DOERS: dict[type[Operation], Callable[[Performer, Any], Outcome]] = {}


def doer(function: Doer) -> Doer:
    """Register what does the operation that the decorated function takes."""
    DOERS[function.__annotations__["op"]] = function
    return function
