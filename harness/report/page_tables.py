"""The tables of a page beside its items: claims, facts, and what splice and its like move; a row each, with a cell for each kernel."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness.model.claims import Claim
from harness.model.facts import FACTS
from harness.record.facttable import FactTable, Shown, expected_value
from harness.report.columns import Column, lines_of
from harness.report.rows import Row
from harness.report.summary import make_statuses
from harness.report.watch import split_line

Cells = dict[str, dict[str, Any]]


def claim_rows(rows: Sequence[Row], claims: Mapping[str, Claim]) -> Iterator[dict[str, Any]]:
    """Yield a row for each claim, with the kernels on which items speak of it, or all where the registry says that none can.

    ``held`` and ``failed``: the ids of items; ``aside``: those that decide nothing, with the reason.
    """
    found: dict[str, Cells] = {}
    for status in make_statuses(rows, claims):
        cells = found.setdefault(status.claim.id, {})
        if not (status.held or status.failed or status.set_aside or status.claim.not_reproducible):
            continue
        cells[status.kernel] = {
            "word": str(status.status),
            "reason": status.reason,
            "held": list(status.held),
            "failed": list(status.failed),
            "aside": [list(pair) for pair in status.set_aside],
        }
    for name, cells in found.items():
        claim = claims[name]
        yield {"name": name, "words": claim.words, "source": claim.source, "cells": cells}


def fact_rows(tables: Sequence[FactTable]) -> Iterator[dict[str, Any]]:
    """Yield a row for each fact and the storages on which all kernels show the same of it.

    ``model``: what the model's own table says where that is something else. ``items``: how many items show it.
    """
    values = {table.kernel: {(shown.fact, shown.storage): _fact_cell(table, shown) for shown in table.facts} for table in tables}
    rows: dict[tuple[str, ...], list[str]] = {}
    for name, storage in sorted({key for cells in values.values() for key in cells}):
        told = [values[table.kernel].get((name, storage), {}) for table in tables]
        rows.setdefault((name, *(f"{cell.get('word')}/{cell.get('model')}" for cell in told)), []).append(storage)
    for (name, *_), storages in rows.items():
        cells: Cells = {}
        for kernel, here in values.items():
            found = [here[name, storage] for storage in storages if (name, storage) in here]
            if found:
                cells[kernel] = found[0] | {"items": sum(cell["items"] for cell in found)}
        yield {"name": name, "storages": storages, "means": FACTS[name].means, "source": FACTS[name].source, "cells": cells}


def _fact_cell(table: FactTable, shown: Shown) -> dict[str, Any]:
    expected = expected_value(shown.fact, shown.storage, table.releases[0])
    cell = {"word": " or ".join(map(str, shown.values)), "items": shown.items}
    return cell if expected in shown.values else cell | {"model": str(expected)}


def watch_rows(table: Sequence[Column], shown_by: Mapping[tuple[str, str], Sequence[str]]) -> Iterator[dict[str, Any]]:
    """Yield a row for each way of bytes and the storages on which all kernels did the same with them.

    ``shown_by``: the items, by line of the table and kernel.
    """
    rows: dict[tuple[str, ...], list[str]] = {}
    for line in lines_of(table):
        rows.setdefault((split_line(line)[0], *(column.words.get(line, "") for column in table)), []).append(line)
    for (path, *words), lines in rows.items():
        cells = {
            column.kernel: {"word": word, "items": [item for line in lines for item in shown_by.get((line, column.kernel), ())]}
            for column, word in zip(table, words, strict=True)
            if word
        }
        yield {"name": path, "storages": [split_line(line)[1] for line in lines], "cells": cells}
