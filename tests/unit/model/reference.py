"""A trivial file system with pipes, in memory: what the reference model must accept, and must tell from anything else.

Pages are mutable objects, and a pipe holds pages: whether it holds the file's own one or a copy is all that sets DAX and page cache
apart. Nothing here comes from the model but the bytes that a writer writes.
"""

from dataclasses import dataclass, field

from hypothesis import strategies as st

from harness.model.outcome import How, Observation, Run, RunKind
from harness.ops import (
    AllocateFlag,
    Fallocate,
    Ftruncate,
    Load,
    Mmap,
    Open,
    OpenFlag,
    Operation,
    Pipe,
    Pread,
    Program,
    Pwrite,
    Read,
    SetPipeSize,
    Splice,
    Step,
    Store,
    Tee,
    Vmsplice,
)
from harness.ops.tag import tag_bytes
from tests.unit.model.stacks import with_faults

PAGE = 4096
FILE_BYTES = 4 * PAGE


@dataclass
class Page:
    """One page of a file, or of a copy that a pipe holds."""

    data: bytearray


@dataclass
class File:
    pages: dict[int, Page] = field(default_factory=dict)
    size: int = 0

    def page(self, index: int) -> Page:
        return self.pages.setdefault(index, Page(bytearray(PAGE)))

    def read(self, start: int, end: int) -> bytes:
        return b"".join(bytes(self.page(i).data[a:b]) for i, a, b in spans(start, min(end, self.size)))

    def write(self, start: int, data: bytes) -> None:
        at = 0
        for index, low, high in spans(start, start + len(data)):
            self.page(index).data[low:high] = data[at : at + high - low]
            at += high - low
        self.size = max(self.size, start + len(data))

    def shift(self, first: int, by: int) -> None:
        """Move the pages from ``first`` on; what moves is read anew, so it is in other pages then."""
        kept = {i: page for i, page in self.pages.items() if i < min(first, first + by)}
        moved = {i + by: Page(bytearray(page.data)) for i, page in self.pages.items() if i >= first}
        self.pages = {**kept, **moved}
        self.size += by * PAGE

    def zero(self, start: int, end: int) -> None:
        """Take whole pages away, and zero the rest in place."""
        for index, low, high in spans(start, end):
            if (low, high) == (0, PAGE):
                self.pages.pop(index, None)
            else:
                self.page(index).data[low:high] = bytes(high - low)


@dataclass
class Slot:
    """Bytes of a page in a pipe; ``held``: the page is the file's own, got through a mapping (a DAX file waits for it)."""

    page: Page
    low: int
    high: int
    held: bool = False

    @property
    def data(self) -> bytes:
        return bytes(self.page.data[self.low : self.high])


def spans(start: int, end: int) -> list[tuple[int, int, int]]:
    """Return (page, first byte in it, end in it) for a range of bytes."""
    return [(i, max(start - i * PAGE, 0), min(end - i * PAGE, PAGE)) for i in range(start // PAGE, -(-end // PAGE)) if start < end]


class Reference:
    """Runs programs. ``dax``: splicing from a file copies, and size changes wait for pages that a pipe holds."""

    def __init__(self, dax: bool) -> None:
        self._dax = dax
        self._files = {"f": File(), "g": File()}
        self._pipes: dict[str, list[Slot]] = {"p": [], "q": []}
        #: The pages that the mapping's page table holds, and those that it holds writable.
        self._mapped: set[int] = set()
        self._writable: set[int] = set()

    def run(self, program: Program) -> tuple[Observation, ...]:
        seen: list[Observation] = []
        ended = False
        for index, step in enumerate(program.steps):
            observation = Observation(index, How.NOT_RUN) if ended else self._step(index, step.operation)
            ended = ended or observation.how in (How.BLOCKED, How.SIGNAL)
            seen.append(observation)
        return tuple(seen)

    def _step(self, index: int, op: Operation) -> Observation:
        writer = index + 1
        match op:
            case Pwrite():
                self._files[op.file].write(op.offset, tag_bytes(writer, 0, op.length))
                return Observation(index, How.RETURNED, op.length)
            case Pread():
                return _data(index, self._files[op.file].read(op.offset, op.offset + op.length))
            case Store():
                if self._behind(op.offset + op.length):
                    return Observation(index, How.SIGNAL, signal="SIGBUS")
                size = self._files["f"].size
                self._files["f"].write(op.offset, tag_bytes(writer, 0, op.length))
                self._files["f"].size = size
                faults = self._touch(op.offset, op.length, self._writable)
                return with_faults(Observation(index, How.RETURNED, op.length), faults)
            case Load():
                if self._behind(op.offset + op.length):
                    return Observation(index, How.SIGNAL, signal="SIGBUS")
                pages = spans(op.offset, op.offset + op.length)
                shown = _data(index, b"".join(bytes(self._files["f"].page(i).data[a:b]) for i, a, b in pages))
                return with_faults(shown, self._touch(op.offset, op.length, self._mapped))
            case Ftruncate():
                return self._resize(index, op.length)
            case Fallocate() if AllocateFlag.PUNCH_HOLE not in op.flags:
                return self._shift(index, op)
            case Fallocate():
                return self._punch(index, op.offset, op.offset + op.length)
            case Splice() if op.source in self._files:
                return self._fill(index, op.target, self._spliced(op))
            case Splice():
                return self._drain_to_file(index, op)
            case Vmsplice():
                file = self._files["f"]
                pages = [span for span in spans(op.offset, op.offset + op.length) if not self._behind(span[0] * PAGE + 1)]
                if not pages:
                    return Observation(index, How.FAILED, errno="EFAULT")
                self._touch(op.offset, min(op.length, len(pages) * PAGE), self._mapped)
                return self._fill(index, op.pipe, [Slot(file.page(i), a, b, held=True) for i, a, b in pages])
            case Tee():
                taken = _cut(self._pipes[op.source], op.length)[0]
                if not taken:
                    return Observation(index, How.FAILED, errno="EAGAIN")
                return self._fill(index, op.target, taken)
            case Read():
                taken, self._pipes[op.file] = _cut(self._pipes[op.file], op.length)
                if not taken:
                    return Observation(index, How.FAILED, errno="EAGAIN")
                return _data(index, b"".join(slot.data for slot in taken))
            case SetPipeSize():
                return Observation(index, How.RETURNED, op.size)
        return Observation(index, How.RETURNED)

    def _unmap(self, pages: range) -> None:
        """Take pages out of the page table; of a DAX file all of them."""
        gone = self._mapped if self._dax else set(pages)
        self._mapped, self._writable = self._mapped - gone, self._writable - gone

    def _touch(self, start: int, length: int, held: set[int]) -> int:
        """Fault the pages of a range in, and return how many were not in ``held``."""
        pages = {index for index, _, _ in spans(start, start + length)}
        faults = len(pages - held)
        held |= pages
        self._mapped |= pages
        return faults

    def _behind(self, end: int) -> bool:
        return end > -(-self._files["f"].size // PAGE) * PAGE

    def _resize(self, index: int, size: int) -> Observation:
        file = self._files["f"]
        if self._waits():
            return Observation(index, How.BLOCKED)
        self._unmap(range(-(-size // PAGE), -(-file.size // PAGE)))
        file.zero(min(size, file.size), -(-file.size // PAGE) * PAGE)
        file.size = size
        return Observation(index, How.RETURNED)

    def _punch(self, index: int, start: int, end: int) -> Observation:
        if self._waits():
            return Observation(index, How.BLOCKED)
        self._unmap(range(-(-start // PAGE), end // PAGE))
        self._files["f"].zero(start, end)
        return Observation(index, How.RETURNED)

    def _shift(self, index: int, op: Fallocate) -> Observation:
        file, collapse, end = self._files["f"], AllocateFlag.COLLAPSE_RANGE in op.flags, op.offset + op.length
        if self._waits():
            return Observation(index, How.BLOCKED)
        refused = (op.offset | op.length) % PAGE or (end >= file.size if collapse else op.offset >= file.size)
        self._unmap(range(0 if refused else op.offset // PAGE, 0 if refused else -(-file.size // PAGE)))
        if refused:
            return Observation(index, How.FAILED, errno="EINVAL")
        if not self._dax:
            file.page(file.size // PAGE).data[file.size % PAGE :] = bytes(PAGE - file.size % PAGE)
        file.shift(end // PAGE if collapse else op.offset // PAGE, (-op.length if collapse else op.length) // PAGE)
        return Observation(index, How.RETURNED)

    def _waits(self) -> bool:
        pages = {id(page) for page in self._files["f"].pages.values()}
        return self._dax and any(slot.held and id(slot.page) in pages for slots in self._pipes.values() for slot in slots)

    def _spliced(self, op: Splice) -> list[Slot]:
        file = self._files[op.source]
        start = op.source_offset or 0
        slots = [Slot(file.page(i), a, b) for i, a, b in spans(start, min(start + op.length, file.size))]
        return [Slot(Page(bytearray(s.page.data)), s.low, s.high) for s in slots] if self._dax else slots

    def _fill(self, index: int, pipe: str, slots: list[Slot]) -> Observation:
        self._pipes[pipe] += slots
        return Observation(index, How.RETURNED, sum(slot.high - slot.low for slot in slots))

    def _drain_to_file(self, index: int, op: Splice) -> Observation:
        taken, self._pipes[op.source] = _cut(self._pipes[op.source], op.length)
        if not taken:
            return Observation(index, How.FAILED, errno="EAGAIN")
        data = b"".join(slot.data for slot in taken)
        self._files[op.target].write(op.target_offset or 0, data)
        return Observation(index, How.RETURNED, len(data))


def _data(index: int, data: bytes) -> Observation:
    runs = (Run(0, len(data), RunKind.RAW, raw=data),) if data else ()
    return Observation(index, How.RETURNED, len(data), data=runs)


def _cut(slots: list[Slot], count: int) -> tuple[list[Slot], list[Slot]]:
    head: list[Slot] = []
    rest = list(slots)
    while rest and count:
        slot = rest.pop(0)
        size = min(count, slot.high - slot.low)
        head.append(Slot(slot.page, slot.low, slot.low + size, slot.held))
        if slot.low + size < slot.high:
            rest.insert(0, Slot(slot.page, slot.low + size, slot.high, slot.held))
        count -= size
    return head, rest


# ---- programs --------------------------------------------------------------------------------------------------------

RDWR = (OpenFlag.RDWR, OpenFlag.CREAT)
#: Two files with data, two pipes that never fill nor block, a mapping of the first file.
PROLOGUE: tuple[Operation, ...] = (
    Open("f", "a", RDWR),
    Open("g", "b", RDWR),
    Pipe("p", nonblock=True),
    Pipe("q", nonblock=True),
    SetPipeSize("p", 1 << 20),
    SetPipeSize("q", 1 << 20),
    Pwrite("f", 0, FILE_BYTES),
    Pwrite("g", 0, FILE_BYTES),
    Mmap("m", FILE_BYTES, "f"),
)

_OFFSETS = st.one_of(st.sampled_from([0, 1, 4095, 4096, 4097, 8192, 12288]), st.integers(0, FILE_BYTES - 1))
_LENGTHS = st.one_of(st.sampled_from([1, 8, 100, 4096, 4097, 8192]), st.integers(1, 6000))


@st.composite
def _ranges(draw: st.DrawFn) -> tuple[int, int]:
    """An offset and a length that stay inside the file as it was made."""
    offset = draw(_OFFSETS)
    return offset, min(draw(_LENGTHS), FILE_BYTES - offset)


_FILES = st.sampled_from("fg")
_COPYING = st.one_of(
    st.builds(lambda file, r: Pwrite(file, *r), _FILES, _ranges()),
    st.builds(lambda file, r: Pread(file, *r), _FILES, _ranges()),
    st.builds(lambda r: Store("m", *r), _ranges()),
    st.builds(lambda r: Load("m", *r), _ranges()),
    st.builds(lambda file, r: Splice(file, "p", r[1], source_offset=r[0]), _FILES, _ranges()),
    st.builds(lambda r: Splice("p", "g", r[1], target_offset=r[0]), _ranges()),
    st.builds(lambda r: Vmsplice("p", "m", *r), _ranges()),
    st.builds(lambda n: Tee("p", "q", n), _LENGTHS),
    st.builds(lambda pipe, n: Read(pipe, n), st.sampled_from("pq"), _LENGTHS),
)
_REMOVING = st.one_of(
    st.builds(lambda n: Ftruncate("f", n), st.sampled_from([0, 100, 4096, 5000, FILE_BYTES])),
    st.builds(lambda r: Fallocate("f", r[0], r[1], (AllocateFlag.PUNCH_HOLE, AllocateFlag.KEEP_SIZE)), _ranges()),
    st.builds(
        lambda flag, offset, length: Fallocate("f", offset, length, (flag,)),
        st.sampled_from([AllocateFlag.COLLAPSE_RANGE, AllocateFlag.INSERT_RANGE]),
        st.sampled_from([0, 100, 4096, 8192]),
        st.sampled_from([4096, 4097, 8192]),
    ),
)


def programs(*, removing: bool) -> st.SearchStrategy[Program]:
    """Programs of up to 16 steps on the two files; ``removing``: also such that shorten the first file or punch holes into it."""
    step = st.one_of(_COPYING, _COPYING, _REMOVING) if removing else _COPYING
    return st.lists(step, min_size=1, max_size=16).map(lambda steps: Program(tuple(Step(op) for op in (*PROLOGUE, *steps))))
