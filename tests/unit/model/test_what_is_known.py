"""The judge says only what it knows: after what it cannot judge nothing deviates, and no state that is possible is dropped."""

import pytest

from harness.model import judge as judge_module
from harness.model.facts import Env
from harness.model.judge import judge
from harness.model.outcome import How, Observation
from harness.model.verdict import Verdict
from harness.ops import (
    Close,
    DropCaches,
    Fork,
    Join,
    Load,
    Mincore,
    Mmap,
    Open,
    OpenFlag,
    Pagemap,
    Pipe,
    Pread,
    Program,
    Pwrite,
    Read,
    Smaps,
    Splice,
    Step,
    Store,
    UnixPair,
    Write,
)
from tests.unit.model.stacks import DAX, PAGE_CACHE, Row, blocked, failed, judged, returned, signalled, tag

RDWR = (OpenFlag.RDWR, OpenFlag.CREAT)
FILE: list[Row] = [(Open("f", "a", RDWR), returned()), (Pwrite("f", 0, 8192), returned(8192))]
MAPPED: list[Row] = [*FILE, (Mmap("m", 8192, "f"), returned())]
#: A step that no rule covers.
UNJUDGED: list[Row] = [(UnixPair("u"), returned()), (Pipe("q"), returned()), (Splice("u", "q", 10), returned(10))]


def test_after_a_step_that_no_rule_can_judge_nothing_deviates_and_the_step_is_named() -> None:
    result = judged(DAX, *FILE, *UNJUDGED, (Pread("f", 0, 8192), returned(8192, tag(8192, 9))))
    assert result.verdict is Verdict.UNDETERMINED
    assert "step 5 could not be judged" in result.steps[-1].reason
    assert not result.finals


def test_what_deviates_before_such_a_step_deviates_still() -> None:
    assert judged(DAX, *FILE, (Pread("f", 0, 10), returned(9, tag(9, 2))), *UNJUDGED).verdict is Verdict.DEVIATES


def test_past_the_bound_on_states_the_item_is_undetermined_and_no_state_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge_module, "MAX_STATES", 1)
    # A refused direct write may have taken the cached pages away, or not.
    refused: list[Row] = [(Open("d", "a", (OpenFlag.RDWR, OpenFlag.DIRECT)), returned()), (Pwrite("d", 1, 512), failed("EINVAL"))]
    result = judged(PAGE_CACHE, *FILE, *refused, (Pread("f", 0, 1), returned(1, tag(1, 2))))
    assert result.verdict is Verdict.UNDETERMINED
    assert "more than 1 states" in result.steps[-2].reason
    assert "more than 1 states" in result.steps[-1].reason


@pytest.mark.parametrize(
    ("op", "seen", "words"),
    [
        (Smaps("m"), returned(), "no VmFlags"),
        (Mincore("m"), returned(), "whether it is resident"),
        (Mincore("m"), returned(0, resident="1"), "whether it is resident"),
        (Pagemap("m"), returned(), "where it is"),
        (Pagemap("m"), returned(0, frames=(0,)), "where it is"),
        (Pread("f", 0, 10), returned(10), "carries no data"),
    ],
)
def test_evidence_that_is_missing_or_short_is_undetermined(op: object, seen: Observation, words: str) -> None:
    result = judged(PAGE_CACHE, *MAPPED, (op, seen), (Pread("f", 0, 10), returned(10, tag(10, 2))))  # type: ignore[arg-type]
    assert result.steps[3].verdict is Verdict.UNDETERMINED
    assert words in result.steps[3].reason
    assert result.steps[4].verdict is Verdict.CONFORMS


@pytest.mark.parametrize("op", [Load("m", 0, 8), Store("m", 0, 8)])
def test_a_load_or_store_that_does_not_say_how_many_faults_it_took_is_undetermined(op: Load | Store) -> None:
    steps = (*(Step(row[0]) for row in MAPPED), Step(op))  # type: ignore[arg-type]
    data = (tag(8, 2),) if isinstance(op, Load) else None
    seen = [*(row[1] for row in MAPPED), Observation(0, How.RETURNED, 8, data=data)]
    numbered = tuple(Observation(**{**vars(o), "step": i}) for i, o in enumerate(seen))
    last = judge(Env(DAX.reading), Program(steps), numbered).steps[-1]
    assert last.verdict is Verdict.UNDETERMINED
    assert "faults" in last.reason


# ---- what sleeps -----------------------------------------------------------------------------------------------------

ASLEEP: list[Row] = [
    (Pipe("p"), returned()),
    (Fork("child"), returned()),
    (Step(Read("p", 100), "child", start="r"), blocked()),
    (Write("p", 10), returned(10)),
]


@pytest.mark.parametrize("taken", [True, False])
def test_while_a_started_read_sleeps_its_bytes_may_be_taken_or_still_there(taken: bool) -> None:
    joined: Row = (Join("r"), returned(10, tag(10, 4)) if taken else returned(7, tag(7, 6)))
    look: list[Row] = [(Read("p", 3), blocked())] if taken else [(Read("p", 10), returned(10, tag(10, 4))), (Write("p", 7), returned(7))]
    assert judged(DAX, *ASLEEP, *look, joined).verdict is Verdict.CONFORMS


def test_what_a_sleeper_took_cannot_be_read_again() -> None:
    rows: list[Row] = [(Read("p", 10), returned(10, tag(10, 4))), (Join("r"), returned(10, tag(10, 4)))]
    assert judged(DAX, *ASLEEP, *rows).verdict is Verdict.DEVIATES


def test_a_sleeper_that_nobody_joins_leaves_what_it_touches_open() -> None:
    gone = judged(DAX, *ASLEEP, (Read("p", 10), returned(3, tag(3, 4))))
    assert gone.verdict is Verdict.UNDETERMINED
    assert "nobody joins it" in gone.steps[-1].reason


def test_a_write_that_filled_a_pipe_goes_on_where_it_stopped() -> None:
    rows: list[Row] = [
        (Pipe("p"), returned()),
        (Fork("child"), returned()),
        (Step(Write("p", 70000), "child", start="w"), blocked()),
        (Read("p", 65536), returned(65536, tag(65536, 3))),
        (Join("w"), returned(70000)),
        (Read("p", 65536), returned(4464, tag(4464, 3, 65536))),
    ]
    assert judged(DAX, *rows).verdict is Verdict.CONFORMS


# ---- what ends -------------------------------------------------------------------------------------------------------


def test_a_pipe_ends_only_when_the_last_process_has_closed_its_end_or_died() -> None:
    rows: list[Row] = [
        *MAPPED,
        (Mmap("far", 65536, "f"), returned()),
        (Pipe("p", nonblock=True), returned()),
        (Fork("child"), returned()),
        (Close("p", "write"), returned()),
        (Read("p", 1), failed("EAGAIN")),
        (Step(Load("far", 8192, 1), "child"), signalled("SIGBUS")),
    ]
    assert judged(DAX, *rows, (Read("p", 1), returned(0))).verdict is Verdict.CONFORMS
    assert judged(DAX, *rows, (Read("p", 1), failed("EAGAIN"))).verdict is Verdict.DEVIATES


def test_a_store_that_dies_halfway_leaves_what_it_reached_open() -> None:
    rows: list[Row] = [
        *FILE,
        (Mmap("m", 65536, "f"), returned()),
        (Fork("child"), returned()),
        (Step(Store("m", 8188, 8), "child"), signalled("SIGBUS")),
    ]
    for last in (tag(4, 2, 8188), tag(4, 5)):
        look = judged(DAX, *rows, (Pread("f", 8188, 4), returned(4, last)))
        assert look.verdict is not Verdict.DEVIATES
    assert judged(DAX, *rows, (Pread("f", 0, 8), returned(8, tag(8, 5)))).verdict is Verdict.DEVIATES


def test_every_state_that_is_possible_at_the_end_is_told() -> None:
    result = judged(DAX, *FILE, (DropCaches(), returned()))
    assert [state.memory(state.files["main", "a"]).size for state in result.finals] == [8192]
