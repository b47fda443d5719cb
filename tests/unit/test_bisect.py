"""docs/bisect.sh says to git what became of a commit; a make and a pytest of one line stand in for the real ones."""

from pathlib import Path

import pytest

import toxfile
from harness.host.deadline import Deadline
from harness.host.process import Completed, run
from tests.unit.image.programs import put_program

SCRIPT = Path(__file__).parents[2] / "docs/bisect.sh"


def bisected(folder: Path, monkeypatch: pytest.MonkeyPatch, *, make: int = 0, cases: int = 0) -> Completed:
    put_program(
        folder / "bin",
        "make",
        f'echo "make: $*"; [ "$1" = olddefconfig ] || {{ echo "a.c:1: error: it is broken"; exit {make}; }}',
        monkeypatch,
    )
    put_program(folder / "bin", "python", f'pwd; echo "$*"; exit {cases}', monkeypatch)
    return run([str(SCRIPT), "cases/splice", "-k", "e820 and dax_always"], Deadline.after(60), check=False, cwd=folder)


@pytest.mark.parametrize(("cases", "status"), [(0, 0), (1, 1), (2, 125), (3, 125)])
def test_what_cannot_be_told_of_a_commit_is_not_held_against_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cases: int, status: int
) -> None:
    done = bisected(tmp_path, monkeypatch, cases=cases)
    assert done.status == status
    assert done.stdout.splitlines() == [
        str(SCRIPT.parents[1]),
        f"{' '.join(toxfile.CASES[1:])} --kernel {tmp_path} cases/splice -k e820 and dax_always",
    ]


def test_a_commit_that_does_not_build_is_passed_over_with_the_first_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = bisected(tmp_path, monkeypatch, make=2)
    assert (done.status, done.stdout) == (125, "")
    assert done.stderr == "a.c:1: error: it is broken\n"
    assert (tmp_path / "bisect.log").read_text().startswith("make: olddefconfig\nmake: -j")
