"""The console follower: drains everything, and knows a kernel's complaint when it sees one."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.host.deadline import Deadline, wait_until
from harness.machine.console import Console, ReportKind, find_report, fingerprint

T = "[   12.345678] "

COMPLAINTS = [
    (ReportKind.PANIC, "Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)"),
    (ReportKind.OOPS, "BUG: kernel NULL pointer dereference, address: 0000000000000008"),
    (ReportKind.OOPS, "BUG: unable to handle page fault for address: ffffc90000a00000"),
    (ReportKind.OOPS, "Oops: 0000 [#1] PREEMPT SMP NOPTI"),
    (ReportKind.OOPS, "Oops: Oops: 0002 [#1] SMP"),
    (ReportKind.OOPS, "invalid opcode: 0000 [#1] PREEMPT SMP"),
    (ReportKind.BUG, "kernel BUG at fs/dax.c:1234!"),
    (ReportKind.BUG, "BUG: Bad page state in process dd  pfn:12345"),
    (ReportKind.BUG, "BUG: sleeping function called from invalid context at mm/slab.h:494"),
    (ReportKind.BUG, "BUG: KASAN: use-after-free in dax_unlock_entry+0x1/0x2"),
    (ReportKind.WARNING, "WARNING: CPU: 0 PID: 312 at fs/dax.c:380 dax_insert_entry+0x2b8/0x310"),
    (ReportKind.WARNING, "WARNING: fs/dax.c:380 at dax_insert_entry+0x2b8/0x310, CPU#0: dd/312"),
    (ReportKind.HUNG_TASK, "INFO: task dd:312 blocked for more than 60 seconds."),
    (ReportKind.SOFT_LOCKUP, "watchdog: BUG: soft lockup - CPU#0 stuck for 67s! [dd:312]"),
    (ReportKind.HARD_LOCKUP, "watchdog: Watchdog detected hard LOCKUP on cpu 0"),
    (ReportKind.RCU_STALL, "rcu: INFO: rcu_preempt self-detected stall on CPU"),
    (ReportKind.RCU_STALL, "rcu: INFO: rcu_sched detected stalls on CPUs/tasks:"),
    (ReportKind.RCU_STALL, "rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 0-... }"),
    (ReportKind.LOCKDEP, "WARNING: possible circular locking dependency detected"),
    (ReportKind.LOCKDEP, "WARNING: possible recursive locking detected"),
    (ReportKind.LOCKDEP, "WARNING: suspicious RCU usage"),
    (ReportKind.LOCKDEP, "WARNING: inconsistent lock state"),
    (ReportKind.LOCKDEP, "WARNING: bad unlock balance detected!"),
    (ReportKind.LOCKDEP, "INFO: trying to register non-static key."),
    (ReportKind.GENERAL_PROTECTION, "general protection fault, probably for non-canonical address 0xdead000000000100: 0000 [#1]"),
    (ReportKind.GENERAL_PROTECTION, "Oops: general protection fault, probably for non-canonical address 0xdead000000000122: 0000 [#1]"),
    (ReportKind.OUT_OF_MEMORY, "Out of memory: Killed process 312 (mkfs.xfs) total-vm:1234kB"),
]

HARMLESS = [
    T + "nd_pmem namespace2.0: unable to guarantee persistence of writes",
    T + "traps: a.out[312] general protection fault ip:401136 sp:7ffc error:0 in a.out",
    T + "EXT4-fs (pmem0): DAX enabled. Warning: EXPERIMENTAL, use at your own risk",
    "WARNING: CPU: 0 PID: 1 at a program that imitates the kernel",
    "Kernel panic - not syncing: said by a program",
    "",
]


@pytest.mark.parametrize(("kind", "said"), COMPLAINTS, ids=[f"{kind}-{said[:28]}" for kind, said in COMPLAINTS])
def test_a_complaint_of_the_kernel_is_recognized(kind: ReportKind, said: str) -> None:
    assert find_report(T + said) is kind
    assert find_report("[    1.000000][  T312] " + said) is kind
    assert find_report("half a line of a program" + T + said) is kind


@pytest.mark.parametrize("line", HARMLESS)
def test_other_lines_are_no_complaint(line: str) -> None:
    assert find_report(line) is None


@pytest.fixture
def line() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a serial line: ours and the guest's."""
    ours, theirs = socket.socketpair()
    with theirs:
        yield ours, theirs


@pytest.fixture
def guest(line: tuple[socket.socket, socket.socket]) -> socket.socket:
    return line[1]


@pytest.fixture
def console(line: tuple[socket.socket, socket.socket], tmp_path: Path) -> Iterator[Console]:
    with Console(line[0], tmp_path / "console.log") as console:
        yield console


def wait_for(console: Console, text: str) -> None:
    assert wait_until(lambda: text in console.since(0), Deadline.after(10)), console.since(0)


def test_reports_carry_the_line_and_where_it_begins(guest: socket.socket, console: Console) -> None:
    before = T + "all is well\r\n"
    guest.sendall((before + T + "kernel BUG at fs/dax.c:1!\r\n").encode())
    wait_for(console, "dax.c:1!")
    [report] = console.reports()
    assert (report.kind, report.line, report.position) == (ReportKind.BUG, T + "kernel BUG at fs/dax.c:1!", len(before))
    assert console.reports(since=report.position) == (report,)
    assert console.reports(since=report.position + 1) == ()


def test_a_complaint_that_arrives_in_pieces_is_one_report(guest: socket.socket, console: Console) -> None:
    guest.sendall((T + "Kernel pan").encode())
    wait_for(console, "pan")
    assert console.reports() == ()
    guest.sendall(b"ic - not syncing: x\n")
    wait_for(console, "syncing")
    assert [report.position for report in console.reports()] == [0]


def test_a_mark_separates_what_was_printed_before_and_after(guest: socket.socket, console: Console) -> None:
    guest.sendall(b"before\nhal")
    wait_for(console, "hal")
    mark = console.mark()
    guest.sendall(b"f\nafter\n")
    wait_for(console, "after")
    assert console.since(mark) == "half\nafter\n"


def test_last_words_without_a_line_end_count(guest: socket.socket, console: Console) -> None:
    guest.sendall((T + "Kernel panic - not syncing").encode())
    guest.close()
    assert console.wait_closed(10)
    assert [report.kind for report in console.reports()] == [ReportKind.PANIC]


def test_a_flood_is_drained_and_kept_whole(guest: socket.socket, console: Console) -> None:
    line = b"x" * 99 + b"\n"
    for _ in range(20_000):
        guest.sendall(line)
    guest.close()
    assert console.wait_closed(30)
    assert len(console.since(0)) == 2_000_000
    assert len(console.tail(7).splitlines()) == 7


def test_lines_of_init_are_milestones_with_their_time(guest: socket.socket, console: Console) -> None:
    guest.sendall(b"pmem-harness: init 1.5\r\npmem-harness: ready\r\n")
    wait_for(console, "ready")
    assert wait_until(lambda: len(console.milestones()) == 2, Deadline.after(10))
    assert list(console.milestones()) == ["pmem-harness: init 1.5", "pmem-harness: ready"]


def test_what_we_type_reaches_the_guest(guest: socket.socket, console: Console) -> None:
    console.send("c")
    assert guest.recv(10) == b"c"


def test_bytes_that_are_no_text_do_not_stop_the_follower(guest: socket.socket, console: Console) -> None:
    guest.sendall(b"\xff\xfe\x00\n" + (T + "WARNING: CPU: 0 PID: 1 at x\n").encode())
    wait_for(console, "PID: 1")
    assert [report.kind for report in console.reports()] == [ReportKind.WARNING]


CRASH = """[    3.1] BUG: kernel NULL pointer dereference, address: 0000000000000008
[    3.2] RIP: 0010:dax_insert_entry+0x1f/0x310
[    3.3] Call Trace:
[    3.4]  <TASK>
[    3.5]  ? __die+0x23/0x70
[    3.6]  dax_fault_iter+0x2b8/0x310
[    3.7]  dax_iomap_pte_fault+0x1a/0x30
[    3.8]  ext4_dax_huge_fault.constprop.0+0x1a/0x30
[    3.9]  __do_fault+0x1a/0x30
[    3.9]  handle_mm_fault+0x1a/0x30
[    4.0]  </TASK>
[    4.1] RIP: 0033:0x7f1234
"""


def test_a_crash_is_named_by_its_innermost_frames() -> None:
    assert fingerprint(CRASH) == ("dax_insert_entry < dax_fault_iter < dax_iomap_pte_fault < ext4_dax_huge_fault.constprop.0 < __do_fault")


def test_the_same_crash_at_other_addresses_has_the_same_name() -> None:
    assert fingerprint(CRASH.replace("+0x1", "+0x2").replace("[    3", "[   93")) == fingerprint(CRASH)


def test_a_complaint_without_frames_has_no_name() -> None:
    assert fingerprint("[    3.1] Kernel panic - not syncing: no init\n") == ""


def test_a_console_that_is_read_is_drained(guest: socket.socket, console: Console) -> None:
    guest.sendall(b"x" * 100_000)
    assert console.is_drained()


def test_a_console_that_nobody_reads_is_not(line: tuple[socket.socket, socket.socket], tmp_path: Path) -> None:
    ours, guest = line
    stuck = Console(ours, tmp_path / "stuck")
    guest.sendall(b"nobody will ever see this")
    # Its thread was never started: it reads as little as one that has stopped.
    stuck._thread.join = lambda timeout=None: None  # type: ignore[method-assign]
    assert not stuck.is_drained()
    stuck._file.close()
