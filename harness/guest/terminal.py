"""A person's shell in the guest: this terminal, connected to a login shell over SSH."""

import contextlib
import os
import select
import termios
import tty
from collections.abc import Iterator
from typing import Protocol

from harness.errors import UsageError
from harness.guest.ssh import Ssh
from harness.host.deadline import Deadline


class Terminal(Protocol):
    """What :func:`relay` needs of the guest's side."""

    def fileno(self) -> int: ...
    def recv(self, size: int) -> bytes: ...
    def sendall(self, data: bytes) -> None: ...


def interact(ssh: Ssh, deadline: Deadline, *, stdin: int = 0, stdout: int = 1) -> None:
    """Connect the terminal at ``stdin`` and ``stdout`` to a login shell until that ends.

    ``deadline`` is for the opening only. Raises UsageError where ``stdin`` is no terminal, GuestError when the guest is lost.
    """
    if not os.isatty(stdin):
        raise UsageError("a shell in the guest needs a terminal: standard input is none")
    size = os.get_terminal_size(stdout)
    with ssh.open_terminal(size.columns, size.lines, deadline) as channel, _raw(stdin):
        relay(channel, stdin, stdout)


def relay(terminal: Terminal, stdin: int, stdout: int) -> None:
    """Copy bytes both ways until the guest's side ends; the end of ``stdin`` only ends that direction."""
    sources = [terminal.fileno(), stdin]
    while True:
        ready, _, _ = select.select(sources, [], [])
        if terminal.fileno() in ready:
            data = terminal.recv(65536)
            if not data:
                return
            while data:
                data = data[os.write(stdout, data) :]
        if stdin in ready:
            typed = os.read(stdin, 65536)
            if typed:
                terminal.sendall(typed)
            else:
                sources.remove(stdin)


@contextlib.contextmanager
def _raw(descriptor: int) -> Iterator[None]:
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
