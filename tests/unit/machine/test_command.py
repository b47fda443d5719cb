"""The QEMU and kernel command lines, read as a whole."""

from dataclasses import replace
from pathlib import Path

from harness.machine.command import Channels, Emulator, backing_files, kernel_command_line, qemu_command
from harness.machine.options import Memory
from harness.machine.spec import MachineSpec
from harness.model.kinds import RegionKind
from harness.model.stack import Disk, Region
from harness.sizes import GIB, KIB, MIB

EMULATOR = Emulator("/usr/bin/qemu-system-x86_64", (10, 0, 2), "10.0.2", has_qboot=True)
SPEC = MachineSpec(
    Path("/i/vmlinux"),
    Path("/i/initrd"),
    Path("/i/root,1.img"),
    kernel_arguments=("one", "two=2"),
    regions=(
        Region("main", RegionKind.E820),
        Region("target", RegionKind.NVDIMM, 256 * MIB, 128 * KIB),
        Region("more", RegionKind.E820, 16 * MIB),
    ),
    disks=(Disk("disk", 64 * MIB),),
    ivshmem_bytes=MIB,
)
FOLDER = Path("/f")


def command(spec: MachineSpec = SPEC, accelerator: str = "tcg", pvh: bool = True, emulator: Emulator = EMULATOR) -> list[str]:
    return qemu_command(spec, emulator, accelerator, FOLDER, Channels(5, 6), pvh=pvh)


def pairs(words: list[str]) -> list[str]:
    """Return the command with each option and its value on one line."""
    return " ".join(words).replace(" -", "\n-").split("\n")


KERNEL_LINE = (
    "console=ttyS0 loglevel=5 printk.time=1 sysctl.kernel.printk=7 panic=-1 sysrq_always_enabled "
    "cryptomgr.notests ima=off apparmor=0 audit=0 mitigations=off random.trust_cpu=on "
    "watchdog_thresh=30 nmi_watchdog=0 rcupdate.rcu_cpu_stall_timeout=60 sysctl.kernel.hung_task_timeout_secs=60 "
    "memmap=256M!256M memmap=16M!640M one two=2"
)

GOLDEN = f"""/usr/bin/qemu-system-x86_64
-name pmem-harness
-no-user-config
-nodefaults
-display none
-S
-pidfile /f/pid
-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
-machine pc-q35-8.2,memory-backend=ram,nvdimm=on,vmport=off,usb=off
-accel tcg,tb-size=256
-cpu max
-smp 1
-m size=1024M,slots=1,maxmem=2305M
-object memory-backend-file,id=ram,mem-path=/f/ram,size=1073741824,share=on
-bios qboot.rom
-kernel /i/vmlinux
-initrd /i/initrd
-append {KERNEL_LINE}
-action reboot=shutdown,shutdown=poweroff,panic=none
-device pvpanic-pci
-chardev socket,id=qmp,fd=5
-mon chardev=qmp,mode=control
-chardev socket,id=console,fd=6
-serial chardev:console
-object rng-builtin,id=rng0
-device virtio-rng-pci,rng=rng0
-netdev user,id=net0,restrict=on,hostfwd=tcp:127.0.0.1:0-:22
-device virtio-net-pci,netdev=net0,romfile=
-blockdev driver=file,node-name=disk-rootfs,filename=/i/root,,1.img,read-only=on
-device virtio-blk-pci,drive=disk-rootfs,serial=pmem-root
-blockdev driver=file,node-name=disk-disk,filename=/f/disk-disk,cache.no-flush=on
-device virtio-blk-pci,drive=disk-disk,serial=disk
-object memory-backend-file,id=mem-target,mem-path=/f/nvdimm-target,size=268566528,share=on
-device nvdimm,id=target,memdev=mem-target,label-size=131072
-object memory-backend-ram,id=mem-ivshmem,size=1048576
-device ivshmem-plain,memdev=mem-ivshmem,master=on"""


def test_the_whole_command_of_a_machine_with_everything() -> None:
    assert pairs(command()) == GOLDEN.split("\n")


def test_a_plain_machine_has_no_nvdimm_no_memory_slots_and_no_memmap() -> None:
    words = command(replace(SPEC, regions=(), disks=(), ivshmem_bytes=0))
    assert "size=1024M" in words
    assert "nvdimm=off" in words[words.index("-machine") + 1]
    assert "memmap" not in words[words.index("-append") + 1]
    assert sum(word.startswith("memory-backend-file") for word in words) == 1


def test_kvm_has_no_options_of_tcg() -> None:
    words = command(accelerator="kvm")
    assert words[words.index("-accel") + 1] == "kvm"


def test_a_bzimage_and_a_host_without_qboot_take_the_usual_firmware() -> None:
    assert "-bios" not in command(pvh=False)
    assert "-bios" not in command(emulator=replace(EMULATOR, has_qboot=False))


def test_a_clone_maps_its_template_privately_and_loads_its_state() -> None:
    words = qemu_command(SPEC, EMULATOR, "tcg", FOLDER, Channels(5, 6), pvh=True, memory=Memory(Path("/t"), private=True), incoming=True)
    assert words[words.index("-incoming") + 1] == "defer"
    memory = [word for word in words if word.startswith("memory-backend-file")]
    assert all("mem-path=/t/" in word and word.endswith("share=off,readonly=on,rom=off") for word in memory)
    assert "driver=file,node-name=disk-disk,filename=/f/disk-disk,cache.no-flush=on" in words
    assert "tcg,tb-size=128" in words


def test_a_debugger_gets_a_socket_only_where_it_is_asked_for() -> None:
    words = qemu_command(SPEC, EMULATOR, "tcg", FOLDER, Channels(5, 6), pvh=True, gdb=True)
    assert words[words.index("-gdb") + 1] == "unix:/f/gdb,server=on,wait=off"
    assert "-gdb" not in command()


def test_a_label_less_nvdimm_has_no_label_option() -> None:
    words = command(replace(SPEC, regions=(Region("n", RegionKind.NVDIMM),)))
    assert "nvdimm,id=n,memdev=mem-n" in words


def test_a_verbose_boot_prints_everything() -> None:
    line = kernel_command_line(SPEC, verbose=True)
    assert "ignore_loglevel earlyprintk=serial,ttyS0" in line
    assert "loglevel=5" not in line


def test_the_console_is_never_so_quiet_that_warnings_are_lost() -> None:
    words = kernel_command_line(SPEC).split()
    assert "loglevel=5" in words
    assert "quiet" not in words


def test_an_nvdimm_file_holds_the_label_area_beside_the_usable_size() -> None:
    assert backing_files(SPEC, FOLDER) == {
        FOLDER / "ram": GIB,
        FOLDER / "nvdimm-target": 256 * MIB + 128 * KIB,
        FOLDER / "disk-disk": 64 * MIB,
    }
