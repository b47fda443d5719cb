"""SSH against a real server in a thread: keys, streams, deadlines, and connections that break."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import GuestError
from harness.guest.ssh import Ssh, SshAddress, connected, parse_public_key
from harness.guest.terminal import relay
from harness.host.deadline import Deadline, wait_until
from tests.unit.guest.fake_ssh import KeyPair, make_key, ssh_server


def soon() -> Deadline:
    return Deadline.after(120)


@pytest.fixture
def keys(tmp_path: Path) -> tuple[KeyPair, KeyPair]:
    return make_key(tmp_path / "client"), make_key(tmp_path / "host")


@pytest.fixture
def address(keys: tuple[KeyPair, KeyPair]) -> Iterator[SshAddress]:
    with ssh_server(*keys) as server:
        yield server


@pytest.fixture
def ssh(address: SshAddress) -> Iterator[Ssh]:
    with connected(address, soon()) as connection:
        yield connection


def test_a_command_gives_its_status_and_both_streams(ssh: Ssh) -> None:
    result = ssh.run(["exit", "3"], soon(), check=False)
    assert (result.status, result.stdout, result.stderr) == (3, "", "the reason\n")


def test_a_command_that_fails_is_a_guest_error_with_what_it_printed(ssh: Ssh) -> None:
    with pytest.raises(GuestError, match="exit status 3 in the guest from: exit 3\nthe reason"):
        ssh.run(["exit", "3"], soon())


def test_standard_input_goes_in_and_comes_back(ssh: Ssh) -> None:
    data = os.urandom(300_000).hex().encode()
    assert ssh.run(["cat"], soon(), stdin=data).stdout.encode() == data


def test_two_floods_at_once_do_not_deadlock(ssh: Ssh) -> None:
    result = ssh.run(["flood"], soon())
    assert (len(result.stdout), len(result.stderr)) == (4_000_000, 4_000_000)


def test_a_command_that_never_ends_is_ended_by_the_deadline(ssh: Ssh) -> None:
    with pytest.raises(GuestError, match="still running in the guest after 2 s: hang"):
        ssh.run(["hang"], Deadline.after(2))


def test_a_guest_that_dies_during_a_command_is_a_guest_error(ssh: Ssh) -> None:
    with pytest.raises(GuestError, match="lost the guest during: die"):
        ssh.run(["die"], soon())
    with pytest.raises(GuestError, match="lost the guest before: cat"):
        ssh.run(["cat"], soon())


def test_a_stream_reaches_a_port_of_the_guests_loopback(ssh: Ssh) -> None:
    with ssh.open_stream(7, soon()) as stream:
        stream.send(b"hello", soon())
        assert stream.receive(soon()) == b"hello"
        stream.send(b"hush", soon())
        with pytest.raises(GuestError, match="the guest said nothing for 0 s"):
            stream.receive(Deadline.after(0.05))
        stream.send(b"quit", soon())
        with pytest.raises(GuestError, match="the guest closed the connection while it should answer"):
            stream.receive(soon())
        with pytest.raises(GuestError, match="lost the guest while sending"):
            # The news of the end and the next send may cross.
            wait_until(lambda: stream.send(b"more", soon()), soon())


def test_a_guest_that_takes_no_bytes_is_a_guest_error(ssh: Ssh) -> None:
    with ssh.open_stream(7, soon()) as stream:
        stream.send(b"deaf", soon())
        with pytest.raises(GuestError, match="the guest took no bytes for 0 s"):
            stream.send(bytes(4 << 20), Deadline.after(0.2))


def test_a_port_where_nobody_listens_is_a_guest_error(ssh: Ssh) -> None:
    with pytest.raises(GuestError, match="cannot reach port 8 of the guest's loopback"), ssh.open_stream(8, soon()):
        pass


def test_another_host_key_than_the_pinned_one_is_refused_at_once(address: SshAddress, tmp_path: Path) -> None:
    other = replace(address, host_public_key=make_key(tmp_path / "other").public)
    with pytest.raises(GuestError, match="has another host key than its image: SHA256:"), connected(other, soon()):
        pass


def test_a_refused_client_key_is_refused_at_once(address: SshAddress, tmp_path: Path) -> None:
    other = replace(address, client_key=make_key(tmp_path / "other").path)
    with pytest.raises(GuestError, match=r"refuses the key .*other"), connected(other, soon()):
        pass


def test_a_guest_that_still_boots_is_tried_again(keys: tuple[KeyPair, KeyPair]) -> None:
    with ssh_server(*keys, refusals=3) as address, connected(address, soon()) as ssh:
        assert ssh.run(["exit", "0"], soon()).status == 0


def test_a_guest_that_never_answers_is_a_guest_error_with_the_last_reason(keys: tuple[KeyPair, KeyPair]) -> None:
    with (
        ssh_server(*keys, refusals=10_000) as address,
        pytest.raises(GuestError, match=r"no SSH to 127\.0\.0\.1:[0-9]+ within 1 s: "),
        connected(address, Deadline.after(1)),
    ):
        pass


def test_a_guest_that_has_ended_is_not_waited_for(keys: tuple[KeyPair, KeyPair]) -> None:
    with (
        ssh_server(*keys, refusals=10_000) as address,
        pytest.raises(GuestError, match=r"the guest ended before it answered on port [0-9]+: it panicked"),
        connected(address, Deadline.after(60), lambda: "it panicked"),
    ):
        pass


@pytest.mark.parametrize("text", ["", "ssh-ed25519", "ssh-ed25519 ???"])
def test_a_public_key_that_is_none_is_a_guest_error(text: str) -> None:
    with pytest.raises(GuestError, match="not a public key line"):
        parse_public_key(text)


class FakeTerminal:
    """The guest's side of a shell: a pipe to read from, and what was typed."""

    def __init__(self, said: bytes) -> None:
        self._read, write = os.pipe()
        os.write(write, said)
        os.close(write)
        self.typed = b""

    def fileno(self) -> int:
        return self._read

    def recv(self, size: int) -> bytes:
        return os.read(self._read, 5) if self.typed else os.read(self._read, size)

    def sendall(self, data: bytes) -> None:
        self.typed += data

    def resize_pty(self, width: int, height: int) -> None:
        self.size = (width, height)


def test_a_shell_relays_both_ways_until_the_guest_ends_it() -> None:
    keyboard, hand = os.pipe()
    screen, draw = os.pipe()
    os.write(hand, b"ls\n")
    os.close(hand)
    terminal = FakeTerminal(b"welcome")
    relay(terminal, keyboard, draw)
    assert os.read(screen, 100) == b"welcome"
    assert terminal.typed.startswith(b"ls\n")


def test_the_end_of_the_input_ends_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    keyboard, hand = os.pipe()
    screen, draw = os.pipe()
    os.close(hand)
    monkeypatch.setenv("COLUMNS", "100")
    terminal = FakeTerminal(b"welcome")
    relay(terminal, keyboard, draw)
    assert os.read(screen, 100) == b"welcome"
    assert terminal.typed == b"\x04"
