"""What could not be set up in this run, counted over all of its workers: a locked file in a folder that ends with the run.

A failure that the next item shares is worth noting: of a storage stack that failed twice, the other items are not tried. Where two stacks
have failed, the default stack is brought up by itself, once: it tells stacks that cannot be from a kernel on which nothing comes up.
"""

import contextlib
import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from harness.errors import CONSOLE_FOLLOWS, AgentError, GuestError, HostError, MachineError, UsageError, logs_of
from harness.lease.kept import KEPT_FILES, is_folder
from harness.machine.custody import private_folder
from harness.model.stack import StorageStack
from harness.record.item import Lifecycle, place_suffix

log = logging.getLogger(__name__)

#: What fails for one item for such a reason fails for the next one too.
SHARED_ERRORS = (UsageError, HostError, MachineError, GuestError, AgentError, OSError)
#: Failures of one stack after which its other items are not tried, and stacks after whose failure the default one is tried.
MAX_FAILURES = 2
MAX_STACKS = 2

_ENTRIES, _LOCK, _PROBE_LOCK = "entries.jsonl", "lock", "probe-lock"
_FAILED, _WORKED, _HOPELESS = "failed", "worked", "hopeless"
#: Noting a line takes no time; bringing up a stack may take the limits of several boots.
_LOCK_LIMIT_S, _PROBE_LIMIT_S = 60.0, 3600.0


@dataclass(frozen=True)
class Place:
    """What a guest serves."""

    stack: StorageStack
    kernel: str
    lifecycle: Lifecycle

    @property
    def column(self) -> str:
        """The kernel, and how its guests come to be where that is not the usual way."""
        return f"{self.kernel}{place_suffix(self.lifecycle)}"


@dataclass(frozen=True)
class Refusal:
    """Why an item is not tried: ``reason`` in a line, ``told`` in a paragraph, and where the logs of the failure are."""

    reason: str
    told: str
    logs: str = ""


@dataclass(frozen=True)
class Entry:
    """A line of the ledger. ``stack`` is for comparing, ``described`` for people; ``message`` is the error's, with its class before it."""

    what: str
    column: str
    stack: str
    described: str
    message: str = ""
    logs: str = ""


@dataclass
class State:
    """What the entries come to for one kernel. ``failures`` by stack; ``suspects`` failed since the default stack was last seen to work."""

    failures: dict[str, list[Entry]] = field(default_factory=dict)
    suspects: dict[str, Entry] = field(default_factory=dict)
    hopeless: Refusal | None = None

    @property
    def needs_probe(self) -> bool:
        return self.hopeless is None and len(self.suspects) >= MAX_STACKS


def make_state(entries: Iterable[Entry], column: str, default: str) -> State:
    """Return what ``entries`` come to for the kernel of ``column``; ``default`` is the default stack, as entries say it."""
    state = State()
    for entry in entries:
        if entry.column != column:
            continue
        if entry.what == _FAILED:
            state.failures.setdefault(entry.stack, []).append(entry)
            state.suspects[entry.stack] = entry
        elif entry.what == _HOPELESS:
            state.hopeless = state.hopeless or _hopeless(entry, state.suspects.values())
        else:
            state.failures.pop(entry.stack, None)
            state.suspects = {} if entry.stack == default else {k: v for k, v in state.suspects.items() if k != entry.stack}
    return state


@dataclass(frozen=True)
class Ledger:
    """The ledger in ``folder``, which whoever made the folder removes. ``keep_going``: everything is tried, whatever failed before."""

    folder: Path
    default: StorageStack
    keep_going: bool = False

    def note_failure(self, place: Place, error: Exception) -> None:
        """Count a failed set-up, where it is of a kind that the next item shares."""
        log.error("%s could not be set up on %s: %s: %s", place.stack.describe(), place.column, type(error).__name__, error)
        if isinstance(error, SHARED_ERRORS):
            self._append(_entry(_FAILED, place, error))

    def note_success(self, place: Place) -> None:
        """Forget the failures of a stack that came up after all."""
        state = self._state(place)
        if repr(place.stack) in state.failures or (place.stack == self.default and state.suspects):
            self._append(_entry(_WORKED, place))

    def note_hopeless(self, place: Place, error: Exception) -> None:
        """Remember that not even the default stack, which is that of ``place``, came up."""
        self._append(_entry(_HOPELESS, place, error))

    def find_refusal(self, place: Place) -> Refusal | None:
        """Return why ``place`` is not to be tried, or None."""
        if self.keep_going:
            return None
        state = self._state(place)
        failures = state.failures.get(repr(place.stack), [])
        return state.hopeless or (_given_up(failures[MAX_FAILURES - 1]) if len(failures) >= MAX_FAILURES else None)

    @contextlib.contextmanager
    def probing(self, place: Place) -> Iterator[bool]:
        """Say whether the caller is to try the default stack now. Other workers wait here until it has."""
        if self.keep_going or not self._state(place).needs_probe:
            yield False
            return
        log.info("waiting until no other worker tries the default stack on %s", place.column)
        with self._held(_PROBE_LOCK, _PROBE_LIMIT_S):
            yield self._state(place).needs_probe

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Keep the other workers of the run out for a moment."""
        return self._held(_LOCK, _LOCK_LIMIT_S)

    def _state(self, place: Place) -> State:
        path = self.folder / _ENTRIES
        if not path.is_file():
            return State()
        with self.locked():
            lines = path.read_text().splitlines()
        return make_state(_entries(lines), place.column, repr(self.default))

    def _append(self, entry: Entry) -> None:
        # What cannot be noted (a full disk, a run that is over) is tried again: the failure itself is what matters.
        with self.locked(), contextlib.suppress(OSError), (self.folder / _ENTRIES).open("ab", buffering=0) as file:
            file.write(json.dumps(asdict(entry)).encode() + b"\n")

    @contextlib.contextmanager
    def _held(self, name: str, limit_s: float) -> Iterator[None]:
        # FileLock would make the folder of a run that is over anew.
        if not self.folder.is_dir():
            yield
            return
        lock = FileLock(self.folder / name)
        try:
            lock.acquire(timeout=limit_s)
        except Timeout as error:
            raise HostError(f"another worker of this run holds {lock.lock_file} for more than {limit_s:.0f} s; is it stuck?") from error
        try:
            yield
        finally:
            lock.release()


@contextlib.contextmanager
def open_ledger(default: StorageStack, keep_going: bool = False) -> Iterator[Ledger]:
    """Return a ledger for this process alone, which ends with the block. Raises HostError where there is no room for it."""
    with private_folder() as folder:
        yield Ledger(folder, default, keep_going)


def _entries(lines: Iterable[str]) -> Iterator[Entry]:
    """Yield what was noted. A full disk may have cut a line off: what it said will be found out again."""
    for line in lines:
        with contextlib.suppress(ValueError, TypeError):
            yield Entry(**json.loads(line))


def _entry(what: str, place: Place, error: Exception | None = None) -> Entry:
    message = "" if error is None else f"{type(error).__name__}: {error}"
    return Entry(what, place.column, repr(place.stack), place.stack.describe(), message, logs_of(error))


# ---- what is said ----------------------------------------------------------------------------------------------------

#: What may help, by the class of the error.
_ADVICE = {
    "BootError": "another kernel (--kernel), PMEM_HARNESS_ACCEL=tcg where KVM was used, --boot-timeout SECONDS on a slow computer",
    "MachineError": "python -m harness doctor, PMEM_HARNESS_ACCEL=tcg where KVM was used",
    "GuestError": "python -m harness shell --booted, --boot-timeout SECONDS on a slow computer",
    "StackMismatchError": "python -m harness shell --booted shows the guest as it is; another kernel (--kernel)",
}
_OTHER_ADVICE = "python -m harness doctor says what this computer has and what it lacks"


def _given_up(last: Entry) -> Refusal:
    reason = f"the storage stack failed {MAX_FAILURES} times on {last.column}"
    told = f"{last.described} failed {MAX_FAILURES} times on {last.column}: its other items are not tried (--keep-going tries them)"
    return Refusal(reason, told, last.logs)


def _hopeless(last: Entry, suspects: Iterable[Entry]) -> Refusal:
    others = [entry.described for entry in suspects if entry.stack != last.stack]
    came_back = last.message.partition(CONSOLE_FOLLOWS)[0].strip()
    lines = [
        f"nothing comes up on {last.column}: its other items are not tried",
        f"  done      set up {' and '.join(f'({stack})' for stack in others)}; then, by itself, the default stack ({last.described})",
        f"  came back {came_back}".replace("\n", "\n            "),
        f"  look at   {_look_at(last.logs)}",
        f"  try       {_ADVICE.get(last.message.partition(':')[0], _OTHER_ADVICE)}; --keep-going tries every item all the same",
    ]
    return Refusal(f"nothing comes up on {last.column}, not even the default stack", "\n".join(lines), last.logs)


def _look_at(logs: str) -> str:
    return f"{logs}: {KEPT_FILES}" if is_folder(logs) else f"what each failure said {logs}".strip()
