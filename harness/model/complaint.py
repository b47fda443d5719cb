"""What the kernel's lines on a console say: which of them complain, of what kind, and where a report came from."""

import re
from dataclasses import dataclass
from enum import StrEnum

from harness.model.filesystems import FILESYSTEM_TRAITS


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
        # What follows leaves no taint. tests/unit/model/test_complaint.py has a line of a real kernel for each alternative.
        *((ReportKind.FILE_SYSTEM, pattern) for filesystem in FILESYSTEM_TRAITS.values() for pattern in filesystem.complaints),
        (ReportKind.FILE_SYSTEM, r"Remounting filesystem read-only"),
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
        # drivers/dax/device.c dev_dax_probe, drivers/dax/pmem.c; a mapping that is refused "fails" in a line that is no complaint.
        (ReportKind.PMEM, r"(?:device_dax|dax_pmem) \S+: .*(?:could not reserve|conflict)"),
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
