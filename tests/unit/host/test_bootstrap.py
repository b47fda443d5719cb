"""bootstrap decides what to install from what it finds, and says it."""

from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest

from harness.errors import HostError
from harness.host.apt import Archive

FILE = Path(__file__).parents[3] / "bootstrap"
DEBIAN = Archive("http://mirror.example/debian", ("bookworm", "bookworm-updates"), ("main",), "/k.gpg")
BACKPORTS = Archive("http://mirror.example/debian", ("bookworm-backports",), ("main",), None)


def load() -> ModuleType:
    loader = SourceFileLoader("bootstrap", str(FILE))
    spec = spec_from_loader("bootstrap", loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


bootstrap = load()


def host(codename: str, *archives: Archive, root: bool = True, apt: bool = True) -> object:
    return bootstrap.Host(codename, archives, apt, root)


def test_debian_13_takes_everything_from_its_own_suite() -> None:
    wanted = bootstrap.installation(host("trixie", DEBIAN), ("mmdebstrap", "qemu-system-x86"))
    assert bootstrap.install_commands(wanted) == [
        ["apt-get", "update"],
        ["apt-get", "install", "-y", "--no-install-recommends", "mmdebstrap", "qemu-system-x86"],
    ]
    assert wanted.backports_text == ""


def test_debian_12_takes_qemu_from_backports_on_the_mirror_it_uses() -> None:
    wanted = bootstrap.installation(host("bookworm", DEBIAN), ("mmdebstrap", "qemu-system-x86"))
    assert "URIs: http://mirror.example/debian\nSuites: bookworm-backports" in wanted.backports_text
    assert bootstrap.install_commands(wanted) == [
        ["apt-get", "update"],
        ["apt-get", "install", "-y", "--no-install-recommends", "-t", "bookworm-backports", "qemu-system-x86"],
        ["apt-get", "install", "-y", "--no-install-recommends", "mmdebstrap"],
    ]


def test_backports_that_are_configured_already_are_not_added_again() -> None:
    wanted = bootstrap.installation(host("bookworm", DEBIAN, BACKPORTS), ("qemu-system-x86",))
    assert (wanted.backports_text, wanted.backports) == ("", ("qemu-system-x86",))


def test_debian_12_with_qemu_in_place_adds_no_backports() -> None:
    assert bootstrap.installation(host("bookworm", DEBIAN), ("zstd",)).backports_text == ""


def test_debian_12_without_a_known_mirror_is_told_what_to_add() -> None:
    with pytest.raises(HostError, match=r"names no Debian mirror .*add an entry for bookworm-backports"):
        bootstrap.installation(host("bookworm"), ("qemu-system-x86",))


def test_without_root_the_exact_commands_are_printed() -> None:
    wanted = bootstrap.installation(host("bookworm", DEBIAN), ("mmdebstrap", "qemu-system-x86"))
    with pytest.raises(HostError) as caught:
        bootstrap.install(host("bookworm", DEBIAN, root=False), wanted)
    lines = str(caught.value).splitlines()
    assert lines[0] == "packages are missing, and only root can install them. Run these, then try again:"
    assert lines[-3:] == [
        "sudo apt-get update",
        "sudo apt-get install -y --no-install-recommends -t bookworm-backports qemu-system-x86",
        "sudo apt-get install -y --no-install-recommends mmdebstrap",
    ]
    assert "| sudo tee /etc/apt/sources.list.d/pmem-harness-backports.sources > /dev/null" in str(caught.value)


def test_without_apt_the_packages_are_named() -> None:
    wanted = bootstrap.installation(host("", apt=False), ("mmdebstrap", "qemu-system-x86"))
    with pytest.raises(HostError, match=r"no apt-get.*mmdebstrap qemu-system-x86"):
        bootstrap.install(host("", apt=False), wanted)


def test_installation_and_first_run_are_announced(capsys: pytest.CaptureFixture[str]) -> None:
    bootstrap.announce(bootstrap.installation(host("bookworm", DEBIAN), ("mmdebstrap", "qemu-system-x86")), first_run=True)
    said = capsys.readouterr().out
    assert "to install with apt: qemu-system-x86 mmdebstrap" in said
    assert "comes from bookworm-backports: 8.2 or newer is required" in said
    assert "pmem-harness-backports.sources will be written" in said
    assert "a first run takes" in said


def test_nothing_is_announced_when_all_is_in_place(capsys: pytest.CaptureFixture[str]) -> None:
    bootstrap.announce(bootstrap.installation(host("trixie"), ()), first_run=False)
    assert capsys.readouterr().out == ""


def test_pytest_arguments_reach_pytest_only() -> None:
    cases = bootstrap.jobs("cases", ["-k", "splice"])
    assert [command[1:] for command in cases] == [["run", "-e", "cases", "--", "-k", "splice"]]
    tests = bootstrap.jobs("tests", ["-x"])
    assert [command[1:] for command in tests] == [["run", "-e", "lint,types"], ["run", "-e", "unit,boot", "--", "-x"]]


def test_wrong_job_and_no_job_are_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert bootstrap.main(["casess"]) == 2
    assert "'casess' is neither cases nor tests" in capsys.readouterr().err
    assert bootstrap.main([]) == 2
    assert bootstrap.main(["--help"]) == 0
    assert capsys.readouterr().out.count("usage: ./bootstrap cases") == 2


def test_codename_is_that_of_a_debian(tmp_path: Path) -> None:
    file = tmp_path / "os-release"
    file.write_text('ID=debian\nVERSION_CODENAME="bookworm"\n')
    assert bootstrap.read_codename(file) == "bookworm"
    file.write_text("ID=otherix\nVERSION_CODENAME=bookworm\n")
    assert bootstrap.read_codename(file) == ""
    assert bootstrap.read_codename(tmp_path / "none") == ""


def test_failing_command_becomes_an_error_of_the_host() -> None:
    with pytest.raises(HostError, match="exit status 1 from: false"):
        bootstrap.call(["false"])


def test_program_fits_the_shell_that_starts_it() -> None:
    head, _, _ = FILE.read_text().partition("\n'''\n")
    assert head.startswith("#!/bin/sh\n")
    assert "\n''':'\n" in head
    assert head.endswith("exit 3")
