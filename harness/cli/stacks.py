"""A storage stack by its variant id, on a kernel that can have it."""

from harness.case.case import Needs
from harness.case.plan import named_stacks, with_drivers
from harness.cli.words import progress
from harness.errors import UsageError
from harness.image.catalog import KernelChoice
from harness.lease.kernels import read_kernels
from harness.model.stack import StorageStack


def choose_stack(name: str, kernel: str | None) -> tuple[StorageStack, KernelChoice]:
    """Return the storage stack called ``name`` and the kernel for it. Raises UsageError where there is none, or a driver is missing."""
    stacks = named_stacks()
    if name not in stacks:
        raise UsageError(f"no storage stack {name!r}; there are:\n" + "\n".join(f"  {known}" for known in stacks))
    kernels = read_kernels([kernel] if kernel else [])
    choice = kernels.paths[0]
    lacking = kernels.lacking(choice.name, with_drivers(Needs(), stacks[name]), progress)
    if lacking is not None:
        raise UsageError(f"{choice.name} cannot have {name}: {lacking}")
    return stacks[name], choice
