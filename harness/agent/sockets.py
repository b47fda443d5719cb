"""What is done to sockets."""

import ctypes
import errno
import socket
import struct

from harness.agent.memory import PAGE, between_guards
from harness.agent.outcome import Outcome, failed, outcome, returned
from harness.agent.performer import Ends, Performer, bits, doer
from harness.agent.syscalls import call
from harness.ops.sockets import Recv, RecvErrqueue, Send, SendFlag, SetZerocopy, TcpPair, UnixPair
from harness.ops.tag import tag_bytes

_MSG_WAITALL = 0x100
_MSG_ERRQUEUE = 0x2000
_SOL_SOCKET, _SO_ZEROCOPY = 1, 60
_SO_EE_ORIGIN_ZEROCOPY = 5


@doer
def do_tcp_pair(me: Performer, op: TcpPair) -> Outcome:
    try:
        with socket.socket() as listener:  # create_server and create_connection would load what they need for other names
            listener.bind(("127.0.0.1", 0))
            listener.listen(1)
            sender = socket.socket()
            sender.connect(listener.getsockname())
            receiver, _ = listener.accept()
    except OSError as error:
        return failed(error.errno or errno.EIO)
    me.add(op.name, Ends(receiver.detach(), sender.detach()))
    return returned()


@doer
def do_unix_pair(me: Performer, op: UnixPair) -> Outcome:
    try:
        sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    except OSError as error:
        return failed(error.errno or errno.EIO)
    me.add(op.name, Ends(receiver.detach(), sender.detach()))
    return returned()


@doer
def do_set_zerocopy(me: Performer, op: SetZerocopy) -> Outcome:
    one = ctypes.c_int(1)
    return outcome(call("setsockopt", me.target(op.socket), _SOL_SOCKET, _SO_ZEROCOPY, ctypes.addressof(one), 4))


@doer
def do_send(me: Performer, op: Send) -> Outcome:
    if op.from_ is None and SendFlag.ZEROCOPY in op.flags:
        # The kernel goes on reading these pages after the call, so no later step may use them.
        data = tag_bytes(me.writer, 0, op.length)
        address = between_guards(len(data) or PAGE)
        ctypes.memmove(address, data, len(data))
    else:
        address = me.outgoing(op.length, 0, op.from_, op.from_offset)
    return outcome(call("sendto", me.target(op.socket), address, op.length, bits(op.flags), 0, 0))


@doer
def do_recv(me: Performer, op: Recv) -> Outcome:
    address = me.scratch.poisoned(op.length)
    chosen = bits(op.flags) if op.flags else _MSG_WAITALL
    return me.arrived(call("recvfrom", me.source(op.socket), address, op.length, chosen, 0, 0), address)


@doer
def do_recv_errqueue(me: Performer, op: RecvErrqueue) -> Outcome:
    descriptor = me.target(op.socket)
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
    if origin != _SO_EE_ORIGIN_ZEROCOPY:
        return returned(0, attributes={"completions": 0, "origin": origin})
    return returned(0, attributes={"completions": high - low + 1, "lo": low, "hi": high, "copied": code & 1})
