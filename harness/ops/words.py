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
from typing import Annotated, Any, ClassVar, Self, TypeVar, dataclass_transform

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


@dataclass(frozen=True)
class Operation:
    """The base: ``call`` is the name in YAML, JSON and reports."""

    call: ClassVar[str] = ""


OPERATIONS: dict[str, type[Operation]] = {}
T = TypeVar("T", bound=Operation)


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field, ref, maybe_ref, new))
def operation(call: str) -> Callable[[type[T]], type[T]]:
    """Register the decorated dataclass under ``call``."""

    def register(cls: type[T]) -> type[T]:
        made = dataclass(frozen=True)(cls)
        made.call = call
        OPERATIONS[call] = made
        return made

    return register
