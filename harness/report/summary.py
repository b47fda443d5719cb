"""The tables at the end of a run. Text only; who prints it is another matter."""

import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from harness.model.claims import Claim, ClaimStatus, Evidence, Status, Unavailable, claim_statuses
from harness.model.clause import CLAUSES
from harness.model.known import Known
from harness.record.item import Ending
from harness.report.paragraph import row_reason
from harness.report.rows import RESULTS, ClaimRow, Row, StepRow
from harness.report.tables import WIDTH, Cell, Part, lay_out, make_table, styled, titled

#: Its file, in the folder of a run.
SUMMARY = "summary.txt"
_LONGEST_LIST = 40

#: How a status shows where there are colours.
_STYLES = {Status.HOLDS: "green", Status.DISPUTED: "red", Status.UNDETERMINED: "yellow"}


@dataclass(frozen=True)
class Section:
    """A titled part of the summary."""

    title: str
    parts: tuple[Part, ...]


def make_statuses(rows: Sequence[Row], claims: Mapping[str, Claim]) -> tuple[ClaimStatus, ...]:
    """Return the status of every claim on every kernel that was selected."""
    columns = list(dict.fromkeys(row.where.target.column for row in rows))
    evidence, missing = [], []
    for row in rows:
        for claim in row.claims:
            if row.ended.ending is Ending.UNAVAILABLE:
                missing.append(Unavailable(claim.claim, row.where.target.column, _item_name(row), row.ended.note))
            else:
                evidence.append(_evidence(row, claim))
    return claim_statuses(claims.values(), columns, evidence, missing)


def _evidence(row: Row, claim: ClaimRow) -> Evidence:
    verdict = row.judged.verdict if row.judged else None
    note = "" if row.judged else f"{row.ended.ending}: {row.ended.note.splitlines()[0] if row.ended.note else 'no observations'}"
    return Evidence(claim.claim, row.where.target.column, _item_name(row), claim.held, verdict, note)


def _item_name(row: Row) -> str:
    return f"{row.where.family}/{row.where.id}"


def make_summary(rows: Sequence[Row], claims: Mapping[str, Claim]) -> tuple[Section, ...]:
    """Return the summary of a run, part by part; parts with nothing to say are left out."""
    statuses = make_statuses(rows, claims)
    parts = [
        Section("claims", tuple(_claim_parts(statuses, rows))),
        Section("deviations", tuple(_deviation_lines(rows))),
        Section("undetermined steps", tuple(_undetermined_lines(rows))),
        Section("could not run", tuple(_unset_lines(rows))),
        Section("clauses of the model", tuple(_clause_lines(rows))),
        Section("ran on", tuple(_host_lines(rows))),
    ]
    return tuple(part for part in parts if part.parts)


def make_brief(rows: Sequence[Row], claims: Mapping[str, Claim]) -> tuple[Section, ...]:
    """Return the summary of a run in which nothing is wrong, in few lines: the claims by status, and what it ran on."""
    names: dict[tuple[str, Status], list[str]] = {}
    spoken = {claim.claim for row in rows for claim in row.claims}
    for status in make_statuses(rows, claims):
        if status.claim.id in spoken:
            names.setdefault((status.kernel, status.status), []).append(status.claim.id)
    lines = [
        line
        for (kernel, status), found in names.items()
        for line in _wrapped(f"{kernel}: {status.upper()} ({len(found)}): {', '.join(found)}", "", "  ")
    ]
    kernels = dict.fromkeys((row.where.target.kernel, row.guest.release, row.guest.accelerator) for row in rows if row.guest)
    ran_on = [f"{kernel}: Linux {release}, {accelerator}" for kernel, release, accelerator in kernels]
    return Section("claims", tuple(lines)), Section("ran on", (*ran_on, *_ending_lines(rows)))


def _claim_parts(statuses: Sequence[ClaimStatus], rows: Sequence[Row]) -> list[Part]:
    """Return the table of claims by kernels, each status with the items that decide it.

    Claims that no item of this run speaks of are counted, not listed, unless the registry itself says why; so are those whose items could
    not be set up. Where no item got as far as its first step there is no table.
    """
    able = [row for row in rows if row.ended.ending is not Ending.UNAVAILABLE]
    if able and not any(row.ended.ending.has_begun for row in able):
        return []
    begun = {(claim.claim, row.where.target.column) for row in able if row.ended.ending.has_begun for claim in row.claims}
    unset = {(claim.claim, row.where.target.column) for row in able for claim in row.claims} - begun
    spoken, families = {claim.claim for row in rows for claim in row.claims}, {row.where.family for row in rows}
    listed = [
        status
        for status in statuses
        if (status.claim.id in spoken or status.claim.family in families)
        and not ((status.claim.id, status.kernel) in unset and status.status is Status.UNDETERMINED)
    ]
    parts: list[Part] = [_claim_table(listed)] if listed else []
    if unset:
        parts.append(f"({len(unset)} more are undetermined, because no item that decides them got as far as its first step)")
    left = {status.claim.id for status in statuses} - {status.claim.id for status in listed} - {claim for claim, _ in unset}
    if left:
        parts.append(f"({len(left)} more claims belong to families that were not run)")
    totals = Counter((status.kernel, status.status) for status in listed)
    for kernel in dict.fromkeys(kernel for kernel, _ in totals):
        parts.append(f"{kernel}: " + ", ".join(f"{totals[kernel, status]} {status}" for status in Status if totals[kernel, status]))
    return parts


def _claim_table(statuses: Sequence[ClaimStatus]) -> Part:
    rows: list[tuple[Cell, ...]] = []
    before = None
    for status in statuses:
        claim: Cell = "" if status.claim == before else titled(status.claim.id, status.claim.words)
        word = styled(status.status.upper(), _STYLES.get(status.status, ""))
        rows.append((claim, status.kernel, word, _decided_by(status)))
        before = status.claim
    return make_table(("claim", "kernel", "status", "why"), rows)


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
        parts.append(f"{len(status.set_aside)} set aside, such as {_breakable(item)} ({why})")
    return "; ".join(parts)


def _names(items: Sequence[str]) -> str:
    """Return items by case: ``splice/eof (4 items)``, or the whole id where a case has one."""
    by_case: dict[str, list[str]] = {}
    for item in items:
        by_case.setdefault(item.split("[")[0], []).append(item)
    return ", ".join(_breakable(found[0]) if len(found) == 1 else f"{case} ({len(found)} items)" for case, found in by_case.items())


def _breakable(item: str) -> str:
    """Return an id that a narrow column breaks before its variant, and not anywhere."""
    return item.replace("[", " [", 1)


def _deviation_lines(rows: Sequence[Row]) -> list[str]:
    lines = []
    for row in rows:
        if row.judged is None:
            continue
        for step in row.judged.deviating:
            known = f"  (known: {row.judged.reference})" if row.judged.known is Known.YES else ""
            lines.append(f"{_told(row, step)}: observed {step.observed}, allowed {step.allowed} [{step.clause or 'pin'}]{known}")
        if row.judged.known is Known.GONE:
            lines.append(f"{row.where.node_id}: known deviation is gone ({row.judged.reference})")
    return lines


def _told(row: Row, step: StepRow) -> str:
    place = f" step {step.number}" if step.number <= step.of else ""
    return f"{row.where.node_id}{place}: {step.call}"


def _undetermined_lines(rows: Sequence[Row]) -> list[str]:
    """One line a step and reason; what only follows from an earlier step of the same item is counted with it."""
    lines = []
    for row in rows:
        if row.judged is None or row.judged.deviating or not row.judged.steps:
            continue
        first, more = row.judged.steps[0], len(row.judged.steps) - 1
        lines.append(f"{_told(row, first)}: {first.reason}" + (f" (and {more} later steps)" if more else ""))
    return lines


def _unset_lines(rows: Sequence[Row]) -> list[str]:
    """One line an item, and a few for all that ended for the same reason."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row.ended.ending is not Ending.COMPLETED:
            groups.setdefault(row_reason(row), []).append(row)
    return [line for found in groups.values() for line in _group_lines(found)]


def _group_lines(found: Sequence[Row]) -> Iterator[str]:
    first, ended = found[0].where.node_id, found[0].ended
    why = f"{ended.ending}: {ended.note.splitlines()[0] if ended.note else ''}"
    yield f"{first}: {why}" if len(found) == 1 else f"{len(found)} items {why}"
    if len(found) > 1 and ended.ending is not Ending.NOT_TRIED:
        yield f"    such as {first} ({RESULTS} has all of them)"
    yield from (f"    logs: {logs}" for logs in dict.fromkeys(row.ended.logs for row in found if row.ended.logs))


def _clause_lines(rows: Sequence[Row]) -> list[str]:
    hit = {clause for row in rows if row.judged for clause in row.judged.clauses}
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
    hits = Counter(clause for row in rows if row.judged for clause in row.judged.clauses)
    return "\n".join(f"{hits[name]:6} {name}  {CLAUSES[name].says}" for name in sorted(CLAUSES)) + "\n"


def _host_lines(rows: Sequence[Row]) -> list[str]:
    ran = [(row, row.guest) for row in rows if row.guest]
    guests = [guest for _, guest in ran]
    lines = [
        f"{target.kernel}: Linux {release}{f' with {target.arguments}' if target.arguments else ''}, "
        f"accelerator {accelerator} ({reason}), QEMU {qemu}"
        for target, release, accelerator, reason, qemu in dict.fromkeys(
            (row.where.target, guest.release, guest.accelerator, guest.accelerator_reason, guest.qemu_version) for row, guest in ran
        )
    ]
    lines = [part for line in lines for part in _wrapped(line, "", "    ")]
    lives = Counter(guest.lifecycle for guest in guests)
    if lives:
        lines.append("guests: " + ", ".join(f"{count} items on {word} ones" for word, count in sorted(lives.items())))
    if ran:
        reasons = Counter(re.sub(r"\d+", "N", row.ended.unaudited) for row, _ in ran if row.ended.unaudited)
        lines.append(f"what programs left was audited after {len(ran) - reasons.total()} of {len(ran)} items")
        for reason, count in reasons.most_common():
            lines += _wrapped(f"{count} items were not, or only their volumes: {reason}", "    ", "        ")
    for note, count in Counter(guest.lifecycle_note for guest in guests if guest.lifecycle_note).items():
        lines += _wrapped(f"{count} items on guests that were {note}", "", "    ")
    examples = {reason: line for row, _ in reversed(ran) for line, reason in reversed(row.ended.expected)}
    for reason, count in Counter(reason for row, _ in ran for _, reason in row.ended.expected).items():
        lines += _wrapped(f"expected console line ({count} items): {examples[reason]}: {reason}", "", "    ")
    told = sorted({f"{name} {version}" for guest in guests for name, version in guest.versions})
    lines += _wrapped("versions: " + ", ".join(told), "", "    ") if told else []
    return [*lines, *_ending_lines(rows)]


def _ending_lines(rows: Sequence[Row]) -> list[str]:
    endings = Counter(ended_as(row) for row in rows)
    return ["items: " + ", ".join(f"{count} {word}" for word, count in sorted(endings.items()))] if rows else []


#: What an item is called that did not come to the same each time (``--repeat``).
FLAKY = "flaky"


def one_of(rows: Sequence[Row]) -> Row:
    """Return the row of an item that was run several times: the first that did not pass, with what each came to.

    A claim that it decides is decided only where all agree.
    """
    shown = next((row for row in rows if not row.passed), rows[0])
    held = {claim.claim: {other.held for row in rows for other in row.claims if other.claim == claim.claim} for claim in shown.claims}
    claims = tuple(replace(claim, held=claim.held if len(held[claim.claim]) == 1 else None) for claim in shown.claims)
    return replace(shown, claims=claims, repeats=tuple(map(ended_as, rows)))


def ended_as(row: Row) -> str:
    """Return in a few words how an item ended: its verdict, or why it has none."""
    if row.is_flaky:
        return FLAKY
    if row.ended.ending is not Ending.COMPLETED or row.judged is None:
        return str(row.ended.ending)
    if row.judged.known is not Known.NO:
        return f"{row.judged.verdict} (known deviation: {row.judged.known})"
    return str(row.judged.verdict) + (" but the kernel complained" if row.ended.messages else "")


def _wrapped(text: str, first: str, then: str | None = None) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=first if then is None else then, break_on_hyphens=False)


def summary_text(sections: Iterable[Section], rows: Sequence[Row]) -> str:
    """Return the whole summary as a text file, with the hits of every clause."""
    parts = ["\n".join([f"== {section.title} ==", *lay_out(section.parts)]) for section in sections]
    return "\n\n".join([*parts, "== hits by clause ==\n" + all_clauses_text(rows)])
