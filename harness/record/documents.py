"""Values to JSON documents and back, by their types: the artifacts of a run are read by the types that wrote them."""

import dataclasses
import functools
import hashlib
import json
import types
import typing
from collections.abc import Hashable, Mapping, Sequence
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar, Union

from harness.errors import UsageError
from harness.model.audit_outcome import Audit, FileSeen
from harness.model.outcome import OBSERVATION_FORMAT, How, Observation, Run, RunKind
from harness.ops import Program
from harness.ops.codec import DocumentError, as_list, as_mapping, steps_document, steps_from

T = TypeVar("T")


def to_document(value: Any) -> Any:
    """Return ``value`` (dataclasses, tuples, mappings, words, numbers, times) as JSON has it."""
    if isinstance(value, Program):
        return steps_document(value)
    if isinstance(value, Enum):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, tuple):
        return [to_document(part) for part in value]
    if isinstance(value, Mapping):
        return {str(key): to_document(part) for key, part in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_document(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return value


def from_document(kind: type[T], document: Any, where: str = "") -> T:
    """Return the value of type ``kind`` that :func:`to_document` made ``document`` of; the format that a file carries is none of its
    fields, unless it has one of that name. Raises DocumentError, which names the place.
    """
    if isinstance(document, dict) and not (dataclasses.is_dataclass(kind) and "format" in _names(kind)):
        document = {key: part for key, part in document.items() if key != "format"}
    return typing.cast(T, _read(kind, document, where or kind.__name__))


def content_key(value: Any) -> str:
    """Return a name for what is in ``value``, the same in every process: 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(to_document(value), sort_keys=True).encode()).hexdigest()[:16]


def to_text(value: Any, format_: int, indent: int | None = 1) -> str:
    """Return the JSON text of ``value``, which carries its format; ``indent`` None: on one line."""
    return json.dumps({"format": format_, **to_document(value)}, indent=indent) + "\n"


def from_text(text: str, format_: int, where: str) -> dict[str, Any]:
    """Return the document in a text of :func:`to_text`. Raises UsageError that begins with ``where``."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{where} is not JSON: {error}") from error
    found = document.get("format") if isinstance(document, dict) else None
    if found != format_:
        raise UsageError(f"{where} has format {found!r}, this harness reads {format_}: use the version that wrote it")
    return typing.cast(dict[str, Any], document)


def typed(kind: type[T], text: str, format_: int, where: str) -> T:
    """Return the value of type ``kind`` in a text of :func:`to_text`. Raises UsageError that begins with ``where``."""
    try:
        return from_document(kind, from_text(text, format_, where))
    except DocumentError as error:
        raise UsageError(f"{where}: {error}") from error


def read_text(path: Path, what: str) -> str:
    """Return a stored text. Raises UsageError that asks whether this is the folder of ``what``."""
    try:
        return path.read_text()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}; is this the folder of {what}?") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no text: {error}") from error


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
        return steps_from(document, where, f"{where}[{{}}]")
    if origin in (Union, types.UnionType):
        return _read_union(typing.get_args(kind), document, where)
    if origin is tuple:
        return _read_tuple(typing.get_args(kind), as_list(document, where), where)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _read_dataclass(kind, as_mapping(document, where), where)
    if issubclass(kind, Enum):
        return _read_word({str(member): member for member in kind}, document, where)
    if kind is datetime:
        return _read_time(document, where)
    if kind is float and type(document) is int:
        return float(document)
    if type(document) is not kind:
        raise DocumentError(f"{where}: {document!r} is not of type {kind.__name__}")
    return document


def _read_word(words: Mapping[str, Enum], document: Any, where: str) -> Enum:
    if not isinstance(document, str) or document not in words:
        raise DocumentError(f"{where}: {document!r} is none of {', '.join(words)}")
    return words[document]


def _read_time(document: Any, where: str) -> datetime:
    try:
        found = datetime.fromisoformat(document)
    except (TypeError, ValueError) as error:
        raise DocumentError(f"{where}: {document!r} is no time (ISO 8601)") from error
    if found.tzinfo is None:
        raise DocumentError(f"{where}: the time {document!r} does not say its zone")
    return found


def _read_union(kinds: Sequence[Any], document: Any, where: str) -> Any:
    """Of several dataclasses the one that has such fields; of other types the first that fits."""
    if document is None and types.NoneType in kinds:
        return None
    left = [kind for kind in kinds if kind is not types.NoneType]
    if isinstance(document, dict) and len(left) > 1:
        left = [kind for kind in left if dataclasses.is_dataclass(kind) and document and document.keys() <= _names(kind)]
    problems = []
    for kind in left:
        try:
            return _read(kind, document, where)
        except DocumentError as error:
            problems.append(str(error))
    raise DocumentError(
        "; ".join(dict.fromkeys(problems)) or f"{where}: nothing that belongs here has just {', '.join(document) or 'nothing'}"
    )


def _read_tuple(kinds: Sequence[Any], document: Sequence[Any], where: str) -> tuple[Any, ...]:
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = [kinds[0]] * len(document)
    if len(kinds) != len(document):
        raise DocumentError(f"{where}: {len(document)} entries where {len(kinds)} belong")
    return tuple(_read(kind, part, f"{where}[{n}]") for n, (kind, part) in enumerate(zip(kinds, document, strict=True)))


def _names(kind: Any) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}


@functools.cache
def fields_of(kind: Hashable) -> dict[str, Any]:
    """Return the types of a dataclass's fields by their names."""
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(typing.cast(Any, kind))}


def _read_dataclass(kind: type[Any], document: Mapping[str, Any], where: str) -> Any:
    fields = fields_of(typing.cast(Hashable, kind))
    if unknown := document.keys() - fields.keys():
        raise DocumentError(f"{where}: nothing is called {min(unknown)!r} here; known are {', '.join(sorted(fields))}")
    found = {key: _read(fields[key], part, f"{where}.{key}") for key, part in document.items()}
    try:
        return kind(**found)
    except TypeError as error:
        raise DocumentError(f"{where}: {error}") from error
