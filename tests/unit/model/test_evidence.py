"""What an operation shows is declared with it: guests show nothing else, and the model asks for nothing else."""

from collections.abc import Iterator
from pathlib import Path

from harness.model.canonical import canonical
from harness.model.facts import Env
from harness.model.outcome import ALWAYS_SHOWN, Observation
from harness.ops import OPERATIONS, Program
from harness.record.mutants import read_recorded

RECORDED = Path(__file__).parents[2] / "recorded"
#: What no recorded run shows: guests that have RDMA, and whose sockets tell of nothing but zero-copy sends.
RARE = {("rdma_open", "reason"), ("recv_errqueue", "origin")}


def evidence_of(program: Program, observations: tuple[Observation, ...]) -> Iterator[tuple[str, str]]:
    for seen in observations:
        for name in seen.evidence - ALWAYS_SHOWN:
            yield program.performed(seen.step).call, name


def test_guests_showed_what_is_declared_all_of_it_and_nothing_else() -> None:
    runs = [run for file in RECORDED.glob("*.jsonl") for run in read_recorded(file)]
    shown = {pair for run in runs for pair in evidence_of(run.program, run.observations)}
    declared = {(call, one.name) for call, cls in OPERATIONS.items() for one in cls.shows}
    assert shown == declared - RARE


def test_the_model_asks_for_nothing_that_is_not_declared() -> None:
    for file in RECORDED.glob("*.jsonl"):
        for run in read_recorded(file):
            foretold = canonical(Env(run.reading), run.program).observations
            for call, name in evidence_of(run.program, foretold):
                assert name in {one.name for one in OPERATIONS[call].shows}, (run.item, call, name)


def test_every_piece_of_evidence_has_one_meaning() -> None:
    meanings = {one for cls in OPERATIONS.values() for one in cls.shows}
    assert len({one.name for one in meanings}) == len(meanings)
