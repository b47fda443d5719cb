"""Operations on sockets."""

from harness.ops.words import DATA, MAPPING, READ, SOCKET, WRITE, Flag, Operation, Shown, Size, maybe_ref, new, operation, ref


class SendFlag(Flag):
    ZEROCOPY = "zerocopy", 0x4000000
    DONTWAIT = "dontwait", 0x40


@operation("tcp_pair")
class TcpPair(Operation):
    """Two connected TCP sockets over the guest's loopback; what is sent to the name is received from it."""

    name: str = new(SOCKET)


@operation("unix_pair")
class UnixPair(Operation):
    """socketpair(2) of stream sockets; what is sent to the name is received from it."""

    name: str = new(SOCKET)


@operation("set_zerocopy")
class SetZerocopy(Operation):
    """setsockopt(2) SO_ZEROCOPY on the sending socket."""

    socket: str = ref(SOCKET, uses=WRITE)


@operation("send")
class Send(Operation):
    """send(2) of tagged bytes, or from a mapping."""

    socket: str = ref(SOCKET, uses=WRITE)
    length: Size
    from_: str | None = maybe_ref(MAPPING, default=None)
    from_offset: Size = 0
    flags: tuple[SendFlag, ...] = ()


@operation("recv", DATA)
class Recv(Operation):
    """recv(2) with MSG_WAITALL (without ``flags``), so that the count is not a matter of timing."""

    socket: str = ref(SOCKET, uses=READ)
    length: Size
    flags: tuple[SendFlag, ...] = ()


@operation(
    "recv_errqueue",
    Shown("completions", "how many sends are told as completed", "sends"),
    Shown("lo", "the first of them", "sends"),
    Shown("hi", "the last of them", "sends"),
    Shown("copied", "SO_EE_CODE_ZEROCOPY_COPIED"),
    Shown("origin", "ee_origin, where it is not that of a zero-copy send"),
)
class RecvErrqueue(Operation):
    """recvmsg(2) MSG_ERRQUEUE on the sending socket, after poll(2) said there is something: zero-copy completions."""

    socket: str = ref(SOCKET)
