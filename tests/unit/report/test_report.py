"""What a run says: every paragraph, every table, every exit status."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import BootError, GuestError
from harness.machine.ending import Ending as GuestEnding
from harness.machine.ending import EndKind
from harness.model.audit_outcome import Audit, CheckSeen, FileSeen, VolumeSeen
from harness.model.claims import Claim, Status
from harness.model.clause import CLAUSES
from harness.model.complaint import ReportKind
from harness.model.filesystems import Filesystem
from harness.model.known import Known, KnownDeviation
from harness.model.outcome import How, Observation, Run, RunKind
from harness.model.stack import MAIN, Disk, Mount, StorageStack, Volume
from harness.model.value import evolve
from harness.model.verdict import Verdict
from harness.ops import Operation, Pin, Program, Pwrite
from harness.ops.tag import FOREIGN_WRITER
from harness.record.item import Ending, Lifecycle
from harness.record.judged import judge_folder
from harness.report import summary
from harness.report.paragraph import describe_row
from harness.report.rows import ClaimRow, Ended, Guest, Judged, Row, StepRow, make_row, make_unset_row, row_line
from harness.report.status import exit_status
from harness.report.summary import Section, make_brief, make_statuses, make_summary, summary_text
from harness.report.tables import lay_out
from harness.sizes import MIB
from tests.fakes.leased import FakeGuest, complaint, obedient
from tests.fakes.samples import item, program, ran, row, stack, variant


def write_fails(operation: Operation) -> Observation:
    return Observation(0, How.FAILED, errno="EIO") if isinstance(operation, Pwrite) else obedient(operation)


def not_run(operation: Operation) -> Observation:
    return Observation(0, How.NOT_RUN) if isinstance(operation, Pwrite) else obedient(operation)


def with_where(found: Row, **changes: object) -> Row:
    return replace(found, where=replace(found.where, **changes))  # type: ignore[arg-type]


def with_target(found: Row, **changes: str) -> Row:
    return with_where(found, target=replace(found.where.target, **changes))


def steps_of(found: Row) -> tuple[StepRow, ...]:
    assert found.judged is not None
    return found.judged.steps


def clauses_of(found: Row) -> tuple[str, ...]:
    assert found.judged is not None
    return found.judged.clauses


@pytest.fixture
def good(tmp_path: Path) -> Row:
    return row(tmp_path / "one")


@pytest.fixture
def bad(tmp_path: Path) -> Row:
    return row(tmp_path / "one", FakeGuest(stack(), write_fails))


CLAIMS = {
    "claimed": Claim("claimed", "fam", "Writing works.", "somewhere", Status.HOLDS_NO_LONGER),
    "beside": Claim("beside", "fam", "Nobody asks this one.", "somewhere", Status.NEVER_DID),
    "elsewhere": Claim("elsewhere", "other", "Another family.", "somewhere", Status.NEVER_DID),
}


def lines_of(sections: tuple[Section, ...], title: str) -> str:
    return "\n".join(lay_out(next(section.parts for section in sections if section.title == title)))


def whys_of(sections: tuple[Section, ...]) -> str:
    """The last column of the table of claims, on one line."""
    head, *rows = lines_of(sections, "claims").splitlines()
    return " ".join(line[head.index("why") :] for line in rows)


def test_a_deviation_reads_as_a_paragraph_with_all_that_is_needed(bad: Row, tmp_path: Path) -> None:
    text = describe_row(bad)
    assert text.splitlines()[0] == "cases/fam/one.yaml:11  step 2 of 3  pwrite(f, offset=0, length=4096)"
    assert "  stack     e820 256MiB -> fsdax map=mem -> ext4 -> dax=always, Linux 6.12.95-fake, tcg\n" in text
    assert "  observed  EIO\n" in text
    assert "  allowed   " in text
    assert "(clause C-" in text
    assert '  rerun     pytest "cases/fam/one.yaml::one[e820-fsdax-ext4-dax_always-debian_6.12]"\n' in text
    assert text.endswith(f"  re-judge  python -m harness judge {tmp_path}/one")


def test_a_kernel_that_is_not_the_default_is_in_the_rerun_line(bad: Row) -> None:
    text = describe_row(with_target(bad, option="/my kernels/linux"))
    assert "debian_6.12]\" --kernel '/my kernels/linux'\n" in text


def test_words_on_the_command_line_are_in_the_paragraph_the_rerun_line_and_the_summary(tmp_path: Path) -> None:
    kept = row(tmp_path / "one", FakeGuest(stack(), write_fails), chosen=item(arguments='dyndbg="file dax.c +p" one'))
    text = describe_row(kept)
    assert 'Linux 6.12.95-fake with dyndbg="file dax.c +p" one, tcg' in text
    assert 'debian_6.12]" --kernel-args=\'dyndbg="file dax.c +p" one\'\n' in text
    assert 'Linux 6.12.95-fake with dyndbg="file dax.c +p" one, accelerator tcg' in lines_of(make_summary([kept], CLAIMS), "ran on")
    assert make_unset_row(item(arguments="one"), Ending.NOT_SET_UP, "why").where.target.arguments == "one"


def test_only_the_deviation_is_told_and_not_what_follows_from_it(bad: Row) -> None:
    assert [step.verdict for step in steps_of(bad)] == [Verdict.DEVIATES, Verdict.UNDETERMINED]
    assert "undetermined" not in describe_row(bad)


def test_a_pin_that_differs_is_told(tmp_path: Path) -> None:
    steps = program().steps
    pinned = Program((steps[0], evolve(steps[1], pin=Pin(errno="EINVAL")), steps[2]))
    text = describe_row(row(tmp_path / "one", chosen=item(pinned)))
    assert "  observed  returned 4096\n  allowed   EINVAL\n" in text
    assert "the case pins this step: EINVAL; the model allows what was seen" in text


def test_an_undetermined_step_is_told_with_its_reason(tmp_path: Path) -> None:
    text = describe_row(row(tmp_path / "one", FakeGuest(stack(), not_run)))
    assert "step 2 of 3" in text
    assert "  undetermined the step was not run: its process had ended or was blocked\n" in text


def test_what_conforms_is_one_line(good: Row) -> None:
    assert describe_row(good) == f"{good.where.node_id}: conforms"


def test_a_crash_is_told_with_console_and_log(tmp_path: Path) -> None:
    guest = FakeGuest(stack(), error=GuestError("gone"), ended=GuestEnding(EndKind.PANIC, "the guest reported its panic"))
    text = describe_row(row(tmp_path / "one", guest))
    assert "  ending    guest crashed: the guest reported its panic\n" in text
    assert f"  console   {tmp_path}/one/console.txt\n" in text
    assert f"  log       {tmp_path}/one/kernel.log\n" in text


def test_a_complaint_of_the_kernel_is_told_though_every_step_conforms(tmp_path: Path) -> None:
    found = row(tmp_path / "one", FakeGuest(stack(), ended=complaint(ReportKind.WARNING, "WARNING: at fs/dax.c:1")))
    assert not found.passed
    assert "  kernel    WARNING: at fs/dax.c:1\n" in describe_row(found)


def test_a_failed_set_up_is_told_without_artifacts() -> None:
    text = describe_row(make_unset_row(item(), Ending.NOT_SET_UP, "BootError: no ready line"))
    assert "  ending    not set up: BootError: no ready line\n" in text
    assert "re-judge" not in text
    assert "console" not in text


def test_a_failed_set_up_shows_the_end_of_the_console_and_where_the_logs_are() -> None:
    note = str(BootError("no ready line", "\n".join(f"line {number}" for number in range(40))))
    text = describe_row(make_unset_row(item(), Ending.NOT_SET_UP, note, logs="artifacts/not-set-up/x-1"))
    assert "ending    not set up: no ready line\n" in text
    assert [number for number in range(40) if f" line {number}\n" in text] == list(range(32, 40))
    assert "  logs      artifacts/not-set-up/x-1\n" in text
    assert "re-judge" not in text


def unset(number: int, ending: Ending = Ending.NOT_SET_UP, note: str = "BootError: no ready line within 15 s", logs: str = "") -> Row:
    volume = Volume(MAIN, Disk(size_bytes=number * MIB), Mount(Filesystem.EXT4, None))
    where = replace(item().where, stack=StorageStack((volume,)), node_id=f"cases/fam/one.yaml::one[{number}]")
    return make_unset_row(replace(item(), where=where), ending, f"{note} for {where.stack.describe()}", logs=logs)


def test_what_ended_alike_is_counted_and_not_listed() -> None:
    rows = [unset(number, note=f"BootError: no ready line within {number} s", logs="artifacts/not-set-up/x-1") for number in range(1, 501)]
    rows += [unset(number, Ending.NOT_TRIED, "nothing comes up") for number in range(1, 345)]
    rows += [unset(900, note="HostError: no room")]
    assert lines_of(make_summary(rows, {}), "could not run").splitlines() == [
        "500 items not set up: BootError: no ready line within 1 s for virtio disk 1MiB -> ext4",
        "    such as cases/fam/one.yaml::one[1] (results.jsonl has all of them)",
        "    logs: artifacts/not-set-up/x-1",
        "344 items not tried: nothing comes up for virtio disk 1MiB -> ext4",
        "cases/fam/one.yaml::one[900]: not set up: HostError: no room for virtio disk 900MiB -> ext4",
    ]


def test_claims_of_items_that_were_not_set_up_are_counted_and_not_listed(good: Row) -> None:
    sections = make_summary([good, replace(unset(1), claims=(ClaimRow("beside", None),))], CLAIMS)
    text = lines_of(sections, "claims")
    assert re.search(r"^claimed +debian_6\.12 +HOLDS +decided", text, re.MULTILINE)
    assert "Nobody asks this one." not in text
    assert "(1 more are undetermined, because no item that decides them got as far as its first step)" in text


def test_where_no_item_began_there_is_no_table_of_claims() -> None:
    sections = make_summary([unset(1), unset(2, Ending.NOT_TRIED)], CLAIMS)
    assert [section.title for section in sections] == ["could not run", "ran on"]


def known(clause: str) -> tuple[KnownDeviation, ...]:
    return (KnownDeviation(clause, "fam/one", "", (6, 0), None, "a link"),)


def test_a_known_deviation_is_told_with_its_reference(tmp_path: Path) -> None:
    ran(tmp_path / "one", FakeGuest(stack(), write_fails))
    clause = steps_of(make_row(judge_folder(tmp_path / "one", ()), tmp_path))[0].clause
    found = make_row(judge_folder(tmp_path / "one", known(clause)), tmp_path)
    assert found.is_known_deviation
    assert "  known     yes: a link\n" in describe_row(found)
    assert "(known: a link)" in lines_of(make_summary([found], CLAIMS), "deviations")


def test_in_brief_claims_are_named_by_status_and_endings_are_counted(tmp_path: Path) -> None:
    ran(tmp_path / "one", FakeGuest(stack(), write_fails))
    clause = steps_of(make_row(judge_folder(tmp_path / "one", ()), tmp_path))[0].clause
    found = make_row(judge_folder(tmp_path / "one", known(clause)), tmp_path)
    claims, ran_on = make_brief([found, row(tmp_path / "two")], CLAIMS)
    assert claims.parts == ("debian_6.12: HOLDS (1): claimed",)  # what deviates is set aside
    assert ran_on.parts == ("debian_6.12: Linux 6.12.95-fake, tcg", "items: 1 conforms, 1 deviates (known deviation: yes)")


def test_console_lines_that_were_expected_for_one_reason_are_told_once(tmp_path: Path) -> None:
    found = [with_expected(row(tmp_path / str(n)), f"[{n}.0] WARNING: x") for n in (1, 2)]
    said = lines_of(make_summary(found, CLAIMS), "ran on")
    assert "expected console line (2 items): [1.0] WARNING: x: a false alarm" in said
    assert "[2.0]" not in said


def with_expected(found: Row, line: str) -> Row:
    return replace(found, ended=replace(found.ended, expected=((line, "a false alarm"),)))


def test_a_known_deviation_that_has_gone_is_told(tmp_path: Path) -> None:
    ran(tmp_path / "one")
    found = make_row(judge_folder(tmp_path / "one", known("C-RW-01")), tmp_path)
    assert not found.passed
    assert "  known     gone: a known deviation is listed for this kernel and did not show; a link\n" in describe_row(found)
    assert "known deviation is gone (a link)" in lines_of(make_summary([found], CLAIMS), "deviations")


def test_the_table_of_claims_names_status_and_deciding_items(good: Row) -> None:
    text = lines_of(make_summary([good], CLAIMS), "claims")
    assert text.splitlines()[:4] == [
        "claim                    kernel       status        why",
        "claimed                  debian_6.12  HOLDS         decided by fam/one [e820-fsdax-ext4-dax_always-debian_6.12]",
        "  Writing works.",
        "beside                   debian_6.12  UNDETERMINED  no item that decides it was run",
    ]
    assert "(1 more claims belong to families that were not run)" in text
    assert "debian_6.12: 1 holds, 1 undetermined" in text


def test_items_of_one_case_are_counted_in_the_table(good: Row) -> None:
    rows = [good, with_where(good, variant=variant("disk")), with_where(good, name="two")]
    assert "decided by fam/one (2 items), fam/two [e820-fsdax-ext4-dax_always-debian_6.12]" in whys_of(make_summary(rows, CLAIMS))


def test_items_that_disagree_dispute_a_claim(good: Row) -> None:
    other = replace(with_where(good, name="two"), claims=(ClaimRow("claimed", False),))
    sections = make_summary([good, other], CLAIMS)
    assert " DISPUTED " in lines_of(sections, "claims")
    assert whys_of(sections).startswith("held in fam/one [")
    assert "; did not hold in fam/two [" in whys_of(sections)


def test_a_deviating_item_is_set_aside_with_the_reason(bad: Row) -> None:
    whys = whys_of(make_summary([bad], CLAIMS))
    assert whys.startswith("no item that conforms decides it; 1 set aside, such as fam/one [")
    assert "its verdict is deviates" in whys


def test_a_claim_whose_items_cannot_run_here_is_not_reproducible() -> None:
    found = make_unset_row(item(), Ending.UNAVAILABLE, "it needs the full flavour")
    statuses = make_statuses([found], {"claimed": CLAIMS["claimed"]})
    assert (statuses[0].status, statuses[0].reason) == (Status.NOT_REPRODUCIBLE, "it needs the full flavour")


def test_a_kernel_of_another_flavour_counts_for_the_one_that_was_selected(good: Row) -> None:
    statuses = make_statuses([with_target(good, kernel="debian_6.12_full")], CLAIMS)
    assert {status.kernel for status in statuses} == {"debian_6.12"}


def test_the_summary_lists_deviations_undetermined_steps_and_what_could_not_run(bad: Row, tmp_path: Path) -> None:
    unsure = row(tmp_path / "two", FakeGuest(stack(), not_run))
    unset = make_unset_row(item(), Ending.NOT_SET_UP, "BootError: no ready line\nand more")
    sections = make_summary([bad, unsure, unset], CLAIMS)
    assert "step 2: pwrite(f, offset=0, length=4096): observed EIO" in lines_of(sections, "deviations")
    assert lines_of(sections, "undetermined steps").count("\n") == 0
    assert "step 2: pwrite(f, offset=0, length=4096): the step was not run" in lines_of(sections, "undetermined steps")
    assert lines_of(sections, "could not run").endswith("not set up: BootError: no ready line")


def test_the_summary_says_on_what_it_ran_and_why(good: Row) -> None:
    text = lines_of(make_summary([good], CLAIMS), "ran on")
    assert "debian_6.12: Linux 6.12.95-fake, accelerator tcg (it is a fake), QEMU 10.0.2" in text
    assert "versions: linux-image-fake 6.12.95-1" in text
    assert "items: 1 conforms" in text


def test_why_the_accelerator_was_chosen_is_said_whole_however_long_it_is() -> None:
    reason = "KVM is slower: a loop of 67,108,864 turns took 0.60 s under tcg and was not done after 0.60 s under kvm"
    text = lines_of(make_summary([plain(guest=replace(GUEST, accelerator_reason=reason))], CLAIMS), "ran on")
    assert max(len(line) for line in text.splitlines()) <= 140
    assert f"accelerator tcg ({reason})" in " ".join(line.strip() for line in text.splitlines())


def test_the_summary_counts_the_clauses_that_were_asked(good: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = len(clauses_of(good))
    short = lines_of(make_summary([good], CLAIMS), "clauses of the model")
    assert f"{asked} of {len(CLAUSES)} clauses were asked" in short
    assert "were never asked (the whole list: summary.txt" in short
    monkeypatch.setattr(summary, "_LONGEST_LIST", len(CLAUSES))
    assert "never asked: C-" in lines_of(make_summary([good], CLAIMS), "clauses of the model")


def test_the_summary_file_counts_the_hits_of_every_clause(good: Row) -> None:
    text = summary_text(make_summary([good, good], CLAIMS), [good, good])
    assert "== claims ==" in text
    for name in CLAUSES:
        assert f" {name}  " in text
    assert f"     2 {clauses_of(good)[0]}  " in text


def test_a_summary_of_items_that_never_ran_has_no_clauses() -> None:
    sections = make_summary([make_unset_row(item(), Ending.UNAVAILABLE, "no such flavour")], CLAIMS)
    assert "clauses of the model" not in {section.title for section in sections}


GUEST = Guest("6.12", "tcg", "it is a fake", "10.0.2", Lifecycle.RESTORED)
COMPLETED = Ended(Ending.COMPLETED)
CONFORMS, DEVIATES = Judged(Verdict.CONFORMS), Judged(Verdict.DEVIATES)


def plain(ended: Ended = COMPLETED, judged: Judged | None = CONFORMS, guest: Guest | None = None) -> Row:
    """The row of an item that passed, unless told otherwise."""
    return Row(item().where, ended, judged, guest)


def without_verdict(ending: Ending) -> Row:
    return plain(Ended(ending), None)


@pytest.mark.parametrize(
    ("rows", "status"),
    [
        ([plain()], 0),
        ([plain(), plain(judged=DEVIATES)], 1),
        ([plain(), plain(judged=Judged(Verdict.UNDETERMINED))], 1),
        ([plain(judged=Judged(Verdict.DEVIATES, Known.YES))], 0),
        ([plain(judged=Judged(Verdict.CONFORMS, Known.GONE))], 1),
        ([plain(Ended(Ending.COMPLETED, messages=("WARNING",)))], 1),
        ([without_verdict(Ending.CRASHED)], 1),
        ([without_verdict(Ending.HUNG)], 1),
        ([plain(), without_verdict(Ending.HUNG)], 1),
        ([plain(), without_verdict(Ending.LOST)], 3),
        ([plain(judged=DEVIATES), without_verdict(Ending.NOT_SET_UP)], 3),
        ([plain(), without_verdict(Ending.NOT_TRIED)], 3),
        ([without_verdict(Ending.HARNESS_ERROR)], 3),
        ([plain(), without_verdict(Ending.UNAVAILABLE)], 0),
        ([without_verdict(Ending.UNAVAILABLE)], 2),
        ([], 2),
    ],
)
def test_the_exit_status_is_a_contract(rows: list[Row], status: int) -> None:
    assert exit_status(rows) == status


# ---- crashes and lifecycles ------------------------------------------------------------------------------------------


def test_a_crash_shows_where_it_came_from_and_its_first_lines() -> None:
    ended = Ended(Ending.CRASHED, fingerprint="dax_insert_entry < dax_fault_iter", excerpt="[ 1.0] Oops: 0000")
    said = describe_row(plain(ended))
    assert "crash     dax_insert_entry < dax_fault_iter" in said
    assert "excerpt   [ 1.0] Oops: 0000" in said


def test_a_hang_points_at_registers_and_blocked_tasks() -> None:
    assert "hang      artifacts/one/hang.txt" in describe_row(plain(Ended(Ending.HUNG, folder="artifacts/one")))


def test_the_summary_says_how_guests_came_to_be_and_what_was_expected() -> None:
    rows = [
        plain(Ended(Ending.COMPLETED, expected=(("WARNING: x", "a false alarm"),)), guest=GUEST),
        plain(guest=replace(GUEST, lifecycle=Lifecycle.BOOTED, lifecycle_note="booted, not restored: no room")),
    ]
    said = summary_text(make_summary(rows, {}), rows)
    assert "guests: 1 items on booted ones, 1 items on restored ones" in said
    assert "1 items on guests that were booted, not restored: no room" in said
    assert "expected console line (1 items): WARNING: x: a false alarm" in said


def test_a_booted_item_is_run_again_as_one() -> None:
    lost = without_verdict(Ending.LOST)
    assert "--lifecycle booted" in describe_row(with_where(lost, lifecycle=Lifecycle.BOOTED))
    assert "--lifecycle" not in describe_row(replace(lost, guest=replace(GUEST, lifecycle=Lifecycle.BOOTED)))


def test_an_audit_that_deviates_is_told_as_what_came_after_the_program(tmp_path: Path) -> None:
    left = (FileSeen("a", 4096, (Run(0, 4096, RunKind.TAG, FOREIGN_WRITER),)),)
    volume = VolumeSeen("main", left, "", CheckSeen("e2fsck -fn /dev/pmem0", 4, "Free blocks count wrong"), "", left)
    found = row(tmp_path / "one", FakeGuest(stack(), audited=Audit((volume,))))
    text = describe_row(found)
    assert "cases/fam/one.yaml  after the program: read all files\n" in text
    assert "observed  a: bytes 0..4095: left from before the program (byte 0 of what was removed from the volume then)" in text
    assert "cases/fam/one.yaml  after the program: check the file system\n" in text
    assert "Free blocks count wrong" in text
    assert "(clause C-AUDIT-03, e2fsck(8), xfs_repair(8), fsck.erofs(1): exit status 0)" in text
    lines = "\n".join(line for section in make_summary([found], {}) for line in lay_out(section.parts))
    assert f"{found.where.node_id}: after the program: check the file system: observed e2fsck" in lines
    assert "what programs left was audited after 0 of 1 items" not in lines
    assert next(step["call"] for step in json.loads(row_line(found))["judged"]["steps"]) == "after the program: read all files"


def test_the_summary_counts_what_was_not_audited_and_why(tmp_path: Path) -> None:
    rows = [
        row(tmp_path / "one"),
        row(tmp_path / "two", FakeGuest(stack(), audited=Audit(skipped="step 3 had not ended when the program did"))),
    ]
    lines = "\n".join(line for section in make_summary(rows, {}) for line in lay_out(section.parts))
    assert "what programs left was audited after 0 of 2 items" in lines
    assert "1 items were not, or only their volumes: no volume was mounted when the program had ended" in lines
    assert "1 items were not, or only their volumes: step N had not ended when the program did" in lines
