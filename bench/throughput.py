"""How fast a suite goes: clones against a boot for each case, and two workers against one; or how fast operations are.

    python -m bench.throughput [--rounds N] [pytest selection ...]
    python -m bench.throughput --former REVISION [--rounds N] [--programs N] [--kernel NAME|PATH]

Every round runs the same items in each of the ways, in turn; what is printed are medians of ratios inside a round.
"""

import argparse
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.operations import compare_agents
from harness.errors import HostError
from harness.host.deadline import Deadline
from harness.host.process import run

ROOT = Path(__file__).parents[1]
#: Some forty items on one stack, and some six for the slow way.
SELECTION = ["cases/splice", "cases/coherence", "-k", "e820 and ext4 and dax_always"]
FEW = ["cases/splice", "-k", "e820 and ext4 and dax_always and (tee or file_to_pipe)"]
WAYS = {"-n 1": ["-n", "1"], "-n 2": ["-n", "2"], "reused guests": ["--reuse-guests"]}
_LIMIT_S = 3600.0


def seconds_an_item(selection: Sequence[str], options: Sequence[str], tree: Path = ROOT) -> float:
    """Run the items of a work tree and return seconds an item. Raises HostError where one of them did not pass."""
    with tempfile.TemporaryDirectory(prefix="pmem-bench-") as artifacts:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--artifacts", artifacts, *selection, *options]
        started_s = time.monotonic()
        done = run(command, Deadline.after(_LIMIT_S), cwd=tree, check=False)
        spent_s = time.monotonic() - started_s
    passed = re.search(r"(\d+) passed", done.stdout)
    if done.status != 0 or passed is None:
        raise HostError(f"the items did not all pass:\n{done.stdout[-3000:]}{done.stderr[-1000:]}")
    return spent_s / int(passed[1])


def main() -> None:
    parser = argparse.ArgumentParser(description="How fast a suite goes.")
    parser.add_argument("--rounds", type=int, default=3, help="how often each way is taken (default: 3)")
    parser.add_argument("--former", metavar="REVISION", help="compare operations a second with the agent of this revision instead")
    parser.add_argument("--programs", type=int, default=100, help="generated programs a round, for --former (default: 100)")
    parser.add_argument("--kernel", help="for --former: a kernel of images/kernels.yaml, or a path (default: that file's)")
    chosen, selection = parser.parse_known_args()
    if chosen.former:
        compare_agents(chosen.former, chosen.kernel, chosen.programs, chosen.rounds)
        return
    items = selection or SELECTION
    seconds_an_item(items, [])  # makes the templates
    spent: dict[str, list[float]] = {name: [] for name in WAYS}
    cloned, booted = [], []
    for number in range(1, chosen.rounds + 1):
        for name, options in WAYS.items():
            spent[name].append(seconds_an_item(items, options))
            print(f"round {number}: {name}: {spent[name][-1]:.2f} s an item", flush=True)
        cloned.append(seconds_an_item(FEW, []))
        booted.append(seconds_an_item(FEW, ["--lifecycle", "booted"]))
        print(f"round {number}: clones {cloned[-1]:.2f} s, a boot for each {booted[-1]:.2f} s an item", flush=True)

    def gain(slow: Sequence[float], fast: Sequence[float]) -> float:
        return statistics.median(a / b for a, b in zip(slow, fast, strict=True))

    print(f"(b) -n 2 does {gain(spent['-n 1'], spent['-n 2']):.2f} times as many items a second as -n 1")
    print(f"    reused guests do {gain(spent['-n 1'], spent['reused guests']):.2f} times as many as a clone for each, without isolation")
    print(f"    clones do {gain(booted, cloned):.1f} times as many as a boot for each")


if __name__ == "__main__":
    main()
