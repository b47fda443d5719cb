"""What is installed is locked: every requirement, one version each, with hashes, from wherever pip is told to fetch."""

import ast
import configparser
import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.unit.host.test_bootstrap import bootstrap

ROOT = Path(__file__).parents[2]
LISTS = ("requirements.txt", "requirements-dev.txt")
#: What a package is imported as, where that is not its name.
MODULES = {
    "axe-playwright-python": "axe_playwright_python",
    "kcidb-io": "kcidb_io",
    "pyyaml": "yaml",
    "qemu-qmp": "qemu.qmp",
    "types-jsonschema": "jsonschema",
    "types-paramiko": "paramiko",
    "types-psutil": "psutil",
    "types-pyyaml": "yaml",
}
#: Run, not imported. pytest finds xdist by itself.
PROGRAMS = {"check-jsonschema", "mkdocs", "pytest-xdist", "mypy", "ruff", "tox"}


def requirements(*names: str) -> list[Requirement]:
    return [Requirement(line) for name in names for line in (ROOT / name).read_text().splitlines()]


def locked() -> dict[str, tuple[Requirement, list[str]]]:
    """Return requirement and hashes by canonical name."""
    text = re.sub(r"^\s*#.*$", "", (ROOT / "requirements.lock").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    entries = [line.split() for line in text.splitlines() if line.strip()]
    return {canonicalize_name(Requirement(words[0]).name): (Requirement(words[0]), words[1:]) for words in entries}


@pytest.mark.parametrize("wanted", requirements(*LISTS), ids=str)
def test_the_lock_has_a_version_of_every_requirement_that_fits(wanted: Requirement) -> None:
    found, _ = locked()[canonicalize_name(wanted.name)]
    (version,) = found.specifier
    assert version.operator == "=="
    assert wanted.specifier.contains(version.version), f"run tox run -e lock: {found} does not fit {wanted}"


def test_all_that_is_locked_has_one_version_for_every_python_and_nothing_but_hashes() -> None:
    assert len(locked()) > len(requirements(*LISTS))
    for found, words in locked().values():
        assert [specifier.operator for specifier in found.specifier] == ["=="], found
        assert found.marker is None
        assert found.url is None
        assert words, f"{found} has no hash"
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", word) for word in words), found


def test_no_list_says_where_to_fetch_from() -> None:
    for name in (*LISTS, "requirements.lock"):
        assert not re.search(r"://|--(extra-)?index|--find-links|--trusted-host|\w\.(org|com|net|io)\b", (ROOT / name).read_text()), name


def test_bootstrap_and_tox_install_the_lock_by_its_hashes_and_nothing_else() -> None:
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini")
    assert tox["testenv"]["deps"] == "-r requirements.lock"
    assert "--require-hashes --only-binary :all:" in tox["testenv"]["install_command"]
    assert bootstrap.LOCKED == ("--require-hashes", "--only-binary", ":all:", "-r", "requirements.lock")
    others = {name for name in tox.sections() if name.startswith("testenv:") and {"deps", "install_command"} & set(tox[name])}
    assert others == {"testenv:lock"}


def test_what_is_required_is_used() -> None:
    imported = {name for folder in ("harness", "tests", "bench") for path in (ROOT / folder).rglob("*.py") for name in imports(path)}
    wanted = {canonicalize_name(one.name) for one in requirements(*LISTS)} - PROGRAMS
    modules = {MODULES.get(name, name) for name in wanted}
    assert {name for name in modules if not any(one == name or one.startswith(f"{name}.") for one in imported)} == set()


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names
