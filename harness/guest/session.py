"""A guest in use: set a storage stack up in it, make it fresh for a case, read it back, run programs on it."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from harness.errors import AgentError, GuestError
from harness.guest.ageing import aged_volumes, ageing_requests, mounting, unmounting
from harness.guest.audit import audit_request
from harness.guest.facts import (
    PROBE_FILE,
    TAINT,
    VERSION_COMMANDS,
    clone_patterns,
    clone_program,
    fact_patterns,
    probe_program,
    read_again,
    read_stack,
    require_same,
    require_same_mounts,
    version_facts,
)
from harness.guest.filesystem import (
    CLEARED_BYTES,
    FILESYSTEMS,
    MOUNT_TABLE,
    PREPARED_FOLDER,
    Superblocks,
    clear_commands,
    make_commands,
    missing_filesystems,
    parse_mounts,
    parse_superblock,
    prepared_request,
    require_filesystem,
    superblock_command,
    unmount_commands,
)
from harness.guest.layers import LAYER_PATTERNS, MAKERS, driver_commands, drivers_of, find_node, require_drivers
from harness.guest.layout import OVERLAY_FOLDER, Layout, PlacedVolume, find_bar, layer_base, place_volume, region_placement
from harness.guest.link import AgentLink, CommandOutput, Endpoint, GuestCommand, linked, start_agent
from harness.guest.pmem import (
    REGION_PATTERNS,
    RegionPlacement,
    closing_command,
    find_region,
    namespace_commands,
    opening_command,
    read_regions,
    require_read_only,
)
from harness.guest.regions import bringing_commands
from harness.guest.ssh import Ssh, SshAddress, connected
from harness.guest.terminal import interact
from harness.host.deadline import Deadline
from harness.host.log import took
from harness.model.audit_outcome import Audit, audit_from
from harness.model.outcome import ALWAYS_SHOWN, How, Observation, observations_from
from harness.model.stack import StackReading, StorageStack
from harness.ops import Program, describe
from harness.ops.codec import program_document

log = logging.getLogger(__name__)

_DISK_SERIALS = "/sys/block/*/serial"
_PCI = "/sys/bus/pci/devices/*"
_RXE = "/sys/class/infiniband/rxe0"
_BLOCKED_S = 1.0
_STEP_LIMIT_S = 120.0


@dataclass(frozen=True)
class KernelLine:
    """One message of the guest's kernel. ``level``: 0 (emergency) to 7 (debug)."""

    uptime_s: float
    level: int
    text: str


@dataclass(frozen=True)
class SessionState:
    """What a guest that was saved is known by: where its agent listens, its stack with devices and folders, its versions."""

    endpoint: Endpoint
    layout: Layout = Layout(StorageStack(()), ())  # noqa: RUF009  (frozen, all the way down)
    facts: tuple[tuple[str, str], ...] = ()


@contextmanager
def connect(
    address: SshAddress,
    agent_source: bytes,
    mkfs: Mapping[str, tuple[str, ...]],
    deadline: Deadline,
    *,
    scale: float = 1.0,
    saved: SessionState | None = None,
    find_end: Callable[[], str | None] = lambda: None,
) -> "Iterator[GuestSession]":
    """Connect to a guest and start the agent in it. A guest that was ``saved`` has one: it is told the time, and that it is another now.

    ``mkfs``: the command by file system, without the device. ``scale``: the accelerator's time scale, for every wait. ``find_end`` says how
    the guest ended, once it has. Raises GuestError or AgentError.
    """
    with connected(address, deadline, find_end) as ssh:
        state = saved or SessionState(start_agent(ssh, agent_source, deadline))
        with linked(ssh, state.endpoint, agent_source, deadline, restored=saved is not None) as link:
            yield GuestSession(link, mkfs, state, scale, ssh)


class GuestSession:
    """See :func:`connect`. ``ssh`` is for a person's shell; everything else goes through the agent."""

    def __init__(
        self, link: AgentLink, mkfs: Mapping[str, tuple[str, ...]], state: SessionState, scale: float = 1.0, ssh: Ssh | None = None
    ) -> None:
        self._link, self._mkfs, self._scale, self.ssh = link, mkfs, scale, ssh
        self.state = state

    @property
    def layout(self) -> Layout:
        """The stack of the last :meth:`set_up`, with its devices and folders in this guest."""
        return self.state.layout

    def set_up(self, stack: StorageStack, placements: Sequence[RegionPlacement], deadline: Deadline | None = None) -> None:
        """Load modules and bring every namespace into its mode; :meth:`refresh` then makes the file systems.

        Raises GuestError, with what the guest has instead where a region, a disk or the BAR is missing.
        """
        deadline = deadline or self._limit(300)
        with took(log, logging.INFO, f"set up {stack.describe()}"):
            self._unmount(self.layout, deadline)
            self._undo_layers(self.layout, deadline)
            self._prepare_kernel(stack, deadline)
            self._make_namespaces(stack, placements, deadline)
            files = self._link.read_files((*REGION_PATTERNS, _DISK_SERIALS, f"{_PCI}/vendor", f"{_PCI}/device"), deadline)
            disks = {(serial or "").strip(): path.split("/")[3] for path, serial in files.files.items() if path.endswith("/serial")}
            regions = read_regions(files)
            placed = tuple(place_volume(volume, placements, regions, disks) for volume in stack.volumes)
            placed = tuple(self._with_layer(volume, disks, deadline) for volume in placed)
            bar = find_bar(files.files) if stack.ivshmem else None
            folders = [v.folder for v in placed] + ([OVERLAY_FOLDER] if stack.can_overlay else [])
            enable = [GuestCommand(("sh", "-c", f"echo 1 > {bar.rpartition('/')[0]}/enable"))] if bar else []
            self._link.commands([GuestCommand(("mkdir", "-p", *folders)), *enable], deadline)
            layout = Layout(stack, placed, bar)
            versions = self._link.commands([GuestCommand(argv, may_fail=True) for argv in VERSION_COMMANDS], deadline)
            self.state = SessionState(self.state.endpoint, layout, version_facts(versions))

    def refresh(self, deadline: Deadline | None = None) -> StackReading:
        """Make the stack fresh for a case (mkfs, aged, mounted; a node or a dax device cleared; caches dropped) and read it back.

        Raises GuestError: also when something is still mounted and cannot be unmounted, so that nothing is made on top of it.
        """
        with took(log, logging.INFO, f"made {self.layout.stack.describe()} fresh"):
            return self._refreshed(self.layout, deadline or self._limit(120))

    def _refreshed(self, layout: Layout, deadline: Deadline) -> StackReading:
        self._unmount(layout, deadline)
        with self._writable(layout, deadline), self._prepared_files(layout, deadline):
            self._link.commands([command for placed in layout.volumes for command in self._fresh_commands(placed)], deadline)
            self.clear_devices(deadline)
            self._age(aged_volumes(layout.volumes), deadline)
        superblocks = self._read_superblocks(layout, deadline)
        program = probe_program(layout)
        observations = self.run(program, deadline)
        files = self._link.read_files(fact_patterns(layout), deadline)
        reading = read_stack(layout, program, observations, files, superblocks, self.state.facts)
        if self._probes():
            self._link.remove_files(self._probes(), deadline)
        return reading

    def clear_devices(self, deadline: Deadline | None = None) -> None:
        """Zero the begin of every dax device. Raises GuestError."""
        for placed in self.layout.volumes:
            if placed.volume.is_dax_device:
                self._link.request("clear", deadline or self._limit(120), path=placed.node, length=CLEARED_BYTES)

    def read_clone(self, saved: StackReading, deadline: Deadline | None = None) -> StackReading:
        """Read the stack of a restored guest back in this guest, and make sure that it is the one it was saved with.

        Raises GuestError, and StackMismatchError that shows each difference, mounts that were not there included. The volumes are left as
        :meth:`refresh` leaves them: mounted, without a file.
        """
        layout, program = self.layout, clone_program(self.layout)
        document, files = self._link.inspect(
            program_document(program), layout.roots, clone_patterns(layout), self._probes(), deadline or self._limit(120)
        )
        reading = read_again(layout, saved, program, _observations(program, document), files)
        require_same_mounts(saved, files)
        require_same(saved, reading)
        return reading

    def _probes(self) -> list[str]:
        return [f"{placed.folder}/{PROBE_FILE}" for placed in self.layout.mounted if not placed.is_read_only]

    def run(
        self, program: Program, deadline: Deadline | None = None, *, blocked_s: float = _BLOCKED_S, limit_s: float = _STEP_LIMIT_S
    ) -> tuple[Observation, ...]:
        """Run a program on the stack. ``blocked_s``: asleep so long in one call is blocked. ``limit_s``: a step may take so long (scaled).

        Raises GuestError when the guest is lost or a step neither ends nor blocks; AgentError for a break of the protocol.
        """
        document = self._link.run(
            program_document(program),
            self.layout.roots,
            self.layout.devices,
            deadline or self._limit(2 * limit_s),
            blocked_s=blocked_s,
            limit_s=limit_s * self._scale,
        )
        return _observations(program, document)

    def run_many(
        self, programs: Sequence[Program], fresh: Sequence[str], *, blocked_s: float = _BLOCKED_S, limit_s: float = _STEP_LIMIT_S
    ) -> Iterator[tuple[Observation, ...]]:
        """Run programs in one round trip, the folders ``fresh`` empty before each; yield the observations of each as they arrive.

        Raises as :meth:`run`, of the program after the last one yielded; where the guest is lost an earlier one may have done it.
        """
        documents = self._link.run_many(
            [program_document(program) for program in programs],
            self.layout.roots,
            self.layout.devices,
            fresh,
            lambda: self._limit(2 * limit_s),
            blocked_s=blocked_s,
            limit_s=limit_s * self._scale,
        )
        for program, document in zip(programs, documents, strict=True):
            yield _observations(program, document)

    def audit(self, program: Program, *, check: bool, deadline: Deadline | None = None) -> Audit | None:
        """Look at what ``program`` left: read all files, unmount, ``check`` the file systems, mount again, and read once more.

        None: no volume is mounted. Raises GuestError when the guest is lost or hangs; AgentError for a break of the protocol.
        """
        deadline = deadline or self._limit(120)
        request = audit_request(self.layout, program, check=check, scale=self._scale, limit_s=max(1.0, deadline.remaining_s - 1.0))
        return None if request is None else audit_from(self._link.request("audit", deadline, **request))

    def taint(self) -> int:
        """Return the kernel's taint flags after the last program or audit. Raises GuestError where nobody could read them."""
        if self._link.taint is None:
            raise GuestError(f"the guest does not let {TAINT} be read")
        return self._link.taint

    def kernel_log(self, after: int = 0) -> tuple[tuple[KernelLine, ...], int]:
        """Return the kernel's messages from sequence number ``after`` on, and the number to go on from."""
        answer = self._link.request("kernel_log", self._limit(60), after=after)
        lines = tuple(KernelLine(row[1] / 1e6, row[2], row[3]) for row in answer["lines"])
        return lines, int(answer["next"])

    def commands(self, commands: Sequence[GuestCommand], deadline: Deadline | None = None) -> tuple[CommandOutput, ...]:
        """Run commands in the guest (see AgentLink.commands)."""
        return self._link.commands(commands, deadline or self._limit(120))

    def shell(self) -> int:
        """Connect this terminal to a login shell in the guest until that ends, and return its exit status. Raises GuestError."""
        if self.ssh is None:
            raise GuestError("this session has no SSH connection of its own to open a shell on")
        return interact(self.ssh, self._limit(60))

    @property
    def scale(self) -> float:
        """The accelerator's time scale, for waits of others."""
        return self._scale

    def _limit(self, seconds: float) -> Deadline:
        return Deadline.after(seconds, self._scale)

    def _unmount(self, layout: Layout, deadline: Deadline) -> None:
        mounts = parse_mounts(self._link.read_files((MOUNT_TABLE,), deadline).text(MOUNT_TABLE) or "")
        nodes = frozenset(placed.node for placed in layout.volumes)
        self._link.commands(unmount_commands(mounts, nodes), deadline)

    def _prepare_kernel(self, stack: StorageStack, deadline: Deadline) -> None:
        wanted = {v.mount.filesystem for v in stack.volumes if v.mount is not None}
        missing = missing_filesystems(self._link.read_files((FILESYSTEMS,), deadline).text(FILESYSTEMS) or "", wanted)
        said = self._link.commands(
            [
                # What is built in is there already, and a kernel without modules has no folder of them for modprobe to look at.
                *(GuestCommand(("modprobe", str(filesystem)), may_fail=True) for filesystem in missing),
                # A program that dies of SIGSEGV is an observation, not news for the console.
                GuestCommand(("sh", "-c", "echo 0 > /proc/sys/debug/exception-trace"), may_fail=True),
                # Only cases that say so need soft-RoCE (CONFIG_RDMA_RXE). Built in, it leaves no trace before its first device: so the
                # kernel is asked for one, whatever modprobe says.
                GuestCommand(
                    ("sh", "-c", f"test -e {_RXE} || {{ modprobe -q rdma_rxe; rdma link add rxe0 type rxe netdev eth0; }}"), may_fail=True
                ),
            ],
            deadline,
        )
        if missing:
            there = self._link.read_files((FILESYSTEMS,), deadline).text(FILESYSTEMS) or ""
            for filesystem, output in zip(missing, said, strict=False):
                require_filesystem(filesystem, there, output)

    def _make_namespaces(self, stack: StorageStack, placements: Sequence[RegionPlacement], deadline: Deadline) -> None:
        self._link.commands(bringing_commands(region.kind for region in stack.regions), deadline)
        regions = read_regions(self._link.read_files(REGION_PATTERNS, deadline))
        commands = []
        for wanted in stack.namespaces:
            region = find_region(regions, region_placement(wanted[0], placements))
            require_read_only(region, wanted[0].region.kind)
            if region.read_only:
                commands.append(opening_command(region.name))
            commands += namespace_commands(region, wanted)
        self._link.commands(commands, deadline)

    def _with_layer(self, placed: PlacedVolume, disks: Mapping[str, str], deadline: Deadline) -> PlacedVolume:
        """Make the layer of a volume that is ``placed`` on its namespace; return it on its layer."""
        base, layer = layer_base(placed, disks), placed.volume.layer
        if base is None:
            return placed
        drivers = drivers_of([layer])
        said = self._link.commands(driver_commands(drivers), deadline)
        require_drivers(drivers, self._link.read_files([driver.control for driver in drivers], deadline), said)
        self._link.commands(MAKERS[layer].make(base, self._mkfs), deadline)
        return replace(placed, node=find_node(layer, base, self._link.read_files(LAYER_PATTERNS, deadline)), base=base)

    def _undo_layers(self, layout: Layout, deadline: Deadline) -> None:
        on_layers = [(MAKERS[placed.volume.layer], placed.base, placed.node) for placed in layout.volumes if placed.base is not None]
        self._link.commands([command for maker, base, node in on_layers for command in maker.undo(base, node)], deadline)

    @contextmanager
    def _writable(self, layout: Layout, deadline: Deadline) -> Iterator[None]:
        """Have regions that are read-only be written while they are made fresh."""
        closed = [placed for placed in layout.volumes if placed.volume.is_read_only]
        self._link.commands([closing_command(placed.name, False) for placed in closed], deadline)
        yield
        self._link.commands([closing_command(placed.name, True) for placed in closed], deadline)

    @contextmanager
    def _prepared_files(self, layout: Layout, deadline: Deadline) -> Iterator[None]:
        """Have the files that mkfs takes into file systems which nobody can write to."""
        request = prepared_request(placed.volume.mount for placed in layout.volumes if placed.volume.mount is not None)
        if request is None:
            yield
            return
        self._link.request("prepare", deadline, **request)
        yield
        self._link.commands([GuestCommand(("rm", "-r", PREPARED_FOLDER))], deadline)

    def _fresh_commands(self, placed: PlacedVolume) -> tuple[GuestCommand, ...]:
        if placed.volume.is_dax_device:
            return ()  # no command writes to one: the agent does, through a mapping
        if placed.volume.mount is None:
            return clear_commands(placed.node)
        return make_commands(placed.volume.mount, placed.node, self._mkfs)

    def _read_superblocks(self, layout: Layout, deadline: Deadline) -> Superblocks:
        """Ask the file systems that mkfs makes otherwise than usual how they were made. Raises GuestError."""
        mounts = [(placed.node, placed.volume.mount) for placed in layout.volumes if placed.volume.mount is not None]
        asked = [(node, mount, command) for node, mount in mounts if (command := superblock_command(mount, node)) is not None]
        said = self._link.commands([command for _, _, command in asked], deadline) if asked else ()
        return {node: parse_superblock(mount, output.stdout) for (node, mount, _), output in zip(asked, said, strict=True)}

    def _age(self, volumes: Sequence[PlacedVolume], deadline: Deadline) -> None:
        """Leave foreign bytes in the free blocks of fresh file systems (harness/guest/ageing.py). Raises GuestError."""
        if not volumes:
            return
        for request in ageing_requests(volumes):
            self._require_done(mounting(volumes), deadline)
            self._link.request("age", deadline, **request)
            self._require_done(unmounting(volumes), deadline)

    def _require_done(self, program: Program, deadline: Deadline) -> None:
        for step, seen in zip(program.steps, self.run(program, deadline), strict=True):
            if seen.how is not How.RETURNED:
                raise GuestError(f"while ageing a volume, {describe(step.operation)} gave {seen.describe()}")


def _observations(program: Program, document: Mapping[str, Any]) -> tuple[Observation, ...]:
    observations = observations_from(document)
    if [seen.step for seen in observations] != list(range(len(program.steps))):
        raise AgentError(f"{len(program.steps)} steps were asked for, the agent answered steps {[seen.step for seen in observations]}")
    for seen in observations:
        operation = program.performed(seen.step)
        strange = sorted(seen.evidence - {shown.name for shown in operation.shows} - ALWAYS_SHOWN)
        if strange:
            raise AgentError(f"the observation of step {seen.step} has {strange[0]}, which {operation.call} does not show")
    return observations
