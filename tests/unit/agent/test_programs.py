"""Programs on this computer's own file systems: every kind of operation that needs no special device."""

import contextlib
import ctypes
import errno
import mmap as pagesize
import os
import signal
import struct
import threading
from pathlib import Path
from unittest.mock import ANY

import pytest

from harness import ops as op
from harness.agent import system
from harness.agent.memory import Scratch
from harness.host.deadline import Deadline, wait_until
from harness.model.outcome import How, Observation
from harness.ops import Step
from harness.ops.tag import tag_bytes
from tests.unit.agent.conftest import Client, Daemon, Runner
from tests.unit.agent.test_protocol import readers_of_pipes

PAGE = pagesize.PAGESIZE
RDWR = (op.OpenFlag.RDWR, op.OpenFlag.CREAT)
MIB = 1 << 20


def opened(name: str = "f", path: str = "a") -> op.Open:
    return op.Open(name, path, RDWR)


def runs(observation: Observation) -> list[tuple[int, int, str, int, int]]:
    return [(r.offset, r.length, str(r.kind), r.writer, r.source) for r in observation.data or ()]


def test_what_is_written_is_read_back_with_its_writer(runner: Runner) -> None:
    seen = runner.run(
        opened(), op.Pwrite("f", 0, 10_000), op.Pwrite("f", 4096, 512, shift=3), op.Pread("f", 0, 20_000, shift=7), op.Close("f")
    )
    assert [s.how for s in seen] == [How.RETURNED] * 5
    assert [s.value for s in seen] == [0, 10_000, 512, 10_000, 0]
    assert runs(seen[3]) == [(0, 4096, "tag", 2, 0), (4096, 512, "tag", 3, 0), (4608, 5392, "tag", 2, 4608)]


def test_a_name_with_a_role_is_on_the_other_volume(runner: Runner, tmp_path: Path) -> None:
    runner.run(opened("f", "target:b"), op.Write("f", 100))
    assert (tmp_path / "other" / "b").stat().st_size == 100


def test_a_root_that_is_no_folder_is_the_node_for_every_path(client: Client, tmp_path: Path) -> None:
    node = tmp_path / "node"
    node.write_bytes(bytes(5000))
    seen = Runner(client, {"main": str(node)}).run(opened("f", "anything"), op.Pread("f", 0, 8192))
    assert runs(seen[1]) == [(0, 5000, "zero", 0, 0)]


def test_a_failed_call_gives_the_name_of_its_error(runner: Runner) -> None:
    seen = runner.run(op.Open("f", "absent"), opened("g"), op.Lseek("g", -1), op.SetPipeSize("g", 4096))
    assert [(s.how, s.errno) for s in seen] == [
        (How.FAILED, "ENOENT"),
        (How.RETURNED, None),
        (How.FAILED, "EINVAL"),
        (How.FAILED, "EBADF"),
    ]


def test_unsupported_is_called_eopnotsupp(runner: Runner) -> None:
    (_, seen) = runner.run(opened(), op.Pread("f", 0, 1, flags=(op.RwFlag.DONTCACHE, op.RwFlag.NOWAIT, op.RwFlag.HIPRI)))
    assert seen.errno in {None, "EOPNOTSUPP", "EAGAIN"}
    assert errno.EOPNOTSUPP == errno.ENOTSUP


def test_a_step_on_a_name_that_was_never_made_is_not_run_and_says_so(runner: Runner) -> None:
    seen = runner.run(op.Open("f", "absent"), op.Pread("f", 0, 1), opened("g"))
    assert seen[1].how is How.NOT_RUN
    assert seen[1].attribute("missing") == "f"
    assert seen[2].how is How.RETURNED


def test_a_closed_name_is_ebadf_even_when_its_number_is_used_again(runner: Runner) -> None:
    seen = runner.run(opened(), op.Close("f"), opened("g", "b"), op.Pread("f", 0, 1), op.Close("f"))
    assert [s.errno for s in seen] == [None, None, None, "EBADF", "EBADF"]


def test_vectors_run_on_over_their_buffers(runner: Runner) -> None:
    buffers = (op.Buffer(100), op.Buffer(0), op.Buffer(3, shift=1), op.Buffer(5000, shift=4095))
    seen = runner.run(
        opened(), op.Pwritev("f", 10, buffers), op.Preadv("f", 0, buffers), op.Preadv("f", 10, buffers, flags=(op.RwFlag.HIPRI,))
    )
    assert [s.value for s in seen] == [0, 5103, 5103, 5103]
    assert runs(seen[2])[:2] == [(0, 10, "zero", 0, 0), (10, 5093, "tag", 2, 0)]
    assert runs(seen[3]) == [(0, 5103, "tag", 2, 0)]


def test_a_vector_into_a_mapping_has_no_data_and_the_mapping_has_the_bytes(runner: Runner) -> None:
    anonymous = (op.MapFlag.PRIVATE, op.MapFlag.ANONYMOUS)
    seen = runner.run(
        opened(),
        op.Pwrite("f", 0, 8192),
        op.Mmap("m", 8192, flags=anonymous),
        op.Preadv("f", 0, (op.Buffer(100), op.Buffer(4096, mapping="m", offset=5))),
        op.Load("m", 0, 4096),
        op.Pread("f", 4096, 4096, into="m", into_offset=4096),
        op.Pwrite("f", 20_000, 8192, from_="m"),
        op.Pread("f", 20_000, 8192),
    )
    assert seen[3].value == 4196
    assert seen[3].data is None
    assert seen[5].data is None
    assert seen[4].data_bytes() == bytes(5) + tag_bytes(2, 100, 4091)
    assert seen[6].value == 8192
    assert seen[7].data_bytes() == bytes(5) + tag_bytes(2, 100, 4091) + tag_bytes(2, 4096, 4096)


def test_position_size_and_allocation(runner: Runner) -> None:
    seen = runner.run(
        opened(),
        op.Write("f", 4096),
        op.Lseek("f", 0, op.Whence.CUR),
        op.Ftruncate("f", 3 * 4096),
        op.Fallocate("f", 2 * 4096, 4096),
        op.Statx("f"),
        op.Fallocate("f", 0, 4096, (op.AllocateFlag.PUNCH_HOLE, op.AllocateFlag.KEEP_SIZE)),
        op.Lseek("f", 0, op.Whence.DATA),
        op.Fsync("f"),
        op.Fdatasync("f"),
        op.Pread("f", 0, 3 * 4096),
    )
    assert [s.value for s in seen[1:5]] == [4096, 4096, 0, 0]
    assert seen[5].number("size") == 3 * 4096
    assert seen[5].number("blocks") == 16
    assert seen[5].number("dax") == 0
    assert seen[5].number("dio_supported") in {0, 1}
    assert seen[7].how in {How.RETURNED, How.FAILED}
    assert runs(seen[10]) == [(0, 3 * 4096, "zero", 0, 0)]


def test_writing_back_and_advice(runner: Runner) -> None:
    seen = runner.run(
        opened(),
        op.Write("f", 8192),
        op.Syncfs("f"),
        op.SyncFileRange("f", 0, 4096, tuple(op.RangeSyncFlag)),
        op.SyncFileRange("f", -1, 0),
        *(op.Fadvise("f", advice) for advice in op.FileAdvice),
        op.Readahead("f", 0, 8192),
        op.Pipe("p"),
        op.Fadvise("p", op.FileAdvice.DONTNEED),
        op.SyncFileRange("p", 0, 0),
        op.Readahead("p", 0, 1),
        op.Pread("f", 0, 8192),
    )
    assert [s.value for s in (*seen[2:4], *seen[5:12])] == [0] * 9
    assert seen[4].errno == "EINVAL"
    assert [s.errno for s in seen[13:16]] == ["ESPIPE", "ESPIPE", "EINVAL"]
    assert runs(seen[16]) == [(0, 8192, "tag", 2, 0)]


def test_copy_file_range_with_and_without_offsets(runner: Runner) -> None:
    seen = runner.run(
        opened(), op.Pwrite("f", 0, 8192), opened("g", "b"), op.CopyFileRange("f", "g", 4096, 100, 0), op.Pread("g", 0, 9000),
        op.CopyFileRange("f", "g", 50), op.Lseek("f", 0, op.Whence.CUR),
    )  # fmt: skip
    assert runs(seen[4]) == [(0, 4096, "tag", 2, 100)]
    assert [seen[5].value, seen[6].value] == [50, 50]


def test_a_clone_is_made_or_refused_as_the_file_system_can(runner: Runner) -> None:
    seen = runner.run(
        opened(), op.Pwrite("f", 0, 8192), opened("g", "b"), op.Ficlone("f", "g"), op.Ficlonerange("f", "g", 4096, 4096, 8192),
        op.Pread("g", 0, 20_000), op.Ficlonerange("f", "g", 4096, -4096), op.Ficlone("f", "f"),
    )  # fmt: skip
    if seen[3].how is How.RETURNED:
        assert runs(seen[5]) == [(0, 8192, "tag", 2, 0), (8192, 4096, "tag", 2, 4096)]
    else:
        assert [s.errno for s in seen[3:5]] == ["EOPNOTSUPP"] * 2
    assert {s.errno for s in seen[6:]} <= {"EINVAL", "EOPNOTSUPP"}


def test_deduplication_tells_of_its_target_or_is_refused_as_the_file_system_can(runner: Runner) -> None:
    seen = runner.run(opened(), op.Pwrite("f", 0, 8192), opened("g", "b"), op.Pwrite("g", 0, 8192), op.Fideduperange("f", "g", 4096))
    assert seen[4].errno in {None, "EOPNOTSUPP"}
    if seen[4].how is How.RETURNED:
        assert (seen[4].number("status"), seen[4].number("bytes_deduped")) == (1, 0)


def test_the_record_of_a_range_is_as_the_kernel_reads_it() -> None:
    scratch = Scratch()
    assert ctypes.string_at(scratch.words(3, -4096, 1 << 40), 24) == struct.pack("=qqQ", 3, -4096, 1 << 40)
    scratch.close()


def test_xflags_are_read_or_refused(runner: Runner) -> None:
    seen = runner.run(opened(), op.GetXflags("f"), op.SetXflags("f", dax=False))
    assert all(s.how in {How.RETURNED, How.FAILED} for s in seen)
    assert seen[1].value == 0


def test_splice_goes_through_a_pipe_in_both_directions(runner: Runner) -> None:
    seen = runner.run(
        opened(), op.Pwrite("f", 0, 8192), op.Pipe("p"), op.SetPipeSize("p", 65536), op.Splice("f", "p", 5000, source_offset=100),
        opened("g", "b"), op.Splice("p", "g", 4000, target_offset=3), op.Read("p", 2000), op.Pread("g", 0, 8192),
    )  # fmt: skip
    assert [s.value for s in seen[3:]] == [65536, 5000, 0, 4000, 1000, 4003]
    assert runs(seen[7]) == [(0, 1000, "tag", 2, 4100)]
    assert seen[8].data_bytes() == bytes(3) + tag_bytes(2, 100, 4000)


def test_a_nonblocking_pipe_says_eagain_and_a_half_closed_one_epipe(runner: Runner) -> None:
    seen = runner.run(op.Pipe("p", nonblock=True), op.Read("p", 10), op.Close("p", "read"), op.Write("p", 10), op.Close("p", "write"))
    assert [s.errno for s in seen] == [None, "EAGAIN", None, "EPIPE", None]


def test_tee_and_vmsplice_fill_pipes(runner: Runner) -> None:
    seen = runner.run(
        opened(), op.Pwrite("f", 0, 8192), op.Mmap("m", 8192, "f"), op.Pipe("p"), op.Pipe("q"), op.Vmsplice("p", "m", 8, 1000),
        op.Tee("p", "q", 600), op.Read("p", 4096), op.Read("q", 4096),
    )  # fmt: skip
    assert [s.value for s in seen[5:]] == [1000, 600, 1000, 600]
    assert runs(seen[7]) == [(0, 1000, "tag", 2, 8)]
    assert runs(seen[8]) == [(0, 600, "tag", 2, 8)]


@pytest.mark.parametrize("pair", [op.TcpPair("s"), op.UnixPair("s")])
def test_what_is_sent_to_a_pair_is_received_from_it(runner: Runner, pair: op.Operation) -> None:
    seen = runner.run(
        pair, op.Send("s", 3000), op.Recv("s", 3000), opened(), op.Pwrite("f", 0, 4096), op.Sendfile("f", "s", 500, 10), op.Recv("s", 500),
        op.Recv("s", 10, (op.SendFlag.DONTWAIT,)), op.Close("s", "write"), op.Recv("s", 10),
    )  # fmt: skip
    assert runs(seen[2]) == [(0, 3000, "tag", 2, 0)]
    assert runs(seen[6]) == [(0, 500, "tag", 5, 10)]
    assert seen[7].errno == "EAGAIN"
    assert seen[9].value == 0


def test_zero_copy_sends_are_completed_on_the_error_queue(runner: Runner) -> None:
    seen = runner.run(
        op.TcpPair("s"), op.SetZerocopy("s"), op.Send("s", 5000, flags=(op.SendFlag.ZEROCOPY,)), op.Recv("s", 5000), op.RecvErrqueue("s")
    )
    assert seen[2].value == 5000
    assert runs(seen[3]) == [(0, 5000, "tag", 3, 0)]
    assert (seen[4].number("completions"), seen[4].number("lo"), seen[4].number("hi")) == (1, 0, 0)
    assert seen[4].number("copied") in {0, 1}


def test_loads_and_stores_go_through_the_mapping(runner: Runner) -> None:
    seen = runner.run(
        opened(), op.Ftruncate("f", 4 * PAGE), op.Mmap("m", 4 * PAGE, "f"), op.Store("m", 1, 100), op.Store("m", PAGE, value=77),
        op.Pread("f", 0, 2 * PAGE), op.Load("m", 0, 200), op.Msync("m"), op.Munmap("m"), op.Load("m", 0, 1),
    )  # fmt: skip
    assert (seen[6].value, seen[6].data_bytes()) == (200, b"\0" + tag_bytes(4, 0, 100) + bytes(99))
    assert seen[5].data_bytes()[PAGE : PAGE + 4] == b"M\0\0\0"
    assert seen[9].how is How.NOT_RUN


def test_a_store_to_an_untouched_page_is_one_fault_and_to_a_touched_one_none(runner: Runner) -> None:
    seen = runner.run(
        op.Mmap("m", 8 * PAGE, flags=(op.MapFlag.PRIVATE, op.MapFlag.ANONYMOUS)), op.Madvise("m", op.Advice.NOHUGEPAGE),
        op.Store("m", 0, 10), op.Store("m", 0, 10), op.Load("m", 0, 10), op.Store("m", PAGE, 3 * PAGE), op.Store("m", PAGE, 3 * PAGE),
    )  # fmt: skip
    assert [s.minor_faults for s in seen[2:]] == [1, 0, 0, 3, 0]


def test_fault_counts_hold_in_a_forked_process(runner: Runner) -> None:
    seen = runner.run(
        op.Mmap("m", 8 * PAGE, flags=(op.MapFlag.SHARED, op.MapFlag.ANONYMOUS)), op.Store("m", 0, 2 * PAGE), op.Fork("b"),
        Step(op.Store("m", 0, PAGE), process="b"), Step(op.Store("m", 0, PAGE), process="b"), op.Load("m", 0, PAGE),
    )  # fmt: skip
    assert [s.minor_faults for s in seen[4:]] == [0, 0]
    assert runs(seen[5]) == [(0, PAGE, "tag", 5, 0)]


def test_evidence_about_a_mapping(runner: Runner) -> None:
    seen = runner.run(
        opened(), op.Pwrite("f", 0, 4 * PAGE), op.Mmap("m", 4 * PAGE, "f", flags=(op.MapFlag.SHARED, op.MapFlag.POPULATE)),
        op.Mincore("m"), op.Mincore("m", PAGE, PAGE), op.Pagemap("m"), op.Smaps("m"), op.Mlock("m"), op.Smaps("m"), op.Munlock("m"),
        op.Madvise("m", op.Advice.DONTNEED), op.Mprotect("m", (op.Protection.READ,)), op.Meminfo(),
    )  # fmt: skip
    assert (seen[3].resident, seen[4].resident) == ("1111", "1")
    assert seen[5].frames == (ANY,) * 4
    assert "sh" in str(seen[6].attribute("vm_flags")).split()
    assert (seen[6].number("rss"), seen[6].number("kernel_page_size")) == (4 * PAGE, PAGE)
    assert seen[8].number("locked") in {4 * PAGE, 0}
    assert seen[12].value > 0


@pytest.mark.parametrize(("align", "shift"), [(2 * MIB, 0), (2 * MIB, PAGE), (64 * 1024, 4 * PAGE)])
def test_a_mapping_is_placed_as_asked(runner: Runner, align: int, shift: int) -> None:
    seen = runner.run(opened(), op.Ftruncate("f", MIB), op.Mmap("m", MIB, "f", align=align, align_shift=shift), op.Store("m", 0, PAGE))
    assert (seen[2].number("address_mod_2mib") or 0) % align == shift
    assert seen[3].how is How.RETURNED


def test_a_refused_mapping_says_why(runner: Runner) -> None:
    flags = (op.MapFlag.SHARED_VALIDATE, op.MapFlag.SYNC)
    seen = runner.run(
        opened(), op.Ftruncate("f", PAGE), op.Mmap("m", PAGE, "f", flags=flags), op.Mmap("n", PAGE, "f", flags=flags, align=MIB)
    )
    assert [s.errno for s in seen[2:]] == ["EOPNOTSUPP"] * 2


def test_a_load_past_the_end_is_sigbus_and_ends_only_its_process(runner: Runner) -> None:
    seen = runner.run(
        opened(), op.Ftruncate("f", 100), op.Mmap("m", 4 * PAGE, "f"), op.Fork("b"), op.Load("m", 0, 10), op.Load("m", PAGE, 1),
        op.Load("m", 0, 1), Step(op.Load("m", 0, 10), process="b"), Step(op.Store("m", 2 * PAGE, 1), process="b"),
    )  # fmt: skip
    assert [s.how for s in seen[4:]] == [How.RETURNED, How.SIGNAL, How.NOT_RUN, How.RETURNED, How.SIGNAL]
    assert (seen[5].signal, seen[8].signal) == ("SIGBUS", "SIGBUS")


def test_a_store_to_a_read_only_mapping_is_sigsegv(runner: Runner) -> None:
    seen = runner.run(opened(), op.Ftruncate("f", PAGE), op.Mmap("m", PAGE, "f", protection=(op.Protection.READ,)), op.Store("m", 0, 1))
    assert seen[3].signal == "SIGSEGV"


def test_a_started_read_of_an_empty_pipe_is_blocked_and_joined_after_the_write(runner: Runner) -> None:
    seen = runner.run(
        op.Pipe("p"), op.Fork("b"), Step(op.Read("p", 100), process="b", start="r"), op.Write("p", 100), op.Join("r"),
        Step(op.Write("p", 5), process="b"), op.Join("nobody"),
    )  # fmt: skip
    assert seen[2].how is How.BLOCKED
    assert seen[2].attribute("state") == "S"
    assert seen[2].attribute("syscall") == 0
    assert (seen[4].how, seen[4].value, runs(seen[4])) == (How.RETURNED, 100, [(0, 100, "tag", 4, 0)])
    assert seen[5].value == 5
    assert (seen[6].how, seen[6].attribute("missing")) == (How.NOT_RUN, "nobody")


def test_a_started_step_that_does_not_block_has_its_real_outcome_at_once_and_at_the_join(runner: Runner) -> None:
    seen = runner.run(opened(), Step(op.Pwrite("f", 0, 10), start="w"), op.Join("w"), op.Pwrite("f", 0, 20))
    assert [s.value for s in seen] == [0, 10, 10, 20]


def test_a_join_of_what_stays_blocked_is_blocked(runner: Runner) -> None:
    seen = runner.run(
        op.Pipe("p"), op.Fork("b"), Step(op.Read("p", 1), process="b", start="r"), op.Join("r"), Step(op.Meminfo(), process="b")
    )
    assert [s.how for s in seen[2:]] == [How.BLOCKED, How.BLOCKED, How.NOT_RUN]


def test_a_plain_step_that_blocks_ends_its_process_part_and_never_runs_on(runner: Runner, tmp_path: Path) -> None:
    seen = runner.run(
        op.Pipe("p"), op.Fork("b"), op.Read("p", 1), opened("x", "never"), Step(op.Write("p", 1), process="b"),
        Step(op.FutexWait("m", 0, 0), process="b"), Step(op.Meminfo(), process="b"),
    )  # fmt: skip
    assert [s.how for s in seen[2:]] == [How.BLOCKED, How.NOT_RUN, How.RETURNED, How.NOT_RUN, How.RETURNED]
    assert not (tmp_path / "never").exists()


def test_a_futex_wakes_a_waiter_in_another_process(runner: Runner) -> None:
    seen = runner.run(
        opened(), op.Ftruncate("f", PAGE), op.Mmap("m", PAGE, "f"), op.Store("m", 8, value=5), op.Fork("b"),
        Step(op.FutexWait("m", 8, 5), process="b", start="w"), op.FutexWake("m", 8), op.Join("w"), op.FutexWait("m", 8, 6),
        op.FutexWait("m", 8, 5, timeout_ms=10), op.FutexWait("m", 8, 5, private=True, timeout_ms=10), op.FutexWake("m", 8, 9, private=True),
    )  # fmt: skip
    assert seen[5].how is How.BLOCKED
    assert [s.value for s in seen[6:8]] == [1, 0]
    assert [s.errno for s in seen[8:]] == ["EAGAIN", "ETIMEDOUT", "ETIMEDOUT", None]


def test_process_vm_readv_reads_the_mapping_as_the_other_process_has_it(runner: Runner) -> None:
    seen = runner.run(
        op.Mmap("m", PAGE, flags=(op.MapFlag.PRIVATE, op.MapFlag.ANONYMOUS)), op.Fork("b"), Step(op.Store("m", 0, 64), process="b"),
        op.Store("m", 0, 64), op.ProcessVmReadv("b", "m", 0, 128), op.ProcessVmReadv("main", "m", 0, 64),
        Step(op.Mmap("own", PAGE, flags=(op.MapFlag.PRIVATE, op.MapFlag.ANONYMOUS)), process="b"), Step(op.Store("own", 0, 8), process="b"),
        op.ProcessVmReadv("b", "own", 0, 8), op.ProcessVmReadv("b", "absent", 0, 8),
    )  # fmt: skip
    assert runs(seen[4])[0][:4] == (0, 64, "tag", 3)
    assert runs(seen[5]) == [(0, 64, "tag", 4, 0)]
    assert runs(seen[8]) == [(0, 8, "tag", 8, 0)]
    assert seen[9].attribute("missing") == "absent"


def test_long_term_pins_are_made_or_refused(runner: Runner) -> None:
    seen = runner.run(
        op.Mmap("m", 4 * PAGE, flags=(op.MapFlag.PRIVATE, op.MapFlag.ANONYMOUS)), op.IoUringSetup("r"), op.IoUringRegister("r", "m"),
        op.IoUringUnregister("r"), op.XdpSocket("x"), op.XdpUmem("x", "m"), op.RdmaOpen("d"), op.RdmaRegister("g", "d", "m"),
        op.RdmaDeregister("g"), op.Close("r"),
    )  # fmt: skip
    assert all(s.how in {How.RETURNED, How.FAILED, How.NOT_RUN} for s in seen)


def test_mount_and_caches_answer_with_success_or_an_error(runner: Runner, tmp_path: Path) -> None:
    mounts = {"main": "/dev/absent"}
    seen = runner.run(op.MountVolume("main", "ext4", "dax=always"), op.UmountVolume(), devices=mounts)
    assert [s.errno for s in seen] in ([ANY, "EINVAL"], [ANY, "EPERM"])
    assert seen[0].how is How.FAILED


def test_read_only_is_a_flag_of_mount_and_no_word_for_the_file_system(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[int, bytes]] = []

    def note(name: str, *arguments: int) -> int:
        said.append((arguments[3], ctypes.string_at(arguments[4])))
        return 0

    monkeypatch.setattr(system, "call", note)
    for options in ("", "dax=always", "ro", "ro,dax=always"):
        system.mount("/dev/x", "/mnt", "ext4", options)
    assert said == [(0, b""), (0, b"dax=always"), (1, b""), (1, b"dax=always")]


def test_a_program_has_the_default_signals_and_leaves_no_core(runner: Runner, daemon: Daemon) -> None:
    """Only SIGPIPE and SIGXFSZ are ignored, as Python has them; none is caught."""
    found: list[tuple[int, int, str]] = []

    def look() -> None:
        wait_until(lambda: readers_of_pipes(daemon.pid), Deadline.after(60))
        (reader,) = readers_of_pipes(daemon.pid)
        rows = dict(line.split(":", 1) for line in Path(f"/proc/{reader}/status").read_text().splitlines())
        core = next(line for line in Path(f"/proc/{reader}/limits").read_text().splitlines() if line.startswith("Max core file size"))
        found.append((int(rows["SigIgn"], 16), int(rows["SigCgt"], 16), core.split()[4]))

    looking = threading.Thread(target=look)
    looking.start()
    runner.run(op.Pipe("p"), Step(op.Read("p", 1), start="r"))
    looking.join()
    ignored = sum(1 << (number - 1) for number in (signal.SIGPIPE, signal.SIGXFSZ))
    assert found == [(ignored, 0, "0")]


def test_nothing_of_a_program_outlives_it(runner: Runner, daemon: Daemon) -> None:
    before = descendants(daemon.pid)
    runner.run(op.Pipe("p"), op.Fork("b"), op.Fork("c"), Step(op.Read("p", 1), process="b", start="r"), Step(op.Meminfo(), process="c"))
    # Sessions of earlier tests may end meanwhile: only what is new counts.
    assert descendants(daemon.pid) - before == set()


def descendants(pid: int) -> set[int]:
    found, left = set(), [pid]
    while left:
        for children in Path(f"/proc/{left.pop()}/task").glob("*/children"):
            with contextlib.suppress(OSError):  # it has just ended
                new = {int(word) for word in children.read_text().split()}
                found |= new
                left += new
    return found


def test_a_thousand_steps_are_one_request(runner: Runner) -> None:
    steps = [opened()] + [op.Pwrite("f", 8 * n, 8) for n in range(500)] + [op.Pread("f", 8 * n, 8) for n in range(500)]
    seen = runner.run(*steps)
    assert [s.step for s in seen] == list(range(1001))
    assert runs(seen[1000]) == [(0, 8, "tag", 501, 0)]


def test_outcomes_that_have_no_room_in_the_shared_memory_arrive_all_the_same(client: Client, tmp_path: Path) -> None:
    roots = {"main": str(tmp_path), "node": "/dev/urandom"}
    many = [op.Lseek("z", 0)] * 2000
    seen = Runner(client, roots).run(op.Open("z", "node:"), op.Read("z", 200_000), *many, op.Read("z", 100_000), op.Pipe("p"))
    assert [s.how for s in seen] == [How.RETURNED] * len(seen)
    assert [len(seen[at].data_bytes()) for at in (1, -2)] == [200_000, 100_000]


def test_a_signal_after_many_steps_leaves_what_came_before_it(runner: Runner) -> None:
    before = [opened(), op.Ftruncate("f", 100), op.Mmap("m", 2 * PAGE, "f"), *[op.Store("m", 0, 8)] * 50]
    seen = runner.run(*before, op.Load("m", PAGE, 1), op.Store("m", 0, 8))
    assert [s.how for s in seen] == [How.RETURNED] * len(before) + [How.SIGNAL, How.NOT_RUN]


def test_a_direct_read_on_this_file_system_is_done_or_refused(runner: Runner) -> None:
    seen = runner.run(
        opened(), op.Pwrite("f", 0, 8192), op.Open("d", "a", (op.OpenFlag.RDONLY, op.OpenFlag.DIRECT)), op.Pread("d", 1, 100, shift=1)
    )
    assert seen[3].how in {How.RETURNED, How.FAILED}


def test_the_file_mode_is_0644(runner: Runner, tmp_path: Path) -> None:
    runner.run(opened())
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644 & ~_umask()


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value
