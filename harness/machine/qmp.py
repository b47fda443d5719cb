"""QMP with deadlines: a synchronous face on qemu.qmp, a queue of events, and a transcript of everything said."""

import asyncio
import concurrent.futures
import contextlib
import json
import logging
import socket
import threading
import time
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import TypeVar

from qemu.qmp import EventListener, ExecuteError, Message, QMPClient, QMPError, Runstate

from harness.errors import MachineError
from harness.host.deadline import Deadline, wait_until
from harness.host.log import took

log = logging.getLogger(__name__)

T = TypeVar("T")


class Qmp:
    """The QMP session of one machine, over one end of a socket pair.

    A thread runs the event loop, so that events arrive whether or not anyone waits. Every error is a MachineError that names the
    command.
    """

    def __init__(self, line: socket.socket, transcript: Path) -> None:
        self._line = line
        self._transcript = transcript.open("w", buffering=1)
        self._started_s = time.monotonic()
        self._lock = threading.Lock()
        self._events: list[Message] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"qmp {transcript}", daemon=True)
        self._listener = _Recorder(self)

    def __enter__(self) -> "Qmp":
        self._thread.start()
        self._client: QMPClient = self._run(_make_client(self._listener), Deadline.after(5))
        return self

    def __exit__(self, *_: object) -> None:
        # The session may be broken in any way, and a greeting that was given up leaves it half made: it only has to go.
        with contextlib.suppress(Exception):
            self._run(_disconnect(self._client), Deadline.after(5))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._line.close()
        self._transcript.close()

    def connect(self, deadline: Deadline) -> None:
        """Wait for QEMU's greeting and negotiate. Raises MachineError."""
        self._ask("the greeting", self._client.connect(self._line), deadline)

    def execute(self, command: str, arguments: Mapping[str, object] | None = None, *, deadline: Deadline) -> object:
        """Run ``command`` and return its value. Raises MachineError on refusal, a lost QEMU or a passed deadline."""
        self.note("execute", {"command": command, "arguments": dict(arguments or {})})
        # What is asked again and again until it changes is in the transcript only.
        with contextlib.nullcontext() if command.startswith("query-") else took(log, logging.DEBUG, f"QMP {command}"):
            value = self._ask(command, self._client.execute(command, dict(arguments or {})), deadline)
        self.note("return", value)
        return value

    def events(self) -> tuple[Message, ...]:
        """Return every event so far, in order."""
        with self._lock:
            return tuple(self._events)

    def wait_closed(self, deadline: Deadline) -> bool:
        """Wait until QEMU hung up and every event is in; False when the deadline passed first."""
        # After the end of the stream qemu.qmp waits for a disconnect by us, in this state or (never connected) in idle.
        return bool(wait_until(lambda: self._client.runstate is not Runstate.RUNNING, deadline))

    def note(self, what: str, value: object) -> None:
        """Write one line into the transcript: seconds since the session began, what, and the value."""
        with self._lock:
            if not self._transcript.closed:
                self._transcript.write(json.dumps([round(time.monotonic() - self._started_s, 4), what, value]) + "\n")

    def record_event(self, event: Message) -> None:
        with self._lock:
            self._events.append(event)
        self.note("event", dict(event))

    def _ask(self, what: str, question: Coroutine[object, object, T], deadline: Deadline) -> T:
        try:
            return self._run(question, deadline)
        except concurrent.futures.TimeoutError as error:
            raise MachineError(f"QEMU did not answer {what} over QMP within {deadline.limit_s:.0f} s") from error
        except ExecuteError as error:
            self.note("error", str(error))
            raise MachineError(f"QEMU refused the QMP command {what}: {error}") from error
        except (QMPError, EOFError, OSError) as error:
            self.note("lost", repr(error))
            raise MachineError(f"QEMU hung up while we waited for {what} over QMP ({error or 'end of file'})") from error

    def _run(self, question: Coroutine[object, object, T], deadline: Deadline) -> T:
        future = asyncio.run_coroutine_threadsafe(question, self._loop)
        try:
            return future.result(deadline.remaining_s)
        except concurrent.futures.TimeoutError:
            future.cancel()
            raise


class _Recorder(EventListener):
    """Hands each event over as it arrives, so that one that comes just before QEMU hangs up is not lost with a queue."""

    def __init__(self, owner: Qmp) -> None:
        super().__init__()
        self._owner = owner

    async def put(self, event: Message) -> None:
        self._owner.record_event(event)


async def _make_client(listener: EventListener) -> QMPClient:
    client = QMPClient("machine")
    client.register_listener(listener)
    return client


async def _disconnect(client: QMPClient) -> None:
    await client.disconnect()
