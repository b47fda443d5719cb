"""SSH to a guest: one authenticated connection, commands over it, and byte streams to ports of the guest's own loopback.

With ``user_ssh.py`` the only place that knows paramiko. The host key is pinned (made with the image), the client key is the image's;
no agent, no known_hosts, no configuration of the user's takes part. Every wait has a deadline of ours: paramiko's own waits for an
exit status have none.
"""

import base64
import binascii
import contextlib
import itertools
import logging
import shlex
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import paramiko

from harness.errors import GuestError, GuestHungError
from harness.host.deadline import Deadline, wait_until
from harness.host.log import took

log = logging.getLogger(__name__)

#: The cheapest exchange of keys that both sides have: those that resist quantum computers take an emulated guest a tenth of a second.
_KEX = "curve25519-sha256@libssh.org"
_ATTEMPT_S = 30.0
_POLL_S = 0.005


@dataclass(frozen=True)
class SshAddress:
    """Where a guest's SSH is and how both sides know each other. ``host_public_key``: ``ssh-ed25519 AAAA...``."""

    port: int
    client_key: Path
    host_public_key: str
    host: str = "127.0.0.1"
    user: str = "root"


@dataclass(frozen=True)
class CommandResult:
    """A command that ended in the guest."""

    command: str
    status: int
    stdout: str
    stderr: str


class Stream(Protocol):
    """Bytes to and from one port in the guest."""

    def send(self, data: bytes, deadline: Deadline) -> None:
        """Send all of ``data``. Raises GuestError."""

    def receive(self, deadline: Deadline) -> bytes:
        """Return what came, at least one byte. Raises GuestError when the other side is gone or the deadline passes."""


class Shell(Protocol):
    """What most callers need of an SSH connection."""

    def run(self, command: list[str], deadline: Deadline, *, stdin: bytes = b"", check: bool = True) -> CommandResult:
        """Run a command to its end. Raises GuestError: lost, too late or, with ``check``, an exit status that is not 0."""

    def open_stream(self, port: int, deadline: Deadline) -> contextlib.AbstractContextManager[Stream]:
        """A byte stream to a port of the guest's loopback."""


@contextmanager
def connected(address: SshAddress, deadline: Deadline, find_end: Callable[[], str | None] = lambda: None) -> "Iterator[Ssh]":
    """Connect and authenticate, trying again while the guest does not answer yet and ``find_end`` does not say how it ended.

    Raises GuestError when the deadline passes, and at once when the guest shows another key than the pinned one or refuses ours.
    """
    # What paramiko logs of failed attempts is noise: what matters comes back as an error of ours.
    logging.getLogger("paramiko").setLevel(logging.CRITICAL)
    last: list[Exception] = []
    attempts = itertools.count(1)

    def attempt() -> paramiko.Transport | None:
        end = find_end()
        if end is not None:
            raise GuestError(f"the guest ended before it answered on port {address.port}: {end}")
        number = next(attempts)
        try:
            with took(log, logging.DEBUG, f"SSH to port {address.port}, attempt {number}"):
                return _authenticated(address, deadline.within(_ATTEMPT_S))
        except paramiko.AuthenticationException as error:
            if "Authentication failed" not in str(error) and not isinstance(error, paramiko.BadAuthenticationType):
                # paramiko calls it so too when the other side takes too long or hangs up.
                last[:] = [error]
                return None
            raise GuestError(f"the guest at {address.host}:{address.port} refuses the key {address.client_key}: {error}") from error
        except (OSError, EOFError, paramiko.SSHException) as error:
            last[:] = [error]
            return None

    transport = wait_until(attempt, deadline, poll_s=0.1)
    if transport is None:
        why = last[0] if last else "no attempt was finished"
        raise GuestError(f"no SSH to {address.host}:{address.port} within {deadline.limit_s:.0f} s: {why}") from (last[0] if last else None)
    try:
        yield Ssh(transport)
    finally:
        transport.close()


def _authenticated(address: SshAddress, deadline: Deadline) -> paramiko.Transport:
    pinned = parse_public_key(address.host_public_key)
    connection = socket.create_connection((address.host, address.port), timeout=max(deadline.remaining_s, 0.01))
    # An exchange of keys is many small packets: none of them is to wait for the acknowledgement of the one before.
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    transport = paramiko.Transport(connection)
    try:
        transport.banner_timeout = transport.auth_timeout = max(deadline.remaining_s, 0.01)
        options = transport.get_security_options()
        options.key_types = (pinned[0],)
        options.kex = (_KEX,)
        transport.start_client(timeout=max(deadline.remaining_s, 0.01))
        shown = transport.get_remote_server_key()
        if (shown.get_name(), shown.asbytes()) != pinned:
            raise GuestError(f"the guest at {address.host}:{address.port} has another host key than its image: {shown.fingerprint}")
        transport.auth_publickey(address.user, paramiko.Ed25519Key.from_private_key_file(str(address.client_key)))
    except BaseException:
        transport.close()
        raise
    return transport


def parse_public_key(text: str) -> tuple[str, bytes]:
    """Return kind and bytes of a public key line. Raises GuestError."""
    words = text.split()
    try:
        return words[0], base64.b64decode(words[1], validate=True)
    except (IndexError, binascii.Error) as error:
        raise GuestError(f"not a public key line: {text!r}") from error


class Ssh:
    """One authenticated connection (see :func:`connected`). ``whom``: what messages call the other side."""

    def __init__(self, transport: paramiko.Transport, whom: str = "the guest") -> None:
        self._transport, self._whom = transport, whom

    def run(self, command: list[str], deadline: Deadline, *, stdin: bytes = b"", check: bool = True) -> CommandResult:
        line = shlex.join(command)
        with took(log, logging.DEBUG, f"ran over SSH: {line}"), self._session(line, deadline) as channel:
            try:
                with self._closed_at(deadline):
                    channel.exec_command(line)
                result = _run_to_end(channel, line, stdin, deadline, self._whom)
            except (OSError, EOFError, paramiko.SSHException) as error:
                raise GuestError(f"lost {self._whom} during: {line} ({error!r})") from error
        if check and result.status != 0:
            said = "\n".join((result.stderr or result.stdout).rstrip().splitlines()[-15:]) or "(it printed nothing)"
            raise GuestError(f"exit status {result.status} in {self._whom} from: {line}\n{said}")
        return result

    @contextmanager
    def open_stream(self, port: int, deadline: Deadline) -> Iterator[Stream]:
        try:
            channel = self._transport.open_channel(
                "direct-tcpip", ("127.0.0.1", port), ("127.0.0.1", 0), timeout=max(deadline.remaining_s, 0.01)
            )
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise GuestError(f"cannot reach port {port} of the guest's loopback: {error!r}") from error
        try:
            yield SshStream(channel)
        finally:
            channel.close()

    @contextmanager
    def open_terminal(self, columns: int, rows: int, deadline: Deadline) -> Iterator[paramiko.Channel]:
        """An interactive login shell in the guest."""
        with self._session("a login shell", deadline) as channel:
            with self._closed_at(deadline):
                channel.get_pty("xterm-256color", columns, rows)
                channel.invoke_shell()
            yield channel

    @contextmanager
    def _closed_at(self, deadline: Deadline) -> Iterator[None]:
        """Close the connection at the deadline: paramiko waits for the answer to a channel request without any limit."""
        timer = threading.Timer(deadline.remaining_s, self._transport.close)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    @contextmanager
    def _session(self, line: str, deadline: Deadline) -> Iterator[paramiko.Channel]:
        try:
            channel = self._transport.open_session(timeout=max(deadline.remaining_s, 0.01))
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise GuestError(f"lost {self._whom} before: {line} ({error!r})") from error
        try:
            yield channel
        finally:
            channel.close()


def _run_to_end(channel: paramiko.Channel, line: str, stdin: bytes, deadline: Deadline, whom: str) -> CommandResult:
    """Feed and drain all three streams by turns: reading one to its end first deadlocks once the other's window is full."""
    left, out, err = memoryview(stdin), bytearray(), bytearray()
    channel.setblocking(False)
    if not left:
        channel.shutdown_write()

    def moved() -> bool:
        nonlocal left
        progress = True
        while progress:
            progress = False
            if left and channel.send_ready():
                left = left[channel.send(bytes(left[:32768])) :]
                progress = True
                if not left:
                    channel.shutdown_write()
            while channel.recv_ready():
                out.extend(channel.recv(1 << 20))
                progress = True
            while channel.recv_stderr_ready():
                err.extend(channel.recv_stderr(1 << 20))
                progress = True
        ended = channel.exit_status_ready() and (channel.eof_received or channel.closed)
        return bool(ended) and not channel.recv_ready() and not channel.recv_stderr_ready()

    if not wait_until(moved, deadline, _POLL_S):
        raise GuestHungError(f"still running in {whom} after {deadline.limit_s:.0f} s: {line}")
    status = channel.recv_exit_status()
    if status < 0:
        raise GuestError(f"lost {whom} during: {line} (no exit status came)")
    return CommandResult(line, status, out.decode(errors="replace"), err.decode(errors="replace"))


class SshStream:
    """A direct-tcpip channel as a :class:`Stream`."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel

    def send(self, data: bytes, deadline: Deadline) -> None:
        self._channel.settimeout(max(deadline.remaining_s, 0.01))
        try:
            self._channel.sendall(data)
        except TimeoutError as error:
            raise GuestHungError(f"the guest took no bytes for {deadline.limit_s:.0f} s") from error
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise GuestError(f"lost the guest while sending: {error!r}") from error

    def receive(self, deadline: Deadline) -> bytes:
        self._channel.settimeout(max(deadline.remaining_s, 0.01))
        try:
            data = self._channel.recv(1 << 20)
        except TimeoutError as error:
            raise GuestHungError(f"the guest said nothing for {deadline.limit_s:.0f} s") from error
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise GuestError(f"lost the guest while it should answer: {error!r}") from error
        if not data:
            raise GuestError("the guest closed the connection while it should answer")
        return data
