"""Making templates: a guest is booted, or restored and brought to a stack, and saved when it is ready.

There are two levels. A *machine template* is a booted guest whose agent answers; it serves every stack that needs the same devices. A
*stack template* is made from it: namespaces in their modes, file systems made and mounted, the stack read back.
"""

import contextlib
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from harness.errors import GuestError, HostError, MachineError, UsageError, first_line
from harness.guest.pmem import RegionPlacement
from harness.guest.session import SessionState
from harness.host.cache import Progress, remove_entry, stored_entry
from harness.host.deadline import Deadline
from harness.host.log import took
from harness.host.sparse import checksum
from harness.image.bundle import GuestImage
from harness.lease.boot import booted_session, connected_again, make_spec
from harness.lease.complaints import split_expected
from harness.lease.host_in_use import Host
from harness.lease.kept import kept_logs
from harness.lease.options import GuestOptions
from harness.lease.pool import require_stack
from harness.lease.template import (
    BUILD_LIMIT_S,
    FORMAT,
    MANIFEST,
    Manifest,
    Template,
    find_damage,
    load_template,
    look_of,
    note_use,
    prune_templates,
)
from harness.lease.template_key import machine_key, set_up_code, stack_key
from harness.machine.custody import removed_if_killed
from harness.machine.machine import Machine
from harness.machine.snapshot import SavedMachine, restored_machine, save_machine, saved_files
from harness.machine.spec import MachineSpec
from harness.model.stack import StackReading, StorageStack
from harness.ops import Meminfo, Program, Step
from harness.record.documents import to_text

log = logging.getLogger(__name__)

#: How long a guest may take to notice that the connection it was set up over is gone.
_QUIET_LIMIT_S = 5.0
#: Namespaces, mkfs, mount, reading back, saving: on an accelerated host.
_SET_UP_LIMIT_S = 120.0


class TemplateMaker:
    """Finds templates in ``store`` and makes those that are missing. One process has one; several may share the store."""

    def __init__(self, progress: Progress, options: GuestOptions, store: Path) -> None:
        self._progress, self._options, self._store = progress, options, store
        set_up_code()
        #: How the files of each template looked when they were verified.
        self._verified: dict[Path, tuple[tuple[int, int, int], ...]] = {}

    def stack_template(self, host: Host, image: GuestImage, stack: StorageStack) -> Template:
        """Return the template of a guest with ``stack`` mounted, making it (and the one it is made from) where it is missing.

        Raises what booting and setting up raise, and StackMismatchError where the guest does not have the stack.
        """
        spec = make_spec(image, stack, self._options.kernel_arguments)
        name = f"stack-{image.kernel}-{stack_key(host, image, spec, stack)}"

        def build(folder: Path) -> None:
            base = self.machine_template(host, image, spec)
            note_use(base.folder)
            self._announced(f"making a template of {image.kernel} with {stack.describe()}")
            deadline = Deadline.after(_SET_UP_LIMIT_S, host.accelerator.time_scale)
            saved = SavedMachine(base.folder, spec, base.placements)
            with (
                kept_logs(self._options.keeper, f"{image.kernel} {stack.describe()}") as logs,
                restored_machine(saved, host.emulator, host.accelerator, logs, deadline, writable=True) as machine,
            ):
                with connected_again(machine, image, base.session, host, deadline) as session:
                    placements = [RegionPlacement(p.name, p.kind, p.start, p.size_bytes) for p in machine.placements]
                    session.set_up(stack, placements)
                    reading = session.refresh()
                    state = session.state
                require_stack(stack, reading)
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
            deadline = Deadline.after(self._options.boot_limit_s, host.accelerator.time_scale)
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
        log.debug("the template %s is %s", name, "to be made" if is_new else "there")
        deadline = Deadline.after(BUILD_LIMIT_S)
        entry = stored_entry(self._store, name, guarded, self._progress, deadline)
        found = self._verified_template(entry)
        if isinstance(found, str):
            log.warning("the template %s is damaged, and made anew: %s", entry, found)
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
            looks = tuple(look_of(entry / name) for name, _ in template.checksums)
            if self._verified.get(entry) != looks:
                with took(log, logging.DEBUG, f"read {entry} and compared it with its checksums"):
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
        for line, reason in excused:
            log.info("expected while %s: %s (%s)", what, line, reason)
        if complaints:
            raise GuestError(f"the kernel complained while {what}: {complaints[0].line}")
        return tuple(line for line, _ in excused)

    def _announced(self, text: str) -> None:
        log.info(text)
        if self._options.announce:
            self._progress(text)


def _warm(machine: Machine, image: GuestImage, state: SessionState, reading: StackReading, host: Host, deadline: Deadline) -> None:
    """Do once what every clone does first: reading the stack back dropped the pages of the programs that it takes."""
    with connected_again(machine, image, state, host, deadline) as session:
        session.run(Program((Step(Meminfo()),)))
        session.read_clone(reading)
        if session.ssh is not None:
            session.ssh.run(["true"], deadline)


def _devices_of(spec: MachineSpec) -> str:
    """Return the devices of a machine in the words in which stacks are described: what a boot prints is expected by them."""
    return "; ".join([*(str(region.kind) for region in spec.regions), *("virtio disk" for _ in spec.disks)])


def _made_of(host: Host, image: GuestImage, spec: MachineSpec, stack: StorageStack | None) -> tuple[tuple[str, str], ...]:
    return (
        ("kernel", " ".join([f"{image.kernel} ({image.release})", *spec.kernel_arguments])),
        ("qemu", f"{host.emulator.version_text}, {host.accelerator.name}"),
        ("stack", stack.describe() if stack else "(just booted)"),
    )


def _save(machine: Machine, folder: Path, manifest: Manifest, deadline: Deadline) -> None:
    """Save the machine, to which nobody is connected any more, and write the manifest."""
    if not machine.wait_disconnected(deadline.within(_QUIET_LIMIT_S * machine.accelerator.time_scale)):
        raise MachineError("the guest still has a connection from the host: it cannot be saved")
    save_machine(machine, folder, deadline)
    names = saved_files(machine.spec)
    for name in names:
        (folder / name).chmod(0o444)
    checksums = tuple((name, checksum(folder / name)) for name in names)
    (folder / MANIFEST).write_text(to_text(replace(manifest, checksums=checksums), FORMAT))
