"""Programs as JSON: the one form in which the agent gets them and a run keeps them (docs/agent-protocol.md)."""

import dataclasses
import functools
import types
import typing
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from enum import StrEnum
from typing import Any

from harness.errors import UsageError
from harness.ops.program import Pin, Program, Step, arguments
from harness.ops.reach import find_out_of_reach
from harness.ops.words import OPERATIONS

PROGRAM_FORMAT = 1

_STEP_KEYS = {"call", "args", "process", "start", "pin", "line"}
_PINS = {"returns": int, "errno": str, "signal": str, "blocked": bool}


class DocumentError(ValueError):
    """A document is not what its type says; the message names the place."""


def program_document(program: Program) -> dict[str, Any]:
    """Return the program as a JSON document of its own.

    Raises UsageError for a step that reaches further past a mapping than its guard pages.
    """
    found = find_out_of_reach(program.steps)
    if found is not None:
        raise UsageError(f"step {found[0] + 1} of {len(program.steps)}: {found[1]}")
    return {"format": PROGRAM_FORMAT, "steps": steps_document(program)}


def steps_document(program: Program) -> list[dict[str, Any]]:
    """Return the steps as JSON has them, for a document of others."""
    return [
        {
            "call": step.operation.call,
            "args": arguments(step.operation),
            "process": step.process,
            "start": step.start,
            "pin": None if step.pin is None else dataclasses.asdict(step.pin),
            "line": step.line,
        }
        for step in program.steps
    ]


def program_from(document: Any) -> Program:
    """Return the program in what :func:`program_document` made. Raises DocumentError."""
    found = as_mapping(document, "the program")
    if found.get("format") != PROGRAM_FORMAT:
        raise DocumentError(f"the program has the format {found.get('format')!r}; this reads {PROGRAM_FORMAT}")
    return steps_from(found.get("steps"), "step ")


def steps_from(document: Any, where: str) -> Program:
    """Return the program in what :func:`steps_document` made. Raises DocumentError, which names a step by ``where`` and its number."""
    try:
        return Program(tuple(_read_step(step, f"{where}[{number}]") for number, step in enumerate(as_list(document, where))))
    except DocumentError:
        raise
    except ValueError as error:
        raise DocumentError(f"{where}: {error}") from error


def _read_step(document: Any, where: str) -> Step:
    found = as_mapping(document, where)
    _known(found, _STEP_KEYS, where)
    cls = OPERATIONS.get(str(found.get("call")))
    if cls is None:
        raise DocumentError(f"{where}: no operation {found.get('call')!r}")
    return Step(
        operation=_read_fields(cls, as_mapping(found.get("args", {}), f"{where}.args"), f"{where}.args"),
        process=_plain(str, found.get("process", "main"), f"{where}.process"),
        start=None if found.get("start") is None else _plain(str, found["start"], f"{where}.start"),
        pin=None if found.get("pin") is None else _read_pin(as_mapping(found["pin"], f"{where}.pin"), f"{where}.pin"),
        line=_plain(int, found.get("line", 0), f"{where}.line"),
    )


def _read_pin(document: Mapping[str, Any], where: str) -> Pin:
    _known(document, _PINS, where)
    return Pin(**{key: None if value is None else _plain(_PINS[key], value, f"{where}.{key}") for key, value in document.items()})


Reader = Callable[[Any, str], Any]


def _read_fields(cls: type[Any], document: Mapping[str, Any], where: str) -> Any:
    fields = _fields(typing.cast(Hashable, cls))
    _known(document, fields, where)
    values = {}
    for key, (name, needed, read) in fields.items():
        if key in document:
            values[name] = read(document[key], f"{where}.{key}")
        elif needed:
            raise DocumentError(f"{where}: {key} is missing")
    return cls(**values)


@functools.cache
def _fields(cls: Hashable) -> dict[str, tuple[str, bool, Reader]]:
    """Return, by their names in JSON, the arguments of a class: their own names, whether they have no default, and what reads them."""
    hints = typing.get_type_hints(cls)
    return {
        field.name.rstrip("_"): (field.name, field.default is dataclasses.MISSING, _reader(hints[field.name]))
        for field in dataclasses.fields(typing.cast(Any, cls))
    }


def _reader(hint: Any) -> Reader:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        (kind,) = (option for option in typing.get_args(hint) if option is not types.NoneType)
        read = _reader(kind)
        return lambda document, where: None if document is None else read(document, where)
    if typing.get_origin(hint) is tuple:
        element = _reader(typing.get_args(hint)[0])
        return lambda document, where: tuple(element(part, f"{where}[{n}]") for n, part in enumerate(as_list(document, where)))
    if dataclasses.is_dataclass(hint):
        return lambda document, where: _read_fields(typing.cast(Any, hint), as_mapping(document, where), where)
    if issubclass(hint, StrEnum):
        words = {str(member): member for member in hint}
        return lambda document, where: _choice(words, document, where)
    return functools.partial(_plain, hint)


def _choice(words: Mapping[str, Any], document: Any, where: str) -> Any:
    if not isinstance(document, str) or document not in words:
        raise DocumentError(f"{where}: {document!r} is none of {', '.join(words)}")
    return words[document]


def _plain(kind: type[Any], document: Any, where: str) -> Any:
    if type(document) is not kind:
        raise DocumentError(f"{where}: {document!r} is not of type {kind.__name__}")
    return document


def as_list(document: Any, where: str) -> Sequence[Any]:
    """Return ``document``, which must be a list. Raises DocumentError."""
    if not isinstance(document, list):
        raise DocumentError(f"{where}: a list belongs here, not {document!r}")
    return document


def as_mapping(document: Any, where: str) -> Mapping[str, Any]:
    """Return ``document``, which must be a mapping. Raises DocumentError."""
    if not isinstance(document, dict):
        raise DocumentError(f"{where}: a mapping belongs here, not {document!r}")
    return document


def _known(document: Mapping[str, Any], known: Collection[str], where: str) -> None:
    for key in document:
        if key not in known:
            raise DocumentError(f"{where}: nothing is called {key!r} here; known are {', '.join(sorted(known))}")
