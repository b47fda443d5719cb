"""How outcomes come from an actor to its supervisor, and what becomes of a program when that goes wrong."""

import contextlib
import ctypes
import errno
import os
import signal
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import ops as op
from harness.agent.actors import DONE, SAID
from harness.agent.memory import Scratch
from harness.agent.outcome import ProtocolError
from harness.agent.records import RECORDS_BYTES, OverwrittenError, Record, Records, RecordsPool
from harness.agent.syscalls import call
from harness.agent.watch import Watched
from harness.host.deadline import Deadline, wait_until
from harness.ops import Step
from tests.unit.agent.conftest import Client, Daemon, Runner, changed_agent
from tests.unit.agent.test_bounds import sessions

MIB = 1 << 20
PAGE = 4096
USED = 8  # where in its records an actor says how far they go
FIRST = 16


def is_guarded(address: int, length: int) -> bool:
    """Whether the kernel itself cannot write directly before and behind this memory, and can in it."""
    zero = os.open("/dev/zero", os.O_RDONLY)
    try:
        results = [call("pread64", zero, at, 1, 0) for at in (address - 1, address, address + length - 1, address + length)]
    finally:
        os.close(zero)
    return results == [-errno.EFAULT, 1, 1, -errno.EFAULT]


def test_what_is_written_past_the_agents_buffers_reaches_nothing_else_of_it() -> None:
    scratch = Scratch()
    assert is_guarded(scratch.buffer(MIB), MIB)
    assert is_guarded(scratch.buffer(5 * MIB), 5 * MIB), "an area that was added later"
    scratch.close()


def test_the_records_of_each_actor_lie_between_guards() -> None:
    pool = RecordsPool()
    pool.lend(["main"])
    assert all(is_guarded(records.address, RECORDS_BYTES) for records in pool.lend(["main", "b", "c"]).values())


def test_scratch_memory_is_given_back_with_every_area_and_its_guards() -> None:
    scratch = Scratch()
    first, second = scratch.buffer(8), scratch.buffer(3 * MIB)
    places = [first - PAGE, first, first + MIB, second - PAGE, second, second + 3 * MIB]
    assert [is_mapped(place) for place in places] == [True] * 6
    scratch.close()
    assert [is_mapped(place) for place in places] == [False] * 6


def is_mapped(address: int) -> bool:
    return call("msync", address, PAGE, 0) == 0


def test_a_buffer_of_less_than_nothing_is_refused(client: Client, tmp_path: Path) -> None:
    with pytest.raises(ProtocolError, match="there is no buffer of -1 bytes"):
        Scratch().buffer(-1)
    opened: dict[str, Any] = {"call": "open", "args": {"name": "z", "path": "node:", "flags": ["rdonly"]}}
    for args in ({"length": -1}, {"length": -(1 << 40)}, {"length": 8, "shift": -9}):
        step = {"call": "pread", "args": {"file": "z", "offset": 0, **args}}
        answer = client.ask("run", program={"format": 1, "steps": [opened, step]}, roots={"node": "/dev/zero"})
        assert (answer["ok"], answer["kind"]) == (False, "protocol"), args
        assert "step 1 (pread): there is no buffer of" in answer["error"]


# ---- records that something else was written over --------------------------------------------------------------------


@pytest.fixture
def both() -> tuple[Records, Records]:
    """The same records as the actor and as the supervisor has them, with one outcome in them."""
    (ours,) = RecordsPool().lend(["main"]).values()
    theirs = Records(ours.address)
    assert theirs.add(Record(0, {"how": "returned", "value": 1}).packed())
    return theirs, ours


@pytest.mark.parametrize(
    ("at", "data", "said"),
    [
        (USED, struct.pack("=Q", RECORDS_BYTES + 1), "outcomes that were taken up to byte 16 end at 65537"),
        (USED, bytes(8), "outcomes that were taken up to byte 16 end at 0"),
        (FIRST, struct.pack("=I", 60_000), "an outcome of 60000 bytes begins at 20, and all end at "),
        (FIRST + 4, b"\xee" * 16, "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee begins no outcome "),
    ],
)
def test_records_that_were_written_over_are_told_from_outcomes(both: tuple[Records, Records], at: int, data: bytes, said: str) -> None:
    _, ours = both
    ours._view[at : at + len(data)] = data
    with pytest.raises(OverwrittenError, match=f"the memory in which the agent hands outcomes over was written over: {said}"):
        list(ours.take())


def test_and_records_that_were_not_are_outcomes(both: tuple[Records, Records]) -> None:
    theirs, ours = both
    assert [record.outcome["value"] for record in ours.take()] == [1]
    theirs.add(Record(1, {"how": "returned", "value": 2}).packed())
    assert [record.outcome["value"] for record in ours.take()] == [2]


LOST = """
from harness.agent import records
add = records.Records.add
def lose(self, packed):  # what was said of the outcomes is written over with zeroes: there are none
    end = self._at
    added = add(self, packed)
    if records.unpacked(packed).index == 1:
        self.restart(); self._at = end
    return added
records.Records.add = lose
"""
STRANGE = """
from harness.agent import actors
packed = actors.Record.packed
def strange(self):
    self.index = 7 if self.index == 1 else self.index
    return packed(self)
actors.Record.packed = strange
"""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (LOST, "the process main is done, and there is no outcome of step "),
        (STRANGE, "the process main did step 1, and the outcome is that of step 7"),
    ],
    ids=["lost", "strange"],
)
def test_a_program_whose_outcomes_are_lost_is_the_agents_fault(archive: Path, tmp_path: Path, change: str, said: str) -> None:
    with changed_agent(archive, tmp_path, change) as daemon, daemon.connected() as client:
        answer = Runner(client, {}).ask(op.Pipe("p"), op.Pipe("q"))
    assert (answer["ok"], answer["kind"]) == (False, "protocol")
    assert f"was written over: {said}" in answer["error"]


# ---- what goes through the channel -----------------------------------------------------------------------------------


@pytest.fixture
def speaking() -> Iterator[tuple[Watched, socket.socket]]:
    """An actor that has an order, as its supervisor sees it, and the end of the channel at which it speaks."""
    mine, theirs = socket.socketpair()
    with mine, theirs:
        watched = Watched("main", os.getpid(), mine, RecordsPool().lend(["main"])["main"], {}, None)
        yield watched, theirs
        os.close(watched.pidfd)


def test_an_outcome_is_collected_in_pieces_and_nothing_waits_for_the_rest(speaking: tuple[Watched, socket.socket]) -> None:
    watched, theirs = speaking
    packed = Record(0, {"how": "returned", "value": 5}).packed()
    said = SAID.pack(len(packed)) + packed
    for byte in said[:-1]:
        theirs.sendall(bytes([byte]))
        assert watched.hear() == ([], False)
    theirs.sendall(said[-1:])
    (record,), done = watched.hear()
    assert (record.outcome["value"], done, theirs.recv(9)) == (5, False, b"g")
    theirs.sendall(SAID.pack(DONE))
    assert watched.hear() == ([], True)


def test_an_actor_that_is_gone_says_nothing_and_is_told_nothing(speaking: tuple[Watched, socket.socket]) -> None:
    watched, theirs = speaking
    watched.channel.sendall(b"unread")
    packed = Record(0, {"how": "returned"}).packed()
    theirs.sendall(SAID.pack(len(packed)) + packed)
    theirs.close()
    assert len(watched.hear()[0]) == 1
    assert watched.hear() == ([], False)


def test_a_process_that_is_killed_while_it_hands_over_is_noticed(daemon: Daemon, tmp_path: Path) -> None:
    before = sessions(daemon.pid)
    with daemon.connected() as client:
        (session,) = sessions(daemon.pid) - before

        def kill() -> None:
            """Stop the supervisor until the actor cannot send more, and end that in the middle of its outcome."""
            wait_until(lambda: len(sessions(session)) == 2, Deadline.after(60), poll_s=0.001)
            os.kill(session, signal.SIGSTOP)
            wait_until(lambda: senders(session), Deadline.after(60))
            for pid in senders(session):
                os.kill(pid, signal.SIGKILL)
            os.kill(session, signal.SIGCONT)

        killer = threading.Thread(target=kill)
        killer.start()
        steps = (op.Fork("b"), op.Open("z", "node:", (op.OpenFlag.RDONLY,)), op.Read("z", 4 * MIB))
        answer = Runner(client, {"node": "/dev/urandom"}).ask(*steps)
        killer.join()
    assert (answer["ok"], answer["kind"]) == (False, "protocol")
    assert answer["error"] == "step 2 (read): SIGKILL ended the process main in the agent's own code, not in the operation"


def senders(session: int) -> list[int]:
    """The children of a session that wait in sendto(2)."""
    found = []
    for pid in sessions(session):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/syscall").read_text().startswith("44 "):
                found.append(pid)
    return found


# ---- between the last outcome and the word that all is done ----------------------------------------------------------

LATE = """
import os, signal, time
from harness.agent import actors, supervisor
class Late:
    size = actors.SAID.size
    def pack(self, number):
        if number == actors.DONE: {what}
        return number.to_bytes(8, "little", signed=True)
actors.SAID = Late()
"""


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV ended the process main in the agent's own code, not in the operation"),
        ("os._exit(3)", "the process main of the agent ended by itself; see the agent's log"),
        ("signal.pause()", "the process main does not come out of the agent's own code"),
        ("[None for _ in iter(int, 1)]", "the process main does not come out of the agent's own code"),
    ],
    ids=["killed", "ended", "asleep", "busy"],
)
def test_after_the_last_outcome_an_actor_is_in_the_agents_own_code(archive: Path, tmp_path: Path, what: str, said: str) -> None:
    with changed_agent(archive, tmp_path, LATE.format(what=what)) as daemon, daemon.connected() as client:
        answer = Runner(client, {}).ask(op.Pipe("p"), Step(op.Pipe("q")), limit_ms=5000)
        assert client.ask("hello")["ok"]
    assert (answer["ok"], answer["kind"]) == (False, "protocol")
    assert answer["error"] == f"after step 1 (pipe): {said}"


def test_how_much_there_is_is_one_number_that_the_processor_writes_at_once() -> None:
    """The other side may look at any moment: what clears the number before it writes it was once taken for damage, in one of 900 items."""
    (part,) = RecordsPool().lend(["main"]).values()
    assert isinstance(part._used, ctypes.c_uint64)
    assert ctypes.addressof(part._used) % 8 == 0
