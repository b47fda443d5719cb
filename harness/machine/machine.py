"""A machine's life: started, waited for, used, classified when it ends, and gone without a trace."""

import contextlib
import re
import shlex
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from harness.errors import CONSOLE_FOLLOWS, BootError, HostError, MachineError
from harness.host import process
from harness.host.deadline import Deadline, wait_until
from harness.host.memory import count_kills, find_room
from harness.machine.accelerator import Accelerator
from harness.machine.command import CONSOLE_ID, GUEST_SSH_PORT, READY_LINE, Channels, Emulator, backing_files, qemu_command
from harness.machine.console import Console
from harness.machine.custody import REMEDY, private_folder
from harness.machine.qmp import Qmp
from harness.machine.spec import MachineSpec, Placement, check, place_e820
from harness.model.complaint import Report, ReportKind
from harness.model.stack import RegionKind
from harness.sizes import format_size

#: From QEMU's start to the ready line, before the accelerator's time scale: a good five times what it takes.
BOOT_LIMIT_S = 15.0
#: QEMU's own answers do not depend on the guest, only on how busy the host is.
QMP_LIMIT_S = 30.0
#: QEMU's answer when all is well takes a millisecond.
_STATUS_LIMIT_S = 2.0
#: States in which QEMU lets the guest stand still, for reasons that are not the guest's.
_PAUSED = {"paused", "io-error", "debug", "internal-error"}
#: A console that printed nothing for so long has said what it was asked.
_QUIET_S = 0.5
#: How long QEMU may take to end when asked, before it is killed.
QUIT_LIMIT_S = 5.0


class EndKind(StrEnum):
    """How a guest ended, or that it did not."""

    RUNNING = "running"
    SHUTDOWN = "guest-shutdown"
    RESET = "guest-reset"
    PANIC = "guest-panic"
    QEMU_DIED = "qemu-died"
    STOPPED = "stopped-by-harness"


@dataclass(frozen=True)
class Ending:
    """How a guest ended, why we think so, and what its kernel complained about on the way."""

    kind: EndKind
    reason: str
    reports: tuple[Report, ...] = ()


@dataclass(frozen=True)
class BootTimes:
    """Seconds from QEMU's start until it answered QMP, and until init's ready line arrived.

    ``milestones`` are the lines that the guest's init prints about itself, with the seconds at which each arrived.
    """

    qmp_s: float
    ready_s: float
    milestones: tuple[tuple[str, float], ...]


class _Process(Protocol):
    """What a machine needs of its QEMU process."""

    pid: int
    returncode: int | None

    def poll(self) -> int | None: ...
    def kill(self) -> None: ...


def classify_ending(
    events: Sequence[dict[str, object]], exit_status: int | None, reports: Sequence[Report], stopped: bool = False
) -> Ending:
    """Return how the guest ended. QEMU's exit status alone says nothing: it is 0 for power-off, reboot and panic alike.

    ``events`` are QMP events; ``exit_status`` is None while QEMU runs; ``stopped``: the harness itself asked QEMU to quit.
    """
    kept = tuple(reports)
    names = [str(event.get("event")) for event in events]
    if "GUEST_PANICKED" in names or "GUEST_CRASHLOADED" in names:
        return Ending(EndKind.PANIC, "the guest reported its panic through pvpanic", kept)
    panics = [report for report in kept if report.kind is ReportKind.PANIC]
    if panics:
        return Ending(EndKind.PANIC, f"the console shows: {panics[0].line}", kept)
    for event in events:
        if event.get("event") != "SHUTDOWN":
            continue
        data = event.get("data")
        cause = str(data.get("reason")) if isinstance(data, dict) else "none"
        if cause == "guest-shutdown":
            return Ending(EndKind.SHUTDOWN, "the guest powered itself off", kept)
        if cause == "guest-reset":
            return Ending(EndKind.RESET, "the guest asked for a reset", kept)
        if not stopped:
            return Ending(EndKind.QEMU_DIED, f"QEMU shut down on its own: {cause}", kept)
    if stopped:
        return Ending(EndKind.STOPPED, "the harness ended it", kept)
    if exit_status is not None:
        return Ending(EndKind.QEMU_DIED, f"QEMU ended with status {exit_status} and no word of a shutdown", kept)
    return Ending(EndKind.RUNNING, "QEMU is running", kept)


class Qemu:
    """A QEMU process with its two lines, QMP and console, from start to end."""

    def __init__(self, command: tuple[str, ...], running: _Process, qmp: Qmp, console: Console, logs: Path) -> None:
        self.command = command
        self.qmp = qmp
        self.console = console
        self.logs = logs
        self._process = running
        self._stopped = False
        self._drained = False
        self._kills_before = count_kills()

    @property
    def pid(self) -> int:
        return self._process.pid

    def ending(self) -> Ending:
        """Return how the guest ended, as far as can be seen now. Of a process that is gone, all that it said is in first."""
        status = self._process.poll()
        if status is not None:
            self._drain()
        events = [dict(event) for event in self.qmp.events()]
        ending = classify_ending(events, status, self.console.reports(), self._stopped)
        cause = self._cause_of_death() if ending.kind is EndKind.QEMU_DIED else ""
        return replace(ending, reason=f"{ending.reason}: {cause}") if cause else ending

    def _cause_of_death(self) -> str:
        """Return what is known to make the host's kernel end QEMU by a signal, where it shows; else an empty text."""
        if self._process.returncode == -signal.SIGBUS:
            return "SIGBUS, as where the file system that its memory lies on is full, or a file there was cut"
        if self._process.returncode == -signal.SIGKILL and count_kills() > self._kills_before:
            return f"this computer's kernel killed it for want of memory, as its control group counts; {find_room().describe()}"
        return ""

    def wait_ended(self, deadline: Deadline) -> Ending:
        """Wait for QEMU to end, then return how; EndKind.RUNNING when the deadline passed first."""
        wait_until(lambda: self._process.poll() is not None, deadline)
        return self.ending()

    def stop(self) -> None:
        """End QEMU: ask it to quit, then kill it. Never raises an opinion; ``ending`` has the story."""
        if self._process.poll() is None:
            self._stopped = self.ending().kind is EndKind.RUNNING
            with contextlib.suppress(MachineError):
                self.qmp.execute("quit", deadline=Deadline.after(QUIT_LIMIT_S))
        wait_until(lambda: self._process.poll() is not None, Deadline.after(QUIT_LIMIT_S))
        end_process(self._process)
        self._drain()

    def _drain(self) -> None:
        # The last words of a process that is gone are still on their way through two sockets.
        if not self._drained:
            self.console.wait_closed(QUIT_LIMIT_S)
            self.qmp.wait_closed(Deadline.after(QUIT_LIMIT_S))
        self._drained = True


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

    @property
    def command_line(self) -> str:
        """The QEMU command as a line for a shell (its two ``fd=`` sockets are inherited ones)."""
        return shlex.join(self.qemu.command)

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
            said.append(f"(no more: {error})")
        return "\n".join(said).replace("\r", "") + "\n"

    def power_off(self, deadline: Deadline) -> Ending:
        """Have the guest's kernel power off and return how it ended: RUNNING where it did not listen (leaving the ``with`` kills it)."""
        with contextlib.suppress(MachineError):  # a guest that is gone already needs no powering off
            self.send_sysrq("o", deadline)
        return self.wait_ended(deadline)


@contextlib.contextmanager
def started_machine(
    spec: MachineSpec, emulator: Emulator, accelerator: Accelerator, logs: Path, deadline: Deadline, *, gdb: bool = False
) -> Iterator[Machine]:
    """Boot a machine, hand it over when its guest is ready, and end it with everything that belongs to it.

    ``logs`` is a folder of the caller's; it keeps command, console, QMP transcript and what QEMU wrote to stderr. A boot that fails is
    repeated once with a verbose kernel, because a quiet one hides why; when that comes up, ``failed_boot`` tells of the first. ``gdb``: a
    debugger can attach.
    Raises UsageError (the spec cannot work), HostError (no room), MachineError (QEMU did not start) and BootError (the kernel did
    not come up).
    """
    check(spec)
    pvh = is_elf(spec.boot_kernel)
    with contextlib.ExitStack() as lifetime:
        try:
            machine = lifetime.enter_context(_booted(spec, emulator, accelerator, logs / "boot", deadline, pvh=pvh, gdb=gdb))
        except BootError as first:
            if deadline.expired:
                raise
            failed = str(first)
            machine = lifetime.enter_context(
                _booted(spec, emulator, accelerator, logs / "boot-verbose", deadline, pvh=pvh, gdb=gdb, verbose=True, failed_boot=failed)
            )
        yield machine


def is_elf(kernel: Path) -> bool:
    """Say whether ``kernel`` is an uncompressed ELF kernel, which QEMU enters through its PVH note, and not a bzImage."""
    with kernel.open("rb") as file:
        return file.read(4) == b"\x7fELF"


@contextlib.contextmanager
def _booted(
    spec: MachineSpec,
    emulator: Emulator,
    accelerator: Accelerator,
    logs: Path,
    deadline: Deadline,
    *,
    pvh: bool,
    gdb: bool,
    verbose: bool = False,
    failed_boot: str = "",
) -> Iterator[Machine]:
    """One boot: quiet or verbose."""

    def make_command(folder: Path, channels: Channels) -> list[str]:
        return qemu_command(spec, emulator, accelerator.name, folder, channels, pvh=pvh, verbose=verbose, gdb=gdb)

    logs.mkdir(parents=True, exist_ok=True)
    with private_folder(sum(backing_files(spec, Path()).values())) as folder:
        _make_files(backing_files(spec, folder))
        started_s = time.monotonic()
        with running_qemu(lambda channels: make_command(folder, channels), logs) as qemu:
            connect_qmp(qemu, deadline)
            qmp_s = time.monotonic() - started_s
            ssh_port = read_ssh_port(qemu.qmp, deadline.within(QMP_LIMIT_S))
            placements = read_placements(spec, qemu.qmp, deadline.within(QMP_LIMIT_S))
            qemu.qmp.execute("cont", deadline=deadline.within(QMP_LIMIT_S))
            _wait_ready(qemu, emulator, deadline.within(BOOT_LIMIT_S * accelerator.time_scale))
            milestones = {line: at_s - started_s for line, at_s in qemu.console.milestones().items()}
            times = BootTimes(qmp_s, milestones[READY_LINE], tuple(milestones.items()))
            yield Machine(qemu, spec, accelerator, folder, ssh_port, placements, times, failed_boot, started_s)


def _make_files(sizes: Mapping[Path, int]) -> None:
    try:
        for path, size_bytes in sizes.items():
            with path.open("wb") as file:
                file.truncate(size_bytes)
    except OSError as error:
        raise HostError(f"cannot make {path} of {format_size(size_bytes)} for a machine: {error.strerror}; {REMEDY}") from error


@contextlib.contextmanager
def running_qemu(make_command: Callable[[Channels], Sequence[str]], logs: Path) -> Iterator[Qemu]:
    """Start QEMU with both lines connected, its guest waiting for ``cont``; end it at the end, on every path."""
    qmp_ours, qmp_theirs = socket.socketpair()
    console_ours, console_theirs = socket.socketpair()
    with contextlib.ExitStack() as lifetime:
        qmp = lifetime.enter_context(Qmp(qmp_ours, logs / "qmp.jsonl"))
        console = lifetime.enter_context(Console(console_ours, logs / "console.log"))
        with qmp_theirs, console_theirs, (logs / "qemu.stderr").open("wb") as errors:
            fds = (qmp_theirs.fileno(), console_theirs.fileno())
            command = tuple(make_command(Channels(*fds)))
            (logs / "command").write_text(shlex.join(command) + "\n")
            running = process.start(command, stderr=errors.fileno(), pass_fds=fds)
        qemu = Qemu(command, running, qmp, console, logs)
        lifetime.callback(qemu.stop)
        yield qemu


def end_process(running: _Process) -> None:
    """Kill what is still running and wait until it is gone."""
    if running.poll() is None:
        running.kill()
        # Only a process that is stuck inside the kernel outlasts this; the reaper has it then.
        wait_until(lambda: running.poll() is not None, Deadline.after(QUIT_LIMIT_S))


def read_ssh_port(qmp: Qmp, deadline: Deadline) -> int:
    """Ask QEMU which loopback port it picked for the guest's SSH. Raises MachineError."""
    said = str(qmp.execute("human-monitor-command", {"command-line": "info usernet"}, deadline=deadline))
    port = find_forwarded_port(said, GUEST_SSH_PORT)
    if port is None:
        raise MachineError(f"QEMU lists no forwarded port for the guest's port {GUEST_SSH_PORT}; it said:\n{said.strip()}")
    return port


def find_forwarded_port(usernet: str, guest_port: int) -> int | None:
    """Return the host port that ``info usernet`` shows for ``guest_port``."""
    for line in usernet.splitlines():
        match = re.match(r"\s*TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)\s+\S+\s+(\d+)\s", line)
        if match and int(match[2]) == guest_port:
            return int(match[1])
    return None


def read_placements(spec: MachineSpec, qmp: Qmp, deadline: Deadline) -> tuple[Placement, ...]:
    """Return where every region of ``spec`` lies: e820 as we placed them, NVDIMMs as QEMU did. Raises MachineError."""
    found = {placement.name: placement for placement in place_e820(spec.regions, spec.ram_bytes) or ()}
    devices = qmp.execute("query-memory-devices", deadline=deadline) if spec.nvdimms else []
    for device in devices if isinstance(devices, list) else []:
        data = device["data"]
        sizes = {region.name: region.size_bytes for region in spec.nvdimms}
        if data.get("id") in sizes:
            found[data["id"]] = Placement(data["id"], RegionKind.NVDIMM, int(data["addr"]), sizes[data["id"]])
    lost = [region.name for region in spec.regions if region.name not in found]
    if lost:
        raise MachineError(f"QEMU does not list the NVDIMMs {', '.join(lost)}; it said: {devices}")
    return tuple(found[region.name] for region in spec.regions)


def connect_qmp(qemu: Qemu, deadline: Deadline) -> None:
    """Wait for QEMU's greeting. Raises MachineError with what QEMU said instead."""
    try:
        qemu.qmp.connect(deadline.within(QMP_LIMIT_S))
    except MachineError as error:
        ending = qemu.wait_ended(Deadline.after(1))
        said = (qemu.logs / "qemu.stderr").read_text(errors="replace").strip() or "(nothing)"
        raise MachineError(f"QEMU did not start: {ending.reason}; it said:\n{said}") from error


def _wait_ready(qemu: Qemu, emulator: Emulator, deadline: Deadline) -> None:
    """Wait for init's ready line. Raises BootError as soon as the guest has ended or panicked, or when the deadline has passed."""
    console = qemu.console
    wait_until(lambda: READY_LINE in console.milestones() or qemu.ending().kind is not EndKind.RUNNING, deadline)
    if READY_LINE in console.milestones():
        return
    ending = qemu.ending()
    if ending.kind is not EndKind.RUNNING:
        # The report of a panic goes on behind the line that names it, and ends with a reset.
        ending = qemu.wait_ended(Deadline.after(QUIT_LIMIT_S))
    if ending.kind is EndKind.PANIC:
        problem = f"the guest's kernel panicked before it was ready (QEMU {emulator.version_text}): {ending.reason}"
    elif ending.kind is EndKind.RUNNING:
        problem = f"the guest did not print {READY_LINE!r} within {deadline.limit_s:.0f} s"
    else:
        problem = f"the guest ended before it was ready ({ending.kind}): {ending.reason}"
    said = (qemu.logs / "qemu.stderr").read_text(errors="replace").strip()
    raise BootError(problem + (f"; QEMU said: {said}" if said else ""), console.tail())
