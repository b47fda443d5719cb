"""What templates are named by: a hash of everything that shaped the guest in them."""

import functools
import os
from importlib import resources
from pathlib import Path

from harness.agent.bundle import agent_archive
from harness.host.cache import content_key
from harness.image.bundle import GuestImage
from harness.lease.host_in_use import Host
from harness.machine.boot import is_elf
from harness.machine.command import Channels, qemu_command
from harness.machine.spec import MachineSpec
from harness.model.stack import StorageStack

#: Raise it when our code changes what a template holds; part of its key.
_BUILDER = "2"


def machine_key(host: Host, image: GuestImage, spec: MachineSpec) -> str:
    """Return a hash of all that shapes a booted guest: image files, machine, command line, CPU, QEMU, firmware, agent."""
    emulator = host.emulator
    command = qemu_command(
        spec, emulator, host.accelerator.name, Path("FOLDER"), Channels(0, 1), pvh=is_elf(spec.boot_kernel), incoming=True
    )
    binary = Path(emulator.program).stat()
    parts = [
        *(_BUILDER, repr(command), repr(sorted(image.sha256.items())), repr(spec.disks)),
        *(emulator.version_text, f"{binary.st_size} {binary.st_mtime_ns}", emulator.firmware),
        *(host.accelerator.name, _host_cpu() if host.accelerator.name == "kvm" else ""),
    ]
    return content_key(*parts, agent_archive())


def stack_key(host: Host, image: GuestImage, spec: MachineSpec, stack: StorageStack) -> str:
    """Return a hash of all that shapes a guest with a stack: the machine's, the stack, mkfs and what it is given, and our own code that
    sets stacks up."""
    prepared = [volume.mount.filesystem.traits.prepared for volume in stack.volumes if volume.mount is not None]
    return content_key(machine_key(host, image, spec), repr(stack), repr(sorted(image.mkfs.items())), repr(prepared), *set_up_code())


@functools.cache
def set_up_code() -> tuple[bytes, ...]:
    """Our own code that sets stacks up, as it was when this process began: what runs, whatever is edited meanwhile."""
    code = sorted(resources.files("harness.guest").iterdir(), key=lambda file: file.name)
    return tuple(file.read_bytes() for file in code if file.name.endswith(".py"))


def _host_cpu() -> str:
    """What ``-cpu max`` means under KVM: the processor's model and flags, and what the host's kernel makes of them."""
    lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    processor = [line for line in lines if line.split("\t")[0] in ("model name", "flags", "microcode", "stepping")]
    options = [
        f"{path}={path.read_text().strip()}" for path in sorted(Path("/sys/module").glob("kvm*/parameters/*")) if os.access(path, os.R_OK)
    ]
    return "\n".join([*processor, os.uname().release, *options])
