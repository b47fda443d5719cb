"""KVM or TCG: decided by how long each takes for the same guest instructions, never by the presence of /dev/kvm.

A KVM may be there and run nothing, or have no processor's help beneath and run each instruction many times slower than an emulator does.
So a guest of a few instructions counts down in a loop, under both; what QEMU takes to start is measured alone and subtracted.
"""

import json
import logging
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from harness.errors import HostError, UsageError
from harness.host import settings
from harness.machine.command import Emulator
from harness.machine.self_test import START_LIMIT_S, SelfTest, run_self_test

log = logging.getLogger(__name__)

#: How many times longer an emulated guest may take than one under KVM. Public suites agree on about ten.
TIME_SCALES = {"kvm": 1.0, "tcg": 10.0}
#: How long TCG is to spend in the loop at least: much longer than what varies from start to start.
LOOP_S = 0.5
#: A generous limit of the whole loop under TCG.
_LOOP_LIMIT_S = 120.0
#: How many times longer than a start under TCG one under KVM may take, beyond a few seconds: it is measured beside the same load.
_START_RATIO, _START_SLACK_S = 10.0, 3.0
#: How often both are measured where KVM is not twice as fast at once: the shortest times count, because load only makes them longer.
_ROUNDS = 3
_FIRST_TURNS, _MOST_TURNS = 1 << 22, (1 << 32) - 1
#: How long another process may take for the same measurement.
_WAIT_LIMIT_S = 300.0
_KVM_NODE = Path("/dev/kvm")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
#: The form of what is remembered; a file of another one counts as none.
_FORMAT = 2


@dataclass(frozen=True)
class Accelerator:
    """What runs guests here and why; ``time_scale`` is for every wait: ``Deadline.after(seconds, accelerator.time_scale)``.

    ``tentative``: KVM that nobody asked for. Where no guest comes up under it, TCG is tried.
    """

    name: str
    reason: str
    tentative: bool = False

    @property
    def time_scale(self) -> float:
        return TIME_SCALES[self.name]


@dataclass(frozen=True)
class Measurement:
    """Whether KVM is faster, and what was seen, in words that have both times.

    ``tcg_s`` and ``kvm_s``: seconds of a loop of ``turns``, without QEMU's start; None where it could not be measured. ``kvm_stopped``: it
    was not done after ``kvm_s``. ``refuted``: what was found later, when a guest did not come up under KVM and did under TCG.
    """

    faster: bool
    seen: str
    turns: int = 0
    tcg_s: float | None = None
    kvm_s: float | None = None
    kvm_stopped: bool = False
    refuted: str = ""


def may_open(node: Path) -> bool:
    """Say whether this user may open the device."""
    return os.access(node, os.R_OK | os.W_OK)


def choose_accelerator(
    emulator: Emulator,
    choice: str | None = None,
    cache_folder: Path | None = None,
    kvm_node: Path = _KVM_NODE,
    may_open: Callable[[Path], bool] = may_open,
) -> Accelerator:
    """Return the accelerator for this host; ``choice`` (auto, kvm, tcg) overrides the setting.

    Raises UsageError for another choice, and HostError where ``kvm`` was demanded and runs no guest, or is slower than TCG.
    """
    chosen = _choose(emulator, settings.accelerator_choice() if choice is None else choice, cache_folder, kvm_node, may_open)
    log.info("%s runs the guests: %s", chosen.name, chosen.reason)
    return chosen


def _choose(emulator: Emulator, choice: str, cache_folder: Path | None, kvm_node: Path, may_open: Callable[[Path], bool]) -> Accelerator:
    if choice not in ("auto", "kvm", "tcg"):
        raise UsageError(f"no accelerator {choice!r}: {settings.PREFIX}ACCEL is auto, kvm or tcg")
    if choice == "tcg":
        return Accelerator("tcg", f"{settings.PREFIX}ACCEL asks for it")
    measured = _examine_kvm(emulator, cache_folder or settings.cache_root(), kvm_node, may_open)
    if choice == "kvm":
        if not measured.faster:
            raise HostError(f"{settings.PREFIX}ACCEL asks for kvm, but {measured.seen}; take auto or tcg")
        return Accelerator("kvm", measured.seen)
    if measured.refuted:
        return Accelerator("tcg", _refuted_reason(measured.refuted, measured.seen))
    return Accelerator("kvm", measured.seen, tentative=True) if measured.faster else Accelerator("tcg", measured.seen)


def emulated_instead(accelerator: Accelerator, evidence: str) -> Accelerator:
    """Return TCG, to be tried in place of a KVM that is tentative; ``evidence`` says what happened under that."""
    return Accelerator("tcg", _refuted_reason(evidence, accelerator.reason))


def refute_kvm(emulator: Emulator, accelerator: Accelerator, evidence: str, cache_folder: Path | None = None) -> None:
    """Remember that guests come up under TCG and not under KVM, ``accelerator``: for this QEMU, until the computer boots again."""
    log.warning("kvm is refuted until this computer boots again: %s", evidence)
    memory = _Memory(cache_folder or settings.cache_root(), emulator)
    memory.keep(replace(memory.find() or Measurement(True, accelerator.reason), refuted=evidence))


def find_refuted(emulator: Emulator, cache_folder: Path | None = None) -> Accelerator | None:
    """Return TCG where this process or another has refuted KVM since it was chosen, or None."""
    measured = _Memory(cache_folder or settings.cache_root(), emulator).find()
    return Accelerator("tcg", _refuted_reason(measured.refuted, measured.seen)) if measured is not None and measured.refuted else None


def _refuted_reason(evidence: str, seen: str) -> str:
    return f"{evidence}; measured before: {seen}"


def _examine_kvm(emulator: Emulator, cache_folder: Path, kvm_node: Path, may_open: Callable[[Path], bool]) -> Measurement:
    if not kvm_node.exists():
        return Measurement(False, f"there is no {kvm_node}")
    # Cheap and changeable (group membership), so it is asked each time; only what a guest did is remembered.
    if not may_open(kvm_node):
        return Measurement(False, f"{kvm_node} may not be opened by this user (on Debian: the group kvm)")
    memory = _Memory(cache_folder, emulator)
    remembered = memory.find()
    if remembered is not None:
        log.debug("measured before: %s", remembered)
        return remembered
    # Two measurements at once would each be the other's load.
    with memory.alone():
        remembered = memory.find()
        if remembered is None:
            remembered = measure(emulator)
            log.info("measured: %s", remembered)
            memory.keep(remembered)
        return remembered


# ---- measuring -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Pace:
    """The shortest times so far of one accelerator, in seconds: of a start with one turn, and of a run with all turns."""

    start_s: float
    whole_s: float = math.inf

    @property
    def loop_s(self) -> float:
        return max(self.whole_s - self.start_s, 0.001)

    def with_start(self, test: SelfTest) -> "_Pace":
        return replace(self, start_s=min(self.start_s, test.seconds)) if test.passed else self

    def with_whole(self, test: SelfTest) -> "_Pace":
        return replace(self, whole_s=min(self.whole_s, test.seconds)) if test.passed else self


def measure(emulator: Emulator) -> Measurement:
    """Return whether a loop of guest instructions is done sooner under KVM than under TCG. Takes some seconds; ends, hung QEMU or not."""
    # TCG first: it also brings QEMU into the host's memory, so that KVM's limit is a fair one.
    tcg_start = run_self_test(emulator, "tcg", limit_s=START_LIMIT_S)
    kvm_start = run_self_test(emulator, "kvm", limit_s=min(START_LIMIT_S, _START_SLACK_S + _START_RATIO * tcg_start.seconds))
    if not kvm_start.passed:
        return Measurement(False, kvm_start.seen)
    turns, whole = _calibrate(emulator, tcg_start) if tcg_start.passed else (0, tcg_start)
    if not whole.passed:
        return Measurement(True, f"{kvm_start.seen}, and there is nothing to compare it with: {whole.seen}")
    return _compare(emulator, turns, _Pace(tcg_start.seconds, whole.seconds), _Pace(kvm_start.seconds))


def _calibrate(emulator: Emulator, start: SelfTest) -> tuple[int, SelfTest]:
    """Return how many turns keep TCG in the loop for long enough, and the run that did."""
    turns = _FIRST_TURNS
    while True:
        whole = run_self_test(emulator, "tcg", turns, _LOOP_LIMIT_S)
        loop_s = max(whole.seconds - start.seconds, 0.001)
        if not whole.passed or loop_s >= LOOP_S or turns == _MOST_TURNS:
            return turns, whole
        turns = min(_MOST_TURNS, int(turns * min(16.0, max(2.0, 1.25 * LOOP_S / loop_s))))


def _compare(emulator: Emulator, turns: int, tcg: _Pace, kvm: _Pace) -> Measurement:
    stopped_s = 0.0
    for number in range(_ROUNDS):
        if number:
            tcg = tcg.with_start(run_self_test(emulator, "tcg", limit_s=START_LIMIT_S))
            tcg = tcg.with_whole(run_self_test(emulator, "tcg", turns, _LOOP_LIMIT_S))
            kvm = kvm.with_start(run_self_test(emulator, "kvm", limit_s=START_LIMIT_S))
        tested = run_self_test(emulator, "kvm", turns, kvm.start_s + tcg.loop_s)
        if tested.stopped:
            stopped_s = max(stopped_s, tcg.loop_s)
        elif not tested.passed:
            return Measurement(False, tested.seen)
        kvm = kvm.with_whole(tested)
        if kvm.loop_s <= tcg.loop_s / 2:
            break
    if math.isinf(kvm.loop_s):
        tcg_s, kvm_s = round(tcg.loop_s, 3), round(stopped_s, 3)
        seen = f"a loop of {turns:,} turns took {tcg_s:.2f} s under tcg and was not done after {kvm_s:.2f} s under kvm"
        return Measurement(False, f"KVM is slower: {seen}", turns, tcg_s, kvm_s, kvm_stopped=True)
    faster = kvm.loop_s < tcg.loop_s
    tcg_s, kvm_s = round(tcg.loop_s, 3), round(kvm.loop_s, 3)
    seen = f"a loop of {turns:,} turns took {tcg_s:.2f} s under tcg and {kvm_s:.2f} s under kvm"
    return Measurement(faster, f"KVM is {'faster' if faster else 'not faster'}: {seen}", turns, tcg_s, kvm_s)


# ---- what is remembered ----------------------------------------------------------------------------------------------


class _Memory:
    """What was measured with this QEMU since the computer booted, kept in the cache folder. It saves time: nothing fails for want of it."""

    def __init__(self, folder: Path, emulator: Emulator) -> None:
        self._file = folder / "accelerator.json"
        self._key = f"{emulator.program} {emulator.version_text} boot {_BOOT_ID.read_text().strip()}"

    def find(self) -> Measurement | None:
        """Return what is remembered; a file that cannot be read counts as none."""
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            document = json.loads(self._file.read_text())
            if (document.pop("format"), document.pop("key")) == (_FORMAT, self._key):
                found = Measurement(**document)
                if isinstance(found.faster, bool) and isinstance(found.seen, str) and isinstance(found.refuted, str):
                    return found
        return None

    def keep(self, measured: Measurement) -> None:
        document = {"format": _FORMAT, "key": self._key, **asdict(measured)}
        unfinished = self._file.with_suffix(f".{os.getpid()}")
        with suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            unfinished.write_text(json.dumps(document, indent=1) + "\n")
            unfinished.replace(self._file)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no other process measures. Where there cannot be a lock, or it is held for too long, we measure all the same."""
        lock = FileLock(self._file.with_suffix(".lock"))
        with suppress(OSError, Timeout):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=_WAIT_LIMIT_S)
        try:
            yield
        finally:
            lock.release()
