"""The command line beside pytest: looking, building, trying by hand, judging again.

Exit status: 0 all is well or conforms, 1 something deviates or is undetermined, 2 wrong usage or a broken case,
3 the harness or this computer could not do it.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from harness.case.loader import find_case_files, load_case, load_families, load_nearest_known, load_plans
from harness.case.plan import DEFAULT_STACK, make_matrix, make_plans, named_stacks, unexplained_cells
from harness.case.schema import case_schema
from harness.errors import CaseError, HarnessError, UsageError
from harness.host import settings
from harness.host.cache import remove_abandoned
from harness.image.bundle import entry_names, guest_image, image_store, remove_stored_entry, stored_entries
from harness.image.catalog import Catalog, KernelChoice, choose_kernel, load_catalog
from harness.machine.arguments import parse_kernel_arguments
from harness.machine.leftovers import find_leftovers, remove_leftover
from harness.model.contract import contract_page
from harness.run.artifacts import find_records, load_record
from harness.run.boot import BOOT_LIMIT_S, GuestOptions, make_booter, ways_in
from harness.run.doctor import Finding, examine
from harness.run.execute import judge_folder
from harness.run.kept import FOLDER, LogKeeper, logs_of
from harness.run.measure import fact_lines, measure
from harness.run.mutants import Recorded, recorded, smallest_cover, write_recorded
from harness.run.preview import matrix_lines, plan_lines
from harness.run.report import ALL_CONFORM, COULD_NOT_RUN, SOME_DEVIATE, WRONG_USAGE, describe_row, exit_status, make_row
from harness.run.template import Cloner, remove_template, stored_templates, template_damage, templates_limit_bytes
from harness.sizes import format_size

CASES = Path("cases")
#: Where the logs are kept of a shell's guest that did not come up: beside those of pytest's usual place.
NO_SHELL = Path("artifacts") / FOLDER / "shell"
_MARKS = {True: "ok", False: "MISSING", None: "-"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    parser = make_parser()
    chosen = parser.parse_args(arguments)
    try:
        status: int = chosen.command(chosen)
    except (CaseError, UsageError) as error:
        _say_error(error)
        return WRONG_USAGE
    except HarnessError as error:
        _say_error(error)
        return COULD_NOT_RUN
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            # Whoever read our output has seen enough; what Python still holds back must go nowhere.
            sys.stdout = None
            return ALL_CONFORM
        _say_error(error)
        return COULD_NOT_RUN
    return status


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="python -m harness",
        description="Everything about the harness but running cases, which is pytest's: pytest cases/...",
        epilog="Exit status: 0 all is well or conforms; 1 something deviates or is undetermined; 2 wrong usage or a broken case; "
        "3 the harness or this computer could not do it.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    doctor = _command(commands, "doctor", show_doctor, "say what is here, what is missing, and which accelerator runs guests and why")
    _add_kernel(doctor)

    images = commands.add_parser("images", help="list, build or remove the kernels and root file systems of guests")
    actions = images.add_subparsers(title="actions", metavar="ACTION", required=True)
    _command(actions, "list", list_images, "list what is built, with sizes, and what is not")
    build = _command(actions, "build", build_images, "build what is missing; needs the network")
    build.add_argument("kernel", nargs="*", help="kernels of images/kernels.yaml, or paths (default: what the cases need)")
    remove = _command(actions, "remove", remove_images, "remove entries from the cache")
    remove.add_argument("name", nargs="*", help="names as 'images list' prints them")
    remove.add_argument("--unused", action="store_true", help="every entry that no present description leads to")

    plan = _command(commands, "plan", show_plan, "print what a case would do: stack, QEMU command, steps; boots nothing")
    plan.add_argument("file", nargs="?", type=Path, help="a case")
    plan.add_argument("--variant", help="only the variants whose id contains this")
    plan.add_argument("--matrix", action="store_true", help="print claim family by storage stack by region instead")
    plan.add_argument("--cases", type=Path, default=CASES, metavar="DIR", help="where the cases are, for --matrix (default: cases)")
    _add_kernel(plan)
    _add_kernel_args(plan)

    shell = _command(commands, "shell", open_shell, "open an SSH shell in a guest with a storage stack mounted; its end ends the guest")
    shell.add_argument("--storage", default=DEFAULT_STACK, metavar="ID", help=f"a storage stack by variant id (default: {DEFAULT_STACK})")
    shell.add_argument("--list", action="store_true", help="list the storage stacks instead")
    shell.add_argument("--booted", action="store_true", help="boot the guest instead of restoring it from a template")
    shell.add_argument("--gdb", action="store_true", help="let a debugger attach to the guest")
    shell.add_argument(
        "--keep-memory", type=Path, metavar="DIR", help="keep the guest's memory, regions included, as files in DIR when it has ended"
    )
    shell.add_argument("--boot-timeout", type=float, default=BOOT_LIMIT_S, metavar="SECONDS", help="as pytest's option")
    _add_kernel(shell)
    _add_kernel_args(shell)

    templates = commands.add_parser("templates", help="list, verify or remove the saved guests that clones start from")
    actions = templates.add_subparsers(title="actions", metavar="ACTION", required=True)
    _command(actions, "list", list_templates, "list templates with their sizes, the one used last first")
    verify = _command(actions, "verify", verify_templates, "read templates and compare them with their checksums")
    verify.add_argument("name", nargs="*", help="names as 'templates list' prints them (default: all)")
    remove = _command(actions, "remove", remove_templates, "remove templates; clones that run are not disturbed")
    remove.add_argument("name", nargs="*", help="names as 'templates list' prints them")
    remove.add_argument("--all", action="store_true", help="every template")

    reap = _command(commands, "reap", reap_leftovers, "end and remove what harnesses left that ended without their reaper")
    reap.add_argument("--dry-run", action="store_true", help="only say what there is")

    judge = _command(commands, "judge", judge_again, "judge stored observations again, without a guest")
    judge.add_argument("folder", type=Path, nargs="+", metavar="DIR", help="an item's folder below artifacts/, or a folder above several")

    facts = _command(commands, "facts", show_facts, "measure the model's facts from stored observations, and show where its table differs")
    facts.add_argument("folder", type=Path, nargs="+", metavar="DIR", help="artifacts of one or several kernels")

    mutants = _command(commands, "mutants", show_mutants, "judge stored items with each clause or fact turned around: which matter?")
    mutants.add_argument("folder", type=Path, nargs="+", metavar="DIR", help="artifacts")
    mutants.add_argument("--write", type=Path, metavar="FILE", help="keep the fewest items that catch every mutant (tests/recorded)")

    _command(commands, "contract", show_contract, "print every clause and fact of the reference model (docs/contract.md)")
    _command(commands, "schema", show_schema, "print the form of a case file as JSON Schema, for an editor")
    return parser


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, run: Callable[[argparse.Namespace], int], meaning: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=meaning, description=meaning[0].upper() + meaning[1:] + ".")
    parser.set_defaults(command=run)
    return parser


def _add_kernel(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kernel", metavar="NAME|PATH", help="a kernel of images/kernels.yaml, or your own bzImage, vmlinux or build tree")


def _add_kernel_args(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kernel-args", default="", metavar="TEXT", help="words to add to the kernel's command line, as pytest's option")


def show_doctor(chosen: argparse.Namespace) -> int:
    catalog = load_catalog()
    findings: list[Finding] = []
    for finding in examine(catalog, (choose_kernel(chosen.kernel, catalog),)):
        print(f"{_MARKS[finding.ok]:8} {finding.name:26} {finding.text}", flush=True)
        findings.append(finding)
    if any(finding.needed and finding.ok is False for finding in findings):
        print("guests cannot run here yet: ./bootstrap cases puts in place what is missing")
        return COULD_NOT_RUN
    print("guests can run here")
    return ALL_CONFORM


def list_images(_: argparse.Namespace) -> int:
    catalog = load_catalog()
    wanted: dict[str, list[str]] = {}
    for name in catalog.kernels:
        for entry_name in entry_names(KernelChoice(name), catalog):
            wanted.setdefault(entry_name, []).append(name)
    found = stored_entries()
    for entry in found:
        use = ", ".join(wanted[entry.name]) if entry.name in wanted else "an own kernel, or nothing any more"
        print(f"{entry.name:44} {_rounded(entry.size_bytes):>8}  for {use}")
    missing = wanted.keys() - {entry.name for entry in found}
    for name in sorted(missing):
        print(f"{name:44} not built  for {', '.join(wanted[name])}")
    return ALL_CONFORM


def build_images(chosen: argparse.Namespace) -> int:
    catalog = load_catalog()
    for choice in [choose_kernel(name, catalog) for name in chosen.kernel] or needed_kernels(catalog):
        image = guest_image(choice, _progress, catalog)
        _progress(f"{choice.name}: Linux {image.release} is ready")
    return ALL_CONFORM


def needed_kernels(catalog: Catalog) -> list[KernelChoice]:
    """Return what a run of all cases needs: the default kernel, and its flavours."""
    default = catalog.default_kernel
    return [KernelChoice(kernel.name) for kernel in catalog.kernels.values() if default in (kernel.name, kernel.base)]


def remove_images(chosen: argparse.Namespace) -> int:
    catalog = load_catalog()
    names = list(chosen.name)
    if chosen.unused:
        used = {name for kernel in catalog.kernels for name in entry_names(KernelChoice(kernel), catalog)}
        names += [entry.name for entry in stored_entries() if entry.name not in used]
    elif not names:
        raise UsageError("name the entries to remove ('images list' prints them), or give --unused")
    for name in names:
        remove_stored_entry(name, _progress)
        _progress(f"removed {name}")
    return ALL_CONFORM


def show_plan(chosen: argparse.Namespace) -> int:
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
    matrix = make_matrix([plan for path in files for plan in make_plans(load_case(path))], load_families(folder))
    for line in matrix_lines(matrix):
        print(line)
    unexplained = unexplained_cells(matrix)
    for line in unexplained:
        print(line, file=sys.stderr)
    return WRONG_USAGE if unexplained else ALL_CONFORM


def open_shell(chosen: argparse.Namespace) -> int:
    stacks = named_stacks()
    if chosen.list:
        for name, stack in stacks.items():
            print(f"{name:36} {stack.describe()}")
        return ALL_CONFORM
    if chosen.storage not in stacks:
        raise UsageError(f"no storage stack {chosen.storage!r}; there are:\n" + "\n".join(f"  {name}" for name in stacks))
    choice = choose_kernel(chosen.kernel, load_catalog())
    if chosen.keep_memory and chosen.booted:
        raise UsageError("--keep-memory keeps the memory of a restored guest: leave --booted out")
    if chosen.keep_memory:
        chosen.keep_memory.mkdir(parents=True, exist_ok=True)
    arguments = parse_kernel_arguments(chosen.kernel_args)
    keeper = LogKeeper(NO_SHELL)
    keeper.clear()
    options = GuestOptions(chosen.boot_timeout, gdb=chosen.gdb, keep=chosen.keep_memory, kernel_arguments=arguments, keeper=keeper)
    stack = stacks[chosen.storage]
    start = make_booter(lambda _: choice, _progress, options) if chosen.booted else Cloner(lambda _: choice, _progress, options).clone
    with start(stack, choice.name) as guest:
        guest.refresh()
        for placed in guest.session.layout.volumes:
            where = f"mounted on {placed.folder}" if placed.volume.mount else "no file system"
            _progress(f"{placed.volume.role}: {placed.node}, {where}: {placed.volume.describe()}")
        for line in ways_in(guest):
            _progress(line)
        _progress("a root shell in the guest; exit or Ctrl-D ends both")
        return guest.session.shell()


def list_templates(_: argparse.Namespace) -> int:
    found = stored_templates()
    for template in found:
        used = datetime.fromtimestamp(template.used_s).strftime("%Y-%m-%d %H:%M")
        made_of = "; ".join(template.made_of.values())
        print(f"{template.name:44} {_rounded(template.size_bytes):>8}  used {used}  {made_of}")
    total, limit = sum(template.size_bytes for template in found), templates_limit_bytes()
    print(f"{len(found)} templates, {_rounded(total)} of at most {format_size(limit)} in {settings.templates_root()}")
    return ALL_CONFORM


def verify_templates(chosen: argparse.Namespace) -> int:
    names = [template.name for template in stored_templates()]
    if unknown := [name for name in chosen.name if name not in names]:
        raise UsageError(f"no template {unknown[0]!r}; there are: {', '.join(names) or 'none'}")
    damaged = 0
    for name in chosen.name or names:
        damage = template_damage(settings.templates_root() / name)
        damaged += damage is not None
        print(f"{name:44} {'DAMAGED: ' + damage if damage else 'ok'}", flush=True)
    return SOME_DEVIATE if damaged else ALL_CONFORM


def remove_templates(chosen: argparse.Namespace) -> int:
    names = [template.name for template in stored_templates()] if chosen.all else chosen.name
    if not names and not chosen.all:
        raise UsageError("name the templates to remove ('templates list' prints them), or give --all")
    for name in names:
        remove_template(name, _progress)
        _progress(f"removed {name}")
    return ALL_CONFORM


def reap_leftovers(chosen: argparse.Namespace) -> int:
    found = find_leftovers()
    for leftover in found:
        with_ = f", with {len(leftover.pids)} processes ({', '.join(map(str, leftover.pids))})" if leftover.pids else ""
        print(f"{leftover.folder}: {_rounded(leftover.size_bytes)}{with_}")
        if not chosen.dry_run and not remove_leftover(leftover):
            print(f"{leftover.folder} could not be removed")
    unfinished = [] if chosen.dry_run else [*remove_abandoned(image_store()), *remove_abandoned(settings.templates_root())]
    for name in unfinished:
        print(f"unfinished in the cache: {name}")
    word = "found" if chosen.dry_run else "ended and removed"
    print(f"{len(found) + len(unfinished)} leftovers {word}")
    return ALL_CONFORM


def _rounded(size_bytes: int) -> str:
    """A size in whole MiB, rounded up."""
    return format_size(-(-size_bytes // 2**20) * 2**20)


def judge_again(chosen: argparse.Namespace) -> int:
    rows, elsewhere = [], []
    for folder in _item_folders(chosen.folder):
        case = Path(load_record(folder).item.case)
        if not case.exists():
            elsewhere.append(case)
        row = make_row(judge_folder(folder, load_nearest_known(case)), folder)
        rows.append(row)
        print(describe_row(row))
    if elsewhere:
        _progress(f"{elsewhere[0]} is not below this folder: the known deviations of {len(elsewhere)} items may not have been found")
    conform = sum(row.passed for row in rows)
    print(f"{conform} of {len(rows)} items conform")
    return exit_status(rows)


def show_facts(chosen: argparse.Namespace) -> int:
    readings = measure(_recorded_runs(chosen.folder))
    for line in fact_lines(readings):
        print(line)
    return SOME_DEVIATE if any(reading.differs for reading in readings) else ALL_CONFORM


def show_mutants(chosen: argparse.Namespace) -> int:
    runs = _recorded_runs(chosen.folder)
    fewest, missed = smallest_cover(runs)
    print(f"{len(fewest)} of {len(runs)} items catch every mutant that any of them catches")
    for name in sorted(missed):
        print(f"asked and never caught: {name}")
    if chosen.write is not None:
        write_recorded(chosen.write, fewest)
        _progress(f"wrote {chosen.write}")
    return SOME_DEVIATE if missed else ALL_CONFORM


def _recorded_runs(folders: Sequence[Path]) -> list[Recorded]:
    records = [load_record(folder) for folder in _item_folders(folders)]
    return [run for run in map(recorded, records) if run is not None]


def _item_folders(folders: Sequence[Path]) -> list[Path]:
    """Return the items' folders at or below ``folders``. Raises UsageError for a folder that holds none."""
    found: list[Path] = []
    for folder in folders:
        here = list(find_records(folder)) if folder.is_dir() else []
        if not here:
            raise UsageError(f"{folder} holds no item: an item's folder has a plan.json, as pytest makes them below artifacts/")
        found += here
    return found


def show_contract(_: argparse.Namespace) -> int:
    sys.stdout.write(contract_page())
    return ALL_CONFORM


def show_schema(_: argparse.Namespace) -> int:
    print(json.dumps(case_schema(), indent=2))
    return ALL_CONFORM


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _say_error(error: Exception) -> None:
    logs = logs_of(error)
    print(f"harness: {error}" + (f"\nlogs: {logs}" if logs else ""), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
