"""Where the kernel says that it answered and wrote nothing, no earlier answer shows; and numbers reach it as it would see them."""

import ctypes
import errno
import struct
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from harness import ops as op
from harness.agent import files, mappings, memory, pins, pipes, sockets
from harness.agent.doers import perform
from harness.agent.memory import Scratch
from harness.agent.outcome import Outcome
from harness.agent.performer import Performer, Place
from harness.ops import Operation, Step

PAGE = 4096
Do = Callable[[Operation], Outcome]


@pytest.fixture
def me(tmp_path: Path) -> Performer:
    return Performer(Place({"main": str(tmp_path)}, {}))


@pytest.fixture
def do(me: Performer) -> Do:
    def done(operation: Operation) -> Outcome:
        return perform(me, 0, Step(operation))

    done(op.Open("f", "a", (op.OpenFlag.RDWR, op.OpenFlag.CREAT)))
    done(op.Pwrite("f", 0, 2 * PAGE))
    done(op.Mmap("m", 2 * PAGE, "f"))
    return done


def answer_nothing(monkeypatch: pytest.MonkeyPatch, *modules: ModuleType) -> None:
    for module in modules:
        monkeypatch.setattr(module, "call", lambda *_: 0)


def test_a_statx_and_a_mincore_that_wrote_nothing_show_nothing(do: Do, monkeypatch: pytest.MonkeyPatch) -> None:
    # The same scratch memory has the answers of real calls by now.
    assert do(op.Statx("f"))["attributes"]["size"] == 2 * PAGE
    assert do(op.Mincore("m"))["resident"] == "11"
    answer_nothing(monkeypatch, files, mappings)
    assert set(do(op.Statx("f"))["attributes"].values()) == {0}
    do(op.Pwrite("f", 0, 2 * PAGE))  # its bytes were in that memory
    assert do(op.Mincore("m"))["resident"] == "00"


def test_other_answers_that_were_not_written_show_nothing(me: Performer, do: Do, monkeypatch: pytest.MonkeyPatch) -> None:
    do(op.UnixPair("s"))
    answer_nothing(monkeypatch, files, pipes, pins, sockets)
    assert do(op.GetXflags("f"))["value"] == 0
    assert do(op.RecvErrqueue("s"))["attributes"] == {"completions": 0, "origin": 0}
    do(op.Pipe("p"))
    assert (me.names["p"].read, me.names["p"].write) == (-1, -1), "not the descriptors 0 of something else"


def test_faults_that_were_not_counted_are_none(do: Do, monkeypatch: pytest.MonkeyPatch) -> None:
    do(op.Mmap("n", 8 * PAGE, flags=(op.MapFlag.PRIVATE, op.MapFlag.ANONYMOUS)))
    do(op.Madvise("n", op.Advice.NOHUGEPAGE))
    assert do(op.Store("n", 0, 8 * PAGE))["minor_faults"] == 8
    monkeypatch.setattr(memory, "GETRUSAGE", lambda *_: 0)
    assert do(op.Store("n", 0, 8))["minor_faults"] == 0


def test_a_length_or_offset_that_is_no_64_bit_number_is_what_the_kernel_sees_of_it(do: Do) -> None:
    scratch = Scratch()
    assert struct.unpack("=4Q", ctypes.string_at(scratch.iovec([(PAGE, -1), (2**64 + 5, 7)]), 32)) == (PAGE, 2**64 - 1, 5, 7)
    assert struct.unpack("=2Q", ctypes.string_at(scratch.offset(-1), 8) + ctypes.string_at(scratch.offset(2**64 + 3), 8)) == (2**64 - 1, 3)
    assert scratch.offset(None) == 0
    # Within reach, and the rest of the mapping from there on is less than nothing.
    do(op.Mmap("n", 5000, flags=(op.MapFlag.PRIVATE, op.MapFlag.ANONYMOUS)))
    ring = do(op.IoUringSetup("r"))
    seen = do(op.IoUringRegister("r", "n", 2 * PAGE))
    if ring["how"] == "returned":
        assert seen["errno"] in {errno.errorcode[number] for number in (errno.EINVAL, errno.EFAULT, errno.EOVERFLOW)}
    else:
        assert seen["how"] == "not_run"
