"""Rules for sockets: send, receive, zero-copy completions."""

from dataclasses import replace

from harness.model.clause import Context, Undetermined, clause
from harness.model.content import cut, tagged
from harness.model.outcome import How
from harness.model.rules.buffers import sent
from harness.model.rules.moving import (
    DELIVERED_MOST_BYTES,
    DELIVERED_SURE_BYTES,
    SENDER_SURE_BYTES,
    SOCKET_SURE_BYTES,
    mapped_views,
    outgoing_bytes,
    readable_bytes,
    receiver_gone,
    socket_stops,
)
from harness.model.rules.rule import look_up, rule
from harness.model.state import Mapping, Socket, State, View, copy_view, take
from harness.ops import (
    Recv,
    RecvErrqueue,
    Send,
    SendFlag,
    SetZerocopy,
    TcpPair,
    UnixPair,
)

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
def tcp_pair(c: Context, s: State, op: TcpPair) -> list[State]:
    return _socket_made(c, s, op.name, "tcp")


@rule(UnixPair)
def unix_pair(c: Context, s: State, op: UnixPair) -> list[State]:
    return _socket_made(c, s, op.name, "unix")


def _socket_made(c: Context, s: State, name: str, kind: str) -> list[State]:
    if not c.returns("C-SOCK-01", 0):
        return []
    s, number = s.adding(Socket(kind))
    return [s.naming(c.process, name, number)]


@rule(SetZerocopy)
def set_zerocopy(c: Context, s: State, op: SetZerocopy) -> list[State]:
    number, of = look_up(c, s, op.socket, Socket)
    if c.refuses(("EOPNOTSUPP", of.kind == "unix", "C-SOCK-02")):
        return [s] if c.settled else []
    return [s.with_object(number, replace(of, zerocopy=True))] if c.returns("C-SOCK-02", 0) else []


@rule(Send)
def send(c: Context, s: State, op: Send) -> list[State]:
    number, of = look_up(c, s, op.socket, Socket)
    if op.length < 0:
        raise Undetermined("no clause covers a negative length")
    gone = receiver_gone(c, s, of) if op.length or of.kind == "unix" else None
    if gone is not None:
        return gone
    if op.length == 0:
        return [s] if c.returns("C-SOCK-03", 0) else []
    if SendFlag.ZEROCOPY in op.flags and of.zerocopy:
        return _send_zerocopy(c, s, op, number, of)
    pieces = outgoing_bytes(c, s, op.length, op.from_, op.from_offset, "C-SOCK-05")
    if pieces is None:
        return [s] if c.settled else []
    stopped = socket_stops(c, s, of, op.length, nonblock=SendFlag.DONTWAIT in op.flags)
    if stopped is not None:
        return stopped
    if not _sent(c, op, of.length + op.length <= SOCKET_SURE_BYTES):
        return []
    after = s.with_object(number, replace(of, views=(*of.views, copy_view(cut(pieces, 0, c.seen.value))), held=False))
    return [after] if op.from_ is None else sent(after, look_up(c, s, op.from_, Mapping)[0], op.from_offset, c.seen.value)


def _sent(c: Context, op: Send, fits: bool) -> bool:
    if fits or SendFlag.DONTWAIT not in op.flags:
        return c.returns("C-SOCK-03", op.length)
    return c.counts("C-SOCK-03", lambda n: 0 < n <= op.length, f"1..{op.length}")


def _send_zerocopy(c: Context, s: State, op: Send, number: int, of: Socket) -> list[State]:
    queued = of.length
    if queued + op.length > SENDER_SURE_BYTES or SendFlag.DONTWAIT in op.flags:
        raise Undetermined("how much of a large zero-copy send waits at the sender is not specified")
    if DELIVERED_SURE_BYTES < queued + op.length <= DELIVERED_MOST_BYTES:
        raise Undetermined("how much of a zero-copy send reaches the receiver at once is not specified")
    if op.from_ is None:
        if not _sent(c, op, True):
            return []
        tail = View(op.length, pieces=tagged(c.writer, op.length))
        return [s.with_object(number, replace(of, views=(*of.views, tail), sends=of.sends + 1))]
    mapping, m = look_up(c, s, op.from_, Mapping)
    there = readable_bytes(s, m, op.from_offset, op.length)
    if c.refuses(("EFAULT", not m.readable or there == 0, "C-ZC-01")):
        return [s] if c.settled else []
    if there < op.length:
        raise Undetermined("how much of a buffer that can be read in part is sent is not specified")
    if not _sent(c, op, True):
        return []
    states = []
    for state in sent(s, mapping, op.from_offset, op.length):
        pages = mapped_views(c, state, mapping, op.from_offset, op.from_offset + op.length)
        arrived, left = take(pages, max(0, DELIVERED_SURE_BYTES - queued))
        perhaps, waiting = take(left, max(0, DELIVERED_MOST_BYTES - max(queued, DELIVERED_SURE_BYTES)))
        if perhaps and any(v.overlay for v in perhaps):
            raise Undetermined("no clause covers a large zero-copy send of private pages")
        copied = tuple(copy_view(state.resolve((v,))) for v in arrived)
        unsure = tuple(replace(v, pieces=state.resolve((v,)), pins=False) for v in perhaps)
        if not c.holds("C-ZC-02", True):
            copied = arrived
        queue = (*of.views, *copied, *unsure, *waiting)
        states.append(state.with_object(number, replace(of, views=queue, sends=of.sends + 1)))
    return states


@rule(Recv)
def recv(c: Context, s: State, op: Recv) -> list[State]:
    number, of = look_up(c, s, op.socket, Socket)
    if op.length < 0 or of.kind not in ("tcp", "unix"):
        raise Undetermined("no clause covers receiving a negative length, or from this kind of socket")
    if op.length == 0:
        c.doubts("no clause covers receiving nothing")
        return [s]
    there = min(op.length, of.length)
    if not of.write_open and there < op.length and not (op.flags and of.held):
        if not c.returns("C-SOCK-09", there):
            return []
    elif op.flags:
        if of.held:
            return _recv_held(c, s, number, of, there)
        if c.refuses(("EAGAIN", there == 0, "C-SOCK-06")):
            return [s] if c.settled else []
        sure = min(there, DELIVERED_SURE_BYTES) if of.kind == "tcp" else there
        if not c.counts("C-SOCK-06", lambda n: sure <= n <= there, f"{sure}..{there}" if sure < there else str(there)):
            return []
    else:
        if c.blocks("C-SOCK-06", of.length < op.length):
            return [s] if c.settled else []
        if not c.returns("C-SOCK-06", op.length):
            return []
    return _received_from(c, s, number, of, c.seen.value)


def _recv_held(c: Context, s: State, number: int, of: Socket, there: int) -> list[State]:
    """Return the states after not waiting for bytes of which the sender may hold the last back (tcp(7) TCP_CORK: up to 200 ms)."""
    if c.seen.how is How.FAILED:
        return [s] if c.agrees("C-SOCK-10", c.seen.errno == "EAGAIN", f"returns 0..{there}, or EAGAIN", c.seen.describe()) else []
    if not c.counts("C-SOCK-10", lambda n: 0 <= n <= there, f"0..{there}"):
        return []
    return _received_from(c, s, number, of, c.seen.value)


def _received_from(c: Context, s: State, number: int, of: Socket, count: int) -> list[State]:
    head, rest = take(of.views, count)
    if count and not c.shows("C-SOCK-07", s.resolve(head)):
        return []
    return [s.with_object(number, replace(of, views=rest, held=of.held and bool(rest)))]


@rule(RecvErrqueue)
def recv_errqueue(c: Context, s: State, op: RecvErrqueue) -> list[State]:
    number, of = look_up(c, s, op.socket, Socket)
    if not of.read_open or not of.write_open:
        raise Undetermined("no clause covers the error queue of a connection that ends")
    waiting = of.sends - of.completed
    held = any(v.pins for v in of.views)
    if held and waiting > 1:
        raise Undetermined("which of several zero-copy sends still wait at the sender is not known to the model")
    if c.blocks("C-ZC-03", waiting == 0 or held):
        return [s] if c.settled else []
    if not c.returns("C-ZC-03", 0):
        return []
    done, low = c.seen.number("completions") or 0, c.seen.number("lo")
    right = 1 <= done <= waiting and low == of.completed and c.seen.number("copied") == 1
    allowed = f"1..{waiting} completions from {of.completed} on, copied"
    seen = f"{done} completions from {low} on, copied {c.seen.number('copied')}"
    if not c.agrees("C-ZC-03", right, allowed, seen):
        return []
    return [s.with_object(number, replace(of, completed=of.completed + done))]
