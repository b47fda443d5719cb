"""A guest of few lines: has whatever stack it was asked for, answers each operation by its name, and can be told to misbehave."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from harness.errors import HarnessError
from harness.lease.guest import Auditing, Performed
from harness.lease.pool import Booter
from harness.machine.ending import Ending, EndKind
from harness.model.audit_outcome import Audit
from harness.model.complaint import Report, ReportKind
from harness.model.formats import Format
from harness.model.outcome import How, Observation
from harness.model.stack import Namespace, StackReading, StorageStack, Volume, VolumeReading
from harness.ops import Operation, Pread, Program, Pwrite
from harness.record.item import GuestDescription, Lifecycle

Answer = Callable[[Operation], Observation]

NOT_MOUNTED = Audit(skipped="no volume was mounted when the program had ended")
RUNNING = Ending(EndKind.RUNNING, "QEMU is running")
DESCRIPTION = GuestDescription(
    kernel="debian_6.12",
    release="6.12.95-fake",
    accelerator="tcg",
    accelerator_reason="it is a fake",
    qemu_version="10.0.2",
    qemu_command=("qemu-system-x86_64", "-S", "-object", "memory-backend-file,id=ram,mem-path=/dev/shm/pmemh-x1/ram,size=1024"),
    versions=(("linux-image-fake", "6.12.95-1"), ("bash", "5")),
)


def obedient(operation: Operation) -> Observation:
    """Everything works, and whole."""
    value = operation.length if isinstance(operation, Pwrite | Pread) else 0
    return Observation(0, How.RETURNED, value)


@dataclass
class FakeGuest:
    """``ended`` and ``error`` are what comes of a program; ``damage`` is there afterwards."""

    stack: StorageStack
    answer: Answer = obedient
    change: Mapping[str, object] = field(default_factory=dict)
    ended: Ending = RUNNING
    error: HarnessError | None = None
    refresh_error: HarnessError | None = None
    damage: str | None = None
    own_fault: str = ""
    hang: str = ""
    audited: Audit = NOT_MOUNTED
    refreshed: int = 0
    description: GuestDescription = DESCRIPTION

    def refresh(self) -> StackReading:
        self.refreshed += 1
        if self.refresh_error is not None:
            raise self.refresh_error
        return make_reading(self.stack, **self.change)

    def run(self, program: Program, auditing: Auditing) -> Performed:
        steps = enumerate(program.steps)
        seen = None if self.error else tuple(replace(self.answer(step.operation), step=index) for index, step in steps)
        audit = None if self.error or auditing is Auditing.NONE else self.audited
        return Performed(seen, audit, self.error, self.ended, self.own_fault, self.hang, "console since 7\n", "the kernel's log\n")

    def find_damage(self) -> str | None:
        return self.damage


def make_reading(stack: StorageStack, **change: object) -> StackReading:
    """Return what a guest says that has ``stack``, but for the fields of the main volume that ``change`` names."""
    volumes = [_reading(volume, stack.mount_in_program) for volume in stack.volumes]
    volumes[0] = replace(volumes[0], **change)  # type: ignore[arg-type]
    return StackReading("6.12.95-fake", tuple(volumes))


def _reading(volume: Volume, unmounted: bool) -> VolumeReading:
    device, mount = volume.device, None if unmounted else volume.mount
    base = VolumeReading(
        role=volume.role,
        device="/dev/fake",
        root=f"/mnt/{volume.role}",
        filesystem=None if mount is None else str(mount.filesystem),
        mount_options=() if mount is None or mount.dax is None else (f"dax={mount.dax}",),
        dax=volume.asks_dax,
        queue_dax=isinstance(device, Namespace) and device.mode.traits.queue_dax and volume.layer.traits.queue_dax,
        logical_block_bytes=512,
        filesystem_block_bytes=4096 if mount is None else mount.format.traits.block_bytes,
        size_bytes=1 << 28,
        format=Format.STANDARD if volume.mount is None else volume.mount.format,
    )
    if not isinstance(device, Namespace):
        return base
    return replace(
        base,
        layer=volume.layer,
        half=device.half,
        region_start=1 << 28,
        region_size_bytes=device.region.size_bytes,
        provider=device.region.kind.traits.provider,
        namespace_mode=str(device.mode),
        page_map=None if device.map is None else str(device.map),
        frame_in_region=volume.asks_dax,
        read_only=device.region.kind.traits.read_only,
        has_labels=device.region.kind.traits.has_labels,
        persistence_domain=device.region.kind.traits.persistence_domain,
        align_bytes=None if device.align is None else device.align.bytes,
    )


@dataclass
class FakeHost:
    """Boots fakes and remembers it: ``booted`` in order, ``alive`` those that nobody ended. ``make`` may raise: a failed boot."""

    make: Callable[[StorageStack], FakeGuest] = FakeGuest
    booted: list[tuple[StorageStack, str]] = field(default_factory=list)
    alive: list[FakeGuest] = field(default_factory=list)
    #: How many were alive at once, at most.
    most: int = 0

    @property
    def boot(self) -> Booter:
        @contextlib.contextmanager
        def boot(stack: StorageStack, kernel: str) -> Iterator[FakeGuest]:
            self.booted.append((stack, kernel))
            guest = self.make(stack)
            self.alive.append(guest)
            self.most = max(self.most, len(self.alive))
            try:
                yield guest
            finally:
                self.alive.remove(guest)

        return boot

    @property
    def booters(self) -> dict[Lifecycle, Booter]:
        return dict.fromkeys(Lifecycle, self.boot)


def complaint(kind: ReportKind, line: str) -> Ending:
    """A guest that runs on after its kernel complained."""
    return Ending(EndKind.RUNNING, "QEMU is running", (Report(kind, line, 0),))
