"""A hundred generated programs on a guest: neither the agent nor the judge fails, the kernel is silent, and few deviate."""

from collections.abc import Iterator

import pytest

from harness.case.plan import named_stacks
from harness.ops import Program
from harness.record.item import Ending
from tests.generated.generator import World, draw
from tests.generated.run import guest_stages, judged, program_lines, record

pytestmark = pytest.mark.boot

KERNEL = "debian_6.12"
STACK = "e820-fsdax-ext4-dax_always"
#: Of the first hundred programs of seed 1 so many may be judged to deviate.
MOST_DEVIATING = 2


def test_a_hundred_programs_on_a_guest_are_judged_and_few_deviate() -> None:
    def choose(world: World) -> Iterator[tuple[int, int, Program]]:
        return ((1, index, draw(1, index, world)) for index in range(100))

    with guest_stages(named_stacks()[STACK], KERNEL, print) as start_one:
        found = [judged(one) for one in record(start_one, choose, f"{KERNEL}-{STACK}", print)]
    assert len(found) == 100
    assert [one.recording.note for one in found if one.recording.ending is not Ending.COMPLETED or one.recording.note] == []
    assert [one.crash for one in found if one.crash] == []
    deviating = [one for one in found if one.deviation]
    assert len(deviating) <= MOST_DEVIATING, "\n".join(line for one in deviating for line in program_lines(one))
