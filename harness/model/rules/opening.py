"""Rules for opening and closing files, also through an overlay."""

from harness.model.clause import Context, Undetermined, clause
from harness.model.closing import closing
from harness.model.content import zeroes
from harness.model.expectation import Expectations
from harness.model.objects import PAGE, Memory, MemoryKind, OpenFile, page_ceil, unknown_content
from harness.model.rules.effects import cache, cleaned, put, resized
from harness.model.rules.rule import above, may_be_inline, rule, volume_fact, waits_for_pins
from harness.model.stack import MAIN, OVERLAY, TARGET
from harness.model.state import State
from harness.model.value import evolve
from harness.ops import Close, Open, OpenFlag
from harness.sizes import MIB

clause("C-OPEN-01", "open of an existing file, or with O_CREAT, gives a descriptor", "open(2)")
clause("C-OPEN-02", "open of a missing file without O_CREAT is ENOENT", "open(2) ERRORS")
clause("C-OPEN-03", "O_TRUNC waits, as ftruncate does, until no page of a DAX file is pinned", "fs/ext4/inode.c ext4_break_layouts; probe")
clause("C-OPEN-04", "O_CREAT of a missing file is EROFS on a file system that is mounted read-only", "open(2) ERRORS")
clause(
    "C-OPEN-05",
    "opening a file for writing, or with O_TRUNC, is EROFS on a file system that nobody can write to (erofs)",
    "open(2) ERRORS; fs/namei.c may_open, sb_permission: MAY_WRITE, which build_open_flags adds for O_TRUNC",
)
clause(
    "C-OVERLAY-02",
    "a file of an overlay is that of the file system below, with its bytes, DAX state, frames and page cache, until it is opened for "
    "writing: then it is copied up first, and is that of the file system above",
    "Documentation/filesystems/overlayfs.rst; fs/overlayfs/file.c ovl_read_iter, ovl_mmap, ovl_splice_read, fs/overlayfs/inode.c "
    "ovl_getattr: all ask the real file; fs/overlayfs/copy_up.c ovl_maybe_copy_up",
)
clause(
    "C-OPEN-06",
    "O_DIRECT is EINVAL where the file system has no such thing (erofs, before 5.15)",
    "open(2) ERRORS; fs/open.c do_dentry_open",
)
clause(
    "C-DEVDAX-07",
    "a dax device is not opened with O_DIRECT: EINVAL",
    "open(2) ERRORS; fs/open.c do_dentry_open: FMODE_CAN_ODIRECT, which a mapping without ->direct_IO does not get",
)
#: How much of a bare node or a dax device the set-up zeroes; what stands behind it is unknown.
NODE_KNOWN_BYTES = 16 * MIB


def _split_path(path: str) -> tuple[str, str]:
    role, colon, name = path.partition(":")
    return (role, name) if colon else ("main", path)


def _changes(op: Open) -> bool:
    """Whether a file that is there is opened to be written, or cut."""
    return bool({OpenFlag.WRONLY, OpenFlag.RDWR, OpenFlag.TRUNC} & set(op.flags))


@rule(Open)
def open_file(c: Context, s: State, op: Open) -> Expectations:
    volume, path = _split_path(op.path)
    if volume == OVERLAY:
        s, volume, path = _through_overlay(c, s, op, path)
    if volume == "bar":
        return _opened(c, op, *_ensure(s, ("bar", ""), Memory(MemoryKind.BAR, "bar", "", 1 << 30, unknown_content())))
    reading = c.env.reading.volume(volume)
    mounted = volume in s.mounted or reading.filesystem is not None
    if not mounted:
        device = reading.is_dax_device
        if refused := c.refuses(("EINVAL", device and OpenFlag.DIRECT in op.flags, "C-DEVDAX-07")):
            return refused.leaving(s)
        content = unknown_content().write(0, zeroes(NODE_KNOWN_BYTES))
        node = Memory(MemoryKind.DEVICE if device else MemoryKind.NODE, volume, reading.device, reading.size_bytes, content, dax=device)
        node = evolve(node, data=node.data.add(0, reading.size_bytes), unit=reading.align_bytes or PAGE)
        return _opened(c, op, *_ensure(s, (volume, ""), node))
    known = s.files.get((volume, path))
    if known is None:
        creates = OpenFlag.CREAT in op.flags
        if refused := c.refuses(("ENOENT", not creates, "C-OPEN-02"), ("EROFS", creates and _is_closed(c, s, volume), "C-OPEN-04")):
            return refused.leaving(s)
        dax = s.mounted.get(volume, reading.dax)
        s, number = _ensure(s, (volume, path), Memory(MemoryKind.FILE, volume, path, dax=dax))
        return _opened(c, op, s, number)
    memory = s.memory(known)
    if refused := c.refuses(
        ("EROFS", memory.closed_by is not None and _changes(op), "C-OPEN-05"),
        ("EINVAL", OpenFlag.DIRECT in op.flags and not volume_fact(c, "direct_io_offered", memory), "C-OPEN-06"),
    ):
        return refused.leaving(s)
    if OpenFlag.TRUNC in op.flags:
        if blocked := c.blocks("C-OPEN-03", waits_for_pins(c, s, known)):
            return blocked.leaving(s)
        s = resized(c, s, known, 0)
    return _opened(c, op, s, known)


def _through_overlay(c: Context, s: State, op: Open, path: str) -> tuple[State, str, str]:
    """Return where a file of an overlay really is, and the state in which it is there: opened for writing it is copied up first."""
    if OVERLAY not in s.mounted:
        raise Undetermined("no overlay is mounted")
    below, own = s.files.get((MAIN, path)), (TARGET, above(path))
    if below is None or own in s.files:
        return s, *own
    if not c.holds("C-OVERLAY-02", _changes(op)):
        return s, MAIN, path
    if OpenFlag.TRUNC in op.flags:
        raise Undetermined("what a file is copied up with that is cut at once is not known to the model")
    size = s.memory(below).size
    s, number = _ensure(s, own, Memory(MemoryKind.FILE, *own, dax=c.env.reading.volume(TARGET).dax))
    s = cache(put(c, s, number, 0, s.memory(below).content.read(0, size)), below, 0, page_ceil(size))
    return cleaned(s, number), *own


def _is_closed(c: Context, s: State, volume: str) -> bool:
    """Whether nobody can write to what is mounted of a volume."""
    prepared = (number for (role, _), number in s.files.items() if role == volume and s.memory(number).closed_by)
    return c.env.reading.volume(volume).read_only or next(prepared, None) is not None


def _ensure(s: State, key: tuple[str, str], memory: Memory) -> tuple[State, int]:
    if key in s.files:
        return s, s.files[key]
    s, number = s.adding(memory)
    return evolve(s, files=s.files.having(key, number)), number


def _opened(c: Context, op: Open, s: State, memory: int) -> Expectations:
    asks_direct = OpenFlag.DIRECT in op.flags
    of = OpenFile(
        memory,
        readable=OpenFlag.WRONLY not in op.flags,
        writable=bool({OpenFlag.WRONLY, OpenFlag.RDWR} & set(op.flags)),
        append=OpenFlag.APPEND in op.flags,
        asks_direct=asks_direct,
        direct=asks_direct and _goes_direct(c, s.memory(memory)),
        layered=_split_path(op.path)[0] == OVERLAY,
        nonblock=OpenFlag.NONBLOCK in op.flags,
    )
    s, number = s.adding(of)
    return c.returns("C-OPEN-01", 0).leaving(s.naming(c.process, op.name, number))


def _goes_direct(c: Context, memory: Memory) -> bool:
    """Whether O_DIRECT of ``memory`` goes past the page cache: fact direct_io."""
    if may_be_inline(c, memory):
        raise Undetermined("whether a file of so few bytes has a block, without which O_DIRECT is not direct, is not known to the model")
    return not memory.is_file or bool(volume_fact(c, "direct_io", memory)) or not c.holds("C-DIO-10", True)


@rule(Close)
def close(c: Context, s: State, op: Close) -> Expectations:
    return closing(c, s, op.name, op.end)
