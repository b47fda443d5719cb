"""The model's own run of a program: what it would observe if every step did the first thing that it may do.

A generator asks so what a program leads to, and a test that the judge accepts what the model itself says.
"""

from collections.abc import Callable
from dataclasses import dataclass

from harness.model.clause import Context, Undetermined
from harness.model.closing import without_process
from harness.model.content import Origin, Pieces, cut
from harness.model.expectation import AreaFlag, Completions, Evidence, Expectation, Expectations, Frames, Number, Residence, Where
from harness.model.facts import Env
from harness.model.judge import expect
from harness.model.outcome import How, Observation, Run, RunKind
from harness.model.prepared import initial_state
from harness.model.state import Pending, State
from harness.model.value import evolve
from harness.ops import Join, Program, Step

#: A frame of RAM: low memory is no region of anybody's.
_RAM_FRAME = 1


@dataclass(frozen=True)
class Canonical:
    """Observations of the steps that could be foretold, the state after them, and why they end early (empty: they do not)."""

    observations: tuple[Observation, ...]
    state: State
    reason: str = ""


def canonical(env: Env, program: Program, choose: Callable[[int], int] = lambda count: 0) -> Canonical:
    """Return the model's own observations of ``program`` on the stack of ``env``, up to the first step that no rule can judge.

    ``choose`` says which one of so many states follows, where the kernel is free.
    """
    run = _Run(env, program, choose)
    seen: list[Observation] = []
    for index, step in enumerate(program.steps):
        try:
            seen.append(run.observe(index, step))
            run.wake()
        except Undetermined as undetermined:
            return Canonical(tuple(seen), run.state, f"step {index + 1}: {undetermined.reason}")
    return Canonical(tuple(seen), run.state)


class _Run:
    """A program on its way: the state, which processes can go on, and how started steps ended."""

    def __init__(self, env: Env, program: Program, choose: Callable[[int], int]) -> None:
        self.env, self.program, self.choose = env, program, choose
        self.state = initial_state(env)
        self.stopped: set[str] = set()
        self.not_started: set[str] = set()

    def observe(self, index: int, step: Step) -> Observation:
        if isinstance(step.operation, Join):
            return self._join(index, step.operation)
        busy = any(p.done is None and self.program.steps[p.step].process == step.process for p in self.state.pending.values())
        if busy or step.process in self.stopped or step.process not in self.state.processes:
            if step.start is not None:
                self.not_started.add(step.start)
            return Observation(index, How.NOT_RUN)
        seen, state, progress = self._ended(index)
        if step.start is not None:
            state = state.with_pending(step.start, Pending(index, None if seen.how is How.BLOCKED else seen, progress))
        elif seen.how is How.BLOCKED:
            self.stopped.add(step.process)
        self.state = state
        return seen

    def _ended(self, index: int, progress: int = 0) -> tuple[Observation, State, int]:
        """Return how step ``index`` ends in the state as it is, and the state that follows."""
        step = self.program.steps[index]
        context = Context(self.env, index, step.process, progress=progress)
        chosen = _first(expect(context, self.state, step.operation))
        seen = _outcome(index, chosen)
        following = chosen.following(seen)
        which = self.choose(len(following))
        seen = _with_evidence(seen, following[which].evidence)
        # What follows may depend on the evidence too.
        state = chosen.following(seen)[which].state
        if seen.how is How.SIGNAL:
            state = without_process(context, state, step.process)
            self.stopped.add(step.process)
        return seen, state, chosen.progress

    def _join(self, index: int, join: Join) -> Observation:
        if join.label in self.not_started or join.label not in self.state.pending:
            return Observation(index, How.NOT_RUN)
        pending = self.state.pending[join.label]
        return evolve(pending.done or Observation(index, How.BLOCKED), step=index)

    def wake(self) -> None:
        """Let each step that sleeps, the oldest first, go on as soon as nothing keeps it; one that did may free another."""
        woken = True
        while woken:
            asleep = sorted((pending.step, label) for label, pending in self.state.pending.items() if pending.done is None)
            woken = True in [self._wakes(label) for _, label in asleep]

    def _wakes(self, label: str) -> bool:
        """Whether a step that sleeps ends now."""
        pending = self.state.pending[label]
        seen, state, progress = self._ended(pending.step, pending.progress)
        ended = evolve(pending, progress=progress) if seen.how is How.BLOCKED else evolve(pending, done=seen)
        self.state = state.with_pending(label, ended)
        return ended.done is not None


def _first(expected: Expectations) -> Expectation:
    reason = "no rule says how this may end"
    for expectation in expected:
        if not expectation.unjudged:
            return expectation
        reason = expectation.unjudged
    raise Undetermined(reason)


def _outcome(index: int, e: Expectation) -> Observation:
    if e.how is How.FAILED:
        return Observation(index, e.how, errno=e.names[0])
    if e.how is How.SIGNAL:
        return Observation(index, e.how, signal=e.names[0])
    if e.how is How.BLOCKED:
        return Observation(index, e.how)
    value = e.low if e.accepts is None or e.accepts(e.low) else e.high
    return Observation(index, How.RETURNED, value, data=None if e.shown is None else _runs(cut(e.shown[1], 0, value)))


def _runs(pieces: Pieces) -> tuple[Run, ...]:
    """Return the bytes as a guest shows them; of unknown ones zeroes."""
    runs = []
    at = 0
    for piece in pieces:
        if piece.origin is Origin.TAG:
            runs.append(Run(at, piece.length, RunKind.TAG, piece.writer, piece.source))
        elif piece.origin is Origin.RAW:
            runs.append(Run(at, piece.length, RunKind.RAW, raw=piece.raw))
        else:
            runs.append(Run(at, piece.length, RunKind.ZERO))
        at += piece.length
    return tuple(runs)


def _with_evidence(seen: Observation, evidence: tuple[Evidence, ...]) -> Observation:
    """Return what was seen with the least that satisfies ``evidence``."""
    attributes: dict[str, int | str] = {}
    flags: list[str] = []
    for one in evidence:
        match one:
            case Number(name="faults"):
                seen = evolve(seen, minor_faults=one.low)
                attributes["major_faults"] = 0
            case Number(name="value"):
                seen = evolve(seen, value=max(one.low, 1))
            case Number():
                attributes[one.name] = one.low
            case Residence():
                seen = evolve(seen, resident="".join("1" if must else "0" for must, _ in one.pages))
            case AreaFlag():
                flags += [one.flag] if one.is_set else []
                attributes["vm_flags"] = " ".join(flags) or "??"
            case Completions():
                attributes |= {"completions": 1, "lo": one.first, "hi": one.first, "copied": 1}
            case Frames():
                seen = evolve(seen, frames=tuple(_frame(one, index) for index in range(len(one.pages))))
    return evolve(seen, attributes=tuple(sorted(attributes.items())))


def _frame(frames: Frames, index: int) -> int:
    page = frames.pages[index]
    if page is None or not page.present:
        return 0
    if page.where is Where.OWN and frames.own is not None:
        return frames.own[0] // frames.page_bytes + index
    return _RAM_FRAME
