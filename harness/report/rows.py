"""One item in the results: all that the tables need, so that they can be made from the JSON lines alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.model.audit import AUDIT_CALLS
from harness.model.complaint import find_report
from harness.model.filesystems import FILESYSTEM_TRAITS
from harness.model.judge import StepVerdict
from harness.model.known import Known
from harness.model.verdict import Verdict
from harness.ops import Step, describe
from harness.record.documents import to_text, typed
from harness.record.item import Ending, GuestDescription, Item, Lifecycle, Where
from harness.record.judged import Result
from harness.record.store import CONSOLE

ROW_FORMAT = 2
#: Where every row is, a JSON line each, below the artifacts.
RESULTS = "results.jsonl"
#: The packages whose versions stand in every row, beside the kernel's; run.json has all of them.
_TOLD_VERSIONS = {"ndctl", "libibverbs1", "python3", *(traits.package for traits in FILESYSTEM_TRAITS.values())}
_EXCERPT_LINES = 12


@dataclass(frozen=True)
class StepRow:
    """A step that does not conform, or did not run: ``number`` counts from 1, ``line`` is where the case says it."""

    number: int
    of: int
    line: int
    call: str
    verdict: Verdict
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
class Ended:
    """How it ended: ``note`` says why where it did not complete, ``messages`` what the kernel complained about.

    ``excerpt``: the first lines of that; ``fingerprint``: where the first came from. ``expected``: console lines that look like complaints
    and were expected, with the reason. ``folder``: what is kept of it. ``logs``: where those of a guest that did not come up are kept, or
    why they are not. ``unaudited``: why there was no final audit, or none of the contents; empty where there was.
    """

    ending: Ending
    note: str = ""
    seconds: float = 0.0
    messages: tuple[str, ...] = ()
    fingerprint: str = ""
    excerpt: str = ""
    expected: tuple[tuple[str, str], ...] = ()
    folder: str = ""
    logs: str = ""
    unaudited: str = ""


@dataclass(frozen=True)
class Judged:
    """The verdict, and the steps that it comes from: those that do not conform. ``reference``: of the known deviation."""

    verdict: Verdict
    known: Known = Known.NO
    reference: str = ""
    steps: tuple[StepRow, ...] = ()
    clauses: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()

    @property
    def deviating(self) -> tuple[StepRow, ...]:
        return tuple(step for step in self.steps if step.verdict is Verdict.DEVIATES)

    @property
    def deciding(self) -> tuple[StepRow, ...]:
        """The deviations; where there are none, the first undetermined step: what follows it is mostly its echo."""
        return self.deviating or self.steps[:1]


@dataclass(frozen=True)
class Guest:
    """What it ran on. ``lifecycle``: how the guest came to be; ``lifecycle_note``: why not as it was to."""

    release: str
    accelerator: str
    accelerator_reason: str
    qemu_version: str
    lifecycle: Lifecycle
    lifecycle_note: str = ""
    versions: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Row:
    """One item in the results. ``judged`` is None where nothing was left to judge, ``guest`` where its program was never begun.

    ``repeats``: of an item that was run several times (``--repeat``) what it came to each time, in a few words; the rest is of the first
    time that it did not pass.
    """

    where: Where
    ended: Ended
    judged: Judged | None = None
    guest: Guest | None = None
    claims: tuple[ClaimRow, ...] = ()
    repeats: tuple[str, ...] = ()

    @property
    def is_flaky(self) -> bool:
        """Whether it did not come to the same each time."""
        return len(set(self.repeats)) > 1

    @property
    def passed(self) -> bool:
        """Completed, silent kernel, conforms, no known deviation that has gone, and each time so."""
        return self._ended_well_with(Verdict.CONFORMS, Known.NO)

    @property
    def is_known_deviation(self) -> bool:
        """Whether all that is wrong is a deviation on the list."""
        return self._ended_well_with(Verdict.DEVIATES, Known.YES)

    def _ended_well_with(self, verdict: Verdict, known: Known) -> bool:
        well = self.ended.ending is Ending.COMPLETED and not self.ended.messages
        return well and not self.is_flaky and self.judged is not None and (self.judged.verdict, self.judged.known) == (verdict, known)


def make_row(result: Result, folder: Path) -> Row:
    """Return the row of an item that was run."""
    record, outcome = result.record, result.record.outcome
    ended = Ended(
        ending=outcome.ending,
        note=outcome.note,
        seconds=outcome.seconds,
        messages=outcome.messages,
        fingerprint=outcome.fingerprint,
        excerpt=_excerpt(folder) if outcome.messages or outcome.ending is Ending.CRASHED else "",
        expected=(*outcome.guest.expected, *outcome.expected),
        folder=str(folder),
        unaudited=_unaudited(result),
    )
    claims = tuple(ClaimRow(piece.claim, piece.held) for piece in result.evidence)
    return Row(record.item.where, ended, _judged(result), _guest(outcome.guest, record.reading.kernel_release), claims)


def make_unset_row(item: Item, ending: Ending, note: str, folder: str = "", logs: str = "") -> Row:
    """Return the row of an item without a judgement, and why it has none; ``folder`` and ``logs`` as in :class:`Ended`."""
    return Row(item.where, Ended(ending, note, folder=folder, logs=logs), claims=tuple(ClaimRow(claim, None) for claim in item.claims))


def _judged(result: Result) -> Judged | None:
    judgement = result.judgement
    if judgement is None:
        return None
    reference = result.deviation.reference if result.deviation else ""
    return Judged(judgement.verdict, result.known, reference, _step_rows(result), judgement.clauses, judgement.facts)


def _guest(guest: GuestDescription, release: str) -> Guest:
    versions = tuple((name, version) for name, version in guest.versions if name.startswith("linux-") or name in _TOLD_VERSIONS)
    told = (guest.accelerator, guest.accelerator_reason, guest.qemu_version, guest.lifecycle, guest.lifecycle_note)
    return Guest(release, *told, versions)


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


def _step_rows(result: Result) -> tuple[StepRow, ...]:
    assert result.judgement is not None
    steps = result.record.item.program.steps
    return tuple(
        StepRow(
            number=verdict.step + 1,
            of=len(steps),
            line=steps[verdict.step].line if verdict.step < len(steps) else 0,
            call=_call(steps, verdict),
            verdict=verdict.verdict,
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


def properties_of(row: Row) -> dict[str, str]:
    """Return what JUnit's properties of an item are: its stack, its kernel, its ending and verdict, and what it ran on. Empty ones are left
    out."""
    where, ended, judged, guest = row.where, row.ended, row.judged, row.guest
    properties = {
        "stack": where.stack.describe(),
        "kernel": where.target.kernel,
        "kernel_args": where.target.arguments,
        "lifecycle": guest.lifecycle if guest else where.lifecycle,
        "ending": ended.ending,
        "verdict": judged.verdict if judged else "none",
        "known": judged.known if judged else Known.NO,
        "artifacts": ended.folder,
    }
    if guest is not None:
        versions = " ".join(f"{name}={version}" for name, version in guest.versions)
        properties |= {"release": guest.release, "accelerator": guest.accelerator, "qemu": guest.qemu_version, "versions": versions}
    return {name: text for name, value in properties.items() if (text := str(value))}


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
    return to_text(row, ROW_FORMAT, indent=None)


def read_rows(folder: Path) -> tuple[Row, ...]:
    """Return the rows of the run in ``folder``; none where it has none. Raises UsageError naming the line that is no row."""
    path = folder / RESULTS
    lines = path.read_text().splitlines() if path.is_file() else []
    return tuple(typed(Row, line, ROW_FORMAT, f"{path}:{number}") for number, line in enumerate(lines, 1))
