"""What a run says: the paragraph of an item, the JSON line, and the tables at the end. Text only; who prints it is another matter."""

import re
import shlex
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import CONSOLE_FOLLOWS, reason_of
from harness.machine.console import find_report
from harness.model.audit import AUDIT_CALLS
from harness.model.claims import Claim, ClaimStatus, Evidence, Status, Unavailable, claim_statuses
from harness.model.clause import CLAUSES
from harness.model.judge import StepVerdict
from harness.model.known import Known
from harness.model.verdict import Verdict
from harness.ops import Step, describe
from harness.run.artifacts import CONSOLE, HANG, KERNEL_LOG, Ending, GuestDescription, Item
from harness.run.execute import Result

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
_WIDTH = 140
_LONGEST_LIST = 40
_EXCERPT_LINES = 12
#: How much of the console of a guest that did not come up is told.
_CONSOLE_LINES = 8
#: Endings of an item that never got as far as its first step.
_NEVER_BEGUN = (NOT_SET_UP, NOT_TRIED, UNAVAILABLE)


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


# ---- rows ------------------------------------------------------------------------------------------------------------


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


# ---- the paragraph of an item ----------------------------------------------------------------------------------------


def describe_row(row: Row) -> str:
    """Return the paragraph of an item that did not pass; of one that did, one line."""
    if row.passed:
        return f"{row.node_id}: conforms"
    paragraphs = [_step_text(row, step) for step in _telling_steps(row)]
    if row.ending != Ending.COMPLETED or row.messages or not paragraphs or row.known == Known.GONE:
        paragraphs.insert(0, _ending_text(row))
    return "\n".join(paragraphs) + "\n" + _again_text(row)


def _telling_steps(row: Row) -> list[StepRow]:
    """The deviations; where there are none, the first undetermined step: what follows it is mostly its echo."""
    deviating = [step for step in row.steps if step.verdict == str(Verdict.DEVIATES)]
    return deviating or list(row.steps[:1])


def _step_text(row: Row, step: StepRow) -> str:
    where = f"{row.case}:{step.line}" if step.line else row.case
    head = f"{where}  " + (f"step {step.number} of {step.of}  {step.call}" if step.number <= step.of else step.call)
    lines = [("stack", _stack_text(row)), ("observed", step.observed)]
    if step.verdict == str(Verdict.DEVIATES):
        lines += [("allowed", step.allowed), ("because", step.because)]
        if row.known == Known.YES:
            lines.append(("known", f"yes: {row.reference}"))
    else:
        lines.append(("undetermined", step.reason))
    return "\n".join([head, *_aligned(lines)])


def _ending_text(row: Row) -> str:
    note = _shortened(row.note)
    lines = [("stack", _stack_text(row)), ("ending", row.ending + (f": {note}" if note else ""))]
    if row.messages:
        lines.append(("kernel", "\n".join(row.messages)))
    if row.fingerprint:
        lines.append(("crash", row.fingerprint))
    if row.excerpt:
        lines.append(("excerpt", row.excerpt))
    if row.known == Known.GONE:
        lines.append(("known", f"gone: a known deviation is listed for this kernel and did not show; {row.reference}"))
    if row.logs:
        lines.append(("logs", row.logs))
    if row.folder:
        lines.append(("console", f"{row.folder}/{CONSOLE}"))
        if row.messages or row.ending != Ending.COMPLETED:
            lines.append(("log", f"{row.folder}/{KERNEL_LOG}"))
        if row.ending == Ending.HUNG:
            lines.append(("hang", f"{row.folder}/{HANG}"))
    return "\n".join([f"{row.case}  {row.item}", *_aligned(lines)])


def _shortened(note: str) -> str:
    """A message with the last lines only of the console that it quotes; the row, and the logs that are kept, have more."""
    message, mark, console = note.partition(CONSOLE_FOLLOWS)
    return message + mark + "".join(f"\n{line}" for line in console.splitlines()[1:][-_CONSOLE_LINES:])


def row_reason(row: Row) -> str:
    """Return what items that ended for the same reason have in common, whatever their storage stacks."""
    return f"{row.ending}: {reason_of(row.note.replace(row.stack, 'its stack'))}"


def _again_text(row: Row) -> str:
    kernel = f" --kernel {shlex.quote(row.kernel_option)}" if row.kernel_option else ""
    lifecycle = f" --lifecycle {row.lifecycle}" if f"-{row.lifecycle}]" in row.node_id else ""
    arguments = f" --kernel-args={shlex.quote(row.kernel_args)}" if row.kernel_args else ""
    lines = [("rerun", f'pytest "{row.node_id}"{kernel}{arguments}{lifecycle}')]
    if row.folder:
        lines.append(("re-judge", f"python -m harness judge {shlex.quote(row.folder)}"))
    return "\n".join(_aligned(lines))


def _stack_text(row: Row) -> str:
    arguments = f" with {row.kernel_args}" if row.kernel_args else ""
    on = [(f"Linux {row.release}" if row.release else f"kernel {row.kernel}") + arguments, row.accelerator]
    return ", ".join([row.stack, *filter(None, on)])


def _aligned(lines: Iterable[tuple[str, str]]) -> list[str]:
    return [
        textwrap.indent(f"{name:<9} {text}" if len(name) < 10 else f"{name} {text}", "  ").replace("\n", "\n" + " " * 12)
        for name, text in lines
    ]


# ---- the tables at the end -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Section:
    """A titled part of the summary."""

    title: str
    lines: tuple[str, ...]


def make_statuses(rows: Sequence[Row], claims: Mapping[str, Claim]) -> tuple[ClaimStatus, ...]:
    """Return the status of every claim on every kernel that was selected."""
    columns = list(dict.fromkeys(row.column for row in rows))
    ran = [row for row in rows if row.ending != UNAVAILABLE]
    evidence = [_evidence(row, claim) for row in ran for claim in row.claims]
    missing = [
        Unavailable(claim.claim, row.column, row.item, row.note) for row in rows if row.ending == UNAVAILABLE for claim in row.claims
    ]
    return claim_statuses(claims.values(), columns, evidence, missing)


def _evidence(row: Row, claim: ClaimRow) -> Evidence:
    verdict = None if row.verdict is None else Verdict[row.verdict.upper()]
    note = "" if verdict is not None else f"{row.ending}: {row.note.splitlines()[0] if row.note else 'no observations'}"
    return Evidence(claim.claim, row.column, f"{row.family}/{row.item}", claim.held, verdict, note)


def make_summary(rows: Sequence[Row], claims: Mapping[str, Claim]) -> tuple[Section, ...]:
    """Return the summary of a run, part by part; parts with nothing to say are left out."""
    statuses = make_statuses(rows, claims)
    parts = [
        Section("claims", tuple(claim_lines(statuses, rows))),
        Section("deviations", tuple(_deviation_lines(rows))),
        Section("undetermined steps", tuple(_undetermined_lines(rows))),
        Section("could not run", tuple(_unset_lines(rows))),
        Section("clauses of the model", tuple(_clause_lines(rows))),
        Section("ran on", tuple(_host_lines(rows))),
    ]
    return tuple(part for part in parts if part.lines)


def claim_lines(statuses: Sequence[ClaimStatus], rows: Sequence[Row]) -> list[str]:
    """Return the table of claims by kernels, each status with the items that decide it.

    Claims that no item of this run speaks of are counted, not listed, unless the registry itself says why; so are those whose items could
    not be set up. Where no item got as far as its first step there is no table.
    """
    begun = {(claim.claim, row.column) for row in rows if row.ending not in _NEVER_BEGUN for claim in row.claims}
    unset = {(claim.claim, row.column) for row in rows if row.ending in (NOT_SET_UP, NOT_TRIED) for claim in row.claims} - begun
    if rows and all(row.ending in _NEVER_BEGUN for row in rows) and any(row.ending != UNAVAILABLE for row in rows):
        return []
    spoken = {claim.claim for row in rows for claim in row.claims}
    families = {row.family for row in rows}
    by_claim: dict[str, list[ClaimStatus]] = {}
    for status in statuses:
        claim = status.claim
        if (claim.id, status.kernel) in unset and status.status is Status.UNDETERMINED:
            continue
        if claim.id in spoken or (claim.family in families):
            by_claim.setdefault(claim.id, []).append(status)
    lines: list[str] = []
    for found in by_claim.values():
        claim = found[0].claim
        lines += [f"{claim.id}", *_wrapped(claim.words, "    ")]
        for status in found:
            lines += _wrapped(f"{status.kernel}: {str(status.status).upper()}" + _decided_by(status), "    -> ", "       ")
    if unset:
        lines.append(f"({len(unset)} more are undetermined, because no item that decides them got as far as its first step)")
    left = len({status.claim.id for status in statuses} - by_claim.keys() - {claim for claim, _ in unset})
    if left:
        lines.append(f"({left} more claims belong to families that were not run)")
    if by_claim:
        totals = Counter((status.kernel, status.status) for found in by_claim.values() for status in found)
        for kernel in dict.fromkeys(kernel for kernel, _ in totals):
            counts = ", ".join(f"{totals[kernel, status]} {status}" for status in Status if totals[kernel, status])
            lines.append(f"{kernel}: {counts}")
    return lines


def _decided_by(status: ClaimStatus) -> str:
    parts = []
    if status.held and status.failed:
        parts += [f"held in {_names(status.held)}", f"did not hold in {_names(status.failed)}"]
    elif status.held or status.failed:
        parts.append(f"decided by {_names(status.held or status.failed)}")
    if status.reason:
        parts.append(status.reason)
    if status.set_aside:
        item, why = status.set_aside[0]
        parts.append(f"{len(status.set_aside)} set aside, such as {item} ({why})")
    return "  " + "; ".join(parts) if parts else ""


def _names(items: Sequence[str]) -> str:
    """Return items by case: ``splice/eof (4 items)``, or the whole id where a case has one."""
    by_case: dict[str, list[str]] = {}
    for item in items:
        by_case.setdefault(item.split("[")[0], []).append(item)
    return ", ".join(found[0] if len(found) == 1 else f"{case} ({len(found)} items)" for case, found in by_case.items())


def _deviation_lines(rows: Sequence[Row]) -> list[str]:
    lines = []
    for row in rows:
        for step in row.steps:
            if step.verdict == str(Verdict.DEVIATES):
                known = f"  (known: {row.reference})" if row.known == Known.YES else ""
                seen = f"observed {step.observed}, allowed {step.allowed} [{step.clause or 'pin'}]"
                place = f" step {step.number}" if step.number <= step.of else ""
                lines.append(f"{row.node_id}{place}: {step.call}: {seen}{known}")
        if row.known == Known.GONE:
            lines.append(f"{row.node_id}: known deviation is gone ({row.reference})")
    return lines


def _undetermined_lines(rows: Sequence[Row]) -> list[str]:
    """One line a step and reason; what only follows from an earlier step of the same item is counted with it."""
    lines = []
    for row in rows:
        unsure = [step for step in row.steps if step.verdict == str(Verdict.UNDETERMINED)]
        if not unsure or any(step.verdict == str(Verdict.DEVIATES) for step in row.steps):
            continue
        first = unsure[0]
        more = f" (and {len(unsure) - 1} later steps)" if len(unsure) > 1 else ""
        place = f" step {first.number}" if first.number <= first.of else ""
        lines.append(f"{row.node_id}{place}: {first.call}: {first.reason}{more}")
    return lines


def _unset_lines(rows: Sequence[Row]) -> list[str]:
    """One line an item, and a few for all that ended for the same reason."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row.ending != Ending.COMPLETED:
            groups.setdefault(row_reason(row), []).append(row)
    return [line for found in groups.values() for line in _group_lines(found)]


def _group_lines(found: Sequence[Row]) -> Iterator[str]:
    first = found[0]
    why = f"{first.ending}: {first.note.splitlines()[0] if first.note else ''}"
    yield f"{first.node_id}: {why}" if len(found) == 1 else f"{len(found)} items {why}"
    if len(found) > 1 and first.ending != NOT_TRIED:
        yield f"    such as {first.node_id} ({RESULTS} has all of them)"
    yield from (f"    logs: {logs}" for logs in dict.fromkeys(row.logs for row in found if row.logs))


def _clause_lines(rows: Sequence[Row]) -> list[str]:
    hit = {clause for row in rows for clause in row.clauses}
    if not hit:
        return []
    missed = sorted(set(CLAUSES) - hit)
    lines = [f"{len(hit & set(CLAUSES))} of {len(CLAUSES)} clauses were asked"]
    if len(missed) <= _LONGEST_LIST:
        lines += _wrapped("never asked: " + ", ".join(missed), "") if missed else []
    else:
        lines.append(f"{len(missed)} were never asked (the whole list: summary.txt beside the artifacts)")
    return lines


def all_clauses_text(rows: Sequence[Row]) -> str:
    """Return how often each clause was asked, one a line: the coverage of the contract."""
    hits = Counter(clause for row in rows for clause in row.clauses)
    return "\n".join(f"{hits[name]:6} {name}  {CLAUSES[name].says}" for name in sorted(CLAUSES)) + "\n"


def _host_lines(rows: Sequence[Row]) -> list[str]:
    ran = [row for row in rows if row.accelerator]
    lines = [
        f"{kernel}: Linux {release}{f' with {arguments}' if arguments else ''}, accelerator {accelerator} ({reason}), QEMU {qemu}"
        for kernel, release, arguments, accelerator, reason, qemu in dict.fromkeys(
            (row.kernel, row.release, row.kernel_args, row.accelerator, row.accelerator_reason, row.qemu_version) for row in ran
        )
    ]
    lines = [part for line in lines for part in _wrapped(line, "", "    ")]
    lives = Counter(row.lifecycle for row in ran)
    if lives:
        lines.append("guests: " + ", ".join(f"{count} items on {word} ones" for word, count in sorted(lives.items())))
    if ran:
        reasons = Counter(re.sub(r"\d+", "N", row.unaudited) for row in ran if row.unaudited)
        lines.append(f"what programs left was audited after {len(ran) - reasons.total()} of {len(ran)} items")
        for reason, count in reasons.most_common():
            lines += _wrapped(f"{count} items were not, or only their volumes: {reason}", "    ", "        ")
    for note, count in Counter(row.lifecycle_note for row in ran if row.lifecycle_note).items():
        lines += _wrapped(f"{count} items on guests that were {note}", "", "    ")
    for (line, reason), count in Counter(pair for row in ran for pair in row.expected).items():
        lines += _wrapped(f"expected console line ({count} items): {line}: {reason}", "", "    ")
    told = sorted({f"{name} {version}" for row in ran for name, version in row.versions})
    lines += _wrapped("versions: " + ", ".join(told), "", "    ") if told else []
    if rows:
        endings = Counter(_word(row) for row in rows)
        lines.append("items: " + ", ".join(f"{count} {word}" for word, count in sorted(endings.items())))
    return lines


def _word(row: Row) -> str:
    if row.ending != Ending.COMPLETED:
        return row.ending
    if row.known != Known.NO:
        return f"{row.verdict} (known deviation: {row.known})"
    return str(row.verdict) + (" but the kernel complained" if row.messages else "")


def _wrapped(text: str, first: str, then: str | None = None) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=first, subsequent_indent=first if then is None else then, break_on_hyphens=False)


def summary_text(sections: Iterable[Section], rows: Sequence[Row]) -> str:
    """Return the whole summary as a text file, with the hits of every clause."""
    parts = ["\n".join([f"== {section.title} ==", *section.lines]) for section in sections]
    return "\n\n".join([*parts, "== hits by clause ==\n" + all_clauses_text(rows)])


# ---- exit status -----------------------------------------------------------------------------------------------------

ALL_CONFORM, SOME_DEVIATE, WRONG_USAGE, COULD_NOT_RUN = 0, 1, 2, 3


def exit_status(rows: Iterable[Row]) -> int:
    """Return 3 where something could not run, else 1 where something did not conform, else 0.

    An item that its kernel cannot run at all does not count; where there is nothing else, nothing was tested: 2.
    """
    counted = [row for row in rows if row.ending != UNAVAILABLE]
    if not counted:
        return WRONG_USAGE
    if any(row.ending in (NOT_SET_UP, NOT_TRIED, Ending.HARNESS_ERROR, Ending.LOST) for row in counted):
        return COULD_NOT_RUN
    return ALL_CONFORM if all(row.passed or row.is_known_deviation for row in counted) else SOME_DEVIATE
