"""From a tree to typed steps: the fields of the operations are the grammar."""

import errno
import re
import signal
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

from harness.case.axes import Axes, Condition, Storage, read_condition
from harness.case.tree import (
    Row,
    Table,
    Tree,
    Word,
    accepted,
    as_row,
    as_table,
    as_truth,
    as_word,
    as_words,
    check_keys,
    line_of,
    one_of,
    substitute,
)
from harness.errors import CaseError
from harness.ops import NEEDED, OPERATIONS, Buffer, Frozen, Kind, Operation, Pin, Step
from harness.sizes import parse_size

#: The keys of a step beside its operation.
STEP_KEYS = ("process", "start", "expect", "id")
PIN_KEYS = ("returns", "errno", "signal", "blocked")
OTHERWISE = "otherwise"

NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class BoundStep:
    """A step bound to a variant, with the ``id`` that ``decides`` points at."""

    step: Step
    id: str | None
    where: str


def read_step(tree: Table, axes: Axes, values: Mapping[str, str]) -> BoundStep:
    """Return the step with its ``$parameters`` and its pin resolved for the variant that has ``values``."""
    bound = as_table(substitute(tree, values), "a step")
    calls = [key for key in bound.keys if key.text not in STEP_KEYS]
    if len(calls) != 1:
        names = ", ".join(key.text for key in calls) or "none"
        raise CaseError(tree.where, f"a step has exactly one operation, this one has {names}; beside it: {', '.join(STEP_KEYS)}")
    call = calls[0]
    one_of(call, [*OPERATIONS, *STEP_KEYS], f"unknown operation {call.text!r}")
    expect = bound.find("expect")
    step = Step(
        operation=read_operation(call, bound.find(call.text) or Table((), call.where)),
        process=_name(bound.find("process")) or "main",
        start=_name(bound.find("start")),
        pin=None if expect is None else find_pin(expect, axes, values),
        line=line_of(call),
    )
    return BoundStep(step, _name(bound.find("id")), call.where)


def _name(tree: Tree | None) -> str | None:
    return None if tree is None else read_name(as_word(tree, "a name"))


def read_name(word: Word) -> str:
    if not NAME.fullmatch(word.text):
        raise CaseError(word.where, f"{word.text!r} is not a name: lower-case letters, digits and _, a letter first")
    return word.text


# ---- operations ------------------------------------------------------------------------------------------------------


def read_operation(call: Word, tree: Tree) -> Operation:
    """Return the operation ``call`` with the arguments in ``tree``."""
    made = _read_fields(OPERATIONS[call.text], as_table(tree, f"the arguments of {call.text}"), call.text)
    assert isinstance(made, Operation)
    return made


def _read_fields(cls: type[Frozen], table: Table, what: str) -> Frozen:
    fields = {field.key: field for field in cls.fields.values()}
    check_keys(table, fields, what)
    values: dict[str, Any] = {}
    for name, field in fields.items():
        tree = table.find(name)
        if tree is not None:
            values[field.name] = _read_value(field.type, tree, f"{name} of {what}", field.metadata)
        elif field.default is NEEDED:
            raise CaseError(table.where, f"{what} needs the argument {name!r}; it takes {', '.join(fields)}")
    return cls(**values)


def _read_value(hint: Any, tree: Tree, what: str, metadata: Mapping[str, Any]) -> Any:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        if isinstance(tree, Word) and (tree.is_nothing or tree.text == "none"):
            return None
        hint = next(option for option in typing.get_args(hint) if option is not types.NoneType)
    if typing.get_origin(hint) is tuple:
        element = typing.get_args(hint)[0]
        if element is Buffer:
            rows = as_row(tree, f"{what}, a list of {{length: ...}},").items
            return tuple(_read_fields(Buffer, as_table(row, f"an element of {what}"), f"an element of {what}") for row in rows)
        return _read_flags(element, tree, what)
    if hint is bool:
        return as_truth(tree, what)
    word = as_word(tree, what)
    if typing.get_origin(hint) is Annotated:
        return _read_kind(typing.get_args(hint)[1], word, what)
    if issubclass(hint, StrEnum):
        return _read_choice(hint, word, what)
    return read_name(word) if "refers" in metadata or "makes" in metadata else word.text


def _read_flags(flags: type[StrEnum], tree: Tree, what: str) -> tuple[StrEnum, ...]:
    """Read a list of words. The word ``none`` (say, the value of a parameter) stands for no flag, unless it is one itself."""
    if not isinstance(tree, Row):
        raise CaseError(tree.where, f"{what} must be a list of words such as [{next(iter(flags))}]; accepted: {', '.join(flags)}")
    words = [word for word in as_words(tree, what) if word.text != "none" or "none" in set(flags)]
    return tuple(_read_choice(flags, word, what) for word in words)


def _read_choice(choices: type[StrEnum], word: Word, what: str) -> StrEnum:
    return choices(one_of(word, list(choices), f"unknown word {word.text!r} for {what}"))


def _read_kind(kind: Kind, word: Word, what: str) -> int | str:
    if kind in (Kind.PATH, Kind.VOLUME):
        return word.text
    if kind is Kind.COUNT:
        return read_count(word, what)
    size = read_size(word, what)
    if size < 0 and kind is Kind.SIZE:
        raise CaseError(word.where, f"{what} is {word.text}: it cannot be negative")
    return size


def read_count(word: Word, what: str) -> int:
    try:
        return int(word.text, 0)
    except ValueError as error:
        raise CaseError(word.where, f"{what} is {word.text!r}: write a plain number such as 1 or 0x10") from error


def read_size(word: Word, what: str) -> int:
    try:
        return parse_size(word.text)
    except ValueError as error:
        raise CaseError(word.where, f"{what}: {error}") from error


def told_kinds(op: Operation) -> list[tuple[Kind, Any]]:
    """Return what each argument of ``op`` is, where its type says so, and the argument."""
    told = [(name, typing.get_args(field.type)) for name, field in op.fields.items() if typing.get_origin(field.type) is Annotated]
    return [(kind, getattr(op, name)) for name, (_, kind) in told]


# ---- pins ------------------------------------------------------------------------------------------------------------


def find_pin(tree: Tree, axes: Axes, values: Mapping[str, str]) -> Pin | None:
    """Return the pin that ``expect`` gives the variant; None where it says nothing about it. Reads every alternative."""
    alternatives = _read_alternatives(tree, axes)
    matching = [pin for condition, pin in alternatives if condition is not None and condition.matches(values)]
    rest = [pin for condition, pin in alternatives if condition is None]
    return next(iter(matching + rest), None)


def _read_alternatives(tree: Tree, axes: Axes) -> list[tuple[Condition | None, Pin]]:
    """``{returns: 1}``, or ``{dax: {returns: 1}, otherwise: {errno: EINVAL}}``, or a list of pins with ``when`` (none: otherwise)."""
    if isinstance(tree, Row):
        return [_read_when(as_table(item, "an element of expect"), axes) for item in tree.items]
    table = as_table(tree, "expect")
    if any(key.text in PIN_KEYS for key in table.keys) or not table.pairs:
        return [(None, read_pin(table))]
    check_keys(table, (*PIN_KEYS, *Storage, OTHERWISE), "expect")
    alternatives: list[tuple[Condition | None, Pin]] = []
    for key, value in table.pairs:
        pin = read_pin(as_table(value, f"expect for {key.text}"))
        if key.text == OTHERWISE:
            alternatives.append((None, pin))
        elif key.text not in axes.of("storage"):
            raise CaseError(key.where, f"expect speaks of {key.text}, but the axis storage has only {', '.join(axes.of('storage'))}")
        else:
            alternatives.append((Condition((("storage", (key.text,)),)), pin))
    return alternatives


def _read_when(table: Table, axes: Axes) -> tuple[Condition | None, Pin]:
    when = table.find("when")
    pin = read_pin(table.without("when"))
    return (None if when is None else read_condition(axes, when, "when"), pin)


def read_pin(table: Table) -> Pin:
    """Return the pin in a table with exactly one of returns, errno, signal and blocked."""
    check_keys(table, PIN_KEYS, "a pin")
    if len(table.pairs) != 1:
        raise CaseError(table.where, f"a pin has exactly one of {', '.join(PIN_KEYS)}")
    key, value = table.pairs[0]
    if key.text == "returns":
        return Pin(returns=read_size(as_word(value, "returns"), "returns"))
    if key.text == "errno":
        return Pin(errno=read_errno(value))
    if key.text == "signal":
        return Pin(signal=read_signal(value))
    return Pin(blocked=as_truth(value, "blocked"))


#: Second names of error numbers, and the one name that the project uses.
_SECOND_NAMES = {"ENOTSUP": "EOPNOTSUPP", "EWOULDBLOCK": "EAGAIN", "EDEADLOCK": "EDEADLK"}


def known_errnos() -> list[str]:
    """Return the error numbers that a case may name: errno(3) without its second names."""
    return sorted(set(errno.errorcode.values()) - set(_SECOND_NAMES) | set(_SECOND_NAMES.values()))


def read_errno(tree: Tree) -> str:
    word = as_word(tree, "errno")
    known = known_errnos()
    if word.text not in known:
        hint = f"write {_SECOND_NAMES[word.text]}" if word.text in _SECOND_NAMES else _nearest_only(word.text, known)
        raise CaseError(word.where, f"unknown errno {word.text!r}; {hint}")
    return word.text


def read_signal(tree: Tree) -> str:
    word = as_word(tree, "signal")
    known = [s.name for s in signal.Signals]
    if word.text not in known:
        raise CaseError(word.where, f"unknown signal {word.text!r}; {_nearest_only(word.text, known)}")
    return word.text


def _nearest_only(word: str, known: list[str]) -> str:
    hint = accepted(word.upper(), known)
    return hint.partition("accepted:")[0].strip() if "did you mean" in hint else "accepted: a name as errno(3) and signal(7) have it"
