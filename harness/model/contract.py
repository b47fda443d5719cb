"""The contract, whole: every clause and every fact with its source, and the page of them."""

from harness.model.audit import AUDIT_CALLS
from harness.model.clause import CLAUSES
from harness.model.facts import FACTS
from harness.model.rules import RULE_MODULES

assert RULE_MODULES  # importing them is what fills the tables
assert AUDIT_CALLS

__all__ = ["CLAUSES", "contract_page"]

HEADER = """\
# The contract

Every clause and every fact of the reference model. This page is made by `python -m harness contract`; a test compares the two.

A *clause* is a numbered reason: what a step may do, and where that is written. A *fact* is a named property of a storage stack; every
difference between kernels, file systems and modes stands here and nowhere else.
"""


def contract_page() -> str:
    """Return the page in Markdown."""
    lines = [HEADER, "## Clauses", "", "| Clause | Says | Source |", "| --- | --- | --- |"]
    lines += [f"| {c.id} | {_cell(c.says)} | {_cell(c.source)} |" for c in sorted(CLAUSES.values(), key=lambda c: c.id)]
    lines += ["", "## Facts", "", "| Fact | Means | Values | Source |", "| --- | --- | --- | --- |"]
    for f in sorted(FACTS.values(), key=lambda f: f.name):
        values = ", ".join(str(v) for v in f.values)
        lines.append(f"| `{f.name}` | {_cell(f.means)} | {values} | {_cell(f.source)} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
