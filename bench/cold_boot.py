"""Cold boot to the first SSH command, split into phases, against the best that the guest images allow.

    python -m bench.cold_boot [--rounds N] [--kernel NAME|PATH]

Every round boots each lane once, in turn, so that a busy host slows all of them alike; what is printed are medians of
ratios inside a round, and seconds only to show what they are made of. The *floor* is the moment at which the fastest lane's guest
said that it is ready: the images allow no earlier SSH command.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.guest.ssh import SshAddress, connected
from harness.host.deadline import Deadline
from harness.image.bundle import GuestImage, guest_image
from harness.image.catalog import choose_kernel, load_catalog
from harness.lease.host_in_use import Host, find_host
from harness.lease.options import BOOT_LIMIT_S
from harness.machine.boot import started_machine
from harness.machine.command import Emulator
from harness.machine.console import MILESTONE
from harness.machine.spec import MachineSpec, needed_ram_bytes
from harness.model.kinds import RegionKind
from harness.model.stack import Region

#: The lane that the harness itself takes.
OURS = "uncompressed kernel, qboot"


@dataclass(frozen=True)
class Lane:
    """One way to boot the same guest."""

    name: str
    kernel: Path
    emulator: Emulator


@dataclass(frozen=True)
class Boot:
    """Seconds from QEMU's start to the end of each phase, in order; the last is the first SSH command's end."""

    phases: Mapping[str, float]

    @property
    def ready_s(self) -> float:
        return self.phases["ready"]

    @property
    def command_s(self) -> float:
        return self.phases["first command"]


def lanes(image: GuestImage, emulator: Emulator) -> list[Lane]:
    """Return the ways that this host and this kernel have."""
    slow = replace(emulator, has_qboot=False)
    found = [] if image.bzimage is None else [Lane("bzImage, full firmware", image.bzimage, slow)]
    if image.pvh:
        found.insert(0, Lane("uncompressed kernel, full firmware", image.boot_kernel, slow))
        if emulator.has_qboot:
            found.insert(0, Lane(OURS, image.boot_kernel, emulator))
    return found


def boot_once(lane: Lane, image: GuestImage, host: Host) -> Boot:
    """Boot a guest with an e820 region, run ``true`` over SSH, and return when each phase ended."""
    region = Region("main", RegionKind.E820)
    spec = MachineSpec(lane.kernel, image.initrd, image.rootfs, ram_bytes=needed_ram_bytes([region]), regions=(region,))
    deadline = Deadline.after(BOOT_LIMIT_S, host.accelerator.time_scale)
    started_s = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="pmem-bench-") as logs,
        started_machine(spec, lane.emulator, host.accelerator, Path(logs), deadline) as machine,
    ):
        with connected(SshAddress(machine.ssh_port, image.client_key, image.host_public_key), deadline) as ssh:
            authenticated_s = time.monotonic() - started_s
            ssh.run(["true"], deadline)
            command_s = time.monotonic() - started_s
        times = machine.boot_times
    phases = {"QMP answers": times.qmp_s}
    phases |= {_phase(line): at_s for line, at_s in times.milestones}
    return Boot({**phases, "SSH authenticated": authenticated_s, "first command": command_s})


def _phase(line: str) -> str:
    """``pmem-harness: modules 1.23`` is the phase ``modules``; the guest's own clock is not ours."""
    return line.removeprefix(MILESTONE).split(" ")[0]


def describe(rounds: Sequence[Mapping[str, Boot]]) -> Iterator[str]:
    """Yield the tables: phases of each lane, then the ratios."""
    names = list(rounds[0])
    for name in names:
        yield f"{name} (median of {len(rounds)} boots)"
        before = 0.0
        for phase in rounds[0][name].phases:
            at_s = statistics.median(boots[name].phases[phase] for boots in rounds)
            total = statistics.median(boots[name].command_s for boots in rounds)
            yield f"  {phase:18} at {at_s:6.2f} s   took {at_s - before:6.2f} s   {100 * (at_s - before) / total:3.0f} % of the whole"
            before = at_s
        yield ""
    yield "first SSH command, as a ratio inside each round"
    for name in names:
        floor = statistics.median(boots[name].command_s / min(b.ready_s for b in boots.values()) for boots in rounds)
        ours = statistics.median(boots[name].command_s / boots[names[0]].command_s for boots in rounds)
        yield f"  {name:36} {floor:5.2f} x the floor   {ours:5.2f} x {names[0]}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Cold boot to the first SSH command, by phases, against the best that the images allow.")
    parser.add_argument("--rounds", type=int, default=3, help="boots of each lane (default: 3)")
    parser.add_argument("--kernel", help="a kernel of images/kernels.yaml, or a path (default: that file's)")
    chosen = parser.parse_args()
    catalog = load_catalog()
    image = guest_image(choose_kernel(chosen.kernel, catalog), lambda text: print(text, flush=True), catalog)
    host = find_host()
    print(f"Linux {image.release}, QEMU {host.emulator.version_text}, {host.accelerator.name}: {host.accelerator.reason}")
    rounds = []
    for number in range(1, chosen.rounds + 1):
        boots: dict[str, Boot] = {}
        for lane in lanes(image, host.emulator):
            boots[lane.name] = boot_once(lane, image, host)
            print(f"round {number} of {chosen.rounds}: {lane.name}: {boots[lane.name].command_s:.2f} s", flush=True)
        rounds.append(boots)
    print()
    for line in describe(rounds):
        print(line)


if __name__ == "__main__":
    main()
