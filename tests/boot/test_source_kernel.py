"""A kernel from source that somebody has compiled boots, and has every storage stack, ext2's own driver, and what its fragments are for.

None is compiled here: `python -m harness images build --kernel source_6.12` does that.
"""

import contextlib

import pytest

from harness.guest.link import GuestCommand
from harness.guest.pmem import RegionPlacement
from harness.host.deadline import Deadline
from harness.image.bundle import guest_image, why_not_compiled
from harness.image.catalog import KernelChoice, PackagedKernel, load_catalog
from harness.lease.boot import booted_session, make_spec
from harness.lease.complaints import split_expected
from harness.lease.host_in_use import find_host
from harness.machine.custody import private_folder
from harness.model.filesystems import Filesystem
from harness.model.kinds import DaxOption
from harness.model.stack import Mount, Namespace, find_mismatches
from tests.boot.test_own_kernel import E820, STACKS, WHOLE, one

pytestmark = pytest.mark.boot

CATALOG = load_catalog()
KERNELS = [kernel for kernel in CATALOG.kernels.values() if kernel.source]
EXT2 = [one(Namespace(E820), Mount(Filesystem.EXT2, dax)) for dax in (DaxOption.ALWAYS, DaxOption.NEVER)]
#: Commands that succeed on a kernel with a fragment, and on no other.
SIGNS = {
    "ext2": ("grep", "-qw", "ext2", "/proc/filesystems"),
    "kasan": ("sh", "-c", "dmesg | grep -q 'kasan: KernelAddressSanitizer initialized'"),
    "lockdep": ("test", "-e", "/proc/lockdep"),
}


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_a_kernel_from_source_has_every_stack_and_what_its_fragments_are_for(kernel: PackagedKernel) -> None:
    choice = KernelChoice(kernel.name)
    if why := why_not_compiled(choice, CATALOG):
        pytest.skip(why)
    host, image = find_host(), guest_image(choice, print)
    with contextlib.ExitStack() as lifetime:
        deadline = Deadline.after(240, host.accelerator.time_scale)
        logs = lifetime.enter_context(private_folder())
        machine, connection = booted_session(host, image, make_spec(image, WHOLE), logs, deadline, lifetime)
        session = lifetime.enter_context(connection)
        placements = [RegionPlacement(p.name, p.kind, p.start, p.size_bytes) for p in machine.placements]
        for stack in (*STACKS, *(EXT2 if "ext2" in kernel.options else ())):
            session.set_up(stack, placements)
            assert find_mismatches(stack, session.refresh()) == [], stack.describe()
        outputs = session.commands([GuestCommand(command, may_fail=True) for command in SIGNS.values()])
        assert [name for name, output in zip(SIGNS, outputs, strict=True) if output.status == 0] == [
            name for name in SIGNS if name in kernel.options
        ]
        unexpected, _ = split_expected(machine.console.reports(), image.release, "e820", ())
        assert not unexpected
