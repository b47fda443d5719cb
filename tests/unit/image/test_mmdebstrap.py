"""mmdebstrap is told where packages come from, and what it mounts or says stays with it."""

from pathlib import Path

import pytest

from harness.errors import HostError
from harness.host.apt import Archive, Mirrors
from harness.host.deadline import Deadline
from harness.image import mmdebstrap
from harness.image.mmdebstrap import FAILED_BUILD_LOG, _own_mounts, mmdebstrap_command, run_mmdebstrap

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


def test_a_build_that_fails_names_a_log_that_is_still_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMEM_HARNESS_CACHE", str(tmp_path))
    monkeypatch.setattr(mmdebstrap, "_own_mounts", lambda *_: ())
    (tmp_path / "building").mkdir()
    log = tmp_path / "building/mmdebstrap.log"
    with pytest.raises(HostError, match="no mirror answers") as caught:
        run_mmdebstrap(["sh", "-c", "echo no mirror answers; exit 25"], Deadline.after(60), log)
    assert str(log) not in str(caught.value)
    assert f"whole output: {tmp_path / FAILED_BUILD_LOG}" in str(caught.value)
    assert (tmp_path / FAILED_BUILD_LOG).read_text() == "no mirror answers\n"


def test_a_build_that_fails_where_nothing_can_be_kept_names_no_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMEM_HARNESS_CACHE", str(tmp_path / "nowhere"))
    monkeypatch.setattr(mmdebstrap, "_own_mounts", lambda *_: ())
    with pytest.raises(HostError, match="no mirror answers") as caught:
        run_mmdebstrap(["sh", "-c", "echo no mirror answers; exit 25"], Deadline.after(60), tmp_path / "log")
    assert "whole output" not in str(caught.value)
