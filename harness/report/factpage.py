"""The measured facts of all kernels as a page of the documentation (docs/hook.py)."""

from collections.abc import Iterator, Sequence

from harness.model.facts import FACTS
from harness.record.facttable import FactTable

_HEAD = """# Tables of facts

What the guests of each kernel showed, made of `facts/KERNEL.json` ([facts of kernels](facts.md)). A value in brackets is one of several
that no item told apart; an empty field was not measured. Each fact has an address: its name behind `#`.
"""


def fact_page(tables: Sequence[FactTable]) -> str:
    """Return the page as Markdown, ``tables`` from the oldest kernel to the newest."""
    parts = [_HEAD, *_kernel_lines(tables)]
    measured = {shown.fact for table in tables for shown in table.facts}
    for name in sorted(measured & FACTS.keys()):
        parts += ["", *_fact_lines(name, tables)]
    return "\n".join(parts) + "\n"


def _kernel_lines(tables: Sequence[FactTable]) -> Iterator[str]:
    yield "| Kernel | Releases | Measured |"
    yield "| --- | --- | --- |"
    for table in tables:
        yield f"| {table.kernel} | {', '.join(table.releases)} | {table.measured} |"


def _fact_lines(name: str, tables: Sequence[FactTable]) -> Iterator[str]:
    fact = FACTS[name]
    yield f"## {name}"
    yield ""
    yield f"{fact.means[0].upper()}{fact.means[1:]}."
    yield ""
    yield f"| Storage | {' | '.join(table.kernel for table in tables)} |"
    yield f"| --- |{' --- |' * len(tables)}"
    for storage in sorted({shown.storage for table in tables for shown in table.facts if shown.fact == name}):
        yield f"| {storage} | {' | '.join(_cell(table, name, storage) for table in tables)} |"
    yield ""
    yield f"Source: {fact.source}"


def _cell(table: FactTable, name: str, storage: str) -> str:
    values = table.values.get((name, storage), ())
    text = " or ".join(map(str, values))
    return f"({text})" if len(values) > 1 else text
