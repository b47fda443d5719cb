"""An SSH server in a thread: one key pair each, scripted commands, and an echo port behind direct-tcpip."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import paramiko
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from paramiko.common import AUTH_FAILED, AUTH_SUCCESSFUL, OPEN_FAILED_CONNECT_FAILED, OPEN_SUCCEEDED

from harness.guest.ssh import SshAddress


@dataclass(frozen=True)
class KeyPair:
    path: Path
    public: str


def make_key(path: Path) -> KeyPair:
    key = Ed25519PrivateKey.generate()
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    return KeyPair(path, key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode())


class _Server(paramiko.ServerInterface):
    """``exit N``, ``cat``, ``flood``, ``hang`` and ``die`` are the commands; port 7 echoes, no other is open."""

    def __init__(self, client_public: str) -> None:
        self._client = client_public
        self.forwarded: set[int] = set()

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        same = f"{key.get_name()} {key.get_base64()}" == self._client
        return AUTH_SUCCESSFUL if same else AUTH_FAILED

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return OPEN_SUCCEEDED

    def check_channel_direct_tcpip_request(self, chanid: int, origin: tuple[str, int], destination: tuple[str, int]) -> int:
        self.forwarded.add(chanid)
        return OPEN_SUCCEEDED if destination == ("127.0.0.1", 7) else OPEN_FAILED_CONNECT_FAILED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        threading.Thread(target=_play, args=(channel, command.decode().split()), daemon=True).start()
        return True


def _play(channel: paramiko.Channel, words: list[str]) -> None:
    with contextlib.suppress(OSError, EOFError):
        status = 0
        # Input ends after the answer to the request for the command has arrived, so nothing overtakes that.
        while data := channel.recv(65536):
            if words[0] == "cat":
                channel.sendall(data)
        if words[0] == "cat":
            pass
        elif words[0] == "flood":
            for _ in range(100):
                channel.sendall_stderr(b"e" * 40_000)
                channel.sendall(b"o" * 40_000)
        elif words[0] == "hang":
            return
        elif words[0] == "die":
            channel.get_transport().close()
            return
        else:
            channel.sendall_stderr(b"the reason\n")
            status = int(words[1])
        channel.send_exit_status(status)
        channel.close()


def _echo_channel(channel: paramiko.Channel) -> None:
    with contextlib.suppress(OSError, EOFError):
        while data := channel.recv(65536):
            if data.startswith(b"deaf"):  # what was sent behind it may arrive with it
                return
            if data.endswith(b"quit"):
                channel.close()
                return
            if data != b"hush":
                channel.sendall(data)


@contextlib.contextmanager
def ssh_server(client: KeyPair, host: KeyPair, refusals: int = 0) -> Iterator[SshAddress]:
    """Serve until the block ends. The first ``refusals`` connections are closed at once, as a guest does that still boots."""
    stop = threading.Event()
    transports: list[paramiko.Transport] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)

        def serve() -> None:
            left = refusals
            while not stop.is_set():
                try:
                    connection, _ = listener.accept()
                except OSError:
                    continue
                if left:
                    left -= 1
                    connection.close()
                    continue
                transport = paramiko.Transport(connection)
                transport.add_server_key(paramiko.Ed25519Key.from_private_key_file(str(host.path)))
                transports.append(transport)
                with contextlib.suppress(paramiko.SSHException, EOFError, OSError):
                    server = _Server(client.public)
                    transport.start_server(server=server)
                    threading.Thread(target=_accept, args=(transport, server), daemon=True).start()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield SshAddress(listener.getsockname()[1], client.path, host.public)
        finally:
            stop.set()
            thread.join()
            for transport in transports:
                transport.close()


def _accept(transport: paramiko.Transport, server: _Server) -> None:
    while transport.is_active():
        channel = transport.accept(0.2)
        # A session plays its command in a thread of its own; a forwarded channel echoes.
        if channel is not None and channel.get_id() in server.forwarded:
            threading.Thread(target=_echo_channel, args=(channel,), daemon=True).start()
