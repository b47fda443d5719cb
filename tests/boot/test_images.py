"""The images boot, on these kernels or on those named with ``--kernel``, and what is made with the mkfs of each mounts there."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from harness.guest.ssh import Ssh, SshAddress, connected
from harness.host.deadline import Deadline
from harness.image.bundle import GuestImage, guest_image
from harness.image.catalog import KernelChoice, load_catalog
from harness.machine.accelerator import choose_accelerator
from harness.machine.boot import started_machine
from harness.machine.emulator import find_emulator
from harness.machine.spec import MachineSpec
from harness.model.filesystems import Filesystem
from harness.model.kinds import RegionKind
from harness.model.stack import Region
from harness.sizes import KIB, MIB

CATALOG = load_catalog()
KERNELS = ("debian_6.12", "debian_6.1", "debian_6.12_full")
REGIONS = (Region("main", RegionKind.E820, 256 * MIB), Region("second", RegionKind.NVDIMM, 256 * MIB, 128 * KIB))


def image_of(kernel: str) -> GuestImage:
    return guest_image(KernelChoice(kernel), print, CATALOG)


@contextmanager
def guest_of(image: GuestImage, logs: Path) -> "Iterator[tuple[Ssh, Deadline]]":
    """Boot the image with an e820 and an NVDIMM region, and connect."""
    emulator = find_emulator()
    accelerator = choose_accelerator(emulator)
    deadline = Deadline.after(180, accelerator.time_scale)
    spec = MachineSpec(image.boot_kernel, image.initrd, image.rootfs, regions=REGIONS)
    with (
        started_machine(spec, emulator, accelerator, logs, deadline) as machine,
        connected(SshAddress(machine.ssh_port, image.client_key, image.host_public_key), deadline) as ssh,
    ):
        yield ssh, deadline


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "kernel" in metafunc.fixturenames:
        metafunc.parametrize("kernel", metafunc.config.getoption("--kernel") or KERNELS)


def test_kernel_boots_and_mounts_the_pinned_file_systems_with_dax(kernel: str, tmp_path: Path) -> None:
    image = image_of(kernel)
    with guest_of(image, tmp_path) as (ssh, deadline):

        def said(*command: str) -> str:
            return ssh.run(list(command), deadline).stdout

        assert said("uname", "-r").strip() == image.release
        provider = said(
            "sh", "-c", 'readlink -f /sys/bus/nd/devices/region*; ls /dev/pmem*; lsmod; for n in /sys/block/pmem*; do echo "$n"; done'
        )
        assert "e820_pmem" in provider
        assert "nfit" in provider
        # The e820 region is fsdax-capable as it comes; which of the two nodes it is depends on the order of probing.
        capable = said("sh", "-c", "cd /sys/block; grep -l 1 pmem*/queue/dax").split()
        device = "/dev/" + capable[0].split("/")[0]
        stock = {str(filesystem) for filesystem in Filesystem if filesystem.traits.driver_option is None}
        for name, command in ((name, command) for name, command in image.mkfs.items() if name in stock):
            said(*command, device)
            said("mkdir", "-p", "/mnt/x")
            said("mount", "-t", name, "-o", "dax=always", device, "/mnt/x")
            assert f"{device} /mnt/x {name} rw" in said("cat", "/proc/mounts")
            assert "dax=always" in said("grep", "/mnt/x", "/proc/mounts")
            said("umount", "/mnt/x")
        for module in (*CATALOG.modules.available, *CATALOG.kernels[kernel].modules):
            said("modprobe", module)


def test_compressed_kernel_boots_too(tmp_path: Path) -> None:
    image = image_of(CATALOG.default_kernel)
    assert image.bzimage is not None
    with guest_of(replace(image, boot_kernel=image.bzimage), tmp_path) as (ssh, deadline):
        assert ssh.run(["uname", "-r"], deadline).stdout.strip() == image.release


def test_root_file_system_is_not_written(tmp_path: Path) -> None:
    image = image_of(CATALOG.default_kernel)
    before = image.rootfs.stat()
    with guest_of(image, tmp_path) as (ssh, deadline):
        ssh.run(["sh", "-c", "echo changed > /etc/hostname; sync"], deadline)
    assert image.rootfs.stat() == before


def test_soft_rdma_comes_up_where_the_kernel_has_it(tmp_path: Path) -> None:
    with guest_of(image_of("debian_6.12_full"), tmp_path) as (ssh, deadline):
        ssh.run(["modprobe", "-a", "rdma_rxe", "ib_uverbs"], deadline)
        ssh.run(["rdma", "link", "add", "rxe0", "type", "rxe", "netdev", "lo"], deadline)
        assert "state ACTIVE" in ssh.run(["rdma", "link"], deadline).stdout
        ssh.run(["test", "-c", "/dev/infiniband/uverbs0"], deadline)


def test_second_call_builds_nothing() -> None:
    first = image_of(CATALOG.default_kernel)
    said: list[str] = []
    assert guest_image(KernelChoice(CATALOG.default_kernel), said.append, CATALOG) == first
    assert said == []
