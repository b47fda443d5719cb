"""A page that holds all that runs and tables told, and that one can argue with: a single file, which asks no network for anything.

What it shows is data, compressed into the file; a script beside it draws tables of that and searches them.
"""

import base64
import gzip
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from harness.model.claims import Claim
from harness.model.fact import kernel_of
from harness.record.facttable import FactTable
from harness.record.runs import Identity
from harness.report.columns import Column, add_column, gather_columns, subject_of
from harness.report.forms.outcome import Outcome, outcome_of
from harness.report.kept import Kept
from harness.report.page_items import Shelves, item_document, stack_name
from harness.report.page_tables import claim_rows, fact_rows, watch_rows
from harness.report.rows import Row
from harness.report.summary import ended_as
from harness.report.watch import told_ways

#: What the page is made of beside its data, in the order in which its script is put together.
_SCRIPTS = ("search.js", "matrix.js", "item.js", "views.js", "page.js")


@dataclass(frozen=True)
class Tables:
    """What is known without a run (the folder facts/): measured facts, verdicts, and ways of bytes."""

    facts: Sequence[FactTable] = ()
    verdicts: Sequence[Column] = ()
    ways: Sequence[Column] = ()


@dataclass(frozen=True)
class Sources:
    """What a page is made of: runs, those that they are held against, tables, the registry of claims, and when it is made."""

    runs: Sequence[Identity]
    items: Sequence[Kept]
    base_runs: Sequence[Identity]
    base_items: Sequence[Kept]
    tables: Tables
    claims: Mapping[str, Claim]
    made: datetime


def make_document(sources: Sources) -> dict[str, Any]:
    """Return what the script of the page reads."""
    items = {one.key: one for one in sources.items}
    ran = {one.kernel for one in sources.items}
    before = {one.key: one for one in sources.base_items if one.kernel in ran}
    shelves = Shelves()
    documents: list[dict[str, Any]] = []
    rows: dict[str, dict[str, Any]] = {}
    for (name, kernel), kept in {**before, **items}.items():
        place = shelves.cases.place((kept.row.where.path, kept.row.where.title))
        row = rows.setdefault(name, {"case": place, "stack": shelves.texts.place(stack_name(kept.row.where)), "cells": {}, "told": {}})
        row["cells"][kernel] = len(documents)
        documents.append(_document(items.get((name, kernel)), before.get((name, kernel)), shelves))
    _add_told(rows, sources.tables.verdicts, items, shelves)
    ways, shown_by = _ways(sources)
    return {
        "kernels": _kernels(sources, ways),
        "rows": {name: rows[name] for name in sorted(rows)},
        "items": documents,
        "claims": list(claim_rows([_in_column(one) for one in items.values()], sources.claims)),
        "facts": list(fact_rows(sources.tables.facts)),
        "ways": list(watch_rows(ways, shown_by)),
        **shelves.document(),
    }


def _document(kept: Kept | None, before: Kept | None, shelves: Shelves) -> dict[str, Any]:
    if kept is not None:
        return item_document(kept, shelves, before)
    assert before is not None
    told = item_document(before, shelves)
    return {"id": told["id"], "word": "", "before": told}


def _in_column(kept: Kept) -> Row:
    where = kept.row.where
    return replace(kept.row, where=replace(where, target=replace(where.target, column=kept.kernel)))


def _add_told(rows: dict[str, dict[str, Any]], table: Iterable[Column], items: Mapping[tuple[str, str], Kept], shelves: Shelves) -> None:
    """Add what only the table of verdicts tells."""
    titles = dict(shelves.cases.values)
    stacks = sorted({stack_name(one.row.where) for one in items.values()}, key=len, reverse=True)
    for column in table:
        for line, word in column.words.items():
            path, variant = subject_of(line), line.partition("[")[2].removesuffix("]")
            if line not in rows:
                stack = next((one for one in stacks if variant == one or variant.startswith(f"{one}-")), variant)
                case = shelves.cases.place((path, titles.get(path, "")))
                rows[line] = {"case": case, "stack": shelves.texts.place(stack), "cells": {}, "told": {}}
            if column.kernel not in rows[line]["cells"]:
                rows[line]["told"][column.kernel] = word


def _ways(sources: Sources) -> tuple[list[Column], dict[tuple[str, str], list[str]]]:
    """Return the table of ways with what the runs add to it, and the items of the runs by line and kernel."""
    table = list(sources.tables.ways)
    shown_by: dict[tuple[str, str], list[str]] = {}
    for run in sources.runs:
        told = []
        for kept in sources.items:
            for way in told_ways(kept.result.record) if kept.run == run.id and kept.result else ():
                told.append(way)
                shown_by.setdefault((way.line, way.kernel), []).append(f"{kept.row.where.path}[{kept.row.where.place}]")
        for column in gather_columns(told, f"{run.began:%Y-%m-%d}"):
            table = add_column(table, column)
    return table, shown_by


def _kernels(sources: Sources, ways: Iterable[Column]) -> list[dict[str, Any]]:
    """Return all kernels, the oldest first, with the releases of which something is told."""
    releases: dict[str, dict[str, None]] = {}
    for kept in (*sources.items, *sources.base_items):
        found = releases.setdefault(kept.kernel, {})
        if kept.row.guest is not None:
            found[kept.row.guest.release] = None
    tables: Iterable[FactTable | Column] = (*sources.tables.facts, *sources.tables.verdicts, *ways)
    for table in tables:
        releases.setdefault(table.kernel, {}).update(dict.fromkeys(table.releases))
    # One that no guest told the release of comes last.
    ordered = sorted(releases, key=lambda kernel: (not releases[kernel], [kernel_of(one).age for one in releases[kernel]][:1], kernel))
    return [{"name": kernel, "releases": sorted(releases[kernel])} for kernel in ordered]


# ---- the words on top ------------------------------------------------------------------------------------------------


def headline(rows: Sequence[Row]) -> str:
    """Return what the runs came to, for people who read one line."""
    counts = Counter(map(outcome_of, rows))
    known, passed, silent, away = (counts[one] for one in (Outcome.KNOWN, Outcome.PASSED, Outcome.BROKEN, Outcome.UNAVAILABLE))
    ran = len(rows) - away
    other = ran - known - passed - silent
    first = "Nothing deviates that is not known." if other == 0 else f"{_items(other)} of {ran} did not do what is allowed or known."
    parts = [f"{_items(passed)} of {ran} conform" if passed != 1 else f"1 item of {ran} conforms"]
    parts += [f"{known} deviate as is known"] if known else []
    parts += [f"{silent} could not be run"] if silent else []
    parts += [f"{away} more are unavailable on their kernels"] if away else []
    return f"{first} {', '.join(parts)}."


def _items(count: int) -> str:
    return "1 item" if count == 1 else f"{count} items"


def counts_by_kernel(items: Iterable[Kept]) -> tuple[list[str], dict[str, Counter[str]]]:
    """Return the words by which items ended, the most frequent first, and how many of each there are on each kernel."""
    counts: dict[str, Counter[str]] = {}
    for kept in items:
        counts.setdefault(kept.kernel, Counter())[ended_as(kept.row)] += 1
    total = sum(counts.values(), Counter())
    return [word for word, _ in total.most_common()], counts


# ---- the file --------------------------------------------------------------------------------------------------------


def render_page(sources: Sources) -> str:
    """Return the page."""
    environment = Environment(loader=PackageLoader("harness.report", "html"), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    document = make_document(sources)
    source = environment.loader.get_source if environment.loader else None
    assert source is not None
    style = source(environment, "page.css")[0]
    script = "".join(source(environment, name)[0] for name in _SCRIPTS)
    newest = {one.key: one for one in sources.items}.values()
    words, counts = counts_by_kernel(newest)
    return environment.get_template("page.html.j2").render(
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
        data=packed(document),
        headline=headline([one.row for one in newest]),
        words=words,
        counts={kernel["name"]: counts[kernel["name"]] for kernel in document["kernels"] if kernel["name"] in counts},
        sources=sources,
        kernels=document["kernels"],
    )


def packed(document: Mapping[str, Any]) -> str:
    """Return a document as text that stands in HTML as it is: JSON, compressed (gzip), in base64."""
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    return base64.b64encode(gzip.compress(text, mtime=0)).decode()


def _hash(text: str) -> str:
    """By this the browser knows the one script, and the one style, that the page may have."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
