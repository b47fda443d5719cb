"""The form of a case file as JSON Schema (draft 7), made of what the loader reads by: for editors, and for what writes cases.

It says what can be said of a value alone: keys, words, sizes. What the loader knows beside (names made before they are used, claims that
are registered, variants that are left) it does not say, so a file that it accepts may still be refused; one that it refuses always is.
"""

import signal
import types
import typing
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Annotated, Any

from harness.case.axes import CHOICES
from harness.case.case import KERNEL_FLAVOURS, KERNEL_OPTIONS
from harness.case.loader import CASE_KEYS
from harness.case.plan import HOLDS_IF_KEYS
from harness.case.steps import OTHERWISE, PIN_KEYS, known_errnos
from harness.model.claims import Pages
from harness.model.facts import FACTS
from harness.ops import NEEDED, OPERATIONS, Buffer, Frozen, Kind

Schema = dict[str, Any]

_UNIT = r"\s*(B|KiB|MiB|GiB)?"
_NUMBER = rf"\d+{_UNIT}"
_SUM = rf"(\s*[+-]\s*{_NUMBER})*"
#: A value, or a part of one, that an axis gives.
_PARAMETER: Schema = {"type": "string", "pattern": r"\$\w"}
_TEXT: Schema = {"type": ["string", "number", "boolean"]}
_NOTHING: Schema = {"enum": [None, "none", "null", "~", ""]}
#: ``true`` is a name too: the loader sees the word.
_NAME: Schema = {"anyOf": [{"type": "string", "pattern": r"^[a-z][a-z0-9_]*$"}, {"type": "boolean"}, _PARAMETER]}
_TRUTH: Schema = {"anyOf": [{"type": "boolean"}, {"enum": ["true", "false"]}, _PARAMETER]}
_NUMBERS: dict[Kind, Schema] = {
    Kind.SIZE: {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": rf"^\s*{_NUMBER}{_SUM}\s*$"}, _PARAMETER]},
    Kind.OFFSET: {"anyOf": [{"type": "integer"}, {"type": "string", "pattern": rf"^\s*[+-]?\s*{_NUMBER}{_SUM}\s*$"}, _PARAMETER]},
    Kind.COUNT: {"anyOf": [{"type": "integer"}, {"type": "string", "pattern": r"^-?(\d+|0[xX][0-9a-fA-F]+)$"}, _PARAMETER]},
    Kind.PATH: _TEXT,
    Kind.VOLUME: _TEXT,
}


def case_schema() -> Schema:
    """Return the schema of a case file."""
    decides = {"claim": _TEXT, "where": _condition(), "step": _TEXT, "holds_if": _holds_if()}
    keys: dict[str, Schema] = {
        "title": _TEXT,
        "claim": _one_or_more(_TEXT),
        "decides": {"type": "array", "items": _table(decides, "where")},
        "probes": _one_or_more({"enum": list(FACTS)}),
        "watch": {"type": "array", "items": _table({"path": _TEXT, "moves": _TEXT, "read": _TEXT})},
        "axes": _axes(),
        "full": _condition(),
        "needs": _nothing_or(_needs()),
        "mount_in_program": _TRUTH,
        "program": {"type": "array", "minItems": 1, "items": {"$ref": "#/definitions/step"}},
        "notes": _TEXT,
    }
    assert set(keys) == set(CASE_KEYS)
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "a case",
        **_table(keys, "claim", "decides", "probes", "watch", "full", "needs", "mount_in_program", "notes"),
        "definitions": {"step": _step(), "pin": _pin(), "errno": _words(known_errnos()), "signal": _words(s.name for s in signal.Signals)},
    }


def _table(keys: Mapping[str, Schema], *optional: str) -> Schema:
    needed = [key for key in keys if key not in optional]
    return {"type": "object", "properties": dict(keys), "required": needed, "additionalProperties": False}


def _nothing_or(schema: Schema) -> Schema:
    return {"anyOf": [schema, _NOTHING]}


def _one_or_more(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "array", "items": schema}]}


def _words(choices: Iterable[str]) -> Schema:
    return {"anyOf": [{"enum": [*choices]}, _PARAMETER]}


# ---- axes and needs --------------------------------------------------------------------------------------------------


def _axes() -> Schema:
    reason = {"type": "object", "properties": {"reason": _TEXT}, "required": ["reason"], "minProperties": 2}
    axes = {axis: {"type": "array", "minItems": 1, "uniqueItems": True, "items": {"enum": [*words]}} for axis, words in CHOICES.items()}
    return {
        "type": "object",
        "properties": {**axes, "exclude": {"type": "array", "items": {**reason, "additionalProperties": _one_or_more(_TEXT)}}},
        "required": ["storage"],
        "patternProperties": {r"^(?!exclude$)[a-z][a-z0-9_]*$": {"type": "array", "minItems": 1, "items": _TEXT}},
        "additionalProperties": False,
    }


def _condition() -> Schema:
    return _nothing_or({"type": "object", "additionalProperties": _one_or_more(_TEXT)})


def _needs() -> Schema:
    options = _one_or_more({"enum": [*KERNEL_OPTIONS]})
    keys = {"kernel_flavour": {"enum": [*KERNEL_FLAVOURS]}, "ivshmem": _TRUTH, "kernel_options": options}
    return _table(keys, *keys)


# ---- steps -----------------------------------------------------------------------------------------------------------


def _step() -> Schema:
    """One operation, and what may stand beside it."""
    beside: dict[str, Schema] = {"process": _NAME, "start": _NAME, "expect": _expect(), "id": _NAME}
    calls = {call: _arguments(cls) for call, cls in OPERATIONS.items()}
    return {**_table({**calls, **beside}, *calls, *beside), "oneOf": [{"required": [call]} for call in calls]}


def _arguments(cls: type[Frozen]) -> Schema:
    fields = cls.fields.values()
    keys = {field.key: _argument(field.type, named=bool(field.metadata)) for field in fields}
    table = _table(keys, *(field.key for field in fields if field.default is not NEEDED))
    return table if table["required"] else _nothing_or(table)


def _argument(hint: Any, named: bool) -> Schema:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        (kind,) = (option for option in typing.get_args(hint) if option is not types.NoneType)
        return _nothing_or(_argument(kind, named))
    if typing.get_origin(hint) is tuple:
        element = typing.get_args(hint)[0]
        items = _arguments(Buffer) if element is Buffer else _words([*element, "none"])
        return {"type": "array", "items": items}
    if typing.get_origin(hint) is Annotated:
        return _NUMBERS[typing.get_args(hint)[1]]
    if hint is bool:
        return _TRUTH
    if issubclass(hint, StrEnum):
        return _words(hint)
    return _NAME if named else _TEXT


# ---- what comes of a step --------------------------------------------------------------------------------------------


def _pin() -> Schema:
    keys = {
        "returns": _NUMBERS[Kind.OFFSET],
        "errno": {"$ref": "#/definitions/errno"},
        "signal": {"$ref": "#/definitions/signal"},
        "blocked": _TRUTH,
    }
    assert set(keys) == set(PIN_KEYS)
    return {**_table(keys, *keys), "minProperties": 1, "maxProperties": 1}


def _expect() -> Schema:
    """A pin, one for each storage, or a list of pins with ``when``."""
    pin: Schema = {"$ref": "#/definitions/pin"}
    storages = dict.fromkeys((*CHOICES["storage"], OTHERWISE), pin)
    keys = _pin()["properties"]
    conditional = {**_table({**keys, "when": _condition()}, *keys, "when"), "oneOf": [{"required": [key]} for key in keys]}
    return {"anyOf": [pin, {**_table(storages, *storages), "minProperties": 1}, {"type": "array", "items": conditional}]}


def _holds_if() -> Schema:
    number = _NUMBERS[Kind.OFFSET]
    bounds = {"at_least": number, "at_most": number}
    span = {"anyOf": [number, {**_table(bounds, *bounds), "minProperties": 1}]}
    pages = _words(Pages)
    keys: dict[str, Schema] = {
        "works": _TRUTH,
        "returns": span,
        "errno": {"$ref": "#/definitions/errno"},
        "signal": {"$ref": "#/definitions/signal"},
        "blocked": _TRUTH,
        "attribute": {"type": "object", "additionalProperties": _TEXT},
        "resident": pages,
        "frames_in_region": pages,
        "minor_faults": span,
        "written_by": _TEXT,
        "zeroes": _TRUTH,
        "growth": {**_table({"since": _TEXT, **bounds}, *bounds), "minProperties": 2},
    }
    assert set(keys) == set(HOLDS_IF_KEYS)
    return {**_table(keys, *keys), "minProperties": 1}
