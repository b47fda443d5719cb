"""The judge: a program, what the guest saw, and the stack as it is; out comes a verdict for every step."""

import contextlib
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.model.clause import CLAUSES, Context, Undetermined, clause
from harness.model.closing import closed_ends, without_process
from harness.model.compare import Comparison, compare
from harness.model.expectation import Expectation, Expectations
from harness.model.facts import Env
from harness.model.outcome import How, Observation
from harness.model.prepared import initial_state
from harness.model.rules import RULES
from harness.model.spans import decided, joined
from harness.model.state import Pending, State
from harness.model.value import evolve
from harness.model.verdict import Verdict, worst
from harness.ops import FutexWait, Join, Operation, Pin, Program, Step

#: More states than this mean that a rule leaves too much open to be followed.
MAX_STATES = 256

clause("C-JOIN-01", "a step that had ended when it was joined ended as was seen then", "docs/agent-protocol.md")


@dataclass(frozen=True)
class StepVerdict:
    """The judgement of one step. ``because`` is the deciding clause with its text and source; ``reason`` is why nothing
    could be said (undetermined); ``clauses`` are all that were asked."""

    step: int
    verdict: Verdict
    observed: str
    allowed: str
    because: str
    clauses: tuple[str, ...] = ()
    reason: str = ""
    clause: str = ""


@dataclass(frozen=True)
class Judgement:
    """The verdicts of all steps, the worst of them, and the facts that were asked.

    ``finals`` are the states in which the program may have ended; empty where they are not known.
    """

    verdict: Verdict
    steps: tuple[StepVerdict, ...]
    facts: tuple[str, ...] = ()
    finals: tuple[State, ...] = field(default=(), compare=False, repr=False)

    @property
    def clauses(self) -> tuple[str, ...]:
        return tuple(sorted({name for step in self.steps for name in step.clauses}))


def judge(env: Env, program: Program, observations: tuple[Observation, ...], flipped: frozenset[str] = frozenset()) -> Judgement:
    """Judge what was seen of ``program`` on the stack of ``env``.

    ``flipped`` are clauses whose condition is turned around: a test shows with it that a clause matters.
    After a deviation, after a step that no rule could judge and where too many states are possible, the steps that follow are
    undetermined: the model no longer knows the state. A state that may be the true one is never dropped.
    """
    run = _Run(env, program, {o.step: o for o in observations}, flipped)
    states = [initial_state(env)]
    verdicts: list[StepVerdict] = []
    lost = ""
    for index, step in enumerate(program.steps):
        observation = run.seen.get(index, Observation(index, How.NOT_RUN))
        if lost:
            verdicts.append(_undetermined(index, observation, lost))
            continue
        if observation.how is How.NOT_RUN:
            verdicts.append(_undetermined(index, observation, "the step was not run: its process had ended or was blocked"))
            continue
        states, verdict, lost = _judge_step(run, states, index, observation)
        verdict = _pinned(verdict, step.pin, observation)
        verdicts.append(verdict)
        if verdict.verdict is Verdict.DEVIATES:
            lost = f"step {index + 1} deviates, so the state after it is not known"
    states, unsettled = _settled_sleepers(run, states, len(program.steps))
    finals = () if lost or unsettled else tuple(states)
    return Judgement(worst(v.verdict for v in verdicts), tuple(verdicts), tuple(sorted(env.asked)), finals)


@dataclass(frozen=True)
class _Run:
    """What stays the same for all steps of a run."""

    env: Env
    program: Program
    seen: Mapping[int, Observation]
    flipped: frozenset[str]

    def context(self, index: int, progress: int = 0) -> Context:
        return Context(self.env, index, self.program.steps[index].process, self.flipped, progress=progress)


def _judge_step(run: _Run, states: list[State], index: int, seen: Observation) -> tuple[list[State], StepVerdict, str]:
    """Return the states after a step, its verdict, and why nothing is known from here on (empty: it is)."""
    after: list[State] = []
    accepted: list[Comparison] = []
    refused: list[Comparison] = []
    unjudged = ""
    hits: list[str] = []
    possible, unsettled = _settled_sleepers(run, states, index)
    for state in possible:
        context = run.context(index)
        try:
            compared = _one(run, context, state, index, seen)
            (accepted if compared.states else refused).append(compared)
            after += compared.states
        except Undetermined as undetermined:
            unjudged = unjudged or undetermined.reason
            accepted.append(Comparison())
        hits += context.hits
    clauses = tuple(dict.fromkeys(hits))
    if len(after) > 1:
        after = joined(after)
    if not accepted:
        told = refused[0]
        because = because_of(told.because)
        if unsettled:
            reason = f"{unsettled}, and what was seen is not what it was without that"
            verdict = StepVerdict(index, Verdict.UNDETERMINED, told.observed, told.allowed, because, clauses, reason, told.because)
            return states, verdict, reason
        return states, StepVerdict(index, Verdict.DEVIATES, told.observed, told.allowed, because, clauses, clause=told.because), ""
    told = accepted[0]
    lost = f"step {index + 1} could not be judged ({unjudged}), so the state after it is not known" if unjudged else ""
    if len(after) > MAX_STATES:
        unjudged = f"more than {MAX_STATES} states are possible here"
        lost = f"after step {index + 1} more than {MAX_STATES} states are possible"
    unsure = unjudged or next((c.unsure for c in accepted if c.unsure), "")
    word = Verdict.UNDETERMINED if unsure else Verdict.CONFORMS
    return after, StepVerdict(index, word, seen.describe(), told.allowed, because_of(told.because), clauses, unsure, told.because), lost


def _one(run: _Run, context: Context, state: State, index: int, seen: Observation) -> Comparison:
    """Compare what was seen of one step with what is expected in one state. Raises Undetermined."""
    step = run.program.steps[index]
    if isinstance(step.operation, Join):
        return _join(run, context, state, step.operation, seen)
    compared = _compared(context, state, step.operation, seen)
    compared.states = [_started(s, step, context, seen, compared.progress) for s in compared.states]
    return compared


def _compared(context: Context, state: State, operation: Operation, seen: Observation) -> Comparison:
    """Compare what was seen of an operation with what is expected in ``state``. Raises Undetermined."""
    found = [_compared_in(context, one, operation, seen) for one in decided(state, operation, context.process)]
    accepted = [one for one in found if one.states]
    told = (accepted or found)[0]
    told.states = [after for one in accepted for after in one.states]
    told.unsure = next((one.unsure for one in accepted if one.unsure), told.unsure)
    return told


def _compared_in(context: Context, state: State, operation: Operation, seen: Observation) -> Comparison:
    compared = compare(context, expect(context, state, operation), seen)
    if seen.how is How.SIGNAL:
        compared.states = [without_process(context, s, context.process) for s in compared.states]
    return compared


def expect(context: Context, state: State, operation: Operation) -> Expectations:
    """Return what ``operation`` may show in ``state``. Raises Undetermined where no rule says."""
    rule = RULES.get(type(operation))
    if rule is None:
        raise Undetermined(f"no rule covers {operation.call}")
    closed = closed_ends(context, state, operation)
    return rule(context, state, operation) if closed is None else closed


# ---- steps that were started -----------------------------------------------------------------------------------------


def _started(state: State, step: Step, context: Context, seen: Observation, progress: int) -> State:
    if step.start is None:
        return state
    return state.with_pending(step.start, Pending(context.step, None if seen.how is How.BLOCKED else seen, progress))


def _settled_sleepers(run: _Run, states: list[State], index: int) -> tuple[list[State], str]:
    """Return the states that are possible before the next step: each step that sleeps may have ended by now, or not yet.

    How it ended is known from its join. One that no later step (``index`` is the next) joins may have gone on as soon as nothing keeps
    it: the second answer then says so, because what it did is not known.
    """
    unsettled = ""
    possible = list(states)
    for state in possible:  # grows while it is gone through: what one sleeper did may wake another
        for label, pending in state.pending.items():
            if pending.done is not None:
                continue
            try:
                ended, doubt = _settled(run, state, label, pending, index)
            except Undetermined as undetermined:
                ended, doubt = [], f"step {pending.step + 1} sleeps, may have gone on, and {undetermined.reason}"
            unsettled = unsettled or doubt
            possible += [one for one in dict.fromkeys(ended) if one not in possible]
    return possible, unsettled


def _settled(run: _Run, state: State, label: str, pending: Pending, index: int) -> tuple[list[State], str]:
    """Return the states in which a step that sleeps has ended, and why what it did is not known (empty: it is). Raises Undetermined."""
    final = _final(run, label, pending)
    if final is not None:
        return [ended.with_pending(label, evolve(pending, done=final)) for ended in _resumed(run, state, pending, final)], ""
    leaves_nothing = isinstance(run.program.steps[pending.step].operation, FutexWait)
    if leaves_nothing or _joins(run, label, index) or _sleeps_still(run, state, pending):
        return [], ""
    return [], f"step {pending.step + 1} sleeps, may have gone on, and nobody joins it"


def _joins(run: _Run, label: str, index: int) -> list[Observation]:
    """Return what the joins of ``label`` from step ``index`` on showed."""
    later = enumerate(run.program.steps[index:], index)
    joins = [i for i, step in later if isinstance(step.operation, Join) and step.operation.label == label]
    return [run.seen[i] for i in joins if i in run.seen and run.seen[i].how is not How.NOT_RUN]


def _final(run: _Run, label: str, pending: Pending) -> Observation | None:
    """Return how a step that sleeps ended at last, as its joins show, or None where none shows it."""
    return next((seen for seen in _joins(run, label, pending.step + 1) if seen.how is not How.BLOCKED), None)


def _resumed(run: _Run, state: State, pending: Pending, seen: Observation) -> list[State]:
    """Return the states after a step that slept went on in ``state`` and ended as ``seen``; none where it cannot have.

    Raises Undetermined where there are too many to go through.
    """
    context, operation = run.context(pending.step, pending.progress), run.program.steps[pending.step].operation
    after: list[State] = []
    for one in decided(state, operation, context.process):
        with contextlib.suppress(Undetermined):
            after += _compared_in(context, one, operation, seen).states
    return after


def _sleeps_still(run: _Run, state: State, pending: Pending) -> bool:
    """Whether what a sleeping step waits for is missing in ``state`` still."""
    return bool(_resumed(run, state, pending, Observation(pending.step, How.BLOCKED)))


def _join(run: _Run, context: Context, state: State, join: Join, seen: Observation) -> Comparison:
    if join.label not in state.pending:
        raise Undetermined(f"{join.label} was not started")
    pending = state.pending[join.label]
    if pending.done is not None:
        return compare(context, _ended_as_then(pending.done, state), seen)
    context.step, context.process, context.progress = pending.step, run.program.steps[pending.step].process, pending.progress
    compared = _compared(context, state, run.program.steps[pending.step].operation, seen)
    now = evolve(pending, progress=compared.progress) if seen.how is How.BLOCKED else evolve(pending, done=seen)
    compared.states = [s.with_pending(join.label, now) for s in compared.states]
    return compared


def _ended_as_then(done: Observation, state: State) -> Expectations:
    names = tuple(name for name in (done.errno, done.signal) if name is not None)
    return Expectation(done.how, "C-JOIN-01", done.describe(), names=names, low=done.value, high=done.value, asks=True).leaving(state)


def _undetermined(index: int, seen: Observation, reason: str) -> StepVerdict:
    return StepVerdict(index, Verdict.UNDETERMINED, seen.describe(), "", "", reason=reason)


@functools.cache
def because_of(clause_id: str) -> str:
    """Return what a clause says, with its id and its source; nothing for an id that is none."""
    entry = CLAUSES.get(clause_id)
    return f"{entry.says}  (clause {entry.id}, {entry.source})" if entry else ""


def _pinned(verdict: StepVerdict, pin: Pin | None, seen: Observation) -> StepVerdict:
    """Return the verdict with the case's own pin taken into account: model and pin must both accept what was seen."""
    if pin is None:
        return verdict
    matches = _matches(pin, seen)
    if matches and verdict.verdict is Verdict.DEVIATES:
        return evolve(verdict, because=verdict.because + "; the case pins what was seen: case and model disagree")
    if matches or verdict.verdict is Verdict.DEVIATES:
        return verdict
    why = f"the case pins this step: {pin.describe()}; the model allows what was seen"
    return evolve(verdict, verdict=Verdict.DEVIATES, observed=seen.describe(), allowed=pin.describe(), because=why, clause="")


def _matches(pin: Pin, seen: Observation) -> bool:
    if pin.returns is not None:
        return seen.how is How.RETURNED and seen.value == pin.returns
    if pin.errno is not None:
        return seen.how is How.FAILED and seen.errno == pin.errno
    if pin.signal is not None:
        return seen.how is How.SIGNAL and seen.signal == pin.signal
    return (seen.how is How.BLOCKED) == pin.blocked
