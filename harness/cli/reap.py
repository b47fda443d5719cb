"""What harnesses left that ended without their reaper: ended and removed."""

import argparse

from harness.cli.options import add_verbose
from harness.cli.words import rounded
from harness.host import settings
from harness.host.cache import remove_abandoned
from harness.image.bundle import image_store
from harness.machine.leftovers import find_leftovers, remove_leftover
from harness.report.status import ALL_CONFORM


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="only say what there is")
    add_verbose(parser)
    parser.set_defaults(command=run)


def run(chosen: argparse.Namespace) -> int:
    found = find_leftovers()
    for leftover in found:
        with_ = f", with {len(leftover.pids)} processes ({', '.join(map(str, leftover.pids))})" if leftover.pids else ""
        print(f"{leftover.folder}: {rounded(leftover.size_bytes)}{with_}")
        if not chosen.dry_run and not remove_leftover(leftover):
            print(f"{leftover.folder} could not be removed")
    unfinished = [] if chosen.dry_run else [*remove_abandoned(image_store()), *remove_abandoned(settings.templates_root())]
    for name in unfinished:
        print(f"unfinished in the cache: {name}")
    word = "found" if chosen.dry_run else "ended and removed"
    print(f"{len(found) + len(unfinished)} leftovers {word}")
    return ALL_CONFORM
