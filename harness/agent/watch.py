"""A process of a program as its supervisor sees it from outside: what it says, how it ends, where it sleeps."""

import contextlib
import os
import select
import signal
import socket

from harness.agent.actors import DONE, SAID
from harness.agent.records import Record, Records, unpacked
from harness.agent.syscalls import read_text


class Watched:
    """What the supervisor knows of one process of the program.

    ``busy``: the step that it does now, or ``end``, that of its order, when all outcomes are there and it has not said that it is done;
    None when it has no order.
    """

    def __init__(
        self, name: str, pid: int, channel: socket.socket, records: Records, mappings: dict[str, int], host: socket.socket | None
    ) -> None:
        self.name, self.pid, self.channel, self.records, self.mappings = name, pid, channel, records, dict(mappings)
        self.pidfd = os.pidfd_open(pid)
        self.waiting = select.poll()
        self.waiting.register(channel, select.POLLIN)
        self.waiting.register(self.pidfd, select.POLLIN)
        if host is not None:
            self.waiting.register(host, select.POLLRDHUP)
        self.signal: str | None = None
        self.dead = False
        self.stuck = False
        self.busy: int | None = None
        self.end = 0
        self._said = bytearray()

    def hear(self) -> tuple[list[Record], bool]:
        """Return the outcomes that are there and were not yet taken, and whether the actor is done with its order."""
        said = self._said
        self._collect()
        found = list(self.records.take())
        if len(said) < SAID.size:
            return found, False
        (length,) = SAID.unpack_from(said)
        if length == DONE:
            said.clear()
            return found, True
        if len(said) < SAID.size + length:
            return found, False
        found.append(unpacked(said[SAID.size :]))
        said.clear()
        self.records.restart()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has ended meanwhile, which is noted elsewhere
            self.channel.sendall(b"g")
        return found, False

    def _collect(self) -> None:
        """Take what the actor has said, as far as it is there. Nothing is waited for: that an actor is gone is not heard here, because
        others have its end of the channel too."""
        with contextlib.suppress(BlockingIOError, ConnectionResetError):
            while piece := self.channel.recv(1 << 20, socket.MSG_DONTWAIT):
                self._said += piece

    def note_end(self) -> None:
        """Note how the process ended. It is left to be reaped with the rest: until then its number names its group."""
        ending = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        self.dead = True
        if ending is not None and ending.si_code in (os.CLD_KILLED, os.CLD_DUMPED):
            number = ending.si_status
            self.signal = next((s.name for s in signal.Signals if s == number), f"signal {number}")


class Sample:
    """Where a process is: asleep or not, in which system call, after how many voluntary switches."""

    def __init__(self, pid: int) -> None:
        self.state, self.switches, self.syscall = "?", "", ""
        with contextlib.suppress(OSError, IndexError):
            self.state = read_text(f"/proc/{pid}/stat").rpartition(")")[2].split()[0]
            self.switches = next(
                line for line in read_text(f"/proc/{pid}/status").splitlines() if line.startswith("voluntary_ctxt_switches")
            )
            self.syscall = read_text(f"/proc/{pid}/syscall").strip()

    def is_same_sleep(self, other: "Sample | None") -> bool:
        """Whether nothing moved since ``other``."""
        if other is None or self.state not in "SD":
            return False
        return (self.state, self.switches, self.syscall) == (other.state, other.switches, other.syscall)

    def attributes(self, pid: int) -> dict[str, int | str]:
        number = self.syscall.split(" ")[0] if self.syscall else ""
        found: dict[str, int | str] = {"state": self.state, "syscall": int(number) if number.lstrip("-").isdigit() else number}
        with contextlib.suppress(OSError):
            found["wchan"] = read_text(f"/proc/{pid}/wchan").strip()
        return found
