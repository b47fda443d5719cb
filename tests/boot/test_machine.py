"""Real machines: regions where they should be, every ending told apart, and nothing left when the owner is killed."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from harness.errors import BootError
from harness.guest.ssh import SshAddress, connected
from harness.host import process
from harness.host.deadline import Deadline, wait_until
from harness.image.bundle import GuestImage, guest_image
from harness.image.catalog import choose_kernel, load_catalog
from harness.lease.complaints import split_expected
from harness.machine.accelerator import Accelerator, choose_accelerator
from harness.machine.boot import started_machine
from harness.machine.command import Emulator
from harness.machine.emulator import find_emulator
from harness.machine.ending import EndKind
from harness.machine.machine import Machine
from harness.machine.self_test import run_self_test
from harness.machine.spec import MachineSpec
from harness.model.complaint import ReportKind
from harness.model.kinds import RegionKind
from harness.model.stack import Disk, Region
from harness.sizes import KIB, MIB

pytestmark = pytest.mark.boot

ROOT = Path(__file__).parents[2]
OWNER = Path(__file__).with_name("machine_owner.py")
REGIONS = (
    Region("a", RegionKind.E820, 128 * MIB),
    Region("b", RegionKind.NVDIMM, 128 * MIB, 128 * KIB),
    Region("c", RegionKind.E820, 16 * MIB),
    Region("d", RegionKind.NVDIMM, 64 * MIB, 2 * MIB),
)


@pytest.fixture(scope="module")
def image() -> GuestImage:
    """The default kernel's image; a missing one is built, or the test ends in an error that says why it cannot be."""
    return guest_image(choose_kernel(None, load_catalog()), print)


@pytest.fixture(scope="module")
def emulator() -> Emulator:
    return find_emulator()


@pytest.fixture(scope="module")
def accelerator(emulator: Emulator) -> Accelerator:
    return choose_accelerator(emulator)


@contextmanager
def booted(
    image: GuestImage, emulator: Emulator, accelerator: Accelerator, logs: Path, spec: MachineSpec | None = None
) -> Iterator[Machine]:
    spec = spec or plain(image)
    with started_machine(spec, emulator, accelerator, logs, Deadline.after(180, accelerator.time_scale)) as machine:
        yield machine
    assert not machine.folder.exists()
    assert not psutil.pid_exists(machine.pid)


def plain(image: GuestImage) -> MachineSpec:
    return MachineSpec(image.boot_kernel, image.initrd, image.rootfs, ram_bytes=512 * MIB)


def soon(accelerator: Accelerator) -> Deadline:
    return Deadline.after(30, accelerator.time_scale)


def test_regions_disks_and_bar_are_where_the_machine_says(
    image: GuestImage, emulator: Emulator, accelerator: Accelerator, tmp_path: Path
) -> None:
    spec = replace(plain(image), ram_bytes=1024 * MIB, regions=REGIONS, disks=(Disk("target", 64 * MIB),), ivshmem_bytes=MIB)
    with (
        booted(image, emulator, accelerator, tmp_path, spec) as machine,
        connected(SshAddress(machine.ssh_port, image.client_key, image.host_public_key), soon(accelerator)) as ssh,
    ):

        def said(line: str) -> list[str]:
            return ssh.run(["sh", "-c", line], soon(accelerator)).stdout.split("\n")[:-1]

        ranges = {
            line.strip() for line in said("grep -i 'persistent memory' /proc/iomem") if not line.startswith(" ")
        }  # what lies inside a range is indented
        kinds = {RegionKind.E820: "Persistent Memory (legacy)", RegionKind.NVDIMM: "Persistent Memory"}
        assert ranges == {f"{p.start:08x}-{p.end - 1:08x} : {kinds[p.kind]}" for p in machine.placements}
        sizes = sorted(int(size) for size in said("cat /sys/bus/nd/devices/region*/size"))
        assert sizes == sorted(region.size_bytes for region in REGIONS)
        assert "target" in said("for f in /sys/block/vd*/serial; do cat $f; echo; done")
        assert said("stat -c %s /sys/bus/pci/devices/*/resource2 2>/dev/null | grep -x 1048576") == ["1048576"]
        assert said("grep -c clwb /proc/cpuinfo") == ["1"]
        unexpected, _ = split_expected(machine.console.reports(), image.release, "e820", ())
        assert unexpected == ()
        times = machine.boot_times
        print(f"QMP after {times.qmp_s:.2f} s, ready after {times.ready_s:.2f} s; {times.milestones}")


def test_a_panic_is_told_from_a_reset(image: GuestImage, emulator: Emulator, accelerator: Accelerator, tmp_path: Path) -> None:
    with booted(image, emulator, accelerator, tmp_path) as machine:
        machine.send_sysrq("c", soon(accelerator))
        ending = machine.wait_ended(soon(accelerator))
        assert ending.kind is EndKind.PANIC
        assert "GUEST_PANICKED" in [event["event"] for event in machine.qmp.events()]
        assert ReportKind.PANIC in [report.kind for report in ending.reports]


def test_a_reset_is_told_from_a_panic(image: GuestImage, emulator: Emulator, accelerator: Accelerator, tmp_path: Path) -> None:
    with booted(image, emulator, accelerator, tmp_path) as machine:
        machine.send_sysrq("b", soon(accelerator))
        assert machine.wait_ended(soon(accelerator)).kind is EndKind.RESET


def test_power_off_is_orderly(image: GuestImage, emulator: Emulator, accelerator: Accelerator, tmp_path: Path) -> None:
    with booted(image, emulator, accelerator, tmp_path) as machine:
        machine.send_sysrq("o", soon(accelerator))
        assert machine.wait_ended(soon(accelerator)).kind is EndKind.SHUTDOWN


def test_a_killed_qemu_is_no_shutdown(image: GuestImage, emulator: Emulator, accelerator: Accelerator, tmp_path: Path) -> None:
    with booted(image, emulator, accelerator, tmp_path) as machine:
        psutil.Process(machine.pid).kill()
        assert machine.wait_ended(soon(accelerator)).kind is EndKind.QEMU_DIED


def test_a_kernel_that_cannot_find_its_init_shows_why(
    image: GuestImage, emulator: Emulator, accelerator: Accelerator, tmp_path: Path
) -> None:
    spec = replace(plain(image), kernel_arguments=("rdinit=/nowhere", "root=/dev/none"))
    with pytest.raises(BootError) as caught, booted(image, emulator, accelerator, tmp_path, spec):
        pass
    assert f"QEMU {emulator.version_text}" in caught.value.problem
    assert "Kernel panic - not syncing" in caught.value.console_tail
    assert "Linux version" in (tmp_path / "boot-verbose/console.log").read_text()


def test_a_bzimage_boots_too(image: GuestImage, emulator: Emulator, accelerator: Accelerator, tmp_path: Path) -> None:
    assert image.bzimage is not None
    spec = replace(plain(image), boot_kernel=image.bzimage, ram_bytes=1024 * MIB, regions=REGIONS[:2])
    with booted(image, emulator, accelerator, tmp_path, spec) as machine:
        assert machine.failed_boot == ""


def test_the_self_test_of_accelerators_recognizes_one_that_works(emulator: Emulator) -> None:
    assert run_self_test(emulator, "tcg", limit_s=30).passed


def test_a_killed_owner_leaves_no_qemu_no_reaper_and_no_folder(image: GuestImage, tmp_path: Path) -> None:
    command = [sys.executable, str(OWNER), *(str(path) for path in (image.boot_kernel, image.initrd, image.rootfs, tmp_path / "logs"))]
    with (tmp_path / "said").open("wb") as said, (tmp_path / "errors").open("wb") as errors:
        owner = process.start(command, stdout=said.fileno(), stderr=errors.fileno(), env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        assert wait_until(lambda: (tmp_path / "said").read_text().endswith("\n") or owner.poll() is not None, Deadline.after(900)), (
            "the owner never had a machine"
        )
    finally:
        owner.kill()
        owner.wait()
    words = (tmp_path / "said").read_text().split()
    assert len(words) == 3, (tmp_path / "errors").read_text()
    folder, (qemu, reaper) = Path(words[0]), map(int, words[1:])
    assert wait_until(lambda: not (folder.exists() or is_alive(qemu) or is_alive(reaper)), Deadline.after(60))


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
