"""The agent's command line. Until the agent has said where it listens, nothing is loaded that this does not need: guests are slow."""

import os
import socket
import sys

USAGE = "usage: agent.pyz ADDRESS:PORT TOKEN_FILE [--foreground]"


def main(arguments: list[str]) -> int:
    """Listen, say where, and go to the background. Port 0 lets the system choose; the token file gets port and token."""
    if len(arguments) not in (2, 3) or arguments[2:] not in ([], ["--foreground"]):
        print(USAGE, file=sys.stderr)
        return 2
    machine = os.uname().machine
    if machine != "x86_64":
        print(f"the agent knows the system calls of x86_64 only, this is {machine}", file=sys.stderr)
        return 1
    address, _, port = arguments[0].rpartition(":")
    listener = socket.create_server((address, int(port)), backlog=16)
    token = os.urandom(16).hex()
    ready = f'{{"port": {listener.getsockname()[1]}, "token": "{token}"}}'
    _write(arguments[1], ready)
    print(ready, flush=True)
    if not arguments[2:]:
        _go_to_background(os.path.splitext(arguments[1])[0] + ".log")
    from harness.agent.daemon import run_daemon  # and with it everything else

    return run_daemon(listener, token)


def _write(path: str, text: str) -> None:
    """Have the file be there with all that is in it, for nobody else to read."""
    descriptor = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.write(descriptor, text.encode())
    os.close(descriptor)
    os.replace(f"{path}.new", path)


def _go_to_background(log: str) -> None:
    if os.fork():
        os._exit(0)
    os.setsid()
    os.chdir("/")
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
        if source > 2 and target != 1:
            os.close(source)
