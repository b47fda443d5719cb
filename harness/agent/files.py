"""What is done to files."""

import ctypes
import struct

from harness.agent.content import decode
from harness.agent.outcome import Outcome, ProtocolError, failed, nothing_or_errno, outcome, returned
from harness.agent.performer import Ends, Performer, bits, doer
from harness.agent.syscalls import call
from harness.ops.files import (
    Close,
    CopyFileRange,
    Fadvise,
    Fallocate,
    Fdatasync,
    Ficlone,
    Ficlonerange,
    Fideduperange,
    Fsync,
    Ftruncate,
    GetXflags,
    Lseek,
    Open,
    Pread,
    Preadv,
    Pwrite,
    Pwritev,
    Read,
    Readahead,
    SetXflags,
    Statx,
    SyncFileRange,
    Syncfs,
    Write,
)

_FS_IOC_FSGETXATTR, _FS_IOC_FSSETXATTR, _FS_XFLAG_DAX = 0x801C581F, 0x401C5820, 0x8000
_FICLONE, _FICLONERANGE, _FIDEDUPERANGE = 0x40049409, 0x4020940D, 0xC0189436
_STATX_BASIC, _STATX_DIOALIGN, _STATX_ATTR_DAX, _AT_EMPTY_PATH = 0x7FF, 0x2000, 0x200000, 0x1000


@doer
def do_open(me: Performer, op: Open) -> Outcome:
    descriptor = call("open", me.scratch.text(me.place.path(op.path)), bits(op.flags), 0o644)
    if descriptor >= 0:
        me.add(op.name, Ends(descriptor, descriptor))
    return nothing_or_errno(descriptor)


@doer
def do_close(me: Performer, op: Close) -> Outcome:
    ends = me.named(op.name)
    if not isinstance(ends, Ends):
        raise ProtocolError(f"{op.name!r} has no descriptor to close")
    chosen = {None: {ends.read, ends.write}, "both": {ends.read, ends.write}, "read": {ends.read}, "write": {ends.write}}.get(op.end)
    if chosen is None:
        raise ProtocolError(f"unknown end {op.end!r}: known are read, write, both")
    results = [call("close", descriptor) for descriptor in sorted(chosen)]
    # A closed descriptor's number is soon another's: from now on the name stands for no descriptor at all (EBADF).
    ends.read = -1 if ends.read in chosen else ends.read
    ends.write = -1 if ends.write in chosen else ends.write
    return outcome(min(results))


@doer
def do_read(me: Performer, op: Read) -> Outcome:
    address = me.incoming(op.length, op.shift, op.into, op.into_offset)
    return me.arrived(call("read", me.source(op.file), address, op.length), address, op.into)


@doer
def do_write(me: Performer, op: Write) -> Outcome:
    address = me.outgoing(op.length, op.shift, op.from_, op.from_offset)
    return outcome(call("write", me.target(op.file), address, op.length))


@doer
def do_pread(me: Performer, op: Pread) -> Outcome:
    address = me.incoming(op.length, op.shift, op.into, op.into_offset)
    if not op.flags:
        return me.arrived(call("pread64", me.source(op.file), address, op.length, op.offset), address, op.into)
    vector = me.scratch.iovec([(address, op.length)])
    result = call("preadv2", me.source(op.file), vector, 1, op.offset, 0, bits(op.flags))
    return me.arrived(result, address, op.into)


@doer
def do_pwrite(me: Performer, op: Pwrite) -> Outcome:
    address = me.outgoing(op.length, op.shift, op.from_, op.from_offset)
    if not op.flags:
        return outcome(call("pwrite64", me.target(op.file), address, op.length, op.offset))
    vector = me.scratch.iovec([(address, op.length)])
    return outcome(call("pwritev2", me.target(op.file), vector, 1, op.offset, 0, bits(op.flags)))


@doer
def do_preadv(me: Performer, op: Preadv) -> Outcome:
    parts = []
    for buffer in op.buffers:
        if buffer.mapping is None:
            parts.append((me.scratch.poisoned(buffer.length, buffer.shift), buffer.length))
        else:
            parts.append((me.mapping(buffer.mapping).address + buffer.offset, buffer.length))
    result = _vector_call(me, "preadv", me.source(op.file), parts, op)
    if result < 0 or any(buffer.mapping is not None for buffer in op.buffers):
        return outcome(result)
    data, left = [], result
    for address, length in parts:
        data.append(ctypes.string_at(address, min(left, length)))
        left -= min(left, length)
    return returned(result, data=decode(b"".join(data)))


@doer
def do_pwritev(me: Performer, op: Pwritev) -> Outcome:
    parts, start = [], 0
    for buffer in op.buffers:
        if buffer.mapping is None:
            parts.append((me.tagged(buffer.length, buffer.shift, start), buffer.length))
        else:
            parts.append((me.mapping(buffer.mapping).address + buffer.offset, buffer.length))
        start += buffer.length
    return outcome(_vector_call(me, "pwritev", me.target(op.file), parts, op))


def _vector_call(me: Performer, name: str, descriptor: int, parts: list[tuple[int, int]], op: Preadv | Pwritev) -> int:
    vector = me.scratch.iovec(parts)
    if op.flags:
        return call(name + "2", descriptor, vector, len(parts), op.offset, 0, bits(op.flags))
    return call(name, descriptor, vector, len(parts), op.offset, 0)


@doer
def do_lseek(me: Performer, op: Lseek) -> Outcome:
    return outcome(call("lseek", me.source(op.file), op.offset, op.whence.bits))


@doer
def do_fsync(me: Performer, op: Fsync) -> Outcome:
    return outcome(call("fsync", me.target(op.file)))


@doer
def do_fdatasync(me: Performer, op: Fdatasync) -> Outcome:
    return outcome(call("fdatasync", me.target(op.file)))


@doer
def do_syncfs(me: Performer, op: Syncfs) -> Outcome:
    return outcome(call("syncfs", me.source(op.file)))


@doer
def do_sync_file_range(me: Performer, op: SyncFileRange) -> Outcome:
    return outcome(call("sync_file_range", me.source(op.file), op.offset, op.length, bits(op.flags)))


@doer
def do_fadvise(me: Performer, op: Fadvise) -> Outcome:
    return outcome(call("fadvise64", me.source(op.file), op.offset, op.length, op.advice.bits))


@doer
def do_readahead(me: Performer, op: Readahead) -> Outcome:
    return outcome(call("readahead", me.source(op.file), op.offset, op.length))


@doer
def do_ftruncate(me: Performer, op: Ftruncate) -> Outcome:
    return outcome(call("ftruncate", me.target(op.file), op.length))


@doer
def do_fallocate(me: Performer, op: Fallocate) -> Outcome:
    return outcome(call("fallocate", me.target(op.file), bits(op.flags), op.offset, op.length))


@doer
def do_copy_file_range(me: Performer, op: CopyFileRange) -> Outcome:
    from_at, to_at = me.scratch.offset(op.source_offset), me.scratch.offset(op.target_offset)
    return outcome(call("copy_file_range", me.source(op.source), from_at, me.target(op.target), to_at, op.length, 0))


@doer
def do_ficlone(me: Performer, op: Ficlone) -> Outcome:
    return outcome(call("ioctl", me.target(op.target), _FICLONE, me.source(op.source)))


@doer
def do_ficlonerange(me: Performer, op: Ficlonerange) -> Outcome:
    # struct file_clone_range
    record = me.scratch.words(me.source(op.source), op.source_offset, op.length, op.target_offset)
    return outcome(call("ioctl", me.target(op.target), _FICLONERANGE, record))


@doer
def do_fideduperange(me: Performer, op: Fideduperange) -> Outcome:
    # struct file_dedupe_range with one struct file_dedupe_range_info
    record = me.scratch.words(op.source_offset, op.length, 1, me.target(op.target), op.target_offset, 0, 0)
    result = call("ioctl", me.source(op.source), _FIDEDUPERANGE, record)
    if result < 0:
        return failed(-result)
    deduped, status = struct.unpack_from("=Qi", ctypes.string_at(record, 56), 40)
    return returned(result, attributes={"status": status, "bytes_deduped": deduped})


@doer
def do_statx(me: Performer, op: Statx) -> Outcome:
    mask, answer = _STATX_BASIC | _STATX_DIOALIGN, me.scratch.zeroed(256)
    result = call("statx", me.source(op.file), me.scratch.text(b""), _AT_EMPTY_PATH, mask, answer)
    if result < 0:
        return failed(-result)
    out = ctypes.string_at(answer, 256)
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


@doer
def do_get_xflags(me: Performer, op: GetXflags) -> Outcome:
    record = ctypes.create_string_buffer(28)
    result = call("ioctl", me.source(op.file), _FS_IOC_FSGETXATTR, ctypes.addressof(record))
    if result < 0:
        return failed(-result)
    return returned(int(bool(struct.unpack_from("=I", record)[0] & _FS_XFLAG_DAX)))


@doer
def do_set_xflags(me: Performer, op: SetXflags) -> Outcome:
    record = ctypes.create_string_buffer(28)
    result = call("ioctl", me.source(op.file), _FS_IOC_FSGETXATTR, ctypes.addressof(record))
    if result < 0:
        return failed(-result)
    (flags,) = struct.unpack_from("=I", record)
    struct.pack_into("=I", record, 0, flags | _FS_XFLAG_DAX if op.dax else flags & ~_FS_XFLAG_DAX)
    return outcome(call("ioctl", me.source(op.file), _FS_IOC_FSSETXATTR, ctypes.addressof(record)))
