"""Requests that cannot be meant, hosts that go away, and programs that will not end."""

import contextlib
import hashlib
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from harness import ops as op
from harness.agent.daemon import session_members
from harness.agent.mappings import smaps_of
from harness.host.deadline import Deadline, wait_until
from harness.host.process import run
from harness.ops import Program, Step
from harness.ops.codec import program_document
from tests.unit.agent.conftest import Client, Daemon, Runner


def test_hello_says_which_agent_it_is(client: Client, archive: Path) -> None:
    answer = client.ask("hello")
    assert answer["agent"] == hashlib.sha256(archive.read_bytes()).hexdigest()
    assert answer["format"] == 1
    assert {"python", "kernel", "time_s", "monotonic_s"} <= set(answer)


def test_a_connection_without_the_token_is_refused_and_closed(daemon: Daemon) -> None:
    with socket.create_connection(("127.0.0.1", daemon.port)) as connection:
        answer = Client(connection, "wrong").ask("hello")
        assert (answer["ok"], answer["kind"]) == (False, "protocol")
        assert "token" in answer["error"]
        assert connection.recv(1) == b""


def test_what_is_not_json_is_refused_and_the_connection_goes_on(client: Client) -> None:
    for line in (b"{", b"\xff\xfe", b"[]"):
        answer = client.ask_raw(line)
        assert (answer["id"], answer["ok"], answer["kind"]) == (None, False, "protocol")
    assert client.ask("hello")["ok"]


def test_an_unknown_request_is_refused_with_what_is_known(client: Client) -> None:
    answer = client.ask("dance")
    assert answer["kind"] == "protocol"
    assert "unknown request 'dance': known are run, run_many, hello, commands" in answer["error"]


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (None, "the program: a mapping belongs here, not None"),
        ({"format": 2, "steps": []}, "the program has the format 2; this reads 1"),
        ({"format": 1, "steps": [{"call": "levitate", "args": {}}]}, "step 0: no operation 'levitate'"),
        (
            {"format": 1, "steps": [{"call": "fsync", "args": {"fiel": "f"}}]},
            "step 0.args: nothing is called 'fiel' here; known are file",
        ),
        ({"format": 1, "steps": [{"call": "meminfo", "process": "b"}]}, "step 0 (meminfo): no earlier step forks the process 'b'"),
        (
            {"format": 1, "steps": [{"call": "fork", "args": {"process": "main"}}]},
            "step 0 (fork): there is a process 'main' already",
        ),
    ],
)
def test_a_program_that_cannot_be_meant_is_refused_before_it_runs(client: Client, program: object, said: str) -> None:
    answer = client.ask("run", program=program, roots={"main": "/tmp"})
    assert (answer["ok"], answer["kind"], answer["error"]) == (False, "protocol", said)


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (
            {"call": "open", "args": {"name": "f", "path": "a", "flags": ["sideways"]}},
            "step 0.args.flags[0]: 'sideways' is none of rdonly",
        ),
        ({"call": "open", "args": {"name": "f", "path": "moon:a", "flags": []}}, "names the volume 'moon'"),
        ({"call": "mount", "args": {"volume": "moon"}}, "unknown volume 'moon'"),
        (
            {"call": "pipe", "args": {"name": "p", "nonblock": True, "_": 1}},
            "step 0.args: nothing is called '_' here; known are name, nonblock",
        ),
    ],
)
def test_arguments_that_nobody_knows_end_the_program_with_an_error(client: Client, step: object, said: str) -> None:
    answer = client.ask("run", program={"format": 1, "steps": [step]}, roots={"main": "/tmp"})
    assert (answer["ok"], answer["kind"]) == (False, "protocol")
    assert said in answer["error"]
    assert client.ask("hello")["ok"]


def test_a_name_of_the_wrong_kind_is_a_protocol_error(runner: Runner) -> None:
    answer = runner.ask(op.Pipe("p"), op.Load("p", 0, 1))
    assert answer["kind"] == "protocol"
    assert "step 1 (load): 'p' is not a mapping" in answer["error"]
    answer = runner.ask(op.Mmap("m", 4096, flags=(op.MapFlag.PRIVATE, op.MapFlag.ANONYMOUS)), op.Close("m"))
    assert "'m' has no descriptor to close" in answer["error"]
    answer = runner.ask(op.Pipe("p"), op.Close("p", "top"))
    assert "unknown end 'top'" in answer["error"]


def test_an_operation_that_the_agent_cannot_do_says_what_happened_in_it(client: Client) -> None:
    steps = [{"call": "open", "args": {"name": "f", "path": "a"}}, {"call": "pread", "args": {"file": "f", "offset": 0, "length": 1 << 50}}]
    answer = client.ask("run", program={"format": 1, "steps": steps}, roots={"main": "/tmp"})
    assert (answer["ok"], answer["kind"]) == (False, "protocol")
    assert "step 1 (pread): MemoryError: the kernel has no 1125899906842624 bytes of memory for the agent: ENOMEM" in answer["error"]
    assert "do_pread" in answer["error"]


def test_a_step_that_never_comes_to_rest_is_a_hang_at_the_limit(runner: Runner) -> None:
    # A step that makes progress is not blocked, however long it takes: here the kernel copies for longer than the limit.
    huge = 1 << 32
    answer = runner.ask(
        op.Mmap("m", huge, flags=(op.MapFlag.PRIVATE, op.MapFlag.ANONYMOUS, op.MapFlag.NORESERVE)),
        op.Open("z", "node:", (op.OpenFlag.RDWR,)),
        op.Pread("z", 0, huge - 4096, into="m"),
        roots={"node": "/dev/zero"},
        limit_ms=100,
    )
    assert (answer["ok"], answer["kind"]) == (False, "hang")
    assert "step 2 (pread) still ran after 0 s" in answer["error"]
    assert runner.client.ask("hello")["ok"]


def test_the_daemon_outlives_a_host_that_goes_away_in_the_middle_of_a_program(daemon: Daemon) -> None:
    document = program_document(Program((Step(op.Pipe("p")), Step(op.Read("p", 1)))))
    request = {"id": 1, "do": "run", "token": daemon.token, "program": document, "roots": {}, "blocked_ms": 60_000}
    with socket.create_connection(("127.0.0.1", daemon.port)) as connection:
        connection.sendall(json.dumps(request).encode() + b"\n")
        assert wait_until(lambda: readers_of_pipes(daemon.pid), Deadline.after(20))
    assert wait_until(lambda: not readers_of_pipes(daemon.pid), Deadline.after(20))
    with daemon.connected() as client:
        assert client.ask("hello")["ok"]


def readers_of_pipes(pid: int) -> list[int]:
    """The processes below ``pid`` that sleep in a read of a pipe."""
    found = []
    left = [pid]
    while left:
        for path in Path(f"/proc/{left.pop()}/task").glob("*/children"):
            with contextlib.suppress(OSError):  # it has just ended
                for child in map(int, path.read_text().split()):
                    left.append(child)
                    if "pipe" in Path(f"/proc/{child}/wchan").read_text():
                        found.append(child)
    return found


def test_a_host_that_reads_nothing_wedges_nobody_else(daemon: Daemon) -> None:
    with socket.create_connection(("127.0.0.1", daemon.port)) as deaf:
        request = json.dumps({"id": 1, "do": "read_files", "token": daemon.token, "patterns": ["/proc/kallsyms"] * 3}).encode() + b"\n"
        deaf.sendall(request * 20)
        with daemon.connected() as client:
            assert client.ask("hello")["ok"]


def test_killing_a_session_kills_its_programs(daemon: Daemon) -> None:
    document = program_document(Program((Step(op.Pipe("p")), Step(op.Fork("b")), Step(op.Read("p", 1), process="b"))))
    request = {"id": 1, "do": "run", "token": daemon.token, "program": document, "roots": {}, "blocked_ms": 60_000}
    with socket.create_connection(("127.0.0.1", daemon.port)) as connection:
        connection.sendall(json.dumps(request).encode() + b"\n")
        assert wait_until(lambda: readers_of_pipes(daemon.pid), Deadline.after(20))
        (reader,) = readers_of_pipes(daemon.pid)
        session = os.getsid(reader)
        os.kill(session, signal.SIGKILL)
        assert "signal 9 ended the agent's session" in Client(connection, None).listen()["error"]
    assert wait_until(lambda: not session_members(session), Deadline.after(20))


def test_commands_run_in_order_and_stop_at_the_first_failure(client: Client) -> None:
    wanted = [
        {"argv": ["sh", "-c", "echo out; echo err >&2; exit 3"], "may_fail": True},
        {"argv": ["cat"], "stdin": "hello"},
        {"argv": ["sh", "-c", "exit 4"]},
        {"argv": ["touch", "/nonexistent/never"]},
    ]
    results = client.ask("commands", commands=wanted)["results"]
    assert [(r["status"], r["stdout"], r["stderr"]) for r in results] == [(3, "out\n", "err\n"), (0, "hello", ""), (4, "", "")]


def test_a_command_that_is_not_there_or_takes_too_long_says_so(client: Client) -> None:
    (result,) = client.ask("commands", commands=[{"argv": ["no-such-program"]}])["results"]
    assert (result["status"], result["stderr"]) == (127, "no-such-program: no such program in the guest")
    (result,) = client.ask("commands", commands=[{"argv": ["sleep", "60"], "limit_s": 0.1}])["results"]
    assert result["status"] == -signal.SIGKILL
    assert "still running after 0 s, so it was ended" in result["stderr"]


def test_files_are_read_by_pattern_and_folders_resolved(client: Client, tmp_path: Path) -> None:
    (tmp_path / "a1").write_text("one")
    (tmp_path / "a2").mkdir()
    (tmp_path / "a3").symlink_to(tmp_path / "a2")
    answer = client.ask("read_files", patterns=[f"{tmp_path}/a*", f"{tmp_path}/none*"])
    assert answer["files"] == {f"{tmp_path}/a1": "one"}
    assert answer["folders"] == {f"{tmp_path}/a2": f"{tmp_path}/a2", f"{tmp_path}/a3": f"{tmp_path}/a2"}


def test_a_short_program_is_done_and_files_are_read_and_removed_in_one_request(client: Client, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    steps = (op.Open("f", "probe", (op.OpenFlag.RDWR, op.OpenFlag.CREAT)), op.Pwrite("f", 0, 4096), op.Mmap("m", 4096, "f"))
    program = program_document(Program(tuple(map(Step, (*steps, op.Store("m", 0, 8), op.Munmap("m"), op.Close("f"))))))
    places = {"roots": {"main": str(tmp_path)}, "patterns": [f"{tmp_path}/*"], "remove": [f"{tmp_path}/probe"]}
    answer = client.ask("inspect", program=program, **places)
    assert [step["how"] for step in answer["observations"]["steps"]] == ["returned"] * 6
    assert answer["files"].keys() == {f"{tmp_path}/probe", f"{tmp_path}/text"}
    assert [path.name for path in tmp_path.iterdir()] == ["text"]
    broken = {"format": 1, "steps": [{"call": "open", "args": {"name": "f", "path": "moon:a"}}]}
    answer = client.ask("inspect", program=broken, **places)
    assert (answer["kind"], answer["error"].split(":")[:2]) == ("protocol", ["step 0 (open)", " the path 'moon"])


def test_a_request_that_fails_inside_says_how(client: Client, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    answer = client.ask("remove_files", paths=[f"{tmp_path}/file/in"])
    assert (answer["ok"], answer["kind"]) == (False, "failed")
    assert answer["error"] == f"NotADirectoryError: [Errno 20] Not a directory: '{tmp_path}/file/in'"


@pytest.mark.parametrize(
    ("do", "given", "key"),
    [
        ("run_many", {}, "programs"),
        ("run_many", {"programs": [{}]}, "fresh"),
        ("commands", {}, "commands"),
        ("read_files", {}, "patterns"),
        ("remove_files", {}, "paths"),
        ("inspect", {}, "program"),
        ("inspect", {"program": {"format": 1, "steps": []}}, "patterns"),
        ("inspect", {"program": {"format": 1, "steps": []}, "patterns": []}, "remove"),
        ("age", {}, "writer"),
        ("audit", {}, "file_limit"),
        ("hello", {"seed": ""}, "time_s"),
    ],
)
def test_a_request_without_what_it_needs_is_a_break_of_the_protocol(client: Client, do: str, given: dict[str, Any], key: str) -> None:
    answer = client.ask(do, **given)
    assert (answer["ok"], answer["kind"], answer["error"]) == (False, "protocol", f"the request {do} needs {key!r}")


def test_a_process_that_does_not_go_makes_the_end_of_a_program_a_hang() -> None:
    # The child leaves the group that is killed, so it stands for one that the kernel does not let go.
    script = (
        "import os, signal, sys; from harness.agent import outcome, program\n"
        "said, say = os.pipe()\n"
        "child = os.fork()\n"
        "if child == 0: os.setsid(); os.write(say, b'x'); signal.pause()\n"
        "os.read(said, 1)\n"
        "main = os.fork()\n"
        "if main == 0: os.setpgid(0, 0); signal.pause()\n"
        "try: program.end_program(main, 0.05)\n"
        "except outcome.HangError as error: print(error)\n"
        "finally: os.kill(child, signal.SIGKILL)\n"
    )
    said = run([sys.executable, "-c", script], Deadline.after(30), cwd=Path(__file__).parents[3]).stdout
    assert said == "the processes of the program could not be ended within 0.05 s\n"


def test_the_areas_of_a_mapping_are_summed() -> None:
    text = (
        "00001000-00003000 rw-s 00000000 00:01 5 /a b\nRss: 4 kB\nKernelPageSize: 4 kB\nLocked: 4 kB\nVmFlags: rd wr sh\n"
        "00003000-00005000 rw-s 00002000 00:01 5 /a b\nRss: 8 kB\nKernelPageSize: 2048 kB\nVmFlags: rd\n"
        "00009000-0000a000 rw-p 00000000 00:00 0\nRss: 100 kB\nVmFlags: xx\n"
    )
    found = smaps_of(text, 0x2000, 0x2000)
    assert (found["rss"], found["kernel_page_size"], found["locked"], found["vm_flags"]) == (12288, 4096, 4096, "rd wr sh")
