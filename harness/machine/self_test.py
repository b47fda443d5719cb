"""A guest of a few instructions that counts down in a loop, and whether it does under an accelerator, in how many seconds."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path

from harness.host import process
from harness.host.deadline import Deadline, wait_until
from harness.machine.command import Emulator
from harness.machine.custody import private_folder
from harness.sizes import KIB

log = logging.getLogger(__name__)

#: A generous limit of a run that only starts.
START_LIMIT_S = 30.0
#: How long QEMU may take to die.
_KILL_LIMIT_S = 3.0
#: What the self-test's guest says with its last instruction, and the exit status that isa-debug-exit makes of it.
_PROBE_VALUE = 0x2A
_PROBE_STATUS = _PROBE_VALUE << 1 | 1
_PROBE_PORT = 0xF4

#: Machine code at f000:0000, position and addresses fixed. Page tables at 0x1000: one 2 MiB page, identity.
_SELF_TEST_CODE = bytes.fromhex(
    "31c0 8ed8 8ec0 bf0010 b90018 fc f3ab"  # ax = ds = es = 0; clear 0x1000..0x3fff
    "c70600100320 c70600200330 c70600308300"  # page map -> directory pointers -> directory -> the page
    "2e660f01168000"  # lgdt cs:[0x80]
    "66b820000000 0f22e0 66b800100000 0f22d8"  # cr4 = PAE; cr3 = 0x1000
    "66b9800000c0 0f32 0d0001 0f30"  # EFER |= LME
    "0f20c0 660d01000080 0f22c0"  # cr0 |= PG | PE
    "66ea5b000f000800"  # jmp 0008:f005b, into 64-bit code
    "b901000000 ffc9 75fc"  # count down from what stands at TURNS_OFFSET
    "b02a e6f4 f4 ebfd"  # out 0xf4, 0x2a; halt for good
    "0f1f440000"  # padding to 0x70
    "0000000000000000 00000000009b2000"  # segments: none; 64-bit code
    "0f00 70000f00"  # the descriptor table of 16 bytes at 0xf0070
)
#: Where the number of turns stands in the image: 4 bytes, the lowest first.
TURNS_OFFSET = 0x5C


@dataclass(frozen=True)
class SelfTest:
    """One run of the self-test: whether a guest did all its turns, what was seen, in how many seconds; ``stopped``: its limit passed."""

    passed: bool
    seen: str
    seconds: float
    stopped: bool = False


def run_self_test(emulator: Emulator, accelerator: str, turns: int = 1, limit_s: float = START_LIMIT_S) -> SelfTest:
    """Have a guest under ``accelerator`` do ``turns`` of a loop, and say whether it did. Ends by itself, hung QEMU or not."""
    with private_folder() as folder:
        rom, errors = folder / "self-test.rom", folder / "stderr"
        rom.write_bytes(self_test_rom(turns))
        command = self_test_command(emulator, accelerator, rom)
        started_s, limit = time.monotonic(), Deadline.after(limit_s)
        with errors.open("wb") as sink:
            qemu = process.start(command, stderr=sink.fileno())
        try:
            status = wait_until(lambda: None if qemu.poll() is None else (qemu.returncode,), limit, poll_s=0.005)
            seconds = time.monotonic() - started_s
        finally:
            qemu.kill()
            # A vCPU that is stuck inside the kernel may take its time to die. It is the reaper's then, not ours to wait for.
            wait_until(lambda: qemu.poll() is not None, Deadline.after(_KILL_LIMIT_S))
        said = errors.read_text(errors="replace").strip().splitlines()
    log.debug("a loop of %d turns under %s: status %s after %.3f s", turns, accelerator, status and status[0], seconds)
    if status is None:
        done = "executed nothing" if turns == 1 else f"had not done {turns:,} turns of a loop"
        return SelfTest(False, f"a guest under {accelerator} {done} within {limit_s:.1f} s (self-test)", seconds, stopped=True)
    if status[0] == _PROBE_STATUS:
        return SelfTest(True, f"a guest under {accelerator} executed its instructions (self-test)", seconds)
    last = said[-1] if said else "and said nothing"
    return SelfTest(False, f"QEMU under {accelerator} ended with status {status[0]} in the self-test: {last}", seconds)


def self_test_command(emulator: Emulator, accelerator: str, rom: Path) -> list[str]:
    """Return the command line of the self-test: the CPU model that guests get, no device but the exit port."""
    return [
        emulator.program,
        "-no-user-config",
        "-nodefaults",
        *("-display", "none"),
        *("-machine", "q35"),
        *("-accel", accelerator),
        *("-cpu", "max"),
        *("-m", "16M"),
        *("-bios", str(rom).replace(",", ",,")),
        *("-device", f"isa-debug-exit,iobase={_PROBE_PORT:#x},iosize=1"),
    ]


def self_test_rom(turns: int = 1) -> bytes:
    """Return a firmware image that goes from the reset vector through protected to long mode, counts, and writes to the exit port.

    Real mode alone proves little: a KVM that cannot run a kernel may still interpret a few 16-bit instructions.
    """
    counted = turns.to_bytes(4, "little")
    code = _SELF_TEST_CODE[:TURNS_OFFSET] + counted + _SELF_TEST_CODE[TURNS_OFFSET + len(counted) :]
    reset_vector = bytes([0xEA, 0x00, 0x00, 0x00, 0xF0])  # jmp f000:0000, the start of this image
    return code.ljust(64 * KIB - 16, b"\xf4") + reset_vector.ljust(16, b"\xf4")
