"""Judging what was kept of an item: the same record gets the same judgement, with or without a guest."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.case.known import load_nearest_known
from harness.model.audit import with_audit
from harness.model.claims import Evidence, make_evidence
from harness.model.facts import Env
from harness.model.judge import Judgement, judge
from harness.model.known import Known, KnownDeviation, find_known
from harness.record.documents import to_document
from harness.record.facttable import find_table
from harness.record.item import Ending, Record
from harness.record.store import load_record, store_verdict


@dataclass(frozen=True)
class Result:
    """A record with its judgement. ``judgement`` is None where the run left nothing to judge.

    ``known`` and ``deviation``: whether what deviates is on the list of known deviations, and its entry.
    """

    record: Record
    judgement: Judgement | None
    known: Known
    deviation: KnownDeviation | None
    evidence: tuple[Evidence, ...]


def judge_record(record: Record, known: tuple[KnownDeviation, ...], facts: Path | None = None) -> Result:
    """Return the judgement of what was kept; the same record gets the same one, with or without a guest.

    ``facts``: a folder with tables of measured facts; what that of the item's kernel says comes before the model's own table. Raises
    UsageError where it is no table.
    """
    item, where, outcome = record.item, record.item.where, record.outcome
    if record.observations is None or outcome.ending is not Ending.COMPLETED:
        note = f"{outcome.ending}: {outcome.note}"
        return Result(
            record, None, Known.NO, None, tuple(Evidence(c, where.target.column, where.id, None, None, note) for c in item.claims)
        )
    seen = record.observations
    table = None if facts is None else find_table(facts, where.target.column)
    env = Env(record.reading) if table is None else Env(record.reading, measured=table.measured_values)
    judgement = with_audit(judge(env, item.program, seen), item.program, record.audit)
    state, entry = find_known(judgement, where.path, where.variant_id, record.reading.kernel_release, known)
    evidence = make_evidence(where.target.column, where.id, item.decisions, seen, record.reading, judgement.verdict)
    return Result(record, judgement, state, entry, evidence)


def judge_folder(folder: Path, known: tuple[KnownDeviation, ...], facts: Path | None = None) -> Result:
    """Judge the stored item in ``folder`` as :func:`judge_record` does and keep the verdict there. Raises UsageError for what is no item's
    folder."""
    result = judge_record(load_record(folder), known, facts)
    store_verdict(folder, verdict_document(result))
    return result


def judge_kept(folder: Path) -> Result:
    """Return the judgement of the stored item in ``folder``, with the known deviations that are nearest its case. Raises UsageError."""
    record = load_record(folder)
    return judge_record(record, load_nearest_known(Path(record.item.where.case)))


def verdict_document(result: Result) -> dict[str, Any]:
    """Return the judgement as it is kept: verdict, ending and known apart, and every step."""
    judgement = result.judgement
    return {
        "item": result.record.item.where.id,
        "ending": str(result.record.outcome.ending),
        "verdict": None if judgement is None else str(judgement.verdict),
        "known": str(result.known),
        "reference": result.deviation.reference if result.deviation else None,
        "steps": [] if judgement is None else to_document(judgement.steps),
        "facts": [] if judgement is None else list(judgement.facts),
        "claims": [{"claim": piece.claim, "held": piece.held} for piece in result.evidence],
    }
