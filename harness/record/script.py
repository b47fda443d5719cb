"""The machine of an item as a shell script that somebody starts by hand."""

import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path


def qemu_script(command: tuple[str, ...]) -> str:
    """Return a shell script that starts the same machine with its console on the terminal.

    The run's own RAM and disk files are gone, so the script makes empty ones in a folder of its own, and the two
    descriptors that the harness hands to QEMU become a socket file and the terminal.
    """
    words = [_standalone(word) for word in _cold(command)]
    files = sorted({path for word in words for path in re.findall(r"\$work/[A-Za-z0-9_.-]+", word)})
    sizes = _file_sizes(command)
    lines = [
        "#!/bin/sh",
        "# The machine of this item, started by hand. Ctrl-A X ends it.",
        "set -eu",
        "work=$(mktemp -d)",
        "trap 'rm -rf \"$work\"' EXIT",
    ]
    lines += [f'truncate -s {sizes.get(path.removeprefix("$work/"), "256M")} "{path}"' for path in files if path != "$work/qmp"]
    lines.append(" \\\n  ".join(option_lines(f'"{word}"' if "$work" in word else shlex.quote(word) for word in words)))
    return "\n".join(lines) + "\n"


def _cold(command: tuple[str, ...]) -> Iterator[str]:
    """Yield the words of the same machine, booted: the harness starts it stopped, for a reaper, and perhaps from a saved state."""
    skip = False
    for word in command:
        if word in ("-incoming", "-pidfile", "-gdb"):
            skip = True
        elif skip:
            skip = False
        elif word != "-S":
            yield word


def option_lines(words: Iterable[str]) -> list[str]:
    """Return the words of a command with each option's value beside it."""
    lines: list[str] = []
    for word in words:
        if lines and not word.startswith("-") and lines[-1].startswith("-") and " " not in lines[-1]:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _standalone(word: str) -> str:
    if word.startswith("socket,id=qmp"):
        return "socket,id=qmp,path=$work/qmp,server=on,wait=off"
    if word.startswith("socket,id=console"):
        return "stdio,id=console,mux=on,signal=off"
    if "mem-path=" in word:
        return re.sub(r"mem-path=[^,]*/", "mem-path=$work/", word).replace("share=off,readonly=on,rom=off", "share=on")
    return re.sub(r"filename=[^,]*/pmemh-[^/,]*/", "filename=$work/", word)


def _file_sizes(command: tuple[str, ...]) -> dict[str, str]:
    """Sizes of the files behind memory, by name; a disk's is not in the command line."""
    found = {}
    for word in command:
        path, size = re.search(r"mem-path=([^,]+)", word), re.search(r"size=(\d+)", word)
        if path and size:
            found[Path(path[1]).name] = size[1]
    return found
