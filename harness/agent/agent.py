"""The agent: runs inside the guest, does the steps of a program by raw system calls, and says what came back.

    python3 agent.py --listen 127.0.0.1:0 --token-file /run/pmem-harness/agent.json

It goes to the background once it listens and prints (and writes to the token file) ``{"port": ..., "token": ...}``.
docs/agent-protocol.md describes the JSON lines. The agent judges nothing and knows no expectation.

Processes: the daemon only accepts connections and forks a *session* for each. A session answers one request at a time;
for a program it forks the process ``main`` and is its *supervisor*. The processes of a program (*actors*) are all direct
children of the supervisor (CLONE_PARENT), so that it can reap each and see which signal ended it. When a program ends they
are killed, and every descriptor, mapping and pin that they held goes with them.

Standard library only; one file, because that is how it travels.
"""

import argparse
import contextlib
import ctypes
import errno
import fcntl
import functools
import gc
import glob
import hashlib
import hmac
import json
import os
import platform
import resource
import select
import signal
import socket
import stat
import struct
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

FORMAT = 1
PAGE = 4096
LONGEST_LINE = 64 << 20
SEND_LIMIT_S = 30
REAP_LIMIT_S = 10

Outcome = dict[str, Any]


class ProtocolError(Exception):
    """The request cannot be meant: an unknown format, operation or argument."""


class HangError(Exception):
    """A step still ran at its limit, or a process of the program could not be ended."""


class HostGoneError(Exception):
    """Nobody listens any more: the program ends and so does the session."""


class MissingNameError(Exception):
    """A step refers to a name that no earlier step made."""


# ---- system calls ----------------------------------------------------------------------------------------------------

_LIBC = ctypes.CDLL(None, use_errno=True)
_SYSCALL = _LIBC.syscall
_SYSCALL.restype = ctypes.c_long
_SYSCALL.argtypes = [ctypes.c_long] * 7
_MEMMOVE = _LIBC.memmove
_MEMMOVE.restype = None
_MEMMOVE.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
_GETRUSAGE = _LIBC.getrusage
_GETRUSAGE.restype = ctypes.c_int
_GETRUSAGE.argtypes = [ctypes.c_int, ctypes.c_void_p]

#: System call numbers of x86-64.
NR = {
    "open": 2,
    "close": 3,
    "poll": 7,
    "read": 0,
    "write": 1,
    "lseek": 8,
    "mmap": 9,
    "mprotect": 10,
    "munmap": 11,
    "ioctl": 16,
    "pread64": 17,
    "pwrite64": 18,
    "msync": 26,
    "mincore": 27,
    "madvise": 28,
    "sendfile": 40,
    "sendto": 44,
    "recvfrom": 45,
    "recvmsg": 47,
    "clone": 56,
    "fcntl": 72,
    "fsync": 74,
    "fdatasync": 75,
    "ftruncate": 77,
    "mlock": 149,
    "munlock": 150,
    "prctl": 157,
    "mount": 165,
    "umount2": 166,
    "futex": 202,
    "splice": 275,
    "tee": 276,
    "vmsplice": 278,
    "fallocate": 285,
    "pipe2": 293,
    "preadv": 295,
    "pwritev": 296,
    "process_vm_readv": 310,
    "copy_file_range": 326,
    "preadv2": 327,
    "pwritev2": 328,
    "statx": 332,
    "io_uring_setup": 425,
    "io_uring_register": 427,
    "setsockopt": 54,
    "socket": 41,
}


class Inside:
    """Whether this process is in the operation of a step right now, in a byte that the supervisor can read when the process is gone."""

    byte = ctypes.c_ubyte(0)


def call(name: str, a: int = 0, b: int = 0, c: int = 0, d: int = 0, e: int = 0, f: int = 0) -> int:
    """Do one system call; return its result, or minus the error number."""
    Inside.byte.value = 1
    result: int = _SYSCALL(NR[name], a, b, c, d, e, f)
    Inside.byte.value = 0
    return result if result != -1 else -ctypes.get_errno()


_ERRNO_NAMES = {**errno.errorcode, 95: "EOPNOTSUPP", 11: "EAGAIN", 35: "EDEADLK", 524: "ENOTSUPP"}


def returned(value: int = 0, **evidence: Any) -> Outcome:
    return {"how": "returned", "value": value, **evidence}


def failed(number: int, **evidence: Any) -> Outcome:
    return {"how": "failed", "errno": _ERRNO_NAMES.get(number, f"E{number}"), **evidence}


def outcome(result: int) -> Outcome:
    """The plain outcome of :func:`call`."""
    return returned(result) if result >= 0 else failed(-result)


def nothing_or_errno(result: int) -> Outcome:
    """The outcome of a call whose result says nothing but success (a descriptor, an address)."""
    return returned(0) if result >= 0 else failed(-result)


# ---- tagged bytes ----------------------------------------------------------------------------------------------------
# A word of 8 bytes is A7, the writer in two groups of 7 bits, and the number of the word in five. The two last groups
# repeat every 16384 words (128 KiB), so a block is a copy of a template with the other groups set by slice assignment.

SYNC = 0xA7
WORD = 8
#: The last of the 16383 writers is no step: it wrote what the blocks of an aged volume hold.
MAX_STEPS = (1 << 14) - 2
_BLOCK_WORDS = 1 << 14
_BLOCK = _BLOCK_WORDS * WORD
_ZERO_WORD = bytes(WORD)


def _make_template() -> bytes:
    block = bytearray(_BLOCK)
    block[0::8] = bytes([SYNC]) * _BLOCK_WORDS
    block[7::8] = bytes(range(128)) * 128
    block[6::8] = b"".join(bytes([group]) * 128 for group in range(128))
    return bytes(block)


_TEMPLATE = _make_template()


def tag_bytes(writer: int, start: int, length: int) -> bytes:
    """Return bytes ``start`` to ``start + length`` of what ``writer`` writes."""
    if length <= 0:
        return b""
    word, last = start // WORD, (start + length + WORD - 1) // WORD
    skip = start - word * WORD
    high, low = bytes([writer >> 7]), bytes([writer & 0x7F])
    pieces = []
    while word < last:
        block, inside = divmod(word, _BLOCK_WORDS)
        count = min(_BLOCK_WORDS - inside, last - word)
        piece = bytearray(_TEMPLATE[inside * WORD : (inside + count) * WORD])
        piece[1::8] = high * count
        piece[2::8] = low * count
        if block:
            piece[3::8] = bytes([(block >> 14) & 0x7F]) * count
            piece[4::8] = bytes([(block >> 7) & 0x7F]) * count
            piece[5::8] = bytes([block & 0x7F]) * count
        pieces.append(piece)
        word += count
    whole = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    return bytes(whole[skip : skip + length])


def decode(data: bytes) -> list[list[Any]]:
    """Return the runs that ``data`` consists of, in order and without gaps: tag, zero or raw (docs/agent-protocol.md)."""
    size = len(data)
    if size and data.count(0) == size:
        return [[0, size, "zero"]]
    runs: list[list[Any]] = []
    position, tag, zero = 0, -1, -1
    while position < size:
        if tag < position:
            tag = _find_word(data, position)
        if zero < position:
            zero = data.find(_ZERO_WORD, position)
            zero = size if zero < 0 else zero
        if zero < tag:
            _add_raw(runs, data, position, zero)
            length = _common(data, zero, lambda _, count: bytes(count))
            runs.append([zero, length, "zero"])
            position = zero + length
        elif tag < size:
            writer = data[tag + 1] << 7 | data[tag + 2]
            number = functools.reduce(lambda value, group: value << 7 | group, data[tag + 3 : tag + 8], 0)
            source = number * WORD
            back = _common_back(data, position, tag, writer, source)
            _add_raw(runs, data, position, tag - back)
            length = _common(data, tag, functools.partial(_continue, writer, source))
            if length % WORD:  # a word in part: what is a whole word of another run is not taken from it
                length = min(length, _find_word(data, tag + length // WORD * WORD) - tag)
            runs.append([tag - back, back + length, "tag", writer, source - back])
            position = tag + length
        else:
            _add_raw(runs, data, position, size)
            position = size
    return runs


def _add_raw(runs: list[list[Any]], data: bytes, start: int, end: int) -> None:
    if start < end:
        runs.append([start, end - start, "raw", data[start:end].hex()])


def _find_word(data: bytes, position: int) -> int:
    """Return where the next whole tagged word begins, or the length of ``data``."""
    while True:
        position = data.find(SYNC, position)
        if position < 0 or position + WORD > len(data):
            return len(data)
        word = data[position + 1 : position + WORD]
        if max(word) < 0x80 and (word[0] or word[1]):
            return position
        position += 1


def _continue(writer: int, source: int, done: int, count: int) -> bytes:
    return tag_bytes(writer, source + done, count)


def _common(data: bytes, start: int, expected: Callable[[int, int], bytes]) -> int:
    """Return for how many bytes from ``start`` on ``data`` equals ``expected(done, count)``, asked in growing pieces."""
    done, step, left = 0, 512, len(data) - start
    while done < left:
        count = min(step, left - done)
        piece = expected(done, count)
        have = data[start + done : start + done + count]
        if have == piece:
            done += count
            step = min(step * 4, _BLOCK)
            continue
        low, high = 0, count  # the first `low` bytes agree, the first `high` do not
        while high - low > 1:
            middle = (low + high) // 2
            if have[low:middle] == piece[low:middle]:
                low = middle
            else:
                high = middle
        return done + low
    return done


def _common_back(data: bytes, position: int, tag: int, writer: int, source: int) -> int:
    """Return how many bytes before ``tag`` continue its run backwards, at most to ``position``."""
    most = min(tag - position, source, WORD - 1)
    before = tag_bytes(writer, source - most, most)
    for count in range(most):
        if data[tag - 1 - count] != before[most - 1 - count]:
            return count
    return most


# ---- flags -----------------------------------------------------------------------------------------------------------

OPEN = {
    "rdonly": os.O_RDONLY,
    "wronly": os.O_WRONLY,
    "rdwr": os.O_RDWR,
    "creat": os.O_CREAT,
    "trunc": os.O_TRUNC,
    "append": os.O_APPEND,
    "direct": 0o40000,
    "nonblock": os.O_NONBLOCK,
    "sync": os.O_SYNC,
    "dsync": os.O_DSYNC,
}
RWF = {"hipri": 0x1, "dsync": 0x2, "sync": 0x4, "nowait": 0x8, "append": 0x10, "dontcache": 0x80}
SPLICE = {"move": 1, "nonblock": 2, "more": 4, "gift": 8}
MAP = {
    "shared": 0x1,
    "private": 0x2,
    "shared_validate": 0x3,
    "sync": 0x80000,
    "populate": 0x8000,
    "anonymous": 0x20,
    "hugetlb": 0x40000,
    "huge_2mb": 21 << 26,
    "locked": 0x2000,
    "noreserve": 0x4000,
}
MAP_FIXED, MAP_FIXED_NOREPLACE = 0x10, 0x100000
PROT = {"none": 0, "read": 1, "write": 2}
ADVICE = {"normal": 0, "hugepage": 14, "nohugepage": 15, "dontneed": 4, "populate_read": 22, "populate_write": 23, "remove": 9}
MSYNC = {"async": 1, "invalidate": 2, "sync": 4}
FALLOCATE = {"keep_size": 0x1, "punch_hole": 0x2, "zero_range": 0x10}
SEND = {"zerocopy": 0x4000000, "dontwait": 0x40}
WHENCE = {"set": 0, "cur": 1, "end": 2, "data": 3, "hole": 4}
RDMA = {"local_write": 1, "remote_write": 2, "remote_read": 4}

_MSG_WAITALL = 0x100
_MSG_ERRQUEUE = 0x2000
_SO_ZEROCOPY = 60
_F_SETPIPE_SZ = 1031
_FUTEX_WAIT, _FUTEX_WAKE, _FUTEX_PRIVATE = 0, 1, 128
_FS_IOC_FSGETXATTR, _FS_IOC_FSSETXATTR, _FS_XFLAG_DAX = 0x801C581F, 0x401C5820, 0x8000
_STATX_BASIC, _STATX_DIOALIGN, _STATX_ATTR_DAX, _AT_EMPTY_PATH = 0x7FF, 0x2000, 0x200000, 0x1000
_AF_XDP, _SOL_XDP, _XDP_UMEM_REG, _XDP_CHUNK = 44, 283, 4, 4096
_CLONE_PARENT = 0x8000
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def bits(words: list[str], table: dict[str, int]) -> int:
    """Return the flags that ``words`` name, or'ed. Raises ProtocolError for an unknown word."""
    value = 0
    for word in words:
        if word not in table:
            raise ProtocolError(f"unknown flag {word!r}: known are {', '.join(table)}")
        value |= table[word]
    return value


# ---- memory of the agent's own ---------------------------------------------------------------------------------------


def anonymous(length: int, protection: int = 3) -> int:
    """Return the address of fresh private pages. Raises MemoryError."""
    address = call("mmap", 0, length, protection, MAP["private"] | MAP["anonymous"], -1, 0)
    if address < 0:
        raise MemoryError(f"no {length} bytes for a buffer: {_ERRNO_NAMES.get(-address)}")
    return address


def pages(length: int) -> int:
    return (length + PAGE - 1) // PAGE * PAGE


def mapped_size(length: int, huge: bool = False) -> int:
    """Return how many bytes a mapping of ``length`` really takes: whole pages, and those of hugetlbfs have 2 MiB."""
    page = 2 << 20 if huge else PAGE
    return (length + page - 1) // page * page


class Scratch:
    """Private buffers that live for one step; the address of each is a page boundary plus a shift."""

    def __init__(self, size: int = 1 << 20) -> None:
        self._base, self._size, self._used = anonymous(size), size, 0

    def reset(self) -> None:
        self._used = 0

    def buffer(self, length: int, shift: int = 0) -> int:
        need = pages(length + shift) or PAGE
        if self._used + need > self._size:
            self._size = max(2 * self._size, self._used + need)
            # The old pages stay mapped: buffers of this step may lie in them.
            self._base, self._used = anonymous(self._size), 0
        address = self._base + self._used + shift
        self._used += need
        return address

    def filled(self, data: bytes, shift: int = 0) -> int:
        address = self.buffer(len(data), shift)
        ctypes.memmove(address, data, len(data))
        return address

    def poisoned(self, length: int, shift: int = 0) -> int:
        """A buffer to read into, full of a byte that no tag and no hole has: what is not written shows."""
        address = self.buffer(length, shift)
        ctypes.memset(address, 0xEE, length)
        return address


_RUSAGE_BEFORE = ctypes.create_string_buffer(144)
_RUSAGE_AFTER = ctypes.create_string_buffer(144)
_BEFORE_ADDRESS = ctypes.addressof(_RUSAGE_BEFORE)
_AFTER_ADDRESS = ctypes.addressof(_RUSAGE_AFTER)
_MINFLT_OFFSET = 64  # and the major faults right behind


def copy_counting_faults(target: int, source: int, length: int) -> None:
    """One memory copy between two readings of the fault counter; run it on dummies first, so that only the copy faults."""
    Inside.byte.value = 1
    _GETRUSAGE(0, _BEFORE_ADDRESS)
    _MEMMOVE(target, source, length)
    _GETRUSAGE(0, _AFTER_ADDRESS)
    Inside.byte.value = 0


def faults_counted() -> Outcome:
    """The evidence of the last copy: minor faults, and the major ones (those that waited for a device) as an attribute."""
    minor_before, major_before = struct.unpack_from("qq", _RUSAGE_BEFORE, _MINFLT_OFFSET)
    minor, major = struct.unpack_from("qq", _RUSAGE_AFTER, _MINFLT_OFFSET)
    return {"minor_faults": minor - minor_before, "attributes": {"major_faults": major - major_before}}


# ---- operations ------------------------------------------------------------------------------------------------------


class Mapping:
    """A mapping that the program made, with the addresses of its guard pages."""

    def __init__(self, address: int, length: int, guards: tuple[int, ...] = ()) -> None:
        self.address, self.length, self.guards = address, length, guards

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
        if address not in self.users:
            chosen = MAP["shared"] | MAP["anonymous"] | MAP["noreserve"] | MAP_FIXED_NOREPLACE
            if call("mmap", address, PAGE, PROT["none"], chosen, -1, 0) != address:
                return False
        self.users[address] = self.users.get(address, 0) + 1
        return True

    def release(self, address: int) -> None:
        self.users[address] -= 1
        if not self.users[address]:
            del self.users[address]
            call("munmap", address, PAGE)

    def find_place(self, length: int, size: int, flags: int, descriptor: int, offset: int) -> int:
        """Return where the kernel puts such a mapping when it may choose, with a guard taken on each side; or minus the error number.

        The place is held by a mapping without access, which the real one replaces. How the kernel aligns a mapping depends on its file,
        offset and length (mm/huge_memory.c thp_get_unmapped_area), so it is asked with these. Where a neighbour is in the way, a page of
        the place is taken and it is asked again: it then chooses by the same rule, next to a guard.
        """
        quiet = flags & ~(MAP["populate"] | MAP["locked"])
        spacers: list[int] = []
        try:
            for _ in range(32):
                address = call("mmap", 0, length, PROT["none"], quiet, descriptor, offset)
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


class Ends:
    """Descriptors under one name: ``read`` is the end that is read from, ``write`` the other (a file: the same)."""

    def __init__(self, read: int, write: int) -> None:
        self.read, self.write = read, write


class Place:
    """Where the program works: the root of each volume (a folder or a node) and its device."""

    def __init__(self, roots: dict[str, str], devices: dict[str, str]) -> None:
        self.roots, self.devices = roots, devices
        self.folders = {role for role, root in roots.items() if Path(root).is_dir()}

    def path(self, text: str) -> bytes:
        role, colon, name = text.partition(":")
        if not colon:
            role, name = "main", text
        if role not in self.roots:
            raise ProtocolError(f"the path {text!r} names the volume {role!r}: known are {', '.join(self.roots)}")
        root = self.roots[role]
        return os.fsencode(os.path.join(root, name) if role in self.folders else root)

    def device(self, role: str) -> tuple[bytes, bytes]:
        if role not in self.roots or role not in self.devices:
            raise ProtocolError(f"unknown volume {role!r}: known are {', '.join(self.devices)}")
        return os.fsencode(self.devices[role]), os.fsencode(self.roots[role])


class Performer:
    """The names that a program has made, as one process of it has them."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.names: dict[str, Any] = {}
        self.scratch = Scratch()
        self.guards = Guards()
        self.writer = 0
        self.remote: tuple[int, int] = (0, 0)

    def named(self, name: str) -> Any:
        try:
            return self.names[name]
        except KeyError:
            raise MissingNameError(name) from None

    def source(self, name: str) -> int:
        return int(self.named(name).read)

    def target(self, name: str) -> int:
        return int(self.named(name).write)

    def mapping(self, name: str) -> Mapping:
        found = self.named(name)
        if not isinstance(found, Mapping):
            raise ProtocolError(f"{name!r} is not a mapping")
        return found

    def tagged(self, length: int, shift: int = 0, start: int = 0) -> int:
        return self.scratch.filled(tag_bytes(self.writer, start, length), shift)

    def outgoing(self, length: int, shift: int, from_: str | None, from_offset: int) -> int:
        if from_ is None:
            return self.tagged(length, shift)
        return self.mapping(from_).address + from_offset

    def arrived(self, result: int, address: int, into: str | None = None) -> Outcome:
        """The outcome of a call that reads into a private buffer: its data; into a mapping: none."""
        if result < 0:
            return failed(-result)
        if into is not None:
            return returned(result)
        return returned(result, data=decode(ctypes.string_at(address, result)))

    def incoming(self, length: int, shift: int, into: str | None, into_offset: int) -> int:
        if into is None:
            return self.scratch.poisoned(length, shift)
        return self.mapping(into).address + into_offset

    def offset(self, value: int | None) -> tuple[int, Any]:
        """The address of a 64-bit offset (0 for none), and what keeps it alive."""
        if value is None:
            return 0, None
        cell = ctypes.c_int64(value)
        return ctypes.addressof(cell), cell


OPERATIONS: dict[str, Callable[..., Outcome]] = {}


def operation(name: str) -> Callable[[Callable[..., Outcome]], Callable[..., Outcome]]:
    def register(function: Callable[..., Outcome]) -> Callable[..., Outcome]:
        OPERATIONS[name] = function
        return function

    return register


def iovec(parts: list[tuple[int, int]]) -> Any:
    """An array of struct iovec."""
    flat = [number for part in parts for number in part]
    return (ctypes.c_uint64 * len(flat))(*flat)


# files


@operation("open")
def do_open(me: Performer, name: str, path: str, flags: list[str]) -> Outcome:
    text = ctypes.create_string_buffer(me.place.path(path))
    descriptor = call("open", ctypes.addressof(text), bits(flags, OPEN), 0o644)
    if descriptor >= 0:
        me.names[name] = Ends(descriptor, descriptor)
    return nothing_or_errno(descriptor)


@operation("close")
def do_close(me: Performer, name: str, end: str | None = None) -> Outcome:
    ends = me.named(name)
    if not isinstance(ends, Ends):
        raise ProtocolError(f"{name!r} has no descriptor to close")
    chosen = {None: {ends.read, ends.write}, "both": {ends.read, ends.write}, "read": {ends.read}, "write": {ends.write}}.get(end)
    if chosen is None:
        raise ProtocolError(f"unknown end {end!r}: known are read, write, both")
    results = [call("close", descriptor) for descriptor in sorted(chosen)]
    # A closed descriptor's number is soon another's: from now on the name stands for no descriptor at all (EBADF).
    ends.read = -1 if ends.read in chosen else ends.read
    ends.write = -1 if ends.write in chosen else ends.write
    return outcome(min(results))


@operation("read")
def do_read(me: Performer, file: str, length: int, shift: int = 0, into: str | None = None, into_offset: int = 0) -> Outcome:
    address = me.incoming(length, shift, into, into_offset)
    return me.arrived(call("read", me.source(file), address, length), address, into)


@operation("write")
def do_write(me: Performer, file: str, length: int, shift: int = 0, from_: str | None = None, from_offset: int = 0) -> Outcome:
    address = me.outgoing(length, shift, from_, from_offset)
    return outcome(call("write", me.target(file), address, length))


@operation("pread")
def do_pread(
    me: Performer,
    file: str,
    offset: int,
    length: int,
    shift: int = 0,
    into: str | None = None,
    into_offset: int = 0,
    flags: list[str] | None = None,
) -> Outcome:
    address = me.incoming(length, shift, into, into_offset)
    if not flags:
        return me.arrived(call("pread64", me.source(file), address, length, offset), address, into)
    vector = iovec([(address, length)])
    result = call("preadv2", me.source(file), ctypes.addressof(vector), 1, offset, 0, bits(flags, RWF))
    return me.arrived(result, address, into)


@operation("pwrite")
def do_pwrite(
    me: Performer,
    file: str,
    offset: int,
    length: int,
    shift: int = 0,
    from_: str | None = None,
    from_offset: int = 0,
    flags: list[str] | None = None,
) -> Outcome:
    address = me.outgoing(length, shift, from_, from_offset)
    if not flags:
        return outcome(call("pwrite64", me.target(file), address, length, offset))
    vector = iovec([(address, length)])
    return outcome(call("pwritev2", me.target(file), ctypes.addressof(vector), 1, offset, 0, bits(flags, RWF)))


def _in_mapping(buffer: dict[str, Any]) -> bool:
    return buffer.get("mapping") is not None


@operation("preadv")
def do_preadv(me: Performer, file: str, offset: int, buffers: list[dict[str, Any]], flags: list[str] | None = None) -> Outcome:
    parts = []
    for buffer in buffers:
        length = buffer["length"]
        if _in_mapping(buffer):
            parts.append((me.mapping(buffer["mapping"]).address + buffer.get("offset", 0), length))
        else:
            parts.append((me.scratch.poisoned(length, buffer.get("shift", 0)), length))
    vector = iovec(parts)
    result = _vector_call("preadv", me.source(file), vector, len(parts), offset, flags)
    if result < 0 or any(map(_in_mapping, buffers)):
        return outcome(result)
    data, left = [], result
    for address, length in parts:
        data.append(ctypes.string_at(address, min(left, length)))
        left -= min(left, length)
    return returned(result, data=decode(b"".join(data)))


@operation("pwritev")
def do_pwritev(me: Performer, file: str, offset: int, buffers: list[dict[str, Any]], flags: list[str] | None = None) -> Outcome:
    parts, start = [], 0
    for buffer in buffers:
        length = buffer["length"]
        if _in_mapping(buffer):
            parts.append((me.mapping(buffer["mapping"]).address + buffer.get("offset", 0), length))
        else:
            parts.append((me.tagged(length, buffer.get("shift", 0), start), length))
        start += length
    return outcome(_vector_call("pwritev", me.target(file), iovec(parts), len(parts), offset, flags))


def _vector_call(name: str, descriptor: int, vector: Any, count: int, offset: int, flags: list[str] | None) -> int:
    if flags:
        return call(name + "2", descriptor, ctypes.addressof(vector), count, offset, 0, bits(flags, RWF))
    return call(name, descriptor, ctypes.addressof(vector), count, offset, 0)


@operation("lseek")
def do_lseek(me: Performer, file: str, offset: int, whence: str = "set") -> Outcome:
    return outcome(call("lseek", me.source(file), offset, bits([whence], WHENCE)))


@operation("fsync")
def do_fsync(me: Performer, file: str) -> Outcome:
    return outcome(call("fsync", me.target(file)))


@operation("fdatasync")
def do_fdatasync(me: Performer, file: str) -> Outcome:
    return outcome(call("fdatasync", me.target(file)))


@operation("ftruncate")
def do_ftruncate(me: Performer, file: str, length: int) -> Outcome:
    return outcome(call("ftruncate", me.target(file), length))


@operation("fallocate")
def do_fallocate(me: Performer, file: str, offset: int, length: int, flags: list[str] | None = None) -> Outcome:
    return outcome(call("fallocate", me.target(file), bits(flags or [], FALLOCATE), offset, length))


@operation("copy_file_range")
def do_copy_file_range(
    me: Performer, source: str, target: str, length: int, source_offset: int | None = None, target_offset: int | None = None
) -> Outcome:
    from_at, keep_from = me.offset(source_offset)
    to_at, keep_to = me.offset(target_offset)
    result = call("copy_file_range", me.source(source), from_at, me.target(target), to_at, length, 0)
    del keep_from, keep_to
    return outcome(result)


@operation("statx")
def do_statx(me: Performer, file: str) -> Outcome:
    empty, out = ctypes.create_string_buffer(b""), ctypes.create_string_buffer(256)
    mask = _STATX_BASIC | _STATX_DIOALIGN
    result = call("statx", me.source(file), ctypes.addressof(empty), _AT_EMPTY_PATH, mask, ctypes.addressof(out))
    if result < 0:
        return failed(-result)
    got_mask, _, attributes = struct.unpack_from("=IIQ", out, 0)
    size, blocks, attributes_mask = struct.unpack_from("=QQQ", out, 40)
    memory_align, offset_align = struct.unpack_from("=II", out, 152)
    supported = int(bool(got_mask & _STATX_DIOALIGN))
    return returned(
        0,
        attributes={
            "size": size,
            "blocks": blocks,
            "dax": int(bool(attributes & _STATX_ATTR_DAX)),
            "dax_mask": int(bool(attributes_mask & _STATX_ATTR_DAX)),
            "dio_mem_align": memory_align if supported else 0,
            "dio_offset_align": offset_align if supported else 0,
            "dio_supported": supported,
        },
    )


@operation("get_xflags")
def do_get_xflags(me: Performer, file: str) -> Outcome:
    record = ctypes.create_string_buffer(28)
    result = call("ioctl", me.source(file), _FS_IOC_FSGETXATTR, ctypes.addressof(record))
    if result < 0:
        return failed(-result)
    return returned(int(bool(struct.unpack_from("=I", record)[0] & _FS_XFLAG_DAX)))


@operation("set_xflags")
def do_set_xflags(me: Performer, file: str, dax: bool) -> Outcome:
    record = ctypes.create_string_buffer(28)
    result = call("ioctl", me.source(file), _FS_IOC_FSGETXATTR, ctypes.addressof(record))
    if result < 0:
        return failed(-result)
    (flags,) = struct.unpack_from("=I", record)
    struct.pack_into("=I", record, 0, flags | _FS_XFLAG_DAX if dax else flags & ~_FS_XFLAG_DAX)
    return outcome(call("ioctl", me.source(file), _FS_IOC_FSSETXATTR, ctypes.addressof(record)))


# pipes, splice and sockets


@operation("pipe")
def do_pipe(me: Performer, name: str, nonblock: bool = False) -> Outcome:
    pair = (ctypes.c_int * 2)()
    result = call("pipe2", ctypes.addressof(pair), os.O_NONBLOCK if nonblock else 0)
    if result >= 0:
        me.names[name] = Ends(pair[0], pair[1])
    return outcome(result)


@operation("set_pipe_size")
def do_set_pipe_size(me: Performer, pipe: str, size: int) -> Outcome:
    return outcome(call("fcntl", me.source(pipe), _F_SETPIPE_SZ, size))


@operation("splice")
def do_splice(
    me: Performer,
    source: str,
    target: str,
    length: int,
    source_offset: int | None = None,
    target_offset: int | None = None,
    flags: list[str] | None = None,
) -> Outcome:
    from_at, keep_from = me.offset(source_offset)
    to_at, keep_to = me.offset(target_offset)
    result = call("splice", me.source(source), from_at, me.target(target), to_at, length, bits(flags or [], SPLICE))
    del keep_from, keep_to
    return outcome(result)


@operation("sendfile")
def do_sendfile(me: Performer, source: str, target: str, length: int, offset: int | None = None) -> Outcome:
    at, keep = me.offset(offset)
    result = call("sendfile", me.target(target), me.source(source), at, length)
    del keep
    return outcome(result)


@operation("tee")
def do_tee(me: Performer, source: str, target: str, length: int, flags: list[str] | None = None) -> Outcome:
    return outcome(call("tee", me.source(source), me.target(target), length, bits(flags or [], SPLICE)))


@operation("vmsplice")
def do_vmsplice(me: Performer, pipe: str, mapping: str, offset: int, length: int, flags: list[str] | None = None) -> Outcome:
    vector = iovec([(me.mapping(mapping).address + offset, length)])
    return outcome(call("vmsplice", me.target(pipe), ctypes.addressof(vector), 1, bits(flags or [], SPLICE)))


@operation("tcp_pair")
def do_tcp_pair(me: Performer, name: str) -> Outcome:
    try:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            sender = socket.create_connection(listener.getsockname())
            receiver, _ = listener.accept()
    except OSError as error:
        return failed(error.errno or errno.EIO)
    for end in (sender, receiver):
        end.setblocking(True)
    me.names[name] = Ends(receiver.detach(), sender.detach())
    return returned()


@operation("unix_pair")
def do_unix_pair(me: Performer, name: str) -> Outcome:
    try:
        sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    except OSError as error:
        return failed(error.errno or errno.EIO)
    me.names[name] = Ends(receiver.detach(), sender.detach())
    return returned()


@operation("set_zerocopy")
def do_set_zerocopy(me: Performer, socket: str) -> Outcome:
    one = ctypes.c_int(1)
    return outcome(call("setsockopt", me.target(socket), 1, _SO_ZEROCOPY, ctypes.addressof(one), 4))


@operation("send")
def do_send(
    me: Performer, socket: str, length: int, from_: str | None = None, from_offset: int = 0, flags: list[str] | None = None
) -> Outcome:
    chosen = bits(flags or [], SEND)
    if from_ is None and chosen & SEND["zerocopy"]:
        # The kernel goes on reading these pages after the call, so no later step may use them.
        address = anonymous(pages(length) or PAGE)
        ctypes.memmove(address, tag_bytes(me.writer, 0, length), length)
    else:
        address = me.outgoing(length, 0, from_, from_offset)
    return outcome(call("sendto", me.target(socket), address, length, chosen, 0, 0))


@operation("recv")
def do_recv(me: Performer, socket: str, length: int, flags: list[str] | None = None) -> Outcome:
    address = me.scratch.poisoned(length)
    chosen = bits(flags, SEND) if flags else _MSG_WAITALL
    return me.arrived(call("recvfrom", me.source(socket), address, length, chosen, 0, 0), address)


@operation("recv_errqueue")
def do_recv_errqueue(me: Performer, socket: str) -> Outcome:
    descriptor = me.target(socket)
    waiting = ctypes.create_string_buffer(struct.pack("=ihh", descriptor, 0, 0))
    ready = call("poll", ctypes.addressof(waiting), 1, -1)  # POLLERR needs no asking
    if ready < 0:
        return failed(-ready)
    control = ctypes.create_string_buffer(256)
    header = ctypes.create_string_buffer(struct.pack("=QIIQQQQiI", 0, 0, 0, 0, 0, ctypes.addressof(control), 256, 0, 0))
    result = call("recvmsg", descriptor, ctypes.addressof(header), _MSG_ERRQUEUE)
    if result < 0:
        return failed(-result)
    origin, code, low, high = struct.unpack_from("=4xBxBxII", control, 16)
    if origin != 5:  # SO_EE_ORIGIN_ZEROCOPY
        return returned(0, attributes={"completions": 0, "origin": origin})
    return returned(0, attributes={"completions": high - low + 1, "lo": low, "hi": high, "copied": code & 1})


# mappings


@operation("mmap")
def do_mmap(
    me: Performer,
    name: str,
    length: int,
    file: str | None = None,
    offset: int = 0,
    protection: list[str] | None = None,
    flags: list[str] | None = None,
    align: int = 0,
    align_shift: int = 0,
) -> Outcome:
    descriptor = -1 if file is None else me.source(file)
    chosen = bits(["shared"] if flags is None else flags, MAP)
    access = bits(["read", "write"] if protection is None else protection, PROT)
    size = mapped_size(length, "hugetlb" in (flags or []))
    guards: tuple[int, ...] = ()
    if align:
        # The rest of the reserved range stays without access: a guard on each side.
        reserved = size + 2 * align + pages(align_shift) + 2 * PAGE
        held = anonymous(reserved, PROT["none"])
        hint = (held + PAGE + align - 1) // align * align + align_shift
    else:
        reserved = size
        held = hint = me.guards.find_place(length, size, chosen, descriptor, offset)
        guards = () if held < 0 else (held - PAGE, held + size)
    # Where the kernel refuses to choose a place, it says here why.
    address = call("mmap", max(hint, 0), length, access, chosen | (MAP_FIXED if hint > 0 else 0), descriptor, offset)
    if address >= 0 and hint > 0:
        me.names[name] = Mapping(address, length, guards)
        return returned(0, attributes={"address_mod_2mib": address % (2 << 20)})
    if held > 0:
        call("munmap", held, reserved)
    for guard in guards:
        me.guards.release(guard)
    if address >= 0:
        call("munmap", address, size)
        raise MemoryError(f"mmap was refused once ({_ERRNO_NAMES.get(-held)}) and then not")
    return failed(-address)


@operation("munmap")
def do_munmap(me: Performer, mapping: str) -> Outcome:
    found = me.mapping(mapping)
    result = call("munmap", found.address, found.length)
    if result >= 0:
        # Another mapping soon has these addresses, so the name must not lead there.
        del me.names[mapping]
        for guard in found.guards:
            me.guards.release(guard)
    return outcome(result)


@operation("mprotect")
def do_mprotect(me: Performer, mapping: str, protection: list[str]) -> Outcome:
    found = me.mapping(mapping)
    return outcome(call("mprotect", found.address, found.length, bits(protection, PROT)))


@operation("madvise")
def do_madvise(me: Performer, mapping: str, advice: str, offset: int = 0, length: int | None = None) -> Outcome:
    address, size = me.mapping(mapping).part(offset, length)
    return outcome(call("madvise", address, size, bits([advice], ADVICE)))


@operation("load")
def do_load(me: Performer, mapping: str, offset: int, length: int) -> Outcome:
    source = me.mapping(mapping).address + offset
    target, dummy = me.scratch.poisoned(length), me.scratch.poisoned(length)
    copy_counting_faults(target, dummy, length)
    copy_counting_faults(target, source, length)
    return returned(length, **faults_counted(), data=decode(ctypes.string_at(target, length)))


@operation("store")
def do_store(me: Performer, mapping: str, offset: int, length: int = 4, value: int | None = None) -> Outcome:
    target = me.mapping(mapping).address + offset
    if value is None:
        source = me.tagged(length)
    else:
        length = 4
        source = me.scratch.filled(struct.pack("<I", value & 0xFFFFFFFF))
    copy_counting_faults(me.scratch.poisoned(length), source, length)
    copy_counting_faults(target, source, length)
    return returned(length, **faults_counted())


@operation("msync")
def do_msync(me: Performer, mapping: str, offset: int = 0, length: int | None = None, flags: list[str] | None = None) -> Outcome:
    address, size = me.mapping(mapping).part(offset, length)
    return outcome(call("msync", address, size, bits(["sync"] if flags is None else flags, MSYNC)))


@operation("mincore")
def do_mincore(me: Performer, mapping: str, offset: int = 0, length: int | None = None) -> Outcome:
    address, size = me.mapping(mapping).part(offset, length)
    vector = ctypes.create_string_buffer(pages(size) // PAGE + 1)
    result = call("mincore", address, size, ctypes.addressof(vector))
    if result < 0:
        return failed(-result)
    return returned(0, resident="".join("1" if byte & 1 else "0" for byte in vector.raw[: pages(size) // PAGE]))


@operation("pagemap")
def do_pagemap(me: Performer, mapping: str, offset: int = 0, length: int | None = None) -> Outcome:
    address, size = me.mapping(mapping).part(offset, length)
    first, count = address // PAGE, pages(size) // PAGE
    try:
        descriptor = os.open("/proc/self/pagemap", os.O_RDONLY)
        try:
            entries = os.pread(descriptor, count * 8, first * 8)
        finally:
            os.close(descriptor)
    except OSError as error:
        return failed(error.errno or errno.EIO)
    frames = [entry & ((1 << 55) - 1) if entry >> 63 else 0 for (entry,) in struct.iter_unpack("=Q", entries)]
    return returned(0, frames=frames)


_SMAPS_FIELDS = {
    "Rss": "rss",
    "KernelPageSize": "kernel_page_size",
    "AnonHugePages": "anonymous_huge",
    "FilePmdMapped": "file_pmd_mapped",
    "Shared_Hugetlb": "shared_hugetlb",
    "Locked": "locked",
}


@operation("smaps")
def do_smaps(me: Performer, mapping: str) -> Outcome:
    found = me.mapping(mapping)
    return returned(0, attributes=smaps_of(Path("/proc/self/smaps").read_text(), found.address, found.length))


def smaps_of(text: str, address: int, length: int) -> dict[str, int | str]:
    """Sum the areas of ``text`` that overlap the range; VmFlags and KernelPageSize are those of the first."""
    found: dict[str, int | str] = dict.fromkeys(_SMAPS_FIELDS.values(), 0)
    found["vm_flags"] = ""
    inside = False
    for line in text.splitlines():
        key, colon, rest = line.partition(":")
        if not colon or " " in key:
            low, _, high = line.split(" ", 1)[0].partition("-")
            inside = int(low, 16) < address + length and address < int(high, 16)
        elif inside and key in _SMAPS_FIELDS:
            name, size = _SMAPS_FIELDS[key], int(rest.split()[0]) * 1024
            found[name] = found[name] or size if name == "kernel_page_size" else int(found[name]) + size
        elif inside and key == "VmFlags":
            found["vm_flags"] = found["vm_flags"] or rest.strip()
    return found


@operation("mlock")
def do_mlock(me: Performer, mapping: str, offset: int = 0, length: int | None = None) -> Outcome:
    return outcome(call("mlock", *me.mapping(mapping).part(offset, length)))


@operation("munlock")
def do_munlock(me: Performer, mapping: str, offset: int = 0, length: int | None = None) -> Outcome:
    return outcome(call("munlock", *me.mapping(mapping).part(offset, length)))


# futexes and other processes


@operation("futex_wait")
def do_futex_wait(me: Performer, mapping: str, offset: int, value: int, private: bool = False, timeout_ms: int | None = None) -> Outcome:
    address = me.mapping(mapping).address + offset
    limit, keep = 0, None
    if timeout_ms is not None:
        keep = (ctypes.c_int64 * 2)(timeout_ms // 1000, timeout_ms % 1000 * 1_000_000)
        limit = ctypes.addressof(keep)
    result = call("futex", address, _FUTEX_WAIT | (_FUTEX_PRIVATE if private else 0), value, limit)
    del keep
    return outcome(result)


@operation("futex_wake")
def do_futex_wake(me: Performer, mapping: str, offset: int, count: int = 1, private: bool = False) -> Outcome:
    address = me.mapping(mapping).address + offset
    return outcome(call("futex", address, _FUTEX_WAKE | (_FUTEX_PRIVATE if private else 0), count))


@operation("process_vm_readv")
def do_process_vm_readv(me: Performer, target: str, mapping: str, offset: int, length: int) -> Outcome:
    process, base = me.remote  # the supervisor knows who and where; 0 where there is no such process or mapping
    if not process or not base:
        raise MissingNameError(mapping if process else target)
    address = me.scratch.poisoned(length)
    here, there = iovec([(address, length)]), iovec([(base + offset, length)])
    return me.arrived(call("process_vm_readv", process, ctypes.addressof(here), 1, ctypes.addressof(there), 1), address)


# long-term pins


@operation("io_uring_setup")
def do_io_uring_setup(me: Performer, name: str, entries: int = 4) -> Outcome:
    parameters = ctypes.create_string_buffer(120)
    descriptor = call("io_uring_setup", entries, ctypes.addressof(parameters))
    if descriptor >= 0:
        me.names[name] = Ends(descriptor, descriptor)
    return nothing_or_errno(descriptor)


@operation("io_uring_register")
def do_io_uring_register(me: Performer, ring: str, mapping: str, offset: int = 0, length: int | None = None) -> Outcome:
    vector = iovec([me.mapping(mapping).part(offset, length)])
    return outcome(call("io_uring_register", me.source(ring), 0, ctypes.addressof(vector), 1))


@operation("io_uring_unregister")
def do_io_uring_unregister(me: Performer, ring: str) -> Outcome:
    return outcome(call("io_uring_register", me.source(ring), 1, 0, 0))


@operation("xdp_socket")
def do_xdp_socket(me: Performer, name: str) -> Outcome:
    descriptor = call("socket", _AF_XDP, 3, 0)  # SOCK_RAW
    if descriptor >= 0:
        me.names[name] = Ends(descriptor, descriptor)
    return nothing_or_errno(descriptor)


@operation("xdp_umem")
def do_xdp_umem(me: Performer, socket: str, mapping: str, offset: int = 0, length: int | None = None) -> Outcome:
    address, size = me.mapping(mapping).part(offset, length)
    # The first version of struct xdp_umem_reg (24 bytes), which every kernel takes.
    record = ctypes.create_string_buffer(struct.pack("=QQII", address, size, _XDP_CHUNK, 0), 24)
    return outcome(call("setsockopt", me.source(socket), _SOL_XDP, _XDP_UMEM_REG, ctypes.addressof(record), 24))


class RdmaHandle:
    """An RDMA device with its protection domain."""

    def __init__(self, library: Any, domain: int) -> None:
        self.library, self.domain = library, domain


@functools.cache
def _rdma_library() -> Any:
    """libibverbs, or None where the guest has none."""
    try:
        library = ctypes.CDLL("libibverbs.so.1", use_errno=True)
    except OSError:
        return None
    for name, result, arguments in (
        ("ibv_get_device_list", ctypes.c_void_p, [ctypes.c_void_p]),
        ("ibv_open_device", ctypes.c_void_p, [ctypes.c_void_p]),
        ("ibv_alloc_pd", ctypes.c_void_p, [ctypes.c_void_p]),
        ("ibv_reg_mr", ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]),
        ("ibv_dereg_mr", ctypes.c_int, [ctypes.c_void_p]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


@operation("rdma_open")
def do_rdma_open(me: Performer, name: str) -> Outcome:
    library = _rdma_library()
    if library is None:
        return failed(errno.ENODEV, attributes={"reason": "the guest has no libibverbs"})
    count = ctypes.c_int()
    devices = library.ibv_get_device_list(ctypes.addressof(count))
    if not devices or count.value == 0:
        return failed(errno.ENODEV, attributes={"reason": "the guest has no RDMA device"})
    first = ctypes.c_void_p.from_address(devices).value
    context = library.ibv_open_device(first)
    domain = library.ibv_alloc_pd(context) if context else None
    if not domain:
        return failed(ctypes.get_errno() or errno.EIO)
    me.names[name] = RdmaHandle(library, domain)
    return returned()


@operation("rdma_register")
def do_rdma_register(
    me: Performer, name: str, device: str, mapping: str, offset: int = 0, length: int | None = None, access: list[str] | None = None
) -> Outcome:
    verbs = me.named(device)
    address, size = me.mapping(mapping).part(offset, length)
    region = verbs.library.ibv_reg_mr(verbs.domain, address, size, bits(["local_write"] if access is None else access, RDMA))
    if not region:
        return failed(ctypes.get_errno())
    me.names[name] = RdmaHandle(verbs.library, region)
    return returned()


@operation("rdma_deregister")
def do_rdma_deregister(me: Performer, region: str) -> Outcome:
    verbs = me.named(region)
    number = verbs.library.ibv_dereg_mr(verbs.domain)
    if number == 0:
        del me.names[region]
    return returned() if number == 0 else failed(number)


# the system


@operation("mount")
def do_mount(me: Performer, volume: str = "main", filesystem: str = "ext4", options: str = "") -> Outcome:
    device, root = map(ctypes.create_string_buffer, me.place.device(volume))
    kind, data = ctypes.create_string_buffer(filesystem.encode()), ctypes.create_string_buffer(options.encode())
    at_device, at_root, at_kind = (ctypes.addressof(text) for text in (device, root, kind))
    return outcome(call("mount", at_device, at_root, at_kind, 0, ctypes.addressof(data)))


@operation("umount")
def do_umount(me: Performer, volume: str = "main") -> Outcome:
    root = ctypes.create_string_buffer(me.place.device(volume)[1])
    return outcome(call("umount2", ctypes.addressof(root), 0))


@operation("drop_caches")
def do_drop_caches(me: Performer) -> Outcome:
    text = ctypes.create_string_buffer(b"3")
    try:
        descriptor = os.open("/proc/sys/vm/drop_caches", os.O_WRONLY)
    except OSError as error:
        return failed(error.errno or errno.EIO)
    result = call("write", descriptor, ctypes.addressof(text), 1)
    os.close(descriptor)
    return returned() if result >= 0 else failed(-result)


@operation("meminfo")
def do_meminfo(me: Performer) -> Outcome:
    rows = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    # The page cache of files is counted as Cached, that of block device nodes as Buffers.
    return returned(sum(int(rows[name].split()[0]) * 1024 for name in ("Cached", "Buffers")))


#: Done by the supervisor and the actors' loop, not by a function of the table above.
SUPERVISED = {"fork": {"process": True}, "join": {"label": True}}


# ---- actors: the processes of a program ------------------------------------------------------------------------------
# The supervisor sends an actor a range of steps; the actor answers each with one line "index extra json\n". ``extra`` is
# what the supervisor must know beside the observation: "-", "pid:N" of a new process, "map:NAME:ADDRESS" or "unmap:NAME" (in hex).

_ORDER = struct.Struct("=qqqq")


class Step:
    """One step of a program, its arguments ready for the operation's function."""

    def __init__(self, index: int, call_name: str, process: str, start: str | None, arguments: dict[str, Any]) -> None:
        self.index, self.call, self.process, self.start, self.arguments = index, call_name, process, start, arguments

    @property
    def alone(self) -> bool:
        """Whether the supervisor hands this step out by itself, because something beside it must happen."""
        return self.start is not None or self.call in ("fork", "join", "process_vm_readv")


class Cast:
    """What all actors of a program share from before the first fork."""

    def __init__(self, steps: list[Step], place: Place, channels: dict[str, socket.socket], halted: int) -> None:
        self.steps, self.place, self.channels, self.halted = steps, place, channels, halted
        self.order = {name: number for number, name in enumerate(channels)}

    def enter(self, actor: str) -> None:
        """Have this process be ``actor``: from now on its byte says whether it is in the operation of a step."""
        Inside.byte = ctypes.c_ubyte.from_address(self.halted + len(self.order) + self.order[actor])

    def was_inside(self, actor: str) -> bool:
        return bool(ctypes.c_ubyte.from_address(self.halted + len(self.order) + self.order[actor]).value)

    def is_halted(self, actor: str) -> bool:
        return bool(ctypes.c_ubyte.from_address(self.halted + self.order[actor]).value)

    def halt(self, actor: str) -> None:
        ctypes.memset(self.halted + self.order[actor], 1, 1)


def become_actor(cast: Cast) -> NoReturn:
    """The life of the process ``main``, from the fork of the session on. Never returns."""
    try:
        os.setpgid(0, 0)
        call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        gc.disable()  # a collection would take page faults of its own
        act(cast, "main", Performer(cast.place))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(70)


def act(cast: Cast, name: str, me: Performer) -> NoReturn:
    """Do what the supervisor orders, step by step, until it hangs up."""
    cast.enter(name)
    while True:
        channel = cast.channels[name]
        order = channel.recv(_ORDER.size, socket.MSG_WAITALL)
        if len(order) < _ORDER.size:
            os._exit(0)
        first, end, *remote = _ORDER.unpack(order)
        me.remote = (remote[0], remote[1])
        for step in cast.steps[first:end]:
            if cast.is_halted(name):
                break
            me.scratch.reset()
            me.writer = step.index + 1
            extra = "-"
            if step.call == "fork":
                result, extra = _fork(cast, me, step.arguments["process"])
            else:
                result = perform(me, step)
            if step.call == "mmap" and result["how"] == "returned":
                made = step.arguments["name"]
                extra = f"map:{made.encode().hex()}:{me.names[made].address}"
            if step.call == "munmap" and step.arguments["mapping"] not in me.names:
                extra = f"unmap:{step.arguments['mapping'].encode().hex()}"
            if result["how"] == "broken":
                extra, result = "broken", result["problem"]
            else:
                result["step"] = step.index
            cast.channels[name].sendall(f"{step.index} {extra} {json.dumps(result)}\n".encode())


def perform(me: Performer, step: Step) -> Outcome:
    """Do one step; what the agent itself cannot do comes back as ``broken``, which ends the program with an error."""
    try:
        return OPERATIONS[step.call](me, **step.arguments)
    except MissingNameError as missing:
        return {"how": "not_run", "attributes": {"missing": str(missing)}}
    except ProtocolError as error:
        return {"how": "broken", "problem": str(error)}  # an unknown flag, a name of the wrong kind
    except (AttributeError, TypeError, ValueError, struct.error, MemoryError, OSError) as error:
        return {"how": "broken", "problem": f"{type(error).__name__}: {error}\n{traceback.format_exc()}"}


def _fork(cast: Cast, me: Performer, name: str) -> tuple[Outcome, str]:
    """Make the process ``name``; it is a child of the supervisor like all others, and lives in :func:`act`."""
    # Not through call(): the child would say on its way out that this process is in no operation, whatever it does by then.
    process: int = _SYSCALL(NR["clone"], _CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0, 0)
    process = process if process != -1 else -ctypes.get_errno()
    if process == 0:
        try:
            cast.enter(name)  # before any call: until then this process speaks for the one that made it
            call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL)
            act(cast, name, me)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(70)
    return nothing_or_errno(process), f"pid:{process}" if process > 0 else "-"


# ---- the supervisor --------------------------------------------------------------------------------------------------


class Limits:
    """``blocked_s``: asleep so long in one system call is blocked. ``step_s``: how long a step that makes progress may run."""

    def __init__(self, blocked_s: float, step_s: float) -> None:
        self.blocked_s, self.step_s = blocked_s, step_s


class Actor:
    """What the supervisor knows of one process of the program."""

    def __init__(self, name: str, pid: int, channel: socket.socket, mappings: dict[str, int], host: socket.socket | None) -> None:
        self.name, self.pid, self.channel, self.mappings = name, pid, channel, dict(mappings)
        self.pidfd = os.pidfd_open(pid)
        self.waiting = select.poll()
        self.waiting.register(channel, select.POLLIN)
        self.waiting.register(self.pidfd, select.POLLIN)
        if host is not None:
            self.waiting.register(host, select.POLLRDHUP)
        self.lines: list[bytes] = []
        self.rest = b""
        self.signal: str | None = None
        self.dead = False
        self.stuck = False
        self.busy: int | None = None

    def receive(self) -> None:
        """Take what the actor has said so far."""
        while True:
            try:
                chunk = self.channel.recv(1 << 20, socket.MSG_DONTWAIT)
            except (BlockingIOError, ConnectionResetError):
                return
            if not chunk:
                return
            *whole, self.rest = (self.rest + chunk).split(b"\n")
            self.lines += whole

    def note_end(self) -> None:
        """Note how the process ended. It is left to be reaped with the rest: until then its number names its group."""
        ending = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        self.dead = True
        if ending is not None and ending.si_code in (os.CLD_KILLED, os.CLD_DUMPED):
            number = ending.si_status
            self.signal = next((s.name for s in signal.Signals if s == number), f"signal {number}")


class Sample:
    """Where a process is: asleep or not, in which system call, after how many voluntary switches."""

    def __init__(self, pid: int) -> None:
        self.state, self.switches, self.syscall, self.wchan = "?", "", "", ""
        with contextlib.suppress(OSError, IndexError):
            self.state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            self.switches = next(
                line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("voluntary_ctxt_switches")
            )
            self.syscall = Path(f"/proc/{pid}/syscall").read_text().strip()

    def is_same_sleep(self, other: "Sample | None") -> bool:
        """Whether nothing moved since ``other``."""
        if other is None or self.state not in "SD":
            return False
        return (self.state, self.switches, self.syscall) == (other.state, other.switches, other.syscall)

    def attributes(self, pid: int) -> dict[str, int | str]:
        number = self.syscall.split(" ")[0] if self.syscall else ""
        found: dict[str, int | str] = {"state": self.state, "syscall": int(number) if number.lstrip("-").isdigit() else number}
        with contextlib.suppress(OSError):
            found["wchan"] = Path(f"/proc/{pid}/wchan").read_text().strip()
        return found


class Supervisor:
    """Runs one program; the answer is one observation a step, as JSON text."""

    def __init__(self, cast: Cast, ours: dict[str, socket.socket], main: int, limits: Limits, host: socket.socket | None) -> None:
        self._cast, self._ours, self._limits, self._host = cast, ours, limits, host
        self._actors = {"main": Actor("main", main, ours["main"], {}, host)}
        self._answers: dict[int, str] = {}
        self._finals: dict[int, str] = {}
        self._started: dict[str, tuple[Actor, int]] = {}

    def run(self) -> list[str]:
        steps, index = self._cast.steps, 0
        while index < len(steps):
            step, end = steps[index], index + 1
            if step.call == "join":
                self._answers[index] = self._join(step)
            else:
                while not step.alone and end < len(steps) and steps[end].process == step.process and not steps[end].alone:
                    end += 1
                actor = self._actors.get(step.process)
                if actor is not None and self._is_free(actor):
                    self._order(actor, index, end)
                else:
                    self._answers.update({left: _not_run(left) for left in range(index, end)})
            index = end
        return [self._answers[number] for number in range(len(steps))]

    def _is_free(self, actor: Actor) -> bool:
        """Whether the process can take a step; a started step that it still has gets the chance to finish."""
        if actor.busy is not None and not actor.stuck:
            self._await(actor, actor.busy)
        return actor.busy is None and not actor.stuck and not actor.dead

    def _order(self, actor: Actor, first: int, end: int) -> None:
        step = self._cast.steps[first]
        remote = (0, 0)
        if step.call == "process_vm_readv":
            target = self._actors.get(step.arguments["target"])
            if target is not None and not target.dead:
                remote = (target.pid, target.mappings.get(step.arguments["mapping"], 0))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            actor.channel.sendall(_ORDER.pack(first, end, *remote))
        for index in range(first, end):
            actor.busy = index
            self._answers[index] = self._await(actor, index)
            if step.start is not None:
                self._started[step.start] = (actor, index)
            elif actor.busy is not None or actor.dead:
                # Blocked, or ended: what is left of this process is not run, also should the block end later.
                self._cast.halt(actor.name)
                actor.stuck = True
                self._answers.update({left: _not_run(left) for left in range(index + 1, end)})
                return

    def _join(self, step: Step) -> str:
        label = step.arguments["label"]
        if label not in self._started:
            return _not_run(step.index, missing=label)
        actor, index = self._started[label]
        final = self._finals.get(index) or self._await(actor, index)
        return json.dumps({**json.loads(final), "step": step.index})

    def _await(self, actor: Actor, index: int) -> str:
        """Wait for the outcome of the step that the actor does now: final, or ``blocked`` (then the actor stays busy)."""
        begun = asleep_since = time.monotonic()
        before: Sample | None = None
        pause_s = 0.02
        while True:
            ended = False
            if not actor.lines:
                ended = self._poll(actor, pause_s)
                actor.receive()
            if actor.lines:
                return self._take(actor, actor.lines.pop(0))
            if ended:
                actor.note_end()
                return self._finish(actor, index, {"step": index, "how": "signal", "signal": actor.signal})
            now, sample = time.monotonic(), Sample(actor.pid)
            if not sample.is_same_sleep(before):
                before, asleep_since = sample, now
            if now - asleep_since >= self._limits.blocked_s:
                return json.dumps({"step": index, "how": "blocked", "attributes": sample.attributes(actor.pid)})
            if now - begun > self._limits.step_s:
                step = self._cast.steps[index]
                raise HangError(f"step {index} ({step.call}) still ran after {self._limits.step_s:.0f} s, state {sample.state}")
            pause_s = max(0.01, min(0.1, asleep_since + self._limits.blocked_s - now))

    def _poll(self, actor: Actor, pause_s: float) -> bool:
        """Wait until the actor says something or ends (then True) or time is up. Raises HostGoneError when nobody listens."""
        ready = [descriptor for descriptor, _ in actor.waiting.poll(pause_s * 1000)]
        if self._host is not None and self._host.fileno() in ready:
            raise HostGoneError
        return actor.pidfd in ready

    def _take(self, actor: Actor, line: bytes) -> str:
        """Note what the actor said beside the observation, and return the observation."""
        number, extra, text = line.decode().split(" ", 2)
        kind, _, rest = extra.partition(":")
        step = self._cast.steps[int(number)]
        if kind == "pid":
            name = step.arguments["process"]
            self._actors[name] = Actor(name, int(rest), self._ours[name], actor.mappings, self._host)
        elif kind == "map":
            name, _, address = rest.partition(":")
            actor.mappings[bytes.fromhex(name).decode()] = int(address)
        elif kind == "unmap":
            actor.mappings.pop(bytes.fromhex(rest).decode(), None)
        elif kind == "broken":
            raise ProtocolError(f"step {step.index} ({step.call}): {json.loads(text)}")
        actor.busy = None
        self._finals[step.index] = text
        return text

    def close(self) -> None:
        for actor in self._actors.values():
            os.close(actor.pidfd)

    def _finish(self, actor: Actor, index: int, observation: Outcome) -> str:
        if actor.signal is None:
            raise ProtocolError(f"step {index}: the process {actor.name} of the agent ended by itself; see the agent's log")
        if not self._cast.was_inside(actor.name):
            raise ProtocolError(
                f"step {index}: {actor.signal} ended the process {actor.name} in the agent's own code, not in the operation"
            )
        actor.busy = None
        self._finals[index] = json.dumps(observation)
        return self._finals[index]


def _not_run(index: int, **why: str) -> str:
    observation: Outcome = {"step": index, "how": "not_run"}
    if why:
        observation["attributes"] = why
    return json.dumps(observation)


def run_program(request: dict[str, Any], host: socket.socket | None) -> str:
    """Run the program of a request; return the observations document as JSON text.

    Raises ProtocolError before anything runs where the program cannot be meant; HangError; HostGoneError.
    """
    steps = read_steps(request.get("program"))
    place = Place(dict(request.get("roots") or {}), dict(request.get("devices") or {}))
    limits = Limits(request.get("blocked_ms", 3000) / 1000, request.get("limit_ms", 120_000) / 1000)
    actors = ["main"] + [step.arguments["process"] for step in steps if step.call == "fork"]
    pairs = {name: socket.socketpair() for name in actors}
    marks = pages(2 * len(pairs))
    halted = call("mmap", 0, marks, 3, MAP["shared"] | MAP["anonymous"], -1, 0)
    cast = Cast(steps, place, {name: theirs for name, (_, theirs) in pairs.items()}, halted)
    ours = {name: mine for name, (mine, _) in pairs.items()}
    main = os.fork()
    if main == 0:
        for mine in ours.values():
            mine.close()
        if host is not None:
            host.close()
        become_actor(cast)
    with contextlib.suppress(OSError):
        os.setpgid(main, main)
    supervisor: Supervisor | None = None
    try:
        for theirs in cast.channels.values():
            theirs.close()
        supervisor = Supervisor(cast, ours, main, limits, host)
        observations = supervisor.run()
    finally:
        end_program(main)
        if supervisor is not None:
            supervisor.close()
        for mine in ours.values():
            mine.close()
        call("munmap", halted, marks)
    return f'{{"format": {FORMAT}, "steps": [{", ".join(observations)}]}}'


def end_program(main: int, limit_s: float = REAP_LIMIT_S) -> None:
    """Kill and reap every process of the program: all are in the group of ``main`` and children of this session.

    Raises HangError when one does not go, which is the kernel's doing: then this guest is not clean.
    """
    end_at, pause_s = time.monotonic() + limit_s, 0.001
    while True:
        for kill in (os.killpg, os.kill):
            with contextlib.suppress(ProcessLookupError):
                kill(main, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0] != 0:
                pass
        except ChildProcessError:
            return
        if time.monotonic() > end_at:
            raise HangError(f"the processes of the program could not be ended within {limit_s:g} s")
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, 0.05)


def read_steps(program: Any) -> list[Step]:
    """Check a program at the door. Raises ProtocolError with what is wrong in it."""
    if not isinstance(program, dict) or program.get("format") != FORMAT:
        found = program.get("format") if isinstance(program, dict) else type(program).__name__
        raise ProtocolError(f"the program has format {found!r}, this agent reads {FORMAT}")
    if len(program.get("steps", ())) > MAX_STEPS:
        raise ProtocolError(f"the program has {len(program['steps'])} steps, this agent does at most {MAX_STEPS}: each is a writer")
    steps, processes = [], {"main"}
    lengths: dict[str, int] = {}
    for index, entry in enumerate(program.get("steps", ())):
        name, arguments = entry.get("call"), {_python_name(key): value for key, value in (entry.get("args") or {}).items()}
        known = SUPERVISED.get(name) or (_parameters(OPERATIONS[name]) if name in OPERATIONS else None)
        if known is None:
            raise ProtocolError(f"step {index}: unknown operation {name!r}")
        strange = set(arguments) - set(known)
        missing = {key for key, needed in known.items() if needed} - set(arguments)
        if strange or missing:
            raise ProtocolError(f"step {index} ({name}): unknown arguments {sorted(strange)}, missing {sorted(missing)}")
        process = entry.get("process") or "main"
        if process not in processes:
            raise ProtocolError(f"step {index} ({name}): no earlier step forks the process {process!r}")
        if name == "fork":
            if arguments["process"] in processes:
                raise ProtocolError(f"step {index} (fork): there is a process {arguments['process']!r} already")
            processes.add(arguments["process"])
        _check_reach(index, name, arguments, lengths)
        steps.append(Step(index, name, process, entry.get("start"), arguments))
    return steps


def _check_reach(index: int, name: str, arguments: dict[str, Any], lengths: dict[str, int]) -> None:
    """Refuse what reaches further past a mapping than its guard pages: there is the agent's own memory. Notes ``lengths`` by name."""
    if name == "mmap" and isinstance(arguments["length"], int):
        lengths[arguments["name"]] = mapped_size(arguments["length"], "hugetlb" in (arguments.get("flags") or []))
    for mapping, start, length in _reaches(name, arguments):
        if mapping in lengths:
            end = max(lengths[mapping], start) if length is None else start + length
            if not -PAGE <= start <= end <= lengths[mapping] + PAGE:
                raise ProtocolError(
                    f"step {index} ({name}): bytes {start} to {end} are further than a page outside of the mapping {mapping!r}, "
                    f"whose pages have {lengths[mapping]}"
                )


def _reaches(name: str, arguments: dict[str, Any]) -> Iterator[tuple[str, int, int | None]]:
    """Yield mapping, start and length (None: the rest) of every range that a step names."""
    for buffer in arguments.get("buffers") or ():
        if _in_mapping(buffer):
            yield buffer["mapping"], buffer.get("offset", 0), buffer["length"]
    for key in ("into", "from_"):
        if arguments.get(key) is not None:
            yield arguments[key], arguments.get(f"{key.rstrip('_')}_offset", 0), arguments["length"]
    if "mapping" in arguments:
        length = 4 if name in ("store", "futex_wait", "futex_wake") else None
        given = None if name == "store" and arguments.get("value") is not None else arguments.get("length")
        yield arguments["mapping"], arguments.get("offset", 0), length if given is None else given


def _python_name(key: str) -> str:
    return "from_" if key == "from" else key


@functools.cache
def _parameters(function: Callable[..., Outcome]) -> dict[str, bool]:
    """The arguments of an operation, and whether each is needed."""
    code, defaults = function.__code__, function.__defaults__ or ()
    names = code.co_varnames[1 : code.co_argcount]
    return {name: position < len(names) - len(defaults) for position, name in enumerate(names)}


# ---- other requests --------------------------------------------------------------------------------------------------


#: linux/random.h
RNDADDENTROPY, RNDRESEEDCRNG = 0x40085203, 0x5207


def wake(time_s: float, seed: bytes) -> None:
    """Set the clock and feed the kernel's random numbers in a guest that slept in a file and shares its past with others."""
    time.clock_settime(time.CLOCK_REALTIME, time_s)
    with open("/dev/urandom", "wb", buffering=0) as device:
        entropy = struct.pack(f"ii{len(seed)}s", 8 * len(seed), len(seed), seed)
        fcntl.ioctl(device, RNDADDENTROPY, entropy)
        fcntl.ioctl(device, RNDRESEEDCRNG)


def hello(request: dict[str, Any]) -> dict[str, Any]:
    """Say who this is. A host that restored the guest from a saved one sends the time and a seed."""
    if "seed" in request:
        wake(float(request["time_s"]), bytes.fromhex(request["seed"]))
    return {**identity(), "time_s": time.time(), "monotonic_s": time.monotonic()}


@functools.cache
def identity() -> dict[str, Any]:
    """What does not change while the agent runs: asked once before the first connection, it costs no later one anything."""
    return {
        "agent": hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
        "format": FORMAT,
        "python": platform.python_version(),
        "kernel": platform.release(),
    }


def commands(request: dict[str, Any]) -> dict[str, Any]:
    """Run command lines one after the other; stop after the first that fails, unless it may (``may_fail``)."""
    results: list[dict[str, Any]] = []
    for entry in request["commands"]:
        result = _command(list(entry["argv"]), entry.get("stdin", "").encode(), entry.get("limit_s", 120))
        results.append(result)
        if result["status"] != 0 and not entry.get("may_fail"):
            break
    return {"results": results}


def _command(argv: list[str], stdin: bytes, limit_s: float) -> dict[str, Any]:
    begun = time.monotonic()
    files = [os.memfd_create(name, os.MFD_CLOEXEC) for name in ("stdin", "stdout", "stderr")]
    try:
        os.write(files[0], stdin)
        os.lseek(files[0], 0, os.SEEK_SET)
        pid = os.posix_spawnp(
            argv[0],
            argv,
            {**os.environ, "LC_ALL": "C"},
            file_actions=[(os.POSIX_SPAWN_DUP2, descriptor, number) for number, descriptor in enumerate(files)],
            setpgroup=0,
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM],
        )
        status = _wait_for(pid, limit_s)
        out, err = (os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode(errors="replace") for descriptor in files[1:])
    except FileNotFoundError:
        status, out, err = 127, "", f"{argv[0]}: no such program in the guest"
    finally:
        for descriptor in files:
            os.close(descriptor)
    if status is None:
        status, err = -int(signal.SIGKILL), f"{err}\n(still running after {limit_s:.0f} s, so it was ended)"
    return {"argv": argv, "status": status, "stdout": out, "stderr": err, "took_s": round(time.monotonic() - begun, 3)}


def _wait_for(pid: int, limit_s: float) -> int | None:
    """Return the exit status of a child (minus the signal), or None where it had to be killed at the limit."""
    pidfd = os.pidfd_open(pid)
    try:
        waiting = select.poll()
        waiting.register(pidfd, select.POLLIN)
        in_time = bool(waiting.poll(limit_s * 1000))
        if not in_time:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    finally:
        os.close(pidfd)
    return os.waitstatus_to_exitcode(status) if in_time else None


def read_files(request: dict[str, Any]) -> dict[str, Any]:
    """Return the text of every file that matches one of ``patterns`` (None: unreadable), where folders really are, and the
    block size of the file system that each is on."""
    files: dict[str, str | None] = {}
    folders: dict[str, str] = {}
    block_bytes: dict[str, int] = {}
    for pattern in request["patterns"]:
        for path in sorted(glob.glob(pattern)):
            if os.path.isdir(path):
                folders[path] = os.path.realpath(path)
                block_bytes[path] = os.statvfs(path).f_bsize
                continue
            try:
                with open(path, "rb") as file:
                    files[path] = file.read(1 << 20).decode(errors="replace")
            except OSError:
                files[path] = None
    return {"files": files, "folders": folders, "block_bytes": block_bytes}


def taint() -> int | None:
    """Return the kernel's taint flags, or None where they cannot be read."""
    try:
        return int(Path("/proc/sys/kernel/tainted").read_text())
    except OSError:
        return None


def remove_files(request: dict[str, Any]) -> dict[str, Any]:
    for path in request["paths"]:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    return {}


def inspect(request: dict[str, Any]) -> dict[str, Any]:
    """Do the steps of a short program in this process, then read files and remove some: what a restored guest is, in one round trip.

    There is no process of the program's own and nobody who supervises it: only what cannot block or crash belongs here.
    """
    me = Performer(Place(dict(request.get("roots") or {}), {}))
    seen = []
    for step in read_steps(request["program"]):
        me.scratch.reset()
        me.writer = step.index + 1
        result = perform(me, step)
        if result["how"] == "broken":
            raise ProtocolError(f"step {step.index} ({step.call}): {result['problem']}")
        seen.append({**result, "step": step.index})
    found = read_files(request)
    remove_files({"paths": request["remove"]})
    return {"observations": {"format": FORMAT, "steps": seen}, **found}


def kernel_log(request: dict[str, Any]) -> dict[str, Any]:
    """Return the kernel's messages with a sequence number of ``after`` or more, and the number to go on from."""
    after = int(request.get("after", 0))
    following = after
    lines: list[list[int | str]] = []
    descriptor = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    try:
        while True:
            try:
                record = os.read(descriptor, 16384).decode(errors="replace")
            except BrokenPipeError:  # what stood here was overwritten meanwhile
                continue
            except BlockingIOError:
                break
            head, _, text = record.partition(";")
            level, sequence, microseconds = (int(number) for number in head.split(",")[:3])
            if sequence >= after:
                lines.append([sequence, microseconds, level & 7, text.split("\n")[0]])
                following = sequence + 1
    finally:
        os.close(descriptor)
    return {"lines": lines, "next": following}


# ---- volumes before and after a program ------------------------------------------------------------------------------

_DIRECT_STEP = 2 << 20


def age(request: dict[str, Any]) -> dict[str, Any]:
    """Fill ``files`` with the bytes of ``writer``, past the page cache, and remove them: their blocks keep the bytes.

    A file is path, length, and whether its blocks are allocated before they are written: allocators tell the two apart.
    """
    writer = int(request["writer"])
    buffer = anonymous(_DIRECT_STEP)
    try:
        for path, length, allocated in request["files"]:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | OPEN["direct"], 0o600)
            try:
                if allocated:
                    os.posix_fallocate(descriptor, 0, length)
                for at in range(0, length, _DIRECT_STEP):
                    count = min(_DIRECT_STEP, length - at)
                    for inside in range(0, count, _BLOCK):  # what is written here stays in the memory of a saved guest
                        part = tag_bytes(writer, at + inside, min(_BLOCK, count - inside))
                        ctypes.memmove(buffer + inside, part, len(part))
                    written = call("pwrite64", descriptor, buffer, count, at)
                    if written != count:
                        raise OSError(-min(written, 0) or errno.EIO, f"{written} bytes of {count} were written", path)
            finally:
                os.close(descriptor)
    finally:
        call("munmap", buffer, _DIRECT_STEP)
    os.sync()
    for path, _, _ in request["files"]:
        os.unlink(path)
    os.sync()
    return {}


_LOOK_STEP = 4 << 20


def audit(request: dict[str, Any]) -> dict[str, Any]:
    """Read every file of each of ``volumes``, unmount, run ``check``, mount again, and read once more (docs/agent-protocol.md)."""
    begun = time.monotonic()
    limit, patience_s = int(request["file_limit"]), float(request["busy_s"])
    rows = [_audit_volume(volume, limit, patience_s) for volume in request["volumes"]]
    return {"volumes": rows, "took_s": round(time.monotonic() - begun, 3), "taint": taint()}


def _audit_volume(volume: dict[str, Any], limit: int, patience_s: float) -> dict[str, Any]:
    """One volume; what follows a step that failed is not there."""
    folder, device = volume["folder"], volume["device"]
    row: dict[str, Any] = {"role": volume["role"]}
    if not _is_mounted(folder):
        return row
    begun = time.monotonic()
    row["before"] = _look(folder, limit)
    looked = time.monotonic()
    row["unmount"] = _errno_name(_unmount(folder, patience_s))
    unmounted = time.monotonic()
    if not row["unmount"]:
        if volume.get("check"):
            row["check"] = _command(list(volume["check"]), b"", float(volume["limit_s"]))
        checked = time.monotonic()
        row["mount"] = _errno_name(_mount(device, folder, volume["filesystem"], volume["options"]))
        mounted = time.monotonic()
        if not row["mount"]:
            row["after"] = _look(folder, limit)
        parts = (looked - begun, unmounted - looked, checked - unmounted, mounted - checked, time.monotonic() - mounted)
        row["parts_s"] = [round(part, 4) for part in parts]
    return row


def _is_mounted(folder: str) -> bool:
    """Whether something is mounted at ``folder``, by the kernel's table: the folder itself may answer for what lies below it."""
    return any(line.split(" ")[4] == folder for line in Path("/proc/self/mountinfo").read_text().splitlines())


def _errno_name(result: int) -> str:
    return "" if result >= 0 else _ERRNO_NAMES.get(-result, f"E{-result}")


def _unmount(folder: str, patience_s: float) -> int:
    """Unmount; what held a file may be let go a little after the process that had it (io_uring does so in a worker)."""
    text = ctypes.create_string_buffer(os.fsencode(folder))
    end_at = time.monotonic() + patience_s
    while True:
        result = call("umount2", ctypes.addressof(text), 0)
        if result != -errno.EBUSY or time.monotonic() > end_at:
            return result
        time.sleep(0.02)


def _mount(device: str, folder: str, filesystem: str, options: str) -> int:
    texts = [ctypes.create_string_buffer(text.encode()) for text in (device, folder, filesystem, options)]
    at = [ctypes.addressof(text) for text in texts]
    return call("mount", at[0], at[1], at[2], 0, at[3])


def _look(folder: str, limit: int) -> list[dict[str, Any]]:
    """Return everything below ``folder`` that is no folder, by path, with its size and content."""
    found = []
    for place, _, names in os.walk(folder, onerror=_raise):
        for name in names:
            path = os.path.join(place, name)
            found.append({"path": os.path.relpath(path, folder), **_look_at(path, limit)})
    return sorted(found, key=lambda row: str(row["path"]))


def _raise(error: OSError) -> NoReturn:
    raise error


def _look_at(path: str, limit: int) -> dict[str, Any]:
    """Size and runs of one file; ``failed``: the error of the call that did not work; ``larger``: it was not read."""
    status = os.lstat(path)
    if not stat.S_ISREG(status.st_mode):
        return {"size": status.st_size, "failed": f"it is no regular file (mode {status.st_mode:o})"}
    if status.st_size > limit:
        return {"size": status.st_size, "larger": True}
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            runs: list[list[Any]] = []
            at = 0
            while data := os.read(descriptor, _LOOK_STEP):
                _join_runs(runs, at, decode(data))
                at += len(data)
        finally:
            os.close(descriptor)
    except OSError as error:
        return {"size": status.st_size, "failed": _errno_name(-(error.errno or errno.EIO))}
    return {"size": status.st_size, "runs": runs}


def _join_runs(runs: list[list[Any]], at: int, more: list[list[Any]]) -> None:
    """Add the runs of what was read from ``at`` on to those before it; zeroes go on as one run."""
    for run in more:
        if runs and run[2] == runs[-1][2] == "zero":
            runs[-1][1] += run[1]
        else:
            runs.append([run[0] + at, *run[1:]])


#: What a session answers beside ``run``.
REQUESTS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "hello": hello,
    "commands": commands,
    "read_files": read_files,
    "remove_files": remove_files,
    "inspect": inspect,
    "kernel_log": kernel_log,
    "age": age,
    "audit": audit,
}


# ---- sessions and the daemon -----------------------------------------------------------------------------------------


def answer(line: bytes, host: socket.socket | None, token: str | None = None) -> str:
    """Return the answer to one request line. ``kind`` says whose fault an error is: protocol, hang or failed."""
    number: Any = None
    try:
        request = json.loads(line)
        if not isinstance(request, dict):
            raise ProtocolError("a request is a JSON object")
        number = request.get("id")
        if token is not None and not hmac.compare_digest(str(request.get("token")), token):
            raise ProtocolError("the first request of a connection must carry the agent's token")
        if request.get("do") == "run":
            seen = run_program(request, host)
            return f'{{"id": {json.dumps(number)}, "ok": true, "observations": {seen}, "taint": {json.dumps(taint())}}}'
        if request.get("do") not in REQUESTS:
            raise ProtocolError(f"unknown request {request.get('do')!r}: known are run, {', '.join(REQUESTS)}")
        return json.dumps({"id": number, "ok": True, **REQUESTS[request["do"]](request)})
    except (ProtocolError, json.JSONDecodeError, UnicodeDecodeError) as error:
        return json.dumps({"id": number, "ok": False, "kind": "protocol", "error": str(error)})
    except HangError as error:
        return json.dumps({"id": number, "ok": False, "kind": "hang", "error": str(error)})
    except HostGoneError:
        raise
    except Exception as error:
        traceback.print_exc()
        return json.dumps({"id": number, "ok": False, "kind": "failed", "error": f"{type(error).__name__}: {error}"})


def serve(host: socket.socket, token: str | None) -> None:
    """Answer the requests of one connection until the other side is gone or reads no more."""
    host.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", SEND_LIMIT_S, 0))
    with contextlib.suppress(OSError):
        host.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with contextlib.suppress(HostGoneError, OSError):
        for line in _lines(host):
            said = answer(line, host, token)
            host.sendall(said.encode() + b"\n")
            if token is not None and not json.loads(said)["ok"]:
                return
            token = None


def _lines(host: socket.socket) -> Iterator[bytes]:
    pieces: list[bytes] = []
    size = 0
    while chunk := host.recv(1 << 20):
        *whole, rest = chunk.split(b"\n")
        for line in whole:
            yield b"".join([*pieces, line])
            pieces, size = [], 0
        pieces.append(rest)
        size += len(rest)
        if size > LONGEST_LINE:
            return


def run_daemon(listener: socket.socket, token: str | None) -> NoReturn:
    """Accept connections for ever; each is served by a process of its own, and what that leaves behind is killed."""
    call("prctl", _PR_SET_CHILD_SUBREAPER, 1)
    identity()
    wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    listener.setblocking(False)
    #: The connection of each session, so that somebody can still speak when the session is gone.
    hosts: dict[int, socket.socket] = {}
    waiting = select.poll()
    waiting.register(listener, select.POLLIN)
    waiting.register(wake_read, select.POLLIN)
    while True:
        gc.collect()
        gc.freeze()
        ready = dict(waiting.poll())
        if wake_read in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(wake_read, 4096)
            _reap_sessions(hosts)
        if listener.fileno() in ready:
            with contextlib.suppress(OSError):
                host, _ = listener.accept()
                session = os.fork()
                if session == 0:
                    others = [other.detach() for other in hosts.values()]
                    _be_session(host, token, [listener.fileno(), wake_read, wake_write, *others])
                hosts[session] = host


def _be_session(host: socket.socket, token: str | None, inherited: list[int]) -> NoReturn:
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        for descriptor in inherited:
            os.close(descriptor)
        host.setblocking(True)
        serve(host, token)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


def _reap_sessions(hosts: dict[int, socket.socket]) -> None:
    """Reap what has ended. Of a session that a signal ended the host is told so: the guest has not gone, and its kernel has answered."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        host = hosts.pop(pid, None)
        if host is not None:
            if os.WIFSIGNALED(status):
                problem = f"signal {os.WTERMSIG(status)} ended the agent's session, outside of any program's steps"
                last = json.dumps({"id": None, "ok": False, "kind": "protocol", "error": problem})
                with contextlib.suppress(OSError):
                    host.send(last.encode() + b"\n", socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            host.close()
        for left in session_members(pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(left, signal.SIGKILL)


def session_members(session: int) -> list[int]:
    """Return the processes of a session (setsid): what a session of the agent left behind when it was killed."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError, IndexError):
                if int(Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[3]) == session:
                    found.append(int(entry))
    return found


def main(arguments: list[str]) -> int:
    """Listen, say where, and go to the background."""
    parser = argparse.ArgumentParser(description="does the steps of programs inside a guest")
    parser.add_argument("--listen", default="127.0.0.1:0", help="address and port; port 0 lets the system choose")
    parser.add_argument("--token-file", required=True, help="where to write the port and the token that a connection must show")
    parser.add_argument("--foreground", action="store_true", help="stay attached (for debugging)")
    chosen = parser.parse_args(arguments)
    if platform.machine() != "x86_64":
        print(f"the agent knows the system calls of x86_64 only, this is {platform.machine()}", file=sys.stderr)
        return 1
    address, _, port = chosen.listen.rpartition(":")
    listener = socket.create_server((address, int(port)), backlog=16)
    token = os.urandom(16).hex()
    ready = json.dumps({"port": listener.getsockname()[1], "token": token})
    path = Path(chosen.token_file)
    with open(os.open(path.with_suffix(".new"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(ready)
    path.with_suffix(".new").replace(path)
    print(ready, flush=True)
    if not chosen.foreground:
        _go_to_background(path.with_suffix(".log"))
    run_daemon(listener, token)


def _go_to_background(log: Path) -> None:
    if os.fork():
        os._exit(0)
    os.setsid()
    os.chdir("/")
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
        if source > 2 and target != 1:
            os.close(source)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
