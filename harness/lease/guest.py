"""What pool and execution need of a guest: it is made fresh, it performs a program, and it says whether it is fit for more."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from harness.errors import HarnessError
from harness.machine.ending import Ending
from harness.model.audit_outcome import Audit
from harness.model.outcome import Observation
from harness.model.stack import StackReading
from harness.ops import Program
from harness.record.item import GuestDescription


class Auditing(StrEnum):
    """How much of a final audit is made: all of it, without the checks of the file systems, or none (for a person's sake: KEPT)."""

    FULL = "full"
    CONTENT = "content"
    NONE = "none"
    KEPT = "kept"


@dataclass(frozen=True)
class Performed:
    """All that came of a program in a guest.

    ``observations`` is None where ``error`` broke the program off; an audit that broke off leaves them, and no ``audit``.
    ``ending``: whether and how the guest ended, with what its kernel complained about from the program's start on; ``console``: what was
    printed since. The others are empty where nothing is to be said: ``own_fault`` is what is wrong on our side of the guest (QEMU stopped,
    console not read), ``hang`` what a guest that hangs could still be made to say, and ``kernel_log`` the kernel's log, which is read
    where the program did not complete or the kernel complained.
    """

    observations: tuple[Observation, ...] | None
    audit: Audit | None
    error: HarnessError | None
    ending: Ending
    own_fault: str = ""
    hang: str = ""
    console: str = ""
    kernel_log: str = ""


class Guest(Protocol):
    """A booted guest that serves one stack."""

    @property
    def description(self) -> GuestDescription:
        """What it is made of."""

    def refresh(self) -> StackReading:
        """Make every file system anew, mount, and read the whole stack back. Raises GuestError."""

    def run(self, program: Program, auditing: Auditing) -> Performed:
        """Perform a program, audit what it left, and say all that came of it. No fault of the guest raises."""

    def find_damage(self) -> str | None:
        """Return why no further item should run on this guest, or None."""
