"""How long items take, storage stack by storage stack, and how a suite is divided by that into shards of equal length.

The table (``facts/durations.tsv``) is of a real run on one computer: only its ratios are of use.
"""

import csv
import re
import statistics
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from harness.errors import UsageError
from harness.report.rows import Row

FILE = "durations.tsv"
_HEAD = ["stack", "making_s", "item_s"]
_DONE = re.compile(r" (\S+::.*) is done after ([0-9.]+) s$", re.MULTILINE)

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Duration:
    """Of a storage stack: seconds until its first item can begin, and of one item."""

    making_s: float
    item_s: float

    def of(self, items: int) -> float:
        """Return how long so many items take, in seconds."""
        return self.making_s + items * self.item_s


#: A stack of which nothing is recorded.
USUAL = Duration(9.0, 1.0)


def read_log(text: str) -> dict[str, float]:
    """Return from the log of a run (harness/plugin/log.py) how many seconds each item took, with the making of what it ran on."""
    return {node_id: float(seconds) for node_id, seconds in _DONE.findall(text)}


def measure_durations(rows: Iterable[Row], took_s: Mapping[str, float]) -> dict[str, Duration]:
    """Return the durations of stacks, by their descriptions, from a run that had them made. What was not run says nothing."""
    groups: dict[str, list[float]] = {}
    for row in rows:
        if row.ended.ending.has_begun and row.where.node_id in took_s:
            groups.setdefault(row.where.stack.describe(), []).append(took_s[row.where.node_id])
    usual_s = statistics.median([seconds for group in groups.values() for seconds in group]) if groups else 0.0
    found = {}
    for stack, group in sorted(groups.items()):
        first, rest = max(group), sorted(group)[:-1]
        item_s = statistics.mean(rest) if rest else min(usual_s, first)
        found[stack] = Duration(round(first - item_s, 1), round(item_s, 2))
    return found


def write_durations(path: Path, durations: Mapping[str, Duration]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(_HEAD)
        writer.writerows((stack, one.making_s, one.item_s) for stack, one in sorted(durations.items()))


def read_durations(path: Path) -> dict[str, Duration]:
    """Return the table in a file; empty where there is none. Raises UsageError naming file and line."""
    if not path.exists():
        return {}
    found: dict[str, Duration] = {}
    with path.open(newline="") as file:
        for number, row in enumerate(csv.reader(file, delimiter="\t"), 1):
            if number == 1 and row == _HEAD:
                continue
            try:
                stack, making_s, item_s = row
                found[stack] = Duration(float(making_s), float(item_s))
            except ValueError as error:
                raise UsageError(f"{path}:{number}: not a stack and two numbers of seconds, separated by tabs") from error
    return found


def divide(lengths: Mapping[Key, float], shards: int) -> list[list[Key]]:
    """Divide what has ``lengths`` into so many lists of about equal length: the longest first, each to the shortest list so far."""
    lists: list[list[Key]] = [[] for _ in range(shards)]
    sums = [0.0] * shards
    for key in sorted(lengths, key=lambda key: -lengths[key]):
        shortest = sums.index(min(sums))
        lists[shortest].append(key)
        sums[shortest] += lengths[key]
    return lists


def length_of(stack: str, items: int, durations: Mapping[str, Duration]) -> float:
    """Return how long ``items`` on a stack take, in seconds, by what is recorded."""
    return durations.get(stack, USUAL).of(items)


def shard_of(word: str) -> tuple[int, int]:
    """Return K and N of ``K/N``. Raises UsageError."""
    match = re.fullmatch(r"([0-9]+)/([0-9]+)", word)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UsageError(f"{word!r} is no shard: K/N, such as 1/4, with K from 1 to N")
    return int(match[1]), int(match[2])


def find_shard(command: Sequence[str]) -> tuple[int, int] | None:
    """Return the shard that a command line of pytest asks for; None: it runs everything. Raises UsageError."""
    for at, word in enumerate(command):
        if word == "--shard" and at + 1 < len(command):
            return shard_of(command[at + 1])
        if word.startswith("--shard="):
            return shard_of(word.partition("=")[2])
    return None
