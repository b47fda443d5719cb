"""What is different between two kernels, two kinds of storage, or two runs; needs no guest."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.cli.folders import item_folders
from harness.cli.options import add_artifacts
from harness.cli.words import alternatives
from harness.errors import UsageError
from harness.model.facts import FACTS
from harness.record.differences import ItemDifference, Shape, compare_runs, stored_shape
from harness.record.facttable import FACTS_DIR, Difference, FactTable, compare, compare_storages, read_tables
from harness.record.runs import find_run
from harness.report.status import ALL_CONFORM
from harness.report.tables import Part, make_table, show


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Say what is different between two kernels (debian_6.1 debian_6.12), two kinds of storage on one kernel ('debian_6.12:ext4 dax on "
        "pmem' 'debian_6.12:ext4 on pmem'), both from tables of measured facts, or two runs that are kept."
    )
    parser.add_argument("before", metavar="A", help="a kernel, KERNEL:STORAGE, or a run as 'runs list' prints it")
    parser.add_argument("after", metavar="B", help="the same")
    parser.add_argument("--facts", type=Path, default=FACTS_DIR, metavar="DIR", help="where tables are kept (default: the project's)")
    add_artifacts(parser)
    parser.set_defaults(command=run)


def run(chosen: argparse.Namespace) -> int:
    tables = {table.kernel: table for table in read_tables(chosen.facts)}
    sides = [word.partition(":") for word in (chosen.before, chosen.after)]
    kernels = [tables.get(name) for name, _, _ in sides]
    if kernels == [None, None]:
        return _diff_runs(chosen)
    before, after = kernels
    if before is None or after is None:
        missing = next(name for (name, _, _), table in zip(sides, kernels, strict=True) if table is None)
        raise UsageError(f"no table of {missing!r} in {chosen.facts}; there are: {', '.join(tables)}; python -m harness probe makes one")
    show(*_fact_parts(chosen, _fact_differences(before, after, sides[0][2], sides[1][2])))
    return ALL_CONFORM


def _fact_differences(before: FactTable, after: FactTable, left: str, right: str) -> list[Difference]:
    if not left and not right:
        return compare(before, after)
    if before is not after or not left or not right:
        raise UsageError("two kinds of storage are compared on one kernel: give KERNEL:STORAGE twice, with the same kernel")
    return compare_storages(before, left, right)


def _fact_parts(chosen: argparse.Namespace, found: Sequence[Difference]) -> Iterator[Part]:
    rows = (
        (" on ".join(filter(None, (one.fact, one.storage))), alternatives(one.before), alternatives(one.after), FACTS[one.fact].source)
        for one in found
    )
    yield make_table(("fact", chosen.before, chosen.after, "source"), rows)
    yield f"{len(found)} differences"


def _diff_runs(chosen: argparse.Namespace) -> int:
    folders = (find_run(chosen.artifacts, word).folder for word in (chosen.before, chosen.after))
    before, after = (dict(map(stored_shape, item_folders([folder]))) for folder in folders)
    found = compare_runs(before, after)
    rows = ((one.item, _told(one.before), _told(one.after), _step(one)) for one in found)
    show(
        make_table(("item", chosen.before, chosen.after, "first step that differs"), rows),
        f"{len(found)} of {len(before | after)} items differ",
    )
    return ALL_CONFORM


def _told(shape: Shape | None) -> str:
    return "not in this run" if shape is None else shape.verdict or str(shape.ending)


def _step(one: ItemDifference) -> str:
    return "" if one.step is None else str(one.step)
