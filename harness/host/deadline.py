"""The one way to wait: for a condition, until a deadline.

Deadlines are handed down, so that an inner wait never outlasts the outer one.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Deadline:
    """A point on the monotonic clock, and the limit in seconds that led to it (for messages)."""

    at_s: float
    limit_s: float

    @classmethod
    def after(cls, seconds: float, scale: float = 1.0) -> "Deadline":
        """Return the deadline ``seconds * scale`` from now; ``scale`` is the accelerator's time scale."""
        limit_s = seconds * scale
        return cls(time.monotonic() + limit_s, limit_s)

    @property
    def remaining_s(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.at_s - time.monotonic())

    @property
    def expired(self) -> bool:
        return time.monotonic() >= self.at_s

    def within(self, seconds: float) -> "Deadline":
        """Return the earlier of this deadline and the one ``seconds`` from now."""
        inner = Deadline.after(seconds)
        return inner if inner.at_s < self.at_s else self


def wait_until(condition: Callable[[], T | None], deadline: Deadline, poll_s: float = 0.02) -> T | None:
    """Return the first truthy value of ``condition()``, or None when the deadline passed first.

    The condition is asked at least once. Errors that it raises go through.
    """
    while True:
        value = condition()
        if value:
            return value
        if deadline.expired:
            return None
        time.sleep(min(poll_s, max(deadline.remaining_s, 0.001)))
