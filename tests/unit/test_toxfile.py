"""What tox.ini, toxfile.py and the workflow say: an environment for each kernel of images/kernels.yaml, and one for all tests."""

import shutil
import subprocess
import sys
from pathlib import Path

import toxfile

ROOT = Path(__file__).parents[2]
ENTRY = "kernels:\n  debian_99:\n    suite: sid\n    package: linux-image-amd64\n"


def tox(folder: Path, *words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "tox", *words], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_without_yaml_there_are_none_until_tox_has_made_itself_an_environment() -> None:
    code = "import sys; sys.modules['yaml'] = None; import toxfile; print(toxfile.kernels())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "()\n"


def test_a_kernel_that_is_added_has_an_environment_that_takes_pytests_arguments(tmp_path: Path) -> None:
    for name in ("tox.ini", "toxfile.py", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "images").mkdir()
    catalog = (ROOT / "images/kernels.yaml").read_text()
    (tmp_path / "images/kernels.yaml").write_text(catalog)
    assert "cases-debian_99" not in tox(tmp_path, "list")
    (tmp_path / "images/kernels.yaml").write_text(catalog.replace("kernels:\n", ENTRY, 1))
    listed = tox(tmp_path, "list")
    assert "cases-debian_99" in listed
    assert "cases-debian_6.1 " in listed
    asked = tox(tmp_path, "config", "-e", "cases-debian_99", "-k", "commands", "deps", "--", "-k", "splice or futex")
    assert f"{' '.join(toxfile.CASES)} --kernel debian_99 -k 'splice or futex'" in asked
    assert "-r requirements.lock" in asked


def test_the_path_of_a_kernel_is_not_taken_for_one_of_cases(tmp_path: Path) -> None:
    assert " ".join(toxfile.CASES) in tox(ROOT, "config", "-e", "cases", "-k", "commands")
    words = ["--kernel", str(tmp_path), "--artifacts", str(tmp_path), "--collect-only", "-q", "-k", "tee and e820 and dax_never"]
    done = subprocess.run([sys.executable, *toxfile.CASES[1:], *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert f"cases/splice/tee.yaml::tee[e820-fsdax-ext4-dax_never-own_{tmp_path.name}]" in done.stdout.splitlines()


def test_arguments_of_the_tests_reach_pytest_alone_and_a_failure_ends_no_other() -> None:
    asked = tox(ROOT, "config", "-e", "tests", "-k", "commands", "ignore_errors", "--", "-x").splitlines()
    assert "ignore_errors = True" in asked
    commands = [line.strip() for line in asked[asked.index("commands =") + 1 : asked.index("ignore_errors = True")]]
    assert commands == [
        "ruff check .",
        "ruff format --check .",
        "mypy",
        "pytest -o testpaths=tests/unit -x",
        "pytest -o testpaths=tests/boot -x",
    ]
