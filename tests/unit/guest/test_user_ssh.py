"""SSH as the user has set it up, against a real server in a thread: known hosts, keys, configuration, and each way to be refused."""

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest

from harness.errors import GuestError, HostError, UsageError
from harness.guest.ssh import SshAddress
from harness.guest.user_ssh import UserAddress, connected_as_user, parse_address
from harness.host.deadline import Deadline
from tests.unit.guest.fake_ssh import make_key, ssh_server


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a key and nothing else, and no agent."""
    (tmp_path / ".ssh").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return tmp_path


@pytest.fixture
def server(home: Path) -> Iterator[SshAddress]:
    with ssh_server(make_key(home / ".ssh" / "id_ed25519"), make_key(home / "host")) as address:
        yield address


def know(home: Path, port: int, key: str) -> None:
    (home / ".ssh" / "known_hosts").write_text(f"[127.0.0.1]:{port} {key}\n")


def at(server: SshAddress) -> UserAddress:
    return UserAddress("127.0.0.1", "root", server.port)


def why_not(address: UserAddress, seconds: float = 60) -> str:
    with pytest.raises(HostError) as caught, connected_as_user(address, Deadline.after(seconds)):
        pass
    assert caught.value.__cause__ is not caught.value  # whoever looks for the first cause would never end
    return str(caught.value)


def test_a_known_host_lets_the_users_key_in(home: Path, server: SshAddress) -> None:
    know(home, server.port, server.host_public_key)
    with connected_as_user(at(server), Deadline.after(60)) as ssh:
        assert ssh.run(["cat"], Deadline.after(60), stdin=b"words").stdout == "words"
        with pytest.raises(GuestError, match=r"lost root@127\.0\.0\.1 during: die"):
            ssh.run(["die"], Deadline.after(60))


def test_the_configuration_names_host_port_user_and_key(home: Path, server: SshAddress) -> None:
    (home / ".ssh" / "id_ed25519").rename(home / "key")
    lines = ["Host far", " HostName 127.0.0.1", f" Port {server.port}", " User root", f" IdentityFile {home}/key"]
    (home / ".ssh" / "config").write_text("\n".join(lines))
    know(home, server.port, server.host_public_key)
    with connected_as_user(UserAddress("far"), Deadline.after(60)) as ssh:
        assert ssh.run(["cat"], Deadline.after(60), stdin=b"words").stdout == "words"


def test_a_host_that_is_not_known_is_refused_with_the_command_that_adds_it(home: Path, server: SshAddress) -> None:
    said = why_not(at(server))
    assert "root@127.0.0.1 is not known here (~/.ssh/known_hosts). It shows the ssh-ed25519 key SHA256:" in said
    assert said.endswith(f"If that is its key, add it: ssh-keyscan -p {server.port} 127.0.0.1 >> ~/.ssh/known_hosts")
    assert not (home / ".ssh" / "known_hosts").exists()


def test_a_host_that_shows_another_key_is_refused(home: Path, server: SshAddress) -> None:
    know(home, server.port, make_key(home / "other").public)
    said = why_not(at(server))
    assert "root@127.0.0.1 shows another host key than the known one: ssh-ed25519 SHA256:" in said
    assert said.endswith(f"ssh-keygen -R '[127.0.0.1]:{server.port}'")


def test_a_key_that_is_not_accepted_is_said_to_be_that(home: Path, server: SshAddress) -> None:
    know(home, server.port, server.host_public_key)
    make_key(home / ".ssh" / "id_ed25519")
    said = why_not(at(server))
    assert "root@127.0.0.1 lets nobody in with the keys that were offered" in said
    assert said.endswith(f"Does ssh -o BatchMode=yes -p {server.port} root@127.0.0.1 true work?")


def test_a_user_without_a_key_is_told_so(home: Path, server: SshAddress) -> None:
    know(home, server.port, server.host_public_key)
    (home / ".ssh" / "id_ed25519").unlink()
    assert why_not(at(server)) == "there is no key to offer to root@127.0.0.1: neither an agent, nor a key in ~/.ssh or ~/.ssh/config"


def test_a_port_where_nobody_listens_is_named(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert why_not(UserAddress("127.0.0.1", "root", port)).startswith("no connection to 127.0.0.1 port ")


def test_a_machine_that_accepts_and_says_nothing_is_no_ssh(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert re.match(r"no SSH to 127\.0\.0\.1 port \d+: ", why_not(UserAddress("127.0.0.1", "root", listener.getsockname()[1]), 0.5))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (socket.gaierror(-2, "Name or service not known"), "no address is known for far: Name or service not known"),
        (TimeoutError("timed out"), "far port 22 did not answer within 60 s"),
        (paramiko.PasswordRequiredException("the key is encrypted"), "far lets nobody in with the keys that were offered (the key is enc"),
        (EOFError(), "no SSH to far port 22: EOFError()"),
    ],
)
def test_what_else_can_become_of_a_connection(home: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(paramiko.SSHClient, "connect", fail)
    assert why_not(UserAddress("far")).startswith(said)


@pytest.mark.parametrize(
    ("text", "said"),
    [("Host far\n Port many\n", "~/.ssh/config names a port that is no number: many"), ("nonsense\n", "config cannot be read: ")],
)
def test_a_configuration_that_cannot_be_meant_is_an_error(home: Path, text: str, said: str) -> None:
    (home / ".ssh" / "config").write_text(text)
    assert said in why_not(UserAddress("far"))


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("far", UserAddress("far")),
        ("me@far", UserAddress("far", "me")),
        ("me@far.example:2222", UserAddress("far.example", "me", 2222)),
        ("[fe80::1]:22", UserAddress("fe80::1", None, 22)),
        ("root@::1", UserAddress("::1", "root")),
    ],
)
def test_a_machine_is_written_as_for_ssh(text: str, address: UserAddress) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", "me@", "far:0", "far:99999", "two words", "-oProxyCommand=x"])
def test_what_is_no_machine_is_wrong_usage(text: str) -> None:
    with pytest.raises(UsageError, match="not \\[USER@\\]MACHINE\\[:PORT\\]: "):
        parse_address(text)
