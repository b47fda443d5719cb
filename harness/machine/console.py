"""The console follower: drains a guest's serial line from its first byte and watches for the kernel's complaints."""

import contextlib
import re
import select
import socket
import threading
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from harness.host.deadline import Deadline, wait_until

#: How long the follower may leave what has arrived unread.
_DRAIN_S = 1.0
_DRAIN_ROUNDS = 5
#: How the guest's init begins the lines in which it says how far it has come.
MILESTONE = "pmem-harness: "


class ReportKind(StrEnum):
    """What the kernel complained about."""

    PANIC = "panic"
    OOPS = "oops"
    BUG = "bug"
    WARNING = "warning"
    HUNG_TASK = "hung task"
    SOFT_LOCKUP = "soft lockup"
    HARD_LOCKUP = "hard lockup"
    RCU_STALL = "rcu stall"
    LOCKDEP = "lockdep"
    GENERAL_PROTECTION = "general protection"
    OUT_OF_MEMORY = "out of memory"
    FILE_SYSTEM = "file system error"
    BLOCK_DEVICE = "i/o error"
    MEMORY_FAILURE = "memory failure"
    PMEM = "pmem driver error"


@dataclass(frozen=True)
class Report:
    """One line in which the kernel complains; ``position`` is the byte offset of the line in the console's file."""

    kind: ReportKind
    line: str
    position: int


#: A line of the kernel's own starts with the time since boot (and perhaps the caller): a program's output never counts.
_STAMP = re.compile(r"\[\s*\d+\.\d{6}\](?:\[\s*[TC]\d+\])?\s")

Patterns = tuple[tuple[ReportKind, re.Pattern[str]], ...]

#: Tried in this order; the first that fits names the kind.
PATTERNS: Patterns = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        (ReportKind.PANIC, r"Kernel panic - not syncing"),
        (ReportKind.SOFT_LOCKUP, r"BUG: soft lockup"),
        (ReportKind.HARD_LOCKUP, r"[Hh]ard LOCKUP"),
        (ReportKind.RCU_STALL, r"rcu: INFO: .*detected.* stall|INFO: rcu_\w+ .*detected.* stall"),
        (ReportKind.HUNG_TASK, r"INFO: task .+ blocked (?:in I/O wait )?for more than \d+ seconds"),
        # A program's own fault reads "traps: NAME[PID] general protection fault ip:..." and is no complaint about the kernel.
        (ReportKind.GENERAL_PROTECTION, r"general protection fault(?! ip:)"),
        (
            ReportKind.OOPS,
            r"Oops: |BUG: unable to handle|BUG: kernel NULL pointer dereference|(?:double|stack segment) fault:|invalid opcode:",
        ),
        (
            ReportKind.LOCKDEP,
            r"WARNING: (?:possible (?:circular|recursive|irq lock inversion)|suspicious RCU usage|inconsistent lock state"
            r"|bad unlock balance|held lock freed|lock held when returning|bad contention|.*lock order|.*-unsafe lock|Nested lock)"
            r"|INFO: trying to register non-static key|BUG: MAX_LOCK\w+ too low|DEBUG_LOCKS_WARN_ON",
        ),
        (ReportKind.BUG, r"kernel BUG at|BUG: |UBSAN: |kmemleak: \d+ new"),
        (ReportKind.WARNING, r"WARNING: (?:CPU: \d+|.+ at )"),
        (ReportKind.OUT_OF_MEMORY, r"Out of memory: |oom-kill:"),
        # What follows leaves no taint. tests/unit/machine/test_console.py has a line of a real kernel for each alternative.
        # fs/ext4/super.c __ext4_error and its like. A warning counts but where it tells of a full directory or inode and of no damage.
        (ReportKind.FILE_SYSTEM, r"EXT4-fs error"),
        (ReportKind.FILE_SYSTEM, r"EXT4-fs warning(?!.*(?:index full|Large directory feature is not enabled|Unable to expand inode))"),
        (ReportKind.FILE_SYSTEM, r"EXT4-fs: \S+: aborting transaction"),
        (ReportKind.FILE_SYSTEM, r"EXT4-fs \(\S+\): (?:shut down requested|Delayed block allocation failed|This should not happen!!)"),
        (
            ReportKind.FILE_SYSTEM,
            r"EXT4-fs \(\S+\): .*(?:I/O error|IO failure|[Cc]orrupt|checksum|fs with errors|error (?:loading|reading))",
        ),
        (ReportKind.FILE_SYSTEM, r"Remounting filesystem read-only"),
        # fs/jbd2: an aborted journal is a file system that has stopped.
        (ReportKind.FILE_SYSTEM, r"Aborting journal on device"),
        (ReportKind.FILE_SYSTEM, r"JBD2(?:: | unexpected failure)"),
        # fs/xfs/xfs_message.c puts "XFS (device): " before everything.
        (
            ReportKind.FILE_SYSTEM,
            r"XFS \(\S+\): (?:Internal error|.*(?:[Cc]orrupt|CRC error|[Ss]hut[a-z ]*down|page discard|failed|[Ee]rror -?\d))",
        ),
        # DAX was asked for and is not given: right where a stack or a case asks for it on a device that has none.
        (ReportKind.FILE_SYSTEM, r"(?:EXT4-fs|XFS) \(\S+\): (?:DAX (?:un|not )supported|unsupported blocksize for DAX)"),
        # fs/iomap/buffered-io.c iomap_finish_ioend; fs/super.c generic_shutdown_super.
        (ReportKind.FILE_SYSTEM, r"writeback error on inode"),
        (ReportKind.FILE_SYSTEM, r"VFS: Busy inodes after unmount"),
        # fs/buffer.c buffer_io_error; block/blk-mq.c blk_print_req_error, which says what failed before "error, dev"; block/blk-core.c.
        (ReportKind.BLOCK_DEVICE, r"Buffer I/O error on dev"),
        (ReportKind.BLOCK_DEVICE, r" error, dev \S+, sector"),
        (ReportKind.BLOCK_DEVICE, r"attempt to access beyond end of device"),
        (ReportKind.BLOCK_DEVICE, r"Trying to write to read-only block-device"),
        # mm/memory-failure.c; arch/x86/kernel/cpu/mce; arch/x86/mm/fault.c do_sigbus.
        (ReportKind.MEMORY_FAILURE, r"Memory failure: "),
        (ReportKind.MEMORY_FAILURE, r"\[Hardware Error\]: "),
        (ReportKind.MEMORY_FAILURE, r"hardware memory (?:corruption|error)|Memory error not recovered"),
        # drivers/nvdimm and drivers/acpi/nfit name driver and device; pmem.c, btt.c and pfn_devs.c all are nd_pmem.
        (ReportKind.PMEM, r"(?:nd_pmem|nd_region|nd_bus|nvdimm|nfit) \S+: .*(?:[Ee]rror|[Ff]ail|[Uu]nable|could not|corrupt|misaligned)"),
    )
)


def find_report(line: str, patterns: Patterns = PATTERNS) -> ReportKind | None:
    """Return what ``line`` complains about, or None where it is no complaint of the kernel's."""
    stamp = _STAMP.search(line)
    if stamp is None:
        return None
    said = line[stamp.end() :]
    return next((kind for kind, pattern in patterns if pattern.search(said)), None)


def without_stamp(line: str) -> str:
    """Return what the kernel said in ``line``, without the time and whatever stood before it."""
    stamp = _STAMP.search(line)
    return line if stamp is None else line[stamp.end() :]


#: Where the processor was, and a frame of a call trace that the kernel is sure of (others are marked with a question mark).
_WHERE = re.compile(r"RIP: [0-9a-f]+:([\w.]+)\+0x")
_FRAME = re.compile(r"\]\s+([\w.]+)\+0x[0-9a-f]+/0x[0-9a-f]+")
_FRAMES = 5


def fingerprint(text: str) -> str:
    """Return where the first report in a console's ``text`` came from: ``ext4_foo < vfs_bar < do_syscall_64``; empty without frames.

    Names without offsets, innermost first: the same crash of two runs, or of two builds, has the same one.
    """
    frames: list[str] = []
    for line in text.splitlines():
        if line.rstrip().endswith("</TASK>") and frames:
            break
        found = _WHERE.search(line) or _FRAME.search(line)
        if found and (not frames or frames[-1] != found[1]):
            frames.append(found[1])
    return " < ".join(frames[:_FRAMES])


class Console:
    """A guest's serial line. A thread drains it into ``path`` from the first byte: an unread console blocks the guest in printk.

    Leave the ``with`` only after QEMU has ended (or when the rest does not matter): it closes the line.
    """

    def __init__(self, line: socket.socket, path: Path) -> None:
        self._line = line
        self._path = path
        self._file = path.open("wb", buffering=0)
        self._lock = threading.Lock()
        self._length = 0
        self._partial = b""
        self._at_end = False
        self._reports: list[Report] = []
        self._milestones: dict[str, float] = {}
        self._thread = threading.Thread(target=self._drain, name=f"console {path}", daemon=True)

    def __enter__(self) -> "Console":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # A shutdown makes the thread's read return what is left, and then the end.
        with contextlib.suppress(OSError):
            self._line.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._line.close()
        self._file.close()

    def reports(self, since: int = 0) -> tuple[Report, ...]:
        """Return the kernel's complaints from position ``since`` on, in order."""
        with self._lock:
            return tuple(report for report in self._reports if report.position >= since)

    def mark(self) -> int:
        """Return the present position, for ``since`` and ``reports``. A line that is being printed belongs to what follows."""
        with self._lock:
            return self._length - len(self._partial)

    def since(self, mark: int) -> str:
        """Return everything that was printed from ``mark`` on: what it shows, ``reports`` knows."""
        with self._lock, self._path.open("rb") as file:
            file.seek(mark)
            return _text(file.read())

    def tail(self, lines: int = 40) -> str:
        """Return the last ``lines`` lines."""
        return "\n".join(self.since(max(0, self.mark() - 64 * 1024)).splitlines()[-lines:])

    def milestones(self) -> dict[str, float]:
        """Return the lines that the guest's init prints about itself (``pmem-harness: ...``) with the monotonic second of arrival."""
        with self._lock:
            return dict(self._milestones)

    def send(self, text: str) -> None:
        """Type ``text`` on the console. Raises OSError when QEMU is gone."""
        self._line.sendall(text.encode())

    def is_drained(self) -> bool:
        """Whether what QEMU hands over is read: an unread console stops the guest, and looks as if that hung by itself."""
        if not self._thread.is_alive():
            return self._at_end
        poller = select.poll()
        poller.register(self._line, select.POLLIN)
        for _ in range(_DRAIN_ROUNDS):
            with self._lock:
                before = self._length
            # A follower that is alive takes what is there within a moment.
            if wait_until(lambda: not poller.poll(0), Deadline.after(_DRAIN_S)):
                return True
            with self._lock:
                if self._length == before:
                    return False
        return True  # it is read, and the guest prints faster than that

    def wait_closed(self, timeout_s: float) -> bool:
        """Wait until QEMU closed the line and all of it is drained; False when ``timeout_s`` passed first."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _drain(self) -> None:
        while True:
            try:
                # What was read stays there until it was taken: whoever sees nothing to be read sees all that was said.
                chunk = self._line.recv(65536, socket.MSG_PEEK)
            except OSError:
                chunk = b""
            if not chunk:
                break
            self._take(chunk)
            with contextlib.suppress(OSError):
                self._line.recv(len(chunk))
        # What a dying guest printed last need not end with a line end.
        self._take(b"\n" if self._partial else b"", printed=False)
        self._at_end = True

    def _take(self, chunk: bytes, printed: bool = True) -> None:
        with self._lock:
            start = self._length - len(self._partial)
            *lines, self._partial = (self._partial + chunk).split(b"\n")
            self._length += len(chunk) if printed else 0
            for line in lines:
                text = _text(line).strip()
                kind = find_report(text)
                if kind is not None:
                    self._reports.append(Report(kind, text, start))
                elif text.startswith(MILESTONE):
                    self._milestones.setdefault(text, time.monotonic())
                start += len(line) + 1
            # Last: a full disk must not keep us from seeing what the kernel complains about.
            if printed:
                self._file.write(chunk)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace").replace("\r", "")
