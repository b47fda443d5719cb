"""What an actor hands over to its supervisor: outcomes in memory that both share, and that outlives the actor.

The memory is there and touched before a program begins, so that it does not grow while one runs; each actor still fills its own page tables
of it. It lies between guards. An actor adds an outcome after each step and says on its channel only that all are there; the supervisor
sleeps meanwhile, and finds the outcomes also when the actor is gone.
"""

import ctypes
import marshal
import struct
from collections.abc import Iterator
from typing import Any

from harness.agent.memory import SHARED_MEMORY, between_guards
from harness.agent.outcome import Outcome, ProtocolError

#: Of one actor. What does not fit is handed over through its channel.
RECORDS_BYTES = 64 * 1024
_HALTED, _INSIDE, _USED, _FIRST = 0, 1, 8, 16
_LENGTH = struct.Struct("=I")


class OverwrittenError(ProtocolError):
    """The memory in which outcomes are handed over has something else in it. That is the agent's fault or the program's."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"the memory in which the agent hands outcomes over was written over: {problem}")


class Record:
    """The outcome of the step ``index``, and what the supervisor must know beside it: ``pid`` of the process that it made, or the
    ``mapping`` that it made at ``address`` or (None) removed."""

    def __init__(self, index: int, outcome: Outcome, pid: int = 0, mapping: str | None = None, address: int | None = None) -> None:
        self.index, self.outcome, self.pid, self.mapping, self.address = index, outcome, pid, mapping, address

    def packed(self) -> bytes:
        return marshal.dumps((self.index, self.outcome, self.pid, self.mapping, self.address))


def unpacked(data: Any) -> Record:
    """Return the record in what :meth:`Record.packed` made. Raises OverwrittenError."""
    try:
        return Record(*marshal.loads(data))
    except (ValueError, EOFError, TypeError) as error:
        raise OverwrittenError(f"{bytes(data[:16]).hex()} begins no outcome ({error})") from error


class Records:
    """One actor's part of the memory: two marks, and the outcomes of the steps that it was last told to do."""

    def __init__(self, address: int) -> None:
        self.address = address
        self._view = memoryview((ctypes.c_ubyte * RECORDS_BYTES).from_address(address)).cast("B")
        # Written at once, as the other side may look at any moment: struct.pack_into clears what it is about to write.
        self._used = ctypes.c_uint64.from_address(address + _USED)
        self._at = _FIRST

    def clear(self) -> None:
        """Make the part as it was in the beginning. Only while no actor has it."""
        self._view[_HALTED] = self._view[_INSIDE] = 0
        self.restart()

    def restart(self) -> None:
        """Forget the outcomes: both sides do so before the next steps."""
        self._at = _FIRST
        self._used.value = _FIRST

    def inside_byte(self) -> "ctypes.c_ubyte":
        """Return the byte that says whether the actor is in the operation of a step."""
        return ctypes.c_ubyte.from_address(self.address + _INSIDE)

    def add(self, packed: bytes) -> bool:
        """Add an outcome; False where there is no room for it."""
        begin = self._at + _LENGTH.size
        end = begin + len(packed)
        if end > RECORDS_BYTES:
            return False
        _LENGTH.pack_into(self._view, self._at, len(packed))
        self._view[begin:end] = packed
        self._at = end
        self._used.value = end
        return True

    def take(self) -> Iterator[Record]:
        """Yield what was added since the last time. Raises OverwrittenError."""
        used = self._used.value
        if not self._at <= used <= RECORDS_BYTES:
            raise OverwrittenError(f"outcomes that were taken up to byte {self._at} end at {used}")
        while self._at < used:
            begin = self._at + _LENGTH.size
            (length,) = _LENGTH.unpack_from(self._view, self._at)
            if begin + length > used:
                raise OverwrittenError(f"an outcome of {length} bytes begins at {begin}, and all end at {used}")
            self._at = begin + length
            yield unpacked(self._view[begin : self._at])

    @property
    def was_inside(self) -> bool:
        return self._view[_INSIDE] != 0

    @property
    def is_halted(self) -> bool:
        return self._view[_HALTED] != 0

    def halt(self) -> None:
        """Have the actor begin no other step."""
        self._view[_HALTED] = 1


class RecordsPool:
    """The parts of all actors of a session's programs, which use them one after the other."""

    def __init__(self) -> None:
        self._parts: list[Records] = []

    def lend(self, names: list[str]) -> dict[str, Records]:
        """Return an empty part for each of the names, made and touched where there is none yet."""
        while len(self._parts) < len(names):
            address = between_guards(RECORDS_BYTES, SHARED_MEMORY)
            ctypes.memset(address, 0, RECORDS_BYTES)
            self._parts.append(Records(address))
        for part in self._parts[: len(names)]:
            part.clear()
        return dict(zip(names, self._parts, strict=False))
