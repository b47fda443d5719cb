"""The initrd: a static busybox, one script and the modules that a guest needs, as a cpio archive made by hand.

Not compressed: QEMU puts it into guest memory at once, while unpacking it under emulation takes longer than reading it.
"""

import lzma
import shutil
import stat
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HostError, UsageError
from harness.host.deadline import Deadline
from harness.host.process import run
from harness.host.tools import find_tool, require_tool
from harness.image.catalog import ModuleSet
from harness.image.kernel import KernelFiles, module_closure, module_name

_APPLETS = ("sh", "mount", "modprobe", "mkdir", "cp", "cat", "switch_root", "poweroff")
_FOLDERS = ("bin", "dev", "etc", "lib", "lower", "new", "over", "proc", "sbin", "sys")


@dataclass(frozen=True)
class Member:
    """A file, folder or device of an archive; ``data`` of a link is its target."""

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def make_initrd(init: bytes, busybox: bytes, load: Iterable[str], modules: Path) -> bytes:
    """Return a cpio archive (newc) with everything below ``modules`` (…/lib/modules/RELEASE) in it."""
    members = [Member(folder, stat.S_IFDIR | 0o755) for folder in _FOLDERS]
    members += [
        Member("dev/console", stat.S_IFCHR | 0o600, device=(5, 1)),
        Member("init", stat.S_IFREG | 0o755, init),
        Member("bin/busybox", stat.S_IFREG | 0o755, busybox),
        # Spelled as /sys/module has them, where the script looks whether they are there.
        Member("etc/load", stat.S_IFREG | 0o644, "".join(f"{module_name(name)}\n" for name in load).encode()),
        *(Member(f"bin/{name}", stat.S_IFLNK | 0o777, b"busybox") for name in _APPLETS),
        # Where the kernel itself asks for a module, such as the checksums of ext4.
        Member("sbin/modprobe", stat.S_IFLNK | 0o777, b"../bin/busybox"),
        Member("lib/modules", stat.S_IFDIR | 0o755),
        Member(f"lib/modules/{modules.name}", stat.S_IFDIR | 0o755),
    ]
    for path in sorted(modules.rglob("*")):
        name = f"lib/modules/{modules.name}/{path.relative_to(modules).as_posix()}"
        is_folder = path.is_dir()
        members.append(Member(name, stat.S_IFDIR | 0o755 if is_folder else stat.S_IFREG | 0o644, b"" if is_folder else path.read_bytes()))
    return make_archive(members)


def collect_modules(
    kernel: KernelFiles, wanted: ModuleSet, more: Iterable[str], target: Path, scratch: Path, deadline: Deadline
) -> tuple[str, ...]:
    """Copy the wanted modules with all they depend on below ``target``; return the names that the initrd loads.

    Compressed modules are uncompressed, ones with debug information are stripped. Raises UsageError naming wanted
    modules that the kernel has neither as a file nor built in.
    """
    release_folder = target / "lib/modules" / kernel.release
    release_folder.mkdir(parents=True)
    built_in: set[str] = set()
    dependencies: Mapping[str, tuple[str, ...]] = {}
    if kernel.modules is not None:
        built_in = {module_name(line) for line in _index(kernel.modules, "modules.builtin").split()}
        dependencies = _dependencies(kernel, scratch, deadline)
    there = {module_name(file) for file in dependencies}
    required = (*wanted.load, *wanted.available, *more)
    if kernel.modules is not None:  # one without modules passed the check of its options, so everything is built in
        check_modules(kernel, required, there | built_in)
    for file in module_closure((*required, *wanted.optional), dependencies):
        assert kernel.modules is not None
        copy_module(kernel.modules / file, release_folder / file, deadline)
    if kernel.modules is not None:
        for index in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
            if (kernel.modules / index).is_file():
                shutil.copyfile(kernel.modules / index, release_folder / index)
    _depmod(target, kernel.release, deadline)
    return tuple(name for name in wanted.load if module_name(name) in there) + tuple(
        name for name in wanted.optional if name.startswith("pvpanic") and module_name(name) in there
    )


def check_modules(kernel: KernelFiles, required: Iterable[str], there: Set[str]) -> None:
    """Raise UsageError naming what is neither a module of the kernel nor built in."""
    if missing := [name for name in required if module_name(name) not in there]:
        raise UsageError(
            f"the kernel {kernel.release} has these neither as modules nor built in: {', '.join(missing)} (in {kernel.modules})"
        )


def _dependencies(kernel: KernelFiles, scratch: Path, deadline: Deadline) -> dict[str, tuple[str, ...]]:
    """Return what each module needs, by running depmod over links to the kernel's modules (the tree itself may be read-only)."""
    assert kernel.modules is not None
    folder = scratch / "lib/modules" / kernel.release
    folder.mkdir(parents=True)  # a tree in which everything is built in has lists and not one module
    for path in kernel.modules.rglob("*.ko*"):
        if path.suffix in (".ko", ".xz", ".zst", ".gz"):
            link = folder / path.relative_to(kernel.modules)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.resolve())
    for index in ("modules.builtin", "modules.order"):
        (folder / index).write_text(_index(kernel.modules, index))
    _depmod(scratch, kernel.release, deadline)
    found = {}
    for line in (folder / "modules.dep").read_text().splitlines():
        file, _, needs = line.partition(":")
        found[file] = tuple(needs.split())
    return found


def _index(modules: Path, name: str) -> str:
    """The text of one of the lists that the build leaves beside the modules. Raises UsageError where it is not there."""
    try:
        return (modules / name).read_text()
    except FileNotFoundError as error:
        raise UsageError(
            f"{modules} has modules and no {name}: without it nobody can tell what is built in; it is there after"
            " `make modules` and `make modules_install`"
        ) from error


def _depmod(base: Path, release: str, deadline: Deadline) -> None:
    run([str(require_tool("depmod")), "-b", str(base), release], deadline)


def copy_module(source: Path, target: Path, deadline: Deadline) -> None:
    """Copy one module, uncompressed and under its plain name, to ``target``. Raises HostError for a compression not known here."""
    target = target.with_name(module_file_name(target.name))
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.suffix == ".xz":
        target.write_bytes(lzma.decompress(source.read_bytes()))
    elif source.suffix == ".zst":
        run([str(require_tool("zstd")), "-d", "-q", "-f", str(source), "-o", str(target)], deadline)
    elif source.suffix == ".ko":
        shutil.copyfile(source, target)
        # Modules of a build tree carry debug information, ten times their size; a signature would not survive stripping.
        if find_tool("strip") and b".debug_info" in target.read_bytes():
            run(["strip", "--strip-debug", str(target)], deadline)
    else:
        raise HostError(
            f"{source}: modules compressed like this cannot be read here; build them with CONFIG_MODULE_COMPRESS_XZ, ZSTD or NONE"
        )


def module_file_name(name: str) -> str:
    """Return the file name of the uncompressed module."""
    return name[: name.index(".ko") + 3]


def make_archive(members: Iterable[Member]) -> bytes:
    """Return a cpio archive (newc) of ``members``. The kernel unpacks several, one behind the other."""
    parts = []
    for number, member in enumerate((*members, Member("TRAILER!!!", 0)), start=1):
        name = member.name.encode() + b"\0"
        # inode, mode, uid, gid, links, mtime, size, device of the file (2), device that it names (2), length of the name, checksum
        fields = (number, member.mode, 0, 0, 1, 0, len(member.data), 0, 0, *member.device, len(name), 0)
        parts.append(b"070701" + b"".join(b"%08x" % field for field in fields) + name)
        parts.append(b"\0" * (-(110 + len(name)) % 4))
        parts.append(member.data + b"\0" * (-len(member.data) % 4))
    return b"".join(parts)
