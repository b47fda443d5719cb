"""Many programs in a request: each finds what a program by itself finds, and one process does those that leave nothing behind."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness import ops as op
from harness.agent.program import stays
from harness.host.deadline import Deadline, wait_until
from harness.ops import Operation, Program, Step
from harness.ops.codec import program_document
from tests.generated.generator import World, draw
from tests.unit.agent.conftest import Client, Daemon, changed_agent

CREATE = (op.OpenFlag.RDWR, op.OpenFlag.CREAT)


def steps(*operations: Operation) -> Program:
    return Program(tuple(map(Step, operations)))


def many(tmp_path: Path, *programs: Program, blocked_ms: int = 300, limit_ms: int = 120_000) -> dict[str, Any]:
    """A request for programs that each find the folder ``fresh`` empty."""
    fresh = str(tmp_path / "fresh")
    documents = [program_document(one) for one in programs]
    roots = {"main": fresh, "node": "/dev/zero"}
    return {"programs": documents, "roots": roots, "devices": {}, "fresh": [fresh], "blocked_ms": blocked_ms, "limit_ms": limit_ms}


def ask_many(client: Client, tmp_path: Path, *programs: Program, **limits: int) -> list[dict[str, Any]]:
    """Return the answers to as many programs, in one request."""
    first = client.ask("run_many", **many(tmp_path, *programs, **limits))
    answers = [first, *(client.listen() for _ in programs[1:])]
    assert all(answer["ok"] for answer in answers), answers
    return answers


WRITES = steps(op.Open("f", "a", CREATE), op.Write("f", 10), op.Lseek("f", 0, op.Whence.END))
BLOCKS = steps(op.Pipe("p"), op.Read("p", 1))
#: Everything that has a name, and what is taken beside it: guards, the room of an aligned mapping, buffers of 16 MiB.
MAKES = steps(
    op.Open("f", "a", CREATE),
    op.Write("f", 16 << 20),
    op.Mmap("m", 8192, file="f"),
    op.Mmap("gone", 8192, file="f"),
    op.Munmap("gone"),
    op.Mmap("aligned", 4096, file="f", align=2 << 20),
    op.Mmap("aligned_and_gone", 4096, file="f", align=2 << 20),
    op.Munmap("aligned_and_gone"),
    op.Store("m", 0, 8192),
    op.Pipe("p"),
    op.Close("p", end="read"),
    op.UnixPair("u"),
    op.TcpPair("t"),
)


def test_many_programs_are_run_in_one_request_each_on_an_empty_folder(client: Client, tmp_path: Path) -> None:
    (tmp_path / "fresh" / "inner").mkdir(parents=True)
    (tmp_path / "fresh" / "inner" / "left").touch()
    answers = ask_many(client, tmp_path, WRITES, WRITES)
    assert all("taint" in answer for answer in answers)
    assert [[step["value"] for step in answer["observations"]["steps"]] for answer in answers] == [[0, 10, 10]] * 2
    assert [path.name for path in (tmp_path / "fresh").iterdir()] == ["a"]


def test_the_folder_need_not_be_there_before(client: Client, tmp_path: Path) -> None:
    (answer,) = ask_many(client, tmp_path, WRITES)
    assert answer["observations"]["steps"][1] == {"how": "returned", "value": 10, "step": 1}


def test_of_many_programs_the_one_that_hangs_ends_the_answers(client: Client, tmp_path: Path) -> None:
    flags = (op.MapFlag.PRIVATE, op.MapFlag.ANONYMOUS, op.MapFlag.NORESERVE)
    hangs = steps(op.Mmap("m", 1 << 32, flags=flags), op.Open("z", "node:"), op.Pread("z", 0, (1 << 32) - 4096, into="m"))
    answer = client.ask("run_many", **many(tmp_path, hangs, WRITES, blocked_ms=3000, limit_ms=100))
    assert (answer["ok"], answer["kind"], "still ran after" in answer["error"]) == (False, "hang", True)
    assert "agent" in client.ask("hello")  # and no answer to the other one came first


def test_of_many_programs_those_before_one_that_cannot_be_meant_are_answered(client: Client, tmp_path: Path) -> None:
    request = many(tmp_path, WRITES, WRITES, WRITES)
    request["programs"][1]["steps"][0]["call"] = "dance"
    answers = [client.ask("run_many", **request), client.listen()]
    assert [answer["ok"] for answer in answers] == [True, False]
    assert "dance" in answers[1]["error"]
    assert "agent" in client.ask("hello")


def test_a_program_among_many_sees_what_it_sees_by_itself(client: Client, tmp_path: Path) -> None:
    """What a program left would be another's descriptors, mappings, pages or names."""
    programs = [draw(3, index, World(without=frozenset({"volumes", "pins"}))) for index in range(60)]
    together = ask_many(client, tmp_path, *programs)
    alone = [ask_many(client, tmp_path, program)[0] for program in programs]
    for index, (one, other) in enumerate(zip(together, alone, strict=True)):
        for left, right in zip(shown(one, programs[index]), shown(other, programs[index]), strict=True):
            assert left == right, f"program {index}"


def shown(answer: dict[str, Any], program: Program) -> Iterator[dict[str, Any]]:
    """What steps came to, without what differs from run to run: addresses, frames, faults and how much the computer has cached."""
    for step, seen in zip(program.steps, answer["observations"]["steps"], strict=True):
        hidden = {"minor_faults", "frames"}
        if isinstance(step.operation, op.Mmap | op.Load | op.Store):
            hidden.add("attributes")
        if not isinstance(step.operation, op.Meminfo):
            yield {name: value for name, value in seen.items() if name not in hidden}


def test_one_process_does_programs_that_leave_nothing_and_keeps_nothing_of_them(daemon: Daemon, tmp_path: Path) -> None:
    with daemon.connected() as client:
        before = kept_behind(daemon, client, tmp_path, WRITES)
    with daemon.connected() as client:
        assert kept_behind(daemon, client, tmp_path, *[MAKES] * 5) == before


def kept_behind(daemon: Daemon, client: Client, tmp_path: Path, *programs: Program) -> tuple[int, int]:
    """Run programs and return how many descriptors and areas without access the process has that did them; then it is blocked."""
    request = many(tmp_path, *programs, BLOCKS, blocked_ms=30_000)
    sessions = psutil.Process(daemon.pid).children
    assert wait_until(lambda: len(sessions()) == 1, Deadline.after(30)), "the session of a connection that was closed has not ended"
    (session,) = sessions()
    answers = [client.ask("run_many", **request)]
    (process,) = session.children()
    answers += [client.listen() for _ in programs[1:]]
    assert all(answer["ok"] for answer in answers), answers
    assert all(step["how"] == "returned" for answer in answers for step in answer["observations"]["steps"]), answers
    reads = "0 0x"  # the system call read
    assert wait_until(lambda: Path(f"/proc/{process.pid}/syscall").read_text().startswith(reads), Deadline.after(30))
    assert session.children() == [process]
    areas = Path(f"/proc/{process.pid}/maps").read_text().splitlines()
    assert not [area for area in areas if str(tmp_path) in area]
    return len(os.listdir(f"/proc/{process.pid}/fd")), sum(area.split()[1].startswith("---") for area in areas)


@pytest.mark.parametrize(
    "operation",
    [op.Fork("child"), op.IoUringSetup("r"), op.XdpSocket("x"), op.RdmaOpen("d"), op.Send("s", 10, flags=(op.SendFlag.ZEROCOPY,))],
    ids=lambda operation: operation.call,
)
def test_what_closing_and_unmapping_does_not_end_has_a_process_of_its_own(operation: Operation) -> None:
    assert stays(WRITES)
    assert not stays(steps(op.UnixPair("s"), operation))


def test_a_started_step_may_go_on_so_its_process_does_not_stay() -> None:
    assert not stays(Program((Step(op.Pipe("p")), Step(op.Read("p", 1), start="reading"))))


@pytest.mark.parametrize("what", ["signal", "blocked"])
def test_behind_a_process_that_ended_or_is_stuck_there_is_a_new_one(client: Client, tmp_path: Path, what: str) -> None:
    ends = {"signal": steps(op.Open("f", "a", CREATE), op.Mmap("m", 4096, file="f"), op.Load("m", 0, 8)), "blocked": BLOCKS}[what]
    answers = ask_many(client, tmp_path, WRITES, ends, WRITES, ends)
    hows = [answer["observations"]["steps"][-1]["how"] for answer in answers]
    assert hows == ["returned", what, "returned", what]


def test_a_process_that_does_not_get_rid_of_all_is_killed_and_the_programs_are_answered(archive: Path, tmp_path: Path) -> None:
    change = "import time; from harness.agent import performer; performer.Performer.give_back = lambda me: time.sleep(1000)"
    with changed_agent(archive, tmp_path, change) as daemon, daemon.connected() as client:
        answers = ask_many(client, tmp_path, WRITES, WRITES)
    assert [[step["value"] for step in answer["observations"]["steps"]] for answer in answers] == [[0, 10, 10]] * 2
