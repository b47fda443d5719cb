"""The daemon's warming up: every step is really done, and nothing is left of it."""

import json
import os
from pathlib import Path

import pytest

from harness.agent import warm
from harness.agent.doers import perform
from harness.agent.outcome import Outcome
from harness.agent.performer import Performer
from harness.host.deadline import Deadline, wait_until
from harness.ops import Step
from tests.unit.agent.conftest import changed_agent


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


SLOW = """
import time
from pathlib import Path
from harness.agent import warm

def slow_and_broken():
    here_ = Path(here)
    (here_ / "begun").touch()
    while not (here_ / "sent").exists():
        time.sleep(0.005)
    time.sleep(0.3)  # a program that does not wait has made its file by then
    (here_ / "seen").write_text(str((here_ / "made").exists()))
    raise RuntimeError("it stays cold")

warm.warm = slow_and_broken
"""


def test_no_program_runs_beside_the_warming_up_and_the_daemon_outlives_it(
    archive: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    made = {"call": "open", "args": {"name": "f", "path": "made", "flags": ["rdwr", "creat"]}}
    request = {"id": 1, "do": "run", "program": {"format": 1, "steps": [made]}, "roots": {"main": str(tmp_path)}}
    with changed_agent(archive, tmp_path, SLOW) as daemon:
        with daemon.connected() as client:  # the first answer does not wait
            assert wait_until((tmp_path / "begun").exists, Deadline.after(60))
            client.connection.sendall(json.dumps(request).encode() + b"\n")
            (tmp_path / "sent").touch()
            assert client.listen()["ok"]
        assert ((tmp_path / "seen").read_text(), (tmp_path / "made").exists()) == ("False", True)
        with daemon.connected() as client:
            assert client.ask("run", **{name: request[name] for name in ("program", "roots")})["ok"]
    assert "RuntimeError: it stays cold" in capfd.readouterr().err
