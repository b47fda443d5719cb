"""bootstrap decides what to install from what it finds, and says it."""

import shutil
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from harness.errors import HostError
from harness.host import process
from harness.host.apt import Archive
from harness.host.deadline import Deadline

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
        bootstrap.require_means(host("bookworm", DEBIAN, root=False), wanted)
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
        bootstrap.require_means(host("", apt=False), wanted)


def test_nothing_is_asked_for_where_nothing_is_missing() -> None:
    bootstrap.require_means(host("", apt=False, root=False), bootstrap.installation(host("", apt=False), ()))


def test_on_another_distribution_the_keys_of_debian_are_needed_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bootstrap, "DEBIAN_KEYS", tmp_path / "debian-archive-keyring.gpg")
    assert "debian-archive-keyring" in bootstrap.missing_packages(host(""))
    assert "debian-archive-keyring" not in bootstrap.missing_packages(host("trixie"))


def test_an_apt_that_has_only_an_old_qemu_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "call", lambda command: None)
    monkeypatch.setattr(bootstrap, "missing_packages", lambda host: ("qemu-system-x86",))
    with pytest.raises(HostError, match="still missing or too old: qemu-system-x86; install newer ones yourself"):
        bootstrap.install(host(""), bootstrap.installation(host(""), ("qemu-system-x86",)), "cases")


def test_what_compiles_kernels_is_installed_only_for_a_kernel_that_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "missing_packages", lambda host: ("mmdebstrap",))
    monkeypatch.setattr(bootstrap, "missing_to_compile", lambda: ("bison", "patch"))
    assert bootstrap.needed_packages(host("trixie"), "cases") == ("mmdebstrap",)
    assert bootstrap.needed_packages(host("trixie"), "tests") == ("mmdebstrap",)
    assert bootstrap.needed_packages(host("trixie"), "build") == ("bison", "mmdebstrap", "patch")


def test_only_what_looks_at_the_page_needs_a_browser_and_it_needs_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def run_job(job: str, words: list[str]) -> int:
        asked.append([job, *words])
        return 1

    monkeypatch.setattr(bootstrap, "missing_packages", lambda host: ("mmdebstrap",))
    monkeypatch.setattr(bootstrap, "missing_tools", lambda tools: tools)
    assert bootstrap.needed_packages(host("trixie"), "page") == ("chromium",)
    monkeypatch.setattr(bootstrap, "missing_tools", lambda tools: ())
    monkeypatch.setattr(bootstrap, "make_environment", lambda: None)
    monkeypatch.setattr(bootstrap, "call", asked.append)
    monkeypatch.setattr(bootstrap, "run_job", run_job)
    monkeypatch.chdir(FILE.parent)
    assert bootstrap.main(["page", "-x"]) == 1
    assert asked == [["page", "-x"]]


def test_a_kernel_is_built_by_the_command_that_builds_images_and_its_status_is_the_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def start(command: list[str], **_: object) -> object:
        asked.append(command)
        return SimpleNamespace(wait=lambda: 2)

    monkeypatch.setattr(bootstrap, "needed_packages", lambda host, job: ())
    monkeypatch.setattr(bootstrap, "make_environment", lambda: None)
    monkeypatch.setattr(bootstrap, "environment", lambda program: "/bin/echo")
    monkeypatch.setattr(bootstrap, "call", asked.append)
    monkeypatch.setattr(bootstrap, "start", start)
    monkeypatch.chdir(FILE.parent)
    assert bootstrap.main(["build", "--kernel", "source_6.12"]) == 2
    build = ["/bin/echo", "-m", "harness", "images", "build"]
    assert asked == [build, [*build, "--kernel", "source_6.12"]]


@pytest.mark.parametrize("job", ["cases", "tests"])
def test_without_apt_one_message_names_the_packages_and_nothing_is_done(tmp_path: Path, job: str) -> None:
    shutil.copytree(FILE.parent / "harness", tmp_path / "harness", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(FILE, tmp_path)
    before = sorted(tmp_path.rglob("*"))
    environment = {"PATH": "/nowhere", "HOME": str(tmp_path)}
    done = process.run([sys.executable, str(tmp_path / "bootstrap"), job], Deadline.after(120), check=False, env=environment)
    assert (done.status, done.stdout) == (3, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("bootstrap: this is no Debian (no apt-get): install what these Debian packages have, then try again: ")
    assert {"mmdebstrap", "qemu-system-x86", "zstd"} <= set(line.split())
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("tool", ["", "id"])
def test_without_python_and_without_apt_the_message_does_not_speak_of_apt_get(tmp_path: Path, tool: str) -> None:
    if tool:
        (tmp_path / tool).symlink_to(f"/usr/bin/{tool}")
    script = tmp_path / "bootstrap"
    # The last place where a Python is looked for cannot be emptied here, so it is another one.
    script.write_text(FILE.read_text().replace(" /usr/bin/python3; do", " /nowhere/python3; do"))
    done = process.run(["/bin/sh", str(script), "cases"], Deadline.after(120), check=False, env={"PATH": str(tmp_path)})
    assert done.status == 3
    assert "no Python 3.11 or newer" in done.stderr
    assert "(Debian: the packages python3 and python3-venv), then try again" in done.stderr
    assert "sudo" not in done.stderr


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


def test_jobs_are_the_tox_environments_of_their_names() -> None:
    assert bootstrap.command_of("cases", ["-k", "splice"])[1:] == ["run", "-e", "cases", "--", "-k", "splice"]
    assert bootstrap.command_of("tests", [])[1:] == ["run", "-e", "tests"]


def test_wrong_job_and_no_job_are_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert bootstrap.main(["casess"]) == 2
    assert "'casess' is none of cases, tests, page and build" in capsys.readouterr().err
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
