"""Operations on pipes, and what moves bytes through them."""

from harness.ops.words import FILE, MAPPING, PIPE, READ, SOCKET, WRITE, Flag, Offset, Operation, Size, new, operation, ref


class SpliceFlag(Flag):
    MOVE = "move", 1
    NONBLOCK = "nonblock", 2
    MORE = "more", 4
    GIFT = "gift", 8


@operation("pipe")
class Pipe(Operation):
    """pipe2(2). One name stands for both ends: a read is from the one, a write to the other."""

    name: str = new(PIPE)
    nonblock: bool = False


@operation("set_pipe_size")
class SetPipeSize(Operation):
    """fcntl(2) F_SETPIPE_SZ."""

    pipe: str = ref(PIPE, uses=READ)
    size: Size


@operation("splice")
class Splice(Operation):
    """splice(2); an offset left out means the file's own position (for a pipe or a socket there is no other)."""

    source: str = ref(FILE, PIPE, SOCKET, uses=READ)
    target: str = ref(FILE, PIPE, SOCKET, uses=WRITE)
    length: Size
    source_offset: Offset | None = None
    target_offset: Offset | None = None
    flags: tuple[SpliceFlag, ...] = ()


@operation("sendfile")
class Sendfile(Operation):
    """sendfile(2); without ``offset`` from the file's own position."""

    source: str = ref(FILE, uses=READ)
    target: str = ref(FILE, PIPE, SOCKET, uses=WRITE)
    length: Size
    offset: Offset | None = None


@operation("tee")
class Tee(Operation):
    source: str = ref(PIPE, uses=READ)
    target: str = ref(PIPE, uses=WRITE)
    length: Size
    flags: tuple[SpliceFlag, ...] = ()


@operation("vmsplice")
class Vmsplice(Operation):
    """vmsplice(2) of one range of a mapping into a pipe."""

    pipe: str = ref(PIPE, uses=WRITE)
    mapping: str = ref(MAPPING)
    offset: Offset
    length: Size
    flags: tuple[SpliceFlag, ...] = ()
