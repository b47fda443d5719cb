"""What lies around a mapping: its last page, a guard on each side, and the agent's own memory, which no step reaches."""

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from harness import ops as op
from harness.errors import UsageError
from harness.host.deadline import Deadline, wait_until
from harness.host.process import run
from harness.model.outcome import How, Observation
from harness.ops import Operation, Program, Step
from harness.ops.codec import program_document
from harness.ops.reach import find_out_of_reach
from tests.unit.agent.conftest import Client, Daemon, Runner, changed_agent
from tests.unit.agent.test_protocol import readers_of_pipes

ROOT = Path(__file__).parents[3]
PAGE = 4096
MIB = 1 << 20
RDWR = (op.OpenFlag.RDWR, op.OpenFlag.CREAT)
ANONYMOUS = (op.MapFlag.PRIVATE, op.MapFlag.ANONYMOUS)


def in_file(*steps: Operation, align: int = 0, align_shift: int = 0) -> tuple[Operation, ...]:
    """A mapping ``m`` of 5000 bytes of a file of three pages, and what is done with it."""
    made = op.Mmap("m", 5000, "f", align=align, align_shift=align_shift)
    return (op.Open("f", "a", RDWR), op.Ftruncate("f", 3 * PAGE), made, *steps)


def seen_of(runner: Runner, step: Operation, align: int = 0, align_shift: int = 0) -> Observation:
    return runner.run(*in_file(step, align=align, align_shift=align_shift))[-1]


@pytest.mark.parametrize("place", [{}, {"align": 2 * MIB}, {"align": 2 * MIB, "align_shift": PAGE}], ids=str)
def test_up_to_the_end_of_the_last_page_there_is_the_mapping_and_then_a_guard(runner: Runner, place: dict[str, int]) -> None:
    for step in (op.Load("m", 2 * PAGE - 8, 8), op.Store("m", 2 * PAGE - 8, 8), op.Store("m", 2 * PAGE - 4, value=1)):
        assert seen_of(runner, step, **place).how is How.RETURNED, step
    for start in (-PAGE, -1, 2 * PAGE, 3 * PAGE - 1):
        for step in (op.Load("m", start, 1), op.Store("m", start, 1)):
            assert seen_of(runner, step, **place).signal == "SIGSEGV", step


def test_a_call_that_reaches_into_a_guard_fails_and_one_that_runs_into_it_is_short(runner: Runner) -> None:
    assert seen_of(runner, op.Pread("f", 0, 100, into="m", into_offset=2 * PAGE)).errno == "EFAULT"
    assert seen_of(runner, op.Pwrite("f", 0, 100, from_="m", from_offset=-PAGE)).errno == "EFAULT"
    assert seen_of(runner, op.Pread("f", 0, 2 * PAGE, into="m", into_offset=PAGE)).value == PAGE


def test_what_is_taken_away_of_a_mapping_stays_without_access_and_its_end_makes_it_shorter(runner: Runner) -> None:
    made = (op.Mmap("m", 4 * PAGE, flags=ANONYMOUS), op.Store("m", 0, 4 * PAGE))
    for gone in (op.Munmap("m", 3 * PAGE), op.Munmap("m", PAGE, PAGE), op.Munmap("m", 0, PAGE)):
        others = [op.Mmap(f"n{n}", PAGE, flags=ANONYMOUS) for n in range(8)]
        seen = runner.run(*made, gone, *others, op.Load("m", 2 * PAGE, PAGE), op.Load("m", gone.offset, 8))
        assert [s.how for s in seen] == [How.RETURNED] * (len(seen) - 1) + [How.SIGNAL], gone
        assert seen[-1].signal == "SIGSEGV"
    seen = runner.run(*made, op.Munmap("m", 3 * PAGE), op.Mincore("m"), op.Munmap("m"), op.Load("m", 0, 8))
    assert (len(seen[3].resident or ""), seen[4].how, seen[5].how) == (3, How.RETURNED, How.NOT_RUN)


def test_a_part_of_a_mapping_is_protected(runner: Runner) -> None:
    made = (op.Mmap("m", 2 * PAGE, flags=ANONYMOUS), op.Mprotect("m", (op.Protection.READ,), PAGE, PAGE))
    assert runner.run(*made, op.Store("m", 0, PAGE))[-1].how is How.RETURNED
    assert runner.run(*made, op.Store("m", PAGE, 8))[-1].signal == "SIGSEGV"


def test_the_guards_of_a_mapping_are_not_a_programs_to_change() -> None:
    for step in (op.Munmap("m", 0, 3 * PAGE), op.Mprotect("m", (), -PAGE)):
        found = find_out_of_reach([Step(step) for step in in_file(step)])
        assert found is not None
        assert "whose pages have 8192: the guards before and behind them stay as they are" in found[1]
    assert find_out_of_reach([Step(step) for step in in_file(op.Munmap("m", PAGE, PAGE))]) is None


def test_only_half_of_a_huge_page_is_asked_for_and_all_of_it_is_the_mapping(runner: Runner) -> None:
    flags = (*ANONYMOUS, op.MapFlag.HUGETLB, op.MapFlag.HUGE_2MB)
    made, seen = runner.run(op.Mmap("m", MIB, flags=flags), op.Load("m", 2 * MIB - 8, 8))
    # Where the computer has no huge pages, the mapping is refused and the load has nothing to be done on.
    assert (made.how, seen.how) in {(How.RETURNED, How.RETURNED), (How.FAILED, How.NOT_RUN), (How.RETURNED, How.SIGNAL)}


FAR: list[Operation] = [
    op.Load("m", -PAGE - 1, 1),
    op.Load("m", 3 * PAGE, 1),
    op.Load("m", 0, 3 * PAGE + 1),
    op.Store("m", 3 * PAGE - 3, value=7),
    op.FutexWake("m", 3 * PAGE),
    op.FutexWait("m", 3 * PAGE - 2, 0),
    op.Madvise("m", op.Advice.DONTNEED, 0, 16 * PAGE),
    op.Mincore("m", 4 * PAGE),
    op.Pagemap("m", 0, -1),
    op.Mlock("m", 0, 1 << 40),
    op.Pread("f", 0, 100, into="m", into_offset=4 * PAGE),
    op.Pwrite("f", 0, 4 * PAGE, from_="m"),
    op.Preadv("f", 0, (op.Buffer(10), op.Buffer(10, mapping="m", offset=-2 * PAGE))),
    op.Vmsplice("p", "m", 0, 8 * PAGE),
    op.ProcessVmReadv("main", "m", 3 * PAGE, 1),
]


@pytest.mark.parametrize("step", FAR, ids=op.describe)
def test_what_reaches_further_is_refused_where_programs_are_made(step: Operation) -> None:
    program = Program(tuple(map(Step, in_file(op.Pipe("p"), step))))
    with pytest.raises(UsageError, match=r"step 5 of 5: .* of the mapping 'm', whose pages have 8192: a step may reach 4096 bytes before"):
        program_document(program)


@pytest.mark.parametrize("step", FAR, ids=op.describe)
def test_and_by_the_agent_before_anything_runs(client: Client, step: Operation) -> None:
    steps: list[dict[str, Any]] = [{"call": s.call, "args": op.arguments(s)} for s in in_file(op.Pipe("p"), step)]
    answer = client.ask("run", program={"format": 1, "steps": steps}, roots={"main": "/nowhere"})
    assert (answer["ok"], answer["kind"]) == (False, "protocol")
    assert f"step 4 ({step.call}): {op.describe(step)} reaches from byte " in answer["error"]
    assert "of the mapping 'm', whose pages have 8192: a step may reach 4096 bytes before and behind them" in answer["error"]


def test_one_page_beside_a_mapping_and_the_rest_of_it_are_within_reach() -> None:
    near = [
        op.Load("m", -PAGE, PAGE),
        op.Load("m", 2 * PAGE, PAGE),
        op.Msync("m", 5000),
        op.Mincore("m"),
        op.Smaps("m"),
        op.Load("other", 1 << 40, 1),
    ]
    assert find_out_of_reach([Step(step) for step in in_file(*near)]) is None


#: Prints, of mappings that the agent makes, what /proc/self/maps has directly beside each.
PLACES = """
import os, sys
from harness import ops
from harness.agent.doers import perform
from harness.agent.performer import Performer, Place
from harness.agent.syscalls import call
from harness.ops.reach import whole_pages
me = Performer(Place({"main": sys.argv[1]}, {}))
do = lambda op: perform(me, 0, ops.Step(op))
do(ops.Open("f", "f", (ops.OpenFlag.RDWR, ops.OpenFlag.CREAT)))
do(ops.Ftruncate("f", 8 << 20))
def areas():
    rows = [line.split(" ")[:2] for line in open("/proc/self/maps")]
    return {tuple(int(n, 16) for n in row[0].split("-")): row[1] for row in rows}
before = areas()
for n in range(40):
    anonymous = {"flags": (ops.MapFlag.PRIVATE, ops.MapFlag.ANONYMOUS)} if n % 2 else {"file": "f"}
    assert do(ops.Mmap(f"m{n}", (n % 5 + 1) * 4096 if n < 30 else 4 << 20, **anonymous))["how"] == "returned"
    if n % 3 == 0:
        do(ops.Mprotect(f"m{n}", ()))
for n in range(40):
    m = me.names[f"m{n}"]
    size = whole_pages(m.length)
    found = areas()
    assert (m.address, m.address + size) in found, "merged with a neighbour"
    for guard in (m.address - 4096, m.address + size):
        assert found[(guard, guard + 4096)] == "---s", guard
plain = call("mmap", 0, 4 << 20, 0, 0x22, -1, 0)
if plain % (2 << 20) == 0:
    assert all(me.names[f"m{n}"].address % (2 << 20) == 0 for n in range(31, 40, 2)), "the kernel's alignment is lost"
call("munmap", plain, 4 << 20)
for n in range(40):
    do(ops.Munmap(f"m{n}"))
assert not me.guards.users
assert len(areas()) <= len(before) + 2, "something is left"
print("all guarded")
"""


def test_every_mapping_has_a_guard_on_each_side_and_nothing_is_left_of_them(tmp_path: Path) -> None:
    said = run([sys.executable, "-c", PLACES, str(tmp_path)], Deadline.after(60), cwd=ROOT).stdout
    assert said == "all guarded\n"


def test_a_mapping_that_is_gone_is_read_by_no_other_process(runner: Runner) -> None:
    seen = runner.run(
        *in_file(op.Fork("b"), op.Munmap("m"), op.Mmap("n", 5000, flags=ANONYMOUS)),
        Step(op.ProcessVmReadv("main", "m", 0, 8), process="b"),
    )
    assert (seen[-1].how, seen[-1].attribute("missing")) == (How.NOT_RUN, "m")


# ---- who died of what ------------------------------------------------------------------------------------------------

SLEEP = (op.Pipe("p"), op.Fork("b"), Step(op.Read("p", 1), process="b"), op.Meminfo())


def killed_while_it_sleeps(daemon: Daemon, runner: Runner, *, idle_too: bool) -> dict[str, Any]:
    """Run SLEEP and end its reader, and before it the idle process ``main``, with SIGSEGV."""

    def kill() -> None:
        wait_until(lambda: readers_of_pipes(daemon.pid), Deadline.after(60))
        (reader,) = readers_of_pipes(daemon.pid)
        if idle_too:
            os.kill(os.getpgid(reader), signal.SIGSEGV)
        os.kill(reader, signal.SIGSEGV)

    killer = threading.Thread(target=kill)
    killer.start()
    answer = runner.ask(*SLEEP, blocked_ms=60_000, limit_ms=60_000)
    killer.join()
    return answer


def test_a_signal_inside_the_operation_is_an_observation(daemon: Daemon, runner: Runner) -> None:
    answer = killed_while_it_sleeps(daemon, runner, idle_too=False)
    assert answer["ok"], answer
    assert [step["how"] for step in answer["observations"]["steps"]] == ["returned", "returned", "signal", "returned"]


def test_a_signal_in_the_agents_own_code_is_the_agents_fault(daemon: Daemon, runner: Runner) -> None:
    answer = killed_while_it_sleeps(daemon, runner, idle_too=True)
    assert (answer["ok"], answer["kind"]) == (False, "protocol")
    assert answer["error"] == "step 3 (meminfo): SIGSEGV ended the process main in the agent's own code, not in the operation"
    assert runner.client.ask("hello")["ok"]


def test_a_load_that_faults_is_inside_the_operation_and_so_is_one_in_a_forked_process(runner: Runner) -> None:
    seen = runner.run(*in_file(op.Fork("b"), op.Load("m", -1, 1)), Step(op.Store("m", -1, 1), process="b"))
    assert [observation.signal for observation in seen[-2:]] == ["SIGSEGV", "SIGSEGV"]


def test_of_a_session_that_a_signal_ended_the_host_is_told(daemon: Daemon) -> None:
    before = sessions(daemon.pid)
    with daemon.connected() as client:
        (session,) = sessions(daemon.pid) - before
        os.kill(session, signal.SIGSEGV)
        answer = client.listen()
        assert (answer["id"], answer["ok"], answer["kind"]) == (None, False, "protocol")
        assert answer["error"] == "signal 11 ended the agent's session, outside of any program's steps"
        assert client.connection.recv(1) == b""


def sessions(pid: int) -> set[int]:
    return {int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def test_what_waits_as_for_a_disk_is_given_three_times_as_long_before_it_is_blocked(archive: Path, tmp_path: Path) -> None:
    change = "from harness.agent import watch\nwatch.Sample.is_same_sleep = lambda now, before: before is not None\n"
    state = "was = watch.Sample.__init__\ndef seen(self, pid):\n    was(self, pid)\n    self.state = 'D'\nwatch.Sample.__init__ = seen\n"
    with changed_agent(archive, tmp_path, change + state) as daemon, daemon.connected() as client:
        begun = time.monotonic()
        seen = Runner(client, {"main": str(tmp_path)}).run(*SLEEP, blocked_ms=300)
    assert seen[2].how is How.BLOCKED
    assert seen[2].attribute("state") == "D"
    assert time.monotonic() - begun >= 0.9
