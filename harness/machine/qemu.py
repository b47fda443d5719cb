"""A QEMU process with its two lines, QMP and console: started, asked, and ended on every path."""

import contextlib
import logging
import re
import shlex
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from harness.errors import MachineError
from harness.host import process
from harness.host.deadline import Deadline, wait_until
from harness.host.memory import count_kills, find_room
from harness.machine.command import GUEST_SSH_PORT, Channels
from harness.machine.console import Console
from harness.machine.ending import Ending, EndKind, classify_ending
from harness.machine.qmp import Qmp

log = logging.getLogger(__name__)

#: QEMU's own answers do not depend on the guest, only on how busy the host is.
QMP_LIMIT_S = 30.0
#: How long QEMU may take to end when asked, before it is killed.
QUIT_LIMIT_S = 5.0


class _Process(Protocol):
    """What a machine needs of its QEMU process."""

    pid: int
    returncode: int | None

    def poll(self) -> int | None: ...
    def kill(self) -> None: ...


class Qemu:
    """A QEMU process with its two lines, QMP and console, from start to end."""

    def __init__(self, command: tuple[str, ...], running: _Process, qmp: Qmp, console: Console, logs: Path) -> None:
        self.command = command
        self.qmp = qmp
        self.console = console
        self.logs = logs
        self._process = running
        self._stopped = False
        self._drained = False
        self._kills_before = count_kills()

    @property
    def pid(self) -> int:
        return self._process.pid

    def ending(self) -> Ending:
        """Return how the guest ended, as far as can be seen now. Of a process that is gone, all that it said is in first."""
        status = self._process.poll()
        if status is not None:
            self._drain()
        events = [dict(event) for event in self.qmp.events()]
        ending = classify_ending(events, status, self.console.reports(), self._stopped)
        cause = self._cause_of_death() if ending.kind is EndKind.QEMU_DIED else ""
        return replace(ending, reason=f"{ending.reason}: {cause}") if cause else ending

    def _cause_of_death(self) -> str:
        """Return what is known to make the host's kernel end QEMU by a signal, where it shows; else an empty text."""
        if self._process.returncode == -signal.SIGBUS:
            return "SIGBUS, as where the file system that its memory lies on is full, or a file there was cut"
        if self._process.returncode == -signal.SIGKILL and count_kills() > self._kills_before:
            return f"this computer's kernel killed it for want of memory, as its control group counts; {find_room().describe()}"
        return ""

    def wait_ended(self, deadline: Deadline) -> Ending:
        """Wait for QEMU to end, then return how; EndKind.RUNNING when the deadline passed first."""
        wait_until(lambda: self._process.poll() is not None, deadline)
        return self.ending()

    def stop(self) -> None:
        """End QEMU: ask it to quit, then kill it. Never raises an opinion; ``ending`` has the story."""
        if self._process.poll() is None:
            self._stopped = self.ending().kind is EndKind.RUNNING
            try:
                self.qmp.execute("quit", deadline=Deadline.after(QUIT_LIMIT_S))
            except MachineError as error:
                log.warning("QEMU, process %d, did not take the request to quit: %s", self.pid, error)
        wait_until(lambda: self._process.poll() is not None, Deadline.after(QUIT_LIMIT_S))
        if self._process.poll() is None:
            log.warning("QEMU, process %d, did not quit: killing it", self.pid)
            self._process.kill()
            # Only a process that is stuck inside the kernel outlasts this; the reaper has it then.
            wait_until(lambda: self._process.poll() is not None, Deadline.after(QUIT_LIMIT_S))
        log.info("QEMU, process %d, is gone: %s", self.pid, self.ending().reason)

    def _drain(self) -> None:
        # The last words of a process that is gone are still on their way through two sockets.
        if not self._drained:
            self.console.wait_closed(QUIT_LIMIT_S)
            self.qmp.wait_closed(Deadline.after(QUIT_LIMIT_S))
        self._drained = True


@contextlib.contextmanager
def running_qemu(make_command: Callable[[Channels], Sequence[str]], logs: Path) -> Iterator[Qemu]:
    """Start QEMU with both lines connected, its guest waiting for ``cont``; end it at the end, on every path."""
    qmp_ours, qmp_theirs = socket.socketpair()
    console_ours, console_theirs = socket.socketpair()
    with contextlib.ExitStack() as lifetime:
        qmp = lifetime.enter_context(Qmp(qmp_ours, logs / "qmp.jsonl"))
        console = lifetime.enter_context(Console(console_ours, logs / "console.log"))
        with qmp_theirs, console_theirs, (logs / "qemu.stderr").open("wb") as errors:
            fds = (qmp_theirs.fileno(), console_theirs.fileno())
            command = tuple(make_command(Channels(*fds)))
            (logs / "command").write_text(shlex.join(command) + "\n")
            running = process.start(command, stderr=errors.fileno(), pass_fds=fds)
            log.info("QEMU is process %d", running.pid)
            log.debug("the command of process %d: %s", running.pid, shlex.join(command))
        qemu = Qemu(command, running, qmp, console, logs)
        lifetime.callback(qemu.stop)
        yield qemu


def connect_qmp(qemu: Qemu, deadline: Deadline) -> None:
    """Wait for QEMU's greeting. Raises MachineError with what QEMU said instead."""
    try:
        qemu.qmp.connect(deadline.within(QMP_LIMIT_S))
    except MachineError as error:
        ending = qemu.wait_ended(Deadline.after(1))
        log.warning("no greeting from QEMU: %s", error)
        said = (qemu.logs / "qemu.stderr").read_text(errors="replace").strip() or "(nothing)"
        raise MachineError(f"QEMU did not start: {ending.reason}; it said:\n{said}") from error


def read_ssh_port(qmp: Qmp, deadline: Deadline) -> int:
    """Ask QEMU which loopback port it picked for the guest's SSH. Raises MachineError."""
    said = str(qmp.execute("human-monitor-command", {"command-line": "info usernet"}, deadline=deadline))
    port = find_forwarded_port(said, GUEST_SSH_PORT)
    if port is None:
        raise MachineError(f"QEMU lists no forwarded port for the guest's port {GUEST_SSH_PORT}; it said:\n{said.strip()}")
    return port


def find_forwarded_port(usernet: str, guest_port: int) -> int | None:
    """Return the host port that ``info usernet`` shows for ``guest_port``."""
    for line in usernet.splitlines():
        match = re.match(r"\s*TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)\s+\S+\s+(\d+)\s", line)
        if match and int(match[2]) == guest_port:
            return int(match[1])
    return None
