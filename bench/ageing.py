"""Do the files of cases come to lie in blocks that were aged? Where the allocators put them, beside where foreign bytes are.

Each stack's cases run on clones of one template; then the extents of all files are asked for (FIEMAP), and the device of an unused clone
is searched for the bytes of the foreign writer. Printed are the ranges of both, and how much of what was allocated had been aged.
"""

import argparse
import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.case.loader import find_case_files, load_plans
from harness.case.plan import Plan, named_stacks
from harness.guest.link import GuestCommand
from harness.image.catalog import choose_kernel, load_catalog
from harness.lease.booted import BootedGuest
from harness.lease.clone import Cloner
from harness.lease.options import GuestOptions
from harness.model.content import Ranges
from harness.model.stack import StorageStack
from harness.ops.tag import FOREIGN_WRITER, tag_bytes
from harness.sizes import MIB

STACKS = ("e820-fsdax-ext4-dax_always", "e820-fsdax-xfs-dax_always", "nvdimm-fsdax-ext4-dax_never", "disk-ext4", "disk-xfs")

#: Prints the start of each file's extents on the device and their length, in bytes: [[file, start, length], ...]. FS_IOC_FIEMAP, synced.
_EXTENTS = """
import fcntl, json, os, struct, sys
found = []
for place, _, names in os.walk(sys.argv[1]):
    for name in names:
        file = os.open(os.path.join(place, name), os.O_RDONLY)
        answer = bytearray(struct.pack("=QQIIII", 0, 2**63 - 1, 1, 0, 500, 0) + bytes(56 * 500))
        fcntl.ioctl(file, 0xC020660B, answer)
        for number in range(struct.unpack_from("=I", answer, 20)[0]):
            _, start, length = struct.unpack_from("=QQQ", answer, 32 + 56 * number)
            found.append([name, start, length])
        os.close(file)
print(json.dumps(found))
"""
#: Prints the ranges of 4 KiB blocks of the device that begin as a word of the foreign writer does.
_FOREIGN = """
import json, os, sys
device, head, found, at = os.open(sys.argv[1], os.O_RDONLY), bytes.fromhex(sys.argv[2]), [], 0
while data := os.read(device, 1 << 20):
    for inside in range(0, len(data), 4096):
        if data[inside:inside + len(head)] == head:
            if found and found[-1][1] == at + inside:
                found[-1][1] += 4096
            else:
                found.append([at + inside, at + inside + 4096])
    at += len(data)
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Extent:
    case: str
    start: int
    length: int


def extents_of(guest: BootedGuest, plan: Plan) -> list[Extent]:
    """Run a case, and return where its files on the main volume lie."""
    guest.refresh()
    guest.session.run(plan.program)
    (said,) = guest.session.commands([GuestCommand(("python3", "-c", _EXTENTS, guest.session.layout.volumes[0].folder))])
    return [Extent(plan.case.name, start, length) for _, start, length in json.loads(said.stdout)]


def foreign_ranges(guest: BootedGuest) -> Ranges:
    """Return the parts of the main volume's device that hold what the foreign writer wrote."""
    guest.refresh()
    head = tag_bytes(FOREIGN_WRITER, 0, 3).hex()
    (said,) = guest.session.commands([GuestCommand(("python3", "-c", _FOREIGN, guest.session.layout.volumes[0].node, head))])
    return ranges_of(json.loads(said.stdout))


def ranges_of(spans: Iterable[Sequence[int]]) -> Ranges:
    found = Ranges()
    for low, high in spans:
        found = found.add(low, high)
    return found


def measure(cloner: Cloner, stack: StorageStack, kernel: str, plans: Sequence[Plan]) -> None:
    with cloner.clone(stack, kernel) as guest:
        aged = foreign_ranges(guest)
    extents: list[Extent] = []
    for plan in plans:
        with cloner.clone(stack, kernel) as guest:
            extents += extents_of(guest, plan)
    used = ranges_of((extent.start, extent.start + extent.length) for extent in extents)
    inside = sum(aged.within(extent.start, extent.start + extent.length).total() for extent in extents)
    whole = sum(aged.covers(extent.start, extent.start + extent.length) for extent in extents)
    share = 100 * inside / sum(extent.length for extent in extents)
    print(f"{stack.describe()}: {len(plans)} cases, {len(extents)} extents; {whole} of them, and {share:.1f} % of their bytes, are aged")
    print(f"    aged {aged.total() / MIB:.1f} MiB: {_words(aged)}\n    used {used.total() / MIB:.1f} MiB: {_words(used)}", flush=True)
    missed = [extent for extent in extents if not aged.covers(extent.start, extent.start + extent.length)]
    for extent in missed:
        print(f"    not aged: {extent.case}, {extent.length} bytes at {extent.start / MIB:.3f} MiB")


def _words(ranges: Ranges) -> str:
    return ", ".join(f"{low / MIB:.3f}..{high / MIB:.3f}" for low, high in ranges.spans)


def main() -> None:
    parser = argparse.ArgumentParser(description="Do the files of cases come to lie in blocks that were aged?")
    parser.add_argument("stack", nargs="*", default=STACKS, help="storage stacks by variant id (default: one of each kind)")
    parser.add_argument("--cases", type=int, default=25, help="how many of a stack's cases to run (default: 25)")
    parser.add_argument("--kernel", help="a kernel of images/kernels.yaml, or a path (default: that file's)")
    chosen = parser.parse_args()
    choice = choose_kernel(chosen.kernel, load_catalog())
    cloner = Cloner(lambda _: choice, lambda text: print(text, flush=True), GuestOptions(announce=False))
    every = [plan for file in find_case_files(Path("cases")) for plan in load_plans(file)]
    for name in chosen.stack:
        stack = named_stacks()[name]
        plans = [plan for plan in every if plan.stack == stack]
        measure(cloner, stack, choice.name, list(itertools.islice(plans, 0, None, max(1, len(plans) // chosen.cases))))


if __name__ == "__main__":
    main()
