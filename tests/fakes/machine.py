"""A machine that needs no QEMU: its images are empty files, its emulator is the fake, its kernel is the fake's script."""

import json
from pathlib import Path

from harness.machine.accelerator import Accelerator
from harness.machine.command import Emulator
from harness.machine.spec import MachineSpec
from harness.model.stack import Region

FAKE_QEMU = Path(__file__).with_name("fake_qemu.py")
FAKE_EMULATOR = Emulator(str(FAKE_QEMU), (10, 0, 2), "10.0.2 (fake)", has_qboot=True)
#: A time scale of 1, so that a test never waits for long.
FAKE_ACCELERATOR = Accelerator("kvm", "a fake runs everywhere")

READY = ["console", "pmem-harness: init 1.0\r\npmem-harness: ready\r\n"]
PANIC = [
    "console",
    "[    1.000000] Kernel panic - not syncing: VFS: Unable to mount root fs\r\n[    1.100000] ---[ end Kernel panic ]---\r\n",
]
RESET = ["event", "SHUTDOWN", {"guest": True, "reason": "guest-reset"}]
POWER_OFF = ["event", "SHUTDOWN", {"guest": True, "reason": "guest-shutdown"}]
PANICKED = ["event", "GUEST_PANICKED", {"action": "run"}]
EXIT = ["exit", 0]


def fake_spec(folder: Path, script: dict[str, object], regions: tuple[Region, ...] = ()) -> MachineSpec:
    """Return the spec of a machine that plays ``script`` (see fake_qemu.py)."""
    kernel, initrd, rootfs = folder / "kernel", folder / "initrd", folder / "root.img"
    kernel.write_text(json.dumps(script))
    initrd.touch()
    rootfs.touch()
    return MachineSpec(kernel, initrd, rootfs, regions=regions)
