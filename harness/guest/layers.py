"""Layers in the guest: how each is made on the device of a namespace, found again, read back and undone."""

import fnmatch
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.errors import GuestError
from harness.guest.filesystem import make_commands, mount_options
from harness.guest.link import CommandOutput, GuestCommand, GuestFiles
from harness.model.filesystems import Filesystem
from harness.model.kinds import DaxOption
from harness.model.layers import Layer
from harness.model.stack import Mount
from harness.sizes import MIB

#: Where a file system is mounted that is below a volume, in a folder named after its role.
_BELOW = "/srv"
_BACKING_BYTES = 192 * MIB
#: What :func:`find_node` and :func:`read_layer` need to have been read.
LAYER_PATTERNS = (
    "/sys/block/*/*/partition",
    "/sys/block/*/*/start",
    "/sys/block/*/*/size",
    "/sys/block/dm-*/dm/name",
    "/sys/block/dm-*/slaves/*",
    "/sys/block/loop*/loop/backing_file",
)
_SECTORS_PER_PAGE = 8


@dataclass(frozen=True)
class Driver:
    """What makes layers: a module, unless built in, and the file that is there where the kernel has it."""

    module: str
    control: str


@dataclass(frozen=True)
class Base:
    """What a layer stands on: the node of the namespace, and of a disk (empty: none), for the volume ``role``."""

    node: str
    role: str
    disk: str = ""

    @property
    def name(self) -> str:
        return self.node.removeprefix("/dev/")

    @property
    def folder(self) -> str:
        return f"{_BELOW}/{self.role}"


@dataclass(frozen=True)
class LayerMaker:
    """How the guest comes by a layer. ``sign``: the file of sysfs by which its device is found, and what that says."""

    make: Callable[[Base, Mapping[str, tuple[str, ...]]], tuple[GuestCommand, ...]]
    undo: Callable[[Base, str], tuple[GuestCommand, ...]]
    sign: Callable[[Base], tuple[str, str]]
    driver: Driver | None = None


def _partition(start: int) -> LayerMaker:
    """One partition from sector ``start`` on, which leaves the last 2 MiB and so is of whole pages."""
    script = f'echo "start={start}, size=$(($(blockdev --getsz $0) - 4096))" | sfdisk --quiet --label dos --wipe always $0'
    return LayerMaker(
        make=lambda base, mkfs: (GuestCommand(("sh", "-c", script, base.node)),),
        undo=lambda base, node: (GuestCommand(("sfdisk", "--quiet", "--delete", base.node)),),
        sign=lambda base: (f"/sys/block/{base.name}/{base.name}*/partition", "1"),
    )


def _device_mapper(script: str) -> LayerMaker:
    """A table of the device mapper, of which ``script`` prints the lines: ``$0`` is the namespace, ``$1`` the disk, ``$2`` the name."""
    whole = f"({script}) | dmsetup create --noudevsync $2"
    return LayerMaker(
        make=lambda base, mkfs: (GuestCommand(("sh", "-c", whole, base.node, base.disk, base.role)),),
        undo=lambda base, node: (GuestCommand(("dmsetup", "remove", "--noudevsync", base.role)),),
        sign=lambda base: ("/sys/block/dm-*/dm/name", base.role),
        driver=Driver("dm_mod", "/dev/mapper/control"),
    )


def _make_loop(base: Base, mkfs: Mapping[str, tuple[str, ...]]) -> tuple[GuestCommand, ...]:
    mount = Mount(Filesystem.EXT4, DaxOption.ALWAYS)
    return (
        *make_commands(mount, base.node, mkfs),
        GuestCommand(("mkdir", "-p", base.folder)),
        GuestCommand(("mount", "-t", str(mount.filesystem), "-o", mount_options(mount), base.node, base.folder)),
        GuestCommand(("fallocate", "--length", str(_BACKING_BYTES), _backing(base))),
        GuestCommand(("losetup", "--find", _backing(base))),
    )


def _backing(base: Base) -> str:
    return f"{base.folder}/file"


MAKERS: Mapping[Layer, LayerMaker] = {
    Layer.PARTITION: _partition(4096),
    Layer.PARTITION_UNALIGNED: _partition(34),
    Layer.DM_LINEAR: _device_mapper("echo 0 $(blockdev --getsz $0) linear $0 0"),
    Layer.DM_MIXED: _device_mapper(
        "first=$(blockdev --getsz $0); echo 0 $first linear $0 0; echo $first $(blockdev --getsz $1) linear $1 0"
    ),
    Layer.LOOP: LayerMaker(
        make=_make_loop,
        undo=lambda base, node: (GuestCommand(("losetup", "--detach", node)), GuestCommand(("umount", base.folder))),
        sign=lambda base: ("/sys/block/loop*/loop/backing_file", _backing(base)),
        driver=Driver("loop", "/dev/loop-control"),
    ),
}


def drivers_of(layers: Iterable[Layer]) -> tuple[Driver, ...]:
    """Return the drivers that make ``layers``, each once."""
    return tuple(dict.fromkeys(maker.driver for layer in layers if (maker := MAKERS.get(layer)) and maker.driver is not None))


def driver_commands(drivers: Iterable[Driver]) -> tuple[GuestCommand, ...]:
    """Return what loads ``drivers``. What is built in needs no module."""
    return tuple(GuestCommand(("modprobe", driver.module), may_fail=True) for driver in drivers)


def require_drivers(drivers: Sequence[Driver], files: GuestFiles, said: Sequence[CommandOutput]) -> None:
    """Raise GuestError where the file of a driver is not in ``files``, with what modprobe said."""
    for driver, output in zip(drivers, said, strict=True):
        if driver.control not in files.files:
            words = (output.stderr or output.stdout).strip() or "nothing"
            raise GuestError(
                f"the guest's kernel has no {driver.module}: there is no {driver.control}, and modprobe {driver.module} ended with status"
                f" {output.status} and said: {words}"
            )


def find_node(layer: Layer, base: Base, files: GuestFiles) -> str:
    """Return the node of a layer that was made. Raises GuestError where the guest has none."""
    pattern, text = MAKERS[layer].sign(base)
    for path in files.files:
        if fnmatch.fnmatchcase(path, pattern) and files.text(path) == text:
            return f"/dev/{path.removeprefix('/sys/block/').rpartition('/')[0].split('/')[1 if layer.traits.is_partition else 0]}"
    raise GuestError(f"no device came of the layer {layer} on {base.node}: no {pattern} says {text!r}")


def read_layer(base: Base, name: str, files: GuestFiles) -> Layer:
    """Return what the block device ``name`` is on ``base``; none, where it is not known to be on it."""
    start, size = (files.text(f"/sys/block/{base.name}/{name}/{word}") for word in ("start", "size"))
    if start is not None and size is not None:
        whole = int(start) % _SECTORS_PER_PAGE == 0 and int(size) % _SECTORS_PER_PAGE == 0
        return Layer.PARTITION if whole else Layer.PARTITION_UNALIGNED
    folder = f"/sys/block/{name}/slaves/"
    devices = {path.removeprefix(folder) for path in files.folders if path.startswith(folder)}
    if base.name in devices:
        return Layer.DM_LINEAR if len(devices) == 1 else Layer.DM_MIXED
    return Layer.LOOP if files.text(f"/sys/block/{name}/loop/backing_file") == _backing(base) else Layer.NONE
