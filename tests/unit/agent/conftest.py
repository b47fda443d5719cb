"""The agent itself, run on this computer: a daemon on the loopback, and a client that speaks its JSON lines."""

import json
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from harness.agent.bundle import agent_archive
from harness.host.deadline import Deadline, wait_until
from harness.host.process import start
from harness.model.outcome import Observation, observations_from
from harness.ops import Operation, Program, Step
from harness.ops.codec import program_document


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The agent as it travels."""
    path = tmp_path_factory.mktemp("archive") / "agent.pyz"
    path.write_bytes(agent_archive())
    return path


@dataclass(frozen=True)
class Client:
    """One connection to the agent."""

    connection: socket.socket
    token: str | None
    heard: bytearray = field(default_factory=bytearray)
    """What came and was not returned yet: two lines may come at once."""

    def ask_raw(self, line: bytes) -> dict[str, Any]:
        self.connection.sendall(line + b"\n")
        return self.listen()

    def listen(self) -> dict[str, Any]:
        """Return the next line that the agent says."""
        while b"\n" not in self.heard:
            chunk = self.connection.recv(1 << 20)
            assert chunk, f"the agent hung up after {bytes(self.heard)!r}"
            self.heard.extend(chunk)
        said, _, rest = self.heard.partition(b"\n")
        self.heard[:] = rest
        answer = json.loads(said)
        assert isinstance(answer, dict)
        return answer

    def ask(self, do: str, **rest: Any) -> dict[str, Any]:
        return self.ask_raw(json.dumps({"id": 1, "do": do, "token": self.token, **rest}).encode())


@dataclass(frozen=True)
class Daemon:
    pid: int
    port: int
    token: str

    @contextmanager
    def connected(self) -> Iterator[Client]:
        # A test that waits for an answer that never comes fails, some day.
        with socket.create_connection(("127.0.0.1", self.port), timeout=600) as connection:
            client = Client(connection, self.token)
            assert client.ask("hello")["ok"]
            yield client


@dataclass(frozen=True)
class Runner:
    """Runs programs on folders of this computer."""

    client: Client
    roots: dict[str, str]

    def ask(self, *steps: Step | Operation, **more: Any) -> dict[str, Any]:
        whole = tuple(s if isinstance(s, Step) else Step(s) for s in steps)
        document = program_document(Program(whole))
        request = {"roots": self.roots, "devices": {}, "blocked_ms": 500, "limit_ms": 120_000, **more}
        return self.client.ask("run", program=document, **request)

    def run(self, *steps: Step | Operation, **more: Any) -> tuple[Observation, ...]:
        answer = self.ask(*steps, **more)
        assert answer["ok"], answer
        return observations_from(answer["observations"])


@pytest.fixture(scope="session")
def daemon(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with started([sys.executable, "-I", "-S", str(archive)], tmp_path_factory.mktemp("agent")) as found:
        yield found


@contextmanager
def changed_agent(archive: Path, folder: Path, change: str) -> Iterator[Daemon]:
    """The agent after ``change``, Python that finds its modules imported from the archive and ``here``, the folder, in front of it."""
    begin = f"import sys; sys.path.insert(0, {str(archive)!r}); here = {str(folder)!r}\nfrom harness.agent import main\n"
    with started([sys.executable, "-c", f"{begin}{change}\nsys.exit(main.main(sys.argv[1:]))"], folder) as found:
        yield found


@contextmanager
def started(agent: list[str], folder: Path) -> Iterator[Daemon]:
    token_file = folder / "agent.json"
    process = start([*agent, "127.0.0.1:0", str(token_file), "--foreground"], stderr=2)
    try:
        assert wait_until(token_file.exists, Deadline.after(30))
        said = json.loads(token_file.read_text())
        yield Daemon(process.pid, said["port"], said["token"])
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def client(daemon: Daemon) -> Iterator[Client]:
    with daemon.connected() as connected:
        yield connected


@pytest.fixture
def runner(client: Client, tmp_path: Path) -> Runner:
    other = tmp_path / "other"
    other.mkdir()
    return Runner(client, {"main": str(tmp_path), "target": str(other)})
