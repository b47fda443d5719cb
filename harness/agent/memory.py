"""Memory of the agent's own: buffers for one step, guards around the program's mappings, and the copy that counts its faults."""

import ctypes
import struct

from harness.agent.outcome import Outcome, ProtocolError
from harness.agent.syscalls import GETRUSAGE, MEMMOVE, Inside, call, errno_name
from harness.ops.mappings import MapFlag, Protection
from harness.ops.reach import GUARD_BYTES, whole_pages

PAGE = GUARD_BYTES
MAP_FIXED, _MAP_FIXED_NOREPLACE = 0x10, 0x100000
SHARED_MEMORY = MapFlag.SHARED.bits | MapFlag.ANONYMOUS.bits
_PRIVATE_MEMORY = MapFlag.PRIVATE.bits | MapFlag.ANONYMOUS.bits
_READ_WRITE = Protection.READ.bits | Protection.WRITE.bits
_NO_ACCESS = Protection.NONE.bits
_GUARD = SHARED_MEMORY | MapFlag.NORESERVE.bits | _MAP_FIXED_NOREPLACE
#: What a mapping is not asked for while it is only sought a place.
_LOUD = MapFlag.POPULATE.bits | MapFlag.LOCKED.bits


def anonymous(length: int, protection: int = _READ_WRITE, flags: int = _PRIVATE_MEMORY) -> int:
    """Return the address of fresh pages. Raises MemoryError."""
    return _checked(call("mmap", 0, length, protection, flags, -1, 0), length)


def between_guards(length: int, flags: int = _PRIVATE_MEMORY) -> int:
    """Return the address of fresh pages with a page without access directly before and behind them. Raises MemoryError."""
    size = whole_pages(length)
    address = _checked(call("mmap", 0, size + 2 * PAGE, _NO_ACCESS, flags, -1, 0), length) + PAGE
    _checked(call("mprotect", address, size, _READ_WRITE), length)
    return address


def _checked(result: int, length: int) -> int:
    if result < 0:
        raise MemoryError(f"the kernel has no {length} bytes of memory for the agent: {errno_name(-result)}")
    return result


def hold(address: int, size: int) -> None:
    """Keep a place that was unmapped: nothing else comes to lie there, and an access is SIGSEGV. Raises MemoryError."""
    _checked(call("mmap", address, size, _NO_ACCESS, _GUARD, -1, 0), size)


_IOVEC = struct.Struct("=QQ")
_OFFSET = struct.Struct("=Q")
_WORD = 2**64 - 1


class Scratch:
    """Private buffers that live for one step; the address of each is a page boundary plus a shift.

    They lie in areas between guards: what is written past one may reach another of this step, and nothing else of the agent's.
    """

    def __init__(self, size: int = 1 << 20) -> None:
        self._base, self._size, self._used = between_guards(size), size, 0
        self._areas = [(self._base, size)]

    def reset(self) -> None:
        self._used = 0

    def close(self) -> None:
        """Give back all areas, with their guards."""
        self._unmap(self._areas)

    def shrink(self) -> None:
        """Give back all areas but the first."""
        self._unmap(self._areas[1:])
        del self._areas[1:]
        self._base, self._size = self._areas[0]
        self._used = 0

    def _unmap(self, areas: list[tuple[int, int]]) -> None:
        for base, size in areas:
            call("munmap", base - PAGE, size + 2 * PAGE)

    def buffer(self, length: int, shift: int = 0) -> int:
        """Return the address of ``length`` bytes, as they were left. Raises ProtocolError for less than none, MemoryError."""
        if length < 0 or shift < 0:
            raise ProtocolError(f"there is no buffer of {length} bytes, {shift} bytes behind a page's begin")
        need = whole_pages(length + shift) or PAGE
        if self._used + need > self._size:
            size = whole_pages(max(2 * self._size, need))
            # The old pages stay mapped: buffers of this step may lie in them.
            self._base, self._size, self._used = between_guards(size), size, 0
            self._areas.append((self._base, size))
        address = self._base + self._used + shift
        self._used += need
        return address

    def zeroed(self, length: int) -> int:
        """A buffer for what the kernel answers: where it says that it did and wrote nothing, no earlier answer shows."""
        address = self.buffer(length)
        ctypes.memset(address, 0, length)
        return address

    def filled(self, data: bytes, shift: int = 0) -> int:
        address = self.buffer(len(data), shift)
        ctypes.memmove(address, data, len(data))
        return address

    def iovec(self, parts: list[tuple[int, int]]) -> int:
        """The address of an array of struct iovec. (A ctypes array would be a class of its own for each length.)

        What is no 64-bit number becomes what the kernel would see of it.
        """
        return self.filled(b"".join(_IOVEC.pack(address & _WORD, length & _WORD) for address, length in parts))

    def words(self, *values: int) -> int:
        """The address of 64-bit numbers in a row, as the kernel would see them."""
        return self.filled(b"".join(_OFFSET.pack(value & _WORD) for value in values))

    def offset(self, value: int | None) -> int:
        """The address of a 64-bit offset; 0 for none."""
        return 0 if value is None else self.words(value)

    def text(self, text: bytes) -> int:
        """The address of a text that ends with a zero byte."""
        return self.filled(text + b"\0")

    def poisoned(self, length: int, shift: int = 0) -> int:
        """A buffer to read into, full of a byte that no tag and no hole has: what is not written shows."""
        address = self.buffer(length, shift)
        ctypes.memset(address, 0xEE, length)
        return address


#: struct rusage, twice.
_RUSAGE_BYTES = 144
_RUSAGES = ctypes.create_string_buffer(2 * _RUSAGE_BYTES)
_BEFORE_ADDRESS = ctypes.addressof(_RUSAGES)
_AFTER_ADDRESS = _BEFORE_ADDRESS + _RUSAGE_BYTES
_MINFLT_OFFSET = 64  # and the major faults right behind


def copy_counting_faults(target: int, source: int, length: int) -> None:
    """One memory copy between two readings of the fault counter; run it on dummies first, so that only the copy faults."""
    ctypes.memset(_BEFORE_ADDRESS, 0, len(_RUSAGES))
    Inside.byte.value = 1
    GETRUSAGE(0, _BEFORE_ADDRESS)
    MEMMOVE(target, source, length)
    GETRUSAGE(0, _AFTER_ADDRESS)
    Inside.byte.value = 0


def faults_counted() -> Outcome:
    """The evidence of the last copy: minor faults, and the major ones (those that waited for a device) as an attribute."""
    minor_before, major_before = struct.unpack_from("qq", _RUSAGES, _MINFLT_OFFSET)
    minor, major = struct.unpack_from("qq", _RUSAGES, _RUSAGE_BYTES + _MINFLT_OFFSET)
    return {"minor_faults": minor - minor_before, "attributes": {"major_faults": major - major_before}}


class Mapping:
    """A mapping that the program made, with the addresses of its guard pages.

    ``areas``: address and size of what is to be unmapped in the end, the mapping first, then what is reserved around it.
    """

    def __init__(self, address: int, length: int, guards: tuple[int, ...], areas: list[tuple[int, int]]) -> None:
        self.address, self.length, self.guards, self.areas = address, length, guards, areas

    def close(self) -> None:
        """Unmap what is left of it, without an outcome; guards are others' as well and stay."""
        for address, size in self.areas:
            call("munmap", address, size)

    def part(self, offset: int, length: int | None) -> tuple[int, int]:
        return self.address + offset, self.length - offset if length is None else length


class Guards:
    """Pages without access directly before and behind each mapping, so that a step that reaches past one never finds the agent's memory.

    Two mappings may have one between them. They are shared memory, each of a file of its own: no area is ever merged with one.
    """

    def __init__(self) -> None:
        self.users: dict[int, int] = {}

    def take(self, address: int) -> bool:
        """Have a guard at ``address``; False where something else is there."""
        if address not in self.users and call("mmap", address, PAGE, _NO_ACCESS, _GUARD, -1, 0) != address:
            return False
        self.users[address] = self.users.get(address, 0) + 1
        return True

    def release(self, address: int) -> None:
        self.users[address] -= 1
        if not self.users[address]:
            del self.users[address]
            call("munmap", address, PAGE)

    def close(self) -> None:
        """Unmap all guards."""
        for address in self.users:
            call("munmap", address, PAGE)
        self.users.clear()

    def find_place(self, length: int, size: int, flags: int, descriptor: int, offset: int) -> int:
        """Return where the kernel puts such a mapping when it may choose, with a guard taken on each side; or minus the error number.

        The place is held by a mapping without access, which the real one replaces. How the kernel aligns a mapping depends on its file,
        offset and length (mm/huge_memory.c thp_get_unmapped_area), so it is asked with these. Where a neighbour is in the way, a page of
        the place is taken and it is asked again: it then chooses by the same rule, next to a guard.
        """
        spacers: list[int] = []
        try:
            for _ in range(32):
                address = call("mmap", 0, length, _NO_ACCESS, flags & ~_LOUD, descriptor, offset)
                if address < 0:
                    return address
                wanted = (address - PAGE, address + size)
                taken = [guard for guard in wanted if self.take(guard)]
                if len(taken) == len(wanted):
                    return address
                call("munmap", address, size)
                for guard in taken:
                    self.release(guard)
                spacers += [page for page in (address, address + size - PAGE) if self.take(page)]
        finally:
            for page in spacers:
                self.release(page)
        raise MemoryError("no place for a mapping between two guard pages")
