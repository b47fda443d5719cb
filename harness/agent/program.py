"""One program: read, given its processes, and ended with all that it made."""

import contextlib
import os
import signal
import socket
import time
from typing import Any

from harness.agent.actors import Cast, become_actor
from harness.agent.doers import perform
from harness.agent.outcome import HangError, Outcome, ProtocolError
from harness.agent.performer import Performer, Place
from harness.agent.records import RecordsPool
from harness.agent.supervisor import Limits, Supervisor
from harness.agent.syscalls import clone
from harness.ops.codec import program_from
from harness.ops.processes import Fork
from harness.ops.program import Program
from harness.ops.reach import find_out_of_reach

REAP_LIMIT_S = 10
_RECORDS = RecordsPool()


def read_program(document: Any) -> Program:
    """Check a program at the door. Raises DocumentError or ProtocolError with what is wrong in it."""
    program = program_from(document)
    processes = {"main"}
    for index, step in enumerate(program.steps):
        if step.process not in processes:
            raise ProtocolError(f"step {index} ({step.operation.call}): no earlier step forks the process {step.process!r}")
        if isinstance(step.operation, Fork):
            if step.operation.process in processes:
                raise ProtocolError(f"step {index} (fork): there is a process {step.operation.process!r} already")
            processes.add(step.operation.process)
    found = find_out_of_reach(program.steps)
    if found is not None:
        raise ProtocolError(f"step {found[0]} ({program.steps[found[0]].operation.call}): {found[1]}")
    return program


def run_program(request: dict[str, Any], host: socket.socket | None) -> list[Outcome]:
    """Run the program of a request; return its observations.

    Raises DocumentError or ProtocolError before anything runs where the program cannot be meant; HangError; HostGoneError.
    """
    program = read_program(request.get("program"))
    place = Place(dict(request.get("roots") or {}), dict(request.get("devices") or {}))
    limits = Limits(request.get("blocked_ms", 3000) / 1000, request.get("limit_ms", 120_000) / 1000)
    actors = ["main"] + [step.operation.process for step in program.steps if isinstance(step.operation, Fork)]
    pairs = {name: socket.socketpair() for name in actors}
    cast = Cast(program.steps, place, {name: theirs for name, (_, theirs) in pairs.items()}, _RECORDS.lend(actors))
    ours = {name: mine for name, (mine, _) in pairs.items()}
    main = clone()
    if main < 0:
        raise OSError(-main, "no process can be made for the program")
    if main == 0:
        become_actor(cast, [*ours.values()] if host is None else [*ours.values(), host])
    with contextlib.suppress(OSError):
        os.setpgid(main, main)
    supervisor: Supervisor | None = None
    try:
        for theirs in cast.channels.values():
            theirs.close()
        supervisor = Supervisor(cast, ours, main, limits, host)
        return supervisor.run()
    finally:
        end_program(main)
        if supervisor is not None:
            supervisor.close()
        for mine in ours.values():
            mine.close()


def end_program(main: int, limit_s: float = REAP_LIMIT_S) -> None:
    """Kill and reap every process of the program: all are in the group of ``main`` and children of this session.

    Raises HangError when one does not go, which is the kernel's doing: then this guest is not clean.
    """
    end_at, pause_s = time.monotonic() + limit_s, 0.001
    while True:
        for kill in (os.killpg, os.kill):
            with contextlib.suppress(ProcessLookupError):
                kill(main, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0] != 0:
                pass
        except ChildProcessError:
            return
        if time.monotonic() > end_at:
            raise HangError(f"the processes of the program could not be ended within {limit_s:g} s")
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, 0.05)


def perform_here(request: dict[str, Any]) -> list[Outcome]:
    """Do the steps of a short program in this process: nobody supervises it, so only what cannot block or crash belongs here.

    Raises DocumentError or ProtocolError.
    """
    me = Performer(Place(dict(request.get("roots") or {}), {}))
    seen: list[Outcome] = []
    for index, step in enumerate(read_program(request["program"]).steps):
        result = perform(me, index, step)
        if result["how"] == "broken":
            raise ProtocolError(f"step {index} ({step.operation.call}): {result['problem']}")
        seen.append({**result, "step": index})
    return seen
