"""A process that has just been made says nothing of the one that made it."""

from pathlib import Path

from harness.model.outcome import How
from harness.ops import Fork, Ftruncate, Load, Mmap, Open, OpenFlag, Pipe
from tests.unit.agent.conftest import Runner, changed_agent

PAGE = 4096
#: The agent, but that its first call in a process of a fork waits until the other one is in a copy, which waits until that call is over.
SLOW = """
import time
from pathlib import Path
from harness.agent import actors, memory, syscalls

here = Path(here)
nobody, call, copy = syscalls.Inside.byte, actors.call, memory.MEMMOVE
copies = []

def wait_for(name):
    for _ in range(2000):
        if (here / name).exists():
            return
        time.sleep(0.005)

def slow_call(name, *arguments):
    forked = name == "prctl" and syscalls.Inside.byte is not nobody
    if forked:
        wait_for("copying")
    result = call(name, *arguments)
    if forked:
        (here / "called").touch()
    return result

def slow_copy(*arguments):
    copies.append(arguments)
    if len(copies) == 2:  # the first copy is one of dummies
        (here / "copying").touch()
        wait_for("called")
    return copy(*arguments)

actors.call, memory.MEMMOVE = slow_call, slow_copy
"""


def test_a_signal_in_an_operation_stays_one_while_the_other_process_begins(archive: Path, tmp_path: Path) -> None:
    with changed_agent(archive, tmp_path, SLOW) as daemon, daemon.connected() as client:
        flags = (OpenFlag.RDWR, OpenFlag.CREAT)
        steps = (Open("f", "a", flags), Ftruncate("f", 100), Mmap("m", 4 * PAGE, "f"), Fork("b"), Load("m", PAGE, 1))
        seen = Runner(client, {"main": str(tmp_path)}).run(*steps)
    assert (tmp_path / "called").exists()
    assert (seen[4].how, seen[4].signal) == (How.SIGNAL, "SIGBUS")


#: The agent, but that a new process of a program cannot close what it has of its session.
BROKEN = """
import os, socket
from harness.agent import program

class Stuck(socket.socket):
    owner = 0
    def close(self):
        if os.getpid() != self.owner:
            raise OSError("it cannot be closed")
        super().close()

def stuck_pair(make=socket.socketpair):
    ours, theirs = make()
    ours = Stuck(fileno=ours.detach())
    ours.owner = os.getpid()
    return ours, theirs

socket.socketpair = stuck_pair
"""


def test_a_process_that_cannot_begin_never_speaks_for_its_session(archive: Path, tmp_path: Path) -> None:
    with changed_agent(archive, tmp_path, BROKEN) as daemon, daemon.connected() as client:
        answer = Runner(client, {}).ask(Pipe("p"))
        assert (answer["ok"], answer["kind"]) == (False, "protocol")
        assert answer["error"] == "step 0 (pipe): the process main of the agent ended by itself; see the agent's log"
        assert client.ask("hello")["ok"]
