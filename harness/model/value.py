"""Immutable values: made anew with a field changed, compared by what they hold, and hashed once."""

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

__all__ = ["Table", "evolve", "hashed_once"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V", bound=Hashable)
C = TypeVar("C")

_HASH = "_hash"

if TYPE_CHECKING:
    from dataclasses import replace as evolve
else:

    def evolve(value: Any, /, **changes: Any) -> Any:
        """Return ``value``, a frozen dataclass without slots, with fields changed: dataclasses.replace without its checks."""
        new = object.__new__(type(value))
        fields = new.__dict__
        fields.update(value.__dict__)
        fields.pop(_HASH, None)
        fields.update(changes)
        return new


def hashed_once(cls: C) -> C:
    """Let each value of a frozen dataclass keep its hash: most of a state is what it was before the step."""
    hash_fields: Any = cls.__hash__

    def hash_once(self: Any) -> int:
        kept: dict[str, Any] = self.__dict__
        if _HASH not in kept:
            kept[_HASH] = hash_fields(self)
        return int(kept[_HASH])

    cls.__hash__ = hash_once  # type: ignore[method-assign, assignment]
    return cls


class Table(dict[K, V]):
    """A mapping that never changes."""

    def having(self, key: K, value: V) -> "Table[K, V]":
        return Table({**self, key: value})

    def without(self, key: K) -> "Table[K, V]":
        return Table({k: v for k, v in self.items() if k != key})

    def __hash__(self) -> int:  # type: ignore[override]
        if _HASH not in self.__dict__:
            self.__dict__[_HASH] = hash(frozenset(self.items()))
        return int(self.__dict__[_HASH])

    def __reduce__(self) -> Any:
        return Table, (dict(self),)

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("a table never changes: having() and without() return another one")

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse
