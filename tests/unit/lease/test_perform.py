"""Running: the ending apart from the verdict, the evidence kept before it is judged, and judged again alike."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness.case.axes import Storage, Variant
from harness.case.plan import make_stack
from harness.errors import AgentError, GuestError, GuestHungError, HarnessError, UsageError
from harness.lease.complaints import reports_of, split_expected, without_stamps
from harness.lease.ending import classify
from harness.lease.guest import Auditing
from harness.lease.perform import run_item
from harness.lease.pool import Lease
from harness.machine.ending import Ending as GuestEnding
from harness.machine.ending import EndKind
from harness.model.audit_outcome import Audit, CheckSeen, FileSeen, VolumeSeen
from harness.model.complaint import Report, ReportKind
from harness.model.filesystems import Filesystem
from harness.model.kinds import NamespaceMode, RegionKind
from harness.model.known import ExpectedLine, Known, KnownDeviation
from harness.model.outcome import How, Observation, Run, RunKind
from harness.model.verdict import Verdict
from harness.ops import Operation, Pwrite
from harness.record.item import Ending
from harness.record.judged import judge_folder, judge_record
from harness.record.script import qemu_script
from harness.record.store import find_records, item_folder, load_record
from harness.report.rows import make_row
from tests.fakes.leased import RUNNING, FakeGuest, complaint, make_reading, obedient
from tests.fakes.samples import item, ran, rich_program, stack


def failing(errno: str) -> Observation:
    return Observation(0, How.FAILED, errno=errno)


def write_fails(operation: Operation) -> Observation:
    return failing("EIO") if isinstance(operation, Pwrite) else obedient(operation)


def test_what_conforms_conforms_and_speaks_for_its_claims(tmp_path: Path) -> None:
    ran(tmp_path / "one")
    result = judge_folder(tmp_path / "one", ())
    assert make_row(result, tmp_path).passed
    assert [(piece.claim, piece.held, piece.verdict) for piece in result.evidence] == [("claimed", True, Verdict.CONFORMS)]


def test_what_deviates_does_not_conform(tmp_path: Path) -> None:
    ran(tmp_path / "one", FakeGuest(stack(), write_fails))
    result = judge_folder(tmp_path / "one", ())
    assert not make_row(result, tmp_path).passed
    assert result.judgement is not None
    assert result.judgement.verdict is Verdict.DEVIATES
    assert result.record.outcome.ending is Ending.COMPLETED


def test_the_record_is_read_again_as_it_was_kept(tmp_path: Path) -> None:
    kept = ran(tmp_path / "one", chosen=item(rich_program(), option="/some/path", decisions=()))
    assert load_record(tmp_path / "one") == kept


CONTENT = (FileSeen("a", 4096, (Run(0, 4096, RunKind.TAG, 2),)),)
CLEAN = VolumeSeen("main", CONTENT, "", CheckSeen("e2fsck -fn /dev/pmem0", 0, "clean"), "", CONTENT)


def test_what_was_audited_is_kept_before_it_is_judged_and_judged_again_alike(tmp_path: Path) -> None:
    raw = FileSeen("b c", 9, (Run(0, 8, RunKind.ZERO), Run(8, 1, RunKind.RAW, raw=b"x")))
    broken = replace(
        CLEAN, before=(*CONTENT, raw), check=CheckSeen("e2fsck -fn /dev/pmem0", 4, "Block bitmap differences"), mount=None, after=None
    )
    kept = ran(tmp_path / "one", FakeGuest(stack(), audited=Audit((broken,), took_s=0.25)))
    assert not (tmp_path / "one/verdict.json").exists()
    assert load_record(tmp_path / "one") == kept
    result = judge_folder(tmp_path / "one", ())
    assert result.judgement is not None
    assert [(step.clause, str(step.verdict)) for step in result.judgement.steps[3:]] == [
        ("C-AUDIT-01", "deviates"),
        ("C-AUDIT-02", "conforms"),
        ("C-AUDIT-03", "deviates"),
    ]
    assert not make_row(result, tmp_path).passed
    assert result.evidence[0].verdict is Verdict.DEVIATES


def test_a_clean_audit_changes_no_verdict(tmp_path: Path) -> None:
    ran(tmp_path / "one", FakeGuest(stack(), audited=Audit((CLEAN,))))
    result = judge_folder(tmp_path / "one", ())
    assert make_row(result, tmp_path).passed
    assert result.judgement is not None
    assert len(result.judgement.steps) == 8


def test_a_deviation_of_an_audit_can_be_a_known_one(tmp_path: Path) -> None:
    ran(tmp_path / "one", FakeGuest(stack(), audited=Audit((replace(CLEAN, after=()),))))
    result = judge_folder(tmp_path / "one", known("C-AUDIT-05"))
    assert result.known is Known.YES


def test_no_audit_leaves_nothing(tmp_path: Path) -> None:
    guest = FakeGuest(stack(), audited=Audit((CLEAN,)))
    run_item(item(), Lease(guest, make_reading(guest.stack)), tmp_path / "one", auditing=Auditing.NONE)
    assert load_record(tmp_path / "one").audit is None
    assert not (tmp_path / "one/audit.json").exists()


def test_an_audit_that_is_not_one_is_refused_with_its_file(tmp_path: Path) -> None:
    ran(tmp_path / "one", FakeGuest(stack(), audited=Audit((CLEAN,))))
    (tmp_path / "one/audit.json").write_text('{"format": 2, "volumes": [{}], "took_s": 0}')
    with pytest.raises(UsageError, match=r"audit\.json: an audit is malformed"):
        load_record(tmp_path / "one")


def test_what_a_guest_that_hangs_had_to_say_is_kept(tmp_path: Path) -> None:
    hung = GuestHungError("the guest said nothing for 240 s")
    record = ran(tmp_path / "one", FakeGuest(stack(), error=hung, hang="blocked tasks and registers\n"))
    assert record.outcome.ending is Ending.HUNG
    assert (tmp_path / "one/hang.txt").read_text() == "blocked tasks and registers\n"


def test_a_hang_that_is_our_own_fault_is_never_the_guests(tmp_path: Path) -> None:
    guest = FakeGuest(stack(), error=GuestHungError("silence"), own_fault="QEMU was stopped by a signal")
    record = ran(tmp_path / "one", guest)
    assert (record.outcome.ending, record.outcome.note) == (Ending.HARNESS_ERROR, "QEMU was stopped by a signal")


def test_an_expected_console_line_is_no_complaint_until_its_day(tmp_path: Path) -> None:
    guest = FakeGuest(stack(), ended=complaint(ReportKind.WARNING, "[ 1.0] WARNING: CPU: 0 at foo+0x1"))
    lease = Lease(guest, make_reading(guest.stack))
    entry = ExpectedLine("at foo", "a known false alarm", (6, 0), None, "2999-01-01")
    record = run_item(item(), lease, tmp_path / "one", [entry])
    assert (record.outcome.messages, record.outcome.expected) == ((), (("[ 1.0] WARNING: CPU: 0 at foo+0x1", "a known false alarm"),))
    assert run_item(item(), lease, tmp_path / "one", [replace(entry, expires="2020-01-01")]).outcome.messages
    assert run_item(item(), lease, tmp_path / "one", [replace(entry, before=(6, 1))]).outcome.messages


def test_a_line_may_be_expected_on_some_stacks_only(tmp_path: Path) -> None:
    line = "[ 1.000000] XFS (pmem0s): DAX unsupported by block device. Turning off DAX."
    guest = FakeGuest(stack(), ended=complaint(ReportKind.FILE_SYSTEM, line))
    lease = Lease(guest, make_reading(guest.stack))
    entry = ExpectedLine("DAX unsupported", "a sector namespace has no struct pages", (6, 0), None, "2999-01-01", stack="sector")
    assert run_item(item(), lease, tmp_path / "one", [entry]).outcome.messages == (line,)
    sector = make_stack(Variant(Storage.NO_DAX, RegionKind.NVDIMM, NamespaceMode.SECTOR, None, Filesystem.XFS))
    elsewhere = replace(item(), where=replace(item().where, stack=sector))
    assert not run_item(elsewhere, lease, tmp_path / "one", [entry]).outcome.messages


def test_what_the_project_expects_of_a_set_up_needs_no_entry_of_the_cases() -> None:
    report = Report(ReportKind.PMEM, "[ 1.000000] nd_pmem namespace1.0: unable to guarantee persistence of writes", 5)
    kept, excused = split_expected([report], "6.12.1", "e820 256MiB -> fsdax map=mem -> ext4 -> dax=always", ())
    assert (kept, [line for line, _ in excused]) == ((), [report.line])
    assert without_stamps(excused * 2)[0][0] == "nd_pmem namespace1.0: unable to guarantee persistence of writes"
    assert len(without_stamps(excused * 2)) == 1
    assert split_expected([report], "6.12.1", "nvdimm 256MiB -> raw -> bare node", ())[0] == (report,)


def test_a_stored_line_is_the_report_that_it_was() -> None:
    (oops, other) = reports_of(["[ 1.000000] Oops: 0000 [#1]", "what is no complaint any more"])
    assert (oops.kind, other.kind) == (ReportKind.OOPS, ReportKind.WARNING)
    anything = ExpectedLine("", "wishful", (5, 0), None, "2999-01-01")
    assert split_expected([oops], "6.12.1", "", [anything])[0] == (oops,)


def test_a_crash_is_never_expected(tmp_path: Path) -> None:
    guest = FakeGuest(stack(), ended=complaint(ReportKind.OOPS, "Oops: 0000 at foo"))
    entry = ExpectedLine("at foo", "wishful", (6, 0), None, "2999-01-01")
    assert run_item(item(), Lease(guest, make_reading(guest.stack)), tmp_path / "one", [entry]).outcome.ending is Ending.CRASHED


def test_judging_again_gives_the_same_verdict(tmp_path: Path) -> None:
    record = ran(tmp_path / "one", FakeGuest(stack(), write_fails))
    live = judge_record(record, ())
    again = judge_folder(tmp_path / "one", ())
    assert again.judgement == live.judgement
    first = (tmp_path / "one/verdict.json").read_text()
    judge_folder(tmp_path / "one", ())
    assert (tmp_path / "one/verdict.json").read_text() == first


def test_nothing_is_judged_while_it_is_run(tmp_path: Path) -> None:
    ran(tmp_path / "one")
    kept = {path.name for path in (tmp_path / "one").iterdir()}
    assert kept == {"plan.json", "stack.json", "observations.json", "audit.json", "run.json", "console.txt", "qemu.sh"}


def test_what_an_earlier_run_left_in_the_folder_goes(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one/kernel.log").write_text("old")
    ran(tmp_path / "one")
    assert not (tmp_path / "one/kernel.log").exists()


def test_a_kernel_that_complained_keeps_an_item_from_passing_and_leaves_its_log(tmp_path: Path) -> None:
    ran(tmp_path / "one", FakeGuest(stack(), ended=complaint(ReportKind.WARNING, "WARNING: at fs/dax.c")))
    result = judge_folder(tmp_path / "one", ())
    assert not make_row(result, tmp_path).passed
    assert result.record.outcome.messages == ("WARNING: at fs/dax.c",)
    assert (tmp_path / "one/kernel.log").read_text() == "the kernel's log\n"


def test_a_run_without_observations_is_not_judged_and_is_no_evidence(tmp_path: Path) -> None:
    ran(tmp_path / "one", FakeGuest(stack(), error=GuestHungError("no answer within 240 s")))
    result = judge_folder(tmp_path / "one", ())
    assert result.judgement is None
    assert result.record.outcome.ending is Ending.HUNG
    assert result.evidence[0].verdict is None
    assert result.evidence[0].note == "guest hung: no answer within 240 s"
    assert json.loads((tmp_path / "one/verdict.json").read_text())["verdict"] is None


LOST = GuestError("lost the guest")


@pytest.mark.parametrize(
    ("guest", "error", "ending", "note"),
    [
        (RUNNING, None, Ending.COMPLETED, ""),
        (GuestEnding(EndKind.PANIC, "pvpanic said so"), LOST, Ending.CRASHED, "pvpanic said so"),
        (GuestEnding(EndKind.RESET, "the guest asked for a reset"), LOST, Ending.CRASHED, "the guest asked for a reset"),
        (complaint(ReportKind.OOPS, "Oops: 0000"), None, Ending.CRASHED, "the console shows: Oops: 0000"),
        (complaint(ReportKind.BUG, "kernel BUG at"), LOST, Ending.CRASHED, "the console shows: kernel BUG at"),
        (GuestEnding(EndKind.QEMU_DIED, "QEMU ended with status -9"), LOST, Ending.LOST, "QEMU ended with status -9"),
        (GuestEnding(EndKind.SHUTDOWN, "the guest powered itself off"), LOST, Ending.LOST, "the guest powered itself off"),
        (RUNNING, AgentError("malformed"), Ending.HARNESS_ERROR, "malformed"),
        (RUNNING, LOST, Ending.LOST, "lost the guest"),
        (RUNNING, GuestHungError("the guest said nothing"), Ending.HUNG, "the guest said nothing"),
        (complaint(ReportKind.HUNG_TASK, "task x blocked"), LOST, Ending.HUNG, "lost the guest; the console shows: task x blocked"),
        (complaint(ReportKind.WARNING, "WARNING: x"), None, Ending.COMPLETED, ""),
    ],
)
def test_the_ending_says_what_became_of_the_run(guest: GuestEnding, error: HarnessError | None, ending: Ending, note: str) -> None:
    assert classify(guest, error) == (ending, note)


def known(clause: str) -> tuple[KnownDeviation, ...]:
    return (KnownDeviation(clause, "fam/one", "dax_always", (6, 0), None, "a link"),)


def deviating_clause(folder: Path) -> str:
    judgement = judge_folder(folder, ()).judgement
    assert judgement is not None
    return next(step.clause for step in judgement.steps if step.verdict is Verdict.DEVIATES)


def test_a_listed_deviation_is_known_and_still_does_not_conform(tmp_path: Path) -> None:
    ran(tmp_path / "one", FakeGuest(stack(), write_fails))
    result = judge_folder(tmp_path / "one", known(deviating_clause(tmp_path / "one")))
    assert (result.known, make_row(result, tmp_path).passed) == (Known.YES, False)


def test_a_listed_deviation_that_does_not_show_is_gone(tmp_path: Path) -> None:
    ran(tmp_path / "one")
    result = judge_folder(tmp_path / "one", known("C-RW-01"))
    assert (result.known, make_row(result, tmp_path).passed) == (Known.GONE, False)


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("plan.json", None, "cannot read .*plan.json: No such file or directory; is this the folder of an item"),
        ("plan.json", "{", "plan.json is not JSON"),
        ("plan.json", '{"format": 99}', "plan.json has format 99, this harness reads 2: use the version that wrote it"),
        ("plan.json", '{"format": 2}', "plan.json: Item: .*missing"),
        (
            "observations.json",
            '{"format": 1, "steps": [{"step": 0, "how": "sang"}]}',
            "observations.json: the observation of step 0: how is .sang., not one of returned",
        ),
    ],
)
def test_a_folder_that_is_not_an_items_is_refused(tmp_path: Path, name: str, text: str | None, problem: str) -> None:
    ran(tmp_path / "one")
    path = tmp_path / "one" / name
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(UsageError, match=problem):
        judge_folder(tmp_path / "one", ())


def test_folders_of_items_are_found_below_a_folder_and_are_safe_names(tmp_path: Path) -> None:
    folders = [item_folder(tmp_path, item()), item_folder(tmp_path, replace(item(), where=replace(item().where, name="two words")))]
    for folder in folders:
        ran(folder)
    assert list(find_records(tmp_path)) == sorted(folders)
    assert folders[1] == tmp_path / "fam/two_words/e820-fsdax-ext4-dax_always-debian_6.12"


def test_the_machine_can_be_started_by_hand(tmp_path: Path) -> None:
    ran(tmp_path / "one")
    script = tmp_path / "one/qemu.sh"
    assert script.stat().st_mode & 0o100
    text = script.read_text()
    assert 'truncate -s 1024 "$work/ram"' in text
    assert '-object "memory-backend-file,id=ram,mem-path=$work/ram,size=1024"' in text
    assert "-S" not in text


def test_the_machine_of_a_clone_can_be_booted_by_hand() -> None:
    memory = "memory-backend-file,id=ram,mem-path=/cache/templates/stack-x/ram,size=1024,share=off,readonly=on,rom=off"
    disk = "driver=file,node-name=disk-disk,filename=/dev/shm/pmemh-x1/disk-disk,cache.no-flush=on"
    words = ("qemu-system-x86_64", "-S", "-incoming", "defer", "-gdb", "unix:/dev/shm/pmemh-x1/gdb", "-pidfile", "/dev/shm/pmemh-x1/pid")
    script = qemu_script((*words, "-object", memory, "-blockdev", disk))
    assert not {"-incoming", "-gdb", "-pidfile", "-S"} & set(script.split())
    assert '"memory-backend-file,id=ram,mem-path=$work/ram,size=1024,share=on"' in script
    assert "filename=$work/disk-disk" in script
