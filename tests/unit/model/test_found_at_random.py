"""Programs at which random drawing once found the model to accuse a kernel that did nothing wrong, with what guests answered.

Each was shrunk until nothing could be left out, and run on the storage that it names (``tests/recorded/found.jsonl``).
"""

from pathlib import Path

import pytest

from harness.model.facts import Env
from harness.model.judge import judge
from harness.model.verdict import Verdict
from harness.record.mutants import Recorded, read_recorded

FOUND = Path(__file__).parents[2] / "recorded" / "found.jsonl"

#: Programs in which a file becomes what nobody specifies, because it is written from an overlapping part of itself.
UNSPECIFIED = {
    "debian_6.12-disk-ext4/C-RW-03-pread",
    "debian_6.12-disk-ext4/C-RW-06-write",
    "debian_6.12-e820-fsdax-ext4-dax_always/C-RW-03-read",
    "debian_6.12-e820-fsdax-ext4-dax_never/C-PIPE-05-read",
}


@pytest.mark.parametrize("run", [pytest.param(run, id=run.item) for run in read_recorded(FOUND)])
def test_what_guests_did_at_random_programs_conforms(run: Recorded) -> None:
    judgement = judge(Env(run.reading), run.program, run.observations)
    wrong = [
        f"step {s.step + 1}: observed {s.observed}; allowed {s.allowed} {s.reason}"
        for s in judgement.steps
        if s.verdict is not Verdict.CONFORMS
    ]
    wanted = Verdict.UNDETERMINED if run.item in UNSPECIFIED else Verdict.CONFORMS
    assert judgement.verdict is wanted, "\n".join(wrong)


def test_what_is_unspecified_names_programs() -> None:
    assert {run.item for run in read_recorded(FOUND)} >= UNSPECIFIED
