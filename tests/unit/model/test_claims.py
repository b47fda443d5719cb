"""From observations to evidence, and from evidence to the status of a claim."""

import pytest

from harness.model.claims import (
    Claim,
    Decision,
    Evidence,
    Growth,
    HoldsIf,
    Pages,
    Range,
    Status,
    Unavailable,
    claim_statuses,
    find_held,
    make_evidence,
)
from harness.model.outcome import How, Observation, Run, RunKind
from harness.model.stack import StackReading, VolumeReading
from harness.model.verdict import Verdict

KERNEL = "debian_6.12"
START, PAGE = 0x40000000, 4096


def reading(start: int | None = START) -> StackReading:
    volume = VolumeReading(
        role="main",
        device="/dev/pmem0",
        root="/mnt/main",
        filesystem="ext4",
        mount_options=(),
        dax=True,
        queue_dax=True,
        logical_block_bytes=512,
        filesystem_block_bytes=4096,
        size_bytes=4 * PAGE,
        region_start=start,
        region_size_bytes=None if start is None else 4 * PAGE,
    )
    return StackReading("6.12", (volume,))


RETURNED = Observation(0, How.RETURNED, value=8)
TAGGED = Observation(0, How.RETURNED, value=8, data=(Run(0, 8, RunKind.TAG, writer=3), Run(8, 8, RunKind.TAG, writer=3, source=64)))
FIRST, LAST, OUTSIDE = START // PAGE, START // PAGE + 3, START // PAGE + 4


@pytest.mark.parametrize(
    ("wanted", "seen", "held"),
    [
        (HoldsIf(works=True), RETURNED, True),
        (HoldsIf(works=False), RETURNED, False),
        (HoldsIf(works=False), Observation(0, How.FAILED, errno="EFAULT"), True),
        (HoldsIf(works=True), Observation(0, How.BLOCKED), False),
        (HoldsIf(returns=Range(8, 8)), RETURNED, True),
        (HoldsIf(returns=Range(9, None)), RETURNED, False),
        (HoldsIf(returns=Range(0, 0)), Observation(0, How.FAILED, errno="EIO"), False),
        (HoldsIf(errno="EFAULT"), Observation(0, How.FAILED, errno="EFAULT"), True),
        (HoldsIf(errno="EFAULT"), Observation(0, How.FAILED, errno="EINVAL"), False),
        (HoldsIf(errno="EFAULT"), RETURNED, False),
        (HoldsIf(signal="SIGBUS"), Observation(0, How.SIGNAL, signal="SIGBUS"), True),
        (HoldsIf(blocked=True), Observation(0, How.BLOCKED), True),
        (HoldsIf(blocked=False), Observation(0, How.BLOCKED), False),
        (HoldsIf(works=True), Observation(0, How.NOT_RUN), None),
        (HoldsIf(attributes=(("dax", 1),)), Observation(0, How.RETURNED, attributes=(("dax", 1),)), True),
        (HoldsIf(attributes=(("dax", 1),)), Observation(0, How.RETURNED, attributes=(("dax", 0),)), False),
        (HoldsIf(attributes=(("dax", 1),)), RETURNED, None),
        (HoldsIf(resident=Pages.ALL), Observation(0, How.RETURNED, resident="11"), True),
        (HoldsIf(resident=Pages.ALL), Observation(0, How.RETURNED, resident="10"), False),
        (HoldsIf(resident=Pages.NONE), Observation(0, How.RETURNED, resident="10"), False),
        (HoldsIf(resident=Pages.NONE), Observation(0, How.RETURNED, resident="00"), True),
        (HoldsIf(resident=Pages.NONE), RETURNED, None),
        (HoldsIf(frames_in_region=Pages.ALL), Observation(0, How.RETURNED, frames=(FIRST, LAST)), True),
        (HoldsIf(frames_in_region=Pages.ALL), Observation(0, How.RETURNED, frames=(FIRST, OUTSIDE)), False),
        (HoldsIf(frames_in_region=Pages.NONE), Observation(0, How.RETURNED, frames=(OUTSIDE,)), True),
        (HoldsIf(frames_in_region=Pages.NONE), Observation(0, How.RETURNED, frames=(0,)), None),
        (HoldsIf(frames_in_region=Pages.NONE), RETURNED, None),
        (HoldsIf(minor_faults=Range(None, 2)), Observation(0, How.RETURNED, minor_faults=1), True),
        (HoldsIf(minor_faults=Range(512, None)), Observation(0, How.RETURNED, minor_faults=1), False),
        (HoldsIf(minor_faults=Range(None, 2)), RETURNED, None),
        (HoldsIf(written_by=2), TAGGED, True),
        (HoldsIf(written_by=1), TAGGED, False),
        (HoldsIf(written_by=1), RETURNED, None),
        (HoldsIf(zeroes=True), Observation(0, How.RETURNED, data=(Run(0, 8, RunKind.ZERO),)), True),
        (HoldsIf(zeroes=True), TAGGED, False),
        (HoldsIf(zeroes=False), TAGGED, True),
        (HoldsIf(works=True, resident=Pages.ALL), RETURNED, None),
        (HoldsIf(works=False, resident=Pages.ALL), RETURNED, False),
        (HoldsIf(), RETURNED, None),
    ],
)
def test_a_decision_asks_the_observation_of_its_step(wanted: HoldsIf, seen: Observation, held: bool | None) -> None:
    assert find_held(Decision("c", 0, wanted), (seen,), reading()) is held


def test_frames_say_nothing_where_there_is_no_region() -> None:
    seen = Observation(0, How.RETURNED, frames=(FIRST,))
    assert find_held(Decision("c", 0, HoldsIf(frames_in_region=Pages.NONE)), (seen,), reading(None)) is None


def test_growth_compares_two_steps() -> None:
    seen = (Observation(0, How.RETURNED, value=100), Observation(1, How.RETURNED, value=180), Observation(2, How.FAILED, errno="EIO"))
    assert find_held(Decision("c", 1, HoldsIf(growth=Growth(0, Range(80, None)))), seen, reading()) is True
    assert find_held(Decision("c", 1, HoldsIf(growth=Growth(0, Range(None, 79)))), seen, reading()) is False
    assert find_held(Decision("c", 2, HoldsIf(growth=Growth(0, Range(80, None)))), seen, reading()) is None


def test_all_decisions_of_an_item_on_a_claim_must_hold() -> None:
    decisions = [
        Decision("c", 0, HoldsIf(works=True)),
        Decision("c", 0, HoldsIf(returns=Range(9, 9))),
        Decision("d", 0, HoldsIf(works=True)),
    ]
    made = make_evidence(KERNEL, "item", decisions, (RETURNED,), reading(), Verdict.CONFORMS)
    assert [(e.claim, e.held) for e in made] == [("c", False), ("d", True)]


def test_a_range_describes_itself() -> None:
    assert [Range(8, 8).describe(), Range(1, None).describe(), Range(1, 2).describe()] == ["8", "at least 1", "at least 1 and at most 2"]


# ---- status ----------------------------------------------------------------------------------------------------------

CLAIM = Claim("c", "family", "It was so.", "a thread", Status.HOLDS_NO_LONGER)


def evidence(item: str, held: bool | None, verdict: Verdict | None = Verdict.CONFORMS, note: str = "") -> Evidence:
    return Evidence("c", KERNEL, item, held, verdict, note)


def status(*pieces: Evidence, claim: Claim = CLAIM, unavailable: tuple[Unavailable, ...] = ()) -> Status:
    (found,) = claim_statuses([claim], [KERNEL], pieces, unavailable)
    return found.status


def test_a_claim_with_evidence_for_it_holds() -> None:
    assert status(evidence("a", True), evidence("b", None)) is Status.HOLDS


def test_a_claim_with_evidence_against_it_gets_the_word_of_the_registry() -> None:
    assert status(evidence("a", False)) is Status.HOLDS_NO_LONGER
    assert status(evidence("a", False), claim=Claim("c", "family", "w", "s", Status.NEVER_DID)) is Status.NEVER_DID


def test_mixed_evidence_is_shown_as_disputed() -> None:
    (found,) = claim_statuses([CLAIM], [KERNEL], [evidence("a", True), evidence("b", False)])
    assert (found.status, found.held, found.failed) == (Status.DISPUTED, ("a",), ("b",))
    assert found.reason == "1 items say that it holds, 1 that it does not"


def test_only_items_that_completed_and_conform_back_a_claim() -> None:
    pieces = [
        evidence("a", True, Verdict.UNDETERMINED),
        evidence("b", False, Verdict.DEVIATES),
        evidence("c", None, None, "guest crashed"),
        evidence("d", None, None),
        evidence("e", None),
    ]
    (found,) = claim_statuses([CLAIM], [KERNEL], pieces)
    assert (found.status, found.held, found.failed, found.reason) == (Status.UNDETERMINED, (), (), "no item that conforms decides it")
    assert dict(found.set_aside) == {
        "a": "its verdict is undetermined",
        "b": "its verdict is deviates",
        "c": "guest crashed",
        "d": "it did not complete",
        "e": "the evidence is missing",
    }


def test_a_claim_that_no_item_decides_is_undetermined() -> None:
    (found,) = claim_statuses([CLAIM], [KERNEL], [])
    assert (found.status, found.reason) == (Status.UNDETERMINED, "no item that decides it was run")


def test_a_claim_whose_items_cannot_run_here_is_not_reproducible_here() -> None:
    missing = Unavailable("c", KERNEL, "a", "the kernel has no soft-RoCE")
    (found,) = claim_statuses([CLAIM], [KERNEL], [], [missing])
    assert (found.status, found.reason, found.set_aside) == (Status.NOT_REPRODUCIBLE, missing.reason, (("a", missing.reason),))


def test_one_item_that_runs_outweighs_those_that_cannot() -> None:
    assert status(evidence("a", True), unavailable=(Unavailable("c", KERNEL, "b", "why"),)) is Status.HOLDS


def test_the_registry_can_say_that_a_claim_is_not_reproducible() -> None:
    claim = Claim("c", "family", "w", "s", None, "no such memory")
    (found,) = claim_statuses([claim], [KERNEL], [])
    assert (found.status, found.reason) == (Status.NOT_REPRODUCIBLE, "no such memory")


def test_every_claim_has_a_status_on_every_kernel() -> None:
    other = Claim("d", "family", "w", "s", Status.NEVER_DID)
    found = claim_statuses([CLAIM, other], [KERNEL, "debian_6.1"], [evidence("a", True)])
    assert [(s.claim.id, s.kernel, s.status) for s in found] == [
        ("c", KERNEL, Status.HOLDS),
        ("c", "debian_6.1", Status.UNDETERMINED),
        ("d", KERNEL, Status.UNDETERMINED),
        ("d", "debian_6.1", Status.UNDETERMINED),
    ]
