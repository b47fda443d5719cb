"""A person's terminal joined to a shell in a guest."""

import contextlib
import os
import select
import shutil
import sys
import termios
import tty
from collections.abc import Iterator

from harness.errors import GuestError
from harness.guest.session import GuestSession
from harness.host.deadline import Deadline

_CHUNK = 65536


def join_terminal(session: GuestSession, deadline: Deadline) -> int:
    """Join standard input and output to a login shell in the guest until it ends; return its exit status.

    Input that is not a terminal is fed to the shell, which then ends. Raises GuestError when the guest is lost.
    """
    if session.ssh is None:
        raise GuestError("this guest has no SSH connection for a shell")
    size = shutil.get_terminal_size()
    with session.ssh.open_terminal(size.columns, size.lines, deadline) as channel, _raw_terminal():
        sources = [sys.stdin.fileno()]
        while True:
            columns, rows = shutil.get_terminal_size()
            if (columns, rows) != (size.columns, size.lines):
                size = os.terminal_size((columns, rows))
                channel.resize_pty(columns, rows)
            # Wakes up now and then only to notice that the window has another size.
            ready, _, _ = select.select([channel, *sources], [], [], 1.0)
            if channel in ready:
                said = channel.recv(_CHUNK)
                if not said:
                    return channel.recv_exit_status() if channel.exit_status_ready() else 0
                _write_all(said)
            if sys.stdin.fileno() in ready:
                typed = os.read(sys.stdin.fileno(), _CHUNK)
                if not typed:
                    sources.clear()
                # The end of the input is the key that ends a shell: Ctrl-D.
                channel.sendall(typed or b"\x04")


def _write_all(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


@contextlib.contextmanager
def _raw_terminal() -> Iterator[None]:
    """Hand every key to the guest, Ctrl-C included; the terminal is itself again afterwards."""
    if not sys.stdin.isatty():
        yield
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
