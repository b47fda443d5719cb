"""Finding QEMU, and refusing one that is too old, each with what to do."""

from pathlib import Path

import pytest

from harness.errors import HostError
from harness.machine.emulator import find_emulator


def program(folder: Path, version: str, data: Path | None = None) -> str:
    path = folder / "qemu"
    path.write_text(f'#!/bin/sh\nif [ "$1" = --version ]; then echo "{version}"; else echo "{data or "/none"}"; fi\n')
    path.chmod(0o755)
    return str(path)


def test_a_recent_qemu_is_described(tmp_path: Path) -> None:
    (tmp_path / "qboot.rom").touch()
    found = find_emulator(program(tmp_path, "QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)", tmp_path))
    assert (found.version, found.version_text, found.has_qboot) == ((10, 0, 2), "10.0.2 (Debian 1:10.0.2+ds-2)", True)


def test_a_qemu_without_qboot_is_known_to_have_none(tmp_path: Path) -> None:
    assert not find_emulator(program(tmp_path, "QEMU emulator version 8.2.0")).has_qboot


def test_an_old_qemu_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"QEMU 7\.2\.22 is too old: 8\.2 or newer is required"):
        find_emulator(program(tmp_path, "QEMU emulator version 7.2.22"))


def test_a_missing_qemu_is_said_with_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(HostError, match="install the package qemu-system-x86, or run"):
        find_emulator()


def test_a_program_that_is_no_qemu_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"cannot read a version from what .* printed: 'hello'"):
        find_emulator(program(tmp_path, "hello"))
