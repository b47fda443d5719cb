"""JSON lines: an item a line, with the run that it is of; the schema is made of the same types."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from harness.record.documents import to_text
from harness.record.runs import Identity
from harness.record.schema import make_schema
from harness.report.forms.outcome import Outcome, outcome_of
from harness.report.rows import Row

EXPORT_FORMAT = 1


@dataclass(frozen=True)
class ExportedRow:
    """One item of a run. ``run``, ``began`` and ``commit``: the run's id, when it began, and of which commit the harness was."""

    run: str
    began: datetime
    commit: str
    outcome: Outcome
    row: Row


def json_lines(identity: Identity, rows: Sequence[Row]) -> Iterator[str]:
    """Yield a line of JSON for each item."""
    for row in rows:
        one = ExportedRow(identity.id, identity.began, identity.commit, outcome_of(row), row)
        yield to_text(one, EXPORT_FORMAT, indent=None).rstrip("\n")


def export_schema() -> dict[str, Any]:
    """Return the JSON Schema of those lines."""
    return make_schema(ExportedRow, EXPORT_FORMAT, "An item of a run", "A line of `python -m harness export --form jsonl`.")
