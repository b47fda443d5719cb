"""The harness beside an earlier revision of itself: the suite, the first SSH command of a clone, a cold boot, the memory of a clone.

    python -m bench.beside REVISION [--rounds N] [pytest selection ...]

Every round measures both in turn, each in its own work tree with this Python; what is printed are medians of ratios inside a round, new by
old. The templates of both are made first.
"""

import argparse
import re
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.throughput import ROOT, SELECTION, seconds_an_item
from harness.host.deadline import Deadline
from harness.host.process import run

_LIMIT_S = 3600.0
#: What bench.clones says, by what is compared.
_CLONES = {
    "first SSH command of a clone, seconds": re.compile(r"first SSH command: clone ([\d.]+) s"),
    "cold boot to the first SSH command, seconds": re.compile(r"cold boot ([\d.]+) s: "),
    "private memory of a clone, MiB": re.compile(r"([\d.]+) MiB private"),
}


@contextmanager
def work_tree(revision: str) -> Iterator[Path]:
    """The files of ``revision``, in a folder that is gone afterwards. Raises HostError where git does not know it."""
    with tempfile.TemporaryDirectory(prefix="pmem-bench-") as folder:
        tree = Path(folder) / "tree"
        run(["git", "worktree", "add", "--detach", str(tree), revision], Deadline.after(60), cwd=ROOT)
        try:
            yield tree
        finally:
            run(["git", "worktree", "remove", "--force", str(tree)], Deadline.after(60), cwd=ROOT)


def suite(tree: Path, selection: Sequence[str]) -> Mapping[str, float]:
    """Measure seconds an item of ``selection`` with two workers."""
    return {"an item with -n 2, seconds": seconds_an_item(selection, ["-n", "2"], tree)}


def clones(tree: Path) -> Mapping[str, float]:
    """Measure what bench.clones of ``tree`` says."""
    said = run([sys.executable, "-m", "bench.clones", "--rounds", "3"], Deadline.after(_LIMIT_S), cwd=tree).stdout
    found = {name: pattern.search(said) for name, pattern in _CLONES.items()}
    return {name: float(match[1]) for name, match in found.items() if match is not None}


def main() -> None:
    parser = argparse.ArgumentParser(description="The harness beside an earlier revision of itself.")
    parser.add_argument("revision", help="what git knows the earlier one by")
    parser.add_argument("--rounds", type=int, default=3, help="how often both are measured (default: 3)")
    chosen, selection = parser.parse_known_args()
    rounds: list[tuple[Mapping[str, float], Mapping[str, float]]] = []
    with work_tree(chosen.revision) as former:
        for tree in (former, ROOT):
            suite(tree, selection or SELECTION)  # makes the templates
        for number in range(1, chosen.rounds + 1):
            then, now = ({**suite(tree, selection or SELECTION), **clones(tree)} for tree in (former, ROOT))
            rounds.append((then, now))
            print(
                f"round {number} of {chosen.rounds}: " + ", ".join(f"{name}: {now[name]:.2f} for {then[name]:.2f}" for name in now),
                flush=True,
            )
    print(f"\nbeside {chosen.revision}, median of {chosen.rounds} rounds")
    for name in rounds[0][1]:
        ratio = statistics.median(now[name] / then[name] for then, now in rounds)
        print(f"  {ratio:.2f}  {name}: {statistics.median(now[name] for _, now in rounds):.2f}")


if __name__ == "__main__":
    main()
