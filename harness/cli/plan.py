"""What a case would do, in words: stack, machine, steps. Boots nothing and needs no image."""

import argparse
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from harness.case.claims import load_families
from harness.case.loader import find_case_files, load_plans
from harness.case.plan import COLUMNS, Cell, MatrixRow, Plan, make_matrix, unexplained_cells
from harness.cli.options import add_kernel, add_kernel_args
from harness.errors import HarnessError, UsageError
from harness.image.bundle import guest_image, is_built
from harness.image.catalog import Catalog, KernelChoice, choose_kernel, load_catalog
from harness.lease.boot import IVSHMEM_BYTES, make_spec
from harness.machine.arguments import parse_kernel_arguments
from harness.machine.command import Channels, Emulator, qemu_command
from harness.machine.emulator import find_emulator
from harness.machine.spec import MachineSpec, needed_ram_bytes
from harness.model.stack import StorageStack
from harness.ops import describe
from harness.record.script import option_lines
from harness.report.status import ALL_CONFORM, WRONG_USAGE
from harness.report.tables import Part, make_table, show

CASES = Path("cases")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", nargs="?", type=Path, help="a case")
    parser.add_argument("--variant", help="only the variants whose id contains this")
    parser.add_argument("--matrix", action="store_true", help="print claim family by storage stack by region instead")
    parser.add_argument("--cases", type=Path, default=CASES, metavar="DIR", help="where the cases are, for --matrix (default: cases)")
    add_kernel(parser)
    add_kernel_args(parser)
    parser.set_defaults(command=run)


def run(chosen: argparse.Namespace) -> int:
    if chosen.matrix:
        return _show_matrix(chosen.cases)
    if chosen.file is None:
        raise UsageError("plan needs the file of a case, or --matrix")
    catalog = load_catalog()
    plans = load_plans(chosen.file)
    choice = choose_kernel(chosen.kernel, catalog)
    selected = [plan for plan in plans if chosen.variant is None or chosen.variant in f"{plan.id}-{choice.name}"]
    if not selected:
        ids = "\n".join(f"  {plan.id}" for plan in plans)
        raise UsageError(f"no variant of {chosen.file} has {chosen.variant!r} in its id; there are:\n{ids}")
    for line in plan_lines(selected, choice, catalog, parse_kernel_arguments(chosen.kernel_args)):
        print(line)
    return ALL_CONFORM


def _show_matrix(folder: Path) -> int:
    files = find_case_files(folder)
    if not files:
        raise UsageError(f"no cases below {folder}")
    matrix = make_matrix([plan for path in files for plan in load_plans(path)], load_families(folder))
    show(*matrix_parts(matrix))
    unexplained = unexplained_cells(matrix)
    for line in unexplained:
        print(line, file=sys.stderr)
    return WRONG_USAGE if unexplained else ALL_CONFORM


#: What a computer without QEMU is shown.
_ASSUMED = Emulator("qemu-system-x86_64", (10, 0, 0), "10.0.0 (assumed: there is none on this computer)", True)


def plan_lines(plans: Sequence[Plan], choice: KernelChoice, catalog: Catalog, kernel_arguments: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the description of every plan of one case; a machine or a program that was just shown is not repeated."""
    case = plans[0].case
    yield f"{case.path}: {case.title}"
    yield f"family {case.family}, {len(plans)} variants" + (f", about: {', '.join(case.claims)}" if case.claims else "")
    shown: dict[str, str] = {}
    for plan in plans:
        yield ""
        yield f"variant {plan.id}-{choice.name}"
        yield f"  stack    {plan.stack.describe()}"
        if plan.needs.kernel_options:
            yield f"  needs    a kernel with {', '.join(plan.needs.kernel_options)}"
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
    return option_lines(shlex.quote(word) for word in words)


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


def matrix_parts(matrix: Sequence[MatrixRow]) -> Iterator[Part]:
    """Yield claim family by storage and region: the number of variants, or a letter for the reason why there are none."""
    titles = ["\n".join(filter(None, column)) or "other\nregion" for column in COLUMNS]
    reasons: dict[str, str] = {}

    def shown(cell: Cell) -> str:
        if cell.count or not cell.reason:
            return str(cell.count) if cell.count else "- (?)"
        return "- (" + reasons.setdefault(cell.reason, chr(ord("a") + len(reasons))) + ")"

    yield make_table(("family", *titles), ((row.family, *map(shown, row.cells)) for row in matrix))
    if reasons:
        yield ""
        yield from (f"({letter}) {reason}" for reason, letter in reasons.items())
