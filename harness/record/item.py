"""What was asked of a guest, on what, and how it ended: the values that a run keeps of an item."""

from dataclasses import dataclass
from enum import StrEnum

from harness.case.axes import Variant
from harness.case.plan import Plan
from harness.model.audit_outcome import Audit
from harness.model.claims import Decision
from harness.model.outcome import Observation
from harness.model.stack import StackReading, StorageStack
from harness.model.watch import Watch
from harness.ops import Program


class Ending(StrEnum):
    """How an item ended, whatever the verdict. The first five: its program was begun; a run keeps a record of it.

    ``NOT_SET_UP``: it never had a guest with its stack. ``NOT_TRIED``: nobody tried, for what had failed before. ``UNAVAILABLE``: it
    cannot run on its kernel at all.
    """

    COMPLETED = "completed"
    CRASHED = "guest crashed"
    HUNG = "guest hung"
    LOST = "guest lost"
    HARNESS_ERROR = "harness error"
    NOT_SET_UP = "not set up"
    NOT_TRIED = "not tried"
    UNAVAILABLE = "unavailable"

    @property
    def has_begun(self) -> bool:
        """Whether the item got as far as its first step."""
        return self not in (Ending.NOT_SET_UP, Ending.NOT_TRIED, Ending.UNAVAILABLE)

    @property
    def says_nothing(self) -> bool:
        """Whether the item should have run and did not, for a reason that says nothing of the kernel."""
        return self in (Ending.NOT_SET_UP, Ending.NOT_TRIED, Ending.HARNESS_ERROR, Ending.LOST)


class Lifecycle(StrEnum):
    """How a guest came to be: booted for the occasion, or restored from a template."""

    BOOTED = "booted"
    RESTORED = "restored"


@dataclass(frozen=True)
class Target:
    """A kernel to run on: its name, the selected kernel that it stands for, and what selects that one again (empty: default).

    ``column`` is another than ``kernel`` where a case needs another flavour of the selected kernel. ``arguments``: what the user adds to
    its command line.
    """

    kernel: str
    column: str
    option: str = ""
    arguments: str = ""


@dataclass(frozen=True)
class Where:
    """Which item it is: a variant of a case, with the stack that it asks for, on a kernel, and how its guest is to come to be.

    ``case`` is the path of its file as reports show it. ``number``: which of its programs, where a Python case runs several.
    """

    node_id: str
    case: str
    family: str
    name: str
    title: str
    variant: Variant
    stack: StorageStack
    target: Target
    lifecycle: Lifecycle = Lifecycle.RESTORED
    number: int = 1

    @property
    def id(self) -> str:
        return f"{self.name}[{self.place}]"

    @property
    def path(self) -> str:
        """The case as a list of known deviations names it."""
        return f"{self.family}/{self.name}"

    @property
    def variant_id(self) -> str:
        return self.variant.id + (f"-program_{self.number}" if self.number > 1 else "")

    @property
    def name_without_kernel(self) -> str:
        """Case, variant and, where it is not the usual one, lifecycle: what the item is called on every kernel."""
        return f"{self.path}[{self.variant_id}{place_suffix(self.lifecycle)}]"

    @property
    def place(self) -> str:
        """Variant, kernel and, where it is not the usual one, lifecycle."""
        return place_name(self.variant_id, self.target, self.lifecycle)


def place_name(variant: str, target: Target, lifecycle: Lifecycle) -> str:
    """Return what is in the brackets of an item's id."""
    return f"{variant}-{target.kernel}{place_suffix(lifecycle)}"


def place_suffix(lifecycle: Lifecycle) -> str:
    """Return what an item's id ends in."""
    return "" if lifecycle is Lifecycle.RESTORED else f"-{lifecycle}"


@dataclass(frozen=True)
class Item:
    """What was asked: a program, the claims that its steps decide, and the ways of bytes that are watched."""

    where: Where
    program: Program
    decisions: tuple[Decision, ...] = ()
    watches: tuple[Watch, ...] = ()

    @property
    def claims(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(decision.claim for decision in self.decisions))


def make_item(plan: Plan, target: Target, case: str, lifecycle: Lifecycle = Lifecycle.RESTORED) -> Item:
    """Return the item of ``plan`` on a kernel; ``case`` is the path of its file as reports are to show it."""
    name, family, title = plan.case.name, plan.case.family, plan.case.title
    node_id = f"{case}::{name}[{place_name(plan.id, target, lifecycle)}]"
    return Item(
        Where(node_id, case, family, name, title, plan.variant, plan.stack, target, lifecycle), plan.program, plan.decisions, plan.watches
    )


@dataclass(frozen=True)
class GuestDescription:
    """What a guest is made of. ``versions`` and ``sha256`` are pairs of name and value; times are seconds.

    ``lifecycle_note``: why a guest that should have been restored was booted. ``template``: what it was restored from. ``kernel_args``:
    the user's own words on the kernel's command line. ``expected``: lines of its boot and set-up that look like complaints and were
    expected, with the reason.
    """

    kernel: str
    release: str
    accelerator: str
    accelerator_reason: str
    qemu_version: str
    qemu_command: tuple[str, ...]
    versions: tuple[tuple[str, str], ...] = ()
    sha256: tuple[tuple[str, str], ...] = ()
    mkfs: tuple[tuple[str, str], ...] = ()
    boot_times: tuple[tuple[str, float], ...] = ()
    lifecycle: Lifecycle = Lifecycle.BOOTED
    lifecycle_note: str = ""
    template: str = ""
    kernel_args: str = ""
    expected: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class RunOutcome:
    """How the run ended: ``note`` says why where it did not complete, ``messages`` what the kernel complained about.

    ``fingerprint``: where the first complaint came from. ``expected``: lines that look like complaints and were expected, with the reason.
    """

    ending: Ending
    note: str
    messages: tuple[str, ...]
    guest: GuestDescription
    seconds: float
    fingerprint: str = ""
    expected: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Record:
    """Everything that is kept of one run. ``observations`` is None where there are none, ``audit`` where there was none to be had."""

    item: Item
    reading: StackReading
    observations: tuple[Observation, ...] | None
    outcome: RunOutcome
    audit: Audit | None = None
