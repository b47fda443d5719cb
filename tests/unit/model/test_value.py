"""Values: changed by making another one, equal and hashed by what they hold."""

from dataclasses import dataclass

import pytest

from harness.model.content import Content, Ranges, tagged
from harness.model.objects import Memory, MemoryKind
from harness.model.state import State
from harness.model.value import Table, evolve, hashed_once


def test_a_table_gives_another_one_and_stays_what_it_is() -> None:
    one: Table[str, int] = Table({"a": 1})
    assert (one.having("b", 2), one.without("a"), one) == ({"a": 1, "b": 2}, {}, {"a": 1})


@pytest.mark.parametrize(
    "change", ["t['a'] = 2", "del t['a']", "t.clear()", "t.pop('a')", "t.popitem()", "t.setdefault('b', 1)", "t.update(b=1)"]
)
def test_a_table_cannot_be_changed(change: str) -> None:
    table = Table({"a": 1})
    with pytest.raises(TypeError, match="never changes"):
        exec(change, {"t": table})
    assert table == {"a": 1}


def test_states_that_hold_the_same_are_one_whatever_way_they_came_to_be() -> None:
    def written(*order: int) -> State:
        memory = Memory(MemoryKind.FILE, "main", "a")
        for at in order:
            memory = evolve(memory, content=memory.content.write(at, tagged(1, 8, at)), data=memory.data.add(at, at + 8))
        return State().adding(memory)[0]

    assert len({written(0, 8, 64), written(64, 0, 8), written(8, 64, 0)}) == 1
    assert len({written(0, 8), written(0, 64)}) == 2


def test_a_value_is_hashed_once_and_one_made_from_it_anew() -> None:
    counted = []

    class Part:
        def __hash__(self) -> int:
            counted.append(1)
            return 1

    @hashed_once
    @dataclass(frozen=True)
    class Holder:
        part: Part
        number: int = 0

    one = Holder(Part())
    assert hash(one) == hash(one)
    assert len(counted) == 1
    assert hash(evolve(one, number=1)) != hash(one)
    assert evolve(one, number=0) == one


def test_what_is_made_from_a_value_is_what_dataclasses_would_make() -> None:
    content = Content().write(0, tagged(1, 8))
    assert evolve(Memory(MemoryKind.FILE), content=content, data=Ranges().add(0, 8)) == Memory(
        MemoryKind.FILE, content=content, data=Ranges(((0, 8),))
    )
