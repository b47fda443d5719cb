"""How much memory is left: the computer's, or that of the tightest control group around us, of either version."""

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest

from harness.host import process
from harness.host.deadline import Deadline, wait_until
from harness.host.memory import Room, count_kills, find_room
from harness.sizes import GIB, MIB

ROOT = Path(__file__).parents[3]
NO_LIMIT_V1 = str((1 << 63) - 4096)


@dataclass(frozen=True)
class Files:
    """What one control group says, as a kernel would."""

    limit: str
    usage: int
    inactive: int = 0
    high: str = "max"
    kills: int = 0


class Tree:
    """A computer with a hierarchy of control groups that is mounted somewhere."""

    def __init__(self, root: Path, version: int, path: str, *, mounted: str = "/") -> None:
        self.proc, self.mount, self.version = root / "proc", root / "groups", version
        self.proc.mkdir()
        self.mount.mkdir()
        line = f"4:memory:{path}" if version == 1 else f"0::{path}"
        (self.proc / "cgroup").write_text(f"9:name=systemd:/x\n{line}\n")
        kind = "cgroup cgroup rw,memory" if version == 1 else "cgroup2 cgroup2 rw"
        lines = ["31 23 0:28 / / rw - ext4 /dev/vda rw", f"35 31 0:32 {mounted} {self.mount} rw,relatime shared:7 - {kind}"]
        (self.proc / "mountinfo").write_text("\n".join(lines) + "\n")

    def put(self, path: str, files: Files) -> None:
        folder = self.mount / path
        folder.mkdir(parents=True, exist_ok=True)
        if self.version == 1:
            (folder / "memory.limit_in_bytes").write_text(f"{files.limit}\n")
            (folder / "memory.usage_in_bytes").write_text(f"{files.usage}\n")
            (folder / "memory.stat").write_text(f"cache 9\ninactive_file 1\ntotal_inactive_file {files.inactive}\n")
            (folder / "memory.oom_control").write_text(f"oom_kill_disable 0\nunder_oom 0\noom_kill {files.kills}\n")
        else:
            (folder / "memory.max").write_text(f"{files.limit}\n")
            (folder / "memory.high").write_text(f"{files.high}\n")
            (folder / "memory.current").write_text(f"{files.usage}\n")
            (folder / "memory.stat").write_text(f"anon 5\ninactive_file {files.inactive}\n")
            (folder / "memory.events").write_text(f"oom 3\noom_kill {files.kills}\n")

    def room(self) -> Room:
        return find_room(self.proc)


@pytest.fixture(params=[1, 2], ids=["v1", "v2"])
def version(request: pytest.FixtureRequest) -> int:
    number: int = request.param
    return number


def no_limit(version: int) -> str:
    return NO_LIMIT_V1 if version == 1 else "max"


def limit_file(version: int) -> str:
    return "memory.limit_in_bytes" if version == 1 else "memory.max"


def test_a_groups_limit_counts_without_the_page_cache_that_nothing_uses(tmp_path: Path, version: int) -> None:
    tree = Tree(tmp_path, version, "/a")
    tree.put("a", Files(str(64 * MIB), usage=40 * MIB, inactive=10 * MIB))
    assert tree.room().free_bytes == 34 * MIB
    file = tree.mount / "a" / limit_file(version)
    assert tree.room().describe() == f"34MiB are free within the memory limit of a control group ({file}: 64MiB)"


@pytest.mark.parametrize("tightest", ["", "a", "a/b"])
def test_of_groups_within_groups_the_tightest_counts(tmp_path: Path, version: int, tightest: str) -> None:
    tree = Tree(tmp_path, version, "/a/b")
    for path in ("", "a", "a/b"):
        tree.put(path, Files(str(64 * MIB), usage=60 * MIB if path == tightest else MIB))
    assert tree.room().free_bytes == 4 * MIB
    assert str(tree.mount / tightest / limit_file(version)) in tree.room().bound


def test_groups_without_a_limit_leave_what_the_computer_has(tmp_path: Path, version: int) -> None:
    tree = Tree(tmp_path, version, "/a")
    tree.put("a", Files(no_limit(version), usage=MIB))
    assert tree.room().bound == "on this computer"
    assert 0 < tree.room().free_bytes <= psutil.virtual_memory().total


def test_usage_above_the_limit_leaves_nothing(tmp_path: Path, version: int) -> None:
    tree = Tree(tmp_path, version, "/a")
    tree.put("a", Files(str(64 * MIB), usage=65 * MIB))
    assert tree.room().describe().startswith("0 are free within")


def test_the_mark_at_which_a_group_is_slowed_down_counts_as_a_limit(tmp_path: Path) -> None:
    tree = Tree(tmp_path, 2, "/a")
    tree.put("a", Files("max", usage=MIB, high=str(33 * MIB)))
    assert tree.room().free_bytes == 32 * MIB
    assert "memory.high" in tree.room().bound


@pytest.mark.parametrize("mounted", ["/docker/c1", "/docker"])
def test_inside_a_container_the_part_that_is_mounted_counts(tmp_path: Path, version: int, mounted: str) -> None:
    tree = Tree(tmp_path, version, "/docker/c1", mounted=mounted)
    tree.put("/docker/c1".removeprefix(mounted).lstrip("/"), Files(str(64 * MIB), usage=0))
    assert tree.room().free_bytes == 64 * MIB


@pytest.mark.parametrize("path", ["/of/the/outside", "/../..", "/"])
def test_a_path_that_leads_nowhere_here_means_the_top_of_what_is_mounted(tmp_path: Path, version: int, path: str) -> None:
    tree = Tree(tmp_path, version, path)
    tree.put("", Files(str(64 * MIB), usage=0))
    assert tree.room().free_bytes == 64 * MIB


def test_both_versions_side_by_side_are_read(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    first, second = Tree(tmp_path / "one", 1, "/a"), Tree(tmp_path / "two", 2, "/b")
    first.put("a", Files(str(64 * MIB), usage=0))
    second.put("b", Files(str(32 * MIB), usage=0))
    for name in ("cgroup", "mountinfo"):
        with (first.proc / name).open("a") as file:
            file.write((second.proc / name).read_text())
    assert first.room().free_bytes == 32 * MIB


def test_without_control_groups_the_computer_counts(tmp_path: Path) -> None:
    assert find_room(tmp_path).bound == "on this computer"
    assert count_kills(tmp_path) == 0


def test_what_the_kernel_killed_in_our_group_is_counted(tmp_path: Path, version: int) -> None:
    tree = Tree(tmp_path, version, "/a")
    files = Files(no_limit(version), usage=0)
    tree.put("", replace(files, kills=7))
    tree.put("a", replace(files, kills=2))
    assert count_kills(tree.proc) == 2


# ---- with a real kernel ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def limited_group(version: int, limit_bytes: int) -> Iterator[Path]:
    """Make a control group with a limit, and remove it; skip where this computer lets us have none."""
    parent = own_group() if version == 1 else unified_parent()
    if parent is None:
        pytest.skip(f"no hierarchy of control groups of version {version} that limits memory is mounted here")
    folder = parent / f"pmem-harness-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"cannot make a control group in {parent}: {error.strerror}")
    try:
        try:
            (folder / limit_file(version)).write_text(str(limit_bytes))
            for name in ("memory.swappiness", "memory.swap.max"):
                if (folder / name).exists():
                    (folder / name).write_text("0")
        except OSError as error:
            pytest.skip(f"cannot limit the control group {folder}: {error.strerror}")
        yield folder
    finally:
        assert wait_until(lambda: removed(folder), Deadline.after(30)), (folder / "cgroup.procs").read_text()


def removed(folder: Path) -> bool:
    """A group whose last process has just ended may be busy for a moment."""
    with contextlib.suppress(OSError):
        folder.rmdir()
    return not folder.exists()


def own_group() -> Path | None:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "memory" and (folder := Path("/sys/fs/cgroup/memory") / path.lstrip("/")).is_dir():
            return folder
    return None


def unified_parent() -> Path | None:
    """Return the nearest group around us, of version 2, whose groups may limit memory."""
    top = Path("/sys/fs/cgroup")
    path = next((line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::")), "/")
    folder = top / path.lstrip("/")
    for parent in (folder, *folder.parents):
        control = parent / "cgroup.subtree_control"
        if control.is_file() and "memory" in control.read_text().split():
            return parent
        if parent == top:
            return None
    return None


def run_inside(group: Path, code: str, *arguments: str) -> str:
    enter = ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(group), sys.executable, "-c", code, *arguments]
    return process.run(enter, Deadline.after(120), env={**os.environ, "PYTHONPATH": str(ROOT)}).stdout


def test_a_real_group_bounds_what_a_process_in_it_sees(version: int) -> None:
    code = "from harness.host.memory import find_room; room = find_room(); print(room.free_bytes, room.describe())"
    with limited_group(version, 512 * MIB) as group:
        said = run_inside(group, code)
    assert 0 < int(said.split()[0]) <= 512 * MIB
    assert f"within the memory limit of a control group ({group / limit_file(version)}: 512MiB)" in said
    assert find_room().free_bytes > int(said.split()[0]) or find_room().free_bytes < 512 * MIB


ADMIT = f"""
import sys
from pathlib import Path
from harness.errors import HostError
from harness.host.admission import admitted
from harness.host.deadline import Deadline
def enter():
    return admitted({GIB}, Deadline.after(0.3), print, Path(sys.argv[1]))
with enter():
    try:
        with enter():
            print("two")
    except HostError as error:
        print(error)
"""


def test_a_real_group_holds_back_the_second_guest_and_says_so(version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMEM_HARNESS_GUESTS", "2")
    with limited_group(version, 512 * MIB) as group:
        alone, waiting, refused = run_inside(group, ADMIT, str(tmp_path / "places")).splitlines()
    bound = f"are free within the memory limit of a control group ({group / limit_file(version)}: 512MiB)"
    assert alone.startswith("a guest may need 1GiB, and ")
    assert bound in alone
    assert waiting.startswith("waiting for free memory (")
    assert bound in waiting
    assert refused.startswith("no place for a guest within 0 s: ")
    assert bound in refused


EAT = """
import sys
from pathlib import Path
from harness.host.deadline import Deadline
from harness.machine.boot import started_machine
from tests.fakes.machine import FAKE_ACCELERATOR, FAKE_EMULATOR, READY, fake_spec
folder = Path(sys.argv[1])
spec = fake_spec(folder, {"quiet": [READY, ["eat", 1024]]})
with started_machine(spec, FAKE_EMULATOR, FAKE_ACCELERATOR, folder / "logs", Deadline.after(60)) as machine:
    print(machine.wait_ended(Deadline.after(60)).reason)
"""


def test_a_qemu_that_a_real_limit_kills_is_told_from_one_that_somebody_killed(version: int, tmp_path: Path) -> None:
    with limited_group(version, 256 * MIB) as group:
        said = run_inside(group, EAT, str(tmp_path))
    assert "QEMU ended with status -9" in said
    assert "this computer's kernel killed it for want of memory, as its control group counts; " in said
    assert f"{group / limit_file(version)}: 256MiB" in said
