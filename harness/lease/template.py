"""Templates: guests that were saved when they were ready, and clones that start from them in a fraction of a second.

There are two levels. A *machine template* is a booted guest whose agent answers; it serves every stack that needs the same devices. A
*stack template* is made from it: namespaces in their modes, file systems made and mounted, the stack read back. A clone of that starts
on a fresh, mounted file system.

A template is named by a hash of everything that shaped it, published whole or not at all, built once under a lock, and verified before a
process first uses it. Where one cannot be made or loaded, the guest is booted instead, and the report says why.
"""

import contextlib
import functools
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

from harness.agent.bundle import agent_archive
from harness.errors import BootError, GuestError, HarnessError, HostError, MachineError, StackMismatchError, UsageError, logs_of
from harness.guest.pmem import RegionPlacement
from harness.guest.session import GuestSession, SessionState, connect
from harness.host import settings
from harness.host.cache import Progress, content_key, remove_entry, stored_entry
from harness.host.deadline import Deadline
from harness.host.sparse import checksum
from harness.image.bundle import GuestImage, guest_image
from harness.image.catalog import KernelChoice
from harness.lease.boot import (
    BootedGuest,
    GuestOptions,
    Host,
    HostInUse,
    booted_guest,
    booted_session,
    describe_guest,
    find_host,
    first_connection,
    first_line,
    make_spec,
    ssh_address,
)
from harness.lease.complaints import split_expected
from harness.lease.kept import kept_logs
from harness.lease.pool import Booter
from harness.machine.command import Channels, qemu_command
from harness.machine.custody import removed_if_killed
from harness.machine.machine import Machine, is_elf
from harness.machine.snapshot import SavedMachine, restored_machine, save_machine, saved_files
from harness.machine.spec import MachineSpec, Placement
from harness.model.stack import StackReading, StorageStack, find_mismatches
from harness.ops import Meminfo, Program, Step
from harness.ops.codec import DocumentError
from harness.record.documents import from_document, to_document
from harness.record.item import Lifecycle
from harness.sizes import parse_size

MANIFEST = "template.json"
FORMAT = 1
#: Raise it when the code here changes what a template holds; part of its key.
_BUILDER = "2"
_BUILD_LIMIT_S = 1800.0
#: How long a guest may take to notice that the connection it was set up over is gone.
_QUIET_LIMIT_S = 5.0
#: Namespaces, mkfs, mount, reading back, saving: on an accelerated host.
_SET_UP_LIMIT_S = 120.0


@dataclass(frozen=True)
class Manifest:
    """What is known of a saved guest. ``checksums``: of the other files beside the manifest, by name.

    ``reading`` and a layout in ``session`` are there on the second level only. ``made_of`` is for people: kernel, QEMU, stack.
    ``complaints``: the console lines of its boot and set-up that look like complaints, all of them expected when it was saved.
    """

    placements: tuple[Placement, ...]
    session: SessionState
    reading: StackReading | None
    made_of: tuple[tuple[str, str], ...]
    checksums: tuple[tuple[str, str], ...] = ()
    complaints: tuple[str, ...] = ()


@dataclass(frozen=True)
class Template(Manifest):
    """A saved guest in its folder."""

    folder: Path = Path()


@dataclass(frozen=True)
class StoredTemplate:
    """An entry of the store as people see it: ``used_s`` is when it was last used, in seconds since the epoch."""

    name: str
    size_bytes: int
    used_s: float
    made_of: Mapping[str, str]


class Cloner:
    """Starts guests from templates, making those that are missing. One process has one; several may share the store."""

    def __init__(
        self,
        choose: Callable[[str], KernelChoice],
        progress: Progress,
        options: GuestOptions = GuestOptions(),  # noqa: B008
        store: Path | None = None,
    ) -> None:
        self._choose, self._progress, self._options = choose, progress, options
        self._detail = options.detail
        _set_up_code()
        self._store = store or settings.templates_root()
        self._host = HostInUse(progress, find_host)
        #: How the files of each template looked when they were verified.
        self._verified: dict[Path, tuple[tuple[int, int, int], ...]] = {}
        #: Why there is no template for a stack on a kernel.
        self._given_up: dict[tuple[StorageStack, str], str] = {}

    @contextlib.contextmanager
    def clone(self, stack: StorageStack, kernel: str) -> Iterator[BootedGuest]:
        """Start a guest with ``stack`` mounted; a :data:`Booter`. Raises what booting raises."""
        self._host.current()  # before an image is made for nothing
        choice = self._choose(kernel)
        image = guest_image(choice, self._progress)

        def booted(host: Host) -> BootedGuest:
            return lifetime.enter_context(booted_guest(host, choice, stack, self._progress, self._options))

        with contextlib.ExitStack() as lifetime:
            guest = self._find_clone(image, stack, kernel, lifetime)
            if guest is None:
                guest = self._host.start(f"a guest of {kernel}", booted)
                guest.description = replace(guest.description, lifecycle_note=self._given_up[stack, kernel])
            yield guest

    def _find_clone(self, image: GuestImage, stack: StorageStack, kernel: str, lifetime: contextlib.ExitStack) -> BootedGuest | None:
        """Return a clone, or None where there cannot be one: then ``_given_up`` knows why."""

        def restored(host: Host) -> BootedGuest:
            return lifetime.enter_context(self._restored(host, image, stack, self.stack_template(host, image, stack)))

        for last in (False, True):
            if (stack, kernel) in self._given_up:
                return None
            try:
                return self._host.start(f"a clone of {kernel}", restored)
            except (BootError, StackMismatchError, UsageError):
                raise
            except (MachineError, HostError, GuestError) as error:
                # A booted guest keeps nothing, and whoever asked for it is to know.
                if self._options.keep is not None:
                    raise
                # Setting up a stack may fail for reasons of the guest's: those show again, and plainly, when it is booted.
                if last:
                    self._give_up(stack, kernel, error)
                else:
                    self._progress(f"no clone for {stack.describe()}: {first_line(str(error))}; trying once more")
        return None

    def _give_up(self, stack: StorageStack, kernel: str, error: HarnessError) -> None:
        why = first_line(str(error)) + (f"; logs: {logs}" if (logs := logs_of(error)) else "")
        self._given_up[stack, kernel] = f"booted, not restored: {why}"
        self._progress(f"booting every guest for {stack.describe()} from now on: {why}")

    # ---- starting from a template

    @contextlib.contextmanager
    def _restored(self, host: Host, image: GuestImage, stack: StorageStack, template: Template) -> Iterator[BootedGuest]:
        deadline = self._boot_deadline(host)
        with contextlib.ExitStack() as lifetime:
            logs = lifetime.enter_context(kept_logs(self._options.keeper, f"{image.kernel} {stack.describe()}"))
            saved = SavedMachine(template.folder, make_spec(image, stack, self._options.kernel_arguments), template.placements)
            restored = restored_machine(
                saved, host.emulator, host.accelerator, logs, deadline, keep=self._options.keep, gdb=self._options.gdb
            )
            machine = lifetime.enter_context(restored)
            session = lifetime.enter_context(_connected(machine, image, template.session, host, deadline))
            _note_use(template.folder)
            self._detail(f"restored {image.kernel} in {machine.age_s():.2f} s for {stack.describe()}")
            times = (("restored", machine.boot_times.ready_s), ("agent", machine.age_s()))
            description = describe_guest(host, image, machine, times)
            description = replace(description, lifecycle=Lifecycle.RESTORED, template=template.folder.name)
            if template.reading is None:
                raise HostError(f"the template {template.folder} has no storage stack: remove it (python -m harness templates remove)")
            address = ssh_address(machine, image)
            yield BootedGuest(machine, session, description, self._options, address, template.reading, template.complaints)

    # ---- finding and making templates

    def stack_template(self, host: Host, image: GuestImage, stack: StorageStack) -> Template:
        """Return the template of a guest with ``stack`` mounted, making it (and the one it is made from) where it is missing.

        Raises what booting and setting up raise, and StackMismatchError where the guest does not have the stack.
        """
        spec = make_spec(image, stack, self._options.kernel_arguments)
        name = f"stack-{image.kernel}-{stack_key(host, image, spec, stack)}"

        def build(folder: Path) -> None:
            base = self.machine_template(host, image, spec)
            _note_use(base.folder)
            self._announced(f"making a template of {image.kernel} with {stack.describe()}")
            deadline = Deadline.after(_SET_UP_LIMIT_S, host.accelerator.time_scale)
            saved = SavedMachine(base.folder, spec, base.placements)
            with (
                kept_logs(self._options.keeper, f"{image.kernel} {stack.describe()}") as logs,
                restored_machine(saved, host.emulator, host.accelerator, logs, deadline, writable=True) as machine,
            ):
                with _connected(machine, image, base.session, host, deadline) as session:
                    placements = [RegionPlacement(p.name, p.kind, p.start, p.size_bytes) for p in machine.placements]
                    session.set_up(stack, placements)
                    reading = session.refresh()
                    state = session.state
                _require_stack(stack, reading)
                _warm(machine, image, state, reading, host, deadline)
                said = self._expected_only(machine, image, stack.describe(), f"setting up {stack.describe()}")
                made_of = _made_of(host, image, spec, stack)
                manifest = Manifest(machine.placements, state, reading, made_of, complaints=(*base.complaints, *said))
                _save(machine, folder, manifest, deadline)

        return self._template(name, build)

    def machine_template(self, host: Host, image: GuestImage, spec: MachineSpec) -> Template:
        """Return the template of a guest that has just been booted. Raises what booting raises."""
        name = f"machine-{image.kernel}-{machine_key(host, image, spec)}"

        def build(folder: Path) -> None:
            self._announced(f"booting {image.kernel} for a template ({host.accelerator.name})")
            deadline = self._boot_deadline(host)
            with contextlib.ExitStack() as lifetime:
                logs = lifetime.enter_context(kept_logs(self._options.keeper, f"{image.kernel} machine template"))
                machine, connection = booted_session(host, image, spec, logs, deadline, lifetime)
                if machine.failed_boot:
                    raise MachineError(f"it booted at the second try only: {first_line(machine.failed_boot)}")
                with connection as session:
                    state = session.state
                said = self._expected_only(machine, image, _devices_of(spec), "booting")
                made_of = _made_of(host, image, spec, None)
                _save(machine, folder, Manifest(machine.placements, state, None, made_of, complaints=said), deadline)

        return self._template(name, build)

    def _template(self, name: str, build: Callable[[Path], None]) -> Template:
        """Return the verified template ``name``. A damaged one is made anew, once."""

        def guarded(folder: Path) -> None:
            with removed_if_killed(folder):
                build(folder)

        is_new = not (self._store / name).is_dir()
        deadline = Deadline.after(_BUILD_LIMIT_S)
        entry = stored_entry(self._store, name, guarded, self._progress, deadline)
        found = self._verified_template(entry)
        if isinstance(found, str):
            self._progress(f"the template {name} is damaged ({found}): making it anew")
            with contextlib.suppress(FileNotFoundError):  # another process was quicker
                remove_entry(self._store, name, self._progress, deadline, inode=entry.stat().st_ino)
            entry = stored_entry(self._store, name, guarded, self._progress, deadline)
            found = self._verified_template(entry)
            if isinstance(found, str):
                raise HostError(f"the template {entry} was damaged as soon as it was made: {found}; is the disk failing?")
        if is_new:
            prune_templates(keep={name}, store=self._store)
        return found

    def _verified_template(self, entry: Path) -> Template | str:
        """Return a template, or what is wrong with it. Its content is read once a process; later a look at its files' dates is enough."""
        try:
            template = load_template(entry)
            looks = tuple(_look(entry / name) for name, _ in template.checksums)
            if self._verified.get(entry) != looks:
                damage = find_damage(template)
                if damage is not None:
                    return damage
                self._verified[entry] = looks
        except (OSError, UsageError) as error:
            return str(error)
        return template

    def _expected_only(self, machine: Machine, image: GuestImage, stack: str, what: str) -> tuple[str, ...]:
        """Return the lines with which the kernel seems to have complained while ``what``, each of which is expected.

        Raises GuestError for any other: a clone would never show it. A booted guest then shows it again.
        """
        machine.console.is_drained()
        complaints, excused = split_expected(machine.console.reports(), image.release, stack, self._options.expected)
        if complaints:
            raise GuestError(f"the kernel complained while {what}: {complaints[0].line}")
        return tuple(line for line, _ in excused)

    def _announced(self, text: str) -> None:
        if self._options.announce:
            self._progress(text)

    def _boot_deadline(self, host: Host) -> Deadline:
        return Deadline.after(self._options.boot_limit_s, host.accelerator.time_scale)


def make_cloner(choose: Callable[[str], KernelChoice], progress: Progress, options: GuestOptions = GuestOptions()) -> Booter:  # noqa: B008
    """Return what starts guests from templates. Nothing is looked up before the first one."""
    return Cloner(choose, progress, options).clone


@contextlib.contextmanager
def _connected(machine: Machine, image: GuestImage, state: SessionState, host: Host, deadline: Deadline) -> Iterator[GuestSession]:
    scale = host.accelerator.time_scale
    connection = connect(
        ssh_address(machine, image), agent_archive(), image.mkfs, deadline, scale=scale, saved=state, find_end=machine.find_end
    )
    with first_connection(connection) as session:
        yield session


def _warm(machine: Machine, image: GuestImage, state: SessionState, reading: StackReading, host: Host, deadline: Deadline) -> None:
    """Do once what every clone does first: reading the stack back dropped the pages of the programs that it takes."""
    with _connected(machine, image, state, host, deadline) as session:
        session.run(Program((Step(Meminfo()),)))
        session.read_clone(reading)
        if session.ssh is not None:
            session.ssh.run(["true"], deadline)


def _devices_of(spec: MachineSpec) -> str:
    """Return the devices of a machine in the words in which stacks are described: what a boot prints is expected by them."""
    return "; ".join([*(str(region.kind) for region in spec.regions), *("virtio disk" for _ in spec.disks)])


def _require_stack(stack: StorageStack, reading: StackReading) -> None:
    differences = find_mismatches(stack, reading)
    if differences:
        listed = "\n".join(f"- {line}" for line in differences)
        raise StackMismatchError(f"the guest does not have the storage stack that was asked for ({stack.describe()}):\n{listed}")


# ---- names -----------------------------------------------------------------------------------------------------------


def machine_key(host: Host, image: GuestImage, spec: MachineSpec) -> str:
    """Return a hash of all that shapes a booted guest: image files, machine, command line, CPU, QEMU, firmware, agent."""
    emulator = host.emulator
    command = qemu_command(
        spec, emulator, host.accelerator.name, Path("FOLDER"), Channels(0, 1), pvh=is_elf(spec.boot_kernel), incoming=True
    )
    binary = Path(emulator.program).stat()
    parts = [
        *(_BUILDER, repr(command), repr(sorted(image.sha256.items())), repr(spec.disks)),
        *(emulator.version_text, f"{binary.st_size} {binary.st_mtime_ns}", emulator.firmware),
        *(host.accelerator.name, _host_cpu() if host.accelerator.name == "kvm" else ""),
    ]
    return content_key(*parts, agent_archive())


def stack_key(host: Host, image: GuestImage, spec: MachineSpec, stack: StorageStack) -> str:
    """Return a hash of all that shapes a guest with a stack: the machine's, the stack, mkfs, and our own code that sets stacks up."""
    return content_key(machine_key(host, image, spec), repr(stack), repr(sorted(image.mkfs.items())), *_set_up_code())


@functools.cache
def _set_up_code() -> tuple[bytes, ...]:
    """Our own code that sets stacks up, as it was when this process began: what runs, whatever is edited meanwhile."""
    code = sorted(resources.files("harness.guest").iterdir(), key=lambda file: file.name)
    return tuple(file.read_bytes() for file in code if file.name.endswith(".py"))


def _host_cpu() -> str:
    """What ``-cpu max`` means under KVM: the processor's model and flags, and what the host's kernel makes of them."""
    lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    processor = [line for line in lines if line.split("\t")[0] in ("model name", "flags", "microcode", "stepping")]
    options = [
        f"{path}={path.read_text().strip()}" for path in sorted(Path("/sys/module").glob("kvm*/parameters/*")) if os.access(path, os.R_OK)
    ]
    return "\n".join([*processor, os.uname().release, *options])


def _made_of(host: Host, image: GuestImage, spec: MachineSpec, stack: StorageStack | None) -> tuple[tuple[str, str], ...]:
    return (
        ("kernel", " ".join([f"{image.kernel} ({image.release})", *spec.kernel_arguments])),
        ("qemu", f"{host.emulator.version_text}, {host.accelerator.name}"),
        ("stack", stack.describe() if stack else "(just booted)"),
    )


# ---- the store -------------------------------------------------------------------------------------------------------


def _save(machine: Machine, folder: Path, manifest: Manifest, deadline: Deadline) -> None:
    """Save the machine, to which nobody is connected any more, and write the manifest."""
    if not machine.wait_disconnected(deadline.within(_QUIET_LIMIT_S * machine.accelerator.time_scale)):
        raise MachineError("the guest still has a connection from the host: it cannot be saved")
    save_machine(machine, folder, deadline)
    names = saved_files(machine.spec)
    for name in names:
        (folder / name).chmod(0o444)
    checksums = tuple((name, checksum(folder / name)) for name in names)
    document = to_document(replace(manifest, checksums=checksums))
    (folder / MANIFEST).write_text(json.dumps({"format": FORMAT, **document}, indent=1))


def load_template(folder: Path) -> Template:
    """Return what the manifest in ``folder`` says. Raises UsageError for one that cannot be read."""
    try:
        document = json.loads((folder / MANIFEST).read_text())
        if document.get("format") != FORMAT:
            raise UsageError(f"{folder / MANIFEST} has format {document.get('format')!r}, this harness reads {FORMAT}")
        loaded = from_document(Manifest, document)
    except (OSError, ValueError, AttributeError, DocumentError) as error:
        raise UsageError(f"{folder / MANIFEST} cannot be read: {error}") from error
    return Template(loaded.placements, loaded.session, loaded.reading, loaded.made_of, loaded.checksums, loaded.complaints, folder)


def find_damage(template: Template) -> str | None:
    """Return which file of a template is not as it was made, or None. Reads all of it. Raises OSError."""
    for name, expected in template.checksums:
        found = checksum(template.folder / name)
        if found != expected:
            return f"{name} is {found}, it was made as {expected} (bytes:CRC-32)"
    return None


def template_damage(folder: Path) -> str | None:
    """Return what is wrong with the template in ``folder``, or None. Reads all of it."""
    try:
        return find_damage(load_template(folder))
    except (OSError, UsageError) as error:
        return str(error)


def _note_use(folder: Path) -> None:
    """Have a template count as used now. One that is gone by now, or another user's, does not mind."""
    with contextlib.suppress(OSError):
        os.utime(folder / MANIFEST)


def _look(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def stored_templates(store: Path | None = None) -> tuple[StoredTemplate, ...]:
    """Return all templates, the one used last first; one whose manifest cannot be read is there with no description."""
    found = []
    for manifest in (store or settings.templates_root()).glob(f"*/{MANIFEST}"):
        folder = manifest.parent
        try:
            made_of = dict(load_template(folder).made_of)
        except UsageError as error:
            made_of = {"damaged": str(error)}
        with contextlib.suppress(FileNotFoundError):  # somebody removes it just now
            size = sum(file.stat().st_blocks * 512 for file in folder.iterdir())
            found.append(StoredTemplate(folder.name, size, manifest.stat().st_mtime, made_of))
    return tuple(sorted(found, key=lambda template: -template.used_s))


def remove_template(name: str, progress: Progress, store: Path | None = None, limit_s: float = _BUILD_LIMIT_S) -> None:
    """Remove one template; clones that run are not disturbed. Raises UsageError, naming what there is, and HostError where it is locked."""
    store = store or settings.templates_root()
    names = [template.name for template in stored_templates(store)]
    if name not in names or not remove_entry(store, name, progress, Deadline.after(limit_s)):
        raise UsageError(f"no template {name!r}; there are: {', '.join(names) or 'none'}")


def prune_templates(keep: set[str], store: Path | None = None) -> None:
    """Remove those that were not used for longest until all fit into the limit of the settings; never one of ``keep``.

    Best effort: one that another process works on, or may not be removed, stays.
    """
    limit = templates_limit_bytes()
    total = 0
    for template in stored_templates(store):
        total += template.size_bytes
        if total > limit and template.name not in keep:
            with contextlib.suppress(HarnessError, OSError):
                remove_template(template.name, lambda _: None, store, limit_s=0)
                total -= template.size_bytes


def templates_limit_bytes() -> int:
    """Return how much room templates may take. Raises UsageError for a setting that is no size."""
    try:
        return parse_size(settings.templates_limit_text())
    except ValueError as error:
        raise UsageError(f"{settings.PREFIX}TEMPLATES_SIZE: {error}") from error
