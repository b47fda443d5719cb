"""Readings of storage stacks, and observations written by hand, for the model's tests."""

from dataclasses import replace
from typing import Any

from harness.model.facts import Env
from harness.model.judge import Judgement, judge
from harness.model.outcome import How, Observation, Run, RunKind
from harness.model.stack import StackReading, VolumeReading
from harness.model.verdict import Verdict
from harness.ops import Load, Operation, Pin, Program, Step, Store
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
    seen = Observation(0, How.RETURNED, value, data=tuple(runs) if data else None, **more)
    return seen if seen.minor_faults is None else with_faults(seen, seen.minor_faults)


def failed(errno: str) -> Observation:
    return Observation(0, How.FAILED, errno=errno)


def blocked() -> Observation:
    return Observation(0, How.BLOCKED)


def signalled(signal: str) -> Observation:
    return Observation(0, How.SIGNAL, signal=signal)


Row = tuple[Operation | Step, Observation]


def judged(where: Env, *rows: Row, flipped: frozenset[str] = frozenset()) -> Judgement:
    """Judge a program given as (operation, what was seen) pairs.

    A load or a store whose faults are left open gets a count that the model allows, where there is one; such tests ask other things.
    """
    steps, seen = [], []
    for index, (op, observation) in enumerate(rows):
        step = op if isinstance(op, Step) else Step(op)
        steps.append(step)
        seen.append(Observation(**{**vars(observation), "step": index}))
        if isinstance(step.operation, Load | Store) and observation.how is How.RETURNED and observation.minor_faults is None:
            seen[-1] = _with_faults(where, steps, seen, flipped)
    return judge(where, Program(tuple(steps)), tuple(seen), flipped)


def with_faults(seen: Observation, count: int) -> Observation:
    """The observation of a load or a store that took ``count`` faults."""
    return replace(seen, minor_faults=count, attributes=(*seen.attributes, ("major_faults", 0)))


def _with_faults(where: Env, steps: list[Step], seen: list[Observation], flipped: frozenset[str]) -> Observation:
    pages = seen[-1].value // 4096 + 2
    tried = [with_faults(seen[-1], count) for count in (*range(pages, -1, -1), pages - 1)]
    for candidate in tried:
        if judge(where, Program(tuple(steps)), (*seen[:-1], candidate), flipped).steps[-1].verdict is not Verdict.DEVIATES:
            return candidate
    return tried[0]


def pinned(op: Operation, **pin: Any) -> Step:
    return Step(op, pin=Pin(**pin))
