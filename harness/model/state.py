"""The state of the modelled system: every object, and who has a name for it.

An event that takes a page away from its file (truncate, punch, direct write) turns the aliases of it into copies.
"""

from dataclasses import dataclass

from harness.model.content import Content, Pieces, merged, unknown
from harness.model.objects import Mapping, Memory, Object, OpenFile, Pipe, Socket, View
from harness.model.outcome import Observation
from harness.model.value import Table, evolve, hashed_once


@hashed_once
@dataclass(frozen=True)
class Pending:
    """A step that was started: ``done`` is how it ended, None while it sleeps; ``progress`` is how many bytes it has moved."""

    step: int
    done: Observation | None = None
    progress: int = 0


@hashed_once
@dataclass(frozen=True)
class Waiter:
    """A process asleep in FUTEX_WAIT: the step, and the key of the word."""

    step: int
    key: tuple[object, ...]
    woken: bool = False


@hashed_once
@dataclass(frozen=True)
class State:
    """Everything the program can tell apart. ``names`` go from (process, name) to an object's number; ``closed`` are the descriptors
    (process, name, end) that were closed. ``meminfo`` is what the page cache held beside the pages of the program's files at the last look,
    at least and at most; ``read_ahead`` how many bytes behind what was read the kernel may have brought in since."""

    objects: Table[int, Object] = Table()
    names: Table[tuple[str, str], int] = Table()
    files: Table[tuple[str, str], int] = Table()
    processes: tuple[str, ...] = ("main",)
    pending: Table[str, Pending] = Table()
    waiters: tuple[Waiter, ...] = ()
    mounted: Table[str, bool] = Table()
    meminfo: tuple[int, int] | None = None
    read_ahead: int = 0
    closed: frozenset[tuple[str, str, str]] = frozenset()

    # -- names and objects

    def with_object(self, number: int, thing: Object) -> "State":
        return evolve(self, objects=self.objects.having(number, thing))

    def adding(self, thing: Object) -> tuple["State", int]:
        number = max(self.objects, default=0) + 1
        return self.with_object(number, thing), number

    def naming(self, process: str, name: str, number: int) -> "State":
        closed = self.closed - {(process, name, end) for end in ("read", "write")}
        return evolve(self, names=self.names.having((process, name), number), closed=closed)

    def with_pending(self, label: str, pending: Pending) -> "State":
        """Return the state in which the started step ``label`` is as ``pending`` says."""
        return evolve(self, pending=self.pending.having(label, pending))

    def has_end(self, number: int, end: str) -> bool:
        """Whether some process still has this end of object ``number`` open."""
        return any(n == number and (who, name, end) not in self.closed for (who, name), n in self.names.items())

    def is_used(self, memory: int) -> bool:
        """Whether some process has the file open, or mapped."""
        for (who, name), number in self.names.items():
            thing = self.objects[number]
            if isinstance(thing, Mapping) and thing.memory == memory:
                return True
            if isinstance(thing, OpenFile) and thing.memory == memory and (who, name, "read") not in self.closed:
                return True
        return False

    def without_name(self, process: str, name: str) -> "State":
        return evolve(self, names=self.names.without((process, name)))

    def number(self, process: str, name: str) -> int:
        """Return the object that ``name`` stands for. Raises KeyError: the loader lets no such program through,
        but a step whose maker failed leaves its name without an object."""
        return self.names[(process, name)]

    def memory(self, number: int) -> Memory:
        thing = self.objects[number]
        if not isinstance(thing, Memory):
            raise TypeError(f"object {number} is a {type(thing).__name__}, not memory")
        return thing

    def mapping(self, number: int) -> Mapping:
        thing = self.objects[number]
        assert isinstance(thing, Mapping)
        return thing

    # -- content and views

    def resolve(self, views: tuple[View, ...]) -> Pieces:
        """Return what reading ``views`` now gives."""
        return tuple(piece for view in views for piece in self._resolved(view))

    def _resolved(self, view: View) -> Pieces:
        if view.overlay:
            return self.mapping(view.overlay).overlay.read(view.start, view.start + view.length)
        if view.pieces is not None and not view.memory:
            return view.pieces
        now = self.memory(view.memory).content.read(view.start, view.start + view.length)
        if view.pieces is None or merged(now) == merged(view.pieces):
            return now
        return unknown(view.length)

    def mapped(self, mapping: Mapping, start: int, end: int) -> Pieces:
        """Return what loading bytes ``start`` to ``end`` of ``mapping`` gives: its own copies over the memory's content."""
        base = self.memory(mapping.memory).content.read(mapping.offset + start, mapping.offset + end)
        if not mapping.private_pages.touches(start, end):
            return base
        merged = Content().write(0, base)
        for low, high in mapping.private_pages.within(start, end).spans:
            merged = merged.write(low - start, mapping.overlay.read(low, high))
        return merged.read(0, end - start)

    def is_pinned(self, memory: int) -> bool:
        """Whether some pipe or socket holds a page of ``memory`` itself."""
        return any(
            view.pins and view.is_alias and view.memory == memory
            for thing in self.objects.values()
            if isinstance(thing, Pipe | Socket)
            for view in thing.views
        )

    def detached(self, memory: int, start: int, end: int) -> "State":
        """Return the state after the pages ``start`` to ``end`` of ``memory`` left it: aliases keep what they show now."""
        state = self
        for number, thing in self.objects.items():
            if isinstance(thing, Pipe | Socket) and any(v.memory == memory for v in thing.views):
                views: list[View] = []
                for view in thing.views:
                    views.extend(_detach(self, view, memory, start, end))
                state = state.with_object(number, evolve(thing, views=tuple(views)))
        return state


def _detach(state: State, view: View, memory: int, start: int, end: int) -> list[View]:
    if view.memory != memory or view.start >= end or view.start + view.length <= start:
        return [view]
    low, high = max(start, view.start) - view.start, min(end, view.start + view.length) - view.start
    frozen = state.resolve((view.part(low, high),))
    parts = [view.part(0, low)] if low else []
    parts.append(View(high - low, pieces=frozen, at=view.part(low, high).offset_in_page))
    if high < view.length:
        parts.append(view.part(high, view.length))
    return parts
