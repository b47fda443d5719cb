"""A pytest plugin that breaks something while the first item of a session runs; the environment variable DRILL says what.

The victims' programs use tee(2), so that a fault of the kernel's is made by writing other code over that system call.
"""

import contextlib
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.guest.link import GuestCommand
from harness.lease.booted import BootedGuest
from harness.lease.clone import make_cloner
from harness.lease.guest import Auditing, Performed
from harness.lease.options import GuestOptions
from harness.lease.pool import Booter
from harness.machine.command import GDB_SOCKET
from harness.machine.console import Console
from harness.model.stack import StackReading, StorageStack
from harness.ops import Program
from harness.plugin.options import KERNELS, make_progress
from tests.drills.debugger import attached

Sabotage = Callable[[BootedGuest], contextlib.AbstractContextManager[None]]
SABOTAGES: dict[str, Sabotage] = {}
#: Set when somebody has looked whether the host is to blame for what became of the first item.
LOOKED = threading.Event()


def sabotage(function: Callable[[BootedGuest], Iterator[None]]) -> Callable[[BootedGuest], Iterator[None]]:
    SABOTAGES[function.__name__] = contextlib.contextmanager(function)
    return function


def pytest_harness_booter(config: pytest.Config) -> Booter:
    options = GuestOptions(step_limit_s=config.getoption("step_timeout"), gdb=True)
    cloner = make_cloner(config.stash[KERNELS].choice, make_progress(config), options)
    left = [SABOTAGES[os.environ["DRILL"]]]

    @contextlib.contextmanager
    def boot(stack: StorageStack, kernel: str) -> Iterator[Any]:
        with cloner(stack, kernel) as guest:
            assert isinstance(guest, BootedGuest)
            # What is mounted behind the plan's back is so for every guest, a fault is made once.
            again = os.environ["DRILL"] == "without_dax"
            yield Sabotaged(guest, left[0] if again else left.pop()) if left else guest

    return boot


class Sabotaged:
    """A guest like any other, but for what happens while it runs a program."""

    def __init__(self, guest: BootedGuest, fault: Sabotage) -> None:
        self._guest, self._fault = guest, fault

    def __getattr__(self, name: str) -> Any:
        return getattr(self._guest, name)

    def refresh(self) -> StackReading:
        if os.environ["DRILL"] == "without_dax":
            mount_without_dax(self._guest)
        return self._guest.refresh()

    def run(self, program: Program, auditing: Auditing) -> Performed:
        try:
            with self._fault(self._guest):
                return self._guest.run(program, auditing)
        finally:
            LOOKED.set()


# ---- another stack than the one that was asked for -------------------------------------------------------------------


@sabotage
def without_dax(guest: BootedGuest) -> Iterator[None]:
    yield


def mount_without_dax(guest: BootedGuest) -> None:
    """Mount again, without DAX, whatever was mounted with it."""
    for placed in guest.session.layout.mounted:
        mount = placed.volume.mount
        if placed.volume.asks_dax and mount is not None:
            again = ("mount", "-t", str(mount.filesystem), "-o", "dax=never", placed.node, placed.folder)
            guest.session.commands([GuestCommand(("umount", placed.folder)), GuestCommand(again)])


# ---- faults of the guest's kernel ------------------------------------------------------------------------------------


@sabotage
def panic(guest: BootedGuest) -> Iterator[None]:
    with soon(lambda: guest.machine.send_sysrq("c", guest.session._limit(5))):
        yield


@sabotage
def oops(guest: BootedGuest) -> Iterator[None]:
    """An undefined instruction in the kernel."""
    write_over(guest, bytes.fromhex("0f0b"))
    yield


@sabotage
def warning(guest: BootedGuest) -> Iterator[None]:
    """A call of __warn(), as WARN() makes it, then -ENOSYS."""
    symbols = kernel_symbols(guest, "__x64_sys_tee", "__warn")
    here, warn = symbols["__x64_sys_tee"].to_bytes(8, "little").hex(), symbols["__warn"].to_bytes(8, "little").hex()
    # sub rsp,8; file = 0; line = 0; caller = here; taint = 9; regs = 0; args = 0; call __warn; add rsp,8; return -38
    code = f"4883ec08 31ff 31f6 48ba{here} b909000000 4531c0 4531c9 48b8{warn} ffd0 4883c408 48c7c0daffffff c3"
    write_over(guest, bytes.fromhex(code))
    yield


@sabotage
def file_system_error(guest: BootedGuest) -> Iterator[None]:
    """An error that ext4 reports of itself, and that taints nothing, directly before the program: what comes earlier is not the item's."""
    run = guest.session.run

    def failing(program: Program, *rest: Any, **more: Any) -> Any:
        guest.session.commands([GuestCommand(("sh", "-c", "for f in /sys/fs/ext4/pmem*/trigger_fs_error; do echo drill > $f; done"))])
        return run(program, *rest, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guest.session, "run", failing)
        yield


@sabotage
def soft_lockup(guest: BootedGuest) -> Iterator[None]:
    """A loop in the kernel; the watchdog is made impatient first."""
    guest.session.commands([GuestCommand(("sysctl", "-q", "-w", "kernel.watchdog_thresh=1"))])
    write_over(guest, bytes.fromhex("ebfe"))
    yield


@sabotage
def kernel_hang(guest: BootedGuest) -> Iterator[None]:
    """A loop with interrupts off: nothing in the guest notices."""
    write_over(guest, bytes.fromhex("faebfe"))
    yield


@sabotage
def clock_jump(guest: BootedGuest) -> Iterator[None]:
    guest.session.commands([GuestCommand(("date", "-s", "2037-01-01"))])
    yield
    guest.session.commands([GuestCommand(("date", "-s", "2001-01-01"))])


def kernel_symbols(guest: BootedGuest, *names: str) -> dict[str, int]:
    pattern = "|".join(names)
    (output,) = guest.session.commands([GuestCommand(("grep", "-wE", f"({pattern})$", "/proc/kallsyms"))])
    found = {line.split()[2]: int(line.split()[0], 16) for line in output.stdout.splitlines()}
    assert all(found.get(name) for name in names), output.stdout
    return found


def write_over(guest: BootedGuest, code: bytes) -> None:
    address = kernel_symbols(guest, "__x64_sys_tee")["__x64_sys_tee"]
    with attached(guest.machine.folder / GDB_SOCKET) as debugger:
        debugger.write(address, code)


# ---- faults on the way to the guest ----------------------------------------------------------------------------------


@sabotage
def agent_killed(guest: BootedGuest) -> Iterator[None]:
    kill_once_it_runs(guest, "pgrep -f agent.pyz")
    yield


@sabotage
def session_killed(guest: BootedGuest) -> Iterator[None]:
    """The process of the agent that serves this host, killed while its daemon lives on."""
    kill_once_it_runs(guest, "pgrep -P $(pgrep -o -f agent.pyz)")
    yield


@sabotage
def sshd_killed(guest: BootedGuest) -> Iterator[None]:
    kill_once_it_runs(guest, "pgrep dropbear")
    yield


@sabotage
def connection_cut(guest: BootedGuest) -> Iterator[None]:
    assert guest.session.ssh is not None
    with soon(guest.session.ssh._transport.sock.close):
        yield


def kill_once_it_runs(guest: BootedGuest, find: str) -> None:
    """Have what ``find`` prints the process ids of killed as soon as the program's file is there: on a busy computer no later than that."""
    assert guest.session.ssh is not None
    (placed,) = guest.session.layout.volumes
    script = f"found=$({find}); (while [ ! -e {placed.folder}/a ]; do :; done; kill -9 $found) > /dev/null 2>&1 < /dev/null &"
    guest.session.ssh.run(["setsid", "sh", "-c", script], guest.session._limit(30))


# ---- faults of the host ----------------------------------------------------------------------------------------------


@sabotage
def qemu_killed(guest: BootedGuest) -> Iterator[None]:
    with soon(lambda: os.kill(guest.machine.pid, signal.SIGKILL)):
        yield


@sabotage
def qemu_stopped(guest: BootedGuest) -> Iterator[None]:
    os.kill(guest.machine.pid, signal.SIGSTOP)
    yield


@sabotage
def console_unread(guest: BootedGuest) -> Iterator[None]:
    """The follower stops, and the kernel prints more than the line to it holds."""
    original = Console._take
    Console._take = lambda self, *rest, **more: LOOKED.wait(90)  # type: ignore[method-assign,assignment]
    script = 'n=0; while [ $n -lt 8000 ]; do echo "<0>the quick brown fox jumps over the lazy dog" > /dev/kmsg; n=$((n+1)); done'
    assert guest.session.ssh is not None
    with contextlib.suppress(Exception):
        guest.session.ssh.run(["sh", "-c", f"({script}) > /dev/null 2>&1 &"], guest.session._limit(1))
    try:
        yield
    finally:
        Console._take = original  # type: ignore[method-assign]


@sabotage
def images_gone(guest: BootedGuest) -> Iterator[None]:
    """The image cache is deleted while a guest runs that came from it."""
    yield
    shutil.rmtree(Path(os.environ["PMEM_HARNESS_CACHE"]) / "images")


@contextlib.contextmanager
def soon(act: Callable[[], object], delay_s: float = 0.3) -> Iterator[None]:
    """Do it a moment from now, while the program runs."""
    timer = threading.Timer(delay_s, act)
    timer.start()
    try:
        yield
    finally:
        timer.join()
