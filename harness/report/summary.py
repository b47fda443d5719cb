"""The tables at the end of a run. Text only; who prints it is another matter."""

import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.model.claims import Claim, ClaimStatus, Evidence, Status, Unavailable, claim_statuses
from harness.model.clause import CLAUSES
from harness.model.known import Known
from harness.model.verdict import Verdict
from harness.record.item import Ending
from harness.report.paragraph import row_reason
from harness.report.rows import NOT_SET_UP, NOT_TRIED, RESULTS, UNAVAILABLE, ClaimRow, Row

_WIDTH = 140
_LONGEST_LIST = 40
#: Endings of an item that never got as far as its first step.
_NEVER_BEGUN = (NOT_SET_UP, NOT_TRIED, UNAVAILABLE)


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
        endings = Counter(ended_as(row) for row in rows)
        lines.append("items: " + ", ".join(f"{count} {word}" for word, count in sorted(endings.items())))
    return lines


def ended_as(row: Row) -> str:
    """Return in a few words how an item ended: its verdict, or why it has none."""
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
