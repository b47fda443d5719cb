"""The judge: a program, what the guest saw, and the stack as it is; out comes a verdict for every step."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from harness.model import rules_files, rules_mapping, rules_pins, rules_process, rules_splice, rules_system
from harness.model.clause import CLAUSES, Context, Undetermined, clause
from harness.model.facts import Env
from harness.model.operation import Join, Operation, Pin, Program, Step
from harness.model.outcome import How, Observation
from harness.model.rule import RULES
from harness.model.state import State
from harness.model.verdict import Verdict, worst

#: The modules that enter clauses and rules when they are imported.
RULE_MODULES = (rules_files, rules_mapping, rules_splice, rules_process, rules_pins, rules_system)

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
    After a deviation the steps that follow are undetermined: the model no longer knows the state.
    """
    seen = {o.step: o for o in observations}
    states = [State()]
    verdicts: list[StepVerdict] = []
    lost = ""
    for index, step in enumerate(program.steps):
        observation = seen.get(index, Observation(index, How.NOT_RUN))
        if lost:
            verdicts.append(_undetermined(index, observation, lost))
            continue
        if observation.how is How.NOT_RUN:
            verdicts.append(_undetermined(index, observation, "the step was not run: its process had ended or was blocked"))
            continue
        states, verdict = _judge_step(env, program, states, index, observation, flipped)
        verdict = _pinned(verdict, step.pin, observation)
        verdicts.append(verdict)
        if verdict.verdict is Verdict.DEVIATES:
            lost = f"step {index + 1} deviates, so the state after it is not known"
    overall = worst(v.verdict for v in verdicts)
    finals = tuple(states) if overall is Verdict.CONFORMS else ()
    return Judgement(overall, tuple(verdicts), tuple(sorted(env.asked)), finals)


def _judge_step(
    env: Env, program: Program, states: list[State], index: int, seen: Observation, flipped: frozenset[str]
) -> tuple[list[State], StepVerdict]:
    after: list[State] = []
    contexts: list[Context] = []
    unsure = ""
    refused: Context | None = None
    for state in states:
        context, next_states, reason = _one(env, program, state, index, seen, flipped)
        contexts.append(context)
        if reason:
            unsure = reason
            next_states = [state]
        elif not next_states and refused is None:
            refused = context
        after.extend(s for s in next_states if s not in after)
    clauses = tuple(dict.fromkeys(name for c in contexts for name in c.hits))
    if not after:
        told = refused or contexts[0]
        return states, StepVerdict(
            index, Verdict.DEVIATES, told.observed or seen.describe(), told.allowed, _because(told.because), clauses, clause=told.because
        )
    told = contexts[0]
    if not unsure and len(after) > MAX_STATES:
        unsure = f"more than {MAX_STATES} states are possible here"
        after = after[:MAX_STATES]
    verdict = Verdict.UNDETERMINED if unsure or told.unsure else Verdict.CONFORMS
    return after, StepVerdict(
        index, verdict, seen.describe(), told.allowed, _because(told.because), clauses, unsure or told.unsure, told.because
    )


def _one(
    env: Env, program: Program, state: State, index: int, seen: Observation, flipped: frozenset[str]
) -> tuple[Context, list[State], str]:
    """Run the rule of one step on one state; the last answer is why it is undetermined, or empty."""
    step = program.steps[index]
    context = Context(env, index, step.process, seen, flipped)
    try:
        if isinstance(step.operation, Join):
            return context, _join(context, program, state, step.operation), ""
        after = _rule(context, state, step.operation)
    except Undetermined as undetermined:
        return context, [], undetermined.reason
    return context, [_started(s, step, index, seen) for s in after], ""


def _rule(context: Context, state: State, operation: Operation) -> list[State]:
    rule = RULES.get(type(operation))
    if rule is None:
        raise Undetermined(f"no rule covers {operation.call}")
    return rule(context, state, operation)


def _started(state: State, step: Step, index: int, seen: Observation) -> State:
    if step.start is None:
        return state
    done = None if seen.how is How.BLOCKED else seen
    return replace(state, pending=MappingProxyType({**state.pending, step.start: (index, done)}))


def _join(context: Context, program: Program, state: State, join: Join) -> list[State]:
    if join.label not in state.pending:
        raise Undetermined(f"{join.label} was not started")
    index, done = state.pending[join.label]
    seen = context.seen
    if done is not None:
        same = (seen.how, seen.value, seen.errno, seen.signal) == (done.how, done.value, done.errno, done.signal)
        return [state] if context.agrees("C-JOIN-01", same, done.describe(), seen.describe()) else []
    origin = program.steps[index]
    context.step, context.process = index, origin.process
    after = _rule(context, state, origin.operation)
    return [replace(s, pending=_without(s.pending, join.label)) if seen.how is not How.BLOCKED else s for s in after]


def _without(pending: Mapping[str, tuple[int, Observation | None]], label: str) -> Mapping[str, tuple[int, Observation | None]]:
    return MappingProxyType({k: v for k, v in pending.items() if k != label})


def _undetermined(index: int, seen: Observation, reason: str) -> StepVerdict:
    return StepVerdict(index, Verdict.UNDETERMINED, seen.describe(), "", "", reason=reason)


def _because(clause_id: str) -> str:
    entry = CLAUSES.get(clause_id)
    return f"{entry.says}  (clause {entry.id}, {entry.source})" if entry else ""


def _pinned(verdict: StepVerdict, pin: Pin | None, seen: Observation) -> StepVerdict:
    """Return the verdict with the case's own pin taken into account: model and pin must both accept what was seen."""
    if pin is None:
        return verdict
    matches = _matches(pin, seen)
    if matches and verdict.verdict is Verdict.DEVIATES:
        return replace(verdict, because=verdict.because + "; the case pins what was seen: case and model disagree")
    if matches or verdict.verdict is Verdict.DEVIATES:
        return verdict
    why = f"the case pins this step: {pin.describe()}; the model allows what was seen"
    return replace(verdict, verdict=Verdict.DEVIATES, observed=seen.describe(), allowed=pin.describe(), because=why, clause="")


def _matches(pin: Pin, seen: Observation) -> bool:
    if pin.returns is not None:
        return seen.how is How.RETURNED and seen.value == pin.returns
    if pin.errno is not None:
        return seen.how is How.FAILED and seen.errno == pin.errno
    if pin.signal is not None:
        return seen.how is How.SIGNAL and seen.signal == pin.signal
    return (seen.how is How.BLOCKED) == pin.blocked
