"""What an operation is written with: the kinds of names, what its numbers and texts are, flags with their bits.

An operation is a frozen dataclass, registered under its name by :func:`operation`. It is the only place where its arguments and their
defaults are listed: the case loader reads YAML by them, the plan prints them, the agent performs them, the model judges them. A field that
names something earlier steps made says so with :func:`ref`; one that names something new with :func:`new`. A trailing underscore in a
field's name is dropped in YAML and JSON (``from_`` is ``from``).
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Annotated, Any, ClassVar, NoReturn, Self, TypeVar, dataclass_transform

#: What a name can stand for.
FILE, PIPE, SOCKET, MAPPING, RING, RDMA, RDMA_REGION, PROCESS, LABEL = (
    "file",
    "pipe",
    "socket",
    "mapping",
    "ring",
    "rdma",
    "rdma_region",
    "process",
    "label",
)


def ref(*kinds: str) -> Any:
    """A field that names something made by an earlier step, of one of ``kinds``."""
    return dataclasses.field(metadata={"refers": kinds})


def maybe_ref(*kinds: str, default: None) -> Any:
    """Like :func:`ref`, and may be left out."""
    return dataclasses.field(default=default, metadata={"refers": kinds})


def new(kind: str) -> Any:
    """A field that gives a name to what this step makes."""
    return dataclasses.field(metadata={"makes": kind})


class Kind(Enum):
    """What a number or a text is."""

    #: Bytes, never negative.
    SIZE = "size"
    #: Bytes, may be negative.
    OFFSET = "offset"
    #: A plain number.
    COUNT = "count"
    #: A file on the main volume, or ``role:file`` on another.
    PATH = "path"
    #: The role of a volume that can be mounted.
    VOLUME = "volume"


Size = Annotated[int, Kind.SIZE]
Offset = Annotated[int, Kind.OFFSET]
Count = Annotated[int, Kind.COUNT]
VolumePath = Annotated[str, Kind.PATH]
VolumeName = Annotated[str, Kind.VOLUME]


class Flag(StrEnum):
    """A word of a case, and the bits that it stands for in a system call of x86_64 Linux."""

    bits: int

    def __new__(cls, word: str, bits: int) -> Self:
        member = str.__new__(cls, word)
        member._value_ = word
        member.bits = bits
        return member


T = TypeVar("T")


class Frozen:
    """A dataclass that never changes, equal to one of its class with equal fields, and hashable.

    Its methods are written here once: generated for each class, as dataclasses do it, they cost a guest half a second at every start.
    """

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    def __init__(self, *values: Any, **named: Any) -> None:
        fields = self.__dataclass_fields__
        if values:
            if len(values) > len(fields):
                raise TypeError(f"{type(self).__name__} takes {len(fields)} arguments, not {len(values)}")
            first = dict(zip(fields, values, strict=False))
            for name in first.keys() & named.keys():
                raise TypeError(f"{type(self).__name__} got {name!r} twice")
            named = first | named
        own = self.__dict__
        for name, field in fields.items():
            if name in named:
                own[name] = named.pop(name)
            elif field.default is not dataclasses.MISSING:
                own[name] = field.default
            else:
                raise TypeError(f"{type(self).__name__} needs {name!r}")
        if named:
            raise TypeError(f"{type(self).__name__} has no {', '.join(named)}")

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")

    def __eq__(self, other: object) -> bool:
        return self.__dict__ == other.__dict__ if type(self) is type(other) else NotImplemented

    def __hash__(self) -> int:
        return hash((type(self), *self.__dict__.values()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.__dict__.items())})"


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field, ref, maybe_ref, new))
def frozen(cls: type[T]) -> type[T]:
    """Make the decorated class, which is a :class:`Frozen`, a dataclass."""
    return dataclass(init=False, repr=False, eq=False)(cls)


class Operation(Frozen):
    """The base: ``call`` is the name in YAML, JSON and reports."""

    call: ClassVar[str] = ""


OPERATIONS: dict[str, type[Operation]] = {}
Op = TypeVar("Op", bound=Operation)


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field, ref, maybe_ref, new))
def operation(call: str) -> Callable[[type[Op]], type[Op]]:
    """Register the decorated dataclass under ``call``."""

    def register(cls: type[Op]) -> type[Op]:
        made = frozen(cls)
        made.call = call
        OPERATIONS[call] = made
        return made

    return register
