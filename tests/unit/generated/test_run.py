"""Generated programs are run, kept and judged; one hundred of them on this computer's tmpfs."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.errors import HostError
from harness.guest.layout import Layout
from harness.machine.ending import Ending as GuestEnding
from harness.machine.ending import EndKind
from harness.model.complaint import Report, ReportKind
from harness.model.outcome import How, Observation
from harness.model.verdict import Verdict
from harness.ops import Meminfo, Open, OpenFlag, Pread, Program, Pwrite, Step
from harness.record.item import Ending
from tests.generated import run
from tests.generated.generator import World, draw
from tests.generated.run import (
    Damage,
    GuestStage,
    Judged,
    Ran,
    Recording,
    Stage,
    host_reading,
    host_stages,
    judged,
    program_lines,
    read_recordings,
    record,
    step_kinds,
    summary_lines,
    write_recording,
)

RDWR = (OpenFlag.CREAT, OpenFlag.RDWR)
PROGRAM = Program((Step(Open("f", "a", RDWR)), Step(Pwrite("f", 0, 10)), Step(Pread("f", 0, 10))))
#: Of the first hundred programs of seed 1 so many may be judged to deviate on a tmpfs.
MOST_DEVIATING = 4


def recording(*observations: Observation, program: Program = PROGRAM, index: int = 3) -> Recording:
    return Recording(1, index, "somewhere", program, host_reading(), observations, Ending.COMPLETED, "")


RIGHT = recording(
    Observation(0, How.RETURNED, 0),
    Observation(1, How.RETURNED, 10),
    Observation(2, How.FAILED, errno="EIO"),
)


class FakeStage:
    """Runs nothing, and is damaged by one program; ``quiet``: among others it does not say which one that was."""

    def __init__(self, damaging: int, quiet: int = 0, why: str = "damaged") -> None:
        self.reading, self.world = host_reading(), World()
        self.ran: list[list[int]] = []
        self._damaging, self._quiet, self._why, self._damaged = damaging, quiet, why, False

    def run(self, programs: Sequence[Program]) -> Iterator[Ran]:
        self.ran.append([len(program.steps) for program in programs])
        self._damaged = self._damaging in self.ran[-1]
        for length in self.ran[-1]:
            if self._quiet and self._damaged and len(programs) > 1 and length == self._quiet:
                return
            yield Ran(None, Ending.LOST, "it is a fake")
            if length == self._damaging:
                return

    def find_damage(self) -> Damage | None:
        if not self._damaged:
            return None
        count = len(self.ran[-1])
        is_quiet = self._quiet in self.ran[-1] and count > 1
        together, unanswered = (count, count - self.ran[-1].index(self._quiet)) if is_quiet else (0, 0)
        return Damage(Ending.COMPLETED, self._why, together, unanswered)


def test_a_hundred_programs_on_this_computer_are_judged_and_few_deviate() -> None:
    """The agent and the judge fail at none; what deviates is printed, and drawn again by its index."""

    def choose(world: World) -> Iterator[tuple[int, int, Program]]:
        return ((1, index, draw(1, index, world)) for index in range(100))

    with host_stages() as start_one:
        found = [judged(one) for one in record(start_one, choose, "host-tmpfs", print)]
    assert len(found) == 100
    assert [one.recording.note for one in found if one.recording.ending is not Ending.COMPLETED] == []
    assert [one.crash for one in found if one.crash] == []
    deviating = [one for one in found if one.deviation]
    assert len(deviating) <= MOST_DEVIATING, "\n".join(line for one in deviating for line in program_lines(one))


def test_a_stage_that_is_damaged_is_given_up_and_the_next_one_goes_on() -> None:
    stages: list[FakeStage] = []
    programs = [Program((Step(Meminfo()),) * count) for count in (1, 2, 3)]

    @contextlib.contextmanager
    def start_one() -> Iterator[Stage]:
        stages.append(FakeStage(damaging=2))
        yield stages[-1]

    said: list[str] = []
    ran = list(record(start_one, lambda _: [(1, index, program) for index, program in enumerate(programs)], "nowhere", said.append))
    assert [one.index for one in ran] == [0, 1, 2]
    assert [stage.ran for stage in stages] == [[[1, 2, 3]], [[3]]]
    assert said == ["2 of 3 programs from 0 on ran, then: damaged; going on with a new guest"]


def test_where_nobody_knows_which_of_many_programs_did_it_those_left_are_run_one_at_a_time() -> None:
    stages: list[FakeStage] = []
    programs = [Program((Step(Meminfo()),) * count) for count in (1, 2, 3, 4)]

    @contextlib.contextmanager
    def start_one() -> Iterator[Stage]:
        stages.append(FakeStage(damaging=3, quiet=2))
        yield stages[-1]

    said: list[str] = []
    ran = list(record(start_one, lambda _: [(1, index, program) for index, program in enumerate(programs)], "nowhere", said.append))
    assert [one.index for one in ran] == [0, 1, 2, 3]
    assert [stage.ran for stage in stages] == [[[1, 2, 3, 4]], [[2], [3]], [[4]]]
    assert said == [
        "1 of 4 programs from 0 on ran, then: damaged; going on with a new guest",
        "1 of 1 programs from 2 on ran, then: damaged; going on with a new guest",
    ]


def recorded(*stages: FakeStage, programs: int = 4) -> list[Recording]:
    """What is recorded of so many programs, the first of one step, on these stages one after the other."""
    left = list(stages)

    @contextlib.contextmanager
    def start_one() -> Iterator[Stage]:
        if not left:
            raise HostError("no other guest")
        yield left.pop(0)

    chosen = [(1, index, Program((Step(Meminfo()),) * (index + 1))) for index in range(programs)]
    found: list[Recording] = []
    with contextlib.suppress(HostError):
        found.extend(record(start_one, lambda _: chosen, "nowhere", lambda _: None))
    return found


COMPLAINT = "its kernel complained: WARNING: CPU: 0 PID: 17 at fs/dax.c:123"


def test_damage_that_no_program_does_alone_leaves_a_recording_of_all_of_them() -> None:
    *ran, last = recorded(FakeStage(damaging=3, quiet=2, why=COMPLAINT), FakeStage(damaging=9))
    assert [one.index for one in ran] == [0, 1, 2, 3]
    assert [one.together for one in ran] == [()] * 4
    assert (last.index, last.together, last.ending, last.note) == (0, (0, 1, 2, 3), Ending.COMPLETED, COMPLAINT)
    assert last.observations is None


def test_damage_that_a_program_does_alone_explains_the_same_of_many_and_no_other() -> None:
    again = FakeStage(damaging=3, why="its kernel complained: WARNING: CPU: 1 PID: 99 at fs/dax.c:123")
    ran = recorded(FakeStage(damaging=3, quiet=2, why=COMPLAINT), again, FakeStage(damaging=9))
    assert [one.together for one in ran] == [()] * 4
    other = FakeStage(damaging=3, why="its kernel complained: INFO: task blocked")
    *ran, last = recorded(FakeStage(damaging=3, quiet=2, why=COMPLAINT), other, FakeStage(damaging=9))
    assert [one.index for one in ran] == [0, 1, 2, 3]
    assert (last.together, last.note) == ((0, 1, 2, 3), COMPLAINT)


def test_damage_of_many_is_recorded_too_where_no_other_guest_can_be_had() -> None:
    *ran, last = recorded(FakeStage(damaging=3, quiet=2, why=COMPLAINT))
    assert [one.index for one in ran] == [0]
    assert (last.together, last.note) == ((0, 1, 2, 3), COMPLAINT)


class ComplainingGuest:
    """A guest on which all programs are answered, and whose kernel complains (``line``) or is tainted (``taint``) meanwhile."""

    def __init__(self, line: str = "", taint: int = 0) -> None:
        reports = (Report(ReportKind.WARNING, line, 0),) if line else ()
        stack: Any = SimpleNamespace(mount_in_program=True)
        layout = Layout(stack, ())
        answers = tuple(Observation(step, How.RETURNED, 0) for step in range(3))
        self.machine = SimpleNamespace(console=SimpleNamespace(mark=lambda: 0))
        self.session = SimpleNamespace(
            layout=layout, state=State(layout), taint=lambda: taint, run_many=lambda programs, fresh, **_: (answers for _ in programs)
        )
        self.ending = lambda mark: GuestEnding(EndKind.RUNNING, "", reports)
        self.refresh = lambda: replace(host_reading(), facts=(("kernel taint", "0"),))


@dataclass(frozen=True)
class State:
    layout: Any


@pytest.mark.parametrize(
    ("guest", "why"),
    [
        (ComplainingGuest(line="WARNING: fs/dax.c"), "its kernel complained: WARNING: fs/dax.c"),
        (ComplainingGuest(taint=512), "the kernel's taint flags went from 0 to 512"),
    ],
)
def test_a_guest_whose_kernel_complains_during_many_programs_answers_none_and_says_how_many_it_were(guest: Any, why: str) -> None:
    stage = GuestStage(guest)
    assert list(stage.run([PROGRAM] * 3)) == []
    assert stage.find_damage() == Damage(Ending.COMPLETED, why, together=3, unanswered=3)


def test_damage_that_none_did_alone_is_in_the_summary_and_the_exit_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "some.jsonl"
    damage = replace(RIGHT, observations=None, note=COMPLAINT, together=(3, 4))
    with path.open("w") as file:
        write_recording(file, damage, write_recording(file, RIGHT, None))
    assert list(read_recordings(path)) == [RIGHT, damage]
    assert run.main(["judge", str(path)]) == 1
    said = capsys.readouterr().out
    assert said.startswith("1 programs, 3 steps")
    assert f"done by none alone: somewhere seed 1 indices 3, 4: completed: {COMPLAINT}" in said


def test_a_run_in_which_damage_stays_unexplained_ends_with_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "some.jsonl"
    for together, status in (((), 0), ((3, 4), 1)):
        monkeypatch.setattr(run, "record", lambda *_, together=together: iter([replace(RIGHT, together=together)]))
        assert run.main(["run", "--host", "-o", str(path)]) == status


def test_recordings_survive_being_written_also_while_the_file_still_grows(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    other = replace(RIGHT, index=4, reading=replace(RIGHT.reading, kernel_release="6.1"))
    with path.open("w") as file:
        last = write_recording(file, RIGHT, None)
        last = write_recording(file, replace(RIGHT, index=5), last)
        write_recording(file, other, last)
        file.write('{"seed": 1, "ind')
    assert list(read_recordings(path)) == [RIGHT, replace(RIGHT, index=5), other]
    assert sum("reading" in json.loads(line) for line in path.read_text().splitlines()[:-1]) == 2


def test_groups_and_figures_are_of_what_deviates() -> None:
    lines = list(summary_lines([judged(RIGHT), judged(replace(RIGHT, index=9))]))
    assert lines[0] == "2 programs, 6 steps; 2 programs deviate: 1000 of 1,000, in 1 groups"
    assert lines[3].startswith("   2  C-RW-02 | pread | EIO | returns N")


def test_steps_are_counted_by_what_could_be_said_of_them() -> None:
    steps = (*PROGRAM.steps, Step(Pread("f", 0, 10)), Step(Pread("f", 0, 10)))
    seen = (*(RIGHT.observations or ()), Observation(3, How.RETURNED, 10), Observation(4, How.NOT_RUN))
    assert step_kinds(judged(recording(*seen, program=Program(steps)))) == {
        "conforms": 2,
        "deviates": 1,
        "after a deviation": 1,
        "not run": 1,
    }


def test_a_judge_that_fails_is_a_finding_and_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyError("no volume 17")

    monkeypatch.setattr(run, "judge", fail)
    one = judged(RIGHT)
    assert (one.judgement, one.group) == (None, "the judge failed | KeyError: 'no volume N'")
    assert "# the judge failed: KeyError: 'no volume N'" in list(program_lines(one))


def test_a_program_is_shown_as_a_case_has_it_with_what_was_seen() -> None:
    one = judged(RIGHT)
    assert one.deviation is not None
    assert one.deviation.verdict is Verdict.DEVIATES
    assert list(program_lines(one)) == [
        "# somewhere, seed 1, index 3: completed",
        "  - open: {name: f, path: a, flags: [creat, rdwr]}",
        "    # step 1: returned 0",
        "  - pwrite: {file: f, offset: 0, length: 10}",
        "    # step 2: returned 10",
        "  - pread: {file: f, offset: 0, length: 10}",
        "    # step 3: EIO; deviates: observed EIO; allowed returns 10 (C-RW-02)",
    ]


def test_a_run_without_observations_is_not_judged() -> None:
    one = judged(replace(RIGHT, observations=None, ending=Ending.LOST, note="gone"))
    assert (one.judgement, one.group, step_kinds(one)) == (None, "", {})
    assert "not completed: somewhere seed 1 index 3: guest lost: gone" in list(summary_lines([one]))


def test_unknown_stacks_programs_and_files_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "some.jsonl"
    with path.open("w") as file:
        write_recording(file, RIGHT, None)
    assert run.main(["run", "--stack", "e820-fsdax-ext3", "-o", str(tmp_path / "new.jsonl")]) == 2
    assert "no storage stack 'e820-fsdax-ext3'; there are: e820-fsdax-ext4-dax_always" in capsys.readouterr().err
    assert run.main(["show", str(path), "99"]) == 2
    assert "has no program 99" in capsys.readouterr().err
    assert run.main(["judge", str(tmp_path / "nowhere.jsonl")]) == 2
    assert "nowhere.jsonl" in capsys.readouterr().err
    assert run.main(["show", str(path), "3"]) == 0
    assert "pread" in capsys.readouterr().out
    assert isinstance(judged(RIGHT), Judged)
