"""The supervisor: hands out the steps of a program, and says of each what came of it."""

import contextlib
import os
import socket
import time

from harness.agent.actors import ORDER, Cast
from harness.agent.outcome import HangError, HostGoneError, Outcome, ProtocolError
from harness.agent.records import OverwrittenError, Record
from harness.agent.watch import Sample, Watched
from harness.ops.processes import Fork, Join, ProcessVmReadv
from harness.ops.program import Step

_FIRST_LOOK_S = 0.05
#: What waits for a disk (D) is given so many times the limit: a busy computer's disk is slow, and nothing is blocked.
_DISK_PATIENCE = 3


class Limits:
    """``blocked_s``: asleep so long in one system call is blocked, in D three times so long. ``step_s``: how long a step may run."""

    def __init__(self, blocked_s: float, step_s: float) -> None:
        self.blocked_s, self.step_s = blocked_s, step_s


class Company:
    """The process ``main`` as it is watched, and what it takes to watch those that it forks: our ends of the channels."""

    def __init__(self, cast: Cast, ours: dict[str, socket.socket], main: int, host: socket.socket | None) -> None:
        self.cast, self._ours, self._host = cast, ours, host
        self._watched: list[Watched] = []
        self.main = self.watch("main", main, {})

    def __enter__(self) -> "Company":
        return self

    def __exit__(self, *_: object) -> None:
        for watched in self._watched:
            os.close(watched.pidfd)

    def watch(self, name: str, pid: int, mappings: dict[str, int]) -> Watched:
        """Watch a process, to the end of all."""
        self._watched.append(Watched(name, pid, self._ours[name], self.cast.records[name], mappings, self._host))
        return self._watched[-1]

    def is_gone(self, ready: list[int]) -> bool:
        """Whether the host is among those that have something to say: it only ever says that it listens no more."""
        return self._host is not None and self._host.fileno() in ready

    def stays_behind(self, number: int) -> bool:
        """Whether ``main`` has given back all that this program made, and can take the next."""
        return number in self.cast.stay and self.main.busy is None and not self.main.stuck and not self.main.dead


class Supervisor:
    """Runs one program; the answer is one observation a step."""

    def __init__(self, company: Company, number: int, limits: Limits) -> None:
        self._company, self._number, self._limits = company, number, limits
        self._steps = company.cast.programs[number]
        self._actors = {"main": company.main}
        company.main.mappings.clear()
        self._answers: dict[int, Outcome] = {}
        self._finals: dict[int, Outcome] = {}
        self._started: dict[str, tuple[Watched, int]] = {}

    def run(self) -> list[Outcome]:
        steps, index = self._steps, 0
        while index < len(steps):
            step, end = steps[index], index + 1
            if isinstance(step.operation, Join):
                self._answers[index] = self._join(step.operation)
            else:
                while not _is_alone(step) and end < len(steps) and steps[end].process == step.process and not _is_alone(steps[end]):
                    end += 1
                actor = self._actors.get(step.process)
                if actor is not None and self._is_free(actor):
                    self._order(actor, index, end)
                else:
                    self._leave_out(index, end)
            index = end
        return [{**self._answers[number], "step": number} for number in range(len(steps))]

    def _is_free(self, actor: Watched) -> bool:
        """Whether the process can take a step; a started step that it still has gets the chance to finish."""
        if actor.busy is not None and not actor.stuck:
            self._await(actor)
        return actor.busy is None and not actor.stuck and not actor.dead

    def _order(self, actor: Watched, first: int, end: int) -> None:
        """Have the actor do steps, and wait until it is done with them; of those that it comes to no more, none is run."""
        step = self._steps[first]
        actor.busy, actor.end = first, end
        actor.records.restart()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            actor.channel.sendall(ORDER.pack(self._number, first, end, *self._remote(step)))
        blocked = self._await(actor)
        if step.start is not None:
            self._started[step.start] = (actor, first)
            if blocked is not None:
                self._answers[first] = blocked
        elif blocked is not None or actor.dead:
            # What is left of this process is not run, also should the block end later.
            actor.records.halt()
            actor.stuck = True
            if blocked is not None and actor.busy is not None:
                self._answers[actor.busy] = blocked
            self._leave_out(first, end)

    def _remote(self, step: Step) -> tuple[int, int]:
        """The process and the address that a step reads from; 0 where there is none."""
        op = step.operation
        if not isinstance(op, ProcessVmReadv) or op.target not in self._actors:
            return 0, 0
        target = self._actors[op.target]
        return (0, 0) if target.dead else (target.pid, target.mappings.get(op.mapping, 0))

    def _join(self, op: Join) -> Outcome:
        if op.label not in self._started:
            return {"how": "not_run", "attributes": {"missing": op.label}}
        actor, index = self._started[op.label]
        blocked = None if index in self._finals else self._await(actor)
        return self._finals[index] if blocked is None else blocked

    def _leave_out(self, first: int, end: int) -> None:
        for index in range(first, end):
            self._answers.setdefault(index, {"how": "not_run"})

    def _await(self, actor: Watched) -> Outcome | None:
        """Wait until the actor is done with its order or has ended. It may be ``blocked`` in a step: then that is returned."""
        begun = asleep_since = time.monotonic()
        before: Sample | None = None
        pause_s = _FIRST_LOOK_S
        while True:
            ended = self._poll(actor, pause_s)
            records, done = actor.hear()
            for record in records:
                self._note(actor, record)
            if done:
                self._note_done(actor)
                return None
            if ended:
                self._note_end(actor)
                return None
            now = time.monotonic()
            if records:  # it gets on: where it sleeps need not be asked
                before, begun, asleep_since = None, now, now
                continue
            sample = Sample(actor.pid)
            if not sample.is_same_sleep(before):
                before, asleep_since = sample, now
            patience_s = self._limits.blocked_s * (_DISK_PATIENCE if sample.state == "D" else 1)
            is_asleep = now - asleep_since >= patience_s
            is_late = now - begun > self._limits.step_s
            if (is_asleep or is_late) and actor.busy == actor.end:
                if self._number in self._company.cast.stay and actor.end == len(self._steps):  # to close and unmap may take its time
                    actor.stuck = True
                    return None
                raise ProtocolError(f"{self._place(actor)}: the process {actor.name} does not come out of the agent's own code")
            if is_asleep:
                return {"how": "blocked", "attributes": sample.attributes(actor.pid)}
            if is_late:
                raise HangError(f"{self._place(actor)} still ran after {self._limits.step_s:.0f} s, state {sample.state}")
            pause_s = max(0.01, min(0.1, asleep_since + patience_s - now))

    def _place(self, actor: Watched) -> str:
        """Where an actor is in its order, for messages."""
        index, where = actor.busy or 0, "step"
        if index == actor.end:
            index, where = index - 1, "after step"
        return f"{where} {index} ({self._steps[index].operation.call})"

    def _poll(self, actor: Watched, pause_s: float) -> bool:
        """Wait until the actor says something or ends (then True) or time is up. Raises HostGoneError when nobody listens."""
        ready = [descriptor for descriptor, _ in actor.waiting.poll(pause_s * 1000)]
        if self._company.is_gone(ready):
            raise HostGoneError
        return actor.pidfd in ready

    def _note(self, actor: Watched, record: Record) -> None:
        """Take what the actor said. A step that was answered already, as blocked, keeps that answer."""
        index, outcome = record.index, record.outcome
        if index != actor.busy or index == actor.end:
            raise OverwrittenError(f"the process {actor.name} did step {actor.busy}, and the outcome is that of step {index}")
        op = self._steps[index].operation
        if outcome["how"] == "broken":
            raise ProtocolError(f"step {index} ({op.call}): {outcome['problem']}")
        if record.pid and isinstance(op, Fork):
            self._actors[op.process] = self._company.watch(op.process, record.pid, actor.mappings)
        if record.mapping is not None and record.address is not None:
            actor.mappings[record.mapping] = record.address
        elif record.mapping is not None:
            actor.mappings.pop(record.mapping, None)
        actor.busy = index + 1
        self._finals[index] = outcome
        self._answers.setdefault(index, outcome)

    def _note_done(self, actor: Watched) -> None:
        if actor.busy != actor.end:
            raise OverwrittenError(f"the process {actor.name} is done, and there is no outcome of step {actor.busy}")
        actor.busy = None

    def _note_end(self, actor: Watched) -> None:
        """The actor has ended, in the step that it was at: an observation where a signal ended it in the operation itself."""
        index, place = actor.busy or 0, self._place(actor)
        actor.note_end()
        if actor.signal is None:
            raise ProtocolError(f"{place}: the process {actor.name} of the agent ended by itself; see the agent's log")
        if index == actor.end or not actor.records.was_inside:
            raise ProtocolError(f"{place}: {actor.signal} ended the process {actor.name} in the agent's own code, not in the operation")
        actor.busy = None
        self._finals[index] = {"how": "signal", "signal": actor.signal}
        self._answers.setdefault(index, self._finals[index])


def _is_alone(step: Step) -> bool:
    """Whether the supervisor hands this step out by itself, because something beside it must happen."""
    return step.start is not None or isinstance(step.operation, Join | ProcessVmReadv)
