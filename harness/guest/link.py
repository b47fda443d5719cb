"""The link to the agent: JSON lines over an SSH channel (docs/agent-protocol.md), one request at a time."""

import hashlib
import itertools
import json
import logging
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from harness.errors import AgentError, GuestError, GuestHungError, HarnessError
from harness.guest.ssh import Shell, Stream
from harness.host.deadline import Deadline
from harness.host.log import took
from harness.ops.codec import PROGRAM_FORMAT

log = logging.getLogger(__name__)

FOLDER = "/run/pmem-harness"
AGENT_PATH = f"{FOLDER}/agent.pyz"
TOKEN_PATH = f"{FOLDER}/agent.json"
#: Where the agent writes what goes wrong with itself.
LOG_PATH = f"{FOLDER}/agent.log"


@dataclass(frozen=True)
class Endpoint:
    """Where the agent's daemon listens in the guest, and the token that a connection must show."""

    port: int
    token: str


@dataclass(frozen=True)
class GuestCommand:
    """A command for the agent to run; ``may_fail`` lets the next ones run whatever its exit status."""

    argv: tuple[str, ...]
    may_fail: bool = False


@dataclass(frozen=True)
class GuestFiles:
    """Texts by path (None: unreadable); for folders where they really are, and their file system's block size in bytes."""

    files: Mapping[str, str | None]
    folders: Mapping[str, str]
    block_bytes: Mapping[str, int]

    def text(self, path: str) -> str | None:
        """The stripped text of a file, or None where there is none or it cannot be read."""
        found = self.files.get(path)
        return None if found is None else found.strip()


@dataclass(frozen=True)
class CommandOutput:
    argv: tuple[str, ...]
    status: int
    stdout: str
    stderr: str
    took_s: float


def start_agent(shell: Shell, source: bytes, deadline: Deadline) -> Endpoint:
    """Carry the agent into the guest and start its daemon. Raises GuestError, or AgentError when it says nonsense."""
    start = f"python3 -I -S {AGENT_PATH} 127.0.0.1:0 {TOKEN_PATH}"
    script = f"umask 077; mkdir -p {FOLDER} && cat > {AGENT_PATH} && exec {start}"
    return _endpoint(shell.run(["sh", "-c", script], deadline, stdin=source).stdout)


def _endpoint(text: str) -> Endpoint:
    try:
        said = json.loads(text)
        return Endpoint(int(said["port"]), str(said["token"]))
    except (ValueError, KeyError, TypeError) as error:
        raise AgentError(f"the agent did not say where it listens, but: {text!r}") from error


@contextmanager
def linked(shell: Shell, endpoint: Endpoint, source: bytes, deadline: Deadline, *, restored: bool = False) -> "Iterator[AgentLink]":
    """Connect to the daemon and make sure that it is the agent of this harness.

    ``restored``: the guest was saved and shares its past with others; it gets the time of day and random numbers of its own.
    Raises GuestError or AgentError.
    """
    wake = {"time_s": time.time(), "seed": secrets.token_hex(32)} if restored else {}
    with ExitStack() as stack:
        try:
            link = AgentLink(stack.enter_context(shell.open_stream(endpoint.port, deadline)))
            hello = link.request("hello", deadline, token=endpoint.token, **wake)
        except GuestError as error:
            raise type(error)(f"{error}\nthe agent said that it was ready; its log in the guest is {LOG_PATH}") from error
        ours = hashlib.sha256(source).hexdigest()
        if (hello.get("format"), hello.get("agent")) != (PROGRAM_FORMAT, ours):
            raise AgentError(f"another agent runs in the guest: format {hello.get('format')}, sha256 {hello.get('agent')}, ours is {ours}")
        yield link


def _observations_of(answer: Mapping[str, Any]) -> dict[str, Any]:
    observations = answer.get("observations")
    if not isinstance(observations, dict):
        raise AgentError(f"the answer to run has no observations: {str(answer)[:300]}")
    return observations


def _files_of(answer: Mapping[str, Any]) -> GuestFiles:
    return GuestFiles(answer["files"], answer["folders"], answer["block_bytes"])


class AgentLink:
    """Sends requests and matches the answers. After a GuestError the link is of no more use: the guest is.

    ``taint``: the kernel's taint flags, as the last answer that has them said; None where they could not be read, or nothing was run.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._numbers = itertools.count(1)
        self._rest = b""
        self.taint: int | None = None

    def request(self, do: str, deadline: Deadline, **arguments: Any) -> dict[str, Any]:
        """Send one request and return its answer.

        Raises GuestError when the guest is gone, hangs or says that what was asked failed; AgentError for a break of the protocol.
        """
        with took(log, logging.DEBUG, f"asked the agent for {do}"):
            return self._checked(do, self._ask(do, arguments, deadline), deadline)

    def _ask(self, do: str, arguments: Mapping[str, Any], deadline: Deadline) -> int:
        """Send a request and return its number."""
        number = next(self._numbers)
        self._stream.send(json.dumps({"id": number, "do": do, **arguments}).encode() + b"\n", deadline)
        return number

    def _checked(self, do: str, number: int, deadline: Deadline) -> dict[str, Any]:
        """Return the next answer, which must be one to the request of this number. Raises as :meth:`request`."""
        answer = self._answer(deadline)
        if answer.get("id") is None and answer.get("ok") is False:
            raise AgentError(f"asked for {do}, the agent broke: {answer.get('error')}")
        if answer.get("id") != number:
            raise AgentError(f"asked for {do} with id {number}, the answer has id {answer.get('id')}: {str(answer)[:300]}")
        if answer.get("ok") is True:
            self.taint = answer.get("taint", self.taint)
            if not isinstance(self.taint, int | None):
                raise AgentError(f"the answer to {do} has taint flags that are no number: {self.taint!r}")
            return answer
        problem = f"the agent answered {do} with an error: {answer.get('error')}"
        kinds: dict[object, type[HarnessError]] = {"protocol": AgentError, "hang": GuestHungError}
        raise kinds.get(answer.get("kind"), GuestError)(problem)

    def run(
        self,
        program: Mapping[str, Any],
        roots: Mapping[str, str],
        devices: Mapping[str, str],
        deadline: Deadline,
        *,
        blocked_s: float,
        limit_s: float,
    ) -> dict[str, Any]:
        """Run a program (``program_document``) and return the observations document."""
        limits = {"blocked_ms": round(blocked_s * 1000), "limit_ms": round(limit_s * 1000)}
        return _observations_of(self.request("run", deadline, program=program, roots=roots, devices=devices, **limits))

    def run_many(
        self,
        programs: Sequence[Mapping[str, Any]],
        roots: Mapping[str, str],
        devices: Mapping[str, str],
        fresh: Sequence[str],
        limit: Callable[[], Deadline],
        *,
        blocked_s: float,
        limit_s: float,
    ) -> Iterator[dict[str, Any]]:
        """Run programs in one round trip, the folders ``fresh`` empty before each; yield the observations document of each as it is there.

        ``limit``: by when the next one must be. Raises as :meth:`request`: it is the program after the last one yielded that did it, or
        where the guest is gone perhaps an earlier one.
        """
        request = {"programs": list(programs), "fresh": list(fresh), "roots": roots, "devices": devices}
        limits = {"blocked_ms": round(blocked_s * 1000), "limit_ms": round(limit_s * 1000)}
        number = self._ask("run_many", {**request, **limits}, limit())
        for _ in programs:
            yield _observations_of(self._checked("run_many", number, limit()))

    def commands(self, commands: Sequence[GuestCommand], deadline: Deadline) -> tuple[CommandOutput, ...]:
        """Run commands in the guest in one round trip. Raises GuestError with what the first failing one printed."""
        if not commands:
            return ()
        limit_s = max(1.0, deadline.remaining_s - 1.0)
        wanted = [{"argv": list(c.argv), "may_fail": c.may_fail, "limit_s": limit_s} for c in commands]
        rows = self.request("commands", deadline, commands=wanted)["results"]
        outputs = tuple(CommandOutput(tuple(r["argv"]), r["status"], r["stdout"], r["stderr"], r["took_s"]) for r in rows)
        for command, output in zip(commands, outputs, strict=False):
            if output.status != 0 and not command.may_fail:
                said = (output.stderr or output.stdout).strip() or "(it printed nothing)"
                raise GuestError(f"exit status {output.status} in the guest from: {' '.join(output.argv)}\n{said}")
        return outputs

    def read_files(self, patterns: Sequence[str], deadline: Deadline) -> GuestFiles:
        return _files_of(self.request("read_files", deadline, patterns=list(patterns)))

    def inspect(
        self, program: Mapping[str, Any], roots: Mapping[str, str], patterns: Sequence[str], remove: Sequence[str], deadline: Deadline
    ) -> tuple[dict[str, Any], GuestFiles]:
        """Do a short program that can neither block nor crash, read files and remove some, in one round trip.

        Returns the observations document and the files.
        """
        answer = self.request("inspect", deadline, program=program, roots=roots, patterns=list(patterns), remove=list(remove))
        return answer["observations"], _files_of(answer)

    def remove_files(self, paths: Sequence[str], deadline: Deadline) -> None:
        self.request("remove_files", deadline, paths=list(paths))

    def _answer(self, deadline: Deadline) -> dict[str, Any]:
        pieces = [self._rest]
        while b"\n" not in pieces[-1]:
            pieces.append(self._stream.receive(deadline))
        line, _, self._rest = b"".join(pieces).partition(b"\n")
        try:
            answer = json.loads(line)
        except ValueError as error:
            raise AgentError(f"the agent said what is not JSON: {line[:300]!r}") from error
        if not isinstance(answer, dict):
            raise AgentError(f"the agent said what is no answer: {line[:300]!r}")
        return answer
