"""The floors of the architecture hold: imports point down, single homes stay single."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import ops
from harness.agent.doers import FAMILIES
from harness.agent.performer import DOERS
from harness.model.filesystems import FILESYSTEM_TRAITS
from harness.model.kinds import RegionKind
from harness.model.layers import Layer
from harness.model.rules import RULE_MODULES, RULES

ROOT = Path(__file__).parents[2]
HARNESS = ROOT / "harness"

#: What each package of ours may import of ours (itself always included).
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "sizes": set(),
    "yaml_text": set(),
    "ops": {"errors"},
    "model": {"ops", "errors", "sizes"},
    "case": {"ops", "model", "errors", "sizes", "yaml_text"},
    "host": {"errors", "sizes"},
    "machine": {"model", "host", "errors", "sizes"},
    "guest": {"ops", "model", "host", "errors", "sizes"},
    "image": {"host", "errors", "sizes", "yaml_text"},
    "agent": {"ops"},
    "record": {"case", "model", "ops", "errors", "sizes"},
    "report": {"record", "model", "ops", "errors", "sizes"},
    "lease": {"record", "model", "ops", "case", "host", "machine", "guest", "image", "agent", "errors", "sizes"},
    "plugin": {"report", "lease", "record", "ops", "case", "model", "host", "errors", "sizes"},
    "cli": {"report", "lease", "record", "ops", "case", "model", "host", "machine", "guest", "image", "errors", "sizes"},
    "__main__": {"cli", "report", "lease", "record", "case", "model", "host", "machine", "guest", "image", "errors", "sizes"},
    "__init__": set(),
}

#: Modules of others that have one home, or a few.
HOMES: dict[str, set[str]] = {
    "paramiko": {"guest/ssh.py", "guest/user_ssh.py"},
    "subprocess": {"host/process.py"},
    "yaml": {"yaml_text.py", "case/tree.py", "image/catalog.py"},
    "rich": {"report/tables.py"},
    "jinja2": {"report/page.py"},
}

#: What a package must never import.
FORBIDDEN: dict[str, set[str]] = {
    "ops": {"os", "pathlib", "subprocess", "socket", "time", "random", "logging", "yaml", "pytest", "paramiko", "io", "sys"},
    "model": {"os", "pathlib", "subprocess", "socket", "time", "random", "logging", "yaml", "pytest", "paramiko", "io", "sys"},
    "case": {"pytest", "socket", "subprocess", "paramiko", "logging"},
    "machine": {"pytest", "paramiko"},
    "guest": {"pytest", "subprocess"},
    "image": {"pytest"},
    "lease": {"pytest"},
    "record": {"pytest", "psutil", "paramiko", "qemu", "filelock"},
    "report": {"pytest", "psutil", "paramiko", "qemu", "filelock"},
    "cli": {"pytest", "_pytest"},
    "plugin": {"paramiko", "subprocess"},
    "__main__": {"pytest", "_pytest"},
}

#: Where a kind is written down: its record, and what makes it. Everybody else asks the record.
KINDS = (
    "model/kinds.py",
    "model/layers.py",
    "model/filesystems.py",
    "model/dax/needs.py",
    "guest/filesystem.py",
    "guest/layers.py",
    "guest/regions.py",
    "machine/regions/",
)
KIND_WORDS = {*FILESYSTEM_TRAITS, *RegionKind, *(set(Layer) - {Layer.NONE})}

FORBIDDEN_NAMES = {"utils", "util", "helpers", "common", "misc"}


def source_files() -> list[Path]:
    return sorted(HARNESS.rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield node.lineno, node.module or ""
            if node.module == "harness":
                for alias in node.names:
                    yield node.lineno, f"harness.{alias.name}"


def package_of(path: Path) -> str:
    relative = path.relative_to(HARNESS)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


@pytest.mark.parametrize("path", source_files(), ids=lambda p: str(p.relative_to(HARNESS)))
def test_imports_point_down_and_single_homes_hold(path: Path) -> None:
    package = package_of(path)
    relative = str(path.relative_to(HARNESS))
    wrong = []
    for line, name in imports(path):
        top = name.split(".")[0]
        where = f"{path.relative_to(ROOT)}:{line}: imports {name}"
        if top == "harness" and name != "harness":
            target = name.split(".")[1]
            if target != package and target not in ALLOWED[package]:
                wrong.append(f"{where}: {package} may import only {sorted(ALLOWED[package])}")
        if top in HOMES and relative not in HOMES[top]:
            wrong.append(f"{where}: its home is {sorted(HOMES[top])}")
        if top in FORBIDDEN.get(package, set()):
            wrong.append(f"{where}: never in {package}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("room", ["record", "report"])
def test_what_was_kept_is_judged_and_told_where_no_guest_could_run(room: str) -> None:
    """All modules of a room are imported by a Python that refuses what guests need."""
    refused = ("psutil", "paramiko", "qemu", "filelock", "pytest", *(f"harness.{name}" for name in ("lease", "machine", "guest", "image")))
    modules = [f"harness.{room}.{path.stem}" for path in sorted((HARNESS / room).glob("*.py"))] + ["harness.__main__", "harness.cli.judge"]
    assert len(modules) > 5
    code = f"""
import importlib, importlib.abc, sys
class Refusing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if any(name == word or name.startswith(word + ".") for word in {refused!r}):
            raise ImportError(name + " is refused here")
sys.meta_path.insert(0, Refusing())
for name in {modules!r}:
    importlib.import_module(name)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    code = code.replace("import_module(name)", "import_module('harness.lease.boot')")
    assert "harness.lease is refused here" in subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True).stderr


def test_a_module_holds_rules_or_what_rules_share() -> None:
    rules = HARNESS / "model" / "rules"
    holding = {path.stem for path in rules.glob("*.py") if "\n@rule(" in path.read_text()}
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in sorted(rules.glob("*.py"))
        for line, name in imports(path)
        if path.stem != "__init__" and name.startswith("harness.model.rules.") and name.split(".")[3] in holding
    ]
    assert holding == {module.__name__.rpartition(".")[2] for module in RULE_MODULES}
    assert not wrong, wrong


def test_a_byte_of_a_memory_is_changed_in_one_place() -> None:
    writing = {str(path.relative_to(HARNESS)): path.read_text().count("content.write(") for path in source_files()}
    assert {path: count for path, count in writing.items() if count} == {"model/rules/effects.py": 1}


def test_every_operation_has_one_rule() -> None:
    judged_by_itself = {ops.Join}  # harness/model/judge.py: its outcome is that of the step it waits for
    assert set(RULES) == set(ops.OPERATIONS.values()) - judged_by_itself


def test_every_operation_has_one_doer() -> None:
    done_by_the_supervisor = {ops.Fork, ops.Join}
    assert set(DOERS) == set(ops.OPERATIONS.values()) - done_by_the_supervisor
    assert sum(Path(str(family.__file__)).read_text().count("\n@doer\n") for family in FAMILIES) == len(DOERS)


@pytest.mark.parametrize("package", ["agent", "ops"])
def test_what_travels_needs_only_the_standard_library(package: str) -> None:
    for path in sorted((HARNESS / package).glob("*.py")):
        for line, name in imports(path):
            top = name.split(".")[0]
            assert top == "harness" or top in sys.stdlib_module_names, f"{path.name}:{line}: {name} is not in the standard library"


def test_a_case_in_python_knows_the_words_and_nothing_else_of_ours() -> None:
    cases = sorted((ROOT / "cases").rglob("*.py"))
    assert cases
    wrong = [
        f"{path}:{line}: {name}" for path in cases for line, name in imports(path) if name.startswith("harness") and name != "harness.ops"
    ]
    assert not wrong, wrong


def test_environment_variables_are_read_in_one_module() -> None:
    wrong = []
    for path in source_files():
        if str(path.relative_to(HARNESS)) == "host/settings.py" or package_of(path) == "agent":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"}:
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}: environment variables live in harness/host/settings.py")
    assert not wrong, "\n".join(wrong)


def test_bare_sleeps_live_in_the_deadline_module() -> None:
    wrong = []
    for path in source_files():
        if str(path.relative_to(HARNESS)) == "host/deadline.py" or package_of(path) == "agent":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {"time.sleep", "sleep"}:
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}: wait through harness/host/deadline.py")
    assert not wrong, "\n".join(wrong)


def choices_by_kind(source: str) -> Iterator[tuple[int, str]]:
    """Yield where ``source`` chooses by the name of a kind: compares with one, or looks something up by it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare):
            chosen: list[ast.expr | None] = [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue):
            chosen = [node.value]
        elif isinstance(node, ast.Dict):
            chosen = [*node.keys]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in {"startswith", "get"}:
            chosen = [*node.args]
        else:
            continue
        for part in (inner for one in chosen if one is not None for inner in ast.walk(one)):
            kinds = {"RegionKind", "Filesystem", "NamespaceMode", "Layer"}
            named = isinstance(part, ast.Attribute) and ast.unparse(part.value) in kinds and part.attr != "NONE"
            if named or (isinstance(part, ast.Constant) and part.value in KIND_WORDS):
                yield node.lineno, ast.unparse(node)


def test_what_differs_between_kinds_is_in_their_records() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {text}: ask the record of the kind (harness/model/kinds.py, layers.py, filesystems.py)"
        for path in source_files()
        if not str(path.relative_to(HARNESS)).startswith(KINDS)
        for line, text in choices_by_kind(path.read_text())
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "source",
    [
        'v.filesystem == "ext4"',
        'name in ("xfs", None)',
        "region.kind is RegionKind.E820",
        "mode is not NamespaceMode.FSDAX",
        "layer is Layer.LOOP",
        '{"ext4": 1}[name]',
        '{Filesystem.XFS: 1}.get("a")',
        'devices.get("nvdimm")',
        'words.startswith("e820")',
        'match name:\n    case "xfs":\n        pass',
    ],
)
def test_a_choice_by_the_name_of_a_kind_is_found(source: str) -> None:
    assert list(choices_by_kind(source))


def test_naming_a_kind_is_no_choice() -> None:
    assert not list(
        choices_by_kind(
            'Mount(Filesystem.EXT4, None); volume(stack="e820"); kind == other; layer is Layer.NONE; {"region": (RegionKind.E820,)}'
        )
    )


def test_no_module_is_a_drawer_for_odds_and_ends() -> None:
    assert not [p for p in source_files() if p.stem in FORBIDDEN_NAMES]
