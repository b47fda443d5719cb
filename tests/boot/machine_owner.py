"""Boots a machine, says which processes and folder belong to it, and waits to be killed.

Usage: machine_owner.py BOOT_KERNEL INITRD ROOTFS LOGS.
"""

import sys
import threading
from pathlib import Path

import psutil

from harness.host.deadline import Deadline
from harness.machine.accelerator import choose_accelerator
from harness.machine.boot import started_machine
from harness.machine.emulator import find_emulator
from harness.machine.spec import MachineSpec


def main(boot_kernel: str, initrd: str, rootfs: str, logs: str) -> None:
    emulator = find_emulator()
    accelerator = choose_accelerator(emulator)
    spec = MachineSpec(Path(boot_kernel), Path(initrd), Path(rootfs))
    with started_machine(spec, emulator, accelerator, Path(logs), Deadline.after(180, accelerator.time_scale)) as machine:
        reaper = next(child.pid for child in psutil.Process().children() if "reaper.py" in " ".join(child.cmdline()))
        print(machine.folder, machine.pid, reaper, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
