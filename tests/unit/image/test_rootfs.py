"""The root file system is made by one command, whose parts are data."""

import io
import tarfile
from pathlib import Path

import pytest

from harness.host.apt import Archive, Mirrors
from harness.image.catalog import IMAGES_DIR, RootfsRecipe
from harness.image.rootfs import overlay_tar, read_overlay, rootfs_command

RECIPE = RootfsRecipe("trixie", ("ndctl", "kmod"), ("/usr/share/doc/*",), ("-t", "ext4"))
MIRROR = Archive("http://mirror.example/debian", ("bookworm",), ("main",), None)


@pytest.fixture
def fake_mmdebstrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "bin/mmdebstrap"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return program


def test_command_names_packages_what_is_left_out_and_the_mirror(fake_mmdebstrap: Path) -> None:
    command = rootfs_command(RECIPE, Mirrors(MIRROR, None), Path("/out"))
    assert command[:3] == [str(fake_mmdebstrap), "--variant=essential", "--format=tar"]
    assert "--include=ndctl,kmod" in command
    assert "--dpkgopt=path-exclude=/usr/share/doc/*" in command
    assert "--customize-hook=tar-in /out/overlay.tar /" in command
    assert command[-4:] == [
        "trixie",
        "/out/root.tar",
        "deb http://mirror.example/debian trixie main",
        "deb http://mirror.example/debian trixie-updates main",
    ]


def test_without_a_known_mirror_mmdebstrap_chooses(fake_mmdebstrap: Path) -> None:
    assert rootfs_command(RECIPE, Mirrors(None, None), Path("/out"))[-2:] == ["trixie", "/out/root.tar"]


def test_private_key_leaves_the_root_file_system_after_it_was_copied_out(fake_mmdebstrap: Path) -> None:
    hooks = [part for part in rootfs_command(RECIPE, Mirrors(None, None), Path("/out")) if part.startswith("--customize-hook=")]
    copied = next(index for index, hook in enumerate(hooks) if "download /client_key" in hook)
    assert 'rm -f "$1/client" "$1/client_key"' in hooks[-1]
    assert copied < len(hooks) - 1


def test_overlay_has_the_same_modes_whatever_the_checkout_has(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/plain").write_text("a")
    (tmp_path / "etc/program").write_text("b")
    (tmp_path / "etc/plain").chmod(0o600)
    (tmp_path / "etc/program").chmod(0o700)
    with tarfile.open(fileobj=io.BytesIO(overlay_tar(read_overlay(tmp_path)))) as archive:
        assert {member.name: (member.mode, member.uid, member.mtime) for member in archive} == {
            "./etc/plain": (0o644, 0, 0),
            "./etc/program": (0o755, 0, 0),
        }


def test_the_ssh_server_of_the_guest_takes_keys_only_and_forwards_nothing_to_the_host() -> None:
    (line,) = [line for line in (IMAGES_DIR / "overlay/usr/sbin/pmem-init").read_text().splitlines() if line.startswith("dropbear ")]
    assert {"-s", "-k"} <= set(line.split())


def test_init_says_the_line_that_a_boot_waits_for() -> None:
    assert 'echo "pmem-harness: ready" > /dev/console' in (IMAGES_DIR / "overlay/usr/sbin/pmem-init").read_text()
