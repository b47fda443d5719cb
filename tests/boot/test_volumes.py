"""Aged volumes and the final audit on real guests: a bug of a file system, faked on the unmounted volume, is seen for what it is."""

from collections.abc import Iterator

import pytest

from harness.case.plan import named_stacks
from harness.guest.link import GuestCommand
from harness.image.catalog import KernelChoice
from harness.lease.booted import BootedGuest
from harness.lease.clone import Cloner
from harness.lease.guest import Auditing
from harness.model.audit import AUDIT_CALLS, BEFORE, CHECK, UNMOUNT, unsure_end, with_audit
from harness.model.facts import Env
from harness.model.judge import Judgement, judge
from harness.model.stack import StackReading
from harness.model.verdict import Verdict
from harness.ops import Fallocate, Fsync, Ftruncate, Open, OpenFlag, Pread, Program, Pwrite, Step

pytestmark = pytest.mark.boot

KERNEL = "debian_6.12"
STACKS = ("e820-fsdax-ext4-dax_always", "e820-fsdax-xfs-dax_never", "disk-ext4")
FILE = Open("f", "a", (OpenFlag.RDWR, OpenFlag.CREAT))
LENGTH = 64 * 1024
#: Blocks that are allocated and not written: they read as zeroes, whatever they hold.
UNWRITTEN = Program((Step(FILE), Step(Fallocate("f", 0, LENGTH)), Step(Fsync("f"))))
#: What finds the same file, and for the model makes one of as many zeroes.
SIZED = Program((Step(FILE), Step(Ftruncate("f", LENGTH))))
READ = Program((*SIZED.steps, Step(Pread("f", 0, LENGTH))))


@pytest.fixture(scope="module")
def cloner() -> Cloner:
    return Cloner(KernelChoice, print)


@pytest.fixture(params=STACKS)
def guest(request: pytest.FixtureRequest, cloner: Cloner) -> Iterator[BootedGuest]:
    with cloner.clone(named_stacks()[request.param], KERNEL) as found:
        yield found


def judged(guest: BootedGuest, reading: StackReading, program: Program) -> Judgement:
    """Run, audit and judge, as an item is."""
    done = guest.run(program, Auditing.FULL)
    assert done.observations is not None, done.error
    assert unsure_end(program, done.observations) == ""
    return with_audit(judge(Env(reading), program, done.observations), program, done.audit)


def edit(guest: BootedGuest, ext4: str, xfs: str) -> None:
    """Change the inode of file ``a`` on the unmounted volume: a command of debugfs, or one of xfs_db."""
    (placed,) = guest.session.layout.volumes
    mount = placed.volume.mount
    assert mount is not None
    (inode,) = guest.session.commands([GuestCommand(("stat", "-c", "%i", f"{placed.folder}/a"))])
    change: tuple[str, ...] = ("debugfs", "-w", "-R", ext4, placed.node)
    if mount.filesystem == "xfs":
        change = ("xfs_db", "-x", "-c", f"inode {inode.stdout.strip()}", "-c", xfs, placed.node)
    again = ("mount", *([f"-odax={mount.dax}"] if mount.dax else []), placed.node, placed.folder)
    guest.session.commands([GuestCommand(argv) for argv in (("umount", placed.folder), change, again)])


def expose(guest: BootedGuest, length: int) -> None:
    """Say of the unwritten extent of file ``a`` that it is written: as a kernel that forgot to zero leaves it."""
    # ext4: an extent's length is its blocks, plus 32768 where they are unwritten. Header and start come before it in i_block.
    edit(guest, f"sif /a block[4] {length // 4096}", "write u3.bmx[0].extentflag 0")


def test_what_a_program_leaves_is_read_before_and_after_and_the_check_is_silent(guest: BootedGuest) -> None:
    result = judged(guest, guest.refresh(), Program((*UNWRITTEN.steps, Step(Pwrite("f", 5000, 100000)))))
    assert result.verdict is Verdict.CONFORMS
    assert set(AUDIT_CALLS) <= set(result.clauses)


def test_an_unzeroed_block_names_where_its_bytes_come_from(guest: BootedGuest) -> None:
    reading = guest.refresh()
    assert judged(guest, reading, UNWRITTEN).verdict is Verdict.CONFORMS
    expose(guest, LENGTH)
    for program, clause in ((SIZED, BEFORE), (READ, "C-RW-03")):
        first = next(step for step in judged(guest, reading, program).steps if step.verdict is Verdict.DEVIATES)
        assert first.clause == clause
        assert "zeroes" in first.allowed
        assert "left from before the program" in first.observed


def test_a_finding_of_the_check_deviates_with_what_it_said(guest: BootedGuest) -> None:
    reading = guest.refresh()
    assert judged(guest, reading, UNWRITTEN).verdict is Verdict.CONFORMS
    edit(guest, "sif /a links_count 2", "write core.nlinkv2 2")
    found = [step for step in judged(guest, reading, SIZED).steps if step.verdict is Verdict.DEVIATES]
    assert [step.clause for step in found] == [CHECK]
    assert "exit status" in found[0].observed
    assert "2" in found[0].observed.partition("\n")[2]


def test_a_volume_that_somebody_holds_cannot_be_unmounted(guest: BootedGuest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.guest.audit._BUSY_S", 0.5)
    reading = guest.refresh()
    (placed,) = guest.session.layout.volumes
    guest.session.commands([GuestCommand(("sh", "-c", f"cd {placed.folder} && exec setsid sleep 600 > /dev/null 2>&1 & sleep 1"))])
    found = [step for step in judged(guest, reading, Program((Step(FILE),))).steps if step.verdict is Verdict.DEVIATES]
    assert [(step.clause, step.observed) for step in found] == [(UNMOUNT, "main: EBUSY")]
