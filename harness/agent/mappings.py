"""What is done to mappings."""

import ctypes
import errno
import os
import struct

from harness.agent.content import decode
from harness.agent.memory import MAP_FIXED, PAGE, Mapping, anonymous, copy_counting_faults, faults_counted, hold
from harness.agent.outcome import Outcome, failed, outcome, returned
from harness.agent.performer import Performer, bits, doer
from harness.agent.syscalls import call, errno_name, read_text
from harness.ops.mappings import (
    SMAPS_SIZES,
    Load,
    Madvise,
    Mincore,
    Mlock,
    Mmap,
    Mprotect,
    Msync,
    Munlock,
    Munmap,
    Pagemap,
    Protection,
    Smaps,
    Store,
)
from harness.ops.reach import mapped_bytes, whole_pages

_HUGE = 2 << 20


@doer
def do_mmap(me: Performer, op: Mmap) -> Outcome:
    descriptor = -1 if op.file is None else me.source(op.file)
    chosen, size = bits(op.flags), mapped_bytes(op)
    guards: tuple[int, ...] = ()
    around: list[tuple[int, int]] = []
    if op.align:
        # The rest of the reserved range stays without access: a guard on each side.
        reserved = size + 2 * op.align + whole_pages(op.align_shift) + 2 * PAGE
        held = anonymous(reserved, Protection.NONE.bits)
        hint = (held + PAGE + op.align - 1) // op.align * op.align + op.align_shift
        around = [(held, hint - held), (hint + size, held + reserved - hint - size)]
    else:
        reserved = size
        held = hint = me.guards.find_place(op.length, size, chosen, descriptor, op.offset)
        guards = () if held < 0 else (held - PAGE, held + size)
    # Where the kernel refuses to choose a place, it says here why.
    fixed = MAP_FIXED if hint > 0 else 0
    address = call("mmap", max(hint, 0), op.length, bits(op.protection), chosen | fixed, descriptor, op.offset)
    if address >= 0 and hint > 0:
        me.add(op.name, Mapping(address, op.length, guards, [(address, size), *around]))
        return returned(0, attributes={"address_mod_2mib": address % _HUGE})
    if held > 0:
        call("munmap", held, reserved)
    for guard in guards:
        me.guards.release(guard)
    if address >= 0:
        call("munmap", address, size)
        raise MemoryError(f"mmap was refused once ({errno_name(-held)}) and then not")
    return failed(-address)


@doer
def do_munmap(me: Performer, op: Munmap) -> Outcome:
    found = me.mapping(op.mapping)
    address, size = found.part(op.offset, op.length)
    result = call("munmap", address, size)
    if result >= 0 and address == found.address and whole_pages(size) >= whole_pages(found.length):
        # Another mapping soon has these addresses, so the name must not lead there.
        del me.names[op.mapping]
        del found.areas[0]
        for guard in found.guards:
            me.guards.release(guard)
    elif result >= 0:
        hold(address, whole_pages(size))
        if op.offset + size >= found.length:
            found.length = op.offset
    return outcome(result)


@doer
def do_mprotect(me: Performer, op: Mprotect) -> Outcome:
    address, size = me.mapping(op.mapping).part(op.offset, op.length)
    return outcome(call("mprotect", address, size, bits(op.protection)))


@doer
def do_madvise(me: Performer, op: Madvise) -> Outcome:
    address, size = me.mapping(op.mapping).part(op.offset, op.length)
    return outcome(call("madvise", address, size, op.advice.bits))


@doer
def do_load(me: Performer, op: Load) -> Outcome:
    source = me.mapping(op.mapping).address + op.offset
    target, dummy = me.scratch.poisoned(op.length), me.scratch.poisoned(op.length)
    copy_counting_faults(target, dummy, op.length)
    copy_counting_faults(target, source, op.length)
    return returned(op.length, **faults_counted(), data=decode(ctypes.string_at(target, op.length)))


@doer
def do_store(me: Performer, op: Store) -> Outcome:
    target = me.mapping(op.mapping).address + op.offset
    if op.value is None:
        length = op.length
        source = me.tagged(length)
    else:
        length = 4
        source = me.scratch.filled(struct.pack("<I", op.value & 0xFFFFFFFF))
    copy_counting_faults(me.scratch.poisoned(length), source, length)
    copy_counting_faults(target, source, length)
    return returned(length, **faults_counted())


@doer
def do_msync(me: Performer, op: Msync) -> Outcome:
    address, size = me.mapping(op.mapping).part(op.offset, op.length)
    return outcome(call("msync", address, size, bits(op.flags)))


@doer
def do_mincore(me: Performer, op: Mincore) -> Outcome:
    address, size = me.mapping(op.mapping).part(op.offset, op.length)
    count = max(whole_pages(size) // PAGE, 0)
    vector = me.scratch.zeroed(count)
    result = call("mincore", address, size, vector)
    if result < 0:
        return failed(-result)
    return returned(0, resident="".join("1" if byte & 1 else "0" for byte in ctypes.string_at(vector, count)))


@doer
def do_pagemap(me: Performer, op: Pagemap) -> Outcome:
    address, size = me.mapping(op.mapping).part(op.offset, op.length)
    first, count = address // PAGE, whole_pages(size) // PAGE
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


@doer
def do_smaps(me: Performer, op: Smaps) -> Outcome:
    found = me.mapping(op.mapping)
    return returned(0, attributes=smaps_of(read_text("/proc/self/smaps"), found.address, found.length))


def smaps_of(text: str, address: int, length: int) -> dict[str, int | str]:
    """Sum the areas of ``text`` that overlap the range; VmFlags and KernelPageSize are those of the first."""
    found: dict[str, int | str] = dict.fromkeys(SMAPS_SIZES.values(), 0)
    found["vm_flags"] = ""
    inside = False
    for line in text.splitlines():
        key, colon, rest = line.partition(":")
        if not colon or " " in key:
            low, _, high = line.split(" ", 1)[0].partition("-")
            inside = int(low, 16) < address + length and address < int(high, 16)
        elif inside and key in SMAPS_SIZES:
            name, size = SMAPS_SIZES[key], int(rest.split()[0]) * 1024
            found[name] = found[name] or size if name == "kernel_page_size" else int(found[name]) + size
        elif inside and key == "VmFlags":
            found["vm_flags"] = found["vm_flags"] or rest.strip()
    return found


@doer
def do_mlock(me: Performer, op: Mlock) -> Outcome:
    return outcome(call("mlock", *me.mapping(op.mapping).part(op.offset, op.length)))


@doer
def do_munlock(me: Performer, op: Munlock) -> Outcome:
    return outcome(call("munlock", *me.mapping(op.mapping).part(op.offset, op.length)))
