"""The final audit on hand-written findings: which files conform, which findings deviate, and when nothing can be said."""

from dataclasses import replace

import pytest

from harness.errors import AgentError
from harness.model.audit import (
    AFTER,
    AUDIT_CALLS,
    BEFORE,
    CHECK,
    MOUNT,
    NOT_MOUNTED,
    UNMOUNT,
    audited_volumes,
    unsure_end,
    what_worked,
    with_audit,
)
from harness.model.audit_outcome import Audit, CheckSeen, FileSeen, VolumeSeen, audit_from
from harness.model.judge import Judgement, StepVerdict
from harness.model.outcome import How, Observation, Run
from harness.model.verdict import Verdict
from harness.ops import (
    FutexWait,
    Join,
    Mmap,
    MountVolume,
    Open,
    OpenFlag,
    Pipe,
    Pread,
    Program,
    Pwrite,
    Sendfile,
    Splice,
    Step,
    Store,
    UmountVolume,
    UnixPair,
)
from harness.ops.tag import FOREIGN_WRITER, MAX_WRITER, PREPARED_WRITER
from tests.unit.model.stacks import DAX, Row, blocked, judged, returned, signalled, tag, zero

RDWR = (OpenFlag.RDWR, OpenFlag.CREAT)
#: A file of two pages, the first a hole.
ROWS: list[Row] = [(Open("f", "a", RDWR), returned()), (Pwrite("f", 4096, 4096), returned(4096))]
LEFT = (zero(4096), tag(4096, 2, offset=4096))
CLEAN = CheckSeen("e2fsck -fn /dev/pmem0", 0, "clean")


def seen(*runs: Run, path: str = "a", size: int | None = None) -> FileSeen:
    return FileSeen(path, sum(run.length for run in runs) if size is None else size, runs)


def volume(before: tuple[FileSeen, ...] = (seen(*LEFT),), after: tuple[FileSeen, ...] = (seen(*LEFT),), role: str = "main") -> VolumeSeen:
    return VolumeSeen(role, before, "", CLEAN, "", after)


def audited(*volumes: VolumeSeen, rows: list[Row] | None = None, skipped: str = "", flipped: frozenset[str] = frozenset()) -> Judgement:
    chosen = ROWS if rows is None else rows
    program = Program(tuple(op if isinstance(op, Step) else Step(op) for op, _ in chosen))
    return with_audit(judged(DAX, *chosen), program, Audit(volumes, skipped), flipped)


def deviations(judgement: Judgement) -> list[StepVerdict]:
    return [step for step in judgement.steps if step.verdict is Verdict.DEVIATES]


def test_what_the_model_has_conforms_with_all_five_clauses_behind_the_steps() -> None:
    result = audited(volume())
    assert result.verdict is Verdict.CONFORMS
    assert [step.clause for step in result.steps[2:]] == [BEFORE, UNMOUNT, CHECK, MOUNT, AFTER]
    assert {step.step for step in result.steps[2:]} == {2}
    assert set(AUDIT_CALLS) <= set(result.clauses)


@pytest.mark.parametrize("clause_id", AUDIT_CALLS)
def test_each_clause_turned_around_is_caught(clause_id: str) -> None:
    assert [step.clause for step in deviations(audited(volume(), flipped=frozenset({clause_id})))] == [clause_id]


def test_a_block_that_was_not_zeroed_shows_where_its_bytes_come_from() -> None:
    (found,) = deviations(audited(volume(after=(seen(tag(4096, FOREIGN_WRITER, 8192), LEFT[1]),))))
    assert found.clause == AFTER
    assert found.allowed == "a: bytes 0..4095: zeroes"
    assert found.observed == "a: bytes 0..4095: left from before the program (byte 8192 of what was removed from the volume then)"


def test_a_read_of_a_program_that_shows_an_unzeroed_block_says_so_too() -> None:
    rows = [*ROWS, (Pread("f", 0, 8192), returned(8192, tag(4096, FOREIGN_WRITER, 64), LEFT[1]))]
    (found,) = deviations(judged(DAX, *rows))
    assert "left from before the program (byte 64" in found.observed


def test_no_step_can_be_who_wrote_before_the_program() -> None:
    assert (FOREIGN_WRITER, PREPARED_WRITER) == (MAX_WRITER, MAX_WRITER - 1)
    Program((Step(Pwrite("f", 0, 8)),) * (PREPARED_WRITER - 1))
    with pytest.raises(ValueError, match="at most 16381 steps"):
        Program((Step(Pwrite("f", 0, 8)),) * PREPARED_WRITER)


@pytest.mark.parametrize(
    ("files", "allowed", "observed"),
    [
        ((), "a: a file of 8192 bytes", "a: no such file"),
        ((seen(*LEFT), seen(path="b")), "b: no such file", "b: a file of 0 bytes"),
        ((seen(zero(4096)),), "a: 8192 bytes", "a: 4096 bytes"),
        ((seen(zero(4096), size=8192),), "a: bytes 0..4095: 8192 bytes", "a: bytes 0..4095: 4096 bytes"),
        ((seen(zero(4096), zero(4096, 4096)),), "a: bytes 4096..8191: step 2 (its bytes from 0)", "a: bytes 4096..8191: zeroes"),
        ((FileSeen("a", 8192, None, "EIO"),), "a: can be read", "a: EIO"),
    ],
)
def test_a_file_that_is_not_as_the_model_has_it_deviates(files: tuple[FileSeen, ...], allowed: str, observed: str) -> None:
    for result, clause_id in ((audited(volume(before=files)), BEFORE), (audited(volume(after=files)), AFTER)):
        (found,) = deviations(result)
        assert (found.clause, found.allowed, found.observed) == (clause_id, allowed, observed)


def test_after_a_difference_before_the_unmount_the_rest_of_the_contents_is_not_judged_but_the_check_is() -> None:
    damaged = replace(volume(before=()), check=CheckSeen("e2fsck -fn /dev/pmem0", 4, "Inode 12, i_blocks is 8, should be 16."))
    assert [step.clause for step in deviations(audited(damaged))] == [BEFORE, CHECK]


@pytest.mark.parametrize(
    ("change", "clause_id", "observed"),
    [
        ({"unmount": "EBUSY", "check": None, "mount": None, "after": None}, UNMOUNT, "main: EBUSY"),
        ({"check": CheckSeen("xfs_repair -n /dev/pmem0", 1, "bad magic")}, CHECK, "xfs_repair -n /dev/pmem0: exit status 1\nbad magic"),
        ({"mount": "EUCLEAN", "after": None}, MOUNT, "main: EUCLEAN"),
    ],
)
def test_a_finding_deviates_and_what_follows_is_left_out(change: dict[str, object], clause_id: str, observed: str) -> None:
    (found,) = deviations(audited(replace(volume(), **change)))  # type: ignore[arg-type]
    assert (found.clause, found.observed) == (clause_id, observed)


def test_findings_count_where_contents_cannot_be_judged() -> None:
    lost: list[Row] = [*ROWS, (UnixPair("u"), returned()), (Pipe("p"), returned()), (Splice("u", "p", 8), returned(8))]
    bad = replace(volume(before=()), check=CheckSeen("e2fsck -fn /dev/pmem0", 4, "wrong"))
    result = audited(bad, rows=lost)
    assert result.verdict is Verdict.DEVIATES
    assert [step.clause for step in result.steps[len(lost) :]] == [UNMOUNT, CHECK, MOUNT]
    assert [step.clause for step in audited(bad, skipped="step 1 had not ended").steps[2:]] == [UNMOUNT, CHECK, MOUNT]


def test_a_file_that_is_too_large_to_be_read_leaves_the_audit_undetermined() -> None:
    large = FileSeen("a", 8192)
    result = audited(volume((large,), (large,)))
    assert result.verdict is Verdict.UNDETERMINED
    assert result.steps[2].reason == "a: 8192 bytes are more than an audit reads"


def test_without_an_audit_the_judgement_is_as_it_was() -> None:
    assert with_audit(judged(DAX, *ROWS), Program(()), None) == judged(DAX, *ROWS)


def test_a_store_behind_the_end_is_no_part_of_what_is_left() -> None:
    rows: list[Row] = [
        *ROWS[:1],
        (Pwrite("f", 0, 100), returned(100)),
        (Mmap("m", 4096, "f"), returned()),
        (Store("m", 200, 8), returned(8, minor_faults=1)),
    ]
    assert audited(volume((seen(tag(100, 2)),), (seen(tag(100, 2)),)), rows=rows).verdict is Verdict.CONFORMS


SET_UP = (MountVolume("main", "ext4", "dax=always"),)


def test_what_was_refused_or_never_ended_mounted_nothing() -> None:
    steps = (Step(MountVolume("main", "ext4", "dax=always")), Step(MountVolume("main", "ext4")), Step(UmountVolume()), Step(UmountVolume()))
    observations = (
        Observation(0, How.FAILED, errno="EINVAL"),
        Observation(1, How.RETURNED),
        Observation(2, How.FAILED, errno="EBUSY"),
        Observation(3, How.NOT_RUN),
    )
    worked = what_worked(Program(steps), observations)
    assert worked.steps == steps[1:2]
    assert audited_volumes(worked, ()) == (MountVolume("main", "ext4", ""),)


def test_what_was_started_worked_if_its_join_shows_it() -> None:
    steps = (Step(UmountVolume(), start="one"), Step(UmountVolume("target"), start="two"), Step(Join("one")), Step(Join("two")))
    observations = (
        Observation(0, How.STARTED),
        Observation(1, How.STARTED),
        Observation(2, How.RETURNED),
        Observation(3, How.FAILED, errno="EBUSY"),
    )
    assert what_worked(Program(steps), observations).steps == (steps[0], steps[2])


def test_a_volume_that_is_not_mounted_any_more_is_undetermined() -> None:
    result = audited(VolumeSeen("main"))
    assert (result.verdict, result.steps[-1].reason) == (Verdict.UNDETERMINED, NOT_MOUNTED)
    assert audited(VolumeSeen("main"), skipped="a step hangs").verdict is Verdict.CONFORMS


@pytest.mark.parametrize(
    ("steps", "mounted", "left"),
    [
        ((), SET_UP, SET_UP),
        ((UmountVolume(),), SET_UP, ()),
        ((UmountVolume(), MountVolume("main", "ext4", "dax=never")), SET_UP, (MountVolume("main", "ext4", "dax=never"),)),
        ((MountVolume("main", "xfs"),), (), (MountVolume("main", "xfs", ""),)),
        ((MountVolume("main", "ext4"),), (), (MountVolume("main", "ext4", ""),)),
    ],
)
def test_volumes_are_mounted_again_as_the_program_left_them(
    steps: tuple[UmountVolume | MountVolume, ...], mounted: tuple[MountVolume, ...], left: tuple[MountVolume, ...]
) -> None:
    assert audited_volumes(Program(tuple(Step(step) for step in steps)), mounted) == left


def test_what_still_ran_at_the_end_leaves_nobody_knows_what() -> None:
    wait, join = Step(FutexWait("m", 0, 0), start="w"), Step(Join("w"))
    started = Observation(0, How.BLOCKED)
    assert unsure_end(Program((wait,)), (started,)) == "step 1 had not ended when the program did"
    assert unsure_end(Program((wait, join)), (started, blocked())) == "step 1 had not ended when the program did"
    assert unsure_end(Program((wait, join)), (started, returned())) == ""
    assert unsure_end(Program((Step(Pwrite("f", 0, 8)),)), (blocked(),)) == "step 1 had not ended when the program did"
    assert unsure_end(Program((Step(Store("m", 0)),)), (signalled("SIGBUS"),)) == ""


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"volumes": [{}], "took_s": 0},
        {"volumes": [{"role": "main", "unmount": 5}], "took_s": 0},
        {"volumes": [{"role": "main", "check": {"argv": []}}], "took_s": 0},
        {"volumes": [{"role": "main", "before": [{"path": "a", "size": 8, "runs": [[8, 8, "zero"]]}]}], "took_s": 0},
        {"volumes": [{"role": "main", "before": [{"path": "a", "size": 8, "runs": [[0]]}]}], "took_s": 0},
    ],
)
def test_an_audit_that_is_none_is_an_agent_error(document: dict[str, object]) -> None:
    with pytest.raises(AgentError, match="an audit is malformed"):
        audit_from(document)


@pytest.mark.parametrize(
    ("command", "status"),
    [("e2fsck -fn /dev/pmem0", 127), ("e2fsck -fn /dev/pmem0", -9), ("e2fsck -fn /dev/pmem0", 8), ("xfs_repair -n /dev/x", 127)],
)
def test_a_check_that_could_not_be_made_is_no_finding(command: str, status: int) -> None:
    check = {"argv": command.split(), "status": status, "stdout": "", "stderr": "no such program in the guest"}
    with pytest.raises(AgentError, match=rf"could not be made: {command} gave exit status {status}\nno such program"):
        audit_from({"volumes": [{"role": "main", "check": check}], "took_s": 0})


def test_a_repair_that_gave_up_is_no_finding_though_its_status_is_that_of_one() -> None:
    words = "fatal error -- couldn't map block list"
    check = {"argv": ["xfs_repair", "-n", "/dev/x"], "status": 1, "stdout": "Phase 1\n", "stderr": words}
    with pytest.raises(AgentError, match="could not be made"):
        audit_from({"volumes": [{"role": "main", "check": check}], "took_s": 0})


def test_bytes_that_a_step_left_open_are_not_compared_and_all_others_are() -> None:
    rows: list[Row] = [
        (Open("f", "a", RDWR), returned()),
        (Pwrite("f", 0, 16384), returned(16384)),
        (Sendfile("f", "f", 4096, 100), returned(4096)),
    ]
    rest = tag(12288, 2, 4096, offset=4096)
    for open_bytes in (tag(4096, 2), tag(4096, 2, 100)):
        left = (seen(open_bytes, rest),)
        result = audited(volume(left, left), rows=rows)
        assert result.verdict is Verdict.CONFORMS
        assert "but for bytes that a step left open" in result.steps[3].observed
    wrong = (seen(tag(4096, 2), tag(12288, 2, 0, offset=4096)),)
    assert [step.clause for step in deviations(audited(volume(wrong, wrong), rows=rows))] == [BEFORE]
