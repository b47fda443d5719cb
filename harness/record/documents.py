"""Values to JSON documents and back, by their types: the artifacts of a run are read by the types that wrote them."""

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from enum import Enum, StrEnum
from typing import Any, TypeVar, Union

from harness.model.audit import Audit, FileSeen
from harness.model.outcome import OBSERVATION_FORMAT, How, Observation, Run, RunKind
from harness.ops import Program
from harness.ops.codec import DocumentError, as_list, as_mapping, steps_document, steps_from

T = TypeVar("T")


def to_document(value: Any) -> Any:
    """Return ``value`` (dataclasses, tuples, words, numbers) as JSON has it."""
    if isinstance(value, Program):
        return steps_document(value)
    if isinstance(value, Enum):
        return str(value)
    if isinstance(value, tuple):
        return [to_document(part) for part in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_document(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return value


def from_document(kind: type[T], document: Any, where: str = "") -> T:
    """Return the value of type ``kind`` that :func:`to_document` made ``document`` of. Raises DocumentError."""
    return typing.cast(T, _read(kind, document, where or kind.__name__))


def observations_document(observations: Sequence[Observation]) -> dict[str, Any]:
    """Return observations as the agent says them, so that ``observations_from`` reads them again."""
    return {"format": OBSERVATION_FORMAT, "steps": [_observation_document(seen) for seen in observations]}


def _observation_document(seen: Observation) -> dict[str, Any]:
    entry: dict[str, Any] = {"step": seen.step, "how": str(seen.how)}
    if seen.how is How.RETURNED:
        entry["value"] = seen.value
    evidence = {
        "errno": seen.errno,
        "signal": seen.signal,
        "data": None if seen.data is None else [_run_document(run) for run in seen.data],
        "resident": seen.resident,
        "frames": None if seen.frames is None else list(seen.frames),
        "minor_faults": seen.minor_faults,
        "attributes": dict(seen.attributes) or None,
    }
    return entry | {name: value for name, value in evidence.items() if value is not None}


def _run_document(run: Run) -> list[Any]:
    place = [run.offset, run.length, str(run.kind)]
    if run.kind is RunKind.TAG:
        return [*place, run.writer, run.source]
    return [*place, run.raw.hex()] if run.kind is RunKind.RAW else place


def audit_document(audit: Audit) -> dict[str, Any]:
    """Return an audit as the agent says it, so that :func:`audit_from` reads it again."""
    rows = []
    for volume in audit.volumes:
        check = volume.check
        row = {
            "role": volume.role,
            "before": _file_rows(volume.before),
            "unmount": volume.unmount,
            "check": None if check is None else {"argv": [check.command], "status": check.status, "stdout": check.text, "stderr": ""},
            "mount": volume.mount,
            "after": _file_rows(volume.after),
        }
        rows.append({name: value for name, value in row.items() if value is not None})
    return {"volumes": rows, "skipped": audit.skipped, "took_s": audit.took_s}


def _file_rows(files: tuple[FileSeen, ...] | None) -> list[dict[str, Any]] | None:
    if files is None:
        return None
    rows = []
    for seen in files:
        row: dict[str, Any] = {"path": seen.path, "size": seen.size, "failed": seen.note}
        if seen.runs is not None:
            row["runs"] = [_run_document(run) for run in seen.runs]
        rows.append(row)
    return rows


def _read(kind: Any, document: Any, where: str) -> Any:
    origin = typing.get_origin(kind)
    if kind is Program:
        return steps_from(document, where)
    if origin in (Union, types.UnionType):
        return _read_union(typing.get_args(kind), document, where)
    if origin is tuple:
        return _read_tuple(typing.get_args(kind), as_list(document, where), where)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        try:
            return kind(document)
        except ValueError as error:
            raise DocumentError(f"{where}: {error}") from error
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _read_dataclass(kind, as_mapping(document, where), where)
    if kind is float and isinstance(document, int) and not isinstance(document, bool):
        return float(document)
    if type(document) is not kind:
        raise DocumentError(f"{where}: {document!r} is not of type {kind.__name__}")
    return document


def _read_union(kinds: Sequence[Any], document: Any, where: str) -> Any:
    if document is None and type(None) in kinds:
        return None
    problems = []
    for kind in kinds:
        if kind is type(None):
            continue
        try:
            return _read(kind, document, where)
        except DocumentError as error:
            problems.append(str(error))
    raise DocumentError("; ".join(problems))


def _read_tuple(kinds: Sequence[Any], document: Sequence[Any], where: str) -> tuple[Any, ...]:
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = [kinds[0]] * len(document)
    if len(kinds) != len(document):
        raise DocumentError(f"{where}: {len(document)} entries where {len(kinds)} belong")
    return tuple(_read(kind, part, f"{where}[{n}]") for n, (kind, part) in enumerate(zip(kinds, document, strict=True)))


def _read_dataclass(kind: type[Any], document: Mapping[str, Any], where: str) -> Any:
    hints = typing.get_type_hints(kind)
    found = {}
    for field in dataclasses.fields(kind):
        key = field.name if field.name in document else field.name.rstrip("_")
        if key in document:
            found[field.name] = _read(hints[field.name], document[key], f"{where}.{key}")
    try:
        return kind(**found)
    except TypeError as error:
        raise DocumentError(f"{where}: {error}") from error
