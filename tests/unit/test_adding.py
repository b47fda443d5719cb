"""To add an operation, three files of one family name are touched: its words, its doer and its rule. All else reads them.

A copy of the tree gets an operation that the harness has not, as CONTRIBUTING has it, and a case of it is planned, performed on this
computer and judged there.
"""

import json
import shutil
import sys
from pathlib import Path

import pytest

from harness.host.deadline import Deadline
from harness.host.process import run
from harness.ops import OPERATIONS

ROOT = Path(__file__).parents[2]

ADDED = {
    "harness/ops/pipes.py": '''

@operation("get_pipe_size")
class GetPipeSize(Operation):
    """fcntl F_GETPIPE_SZ."""

    pipe: str = ref(PIPE, uses=READ)
''',
    "harness/agent/pipes.py": """

@doer
def do_get_pipe_size(me: Performer, op: pipes.GetPipeSize) -> Outcome:
    return outcome(call("fcntl", me.source(op.pipe), 1032))
""",
    "harness/model/rules/pipes.py": """

clause("C-PIPE-90", "F_GETPIPE_SZ returns the size of the pipe", "fcntl(2)")


@rule(pipes.GetPipeSize)
def get_pipe_size(c: Context, s: State, op: pipes.GetPipeSize) -> Expectations:
    _, of = look_up(c, s, op.pipe, Pipe)
    return c.returns("C-PIPE-90", of.slots * PAGE).leaving(s)
""",
}
IMPORT = "from harness.ops import pipes\n"

CASE = """title: A pipe says how large it is
axes: {storage: [dax]}
program:
  - pipe: {name: p}
  - set_pipe_size: {pipe: p, size: 8KiB}
  - get_pipe_size: {pipe: p}
  - close: {name: p, end: read}
  - get_pipe_size: {pipe: p}
"""

#: What becomes of the case, on the host: how each step ended, the verdict, and the verdict where the kernel had said another size.
SCRIPT = """
import dataclasses, json, sys
from harness.case.loader import load_plans
from harness.model.facts import Env
from harness.model.judge import judge
from harness.ops import OPERATIONS
from pathlib import Path
from tests.generated.run import host_stages
(plan,) = load_plans(Path(sys.argv[1]))[:1]
with host_stages() as start_one, start_one() as stage:
    (ran,) = stage.run([plan.program])
    said = judge(Env(stage.reading), plan.program, ran.observations)
    seen = list(ran.observations)
    seen[2] = dataclasses.replace(seen[2], value=seen[2].value * 2)
    wrong = judge(Env(stage.reading), plan.program, tuple(seen))
print(json.dumps([[one.describe() for one in ran.observations], str(said.verdict), str(wrong.verdict), said.steps[2].because]))
"""


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree with an operation that was added: nothing but three files differs."""
    tree = tmp_path_factory.mktemp("added")
    for name in ("harness", "cases", "images", "tests/generated"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "tests" / "__init__.py", tree / "tests")
    for name, text in ADDED.items():
        path = tree / name
        source = path.read_text()
        if "pipes." in text:
            first = source.index("\nfrom harness")
            source = source[: first + 1] + IMPORT + source[first + 1 :]
        path.write_text(source + text)
    (tree / "cases" / "splice" / "pipe_size.yaml").write_text(CASE)
    return tree


def harness(tree: Path, *words: str) -> str:
    return run([sys.executable, "-m", "harness", *words], Deadline.after(120), cwd=tree).stdout


def test_there_is_no_such_operation_yet() -> None:
    assert "get_pipe_size" not in OPERATIONS


def test_an_operation_that_was_added_in_three_files_is_planned_performed_and_judged(copied: Path) -> None:
    assert len(ADDED) == 3
    assert "get_pipe_size(p)" in harness(copied, "plan", "cases/splice/pipe_size.yaml")
    said = run([sys.executable, "-c", SCRIPT, "cases/splice/pipe_size.yaml"], Deadline.after(300), cwd=copied).stdout
    ended, verdict, wrong, because = json.loads(said)
    assert ended == ["returned 0", "returned 8192", "returned 8192", "returned 0", "EBADF"]
    assert (verdict, wrong) == ("conforms", "deviates")
    assert because == "F_GETPIPE_SZ returns the size of the pipe  (clause C-PIPE-90, fcntl(2))"


def test_it_is_in_the_schema_and_in_the_contract(copied: Path) -> None:
    assert "get_pipe_size" in harness(copied, "schema")
    assert "C-PIPE-90" in harness(copied, "contract")
