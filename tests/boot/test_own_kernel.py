"""The user's own kernel: everything built in and no modules, a vmlinux with its configuration beside it, words on the command line."""

import contextlib
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import BootError
from harness.guest.link import GuestCommand
from harness.guest.pmem import RegionPlacement
from harness.guest.session import GuestSession
from harness.host.deadline import Deadline
from harness.image.bundle import GuestImage, guest_image
from harness.image.catalog import KernelChoice, load_catalog
from harness.image.initrd import Member, collect_modules, make_archive, make_initrd
from harness.image.kernel import check_options, find_kernel_files, module_name, uncompressed_kernel
from harness.lease.boot import booted_session, make_spec
from harness.lease.complaints import split_expected
from harness.lease.host_in_use import Host, find_host
from harness.machine.custody import private_folder
from harness.machine.machine import Machine
from harness.model.filesystems import Filesystem
from harness.model.kinds import DaxOption, NamespaceMode, RegionKind
from harness.model.stack import Disk, Mount, Namespace, Region, StorageStack, Volume, find_mismatches
from harness.sizes import KIB
from tests.fakes.archive import members

pytestmark = pytest.mark.boot

CATALOG = load_catalog()
#: The flavour that has soft-RoCE too, so that everything is asked of it that a case can need.
STOCK = "debian_6.12_full"
E820 = Region("one", RegionKind.E820)
NVDIMM = Region("two", RegionKind.NVDIMM, label_bytes=128 * KIB)
WHOLE = StorageStack(
    (
        Volume("main", Namespace(E820), Mount(Filesystem.XFS, DaxOption.ALWAYS)),
        Volume("second", Namespace(NVDIMM), Mount(Filesystem.EXT4, DaxOption.ALWAYS)),
        Volume("target", Disk("disk"), Mount(Filesystem.XFS, None)),
    ),
    ivshmem=True,
)


def one(device: Namespace | Disk, mount: Mount | None) -> StorageStack:
    return StorageStack((Volume("main", device, mount),))


STACKS = (
    WHOLE,
    *(
        one(Namespace(region), Mount(fs, DaxOption.ALWAYS))
        for region in (E820, NVDIMM)
        for fs in Filesystem
        if fs.traits.driver_option is None
    ),
    one(Namespace(E820), Mount(Filesystem.XFS, DaxOption.NEVER)),
    one(Namespace(NVDIMM, NamespaceMode.SECTOR, None), None),
    one(Namespace(NVDIMM, NamespaceMode.RAW, None), None),
    one(Disk("disk"), Mount(Filesystem.XFS, None)),
)

#: Loads what such a kernel would have built in and hides every trace of modules, before the harness's own script is the first program.
EARLY = """#!/bin/sh
PATH=/bin
mount -t proc proc /early/proc
busybox chroot /early /busybox modprobe -a {names} || echo "early: not all loaded" > /dev/console
busybox umount /early/proc
busybox rm -rf /early
exec /init
"""


@pytest.fixture(scope="module")
def stock() -> GuestImage:
    return guest_image(KernelChoice(STOCK), print)


@pytest.fixture(scope="module")
def built_in(stock: GuestImage, tmp_path_factory: pytest.TempPathFactory) -> GuestImage:
    """An image as one is made of a vmlinux with everything built in: no module is known to it, and none can be loaded later."""
    folder = tmp_path_factory.mktemp("own")
    assert stock.bzimage is not None
    (folder / "vmlinux").write_bytes(uncompressed_kernel(stock.bzimage, Deadline.after(300)))
    lines = [f"CONFIG_{name}={'y' if value == 'm' else value}" for name, value in stock.config.items()]
    (folder / f"config-{stock.release}").write_text("\n".join(lines) + "\n")
    kernel = find_kernel_files(folder / "vmlinux")
    assert (kernel.release, kernel.modules) == (stock.release, None)
    check_options(kernel, CATALOG.options)
    packed = members(stock.initrd.read_bytes())
    load = collect_modules(kernel, CATALOG.modules, (), folder / "wanted", folder / "depmod", Deadline.after(300))
    assert load == ()
    script = (CATALOG.folder / "initrd/init").read_bytes()
    own = make_initrd(script, packed["bin/busybox"][1], load, folder / "wanted/lib/modules" / kernel.release)
    (folder / "initrd").write_bytes(own + _early_archive(packed))
    return replace(stock, boot_kernel=folder / "vmlinux", bzimage=None, initrd=folder / "initrd")


def _early_archive(packed: dict[str, tuple[int, bytes]]) -> bytes:
    """What makes a stock kernel one with everything built in: its modules, and the script that loads and removes them."""
    there = {module_name(name) for name in packed if name.endswith(".ko")}
    wanted = (*CATALOG.modules.optional, *CATALOG.modules.load, *CATALOG.modules.available, *reversed(CATALOG.kernels[STOCK].modules))
    # The first ones are asked for by others while those load, and then nobody could load them.
    names = [name for name in wanted if module_name(name) in there]
    folders = [Member(f"early/{name}", stat.S_IFDIR | 0o755) for name in ("", "proc", "dev", "lib")]
    found = [Member(f"early/{name}", mode, data) for name, (mode, data) in packed.items() if name.startswith("lib/")]
    tools = [
        Member("early/busybox", stat.S_IFREG | 0o755, packed["bin/busybox"][1]),
        Member("early.sh", stat.S_IFREG | 0o755, EARLY.format(names=" ".join(names)).encode()),
    ]
    return make_archive([replace(folders[0], name="early"), *folders[1:], *found, *tools])


@contextlib.contextmanager
def booted(host: Host, image: GuestImage, *arguments: str) -> Iterator[tuple[Machine, GuestSession]]:
    with contextlib.ExitStack() as lifetime:
        deadline = Deadline.after(120, host.accelerator.time_scale)
        logs = lifetime.enter_context(private_folder())
        machine, connection = booted_session(host, image, make_spec(image, WHOLE, arguments), logs, deadline, lifetime)
        yield machine, lifetime.enter_context(connection)


def test_a_kernel_with_everything_built_in_and_no_modules_has_every_stack_and_soft_rdma(built_in: GuestImage) -> None:
    with booted(find_host(), built_in, "rdinit=/early.sh") as (machine, session):
        placements = [RegionPlacement(p.name, p.kind, p.start, p.size_bytes) for p in machine.placements]
        for stack in STACKS:
            session.set_up(stack, placements)
            assert find_mismatches(stack, session.refresh()) == [], stack.describe()
        # Everything above worked with nothing that modprobe could have found.
        outputs = session.commands(
            [
                GuestCommand(("find", "/lib/modules/", "-name", "*.ko*")),
                GuestCommand(("modprobe", "xfs"), may_fail=True),
                GuestCommand(("rdma", "link", "show", "rxe0/1")),
                GuestCommand(("test", "-c", "/dev/infiniband/uverbs0")),
            ]
        )
        assert outputs[0].stdout == ""
        assert outputs[1].status != 0
        assert "state ACTIVE" in outputs[2].stdout
        unexpected, _ = split_expected(machine.console.reports(), built_in.release, "e820", ())
        assert not unexpected


def test_a_kernel_that_lacks_what_its_configuration_promises_says_what_it_is(built_in: GuestImage, tmp_path: Path) -> None:
    """Without the early script nothing is built in: the configuration beside the vmlinux was that of another build."""
    with pytest.raises(BootError) as caught, booted(find_host(), built_in):
        pass
    assert "pmem-harness: failed: the kernel has no file system " in str(caught.value)


def test_a_module_that_does_not_load_is_named(stock: GuestImage, tmp_path: Path) -> None:
    more = make_archive([Member("etc/load", stat.S_IFREG | 0o644, b"virtio_pci\nnowhere\nnor_here\n")])
    (tmp_path / "initrd").write_bytes(stock.initrd.read_bytes() + more)
    with pytest.raises(BootError) as caught, booted(find_host(), replace(stock, initrd=tmp_path / "initrd")):
        pass
    assert "pmem-harness: failed: these modules of the initrd did not load: nowhere nor_here" in str(caught.value)


def test_words_of_the_user_reach_the_kernel(stock: GuestImage) -> None:
    with booted(find_host(), stock, "mitigations=auto", "own.word=1") as (_, session):
        (output,) = session.commands([GuestCommand(("cat", "/proc/cmdline"))])
        assert output.stdout.split()[-2:] == ["mitigations=auto", "own.word=1"]
