"""Two runs compared, item by item: how each ended, the verdict, and what its steps came to."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.model.judge import Judgement
from harness.model.outcome import How, Observation
from harness.ops import Meminfo, Program
from harness.record.item import Ending
from harness.record.judged import Result, judge_kept

#: What one step came to, as far as two guests that agree show the same.
StepOutcome = tuple[object, ...]


@dataclass(frozen=True)
class Shape:
    """How an item ended: ``verdict`` is empty where there was nothing to judge; ``steps`` without faults, frames and sizes of caches."""

    ending: Ending
    verdict: str
    steps: tuple[StepOutcome, ...]


@dataclass(frozen=True)
class ItemDifference:
    """An item that two runs differ in; None: one of them does not have it. ``step``: the first that came to something else, from 1."""

    item: str
    before: Shape | None
    after: Shape | None
    step: int | None


def stored_shape(folder: Path) -> tuple[str, Shape]:
    """Return what the stored item in ``folder`` is called on every kernel, and its shape. Raises UsageError."""
    result = judge_kept(folder)
    return result.record.item.where.name_without_kernel, make_shape(result)


def make_shape(result: Result) -> Shape:
    """Return the shape of an item that was judged."""
    record = result.record
    return Shape(record.outcome.ending, _verdict(result.judgement), _steps(record.item.program, record.observations or ()))


def _verdict(judgement: Judgement | None) -> str:
    return "" if judgement is None else str(judgement.verdict)


def _steps(program: Program, seen: Iterable[Observation]) -> tuple[StepOutcome, ...]:
    return tuple(_outcome(one, isinstance(program.steps[one.step].operation, Meminfo)) for one in seen)


def _outcome(seen: Observation, varies: bool) -> StepOutcome:
    if seen.how is not How.RETURNED:
        return seen.how, seen.errno or seen.signal
    return seen.how, None if varies else seen.value, seen.data


def compare_runs(before: Mapping[str, Shape], after: Mapping[str, Shape]) -> list[ItemDifference]:
    """Return the items, by name, whose shapes differ or that only one run has."""
    found = []
    for item in sorted(before.keys() | after.keys()):
        left, right = before.get(item), after.get(item)
        if left != right:
            found.append(ItemDifference(item, left, right, first_other(left, right)))
    return found


def first_other(left: Shape | None, right: Shape | None) -> int | None:
    """Return the first step, from 1, that came to something else; None where none did, or one of the items is not there."""
    if left is None or right is None:
        return None
    pairs = zip(left.steps, right.steps, strict=False)
    return next((number for number, (one, other) in enumerate(pairs, 1) if one != other), None)
