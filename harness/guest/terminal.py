"""A person's shell in the guest: this terminal, or whatever standard input is, connected to a login shell over SSH."""

import contextlib
import os
import select
import shutil
import termios
import tty
from collections.abc import Iterator
from typing import Protocol

from harness.guest.ssh import Ssh
from harness.host.deadline import Deadline, wait_until

_CHUNK = 65536
#: The key that ends a shell's input: Ctrl-D.
_END_OF_INPUT = b"\x04"
_STATUS_S = 2.0
#: How often the size of the window is looked at.
_RESIZE_S = 1.0


class Terminal(Protocol):
    """What :func:`relay` needs of the guest's side."""

    def fileno(self) -> int: ...
    def recv(self, size: int) -> bytes: ...
    def sendall(self, data: bytes) -> None: ...
    def resize_pty(self, width: int, height: int) -> None: ...


def interact(ssh: Ssh, deadline: Deadline, *, stdin: int = 0, stdout: int = 1) -> int:
    """Connect ``stdin`` and ``stdout`` to a login shell until that ends, and return its exit status.

    Input that is no terminal is fed to the shell, which then ends. ``deadline`` is for the opening only. Raises GuestError when the
    guest is lost.
    """
    size = shutil.get_terminal_size()
    with ssh.open_terminal(size.columns, size.lines, deadline) as channel, _raw(stdin):
        relay(channel, stdin, stdout)
        # The status may come just behind the end of the output.
        return channel.recv_exit_status() if wait_until(channel.exit_status_ready, Deadline.after(_STATUS_S)) else 0


def relay(terminal: Terminal, stdin: int, stdout: int) -> None:
    """Copy bytes both ways until the guest's side ends; the end of ``stdin`` ends the shell's input."""
    sources = [terminal.fileno(), stdin]
    size = shutil.get_terminal_size()
    while True:
        ready, _, _ = select.select(sources, [], [], _RESIZE_S)
        now = shutil.get_terminal_size()
        if now != size:
            size = now
            terminal.resize_pty(size.columns, size.lines)
        if terminal.fileno() in ready:
            data = terminal.recv(_CHUNK)
            if not data:
                return
            while data:
                data = data[os.write(stdout, data) :]
        if stdin in ready:
            typed = os.read(stdin, _CHUNK)
            terminal.sendall(typed or _END_OF_INPUT)
            if not typed:
                sources.remove(stdin)


@contextlib.contextmanager
def _raw(descriptor: int) -> Iterator[None]:
    """Hand every key to the guest, Ctrl-C included; the terminal is itself again afterwards."""
    if not os.isatty(descriptor):
        yield
        return
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
