"""mmdebstrap is told where packages come from, and what it mounts stays with it."""

from pathlib import Path

import pytest

from harness.host.apt import Archive, Mirrors
from harness.host.deadline import Deadline
from harness.image.mmdebstrap import _own_mounts, mmdebstrap_command

from .programs import put_program

MIRRORS = Mirrors(Archive("http://mirror.example/debian", ("bookworm",), ("main",), None), None)


def test_a_suite_that_adds_to_another_comes_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_program(tmp_path / "bin", "mmdebstrap", "exit 0", monkeypatch)
    command = mmdebstrap_command("trixie-backports", "/dev/null", MIRRORS, variant="custom", form="null")
    assert '--aptopt=APT::Default-Release "trixie-backports"' in command
    assert command[-5:] == [
        "trixie",
        "/dev/null",
        "deb http://mirror.example/debian trixie main",
        "deb http://mirror.example/debian trixie-updates main",
        "deb http://mirror.example/debian trixie-backports main",
    ]
    assert not any("Default-Release" in word for word in mmdebstrap_command("trixie", "x", MIRRORS, variant="custom", form="null"))


def test_root_builds_where_nobody_else_sees_the_mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_program(tmp_path / "bin", "unshare", "exit 0", monkeypatch)
    assert _own_mounts(True, Deadline.after(30)) == ("unshare", "--mount", "--propagation", "private")
    assert _own_mounts(False, Deadline.after(30)) == ()


def test_root_that_may_not_mount_builds_without_a_namespace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_program(tmp_path / "bin", "unshare", "exit 1", monkeypatch)
    assert _own_mounts(True, Deadline.after(30)) == ()
