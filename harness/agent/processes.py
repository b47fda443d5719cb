"""Futexes and other processes. ``fork`` and ``join`` are done by actors and supervisor themselves."""

import ctypes

from harness.agent.outcome import MissingNameError, Outcome, outcome
from harness.agent.performer import Performer, doer
from harness.agent.syscalls import call
from harness.ops.processes import FutexWait, FutexWake, ProcessVmReadv

_FUTEX_WAIT, _FUTEX_WAKE, _FUTEX_PRIVATE = 0, 1, 128


@doer
def do_futex_wait(me: Performer, op: FutexWait) -> Outcome:
    address = me.mapping(op.mapping).address + op.offset
    limit, keep = 0, None
    if op.timeout_ms is not None:
        keep = (ctypes.c_int64 * 2)(op.timeout_ms // 1000, op.timeout_ms % 1000 * 1_000_000)
        limit = ctypes.addressof(keep)
    result = call("futex", address, _FUTEX_WAIT | (_FUTEX_PRIVATE if op.private else 0), op.value, limit)
    del keep
    return outcome(result)


@doer
def do_futex_wake(me: Performer, op: FutexWake) -> Outcome:
    address = me.mapping(op.mapping).address + op.offset
    return outcome(call("futex", address, _FUTEX_WAKE | (_FUTEX_PRIVATE if op.private else 0), op.count))


@doer
def do_process_vm_readv(me: Performer, op: ProcessVmReadv) -> Outcome:
    process, base = me.remote  # the supervisor knows who and where; 0 where there is no such process or mapping
    if not process or not base:
        raise MissingNameError(op.mapping if process else op.target)
    address = me.scratch.poisoned(op.length)
    here, there = me.scratch.iovec([(address, op.length)]), me.scratch.iovec([(base + op.offset, op.length)])
    return me.arrived(call("process_vm_readv", process, here, 1, there, 1), address)
