"""Programs at which random drawing once found the model to accuse a kernel that did nothing wrong, with what guests answered.

Each was shrunk until nothing could be left out, and run on the storage that it names (``tests/recorded/found.jsonl``).
"""

from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from harness.model.facts import Env
from harness.model.judge import judge
from harness.model.verdict import Verdict
from harness.run.mutants import Recorded, read_recorded

FOUND = Path(__file__).parents[2] / "recorded" / "found.jsonl"

#: What is still judged wrongly: the clause that accuses the kernel, by program. One that is mended must leave this list.
OPEN: dict[str, str] = {
    "debian_6.1-e820-fsdax-ext4-dax_always/C-CORE-01-mincore": "C-CORE-01",
    "debian_6.1-e820-fsdax-ext4-dax_always/C-PIPE-02-set_pipe_size": "C-PIPE-02",
    "debian_6.1-nvdimm-fsdax-xfs-dax_never/C-SPLICE-11-sendfile": "C-SPLICE-11",
    "debian_6.12-disk-ext4/C-ALLOC-01-fallocate": "C-ALLOC-01",
    "debian_6.12-disk-ext4/C-PIPE-07-splice": "C-PIPE-07",
    "debian_6.12-disk-ext4/C-RW-03-pread": "C-RW-03",
    "debian_6.12-disk-ext4/C-SPLICE-10-sendfile": "C-SPLICE-10",
    "debian_6.12-e820-fsdax-ext4-dax_always/C-COPY-03-copy_file_range": "C-COPY-03",
    "debian_6.12-e820-fsdax-ext4-dax_always/C-FAULT-01-store": "C-FAULT-01",
    "debian_6.12-e820-fsdax-ext4-dax_always/C-FRAME-03-pagemap": "C-FRAME-03",
    "debian_6.12-e820-fsdax-ext4-dax_always/C-MAP-08-madvise": "C-MAP-08",
    "debian_6.12-e820-fsdax-ext4-dax_always/C-MAP-09-madvise": "C-MAP-09",
    "debian_6.12-e820-fsdax-ext4-dax_always/C-RW-02-preadv": "C-RW-02",
    "debian_6.12-e820-fsdax-ext4-dax_always/C-RW-03-read": "C-PIPE-13",
    "debian_6.12-e820-fsdax-ext4-dax_always/C-SEEK-01-lseek": "C-SEEK-01",
    "debian_6.12-e820-fsdax-ext4-dax_never/C-COPY-01-copy_file_range": "C-COPY-01",
    "debian_6.12-e820-fsdax-ext4-dax_never/C-FAULT-02-store": "C-FAULT-02",
    "debian_6.12-e820-fsdax-ext4-dax_never/C-PIPE-05-read": "C-PIPE-05",
    "debian_6.12-e820-fsdax-ext4-dax_never/C-RW-02-pread": "C-RW-02",
    "debian_6.12-e820-fsdax-ext4-dax_never/C-SPLICE-10-splice": "C-SPLICE-10",
    "debian_6.12-e820-fsdax-node/C-SEEK-01-lseek": "C-SEEK-01",
    "debian_6.12-nvdimm-fsdax-xfs-dax_always/C-COPY-01-copy_file_range": "C-COPY-01",
    "debian_6.12-nvdimm-fsdax-xfs-dax_always/C-FAULT-01-load": "C-FAULT-01",
    "debian_6.12-nvdimm-fsdax-xfs-dax_never/C-MAP-07-mprotect": "C-MAP-07",
    "debian_6.12-nvdimm-fsdax-xfs-dax_never/C-MAP-10-madvise": "C-MAP-10",
    "debian_6.12-nvdimm-fsdax-xfs-dax_never/C-SYNC-02-msync": "C-SYNC-02",
}


def found(run: Recorded) -> ParameterSet:
    clause = OPEN.get(run.item)
    marks = [] if clause is None else [pytest.mark.xfail(strict=True, reason=f"{clause} accuses the kernel falsely")]
    return pytest.param(run, id=run.item, marks=marks)


@pytest.mark.parametrize("run", [found(run) for run in read_recorded(FOUND)])
def test_what_guests_did_at_random_programs_conforms(run: Recorded) -> None:
    judgement = judge(Env(run.reading), run.program, run.observations)
    wrong = [
        f"step {s.step + 1}: observed {s.observed}; allowed {s.allowed} {s.reason}"
        for s in judgement.steps
        if s.verdict is not Verdict.CONFORMS
    ]
    assert judgement.verdict is Verdict.CONFORMS, "\n".join(wrong)


def test_the_list_of_what_is_open_names_programs() -> None:
    assert set(OPEN) <= {run.item for run in read_recorded(FOUND)}
