"""The daemon: accepts connections for ever, and forks a session for each."""

import contextlib
import gc
import json
import os
import resource
import select
import signal
import socket
from typing import NoReturn

from harness.agent.actors import die
from harness.agent.requests import identity
from harness.agent.session import serve
from harness.agent.syscalls import call, read_text

_PR_SET_CHILD_SUBREAPER = 36


def run_daemon(listener: socket.socket, token: str | None) -> NoReturn:
    """Accept connections for ever; each is served by a process of its own, and what that leaves behind is killed."""
    call("prctl", _PR_SET_CHILD_SUBREAPER, 1)
    identity()
    wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    listener.setblocking(False)
    gc.enable()
    #: The connection of each session, so that somebody can still speak when the session is gone.
    hosts: dict[int, socket.socket] = {}
    waiting = select.poll()
    waiting.register(listener, select.POLLIN)
    waiting.register(wake_read, select.POLLIN)
    # It ends when the daemon has warmed up: no program runs before that.
    warm, *cold = os.pipe()
    while True:
        gc.collect()
        gc.freeze()
        ready = dict(waiting.poll())
        if wake_read in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(wake_read, 4096)
            _reap_sessions(hosts)
        if listener.fileno() in ready:
            with contextlib.suppress(OSError):
                host, _ = listener.accept()
                session = os.fork()
                if session == 0:
                    others = [other.detach() for other in hosts.values()]
                    _be_session(host, token, warm, [listener.fileno(), wake_read, wake_write, *cold, *others])
                hosts[session] = host
        if hosts and cold:  # the first answer does not wait for it
            _warm_up()
            os.close(cold.pop())


def _warm_up() -> None:
    """Do what programs do most; where that cannot be done the log says so, and programs are slower."""
    try:
        from harness.agent.warm import warm

        warm()
    except Exception:
        import traceback

        traceback.print_exc()


def _be_session(host: socket.socket, token: str | None, warm: int, inherited: list[int]) -> NoReturn:
    try:
        signal.set_wakeup_fd(-1)
        # What programs inherit: signals do what they do by default, and leave no core.
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.setsid()
        for descriptor in inherited:
            os.close(descriptor)
        host.setblocking(True)
        serve(host, token, lambda: os.read(warm, 1))
        os._exit(0)
    except BaseException:
        die()


def _reap_sessions(hosts: dict[int, socket.socket]) -> None:
    """Reap what has ended. Of a session that a signal ended the host is told so: the guest has not gone, and its kernel has answered."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        host = hosts.pop(pid, None)
        if host is not None:
            if os.WIFSIGNALED(status):
                problem = f"signal {os.WTERMSIG(status)} ended the agent's session, outside of any program's steps"
                last = json.dumps({"id": None, "ok": False, "kind": "protocol", "error": problem})
                with contextlib.suppress(OSError):
                    host.send(last.encode() + b"\n", socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            host.close()
        for left in session_members(pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(left, signal.SIGKILL)


def session_members(session: int) -> list[int]:
    """Return the processes of a session (setsid): what a session of the agent left behind when it was killed."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError, IndexError):
                if int(read_text(f"/proc/{entry}/stat").rpartition(")")[2].split()[3]) == session:
                    found.append(int(entry))
    return found
