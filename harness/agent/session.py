"""A session: answers the requests of one connection, one at a time."""

import contextlib
import hmac
import json
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

from harness.agent import requests
from harness.agent.outcome import HangError, HostGoneError, ProtocolError
from harness.agent.program import run_programs
from harness.agent.requests import taint
from harness.ops.codec import PROGRAM_FORMAT, DocumentError

LONGEST_LINE = 64 << 20
SEND_LIMIT_S = 30

Answer = dict[str, Any]


def _age(request: dict[str, Any]) -> Answer:
    from harness.agent import volumes  # the first answer does not wait for it

    return volumes.age(request)


def _prepare(request: dict[str, Any]) -> Answer:
    from harness.agent import volumes

    return volumes.prepare(request)


def _clear(request: dict[str, Any]) -> Answer:
    from harness.agent import volumes

    return volumes.clear(request)


def _audit(request: dict[str, Any]) -> Answer:
    from harness.agent import volumes

    return volumes.audit(request)


#: What a session answers beside programs.
REQUESTS: dict[str, Callable[[dict[str, Any]], Answer]] = {
    "hello": requests.hello,
    "commands": requests.commands,
    "read_files": requests.read_files,
    "remove_files": requests.remove_files,
    "inspect": requests.inspect,
    "kernel_log": requests.kernel_log,
    "age": _age,
    "prepare": _prepare,
    "clear": _clear,
    "audit": _audit,
}


class Request(dict[str, Any]):
    """What was asked. Raises ProtocolError where a key is asked for that it does not have."""

    def __missing__(self, key: str) -> Any:
        raise ProtocolError(f"the request {self.get('do')} needs {key!r}")


def answers(line: bytes, host: socket.socket | None, token: str | None, wait: Callable[[], object]) -> Iterator[Answer]:
    """Yield the answers to one request line. ``kind`` says whose fault an error is, with which they end: protocol, hang or failed.

    ``wait``: what is to be waited for before a program runs.
    """
    number: Any = None
    try:
        request = json.loads(line)
        if not isinstance(request, dict):
            raise ProtocolError("a request is a JSON object")
        number = request.get("id")
        if token is not None and not hmac.compare_digest(str(request.get("token")), token):
            raise ProtocolError("the first request of a connection must carry the agent's token")
        for said in _do(Request(request), host, wait):
            yield {"id": number, "ok": True, **said}
    except (ProtocolError, DocumentError, json.JSONDecodeError, UnicodeDecodeError) as error:
        yield {"id": number, "ok": False, "kind": "protocol", "error": str(error)}
    except HangError as error:
        yield {"id": number, "ok": False, "kind": "hang", "error": str(error)}
    except HostGoneError:
        raise
    except Exception as error:
        import traceback

        traceback.print_exc()
        yield {"id": number, "ok": False, "kind": "failed", "error": f"{type(error).__name__}: {error}"}


def _do(request: Request, host: socket.socket | None, wait: Callable[[], object]) -> Iterator[Answer]:
    do = request.get("do")
    if do in ("run", "run_many"):
        wait()
    if do == "run":
        yield from _run([request["program"]], request, [], host)
    elif do == "run_many":
        yield from _run(request["programs"], request, request["fresh"], host)
    elif do in REQUESTS:
        yield REQUESTS[do](request)
    else:
        raise ProtocolError(f"unknown request {do!r}: known are run, run_many, {', '.join(REQUESTS)}")


def _run(programs: list[Any], request: Request, fresh: list[str], host: socket.socket | None) -> Iterator[Answer]:
    def prepare() -> None:
        for folder in fresh:
            requests.make_empty(folder)

    for seen in run_programs(programs, request, host, prepare):
        yield {"observations": {"format": PROGRAM_FORMAT, "steps": seen}, "taint": taint()}


def serve(host: socket.socket, token: str | None, wait: Callable[[], object]) -> None:
    """Answer the requests of one connection until the other side is gone or reads no more; :func:`answers` says what ``wait`` is."""
    host.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", SEND_LIMIT_S, 0))
    with contextlib.suppress(OSError):
        host.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with contextlib.suppress(HostGoneError, OSError):
        for line in _lines(host):
            for said in answers(line, host, token, wait):
                host.sendall(json.dumps(said).encode() + b"\n")
                if token is not None and not said["ok"]:
                    return
            token = None


def _lines(host: socket.socket) -> Iterator[bytes]:
    pieces: list[bytes] = []
    size = 0
    while chunk := host.recv(1 << 20):
        *whole, rest = chunk.split(b"\n")
        for line in whole:
            yield b"".join([*pieces, line])
            pieces, size = [], 0
        pieces.append(rest)
        size += len(rest)
        if size > LONGEST_LINE:
            return
