"""What an operation is written with: the kinds of names, what its numbers and texts are, flags with their bits.

An operation is a frozen value (:class:`Frozen`), registered under its name by :func:`operation`. It is the only place where its arguments
and their defaults are listed: the case loader reads YAML by them, the plan prints them, the agent performs them, the model judges them. A
field that names something earlier steps made says so with :func:`ref`; one that names something new with :func:`new`. A trailing underscore
in a field's name is dropped in YAML and JSON (``from_`` is ``from``).
"""

from collections.abc import Callable
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple, NoReturn, Self, TypeVar, dataclass_transform

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


#: The default of an argument that must be given.
NEEDED: Any = object()


class Field:
    """One argument. ``metadata``: the kinds of names that it ``refers`` to and the end that it ``uses``, or the kind that it ``makes``."""

    def __init__(self, default: Any = NEEDED, **metadata: Any) -> None:
        self.name, self.type, self.default, self.metadata = "", NEEDED, default, metadata

    @property
    def key(self) -> str:
        """Its name in YAML and JSON."""
        return self.name.rstrip("_")


#: The ends of a pipe or of a pair of sockets; of anything else both are the same descriptor.
READ, WRITE = "read", "write"


def ref(*kinds: str, uses: str | None = None) -> Any:
    """A field that names something made by an earlier step, of one of ``kinds``. ``uses``: the end of it that has to be open."""
    return Field(refers=kinds, uses=uses)


def maybe_ref(*kinds: str, default: None, uses: str | None = None) -> Any:
    """Like :func:`ref`, and may be left out."""
    return Field(default, refers=kinds, uses=uses)


def new(kind: str) -> Any:
    """A field that gives a name to what this step makes."""
    return Field(makes=kind)


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


class Shown(NamedTuple):
    """A piece of evidence that a step shows beside how it ended. ``unit``: what its numbers count; empty: a word, or 0 and 1."""

    name: str
    means: str
    unit: str = ""


#: These are parts of an observation themselves; all others are its attributes, by their names.
DATA = Shown("data", "what came, where it came into a private buffer", "bytes")
RESIDENT = Shown("resident", "whether each page is resident")
FRAMES = Shown("frames", "the physical frame of each page, 0 where none is present", "page frame numbers")
MINOR_FAULTS = Shown("minor_faults", "minor faults taken", "faults")


class Frozen:
    """A value that never changes, equal to one of its class with equal fields, and hashable.

    It is no dataclass: that module costs a guest a quarter of a second at every start. A type checker takes it for one.
    """

    fields: ClassVar[dict[str, Field]] = {}
    if TYPE_CHECKING:
        __dataclass_fields__: ClassVar[dict[str, Any]]

    def __init__(self, *values: Any, **named: Any) -> None:
        if values:
            named = self._with_positions(values, named)
        own = self.__dict__
        for name, field in self.fields.items():
            own[name] = value = named.pop(name, field.default)
            if value is NEEDED:
                raise TypeError(f"{type(self).__name__} needs {name!r}")
        if named:
            raise TypeError(f"{type(self).__name__} has no {', '.join(named)}")

    def _with_positions(self, values: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
        if len(values) > len(self.fields):
            raise TypeError(f"{type(self).__name__} takes {len(self.fields)} arguments, not {len(values)}")
        first = dict(zip(self.fields, values, strict=False))
        for name in first.keys() & named.keys():
            raise TypeError(f"{type(self).__name__} got {name!r} twice")
        return first | named

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is frozen: cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is frozen: cannot delete field {name!r}")

    def __eq__(self, other: object) -> bool:
        return self.__dict__ == other.__dict__ if type(self) is type(other) else NotImplemented

    def __hash__(self) -> int:
        return hash((type(self), *self.__dict__.values()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.__dict__.items())})"


F = TypeVar("F", bound=Frozen)


@dataclass_transform(frozen_default=True, field_specifiers=(Field, ref, maybe_ref, new))
def frozen(cls: type[F]) -> type[F]:
    """Give the decorated class the fields that it is written with."""
    cls.fields = {}
    for name, kind in cls.__annotations__.items():
        given = cls.__dict__.get(name, NEEDED)
        field = given if isinstance(given, Field) else Field(given)
        field.name, field.type = name, kind
        cls.fields[name] = field
        if field is given:
            delattr(cls, name)
    return cls


class Operation(Frozen):
    """The base: ``call`` is the name in YAML, JSON and reports, ``shows`` the evidence that comes with it."""

    call: ClassVar[str] = ""
    shows: ClassVar[tuple[Shown, ...]] = ()


OPERATIONS: dict[str, type[Operation]] = {}
Op = TypeVar("Op", bound=Operation)


@dataclass_transform(frozen_default=True, field_specifiers=(Field, ref, maybe_ref, new))
def operation(call: str, *shows: Shown) -> Callable[[type[Op]], type[Op]]:
    """Register the decorated class under ``call``, with the evidence that it ``shows``."""

    def register(cls: type[Op]) -> type[Op]:
        made = frozen(cls)
        made.call, made.shows = call, shows
        OPERATIONS[call] = made
        return made

    return register
