"""Sizes in bytes: reading them with units, and printing them the way people write them."""

import re

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

_UNITS = {"": 1, "B": 1, "KiB": KIB, "MiB": MIB, "GiB": GIB}
_SIZE = re.compile(r"(-?\d+)\s*([A-Za-z]*)")


def parse_size(text: str | int) -> int:
    """Return the number of bytes that ``text`` names: ``4096``, ``"64KiB"``, ``"2MiB+1"``, ``"1MiB-512"``.

    A size is one number with a unit (B, KiB, MiB, GiB; none means bytes), or a sum or difference of such.
    Raises ValueError, saying what is accepted.
    """
    if isinstance(text, bool) or not isinstance(text, int | str):
        raise ValueError(f"a size is a number with a unit such as 64KiB, not {text!r}")
    if isinstance(text, int):
        return text
    total = 0
    for term in re.findall(r"[+-]?[^+-]+", text.replace(" ", "")) or [text]:
        match = _SIZE.fullmatch(term.lstrip("+"))
        if match is None or match[2] not in _UNITS:
            raise ValueError(f"{text!r} is not a size: write a number with B, KiB, MiB or GiB, such as 64KiB or 1MiB+512")
        total += int(match[1]) * _UNITS[match[2]]
    return total


def format_size(size_bytes: int) -> str:
    """Return ``size_bytes`` with the largest unit that divides it: ``64KiB``, ``1000``."""
    for unit in ("GiB", "MiB", "KiB"):
        if size_bytes and size_bytes % _UNITS[unit] == 0:
            return f"{size_bytes // _UNITS[unit]}{unit}"
    return str(size_bytes)
