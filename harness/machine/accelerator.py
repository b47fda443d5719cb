"""KVM or TCG: decided by whether a guest instruction was really executed, never by the presence of /dev/kvm."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HostError, UsageError
from harness.host import process, settings
from harness.host.deadline import Deadline, wait_until
from harness.machine.command import Emulator
from harness.machine.custody import private_folder
from harness.sizes import KIB

#: How many times longer an emulated guest may take than one under KVM. Public suites agree on about ten.
TIME_SCALES = {"kvm": 1.0, "tcg": 10.0}
#: A working KVM needs some tens of milliseconds for the self-test.
SELF_TEST_LIMIT_S = 3.0
#: What the self-test's guest says with its last instruction, and the exit status that isa-debug-exit makes of it.
_PROBE_VALUE = 0x2A
_PROBE_STATUS = _PROBE_VALUE << 1 | 1
_PROBE_PORT = 0xF4
_KVM_NODE = Path("/dev/kvm")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


#: Machine code at f000:0000, position and addresses fixed. Page tables at 0x1000: one 2 MiB page, identity.
_SELF_TEST_CODE = bytes.fromhex(
    "31c0 8ed8 8ec0 bf0010 b90018 fc f3ab"  # ax = ds = es = 0; clear 0x1000..0x3fff
    "c70600100320 c70600200330 c70600308300"  # page map -> directory pointers -> directory -> the page
    "2e660f01168000"  # lgdt cs:[0x80]
    "66b820000000 0f22e0 66b800100000 0f22d8"  # cr4 = PAE; cr3 = 0x1000
    "66b9800000c0 0f32 0d0001 0f30"  # EFER |= LME
    "0f20c0 660d01000080 0f22c0"  # cr0 |= PG | PE
    "66ea5b000f000800"  # jmp 0008:f005b, into 64-bit code
    "b940420f00 ffc9 75fc"  # count down from a million
    "b02a e6f4 f4 ebfd"  # out 0xf4, 0x2a; halt for good
    "0f1f440000"  # padding to 0x70
    "0000000000000000 00000000009b2000"  # segments: none; 64-bit code
    "0f00 70000f00"  # the descriptor table of 16 bytes at 0xf0070
)


@dataclass(frozen=True)
class Accelerator:
    """What runs guests here and why; ``time_scale`` is for every wait: ``Deadline.after(seconds, accelerator.time_scale)``."""

    name: str
    reason: str

    @property
    def time_scale(self) -> float:
        return TIME_SCALES[self.name]


@dataclass(frozen=True)
class SelfTest:
    """Whether a guest instruction was executed, and what was seen."""

    passed: bool
    seen: str


def may_open(node: Path) -> bool:
    """Say whether this user may open the device."""
    return os.access(node, os.R_OK | os.W_OK)


def choose_accelerator(
    emulator: Emulator,
    choice: str | None = None,
    cache_folder: Path | None = None,
    kvm_node: Path = _KVM_NODE,
    may_open: Callable[[Path], bool] = may_open,
) -> Accelerator:
    """Return the accelerator for this host; ``choice`` (auto, kvm, tcg) overrides the setting.

    Raises UsageError for another choice, and HostError where ``kvm`` was demanded and no guest runs under it.
    """
    choice = settings.accelerator_choice() if choice is None else choice
    if choice not in ("auto", "kvm", "tcg"):
        raise UsageError(f"no accelerator {choice!r}: {settings.PREFIX}ACCEL is auto, kvm or tcg")
    if choice == "tcg":
        return Accelerator("tcg", f"{settings.PREFIX}ACCEL asks for it")
    tested = _test_kvm(emulator, cache_folder or settings.cache_root(), kvm_node, may_open)
    if tested.passed:
        return Accelerator("kvm", tested.seen)
    if choice == "kvm":
        raise HostError(f"{settings.PREFIX}ACCEL asks for kvm, but {tested.seen}; take auto or tcg")
    return Accelerator("tcg", tested.seen)


def _test_kvm(emulator: Emulator, cache_folder: Path, kvm_node: Path, may_open: Callable[[Path], bool]) -> SelfTest:
    if not kvm_node.exists():
        return SelfTest(False, f"there is no {kvm_node}")
    # Cheap and changeable (group membership), so it is asked each time; only what a guest did is remembered.
    if not may_open(kvm_node):
        return SelfTest(False, f"{kvm_node} may not be opened by this user (on Debian: the group kvm)")
    cache = cache_folder / "accelerator.json"
    key = f"{emulator.program} {emulator.version_text} boot {_BOOT_ID.read_text().strip()}"
    remembered = _find_remembered(cache, key)
    if remembered is not None:
        return remembered
    tested = run_self_test(emulator, "kvm")
    _remember(cache, key, tested)
    return tested


def run_self_test(emulator: Emulator, accelerator: str, limit_s: float = SELF_TEST_LIMIT_S) -> SelfTest:
    """Run a million guest instructions under ``accelerator`` and say whether they were executed. Ends by itself, hung QEMU or not."""
    with private_folder() as folder:
        rom, errors = folder / "self-test.rom", folder / "stderr"
        rom.write_bytes(self_test_rom())
        command = self_test_command(emulator, accelerator, rom)
        with errors.open("wb") as sink:
            qemu = process.start(command, stderr=sink.fileno())
        try:
            status = wait_until(lambda: None if qemu.poll() is None else (qemu.returncode,), Deadline.after(limit_s), poll_s=0.005)
        finally:
            qemu.kill()
            # A vCPU that is stuck inside the kernel may take its time to die. It is the reaper's then, not ours to wait for.
            wait_until(lambda: qemu.poll() is not None, Deadline.after(limit_s))
        said = errors.read_text(errors="replace").strip().splitlines()
    if status is None:
        return SelfTest(False, f"a guest under {accelerator} executed nothing within {limit_s:.0f} s (self-test)")
    if status[0] == _PROBE_STATUS:
        return SelfTest(True, f"a guest under {accelerator} executed its instructions (self-test)")
    last = said[-1] if said else "and said nothing"
    return SelfTest(False, f"QEMU under {accelerator} ended with status {status[0]} in the self-test: {last}")


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


def self_test_rom() -> bytes:
    """Return a firmware image that goes from the reset vector through protected to long mode, counts, and writes to the exit port.

    Real mode alone proves little: a KVM that cannot run a kernel may still interpret a few 16-bit instructions.
    """
    reset_vector = bytes([0xEA, 0x00, 0x00, 0x00, 0xF0])  # jmp f000:0000, the start of this image
    return _SELF_TEST_CODE.ljust(64 * KIB - 16, b"\xf4") + reset_vector.ljust(16, b"\xf4")


def describe(accelerator: Accelerator) -> str:
    """Return the line for reports: ``tcg: a guest under kvm executed nothing ...``."""
    return f"{accelerator.name}: {accelerator.reason}"


def _find_remembered(cache: Path, key: str) -> SelfTest | None:
    """Return what an earlier self-test under the same key saw; a file that cannot be read counts as none."""
    try:
        document = json.loads(cache.read_text())
        if document["key"] == key:
            return SelfTest(bool(document["passed"]), str(document["seen"]))
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def _remember(cache: Path, key: str, tested: SelfTest) -> None:
    cache.parent.mkdir(parents=True, exist_ok=True)
    unfinished = cache.with_suffix(f".{os.getpid()}")
    unfinished.write_text(json.dumps({"key": key, "passed": tested.passed, "seen": tested.seen}))
    unfinished.replace(cache)
