"""JSON Schema of the documents that values are kept as, from the types of the values."""

import dataclasses
import types
import typing
from datetime import datetime
from enum import Enum
from typing import Any, Union

from harness.record.documents import fields_of

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_PLAIN = {str: "string", bool: "boolean", int: "integer", float: "number", types.NoneType: "null"}


def make_schema(kind: type[Any], format_: int, title: str, description: str) -> dict[str, Any]:
    """Return the schema of the texts that :func:`harness.record.documents.to_text` makes of values of the dataclass ``kind``."""
    definitions: dict[str, Any] = {}
    _schema_of(kind, definitions)
    whole = definitions.pop(kind.__name__)
    whole["properties"] = {"format": {"const": format_}, **whole["properties"]}
    whole["required"] = ["format", *whole["required"]]
    return {"$schema": _DIALECT, "title": title, "description": description, **whole, "$defs": definitions}


def _schema_of(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a value of type ``kind``; of dataclasses ``definitions`` gets them."""
    origin = typing.get_origin(kind)
    if origin in (Union, types.UnionType):
        return {"anyOf": [_schema_of(one, definitions) for one in typing.get_args(kind)]}
    if origin is tuple:
        return _of_tuple(typing.get_args(kind), definitions)
    if dataclasses.is_dataclass(kind):
        return _of_dataclass(kind, definitions)
    if kind is datetime:
        return {"type": "string", "format": "date-time"}
    if isinstance(kind, type) and issubclass(kind, Enum):
        return {"enum": [str(member) for member in kind]}
    return {"type": _PLAIN[kind]}


def _of_tuple(kinds: tuple[Any, ...], definitions: dict[str, Any]) -> dict[str, Any]:
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        return {"type": "array", "items": _schema_of(kinds[0], definitions)}
    count = len(kinds)
    return {"type": "array", "prefixItems": [_schema_of(one, definitions) for one in kinds], "minItems": count, "maxItems": count}


def _of_dataclass(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    name = kind.__name__
    if name not in definitions:
        definitions[name] = {}  # a type that has itself in it would come here again
        properties = {field: _schema_of(type_, definitions) for field, type_ in fields_of(kind).items()}
        definitions[name] = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return {"$ref": f"#/$defs/{name}"}
