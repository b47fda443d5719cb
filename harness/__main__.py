"""The command line beside pytest: each command is a module of harness/cli, imported when it is asked for."""

import argparse
import contextlib
import importlib
import sys
from collections.abc import Sequence

from harness.cli.words import progress
from harness.errors import CaseError, HarnessError, UsageError, logs_of
from harness.host.log import told
from harness.host.process import cleaning_up_first
from harness.report.status import ALL_CONFORM, COULD_NOT_RUN, WRONG_USAGE

#: Every command: a module of harness/cli, and what it is for.
COMMANDS = {
    "doctor": "say what is here and what is missing, which accelerator runs guests and why; or why there is no DAX on a stack or a machine",
    "images": "list, build or remove the kernels and root file systems of guests",
    "new": "write a first case of your own, and run it",
    "plan": "print what a case would do: stack, QEMU command, steps; boots nothing",
    "shell": "open an SSH shell in a guest with a storage stack mounted; its end ends the guest",
    "templates": "list, verify or remove the saved guests that clones start from",
    "reap": "end and remove what harnesses left that ended without their reaper",
    "runs": "list, show or remove the runs that are kept below the artifacts",
    "report": "make one HTML page of runs and tables, to look at, search and print",
    "export": "print a run as JUnit's XML, JSON lines, KTAP or for KernelCI's database",
    "judge": "judge stored observations again, without a guest",
    "facts": "measure the model's facts from stored observations, and show where its table differs",
    "probe": "measure the facts of a kernel on guests, and keep them as a table",
    "history": "say since which kernel a fact is as it is, from the tables",
    "verdicts": "say what the items came to on each kernel, from a table that is kept, and add runs to it",
    "watch": "say of what splice and its like move whether it is the page itself or a copy, on each kernel",
    "diff": "say what differs between two kernels, two kinds of storage or two runs",
    "bisect": "find the kernel from which on an item comes to something else",
    "matrix": "print the jobs that a CI system fans out: kernels, shards, caches",
    "merge": "make one run of the shards of a suite, and say which is missing",
    "mutants": "judge stored items with each clause or fact turned around: which matter?",
    "contract": "print every clause and fact of the reference model (docs/contract.md)",
    "schema": "print the form of a case file as JSON Schema, for an editor",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    chosen = make_parser(words[0] if words else "").parse_args(words)
    try:
        with told(progress) if getattr(chosen, "verbose", False) else contextlib.nullcontext():
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


def make_parser(chosen: str) -> argparse.ArgumentParser:
    """Return the parser of the command line, with the arguments of the command that was ``chosen``: of no other is a module imported."""
    parser = argparse.ArgumentParser(
        prog="python -m harness",
        description="Everything about the harness but running cases, which is pytest's: pytest cases/...",
        epilog="Exit status: 0 all is well or conforms; 1 something deviates or is undetermined; 2 wrong usage or a broken case; "
        "3 the harness or this computer could not do it.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, meaning in COMMANDS.items():
        command = commands.add_parser(name, help=meaning, description=meaning[0].upper() + meaning[1:].removesuffix("?") + ".")
        if name == chosen:
            importlib.import_module(f"harness.cli.{name}").add_arguments(command)
    return parser


def _say_error(error: Exception) -> None:
    logs = logs_of(error)
    print(f"harness: {error}" + (f"\nlogs: {logs}" if logs else ""), file=sys.stderr)


if __name__ == "__main__":
    with cleaning_up_first():
        sys.exit(main())
