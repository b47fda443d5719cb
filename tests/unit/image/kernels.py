"""Tiny kernels for tests: a bzImage with a setup header and a compressed ELF file, as the boot protocol has them."""

import gzip
import struct
from pathlib import Path

RELEASE = "6.99.0-test"


def vmlinux(config: str | None = None, note_type: int = 18, banner: bytes = b"Linux version 6.99.0-test (me@here) #1 SMP\0") -> bytes:
    """An uncompressed kernel: its banner among other text, perhaps its options (CONFIG_IKCONFIG)."""
    embedded = b"" if config is None else b"IKCFG_ST" + gzip.compress(config.encode()) + b"IKCFG_ED"
    return elf(note_type, more=b"%s version %s (none)\0" + banner + embedded)


def elf(note_type: int = 18, name: bytes = b"Xen\0", more: bytes = b"") -> bytes:
    """An ELF file with one note segment (type 18 of Xen: the PVH entry point)."""
    note = struct.pack("<III", 4, 2, 1) + b"GNU\0" + b"ab\0\0" + struct.pack("<III", len(name), 4, note_type) + name + b"\0\0\0\0"
    header = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 4, 4, 120, 0, 0, len(note), len(note), 4)
    return header + segment + note + more


def bzimage(payload: bytes | None = None, release: str = RELEASE) -> bytes:
    """A bzImage whose compressed part is ``payload`` (default: ``elf()`` through gzip, and its size behind it)."""
    content = gzip.compress(elf()) + struct.pack("<I", len(elf())) if payload is None else payload
    head = bytearray(1024)
    head[0x1F1] = 1
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x206, 0x20F)
    struct.pack_into("<H", head, 0x20E, 0x100)
    text = f"{release} (me@here) #1 SMP".encode() + b"\0"
    head[0x300 : 0x300 + len(text)] = text
    struct.pack_into("<II", head, 0x248, 0, len(content))
    return bytes(head) + content


def write_kernel(folder: Path, config: str | None = "CONFIG_A=y\n", payload: bytes | None = None) -> Path:
    """Write a bzImage, and its options beside it; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    image = folder / f"vmlinuz-{RELEASE}"
    image.write_bytes(bzimage(payload))
    if config is not None:
        (folder / f"config-{RELEASE}").write_text(config)
    return image
