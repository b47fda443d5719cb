"""The folders of items that a command is given."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from harness.errors import UsageError
from harness.record.mutants import Recorded, recorded
from harness.record.runs import LATEST, find_run
from harness.record.store import find_records, load_record


def recorded_runs(chosen: argparse.Namespace) -> list[Recorded]:
    records = [load_record(folder) for folder in chosen_items(chosen)]
    return [run for run in map(recorded, records) if run is not None]


def chosen_items(chosen: argparse.Namespace) -> list[Path]:
    """Return the items' folders that were asked for (:func:`add_run`): below the folders named, else those of a run. Raises UsageError."""
    if chosen.folder and chosen.run:
        raise UsageError("name folders or --run, not both")
    return item_folders(chosen.folder or [find_run(chosen.artifacts, chosen.run or LATEST).folder])


def item_folders(folders: Sequence[Path]) -> list[Path]:
    """Return the items' folders at or below ``folders``. Raises UsageError for a folder that holds none."""
    found: list[Path] = []
    for folder in folders:
        here = list(find_records(folder)) if folder.is_dir() else []
        if not here:
            raise UsageError(f"{folder} holds no item: an item's folder has a plan.json, as pytest makes them below artifacts/")
        found += here
    return found
