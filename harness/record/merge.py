"""Several runs, the shards of one, made into one."""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from harness.errors import UsageError
from harness.record.runs import LOG, RUNS, Identity, StoredRun, run_folder


def merged_identity(runs: Sequence[Identity], id_: str) -> Identity:
    """Return who the one run is, but for its status and its items. Raises UsageError where the runs are not of one harness."""
    first = runs[0]
    for other in runs[1:]:
        for what, a, b in (("commit of the harness", first.commit, other.commit), ("catalogue of kernels", first.catalog, other.catalog)):
            if a != b:
                raise UsageError(f"runs {first.id} and {other.id} have not the same {what}: {a or 'none'} and {b or 'none'}")
    ends = [one.ended for one in runs if one.ended is not None]
    return Identity(
        id_,
        min(one.began for one in runs),
        ("merge", *(one.id for one in runs)),
        first.commit,
        first.catalog,
        tuple(dict.fromkeys(kernel for one in runs for kernel in one.kernels)),
        max(ends) if len(ends) == len(runs) else None,
    )


def copy_items(run: StoredRun, into: Path) -> None:
    """Copy the folders of a run's items into that of another run, and its log behind that one's."""
    shutil.copytree(run.folder, into, dirs_exist_ok=True, ignore=lambda folder, names: _own_files(run.folder, folder, names))
    log = run.folder / LOG
    if log.exists():
        with (into / LOG).open("a") as file:
            file.write(log.read_text())


def _own_files(top: Path, folder: str, names: list[str]) -> list[str]:
    return [name for name in names if Path(folder) == top and not (top / name).is_dir()]


def moved_folder(recorded: str, run: Identity, artifacts: Path, id_: str) -> str:
    """Return where the folder of an item is after :func:`copy_items`; ``recorded``: where it was, on the computer that it ran on."""
    match = re.search(rf"(?:^|/){RUNS}/{re.escape(run.id)}/(.*)$", recorded)
    return str(run_folder(artifacts, id_) / match[1]) if match else recorded
