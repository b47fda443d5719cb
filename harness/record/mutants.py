"""Mutants of the model: one clause or one fact turned around. A good collection of observations catches every one.

``python -m harness mutants ARTIFACTS`` judges stored items with each mutant. A mutant that no item catches means that the clause
or the fact could be wrong and nobody would notice.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UsageError
from harness.model.facts import FACTS, Env
from harness.model.judge import judge
from harness.model.outcome import Observation, observations_from
from harness.model.stack import StackReading
from harness.model.verdict import Verdict
from harness.ops import Program
from harness.record.documents import from_document, observations_document, to_document
from harness.record.item import Ending, Record


@dataclass(frozen=True)
class Recorded:
    """What the judge needs of one run, and where it came from."""

    item: str
    program: Program
    reading: StackReading
    observations: tuple[Observation, ...]


@dataclass(frozen=True)
class Score:
    """The mutants that one recorded run meets (its clauses and facts were asked), and those that it catches."""

    met: frozenset[str]
    caught: frozenset[str]


def recorded(record: Record) -> Recorded | None:
    """Return the part of a record that can be judged, or None where there is none: a run that did not complete counts for nothing."""
    if record.observations is None or record.outcome.ending is not Ending.COMPLETED:
        return None
    return Recorded(record.item.where.id, record.item.program, record.reading, record.observations)


def score(run: Recorded) -> Score:
    """Judge ``run`` once as it is and once with each mutant it meets; a run that does not conform meets none."""
    plain = judge(Env(run.reading), run.program, run.observations)
    if plain.verdict is not Verdict.CONFORMS:
        return Score(frozenset(), frozenset())
    met, caught = set[str](), set[str]()
    for clause_id in plain.clauses:
        met.add(clause_id)
        if _rejects(Env(run.reading), run, frozenset({clause_id})):
            caught.add(clause_id)
    for name in plain.facts:
        met.add(name)
        for value in FACTS[name].values:
            mutant = Env(run.reading, {name: value})
            if _rejects(mutant, run, frozenset()):
                caught.add(name)
                break
    return Score(frozenset(met), frozenset(caught))


def _rejects(env: Env, run: Recorded, flipped: frozenset[str]) -> bool:
    return judge(env, run.program, run.observations, flipped).verdict is not Verdict.CONFORMS


def smallest_cover(runs: Iterable[Recorded]) -> tuple[list[Recorded], frozenset[str]]:
    """Return few runs that together catch all that any of ``runs`` catches, and the mutants that were met and never caught."""
    scored = [(run, score(run)) for run in runs]
    met = frozenset[str]().union(*(s.met for _, s in scored))
    left = set[str]().union(*(s.caught for _, s in scored))
    missed = met - left
    chosen: list[Recorded] = []
    while left:
        run, best = max(scored, key=lambda pair: (len(pair[1].caught & left), -len(pair[0].program.steps), pair[0].item))
        chosen.append(run)
        left -= best.caught
    return chosen, frozenset(missed)


def write_recorded(path: Path, runs: Iterable[Recorded]) -> None:
    """Write one JSON line a run, sorted by item."""
    lines = [json.dumps(_document(run), separators=(",", ":"), sort_keys=True) for run in sorted(runs, key=lambda r: r.item)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in lines))


def read_recorded(path: Path) -> Iterator[Recorded]:
    """Return what :func:`write_recorded` wrote. Raises UsageError for a file that is not there."""
    if not path.is_file():
        raise UsageError(f"{path}: no recorded observations here")
    for line in path.read_text().splitlines():
        entry = json.loads(line)
        yield Recorded(
            item=entry["item"],
            program=from_document(Program, entry["program"]),
            reading=from_document(StackReading, entry["reading"]),
            observations=observations_from(entry["observations"]),
        )


def _document(run: Recorded) -> dict[str, object]:
    return {
        "item": run.item,
        "program": to_document(run.program),
        "reading": to_document(run.reading),
        "observations": observations_document(run.observations),
    }
