"""The names in a program: each is made before it is used, is of the right kind, and is known to the process that uses it."""

from collections.abc import Mapping, Sequence
from typing import Any

from harness.case.steps import BoundStep, told_kinds
from harness.case.tree import accepted
from harness.errors import CaseError
from harness.model.stack import MAIN, OVERLAY, TARGET
from harness.ops import PROCESS, Fork, Frozen, Join, Kind, MountOverlay

FIRST_PROCESS = "main"
BAR = "bar"
_OVERLAY = " (overlay needs a file system that nobody can write to, the axis target, and that set-up mounts both)"
_HINTS = {TARGET: " (target needs the axis target)", BAR: " (bar needs ivshmem: true under needs)", OVERLAY: _OVERLAY}


def check_names(steps: Sequence[BoundStep], roles: Sequence[str]) -> None:
    """Raise CaseError for the first name that cannot be meant. ``roles``: what a path or a mount may name before the colon."""
    visible: dict[str, dict[str, str]] = {FIRST_PROCESS: {}}
    made_at: dict[str, str] = {FIRST_PROCESS: "the first process"}
    started: dict[str, BoundStep] = {}
    busy: dict[str, str] = {}
    for bound in steps:
        step, where = bound.step, bound.where
        if step.process not in visible:
            raise CaseError(where, f"no earlier fork makes the process {step.process!r}; {accepted(step.process, visible)}")
        if isinstance(step.operation, Join):
            _end_start(step.operation.label, where, started, busy)
            continue
        if step.process in busy:
            label = busy[step.process]
            raise CaseError(
                where, f"the process {step.process!r} is still in the started step {label!r}: join it first, or fork another process"
            )
        known = visible[step.process]
        for name, kinds in _named(step.operation, "refers"):
            _check_reference(name, kinds, where, known, made_at, visible)
        for name, kind in _named(step.operation, "makes"):
            _check_new(name, where, made_at)
            if kind != PROCESS:
                known[name] = kind
        if isinstance(step.operation, Fork):
            visible[step.operation.process] = dict(known)
        _check_role(bound, roles)
        if step.start is not None:
            _check_new(step.start, where, made_at)
            started[step.start] = bound
            busy[step.process] = step.start
    for label, bound in started.items():
        raise CaseError(bound.where, f"the step started as {label!r} is never joined; add a step join: {{label: {label}}}")
    _check_ids(steps)


def _end_start(label: str, where: str, started: dict[str, BoundStep], busy: dict[str, str]) -> None:
    if label not in started:
        raise CaseError(where, f"no earlier step is started as {label!r} and still to be joined; {accepted(label, started)}")
    del busy[started.pop(label).step.process]


def _check_reference(
    name: str,
    kinds: tuple[str, ...],
    where: str,
    known: Mapping[str, str],
    made_at: Mapping[str, str],
    visible: Mapping[str, object],
) -> None:
    if PROCESS in kinds:
        if name not in visible:
            raise CaseError(where, f"no earlier step makes the process {name!r}; {accepted(name, visible)}")
        return
    fitting = [other for other, kind in known.items() if kind in kinds]
    if name in known and known[name] not in kinds:
        wanted = " or ".join(kinds)
        raise CaseError(where, f"{name!r} is a {known[name]}, here goes a {wanted}; {accepted(name, fitting)}")
    if name not in known and name in made_at:
        raise CaseError(where, f"{name!r} ({made_at[name]}) is not known to this process: a fork takes the names that exist by then")
    if name not in known:
        raise CaseError(where, f"no earlier step makes {name!r}; {accepted(name, fitting)}")


def _check_new(name: str, where: str, made_at: dict[str, str]) -> None:
    if name in made_at:
        raise CaseError(where, f"the name {name!r} is taken ({made_at[name]})")
    made_at[name] = f"made at {where}"


def _check_role(bound: BoundStep, roles: Sequence[str]) -> None:
    if isinstance(bound.step.operation, MountOverlay) and OVERLAY not in roles:
        raise CaseError(bound.where, f"there is nothing to lay over the main volume{_OVERLAY}")
    for kind, text in told_kinds(bound.step.operation):
        if kind is Kind.PATH and ":" in text:
            role = text.partition(":")[0]
            if role not in roles:
                hint = _HINTS.get(role, "")
                raise CaseError(
                    bound.where, f"the path {text!r} is on a volume that this case does not have{hint}; {accepted(role, roles)}"
                )
        if kind is Kind.VOLUME and text not in {MAIN, TARGET} & set(roles):
            known = {MAIN, TARGET} & set(roles)
            raise CaseError(bound.where, f"{bound.step.operation.call} of the unknown volume {text!r}; {accepted(text, known)}")


def _check_ids(steps: Sequence[BoundStep]) -> None:
    seen: dict[str, str] = {}
    for bound in steps:
        if bound.id is not None:
            if bound.id in seen:
                raise CaseError(bound.where, f"the step id {bound.id!r} is taken (at {seen[bound.id]})")
            seen[bound.id] = bound.where


def _named(value: Frozen, key: str) -> list[tuple[str, Any]]:
    """Return name and kind of the fields with the metadata ``key``, those of buffers in lists included."""
    found: list[tuple[str, Any]] = []
    for name, field in value.fields.items():
        held = getattr(value, name)
        if key in field.metadata and held is not None:
            found.append((held, field.metadata[key]))
        elif isinstance(held, tuple):
            found += [pair for item in held if isinstance(item, Frozen) for pair in _named(item, key)]
    return found
