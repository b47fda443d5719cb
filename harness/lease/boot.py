"""Booting a guest for a storage stack: image, machine, SSH and agent come together here and nowhere else."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from harness.agent.bundle import agent_archive
from harness.errors import BootError, GuestError, GuestHungError, HarnessError, MachineError, NotReadyError, logs_of
from harness.guest.facts import taint_of
from harness.guest.pmem import RegionPlacement
from harness.guest.session import GuestSession, connect
from harness.guest.ssh import SshAddress
from harness.host import settings
from harness.host.cache import Progress
from harness.host.deadline import Deadline
from harness.image.bundle import GuestImage, guest_image
from harness.image.catalog import KernelChoice
from harness.lease.complaints import TAINTING, Excused, reports_of, split_expected, without_stamps
from harness.lease.kept import LogKeeper, kept_logs, without_private_folders
from harness.machine.accelerator import Accelerator, choose_accelerator, emulated_instead, find_refuted, refute_kvm
from harness.machine.command import GDB_SOCKET, Emulator
from harness.machine.emulator import find_emulator
from harness.machine.machine import Ending as GuestEnding
from harness.machine.machine import EndKind, Machine, started_machine
from harness.machine.spec import MachineSpec, needed_ram_bytes
from harness.model.audit import Audit
from harness.model.complaint import Report, ReportKind
from harness.model.known import ExpectedLine
from harness.model.outcome import Observation
from harness.model.stack import StackReading, StorageStack
from harness.ops import Program
from harness.record.item import GuestDescription
from harness.sizes import MIB

T = TypeVar("T")

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
    ``detail``: where that is said which only who looks closely wants to read. ``kernel_arguments``: the user's own words on the kernel's
    command line. ``expected``: lines of the kernel's that are no complaint. ``keeper``: keeps the logs of a guest that does not come up.
    """

    boot_limit_s: float = BOOT_LIMIT_S
    step_limit_s: float = STEP_LIMIT_S
    announce: bool = True
    gdb: bool = False
    keep: Path | None = None
    detail: Progress = lambda _: None
    kernel_arguments: tuple[str, ...] = ()
    expected: tuple[ExpectedLine, ...] = ()
    keeper: LogKeeper | None = None


def find_host() -> Host:
    """Return this computer's QEMU and accelerator. Raises HostError or UsageError."""
    emulator = find_emulator()
    return Host(emulator, choose_accelerator(emulator))


def make_spec(image: GuestImage, stack: StorageStack, kernel_arguments: tuple[str, ...] = ()) -> MachineSpec:
    """Return the machine that ``stack`` needs. ``kernel_arguments``: the user's own words on the kernel's command line."""
    return MachineSpec(
        boot_kernel=image.boot_kernel,
        initrd=image.initrd,
        rootfs=image.rootfs,
        kernel_arguments=kernel_arguments,
        ram_bytes=needed_ram_bytes(stack.regions),
        regions=stack.regions,
        disks=stack.disks,
        ivshmem_bytes=IVSHMEM_BYTES if stack.ivshmem else 0,
    )


def make_booter(
    choose: Callable[[str], KernelChoice], progress: Progress, options: GuestOptions = GuestOptions()
) -> "Callable[[StorageStack, str], contextlib.AbstractContextManager[BootedGuest]]":
    """Return what boots guests here, a Booter. Nothing is looked up before the first boot, and the host only then."""
    host = HostInUse(progress)

    @contextlib.contextmanager
    def boot(stack: StorageStack, kernel: str) -> Iterator[BootedGuest]:
        choice = choose(kernel)
        with contextlib.ExitStack() as lifetime:
            yield host.start(
                f"a guest of {kernel}", lambda host: lifetime.enter_context(booted_guest(host, choice, stack, progress, options))
            )

    return boot


@contextlib.contextmanager
def booted_guest(
    host: Host, choice: KernelChoice, stack: StorageStack, progress: Progress, options: GuestOptions
) -> "Iterator[BootedGuest]":
    """Boot a guest with the devices of ``stack``, and bring its namespaces into their modes; the first refresh does the rest.

    Raises HostError, UsageError, NotReadyError, BootError, GuestError or AgentError.
    """
    image = guest_image(choice, progress)
    if options.announce:
        progress(f"booting {choice.name} for {stack.describe()} ({host.accelerator.name})")
    deadline = Deadline.after(options.boot_limit_s, host.accelerator.time_scale)
    with contextlib.ExitStack() as lifetime:
        logs = lifetime.enter_context(kept_logs(options.keeper, f"{choice.name} {stack.describe()}"))
        spec = make_spec(image, stack, options.kernel_arguments)
        machine, connection = booted_session(host, image, spec, logs, deadline, lifetime, gdb=options.gdb)
        session = lifetime.enter_context(connection)
        connected_s = machine.age_s()
        placements = [RegionPlacement(p.name, p.kind, p.start, p.size_bytes) for p in machine.placements]
        session.set_up(stack, placements)
        set_up_s = machine.age_s()
        progress(f"booted {choice.name} in {connected_s:.1f} s (set up: {set_up_s - connected_s:.1f} s) for {stack.describe()}")
        times = (("ready", machine.boot_times.ready_s), ("agent", connected_s), ("set_up", set_up_s))
        description = describe_guest(host, image, machine, times)
        if machine.failed_boot:
            failed = without_private_folders(machine.failed_boot)
            kept = options.keeper.keep(logs, f"{choice.name} {stack.describe()}", failed) if options.keeper else ""
            note = f"booted at the second try: {first_line(failed)}" + (f"; logs: {kept}" if kept else "")
            description = replace(description, lifecycle_note=note)
        yield BootedGuest(machine, session, description, options, ssh_address(machine, image))


def booted_session(
    host: Host, image: GuestImage, spec: MachineSpec, logs: Path, deadline: Deadline, lifetime: contextlib.ExitStack, *, gdb: bool = False
) -> tuple[Machine, contextlib.AbstractContextManager[GuestSession]]:
    """Boot a machine that ends with ``lifetime``; return it with a connection to its guest, which the caller opens and closes.

    ``logs``: a folder for what it says. Raises HostError, UsageError, NotReadyError or BootError, the connection NotReadyError or
    AgentError.
    """
    try:
        machine = lifetime.enter_context(started_machine(spec, host.emulator, host.accelerator, logs, deadline, gdb=gdb))
    except BootError:
        raise
    except MachineError as error:
        raise NotReadyError(str(error)) from error
    connection = connect(
        ssh_address(machine, image), agent_archive(), image.mkfs, deadline, scale=host.accelerator.time_scale, find_end=machine.find_end
    )
    return machine, first_connection(connection)


@contextlib.contextmanager
def first_connection(connection: contextlib.AbstractContextManager[GuestSession]) -> Iterator[GuestSession]:
    """Open the connection to a guest that is coming up. Raises NotReadyError where the guest does not answer, and AgentError."""
    with contextlib.ExitStack() as lifetime:
        try:
            session = lifetime.enter_context(connection)
        except GuestError as error:
            raise NotReadyError(f"the guest did not answer: {error}") from error
        yield session


class HostInUse:
    """This computer's host, looked up at the first start. Where guests come up under TCG and not under KVM, it is TCG from then on.

    A self-test cannot know all that a kernel needs of KVM. One that was chosen here, and not demanded, has to bring guests up.
    """

    def __init__(self, progress: Progress, find: Callable[[], Host] = find_host) -> None:
        self._progress, self._find = progress, find
        self._host: Host | None = None
        #: What did not come up under TCG either: it is not tried there again.
        self._tried: set[str] = set()

    def start(self, what: str, attempt: Callable[[Host], T]) -> T:
        """Return what ``attempt`` starts: under KVM, or else once under TCG. ``what``: it, in words. Raises what ``attempt`` raises."""
        host = self.current()
        try:
            return attempt(host)
        except NotReadyError as error:
            if not host.accelerator.tentative or what in self._tried:
                raise
            # Another worker may have been quicker to find out.
            known = self.current()
            return self._started_emulated(host, what, attempt, error) if known.accelerator.tentative else attempt(known)

    def current(self) -> Host:
        """Return the host; what another worker found out about KVM meanwhile holds for this one too."""
        if self._host is None:
            self._host = self._find()
        if self._host.accelerator.tentative:
            emulated = find_refuted(self._host.emulator)
            self._host = self._host if emulated is None else replace(self._host, accelerator=emulated)
        return self._host

    def _started_emulated(self, host: Host, what: str, attempt: Callable[[Host], T], under_kvm: NotReadyError) -> T:
        self._progress(f"{what} did not come up under kvm ({first_line(str(under_kvm))}): trying once under tcg")
        evidence = f"{what} came up under tcg and not under kvm ({first_line(str(under_kvm))})"
        emulated = Host(host.emulator, emulated_instead(host.accelerator, evidence))
        try:
            started = attempt(emulated)
        except NotReadyError as error:
            self._tried.add(what)
            raise _failed_under_both(error, under_kvm) from under_kvm
        self._host = emulated
        if find_refuted(host.emulator) is not None:
            return started
        refute_kvm(host.emulator, host.accelerator, evidence)
        self._progress(
            f"tcg runs the guests from now on, until this computer boots again: {evidence}; {settings.PREFIX}ACCEL=kvm uses KVM all the "
            f"same. It was found faster before: {host.accelerator.reason}. What came back under kvm:\n{under_kvm}"
        )
        return started


def _failed_under_both(error: NotReadyError, under_kvm: NotReadyError) -> NotReadyError:
    before = f"(under tcg; under kvm before: {first_line(str(under_kvm))})"
    if isinstance(error, BootError):
        problem, tail = without_private_folders(error.problem), without_private_folders(error.console_tail)
        failed: NotReadyError = BootError(f"{problem} {before}", tail)
    else:
        failed = NotReadyError(f"{error} {before}")
    failed.logs = logs_of(error)
    return failed


def ssh_address(machine: Machine, image: GuestImage) -> SshAddress:
    """Return where the guest of ``machine`` answers, with the keys that both sides know each other by."""
    return SshAddress(machine.ssh_port, image.client_key, image.host_public_key)


def first_line(text: str) -> str:
    return next(iter(text.splitlines()), "")


def describe_guest(host: Host, image: GuestImage, machine: Machine, times: tuple[tuple[str, float], ...]) -> GuestDescription:
    """Return what goes into every record: versions, hashes, accelerator with its reason, the QEMU command."""
    return GuestDescription(
        kernel=image.kernel,
        release=image.release,
        accelerator=host.accelerator.name,
        accelerator_reason=host.accelerator.reason,
        qemu_version=host.emulator.version_text,
        qemu_command=tuple(machine.qemu.command),
        kernel_args=" ".join(machine.spec.kernel_arguments),
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
    """See :class:`harness.lease.pool.Guest`. ``session`` and ``machine`` are for a person's shell and debugger."""

    def __init__(
        self,
        machine: Machine,
        session: GuestSession,
        description: GuestDescription,
        options: GuestOptions,
        address: SshAddress,
        fresh: StackReading | None = None,
        inherited: Sequence[str] = (),
    ) -> None:
        """``fresh``: the reading of a stack that nobody has used yet, as it was taken when the guest was saved.

        ``inherited``: the lines with which the kernel complained before it was saved; they count like those that it prints here.
        """
        self.machine = machine
        self.session = session
        self.description = description
        self._options = options
        self.address = address
        #: The taint flags from before the first program; read with the stack.
        self._taint: int | None = None
        self._fresh = fresh
        self._inherited = reports_of(inherited)
        self._damage: list[str] = []
        #: What the taint says of the last program, empty where that is nothing.
        self._tainted = ""
        #: Why nobody knows whether the last program tainted the kernel, empty where somebody does.
        self._unseen = ""
        #: Set when the guest did not answer: nothing more is asked of it.
        self._silent: HarnessError | None = None

    def refresh(self) -> StackReading:
        fresh, self._fresh = self._fresh, None
        with self._damage_noted():
            reading = self.session.refresh() if fresh is None else self.session.read_clone(fresh)
        if self._taint is None:
            self._taint = taint_of(reading)
            _, excused = self._complaints()
            self.description = replace(self.description, expected=without_stamps(excused))
        return reading

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
        except HarnessError as error:  # what was observed stays observed, and counts for nothing
            self._damage.append(str(error))
            self._unseen = str(error)
            return
        if self._taint is not None and taint != self._taint and not self._tainted:
            self._tainted = f"the kernel's taint flags went from {self._taint} to {taint}"
            self._damage.append(self._tainted)

    def mark(self) -> int:
        return self.machine.console.mark()

    def ending(self, mark: int) -> GuestEnding:
        ending = self.machine.ending()
        reports = self.machine.console.reports(mark)
        if self._tainted and not any(report.kind in TAINTING for report in reports):
            reports = (*reports, Report(ReportKind.WARNING, self._tainted, mark))
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
        return self.machine.find_own_fault() or self._unseen or None

    def diagnose(self) -> str:
        return self.machine.diagnose(Deadline.after(_DIAGNOSIS_LIMIT_S, self.machine.accelerator.time_scale))

    def find_damage(self) -> str | None:
        ending = self.ending(0)
        if ending.kind is not EndKind.RUNNING:
            return ending.reason
        complaints, _ = self._complaints()
        if complaints:
            return f"its kernel complained: {complaints[0].line}"
        return self._damage[0] if self._damage else None

    def _complaints(self) -> tuple[tuple[Report, ...], Excused]:
        """Return what the kernel complained about since its boot, and what of that was expected."""
        self.machine.console.is_drained()  # what has been printed is read before it is looked at
        reports = (*self._inherited, *self.ending(0).reports)
        return split_expected(reports, self.description.release, self.session.layout.stack.describe(), self._options.expected)

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
