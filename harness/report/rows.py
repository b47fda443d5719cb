"""One item in the results: all that the tables need, so that they can be made from the JSON lines alone."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import UsageError
from harness.model.audit import AUDIT_CALLS
from harness.model.complaint import find_report
from harness.model.judge import StepVerdict
from harness.model.known import Known
from harness.model.verdict import Verdict
from harness.ops import Step, describe
from harness.ops.codec import as_mapping
from harness.record.documents import from_document, to_document
from harness.record.item import Ending, GuestDescription, Item
from harness.record.judged import Result
from harness.record.store import CONSOLE

ROW_FORMAT = 1
#: Where every row is, a JSON line each, below the artifacts.
RESULTS = "results.jsonl"
#: How a row ended that never had a guest with its stack, or cannot run on its kernel at all.
NOT_SET_UP = "not set up"
#: How a row ended that nobody tried any more, for what had failed before.
NOT_TRIED = "not tried"
UNAVAILABLE = "unavailable"
#: The packages whose versions stand in every row, beside the kernel's; run.json has all of them.
_TOLD_VERSIONS = {"e2fsprogs", "xfsprogs", "ndctl", "libibverbs1", "python3"}
_EXCERPT_LINES = 12


@dataclass(frozen=True)
class StepRow:
    """A step that does not conform, or did not run: ``number`` counts from 1, ``line`` is where the case says it."""

    number: int
    of: int
    line: int
    call: str
    verdict: str
    observed: str
    allowed: str
    because: str
    reason: str
    clause: str


@dataclass(frozen=True)
class ClaimRow:
    """What an item says about a claim; None: nothing."""

    claim: str
    held: bool | None


@dataclass(frozen=True)
class Row:
    """One item in the results: all that the tables need, so that they can be made from the JSON lines alone."""

    item: str
    node_id: str
    case: str
    family: str
    title: str
    variant: str
    kernel: str
    column: str
    kernel_option: str
    stack: str
    ending: str
    note: str = ""
    verdict: str | None = None
    known: str = str(Known.NO)
    reference: str = ""
    messages: tuple[str, ...] = ()
    steps: tuple[StepRow, ...] = ()
    claims: tuple[ClaimRow, ...] = ()
    clauses: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()
    release: str = ""
    accelerator: str = ""
    accelerator_reason: str = ""
    qemu_version: str = ""
    versions: tuple[tuple[str, str], ...] = ()
    folder: str = ""
    seconds: float = 0.0
    lifecycle: str = ""
    lifecycle_note: str = ""
    fingerprint: str = ""
    expected: tuple[tuple[str, str], ...] = ()
    excerpt: str = ""
    kernel_args: str = ""
    logs: str = ""
    #: Why there was no final audit, or none of the contents; empty where there was.
    unaudited: str = ""

    @property
    def passed(self) -> bool:
        """Completed, silent kernel, conforms, and no known deviation that has gone."""
        return (self.ending, self.verdict, self.known, self.messages) == (Ending.COMPLETED, str(Verdict.CONFORMS), Known.NO, ())

    @property
    def is_known_deviation(self) -> bool:
        """Whether all that is wrong is a deviation on the list."""
        return (self.ending, self.verdict, self.known, self.messages) == (Ending.COMPLETED, str(Verdict.DEVIATES), Known.YES, ())


def make_row(result: Result, folder: Path | str) -> Row:
    """Return the row of an item that was run."""
    item, outcome = result.record.item, result.record.outcome
    row = _with_guest(_bare_row(item, str(outcome.ending)), outcome.guest)
    row = replace(
        row,
        note=outcome.note,
        messages=outcome.messages,
        release=result.record.reading.kernel_release,
        claims=tuple(ClaimRow(piece.claim, piece.held) for piece in result.evidence),
        folder=str(folder),
        seconds=outcome.seconds,
        fingerprint=outcome.fingerprint,
        expected=(*outcome.guest.expected, *outcome.expected),
        unaudited=_unaudited(result),
        excerpt=_excerpt(Path(folder)) if outcome.messages or outcome.ending is Ending.CRASHED else "",
    )
    if result.judgement is None:
        return row
    return replace(
        row,
        verdict=str(result.judgement.verdict),
        known=str(result.known),
        reference=result.deviation.reference if result.deviation else "",
        steps=_step_rows(result),
        clauses=result.judgement.clauses,
        facts=result.judgement.facts,
    )


def make_unset_row(item: Item, ending: str, note: str, folder: str = "", logs: str = "") -> Row:
    """Return the row of an item without a judgement: NOT_SET_UP, NOT_TRIED, UNAVAILABLE or a harness error, and why.

    ``logs``: where those of a guest that did not come up are kept, or why they are not.
    """
    claims = tuple(ClaimRow(claim, None) for claim in item.claims)
    return replace(_bare_row(item, ending), note=note, folder=folder, logs=logs, claims=claims)


def _bare_row(item: Item, ending: str) -> Row:
    return Row(
        item=item.id,
        node_id=item.node_id,
        case=item.case,
        family=item.family,
        title=item.title,
        variant=item.variant,
        kernel=item.kernel,
        column=item.column,
        kernel_option=item.kernel_option,
        stack=item.stack,
        ending=ending,
        lifecycle=str(item.lifecycle),
        kernel_args=item.kernel_args,
    )


def _unaudited(result: Result) -> str:
    """Why an audit says nothing of the contents that a program left, or nothing at all; empty where it does."""
    audit = result.record.audit
    if audit is None:
        return "not asked for (--audit)" if result.record.outcome.ending is Ending.COMPLETED else "the run did not complete"
    if audit.skipped:
        return audit.skipped
    known = result.judgement is not None and result.judgement.finals
    return "" if known else "the state in which the program ended is not known"


def _excerpt(folder: Path) -> str:
    """The first lines of what the kernel had to say; the artifacts have the rest."""
    lines = (folder / CONSOLE).read_text().splitlines() if (folder / CONSOLE).is_file() else []
    first = next((number for number, line in enumerate(lines) if find_report(line) is not None), None)
    return "" if first is None else "\n".join(lines[first : first + _EXCERPT_LINES])


def _with_guest(row: Row, guest: GuestDescription) -> Row:
    return replace(
        row,
        accelerator=guest.accelerator,
        accelerator_reason=guest.accelerator_reason,
        qemu_version=guest.qemu_version,
        lifecycle=str(guest.lifecycle),
        lifecycle_note=guest.lifecycle_note,
        versions=tuple((name, version) for name, version in guest.versions if name.startswith("linux-") or name in _TOLD_VERSIONS),
    )


def _step_rows(result: Result) -> tuple[StepRow, ...]:
    assert result.judgement is not None
    steps = result.record.item.program.steps
    return tuple(
        StepRow(
            number=verdict.step + 1,
            of=len(steps),
            line=steps[verdict.step].line if verdict.step < len(steps) else 0,
            call=_call(steps, verdict),
            verdict=str(verdict.verdict),
            observed=verdict.observed,
            allowed=verdict.allowed,
            because=verdict.because,
            reason=verdict.reason,
            clause=verdict.clause,
        )
        for verdict in result.judgement.steps
        if verdict.verdict is not Verdict.CONFORMS
    )


def _call(steps: Sequence[Step], verdict: StepVerdict) -> str:
    """What was done: the operation of a step, or what an audit does after the last one."""
    return describe(steps[verdict.step].operation) if verdict.step < len(steps) else AUDIT_CALLS[verdict.clause]


def step_lines(result: Result) -> Iterator[str]:
    """Yield a line for every step of an item: what was done, what came back, the verdict where it is not that it conforms."""
    if result.judgement is None:
        return
    steps = result.record.item.program.steps
    for verdict in result.judgement.steps:
        process = steps[verdict.step].process if verdict.step < len(steps) else "main"
        number = f"{verdict.step + 1:2}" if verdict.step < len(steps) else " -"
        who = "" if process == "main" else f"{process}: "
        word = "" if verdict.verdict is Verdict.CONFORMS else f"  {str(verdict.verdict).upper()}"
        yield f"  {number} {who}{_call(steps, verdict)}: {verdict.observed}{word}"


def row_line(row: Row) -> str:
    """Return the line of a row in the results."""
    return json.dumps({"format": ROW_FORMAT, **to_document(row)}) + "\n"


def read_rows(folder: Path) -> tuple[Row, ...]:
    """Return the rows of the run in ``folder``; none where it has none. Raises UsageError naming the line that is no row."""
    path = folder / RESULTS
    rows = []
    for number, line in enumerate(path.read_text().splitlines() if path.is_file() else [], 1):
        try:
            document = as_mapping(json.loads(line), "a row")
            if document.get("format") != ROW_FORMAT:
                raise UsageError(f"{path}:{number} has another format than {ROW_FORMAT}: read it with the version that wrote it")
            rows.append(from_document(Row, document))
        except ValueError as error:
            raise UsageError(f"{path}:{number} is no row: {error}") from error
    return tuple(rows)
