"""Saving a machine whose guest is ready, and starting others from it: clones.

The memory of the saved machine is files, which a clone maps privately: it costs nothing until the guest writes, and then only the pages
written. So the state that QEMU saves and loads is what is not memory, less than a MiB (capability x-ignore-shared).
"""

import contextlib
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HostError, MachineError
from harness.host.deadline import Deadline, wait_until
from harness.host.log import took
from harness.host.sparse import copy_sparse
from harness.machine.accelerator import Accelerator
from harness.machine.boot import is_elf
from harness.machine.command import Channels, Emulator, backing_files, disk_files, memory_files, qemu_command
from harness.machine.custody import REMEDY, private_folder
from harness.machine.machine import BootTimes, Machine
from harness.machine.options import Memory
from harness.machine.qemu import QMP_LIMIT_S, Qemu, connect_qmp, read_ssh_port, running_qemu
from harness.machine.qmp import Qmp
from harness.machine.regions.maker import Placement
from harness.machine.spec import MachineSpec, check

log = logging.getLogger(__name__)

#: The file of QEMU's own state, beside those of memory and disks.
STATE = "state"
_CAPABILITIES: dict[str, object] = {"capabilities": [{"capability": "x-ignore-shared", "state": True}]}


@dataclass(frozen=True)
class SavedMachine:
    """A machine as it was saved: ``folder`` holds its state and the files behind its memory and disks, all of them only ever read."""

    folder: Path
    spec: MachineSpec
    placements: tuple[Placement, ...]


def save_machine(machine: Machine, folder: Path, deadline: Deadline) -> SavedMachine:
    """Stop the guest, and save the machine into ``folder``. It does not run any further.

    Raises MachineError where QEMU cannot, HostError where there is no room.
    """
    qmp = machine.qmp
    with took(log, logging.INFO, f"saved the state of process {machine.pid} in {folder}"):
        qmp.execute("stop", deadline=deadline)
        qmp.execute("migrate-set-capabilities", _CAPABILITIES, deadline=deadline)
        qmp.execute("migrate", {"uri": f"file:{folder / STATE}"}, deadline=deadline)
        _wait_migrated(qmp, "saving", deadline)
    for path in backing_files(machine.spec, machine.folder):
        try:
            copy_sparse(path, folder / path.name)
        except OSError as error:
            raise HostError(f"cannot save a machine's {path.name} in {folder}: {error.strerror}") from error
    return SavedMachine(folder, machine.spec, machine.placements)


@contextlib.contextmanager
def restored_machine(
    saved: SavedMachine,
    emulator: Emulator,
    accelerator: Accelerator,
    logs: Path,
    deadline: Deadline,
    *,
    keep: Path | None = None,
    writable: bool = False,
    gdb: bool = False,
) -> Iterator[Machine]:
    """Start a machine from a saved one, hand it over running, and end it with everything that belongs to it.

    ``writable``: its memory is a copy of its own on files, so that it can be saved in its turn. ``keep``: that copy is made in this folder
    of the caller's and outlives the machine, regions included (an e820 region is part of the file ``ram``). ``gdb``: a debugger can
    attach. Raises UsageError (a file of the images is gone), HostError (no room), MachineError (QEMU did not start or did not load the
    state).
    """
    spec = saved.spec
    check(spec)
    logs.mkdir(parents=True, exist_ok=True)
    copied = [*disk_files(spec, Path()), *(memory_files(spec, Path()) if writable or keep else ())]
    with private_folder(sum(size for path, size in backing_files(spec, Path()).items() if path in copied)) as folder:
        started_s = time.monotonic()
        memory = Memory(keep or folder) if writable or keep else Memory(saved.folder, private=True)
        for path in copied:
            target = (folder if path in disk_files(spec, Path()) else memory.folder) / path
            try:
                copy_sparse(saved.folder / path, target)
            except OSError as error:
                raise HostError(f"cannot copy {saved.folder / path} to {target} for a clone: {error.strerror}; {REMEDY}") from error

        def make_command(channels: Channels) -> list[str]:
            pvh = is_elf(spec.boot_kernel)
            return qemu_command(spec, emulator, accelerator.name, folder, channels, pvh=pvh, memory=memory, incoming=True, gdb=gdb)

        with running_qemu(make_command, logs) as qemu:
            connect_qmp(qemu, deadline)
            qmp_s = time.monotonic() - started_s
            limit = deadline.within(QMP_LIMIT_S)
            _load(qemu, saved.folder / STATE, limit)
            ssh_port = read_ssh_port(qemu.qmp, limit)
            qemu.qmp.execute("cont", deadline=limit)
            times = BootTimes(qmp_s, time.monotonic() - started_s, ())
            log.info("process %d goes on after %.2f s from %s under %s", qemu.pid, times.ready_s, saved.folder, accelerator.name)
            yield Machine(qemu, spec, accelerator, folder, ssh_port, saved.placements, times, started_s=started_s)


def saved_files(spec: MachineSpec) -> tuple[str, ...]:
    """Return the names of all files of a saved machine."""
    return (STATE, *(path.name for path in (*memory_files(spec, Path()), *disk_files(spec, Path()))))


def _load(qemu: Qemu, state: Path, deadline: Deadline) -> None:
    """Load a saved state. Raises MachineError with what QEMU printed: it ends where it does not like the state."""
    try:
        qemu.qmp.execute("migrate-set-capabilities", _CAPABILITIES, deadline=deadline)
        qemu.qmp.execute("migrate-incoming", {"uri": f"file:{state}"}, deadline=deadline)
        _wait_migrated(qemu.qmp, "loading", deadline)
    except MachineError as error:
        qemu.wait_ended(Deadline.after(1))
        said = (qemu.logs / "qemu.stderr").read_text(errors="replace").strip()
        if not said:
            raise
        raise MachineError(f"QEMU did not load {state}: {' '.join(said.splitlines())}") from error


def _wait_migrated(qmp: Qmp, what: str, deadline: Deadline) -> None:
    said: dict[str, object] = {}

    def ended() -> bool:
        answer = qmp.execute("query-migrate", deadline=deadline)
        said.update(answer if isinstance(answer, dict) else {})
        return said.get("status") in ("completed", "failed", "cancelled")

    wait_until(ended, deadline, poll_s=0.003)
    if said.get("status") != "completed":
        raise MachineError(f"{what} a machine's state ended in {said.get('status')}: {said.get('error-desc', 'QEMU says no more')}")
