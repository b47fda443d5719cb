"""From which kernel on an item comes to something else: kernels in order, half of them left after each run."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from harness.case.loader import load_plans
from harness.case.plan import Plan
from harness.cli.folders import item_folders
from harness.cli.options import add_artifacts
from harness.cli.suite import has_run, run_suite
from harness.cli.words import progress
from harness.errors import UsageError
from harness.image.catalog import load_catalog
from harness.lease.kernels import Unsuitable, read_kernels
from harness.record.differences import Shape, first_other, stored_shape
from harness.record.item import make_item
from harness.report.status import ALL_CONFORM, COULD_NOT_RUN
from harness.report.tables import make_table, show


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="a case")
    parser.add_argument("--variant", help="its variant, as 'plan' prints it (default: the only one, or the first)")
    parser.add_argument(
        "--kernel",
        action="append",
        default=[],
        metavar="NAME|PATH",
        help="the kernels, the oldest first; repeatable (default: all of images/kernels.yaml in its order, without flavours)",
    )
    add_artifacts(parser)
    parser.set_defaults(command=run)


def run(chosen: argparse.Namespace) -> int:
    kernels = chosen.kernel or [kernel.name for kernel in load_catalog().kernels.values() if not kernel.flavour]
    if len(kernels) < 2:
        raise UsageError("a bisection needs two kernels or more: give --kernel for each, the oldest first")
    plan = _plan(chosen.file, chosen.variant)
    shapes: dict[str, Shape | None] = {}

    def look(kernel: str) -> Shape | None:
        if kernel not in shapes:
            progress(f"{chosen.file.stem}[{plan.id}] on {kernel}")
            shapes[kernel] = _shape(plan, chosen.file, kernel, chosen.artifacts)
        return shapes[kernel]

    found = bisect(kernels, look)
    rows = ((kernel, _told(shapes[kernel])) for kernel in kernels if kernel in shapes)
    show(make_table(("kernel", f"{chosen.file.stem}[{plan.id}]"), rows))
    if found is None:
        ran = [kernel for kernel in kernels if shapes.get(kernel) is not None]
        if len(ran) < 2:
            progress("it ran on less than two kernels, so there is nothing to compare")
            return COULD_NOT_RUN
        show(f"{ran[0]} and {ran[-1]} agree in every step")
        return ALL_CONFORM
    before, after = found
    left, right = shapes[before], shapes[after]
    step = None if left is None or right is None else first_other(left, right)
    between = kernels[kernels.index(before) + 1 : kernels.index(after)]
    show(
        f"{after} is the first that differs from {before}"
        + (f", in step {step} ({plan.program.steps[step - 1].operation.call})" if step else "")
        + (f"; it could not run on {', '.join(between)}, between the two" if between else "")
    )
    return ALL_CONFORM


def _plan(file: Path, variant: str | None) -> Plan:
    plans = load_plans(file)
    found = [plan for plan in plans if variant in (None, plan.id)]
    if not found:
        ids = "\n".join(f"  {plan.id}" for plan in plans)
        raise UsageError(f"{file} has no variant {variant!r}; there are:\n{ids}")
    return found[0]


def bisect(kernels: Sequence[str], look: Callable[[str], Shape | None]) -> tuple[str, str] | None:
    """Return two kernels that differ and between which nothing could run, the first one like the oldest that ran.

    ``look`` runs the item on a kernel (None: it cannot run there). None where the oldest and the newest that it runs on agree.
    """
    able = list(kernels)
    while able and look(able[0]) is None:
        able.pop(0)
    while able and look(able[-1]) is None:
        able.pop()
    if not able or look(able[0]) == look(able[-1]):
        return None
    oldest = look(able[0])
    while len(able) > 2:
        middle = len(able) // 2
        seen = look(able[middle])
        if seen is None:
            del able[middle]
        elif seen == oldest:
            del able[:middle]
        else:
            del able[middle + 1 :]
    return able[0], able[1]


def _shape(plan: Plan, file: Path, kernel: str, artifacts: Path) -> Shape | None:
    (target,) = read_kernels([kernel]).targets(plan.needs)
    if isinstance(target, Unsuitable):
        progress(target.reason)
        return None
    item = make_item(plan, target, str(file))
    status, kept = run_suite([item.where.node_id, "--kernel", kernel, "-q"], artifacts)
    if kept is None or not has_run(status):
        return None
    (folder,) = item_folders([kept.folder])
    return stored_shape(folder)[1]


def _told(shape: Shape | None) -> str:
    return "could not run" if shape is None else shape.verdict or str(shape.ending)
