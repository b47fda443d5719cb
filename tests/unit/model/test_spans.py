"""Two states that differ only in how a span is mapped are one until it matters: verdicts are those of all the states, one by one."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random

import pytest

from harness.model import judge as judging
from harness.model.canonical import canonical
from harness.model.judge import Judgement, judge
from harness.model.outcome import Observation
from harness.model.state import State
from harness.model.verdict import Verdict
from harness.ops import (
    Advice,
    AllocateFlag,
    Fallocate,
    Fork,
    Fsync,
    Ftruncate,
    FutexWake,
    Load,
    Madvise,
    MapFlag,
    Mincore,
    Mmap,
    Msync,
    Munmap,
    Open,
    OpenFlag,
    Operation,
    Pagemap,
    Pipe,
    Pread,
    Program,
    Pwrite,
    Statx,
    Step,
    Store,
    Vmsplice,
)
from tests.unit.model.stacks import DAX

SPAN = 2 << 20
PAGE = 4096
SPANS = 3
#: What comes in the middle: a mapping that goes and one that takes its name, or a child that dies; or nothing.
LATE = ("", "m", "n", "fork")
#: One of the region of DAX.
FRAME = (DAX.reading.volume("main").region_start or 0) // PAGE
OPENED: list[Operation] = [Open("f", "a", (OpenFlag.RDWR, OpenFlag.CREAT)), Mmap("m", SPANS * SPAN, file="f"), Pipe("p", nonblock=True)]


def drawn(random: Random) -> Program:
    """Return a program of loads and stores in a few spans, and of what looks at pages or takes them away."""

    def at() -> int:
        return random.randrange(SPANS) * SPAN + random.choice((0, PAGE, SPAN - PAGE))

    def one() -> Operation:
        return random.choice(
            (
                lambda: Load("m", at(), 8),
                lambda: Load("m", at(), 2 * PAGE),
                lambda: Store("m", at(), 8),
                lambda: Store("m", at(), 8),
                lambda: Load(random.choice(("n", "m")), at(), 8),
                lambda: Store("n", at(), value=5),
                lambda: Mincore("m", at(), PAGE),
                lambda: Pagemap("m", at(), PAGE),
                lambda: Pagemap("n", at(), PAGE),
                lambda: Mincore("m"),
                lambda: Pread("f", at(), 100),
                lambda: Pwrite("f", at(), 100),
                lambda: Fsync("f"),
                lambda: Msync("m"),
                lambda: Statx("f"),
                lambda: FutexWake("m", at()),
                lambda: Vmsplice("p", "m", at(), 100),
                lambda: Madvise("m", Advice.DONTNEED, at(), PAGE),
                lambda: Fallocate("f", at(), PAGE, (AllocateFlag.PUNCH_HOLE, AllocateFlag.KEEP_SIZE)),
                lambda: Ftruncate("f", random.choice((SPAN, SPANS * SPAN))),
            )
        )()

    def other(name: str) -> Mmap:
        return Mmap(name, SPANS * SPAN, file="f", flags=(random.choice((MapFlag.SHARED, MapFlag.PRIVATE)),))

    prepared = random.choice(([Ftruncate("f", SPANS * SPAN)], [Fallocate("f", 0, SPANS * SPAN)], [Pwrite("f", 0, SPANS * SPAN)]))
    late = random.choice(LATE)
    steps = [Step(step) for step in (*OPENED[:1], *prepared, *OPENED[1:], other("n"), *(one() for _ in range(8)))]
    if late == "fork":  # a child that stores and dies behind the end of the file
        child = (Store("m", at(), 8), Ftruncate("f", SPAN), Load("m", 2 * SPAN, 8))
        steps += [Step(Fork("child")), *(Step(step, process="child") for step in child)]
    elif late:
        steps += [Step(Munmap(late)), Step(other(late)), *(Step(Pagemap(late, at(), PAGE)) for _ in range(2))]
    return Program((*steps, *(Step(one()) for _ in range(5))))


def seen_of(program: Program, random: Random) -> tuple[Observation, ...]:
    """Return what the model would see in one of the worlds that are possible, but for one answer about pages or faults."""
    seen = list(canonical(DAX, program, choose=random.randrange).observations)
    index = random.randrange(len(seen))
    one = seen[index]
    if one.minor_faults is not None:
        seen[index] = replace(one, minor_faults=max(0, one.minor_faults + random.choice((-1, 1))))
    elif one.resident:
        page = random.choice((0, SPAN // PAGE - 1, len(one.resident) - 1))
        seen[index] = replace(one, resident=one.resident[:page] + random.choice("01") + one.resident[page + 1 :])
    elif one.frames:
        seen[index] = replace(one, frames=(random.choice((0, FRAME, *one.frames)), *one.frames[1:]))
    return tuple(seen)


def each_once(states: Sequence[State]) -> list[State]:
    return list(dict.fromkeys(states))


def words(said: Judgement) -> list[tuple[Verdict, str]]:
    return [(step.verdict, step.reason) for step in said.steps]


@pytest.mark.parametrize("seed", range(6))
def test_states_kept_as_one_judge_as_each_of_them_would(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    random = Random(seed)
    verdicts, fewer = set(), 0
    for _ in range(40):
        program = drawn(random)
        seen = seen_of(program, random)
        part = Program(program.steps[: len(seen)])
        together = judge(DAX, part, seen)
        with monkeypatch.context() as patch:
            patch.setattr(judging, "joined", each_once)
            apart = judge(DAX, part, seen)
        assert words(together) == words(apart), part.steps
        verdicts.add(together.verdict)
        fewer += len(together.finals) < len(apart.finals)
    assert {Verdict.CONFORMS, Verdict.DEVIATES} <= verdicts
    assert fewer > 3


def in_spans(count: int, access: Callable[[int], Operation], *last: Operation) -> Program:
    opened = OPENED[0], Ftruncate("f", count * SPAN), Mmap("m", count * SPAN, file="f")
    return Program(tuple(Step(step) for step in (*opened, *(access(n * SPAN) for n in range(count)), *last)))


def test_the_blocks_that_a_store_allocated_are_there_when_its_mapping_is_gone() -> None:
    """Found by a reader: whether a span was allocated at once does not end with the mapping through which it was."""
    stored = [OPENED[0], Ftruncate("f", SPAN), Mmap("m", SPAN, file="f"), Store("m", 0, 8), Munmap("m"), Mmap("n", SPAN, file="f")]
    program = Program(tuple(Step(step) for step in (*stored, Load("n", SPAN // 2, 8), Pagemap("n", SPAN // 2, PAGE))))
    seen = canonical(DAX, program, choose=lambda count: count - 1).observations
    assert seen[-1].frames != (0,)
    inside = replace(seen[-1], frames=(FRAME + 7,))
    assert judge(DAX, program, (*seen[:-1], inside)).verdict is Verdict.CONFORMS


@pytest.mark.parametrize(("spans", "known"), [(10, True), (11, False)])
def test_so_many_spans_can_be_gone_through(spans: int, known: bool) -> None:
    program = in_spans(spans, lambda at: Load("m", at, 8), Fsync("f"))
    said = judge(DAX, program, canonical(DAX, program).observations)
    assert (said.verdict is Verdict.CONFORMS) is known


@pytest.mark.parametrize("access", [Load, Store])
def test_any_number_of_spans_that_nothing_was_seen_of_is_one_state(access: type[Load] | type[Store]) -> None:
    program = in_spans(40, lambda at: access("m", at, 8))
    said = judge(DAX, program, canonical(DAX, program).observations)
    assert (said.verdict, len(said.finals)) == (Verdict.CONFORMS, 1)


def test_more_spans_than_can_be_gone_through_are_undetermined_where_all_of_them_matter() -> None:
    program = in_spans(40, lambda at: Load("m", at, 8), Fsync("f"))
    said = judge(DAX, program, canonical(DAX, program).observations)
    assert said.steps[-1].reason == "more than 1024 states are possible here"
    assert all(step.verdict is Verdict.CONFORMS for step in said.steps[:-1])
