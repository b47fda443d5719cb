"""A shell in a guest with a storage stack mounted."""

import argparse
from pathlib import Path

from harness.case.plan import DEFAULT_STACK, named_stacks
from harness.cli.options import add_kernel, add_kernel_args, add_verbose
from harness.cli.stacks import choose_stack
from harness.cli.words import progress
from harness.errors import UsageError
from harness.lease.boot import make_booter
from harness.lease.booted import ways_in
from harness.lease.clone import Cloner
from harness.lease.kept import FOLDER, LogKeeper
from harness.lease.options import BOOT_LIMIT_S, GuestOptions
from harness.machine.arguments import parse_kernel_arguments
from harness.report.status import ALL_CONFORM

#: Where the logs are kept of a guest that did not come up: beside those of pytest's usual place.
NO_SHELL = Path("artifacts") / FOLDER / "shell"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--storage", default=DEFAULT_STACK, metavar="ID", help=f"a storage stack by variant id (default: {DEFAULT_STACK})")
    parser.add_argument("--list", action="store_true", help="list the storage stacks instead")
    parser.add_argument("--booted", action="store_true", help="boot the guest instead of restoring it from a template")
    parser.add_argument("--gdb", action="store_true", help="let a debugger attach to the guest")
    parser.add_argument(
        "--keep-memory", type=Path, metavar="DIR", help="keep the guest's memory, regions included, as files in DIR when it has ended"
    )
    parser.add_argument("--boot-timeout", type=float, default=BOOT_LIMIT_S, metavar="SECONDS", help="as pytest's option")
    add_kernel(parser)
    add_kernel_args(parser)
    add_verbose(parser)
    parser.set_defaults(command=run)


def run(chosen: argparse.Namespace) -> int:
    if chosen.list:
        for name, known in named_stacks().items():
            print(f"{name:36} {known.describe()}")
        return ALL_CONFORM
    stack, choice = choose_stack(chosen.storage, chosen.kernel)
    if chosen.keep_memory and chosen.booted:
        raise UsageError("--keep-memory keeps the memory of a restored guest: leave --booted out")
    if chosen.keep_memory:
        chosen.keep_memory.mkdir(parents=True, exist_ok=True)
    arguments = parse_kernel_arguments(chosen.kernel_args)
    keeper = LogKeeper(NO_SHELL)
    keeper.clear()
    options = GuestOptions(chosen.boot_timeout, gdb=chosen.gdb, keep=chosen.keep_memory, kernel_arguments=arguments, keeper=keeper)
    start = make_booter(lambda _: choice, progress, options) if chosen.booted else Cloner(lambda _: choice, progress, options).clone
    with start(stack, choice.name) as guest:
        guest.refresh()
        for placed in guest.session.layout.volumes:
            where = f"mounted on {placed.folder}" if placed.volume.mount else "no file system"
            progress(f"{placed.volume.role}: {placed.node}, {where}: {placed.volume.describe()}")
        for line in ways_in(guest):
            progress(line)
        progress("a root shell in the guest; exit or Ctrl-D ends both")
        return guest.session.shell()
