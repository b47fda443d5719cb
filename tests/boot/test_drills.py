"""Drills: something really breaks, and the run says what, blames the right side, leaves nothing behind, and goes on."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest

from harness.errors import HostError
from harness.host import settings
from harness.host.deadline import Deadline, wait_until
from harness.host.tools import QEMU, require_tool
from harness.machine.accelerator import choose_accelerator, may_open, measure
from harness.machine.command import Emulator
from harness.machine.emulator import find_emulator
from harness.machine.self_test import run_self_test
from harness.record.item import Ending
from harness.report.rows import Row, read_rows

pytestmark = pytest.mark.boot

ROOT = Path(__file__).parents[2]
STACK = "{storage: [dax], region: [e820]}"
#: Two seconds in parts: what sleeps longer than a second is blocked.
WAITS = "\n".join(4 * ["  - futex_wait: {mapping: m, offset: 0, value: 1, timeout_ms: 500}"])
#: What tee(2) needs; it waits first, so that a fault that comes in a moment meets a running program.
VICTIM = f"""
title: The victim
axes: {STACK}
program:
  - open: {{name: f, path: a, flags: [rdwr, creat]}}
  - pwrite: {{file: f, offset: 0, length: 4KiB}}
  - pipe: {{name: p}}
  - pipe: {{name: q}}
  - mmap: {{name: m, length: 4KiB, flags: [shared, anonymous]}}
  - store: {{mapping: m, offset: 0, value: 1}}
{WAITS}
  - splice: {{source: f, target: p, source_offset: 0, length: 4KiB}}
  - tee: {{source: p, target: q, length: 4KiB}}
  - read: {{file: q, length: 4KiB}}
"""
NEXT = VICTIM.replace("The victim", "The next one").replace("500", "10")


@dataclass(frozen=True)
class Session:
    """A pytest run that has ended: its exit status, what it printed, the rows of its items by name."""

    status: int
    said: str
    rows: dict[str, Row]

    def ending(self, name: str) -> Ending:
        return self.rows[name].ended.ending

    def verdict(self, name: str) -> str | None:
        judged = self.rows[name].judged
        return None if judged is None else str(judged.verdict)


class Project:
    """A folder with two cases on one stack, and a private place for guests that must be empty when all is over."""

    def __init__(self, root: Path, runtime: Path) -> None:
        self.root, self.runtime = root, runtime
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT), "PMEM_HARNESS_TMP": str(runtime)}
        self.write("cases/claims.yaml", "sources: {}\nclaims: []\n")
        self.write("cases/drill/family.yaml", "title: Drills\n")
        self.write("cases/drill/a_victim.yaml", VICTIM)
        self.write("cases/drill/b_next.yaml", NEXT)

    def write(self, path: str, text: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def start(self, *options: str, drill: str = "", **more: str) -> "subprocess.Popen[str]":
        plugins = ["-p", "harness.plugin", "-p", "no:cacheprovider", *(("-p", "tests.drills.sabotage") if drill else ())]
        command = [sys.executable, "-m", "pytest", *plugins, "cases", "--step-timeout", "1", *options]
        environment = {**self.environment, "DRILL": drill, **more}
        with (self.root / "said").open("w") as said:
            return subprocess.Popen(command, cwd=self.root, env=environment, stdout=said, stderr=subprocess.STDOUT, text=True)

    def run(self, *options: str, drill: str = "", **more: str) -> Session:
        status = self.start(*options, drill=drill, **more).wait(timeout=900)
        rows = {row.where.name: row for row in read_rows(self.root / "artifacts/latest")}
        session = Session(status, (self.root / "said").read_text(), rows)
        self.assert_nothing_left()
        return session

    def assert_nothing_left(self, limit_s: float = 300.0) -> None:
        assert wait_until(lambda: not self.left(), Deadline.after(limit_s)), self.left()

    def left(self) -> list[str]:
        """Return the processes and folders that belong to this project's guests."""
        processes = [str(process.info["cmdline"]) for process in psutil.process_iter(["cmdline"]) if self._works_here(process)]
        return processes + [str(path) for path in self.runtime.iterdir()]

    def _works_here(self, process: psutil.Process) -> bool:
        return process.pid != os.getpid() and any(str(self.runtime) in word for word in process.info["cmdline"] or [])


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    runtime = Path("/dev/shm") / f"drill-{os.getpid()}-{time.monotonic_ns()}"
    runtime.mkdir(mode=0o700)
    yield Project(tmp_path, runtime)
    shutil.rmtree(runtime, ignore_errors=True)


@pytest.fixture(scope="module", autouse=True)
def templates(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Make the template once, so that no drill's time is spent on it."""
    root = tmp_path_factory.mktemp("warm")
    runtime = root / "runtime"
    runtime.mkdir()
    session = Project(root, runtime).run()
    assert session.status == 0, session.said


# ---- faults while an item runs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("drill", "ending", "status", "words"),
    [
        ("panic", "guest crashed", 1, "sysrq_handle_crash"),
        ("oops", "guest crashed", 1, "__x64_sys_tee < "),
        ("soft_lockup", "guest hung", 1, "soft lockup"),
        ("kernel_hang", "guest hung", 1, "the guest said nothing for"),
        ("agent_killed", "guest lost", 3, "closed the connection"),
        ("session_killed", "harness error", 3, "the agent broke: signal 9 ended the agent's session"),
        ("sshd_killed", "guest lost", 3, "the guest"),
        ("connection_cut", "guest lost", 3, "the guest"),
        ("qemu_killed", "guest lost", 3, "QEMU ended with status -9"),
        ("qemu_stopped", "harness error", 3, "was stopped by a signal"),
        ("console_unread", "harness error", 3, "the guest's console was not read"),
    ],
)
def test_a_fault_gets_its_own_ending_and_the_next_item_is_not_touched(
    project: Project, drill: str, ending: str, status: int, words: str
) -> None:
    session = project.run(drill=drill)
    assert session.ending("a_victim") == ending, session.said
    assert words in session.said
    assert session.status == status, session.said
    assert session.verdict("a_victim") is None
    assert (session.ending("b_next"), session.verdict("b_next")) == ("completed", "conforms"), session.said
    hangs = [path.read_text() for path in project.root.glob("artifacts/latest/drill/a_victim/*/hang.txt")]
    assert len(hangs) == (ending == "guest hung")
    for text in hangs:
        assert "RIP=" in text
        assert "== blocked tasks" in text


@pytest.mark.parametrize(("drill", "words"), [("warning", "WARNING: "), ("file_system_error", "EXT4-fs error (device pmem")])
def test_a_complaint_fails_the_item_and_is_no_crash(project: Project, drill: str, words: str) -> None:
    session = project.run(drill=drill)
    row = session.rows["a_victim"]
    assert row.ended.ending is Ending.COMPLETED, session.said
    assert words in str(row.ended.messages)
    assert session.status == 1
    assert session.verdict("b_next") == "conforms"


def test_a_clock_that_jumps_changes_nothing(project: Project) -> None:
    session = project.run(drill="clock_jump")
    assert session.status == 0, session.said


# ---- faults of the host's disks and caches ---------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)], capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"only root may mount a small disk: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_is_full_while_a_template_is_written_means_booting(project: Project, small_disk: Path) -> None:
    session = project.run("-k", "b_next", PMEM_HARNESS_TEMPLATES=str(small_disk))
    assert session.status == 0, session.said
    assert "booted, not restored: " in session.said
    assert "No space left" in session.said
    assert not list(small_disk.glob("building/*"))


def test_a_disk_that_is_full_while_an_image_is_built_is_a_host_error(project: Project, small_disk: Path) -> None:
    command = [sys.executable, "-m", "harness", "images", "build", "--kernel", "debian_6.12"]
    environment = {**project.environment, "PMEM_HARNESS_CACHE": str(small_disk)}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=900)
    assert built.returncode == 3, built.stderr
    assert "No space left" in built.stderr or "no space" in built.stderr.lower(), built.stderr
    assert not list(small_disk.glob("images/building/*"))
    assert not list(small_disk.glob("images/rootfs-*"))


def test_a_damaged_template_is_noticed_and_made_anew(project: Project, tmp_path: Path) -> None:
    store = {"PMEM_HARNESS_TEMPLATES": str(tmp_path / "templates")}
    assert project.run("-k", "b_next", **store).status == 0
    for damage in (truncate, flip_a_bit):
        (ram,) = tmp_path.glob("templates/stack-*/ram")
        ram.chmod(0o644)
        damage(ram)
        session = project.run("-k", "b_next", **store)
        assert session.status == 0, session.said
        assert "is damaged (ram is " in session.said
    session = project.run(**store)
    assert session.status == 0, session.said
    assert "is damaged (" not in session.said


def truncate(ram: Path) -> None:
    os.truncate(ram, 100 << 20)


def flip_a_bit(ram: Path) -> None:
    with ram.open("r+b") as file:
        file.seek(20 << 20)
        byte = file.read(1)
        file.seek(20 << 20)
        file.write(bytes([byte[0] ^ 1]))


def test_an_image_cache_deleted_under_a_running_suite_is_a_host_error_of_what_follows(project: Project, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    shutil.copytree(settings.cache_root() / "images", cache / "images", copy_function=os.link)
    # Nobody listens there, so that what is gone cannot be fetched again.
    gone = {"PMEM_HARNESS_CACHE": str(cache), "PMEM_HARNESS_MIRROR": "http://127.0.0.1:9/debian", "PMEM_HARNESS_ACCEL": "tcg"}
    session = project.run(drill="images_gone", **gone)
    assert session.verdict("a_victim") == "conforms", session.said
    assert session.ending("b_next") == "not set up"
    assert "mirror" in session.said
    assert session.status == 3
    assert project.run().status == 0


def test_two_suites_at_once_share_one_cache_and_build_each_template_once(project: Project, tmp_path: Path) -> None:
    other_root, other_runtime = tmp_path / "other", project.runtime / "other"
    other_root.mkdir()
    other_runtime.mkdir()
    other = Project(other_root, other_runtime)
    store = {"PMEM_HARNESS_TEMPLATES": str(tmp_path / "templates")}
    first, second = project.start(**store), other.start(**store)
    assert (first.wait(900), second.wait(900)) == (0, 0), (project.root / "said").read_text() + (other.root / "said").read_text()
    names = [path.name for path in (tmp_path / "templates").glob("*-debian*")]
    assert sorted(name.split("-")[0] for name in names) == ["machine", "stack"]
    other.assert_nothing_left()


# ---- faults of the accelerator ---------------------------------------------------------------------------------------


KVM_NODE = Path("/dev/kvm")
#: Stands in front of QEMU. The self-test is done under KVM in no time; what follows is said by what is put in.
PRETENDER = """#!/bin/bash
words=() kvm= test=
for word in "$@"; do
  case "$word" in kvm) kvm=yes;; *self-test.rom) test=yes;; max) word=max{cpu};; esac
  words+=("$word")
done
if [ "$kvm$test" = yesyes ]; then exit 85; fi
if [ "$kvm" = yes ]; then {guest}; fi
exec {qemu} "${{words[@]}}"
"""


@pytest.fixture
def pretend(project: Project) -> Iterator[Callable[[str, str], dict[str, str]]]:
    """Returns the environment of a run whose KVM passes every self-test, and under which a guest fares as told."""
    if not (KVM_NODE.exists() and may_open(KVM_NODE)):
        pytest.skip(f"there is no {KVM_NODE} that this user may open, so no QEMU is ever tried under KVM")
    cache, front = project.root / "cache", project.root / "front"
    for folder in (cache, front):
        folder.mkdir()
    (cache / "images").symlink_to(settings.cache_root() / "images")

    def make(guest: str, cpu: str = "") -> dict[str, str]:
        program = front / QEMU
        program.write_text(PRETENDER.format(cpu=cpu, guest=guest, qemu=require_tool(QEMU)))
        program.chmod(0o755)
        return {
            "PATH": f"{front}:{os.environ['PATH']}",
            "PMEM_HARNESS_CACHE": str(cache),
            "PMEM_HARNESS_TEMPLATES": str(project.root / "templates"),
            "PMEM_HARNESS_ACCEL": "auto",
        }

    yield make
    # Templates are large, and pytest keeps the folders of some sessions.
    shutil.rmtree(project.root / "templates", ignore_errors=True)


def require_tcg(session: Session) -> None:
    """Both items ran under TCG, and the report says why, with both times."""
    assert session.status == 0, session.said
    for row in session.rows.values():
        assert row.passed
        assert row.guest is not None
        assert row.guest.accelerator == "tcg"
        reason = row.guest.accelerator_reason
        assert "came up under tcg and not under kvm (" in reason
        assert re.search(r"KVM is faster: a loop of [\d,]+ turns took [\d.]+ s under tcg and [\d.]+ s under kvm", reason)


def test_a_kvm_under_which_guests_hang_is_left_for_tcg_once_and_for_all_workers(
    project: Project, pretend: Callable[..., dict[str, str]]
) -> None:
    environment = pretend("exec sleep 3600")
    session = project.run("--boot-timeout", "15", **environment)
    require_tcg(session)
    assert session.said.count("trying once under tcg") == session.said.count("tcg runs the guests from now on") == 1, session.said
    later = project.run("-n", "2", **environment)
    require_tcg(later)
    assert "trying once under tcg" not in later.said
    demanded = project.run("-k", "a_victim", "--boot-timeout", "5", **{**environment, "PMEM_HARNESS_ACCEL": "kvm"})
    assert demanded.status == 3
    assert demanded.ending("a_victim") == "not set up"
    assert "QEMU did not start" in demanded.said
    assert "under tcg" not in demanded.said


def test_a_kvm_that_really_runs_guests_too_slowly_is_left_for_tcg(project: Project, pretend: Callable[..., dict[str, str]]) -> None:
    emulator = find_emulator()
    cpu = next((cpu for cpu in ("", ",-arch-capabilities") if runs_guests(project, emulator, cpu)), None)
    if cpu is None:
        pytest.skip(f"no guest executes anything under {KVM_NODE}")
    measured = measure(behind(project, emulator, cpu))
    if measured.faster:
        pytest.skip(f"there is nothing slow about {KVM_NODE}: {measured.seen}")
    require_tcg(project.run("--boot-timeout", "15", **pretend(":", cpu)))


def runs_guests(project: Project, emulator: Emulator, cpu: str) -> bool:
    return run_self_test(behind(project, emulator, cpu), "kvm").passed


def behind(project: Project, emulator: Emulator, cpu: str) -> Emulator:
    """This computer's QEMU with another CPU model: some hosts' KVM refuses a register of the largest one, and runs guests without it."""
    program = project.root / "other-cpu"
    program.write_text(f"""#!/bin/bash\nexec {emulator.program} "${{@/#max/max{cpu}}}"\n""")
    program.chmod(0o755)
    return replace(emulator, program=str(program))


def test_the_kvm_of_this_computer_is_taken_where_it_is_faster_and_refused_with_both_times_where_it_is_not(
    project: Project, tmp_path: Path
) -> None:
    if not (KVM_NODE.exists() and may_open(KVM_NODE)):
        pytest.skip(f"there is no {KVM_NODE} that this user may open")
    emulator = find_emulator()
    cpu = next((cpu for cpu in ("", ",-arch-capabilities") if runs_guests(project, emulator, cpu)), None)
    if cpu is None:
        pytest.skip(f"no guest executes anything under {KVM_NODE}")
    emulator = behind(project, emulator, cpu)
    # A crude measure of another kind: how far KVM gets while TCG does a hundred times as much.
    crude = run_self_test(emulator, "tcg", 1 << 27, 120)
    is_slow = not run_self_test(emulator, "kvm", (1 << 27) // 100, crude.seconds).passed
    chosen = choose_accelerator(emulator, "auto", tmp_path)
    if is_slow:
        assert chosen.name == "tcg"
        assert re.fullmatch(
            r"KVM is slower: a loop of [\d,]+ turns took [\d.]+ s under tcg and was not done after [\d.]+ s under kvm", chosen.reason
        )
        with pytest.raises(HostError, match=r"ACCEL asks for kvm, but KVM is slower: .* s under tcg .* s under kvm; take auto or tcg"):
            choose_accelerator(emulator, "kvm", tmp_path)
    else:
        measured = json.loads((tmp_path / "accelerator.json").read_text())
        assert (chosen.name == "kvm") == (measured["kvm_s"] < measured["tcg_s"])


def test_kvm_that_runs_nothing_is_refused_where_it_is_demanded_and_passed_over_where_it_is_not(project: Project) -> None:
    asked = [sys.executable, "-m", "harness", "doctor"]
    demanded = subprocess.run(
        asked, cwd=ROOT, env={**project.environment, "PMEM_HARNESS_ACCEL": "kvm"}, capture_output=True, text=True, check=False
    )
    free = subprocess.run(asked, cwd=ROOT, env=project.environment, capture_output=True, text=True, check=False)
    assert free.returncode == 0, free.stdout
    if "accelerator                kvm" in free.stdout:
        assert demanded.returncode == 0
    else:
        assert demanded.returncode == 3
        assert "PMEM_HARNESS_ACCEL asks for kvm, but" in demanded.stdout


# ---- when nothing can work -------------------------------------------------------------------------------------------

SOME = """
title: Some items
axes: {storage: [dax, no_dax, disk], region: [e820]}
program:
  - open: {name: f, path: a, flags: [rdwr, creat]}
"""


@pytest.fixture
def kernel_without_init(tmp_path: Path) -> dict[str, str]:
    """The environment of a QEMU that boots every kernel with an init that there is not: the kernel panics, for real."""
    qemu = shutil.which("qemu-system-x86_64")
    assert qemu is not None
    script = f"""#!/bin/bash
    words=()
    while [ $# -gt 0 ]; do
        words+=("$1")
        if [ "$1" = -append ]; then shift; words+=("$1 rdinit=/nonexistent"); fi
        shift
    done
    exec {qemu} "${{words[@]}}"
    """
    wrapper = tmp_path / "bin" / Path(qemu).name
    wrapper.parent.mkdir()
    wrapper.write_text(script)
    wrapper.chmod(0o755)
    return {"PATH": f"{wrapper.parent}:{os.environ['PATH']}", "PMEM_HARNESS_ACCEL": "tcg", "PMEM_HARNESS_TEMPLATES": str(tmp_path / "none")}


def test_a_kernel_that_does_not_boot_is_told_once_with_its_logs_and_its_other_items_are_not_tried(
    project: Project, kernel_without_init: dict[str, str]
) -> None:
    for name in ("a_victim", "b_next", "c_third"):
        project.write(f"cases/drill/{name}.yaml", SOME)
    running = project.start("-n", "2", **kernel_without_init)
    assert running.wait(timeout=1800) == 3, (project.root / "said").read_text()
    project.assert_nothing_left()
    said = (project.root / "said").read_text()
    rows = read_rows(project.root / "artifacts/latest")
    assert len(rows) == 9
    assert {row.ended.ending for row in rows} == {Ending.NOT_SET_UP, Ending.NOT_TRIED}, said
    assert said.count("nothing comes up on debian_6.12: its other items are not tried") == 1, said
    assert "  came back BootError: " in said
    assert len(said.splitlines()) < 60, said
    assert "pmemh-" not in said
    # A busy computer may see the same panic in two ways, or too late: each way is a reason of its own.
    named = {word.strip(":;,") for word in said.split() if "/not-set-up/" in word and word.startswith("artifacts/runs/")}
    assert {row.ended.logs for row in rows} == named
    kept = sorted((project.root / "artifacts").glob("runs/*/not-set-up/*"))
    assert named == {str(folder.relative_to(project.root)) for folder in kept}
    assert "Kernel panic" in "".join(file.read_text() for folder in kept for file in folder.glob("boot*/console.log")), said
    for folder in kept:
        assert (folder / "boot/qemu.stderr").is_file()
        assert '"cont"' in (folder / "boot/qmp.jsonl").read_text()
        assert os.access(folder / "boot/qemu.sh", os.X_OK)


# ---- interrupts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
@pytest.mark.parametrize("workers", ["0", "2"])
def test_an_interrupted_run_leaves_nothing(project: Project, number: signal.Signals, workers: str) -> None:
    running = project.start("-n", workers)
    try:
        assert wait_until(lambda: any("qemu" in line for line in project.left()), Deadline.after(900)), (project.root / "said").read_text()
        running.send_signal(number)
        # Ctrl-C ends in order, what is killed is cleaned up by others. How soon is a matter of what else runs here.
        project.assert_nothing_left()
    finally:
        running.kill()
        running.wait()


def test_a_worker_that_is_killed_makes_the_run_one_that_could_not_be_done(project: Project) -> None:
    running = project.start("-n", "2")
    assert wait_until(lambda: any("qemu" in line for line in project.left()), Deadline.after(900)), (project.root / "said").read_text()
    workers = [child for child in psutil.Process(running.pid).children() if "exec(eval(" in " ".join(child.cmdline())]
    assert workers
    workers[0].kill()
    assert running.wait(timeout=600) == 3, (project.root / "said").read_text()
    project.assert_nothing_left()
