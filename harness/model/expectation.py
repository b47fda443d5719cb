"""What a step may show: values that rules make of a state, and that the judge, a report and the model's own run read.

An expectation is one way in which the step may end, with the bytes and the evidence that go with it, and the states that follow. A rule
answers with some of them: the first that what was seen fits is the one that happened. Nothing here judges an observation; what follows
may ask one for what only the guest knows.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from harness.model.content import Pieces
from harness.model.outcome import How, Observation
from harness.model.state import State

#: No upper bound.
ANY = 1 << 127


@dataclass(frozen=True)
class Number:
    """A number beside the outcome lies in ``low`` to ``high``. ``name`` is an attribute, ``faults`` (minor and major ones), or ``value``.

    ``allowed`` and ``observed`` (with a place for the number) are what a report says. ``missing``: why an observation without it leaves
    the step undetermined; empty: then it is wrong. Without a clause any number will do.
    """

    clause: str
    name: str
    low: int
    high: int
    allowed: str
    observed: str
    missing: str = ""


@dataclass(frozen=True)
class Residence:
    """Which pages mincore tells as resident: for each whether it has to, and whether it may."""

    clause: str
    pages: tuple[tuple[bool, bool], ...]


class Where(Enum):
    """Where the frame of a page lies."""

    RAM = "in RAM"
    OWN = "inside the region of {volume}"
    ZERO_PAGE = "the zero page"
    ZERO_PAGE_OR_OWN = "the zero page or inside the region of {volume}"


@dataclass(frozen=True)
class Frame:
    """The frame of one page. ``present``: the page table has to hold it. ``near`` and ``touched``: whether it may, by how near to what was
    touched it lies (C-FRAME-07), and by whether it was touched itself (C-FRAME-05); None: nobody asks."""

    present: bool
    near: bool | None
    touched: bool | None
    where: Where


#: The first byte of a region and its size, both physical.
PhysicalRange = tuple[int, int]


@dataclass(frozen=True)
class Frames:
    """What pagemap tells of each page (None: nobody knows), with the regions of all volumes and that of the mapping's own."""

    pages: tuple[Frame | None, ...]
    page_bytes: int
    regions: tuple[PhysicalRange, ...] = ()
    own: PhysicalRange | None = None
    volume: str = ""


@dataclass(frozen=True)
class AreaFlag:
    """Whether a mapping's VmFlags have ``flag``."""

    clause: str
    flag: str
    is_set: bool


@dataclass(frozen=True)
class Completions:
    """How many zero-copy sends a notification completes, at most, and which is the first of them; all as copied."""

    clause: str
    most: int
    first: int


Evidence = Number | Residence | Frames | AreaFlag | Completions


class Next(NamedTuple):
    """A state that may follow, with the evidence that only this one allows."""

    state: State
    evidence: tuple[Evidence, ...] = ()


Following = Callable[[Observation], Sequence[Next]]


def _nothing(seen: Observation) -> Sequence[Next]:
    return ()


class Expectation(NamedTuple):
    """One way in which a step may end.

    ``how`` is None where any way will do. ``names`` are the errors, or the signals, of which one has to come. A value that is returned lies
    in ``low`` to ``high``, and ``accepts`` may leave some of these out. ``shown`` is what the bytes have to be, as many as are returned,
    with its clause. ``allowed`` is what a report says. ``unsure``: why nobody can say whether this is right, though the state is known;
    ``unjudged``: why nothing is known after it. ``progress``: how many bytes a step that is blocked has moved. ``following`` gives the
    states that may follow.
    """

    how: How | None
    clause: str
    allowed: str
    names: tuple[str, ...] = ()
    low: int = 0
    high: int = ANY
    accepts: Callable[[int], bool] | None = None
    shown: tuple[str, Pieces] | None = None
    unsure: str = ""
    unjudged: str = ""
    progress: int = 0
    #: Whether the clause is asked by comparing; a refusal asked it before.
    asks: bool = False
    following: Following = _nothing

    def shows(self, clause_id: str, pieces: Pieces) -> "Expectation":
        """Return this with ``pieces`` as the bytes that the step has to show, as many of them as it returns."""
        return self._replace(shown=(clause_id, pieces))

    def unjudged_for(self, reason: str) -> "Expectation":
        """Return this as something after which nothing is known."""
        return self._replace(unjudged=reason)

    def leaving(self, *states: State) -> "Expectations":
        """Return the answer of a rule of which this is all: the step ends so, and any of ``states`` follows."""
        found = [Next(state) for state in states]
        return (self._replace(following=lambda seen: found),)

    def then(self, *found: Next) -> "Expectations":
        """Return the answer of a rule of which this is all, where each state that may follow has evidence of its own."""
        return (self._replace(following=lambda seen: found),)

    def by(self, following: Callable[[int], Sequence[State]]) -> "Expectations":
        """Return the answer of a rule of which this is all, where the states depend on the value that was returned, or cost too much to
        be made for a step that did something else."""
        return self.lazily(lambda seen: [Next(state) for state in following(seen.value)])

    def lazily(self, following: Following) -> "Expectations":
        """Return the answer of a rule of which this is all, where what follows depends on more that only a guest knows: an address, say."""
        return (self._replace(following=following),)


#: What a rule answers; the first that fits is what happened. Those behind it may not have been made.
Expectations = Iterable[Expectation]


def either(first: Expectations, others: Callable[[], Expectations]) -> Expectations:
    """Yield ``first``, and ``others`` only for a step that it does not fit."""
    yield from first
    yield from others()


def whatever(state: State, doubt: str) -> Expectations:
    """Return the answer of a rule to a step that no clause covers, and that leaves ``state`` however it ends."""
    return Expectation(None, "", "", unsure=doubt).leaving(state)


def open_end(how: How, reason: str, *, clause: str = "", names: tuple[str, ...] = (), low: int = 0) -> Expectation:
    """Return the expectation of an end of which nobody can say whether it is right, nor what follows."""
    return Expectation(how, clause, "", names=names, low=low, unjudged=reason, asks=bool(clause))
