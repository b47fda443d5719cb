"""The model can be asked: what it would see itself of a program is what it accepts, whatever the program."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest

from harness.model.canonical import Canonical, canonical
from harness.model.facts import Env
from harness.model.judge import judge
from harness.model.outcome import How
from harness.model.stack import StackReading
from harness.model.value import evolve
from harness.model.verdict import Verdict
from harness.ops import (
    Close,
    Fork,
    FutexWait,
    FutexWake,
    Join,
    Load,
    Mmap,
    Open,
    OpenFlag,
    Operation,
    Pipe,
    Program,
    Pwrite,
    Read,
    Step,
    Store,
    Write,
)
from harness.record.mutants import read_recorded
from tests.generated.generator import World, draw
from tests.unit.model.stacks import DAX

RECORDED = Path(__file__).parents[2] / "recorded"
PROGRAMS = 240


@cache
def recorded_programs() -> list[tuple[str, StackReading, Program]]:
    """Return what guests were asked, without what cases pin: that may be one of two ways."""
    runs = [run for name in ("observations", "generated", "found") for run in read_recorded(RECORDED / f"{name}.jsonl")]
    return [(r.item, r.reading, Program(tuple(evolve(step, pin=None) for step in r.program.steps))) for r in runs]


@cache
def readings() -> list[StackReading]:
    return list({(r.kernel_release, tuple((v.filesystem, v.dax) for v in r.volumes)): r for _, r, _ in recorded_programs()}.values())


def foretold(reading: StackReading, program: Program) -> Canonical:
    """Return the model's own run, which the judge must not call a deviation, nor lose the state of where the model knows it."""
    found = canonical(Env(reading), program)
    part = Program(program.steps[: len(found.observations)])
    said = judge(Env(reading), part, found.observations)
    wrong = [step for step in said.steps if step.verdict is Verdict.DEVIATES]
    assert not wrong, (part.steps[wrong[0].step], wrong[0])
    return found


def test_the_judge_accepts_the_models_own_run_of_every_recorded_program() -> None:
    runs = [(item, foretold(reading, program), program) for item, reading, program in recorded_programs()]
    whole = [item for item, found, program in runs if len(found.observations) == len(program.steps)]
    assert len(whole) > len(runs) * 0.9


@pytest.mark.parametrize("start", range(0, PROGRAMS, PROGRAMS // 8))
def test_the_judge_accepts_the_models_own_run_of_programs_drawn_at_random(start: int) -> None:
    asked = told = 0
    for index in range(start, start + PROGRAMS // 8):
        reading = readings()[index % len(readings())]
        program = draw(11, index, World(tuple(volume.role for volume in reading.volumes)))
        asked += len(program.steps)
        told += len(foretold(reading, program).observations)
    assert told > asked * 0.75  # the rest comes after a step that no rule judges


def own_run(*steps: Operation | Step) -> Sequence[How]:
    program = Program(tuple(step if isinstance(step, Step) else Step(step) for step in steps))
    found = foretold(DAX.reading, program)
    assert not found.reason
    return [seen.how for seen in found.observations]


FILE = (Open("f", "a", (OpenFlag.RDWR, OpenFlag.CREAT)), Pwrite("f", 0, 4096), Mmap("m", 8192, file="f"))


def test_a_signal_ends_a_process_and_what_is_left_of_it_is_not_run() -> None:
    assert own_run(*FILE, Load("m", 4096, 1), Load("m", 0, 1))[3:] == [How.SIGNAL, How.NOT_RUN]


def test_a_step_that_sleeps_goes_on_when_it_is_woken() -> None:
    waits = Step(FutexWait("m", 0, 7), process="child", start="w")
    woken = own_run(*FILE, Store("m", 0, value=7), Fork("child"), waits, Join("w"), FutexWake("m", 0), Join("w"))
    assert woken[5:] == [How.BLOCKED, How.BLOCKED, How.RETURNED, How.RETURNED]


def test_a_process_that_sleeps_for_ever_does_nothing_more() -> None:
    assert own_run(Pipe("p"), Read("p", 3), Write("p", 3)) == [How.RETURNED, How.BLOCKED, How.NOT_RUN]


def test_what_no_rule_judges_ends_the_run_with_its_reason() -> None:
    found = canonical(DAX, Program((Step(Open("b", "bar:")), Step(Read("b", 1)), Step(Close("b")))))
    assert (len(found.observations), found.reason) == (1, "step 2: no clause covers read(2) of a BAR")
