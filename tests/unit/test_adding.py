"""What CONTRIBUTING says of adding is all there is to it: the rest of the harness reads what was added.

A copy of the tree gets an operation that the harness has not, in three files of one family name, and a case of it is planned, performed
on this computer and judged there. Another gets a region kind and a file system: a record each, and what makes them.
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


def copy_tree(folder: Path) -> Path:
    for name in ("harness", "cases", "images", "tests/generated"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "tests" / "__init__.py", folder / "tests")
    return folder


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree with an operation that was added: nothing but three files differs."""
    tree = copy_tree(tmp_path_factory.mktemp("added"))
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


# ---- kinds -----------------------------------------------------------------------------------------------------------

#: What is put behind which line.
ADDED_KINDS = {
    "harness/model/kinds.py": {
        '    NVDIMM = "nvdimm"\n': '    FABRIC = "fabric"\n',
        "_REGIONS = {\n": """    RegionKind.FABRIC: RegionTraits(
        provider="fabric.0",
        has_labels=False,
        namespaces=frozenset({(NamespaceMode.FSDAX, PageMap.MEM)}),
        synchronous=False,
    ),
""",
    },
    "harness/model/filesystems.py": {
        '    XFS = "xfs"\n': '    NOVA = "nova"\n',
        "    {\n": """        "nova": FilesystemTraits(
            without_dax=WithoutDax.REFUSED,
            without_dax_source="fs/nova/super.c",
            synchronous_dax=True,
            max_file_bytes=2**40,
            package="nova-tools",
            checker=Checker(("nova-check",), gave_up="nothing to check"),
            complaints=(r"NOVA-fs error",),
        ),
""",
    },
    "harness/guest/filesystem.py": {
        "MAKERS: Mapping[Filesystem, Maker] = {\n": """\
    Filesystem.NOVA: Maker(("-u", "2m"), ("mkfs.nova", "-v"), {DaxOption.ALWAYS: "dax", DaxOption.NEVER: ""}),
""",
    },
}
MADE = {
    "harness/machine/regions/fabric.py": """from harness.machine.regions.maker import RegionMaker

MAKER = RegionMaker(options=lambda regions, memory: ["-device", f"fabric,count={len(regions)}"], cpu_words=("hypervisor=off",))
""",
    "cases/splice/on_a_fabric.yaml": """title: A file on a fabric
axes: {storage: [dax], region: [fabric], filesystem: [nova]}
program:
  - open: {name: f, path: a, flags: [rdwr, creat]}
""",
}

#: What is known of a stack of both, and what is done with it.
KINDS_SCRIPT = """
import json
from harness.case.plan import named_stacks
from harness.errors import AgentError
from harness.guest.audit import audit_request
from harness.guest.filesystem import make_commands
from harness.guest.layout import Layout, PlacedVolume
from harness.guest.facts import probe_program
from harness.model.audit_outcome import audit_from
from harness.model.complaint import find_report
from harness.model.facts import Env
from harness.model.stack import StackReading, VolumeReading
from harness.ops import Program
from harness.report.rows import _TOLD_VERSIONS
stack = named_stacks()["fabric-fsdax-nova-dax_always"]
layout = Layout(stack, (PlacedVolume(stack.main, "/dev/pmem0", "/mnt/main"),))
reading = VolumeReading("main", "/dev/pmem0", "/mnt/main", "nova", ("rw", "dax"), True, True, 512, 4096, 1 << 28, provider="fabric.0")
env = Env(StackReading("6.12.1", (reading,)))
request = audit_request(layout, Program(()), check=True, scale=1, limit_s=1)
said = {"argv": request["volumes"][0]["check"], "status": 1, "stdout": "nothing to check", "stderr": ""}
try:
    audit_from({"took_s": 0, "volumes": [{"role": "main", "check": said}]})
    unable = ""
except AgentError as error:
    unable = str(error)
print(json.dumps([
    probe_program(layout).steps[0].operation.options,
    make_commands(stack.main.mount, "/dev/pmem0", {"nova": ("mkfs.nova",)})[1].argv,
    [env.fact(name, "main") for name in ("map_sync", "max_file_bytes", "nova_refuses_dax_mount")],
    unable.splitlines()[0],
    find_report("[    1.000000] NOVA-fs error (device pmem0)"),
    "nova-tools" in _TOLD_VERSIONS,
]))
"""


@pytest.fixture(scope="module")
def with_kinds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree with a region kind and a file system that were added."""
    tree = copy_tree(tmp_path_factory.mktemp("kinds"))
    for name, changes in ADDED_KINDS.items():
        source = (tree / name).read_text()
        for line, more in changes.items():
            assert source.count(line) == 1, line
            source = source.replace(line, line + more)
        (tree / name).write_text(source)
    for name, text in MADE.items():
        (tree / name).write_text(text)
    return tree


def test_a_region_kind_and_a_file_system_that_were_added_are_planned(with_kinds: Path) -> None:
    said = harness(with_kinds, "plan", "cases/splice/on_a_fabric.yaml")
    assert "fabric 256MiB -> fsdax map=mem -> nova -> dax=always" in said
    assert "-device fabric,count=1" in said
    assert "-cpu max,hypervisor=off" in said


def test_no_family_of_cases_has_to_say_why_it_has_none_on_a_new_region_kind(with_kinds: Path) -> None:
    assert "only cases that are about it name it" in " ".join(harness(with_kinds, "plan", "--matrix").split())


def test_set_up_model_audit_and_report_know_what_was_added(with_kinds: Path) -> None:
    done = json.loads(run([sys.executable, "-c", KINDS_SCRIPT], Deadline.after(120), cwd=with_kinds).stdout)
    assert done == [
        "dax",
        ["mkfs.nova", "-u", "2m", "/dev/pmem0"],
        [False, 2**40, False],
        "the check of a volume could not be made: nova-check /dev/pmem0 gave exit status 1",
        "file system error",
        True,
    ]
    assert "`nova_refuses_dax_mount`" in harness(with_kinds, "contract")
