"""Tools are found or named with their package; QEMU is new enough or refused."""

from pathlib import Path

import pytest

from harness.errors import HostError
from harness.host.tools import (
    BUILD_TOOLS,
    COMPILE_TOOLS,
    Tool,
    check_qemu_version,
    find_tool,
    missing_to_compile,
    missing_tools,
    parse_qemu_version,
    require_to_compile,
    require_tool,
)
from tests.unit.image.programs import put_program


def test_version_is_read_from_what_qemu_prints() -> None:
    assert parse_qemu_version("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopyright (c) 2003-2025") == (10, 0, 2)
    assert parse_qemu_version("QEMU emulator version 9.1") == (9, 1, 0)


def test_unreadable_version_shows_what_was_printed() -> None:
    with pytest.raises(HostError, match=r"cannot read a version .*'who knows'"):
        parse_qemu_version("who knows\n")


def test_old_qemu_is_refused_with_version_reason_and_way_out() -> None:
    with pytest.raises(
        HostError, match=r"QEMU 7\.2\.22 is too old: 8\.2 or newer .*panic recent kernels .*bookworm-backports.*\./bootstrap"
    ):
        check_qemu_version((7, 2, 22))


def test_oldest_allowed_qemu_and_newer_ones_pass() -> None:
    check_qemu_version((8, 2, 0))
    check_qemu_version((10, 0, 2))


def test_missing_tool_is_listed_with_its_package() -> None:
    absent = Tool("no-such-program-at-all", "some-package", "nothing")
    assert missing_tools((absent, Tool("sh", "dash", "a shell"))) == (absent,)


def test_required_tool_that_is_missing_says_what_to_install() -> None:
    with pytest.raises(HostError, match=r"no-such-program-at-all is not on this computer: install the package .*\./bootstrap"):
        require_tool("no-such-program-at-all")


def test_tool_on_the_path_is_found() -> None:
    found = find_tool("sh")
    assert found is not None
    assert require_tool("sh") == found


def test_every_build_tool_says_what_it_is_for() -> None:
    assert all(tool.purpose and tool.package for tool in BUILD_TOOLS + COMPILE_TOOLS)


def test_a_computer_that_compiles_kernels_lacks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for tool in COMPILE_TOOLS:
        put_program(tmp_path / "bin", tool.program, "exit 0", monkeypatch)
    assert missing_to_compile() == ()
    require_to_compile()


def test_a_header_that_the_compiler_does_not_find_is_named_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for tool in COMPILE_TOOLS:
        put_program(tmp_path / "bin", tool.program, "exit 0", monkeypatch)
    put_program(tmp_path / "bin", "gcc", "! grep libelf.h", monkeypatch)
    with pytest.raises(
        HostError, match=r"Install what is missing: apt-get install libelf-dev; or run \./bootstrap build with the same arg"
    ):
        require_to_compile()
