"""What mends a broken link: words, and the command lines where there are such, in order, for root on the machine that was looked at."""

import shlex
from dataclasses import dataclass, replace

from harness.model.dax.evidence import Device, DeviceKind, Evidence, FileSeen, FilesystemSeen, Namespace, Region
from harness.model.dax.needs import NEEDS, USUAL, DaxNeeds
from harness.model.kinds import is_synchronous

_SECTOR = 512
#: Where a partition is to begin: at a multiple of 2 MiB, so that huge pages can be mapped. In sectors.
_HUGE = 4096
#: Mount options that a new mount keeps: those that say who may do what.
_KEPT = frozenset({"ro", "noatime", "nosuid", "nodev", "noexec"})
#: Since then a region tells the devices on it that it may be written.
_TELLS_SINCE = (5, 12)
_FSTAB = "and in /etc/fstab, where it is named there"


@dataclass(frozen=True)
class Cure:
    """What to do. ``destroys``: what the commands destroy; empty: nothing."""

    words: str
    commands: tuple[str, ...] = ()
    destroys: str = ""


def newer_kernel(since: str) -> Cure:
    return Cure(f"boot Linux {since} or newer")


OTHER_KERNEL = Cure("boot a kernel that is built with CONFIG_FS_DAX=y, as those of distributions are")
NO_REGION = Cure(
    "fit NVDIMMs, or set memory aside with a word on the kernel's command line:"
    " memmap=4G!12G makes a region of the 4 GiB that begin at 12 GiB"
)
SEE_THE_LOG = Cure("the cause is not known here; the kernel's log may name it: dmesg | grep -i dax")


def load(module: str) -> Cure:
    return Cure(f"load the module {module}", (f"modprobe {module}",))


def elsewhere(e: Evidence) -> Cure:
    """What to do with a place on a disk: nothing makes persistent memory of that."""
    nodes = [space.node for space in e.namespaces if space.node is not None and space.gives_dax]
    where = f", on {nodes[0]} for example" if nodes else ""
    return Cure(f"keep the files on persistent memory{where}: nothing gives a disk DAX")


def open_region(e: Evidence, region: Region) -> Cure:
    """Have a region be written. Before 5.12 a device looks at its region when its driver takes it."""
    again = [
        f"ndctl {word} {space.name}" for space in e.about if e.version < _TELLS_SINCE for word in ("disable-namespace", "enable-namespace")
    ]
    return Cure(
        f"make {region.name} writable; if it is so because its NVDIMM cannot keep data, what is written is lost with the power",
        (f"echo 0 > /sys/bus/nd/devices/{region.name}/read_only", *again),
    )


def make_namespace(e: Evidence, region: Region) -> Cure:
    return Cure(f"make a namespace of {region.name}", (f"ndctl create-namespace --region {region.name} --mode fsdax",))


def change_mode(e: Evidence, namespace: Namespace) -> Cure:
    """Bring a namespace into the mode fsdax, and put a file system on it where there was one."""
    # A label would keep the sector size of the mode before.
    reset = " --sector-size 512" if namespace.labelled else ""
    making = f"ndctl create-namespace --force --reconfig {namespace.name} --mode fsdax --map mem{reset}"
    if e.device is not None and e.device.kind is not DeviceKind.WHOLE:
        return Cure(
            f"bring {namespace.name} into the mode fsdax, and make anew what was on it", (making,), f"all that is on {namespace.name}"
        )
    commands = (*_unmounted(e), making, *_remade(e, namespace.fsdax_node))
    return Cure(f"bring {namespace.name} into the mode fsdax", commands, f"all that is on {namespace.name}")


def enable(namespace: Namespace) -> Cure:
    return Cure(f"enable {namespace.name}", (f"ndctl enable-namespace {namespace.name}",))


def without_loop(e: Evidence, loop: Device) -> Cure:
    """Show the file system on which the file lies that the loop device shows."""
    if not loop.folder:
        return Cure("keep the files on the device itself, without a loop device between")
    words = f"keep the files beside the one that {loop.node} shows: they are on the file system {loop.folder}"
    target = e.mounted and e.mounted.folder
    if not target:
        return Cure(f"{words}; ask for {loop.folder}")
    commands = (*_unmounted(e), f"losetup --detach {loop.node}", f"mount --bind {_q(loop.folder)} {_q(target)}")
    return Cure(f"{words}, which can be shown at {target} instead", commands)


def without_mapping(e: Evidence, mapped: Device) -> Cure:
    """Put the file system on the persistent memory itself."""
    spaces = mapped.namespaces
    if not spaces or spaces[0].node is None or e.device != mapped:
        return Cure("put the file system on a device of persistent memory itself, without this mapping")
    commands = (*_unmounted(e), f"dmsetup remove {_q(mapped.node.removeprefix('/dev/mapper/'))}", *_remade(e, spaces[0].node))
    words = f"put the file system on {spaces[0].node} itself, or map only devices of persistent memory linearly"
    return Cure(words, commands, f"all that is on {mapped.node}")


def align(e: Evidence, device: Device) -> Cure:
    """Let a partition begin on a page, and end on one, within the room that it has."""
    page = e.page_bytes // _SECTOR
    if device.kind is not DeviceKind.PARTITION or e.device != device:
        return Cure(f"make {device.node} anew, so that its begin and its size are multiples of {page} sectors")
    unit = _HUGE if device.sectors > 4 * _HUGE else page
    start = -(-device.start // unit) * unit
    size = (device.start + device.sectors - start) // unit * unit
    whole = device.below[0].node
    number = device.node.removeprefix(whole).removeprefix("p")
    change = f'echo "start={start}, size={size}" | sfdisk --quiet --wipe-partitions always -N {number} {whole}'
    return Cure(
        f"let {device.node} begin at sector {start}, with {size} sectors",
        (*_unmounted(e), change, *_remade(e, device.node)),
        f"all that is on {device.node}",
    )


def make_filesystem(e: Evidence) -> Cure:
    if e.device is None:
        return Cure("make a file system on a device of persistent memory")
    block = f"one with blocks of {e.page_bytes} bytes"
    destroys = f"all that is on {e.device.node}" if e.filesystem is not None else ""
    return Cure(f"make a file system on {e.device.node}, {block}", (*_unmounted(e), *_remade(e, e.device.node)), destroys)


def by_file(e: Evidence, fs: FilesystemSeen, needs: DaxNeeds) -> Cure:
    """Leave DAX to each file, which the feature does not hinder."""
    folder = _folder(e)
    mounting = _mounting(e, fs, needs, "inode")
    commands = (*_unmounted(e), *mounting, f"{needs.set_flag} {_q(folder)}", *(f"{needs.set_flag} {_q(file.path)}" for file in _files(e)))
    words = f"mount with dax=inode and give the folder the flag, which files that are made in it then have; {_FSTAB}"
    return Cure(f"{words}; a file system without the feature can be mounted with dax=always", commands)


def mount(e: Evidence, fs: FilesystemSeen) -> Cure:
    needs = NEEDS[fs.type]
    word = needs.word("always", e.version)
    commands = (*_unmounted(e), *_mounting(e, fs, needs, "always"))
    if fs.folder is None:
        return Cure(f"mount it with {word}", commands)
    return Cure(f"unmount it and mount it with {word}, as a remount does not change that; {_FSTAB}", commands)


def set_flag(e: Evidence, needs: DaxNeeds) -> Cure:
    """Give the flag to what lacks it: the folder, so that what is made in it has it, and the file."""
    lacking = [seen.path for seen in (e.folder, *_files(e)) if seen is not None and isinstance(seen.flags, str) and "x" not in seen.flags]
    commands = tuple(f"{needs.set_flag} {_q(path)}" for path in lacking)
    return Cure("set the flag; it counts when nobody has the file open, and files made in a folder take it over", commands)


def read_again(path: str) -> Cure:
    """Have the kernel forget an inode, which it then reads with its flag."""
    return Cure(
        f"close {path} wherever it is open, and have the kernel read its inode again", ("sync", "echo 2 > /proc/sys/vm/drop_caches")
    )


def of_file(path: str, letter: str) -> Cure:
    """What to do with a file that can have no DAX as it is."""
    if letter == "j":
        return Cure(
            "take the flag from it; it counts when nobody has the file open",
            (f"chattr -j {_q(path)}", "sync", "echo 2 > /proc/sys/vm/drop_caches"),
        )
    return Cure("copy it into a file that is not so: in a folder with the flag x where the mount leaves it to each file")


def make_image(e: Evidence, needs: DaxNeeds) -> Cure:
    """Make a file system that nobody can write to anew of its own files, each of them in whole blocks."""
    words = f"make the image anew of its files, none of them compressed and all in whole blocks ({needs.image})"
    fs = e.mounted
    if e.device is None or fs is None or fs.folder is None:
        return Cure(words)
    copy = f"/var/tmp/{e.device.node.rpartition('/')[2]}"
    making = (f"cp -a {_q(fs.folder)} {copy}", *_unmounted(e), f"{needs.image} {e.device.node} {copy}")
    return Cure(words, (*making, *_mounting(e, fs, needs, "always"), f"rm -r {copy}"), f"what {e.device.node} has beside these files")


def flush(e: Evidence) -> Cure:
    """What a program does without MAP_SYNC."""
    words = "call fsync or msync after storing: without MAP_SYNC a flush of the processor's caches makes nothing durable"
    fs = e.mounted
    synchronous = all(is_synchronous(space.region.provider) for space in e.about)
    if fs is None or not synchronous or fs.type not in NEEDS or NEEDS[fs.type].traits.synchronous_dax:
        return Cure(words)
    # The driver of ext4 mounts it as it is.
    mounting = (*_unmounted(e), *_mounting(e, replace(fs, type=USUAL), NEEDS[USUAL], "always"))
    return Cure(f"{words}; or mount it with the driver of {USUAL}", mounting)


# ---- parts of commands ------------------------------------------------------------------------------------------------


def _unmounted(e: Evidence) -> tuple[str, ...]:
    if not isinstance(e.filesystem, FilesystemSeen):
        return ()
    return tuple(f"umount {_q(folder)}" for folder in reversed(e.filesystem.mounts))


def _remade(e: Evidence, node: str) -> tuple[str, ...]:
    """Make a file system of the same type, or the usual one, on ``node``, and mount it where it was, or below /mnt."""
    known = isinstance(e.filesystem, FilesystemSeen) and e.filesystem.type in NEEDS and NEEDS[e.filesystem.type].mkfs
    fs = e.filesystem if isinstance(e.filesystem, FilesystemSeen) and known else FilesystemSeen(USUAL, e.page_bytes, frozenset())
    needs = NEEDS[fs.type]
    making = f"{needs.mkfs.format(block=e.page_bytes)} {node}"
    where = e.mounted.folder if e.mounted is not None else None
    return (making, *_mounting(e, replace(fs, folder=where), needs, "always", node))


def _mounting(e: Evidence, fs: FilesystemSeen, needs: DaxNeeds, value: str, node: str = "") -> tuple[str, ...]:
    node = node or (e.device.node if e.device is not None else e.asked)
    folder = fs.folder or _new_folder(node)
    words = ",".join([*(option for option in fs.options if option in _KEPT), needs.word(value, e.version)])
    made = () if fs.folder is not None else (f"mkdir -p {folder}",)
    return (*made, f"mount -t {fs.type} -o {words} {node} {_q(folder)}")


def _new_folder(node: str) -> str:
    return f"/mnt/{node.rpartition('/')[2]}"


def _folder(e: Evidence) -> str:
    """The folder whose files are to have DAX."""
    if e.folder is not None:
        return e.folder.path
    if e.file is not None:
        return e.file.path.rpartition("/")[0] or "/"
    return (e.mounted.folder if e.mounted is not None else None) or _new_folder(e.device.node if e.device is not None else e.asked)


def _files(e: Evidence) -> tuple[FileSeen, ...]:
    return () if e.file is None else (e.file,)


def _q(path: str) -> str:
    return shlex.quote(path)
