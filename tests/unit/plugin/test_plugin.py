"""Cases as pytest users meet them, with guests that are fakes."""

import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from harness.errors import HostError
from harness.image.catalog import load_catalog
from harness.model.verdict import Verdict
from harness.record.item import Ending
from harness.record.runs import LOG, stored_runs
from harness.record.store import load_record
from harness.report.forms.outcome import Outcome, outcome_of
from harness.report.rows import Row, read_rows
from tests.fakes.project import CLAIMS, CONFTEST, FAILING, GOOD
from tests.unit.image.kernels import RELEASE, write_kernel

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[3]

CASE = """
title: What is written can be read
decides:
  - {claim: claimed, step: write, holds_if: {works: true}}
axes:
  storage: [dax, disk]
  region: [e820]
program:
  - open: {name: f, path: a, flags: [rdwr, creat]}
  - pwrite: {file: f, offset: 0, length: 4KiB}
    id: write
  - fsync: {file: f}
"""

E820_DAX = "cases/fam/one.yaml::one[e820-fsdax-ext4-dax_always-debian_6.12]"
DECIDED = r"claimed +debian_6\.12 +HOLDS +decided by fam/one \(2 items\)"
ON_DISK = "cases/fam/one.yaml::one[disk-ext4-debian_6.12]"


class Project:
    """A folder with cases, and pytest run in it."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        self.root = pytester.path
        self.write("cases/claims.yaml", CLAIMS)
        self.write("cases/fam/family.yaml", "title: A family\n")
        self.write("cases/fam/one.yaml", CASE)

    def write(self, path: str, text: str) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def run(self, *arguments: str, make: str = GOOD) -> pytest.RunResult:
        self.write("conftest.py", CONFTEST.replace("{make}", make))
        options = ["-p", "harness.plugin", "--strict-markers", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:hypothesispytest"]
        return self.pytester.runpytest(*options, *arguments)

    def run_apart(self, *arguments: str, make: str | None = None) -> pytest.RunResult:
        """Like :meth:`run`, in a process of its own: pytest's in-process runs survive no wrong usage and no interrupt."""
        self.write("conftest.py", CONFTEST.replace("{make}", make) if make else "")
        self.pytester.syspathinsert(ROOT)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", str(ROOT))
            return self.pytester.runpytest_subprocess("-p", "harness.plugin", *arguments)

    def rows(self) -> tuple[Row, ...]:
        return read_rows(self.root / "artifacts/latest")


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    return make_project(pytester, monkeypatch)


def make_project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Return a project whose guests take no places of those that run on this computer meanwhile."""
    monkeypatch.setenv("PMEM_HARNESS_CACHE", str(pytester.path / "cache"))
    return Project(pytester)


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a kernel that has no full flavour in the catalogue."""
    catalog = load_catalog()
    kernels = {name: kernel for name, kernel in catalog.kernels.items() if kernel.base != "debian_6.1"}
    monkeypatch.setattr("harness.lease.kernels.load_catalog", lambda: replace(catalog, kernels=kernels))
    return "debian_6.1"


def text(result: pytest.RunResult) -> str:
    return result.stdout.str() + result.stderr.str()


# ---- collecting and selecting ----------------------------------------------------------------------------------------


def test_a_case_is_an_item_for_each_variant_and_kernel(project: Project) -> None:
    result = project.run("--collect-only", "-q", "cases", "--kernel", "debian_6.12", "--kernel", "debian_6.1")
    assert result.outlines[:4] == [
        E820_DAX,
        ON_DISK,
        E820_DAX.replace("6.12", "6.1"),
        ON_DISK.replace("6.12", "6.1"),
    ]
    assert result.ret == 0


@pytest.mark.parametrize(
    "selection",
    [
        [ON_DISK],
        ["cases", "-k", "disk"],
        ["cases", "-m", "disk and fam and ext4"],
        ["cases/fam", "-m", "not dax"],
        ["cases/fam/one.yaml", "-m", "not e820"],
        ["cases", "-m", "debian_6.12 and disk"],
    ],
)
def test_items_are_selected_as_pytest_users_expect(project: Project, selection: list[str]) -> None:
    result = project.run("-v", *selection)
    assert result.ret == 0
    result.assert_outcomes(passed=1, deselected=0 if "::" in selection[0] else 1)
    assert [row.where.node_id for row in project.rows()] == [ON_DISK]


def test_what_is_for_a_full_run_is_left_out_unless_that_or_the_item_itself_is_asked_for(project: Project) -> None:
    project.write("cases/fam/one.yaml", CASE.replace("axes:", "full: {storage: dax}\naxes:"))
    project.run("--collect-only", "-q").stdout.fnmatch_lines([ON_DISK, "*1/2 tests collected (1 deselected)*"])
    project.run("--collect-only", "-q", "--full").stdout.fnmatch_lines([E820_DAX, ON_DISK])
    project.run("--collect-only", "-q", E820_DAX).stdout.fnmatch_lines([E820_DAX])


def test_a_pairwise_run_leaves_out_what_adds_no_pair(project: Project) -> None:
    kernels = [word for name in ("debian_6.12", "debian_6.1", "debian_7.3") for word in ("--kernel", name)]
    project.write("cases/fam/two.yaml", CASE.replace("What is", "Whatever is"))
    project.run("--collect-only", "-q", "--pairwise", *kernels).stdout.fnmatch_lines(["*tests collected*"])
    assert project.run("-q", "--pairwise", *kernels).ret == 0
    assert len({(row.where.stack, row.where.target.kernel) for row in project.rows()}) == 6


def test_what_a_kept_run_says_something_of_is_not_run_again(project: Project) -> None:
    assert project.run(E820_DAX).ret == 0
    project.run("cases", "--resume", "latest").assert_outcomes(passed=1, deselected=1)
    assert [row.where.node_id for row in project.rows()] == [ON_DISK]


@pytest.mark.parametrize("run", ["latest", "20"])
def test_the_workers_of_a_run_leave_out_what_a_kept_run_says_something_of_too(project: Project, run: str) -> None:
    assert project.run(E820_DAX).ret == 0
    assert project.run_apart("cases", "--resume", run, "-p", "xdist", "-n", "1", make=GOOD).ret == 0
    assert [row.where.node_id for row in project.rows()] == [ON_DISK]


def test_what_could_not_run_is_run_again_by_the_workers_of_a_run_too(project: Project) -> None:
    assert project.run_apart("cases", make="broken_boot").ret == 3
    result = project.run_apart("cases", "--resume", "latest", "-p", "xdist", "-n", "1", make=GOOD)
    assert result.ret == 0
    assert {row.where.node_id for row in project.rows()} == {E820_DAX, ON_DISK}


def test_a_run_that_is_not_kept_cannot_be_resumed(project: Project) -> None:
    result = project.run_apart("cases", "--resume", "2026")
    assert "ERROR: --resume: no run is kept in artifacts/runs; pytest makes one there" in text(result)
    assert result.ret == 2


def test_markers_are_registered_with_their_meaning(project: Project) -> None:
    result = project.run("--markers")
    for wanted in ("no_dax:", "nvdimm:", "debian_6.1:", "fam: cases of the family: A family"):
        assert f"@pytest.mark.{wanted}" in text(result)


def test_a_broken_case_is_an_error_with_file_and_line_and_no_traceback(project: Project) -> None:
    project.write("cases/fam/two.yaml", CASE.replace("fsync: {file: f}", "fsync: {file: g}"))
    result = project.run("cases")
    assert "cases/fam/two.yaml:12: " in text(result)
    assert "Traceback" not in text(result)
    assert "loader.py" not in text(result)
    assert result.ret == 2


def test_a_broken_list_of_known_deviations_is_an_error_before_anything_runs(project: Project) -> None:
    project.write("cases/deviations.yaml", "deviations:\n  - {clause: C-RW-06, item: fam, since: '6.1', reference: x}\n")
    result = project.run("cases")
    assert "cases/deviations.yaml:2: item is 'fam'; a family and a case are written splice/tee" in text(result)
    assert "Traceback" not in text(result)
    assert result.ret == 2


def test_a_known_deviation_above_the_case_that_does_not_show_fails_its_item(project: Project) -> None:
    project.write("cases/deviations.yaml", "deviations: [{clause: C-RW-01, item: fam/one, since: '6.0', reference: bug 7}]\n")
    result = project.run("cases")
    assert "bug 7" in text(result)
    assert result.ret == 1


def test_one_file_may_lie_anywhere(project: Project) -> None:
    project.write("mine/quick.yaml", CASE.replace("  - {claim: claimed, step: write, holds_if: {works: true}}", "").replace("decides:", ""))
    result = project.run("mine/quick.yaml")
    result.assert_outcomes(passed=2)


def test_yaml_outside_cases_is_left_alone(project: Project) -> None:
    project.write("images/kernels.yaml", "format: 1\n")
    result = project.run("--collect-only", "-q", ".")
    assert "kernels.yaml" not in text(result)


def test_an_unknown_kernel_is_wrong_usage(project: Project) -> None:
    result = project.run_apart("cases", "--kernel", "debian_5")
    assert "ERROR: no kernel 'debian_5': give one of debian_5.10" in text(result)
    assert "Traceback" not in text(result)
    assert result.ret == 2


def test_a_file_that_is_not_there_is_wrong_usage(project: Project) -> None:
    result = project.run_apart("cases/fam/nothing.yaml")
    assert "file or directory not found: cases/fam/nothing.yaml" in text(result)
    assert result.ret == 2


def test_an_empty_selection_is_loud(project: Project) -> None:
    assert project.run("cases", "-k", "no_such_word").ret == 2


def test_items_that_no_kernel_can_run_are_skipped_with_the_reason_and_alone_are_no_success(project: Project, plain: str) -> None:
    project.write("cases/fam/one.yaml", CASE + "needs: {kernel_flavour: full}\n")
    result = project.run("cases", "--kernel", plain, "-rs")
    result.assert_outcomes(skipped=2)
    assert "it needs the full flavour of a kernel, and images/kernels.yaml has none of debian_6.1" in text(result)
    result.stdout.re_match_lines([r"claimed +debian_6\.1 +NOT REPRODUCIBLE HERE +it needs the full flavour"])
    assert "guests booted: 0" in text(result)
    assert result.ret == 2


XDP_CASE = CASE.replace("program:", "needs: {kernel_options: [CONFIG_XDP_SOCKETS]}\nprogram:") + "  - xdp_socket: {name: x}\n"


def test_an_option_that_an_own_kernel_lacks_makes_items_unavailable_before_anything_boots(project: Project) -> None:
    write_kernel(project.root / "mine/boot", "CONFIG_A=y\n")
    project.write("cases/fam/xdp.yaml", XDP_CASE)
    result = project.run("cases", "--kernel", "mine", "-rs")
    result.assert_outcomes(skipped=2, passed=2)
    assert "the kernel was built without CONFIG_XDP_SOCKETS (AF_XDP sockets)" in text(result)
    endings = {row.where.case: row.ended.ending for row in project.rows()}
    assert endings == {"cases/fam/one.yaml": "completed", "cases/fam/xdp.yaml": "unavailable"}
    assert "guests booted: 2 alive: 0" in text(result)
    assert result.ret == 0


def test_a_variant_whose_file_system_has_no_driver_is_unavailable_and_the_others_run(project: Project) -> None:
    write_kernel(project.root / "mine/boot", "CONFIG_A=y\n")
    project.write("cases/fam/one.yaml", CASE.replace("region: [e820]", "region: [e820]\n  filesystem: [ext4, ext2]"))
    result = project.run("cases", "--kernel", "mine", "-rs")
    result.assert_outcomes(skipped=2, passed=2)
    assert "the kernel was built without CONFIG_EXT2_FS (ext2 by its own driver)" in text(result)
    assert {row.where.variant.filesystem: row.ended.ending for row in project.rows()} == {"ext4": "completed", "ext2": "unavailable"}
    assert result.ret == 0


def test_a_python_case_on_a_file_system_without_its_driver_is_unavailable(project: Project) -> None:
    write_kernel(project.root / "mine/boot", "CONFIG_A=y\n")
    python_case(project, PYTHON_CASE.replace('"disk-ext4"', '"disk-ext2"'))
    project.run("cases/fam/test_writes.py", "--kernel", "mine")
    endings = {row.where.variant.id: row.ended.ending for row in project.rows()}
    assert endings == {"e820-fsdax-ext4-dax_always": "completed", "disk-ext2": "unavailable"}


def test_a_kernel_with_the_option_runs_the_case(project: Project) -> None:
    write_kernel(project.root / "mine/boot", "CONFIG_XDP_SOCKETS=m\n")
    (project.root / f"mine/lib/modules/{RELEASE}").mkdir(parents=True)
    (project.root / f"mine/lib/modules/{RELEASE}/modules.order").touch()
    project.write("cases/fam/one.yaml", XDP_CASE)
    result = project.run("cases", "--kernel", "mine")
    assert {row.ended.ending for row in project.rows()} == {Ending.COMPLETED}
    assert "skipped" not in text(result)


def test_collecting_looks_at_no_kernel_and_an_unreadable_one_is_an_error_of_the_set_up(project: Project) -> None:
    project.write("mine/nothing", "")
    project.write("cases/fam/one.yaml", XDP_CASE)
    assert project.run("--collect-only", "-q", "cases", "--kernel", "mine").ret == 0
    result = project.run("cases", "--kernel", "mine")
    result.stdout.fnmatch_lines(["*2 not set up in*"])
    assert "no kernel in" in text(result)
    assert result.ret == 3


def test_words_for_the_command_line_are_kept_with_the_item_and_in_the_rerun_line(project: Project) -> None:
    result = project.run(ON_DISK, "--kernel-args", "one two=2", "--junitxml=junit.xml", make=FAILING)
    assert [row.where.target.arguments for row in project.rows()] == ["one two=2"]
    assert f"pytest \"{ON_DISK}\" --kernel-args='one two=2'" in text(result)
    plan = next((project.root / "artifacts/latest").rglob("plan.json"))
    assert load_record(plan.parent).item.where.target.arguments == "one two=2"
    assert 'name="kernel_args" value="one two=2"' in (project.root / "junit.xml").read_text()


def test_words_that_would_break_a_guest_are_wrong_usage(project: Project) -> None:
    result = project.run_apart("cases", "--kernel-args", "memmap=64M!1G")
    assert "ERROR: --kernel-args: 'memmap=64M!1G' cannot be given: where RAM and regions lie" in text(result)
    assert result.ret == 2


# ---- running ---------------------------------------------------------------------------------------------------------


def test_what_conforms_passes_and_leaves_its_evidence(project: Project) -> None:
    result = project.run("cases")
    result.assert_outcomes(passed=2)
    assert result.ret == 0
    assert [row.passed for row in project.rows()] == [True, True]
    assert (project.root / "artifacts/latest/fam/one/disk-ext4-debian_6.12/verdict.json").exists()
    assert "== hits by clause ==" in (project.root / "artifacts/latest/summary.txt").read_text()


LEFT = "lambda stack: FakeGuest(stack, audited=Audit((VolumeSeen('main', (), 'EBUSY'),)))"


def test_what_an_audit_finds_fails_the_item_where_one_is_asked_for(project: Project) -> None:
    result = project.run("cases", "--audit", "full", make=LEFT)
    result.assert_outcomes(failed=2)
    assert "after the program: unmount" in text(result)
    assert "observed  main: EBUSY" in text(result)
    assert result.ret == 1
    result = project.run("cases", make=LEFT)
    result.assert_outcomes(passed=2)
    assert "2 items were not, or only their volumes: not asked for (--audit)" in text(result)


def test_an_audit_that_there_is_not_is_wrong_usage(project: Project) -> None:
    result = project.run_apart("cases", "--audit", "some")
    assert result.ret == 4  # pytest itself reads the options
    assert "--audit: invalid choice: 'some'" in text(result)


def test_the_run_ends_with_the_table_of_claims_and_what_it_ran_on(project: Project) -> None:
    result = project.run("cases")
    result.stdout.re_match_lines([DECIDED])
    said = text(result)
    assert "accelerator tcg (it is a fake)" in said
    (run,) = runs(project)
    assert f"evidence: artifacts/runs/{run.name}/ (results.jsonl, summary.txt, one folder an item)" in said


@pytest.mark.parametrize(("options", "guests"), [([], 4), (["--reuse-guests"], 2)])
def test_items_of_equal_stacks_are_brought_together_and_share_a_guest_if_asked_to(
    project: Project, options: list[str], guests: int
) -> None:
    project.write("cases/fam/two.yaml", CASE)
    result = project.run("cases", "-v", *options)
    result.assert_outcomes(passed=4)
    assert f"guests booted: {guests} alive: 0" in text(result)


def test_both_lifecycles_are_items_of_their_own_and_their_ids_run_again(project: Project) -> None:
    both = ["--lifecycle", "restored", "--lifecycle", "booted"]
    result = project.run("cases", "-v", *both)
    result.assert_outcomes(passed=4)
    assert result.ret == 0
    booted = ON_DISK.replace("6.12]", "6.12-booted]")
    assert {row.where.node_id for row in project.rows()} >= {ON_DISK, booted}
    project.run(booted, *both).assert_outcomes(passed=1)
    project.run("cases", "-m", "booted", *both).assert_outcomes(passed=2, deselected=2)


def test_workers_run_the_items_and_the_controller_reports_them(project: Project) -> None:
    result = project.run_apart("cases", "-n", "2", make=GOOD)
    result.assert_outcomes(passed=2)
    assert result.ret == 0
    assert {row.where.node_id for row in project.rows()} == {E820_DAX, ON_DISK}
    result.stdout.re_match_lines([DECIDED])


def test_a_lifecycle_that_there_is_not_is_wrong_usage(project: Project) -> None:
    result = project.run_apart("--lifecycle", "dreamt", "cases")
    assert result.ret == 2
    assert "booted" in text(result)
    assert "restored" in text(result)


def test_a_deviation_fails_with_its_paragraph_and_no_traceback(project: Project) -> None:
    result = project.run(ON_DISK, "-v", make=FAILING)
    said = text(result)
    result.assert_outcomes(failed=1)
    assert "DEVIATES" in said
    assert "cases/fam/one.yaml:10  step 2 of 3  pwrite(f, offset=0, length=4096)" in said
    assert "  observed  EIO" in said
    assert f'  rerun     pytest "{ON_DISK}"' in said
    (run,) = runs(project)
    assert f"  re-judge  python -m harness judge artifacts/runs/{run.name}/fam/one/disk-ext4-debian_6.12" in said
    assert "Traceback" not in said
    assert "outcome.py" not in said
    assert result.ret == 1


def test_a_stack_that_is_not_the_one_asked_for_is_an_error_and_never_a_pass_or_skip(project: Project) -> None:
    result = project.run("cases", "-m", "dax", make='lambda stack: FakeGuest(stack, change={"dax": False})')
    assert "1 not set up, 1 deselected" in result.outlines[-1] or "1 deselected, 1 not set up" in text(result)
    assert "ending    not set up: StackMismatchError: the guest does not have the storage stack" in text(result)
    assert "- main: DAX state of a fresh file (statx): asked for True, the guest has False" in text(result)
    assert result.ret == 3


def test_a_boot_that_fails_is_an_error_with_the_console(project: Project) -> None:
    result = project.run(ON_DISK, make="broken_boot")
    assert "= 1 not set up in " in text(result)
    assert "not set up: BootError: the kernel did not come up" in text(result)
    assert "last words" in text(result)
    assert "Traceback" not in text(result)
    assert result.ret == 3


def test_a_crash_fails_and_ends_the_guest(project: Project) -> None:
    crash = 'lambda stack: FakeGuest(stack, error=GuestError("gone"), ended=Ending(EndKind.PANIC, "it panicked"))'
    result = project.run(ON_DISK, "-v", make=crash)
    result.assert_outcomes(failed=1)
    assert "GUEST CRASHED" in text(result)
    assert "ending    guest crashed: it panicked" in text(result)
    assert result.ret == 1


def test_a_complaint_of_the_kernel_fails_the_item(project: Project) -> None:
    result = project.run(ON_DISK, make='lambda stack: FakeGuest(stack, ended=complaint(ReportKind.WARNING, "WARNING: at fs"))')
    result.assert_outcomes(failed=1)
    assert "kernel    WARNING: at fs" in text(result)


def test_a_break_of_the_protocol_is_the_harness_that_could_not_run(project: Project) -> None:
    result = project.run(ON_DISK, make='lambda stack: FakeGuest(stack, error=AgentError("malformed"))')
    assert "ending    harness error: malformed" in text(result)
    assert result.ret == 3


def test_an_interrupt_ends_the_guest(project: Project) -> None:
    project.write("cases/fam/test_interrupted.py", "def test_stop():\n    raise KeyboardInterrupt\n")
    result = project.run_apart("cases/fam/one.yaml", "cases/fam/test_interrupted.py", make=GOOD)
    assert "alive: 0" in text(result)
    assert result.ret == 2


def test_junit_has_stack_kernel_and_versions_as_properties(project: Project) -> None:
    project.run(ON_DISK, "--junitxml=junit.xml")
    tree = ElementTree.parse(project.root / "junit.xml")
    properties = {node.attrib["name"]: node.attrib["value"] for node in tree.iter("property")}
    assert properties["stack"] == "virtio disk 256MiB -> ext4"
    assert (properties["kernel"], properties["release"]) == ("debian_6.12", "6.12.95-fake")
    assert properties["verdict"] == "conforms"
    assert properties["versions"] == "linux-image-fake=6.12.95-1"


def test_a_second_run_replaces_the_results_of_the_first(project: Project) -> None:
    project.run("cases")
    project.run(ON_DISK)
    assert len(project.rows()) == 1


def test_artifacts_go_where_they_are_told(project: Project) -> None:
    project.run(ON_DISK, "--artifacts", "elsewhere")
    assert (project.root / "elsewhere/latest/fam/one/disk-ext4-debian_6.12/plan.json").exists()


def test_other_tests_keep_their_meaning_for_the_exit_status(project: Project) -> None:
    project.write("cases/fam/test_other.py", "def test_no():\n    assert False\n")
    assert project.run("cases").ret == 1


# ---- when nothing can work -------------------------------------------------------------------------------------------

IMPORTS = "import pytest\nfrom harness.ops import Open, OpenFlag, Program, Step"
IT = """
def test_it(run_program, number):
    run_program(Program((Step(Open("f", "a", (OpenFlag.RDWR, OpenFlag.CREAT))),)))
"""
STACKS = '"disk-ext4", "disk-xfs", "e820-fsdax-ext4-dax_always", "nvdimm-fsdax-ext4-dax_always"'
ITEMS = 844


def run_many(project: Project, make: str, *options: str, files: int = 31) -> tuple[int, str]:
    """Run items of many files on 4 stacks, 844 of them, in a process of their own; return the exit status and what was printed."""
    (project.root / "cases/fam/one.yaml").unlink()
    for file in range(files):
        marks = f"@pytest.mark.stack({STACKS})\n@pytest.mark.parametrize('number', range({7 if file else 1}))"
        project.write(f"cases/fam/test_many_{file}.py", f"{IMPORTS}\n\n{marks}{IT}")
    result = project.run_apart("cases", *options, make=make)
    assert len(project.rows()) == 4 * (7 * files - 6), text(result)
    return int(result.ret), text(result)


def count_endings(project: Project, ending: str) -> int:
    return [row.ended.ending for row in project.rows()].count(Ending(ending))


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_run_that_cannot_start_says_so_once_and_ends_with_status_3(project: Project, workers: str) -> None:
    status, said = run_many(project, "broken_boot", "-n", workers)
    assert status == 3
    assert len(said.splitlines()) < 60, said
    assert said.count("nothing comes up on debian_6.12: its other items are not tried") == 1
    assert "then, by itself, the default stack (e820 256MiB -> fsdax map=mem -> ext4 -> dax=always)" in said
    assert "came back BootError: the kernel did not come up" in said
    assert "try       another kernel (--kernel)" in said
    # It is told when it happens, once, and not at the end.
    assert said.count("last words") == 1
    assert said.index("last words") < said.index("nothing comes up on debian_6.12: ") < said.index("could not run")
    # No more than two of each stack, and what another worker had begun.
    assert count_endings(project, "not set up") <= 5
    assert f"= {count_endings(project, 'not set up')} not set up, {count_endings(project, 'not tried')} not tried in " in said
    assert count_endings(project, "not set up") + count_endings(project, "not tried") == ITEMS


def test_each_item_has_its_line_with_v_and_what_is_said_beside_is_as_short(project: Project) -> None:
    _, said = run_many(project, "broken_boot", "-v")
    beside = [line for line in said.splitlines() if "test_it[" not in line]
    assert said.count(" NOT TRIED ") == count_endings(project, "not tried")
    assert len(beside) < 60, "\n".join(beside)


def test_keep_going_tries_every_item_and_tells_the_reason_once(project: Project) -> None:
    status, said = run_many(project, "broken_boot", "--keep-going", "-n", "2")
    assert status == 3
    assert f"= {ITEMS} not set up in " in said
    assert said.count("last words") == 1
    assert len(said.splitlines()) < 60, said


def test_a_stack_that_fails_twice_is_given_up_and_the_others_go_on(project: Project) -> None:
    status, said = run_many(project, "no_nvdimm", files=2)
    assert status == 3
    assert count_endings(project, "not set up") == 2
    assert count_endings(project, "not tried") == 6
    assert said.count("-> ext4 -> dax=always failed 2 times on debian_6.12: its other items are not tried (--keep-going tries them)") == 1
    assert f"{6} items not tried: the storage stack failed 2 times on debian_6.12" in said
    assert "nothing comes up" not in said


def test_a_failure_that_does_not_come_again_stops_nothing(project: Project) -> None:
    status, said = run_many(project, "flaky", files=2)
    assert status == 3
    assert count_endings(project, "not set up") == 4
    assert count_endings(project, "not tried") == 0
    assert "nothing comes up" not in said


def test_what_a_kernel_cannot_run_is_skipped_and_not_counted_as_not_tried(project: Project, plain: str) -> None:
    project.write("cases/fam/one.yaml", CASE + "needs: {kernel_flavour: full}\n")
    project.write("cases/fam/two.yaml", CASE)
    project.run("cases", "--kernel", plain, make="broken_boot")
    assert [count_endings(project, ending) for ending in ("unavailable", "not set up")] == [2, 2]


def test_a_computer_with_no_room_at_all_is_told_once_before_the_first_item(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMEM_HARNESS_TMP", str(project.root / "nowhere"))
    result = project.run_apart("cases", make=GOOD)
    assert text(result).count("no folder for a machine's memory and disks") == 1
    assert "Traceback" not in text(result)
    assert result.ret == 3


def runs(project: Project) -> list[Path]:
    """The folders of runs, the oldest first."""
    return sorted((project.root / "artifacts/runs").glob("*"))


@pytest.mark.parametrize("workers", ["0", "2"])
def test_each_run_has_a_folder_of_its_own_and_says_who_it_is(project: Project, workers: str) -> None:
    for count in (1, 2):
        project.run_apart(ON_DISK, "-n", workers, make=GOOD)
        assert len(runs(project)) == count
    first, second = runs(project)
    assert (project.root / "artifacts/latest").resolve() == second
    assert sorted(path.name for path in first.iterdir()) == ["fam", LOG, "identity.json", "results.jsonl", "summary.txt"]
    identity = json.loads((second / "identity.json").read_text())
    assert identity["id"] == second.name
    assert identity["command"][-3:] == [ON_DISK, "-n", workers]
    assert (identity["status"], identity["items"], identity["kernels"]) == (0, [["conforms", 1]], ["debian_6.12"])
    assert identity["ended"] >= identity["began"]
    assert [row.where.id for row in read_rows(second)] == [ON_DISK.split("::")[1]]


def test_old_runs_go_but_for_those_that_are_to_be_kept(project: Project) -> None:
    project.write("artifacts/runs/mine/notes.txt", "what is no run is nobody's to remove")
    for _ in range(3):
        project.run_apart(ON_DISK, "--keep-runs", "2", make=GOOD)
    assert len(runs(project)) == 3
    assert (project.root / "artifacts/runs/mine/notes.txt").is_file()
    result = project.run_apart(ON_DISK, "--keep-runs", "0", make=GOOD)
    assert result.ret == 2
    assert "--keep-runs is 0: this run is one, so it is 1 or more" in text(result)


def test_a_run_without_a_case_leaves_nothing_and_removes_nothing(project: Project) -> None:
    project.run_apart(ON_DISK, make=GOOD)
    project.write("test_plain.py", "def test_plain():\n    pass\n")
    project.run_apart("--collect-only", ON_DISK, make=GOOD)
    project.run_apart("test_plain.py", "--keep-runs", "1", make=GOOD)
    assert len(runs(project)) == 1


def test_a_summary_that_cannot_be_written_is_said_and_changes_no_status(project: Project) -> None:
    lines = (
        "from pathlib import Path",
        "def pytest_runtest_logfinish():",
        "    (*Path('artifacts/runs').iterdir(),)[0].joinpath('summary.txt').mkdir()",
    )
    project.write("in_the_way.py", "\n".join(lines))
    result = project.run_apart(ON_DISK, "-p", "in_the_way", make=GOOD)
    assert "summary.txt: Is a directory" in text(result)
    assert "Traceback" not in text(result)
    assert result.ret == 0


def test_a_ledger_that_cannot_be_read_refuses_nothing(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise HostError("another worker of this run holds the lock")

    monkeypatch.setattr("harness.lease.pool.Pool.find_refusal", broken)
    project.run(ON_DISK)
    assert count_endings(project, "completed") == 1


# ---- cases in Python -------------------------------------------------------------------------------------------------

# ---- how much is said ------------------------------------------------------------------------------------------------


def test_where_nothing_is_wrong_a_long_summary_is_brief_and_its_file_is_not(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.plugin.outcome._LONGEST_SUMMARY", 3)
    brief = text(project.run("cases"))
    assert "debian_6.12: HOLDS (1): claimed" in brief
    assert "items: 2 conforms" in brief
    assert not re.search(DECIDED, brief)
    assert "hits by clause" not in brief
    assert re.search(DECIDED, (project.root / "artifacts/latest/summary.txt").read_text())
    assert re.search(DECIDED, text(project.run("cases", "-v")))
    assert "= deviations =" in text(project.run("cases", make=FAILING))


def test_a_short_summary_is_printed_whole(project: Project) -> None:
    assert re.search(DECIDED, text(project.run("cases")))


# ---- the same item several times -------------------------------------------------------------------------------------

#: The first guest of a stack does as it should, the next one does not, and so on.
BOOTED = ON_DISK.replace("]", "-booted]")
BY_TURNS = "lambda stack, turns=__import__('itertools').cycle([obedient, fails]): FakeGuest(stack, next(turns))"


def test_an_item_that_does_not_come_to_the_same_each_time_is_flaky_and_fails(project: Project) -> None:
    result = project.run(BOOTED, "-v", "--repeat", "3", "--lifecycle", "booted", "--junitxml=junit.xml", make=BY_TURNS)
    assert result.ret == 1
    assert "FLAKY" in text(result)
    (row,) = project.rows()
    assert row.repeats == ("conforms", "deviates", "conforms")
    assert (row.is_flaky, row.passed, row.is_known_deviation) == (True, False, False)
    assert row.judged is not None
    assert row.judged.verdict is Verdict.DEVIATES  # what is told is of the time that it did not pass
    assert [claim.held for claim in row.claims] == [None]
    assert "repeats   flaky: conforms 2, deviates 1 of 3" in text(result)
    assert f'rerun     pytest "{BOOTED}" --repeat 3 --lifecycle booted' in text(result)
    (run,) = stored_runs(project.root / "artifacts")
    assert run.identity.items == (("flaky", 1),)
    assert outcome_of(row) is Outcome.FLAKY
    assert sorted(path.name for path in Path(row.ended.folder).parent.iterdir()) == [
        f"disk-ext4-debian_6.12-booted{again}" for again in ("", ".2", ".3")
    ]


def test_an_item_that_comes_to_the_same_each_time_is_what_it_is_each_time(project: Project) -> None:
    result = project.run("cases", "--repeat", "2", make="lambda stack: FakeGuest(stack, fails if stack.disks else obedient)")
    result.assert_outcomes(passed=1, failed=1)
    assert {row.repeats for row in project.rows()} == {("conforms", "conforms"), ("deviates", "deviates")}
    assert "repeats   deviates 2 of 2" in text(result)


def test_a_guest_that_is_not_to_be_had_again_says_nothing_of_the_kernel(project: Project) -> None:
    make = "lambda stack: broken_boot(stack) if HOST.booted else FakeGuest(stack)"
    assert project.run(BOOTED, "--repeat", "2", "--lifecycle", "booted", make=make).ret == 3
    assert [row.ended.ending for row in project.rows()] == [Ending.NOT_SET_UP]


def test_less_than_once_is_refused(project: Project) -> None:
    assert project.run_apart("cases", "--repeat", "0", make=GOOD).ret == 2


PYTHON_CASE = '''
import pytest
from harness.ops import Fsync, Open, OpenFlag, Program, Pwrite, Step

def program(length):
    """A file with ``length`` bytes."""
    flags = (OpenFlag.RDWR, OpenFlag.CREAT)
    return Program(tuple(Step(op) for op in (Open("f", "a", flags), Pwrite("f", 0, length), Fsync("f"))))

@pytest.mark.stack("e820-fsdax-ext4-dax_always", "disk-ext4")
def test_writes(run_program):
    """Writing works."""
    for length in (10, 20):
        judged = run_program(program(length))
        assert len(judged.observations) == 3
'''


def python_case(project: Project, source: str = PYTHON_CASE) -> None:
    project.write("cases/fam/test_writes.py", source)


def test_a_python_case_runs_programs_on_every_stack_it_is_marked_with(project: Project) -> None:
    python_case(project)
    result = project.run("cases/fam/test_writes.py", "-v")
    result.assert_outcomes(passed=2)
    assert "test_writes[e820-fsdax-ext4-dax_always-debian_6.12]" in text(result)
    assert [row.where.variant_id for row in project.rows()][:2] == ["e820-fsdax-ext4-dax_always", "e820-fsdax-ext4-dax_always-program_2"]


def test_a_python_case_is_failed_by_the_judge_and_not_by_itself(project: Project) -> None:
    python_case(project)
    result = project.run("cases/fam/test_writes.py", make=FAILING)
    result.assert_outcomes(failed=2)
    assert "cases/fam/test_writes.py  step 2 of 3  pwrite(f, offset=0, length=10)" in text(result)
    assert "Traceback" not in text(result)
    assert result.ret == 1


def test_a_python_case_whose_set_up_fails_is_an_error(project: Project) -> None:
    python_case(project)
    result = project.run("cases/fam/test_writes.py", make="broken_boot")
    assert "= 2 not set up in " in text(result)
    assert result.ret == 3


def test_a_python_case_that_runs_no_program_is_an_error(project: Project) -> None:
    python_case(project, PYTHON_CASE.replace("(10, 20)", "()"))
    result = project.run("cases/fam/test_writes.py")
    assert "ran no program: nothing was tested" in text(result)
    result.assert_outcomes(passed=2, errors=2)


@pytest.mark.parametrize(
    ("marker", "problem"),
    [
        ('@pytest.mark.stack("floppy")', "no storage stack 'floppy'; write @pytest.mark.stack"),
        ("", "test_writes is not marked with its storage stacks; write @pytest.mark.stack(...) with some of: e820-fsdax-ext4-dax_always"),
    ],
)
def test_a_python_case_must_name_stacks_that_there_are(project: Project, marker: str, problem: str) -> None:
    source = PYTHON_CASE.replace('@pytest.mark.stack("e820-fsdax-ext4-dax_always", "disk-ext4")', marker)
    python_case(project, source)
    result = project.run("cases/fam/test_writes.py")
    assert problem in text(result)
    assert result.ret == 2


def test_results_can_be_read_where_they_were_kept(project: Project) -> None:
    project.run("cases")
    folders = sorted(Path(row.ended.folder).name for row in project.rows())
    assert folders == ["disk-ext4-debian_6.12", "e820-fsdax-ext4-dax_always-debian_6.12"]


def test_results_that_cannot_be_written_end_the_run_with_one_sentence(project: Project) -> None:
    project.write("artifacts/latest/in the way", "")
    result = project.run("cases")
    assert result.ret == 3
    assert "cannot write artifacts/latest: " in text(result)
    assert "; --artifacts names another folder" in text(result)
    assert "Traceback" not in text(result)
