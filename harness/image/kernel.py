"""A kernel's files, read without booting it: version, uncompressed image, options, modules."""

import bz2
import functools
import lzma
import re
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from harness.errors import HostError, UsageError
from harness.host.deadline import Deadline
from harness.host.process import run
from harness.host.tools import find_tool, require_tool

_XEN_PHYS32_ENTRY = 18  # the type of the ELF note that names the PVH entry point
_ELF = b"\x7fELF"
_EM_X86_64 = 62
#: ``linux_banner`` of init/version.c begins so; in the kernel it is followed by who built it.
_BANNER = re.compile(rb"Linux version (\S+) \(")
#: Where the configuration of a kernel file is looked for beside it.
_CONFIGS = ("config-{release}", "config", ".config")


@dataclass(frozen=True)
class KernelFiles:
    """Where the parts of one kernel are.

    ``image``: a bzImage or an uncompressed vmlinux; ``modules``: the folder lib/modules/RELEASE or a build tree, None: it has none.
    """

    image: Path
    release: str
    config: Mapping[str, str]
    modules: Path | None


@dataclass(frozen=True)
class _Header:
    """What the setup header of a bzImage says (Documentation/arch/x86/boot.rst)."""

    release: str
    payload: bytes


def find_kernel_files(path: Path) -> KernelFiles:
    """Return the kernel at ``path``: a bzImage, a vmlinux, a build tree, or a tree that a kernel was installed or unpacked into.

    The options come from ``.config``, a file ``config-RELEASE`` beside the kernel, or the kernel itself (IKCONFIG).
    Raises UsageError saying what was looked for.
    """
    if path.is_file():
        return _from_file(path)
    if (path / "arch/x86/boot/bzImage").is_file():
        return _from_build_tree(path)
    if (path / "vmlinux").is_file():
        return _from_file(path / "vmlinux")
    images = sorted([*path.glob("boot/vmlinuz-*"), *path.glob("usr/lib/modules/*/vmlinuz"), *path.glob("lib/modules/*/vmlinuz")])
    if len(images) == 1:
        return _from_installed_tree(path, images[0])
    if images:
        names = ", ".join(str(image.relative_to(path)) for image in images)
        raise UsageError(f"{path} holds several kernels ({names}); give the path of one of them")
    raise UsageError(
        f"no kernel in {path}: a bzImage or a vmlinux is looked for, or a folder with arch/x86/boot/bzImage (a build tree after make),"
        " vmlinux, boot/vmlinuz-* or lib/modules/*/vmlinuz"
    )


def missing_options(config: Mapping[str, str], needed: Mapping[str, str]) -> tuple[str, ...]:
    """Return the lines to show for options that are neither built in nor modules."""
    return tuple(f"CONFIG_{name} ({why})" for name, why in needed.items() if config.get(name) not in ("y", "m"))


def check_options(kernel: KernelFiles, needed: Mapping[str, str]) -> None:
    """Raise UsageError with the list of what a kernel lacks."""
    if missing := missing_options(kernel.config, needed):
        lines = "\n  ".join(missing)
        raise UsageError(f"the kernel {kernel.release} ({kernel.image}) cannot be tested, it was built without:\n  {lines}")
    modules = [name for name in needed if kernel.config.get(name) == "m"]
    if modules and kernel.modules is None:
        raise UsageError(
            f"the kernel {kernel.release} ({kernel.image}) has options built as modules, and no modules were found beside it:"
            f" {', '.join('CONFIG_' + name for name in modules)}. Give the build tree instead, put them into lib/modules/{kernel.release}"
            " beside it, or build them in"
        )


def usable_options(kernel: KernelFiles) -> dict[str, str]:
    """Return the options that a guest of this kernel has: one that is a module of a kernel without modules is as good as not set."""
    return {name: value for name, value in kernel.config.items() if value != "m" or kernel.modules is not None}


def parse_config(text: str) -> dict[str, str]:
    """Return option -> value of a kernel's .config, without ``CONFIG_``; options that are not set are left out."""
    return {match[1]: match[2].strip('"') for match in re.finditer(r"^CONFIG_(\w+)=(.*)$", text, re.MULTILINE)}


def read_release(image: Path) -> str:
    """Return the release (``uname -r``) of a kernel. Raises UsageError when the file is neither a bzImage nor a vmlinux."""
    return _release(image, *_look(image))


def is_vmlinux(image: Path) -> bool:
    """Return whether a kernel is an ELF file, and so not a bzImage."""
    with image.open("rb") as file:
        return file.read(len(_ELF)) == _ELF


def uncompressed_kernel(image: Path, deadline: Deadline) -> bytes:
    """Return the ELF file inside a bzImage, or the vmlinux itself. Raises HostError when it cannot be uncompressed."""
    raw = image.read_bytes()
    return raw if raw.startswith(_ELF) else _uncompressed(_read_header(raw, image).payload, image, deadline)


def stripped_kernel(image: Path, scratch: Path, deadline: Deadline) -> bytes:
    """Return the uncompressed kernel as the build puts it into a bzImage: of a vmlinux without symbols and debug information.

    They are ten times as large as the kernel itself, and nothing in a guest reads them. A host without ``strip`` keeps them.
    """
    elf = uncompressed_kernel(image, deadline)
    if not is_vmlinux(image) or b".symtab" not in elf or find_tool("strip") is None:  # the build has stripped what is in a bzImage
        return elf
    target = scratch / "vmlinux.stripped"
    run(["strip", "--strip-all", "-o", str(target), str(image)], deadline)
    stripped = target.read_bytes()
    target.unlink()
    return stripped


def has_pvh_note(elf: bytes) -> bool:
    """Return whether an uncompressed kernel can be started through its PVH entry point."""
    if elf[:5] != _ELF + b"\x02":
        return False
    (offset,) = struct.unpack_from("<Q", elf, 32)
    size, count = struct.unpack_from("<HH", elf, 54)
    for index in range(count):
        kind, _, start, _, _, length = struct.unpack_from("<IIQQQQ", elf, offset + index * size)
        if kind == 4 and _notes_name_pvh(elf[start : start + length]):  # PT_NOTE
            return True
    return False


def _from_file(path: Path) -> KernelFiles:
    if path.parts[-4:] == ("arch", "x86", "boot", "bzImage") and (path.parents[3] / ".config").is_file():
        return _from_build_tree(path.parents[3])
    release = read_release(path)
    folder = path.parent
    candidates = [folder.parent / "lib/modules" / release, folder.parent / "usr/lib/modules" / release, folder / "lib/modules" / release]
    if folder.name == release and folder.parent.name == "modules":
        candidates.insert(0, folder)
    if path.name == "vmlinux" and (folder / ".config").is_file():  # where a build leaves it
        candidates.insert(0, folder)
    modules = next((candidate for candidate in candidates if (candidate / "modules.order").is_file()), None)
    return KernelFiles(path, release, _find_config(path, release, [folder / name.format(release=release) for name in _CONFIGS]), modules)


def _from_build_tree(path: Path) -> KernelFiles:
    bzimage = path / "arch/x86/boot/bzImage"
    release = read_release(bzimage)
    modules = path if (path / "modules.order").is_file() else None
    return KernelFiles(bzimage, release, _find_config(bzimage, release, [path / ".config"]), modules)


def _from_installed_tree(path: Path, image: Path) -> KernelFiles:
    release = read_release(image)
    folders = [path / "usr/lib/modules" / release, path / "lib/modules" / release]
    modules = next((folder for folder in folders if (folder / "modules.order").is_file()), None)
    beside = [path / f"boot/config-{release}", *(folder / "config" for folder in folders)]
    return KernelFiles(image, release, _find_config(image, release, beside), modules)


def _find_config(image: Path, release: str, files: Sequence[Path]) -> dict[str, str]:
    """Return the options of a kernel: from ``files``, or from itself. Raises UsageError naming all that was looked at."""
    text = _first_text(*files) or _embedded_config(image, *_look(image))
    if text is None:
        looked = ", ".join(str(file) for file in files)
        raise UsageError(
            f"cannot tell how {image} (Linux {release}) was built: there is none of {looked}, and the kernel does not carry its"
            f" configuration; put its configuration beside it as config-{release}, or build it with CONFIG_IKCONFIG"
        )
    return parse_config(text)


def _first_text(*files: Path) -> str | None:
    return next((file.read_text(errors="replace") for file in files if file.is_file()), None)


def _look(image: Path) -> tuple[int, int]:
    found = image.stat()
    return found.st_size, found.st_mtime_ns


# A vmlinux with debug information has hundreds of MiB, and whoever starts a guest asks: each is read once a process.
@functools.lru_cache(maxsize=8)
def _release(image: Path, size: int, mtime_ns: int) -> str:
    raw = image.read_bytes()
    return _vmlinux_release(raw, image) if raw.startswith(_ELF) else _read_header(raw, image).release


@functools.lru_cache(maxsize=8)
def _embedded_config(image: Path, size: int, mtime_ns: int) -> str | None:
    """The configuration between the markers of CONFIG_IKCONFIG, if the kernel carries it."""
    elf = uncompressed_kernel(image, Deadline.after(60))
    start = elf.find(b"IKCFG_ST")
    if start < 0:
        return None
    try:
        return zlib.decompressobj(31).decompress(elf[start + 8 :]).decode(errors="replace")
    except zlib.error:
        return None


def _vmlinux_release(raw: bytes, image: Path) -> str:
    """The release of an uncompressed kernel. Raises UsageError for one that QEMU cannot start, with the way out."""
    banner = _BANNER.search(raw)
    if banner is None or raw[4:5] != b"\x02" or struct.unpack_from("<H", raw, 18)[0] != _EM_X86_64:
        raise UsageError(f"{image} is an ELF file, but no vmlinux of an x86-64 kernel: give a vmlinux, a bzImage or a build tree")
    try:
        startable = has_pvh_note(raw)
    except struct.error as error:
        raise UsageError(f"{image} is damaged: its headers point behind its end; was it copied whole?") from error
    if not startable:
        raise UsageError(
            f"{image} has no PVH note, without which QEMU cannot start an uncompressed kernel:"
            " build it with CONFIG_PVH, or give the bzImage"
        )
    return banner[1].decode(errors="replace")


def _read_header(raw: bytes, image: Path) -> _Header:
    if raw[0x202:0x206] != b"HdrS" or len(raw) < 0x250 or struct.unpack_from("<H", raw, 0x206)[0] < 0x208:
        raise UsageError(f"{image} is neither a bzImage of an x86 kernel nor an uncompressed vmlinux: give one of them, or a build tree")
    (version_at,) = struct.unpack_from("<H", raw, 0x20E)
    text = raw[0x200 + version_at : 0x200 + version_at + 256].split(b"\0")[0].decode(errors="replace")
    offset, length = struct.unpack_from("<II", raw, 0x248)
    start = ((raw[0x1F1] or 4) + 1) * 512 + offset
    return _Header(text.split(" ")[0], raw[start : start + length])


def _uncompressed(payload: bytes, bzimage: Path, deadline: Deadline) -> bytes:
    # The build puts the uncompressed size behind the stream, which the streaming decoders ignore and the tools do not like.
    try:
        if payload.startswith(b"\x1f\x8b"):
            elf = zlib.decompressobj(31).decompress(payload)
        elif payload.startswith(b"\xfd7zXZ\x00"):
            elf = lzma.LZMADecompressor().decompress(payload)
        elif payload.startswith(b"\x5d\x00\x00"):
            elf = lzma.LZMADecompressor(lzma.FORMAT_ALONE).decompress(payload)
        elif payload.startswith(b"BZh"):
            elf = bz2.BZ2Decompressor().decompress(payload)
        elif payload.startswith(b"\x28\xb5\x2f\xfd"):
            elf = _through_tool("zstd", payload[:-4], bzimage, deadline)
        elif payload.startswith(b"\x02\x21\x4c\x18"):
            elf = _through_tool("lz4", payload[:-4], bzimage, deadline)
        elif payload.startswith(b"\x7fELF"):
            elf = payload
        else:
            raise HostError(f"the kernel inside {bzimage} is compressed in a way not known here (it starts with {payload[:6].hex()})")
    except (zlib.error, lzma.LZMAError, OSError, EOFError) as error:
        raise HostError(f"the kernel inside {bzimage} is damaged: {error}") from error
    return elf


def _through_tool(program: str, payload: bytes, bzimage: Path, deadline: Deadline) -> bytes:
    """Uncompress with a tool of the host, from file to file."""
    with TemporaryDirectory(prefix="pmem-harness-kernel-") as folder:
        packed, plain = Path(folder) / "packed", Path(folder) / "plain"
        packed.write_bytes(payload)
        target = ["-o", str(plain)] if program == "zstd" else [str(plain)]
        done = run([str(require_tool(program)), "-d", "-q", "-f", str(packed), *target], deadline, check=False)
        if done.status != 0 or not plain.is_file():
            raise HostError(f"{program} could not uncompress the kernel inside {bzimage}: {done.stderr.strip()[-300:]}")
        return plain.read_bytes()


def _notes_name_pvh(notes: bytes) -> bool:
    at = 0
    while at + 12 <= len(notes):
        name_size, data_size, kind = struct.unpack_from("<III", notes, at)
        name = notes[at + 12 : at + 12 + name_size].rstrip(b"\0")
        if name == b"Xen" and kind == _XEN_PHYS32_ENTRY:
            return True
        at += 12 + _padded(name_size) + _padded(data_size)
    return False


def _padded(size: int) -> int:
    return (size + 3) & ~3


def module_name(file_name: str) -> str:
    """Return the name of a module from its file name or one of its spellings: ``pvpanic-pci.ko.xz`` is ``pvpanic_pci``."""
    return re.sub(r"\.ko(\.\w+)?$", "", file_name.rsplit("/", 1)[-1]).replace("-", "_")


def module_closure(names: Iterable[str], dependencies: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Return the files of ``names`` and of all they depend on, sorted. Keys and values are files as modules.dep has them."""
    by_name = {module_name(file): file for file in dependencies}
    found: set[str] = set()
    for name in names:
        file = by_name.get(module_name(name))
        if file is not None:
            found.update((file, *dependencies[file]))
    return tuple(sorted(found))
