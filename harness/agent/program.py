"""Programs: read, given their processes, and ended with all that they made."""

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

from harness.agent.actors import Cast, become_actor
from harness.agent.doers import perform
from harness.agent.outcome import HangError, Outcome, ProtocolError
from harness.agent.performer import Performer, Place
from harness.agent.records import RecordsPool
from harness.agent.supervisor import Company, Limits, Supervisor
from harness.agent.syscalls import clone
from harness.ops.codec import DocumentError, program_from
from harness.ops.pins import IoUringSetup, RdmaOpen, XdpSocket
from harness.ops.processes import Fork
from harness.ops.program import Program
from harness.ops.reach import find_out_of_reach
from harness.ops.sockets import Send, SendFlag

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


def run_programs(
    documents: list[Any], request: dict[str, Any], host: socket.socket | None, prepare: Callable[[], None]
) -> Iterator[list[Outcome]]:
    """Run programs one after the other; yield the observations of each. ``prepare`` is done before each of them.

    Raises DocumentError or ProtocolError before a program runs that cannot be meant; HangError; HostGoneError.
    """
    limits = Limits(request.get("blocked_ms", 3000) / 1000, request.get("limit_ms", 120_000) / 1000)
    # All are read before the first process is made, so that the process `main` has those to come.
    programs, problem = _read_programs(documents)
    number = 0
    while number < len(programs):
        prepare()
        place = Place(dict(request.get("roots") or {}), dict(request.get("devices") or {}))
        with _processes(programs, number, place, host) as company:
            seen = Supervisor(company, number, limits).run()
            while company.stays_behind(number):
                yield seen
                number += 1
                prepare()
                seen = Supervisor(company, number, limits).run()
        yield seen
        number += 1
    if problem is not None:
        raise problem


def _read_programs(documents: list[Any]) -> tuple[list[Program], Exception | None]:
    """Return the programs up to the first that cannot be meant, and what is wrong with that one."""
    programs: list[Program] = []
    try:
        for document in documents:
            programs.append(read_program(document))
    except (DocumentError, ProtocolError) as error:
        return programs, error
    return programs, None


#: What else a process has of a program than descriptors and mappings, or is not rid of when these are gone.
_LASTING = Fork | IoUringSetup | XdpSocket | RdmaOpen


def stays(program: Program) -> bool:
    """Whether ``main`` is behind this program what it was before, when all that has a name is closed and unmapped."""
    return not any(
        isinstance(op := step.operation, _LASTING) or step.start is not None or (isinstance(op, Send) and SendFlag.ZEROCOPY in op.flags)
        for step in program.steps
    )


@contextlib.contextmanager
def _processes(programs: list[Program], first: int, place: Place, host: socket.socket | None) -> Iterator[Company]:
    """Have the process ``main`` for the program ``first`` and, as long as it stays, for those behind it; kill all processes in the end."""
    last = first
    while last + 1 < len(programs) and stays(programs[last]) and stays(programs[last + 1]):
        last += 1
    actors = ["main"] + [step.operation.process for step in programs[first].steps if isinstance(step.operation, Fork)]
    pairs = {name: socket.socketpair() for name in actors}
    ours, theirs = ({name: pair[end] for name, pair in pairs.items()} for end in (0, 1))
    cast = Cast([program.steps for program in programs], range(first, last), place, theirs, _RECORDS.lend(actors))
    pid = clone()
    if pid < 0:
        raise OSError(-pid, "no process can be made for the program")
    if pid == 0:
        become_actor(cast, [*ours.values()] if host is None else [*ours.values(), host])
    with contextlib.suppress(OSError):
        os.setpgid(pid, pid)
    try:
        for other in theirs.values():
            other.close()
        with Company(cast, ours, pid, host) as company:
            yield company
    finally:
        end_program(pid)
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
