"""Saving and restoring, played by a fake QEMU: what is kept where, and every way in which it can fail."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from harness.errors import HostError, MachineError, UsageError
from harness.host.deadline import Deadline, wait_until
from harness.machine.boot import started_machine
from harness.machine.ending import EndKind
from harness.machine.machine import Machine
from harness.machine.snapshot import STATE, SavedMachine, restored_machine, save_machine, saved_files
from harness.machine.spec import MachineSpec
from harness.model.kinds import RegionKind
from harness.model.stack import Disk, Region
from harness.sizes import KIB, MIB
from tests.fakes.machine import FAKE_ACCELERATOR, FAKE_EMULATOR, READY, fake_spec

REGION = Region("n", RegionKind.NVDIMM, 16 * MIB, 128 * KIB)


def soon() -> Deadline:
    return Deadline.after(120)


@contextlib.contextmanager
def started(folder: Path, **script: object) -> Iterator[Machine]:
    spec = fake_spec(folder, {"quiet": [READY], **script}, (REGION,))
    spec = MachineSpec(spec.boot_kernel, spec.initrd, spec.rootfs, regions=spec.regions, disks=(Disk("d", MIB),))
    with started_machine(spec, FAKE_EMULATOR, FAKE_ACCELERATOR, folder / "logs", soon()) as machine:
        yield machine


@pytest.fixture
def saved(tmp_path: Path) -> SavedMachine:
    (tmp_path / "saved").mkdir()
    with started(tmp_path) as machine:
        (machine.folder / "ram").write_bytes(b"memory")
        (machine.folder / "disk-d").write_bytes(b"blocks")
        return save_machine(machine, tmp_path / "saved", soon())


def restored(saved: SavedMachine, logs: Path, **options: Path | bool) -> contextlib.AbstractContextManager[Machine]:
    return restored_machine(saved, FAKE_EMULATOR, FAKE_ACCELERATOR, logs, soon(), **options)  # type: ignore[arg-type]


def test_all_files_of_a_machine_are_saved(saved: SavedMachine) -> None:
    assert {path.name for path in saved.folder.iterdir()} == set(saved_files(saved.spec)) == {STATE, "ram", "nvdimm-n", "disk-d"}
    assert (saved.folder / "ram").read_bytes() == b"memory"
    assert [placement.name for placement in saved.placements] == ["n"]


def test_a_clone_runs_on_the_saved_memory_and_a_copy_of_the_disks(saved: SavedMachine, tmp_path: Path) -> None:
    with restored(saved, tmp_path / "logs-2") as machine:
        assert machine.ending().kind is EndKind.RUNNING
        assert machine.ssh_port == 34567
        assert f"mem-path={saved.folder}/ram" in " ".join(machine.qemu.command)
        assert (machine.folder / "disk-d").read_bytes() == b"blocks"
        assert not (machine.folder / "ram").exists()
        assert machine.placements == saved.placements
        assert machine.age_s() > 0
    assert not machine.folder.exists()
    assert not psutil.pid_exists(machine.pid)


def test_a_writable_clone_has_its_memory_to_itself_and_can_be_saved_again(saved: SavedMachine, tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    with restored(saved, tmp_path / "logs-2", writable=True) as machine:
        (machine.folder / "ram").write_bytes(b"other!")
        save_machine(machine, tmp_path / "again", soon())
    assert (tmp_path / "again/ram").read_bytes() == b"other!"
    assert (saved.folder / "ram").read_bytes() == b"memory"


def test_memory_that_is_to_be_kept_outlives_the_clone(saved: SavedMachine, tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    with restored(saved, tmp_path / "logs-2", keep=tmp_path / "kept") as machine:
        assert f"mem-path={tmp_path}/kept/ram,size={machine.spec.ram_bytes},share=on" in " ".join(machine.qemu.command)
    assert (tmp_path / "kept/ram").read_bytes() == b"memory"
    assert (tmp_path / "kept/nvdimm-n").exists()


def test_a_qemu_without_the_capability_says_so(tmp_path: Path) -> None:
    with (
        started(tmp_path, refused=["migrate-set-capabilities"]) as machine,
        pytest.raises(MachineError, match="refused the QMP command migrate-set-capabilities"),
    ):
        save_machine(machine, tmp_path, soon())


def test_a_state_that_cannot_be_saved_or_loaded_is_told_with_qemus_reason(tmp_path: Path) -> None:
    failing = {"status": "failed", "error-desc": "No space left on device"}
    with (
        started(tmp_path, migration=failing) as machine,
        pytest.raises(MachineError, match="saving a machine's state ended in failed: No space left on device"),
    ):
        save_machine(machine, tmp_path, soon())
    spec = fake_spec(tmp_path, {"quiet": [READY], "migration": {"status": "failed"}})
    (tmp_path / "ram").touch()
    broken = restored(SavedMachine(tmp_path, spec, ()), tmp_path / "logs-2")
    with pytest.raises(MachineError, match="loading a machine's state ended in failed: QEMU says no more"), broken:
        pass


def test_a_folder_that_cannot_be_written_is_a_host_error(tmp_path: Path) -> None:
    with started(tmp_path) as machine:
        (tmp_path / "taken" / "ram").mkdir(parents=True)
        with pytest.raises(HostError, match=r"cannot save a machine's ram in .*taken: Is a directory"):
            save_machine(machine, tmp_path / "taken", soon())


def test_a_saved_machine_without_one_of_its_files_is_a_host_error(saved: SavedMachine, tmp_path: Path) -> None:
    (saved.folder / "disk-d").unlink()
    with pytest.raises(HostError, match=r"cannot copy .*disk-d for a clone: No such file"), restored(saved, tmp_path / "logs-2"):
        pass


def test_an_image_that_is_gone_is_a_usage_error(saved: SavedMachine, tmp_path: Path) -> None:
    saved.spec.rootfs.unlink()
    with pytest.raises(UsageError, match="does not exist: build the images first"), restored(saved, tmp_path / "logs-2"):
        pass


def test_a_guest_is_alone_when_only_the_forwarded_port_is_listed(tmp_path: Path) -> None:
    with started(tmp_path) as machine:
        assert machine.wait_disconnected(soon())


def test_a_guest_that_keeps_a_connection_is_not_alone(tmp_path: Path) -> None:
    line = "  TCP[ESTABLISHED]  14       127.0.0.1 34567       10.0.2.15    22     0     0\r\n"
    listed = "  TCP[HOST_FORWARD]  14       127.0.0.1 34567       10.0.2.15    22     0     0\r\n"
    with started(tmp_path, usernet=listed + line) as machine:
        assert not machine.wait_disconnected(Deadline.after(0.1))


def test_a_silent_guest_is_diagnosed_as_far_as_qemu_answers(tmp_path: Path) -> None:
    blocked = [["console", "[ 1.000000] sysrq: Show Blocked State\r\n[ 1.100000] task:tee state:D\r\n"]]
    with started(tmp_path, sysrq={"w": blocked}) as machine:
        said = machine.diagnose(soon())
        assert "task:tee state:D" in said
        assert "== registers ==" in said
        psutil.Process(machine.pid).kill()
        psutil.Process(machine.pid).wait() if psutil.pid_exists(machine.pid) else None
        assert "(no more: " in machine.diagnose(Deadline.after(2))


def test_a_state_that_qemu_does_not_like_is_told_in_its_words(tmp_path: Path) -> None:
    spec = fake_spec(tmp_path, {"quiet": [READY], "on_incoming": [["stderr", "Mismatched GPAs for block ram"], ["exit", 1]]})
    (tmp_path / "ram").touch()
    broken = restored(SavedMachine(tmp_path, spec, ()), tmp_path / "logs-2")
    with pytest.raises(MachineError, match=r"QEMU did not load .*state: Mismatched GPAs for block ram"), broken:
        pass


def test_a_guest_that_qemu_has_paused_is_our_own_fault(tmp_path: Path) -> None:
    with started(tmp_path, status={"status": "io-error"}) as machine:
        assert machine.find_own_fault() == "QEMU has stopped the guest: io-error (is the host's disk full?)"


def test_how_a_guest_ended_is_told_with_its_last_words(tmp_path: Path) -> None:
    with started(tmp_path, sysrq={"o": [["console", "powering off\r\n"], ["exit", 0]]}) as machine:
        assert machine.find_end() is None
        machine.send_sysrq("o", soon())
        machine.wait_ended(soon())
        assert "powering off" in (machine.find_end() or "")


def test_a_stopped_qemu_is_our_own_fault(tmp_path: Path) -> None:
    with started(tmp_path) as machine:
        assert machine.find_own_fault() is None
        process = psutil.Process(machine.pid)
        process.suspend()
        assert wait_until(lambda: process.status() == psutil.STATUS_STOPPED, soon())
        assert "was stopped by a signal or a debugger" in (machine.find_own_fault() or "")
        process.resume()
