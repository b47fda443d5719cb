"""The QEMU command line and the kernel command line: pure functions from a spec to lists.

What regions need of both is said by what makes them, kind by kind (``regions/``).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.machine.options import Memory, escaped, file_memory, joined
from harness.machine.regions import MAKERS, by_maker
from harness.machine.spec import MachineSpec, place_in_ram
from harness.sizes import MIB

#: The oldest version that the supported QEMUs (8.2 and newer) share: the guest sees the same machine under each of them.
MACHINE_TYPE = "pc-q35-8.2"
#: The options of the machine where no kind of region needs them otherwise.
MACHINE_OPTIONS = ("memory-backend=ram", "nvdimm=off", "vmport=off", "usb=off")
#: The line that the guest's init prints on the console when it can be used.
READY_LINE = "pmem-harness: ready"
#: The buffer for translated code under TCG, by whether the guest is a clone. QEMU's own default is a large share of the host's RAM for each
#: guest. A boot fills a good hundred MiB. A full buffer is emptied, and all is translated anew: clones with 28 MiB took half as much
#: processor time again for an item as with 128; 64 did as well as 256 for a small one. Only what is filled takes memory.
TRANSLATION_MIB = {False: 256, True: 128}
#: Ids that QMP commands name.
CONSOLE_ID = "console"
NETWORK_ID = "net0"
ROOTFS_SERIAL = "pmem-root"
GDB_SOCKET = "gdb"
GUEST_SSH_PORT = 22


@dataclass(frozen=True)
class Emulator:
    """The QEMU of this host: its program, version, whether it ships the small qboot firmware, and a hash of what firmware it has."""

    program: str
    version: tuple[int, int, int]
    version_text: str
    has_qboot: bool
    firmware: str = ""


@dataclass(frozen=True)
class Channels:
    """Descriptors that QEMU inherits: one end of a connected socket pair each, so nothing races and no socket file exists."""

    qmp_fd: int
    console_fd: int


def qemu_command(
    spec: MachineSpec,
    emulator: Emulator,
    accelerator: str,
    folder: Path,
    channels: Channels,
    *,
    pvh: bool,
    verbose: bool = False,
    memory: Memory | None = None,
    incoming: bool = False,
    gdb: bool = False,
) -> list[str]:
    """Return the argument vector of QEMU.

    ``folder`` is the machine's own; it holds the files behind disks and, unless ``memory`` says otherwise, those behind RAM and regions
    (see ``backing_files``). ``pvh``: the boot kernel is an uncompressed ELF file, which QEMU enters directly. ``verbose`` makes the
    kernel print all that it has to say. ``incoming``: the guest does not boot, its state is loaded. ``gdb``: a debugger can attach
    to the socket ``gdb`` in ``folder``.
    """
    memory = memory or Memory(folder)
    made = tuple(by_maker(spec.regions))
    qboot = pvh and emulator.has_qboot and all(maker.boots_with_qboot for maker, _ in made)
    return [
        emulator.program,
        *("-name", "pmem-harness"),
        "-no-user-config",
        "-nodefaults",
        *("-display", "none"),
        # The guest waits for QMP's `cont`: what QEMU is asked first is answered however soon the guest ends.
        "-S",
        *(("-incoming", "defer") if incoming else ()),
        *(("-gdb", f"unix:{folder / GDB_SOCKET},server=on,wait=off") if gdb else ()),
        # The reaper finds a machine by its folder, and a clone may have no other file in it.
        *("-pidfile", str(folder / "pid")),
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
        *("-machine", joined(MACHINE_TYPE, *_machine_words(spec))),
        *("-accel", f"tcg,tb-size={TRANSLATION_MIB[memory.private]}" if accelerator == "tcg" else accelerator),
        # `max` has RDRAND (early entropy), clflushopt and clwb (the flushes of pmem) under every accelerator.
        *("-cpu", joined("max", *(word for maker, _ in made for word in maker.cpu_words))),
        *("-smp", str(spec.vcpus)),
        *("-m", _memory_option(spec)),
        *("-object", file_memory("ram", memory, "ram", spec.ram_bytes)),
        *(("-bios", "qboot.rom") if qboot else ()),
        *("-kernel", str(spec.boot_kernel)),
        *("-initrd", str(spec.initrd)),
        *("-append", kernel_command_line(spec, verbose=verbose)),
        # A panicking guest goes on to its own reboot, so that the console has the whole report; a reboot ends QEMU.
        *("-action", "reboot=shutdown,shutdown=poweroff,panic=none"),
        *("-device", "pvpanic-pci"),
        *("-chardev", f"socket,id=qmp,fd={channels.qmp_fd}"),
        *("-mon", "chardev=qmp,mode=control"),
        *("-chardev", f"socket,id={CONSOLE_ID},fd={channels.console_fd}"),
        *("-serial", f"chardev:{CONSOLE_ID}"),
        *("-object", "rng-builtin,id=rng0"),
        *("-device", "virtio-rng-pci,rng=rng0"),
        # QEMU itself picks the loopback port (0); restrict: the guest reaches neither the host nor anything behind it.
        *("-netdev", f"user,id={NETWORK_ID},restrict=on,hostfwd=tcp:127.0.0.1:0-:{GUEST_SSH_PORT}"),
        *("-device", f"virtio-net-pci,netdev={NETWORK_ID},romfile="),
        *_disk_options("rootfs", spec.rootfs, ROOTFS_SERIAL, read_only=True),
        *(option for disk in spec.disks for option in _disk_options(disk.name, folder / f"disk-{disk.name}", disk.name, read_only=False)),
        *(option for maker, regions in made for option in maker.options(regions, memory)),
        *_ivshmem_options(spec),
    ]


def kernel_command_line(spec: MachineSpec, *, verbose: bool = False) -> str:
    """Return the kernel's command line: quiet until the initrd, no self-tests, the regions in RAM, then the spec's own arguments."""
    talk = ["ignore_loglevel", "earlyprintk=serial,ttyS0"] if verbose else ["loglevel=5"]
    return " ".join(
        [
            "console=ttyS0",
            # Not `quiet`: a WARNING is printed at the level that `quiet` hides.
            *talk,
            "printk.time=1",
            # From the initrd on, when pmem's drivers are loaded, everything but debugging: an access beyond the end of a device is
            # a complaint that the kernel makes at level 6 (block/blk-core.c bio_check_eod).
            "sysctl.kernel.printk=7",
            "panic=-1",
            "sysrq_always_enabled",
            # Boot-time self-tests and security modules that the cases have no use for cost about a quarter of a boot under TCG.
            *("cryptomgr.notests", "ima=off", "apparmor=0", "audit=0", "mitigations=off", "random.trust_cpu=on"),
            # An emulated CPU on a busy host may stand still for seconds: report what hangs, not what is slow.
            *("watchdog_thresh=30", "nmi_watchdog=0", "rcupdate.rcu_cpu_stall_timeout=60", "sysctl.kernel.hung_task_timeout_secs=60"),
            *_region_words(spec),
            *spec.kernel_arguments,
        ]
    )


def _region_words(spec: MachineSpec) -> Iterator[str]:
    """Yield what the kernel is told of the regions that are parts of RAM."""
    placed = place_in_ram(spec.regions, spec.ram_bytes) or ()
    for kind, maker in MAKERS.items():
        yield from maker.kernel_words([placement for placement in placed if placement.kind is kind])


def backing_files(spec: MachineSpec, folder: Path) -> dict[Path, int]:
    """Return the files that a machine needs in ``folder``, with their sizes in bytes. They start sparse: all zero."""
    return memory_files(spec, folder) | disk_files(spec, folder)


def memory_files(spec: MachineSpec, folder: Path) -> dict[Path, int]:
    """Return those of them that are the guest's memory: a clone maps them privately."""
    files = {folder / "ram": spec.ram_bytes}
    for maker, regions in by_maker(spec.regions):
        files |= {folder / name: size_bytes for name, size_bytes in maker.files(regions).items()}
    return files


def disk_files(spec: MachineSpec, folder: Path) -> dict[Path, int]:
    """Return those of them that are disks: a clone has copies."""
    return {folder / f"disk-{disk.name}": disk.size_bytes for disk in spec.disks}


def _machine_words(spec: MachineSpec) -> list[str]:
    options = dict(option.split("=") for option in MACHINE_OPTIONS)
    for maker, _ in by_maker(spec.regions):
        options |= maker.machine_options
    return ["=".join(option) for option in options.items()]


def _memory_option(spec: MachineSpec) -> str:
    ram = f"size={spec.ram_bytes // MIB}M"
    rooms = [maker.room(regions) for maker, regions in by_maker(spec.regions)]
    size_bytes = sum(room.size_bytes for room in rooms)
    if not size_bytes:
        return ram
    return joined(ram, f"slots={sum(room.slots for room in rooms)}", f"maxmem={-(-(spec.ram_bytes + size_bytes) // MIB)}M")


def _ivshmem_options(spec: MachineSpec) -> Sequence[str]:
    if not spec.ivshmem_bytes:
        return ()
    # Not a shared file: QEMU loads such memory by its guest address, which a BAR does not have yet. Only the master can be saved.
    backend = f"memory-backend-ram,id=mem-ivshmem,size={spec.ivshmem_bytes}"
    return "-object", backend, "-device", "ivshmem-plain,memdev=mem-ivshmem,master=on"


def _disk_options(name: str, path: Path, serial: str, *, read_only: bool) -> Sequence[str]:
    mode = ("read-only=on",) if read_only else ("cache.no-flush=on",)
    return (
        *("-blockdev", joined("driver=file", f"node-name=disk-{name}", f"filename={escaped(path)}", *mode)),
        *("-device", f"virtio-blk-pci,drive=disk-{name},serial={serial}"),
    )
