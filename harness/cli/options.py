"""Options and actions: the same names in every command."""

import argparse
from collections.abc import Callable
from pathlib import Path


def add_kernel(parser: argparse.ArgumentParser, repeatable: bool = False) -> None:
    what = "a kernel of images/kernels.yaml, one from source with a patch (NAME+FILE), or your own bzImage, vmlinux or build tree"
    if repeatable:
        parser.add_argument("--kernel", action="append", default=[], metavar="NAME|PATH", help=f"{what}; repeatable")
    else:
        parser.add_argument("--kernel", metavar="NAME|PATH", help=what)


def add_kernel_args(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kernel-args", default="", metavar="TEXT", help="words to add to the kernel's command line, as pytest's option")


def add_verbose(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-v", "--verbose", action="store_true", help="show the log of what the harness does, with times, on standard error")


def add_action(
    actions: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, run: Callable[[argparse.Namespace], int], meaning: str
) -> argparse.ArgumentParser:
    """Add the action ``name`` of a command, and return its parser."""
    parser: argparse.ArgumentParser = actions.add_parser(name, help=meaning, description=meaning[0].upper() + meaning[1:] + ".")
    parser.set_defaults(command=run)
    return parser


def add_artifacts(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"), metavar="DIR", help="where runs are kept, as pytest's option")


def add_facts(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--facts", type=Path, metavar="DIR", help="tables of facts that come before the model's own, as pytest's option")


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add what says which stored items a command is about: folders, or a run."""
    parser.add_argument("folder", type=Path, nargs="*", metavar="DIR", help="items' folders, or folders above several, instead of a run")
    parser.add_argument("--run", metavar="ID", help="the items of this run, as 'runs list' prints it (default: latest)")
    add_artifacts(parser)
