"""QMP against a fake: answers, refusals, silence and hang-ups, each with its message."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import MachineError
from harness.host import process
from harness.host.deadline import Deadline, wait_until
from harness.machine.qmp import Qmp
from tests.fakes.machine import FAKE_QEMU


@pytest.fixture
def script() -> dict[str, object]:
    return {}


@pytest.fixture
def qmp(tmp_path: Path, script: dict[str, object]) -> Iterator[Qmp]:
    (tmp_path / "script").write_text(json.dumps(script))
    ours, theirs = socket.socketpair()
    console, console_theirs = socket.socketpair()
    with console, Qmp(ours, tmp_path / "qmp.jsonl") as qmp:
        with theirs, console_theirs:
            fds = (theirs.fileno(), console_theirs.fileno())
            channels = [("qmp", fds[0]), ("console", fds[1])]
            options = [word for name, fd in channels for word in ("-chardev", f"socket,id={name},fd={fd}")]
            fake = process.start([str(FAKE_QEMU), "-kernel", str(tmp_path / "script"), "-append", "", *options], pass_fds=fds)
        try:
            yield qmp
        finally:
            fake.kill()
            fake.wait()


def test_a_command_returns_its_value_and_is_in_the_transcript(qmp: Qmp, tmp_path: Path) -> None:
    qmp.connect(Deadline.after(60))
    assert qmp.execute("query-status", {"a": 1}, deadline=Deadline.after(60)) == {}
    lines = [json.loads(line) for line in (tmp_path / "qmp.jsonl").read_text().splitlines()]
    assert [line[1:] for line in lines] == [["execute", {"command": "query-status", "arguments": {"a": 1}}], ["return", {}]]


@pytest.mark.parametrize("script", [{"quiet": [["event", "STOP", {}], ["event", "RESUME", {}]]}])
def test_events_arrive_though_nobody_waits(qmp: Qmp) -> None:
    qmp.connect(Deadline.after(60))
    qmp.execute("cont", deadline=Deadline.after(60))
    assert wait_until(lambda: [event["event"] for event in qmp.events()] == ["STOP", "RESUME"], Deadline.after(60))


def test_a_refusal_names_the_command_and_the_reason(qmp: Qmp) -> None:
    qmp.connect(Deadline.after(60))
    with pytest.raises(MachineError, match=r"refused the QMP command explode: it exploded$"):
        qmp.execute("explode", deadline=Deadline.after(60))


@pytest.mark.parametrize("script", [{"quiet": [["mute"]]}])
def test_silence_ends_at_the_deadline(qmp: Qmp) -> None:
    qmp.connect(Deadline.after(60))
    qmp.execute("cont", deadline=Deadline.after(60))
    with pytest.raises(MachineError, match="did not answer query-status over QMP within 0 s"):
        qmp.execute("query-status", deadline=Deadline.after(0.2))


@pytest.mark.parametrize("script", [{"mute": True}])
def test_a_greeting_that_never_comes_ends_at_the_deadline(qmp: Qmp) -> None:
    with pytest.raises(MachineError, match="did not answer the greeting"):
        qmp.connect(Deadline.after(0.5))


@pytest.mark.parametrize("script", [{"refuse": 1}])
def test_a_qemu_that_dies_first_hangs_up(qmp: Qmp) -> None:
    with pytest.raises(MachineError, match="hung up while we waited for the greeting"):
        qmp.connect(Deadline.after(60))


@pytest.mark.parametrize("script", [{"quiet": [["event", "SHUTDOWN", {"reason": "guest-reset"}], ["exit", 0]]}])
def test_the_last_event_before_the_end_is_not_lost(qmp: Qmp) -> None:
    qmp.connect(Deadline.after(60))
    qmp.execute("cont", deadline=Deadline.after(60))
    assert qmp.wait_closed(Deadline.after(60))
    assert [event["event"] for event in qmp.events()] == ["SHUTDOWN"]
    with pytest.raises(MachineError, match="hung up while we waited for query-status"):
        qmp.execute("query-status", deadline=Deadline.after(60))
