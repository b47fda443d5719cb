"""Booting a guest for a storage stack: image, machine, SSH and agent come together here and nowhere else."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from harness.agent.bundle import agent_archive
from harness.errors import BootError, GuestError, MachineError, NotReadyError, first_line
from harness.guest.pmem import RegionPlacement
from harness.guest.session import GuestSession, SessionState, connect
from harness.guest.ssh import SshAddress
from harness.host.cache import Progress
from harness.host.deadline import Deadline
from harness.image.bundle import GuestImage, guest_image
from harness.image.catalog import KernelChoice
from harness.lease.booted import BootedGuest
from harness.lease.host_in_use import Host, HostInUse
from harness.lease.kept import kept_logs, without_private_folders
from harness.lease.options import GuestOptions
from harness.machine.boot import started_machine
from harness.machine.machine import Machine
from harness.machine.spec import MachineSpec, needed_ram_bytes
from harness.model.stack import StorageStack
from harness.record.item import GuestDescription
from harness.sizes import MIB

log = logging.getLogger(__name__)

#: The BAR of the ivshmem device: a few huge pages.
IVSHMEM_BYTES = 16 * MIB


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
) -> Callable[[StorageStack, str], contextlib.AbstractContextManager[BootedGuest]]:
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
def booted_guest(host: Host, choice: KernelChoice, stack: StorageStack, progress: Progress, options: GuestOptions) -> Iterator[BootedGuest]:
    """Boot a guest with the devices of ``stack``, and bring its namespaces into their modes; the first refresh does the rest.

    Raises HostError, UsageError, NotReadyError, BootError, GuestError or AgentError.
    """
    image = guest_image(choice, progress)
    log.info("booting %s for %s (%s)", choice.name, stack.describe(), host.accelerator.name)
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
        log.info("booted %s: the agent answered after %.2f s, set up after %.2f s", choice.name, connected_s, set_up_s)
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


@contextlib.contextmanager
def connected_again(machine: Machine, image: GuestImage, state: SessionState, host: Host, deadline: Deadline) -> Iterator[GuestSession]:
    """Connect to a guest that was restored, in which an agent runs. Raises NotReadyError or AgentError."""
    scale = host.accelerator.time_scale
    connection = connect(
        ssh_address(machine, image), agent_archive(), image.mkfs, deadline, scale=scale, saved=state, find_end=machine.find_end
    )
    with first_connection(connection) as session:
        yield session


def ssh_address(machine: Machine, image: GuestImage) -> SshAddress:
    """Return where the guest of ``machine`` answers, with the keys that both sides know each other by."""
    return SshAddress(machine.ssh_port, image.client_key, image.host_public_key)


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
