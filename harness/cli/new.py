"""A first case of one's own: written, and run."""

import argparse
import json
import os
import re
from pathlib import Path

from harness.case.claims import FAMILY_FILE
from harness.case.loader import load_plans
from harness.cli.options import add_action, add_artifacts
from harness.cli.suite import run_suite
from harness.cli.words import cannot_write, progress
from harness.errors import UsageError
from harness.report.status import ALL_CONFORM

#: The schema of cases, in the folder above the families.
SCHEMA = "schema.json"
#: The comment by which editors find it; what they know it by is the first word.
SCHEMA_COMMENT = f"# yaml-language-server: $schema=../{SCHEMA}"
_CASE = f"""{SCHEMA_COMMENT}
title: {{title}}
axes:
  storage: [dax, no_dax]
  region: [e820]
program:
  - open: {{{{name: f, path: a, flags: [rdwr, creat]}}}}
  - pwrite: {{{{file: f, offset: 0, length: 64KiB}}}}
  - mmap: {{{{name: m, file: f, length: 64KiB}}}}
  - store: {{{{mapping: m, offset: 4KiB, length: 8}}}}
  - pread: {{{{file: f, offset: 0, length: 64KiB}}}}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    case = add_action(actions, "case", new_case, "write a first case, and run it on guests")
    case.add_argument(
        "name", metavar="FAMILY/NAME", help="the folder below cases, which is made where it is missing, and the name of the case"
    )
    case.add_argument("--title", help="one sentence that says what is so (default: made of the name)")
    case.add_argument("--cases", type=Path, default=Path("cases"), metavar="DIR", help="where the cases are (default: cases)")
    case.add_argument("--no-run", action="store_true", help="write it, and print what runs it")
    add_artifacts(case)


def new_case(chosen: argparse.Namespace) -> int:
    """Return the status of the run."""
    match = re.fullmatch(r"([a-z][a-z0-9_]*)/([a-z][a-z0-9_]*)", chosen.name)
    if match is None:
        raise UsageError(f"{chosen.name!r}: FAMILY/NAME, each of lower-case letters, digits and _, such as coherence/my_first_case")
    if not (chosen.cases / SCHEMA).is_file():
        raise UsageError(
            f"{chosen.cases} is no folder of cases (it has no {SCHEMA}): run this in the root of the harness, or name it with --cases"
        )
    family, path = match[1], chosen.cases / f"{chosen.name}.yaml"
    if path.exists():
        raise UsageError(f"{path} is there already: give the new case another name")
    _write(path, family, chosen.title or f"In {match[2].replace('_', ' ')} what is stored is read")
    plans = load_plans(path)
    progress(f"written: {path}, {len(plans)} variants: {', '.join(plan.id for plan in plans)}")
    command = f"pytest {os.path.relpath(path)}"
    if chosen.no_run:
        progress(f"run it: {command}")
        return ALL_CONFORM
    progress(f"running it: {command}")
    return run_suite([str(path)], chosen.artifacts)[0]


def _write(path: Path, family: str, title: str) -> None:
    try:
        path.parent.mkdir(exist_ok=True)
        if not (path.parent / FAMILY_FILE).exists():
            (path.parent / FAMILY_FILE).write_text(f"title: {family.replace('_', ' ').capitalize()}\n")
            progress(f"written: {path.parent / FAMILY_FILE}, of a new family")
        path.write_text(
            _CASE.format(title=title if re.fullmatch(r"[A-Za-z][\w ,.()-]*", title) else json.dumps(title))
        )  # YAML has JSON's strings
    except OSError as error:
        raise cannot_write(path, error) from error
