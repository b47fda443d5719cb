"""The console follower drains everything, and reports what the kernel complains of."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.host.deadline import Deadline, wait_until
from harness.machine.console import Console
from harness.model.complaint import ReportKind

T = "[   12.345678] "


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


def test_a_console_that_is_read_is_drained(guest: socket.socket, console: Console) -> None:
    guest.sendall(b"x" * 100_000)
    assert console.is_drained()


def test_what_was_drained_is_known(guest: socket.socket, console: Console) -> None:
    for number in range(200):
        guest.sendall(f"[    1.000000] EXT4-fs error (device pmem0): number {number}\n".encode())
        assert console.is_drained()
        assert len(console.reports()) == number + 1


def test_a_console_that_nobody_reads_is_not(line: tuple[socket.socket, socket.socket], tmp_path: Path) -> None:
    ours, guest = line
    stuck = Console(ours, tmp_path / "stuck")
    guest.sendall(b"nobody will ever see this")
    # Its thread was never started: it reads as little as one that has stopped.
    stuck._thread.join = lambda timeout=None: None  # type: ignore[method-assign]
    assert not stuck.is_drained()
    stuck._file.close()
