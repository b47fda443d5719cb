"""Operations a second through the agent on generated programs, beside a former agent in the same guest.

    python -m bench.throughput --former REVISION [--programs N] [--rounds N] [--kernel NAME|PATH]

In every round the same programs are run by the former agent, one a round trip as it was driven, and by this one, many a round trip, in
turn. A step counts where it was executed. The former agent is one file of that revision, harness/agent/agent.py.
"""

import contextlib
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from harness.agent.bundle import agent_archive
from harness.case.plan import named_stacks
from harness.guest.link import AgentLink, Endpoint, GuestCommand, linked
from harness.guest.ssh import Shell
from harness.host.deadline import Deadline
from harness.host.process import run
from harness.lease.boot import booted_guest
from harness.lease.booted import BootedGuest
from harness.lease.host_in_use import find_host
from harness.lease.kernels import read_kernels
from harness.lease.options import GuestOptions
from harness.ops.codec import program_document
from tests.generated.generator import World, draw

ROOT = Path(__file__).parents[1]
STACK = "e820-fsdax-ext4-dax_always"
#: Files, pipes, mappings, sockets, processes: what mounts makes volumes anew, and pins are another cost.
WORLD = World(without=frozenset({"volumes", "pins"}))
_BATCH = 25
_BLOCKED_S = 0.3
_LIMIT_S = 3600.0


@dataclass(frozen=True)
class Lap:
    """Executed operations, seconds, and seconds of QEMU's own: those of a computer that others use as well are more."""

    operations: int
    spent_s: float
    qemu_s: float


@dataclass(frozen=True)
class Driver:
    """How an agent is driven: a link to it, and a folder of its own on the volume."""

    link: AgentLink
    folder: str

    def one_by_one(self, programs: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        names = [f"p{number}" for number in range(_BATCH)]
        for at, program in enumerate(programs):
            if at % _BATCH == 0:
                words = f"mkdir -p {self.folder} && cd {self.folder} && rm -rf p* && mkdir {' '.join(names)}"
                self.link.commands([GuestCommand(("sh", "-ec", words))], limit())
            roots = {"main": f"{self.folder}/{names[at % _BATCH]}"}
            yield self.link.run(program, roots, {}, limit(), blocked_s=_BLOCKED_S, limit_s=_LIMIT_S)

    def together(self, programs: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        for at in range(0, len(programs), _BATCH):
            batch = programs[at : at + _BATCH]
            yield from self.link.run_many(batch, {"main": self.folder}, {}, [self.folder], limit, blocked_s=_BLOCKED_S, limit_s=_LIMIT_S)


def limit() -> Deadline:
    return Deadline.after(_LIMIT_S)


def lap(guest: BootedGuest, ran: Iterator[dict[str, Any]]) -> Lap:
    qemu = psutil.Process(guest.machine.pid)
    started_s, before_s = time.monotonic(), sum(qemu.cpu_times()[:2])
    operations = sum(step["how"] != "not_run" for observations in ran for step in observations["steps"])
    return Lap(operations, time.monotonic() - started_s, sum(qemu.cpu_times()[:2]) - before_s)


@contextlib.contextmanager
def former_agent(shell: Shell, revision: str) -> Iterator[AgentLink]:
    """Start the agent of a revision as it was started, and connect to it."""
    shown = run(["git", "show", f"{revision}:harness/agent/agent.py"], Deadline.after(60), cwd=ROOT).stdout.encode()
    start = "cat > /run/former.py && exec python3 /run/former.py --listen 127.0.0.1:0 --token-file /run/former.json"
    said = json.loads(shell.run(["sh", "-c", start], limit(), stdin=shown).stdout)
    with linked(shell, Endpoint(said["port"], said["token"]), shown, limit()) as link:
        yield link


def compare_agents(revision: str, kernel: str | None, programs: int, rounds: int) -> None:
    """Print operations a second of both agents, and the ratio inside each round."""
    kernels = read_kernels([kernel] if kernel else [])
    choice = kernels.choice(kernel or kernels.catalog.default_kernel)
    documents = [program_document(draw(1, index, WORLD)) for index in range(programs)]
    with booted_guest(find_host(), choice, named_stacks()[STACK], print, GuestOptions()) as guest:
        guest.refresh()
        session, shell = guest.session, guest.session.ssh
        assert shell is not None
        folder = session.layout.roots["main"]
        with (
            former_agent(shell, revision) as former,
            # A connection of its own: that of the boot is from before the daemon was warm, which no clone's is.
            linked(shell, session.state.endpoint, agent_archive(), limit()) as now,
        ):
            one, many = Driver(former, f"{folder}/former"), Driver(now, f"{folder}/now")
            laps = [_round(guest, lambda: one.one_by_one(documents), lambda: many.together(documents)) for _ in range(rounds)]
    for name, spent in (("by the clock", "spent_s"), ("by QEMU's processor time", "qemu_s")):
        rates = [[found.operations / getattr(found, spent) for found in pair] for pair in laps]
        was, now_is = (statistics.median(column) for column in zip(*rates, strict=True))
        ratio = statistics.median(after / before for before, after in rates)
        print(f"(f) {name}: {now_is:.0f} operations a second, the agent of {revision} {was:.0f}: {ratio:.2f} times as many")


def _round(guest: BootedGuest, *ways: Callable[[], Iterator[dict[str, Any]]]) -> tuple[Lap, ...]:
    laps = tuple(lap(guest, way()) for way in ways)
    print(
        "; ".join(f"{found.operations} operations in {found.spent_s:.1f} s, {found.qemu_s:.1f} s of QEMU's" for found in laps), flush=True
    )
    return laps
