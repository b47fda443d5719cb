"""Parts of QEMU's command line: values of several words, and memory that is a file."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Memory:
    """Where the files behind RAM and regions are. ``private``: they belong to a template, and what the guest writes stays its own."""

    folder: Path
    private: bool = False


def file_memory(object_id: str, memory: Memory, name: str, size_bytes: int) -> str:
    """Return the value of ``-object`` for the file ``name`` of ``memory``."""
    # Opened read-only, a template cannot be damaged; rom=off: the guest may write all the same, to pages of its own.
    sharing = ("share=off", "readonly=on", "rom=off") if memory.private else ("share=on",)
    return joined("memory-backend-file", f"id={object_id}", f"mem-path={escaped(memory.folder / name)}", f"size={size_bytes}", *sharing)


def escaped(path: Path) -> str:
    """Return ``path`` as a value in a QEMU option, where a comma is written twice."""
    return str(path).replace(",", ",,")


def joined(*parts: str) -> str:
    """Return ``parts`` as one value of a QEMU option."""
    return ",".join(parts)
