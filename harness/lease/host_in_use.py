"""What this computer runs guests with, for the length of a run: where KVM brings no guest up and TCG does, it is TCG from then on."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from harness.errors import BootError, NotReadyError, first_line, logs_of
from harness.host import settings
from harness.host.cache import Progress
from harness.lease.kept import without_private_folders
from harness.machine.accelerator import Accelerator, choose_accelerator, emulated_instead, find_refuted, refute_kvm
from harness.machine.command import Emulator
from harness.machine.emulator import find_emulator

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class Host:
    """What this computer runs guests with."""

    emulator: Emulator
    accelerator: Accelerator


def find_host() -> Host:
    """Return this computer's QEMU and accelerator. Raises HostError or UsageError."""
    emulator = find_emulator()
    return Host(emulator, choose_accelerator(emulator))


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
            log.info("guests run on QEMU %s under %s", self._host.emulator.version_text, self._host.accelerator.name)
        if self._host.accelerator.tentative:
            emulated = find_refuted(self._host.emulator)
            self._host = self._host if emulated is None else replace(self._host, accelerator=emulated)
        return self._host

    def _started_emulated(self, host: Host, what: str, attempt: Callable[[Host], T], under_kvm: NotReadyError) -> T:
        log.warning("%s did not come up under kvm, trying once under tcg: %s", what, under_kvm)
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
