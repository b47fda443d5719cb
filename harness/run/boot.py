"""Booting a guest for a storage stack: image, machine, SSH and agent come together here and nowhere else."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

from harness.errors import GuestError, GuestHungError, HarnessError
from harness.guest.pmem import RegionPlacement
from harness.guest.session import GuestSession, connect
from harness.guest.ssh import SshAddress
from harness.host.cache import Progress
from harness.host.deadline import Deadline
from harness.image.bundle import GuestImage, guest_image
from harness.image.catalog import KernelChoice
from harness.machine.accelerator import Accelerator, choose_accelerator
from harness.machine.command import GDB_SOCKET, Emulator
from harness.machine.console import Report, ReportKind
from harness.machine.custody import private_folder
from harness.machine.emulator import find_emulator
from harness.machine.machine import Ending as GuestEnding
from harness.machine.machine import EndKind, Machine, started_machine
from harness.machine.spec import MachineSpec, needed_ram_bytes
from harness.model.audit import Audit
from harness.model.operation import Program
from harness.model.outcome import Observation
from harness.model.stack import StackReading, StorageStack
from harness.run.artifacts import GuestDescription
from harness.run.pool import Booter
from harness.sizes import MIB

#: From QEMU's start to the agent's first answer, before the accelerator's time scale.
BOOT_LIMIT_S = 60.0
#: No operation of a case takes a tenth of this where it does not block.
STEP_LIMIT_S = 30.0
#: How long a connection that broke may be ahead of the end of QEMU.
_LAST_WORDS_S = 1.0
#: How long a guest that hangs is asked why, before it is ended.
_DIAGNOSIS_LIMIT_S = 3.0
#: The BAR of the ivshmem device: a few huge pages.
IVSHMEM_BYTES = 16 * MIB


@dataclass(frozen=True)
class Host:
    """What this computer runs guests with."""

    emulator: Emulator
    accelerator: Accelerator


@dataclass(frozen=True)
class GuestOptions:
    """How guests are to be started. Limits are seconds on an accelerated host; emulation multiplies them.

    ``step_limit_s``: how long one step of a program may take, blocked or not. ``announce``: say that a boot begins, and not only that one
    is done. ``keep``: a folder in which a clone's memory, regions included, outlives it. ``gdb``: a debugger can attach.
    ``detail``: where that is said which only who looks closely wants to read.
    """

    boot_limit_s: float = BOOT_LIMIT_S
    step_limit_s: float = STEP_LIMIT_S
    announce: bool = True
    gdb: bool = False
    keep: Path | None = None
    detail: Progress = lambda _: None


def find_host() -> Host:
    """Return this computer's QEMU and accelerator. Raises HostError or UsageError."""
    emulator = find_emulator()
    return Host(emulator, choose_accelerator(emulator))


def make_spec(image: GuestImage, stack: StorageStack) -> MachineSpec:
    """Return the machine that ``stack`` needs."""
    return MachineSpec(
        boot_kernel=image.boot_kernel,
        initrd=image.initrd,
        rootfs=image.rootfs,
        ram_bytes=needed_ram_bytes(stack.regions),
        regions=stack.regions,
        disks=stack.disks,
        ivshmem_bytes=IVSHMEM_BYTES if stack.ivshmem else 0,
    )


def make_booter(choose: Callable[[str], KernelChoice], progress: Progress, options: GuestOptions = GuestOptions()) -> Booter:
    """Return what boots guests here. Nothing is looked up before the first boot, and the host only then."""
    hosts: list[Host] = []

    @contextlib.contextmanager
    def boot(stack: StorageStack, kernel: str) -> Iterator[BootedGuest]:
        if not hosts:
            hosts.append(find_host())
        with booted_guest(hosts[0], choose(kernel), stack, progress, options) as guest:
            yield guest

    return boot


@contextlib.contextmanager
def booted_guest(
    host: Host, choice: KernelChoice, stack: StorageStack, progress: Progress, options: GuestOptions
) -> "Iterator[BootedGuest]":
    """Boot a guest with the devices of ``stack``, and bring its namespaces into their modes; the first refresh does the rest.

    Raises HostError, UsageError, MachineError, BootError, GuestError or AgentError.
    """
    image = guest_image(choice, progress)
    if options.announce:
        progress(f"booting {choice.name} for {stack.describe()} ({host.accelerator.name})")
    deadline = Deadline.after(options.boot_limit_s, host.accelerator.time_scale)
    with contextlib.ExitStack() as lifetime:
        machine, connection = booted_session(host, image, make_spec(image, stack), deadline, lifetime, gdb=options.gdb)
        session = lifetime.enter_context(connection)
        connected_s = machine.age_s()
        since = machine.console.mark()
        placements = [RegionPlacement(p.name, p.kind, p.start, p.size_bytes) for p in machine.placements]
        session.set_up(stack, placements)
        set_up_s = machine.age_s()
        progress(f"booted {choice.name} in {connected_s:.1f} s (set up: {set_up_s - connected_s:.1f} s) for {stack.describe()}")
        times = (("ready", machine.boot_times.ready_s), ("agent", connected_s), ("set_up", set_up_s))
        description = describe_guest(host, image, machine.qemu.command, times)
        if machine.failed_boot:
            description = replace(description, lifecycle_note=f"booted at the second try: {first_line(machine.failed_boot)}")
        yield BootedGuest(machine, session, description, options, ssh_address(machine, image), since=since)


def booted_session(
    host: Host, image: GuestImage, spec: MachineSpec, deadline: Deadline, lifetime: contextlib.ExitStack, *, gdb: bool = False
) -> tuple[Machine, contextlib.AbstractContextManager[GuestSession]]:
    """Boot a machine that ends with ``lifetime``; return it with a connection to its guest, which the caller opens and closes.

    Raises HostError, UsageError, MachineError or BootError.
    """
    logs = lifetime.enter_context(private_folder())
    machine = lifetime.enter_context(started_machine(spec, host.emulator, host.accelerator, logs, deadline, gdb=gdb))
    return machine, connect(
        ssh_address(machine, image), agent_source(), image.mkfs, deadline, scale=host.accelerator.time_scale, find_end=machine.find_end
    )


def ssh_address(machine: Machine, image: GuestImage) -> SshAddress:
    """Return where the guest of ``machine`` answers, with the keys that both sides know each other by."""
    return SshAddress(machine.ssh_port, image.client_key, image.host_public_key)


def first_line(text: str) -> str:
    return next(iter(text.splitlines()), "")


@functools.cache
def agent_source() -> bytes:
    """Return the agent's one file, as it was when this process first asked: what runs in guests, whatever is edited meanwhile."""
    return resources.files("harness.agent").joinpath("agent.py").read_bytes()


def describe_guest(host: Host, image: GuestImage, command: tuple[str, ...], times: tuple[tuple[str, float], ...]) -> GuestDescription:
    """Return what goes into every record: versions, hashes, accelerator with its reason, the QEMU command."""
    return GuestDescription(
        kernel=image.kernel,
        release=image.release,
        accelerator=host.accelerator.name,
        accelerator_reason=host.accelerator.reason,
        qemu_version=host.emulator.version_text,
        qemu_command=tuple(command),
        versions=tuple(sorted(image.packages.items())),
        sha256=tuple(sorted(image.sha256.items())),
        mkfs=tuple((name, " ".join(words)) for name, words in sorted(image.mkfs.items())),
        boot_times=tuple((name, round(seconds, 3)) for name, seconds in times),
    )


def ways_in(guest: "BootedGuest") -> list[str]:
    """Return how a person gets into a running guest: the line for ssh and, where it was asked for, for gdb."""
    machine, address = guest.machine, guest.address
    known = machine.folder / "known_hosts"
    known.write_text(f"[{address.host}]:{address.port} {address.host_public_key}\n")
    lines = [
        f"to get in: ssh -p {address.port} -i {address.client_key} -o UserKnownHostsFile={known} -o IdentitiesOnly=yes "
        f"{address.user}@{address.host}"
    ]
    if (machine.folder / GDB_SOCKET).exists():
        lines.append(f"to debug: gdb -ex 'target remote {machine.folder / GDB_SOCKET}' vmlinux")
    return lines


class BootedGuest:
    """See :class:`harness.run.pool.Guest`. ``session`` and ``machine`` are for a person's shell and debugger."""

    def __init__(
        self,
        machine: Machine,
        session: GuestSession,
        description: GuestDescription,
        options: GuestOptions,
        address: SshAddress,
        fresh: StackReading | None = None,
        since: int = 0,
    ) -> None:
        """``fresh``: the reading of a stack that nobody has used yet, as it was taken when the guest was saved.

        ``since``: from where on the console's complaints count: all that a clone prints, what a booted guest prints from its set-up on.
        """
        self.machine = machine
        self.session = session
        self.description = description
        self._options = options
        self.address = address
        self._taint = session.taint()
        self._fresh = fresh
        self._since = since
        self._damage: list[str] = []
        #: What the taint says of the last program, empty where that is nothing.
        self._tainted = ""
        #: Set when the guest did not answer: nothing more is asked of it.
        self._silent: HarnessError | None = None

    def refresh(self) -> StackReading:
        fresh, self._fresh = self._fresh, None
        with self._damage_noted():
            if fresh is None:
                return self.session.refresh()
            self.session.require_mounted(fresh)
            return fresh

    def run(self, program: Program) -> tuple[Observation, ...]:
        with self._damage_noted():
            observations = self.session.run(program, limit_s=self._options.step_limit_s)
        self._look_at_taint()
        return observations

    def audit(self, program: Program, *, check: bool) -> Audit | None:
        with self._damage_noted():
            audit = self.session.audit(program, check=check)
        if audit is not None:
            self._look_at_taint()
        return audit

    def _look_at_taint(self) -> None:
        try:
            taint = self.session.taint()
        except HarnessError as error:  # what was observed stays observed; how the guest ended is asked next
            self._damage.append(str(error))
            return
        if taint != self._taint and not self._tainted:
            self._tainted = f"the kernel's taint flags went from {self._taint} to {taint}"
            self._damage.append(self._tainted)

    def mark(self) -> int:
        return self.machine.console.mark()

    def ending(self, mark: int) -> GuestEnding:
        ending = self.machine.ending()
        reports = self.machine.console.reports(mark)
        if self._tainted and not reports:
            reports = (Report(ReportKind.WARNING, self._tainted, mark),)
        return GuestEnding(ending.kind, ending.reason, reports)

    def console(self, mark: int) -> str:
        return self.machine.console.since(mark)

    def kernel_log(self) -> str:
        if self._silent is not None:
            return self._last_of_console(self._silent)
        try:
            lines, _ = self.session.kernel_log()
        except HarnessError as error:
            return self._last_of_console(error)
        return "".join(f"[{line.uptime_s:12.6f}] <{line.level}> {line.text}\n" for line in lines)

    def _last_of_console(self, error: HarnessError) -> str:
        return f"(the kernel's log cannot be read: {error}; the last of the console:)\n{self.machine.console.tail(400)}\n"

    def find_own_fault(self) -> str | None:
        return self.machine.find_own_fault()

    def diagnose(self) -> str:
        return self.machine.diagnose(Deadline.after(_DIAGNOSIS_LIMIT_S, self.machine.accelerator.time_scale))

    def find_damage(self) -> str | None:
        ending = self.ending(self._since)
        if ending.kind is not EndKind.RUNNING:
            return ending.reason
        if ending.reports:
            return f"its kernel complained: {ending.reports[0].line}"
        return self._damage[0] if self._damage else None

    @contextlib.contextmanager
    def _damage_noted(self) -> Iterator[None]:
        try:
            yield
        except HarnessError as error:
            self._damage.append(str(error))
            self._silent = error if isinstance(error, GuestError) else None
            # A guest that broke off may be about to end: what it ends with says why.
            if not isinstance(error, GuestHungError):
                self.machine.wait_ended(Deadline.after(_LAST_WORDS_S))
            raise
