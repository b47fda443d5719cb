"""How many operations a second does the judge judge, and how does its time grow with the length of a program?

The corpus is what real guests showed (tests/recorded). The long programs are made here, with the answers that the model allows: many
writes at scattered offsets, many stores into a shared mapping, many into a private one.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from harness.model.facts import Env
from harness.model.judge import judge
from harness.model.outcome import How, Observation
from harness.model.stack import StackReading
from harness.model.verdict import Verdict
from harness.ops import MapFlag, Mmap, Open, OpenFlag, Operation, Program, Pwrite, Step, Store
from harness.record.mutants import Recorded, read_recorded

RECORDED = Path(__file__).parents[1] / "tests" / "recorded" / "observations.jsonl"
#: A step of the scattered programs, in bytes: neither pages nor neighbours.
_STRIDE = 12_289


#: Steps, each with the value that it returned.
Rows = tuple[tuple[Operation, int], ...]


def scattered_writes(count: int) -> Rows:
    order = [index * 617 % count for index in range(count)]
    return _opened(), *((Pwrite("f", place * _STRIDE, 100), 100) for place in order)


def stores(count: int) -> Rows:
    length = count * _STRIDE
    mapped = Mmap("m", length, file="f", flags=(MapFlag.SHARED,))
    return _opened(), (Pwrite("f", 0, length), length), (mapped, 0), *((Store("m", n * _STRIDE, 8), 8) for n in range(count))


def private_stores(count: int) -> Rows:
    """A store into each page of a private mapping, which copies it."""
    length = count * 4096
    mapped = Mmap("m", length, file="f", flags=(MapFlag.PRIVATE,))
    return _opened(), (Pwrite("f", 0, length), length), (mapped, 0), *((Store("m", n * 4096, 8), 8) for n in range(count))


#: What makes a program as long as it is asked to be.
LONG = {"scattered writes": scattered_writes, "stores": stores, "private stores": private_stores}


def _opened() -> tuple[Operation, int]:
    return Open("f", "a", (OpenFlag.RDWR, OpenFlag.CREAT)), 0


def seconds(reading: StackReading, rows: Rows) -> float:
    """Return how long the judge takes. The program has to conform, or something else was measured."""
    program = Program(tuple(Step(operation) for operation, _ in rows))
    seen = tuple(_seen(index, operation, value) for index, (operation, value) in enumerate(rows))
    begun = time.process_time()
    verdict = judge(Env(reading), program, seen).verdict
    took = time.process_time() - begun
    if verdict is not Verdict.CONFORMS:
        raise AssertionError(f"the model has it that this program {verdict}")
    return took


def _seen(index: int, operation: Operation, value: int) -> Observation:
    if isinstance(operation, Store):
        return Observation(index, How.RETURNED, value, minor_faults=-(-operation.length // 4096), attributes=(("major_faults", 0),))
    return Observation(index, How.RETURNED, value, attributes=(("address_mod_2mib", 4096),) if isinstance(operation, Mmap) else ())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.judge", description="time the judge: operations a second, and how it grows")
    parser.add_argument("--steps", type=int, default=1000, help="how long the shorter of two programs is (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured; the best counts (default: %(default)s)")
    chosen = parser.parse_args()
    runs = list(read_recorded(RECORDED))
    print(f"recorded corpus: {len(runs)} programs, {corpus_rate(runs, chosen.rounds):,.0f} operations a second")
    reading = next(run.reading for run in runs if "e820-fsdax-ext4-dax_always" in run.item)
    for name, make in LONG.items():
        one, two = (min(seconds(reading, make(n)) for _ in range(chosen.rounds)) for n in (chosen.steps, 2 * chosen.steps))
        shorter = f"{name}: {chosen.steps} take {one:.2f} s ({chosen.steps / one:,.0f} a second)"
        print(f"{shorter}, twice as many {two / one:.2f} times that")


def corpus_rate(runs: Sequence[Recorded], rounds: int) -> float:
    """Return operations a second, in the best of ``rounds``."""
    best = float("inf")
    for _ in range(rounds):
        begun = time.process_time()
        for run in runs:
            judge(Env(run.reading), run.program, run.observations)
        best = min(best, time.process_time() - begun)
    return sum(len(run.program.steps) for run in runs) / best


if __name__ == "__main__":
    main()
