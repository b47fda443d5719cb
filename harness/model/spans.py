"""Spans of 2 MiB of which nobody knows whether they are mapped at once: two states kept as one until it matters.

The kernel may map a span of a DAX file with one entry or page by page, and often nothing that a program sees tells which. Each span doubles
the states, so what is open stays open inside of one: :attr:`Mapping.either`. A step that looks at such a span, or may, is judged in both
states; two that come of it and differ in nothing else are one again.
"""

from collections.abc import Iterator, Sequence

from harness import ops as op
from harness.model.clause import Undetermined
from harness.model.objects import HUGE, Choice, Mapping, page_ceil, page_floor
from harness.model.state import State
from harness.model.value import evolve
from harness.ops import Operation

#: Operations that neither look at a page of a mapping nor change one (munmap takes all of them away), nor look at which blocks of a DAX
#: file are allocated.
_ASIDE = (
    op.Close,
    op.GetXflags,
    op.IoUringSetup,
    op.Lseek,
    op.Meminfo,
    op.Munmap,
    op.Pipe,
    op.RdmaOpen,
    op.Recv,
    op.RecvErrqueue,
    op.SetPipeSize,
    op.SetZerocopy,
    op.Statx,
    op.TcpPair,
    op.Tee,
    op.UnixPair,
    op.XdpSocket,
)


#: More states than this at once are not gone through.
MOST_DECIDED = 1024


def decided(state: State, operation: Operation, process: str) -> list[State]:
    """Return the states that ``state`` stands for, as far as ``operation`` may tell them apart.

    Raises Undetermined where these are too many.
    """
    states = [state]
    for number, choice in _open_choices(state, operation, process):
        if 2 * len(states) > MOST_DECIDED:
            raise Undetermined(f"more than {MOST_DECIDED} states are possible here")
        states = [_settled(before, number, choice, huge=huge) for before in states for huge in (False, True)]
    return states


def _open_choices(state: State, operation: Operation, process: str) -> Iterator[tuple[int, Choice]]:
    mappings = [(n, m) for n, m in state.objects.items() if isinstance(m, Mapping) and m.either]
    if not mappings or (isinstance(operation, _ASIDE) and not _shortens(operation)):
        return
    looked_at = _range_of(state, operation, process)
    alive = set(state.names.values())
    for number, thing in mappings:
        for choice in thing.either:
            at = thing.offset + choice.start
            near = looked_at is None or (looked_at[0] == thing.memory and looked_at[1] < at + HUGE and at < looked_at[2])
            # Nobody looks at one that was unmapped, but the blocks that a store allocated are there still.
            if near and (choice.written or number in alive):
                yield number, choice


def _shortens(operation: Operation) -> bool:
    """Whether a mapping loses its end only: what is left of it may be looked at."""
    return isinstance(operation, op.Munmap) and (operation.offset, operation.length) != (0, None)


def _range_of(state: State, operation: Operation, process: str) -> tuple[int, int, int] | None:
    """Return the memory at which a load or a store looks, from where to where; None: it may be anything."""
    if not isinstance(operation, op.Load | op.Store):
        return None
    m = state.objects.get(state.names.get((process, operation.mapping), 0))
    if not isinstance(m, Mapping):
        return None
    end = operation.offset + max(operation.length, 4)
    return m.memory, m.offset + page_floor(operation.offset), m.offset + page_ceil(end)


def _settled(state: State, number: int, choice: Choice, *, huge: bool) -> State:
    """Return the one of the two states that a choice stands for."""
    m = state.mapping(number)
    m = evolve(m, either=tuple(one for one in m.either if one != choice))
    state = state.with_object(number, m)
    return mapped_at_once(state, number, choice) if huge else state


def mapped_at_once(state: State, number: int, choice: Choice) -> State:
    """Return the state in which the span of ``choice`` is mapped with one entry."""
    m = state.mapping(number)
    low, high = choice.start, choice.start + HUGE
    big = evolve(m, touched=m.touched.add(low, high), sure=m.sure.add(low, high), huge=m.huge.add(low, high))
    if choice.written:
        big = evolve(big, stored=big.stored.add(low, high), dirty=big.dirty.add(low, high))
        memory = state.memory(m.memory)
        at, end = m.offset + low, m.offset + high
        state = state.with_object(m.memory, evolve(memory, data=memory.data.add(at, end), unwritten=memory.unwritten.remove(at, end)))
    return state.with_object(number, big)


def joined(states: Sequence[State]) -> list[State]:
    """Return ``states``, each once, with every two that differ in nothing but whether a span is mapped at once as one."""
    left = dict.fromkeys(states)
    before = len(left) + 1
    while 1 < len(left) < before:
        before = len(left)
        for state in list(left):
            if state in left:
                _join_with_another(left, state)
    return list(left)


def _join_with_another(left: dict[State, None], state: State) -> None:
    """Put one state in the place of ``state`` and of another one that differs from it by a span, where there is such."""
    for number, choice in _choices(state):
        other = mapped_at_once(state, number, choice)
        if other in left and other != state:
            del left[state], left[other]
            m = state.mapping(number)
            left[state.with_object(number, evolve(m, either=tuple(sorted((*m.either, choice)))))] = None
            return


def _choices(state: State) -> Iterator[tuple[int, Choice]]:
    """Yield the spans that may be mapped page by page in ``state``, and at once in another one."""
    for number, thing in state.objects.items():
        if isinstance(thing, Mapping) and state.memory(thing.memory).dax:
            for low, high in thing.touched.spans:
                first = (thing.offset + low) // HUGE * HUGE - thing.offset
                for start in range(first, high, HUGE):
                    if start >= 0 and not thing.huge.touches(start, start + HUGE):
                        yield number, Choice(start, written=False)
                        yield number, Choice(start, written=True)
