"""What was asked of a guest, on what, and how it ended: the values that a run keeps of an item."""

from dataclasses import dataclass
from enum import StrEnum

from harness.case.plan import Plan
from harness.model.audit import Audit
from harness.model.claims import Decision
from harness.model.outcome import Observation
from harness.model.stack import StackReading
from harness.ops import Program


class Ending(StrEnum):
    """How the run of an item ended, whatever the verdict."""

    COMPLETED = "completed"
    CRASHED = "guest crashed"
    HUNG = "guest hung"
    LOST = "guest lost"
    HARNESS_ERROR = "harness error"


class Lifecycle(StrEnum):
    """How a guest came to be: booted for the occasion, or restored from a template."""

    BOOTED = "booted"
    RESTORED = "restored"


@dataclass(frozen=True)
class Item:
    """What was asked: a program on a stack and a kernel, with who asks.

    ``kernel`` is the kernel it runs on, ``column`` the one that was selected (a case that needs another flavour of the
    selected kernel runs on that). ``kernel_option`` is what was given to select it; empty: the default. ``kernel_args`` is what
    the user adds to its command line. ``stack`` is the stack asked for, in words. ``lifecycle`` is how its guest is to come to be.
    """

    node_id: str
    case: str
    family: str
    name: str
    title: str
    variant: str
    kernel: str
    column: str
    stack: str
    program: Program
    decisions: tuple[Decision, ...] = ()
    kernel_option: str = ""
    lifecycle: Lifecycle = Lifecycle.RESTORED
    kernel_args: str = ""

    @property
    def id(self) -> str:
        return f"{self.name}[{self.place}]"

    @property
    def place(self) -> str:
        """Variant, kernel and, where it is not the usual one, lifecycle."""
        return f"{self.variant}-{self.kernel}{place_suffix(self.lifecycle)}"

    @property
    def claims(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(decision.claim for decision in self.decisions))

    @property
    def folder_name(self) -> str:
        return f"{self.family}/{self.name}/{self.place}"


def place_suffix(lifecycle: Lifecycle) -> str:
    """Return what an item's id ends in."""
    return "" if lifecycle is Lifecycle.RESTORED else f"-{lifecycle}"


@dataclass(frozen=True)
class Target:
    """A kernel to run on: its name, the selected kernel that it stands for, and what selects that one again (empty: default).

    ``arguments``: what the user adds to its command line.
    """

    kernel: str
    column: str
    option: str = ""
    arguments: str = ""


def make_item(plan: Plan, target: Target, case: str, lifecycle: Lifecycle = Lifecycle.RESTORED) -> Item:
    """Return the item of ``plan`` on a kernel; ``case`` is the path of its file as reports are to show it."""
    kernel = target.kernel
    name, variant = plan.case.name, plan.id
    return Item(
        node_id=f"{case}::{name}[{variant}-{kernel}{place_suffix(lifecycle)}]",
        case=case,
        family=plan.case.family,
        name=name,
        title=plan.case.title,
        variant=variant,
        kernel=kernel,
        column=target.column,
        stack=plan.stack.describe(),
        program=plan.program,
        decisions=plan.decisions,
        kernel_option=target.option,
        lifecycle=lifecycle,
        kernel_args=target.arguments,
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
