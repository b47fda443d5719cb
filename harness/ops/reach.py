"""How far the steps of a program reach past the mappings that they name."""

from collections.abc import Iterator, Sequence

from harness.ops.mappings import MapFlag, Mmap, Mprotect, Munmap, Store
from harness.ops.processes import FutexWait, FutexWake
from harness.ops.program import Step, describe
from harness.ops.words import Operation

#: The guard before and behind each mapping; the agent puts it there.
GUARD_BYTES = 4096
_HUGE_BYTES = 2 * 1024 * 1024
_WORD = 4


def whole_pages(length: int, page: int = GUARD_BYTES) -> int:
    """Return ``length`` rounded up to whole pages, in bytes."""
    return -(-length // page) * page


def mapped_bytes(op: Mmap) -> int:
    """Return how many bytes a mapping really takes: whole pages, and those of hugetlbfs have 2 MiB."""
    return whole_pages(op.length, _HUGE_BYTES if MapFlag.HUGETLB in op.flags else GUARD_BYTES)


def find_out_of_reach(steps: Sequence[Step]) -> tuple[int, str] | None:
    """Return the first step that reaches further past a mapping than its guard pages, and what is wrong with it; None where none does.

    Up to the end of a mapping's last page there is the mapping, in the page before and behind it a guard without access, which is not
    changed. What lies further is the agent's own, and no step of a program's may touch it.
    """
    lengths: dict[str, int] = {}
    for index, step in enumerate(steps):
        made = step.operation
        if isinstance(made, Mmap):
            lengths[made.name] = mapped_bytes(made)
        for name, start, length in mapping_ranges(made):
            whole = lengths.get(name)
            if whole is None:
                continue
            end = max(start, whole) if length is None else start + length
            changes = isinstance(made, Munmap | Mprotect)
            margin = 0 if changes and whole else GUARD_BYTES  # one of no length is never made
            if not -margin <= start <= end <= whole + margin:
                allowed = f"a step may reach {GUARD_BYTES} bytes before and behind them, into guards without access, and no further"
                return index, (
                    f"{describe(made)} reaches from byte {start} to {end} of the mapping {name!r}, whose pages have {whole}: "
                    + ("the guards before and behind them stay as they are" if changes else allowed)
                )
    return None


def mapping_ranges(op: Operation) -> Iterator[tuple[str, int, int | None]]:
    """Yield name, start and length (None: the rest) of every range of a mapping that ``op`` names."""
    given = vars(op)
    for buffer in given.get("buffers", ()):
        if buffer.mapping is not None:
            yield buffer.mapping, buffer.offset, buffer.length
    for key in ("into", "from_"):
        if given.get(key) is not None:
            yield given[key], given[f"{key.rstrip('_')}_offset"], given["length"]
    if "mapping" in given and "offset" in given:
        is_word = isinstance(op, FutexWait | FutexWake) or (isinstance(op, Store) and op.value is not None)
        yield given["mapping"], given["offset"], _WORD if is_word else given["length"]
