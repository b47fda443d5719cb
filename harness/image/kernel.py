"""A kernel's files, read without booting it: version, uncompressed image, options, modules."""

import bz2
import lzma
import re
import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from harness.errors import HostError, UsageError
from harness.host.deadline import Deadline
from harness.host.process import run
from harness.host.tools import require_tool

_XEN_PHYS32_ENTRY = 18  # the type of the ELF note that names the PVH entry point


@dataclass(frozen=True)
class KernelFiles:
    """Where the parts of one kernel are; ``modules`` is the folder lib/modules/RELEASE, None: it has none."""

    bzimage: Path
    release: str
    config: Mapping[str, str]
    modules: Path | None


@dataclass(frozen=True)
class _Header:
    """What the setup header of a bzImage says (Documentation/arch/x86/boot.rst)."""

    release: str
    payload: bytes


def find_kernel_files(path: Path) -> KernelFiles:
    """Return the kernel at ``path``: a bzImage, a build tree, or a tree that a kernel was installed or unpacked into.

    The options come from ``.config``, a file ``config-RELEASE`` beside the bzImage, or the kernel itself (IKCONFIG).
    Raises UsageError saying what was looked for.
    """
    if path.is_file():
        return _from_file(path)
    if (path / "arch/x86/boot/bzImage").is_file():
        return _from_build_tree(path)
    images = sorted([*path.glob("boot/vmlinuz-*"), *path.glob("usr/lib/modules/*/vmlinuz"), *path.glob("lib/modules/*/vmlinuz")])
    if len(images) == 1:
        return _from_installed_tree(path, images[0])
    if images:
        names = ", ".join(str(image.relative_to(path)) for image in images)
        raise UsageError(f"{path} holds several kernels ({names}); give the path of one of them")
    raise UsageError(
        f"no kernel in {path}: a bzImage is looked for, or a folder with arch/x86/boot/bzImage (a build tree after make), boot/vmlinuz-* or"
        " lib/modules/*/vmlinuz"
    )


def missing_options(config: Mapping[str, str], needed: Mapping[str, str]) -> tuple[str, ...]:
    """Return the lines to show for options that are neither built in nor modules."""
    return tuple(f"CONFIG_{name} ({why})" for name, why in needed.items() if config.get(name) not in ("y", "m"))


def check_options(kernel: KernelFiles, needed: Mapping[str, str]) -> None:
    """Raise UsageError with the list of what a kernel lacks."""
    if missing := missing_options(kernel.config, needed):
        lines = "\n  ".join(missing)
        raise UsageError(f"the kernel {kernel.release} ({kernel.bzimage}) cannot be tested, it was built without:\n  {lines}")
    modules = [name for name in needed if kernel.config.get(name) == "m"]
    if modules and kernel.modules is None:
        raise UsageError(
            f"the kernel {kernel.release} ({kernel.bzimage}) has options built as modules, and no modules were found beside it:"
            f" {', '.join('CONFIG_' + name for name in modules)}. Give the build tree instead, or build them in"
        )


def parse_config(text: str) -> dict[str, str]:
    """Return option -> value of a kernel's .config, without ``CONFIG_``; options that are not set are left out."""
    return {match[1]: match[2].strip('"') for match in re.finditer(r"^CONFIG_(\w+)=(.*)$", text, re.MULTILINE)}


def read_release(bzimage: Path) -> str:
    """Return the release (``uname -r``) of a bzImage. Raises UsageError when the file is none."""
    return _read_header(bzimage).release


def uncompressed_kernel(bzimage: Path, deadline: Deadline) -> bytes:
    """Return the ELF file inside a bzImage. Raises HostError when it cannot be uncompressed."""
    return _uncompressed(_read_header(bzimage).payload, bzimage, deadline)


def has_pvh_note(elf: bytes) -> bool:
    """Return whether an uncompressed kernel can be started through its PVH entry point."""
    if elf[:5] != b"\x7fELF\x02":
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
    config_text = _first_text(folder / f"config-{release}", folder / "config", folder / ".config") or _embedded_config(path)
    candidates = [folder.parent / "lib/modules" / release, folder.parent / "usr/lib/modules" / release, folder / "lib/modules" / release]
    if folder.name == release and folder.parent.name == "modules":
        candidates.insert(0, folder)
    modules = next((candidate for candidate in candidates if (candidate / "modules.order").is_file()), None)
    return KernelFiles(path, release, _required_config(config_text, path, release), modules)


def _from_build_tree(path: Path) -> KernelFiles:
    bzimage = path / "arch/x86/boot/bzImage"
    release = read_release(bzimage)
    config = _required_config(_first_text(path / ".config"), bzimage, release)
    return KernelFiles(bzimage, release, config, path if (path / "modules.order").is_file() else None)


def _from_installed_tree(path: Path, image: Path) -> KernelFiles:
    release = read_release(image)
    folders = [path / "usr/lib/modules" / release, path / "lib/modules" / release]
    config_text = _first_text(path / f"boot/config-{release}", *(folder / "config" for folder in folders)) or _embedded_config(image)
    modules = next((folder for folder in folders if (folder / "modules.order").is_file()), None)
    return KernelFiles(image, release, _required_config(config_text, image, release), modules)


def _first_text(*files: Path) -> str | None:
    return next((file.read_text(errors="replace") for file in files if file.is_file()), None)


def _required_config(text: str | None, image: Path, release: str) -> dict[str, str]:
    if text is None:
        raise UsageError(
            f"cannot tell how {image} was built: put its configuration beside it as config-{release}, or build it with CONFIG_IKCONFIG"
        )
    return parse_config(text)


def _embedded_config(bzimage: Path) -> str | None:
    """The configuration between the markers of CONFIG_IKCONFIG, if the kernel carries it."""
    elf = uncompressed_kernel(bzimage, Deadline.after(60))
    start = elf.find(b"IKCFG_ST")
    if start < 0:
        return None
    try:
        return zlib.decompressobj(31).decompress(elf[start + 8 :]).decode(errors="replace")
    except zlib.error:
        return None


def _read_header(bzimage: Path) -> _Header:
    raw = bzimage.read_bytes()
    if raw[0x202:0x206] != b"HdrS" or len(raw) < 0x250 or struct.unpack_from("<H", raw, 0x206)[0] < 0x208:
        raise UsageError(f"{bzimage} is not a bzImage of an x86 kernel (an uncompressed vmlinux will not do: give the bzImage)")
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
