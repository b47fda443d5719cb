"""Clones: guests that start from templates in a fraction of a second, on a fresh, mounted file system.

Where a template cannot be made or loaded, the guest is booted instead, and the report says why.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from harness.errors import BootError, GuestError, HarnessError, HostError, MachineError, StackMismatchError, UsageError, first_line, logs_of
from harness.host import settings
from harness.host.cache import Progress
from harness.host.deadline import Deadline
from harness.image.bundle import GuestImage, guest_image
from harness.image.catalog import KernelChoice
from harness.lease.boot import booted_guest, connected_again, describe_guest, make_spec, ssh_address
from harness.lease.booted import BootedGuest
from harness.lease.host_in_use import Host, HostInUse, find_host
from harness.lease.kept import kept_logs
from harness.lease.options import GuestOptions
from harness.lease.pool import Booter
from harness.lease.template import Template, note_use
from harness.lease.template_maker import TemplateMaker
from harness.machine.regions import never_saved
from harness.machine.snapshot import SavedMachine, restored_machine
from harness.model.stack import StorageStack
from harness.record.item import Lifecycle

log = logging.getLogger(__name__)


class Cloner:
    """Starts guests from templates, making those that are missing. One process has one; several may share the store."""

    def __init__(
        self,
        choose: Callable[[str], KernelChoice],
        progress: Progress,
        options: GuestOptions = GuestOptions(),
        store: Path | None = None,
    ) -> None:
        self._choose, self._progress, self._options = choose, progress, options
        self._host = HostInUse(progress, find_host)
        self.templates = TemplateMaker(progress, options, store or settings.templates_root())
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
            return lifetime.enter_context(self._restored(host, image, stack, self.templates.stack_template(host, image, stack)))

        obstacle = never_saved(stack.regions)
        for last in (False, True):
            if (stack, kernel) in self._given_up:
                return None
            try:
                if obstacle:
                    raise MachineError(obstacle)
                return self._host.start(f"a clone of {kernel}", restored)
            except (BootError, StackMismatchError, UsageError):
                raise
            except (MachineError, HostError, GuestError) as error:
                # A booted guest keeps nothing, and whoever asked for it is to know.
                if self._options.keep is not None:
                    raise
                # Setting up a stack may fail for reasons of the guest's: those show again, and plainly, when it is booted.
                if last or obstacle:
                    self._give_up(stack, kernel, error)
                else:
                    log.warning("no clone for %s, trying once more: %s", stack.describe(), error)
                    self._progress(f"no clone for {stack.describe()}: {first_line(str(error))}; trying once more")
        return None

    def _give_up(self, stack: StorageStack, kernel: str, error: HarnessError) -> None:
        why = first_line(str(error)) + (f"; logs: {logs}" if (logs := logs_of(error)) else "")
        self._given_up[stack, kernel] = f"booted, not restored: {why}"
        log.error("no clones for %s, every guest is booted from now on: %s", stack.describe(), error)
        self._progress(f"booting every guest for {stack.describe()} from now on: {why}")

    @contextlib.contextmanager
    def _restored(self, host: Host, image: GuestImage, stack: StorageStack, template: Template) -> Iterator[BootedGuest]:
        deadline = Deadline.after(self._options.boot_limit_s, host.accelerator.time_scale)
        with contextlib.ExitStack() as lifetime:
            logs = lifetime.enter_context(kept_logs(self._options.keeper, f"{image.kernel} {stack.describe()}"))
            saved = SavedMachine(template.folder, make_spec(image, stack, self._options.kernel_arguments), template.placements)
            restored = restored_machine(
                saved, host.emulator, host.accelerator, logs, deadline, keep=self._options.keep, gdb=self._options.gdb
            )
            machine = lifetime.enter_context(restored)
            session = lifetime.enter_context(connected_again(machine, image, template.session, host, deadline))
            note_use(template.folder)
            log.info("restored %s from %s: the agent answered after %.2f s", image.kernel, template.folder.name, machine.age_s())
            self._options.detail(f"restored {image.kernel} in {machine.age_s():.2f} s for {stack.describe()}")
            times = (("restored", machine.boot_times.ready_s), ("agent", machine.age_s()))
            description = describe_guest(host, image, machine, times)
            description = replace(description, lifecycle=Lifecycle.RESTORED, template=template.folder.name)
            if template.reading is None:
                raise HostError(f"the template {template.folder} has no storage stack: remove it (python -m harness templates remove)")
            address = ssh_address(machine, image)
            yield BootedGuest(machine, session, description, self._options, address, template.reading, template.complaints)


def make_cloner(choose: Callable[[str], KernelChoice], progress: Progress, options: GuestOptions = GuestOptions()) -> Booter:
    """Return what starts guests from templates. Nothing is looked up before the first one."""
    return Cloner(choose, progress, options).clone
