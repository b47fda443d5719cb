"""What a page keeps of items: their programs and what each step came to, every one of which it has once."""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from harness.model.audit import AUDIT_CALLS
from harness.model.judge import StepVerdict
from harness.model.outcome import How, Observation, Run, RunKind
from harness.model.stack import MAIN, StackReading
from harness.ops import Program, Step, describe
from harness.record.differences import first_other, make_shape
from harness.record.item import Ending, Where
from harness.record.judged import Result
from harness.report.kept import Kept
from harness.report.paragraph import again_lines, stack_text
from harness.report.rows import Judged, Row, StepRow
from harness.report.summary import ended_as

#: Of bytes that no tag explains so many are shown, and of stretches of bytes so many a step.
_RAW_BYTES, _STRETCHES = 32, 64


class Shelf:
    """Values, each of which is there once, by its place."""

    def __init__(self) -> None:
        self._places: dict[Hashable, int] = {}

    def place(self, value: Hashable) -> int:
        return self._places.setdefault(value, len(self._places))

    @property
    def values(self) -> list[Any]:
        return list(self._places)


@dataclass
class Shelves:
    """What items share: texts, cases, programs, steps, and the rows of steps of whole items."""

    texts: Shelf = field(default_factory=Shelf)
    cases: Shelf = field(default_factory=Shelf)
    programs: Shelf = field(default_factory=Shelf)
    steps: Shelf = field(default_factory=Shelf)
    courses: Shelf = field(default_factory=Shelf)

    def document(self) -> dict[str, Any]:
        return {
            "texts": self.texts.values,
            "cases": [dict(zip(("path", "title"), case, strict=True)) for case in self.cases.values],
            "programs": [[_named(_PROGRAM_STEP, step) for step in program] for program in self.programs.values],
            "steps": [_named(_STEP, step) for step in self.steps.values],
            "courses": self.courses.values,
        }


_PROGRAM_STEP = ("call", "process", "start", "joins", "pin", "line")
_STEP = ("number", "verdict", "observed", "allowed", "because", "reason", "clause", "call", "data", "shown")


def _named(names: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    """Return what is there of ``values`` by its name."""
    return {name: value for name, value in zip(names, values, strict=True) if value not in ("", None, ())}


def stack_name(where: Where) -> str:
    """Return what a case's variants on the same storage stack have in common."""
    return replace(where.variant, parameters=()).id


def item_document(kept: Kept, shelves: Shelves, before: Kept | None = None) -> dict[str, Any]:
    """Return what a page has of an item; ``before``: the same one in the run that it is held against."""
    row, text = kept.row, shelves.texts.place
    found: dict[str, Any] = {
        "id": f"{row.where.path}[{row.where.place}]",
        "word": ended_as(row),
        "run": text(kept.run),
        "on": text(stack_text(row)),
        "again": [text(f"{name}: {line}") for name, line in again_lines(row)],
        "claims": [[claim.claim, claim.held] for claim in row.claims],
        **_ended(row),
    }
    if row.judged is not None:
        found |= _judged(row.judged, shelves)
    if kept.result is not None:
        found["program"] = shelves.programs.place(_program(kept.result.record.item.program))
        found["course"] = shelves.courses.place(tuple(shelves.steps.place(step) for step in _course(kept.result)))
    elif row.judged is not None:
        found["course"] = shelves.courses.place(tuple(shelves.steps.place(_told(step)) for step in row.judged.steps))
    if before is not None:
        found["before"] = item_document(before, shelves)
        found["other"] = _first_other(before.result, kept.result)
    return {name: value for name, value in found.items() if value not in ("", None, [], ())}


def _judged(judged: Judged, shelves: Shelves) -> dict[str, Any]:
    return {
        "clauses": [shelves.texts.place(clause) for clause in judged.clauses],
        "facts": [shelves.texts.place(fact) for fact in judged.facts],
        "reference": judged.reference,
    }


def _ended(row: Row) -> dict[str, Any]:
    """Return how an item ended that did not simply complete."""
    ended = row.ended
    if ended.ending is Ending.COMPLETED and not ended.messages:
        return {}
    return {
        "note": ended.note,
        "messages": list(ended.messages),
        "excerpt": ended.excerpt,
        "fingerprint": ended.fingerprint,
        "logs": ended.logs,
    }


def _first_other(before: Result | None, after: Result | None) -> int | None:
    """The first step, from 1, that came to something else."""
    return first_other(*(None if one is None else make_shape(one) for one in (before, after)))


def _program(program: Program) -> tuple[tuple[Any, ...], ...]:
    return tuple(_program_step(step) for step in program.steps)


def _program_step(step: Step) -> tuple[Any, ...]:
    joins = str(getattr(step.operation, "label", "")) if step.operation.call == "join" else ""
    return describe(step.operation), step.process, step.start, joins, step.pin.describe() if step.pin else "", step.line


def _told(step: StepRow) -> tuple[Any, ...]:
    """Return a step of which only the row of the item tells."""
    told = (str(step.verdict), step.observed, step.allowed, step.because, step.reason, step.clause)
    return step.number, *told, step.call, (), ()


def _course(result: Result) -> Iterator[tuple[Any, ...]]:
    """Yield what each step of a program came to; where nothing was judged, what was seen."""
    record = result.record
    seen = {one.step: one for one in record.observations or ()}
    if result.judgement is None:
        for step, one in sorted(seen.items()):
            yield step + 1, "", one.describe(), "", "", "", "", "", _data(one), _shown(one, record.reading)
        return
    for verdict in result.judgement.steps:
        yield _step(verdict, seen.get(verdict.step), record.reading, len(record.item.program.steps))


def _step(verdict: StepVerdict, seen: Observation | None, reading: StackReading, count: int) -> tuple[Any, ...]:
    call = "" if verdict.step < count else AUDIT_CALLS[verdict.clause]
    told = (str(verdict.verdict), verdict.observed, verdict.allowed, verdict.because, verdict.reason, verdict.clause)
    return verdict.step + 1, *told, call, _data(seen), _shown(seen, reading)


def _data(seen: Observation | None) -> tuple[Any, ...]:
    """Return the stretches of the bytes that a step showed: length, writer (0: nobody), source, and the bytes that no tag explains."""
    runs = () if seen is None or seen.data is None else seen.data
    return (*(_stretch(run) for run in runs[:_STRETCHES]), *(((0, 0, 0, f"{len(runs) - _STRETCHES} more"),) if runs[_STRETCHES:] else ()))


def _stretch(run: Run) -> tuple[Any, ...]:
    if run.kind is RunKind.TAG:
        return run.length, run.writer, run.source
    raw = run.raw[:_RAW_BYTES].hex(" ") + (" ..." if run.raw[_RAW_BYTES:] else "")
    return (run.length, 0, 0, raw) if run.kind is RunKind.RAW else (run.length, 0, 0)


def _shown(seen: Observation | None, reading: StackReading) -> tuple[str, ...]:
    """Return what else a step showed, in words; the numbers of frames are those of one guest, so only where they lie is told."""
    if seen is None or seen.how is How.NOT_RUN:
        return ()
    told = [f"{name} {value}" for name, value in seen.attributes]
    if seen.resident is not None:
        told.append(f"resident {seen.resident[:64]}")
    if seen.minor_faults is not None:
        told.append(f"minor faults {seen.minor_faults}")
    if seen.frames is not None:
        told.append(_frames(seen.frames, reading))
    return tuple(told)


def _frames(frames: Iterable[int], reading: StackReading) -> str:
    main = reading.volume(MAIN)
    places = [_place(frame * reading.page_bytes, main.region_start, main.region_size_bytes) for frame in frames]
    return "frames " + ", ".join(f"{places.count(place)} {place}" for place in dict.fromkeys(places))


def _place(address: int, start: int | None, size: int | None) -> str:
    if address == 0:
        return "not present"
    inside = start is not None and size is not None and start <= address < start + size
    return "in the region of the main volume" if inside else "elsewhere"
