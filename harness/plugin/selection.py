"""Which of the items that were collected are run, and in which order."""

import fnmatch
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UsageError
from harness.model.stack import StorageStack
from harness.plugin.collect import PLACE, CaseItem
from harness.record.facttable import FACTS_DIR
from harness.record.item import Lifecycle, Where
from harness.record.runs import find_run
from harness.report.durations import FILE as DURATIONS
from harness.report.durations import divide, length_of, read_durations, shard_of
from harness.report.rows import read_rows

#: Under this name the controller of a distributed run tells its workers the folders of the runs that are gone on with.
_RESUMED = "harness_resumed"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("harness")
    group.addoption(
        "--full",
        action="store_true",
        help="also run what cases keep for a full run, because it takes long; an item that is named itself (FILE::ITEM) runs anyway",
    )
    group.addoption(
        "--not-stack",
        action="append",
        default=[],
        metavar="GLOB",
        help="leave out the items whose variant matches, such as --not-stack='nvdimm-*' or --not-stack='*-xfs-*'; repeatable",
    )
    group.addoption(
        "--pairwise",
        action="store_true",
        help="of several kernels, run only so many items that each variant is run, each case on each kernel, and each stack on each kernel",
    )
    group.addoption(
        "--resume",
        action="append",
        default=[],
        metavar="RUN",
        help="leave out the items of which a kept run says something already, such as one that was stopped (an id, or latest); repeatable",
    )

    group.addoption(
        "--shard",
        metavar="K/N",
        help="run the Kth of N parts of the selection, which take about equally long (facts/durations.tsv); all items of a storage stack "
        "are in one part (python -m harness matrix prints the parts, merge makes one run of them)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Find the runs to go on with, before this one is the latest; the workers of a distributed run are told their folders."""
    if hasattr(config, "workerinput"):
        config.option.resume = config.workerinput[_RESUMED]
        return
    try:
        found = [find_run(Path(config.getoption("artifacts")), wanted) for wanted in config.getoption("resume")]
    except UsageError as error:
        raise pytest.UsageError(f"--resume: {error}") from error
    config.option.resume = [str(run.folder) for run in found]
    if config.getoption("shard") is not None:
        try:
            shard_of(config.getoption("shard"))
        except UsageError as error:
            raise pytest.UsageError(f"--shard: {error}") from error


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    # A worker reads the command line anew: what this process has made of it does not reach it otherwise.
    node.workerinput[_RESUMED] = node.config.getoption("resume")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is not asked for. Bring items of equal stacks together, in the order in which each stack comes first: a guest serves
    one stack.
    """
    chosen = _chosen(config, [item for item in items if isinstance(item, CaseItem)])
    kept = [item for item in items if not isinstance(item, CaseItem) or id(item) in chosen]
    if config.getoption("shard"):
        kept = _shard(kept, config.getoption("shard"))
    if len(kept) < len(items):
        here = {id(item) for item in kept}
        config.hook.pytest_deselected(items=[item for item in items if id(item) not in here])
        items[:] = kept
    _sort_by_place(items)


def _chosen(config: pytest.Config, items: Sequence[CaseItem]) -> set[int]:
    globs, full = config.getoption("not_stack"), config.getoption("full") or any("::" in word for word in config.args)
    kept = [item for item in items if (full or not item.plan.full_only) and not _matches(item.item.where.variant_id, globs)]
    if config.getoption("pairwise"):
        wanted = find_pairwise([item.item.where for item in kept])
        kept = [item for number, item in enumerate(kept) if number in wanted]
    rows = (row for folder in config.getoption("resume") for row in read_rows(Path(folder)))
    done = {row.where.node_id for row in rows if not row.ended.ending.says_nothing}
    return {id(item) for item in kept if item.item.where.node_id not in done}


def _shard(items: Sequence[pytest.Item], word: str) -> list[pytest.Item]:
    """Return those of ``items`` that are in a shard, on every computer the same. What needs no guest is in the first one."""
    number, shards = shard_of(word)
    durations = read_durations(FACTS_DIR / DURATIONS)
    places = [item.stash.get(PLACE, None) for item in items]
    lengths = {place: length_of(place[2].describe(), count, durations) for place, count in Counter(places).items() if place is not None}
    wanted = {*divide(lengths, shards)[number - 1], *([None] if number == 1 else [])}
    return [item for item, place in zip(items, places, strict=True) if place in wanted]


def _matches(variant: str, globs: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(variant, glob) for glob in globs)


def find_pairwise(items: Sequence[Where]) -> set[int]:
    """Return the numbers of so few of ``items`` that each variant of a case is there, and each case and each stack with each kernel that it
    is there with at all.

    Variants and kernels of a case are gone through side by side, from case to case with another kernel first; what that leaves out
    (a case need not have each variant on each kernel) follows.
    """
    cases: dict[tuple[str, Lifecycle], dict[tuple[str, str], int]] = {}
    for number, item in enumerate(items):
        cases.setdefault((item.path, item.lifecycle), {})[item.variant_id, item.target.column] = number
    kernels = list(dict.fromkeys(item.target.column for item in items))
    chosen = set()
    for start, of_case in enumerate(cases.values()):
        variants = list(dict.fromkeys(variant for variant, _ in of_case))
        pairs = zip(_around(variants, 0), _around(kernels, start), strict=False)
        chosen |= {of_case[pair] for pair in itertools.islice(pairs, max(len(variants), len(kernels))) if pair in of_case}
    covered = {pair for number in chosen for pair in _pairs_of(items[number])}
    for number, item in enumerate(items):
        if not covered.issuperset(_pairs_of(item)):
            covered.update(_pairs_of(item))
            chosen.add(number)
    return chosen


def _pairs_of(item: Where) -> tuple[tuple[object, ...], ...]:
    """What a pairwise selection has to have of an item: its variant, its case on its kernel, its stack on its kernel."""
    case, kernel = (item.path, item.lifecycle), item.target.column
    return (case, item.variant_id), (case, kernel, "case"), (item.stack, kernel, "stack")


def _around(words: Sequence[str], start: int) -> Iterator[str]:
    at = start % len(words)
    return itertools.cycle([*words[at:], *words[:at]])


def _sort_by_place(items: list[pytest.Item]) -> None:
    starts: dict[tuple[str, Lifecycle], int] = {}
    places: dict[tuple[str, Lifecycle, StorageStack], int] = {}
    for item in items:
        place = item.stash.get(PLACE, None)
        if place is not None:
            starts.setdefault(place[:2], len(starts))
            places.setdefault(place, len(places))

    def rank(item: pytest.Item) -> tuple[int, int]:
        place = item.stash.get(PLACE, None)
        return (-1, -1) if place is None else (starts[place[:2]], places[place])

    items.sort(key=rank)
