"""The daemon's warming up: every step is really done, and nothing is left of it."""

import os

import pytest

from harness.agent import warm
from harness.agent.doers import perform
from harness.agent.outcome import Outcome
from harness.agent.performer import Performer
from harness.ops import Step


def test_what_is_done_to_warm_up_succeeds_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, Outcome]] = []

    def watched(me: Performer, index: int, step: Step) -> Outcome:
        seen.append((step.operation.call, perform(me, index, step)))
        return seen[-1][1]

    monkeypatch.setattr("harness.agent.warm.perform", watched)
    before = set(os.listdir("/proc/self/fd")), maps()
    warm.warm()
    assert (set(os.listdir("/proc/self/fd")), maps()) == before
    assert len(seen) == 8 * len(warm._STEPS)
    allowed = {"pagemap": {"returned", "failed"}}
    assert [one for one in seen if one[1]["how"] not in allowed.get(one[0], {"returned"})] == [
        ("read", {"how": "not_run", "attributes": {"missing": "none"}})
    ] * 8


def maps() -> int:
    """How many areas of shared memory this process has: a mapping and its guards are such."""
    with open("/proc/self/maps") as file:
        return sum("s" in line.split()[1] for line in file)
