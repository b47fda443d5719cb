"""The form of a case file, printed as JSON Schema."""

import argparse
import json

from harness.case.schema import case_schema
from harness.report.status import ALL_CONFORM


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=run)


def run(_: argparse.Namespace) -> int:
    print(json.dumps(case_schema(), indent=2))
    return ALL_CONFORM
