"""Rules for sockets: send, receive, zero-copy completions."""

from harness.model.clause import Context, Undetermined, clause
from harness.model.content import cut, tagged
from harness.model.expectation import Completions, Expectation, Expectations, Next, whatever
from harness.model.objects import Mapping, Socket, SocketKind, View, copy_view, take
from harness.model.outcome import How, Observation
from harness.model.rules.buffers import sent
from harness.model.rules.moving import (
    DELIVERED_MOST_BYTES,
    DELIVERED_SURE_BYTES,
    SENDER_SURE_BYTES,
    SOCKET_SURE_BYTES,
    mapped_views,
    outgoing_bytes,
    readable_bytes,
    socket_full,
    socket_gone,
    unreadable,
)
from harness.model.rules.rule import look_up, rule
from harness.model.state import State
from harness.model.value import evolve
from harness.ops import Recv, RecvErrqueue, Send, SendFlag, SetZerocopy, TcpPair, UnixPair

clause("C-SOCK-01", "a connected pair of stream sockets is made", "socketpair(2), tcp(7)")
clause("C-SOCK-02", "SO_ZEROCOPY can be set on TCP, and is EOPNOTSUPP on Unix sockets", "net/core/sock.c sock_setsockopt; msg_zerocopy.rst")
clause("C-SOCK-03", "send takes the bytes; all of them where the socket has room", "send(2)")
clause(
    "C-SOCK-08",
    "sending to a connection whose receiving end is closed is EPIPE, or ECONNRESET on TCP (the signal is ignored)",
    "send(2) ERRORS; net/ipv4/tcp_input.c tcp_reset",
)
clause("C-SOCK-09", "receiving from a connection whose sending end is closed gives what is there, and then 0", "recv(2)")
clause("C-SOCK-10", "what was sent with the word that more comes may be held back for a moment", "splice(2) SPLICE_F_MORE; tcp(7) TCP_CORK")
clause("C-SOCK-05", "send from memory that cannot be read is EFAULT", "send(2) ERRORS")
clause(
    "C-SOCK-06",
    "recv with MSG_WAITALL returns the length, and waits while there is less; without waiting it returns what is there, or EAGAIN; of a "
    "lot that was sent over TCP the end may still be on its way",
    "recv(2)",
)
clause(
    "C-SOCK-07",
    "a socket gives its bytes in order: copies as they were, spliced pages as they are now",
    "tcp(7); net/core/skbuff.c skb_splice_from_iter (since 6.5), net/ipv4/tcp.c do_tcp_sendpages and net/unix unix_stream_sendpage (6.1)",
)
clause(
    "C-ZC-01",
    "a zero-copy send needs struct pages that it can pin: EFAULT",
    "net/core/datagram.c __zerocopy_sg_from_iter; mm/gup.c check_vma_flags",
)
clause(
    "C-ZC-02",
    "over loopback, zero-copy data is copied when it reaches the receiver's queue, and its pages are let go",
    "net/core/dev.c __netif_receive_skb_core calls skb_orphan_frags_rx; Documentation/networking/msg_zerocopy.rst Loopback",
)
clause(
    "C-ZC-03",
    "each zero-copy send is completed once, in order, as copied over loopback; while its data waits at the sender, it is not",
    "Documentation/networking/msg_zerocopy.rst Notification Reception",
)


@rule(TcpPair)
def tcp_pair(c: Context, s: State, op: TcpPair) -> Expectations:
    return _socket_made(c, s, op.name, SocketKind.TCP)


@rule(UnixPair)
def unix_pair(c: Context, s: State, op: UnixPair) -> Expectations:
    return _socket_made(c, s, op.name, SocketKind.UNIX)


def _socket_made(c: Context, s: State, name: str, kind: SocketKind) -> Expectations:
    s, number = s.adding(Socket(kind))
    return c.returns("C-SOCK-01", 0).leaving(s.naming(c.process, name, number))


@rule(SetZerocopy)
def set_zerocopy(c: Context, s: State, op: SetZerocopy) -> Expectations:
    number, of = look_up(c, s, op.socket, Socket)
    if refused := c.refuses(("EOPNOTSUPP", of.kind is SocketKind.UNIX, "C-SOCK-02")):
        return refused.leaving(s)
    return c.returns("C-SOCK-02", 0).leaving(s.with_object(number, evolve(of, zerocopy=True)))


@rule(Send)
def send(c: Context, s: State, op: Send) -> Expectations:
    number, of = look_up(c, s, op.socket, Socket)
    if op.length < 0:
        raise Undetermined("no clause covers a negative length")
    if (op.length or of.kind is SocketKind.UNIX) and (gone := socket_gone(c, s, of)) is not None:
        return gone
    if op.length == 0:
        return c.returns("C-SOCK-03", 0).leaving(s)
    if SendFlag.ZEROCOPY in op.flags and of.zerocopy:
        return _send_zerocopy(c, s, op, number, of)
    if refused := unreadable(c, s, op.from_, op.from_offset, op.length, "C-SOCK-05"):
        return refused.leaving(s)
    pieces = outgoing_bytes(c, s, op.length, op.from_, op.from_offset)
    full = socket_full(of, op.length, nonblock=SendFlag.DONTWAIT in op.flags)

    def taken(count: int) -> list[State]:
        after = s.with_object(number, evolve(of, views=(*of.views, copy_view(cut(pieces, 0, count))), held=False))
        return [after] if op.from_ is None else sent(after, look_up(c, s, op.from_, Mapping)[0], op.from_offset, count)

    return (*full, *_sending(c, op, of.length + op.length <= SOCKET_SURE_BYTES).by(taken))


def _sending(c: Context, op: Send, fits: bool) -> Expectation:
    if fits or SendFlag.DONTWAIT not in op.flags:
        return c.returns("C-SOCK-03", op.length)
    return c.counts("C-SOCK-03", 1, op.length, f"1..{op.length}")


def _send_zerocopy(c: Context, s: State, op: Send, number: int, of: Socket) -> Expectations:
    queued = of.length
    if queued + op.length > SENDER_SURE_BYTES or SendFlag.DONTWAIT in op.flags:
        raise Undetermined("how much of a large zero-copy send waits at the sender is not specified")
    if DELIVERED_SURE_BYTES < queued + op.length <= DELIVERED_MOST_BYTES:
        raise Undetermined("how much of a zero-copy send reaches the receiver at once is not specified")
    expected = c.returns("C-SOCK-03", op.length)
    if op.from_ is None:
        tail = View(op.length, pieces=tagged(c.writer, op.length))
        return expected.leaving(s.with_object(number, evolve(of, views=(*of.views, tail), sends=of.sends + 1)))
    mapping, m = look_up(c, s, op.from_, Mapping)
    there = readable_bytes(s, m, op.from_offset, op.length)
    if refused := c.refuses(("EFAULT", not m.readable or there == 0, "C-ZC-01")):
        return refused.leaving(s)
    if there < op.length:
        raise Undetermined("how much of a buffer that can be read in part is sent is not specified")
    states = sent(s, mapping, op.from_offset, op.length)
    return expected.by(lambda count: [_pinned_and_queued(c, state, number, of, mapping, op) for state in states])


def _pinned_and_queued(c: Context, s: State, number: int, of: Socket, mapping: int, op: Send) -> State:
    """Return the state after a zero-copy send from a mapping: what reached the receiver is a copy, the rest waits as pages."""
    queued = of.length
    pages = mapped_views(c, s, mapping, op.from_offset, op.from_offset + op.length)
    arrived, left = take(pages, max(0, DELIVERED_SURE_BYTES - queued))
    perhaps, waiting = take(left, max(0, DELIVERED_MOST_BYTES - max(queued, DELIVERED_SURE_BYTES)))
    if perhaps and any(v.overlay for v in perhaps):
        raise Undetermined("no clause covers a large zero-copy send of private pages")
    copied = tuple(copy_view(s.resolve((v,))) for v in arrived)
    unsure = tuple(evolve(v, pieces=s.resolve((v,)), pins=False) for v in perhaps)
    if not c.holds("C-ZC-02", True):
        copied = arrived
    return s.with_object(number, evolve(of, views=(*of.views, *copied, *unsure, *waiting), sends=of.sends + 1))


@rule(Recv)
def recv(c: Context, s: State, op: Recv) -> Expectations:
    number, of = look_up(c, s, op.socket, Socket)
    if op.length < 0 or not of.kind.is_stream:
        raise Undetermined("no clause covers receiving a negative length, or from this kind of socket")
    if op.length == 0:
        return whatever(s, "no clause covers receiving nothing")
    there = min(op.length, of.length)
    if not of.write_open and there < op.length and not (op.flags and of.held):
        return _receiving(s, number, of, c.returns("C-SOCK-09", there))
    if op.flags and of.held:
        # tcp(7) TCP_CORK: up to 200 ms.
        late = Expectation(How.FAILED, "C-SOCK-10", f"returns 0..{there}, or EAGAIN", names=("EAGAIN",), asks=True).leaving(s)
        return (*late, *_receiving(s, number, of, c.counts("C-SOCK-10", 0, there, f"0..{there}")))
    if op.flags:
        if refused := c.refuses(("EAGAIN", there == 0, "C-SOCK-06")):
            return refused.leaving(s)
        sure = min(there, DELIVERED_SURE_BYTES) if of.kind is SocketKind.TCP else there
        return _receiving(s, number, of, c.counts("C-SOCK-06", sure, there))
    if blocked := c.blocks("C-SOCK-06", of.length < op.length):
        return blocked.leaving(s)
    return _receiving(s, number, of, c.returns("C-SOCK-06", op.length))


def _receiving(s: State, number: int, of: Socket, expected: Expectation) -> Expectations:
    """Return ``expected`` with the bytes that come, and the states that follow."""

    def received(count: int) -> list[State]:
        _, rest = take(of.views, count)
        return [s.with_object(number, evolve(of, views=rest, held=of.held and bool(rest)))]

    # Of nothing nobody asks what it is.
    return (expected.shows("C-SOCK-07", s.resolve(of.views)) if expected.high else expected).by(received)


@rule(RecvErrqueue)
def recv_errqueue(c: Context, s: State, op: RecvErrqueue) -> Expectations:
    number, of = look_up(c, s, op.socket, Socket)
    if not of.read_open or not of.write_open:
        raise Undetermined("no clause covers the error queue of a connection that ends")
    waiting = of.sends - of.completed
    held = any(v.pins for v in of.views)
    if held and waiting > 1:
        raise Undetermined("which of several zero-copy sends still wait at the sender is not known to the model")
    if blocked := c.blocks("C-ZC-03", waiting == 0 or held):
        return blocked.leaving(s)
    completed = (Completions("C-ZC-03", waiting, of.completed),)

    def notified(seen: Observation) -> list[Next]:
        done = seen.number("completions") or 0
        return [Next(s.with_object(number, evolve(of, completed=of.completed + done)), completed)]

    return c.returns("C-ZC-03", 0).lazily(notified)
