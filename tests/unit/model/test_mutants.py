"""Every clause and every fact that the recorded observations hit matters: turn it around, and one of them is rejected."""

from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.model.facts import Env
from harness.model.judge import judge
from harness.model.verdict import Verdict
from harness.record.mutants import Recorded, read_recorded, score, smallest_cover, write_recorded

RECORDED = Path(__file__).parents[2] / "recorded" / "observations.jsonl"


@pytest.fixture(scope="module")
def runs() -> list[Recorded]:
    return list(read_recorded(RECORDED))


def test_what_real_guests_showed_conforms(runs: list[Recorded]) -> None:
    assert runs
    for run in runs:
        assert judge(Env(run.reading), run.program, run.observations).verdict is Verdict.CONFORMS, run.item


def test_every_flipped_clause_or_fact_is_caught(runs: list[Recorded]) -> None:
    scores = [score(run) for run in runs]
    met = frozenset[str]().union(*(s.met for s in scores))
    caught = frozenset[str]().union(*(s.caught for s in scores))
    assert met
    assert met - caught == frozenset()


def test_recorded_runs_survive_being_written(runs: list[Recorded], tmp_path: Path) -> None:
    write_recorded(tmp_path / "again.jsonl", runs[:3])
    assert list(read_recorded(tmp_path / "again.jsonl")) == sorted(runs[:3], key=lambda r: r.item)


def test_a_cover_catches_all_that_the_whole_catches(runs: list[Recorded]) -> None:
    some = runs[:10]
    chosen, _ = smallest_cover(some)
    everything = frozenset[str]().union(*(score(r).caught for r in some))
    assert frozenset[str]().union(*(score(r).caught for r in chosen)) == everything


def test_a_missing_collection_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no recorded observations"):
        list(read_recorded(tmp_path / "nothing.jsonl"))
