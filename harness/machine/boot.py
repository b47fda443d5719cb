"""Starting a machine from nothing: its files, QEMU, and the wait until the guest's init says that it is ready."""

import contextlib
import functools
import logging
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from harness.errors import BootError, HostError
from harness.host.deadline import Deadline, wait_until
from harness.machine.accelerator import Accelerator
from harness.machine.command import READY_LINE, Channels, Emulator, backing_files, qemu_command
from harness.machine.custody import REMEDY, private_folder
from harness.machine.ending import EndKind
from harness.machine.machine import BootTimes, Machine
from harness.machine.qemu import QMP_LIMIT_S, QUIT_LIMIT_S, Qemu, connect_qmp, read_ssh_port, running_qemu
from harness.machine.qmp import Qmp
from harness.machine.regions import by_maker
from harness.machine.regions.maker import Placement
from harness.machine.spec import MachineSpec, check, place_in_ram
from harness.sizes import format_size

log = logging.getLogger(__name__)

#: From QEMU's start to the ready line, before the accelerator's time scale: a good five times what it takes.
BOOT_LIMIT_S = 15.0


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
            log.warning("the boot failed, once more with a verbose kernel: %s", failed)
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
            log.info("process %d: QMP after %.2f s, ready after %.2f s under %s", qemu.pid, qmp_s, times.ready_s, accelerator.name)
            yield Machine(qemu, spec, accelerator, folder, ssh_port, placements, times, failed_boot, started_s)


def _make_files(sizes: Mapping[Path, int]) -> None:
    try:
        for path, size_bytes in sizes.items():
            with path.open("wb") as file:
                file.truncate(size_bytes)
    except OSError as error:
        raise HostError(f"cannot make {path} of {format_size(size_bytes)} for a machine: {error.strerror}; {REMEDY}") from error


def read_placements(spec: MachineSpec, qmp: Qmp, deadline: Deadline) -> tuple[Placement, ...]:
    """Return where every region of ``spec`` lies: parts of RAM as we placed them, the others as QEMU did. Raises MachineError."""
    ask = functools.partial(qmp.execute, deadline=deadline)
    placed = [*(place_in_ram(spec.regions, spec.ram_bytes) or ())]
    for maker, regions in by_maker(spec.regions):
        placed += maker.placements(regions, ask)
    found = {placement.name: placement for placement in placed}
    return tuple(found[region.name] for region in spec.regions)


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
