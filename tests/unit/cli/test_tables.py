"""probe, history and diff: what they print, and what they say when they cannot."""

import datetime
import fnmatch
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from harness.__main__ import main
from harness.case.loader import load_plans
from harness.cli.bisect import bisect
from harness.cli.probe import LEFT_OUT, log_changes
from harness.host.deadline import Deadline, wait_until
from harness.host.process import run, start
from harness.model.outcome import How, Observation
from harness.ops import Operation, Pwrite
from harness.record.differences import Shape
from harness.record.facttable import Difference, FactTable, Shown, read_table, write_table
from harness.record.item import Ending
from harness.record.runs import stored_runs
from harness.record.store import store_record
from tests.fakes.leased import FakeGuest, obedient
from tests.fakes.project import CLAIMS, CONFTEST, FAILING, GOOD
from tests.fakes.samples import ran, stack

ROOT = Path(__file__).parents[3]
DAX, CACHE = "ext4 dax on pmem", "ext4 on pmem"


def table(release: str, value: str, storage: str = DAX) -> FactTable:
    rows = (Shown("splice_to_pipe", storage, (value,), 3), Shown("splice_to_pipe", CACHE, ("alias",), 3))
    return FactTable(f"debian_{release}", (f"{release}.0-x",), (), "2026-01-02", rows)


@pytest.fixture
def facts(tmp_path: Path) -> Path:
    for one in (table("6.1", "alias"), table("6.11", "copy"), table("6.12", "copy")):
        write_table(tmp_path / "facts", one)
    return tmp_path / "facts"


@pytest.mark.parametrize(
    "path", [path for path in sorted(ROOT.glob("cases/*/*.yaml")) if "\nprobes:" in path.read_text()], ids=lambda p: p.stem
)
def test_what_a_case_probes_is_not_left_out_of_a_measurement(path: Path) -> None:
    """The storage of a variant that is left out is that of another one."""
    plans = load_plans(path)
    assert any(not fnmatch.fnmatch(plan.id, LEFT_OUT) for plan in plans), f"{path} probes nothing where {LEFT_OUT} is left out"


# ---- history ---------------------------------------------------------------------------------------------------------


def test_a_history_says_since_when_and_how_many_gates_are_exact(facts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["history", "--facts", str(facts)]) == 0
    said = capsys.readouterr().out
    assert "alias on debian_6.1; copy since debian_6.11 (not on debian_6.1)" in said
    assert CACHE not in said  # nothing changed there
    assert "2 histories, 1 gates, 0 of them exact (0 %)" in said
    assert "kernels: debian_6.1, debian_6.11, debian_6.12" in said


def test_the_history_of_one_fact_has_its_source_and_what_never_changed(facts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["history", "splice_to_pipe", "--storage", "ext4 on", "--facts", str(facts)]) == 0
    said = capsys.readouterr().out
    assert "source: fs/splice.c" in said
    assert "alias on debian_6.1\n" in said
    assert "1 histories, 0 gates" in said


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("history", "gone"), "no fact 'gone'; there are: advice_looks_at_offset, allocation_unmaps"),
        (("history", "--facts", "nowhere"), "no table of facts in nowhere: python -m harness probe makes one"),
        (("diff", "debian_6.1", "debian_9.9", "--facts", "FACTS"), "no table of 'debian_9.9' in"),
        (("diff", "debian_6.1:ext4 dax on pmem", "debian_6.1", "--facts", "FACTS"), "give KERNEL:STORAGE twice, with the same kernel"),
        (("diff", "debian_6.1:a", "debian_6.12:b", "--facts", "FACTS"), "give KERNEL:STORAGE twice, with the same kernel"),
        (("diff", "2026", "2027", "--facts", "FACTS", "--artifacts", "nowhere"), "no run is kept in nowhere/runs"),
    ],
)
def test_what_is_not_there_is_said_with_what_is(
    facts: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], problem: str
) -> None:
    assert main([str(facts) if word == "FACTS" else word for word in arguments]) == 2
    assert problem in capsys.readouterr().err


# ---- diff ------------------------------------------------------------------------------------------------------------


def test_the_difference_of_two_kernels_has_a_source_in_each_row(facts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", "debian_6.1", "debian_6.12", "--facts", str(facts)]) == 0
    said = capsys.readouterr().out
    assert "splice_to_pipe on ext4 dax on" in said
    assert "fs/splice.c" in said
    assert "1 differences" in said


def test_two_kinds_of_storage_are_compared_on_one_kernel(facts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", f"debian_6.12:{DAX}", f"debian_6.12:{CACHE}", "--facts", str(facts)]) == 0
    assert "1 differences" in capsys.readouterr().out


def failing(operation: Operation) -> Observation:
    return Observation(0, How.FAILED, errno="EIO") if isinstance(operation, Pwrite) else obedient(operation)


def test_two_runs_are_compared_item_by_item(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, guest in enumerate((FakeGuest(stack()), FakeGuest(stack(), failing)), 1):
        folder = tmp_path / f"runs/2026010{number}-000000-aaaa"
        folder.mkdir(parents=True)
        identity = (
            f'{{"format": 1, "id": "{folder.name}", "began": "2026-01-0{number}T00:00:00+00:00", "command": ["pytest"], "commit": "",'
            ' "catalog": "", "kernels": ["debian_6.12"], "ended": null, "status": null, "items": []}'
        )
        (folder / "identity.json").write_text(identity)
        store_record(folder / "fam/one", ran(tmp_path / "scratch", guest), "", "")
    assert main(["diff", "20260101", "20260102", "--artifacts", str(tmp_path), "--facts", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "1 of 1 items differ" in said
    row = next(line for line in said.splitlines() if line.startswith("fam/one[e820-fsdax-ext4-dax_always]"))
    assert row.split()[1:] == ["conforms", "deviates", "2"]


# ---- probe -----------------------------------------------------------------------------------------------------------

PROBING = """
title: A thousand bytes
probes: dio_offset_alignment
axes:
  storage: [dax]
program:
  - open: {name: f, path: a, flags: [rdwr, creat, direct]}
  - pwrite: {file: f, offset: 0, length: 1000}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a case that probes, on guests that are fakes."""
    for path, text in {
        "cases/claims.yaml": CLAIMS,
        "cases/fam/family.yaml": "title: A family\n",
        "cases/fam/one.yaml": PROBING,
        "conftest.py": f'pytest_plugins = ["harness.plugin"]\n{CONFTEST.replace("{make}", GOOD)}',
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PMEM_HARNESS_CACHE", str(tmp_path / "cache"))  # its guests take no places of those that run meanwhile
    return tmp_path


def test_a_kernel_that_is_probed_gets_a_table_and_is_laid_beside_its_neighbours(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_table(project / "facts", table("6.1", "alias"))
    assert main(["probe"]) == 0
    said = capfd.readouterr().out
    assert "1 passed" in said  # of the two variants that on an NVDIMM is left out
    assert "the model and debian_6.12: no difference" in said
    assert "debian_6.1 and debian_6.12: no difference" in said
    assert "former" not in said
    found = read_table(project / "facts/debian_6.12.json")
    assert Shown("dio_offset_alignment", DAX, (1,), 1) in found.facts
    assert (found.releases, found.measured) == (("6.12.95-fake",), datetime.date.today().isoformat())


def test_the_table_of_a_run_that_is_kept_is_that_of_the_run(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["probe"]) == 0
    (run,) = stored_runs(project / "artifacts")
    assert main(["probe", "--from", run.identity.id, "--from", "latest", "--facts", "again"]) == 0
    assert "the model and debian_6.12: no difference" in capfd.readouterr().out
    assert read_table(project / "again/debian_6.12.json").values == read_table(project / "facts/debian_6.12.json").values


@pytest.mark.parametrize("option", [("--full",), ("--kernel", "debian_6.12")])
def test_a_run_that_is_kept_is_not_told_what_to_run(option: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["probe", "--from", "latest", *option]) == 2
    assert "--from runs nothing: --kernel and --full say what is run" in capsys.readouterr().err


def test_all_stacks_are_probed_where_that_is_wanted(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    case = project / "cases/fam/one.yaml"
    case.write_text(case.read_text().replace("storage: [dax]", "storage: [dax]\n  layer: [none, partition]"))
    assert main(["probe"]) == 0
    assert "1 passed" in capfd.readouterr().out
    assert main(["probe", "--full"]) == 0
    assert "2 passed" in capfd.readouterr().out


def test_what_changed_since_a_kernel_was_probed_is_said_and_logged(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    former = FactTable("debian_6.12", ("6.12.1-x",), (), "2026-01-02", (Shown("dio_offset_alignment", DAX, (512,), 1),))
    write_table(project / "facts", former)
    assert main(["probe", "-n", "0"]) == 0
    assert "its former table" in capfd.readouterr().out
    log = (project / "facts/CHANGES.md").read_text()
    assert f"## {datetime.date.today().isoformat()} debian_6.12 (6.12.95-fake)" in log
    assert f"- {DAX}: dio_offset_alignment is 1, was 512\n" in log


def test_where_nothing_changed_nothing_is_logged(tmp_path: Path) -> None:
    log_changes(tmp_path, table("6.1", "copy"), [])
    assert not (tmp_path / "CHANGES.md").exists()
    log_changes(tmp_path, table("6.1", "copy"), [Difference("map_sync", DAX, (True,), (False,))])
    assert (tmp_path / "CHANGES.md").read_text() == f"\n## 2026-01-02 debian_6.1 (6.1.0-x)\n\n- {DAX}: map_sync is False, was True\n"


def test_a_kernel_on_which_not_every_item_could_run_gets_no_table(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (project / "conftest.py").write_text(f'pytest_plugins = ["harness.plugin"]\n{CONFTEST.replace("{make}", "broken_boot")}')
    assert main(["probe", "-n", "0"]) == 3
    assert "not every item could run, so nothing was measured" in capfd.readouterr().err
    assert not (project / "facts").exists()


def test_a_kernel_that_is_watched_on_guests_that_cannot_run_adds_nothing(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    watching = PROBING.replace("probes: dio_offset_alignment", "watch: [{path: here to there, moves: move, read: look}]")
    (project / "cases/fam/one.yaml").write_text(
        watching + "    id: move\n  - fsync: {file: f}\n  - pread: {file: f, offset: 0, length: 1}\n    id: look\n"
    )
    (project / "conftest.py").write_text(f'pytest_plugins = ["harness.plugin"]\n{CONFTEST.replace("{make}", "broken_boot")}')
    assert main(["watch", "--kernel", "debian_6.12", "-n", "0", "--facts", "facts"]) == 3
    assert "not every item could run, so nothing was added" in capfd.readouterr().err
    assert not (project / "facts").exists()


def test_an_item_that_deviates_is_no_success_whatever_the_facts_are(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (project / "conftest.py").write_text(f'pytest_plugins = ["harness.plugin"]\n{CONFTEST.replace("{make}", FAILING)}')
    assert main(["probe", "-n", "0"]) == 1
    assert "the model and debian_6.12: no difference" in capfd.readouterr().out


def test_wrong_usage_of_pytest_is_that_of_probe(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["probe", "--kernel", "nothing"]) == 2
    assert "no kernel 'nothing'" in capfd.readouterr().err


# ---- a kernel's own table -------------------------------------------------------------------------------------------


def backported(folder: Path) -> None:
    """The table of a kernel that was measured to be otherwise than its version says."""
    rows = (Shown("dio_offset_alignment", DAX, (512,), 1), Shown("dio_memory_alignment", DAX, (1, 4), 1))
    write_table(folder, FactTable("debian_6.12", ("6.12.1-x",), (), "2026-01-02", rows))


def test_what_was_measured_of_a_kernel_comes_before_the_model_s_table(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    item = ["-m", "pytest", "cases", "--not-stack", "nvdimm-*", "-q"]
    assert run([sys.executable, *item], Deadline.after(120), check=False).status == 0
    backported(project / "own")
    done = run([sys.executable, *item, "--facts", "own"], Deadline.after(120), check=False)
    assert done.status == 1
    assert "must be multiples of the logical block size" in done.stdout
    assert main(["judge"]) == 0
    assert main(["judge", "--facts", "own"]) == 1
    backported(project / "other")
    (project / "other/debian_6.12.json").rename(project / "other/debian_6.1.json")
    assert main(["judge", "--facts", "other"]) == 0  # it says nothing of this kernel
    capfd.readouterr()


def test_facts_from_a_folder_without_tables_are_refused(project: Path) -> None:
    done = run([sys.executable, "-m", "pytest", "cases", "--facts", "own"], Deadline.after(120), check=False)
    assert done.status == 2
    assert "--facts own: there is no table of facts; python -m harness probe makes one" in done.stderr
    backported(project / "own")
    (project / "own/debian_6.12.json").write_text("{}")
    done = run([sys.executable, "-m", "pytest", "cases", "--facts", "own"], Deadline.after(120), check=False)
    assert done.status == 2
    assert "own/debian_6.12.json has format None, this harness reads 1" in done.stderr


# ---- bisect ----------------------------------------------------------------------------------------------------------


def shape(word: str) -> Shape | None:
    return Shape(Ending.COMPLETED, word, ()) if word else None


@pytest.mark.parametrize(
    ("told", "found", "looks"),
    [
        ("a a a b b b b b", (2, 3), 5),
        ("a b", (0, 1), 2),
        ("a a a a", None, 2),
        ("- a - - b -", (1, 4), 6),
        ("a - - - b", (0, 4), 5),
        ("- - -", None, 3),
        ("a a b a a c", (4, 5), 4),
    ],
)
def test_half_of_the_kernels_are_left_after_each_look(told: str, found: tuple[int, int] | None, looks: int) -> None:
    shapes = {str(number): shape(word.strip("-")) for number, word in enumerate(told.split())}
    seen = set()

    def look(kernel: str) -> Shape | None:
        seen.add(kernel)
        return shapes[kernel]

    pair = bisect(list(shapes), look)
    assert (pair and tuple(map(int, pair))) == found
    assert len(seen) <= looks


def test_an_item_is_run_on_kernels_until_the_first_that_differs_is_left(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The fakes fail on the kernel that is on the second place."""
    make = "lambda stack: FakeGuest(stack)"
    (project / "conftest.py").write_text(BY_KERNEL.replace("{conftest}", CONFTEST.replace("{make}", make)))
    case = ("bisect", "cases/fam/one.yaml", "--variant", "e820-fsdax-ext4-dax_always")
    assert main([*case, "--kernel", "debian_6.1", "--kernel", "debian_6.12"]) == 0
    said = capfd.readouterr()
    assert "debian_6.12 is the first that differs from debian_6.1, in step 2 (pwrite)" in said.out
    assert "one[e820-fsdax-ext4-dax_always] on debian_6.12" in said.err


BY_KERNEL = """
pytest_plugins = ["harness.plugin"]
import sys
{conftest}
def pytest_harness_booter(config):
    answer = fails if "debian_6.12" in sys.argv else obedient
    return FakeHost(lambda stack: FakeGuest(stack, answer)).boot
"""


def test_where_kernels_agree_that_is_the_answer(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["bisect", "cases/fam/one.yaml", "--kernel", "debian_6.1", "--kernel", "debian_6.12"]) == 0
    assert "debian_6.1 and debian_6.12 agree in every step" in capfd.readouterr().out


def test_where_it_can_run_nowhere_nothing_is_compared(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (project / "conftest.py").write_text(f'pytest_plugins = ["harness.plugin"]\n{CONFTEST.replace("{make}", "broken_boot")}')
    assert main(["bisect", "cases/fam/one.yaml", "--kernel", "debian_6.1", "--kernel", "debian_6.12"]) == 3
    assert "it ran on less than two kernels" in capfd.readouterr().err


def test_a_bisection_that_cannot_be_meant_is_refused(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["bisect", "cases/fam/one.yaml", "--kernel", "debian_6.1"]) == 2
    assert "a bisection needs two kernels or more" in capfd.readouterr().err
    assert main(["bisect", "cases/fam/one.yaml", "--variant", "disk"]) == 2
    assert "has no variant 'disk'; there are:\n  e820-fsdax-ext4-dax_always" in capfd.readouterr().err


# ---- the suite that a command starts ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM), (signal.SIGHUP, -signal.SIGHUP)])
def test_a_probe_that_is_ended_ends_the_suite_that_it_started(project: Path, number: signal.Signals, status: int) -> None:
    """The signal reaches only the command itself, as it does where no terminal sends it to all."""
    make = "lambda stack: (open('begun', 'w').close(), __import__('time').sleep(600))"
    (project / "conftest.py").write_text(f'pytest_plugins = ["harness.plugin"]\n{CONFTEST.replace("{make}", make)}')
    # What runs the tests may have been started without Ctrl-C (a shell's `&`), and a process inherits that.
    begin = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    command = [sys.executable, "-c", begin, "-m", "harness", "probe", "-n", "0"]
    process = start(command, env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        assert wait_until((project / "begun").exists, Deadline.after(60))
        (suite,) = psutil.Process(process.pid).children()
        process.send_signal(number)
        assert process.wait(60) == status
        assert not suite.is_running()
    finally:
        if process.poll() is None:
            for left in psutil.Process(process.pid).children(recursive=True):
                left.kill()
            process.kill()
