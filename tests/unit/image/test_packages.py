"""Packages are fetched by mmdebstrap with an apt state of its own; tiny programs stand in for the real ones."""

from pathlib import Path

import pytest

from harness.errors import HostError
from harness.host.apt import Archive, Mirrors
from harness.host.deadline import Deadline
from harness.image import packages
from harness.image.packages import FAILED_BUILD_LOG, FetchedPackage, _own_mounts, fetch_kernel_packages, run_mmdebstrap, unpack

MIRRORS = Mirrors(Archive("http://mirror.example/debian", ("bookworm",), ("main",), None), None)


def put_program(folder: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_fetched_packages_are_identified_by_name_version_and_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_program(
        tmp_path / "bin",
        "mmdebstrap",
        f'printf "%s\\n" "$@" > {tmp_path}/asked; mkdir {tmp_path}/fetched; echo abc > {tmp_path}/fetched/k.deb',
        monkeypatch,
    )
    put_program(tmp_path / "bin", "dpkg-deb", 'echo "Package: linux-image-x"; echo "Version: 1:6.99-1"', monkeypatch)
    said: list[str] = []
    found = fetch_kernel_packages(
        "trixie", "linux-image-cloud-amd64", ["busybox-static"], MIRRORS, tmp_path, said.append, Deadline.after(30)
    )
    digest = "edeaaff3f1774ad2888673770c6d64097e391bc362d7d6fb34982ddf0efd18cb"
    assert found == (FetchedPackage("linux-image-x", "1:6.99-1", digest, tmp_path / "fetched/k.deb"),)
    asked = (tmp_path / "asked").read_text()
    assert "--variant=custom" in asked
    assert "for meta in linux-image-cloud-amd64; do" in asked
    assert "download $names busybox-static" in asked
    assert "deb http://mirror.example/debian trixie-updates main" in asked
    assert said == ["fetching the newest linux-image-cloud-amd64 of trixie with its security updates (about 40 to 130 MB)"]


def test_without_a_kernel_only_the_other_packages_are_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_program(tmp_path / "bin", "mmdebstrap", f'printf "%s\\n" "$@" > {tmp_path}/asked; mkdir {tmp_path}/fetched', monkeypatch)
    said: list[str] = []
    assert fetch_kernel_packages("trixie", None, ["busybox-static"], MIRRORS, tmp_path, said.append, Deadline.after(30)) == ()
    assert "for meta in ; do" in (tmp_path / "asked").read_text()
    assert said == ["fetching the newest busybox-static of trixie"]


def test_failing_fetch_asks_about_the_mirror_and_shows_what_was_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_program(tmp_path / "bin", "mmdebstrap", "echo 'E: no route' >&2; exit 25", monkeypatch)
    with pytest.raises(HostError, match=r"(?s)could not fetch linux-image-x of trixie; is the package mirror reachable\?.*E: no route"):
        fetch_kernel_packages("trixie", "linux-image-x", [], MIRRORS, tmp_path, lambda _: None, Deadline.after(30))


def test_damaged_package_is_the_hosts_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_program(tmp_path / "bin", "dpkg-deb", "echo 'not a Debian format archive' >&2; exit 2", monkeypatch)
    with pytest.raises(HostError, match="not a Debian format archive"):
        unpack([FetchedPackage("a", "1", "", tmp_path / "a.deb")], tmp_path, Deadline.after(30))


def test_root_builds_where_nobody_else_sees_the_mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_program(tmp_path / "bin", "unshare", "exit 0", monkeypatch)
    assert _own_mounts(True, Deadline.after(30)) == ("unshare", "--mount", "--propagation", "private")
    assert _own_mounts(False, Deadline.after(30)) == ()


def test_root_that_may_not_mount_builds_without_a_namespace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_program(tmp_path / "bin", "unshare", "exit 1", monkeypatch)
    assert _own_mounts(True, Deadline.after(30)) == ()


def test_a_build_that_fails_names_a_log_that_is_still_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMEM_HARNESS_CACHE", str(tmp_path))
    monkeypatch.setattr(packages, "_own_mounts", lambda *_: ())
    (tmp_path / "building").mkdir()
    log = tmp_path / "building/mmdebstrap.log"
    with pytest.raises(HostError, match="no mirror answers") as caught:
        run_mmdebstrap(["sh", "-c", "echo no mirror answers; exit 25"], Deadline.after(60), log)
    assert str(log) not in str(caught.value)
    assert f"whole output: {tmp_path / FAILED_BUILD_LOG}" in str(caught.value)
    assert (tmp_path / FAILED_BUILD_LOG).read_text() == "no mirror answers\n"


def test_a_build_that_fails_where_nothing_can_be_kept_names_no_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMEM_HARNESS_CACHE", str(tmp_path / "nowhere"))
    monkeypatch.setattr(packages, "_own_mounts", lambda *_: ())
    with pytest.raises(HostError, match="no mirror answers") as caught:
        run_mmdebstrap(["sh", "-c", "echo no mirror answers; exit 25"], Deadline.after(60), tmp_path / "log")
    assert "whole output" not in str(caught.value)
