"""Readings of storage stacks, and observations written by hand, for the model's tests."""

from typing import Any

from harness.model.facts import Env
from harness.model.judge import Judgement, judge
from harness.model.operation import Operation, Pin, Program, Step
from harness.model.outcome import How, Observation, Run, RunKind
from harness.model.stack import StackReading, VolumeReading
from harness.sizes import MIB

REGION_START = 0x10000000


def volume(role: str = "main", *, dax: bool = True, filesystem: str | None = "ext4", **changes: Any) -> VolumeReading:
    """A volume on an e820 region, with ext4 and DAX unless said otherwise."""
    fields: dict[str, Any] = {
        "role": role,
        "device": "/dev/pmem0",
        "root": "/mnt/main",
        "filesystem": filesystem,
        "mount_options": ("rw", "dax=always" if dax else "dax=never") if filesystem else (),
        "dax": dax,
        "queue_dax": True,
        "logical_block_bytes": 512,
        "filesystem_block_bytes": 4096 if filesystem else None,
        "size_bytes": 256 * MIB,
        "region_start": REGION_START,
        "region_size_bytes": 256 * MIB,
        "provider": "e820",
        "namespace_mode": "fsdax",
        "page_map": "mem",
        "frame_in_region": dax,
    }
    return VolumeReading(**{**fields, **changes})


def env(*volumes: VolumeReading, release: str = "6.12.95+deb13-cloud-amd64", **overrides: Any) -> Env:
    return Env(StackReading(release, volumes or (volume(),)), overrides)


DAX = env(volume(dax=True))
PAGE_CACHE = env(volume(dax=False))
NODE = env(volume(dax=False, filesystem=None))


def tag(length: int, writer: int, source: int = 0, offset: int = 0) -> Run:
    return Run(offset, length, RunKind.TAG, writer, source)


def zero(length: int, offset: int = 0) -> Run:
    return Run(offset, length, RunKind.ZERO)


def returned(value: int = 0, *data: Run, **more: Any) -> Observation:
    """An observation of success; its step is set by :func:`judged`."""
    runs, at = [], 0
    for run in data:
        runs.append(Run(at, run.length, run.kind, run.writer, run.source, run.raw))
        at += run.length
    return Observation(0, How.RETURNED, value, data=tuple(runs) if data else None, **more)


def failed(errno: str) -> Observation:
    return Observation(0, How.FAILED, errno=errno)


def blocked() -> Observation:
    return Observation(0, How.BLOCKED)


def signalled(signal: str) -> Observation:
    return Observation(0, How.SIGNAL, signal=signal)


Row = tuple[Operation | Step, Observation]


def judged(where: Env, *rows: Row, flipped: frozenset[str] = frozenset()) -> Judgement:
    """Judge a program given as (operation, what was seen) pairs."""
    steps, seen = [], []
    for index, (op, observation) in enumerate(rows):
        steps.append(op if isinstance(op, Step) else Step(op))
        seen.append(Observation(**{**vars(observation), "step": index}))
    return judge(where, Program(tuple(steps)), tuple(seen), flipped)


def pinned(op: Operation, **pin: Any) -> Step:
    return Step(op, pin=Pin(**pin))
