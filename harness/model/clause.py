"""Clauses: the numbered reasons, and the context in which a rule asks them.

A rule never decides by itself: every condition is asked through :class:`Context`, which counts the clause as hit and lets a test flip
it, and every outcome is a value that the judge compares. The text of each clause and its source stand in :data:`CLAUSES`, filled where
the rules are.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from harness.model.expectation import Expectation
from harness.model.facts import Env
from harness.model.outcome import How


@dataclass(frozen=True)
class Clause:
    """One rule of the contract: its id, what it says, and where that comes from."""

    id: str
    says: str
    source: str


CLAUSES: dict[str, Clause] = {}


def clause(clause_id: str, says: str, source: str) -> str:
    """Enter a clause into the contract and return its id. Raises ValueError for an id that is taken."""
    if clause_id in CLAUSES:
        raise ValueError(f"clause {clause_id} is defined twice")
    CLAUSES[clause_id] = Clause(clause_id, says, source)
    return clause_id


class Undetermined(Exception):  # noqa: N818  (not an error: the model's third word)
    """No rule covers the step; ``reason`` says what is missing."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass
class Context:
    """One step on its way to a judgement: who does it, on what, and which clauses were asked. What was seen is not here."""

    env: Env
    step: int
    process: str
    flipped: frozenset[str] = frozenset()
    hits: list[str] = field(default_factory=list)
    #: How many bytes a step that slept has moved so far.
    progress: int = 0

    @property
    def writer(self) -> int:
        """The writer of the bytes that this step writes."""
        return self.step + 1

    def holds(self, clause_id: str, condition: bool) -> bool:
        """Return whether ``condition`` holds, and count the clause as hit."""
        if clause_id not in CLAUSES:
            raise KeyError(f"no clause {clause_id}")
        if clause_id not in self.hits:
            self.hits.append(clause_id)
        return condition != (clause_id in self.flipped)

    def refuses(self, *rows: tuple[str, bool, str]) -> Expectation | None:
        """Return what is expected where any of ``(errno, condition, clause)`` holds: the step fails with one of those errnos.

        A clause whose condition does not hold is hit too, where it is flipped: it allowed the call.
        """
        return self._ends(How.FAILED, rows)

    def signals(self, *rows: tuple[str, bool, str]) -> Expectation | None:
        """Return what is expected where any of ``(signal, condition, clause)`` holds: one of those signals ends the process."""
        return self._ends(How.SIGNAL, rows)

    def _ends(self, how: How, rows: tuple[tuple[str, bool, str], ...]) -> Expectation | None:
        held: list[tuple[str, str]] = []
        for name, condition, clause_id in rows:
            if (condition or clause_id in self.flipped) and self.holds(clause_id, condition):
                held.append((name, clause_id))
        if not held:
            return None
        names = tuple(sorted({name for name, _ in held}))
        return Expectation(how, held[0][1], " or ".join(names), names=names)

    def blocks(self, clause_id: str, condition: bool, progress: int = 0) -> Expectation | None:
        """Return what is expected where ``condition`` holds: the step is blocked, after it has moved ``progress`` bytes."""
        if not (condition or clause_id in self.flipped) or not self.holds(clause_id, condition):
            return None
        return Expectation(How.BLOCKED, clause_id, "blocked", progress=progress)

    def returns(self, clause_id: str, value: int) -> Expectation:
        """Return what is expected where the step returns exactly ``value``."""
        return Expectation(How.RETURNED, clause_id, f"returns {value}", low=value, high=value, asks=True)

    def counts(self, clause_id: str, low: int, high: int, words: str = "", accepts: Callable[[int], bool] | None = None) -> Expectation:
        """Return what is expected where the step returns a value from ``low`` to ``high``; ``words`` say which those are."""
        words = words or (f"{low}..{high}" if low < high else str(high))
        return Expectation(How.RETURNED, clause_id, f"returns {words}", low=low, high=high, accepts=accepts, asks=True)
