"""Splice watch: is what was moved the page itself, so that later writes show in it, or a copy? It is no verdict, only what was seen."""

from collections.abc import Sequence
from dataclasses import dataclass

from harness.model.outcome import How, Observation, RunKind

ALIAS = "alias"
COPY = "copy"
MIXED = "mixed"


@dataclass(frozen=True)
class Watch:
    """A way that bytes take: step ``moves`` moves them, and step ``read`` reads them where they went, all of them overwritten between."""

    path: str
    moves: int
    read: int


def find_carried(watch: Watch, observations: Sequence[Observation]) -> str | None:
    """Return ALIAS, COPY, or MIXED where some of the bytes are the one and some the other; what became of a move that failed.

    None: that was not seen (a step did not come to run, or other bytes came than steps wrote).
    """
    moved, seen = observations[watch.moves], observations[watch.read]
    if moved.how is not How.RETURNED:
        return None if moved.how is How.NOT_RUN else moved.describe()
    if seen.how is not How.RETURNED or not seen.data or any(run.kind is not RunKind.TAG for run in seen.data):
        return None
    # The writer of a step's bytes is the number of the step plus 1.
    later = {run.writer > watch.moves + 1 for run in seen.data}
    return MIXED if len(later) > 1 else ALIAS if True in later else COPY
