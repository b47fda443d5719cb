"""The model's word on a step or a program; the worst one wins."""

from collections.abc import Iterable
from enum import IntEnum


class Verdict(IntEnum):
    """Ordered from best to worst: undetermined never counts as a pass."""

    CONFORMS = 0
    UNDETERMINED = 1
    DEVIATES = 2

    def __str__(self) -> str:
        return self.name.lower()


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the worst of ``verdicts``; of none, undetermined: nothing was judged."""
    return max(verdicts, default=Verdict.UNDETERMINED)
