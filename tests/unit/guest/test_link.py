"""The link to the agent: what it sends, and every way in which an answer can be wrong."""

import hashlib
import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from harness.errors import AgentError, GuestError, GuestHungError
from harness.guest.link import AgentLink, Endpoint, GuestCommand, linked, start_agent
from harness.guest.ssh import Stream
from harness.host.deadline import Deadline
from tests.unit.guest.fake_link import FakeShell, FakeStream, soon

SOURCE = b"print('agent')"
OURS = hashlib.sha256(SOURCE).hexdigest()


def test_the_agent_is_carried_over_and_started_by_one_command() -> None:
    shell = FakeShell(['{"port": 1234, "token": "t"}\n'])
    assert start_agent(shell, SOURCE, soon()) == Endpoint(1234, "t")
    ((command, stdin),) = shell.ran
    assert stdin == SOURCE
    assert command[:2] == ["sh", "-c"]
    assert "cat > /run/pmem-harness/agent.pyz" in command[2]


@pytest.mark.parametrize("said", ["", "Traceback", "[]", '{"port": 1}', '{"port": "x", "token": ""}'])
def test_a_start_that_says_no_endpoint_is_an_agent_error(said: str) -> None:
    with pytest.raises(AgentError, match="the agent did not say where it listens, but: "):
        start_agent(FakeShell([said]), SOURCE, soon())


def test_the_hello_shows_the_token_and_checks_the_agent() -> None:
    shell = FakeShell([], FakeStream({"hello": {"format": 1, "agent": OURS}}))
    with linked(shell, Endpoint(1, "secret"), SOURCE, soon()):
        assert shell.stream.asked == [{"id": 1, "do": "hello", "token": "secret"}]


def test_a_restored_guest_is_told_the_time_and_given_random_numbers() -> None:
    shell = FakeShell([], FakeStream({"hello": {"format": 1, "agent": OURS}}))
    with linked(shell, Endpoint(1, "secret"), SOURCE, soon(), restored=True):
        (asked,) = shell.stream.asked
    assert abs(asked["time_s"] - time.time()) < 60
    assert len(bytes.fromhex(asked["seed"])) == 32


@pytest.mark.parametrize("hello", [{"format": 1, "agent": "other"}, {"format": 2, "agent": OURS}, {}])
def test_another_agent_than_ours_is_refused(hello: dict[str, object]) -> None:
    shell = FakeShell([], FakeStream({"hello": hello}))
    with (
        pytest.raises(AgentError, match=r"another agent runs in the guest: format .*, ours is"),
        linked(shell, Endpoint(1, "t"), SOURCE, soon()),
    ):
        pass


class ClosedShell(FakeShell):
    @contextmanager
    def open_stream(self, port: int, deadline: Deadline) -> Iterator[Stream]:
        raise GuestError(f"cannot reach port {port} of the guest's loopback")
        yield


class HungStream(FakeStream):
    def receive(self, deadline: Deadline) -> bytes:
        raise GuestHungError("the guest said nothing for 1 s")


@pytest.mark.parametrize(
    ("shell", "kind", "said"),
    [
        (ClosedShell([]), GuestError, "cannot reach port 7 of the guest's loopback"),
        (FakeShell([], FakeStream()), GuestError, "the guest closed the connection while it should answer"),
        (FakeShell([], HungStream()), GuestHungError, "the guest said nothing for 1 s"),
    ],
)
def test_an_agent_that_said_ready_and_cannot_be_reached_has_a_log(shell: FakeShell, kind: type[GuestError], said: str) -> None:
    with pytest.raises(kind) as caught, linked(shell, Endpoint(7, "t"), SOURCE, soon()):
        pass
    assert type(caught.value) is kind
    assert str(caught.value) == f"{said}\nthe agent said that it was ready; its log in the guest is /run/pmem-harness/agent.log"


def test_what_goes_wrong_later_is_not_the_start_of_the_agent() -> None:
    shell = FakeShell([], FakeStream({"hello": {"format": 1, "agent": OURS}}))
    with pytest.raises(GuestError, match=r"^later$"), linked(shell, Endpoint(7, "t"), SOURCE, soon()):
        raise GuestError("later")


def test_an_agent_that_broke_is_an_agent_error_with_what_it_said_last() -> None:
    said = b'{"id": null, "ok": false, "kind": "protocol", "error": "signal 11 ended the agent\'s session"}\n'
    with pytest.raises(AgentError, match="asked for run, the agent broke: signal 11 ended the agent's session"):
        AgentLink(FakeStream(raw=[said])).request("run", soon())


def test_requests_are_numbered_and_answers_matched() -> None:
    stream = FakeStream({"hello": {}})
    link = AgentLink(stream)
    assert [link.request("hello", soon())["id"] for _ in range(3)] == [1, 2, 3]


def test_an_answer_to_something_else_is_an_agent_error() -> None:
    with pytest.raises(AgentError, match="asked for hello with id 1, the answer has id 7"):
        AgentLink(FakeStream(raw=[b'{"id": 7, "ok": true}\n'])).request("hello", soon())


@pytest.mark.parametrize(("said", "problem"), [(b"hm\n", "what is not JSON"), (b"[1]\n", "what is no answer")])
def test_an_answer_that_is_none_is_an_agent_error(said: bytes, problem: str) -> None:
    with pytest.raises(AgentError, match=problem):
        AgentLink(FakeStream(raw=[said])).request("hello", soon())


@pytest.mark.parametrize(("kind", "error"), [("protocol", AgentError), ("hang", GuestError), ("failed", GuestError)])
def test_the_kind_of_an_error_says_whose_fault_it_is(kind: str, error: type[Exception]) -> None:
    link = AgentLink(FakeStream({"run": {"ok": False, "kind": kind, "error": "why"}}))
    with pytest.raises(error, match="the agent answered run with an error: why"):
        link.request("run", soon())


def test_a_guest_that_goes_away_is_a_guest_error() -> None:
    with pytest.raises(GuestError, match="closed the connection while it should answer"):
        AgentLink(FakeStream()).request("hello", soon())


def test_a_run_carries_program_places_and_limits() -> None:
    stream = FakeStream({"run": {"observations": {"format": 1, "steps": []}}})
    link = AgentLink(stream)
    found = link.run({"format": 1, "steps": []}, {"main": "/mnt/main"}, {"main": "/dev/x"}, soon(), blocked_s=0.5, limit_s=2)
    assert found == {"format": 1, "steps": []}
    asked = stream.asked[0]
    assert (asked["roots"], asked["devices"], asked["blocked_ms"], asked["limit_ms"]) == (
        {"main": "/mnt/main"},
        {"main": "/dev/x"},
        500,
        2000,
    )


def test_the_taint_is_that_of_the_last_answer_that_tells_it() -> None:
    link = AgentLink(FakeStream({"run": {"observations": {}, "taint": 512}, "hello": {}, "audit": {"taint": None}}))
    seen = [link.taint]
    for do in ("run", "hello", "audit"):
        link.request(do, soon())
        seen.append(link.taint)
    assert seen == [None, 512, 512, None]


def test_a_taint_that_is_no_number_is_an_agent_error() -> None:
    with pytest.raises(AgentError, match="the answer to run has taint flags that are no number: 'W'"):
        AgentLink(FakeStream({"run": {"taint": "W"}})).request("run", soon())


def test_a_run_without_observations_is_an_agent_error() -> None:
    with pytest.raises(AgentError, match="the answer to run has no observations"):
        AgentLink(FakeStream({"run": {}})).run({}, {}, {}, soon(), blocked_s=1, limit_s=1)


def row(argv: list[str], status: int, out: str = "", err: str = "") -> dict[str, object]:
    return {"argv": argv, "status": status, "stdout": out, "stderr": err, "took_s": 0.1}


def test_a_command_that_fails_shows_what_it_printed() -> None:
    link = AgentLink(FakeStream({"commands": {"results": [row(["mkfs", "x"], 1, "some", "the reason\n")]}}))
    with pytest.raises(GuestError, match="exit status 1 in the guest from: mkfs x\nthe reason"):
        link.commands([GuestCommand(("mkfs", "x"))], soon())


def test_a_command_that_fails_silently_says_so() -> None:
    link = AgentLink(FakeStream({"commands": {"results": [row(["false"], 1)]}}))
    with pytest.raises(GuestError, match="it printed nothing"):
        link.commands([GuestCommand(("false",))], soon())


def test_a_command_that_may_fail_is_only_reported() -> None:
    stream = FakeStream({"commands": {"results": [row(["false"], 1), row(["true"], 0, "out")]}})
    outputs = AgentLink(stream).commands([GuestCommand(("false",), may_fail=True), GuestCommand(("true",))], soon())
    assert [o.status for o in outputs] == [1, 0]
    assert [c["may_fail"] for c in stream.asked[0]["commands"]] == [True, False]


def test_no_commands_are_no_request() -> None:
    stream = FakeStream()
    assert AgentLink(stream).commands([], soon()) == ()
    assert stream.asked == []


def test_texts_are_stripped_and_what_is_not_there_is_none() -> None:
    stream = FakeStream({"read_files": {"files": {"/a": "1\n", "/b": None}, "folders": {"/c": "/d"}, "block_bytes": {"/c": 4096}}})
    files = AgentLink(stream).read_files(("/*",), soon())
    assert (files.text("/a"), files.text("/b"), files.text("/z")) == ("1", None, None)
    assert (files.folders, files.block_bytes) == ({"/c": "/d"}, {"/c": 4096})


def test_the_log_has_each_request_with_its_time_and_neither_token_nor_data(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "harness")
    refused = FakeStream({"hello": {"format": 1, "agent": OURS}})
    with linked(FakeShell([], refused), Endpoint(1, "secret"), SOURCE, soon()) as link, pytest.raises(GuestError):
        link.request("stat", soon(), path="/private")
    assert re.search(r"asked the agent for hello: \d+\.\d{3} s\n", caplog.text)
    assert re.search(r"asked the agent for stat: GuestError after \d+\.\d{3} s: ", caplog.text)
    assert "secret" not in caplog.text
    assert "/private" not in caplog.text


def test_the_answers_of_many_programs_come_one_by_one_until_one_of_them_is_an_error() -> None:
    said = b'{"id": 1, "ok": true, "observations": {"steps": []}, "taint": 4}\n'
    said += b'{"id": 1, "ok": false, "kind": "hang", "error": "step 3 (pread) still ran"}\n'
    link = AgentLink(FakeStream(raw=[said]))
    answers = link.run_many([{}, {}, {}], {"main": "/m"}, {}, ["/m"], soon, blocked_s=1, limit_s=2)
    assert next(answers) == {"steps": []}
    assert link.taint == 4
    with pytest.raises(GuestHungError, match=r"the agent answered run_many with an error: step 3 \(pread\) still ran"):
        next(answers)
