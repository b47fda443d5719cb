"""Clauses: the numbered reasons, and the context in which a rule asks them.

A rule never decides by itself: every condition is asked through :class:`Context`, which counts the clause as hit and
lets a test flip it. The text of each clause and its source stand in :data:`CLAUSES`, filled where the rules are.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from harness.model.content import Pieces, find_mismatch, has_unknown
from harness.model.facts import Env
from harness.model.outcome import How, Observation


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
    """One step on its way to a judgement: who does it, what was seen, which clauses were asked and what they allow."""

    env: Env
    step: int
    process: str
    seen: Observation
    flipped: frozenset[str] = frozenset()
    hits: list[str] = field(default_factory=list)
    allowed: str = ""
    observed: str = ""
    because: str = ""
    unsure: str = ""
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

    def refuses(self, *rows: tuple[str, bool, str]) -> bool:
        """Whether any of ``(errno, condition, clause)`` holds; then the step must have failed with one of those errnos.

        The answer to that is :attr:`settled`. A clause whose condition does not hold is hit too: it allowed the call.
        """
        held = [(errno, clause_id) for errno, condition, clause_id in rows if self._row(clause_id, condition)]
        if not held:
            return False
        errnos = sorted({errno for errno, _ in held})
        self.settled = self.seen.how is How.FAILED and self.seen.errno in errnos
        self._say(" or ".join(errnos), self.seen.describe(), held[0][1])
        return True

    settled: bool = False

    def _row(self, clause_id: str, condition: bool) -> bool:
        if condition or clause_id in self.flipped:
            return self.holds(clause_id, condition)
        return False

    def blocks(self, clause_id: str, condition: bool) -> bool:
        """Whether the step must be blocked; then :attr:`settled` says whether it was."""
        if not self._row(clause_id, condition):
            return False
        self.settled = self.seen.how is How.BLOCKED
        self._say("blocked", self.seen.describe(), clause_id)
        return True

    def returns(self, clause_id: str, value: int) -> bool:
        """Whether the step returned exactly ``value``."""
        return self.counts(clause_id, lambda seen: seen == value, str(value))

    def counts(self, clause_id: str, accepts: Callable[[int], bool], words: str) -> bool:
        """Whether the step returned a value that ``accepts``; ``words`` say which those are."""
        right = self.seen.how is How.RETURNED and accepts(self.seen.value)
        if self.holds(clause_id, right):
            self._say(f"returns {words}", self.seen.describe(), clause_id)
            return True
        self._say(f"returns {words}", self.seen.describe(), clause_id)
        return False

    def signals(self, *rows: tuple[str, bool, str]) -> bool:
        """Whether any of ``(signal, condition, clause)`` holds; then the step must have ended its process with one of those signals.

        The answer to that is :attr:`settled`.
        """
        held = [(signal, clause_id) for signal, condition, clause_id in rows if self._row(clause_id, condition)]
        if not held:
            return False
        signals = sorted({signal for signal, _ in held})
        self.settled = self.seen.how is How.SIGNAL and self.seen.signal in signals
        self._say(" or ".join(signals), self.seen.describe(), held[0][1])
        return True

    def shows(self, clause_id: str, expected: Pieces) -> bool:
        """Whether the bytes that the step saw are ``expected``; unknown ones make the step undetermined."""
        if has_unknown(expected):
            self.doubts("what stands there is not known to the model")
        if self.seen.data is None:
            self.doubts("the observation carries no data")
            return True
        mismatch = find_mismatch(expected, self.seen.data)
        if self.holds(clause_id, mismatch is None):
            return True
        if mismatch is None:
            self._say("other bytes", "these bytes", clause_id)
            return False
        span = f"bytes {mismatch.offset}..{mismatch.offset + mismatch.length - 1}"
        self._say(f"{span}: {mismatch.allowed}", f"{span}: {mismatch.observed}", clause_id)
        return False

    def agrees(self, clause_id: str, condition: bool, allowed: str, observed: str) -> bool:
        """Whether a piece of evidence is as the clause wants it."""
        right = self.holds(clause_id, condition)
        if not right or not self.allowed:
            self._say(allowed, observed, clause_id)
        return right

    def doubts(self, reason: str) -> None:
        """Note that nobody can say whether this is right, while the state that follows is known all the same."""
        self.unsure = self.unsure or reason

    def _say(self, allowed: str, observed: str, clause_id: str) -> None:
        self.allowed, self.observed, self.because = allowed, observed, clause_id
