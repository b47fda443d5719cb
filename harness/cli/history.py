"""Since which kernel is it so? What the tables of measured facts say, looked up without a guest."""

import argparse
from pathlib import Path

from harness.cli.words import alternatives
from harness.errors import UsageError
from harness.model.facts import FACTS
from harness.record.facttable import FACTS_DIR, History, histories, read_tables
from harness.report.status import ALL_CONFORM
from harness.report.tables import make_table, show


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("fact", nargs="?", help="one fact, as 'contract' prints it (default: those that change)")
    parser.add_argument("--storage", default="", help="only storages whose words contain this, such as 'xfs dax'")
    parser.add_argument("--facts", type=Path, default=FACTS_DIR, metavar="DIR", help="where tables are kept (default: the project's)")
    parser.set_defaults(command=run)


def run(chosen: argparse.Namespace) -> int:
    if chosen.fact is not None and chosen.fact not in FACTS:
        raise UsageError(f"no fact {chosen.fact!r}; there are: {', '.join(sorted(FACTS))}")
    tables = read_tables(chosen.facts)
    if not tables:
        raise UsageError(f"no table of facts in {chosen.facts}: python -m harness probe makes one")
    found = [one for one in histories(tables, chosen.fact) if chosen.storage in one.storage]
    changing = [one for one in found if one.transitions or chosen.fact is not None]
    if chosen.fact is not None:
        print(f"{chosen.fact}: {FACTS[chosen.fact].means}\nsource: {FACTS[chosen.fact].source}\n")
    rows = ((one.fact, one.storage, _transitions(one), ", ".join(one.outliers)) for one in changing)
    gates = [gate for one in found for gate in one.transitions]
    exact = sum(gate.exact for gate in gates)
    show(
        make_table(("fact", "storage", "values", "outliers"), rows),
        f"kernels: {', '.join(table.kernel for table in tables)}",
        f"{len(found)} histories, {len(gates)} gates, {exact} of them exact"
        + (f" ({100 * exact // len(gates)} %): the minor before was measured too" if gates else ""),
    )
    return ALL_CONFORM


def _transitions(one: History) -> str:
    """``EFAULT; works since debian_6.12 (not on debian_6.1)``; an exact gate says only since when."""
    parts = [f"{alternatives(one.values)} on {one.first}"]
    for gate in one.transitions:
        parts.append(f"{alternatives(gate.values)} since {gate.kernel}" + ("" if gate.exact else f" (not on {gate.before})"))
    return "; ".join(parts)
