"""What is done to pipes, and what moves bytes through them."""

import ctypes
import os

from harness.agent.outcome import Outcome, outcome
from harness.agent.performer import Ends, Performer, bits, doer
from harness.agent.syscalls import call
from harness.ops.pipes import Pipe, Sendfile, SetPipeSize, Splice, Tee, Vmsplice

_F_SETPIPE_SZ = 1031


@doer
def do_pipe(me: Performer, op: Pipe) -> Outcome:
    pair = (ctypes.c_int * 2)(-1, -1)
    result = call("pipe2", ctypes.addressof(pair), os.O_NONBLOCK if op.nonblock else 0)
    if result >= 0:
        me.add(op.name, Ends(pair[0], pair[1]))
    return outcome(result)


@doer
def do_set_pipe_size(me: Performer, op: SetPipeSize) -> Outcome:
    return outcome(call("fcntl", me.source(op.pipe), _F_SETPIPE_SZ, op.size))


@doer
def do_splice(me: Performer, op: Splice) -> Outcome:
    from_at, to_at = me.scratch.offset(op.source_offset), me.scratch.offset(op.target_offset)
    return outcome(call("splice", me.source(op.source), from_at, me.target(op.target), to_at, op.length, bits(op.flags)))


@doer
def do_sendfile(me: Performer, op: Sendfile) -> Outcome:
    return outcome(call("sendfile", me.target(op.target), me.source(op.source), me.scratch.offset(op.offset), op.length))


@doer
def do_tee(me: Performer, op: Tee) -> Outcome:
    return outcome(call("tee", me.source(op.source), me.target(op.target), op.length, bits(op.flags)))


@doer
def do_vmsplice(me: Performer, op: Vmsplice) -> Outcome:
    vector = me.scratch.iovec([(me.mapping(op.mapping).address + op.offset, op.length)])
    return outcome(call("vmsplice", me.target(op.pipe), vector, 1, bits(op.flags)))
