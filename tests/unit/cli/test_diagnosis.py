"""The doctor's two questions: of a machine over SSH, of a stack in a guest; and how they are asked wrongly."""

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from harness.__main__ import main
from harness.cli import diagnosis as subject
from harness.errors import GuestError
from harness.guest.user_ssh import UserAddress
from harness.model.stack import StorageStack
from tests.unit.guest.fake_machine import FakeMachine


def at(monkeypatch: pytest.MonkeyPatch, machine: FakeMachine) -> list[UserAddress]:
    """Have every machine be ``machine``; return the addresses that were asked for."""
    asked: list[UserAddress] = []

    @contextlib.contextmanager
    def connected(address: UserAddress, _: object) -> Iterator[FakeMachine]:
        asked.append(address)
        yield machine

    monkeypatch.setattr(subject, "connected_as_user", connected)
    return asked


def test_a_path_of_a_machine_is_looked_at(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked = at(monkeypatch, FakeMachine())
    assert main(["doctor", "--at", "me@far:2222", "/mnt/a"]) == 0
    assert asked == [UserAddress("far", "me", 2222)]
    assert capsys.readouterr().out.endswith("There is DAX at /mnt/a.\n")


def test_without_a_path_each_place_has_its_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    table = (
        "21 1 254:0 / / rw - ext4 /dev/vda rw\n30 21 259:0 / /mnt/a rw - ext4 /dev/pmem0 rw\n31 21 259:0 / /mnt/b rw - ext4 /dev/pmem0 rw"
    )
    at(monkeypatch, FakeMachine({"/proc/self/mountinfo": table}))
    assert main(["doctor", "--at", "far"]) == 1
    said = capsys.readouterr().out
    assert said.startswith("/mnt/a:\n")
    assert "\n\n/mnt/b:\n" in said
    assert "No DAX at /mnt/b because of the inode flag: " in said


class FakeGuest:
    """A booted guest whose main volume is /dev/pmem0, on /mnt/a; ``mounts``: whether it can be mounted."""

    def __init__(self, machine: FakeMachine, mounts: bool, has_filesystem: bool = True) -> None:
        volume = SimpleNamespace(mount=object() if has_filesystem else None)
        self.layout = SimpleNamespace(volumes=[SimpleNamespace(node="/dev/pmem0", folder="/mnt/a", volume=volume)])
        self.session, self.ssh, self.scale, self._mounts = self, machine, 1.0, mounts
        self.commanded: list[object] = []

    def refresh(self) -> None:
        if not self._mounts:
            raise GuestError("mount gave EINVAL\nand more")

    def commands(self, commands: list[object]) -> None:
        self.commanded += commands


def stack(monkeypatch: pytest.MonkeyPatch, guest: FakeGuest) -> None:
    @contextlib.contextmanager
    def booted(_: StorageStack, __: str) -> Iterator[FakeGuest]:
        yield guest

    monkeypatch.setattr(subject, "make_booter", lambda *_: booted)


def test_a_stack_is_looked_at_in_a_guest_with_a_file_on_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    guest = FakeGuest(FakeMachine(), mounts=True)
    stack(monkeypatch, guest)
    assert main(["doctor", "--stack", "e820-fsdax-ext4-dax_always"]) == 0
    assert "There is DAX at /mnt/a." in capsys.readouterr().out
    assert len(guest.commanded) == 1


UNMOUNTED = {"/proc/self/mountinfo": "21 1 254:0 / / rw - ext4 /dev/vda rw"}
NODE = {"path": (0, "block special file\n/dev/pmem0")}


def test_a_stack_that_cannot_be_mounted_is_looked_at_as_far_as_it_came(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stack(monkeypatch, FakeGuest(FakeMachine(UNMOUNTED, outputs=NODE), mounts=False))
    assert main(["doctor", "--stack", "nvdimm-raw-ext4-dax_always"]) == 1
    said = capsys.readouterr()
    assert said.err == "the stack does not come up as it was asked for: mount gave EINVAL\n"
    assert "No DAX at /dev/pmem0 because of the mount option" in said.out


def test_a_stack_without_a_file_system_is_its_node(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    stack(monkeypatch, FakeGuest(FakeMachine(UNMOUNTED, outputs={**NODE, "type": (2, "")}), mounts=True, has_filesystem=False))
    assert main(["doctor", "--stack", "e820-fsdax-node"]) == 1
    assert "no file system is on /dev/pmem0." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--stack", "e820-fsdax-ext4-dax_always", "--at", "far"], "--stack looks at a guest and --at at a machine: one of the two"),
        (["--stack", "e820-fsdax-ext4-dax_always", "/mnt"], "--stack looks at the volume of the stack: a path is for --at"),
        (["/mnt"], "a path is looked at on a machine: --at [USER@]MACHINE PATH"),
        (["--at", "two words"], "not [USER@]MACHINE[:PORT]: 'two words'"),
        (["--stack", "tape"], "no storage stack 'tape'; there are:\n"),
    ],
)
def test_what_is_asked_wrongly_is_said(capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    assert main(["doctor", *words]) == 2
    assert said in capsys.readouterr().err
