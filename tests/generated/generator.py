"""Programs drawn from a seed: every operation that there is, on few files and few ranges, and nobody asks the model.

``draw(seed, index)`` is always the same program, on every version of Python: only ``random.Random.random`` is used, whose numbers are
promised to stay. What an operation takes is read from its fields, so a new operation or flag is drawn as soon as it exists;
:data:`WEIGHTS` says how often, and a test holds it complete.

What is kept inside bounds is what would not be the kernel's answer: a name is one that some earlier step was to make (now and then one
that was closed since), a range of a mapping never goes beyond its last page (behind it lies the agent's own memory), and what may
sleep mostly says that it does not want to.
"""

import functools
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from typing import Any, TypeVar

from harness.ops import (
    FILE,
    LABEL,
    MAPPING,
    NEEDED,
    OPERATIONS,
    PIPE,
    PROCESS,
    RDMA,
    RDMA_REGION,
    RING,
    SOCKET,
    Buffer,
    Field,
    Operation,
    Program,
    RwFlag,
    Step,
)

T = TypeVar("T")

PAGE = 4096
MIB = 1 << 20
#: How many steps a program has.
FEWEST, MOST = 6, 30
#: Names that a closed or unmapped thing still gets now and then, and other rare turns.
RARELY = 0.03

#: Sizes and offsets at which something begins or ends: a word, a sector, a page, 64 KiB (a pipe), a huge page.
_EDGES = (0, 1, 2, 7, 8, 9, 63, 64, 511, 512, 513, 1000, 2048, 4088, 4095, 4096, 4097, 4608, 8191, 8192, 8193, 12288, 16384, 20481)
_LARGE = (32768, 65535, 65536, 65537, 69632, 131072)
_HUGE = (2 * MIB - 1, 2 * MIB, 2 * MIB + 1, 2 * MIB + 4096)
#: Where nothing can be, and what no volume has room for.
_ABSURD = (-1, -4096, -(2 * MIB - 1), 1 << 30, 1 << 40, (1 << 44) - 4096, (1 << 63) - 1)

#: How often each operation is drawn where all of them can be, by theme. A program has its favourite themes.
THEMES: dict[str, dict[str, float]] = {
    "files": {
        "pread": 8,
        "pwrite": 12,
        "read": 6,
        "write": 7,
        "preadv": 3,
        "pwritev": 3,
        "lseek": 4,
        "ftruncate": 4,
        "fallocate": 6,
        "copy_file_range": 5,
        "ficlone": 1,
        "ficlonerange": 1,
        "fideduperange": 1,
        "fsync": 1.5,
        "fdatasync": 1,
        "syncfs": 0.5,
        "sync_file_range": 1,
        "fadvise": 1.5,
        "readahead": 1,
        "statx": 3,
        "get_xflags": 0.5,
        "set_xflags": 0.4,
        "open": 3,
        "close": 1.5,
        "drop_caches": 0.5,
        "meminfo": 0.3,
    },
    "mappings": {
        "mmap": 8,
        "load": 9,
        "store": 9,
        "msync": 3,
        "mincore": 4,
        "pagemap": 4,
        "smaps": 2,
        "madvise": 5,
        "mprotect": 1.5,
        "mlock": 1.5,
        "munlock": 1,
        "munmap": 1.2,
    },
    "pipes": {"pipe": 4, "splice": 12, "sendfile": 4, "tee": 4, "vmsplice": 6, "set_pipe_size": 2},
    "sockets": {"unix_pair": 2, "tcp_pair": 2, "send": 4, "recv": 6, "set_zerocopy": 0.5, "recv_errqueue": 1.5},
    "processes": {"fork": 1.5, "join": 2, "process_vm_readv": 2, "futex_wait": 1, "futex_wake": 1},
    "pins": {
        "io_uring_setup": 2,
        "io_uring_register": 4,
        "io_uring_unregister": 1.2,
        "xdp_socket": 0.8,
        "xdp_umem": 1.6,
        "rdma_open": 1,
        "rdma_register": 2,
        "rdma_deregister": 1.5,
    },
    # The stacks of programs drawn at random have nothing that an overlay could lie over.
    "volumes": {"mount": 0.5, "umount": 0.5, "mount_overlay": 0},
}
WEIGHTS = {call: weight for theme in THEMES.values() for call, weight in theme.items()}
#: Of so many programs one may mount and unmount, which nothing else in the program survives.
_WITH_VOLUMES = 80
#: How the weights of a theme change where it is none of a program's favourites.
_NO_FAVOURITE = {"files": 0.5, "mappings": 0.45, "pipes": 0.3, "sockets": 0.08, "processes": 0.15, "pins": 0.02}
#: What makes names of a kind, and from how many on that becomes seldom.
_MAKERS = {
    "open": (FILE, 5),
    "mmap": (MAPPING, 5),
    "pipe": (PIPE, 3),
    "unix_pair": (SOCKET, 2),
    "tcp_pair": (SOCKET, 2),
    "fork": (PROCESS, 3),
}
#: Names that are seldom made are then used: how much likelier the operations on them become.
_EAGER = {RING: 6.0, RDMA: 6.0, RDMA_REGION: 6.0, PROCESS: 3.0, LABEL: 6.0}


@dataclass(frozen=True)
class World:
    """What programs may use: ``volumes`` by role, the main one first, and nothing ``without``: themes, operations, words of flags."""

    volumes: tuple[str, ...] = ("main",)
    without: frozenset[str] = frozenset()


def draw(seed: int, index: int, world: World = World()) -> Program:
    """Return program ``index`` of ``seed``."""
    return _Drawer(Random(f"{seed}/{index}"), world).program()


def uses_volumes(program: Program) -> bool:
    """Whether the program mounts or unmounts: then it needs the volume's own root, and a fresh volume afterwards."""
    return any(step.operation.call in THEMES["volumes"] for step in program.steps)


@dataclass
class _Process:
    """The names that a process of the program should have by now, by kind; ``gone`` are those it closed or unmapped."""

    names: dict[str, list[str]] = field(default_factory=dict)
    gone: dict[str, list[str]] = field(default_factory=dict)

    def copy(self) -> "_Process":
        return _Process({k: list(v) for k, v in self.names.items()}, {k: list(v) for k, v in self.gone.items()})


class _Drawer:
    """Draws one program."""

    def __init__(self, random: Random, world: World) -> None:
        self._random = random.random
        self._world = world
        self._processes = {"main": _Process()}
        self._at = "main"
        self._lengths: dict[str, int] = {}
        #: Where each file was last asked to end, as far as anybody asked; only to not die of SIGBUS all the time.
        self._ends: dict[str, int] = {}
        self._paths: dict[str, str] = {}
        self._behind: dict[str, tuple[str, int]] = {}
        #: Files and mappings that were asked for in a way that forbids writing, and sockets with something to be told of.
        self._read_only: set[str] = set()
        self._told: set[str] = set()
        self._labels: list[str] = []
        self._count = 0
        self._process = self._processes["main"]

    # ---- chance

    def _chance(self, probability: float) -> bool:
        return self._random() < probability

    def _pick(self, choices: Sequence[T]) -> T:
        return choices[int(self._random() * len(choices))]

    def _between(self, low: int, high: int) -> int:
        """A number from ``low`` to ``high``, both included."""
        return low + int(self._random() * (high - low + 1))

    def _weighted(self, weights: dict[str, float]) -> str:
        at = self._random() * sum(weights.values())
        for name, weight in weights.items():
            at -= weight
            if at < 0:
                return name
        return next(reversed(weights))

    # ---- a program

    def program(self) -> Program:
        weights = self._choose_weights()
        self._spots = [self._edge() for _ in range(3)]
        self._sizes = [self._edge() or 1 for _ in range(3)]
        length = self._between(FEWEST, MOST)
        steps = [self._step("open")]
        while len(steps) < length:
            # A file without bytes is soon told: mostly there are some.
            first = len(steps) == 1 and self._chance(0.75)
            steps.append(self._step("pwrite" if first else self._weighted(self._possible(weights))))
        return Program(tuple(steps))

    def _choose_weights(self) -> dict[str, float]:
        themes = [theme for theme in THEMES if theme != "volumes"]
        favourites = {self._pick(themes[:3]), self._pick(themes[:4]), self._pick(themes)}
        weights: dict[str, float] = {}
        for theme in themes:
            factor = 1.0 if theme in favourites else _NO_FAVOURITE[theme]
            weights.update({call: weight * factor for call, weight in THEMES[theme].items()})
        if self._between(1, _WITH_VOLUMES) == 1:
            weights.update({call: weight * 8 for call, weight in THEMES["volumes"].items()})
        left_out = {call for theme, calls in THEMES.items() for call in calls if theme in self._world.without} | self._world.without
        # Half of a program's operations are of few kinds: they meet more often.
        return {call: weight * self._pick((0.3, 1.0, 1.0, 2.0)) for call, weight in weights.items() if call not in left_out}

    def _possible(self, weights: dict[str, float]) -> dict[str, float]:
        """The operations for which there are names, as somebody of the program would have them now."""
        self._at = self._pick(list(self._processes)) if self._chance(0.4) else self._at
        self._process = self._processes[self._at]
        kinds = {kind for kind, names in self._process.names.items() if names}
        kinds |= ({LABEL} if self._labels else set()) | ({PROCESS} if len(self._processes) > 1 else set())
        backed = any(self._backed(name) for name in self._process.names.get(MAPPING, ()))
        idle = (set() if backed else {"load", "store"}) | (set() if self._told else {"recv_errqueue"})
        possible = {}
        for call, eager in _usable(frozenset(kinds)):
            if call in weights:
                possible[call] = weights[call] * (RARELY if call in idle else 1.0) * eager
        for call, (kind, crowd) in _MAKERS.items():
            if call in possible:
                there = len(self._processes) if call == "fork" else len(self._process.names.get(kind, ()))
                possible[call] *= 0.05 if there >= crowd else 1.0 if there else 2.0
        return possible

    def _step(self, call: str) -> Step:
        process = self._at
        self._count += 1
        operation = self._operation(OPERATIONS[call])
        start = None
        # Only what may sleep is started, and not by the process that everybody else waits for.
        if process != "main" and call in ("futex_wait", "read", "recv", "ftruncate", "splice") and self._chance(0.25):
            start = f"l{self._count}"
            self._labels.append(start)
        return Step(operation, process, start)

    def _operation(self, cls: type[Operation]) -> Operation:
        values: dict[str, Any] = {}
        hints = _hints(cls.call)
        for name, spec in cls.fields.items():
            values[name] = self._value(cls.call, spec, hints[name], values)
        operation = cls(**values)
        self._note(operation)
        return operation

    # ---- one argument

    def _value(self, call: str, spec: Field, hint: Any, values: dict[str, Any]) -> Any:
        special = getattr(self, f"_{call}_{spec.key}", None)
        if special is not None:
            return special(values)
        if "makes" in spec.metadata:
            return f"{spec.metadata['makes'][0]}{self._count}"
        if "refers" in spec.metadata:
            return self._name(call, spec, values)
        if typing.get_origin(hint) is tuple:
            return self._tuple(typing.get_args(hint)[0], values)
        optional = type(None) in typing.get_args(hint)
        plain = next(kind for kind in typing.get_args(hint) if kind is not type(None)) if optional else hint
        if optional and self._chance(0.4) and not self._is_behind(spec.name, values):
            return None
        if plain is bool:
            return self._chance(0.5)
        if isinstance(plain, type) and issubclass(plain, StrEnum):
            return self._pick(list(plain))
        if plain is int:
            return self._number(spec.name, values)
        return spec.default

    def _name(self, call: str, spec: Field, values: dict[str, Any]) -> str | None:
        kinds = spec.metadata["refers"]
        if spec.default is None and not self._chance(0.25):
            return None
        names = self._names(kinds)
        if spec.default is None:
            # A buffer that is too short would reach into the agent's own memory.
            names = [name for name in names if _whole_pages(self._lengths[name]) >= values["length"]]
            return self._pick(names) if names else None
        if any(self._process.gone.get(kind) for kind in kinds) and self._chance(RARELY):
            names = self._names(kinds, gone=True)
        if MAPPING in kinds and self._chance(0.9):
            names = [name for name in names if self._backed(name)] or names
        if call in ("store", "recv_errqueue") and self._chance(0.93):
            names = [name for name in names if (name in self._told if call == "recv_errqueue" else name not in self._read_only)] or names
        # Two different ones where there are two; now and then the same.
        others = [name for name in names if name not in values.values()]
        names = others if others and self._chance(0.85) else names
        return names[-1] if self._chance(0.3) else self._pick(names)

    def _is_behind(self, name: str, values: dict[str, Any]) -> bool:
        """Whether a range that began at the offset drawn before would end, left open, before it begins."""
        mapping = values.get("mapping")
        return name == "length" and mapping is not None and values.get("offset", 0) >= self._lengths.get(mapping, PAGE)

    def _names(self, kinds: Sequence[str], *, gone: bool = False) -> list[str]:
        if kinds == (PROCESS,):
            return list(self._processes)
        if kinds == (LABEL,):
            return self._labels
        table = self._process.gone if gone else self._process.names
        return [name for kind in kinds for name in table.get(kind, ())]

    def _tuple(self, kind: Any, values: dict[str, Any]) -> tuple[Any, ...]:
        if kind is Buffer:
            return tuple(self._buffer() for _ in range(self._between(1, 3)))
        # Mostly none, then one, seldom several: written in the order in which they are declared.
        if self._chance(0.95 if kind is RwFlag else 0.7):
            return ()
        wanted = {self._pick(list(kind))} | ({self._pick(list(kind))} if self._chance(0.3) else set())
        return tuple(flag for flag in kind if flag in wanted - self._world.without)

    def _buffer(self) -> Buffer:
        mappings = self._names((MAPPING,))
        if mappings and self._chance(0.25):
            name = self._pick(mappings)
            offset, length = self._inside(name)
            return Buffer(length, 0, name, offset)
        return Buffer(self._size(), self._shift())

    def _number(self, name: str, values: dict[str, Any]) -> int:
        mapping = values.get("mapping")
        if isinstance(mapping, str) and name in ("offset", "length"):
            if name == "offset":
                self._range = self._inside(mapping)
            return self._range[0] if name == "offset" else self._range[1]
        if name in ("into_offset", "from_offset"):
            buffer = values.get("into") or values.get("from_")
            return 0 if buffer is None else self._room(buffer, values["length"])
        if name in ("length", "size"):
            return self._size()
        if name == "shift":
            return self._shift()
        return self._spot()

    # ---- ranges

    def _edge(self) -> int:
        table = _EDGES if self._chance(0.9) else _LARGE if self._chance(0.75) else _HUGE
        return self._pick(table)

    def _spot(self) -> int:
        """An offset in a file: mostly one of the few that this program likes, or beside it."""
        if self._chance(0.006):
            return self._pick(_ABSURD)
        if self._chance(0.3):
            return 0
        if self._chance(0.6):
            return self._pick(self._spots)
        return max(0, self._edge() + (self._pick((-1, 0, 0, 1, 8, 11)) if self._chance(0.3) else 0))

    def _size(self) -> int:
        if self._chance(0.03):
            return 0
        if self._chance(0.25):
            return 1
        if self._chance(0.5):
            return self._pick(self._sizes)
        return max(1, self._edge() + (self._pick((-1, 0, 0, 1, 8)) if self._chance(0.2) else 0))

    def _shift(self) -> int:
        return 0 if self._chance(0.75) else self._pick((1, 8, 63, 256, 512, 2048, 4095))

    def _backed(self, mapping: str) -> int:
        """How many bytes of a mapping lie before the end of the page with the file's last byte, as far as known."""
        length = self._lengths.get(mapping, PAGE)
        if mapping not in self._behind:
            return length
        path, offset = self._behind[mapping]
        return max(0, min(length, _whole_pages(self._ends.get(path, 0)) - offset))

    def _extent(self, mapping: str) -> int:
        """How many bytes of a mapping may be named: those with a file behind them, else its length, now and then all of its last page."""
        length = self._lengths.get(mapping, PAGE)
        backed = self._backed(mapping)
        if backed and self._chance(0.93):
            return backed
        return _whole_pages(length) if self._chance(0.5) else length

    def _inside(self, mapping: str) -> tuple[int, int]:
        """A range of a mapping, in bytes from its beginning."""
        extent = self._extent(mapping)
        offset = min(abs(self._spot()), extent - 1) if self._chance(0.6) else 0
        length = extent - offset if self._chance(0.3) else min(self._size(), extent - offset)
        return offset, length

    def _room(self, mapping: str, length: int) -> int:
        """An offset in a mapping from which ``length`` bytes fit where they fit at all."""
        return min(abs(self._spot()), max(0, self._extent(mapping) - length))

    # ---- arguments with sense of their own

    def _open_path(self, values: dict[str, Any]) -> str:
        name = self._weighted({"a": 5, "b": 3, "c": 2})
        role = self._pick(self._world.volumes)
        return name if role == "main" else f"{role}:{name}"

    def _open_flags(self, values: dict[str, Any]) -> tuple[Any, ...]:
        kind = _words("open", "flags")
        likely = {"creat": 0.97, "direct": 0.15, "append": 0.08, "trunc": 0.08}
        access = self._weighted({"rdwr": 0.84, "wronly": 0.06, "rdonly": 0.1})
        modes = {"rdwr", "wronly", "rdonly"}
        chosen = {str(flag) for flag in kind if str(flag) not in modes and self._chance(likely.get(str(flag), RARELY))} | {access}
        return tuple(flag for flag in kind if str(flag) in chosen - self._world.without)

    def _close_end(self, values: dict[str, Any]) -> str | None:
        if values["name"] in self._process.names.get(FILE, ()) or values["name"] in self._process.names.get(RING, ()):
            return None
        return self._pick(("read", "write", "read", "write", "both"))

    def _pipe_nonblock(self, values: dict[str, Any]) -> bool:
        return self._chance(0.95)

    def _quiet(self, kind: Any, word: str) -> tuple[Any, ...]:
        others = self._tuple(kind, {})
        quiet = self._chance(0.9)
        return tuple(flag for flag in kind if (flag == word and quiet) or (flag != word and flag in others))

    def _splice_flags(self, values: dict[str, Any]) -> tuple[Any, ...]:
        return self._quiet(_words("splice", "flags"), "nonblock")

    _tee_flags = _vmsplice_flags = _splice_flags

    def _recv_flags(self, values: dict[str, Any]) -> tuple[Any, ...]:
        kind = _words("recv", "flags")
        chosen = self._weighted({"dontwait": 0.95, "": 0.03, "dontwait zerocopy": 0.02}).split()
        return tuple(flag for flag in kind if flag in chosen)

    def _set_pipe_size_size(self, values: dict[str, Any]) -> int:
        return self._pick((0, 1, 4096, 4097, 8192, 65536, 131072, MIB, 2 * MIB))

    def _splice_source_offset(self, values: dict[str, Any]) -> int | None:
        return self._offset_of(values["source"])

    def _splice_target_offset(self, values: dict[str, Any]) -> int | None:
        return self._offset_of(values["target"])

    def _offset_of(self, name: str) -> int | None:
        """An offset belongs to a file; a pipe gets one seldom."""
        is_file = name in self._names((FILE,)) or name in self._names((FILE,), gone=True)
        return self._spot() if self._chance(0.6 if is_file else RARELY) else None

    def _mmap_length(self, values: dict[str, Any]) -> int:
        huge = self._chance(0.12)
        return self._pick((*_HUGE, 4 * MIB)) if huge else self._size() if self._chance(0.5) else PAGE * self._between(1, 24)

    def _mmap_file(self, values: dict[str, Any]) -> str | None:
        files = self._names((FILE,))
        return self._pick(files) if files and self._chance(0.94) else None

    def _mmap_offset(self, values: dict[str, Any]) -> int:
        if values["file"] is None or self._chance(0.75):
            return 0
        return self._spot() if self._chance(0.05) else abs(self._spot()) // PAGE * PAGE

    def _mmap_protection(self, values: dict[str, Any]) -> tuple[Any, ...]:
        kind = _words("mmap", "protection")
        words = self._weighted({"read write": 0.8, "read": 0.13, "write": 0.03, "none": 0.02, "": 0.02}).split()
        return tuple(flag for flag in kind if flag in words)

    _mprotect_protection = _mmap_protection

    def _mmap_flags(self, values: dict[str, Any]) -> tuple[Any, ...]:
        kind = _words("mmap", "flags")
        chosen = {self._weighted({"shared": 0.58, "private": 0.34, "shared_validate": 0.07, "none of them": 0.01})}
        likely = {"populate": 0.2, "locked": 0.08, "noreserve": 0.03, "sync": 0.03, "hugetlb": 0.005, "huge_2mb": 0.005}
        likely["anonymous"] = 0.98 if values["file"] is None else 0.005
        likely["sync"] = 0.5 if "shared_validate" in chosen and values["file"] is not None else 0.01
        chosen |= {str(flag) for flag in kind if self._chance(likely.get(str(flag), 0))}
        return tuple(flag for flag in kind if flag in chosen)

    def _mmap_align(self, values: dict[str, Any]) -> int:
        return 2 * MIB if values["length"] >= 2 * MIB and self._chance(0.7) else 0

    def _mmap_align_shift(self, values: dict[str, Any]) -> int:
        return PAGE if values["align"] and self._chance(0.15) else 0

    def _munmap_offset(self, values: dict[str, Any]) -> int:
        """A mapping goes as a whole, or loses its end now and then: of other parts the model knows little."""
        offset = self._of_pages(values)
        return offset if self._chance(0.15) else 0

    def _munmap_length(self, values: dict[str, Any]) -> int | None:
        return self._range[1] if self._chance(RARELY) else None

    def _mprotect_offset(self, values: dict[str, Any]) -> int:
        offset = self._of_pages(values)
        return offset if self._chance(RARELY) else 0

    _mprotect_length = _munmap_length

    def _of_pages(self, values: dict[str, Any]) -> int:
        """The offset of a call that works on pages: mostly whole ones."""
        self._range = self._inside(values["mapping"])
        offset, length = self._range
        if not self._chance(0.1):
            offset = offset // PAGE * PAGE
            self._range = offset, length
        return offset

    _madvise_offset = _msync_offset = _mincore_offset = _pagemap_offset = _mlock_offset = _munlock_offset = _of_pages
    _io_uring_register_offset = _xdp_umem_offset = _rdma_register_offset = _of_pages

    def _store_value(self, values: dict[str, Any]) -> int | None:
        return self._between(0, 2) if values["length"] == 4 and self._chance(0.7) else None

    def _store_length(self, values: dict[str, Any]) -> int:
        return 4 if self._range[1] >= 4 and self._chance(0.15) else self._range[1]

    def _futex_wait_offset(self, values: dict[str, Any]) -> int:
        extent = max(4, self._lengths.get(values["mapping"], PAGE))
        at = min(self._inside(values["mapping"])[0], extent - 4)
        return at if self._chance(0.05) else at // 4 * 4

    _futex_wake_offset = _futex_wait_offset

    def _futex_wait_value(self, values: dict[str, Any]) -> int:
        return self._between(0, 2)

    def _futex_wake_count(self, values: dict[str, Any]) -> int:
        return self._between(0, 2)

    def _futex_wait_timeout_ms(self, values: dict[str, Any]) -> int | None:
        return None if self._at != "main" and self._chance(0.1) else 20

    def _io_uring_setup_entries(self, values: dict[str, Any]) -> int:
        return self._pick((1, 4, 4, 0))

    def _mount_volume(self, values: dict[str, Any]) -> str:
        return self._pick(self._world.volumes)

    _umount_volume = _mount_volume

    def _mount_filesystem(self, values: dict[str, Any]) -> str:
        return self._pick(("ext4", "xfs"))

    def _mount_options(self, values: dict[str, Any]) -> str:
        return self._pick(("", "dax=always", "dax=never", "dax=inode"))

    # ---- what a step leaves

    def _note(self, operation: Operation) -> None:
        """Note the names that a step makes or takes away."""
        for argument, spec in operation.fields.items():
            made = spec.metadata.get("makes")
            if made == PROCESS:
                self._processes[operation.process] = self._process.copy()  # type: ignore[attr-defined]
            elif made is not None:
                name = getattr(operation, argument)
                if made == MAPPING:
                    self._lengths[name] = operation.length or PAGE  # type: ignore[attr-defined]
                self._process.names.setdefault(made, []).append(name)
        self._note_end(operation)
        self._note_rights(operation)
        if operation.call == "munmap":
            self._note_munmap(operation)
        if operation.call == "close":
            # Of a pipe or a pair one end may be left, so the name stays in use.
            for kind in (FILE, RING):
                self._lose(kind, operation.name)  # type: ignore[attr-defined]

    def _note_munmap(self, operation: Any) -> None:
        """Note that a mapping is gone, or shorter."""
        if operation.offset > 0:
            self._lengths[operation.mapping] = min(operation.offset, self._lengths[operation.mapping])
        else:
            self._lose(MAPPING, operation.mapping)

    def _note_end(self, operation: Any) -> None:
        """Note where files were asked to end. Only a guess: what is said of a file's position is not followed."""
        file, call = getattr(operation, "file", None), operation.call
        if call == "open":
            self._paths[operation.name] = operation.path
            if "trunc" in operation.flags:
                self._ends[operation.path] = 0
        elif call == "mmap" and file is not None and "anonymous" not in operation.flags:
            self._behind[operation.name] = self._paths.get(file, ""), operation.offset
        elif file in self._paths:
            path = self._paths[file]
            end = self._ends.get(path, 0)
            if call in ("pwrite", "write"):
                end = max(end, getattr(operation, "offset", 0) + operation.length)
            elif call == "pwritev":
                end = max(end, operation.offset + sum(buffer.length for buffer in operation.buffers))
            elif call == "ftruncate":
                end = operation.length
            self._ends[path] = end

    def _note_rights(self, operation: Any) -> None:
        """Note what a store would die of, and which socket has completions to come."""
        if operation.call == "open" and "rdwr" not in operation.flags:
            self._read_only.add(operation.name)
        elif operation.call == "mmap":
            shared = operation.file in self._read_only and "private" not in operation.flags
            if shared or "write" not in operation.protection:
                self._read_only.add(operation.name)
        elif operation.call == "mprotect" and "write" not in operation.protection:
            self._read_only.add(operation.mapping)
        elif operation.call == "send" and "zerocopy" in operation.flags:
            self._told.add(operation.socket)

    def _lose(self, kind: str, name: str) -> None:
        if name in self._process.names.get(kind, ()):
            self._process.names[kind].remove(name)
            self._process.gone.setdefault(kind, []).append(name)


@functools.cache
def _usable(kinds: frozenset[str]) -> tuple[tuple[str, float], ...]:
    """The operations for which names of ``kinds`` are enough, and how eagerly they use them."""
    found = []
    for call in OPERATIONS:
        needed = _needs(call)
        if all(kinds & set(some) for some in needed):
            eager = max((_EAGER.get(kind, 1.0) for some in needed for kind in some if kind in kinds), default=1.0)
            found.append((call, 1.0 if call == "close" else eager))
    return tuple(found)


def _whole_pages(length: int) -> int:
    return -(-length // PAGE) * PAGE


@functools.cache
def _needs(call: str) -> tuple[tuple[str, ...], ...]:
    """The kinds of names that an operation cannot do without."""
    fields = OPERATIONS[call].fields.values()
    return tuple(spec.metadata["refers"] for spec in fields if "refers" in spec.metadata and spec.default is NEEDED)


@functools.cache
def _hints(call: str) -> dict[str, Any]:
    return typing.get_type_hints(OPERATIONS[call])


def _words(call: str, name: str) -> Any:
    """The enumeration whose words an argument takes."""
    return typing.get_args(_hints(call)[name])[0]
