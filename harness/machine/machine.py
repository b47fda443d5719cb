"""A machine whose guest is ready: asked, pressed keys on, diagnosed."""

import contextlib
import logging
import re
import time
from dataclasses import dataclass
from pathlib import Path

from harness.errors import CONSOLE_FOLLOWS, MachineError
from harness.host.deadline import Deadline, wait_until
from harness.machine.accelerator import Accelerator
from harness.machine.command import CONSOLE_ID
from harness.machine.console import Console
from harness.machine.ending import Ending, EndKind
from harness.machine.qemu import QMP_LIMIT_S, Qemu
from harness.machine.qmp import Qmp
from harness.machine.regions.maker import Placement
from harness.machine.spec import MachineSpec

log = logging.getLogger(__name__)

#: QEMU's answer when all is well takes a millisecond.
_STATUS_LIMIT_S = 2.0
#: States in which QEMU lets the guest stand still, for reasons that are not the guest's.
_PAUSED = {"paused", "io-error", "debug", "internal-error"}
#: A console that printed nothing for so long has said what it was asked.
_QUIET_S = 0.5


@dataclass(frozen=True)
class BootTimes:
    """Seconds from QEMU's start until it answered QMP, and until init's ready line arrived.

    ``milestones`` are the lines that the guest's init prints about itself, with the seconds at which each arrived.
    """

    qmp_s: float
    ready_s: float
    milestones: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Machine:
    """A started machine whose guest printed its ready line: SSH answers on ``ssh_port`` of the host's loopback.

    Made by ``started_machine``, which also ends it. ``placements`` says where each region lies in physical memory.
    ``failed_boot`` tells of a first, quiet boot that failed before this one came up verbosely; empty in the usual case.
    """

    qemu: Qemu
    spec: MachineSpec
    accelerator: Accelerator
    folder: Path
    ssh_port: int
    placements: tuple[Placement, ...]
    boot_times: BootTimes
    failed_boot: str = ""
    started_s: float = 0.0

    def age_s(self) -> float:
        """Return the seconds since its QEMU was started."""
        return time.monotonic() - self.started_s

    @property
    def qmp(self) -> Qmp:
        return self.qemu.qmp

    @property
    def console(self) -> Console:
        return self.qemu.console

    @property
    def pid(self) -> int:
        return self.qemu.pid

    def ending(self) -> Ending:
        """Return how the guest ended, as far as can be seen now."""
        return self.qemu.ending()

    def wait_ended(self, deadline: Deadline) -> Ending:
        """Wait for QEMU to end, then return how; EndKind.RUNNING when the deadline passed first."""
        return self.qemu.wait_ended(deadline)

    def wait_disconnected(self, deadline: Deadline) -> bool:
        """Wait until the guest has no connection from the host any more; False when the deadline passed first."""

        def is_alone() -> bool:
            limit = Deadline.after(QMP_LIMIT_S)
            said = str(self.qmp.execute("human-monitor-command", {"command-line": "info usernet"}, deadline=limit))
            return not re.search(r"TCP\[(?!HOST_FORWARD|TIME_WAIT|CLOSED)", said)

        return bool(wait_until(is_alone, deadline))

    def send_sysrq(self, key: str, deadline: Deadline) -> None:
        """Press a magic SysRq key on the serial console: ``c`` crashes the guest, ``w`` prints its blocked tasks, ``o`` powers it off.

        Needs nothing of the guest but a kernel that takes interrupts. Raises MachineError when QEMU is gone.
        """
        log.info("pressing SysRq %s in process %d", key, self.pid)
        self.qmp.execute("chardev-send-break", {"id": CONSOLE_ID}, deadline=deadline)
        try:
            self.console.send(key)
        except OSError as error:
            raise MachineError(f"QEMU hung up on the console: {self.ending().reason}") from error

    def find_own_fault(self) -> str | None:
        """Return what is wrong on our side of the guest, or None: QEMU is stopped, or the console is not read."""
        with contextlib.suppress(OSError):
            state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
            if state in "Tt":
                return f"QEMU (process {self.pid}) was stopped by a signal or a debugger"
        with contextlib.suppress(MachineError):
            answer = self.qmp.execute("query-status", deadline=Deadline.after(_STATUS_LIMIT_S))
            status = answer.get("status") if isinstance(answer, dict) else None
            if status in _PAUSED:
                return f"QEMU has stopped the guest: {status}" + (" (is the host's disk full?)" if status == "io-error" else "")
        if not self.console.is_drained():
            return "the guest's console was not read: the thread that follows it has stopped"
        return None

    def find_end(self) -> str | None:
        """Return how the guest ended, with its last words, or None while it runs."""
        ending = self.ending()
        return None if ending.kind is EndKind.RUNNING else f"{ending.reason}\n{CONSOLE_FOLLOWS}\n{self.console.tail(20)}"

    def diagnose(self, deadline: Deadline) -> str:
        """Return what a guest that hangs can still be made to say: its blocked tasks (SysRq w) and its registers. Never raises."""
        log.info("asking the guest of process %d for its registers and blocked tasks", self.pid)
        mark = self.console.mark()
        said: list[str] = []
        try:
            registers = self.qmp.execute("human-monitor-command", {"command-line": "info registers"}, deadline=deadline)
            said += ["== registers ==", str(registers).strip(), "== blocked tasks (SysRq w) =="]
            # 9: print everything. The kernel's quietness is for the time when all is well.
            for key in ("9", "w"):
                self.send_sysrq(key, deadline)
            wait_until(lambda: "Show Blocked State" in self.console.since(mark), deadline)
            before = -1
            while before != (before := self.console.mark()) and not deadline.expired:
                wait_until(lambda: False, deadline.within(_QUIET_S))
            said.append(self.console.since(mark).strip() or "(the kernel did not answer)")
        except MachineError as error:
            log.warning("asking ended: %s", error)
            said.append(f"(no more: {error})")
        return "\n".join(said).replace("\r", "") + "\n"
