"""A process that has just been made says nothing of the one that made it."""

import json
import sys
from pathlib import Path

from harness.host.deadline import Deadline, wait_until
from harness.host.process import start
from harness.model.outcome import How
from harness.ops import Fork, Ftruncate, Load, Mmap, Open, OpenFlag
from tests.unit.agent.conftest import Daemon, Runner

PAGE = 4096
#: The agent, but that its first call in a process of a fork waits until the other one is in a copy, which waits until that call is over.
SLOW = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv.pop())
from harness.agent import actors, main, memory, syscalls

here = Path(sys.argv.pop())
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
sys.exit(main.main(sys.argv[1:]))
"""


def test_a_signal_in_an_operation_stays_one_while_the_other_process_begins(archive: Path, tmp_path: Path) -> None:
    token = tmp_path / "agent.json"
    command = [sys.executable, "-c", SLOW, "127.0.0.1:0", str(token), "--foreground", str(tmp_path), str(archive)]
    process = start(command, stderr=2)
    try:
        assert wait_until(token.exists, Deadline.after(30))
        said = json.loads(token.read_text())
        with Daemon(process.pid, said["port"], said["token"]).connected() as client:
            flags = (OpenFlag.RDWR, OpenFlag.CREAT)
            steps = (Open("f", "a", flags), Ftruncate("f", 100), Mmap("m", 4 * PAGE, "f"), Fork("b"), Load("m", PAGE, 1))
            seen = Runner(client, {"main": str(tmp_path)}).run(*steps)
    finally:
        process.kill()
        process.wait()
    assert (tmp_path / "called").exists()
    assert (seen[4].how, seen[4].signal) == (How.SIGNAL, "SIGBUS")
