"""What a clone costs and gives: time to the first SSH command beside a cold boot, private memory, round trip, operations a second.

    python -m bench.clones [--rounds N] [--clones N] [--kernel NAME|PATH]

Every round starts a clone and boots the same guest, in turn; ratios are taken inside a round and their median is printed.
"""

import argparse
import contextlib
import statistics
import time
from dataclasses import dataclass

import psutil

from bench.cold_boot import boot_once, lanes
from harness.case.plan import named_stacks
from harness.guest.ssh import connected
from harness.host.deadline import Deadline
from harness.image.bundle import GuestImage, guest_image
from harness.image.catalog import choose_kernel, load_catalog
from harness.lease.boot import make_spec, ssh_address
from harness.lease.booted import BootedGuest
from harness.lease.clone import Cloner
from harness.lease.host_in_use import Host, find_host
from harness.lease.options import GuestOptions
from harness.lease.template import Template
from harness.machine.custody import private_folder
from harness.machine.snapshot import SavedMachine, restored_machine
from harness.model.stack import StorageStack
from harness.ops import Open, OpenFlag, Pread, Program, Pwrite, Step
from harness.sizes import MIB

STACK = "e820-fsdax-ext4-dax_always"
#: A case of the usual size.
CASE = Program(
    (
        Step(Open("f", "a", (OpenFlag.RDWR, OpenFlag.CREAT))),
        *(Step(Pwrite("f", n * 65536, 65536)) for n in range(16)),
        *(Step(Pread("f", n * 65536, 65536)) for n in range(16)),
    )
)
OPERATIONS = 2000


@dataclass(frozen=True)
class Subject:
    """What is measured: a guest of this host, and the template it is cloned from."""

    host: Host
    image: GuestImage
    stack: StorageStack
    template: Template

    def first_command_s(self) -> float:
        """Start a clone, run ``true`` over SSH, and return how long it took from nothing."""
        deadline = Deadline.after(60, self.host.accelerator.time_scale)
        saved = SavedMachine(self.template.folder, make_spec(self.image, self.stack), self.template.placements)
        with private_folder() as logs:
            started_s = time.monotonic()
            with (
                restored_machine(saved, self.host.emulator, self.host.accelerator, logs, deadline) as machine,
                connected(ssh_address(machine, self.image), deadline) as ssh,
            ):
                ssh.run(["true"], deadline)
                return time.monotonic() - started_s


def compare_starts(subject: Subject, rounds: int) -> None:
    lane = lanes(subject.image, subject.host.emulator)[0]
    clones, boots = [], []
    subject.first_command_s()  # brings the template's files into the page cache
    for number in range(1, rounds + 1):
        clones.append(subject.first_command_s())
        boots.append(boot_once(lane, subject.image, subject.host).command_s)
        print(f"round {number} of {rounds}: clone {clones[-1]:.2f} s, cold boot {boots[-1]:.2f} s", flush=True)
    ratio = statistics.median(boot / clone for boot, clone in zip(boots, clones, strict=True))
    clone, boot = statistics.median(clones), statistics.median(boots)
    print(f"(a) first SSH command: clone {clone:.2f} s, cold boot {boot:.2f} s: {ratio:.1f} times faster")


def measure_memory(cloner: Cloner, stack: StorageStack, kernel: str, count: int) -> None:
    """Private memory of each of ``count`` clones that have run a case and are alive together."""
    with contextlib.ExitStack() as lifetime:
        guests = [lifetime.enter_context(cloner.clone(stack, kernel)) for _ in range(count)]
        for guest in guests:
            guest.refresh()
            guest.session.run(CASE)
        usage = [psutil.Process(guest.machine.pid).memory_full_info() for guest in guests]
        ram = make_spec_bytes(guests[0])
    private = statistics.median(info.uss for info in usage) / MIB
    shared = statistics.median(info.rss - info.uss for info in usage) / MIB
    print(
        f"(c) memory of each of {count} clones after a case: {private:.0f} MiB private, {shared:.0f} MiB shared with the others, "
        f"of {ram / MIB:.0f} MiB that the guest has: {private * MIB / ram:.3f} of it"
    )


def make_spec_bytes(guest: BootedGuest) -> int:
    return guest.machine.spec.ram_bytes


def measure_agent(cloner: Cloner, stack: StorageStack, kernel: str) -> None:
    """Round trip on the open connection, and operations a second."""
    with cloner.clone(stack, kernel) as guest:
        guest.refresh()
        guest.session.run(CASE)
        trips = [timed(guest.session.taint) for _ in range(50)]
        print(f"(d) round trip on the open connection: {1000 * statistics.median(trips):.0f} ms, median of {len(trips)}")
        many = Program((CASE.steps[0], Step(Pwrite("f", 0, 4096)), *(Step(Pread("f", 0, 8)) for _ in range(OPERATIONS))))
        spent = statistics.median(timed(lambda: guest.session.run(many)) for _ in range(3))
        print(f"(e) operations through the agent: {OPERATIONS / spent:.0f} a second, {OPERATIONS} in one round trip of {spent:.2f} s")


def timed(act: object) -> float:
    started_s = time.monotonic()
    assert callable(act)
    act()
    return time.monotonic() - started_s


def main() -> None:
    parser = argparse.ArgumentParser(description="What a clone costs and gives.")
    parser.add_argument("--rounds", type=int, default=5, help="clones and boots to compare (default: 5)")
    parser.add_argument("--clones", type=int, default=4, help="clones alive together, for memory (default: 4)")
    parser.add_argument("--kernel", help="a kernel of images/kernels.yaml, or a path (default: that file's)")
    chosen = parser.parse_args()
    catalog = load_catalog()
    choice = choose_kernel(chosen.kernel, catalog)
    image = guest_image(choice, lambda text: print(text, flush=True), catalog)
    host, stack = find_host(), named_stacks()[STACK]
    print(f"Linux {image.release}, QEMU {host.emulator.version_text}, {host.accelerator.name}: {host.accelerator.reason}")
    cloner = Cloner(lambda _: choice, lambda text: print(text, flush=True), GuestOptions())
    subject = Subject(host, image, stack, cloner.templates.stack_template(host, image, stack))
    compare_starts(subject, chosen.rounds)
    measure_memory(cloner, stack, choice.name, chosen.clones)
    measure_agent(cloner, stack, choice.name)


if __name__ == "__main__":
    main()
