"""What a case would do, in words: stack, machine, steps. Boots nothing and needs no image."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from harness.case.plan import COLUMNS, MatrixRow, Plan
from harness.errors import HarnessError
from harness.image.bundle import guest_image, is_built
from harness.image.catalog import Catalog, KernelChoice
from harness.machine.command import Channels, Emulator, qemu_command
from harness.machine.emulator import find_emulator
from harness.machine.spec import MachineSpec, needed_ram_bytes
from harness.model.stack import StorageStack
from harness.ops import describe
from harness.run.boot import IVSHMEM_BYTES, make_spec

#: What a computer without QEMU is shown.
_ASSUMED = Emulator("qemu-system-x86_64", (10, 0, 0), "10.0.0 (assumed: there is none on this computer)", True)


def plan_lines(plans: Sequence[Plan], choice: KernelChoice, catalog: Catalog, kernel_arguments: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the description of every plan of one case; a machine or a program that was just shown is not repeated."""
    case = plans[0].case
    yield f"{case.path}: {case.title}"
    yield f"family {case.family}, {len(plans)} variants" + (f", about: {', '.join(case.claims)}" if case.claims else "")
    if case.needs.kernel_options:
        yield f"needs a kernel with {', '.join(case.needs.kernel_options)}"
    shown: dict[str, str] = {}
    for plan in plans:
        yield ""
        yield f"variant {plan.id}-{choice.name}"
        yield f"  stack    {plan.stack.describe()}"
        yield from _once(
            shown, "machine", plan.id, [f"    {line}" for line in command_lines(plan.stack, choice, catalog, kernel_arguments)]
        )
        yield from _once(shown, "program", plan.id, [f"    {line}" for line in _step_lines(plan)])
        for decision in plan.decisions:
            yield f"  decides  {decision.claim} at step {decision.step + 1}"


def _once(shown: dict[str, str], title: str, variant: str, lines: list[str]) -> Iterator[str]:
    text = "\n".join(lines)
    first = shown.setdefault(text, variant)
    if first != variant:
        yield f"  {title}  as for {first}"
        return
    yield f"  {title}"
    yield text


def _step_lines(plan: Plan) -> Iterator[str]:
    for number, step in enumerate(plan.program.steps, 1):
        who = "" if step.process == "main" else f"  by {step.process}"
        start = f"  started as {step.start}" if step.start else ""
        pin = f"  pinned: {step.pin.describe()}" if step.pin else ""
        yield f"{number:2} {describe(step.operation)}{who}{start}{pin}"


def command_lines(stack: StorageStack, choice: KernelChoice, catalog: Catalog, kernel_arguments: tuple[str, ...] = ()) -> list[str]:
    """Return the QEMU command for ``stack``, an option a line. Where no image is built yet, its files have made-up names."""
    try:
        emulator = find_emulator()
    except HarnessError:
        emulator = _ASSUMED
    spec = replace(_spec(stack, choice, catalog), kernel_arguments=kernel_arguments)
    words = qemu_command(spec, emulator, "tcg", Path("FOLDER"), Channels(3, 4), pvh=spec.boot_kernel.name != "bzImage")
    lines: list[str] = []
    for word in words:
        if lines and not word.startswith("-") and lines[-1].startswith("-") and " " not in lines[-1]:
            lines[-1] += f" {shlex.quote(word)}"
        else:
            lines.append(shlex.quote(word))
    return lines


def _spec(stack: StorageStack, choice: KernelChoice, catalog: Catalog) -> MachineSpec:
    if is_built(choice, catalog):
        return make_spec(guest_image(choice, lambda _: None, catalog), stack)
    folder = Path("IMAGES")
    return MachineSpec(
        boot_kernel=folder / choice.name / "vmlinux",
        initrd=folder / choice.name / "initrd",
        rootfs=folder / "rootfs" / "root.img",
        ram_bytes=needed_ram_bytes(stack.regions),
        regions=stack.regions,
        disks=stack.disks,
        ivshmem_bytes=IVSHMEM_BYTES if stack.ivshmem else 0,
    )


def matrix_lines(matrix: Sequence[MatrixRow]) -> Iterator[str]:
    """Yield claim family by storage and region: the number of variants, or a letter for the reason why there are none."""
    titles = [storage + (f" {region}" if region else "") for storage, region in COLUMNS]
    width = max(len(row.family) for row in matrix)
    reasons: dict[str, str] = {}
    yield " " * width + "".join(f"  {title:>14}" for title in titles)
    for row in matrix:
        cells = []
        for cell in row.cells:
            if cell.count:
                cells.append(str(cell.count))
            elif cell.reason:
                cells.append("- (" + reasons.setdefault(cell.reason, chr(ord("a") + len(reasons))) + ")")
            else:
                cells.append("- (?)")
        yield f"{row.family:<{width}}" + "".join(f"  {cell:>14}" for cell in cells)
    if reasons:
        yield ""
        yield from (f"({letter}) {reason}" for reason, letter in reasons.items())
