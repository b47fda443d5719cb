"""Programs as JSON: the one form in which the agent gets them and a run keeps them (docs/agent-protocol.md)."""

import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any

from harness.errors import UsageError
from harness.ops.program import Program, Step, arguments
from harness.ops.reach import find_out_of_reach
from harness.ops.words import NEEDED, OPERATIONS, Frozen

#: Of programs and of all that agent and host say to each other.
PROGRAM_FORMAT = 1


class DocumentError(ValueError):
    """A document is not what its type says; ``place`` is where in it, and the message begins with that."""

    def __init__(self, problem: str, place: str = "") -> None:
        super().__init__(f"{place}: {problem}" if place else problem)
        self.problem, self.place = problem, place

    def inside(self, outer: str) -> "DocumentError":
        """Return the same error as seen from outside: ``outer`` names the part that the place lies in."""
        return DocumentError(self.problem, outer + self.place)


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
            "pin": None if step.pin is None else dict(vars(step.pin)),
            "line": step.line,
        }
        for step in program.steps
    ]


def program_from(document: Any) -> Program:
    """Return the program in what :func:`program_document` made. Raises DocumentError."""
    found = as_mapping(document, "the program")
    if found.get("format") != PROGRAM_FORMAT:
        raise DocumentError(f"the program has the format {found.get('format')!r}; this reads {PROGRAM_FORMAT}")
    return steps_from(found.get("steps"), "steps", "step {}")


def steps_from(document: Any, where: str, step: str) -> Program:
    """Return the program in what :func:`steps_document` made.

    Raises DocumentError, which names the whole by ``where`` and one step by ``step`` with its number.
    """
    try:
        return Program(tuple(_read_parts(_read_step, as_list(document, where), step)))
    except DocumentError:
        raise
    except ValueError as error:
        raise DocumentError(str(error), where) from error


Reader = Callable[[Any], Any]


def _read_step(document: Any) -> Step:
    found = as_mapping(document)
    cls = OPERATIONS.get(str(found.get("call")))
    if cls is None:
        raise DocumentError(f"no operation {found.get('call')!r}")
    values: dict[str, Any] = {}
    for key, part in found.items():
        if key == "args":
            values["operation"] = _read_part(_reader(cls), part, ".args")
        elif key in _STEP_READERS:
            values[key] = _read_part(_STEP_READERS[key], part, f".{key}")
        elif key != "call":
            raise _strange(key, {"call", "args", *_STEP_READERS})
    if "operation" not in values:
        values["operation"] = _read_part(_reader(cls), {}, ".args")
    return Step(**values)


def _read_part(read: Reader, document: Any, place: str) -> Any:
    try:
        return read(document)
    except DocumentError as error:
        raise error.inside(place) from error


def _read_parts(read: Reader, documents: Sequence[Any], place: str = "[{}]") -> Iterator[Any]:
    for number, document in enumerate(documents):
        try:
            yield read(document)
        except DocumentError as error:
            raise error.inside(place.format(number)) from error


_READERS: dict[Any, Reader] = {}


def _reader(hint: Any) -> Reader:
    """Return what reads a value of the type ``hint``. It is made when it is first asked for: few programs have all operations."""
    if hint not in _READERS:
        _READERS[hint] = _make_reader(hint)
    return _READERS[hint]


def _make_reader(hint: Any) -> Reader:
    kind = getattr(hint, "__origin__", hint) if hasattr(hint, "__metadata__") else hint  # of Annotated
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        (option,) = (option for option in typing.get_args(kind) if option is not types.NoneType)
        read = _reader(option)
        return lambda document: None if document is None else read(document)
    if typing.get_origin(kind) is tuple:
        element = _reader(typing.get_args(kind)[0])
        return lambda document: tuple(_read_parts(element, as_list(document)))
    if issubclass(kind, Frozen):
        return _fields_reader(kind)
    if issubclass(kind, StrEnum):
        words = {str(member): member for member in kind}
        return lambda document: _choice(words, document)
    return lambda document: _plain(kind, document)


def _fields_reader(cls: type[Frozen]) -> Reader:
    fields = {field.key: (name, _reader(field.type)) for name, field in cls.fields.items()}
    needed = [field.key for field in cls.fields.values() if field.default is NEEDED]

    def read(document: Any) -> Any:
        values = {}
        for key, part in as_mapping(document).items():
            if key not in fields:
                raise _strange(key, fields)
            name, read_field = fields[key]
            values[name] = _read_part(read_field, part, f".{key}")
        for key in needed:
            if key not in document:
                raise DocumentError(f"{key} is missing")
        return cls(**values)

    return read


def _choice(words: Mapping[str, Any], document: Any) -> Any:
    if not isinstance(document, str) or document not in words:
        raise DocumentError(f"{document!r} is none of {', '.join(words)}")
    return words[document]


def _plain(kind: type[Any], document: Any) -> Any:
    if type(document) is not kind:
        raise DocumentError(f"{document!r} is not of type {kind.__name__}")
    return document


_STEP_READERS: dict[str, Reader] = {name: _reader(field.type) for name, field in Step.fields.items() if name != "operation"}


def as_list(document: Any, where: str = "") -> Sequence[Any]:
    """Return ``document``, which must be a list. Raises DocumentError."""
    if not isinstance(document, list):
        raise DocumentError(f"a list belongs here, not {document!r}", where)
    return document


def as_mapping(document: Any, where: str = "") -> Mapping[str, Any]:
    """Return ``document``, which must be a mapping. Raises DocumentError."""
    if not isinstance(document, dict):
        raise DocumentError(f"a mapping belongs here, not {document!r}", where)
    return document


def _strange(key: str, known: Collection[str]) -> DocumentError:
    return DocumentError(f"nothing is called {key!r} here; known are {', '.join(sorted(known))}")
