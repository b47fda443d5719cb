"""KTAP, version 1 (Documentation/dev-tools/ktap.rst of Linux): a family a test, its items the tests below."""

from collections.abc import Iterator, Sequence

from harness.record.runs import Identity
from harness.report.forms.outcome import Outcome, outcome_of, reason_of_outcome
from harness.report.forms.text import printable
from harness.report.paragraph import describe_row
from harness.report.rows import Row

_VERSION = "KTAP version 1"
#: What stands behind a result beside "ok" and "not ok". A known deviation is a failure that was expected.
_DIRECTIVES = {Outcome.KNOWN: "XFAIL", Outcome.UNAVAILABLE: "SKIP", Outcome.BROKEN: "ERROR", Outcome.UNDETERMINED: "ERROR"}
_OK = {Outcome.PASSED, Outcome.KNOWN, Outcome.UNAVAILABLE}


def ktap_lines(identity: Identity, rows: Sequence[Row]) -> Iterator[str]:
    """Yield the lines of the whole report."""
    families: dict[str, list[Row]] = {}
    for row in rows:
        families.setdefault(row.where.family, []).append(row)
    yield _VERSION
    yield f"# run {identity.id}, harness {identity.commit or 'of no checkout'}"
    yield f"1..{len(families)}"
    for number, (family, its_rows) in enumerate(families.items(), 1):
        for line in _family_lines(its_rows):
            yield f"  {line}"
        yield _result(number, family, all(outcome_of(row) in _OK for row in its_rows), "")


def _family_lines(rows: Sequence[Row]) -> Iterator[str]:
    yield _VERSION
    yield f"1..{len(rows)}"
    for number, row in enumerate(rows, 1):
        outcome = outcome_of(row)
        if outcome not in _OK:
            yield from (f"# {line}" for line in printable(describe_row(row)).splitlines())
        why = f" # {_DIRECTIVES[outcome]} {_one_line(reason_of_outcome(row))}" if outcome in _DIRECTIVES else ""
        yield _result(number, row.where.id, outcome in _OK, why)


def _result(number: int, name: str, is_ok: bool, why: str) -> str:
    return f"{'ok' if is_ok else 'not ok'} {number} {name}{why}"


def _one_line(text: str) -> str:
    """Without line breaks, and without the sign that begins a directive."""
    return " ".join(printable(text).replace("#", "no. ").split())
