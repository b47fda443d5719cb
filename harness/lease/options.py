"""How guests are to be started."""

from dataclasses import dataclass
from pathlib import Path

from harness.host.cache import Progress
from harness.lease.kept import LogKeeper
from harness.model.known import ExpectedLine

#: From QEMU's start to the agent's first answer, before the accelerator's time scale.
BOOT_LIMIT_S = 60.0
#: No operation of a case takes a tenth of this where it does not block.
STEP_LIMIT_S = 30.0


@dataclass(frozen=True)
class GuestOptions:
    """How guests are to be started. Limits are seconds on an accelerated host; emulation multiplies them.

    ``step_limit_s``: how long one step of a program may take, blocked or not. ``announce``: say that a boot begins, and not only that one
    is done. ``keep``: a folder in which a clone's memory, regions included, outlives it. ``gdb``: a debugger can attach.
    ``detail``: where that is said which only who looks closely wants to read. ``kernel_arguments``: the user's own words on the kernel's
    command line. ``expected``: lines of the kernel's that are no complaint. ``keeper``: keeps the logs of a guest that does not come up.
    """

    boot_limit_s: float = BOOT_LIMIT_S
    step_limit_s: float = STEP_LIMIT_S
    announce: bool = True
    gdb: bool = False
    keep: Path | None = None
    detail: Progress = lambda _: None
    kernel_arguments: tuple[str, ...] = ()
    expected: tuple[ExpectedLine, ...] = ()
    keeper: LogKeeper | None = None
