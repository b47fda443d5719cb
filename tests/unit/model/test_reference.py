"""The model accepts what a trivial file system does, and nothing that is one byte or one count beside it."""

from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from harness.model.facts import Env
from harness.model.judge import judge
from harness.model.outcome import How, Observation
from harness.model.verdict import Verdict
from harness.ops import Pread, Program, Pwrite, Read, Splice, Step, Store
from tests.unit.model.reference import PROLOGUE, Reference, programs
from tests.unit.model.stacks import DAX, PAGE_CACHE

STACKS = pytest.mark.parametrize(("where", "dax"), [(DAX, True), (PAGE_CACHE, False)], ids=["dax", "page_cache"])
#: Derandomized, so that a change is judged by the same programs each time.
RELENTLESS = settings(max_examples=100, deadline=None, derandomize=True)


def verdict(where: Env, program: Program, seen: tuple[Observation, ...]) -> Verdict:
    return judge(Env(where.reading), program, seen).verdict


@STACKS
@RELENTLESS
@given(program=programs(removing=True))
def test_what_a_trivial_file_system_does_conforms(where: Env, dax: bool, program: Program) -> None:
    seen = Reference(dax).run(program)
    ran = sum(observation.how is not How.NOT_RUN for observation in seen)
    said = verdict(where, Program(program.steps[:ran]), seen[:ran])
    assume(said is not Verdict.UNDETERMINED)  # a file that is spliced onto an overlapping part of itself, here and below
    assert said is Verdict.CONFORMS


@STACKS
@RELENTLESS
@given(program=programs(removing=False), data=st.data())
def test_one_wrong_byte_deviates(where: Env, dax: bool, program: Program, data: st.DataObject) -> None:
    seen = Reference(dax).run(program)
    telling = [observation for observation in seen if observation.data]
    assume(telling and verdict(where, program, seen) is not Verdict.UNDETERMINED)
    wrong = data.draw(st.sampled_from(telling))
    assert wrong.data is not None
    run = wrong.data[0]
    at = data.draw(st.integers(0, run.length - 1))
    raw = run.raw[:at] + bytes([run.raw[at] ^ 1]) + run.raw[at + 1 :]
    changed = replace(wrong, data=(replace(run, raw=raw),))
    assert verdict(where, program, tuple(changed if s is wrong else s for s in seen)) is Verdict.DEVIATES


@STACKS
@RELENTLESS
@given(program=programs(removing=False), data=st.data())
def test_one_byte_too_many_deviates(where: Env, dax: bool, program: Program, data: st.DataObject) -> None:
    seen = Reference(dax).run(program)
    assume(verdict(where, program, seen) is not Verdict.UNDETERMINED)
    counting = [s for s in seen if s.how is How.RETURNED and isinstance(program.steps[s.step].operation, Pread | Pwrite | Read | Store)]
    wrong = data.draw(st.sampled_from(counting))
    changed = replace(wrong, value=wrong.value + 1)
    assert verdict(where, program, tuple(changed if s is wrong else s for s in seen)) is Verdict.DEVIATES


def test_only_the_other_kind_of_storage_explains_what_a_pipe_holds_after_an_overwrite() -> None:
    steps = (*PROLOGUE, Splice("f", "p", 4096, source_offset=0), Pwrite("f", 0, 4096), Read("p", 4096))
    program = Program(tuple(Step(op) for op in steps))
    for dax, right, other in ((True, DAX, PAGE_CACHE), (False, PAGE_CACHE, DAX)):
        seen = Reference(dax).run(program)
        assert verdict(right, program, seen) is Verdict.CONFORMS
        assert verdict(other, program, seen) is Verdict.DEVIATES
