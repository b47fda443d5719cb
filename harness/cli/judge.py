"""Stored observations judged again, without a guest."""

import argparse
from pathlib import Path

from harness.case.known import load_nearest_known
from harness.cli.folders import chosen_items
from harness.cli.options import add_facts, add_run
from harness.cli.words import progress
from harness.record.judged import judge_folder
from harness.record.store import load_record
from harness.report.paragraph import describe_row
from harness.report.rows import make_row
from harness.report.status import exit_status


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    add_facts(parser)
    parser.set_defaults(command=run)


def run(chosen: argparse.Namespace) -> int:
    rows, elsewhere = [], []
    for folder in chosen_items(chosen):
        case = Path(load_record(folder).item.where.case)
        if not case.exists():
            elsewhere.append(case)
        row = make_row(judge_folder(folder, load_nearest_known(case), chosen.facts), folder)
        rows.append(row)
        print(describe_row(row))
    if elsewhere:
        progress(f"{elsewhere[0]} is not below this folder: the known deviations of {len(elsewhere)} items may not have been found")
    conform = sum(row.passed for row in rows)
    print(f"{conform} of {len(rows)} items conform")
    return exit_status(rows)
