"""What a state is made of: memory, descriptors, views, mappings, pipes and sockets, all immutable.

*Memory* is whatever has content: a file, a bare node, a dax device, anonymous memory, a BAR. A pipe or a socket holds *views*: a copy of
content, or an alias to memory that is resolved when it is read.
"""

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from harness.model.content import Content, Origin, Pieces, Ranges, cut, length_of
from harness.model.value import evolve, hashed_once

PAGE = 4096
HUGE = 2 * 1024 * 1024


class MemoryKind(Enum):
    """What has content. A file, a node and a dax device are on a volume: they have a page cache, or are DAX; the last is only mapped.
    A BAR has no struct pages."""

    FILE = "file"
    NODE = "node"
    DEVICE = "device"
    ANONYMOUS = "anonymous"
    BAR = "bar"

    @property
    def on_volume(self) -> bool:
        return self in (MemoryKind.FILE, MemoryKind.NODE, MemoryKind.DEVICE)

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
    still. ``closed_by``: the file system that lets nobody write to it. ``unsynced``: it was written since it was last synced, so nobody
    knows which of its pages are clean. ``shared``: the byte ranges whose blocks other ranges may have as well; ``was_shared``: there were
    such. ``unit``: what a dax device is mapped in, and nothing smaller."""

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
    closed_by: str | None = None
    unsynced: bool = False
    shared: Ranges = Ranges()
    was_shared: bool = False
    unit: int = PAGE

    @property
    def is_file(self) -> bool:
        return self.kind is MemoryKind.FILE

    @property
    def is_node(self) -> bool:
        return self.kind is MemoryKind.NODE

    @property
    def is_device(self) -> bool:
        return self.kind is MemoryKind.DEVICE

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
    """An open file description. ``asks_direct``: opened with O_DIRECT; ``direct``: and that goes past the page cache. ``layered``: opened
    through an overlay."""

    memory: int
    readable: bool
    writable: bool
    append: bool = False
    asks_direct: bool = False
    direct: bool = False
    layered: bool = False
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
        for a, b in self.private_pages.gaps(low, high).spans:
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


Object = Memory | OpenFile | Pipe | Socket | Mapping | Ring | RdmaDevice | RdmaRegion


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


def page_floor(at: int) -> int:
    return at - at % PAGE


def page_ceil(at: int) -> int:
    return -(-at // PAGE) * PAGE


def unknown_content() -> Content:
    return Content(filler=Origin.UNKNOWN)
