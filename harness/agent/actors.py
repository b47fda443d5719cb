"""Actors: the processes of a program.

The supervisor sends an actor a range of steps; the actor does them, adds each outcome to its records, and says on its channel when it is
done with all. Where an outcome does not fit it sends it through the channel, and goes on when the supervisor has taken everything.

The process ``main`` may stay for the programs that follow: behind the last step of its program it gives back all that this one made.
"""

import gc
import os
import signal
import socket
import struct
from collections.abc import Container, Sequence
from typing import NoReturn

from harness.agent.doers import perform
from harness.agent.outcome import Outcome, nothing_or_errno
from harness.agent.performer import Performer, Place
from harness.agent.records import Record, Records
from harness.agent.syscalls import Inside, call, clone
from harness.ops.mappings import Mmap, Munmap
from harness.ops.processes import Fork
from harness.ops.program import Step

#: Program, first step, end, and process and address of what another process is asked for.
ORDER = struct.Struct("=qqqqq")
#: What an actor says: that it is done, or how many bytes follow that are one more record.
SAID = struct.Struct("=q")
DONE = -1
_CLONE_PARENT = 0x8000
_PR_SET_PDEATHSIG = 1


class Cast:
    """What all actors share from before the first fork. ``stay``: the numbers of the programs behind which ``main`` stays."""

    def __init__(
        self,
        programs: Sequence[tuple[Step, ...]],
        stay: Container[int],
        place: Place,
        channels: dict[str, socket.socket],
        records: dict[str, Records],
    ) -> None:
        self.programs, self.stay, self.place, self.channels, self.records = programs, stay, place, channels, records

    def enter(self, actor: str) -> None:
        """Have this process be ``actor``: from now on its byte says whether it is in the operation of a step."""
        Inside.byte = self.records[actor].inside_byte()


def become_actor(cast: Cast, others: list[socket.socket]) -> NoReturn:
    """The life of the process ``main``, from the fork of the session on, without the session's own sockets. Never returns."""
    try:
        cast.enter("main")  # before any call: until then this process speaks for the one that made it
        for other in others:
            other.close()
        os.setpgid(0, 0)
        call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL)
        gc.disable()  # a collection would take page faults of its own
        act(cast, "main", Performer(cast.place))
    except BaseException:
        die()


def die() -> NoReturn:
    """End this process after an exception of the agent's own, which its log then has."""
    import traceback

    traceback.print_exc()
    os._exit(70)


def act(cast: Cast, name: str, me: Performer) -> NoReturn:
    """Do what the supervisor orders, step by step, until it hangs up."""
    while True:
        channel, records = cast.channels[name], cast.records[name]
        order = channel.recv(ORDER.size, socket.MSG_WAITALL)
        if len(order) < ORDER.size:
            os._exit(0)
        number, first, end, *remote = ORDER.unpack(order)
        steps = cast.programs[number]
        me.remote = (remote[0], remote[1])
        records.restart()
        for index in range(first, end):
            if records.is_halted:
                break
            step = steps[index]
            packed = _do(cast, me, index, step).packed()
            if not records.add(packed):
                channel.sendall(SAID.pack(len(packed)) + packed)
                channel.recv(1)
                records.restart()
        if end == len(steps) and number in cast.stay:
            me.give_back()
        channel.sendall(SAID.pack(DONE))


def _do(cast: Cast, me: Performer, index: int, step: Step) -> Record:
    op = step.operation
    if isinstance(op, Fork):
        result, pid = _fork(cast, me, op.process)
        return Record(index, result, pid=pid)
    result = perform(me, index, step)
    if isinstance(op, Mmap) and result["how"] == "returned":
        return Record(index, result, mapping=op.name, address=me.names[op.name].address)
    if isinstance(op, Munmap) and op.mapping not in me.names:
        return Record(index, result, mapping=op.mapping)
    return Record(index, result)


def _fork(cast: Cast, me: Performer, name: str) -> tuple[Outcome, int]:
    """Make the process ``name``; it is a child of the supervisor like all others, and lives in :func:`act`."""
    process = clone(_CLONE_PARENT)
    if process == 0:
        try:
            cast.enter(name)
            call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL)
            act(cast, name, me)
        except BaseException:
            die()
    return nothing_or_errno(process), max(process, 0)
