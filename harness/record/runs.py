"""A run has an identity and a folder of its own: ``runs/ID`` below the artifacts. ``latest`` beside it leads to the newest."""

import contextlib
import fcntl
import os
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from harness.errors import UsageError
from harness.record.documents import read_text, to_text, typed

RUNS, LATEST, IDENTITY = "runs", "latest", "identity.json"
#: What the harness did, in the folder of the run; those who do it hold the file.
LOG = "harness.log"
FORMAT = 1
#: How many runs are kept unless somebody says otherwise.
KEPT_RUNS = 10
#: A run that has not ended after so long never will: whoever did it was killed.
_LONGEST = timedelta(days=2)


@dataclass(frozen=True)
class Identity:
    """Who a run is. Times are UTC; ``ended`` and ``status`` (pytest's exit status) stay None where it was killed.

    ``commit``: of the harness, with ``-dirty`` where files differ from it; empty where it is no checkout. ``catalog``: a hash of
    images/kernels.yaml as it was read. ``items``: how many ended in which way.
    """

    id: str
    began: datetime
    command: tuple[str, ...]
    commit: str
    catalog: str
    kernels: tuple[str, ...]
    ended: datetime | None = None
    status: int | None = None
    items: tuple[tuple[str, int], ...] = ()

    @property
    def is_over(self) -> bool:
        return self.ended is not None or datetime.now(UTC) - self.began > _LONGEST


@dataclass(frozen=True)
class StoredRun:
    """A run that is kept, and where."""

    identity: Identity
    folder: Path

    @property
    def goes_on(self) -> bool:
        """Whether a process that does this run is alive."""
        return _is_held(self.folder / LOG)

    @property
    def size_bytes(self) -> int:
        return sum(path.lstat().st_size for path in self.folder.rglob("*") if not path.is_dir())


def make_run_id(token: str) -> str:
    """Return an id that sorts by time: ``20261125-174210-3f2a`` with the ``token`` at its end."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{token}"


def now() -> datetime:
    """Return the time in whole seconds."""
    return datetime.now(UTC).replace(microsecond=0)


def run_folder(artifacts: Path, run: str) -> Path:
    return artifacts / RUNS / run


def begin_run(artifacts: Path, identity: Identity, keep: int) -> None:
    """Make the folder of a run the latest, and remove what is over but for the ``keep`` newest runs. Raises OSError."""
    store_identity(artifacts, identity)
    link = artifacts / f"{LATEST}.{identity.id}"
    link.symlink_to(Path(RUNS) / identity.id, target_is_directory=True)
    try:
        os.replace(link, artifacts / LATEST)
    except OSError:
        link.unlink()
        raise
    found = stored_runs(artifacts)
    for run in found[keep:]:
        if run.identity.is_over and not run.goes_on:
            shutil.rmtree(run.folder, ignore_errors=True)
    for log in (artifacts / RUNS).glob(f"*/{LOG}"):
        # A run that was ended before its first item was has a log, and no identity.
        if log.parent.name < found[:keep][-1].identity.id and not (log.parent / IDENTITY).exists() and not _is_held(log):
            shutil.rmtree(log.parent, ignore_errors=True)


def _is_held(log: Path) -> bool:
    """Whether a process has the log of a run open (harness/host/log.py): the lock ends with the process, however that ends."""
    with contextlib.suppress(FileNotFoundError), log.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def store_identity(artifacts: Path, identity: Identity) -> None:
    """Write who a run is, as a whole: whoever reads sees the old or the new. Raises OSError."""
    folder = run_folder(artifacts, identity.id)
    folder.mkdir(parents=True, exist_ok=True)
    new = folder / f"{IDENTITY}.new"
    new.write_text(to_text(identity, FORMAT))
    new.replace(folder / IDENTITY)


def stored_runs(artifacts: Path) -> tuple[StoredRun, ...]:
    """Return the runs below ``artifacts``, the newest first. A folder that cannot be read as one is none (:func:`broken_runs`)."""
    return tuple(run for run in _runs(artifacts) if isinstance(run, StoredRun))


def broken_runs(artifacts: Path) -> tuple[UsageError, ...]:
    """Return of each folder that was a run, and cannot be read as one, why."""
    return tuple(run for run in _runs(artifacts) if isinstance(run, UsageError))


def _runs(artifacts: Path) -> list[StoredRun | UsageError]:
    return [_read(path.parent) for path in sorted((artifacts / RUNS).glob(f"*/{IDENTITY}"), reverse=True)]


def _read(folder: Path) -> StoredRun | UsageError:
    try:
        return StoredRun(typed(Identity, read_text(folder / IDENTITY, "a run"), FORMAT, str(folder / IDENTITY)), folder)
    except UsageError as error:
        return error


def find_run(artifacts: Path, wanted: str) -> StoredRun:
    """Return the run ``wanted``: an id, the beginning of exactly one, or ``latest``, where that leads.

    Raises UsageError that lists what there is, or says why it is none.
    """
    found = stored_runs(artifacts)
    here = artifacts / LATEST if wanted == LATEST else run_folder(artifacts, wanted)
    if (here / IDENTITY).exists():
        run = _read(here)
        if isinstance(run, UsageError):
            raise UsageError(f"{wanted} is no run: {run}")
        return next((other for other in found if other.folder.samefile(here)), run)
    if not found:
        raise UsageError(f"no run is kept in {artifacts}/{RUNS}; pytest makes one there")
    matching = [run for run in found if run.identity.id.startswith(wanted)]
    if len(matching) != 1:
        ids = "\n".join(f"  {run.identity.id}" for run in matching or found)
        raise UsageError(f"{len(matching)} runs are called {wanted!r}; there are:\n{ids}")
    return matching[0]


def remove_run(artifacts: Path, run: StoredRun) -> None:
    """Remove a run; where it was the latest, the newest that is left becomes it. Raises UsageError where it goes on, and OSError."""
    if run.goes_on:
        raise UsageError(f"the run {run.identity.id} goes on: end it first (Ctrl-C where it was started)")
    shutil.rmtree(run.folder)
    link = artifacts / LATEST
    if link.is_symlink() and not link.exists():
        link.unlink()
        left = stored_runs(artifacts)
        if left:
            link.symlink_to(Path(RUNS) / left[0].identity.id, target_is_directory=True)
