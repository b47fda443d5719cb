"""The state of the modelled system: memory, descriptors, mappings, pipes and sockets, all immutable.

*Memory* is whatever has content: a file, a bare node, anonymous memory, a BAR. A pipe or a socket holds *views*: a copy of
content, or an alias to memory that is resolved when it is read. An event that takes the page away from the file
(truncate, punch, direct write) turns an alias into a copy.
"""

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from harness.model.content import Content, Origin, Pieces, Ranges, cut, length_of, merged, unknown
from harness.model.outcome import Observation
from harness.model.value import Table, evolve, hashed_once

PAGE = 4096
HUGE = 2 * 1024 * 1024


class MemoryKind(Enum):
    """What has content. A file and a node are on a volume: they have a page cache, or are DAX. A BAR has no struct pages."""

    FILE = "file"
    NODE = "node"
    ANONYMOUS = "anonymous"
    BAR = "bar"

    @property
    def on_volume(self) -> bool:
        return self in (MemoryKind.FILE, MemoryKind.NODE)

    @property
    def has_struct_pages(self) -> bool:
        return self is not MemoryKind.BAR


class SocketKind(Enum):
    """What a socket speaks; only a stream has two ends here that send and receive."""

    TCP = "tcp"
    UNIX = "unix"
    XDP = "xdp"

    @property
    def is_stream(self) -> bool:
        return self is not SocketKind.XDP


@hashed_once
@dataclass(frozen=True)
class Memory:
    """Something with content. ``data`` are the byte ranges that have blocks with data, ``unwritten`` those that are
    allocated only; ``cached`` the page-cache pages that the program brought in (page cache only), ``perhaps`` those that may be there
    still. ``unsynced``: it was written since it was last synced, so nobody knows which of its pages are clean."""

    kind: MemoryKind
    volume: str = ""
    path: str = ""
    size: int = 0
    content: Content = Content()
    data: Ranges = Ranges()
    unwritten: Ranges = Ranges()
    cached: Ranges = Ranges()
    perhaps: Ranges = Ranges()
    dax: bool = False
    dax_flag: bool = False
    unsynced: bool = False

    @property
    def is_file(self) -> bool:
        return self.kind is MemoryKind.FILE

    @property
    def is_node(self) -> bool:
        return self.kind is MemoryKind.NODE

    @property
    def is_bar(self) -> bool:
        return self.kind is MemoryKind.BAR

    @property
    def has_struct_pages(self) -> bool:
        return self.kind.has_struct_pages

    @property
    def on_volume(self) -> bool:
        return self.kind.on_volume


@hashed_once
@dataclass(frozen=True)
class OpenFile:
    """An open file description."""

    memory: int
    readable: bool
    writable: bool
    append: bool = False
    direct: bool = False
    nonblock: bool = False
    position: int = 0


@hashed_once
@dataclass(frozen=True)
class View:
    """``length`` bytes in a pipe or a socket: a copy (``pieces``), or an alias of ``memory`` from ``start`` on.

    In a pipe each view is one slot, that is at most a page.

    ``pins``: the view holds a reference to the page itself, got through a mapping or shared by tee: a DAX file waits for it.
    ``overlay``: an alias not of memory but of the private pages of this mapping, from ``start`` of the mapping on.
    ``room``: how many bytes a write to the pipe may still append to this slot. ``at``: where in its page a copy begins.
    ``pieces`` and ``memory`` together: nobody knows whether it is the copy or the alias; while both show the same, that is known.
    """

    length: int
    pieces: Pieces | None = None
    memory: int = 0
    start: int = 0
    pins: bool = False
    overlay: int = 0
    room: int = 0
    at: int = 0

    @property
    def is_alias(self) -> bool:
        return self.pieces is None

    @property
    def offset_in_page(self) -> int:
        return (self.at if self.pieces is not None and not self.memory else self.start) % PAGE

    def part(self, start: int, end: int) -> "View":
        room = self.room if end == self.length else 0
        pieces = None if self.pieces is None else cut(self.pieces, start, end)
        return evolve(self, length=end - start, pieces=pieces, start=self.start + start, room=room, at=self.at + start)


@hashed_once
@dataclass(frozen=True)
class Pipe:
    views: tuple[View, ...] = ()
    slots: int = 16
    nonblock: bool = False
    read_open: bool = True
    write_open: bool = True

    @property
    def length(self) -> int:
        return sum(v.length for v in self.views)


@hashed_once
@dataclass(frozen=True)
class Socket:
    """A connected pair of stream sockets, one direction, or another kind of socket (xdp).

    ``unread``: there were bytes that nobody had received when the receiving end was closed. ``held``: the sender may hold the last
    bytes back for a moment, because it was told that more will come.
    """

    kind: SocketKind
    views: tuple[View, ...] = ()
    zerocopy: bool = False
    sends: int = 0
    completed: int = 0
    read_open: bool = True
    write_open: bool = True
    unread: bool = False
    held: bool = False

    @property
    def length(self) -> int:
        return sum(v.length for v in self.views)


class Choice(NamedTuple):
    """A span of 2 MiB, by its first byte of the mapping, that is mapped page by page, as the mapping says, or at once. ``written``: by a
    store, which allocates all of its blocks."""

    start: int
    written: bool


@hashed_once
@dataclass(frozen=True)
class Mapping:
    """An area of an address space. ``private_pages`` are the pages copied on write, with their content in ``overlay``.

    ``touched``: pages (byte ranges of the mapping) that a page table may hold; ``sure``: that it does hold. ``stored``: those that it may
    hold writable, ``dirty``: surely, so that no store faults. ``aligned``: address and file offset agree modulo 2 MiB, None where nobody
    looked. ``may_write``: whether the protection may be changed to writable. ``locked``: what mlock was asked for.
    ``either``: the choices of harness/model/spans.py that are open.
    """

    memory: int
    offset: int
    length: int
    shared: bool
    readable: bool
    writable: bool
    sync: bool = False
    overlay: Content = Content()
    private_pages: Ranges = Ranges()
    touched: Ranges = Ranges()
    sure: Ranges = Ranges()
    huge: Ranges = Ranges()
    stored: Ranges = Ranges()
    dirty: Ranges = Ranges()
    aligned: bool | None = None
    huge_allowed: bool = True
    may_write: bool = True
    locked: Ranges = Ranges()
    either: tuple[Choice, ...] = ()

    @property
    def end(self) -> int:
        """The end of its last page: so far the program may reach."""
        return page_ceil(self.length)

    def without(self, start: int, end: int, *, present: bool) -> "Mapping":
        """Return the mapping whose page table is not sure to hold pages ``start`` to ``end`` any more; unless they may still be
        ``present``, it does not hold them. Pages that were copied on write stay."""
        m = self
        low, high = max(page_floor(start), 0), page_ceil(end)
        for a, b in self.huge.spans:  # what is mapped at once goes at once
            for at in range(a, b, HUGE):
                if at < high and low < at + HUGE:
                    low, high = min(low, at), max(high, at + HUGE)
        for a, b in outside(self.private_pages, low, high):
            m = evolve(m, sure=m.sure.remove(a, b), dirty=m.dirty.remove(a, b), huge=m.huge.remove(a, b))
            if not present:
                m = evolve(m, touched=m.touched.remove(a, b), stored=m.stored.remove(a, b))
        return m


@hashed_once
@dataclass(frozen=True)
class Ring:
    """An io_uring with its registered buffers."""

    registered: bool = False


@hashed_once
@dataclass(frozen=True)
class RdmaDevice:
    """An RDMA context with its protection domain."""


@hashed_once
@dataclass(frozen=True)
class RdmaRegion:
    mapping: int


@hashed_once
@dataclass(frozen=True)
class Pending:
    """A step that was started: ``done`` is how it ended, None while it sleeps; ``progress`` is how many bytes it has moved."""

    step: int
    done: Observation | None = None
    progress: int = 0


Object = Memory | OpenFile | Pipe | Socket | Mapping | Ring | RdmaDevice | RdmaRegion


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

    # -- content and views

    def resolve(self, views: tuple[View, ...]) -> Pieces:
        """Return what reading ``views`` now gives."""
        return tuple(piece for view in views for piece in self._resolved(view))

    def _resolved(self, view: View) -> Pieces:
        if view.overlay:
            mapping = self.objects[view.overlay]
            assert isinstance(mapping, Mapping)
            return mapping.overlay.read(view.start, view.start + view.length)
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


def take(views: tuple[View, ...], count: int) -> tuple[tuple[View, ...], tuple[View, ...]]:
    """Return the first ``count`` bytes of ``views``, and the rest."""
    head: list[View] = []
    rest: list[View] = []
    left = count
    for view in views:
        if left >= view.length:
            head.append(view)
            left -= view.length
        elif left > 0:
            head.append(view.part(0, left))
            rest.append(view.part(left, view.length))
            left = 0
        else:
            rest.append(view)
    return tuple(head), tuple(rest)


def copy_view(pieces: Pieces, at: int = 0) -> View:
    return View(length_of(pieces), pieces=pieces, at=at)


def outside(ranges: Ranges, low: int, high: int) -> list[tuple[int, int]]:
    """Return the parts of ``low`` to ``high`` that are not in ``ranges``."""
    left = Ranges().add(low, high)
    for a, b in ranges.within(low, high).spans:
        left = left.remove(a, b)
    return list(left.spans)


def page_floor(at: int) -> int:
    return at - at % PAGE


def page_ceil(at: int) -> int:
    return -(-at // PAGE) * PAGE


def unknown_content() -> Content:
    return Content(filler=Origin.UNKNOWN)
