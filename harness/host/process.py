"""The only home of ``subprocess``: running commands to their end, and starting ones that live on."""

import logging
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO

from harness.errors import HostError
from harness.host.deadline import Deadline
from harness.host.log import took

_log = logging.getLogger(__name__)

#: How long a command runs between two looks at it.
_WATCH_S = 2.0


@dataclass(frozen=True)
class Completed:
    """A command that ended: its exit status (negative: the signal) and what it printed."""

    command: tuple[str, ...]
    status: int
    stdout: str
    stderr: str


def run(
    command: Sequence[str],
    deadline: Deadline,
    *,
    check: bool = True,
    stdin: str = "",
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
    watch: Callable[[], None] | None = None,
) -> Completed:
    """Run ``command`` to its end and return what it said.

    With ``log`` both streams go to that file instead; ``watch`` is called every few seconds, and may read it. Raises HostError when the
    program is missing, the deadline passes (the whole process group is killed first) or, with ``check``, the exit status is not 0.
    """
    line = shlex.join(command)
    try:
        output: AbstractContextManager[IO[bytes] | int] = log.open("ab") if log else nullcontext(subprocess.PIPE)
        with took(_log, logging.DEBUG, f"ran {_without_passwords(line)}"), output as sink:
            process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=sink,
                stderr=subprocess.STDOUT if log else subprocess.PIPE,
                cwd=cwd,
                env=dict(env) if env is not None else None,
                text=True,
                errors="replace",
                start_new_session=True,
            )
            try:
                out, err = _communicate(process, stdin, deadline, watch)
            except BaseException:
                _kill_group(process)
                raise
    except FileNotFoundError as error:
        raise HostError(f"cannot run {command[0]}: no such program on this computer") from error
    except subprocess.TimeoutExpired as error:
        raise HostError(f"still running after {deadline.limit_s:.0f} s, so it was ended: {line}") from error
    done = Completed(tuple(command), process.returncode, out or "", err or "")
    if check and done.status != 0:
        said = log.read_text(errors="replace") if log else done.stderr or done.stdout
        tail = "\n".join(said.rstrip().splitlines()[-15:]) or "(it printed nothing)"
        raise HostError(f"exit status {done.status} from: {line}\n{tail}" + (f"\nwhole output: {log}" if log else ""))
    return done


def _communicate(process: "subprocess.Popen[str]", stdin: str, deadline: Deadline, watch: Callable[[], None] | None) -> tuple[str, str]:
    """Wait for the end of ``process`` and return what it said. Raises TimeoutExpired at the deadline."""
    said: str | None = stdin
    while True:
        if watch is not None:
            watch()
        look = deadline if watch is None else deadline.within(_WATCH_S)
        try:
            return process.communicate(said, timeout=look.remaining_s)
        except subprocess.TimeoutExpired:
            if deadline.expired:
                raise
            said = None  # it has been sent


def start(
    command: Sequence[str],
    *,
    stdout: int = subprocess.DEVNULL,
    stderr: int = subprocess.DEVNULL,
    stdin: int = subprocess.DEVNULL,
    pass_fds: Sequence[int] = (),
    env: Mapping[str, str] | None = None,
    new_session: bool = True,
) -> "subprocess.Popen[bytes]":
    """Start ``command`` and return at once. Raises HostError when the program is missing."""
    try:
        process = subprocess.Popen(
            list(command),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            pass_fds=tuple(pass_fds),
            env=dict(env) if env is not None else None,
            start_new_session=new_session,
        )
        _log.debug("process %d is %s", process.pid, command[0])
        return process
    except FileNotFoundError as error:
        raise HostError(f"cannot run {command[0]}: no such program on this computer") from error


@contextmanager
def ending_together(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """Hand a signal that would end this process on to the other one first, and end by it when that has ended."""
    with _ending_later(process.send_signal):
        yield


@contextmanager
def cleaning_up_first() -> Iterator[None]:
    """Take a signal that would end this process for Ctrl-C, and end by it when what was begun is cleaned up."""

    def interrupt(number: int) -> None:
        signal.signal(number, signal.SIG_IGN)  # a second one must not interrupt the cleaning
        raise KeyboardInterrupt

    with _ending_later(interrupt):
        yield


@contextmanager
def _ending_later(act: Callable[[int], None]) -> Iterator[None]:
    """Have ``act`` be called by a signal that would end this process, which it then does at the end of the context."""
    received: list[int] = []

    def handle(number: int, _: FrameType | None) -> None:
        received.append(number)
        act(number)

    ending = (number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is not signal.SIG_IGN)  # nohup
    former = {number: signal.signal(number, handle) for number in ending}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
        if received:
            signal.raise_signal(received[0])


def _without_passwords(line: str) -> str:
    """A package mirror may be named with a password."""
    return re.sub(r"(?<=//)[^/@\s]+@", "", line)


def _kill_group(process: "subprocess.Popen[str]") -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
