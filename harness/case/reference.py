"""The tables of operations, evidence and words in docs/writing-a-case.md, made of what the loader reads by."""

import types
import typing
from enum import StrEnum
from typing import Annotated

from harness.ops import NEEDED, OPERATIONS, Buffer, Field, Kind, Shown


def describe_operations() -> str:
    """Return the table of all operations for docs/writing-a-case.md, in Markdown."""
    lines = ["| Operation | Arguments (`= default` where it may be left out) | What it is | What it shows |", "| --- | --- | --- | --- |"]
    for call, cls in OPERATIONS.items():
        arguments = ", ".join(map(_describe_field, cls.fields.values())) or "none"
        documented = cls.__doc__ or f"{call}(2)."
        shown = ", ".join(f"`{one.name}`" for one in cls.shows)
        lines.append(f"| `{call}` | {arguments} | {' '.join(documented.split()).replace('``', '`')} | {shown} |")
    buffer = ", ".join(map(_describe_field, Buffer.fields.values()))
    return "\n".join([*lines, "", f"An element of `buffers`: {buffer}."])


def describe_flags() -> str:
    """Return the table of the words that flags take, in Markdown."""
    lines = ["| Operation and argument | Words |", "| --- | --- |"]
    for call, cls in OPERATIONS.items():
        for field in cls.fields.values():
            choices = (typing.get_args(field.type) or (field.type,))[0]
            if isinstance(choices, type) and issubclass(choices, StrEnum):
                lines.append(f"| `{call}`: `{field.key}` | {', '.join(f'`{c}`' for c in choices)} |")
    return "\n".join(lines)


def describe_evidence() -> str:
    """Return the table of what operations show beside how they end, in Markdown."""
    lines = ["| Evidence | Of | What it is |", "| --- | --- | --- |"]
    found: dict[Shown, list[str]] = {}
    for call, cls in OPERATIONS.items():
        for shown in cls.shows:
            found.setdefault(shown, []).append(f"`{call}`")
    lines += [f"| `{one.name}` | {', '.join(calls)} | {one.means}{f' ({one.unit})' if one.unit else ''} |" for one, calls in found.items()]
    return "\n".join(lines)


def _describe_field(field: Field) -> str:
    described = f"`{field.key}` ({_describe_kind(field)})"
    if field.default is NEEDED:
        return described
    default = field.default
    shown = "[" + ", ".join(default) + "]" if isinstance(default, tuple) else "none" if default is None else str(default)
    shown = shown.lower() if isinstance(default, bool) else shown
    return f"{described} = {shown or 'empty'}"


#: What a kind is called in the table.
_KINDS = {Kind.SIZE: "size", Kind.OFFSET: "offset", Kind.COUNT: "number", Kind.PATH: "path", Kind.VOLUME: "volume"}


def _describe_kind(field: Field) -> str:
    if "makes" in field.metadata:
        return f"names a new {field.metadata['makes']}"
    if "refers" in field.metadata:
        return " or ".join(field.metadata["refers"])
    hint = field.type
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(option for option in typing.get_args(hint) if option is not types.NoneType)
    if typing.get_origin(hint) is tuple:
        return "list of buffers" if typing.get_args(hint)[0] is Buffer else "list of words"
    if typing.get_origin(hint) is Annotated:
        return _KINDS[typing.get_args(hint)[1]]
    return {bool: "true or false", str: "text"}.get(hint, "word")
