"""Pipes and sockets judged on hand-written observations: copies, aliases, counts, and what waits."""

import pytest

from harness.model.clause import Context
from harness.model.compare import compare
from harness.model.facts import Env
from harness.model.judge import expect
from harness.model.outcome import Observation
from harness.model.state import State
from harness.model.verdict import Verdict
from harness.ops import (
    AllocateFlag,
    Close,
    Fallocate,
    Fork,
    Ftruncate,
    Join,
    Load,
    MapFlag,
    Mmap,
    Open,
    OpenFlag,
    Operation,
    Pipe,
    Pread,
    Protection,
    Pwrite,
    Read,
    Recv,
    RecvErrqueue,
    Send,
    Sendfile,
    SendFlag,
    SetPipeSize,
    SetZerocopy,
    Splice,
    SpliceFlag,
    Step,
    Store,
    TcpPair,
    Tee,
    UnixPair,
    Vmsplice,
    Write,
)
from harness.sizes import KIB
from tests.unit.model.stacks import DAX, NODE, PAGE_CACHE, Row, blocked, env, failed, judged, returned, tag, volume, zero

RDWR = (OpenFlag.RDWR, OpenFlag.CREAT)
NONBLOCK = (SpliceFlag.NONBLOCK,)
ZEROCOPY = (SendFlag.ZEROCOPY,)

#: Steps 1 to 3: a file of 16 KiB written by step 2, and a pipe.
FILE_AND_PIPE: list[Row] = [(Open("f", "a", RDWR), returned()), (Pwrite("f", 0, 16 * KIB), returned(16 * KIB)), (Pipe("p"), returned())]
#: Steps 1 to 4: the file is mapped, too.
MAPPED: list[Row] = [*FILE_AND_PIPE, (Mmap("m", 16 * KIB, "f"), returned())]


def verdict(where: Env, *rows: Row) -> Verdict:
    return judged(where, *rows).verdict


def accepted(where: Env, rows: list[Row], op: Operation, candidates: list[Observation]) -> int:
    """Return how many of ``candidates`` are allowed as the outcome of ``op`` after ``rows``."""
    return sum(verdict(where, *rows, (op, seen)) is Verdict.CONFORMS for seen in candidates)


# ---- copies and aliases ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "writer", "right"),
    [(DAX, 2, True), (DAX, 5, False), (PAGE_CACHE, 5, True), (PAGE_CACHE, 2, False), (NODE, 5, True), (NODE, 2, False)],
)
def test_after_an_overwrite_a_pipe_shows_old_bytes_on_dax_and_new_ones_in_the_page_cache(where: Env, writer: int, right: bool) -> None:
    rows: list[Row] = [
        *FILE_AND_PIPE,
        (Splice("f", "p", 8 * KIB, source_offset=0), returned(8 * KIB)),
        (Pwrite("f", 0, 8 * KIB), returned(8 * KIB)),
        (Read("p", 8 * KIB), returned(8 * KIB, tag(8 * KIB, writer))),
    ]
    assert verdict(where, *rows) is (Verdict.CONFORMS if right else Verdict.DEVIATES)


OLDEST = "5.10.0-46-cloud-amd64"


def test_what_sendfile_once_wrote_into_a_pipe_is_a_copy() -> None:
    old = env(volume(dax=False), release=OLDEST)
    for where, writer in ((old, 2), (PAGE_CACHE, 5)):
        for other in (2, 5):
            rows: list[Row] = [
                *FILE_AND_PIPE,
                (Sendfile("f", "p", 8 * KIB, 0), returned(8 * KIB)),
                (Pwrite("f", 0, 8 * KIB), returned(8 * KIB)),
                (Read("p", 8 * KIB), returned(8 * KIB, tag(8 * KIB, other))),
            ]
            assert verdict(where, *rows) is (Verdict.CONFORMS if other == writer else Verdict.DEVIATES)


def test_what_sendfile_once_wrote_into_a_pipe_is_known_only_where_it_surely_fits() -> None:
    for release, wanted in ((OLDEST, Verdict.UNDETERMINED), ("6.12.0", Verdict.CONFORMS)):
        where = env(volume(dax=False), release=release)
        full: list[Row] = [*FILE_AND_PIPE, (Pwrite("f", 0, 100 * KIB), returned(100 * KIB))]
        assert judged(where, *full, (Sendfile("f", "p", 100 * KIB, 0), returned(64 * KIB))).steps[-1].verdict is wanted
        used: list[Row] = [*FILE_AND_PIPE, (Write("p", 1), returned(1))]
        assert judged(where, *used, (Sendfile("f", "p", 100, 0), returned(100))).steps[-1].verdict is wanted


def test_the_report_of_a_stale_pipe_names_both_writers() -> None:
    rows: list[Row] = [
        *FILE_AND_PIPE,
        (Splice("f", "p", 4096, source_offset=0), returned(4096)),
        (Pwrite("f", 0, 4096), returned(4096)),
        (Read("p", 4096), returned(4096, tag(4096, 2))),
    ]
    last = judged(PAGE_CACHE, *rows).steps[-1]
    assert (last.verdict, last.clause) == (Verdict.DEVIATES, "C-PIPE-05")
    assert "step 2" in last.observed
    assert "step 5" in last.allowed


def test_a_direct_descriptor_always_gives_copies() -> None:
    rows: list[Row] = [
        *FILE_AND_PIPE,
        (Open("d", "a", (OpenFlag.RDONLY, OpenFlag.DIRECT)), returned()),
        (Splice("d", "p", 4096, source_offset=0), returned(4096)),
        (Pwrite("f", 0, 4096), returned(4096)),
        (Read("p", 4096), returned(4096, tag(4096, 2))),
    ]
    assert verdict(PAGE_CACHE, *rows) is Verdict.CONFORMS
    assert verdict(DAX, *rows) is Verdict.CONFORMS


def test_a_truncated_page_stays_in_the_pipe_and_a_cut_one_shows_the_zeroed_tail() -> None:
    rows: list[Row] = [
        *FILE_AND_PIPE,
        (Splice("f", "p", 8 * KIB, source_offset=0), returned(8 * KIB)),
        (Ftruncate("f", 1000), returned()),
    ]
    everything = (Read("p", 8 * KIB), returned(8 * KIB, tag(8 * KIB, 2)))
    zeroed = (Read("p", 8 * KIB), returned(8 * KIB, tag(1000, 2), zero(3096), tag(4096, 2, 4096)))
    assert verdict(DAX, *rows, everything) is Verdict.CONFORMS
    assert verdict(DAX, *rows, zeroed) is Verdict.DEVIATES
    assert verdict(PAGE_CACHE, *rows, zeroed) is Verdict.CONFORMS
    assert verdict(PAGE_CACHE, *rows, everything) is Verdict.DEVIATES


def test_a_tee_shows_the_same_page_as_its_source() -> None:
    rows: list[Row] = [
        *FILE_AND_PIPE,
        (Pipe("q"), returned()),
        (Splice("f", "p", 4096, source_offset=0), returned(4096)),
        (Tee("p", "q", 1000), returned(1000)),
        (Pwrite("f", 0, 4096), returned(4096)),
    ]
    for where, writer in ((DAX, 2), (PAGE_CACHE, 7)):
        both: list[Row] = [
            (Read("q", 4096), returned(1000, tag(1000, writer))),
            (Read("p", 4096), returned(4096, tag(4096, writer))),
        ]
        assert verdict(where, *rows, *both) is Verdict.CONFORMS


@pytest.mark.parametrize("where", [DAX, PAGE_CACHE, NODE])
def test_vmsplice_of_a_shared_mapping_gives_the_page_itself_everywhere(where: Env) -> None:
    rows: list[Row] = [
        *MAPPED,
        (Vmsplice("p", "m", 100, 5000), returned(5000)),
        (Pwrite("f", 0, 16 * KIB), returned(16 * KIB)),
    ]
    assert verdict(where, *rows, (Read("p", 5000), returned(5000, tag(5000, 6, 100)))) is Verdict.CONFORMS
    assert verdict(where, *rows, (Read("p", 5000), returned(5000, tag(5000, 2, 100)))) is Verdict.DEVIATES


def test_vmsplice_of_a_hole_is_the_zero_page_on_dax_only() -> None:
    rows: list[Row] = [
        (Open("f", "a", RDWR), returned()),
        (Ftruncate("f", 4096), returned()),
        (Mmap("m", 4096, "f"), returned()),
        (Pipe("p"), returned()),
        (Vmsplice("p", "m", 0, 4096), returned(4096)),
        (Pwrite("f", 0, 4096), returned(4096)),
    ]
    zeroes, written = (Read("p", 4096), returned(4096, zero(4096))), (Read("p", 4096), returned(4096, tag(4096, 6)))
    assert (verdict(DAX, *rows, zeroes), verdict(DAX, *rows, written)) == (Verdict.CONFORMS, Verdict.DEVIATES)
    assert (verdict(PAGE_CACHE, *rows, zeroes), verdict(PAGE_CACHE, *rows, written)) == (Verdict.DEVIATES, Verdict.CONFORMS)


def test_vmsplice_of_a_private_copy_follows_the_copy_and_of_an_untouched_page_the_file() -> None:
    rows: list[Row] = [
        *FILE_AND_PIPE,
        (Mmap("m", 8 * KIB, "f", flags=(MapFlag.PRIVATE,)), returned()),
        (Store("m", 4096, 8), returned(8)),
        (Vmsplice("p", "m", 0, 8 * KIB), returned(8 * KIB)),
        (Pwrite("f", 0, 8 * KIB), returned(8 * KIB)),
        (Store("m", 4104, 8), returned(8)),
        (Read("p", 8 * KIB), returned(8 * KIB, tag(4096, 7), tag(8, 5), tag(8, 8), tag(4080, 2, 4112))),
    ]
    assert verdict(DAX, *rows) is Verdict.CONFORMS
    assert verdict(PAGE_CACHE, *rows) is Verdict.CONFORMS


def test_vmsplice_of_untouched_anonymous_memory_is_zeroes_for_good() -> None:
    rows: list[Row] = [
        (Mmap("m", 4096, flags=(MapFlag.PRIVATE, MapFlag.ANONYMOUS)), returned()),
        (Pipe("p"), returned()),
        (Vmsplice("p", "m", 0, 100), returned(100)),
        (Store("m", 0, 100), returned(100)),
        (Read("p", 100), returned(100, zero(100))),
    ]
    assert verdict(DAX, *rows) is Verdict.CONFORMS


def test_private_pages_that_processes_share_are_undetermined_in_a_pipe() -> None:
    rows: list[Row] = [
        *FILE_AND_PIPE,
        (Mmap("m", 4096, "f", flags=(MapFlag.PRIVATE,)), returned()),
        (Store("m", 0, 8), returned(8)),
        (Fork("child"), returned()),
        (Vmsplice("p", "m", 0, 4096), returned(4096)),
    ]
    last = judged(DAX, *rows).steps[-1]
    assert (last.verdict, "share" in last.reason) == (Verdict.UNDETERMINED, True)


def test_a_file_keeps_its_own_bytes_when_the_page_behind_the_pipe_changes_later() -> None:
    rows: list[Row] = [
        *MAPPED,
        (Vmsplice("p", "m", 0, 4096), returned(4096)),
        (Splice("p", "f", 4096, target_offset=8 * KIB), returned(4096)),
        (Store("m", 0, 4096), returned(4096)),
        (Pread("f", 8 * KIB, 4096), returned(4096, tag(4096, 2))),
    ]
    assert verdict(DAX, *rows) is Verdict.CONFORMS


def test_what_a_file_becomes_that_is_written_from_an_overlapping_part_of_itself_nobody_knows() -> None:
    rows: list[Row] = [*MAPPED, (Vmsplice("p", "m", 0, 4096), returned(4096)), (Splice("p", "f", 4096, target_offset=100), returned(4096))]
    sent: list[Row] = [*FILE_AND_PIPE, (Sendfile("f", "f", 4096, offset=100), returned(4096))]
    for moved, writer in ((rows, 2), (sent, 2)):
        assert verdict(DAX, *moved, (Pread("f", 200, 8), returned(8, tag(8, writer)))) is Verdict.UNDETERMINED
        assert verdict(DAX, *moved, (Pread("f", 8192, 8), returned(8, tag(8, writer, 8192)))) is Verdict.CONFORMS
        assert verdict(DAX, *moved, (Pread("f", 8192, 8), returned(8, tag(8, writer)))) is Verdict.DEVIATES


# ---- counts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", [DAX, PAGE_CACHE])
def test_splice_from_a_file_moves_all_that_there_is_where_the_fact_says_so(where: Env) -> None:
    counts = [returned(n) for n in range(92)]
    splice = Splice("f", "p", 90, source_offset=4090)
    assert accepted(where, FILE_AND_PIPE, splice, counts) == 1
    assert accepted(Env(where.reading, {"splice_moves": "page"}), FILE_AND_PIPE, splice, counts) == 90


def test_splice_at_the_end_of_the_file_is_zero_and_nothing_else() -> None:
    counts = [returned(n) for n in range(100)]
    assert accepted(DAX, FILE_AND_PIPE, Splice("f", "p", 100, source_offset=16 * KIB), counts) == 1
    assert accepted(DAX, FILE_AND_PIPE, Splice("f", "p", 100, source_offset=16 * KIB - 10), counts) == 1


def test_an_odd_offset_costs_an_alias_part_of_its_first_slot_and_a_copy_nothing() -> None:
    rows: list[Row] = [*FILE_AND_PIPE, (SetPipeSize("p", 8 * KIB), returned(8 * KIB))]
    splice = Splice("f", "p", 12 * KIB, source_offset=1000)
    for where, most in ((DAX, 8 * KIB), (PAGE_CACHE, 8 * KIB - 1000)):
        assert accepted(where, rows, splice, [returned(n) for n in range(most - 9, most + 10)]) == 1
        assert verdict(where, *rows, (splice, returned(most))) is Verdict.CONFORMS


def test_a_full_pipe_refuses_or_waits_as_it_was_asked_to() -> None:
    full: list[Row] = [*FILE_AND_PIPE, (SetPipeSize("p", 4096), returned(4096)), (Splice("f", "p", 1, source_offset=0), returned(1))]
    outcomes = [failed("EAGAIN"), blocked(), returned(0), returned(1)]
    for op in (Splice("f", "p", 1, source_offset=0), Sendfile("f", "p", 1, offset=0)):
        assert [verdict(DAX, *full, (op, seen)) for seen in outcomes].count(Verdict.CONFORMS) == 1
        assert verdict(DAX, *full, (op, blocked())) is Verdict.CONFORMS
    nonblocking = Splice("f", "p", 1, source_offset=16 * KIB, flags=NONBLOCK)
    assert verdict(DAX, *full, (nonblocking, failed("EAGAIN"))) is Verdict.CONFORMS
    assert accepted(DAX, full, nonblocking, outcomes) == 1


def test_an_empty_pipe_refuses_waits_or_is_at_its_end() -> None:
    into = Splice("p", "f", 10, target_offset=0)
    asked = Splice("p", "f", 10, target_offset=0, flags=NONBLOCK)
    closed: list[Row] = [*FILE_AND_PIPE, (Close("p", "write"), returned())]
    outcomes = [failed("EAGAIN"), blocked(), returned(0), returned(1)]
    assert accepted(DAX, FILE_AND_PIPE, into, outcomes) == 1
    assert verdict(DAX, *FILE_AND_PIPE, (into, blocked())) is Verdict.CONFORMS
    assert verdict(DAX, *FILE_AND_PIPE, (asked, failed("EAGAIN"))) is Verdict.CONFORMS
    assert verdict(DAX, *closed, (into, returned(0))) is Verdict.CONFORMS
    assert verdict(DAX, *closed, (Read("p", 10), returned(0))) is Verdict.CONFORMS
    assert accepted(DAX, closed, into, outcomes) == 1


def test_a_splice_that_waited_goes_on_when_a_slot_is_free() -> None:
    rows: list[Row] = [
        *FILE_AND_PIPE,
        (SetPipeSize("p", 4096), returned(4096)),
        (Splice("f", "p", 4096, source_offset=0), returned(4096)),
        (Fork("child"), returned()),
        (Step(Splice("f", "p", 4096, source_offset=4096), "child", "waiting"), blocked()),
        (Read("p", 4096), returned(4096, tag(4096, 2))),
        (Join("waiting"), returned(4096)),
        (Read("p", 4096), returned(4096, tag(4096, 2, 4096))),
    ]
    assert verdict(DAX, *rows) is Verdict.CONFORMS


def test_a_small_write_goes_behind_the_last_one_and_never_behind_a_spliced_page() -> None:
    one_slot: list[Row] = [*FILE_AND_PIPE, (SetPipeSize("p", 4096), returned(4096))]
    behind: list[Row] = [*one_slot, (Write("p", 100), returned(100)), (Write("p", 3996), returned(3996))]
    assert verdict(DAX, *behind) is Verdict.CONFORMS
    assert verdict(DAX, *behind, (Read("p", 9000), returned(4096, tag(100, 5), tag(3996, 6)))) is Verdict.CONFORMS
    spliced: list[Row] = [*one_slot, (Splice("f", "p", 100, source_offset=0), returned(100))]
    assert verdict(DAX, *spliced, (Write("p", 10), returned(10))) is Verdict.DEVIATES
    assert verdict(DAX, *spliced, (Write("p", 10), blocked())) is Verdict.CONFORMS


def test_a_nonblocking_write_takes_what_fits_and_then_refuses() -> None:
    rows: list[Row] = [(Pipe("p", nonblock=True), returned()), (SetPipeSize("p", 8 * KIB), returned(8 * KIB))]
    rows.append((Write("p", 10000), returned(8 * KIB)))
    assert verdict(DAX, *rows) is Verdict.CONFORMS
    assert verdict(DAX, *rows, (Write("p", 1), failed("EAGAIN"))) is Verdict.CONFORMS
    assert verdict(DAX, *rows, (SetPipeSize("p", 4096), failed("EBUSY"))) is Verdict.CONFORMS
    assert verdict(DAX, *rows, (SetPipeSize("p", 4096), returned(4096))) is Verdict.DEVIATES


def test_between_pipes_no_more_moves_than_there_are_slots() -> None:
    rows: list[Row] = [
        *FILE_AND_PIPE,
        (Pipe("q"), returned()),
        (SetPipeSize("q", 4096), returned(4096)),
        (Splice("f", "p", 8 * KIB, source_offset=0), returned(8 * KIB)),
    ]
    around = [returned(n) for n in range(4090, 4100)]
    for move, most in ((Splice("p", "q", 9000), 4096), (Tee("p", "q", 9000), 4096)):
        assert accepted(DAX, rows, move, around) == 1
        assert verdict(DAX, *rows, (move, returned(most))) is Verdict.CONFORMS
    assert accepted(DAX, rows, Tee("p", "q", 10), [returned(n) for n in range(20)]) == 1


def test_vmsplice_stops_at_the_end_of_the_file_and_is_efault_behind_it() -> None:
    around = [returned(n) for n in range(4090, 4100)]
    rows: list[Row] = [
        (Open("f", "a", RDWR), returned()),
        (Pwrite("f", 0, 5000), returned(5000)),
        (Pipe("p"), returned()),
        (Mmap("m", 16 * KIB, "f"), returned()),
    ]
    assert accepted(DAX, rows, Vmsplice("p", "m", 4096, 8 * KIB), around) == 1
    assert verdict(DAX, *rows, (Vmsplice("p", "m", 8 * KIB, 10), failed("EFAULT"))) is Verdict.CONFORMS
    assert verdict(DAX, *rows, (Vmsplice("p", "m", 8 * KIB, 10), returned(10))) is Verdict.DEVIATES


# ---- refusals --------------------------------------------------------------------------------------------------------

OTHER_ENDS: list[Row] = [
    *FILE_AND_PIPE,
    (Open("end", "b", (OpenFlag.WRONLY, OpenFlag.CREAT, OpenFlag.APPEND)), returned()),
    (Open("ro", "a"), returned()),
    (UnixPair("u"), returned()),
    (Write("p", 600), returned(600)),
]


@pytest.mark.parametrize(
    ("op", "errno"),
    [
        (Splice("f", "f", 10, 0, 100), "EINVAL"),
        (Splice("f", "u", 10), "EINVAL"),
        (Splice("p", "end", 10), "EINVAL"),
        (Sendfile("f", "end", 10, 0), "EINVAL"),
        (Splice("f", "p", 10, target_offset=0), "ESPIPE"),
        (Splice("p", "f", 10, source_offset=0), "ESPIPE"),
        (Splice("f", "p", 10, source_offset=-1), "EINVAL"),
        (Splice("p", "u", 10, target_offset=0), "EINVAL"),
        (Splice("end", "p", 10), "EBADF"),
        (Splice("p", "ro", 10), "EBADF"),
        (Sendfile("end", "p", 10, 0), "EBADF"),
        (Sendfile("f", "ro", 10, 0), "EBADF"),
        (Sendfile("f", "p", 10, -1), "EINVAL"),
        (Splice("p", "p", 10), "EINVAL"),
        (Tee("p", "p", 10), "EINVAL"),
        (SetZerocopy("u"), "EOPNOTSUPP"),
    ],
)
def test_what_makes_no_sense_is_refused_with_one_errno(op: Operation, errno: str) -> None:
    outcomes = [failed(errno), failed("EIO"), returned(10), returned(0), blocked()]
    assert verdict(DAX, *OTHER_ENDS, (op, failed(errno))) is Verdict.CONFORMS
    assert accepted(DAX, OTHER_ENDS, op, outcomes) == 1


@pytest.mark.parametrize("op", [Splice("f", "p", 0), Sendfile("f", "p", 0), Splice("p", "end", 0), Tee("p", "p", 0)])
def test_moving_nothing_is_nothing(op: Operation) -> None:
    assert verdict(DAX, *OTHER_ENDS, (op, returned(0))) is (Verdict.CONFORMS)


def test_a_pipe_without_reader_is_epipe_for_everything_that_fills_it() -> None:
    rows: list[Row] = [*MAPPED, (Close("p", "read"), returned())]
    for op in (Splice("f", "p", 10, source_offset=0), Vmsplice("p", "m", 0, 10), Write("p", 10), Sendfile("f", "p", 10, offset=0)):
        assert accepted(DAX, rows, op, [failed("EPIPE"), returned(10), failed("EAGAIN"), blocked()]) == 1


@pytest.mark.parametrize(("where", "aligned", "odd"), [(DAX, True, True), (PAGE_CACHE, True, False)])
def test_direct_descriptors_want_whole_blocks_except_on_dax(where: Env, aligned: bool, odd: bool) -> None:
    rows: list[Row] = [*FILE_AND_PIPE, (Open("d", "a", (OpenFlag.RDWR, OpenFlag.DIRECT)), returned())]
    rows.append((Write("p", 512), returned(512)))
    for op, right in (
        (Splice("d", "p", 1024, source_offset=512), aligned),
        (Splice("d", "p", 1000, source_offset=512), odd),
        (Splice("d", "p", 512, source_offset=1), odd),
        (Splice("p", "d", 512, target_offset=4096), aligned),
        (Splice("p", "d", 512, target_offset=1), odd),
        (Splice("p", "d", 100, target_offset=0), odd),
    ):
        most = op.length
        assert verdict(where, *rows, (op, returned(most))) is (Verdict.CONFORMS if right else Verdict.DEVIATES)
        assert verdict(where, *rows, (op, failed("EINVAL"))) is (Verdict.DEVIATES if right else Verdict.CONFORMS)


def test_memory_without_struct_pages_cannot_be_in_a_pipe_but_can_be_copied_into_one() -> None:
    rows: list[Row] = [
        (Open("bar", "bar:", (OpenFlag.RDWR,)), returned()),
        (Mmap("m", 4096, "bar"), returned()),
        (Store("m", 0, 100), returned(100)),
        (Pipe("p"), returned()),
        (TcpPair("t"), returned()),
        (SetZerocopy("t"), returned()),
        (Vmsplice("p", "m", 0, 100), failed("EFAULT")),
        (Send("t", 100, "m", 0, ZEROCOPY), failed("EFAULT")),
        (Write("p", 100, from_="m"), returned(100)),
        (Read("p", 100), returned(100, tag(100, 3))),
        (Send("t", 100, "m"), returned(100)),
        (Recv("t", 100), returned(100, tag(100, 3))),
    ]
    assert verdict(DAX, *rows) is Verdict.CONFORMS
    rows[6] = (Vmsplice("p", "m", 0, 100), returned(100))
    assert judged(DAX, *rows).steps[6].verdict is Verdict.DEVIATES


def test_memory_that_cannot_be_read_is_efault() -> None:
    rows: list[Row] = [*FILE_AND_PIPE, (Mmap("m", 4096, "f", protection=(Protection.NONE,)), returned()), (UnixPair("u"), returned())]
    for op in (Vmsplice("p", "m", 0, 10), Write("p", 10, from_="m"), Send("u", 10, "m")):
        assert accepted(DAX, rows, op, [failed("EFAULT"), returned(10), blocked()]) == 1


# ---- pins ------------------------------------------------------------------------------------------------------------


def test_a_page_in_a_pipe_holds_up_truncate_and_punch_on_dax_until_it_is_read() -> None:
    rows: list[Row] = [*MAPPED, (Vmsplice("p", "m", 0, 4096), returned(4096))]
    punch = Fallocate("f", 8 * KIB, 4096, (AllocateFlag.PUNCH_HOLE, AllocateFlag.KEEP_SIZE))
    for op in (Ftruncate("f", 0), punch):
        assert accepted(DAX, rows, op, [blocked(), returned(0)]) == 1
        assert verdict(DAX, *rows, (op, blocked())) is Verdict.CONFORMS
        assert verdict(PAGE_CACHE, *rows, (op, returned(0))) is Verdict.CONFORMS
        read: Row = (Read("p", 4096), returned(4096, tag(4096, 2)))
        assert verdict(DAX, *rows, read, (op, returned(0))) is Verdict.CONFORMS


# ---- sockets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pair", [TcpPair("s"), UnixPair("s")])
def test_a_socket_keeps_what_sendfile_gave_it_a_copy_or_the_page(pair: Operation) -> None:
    for where, writer in ((DAX, 2), (PAGE_CACHE, 6)):
        rows: list[Row] = [
            *FILE_AND_PIPE,
            (pair, returned()),
            (Sendfile("f", "s", 6000, 10), returned(6000)),
            (Pwrite("f", 0, 16 * KIB), returned(16 * KIB)),
            (Recv("s", 6000), returned(6000, tag(6000, writer, 10))),
        ]
        assert verdict(where, *rows) is Verdict.CONFORMS


def test_pages_move_from_a_pipe_into_a_socket_as_they_are() -> None:
    rows: list[Row] = [
        *MAPPED,
        (UnixPair("u"), returned()),
        (Vmsplice("p", "m", 0, 4096), returned(4096)),
        (Splice("p", "u", 4096), returned(4096)),
        (Pwrite("f", 0, 4096), returned(4096)),
    ]
    assert verdict(DAX, *rows, (Ftruncate("f", 0), blocked())) is Verdict.CONFORMS
    received: Row = (Recv("u", 4096), returned(4096, tag(4096, 8)))
    assert verdict(DAX, *rows, received, (Ftruncate("f", 0), returned(0))) is Verdict.CONFORMS


def test_a_plain_send_is_a_copy_and_recv_waits_for_the_whole_length() -> None:
    rows: list[Row] = [
        *MAPPED,
        (UnixPair("u"), returned()),
        (Send("u", 4096, "m"), returned(4096)),
        (Pwrite("f", 0, 4096), returned(4096)),
    ]
    assert verdict(DAX, *rows, (Recv("u", 4096), returned(4096, tag(4096, 2)))) is Verdict.CONFORMS
    assert verdict(DAX, *rows, (Recv("u", 5000), blocked())) is Verdict.CONFORMS
    assert verdict(DAX, *rows, (Recv("u", 5000), returned(4096, tag(4096, 2)))) is Verdict.DEVIATES
    assert verdict(DAX, *rows, (Recv("u", 5000, (SendFlag.DONTWAIT,)), returned(4096, tag(4096, 2)))) is Verdict.CONFORMS


def zerocopy_rows(length: int) -> list[Row]:
    return [
        (Open("f", "a", RDWR), returned()),
        (Pwrite("f", 0, length), returned(length)),
        (Mmap("m", length, "f"), returned()),
        (TcpPair("t"), returned()),
        (SetZerocopy("t"), returned()),
        (Send("t", length, "m", 0, ZEROCOPY), returned(length)),
    ]


def test_a_small_zerocopy_send_is_copied_and_completed_once() -> None:
    rows: list[Row] = [*zerocopy_rows(4096), (Pwrite("f", 0, 4096), returned(4096))]
    done = returned(0, attributes=(("completions", 1), ("copied", 1), ("hi", 0), ("lo", 0)))
    assert verdict(DAX, *rows, (Recv("t", 4096), returned(4096, tag(4096, 2)))) is Verdict.CONFORMS
    assert verdict(DAX, *rows, (Recv("t", 4096), returned(4096, tag(4096, 7)))) is Verdict.DEVIATES
    assert verdict(DAX, *rows, (Ftruncate("f", 0), returned(0))) is Verdict.CONFORMS
    assert verdict(DAX, *rows, (RecvErrqueue("t"), done)) is Verdict.CONFORMS
    assert verdict(DAX, *rows, (RecvErrqueue("t"), blocked())) is Verdict.DEVIATES
    assert verdict(DAX, *rows, (RecvErrqueue("t"), done), (RecvErrqueue("t"), blocked())) is Verdict.CONFORMS
    wrong = returned(0, attributes=(("completions", 2), ("copied", 1), ("hi", 1), ("lo", 0)))
    last = judged(DAX, *rows, (RecvErrqueue("t"), wrong)).steps[-1]
    assert (last.verdict, last.observed) == (Verdict.DEVIATES, "2 completions from 0 on, copied 1")


def test_a_large_zerocopy_send_pins_what_waits_at_the_sender() -> None:
    length = 384 * KIB
    rows = zerocopy_rows(length)
    assert verdict(DAX, *rows, (Ftruncate("f", 0), blocked())) is Verdict.CONFORMS
    assert verdict(DAX, *rows, (Ftruncate("f", 0), returned(0))) is Verdict.DEVIATES
    assert verdict(PAGE_CACHE, *rows, (Ftruncate("f", 0), returned(0))) is Verdict.CONFORMS
    assert verdict(DAX, *rows, (RecvErrqueue("t"), blocked())) is Verdict.CONFORMS
    received: Row = (Recv("t", length), returned(length, tag(length, 2)))
    assert verdict(DAX, *rows, received, (Ftruncate("f", 0), returned(0))) is Verdict.CONFORMS


def test_what_was_sent_before_a_truncate_is_received_after_it() -> None:
    length = 384 * KIB
    received: Row = (Recv("t", length), returned(length, tag(length, 2)))
    assert verdict(PAGE_CACHE, *zerocopy_rows(length), (Ftruncate("f", 0), returned(0)), received) is Verdict.CONFORMS


def test_where_nobody_knows_which_bytes_were_copied_in_time_the_step_is_undetermined() -> None:
    length = 384 * KIB
    rows: list[Row] = [*zerocopy_rows(length), (Pwrite("f", 0, length), returned(length))]
    seen = returned(length, tag(64 * KIB, 2), tag(320 * KIB, 7, 64 * KIB))
    assert verdict(DAX, *rows, (Recv("t", length), seen)) is Verdict.UNDETERMINED
    never = returned(length, tag(length, 2))
    assert verdict(DAX, *rows, (Recv("t", length), never)) is Verdict.DEVIATES


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([(Send("t", 64 * KIB, "m", 0, ZEROCOPY), returned(64 * KIB))], "reaches the receiver at once"),
        ([(Send("t", 700 * KIB, "m", 0, ZEROCOPY), returned(700 * KIB))], "waits at the sender"),
        ([(Send("t", -1), failed("EFAULT"))], "negative length"),
        ([(Recv("t", 0), returned(0))], "receiving nothing"),
        ([(Send("t", 10 << 20), blocked())], "how much a socket took"),
        ([(Splice("t", "p", 10), returned(10))], "from a socket"),
        ([(Read("p", -1), failed("EFAULT"))], "negative length"),
        ([(Write("p", -1), failed("EFAULT"))], "negative length"),
        ([(SetPipeSize("p", 1 << 30), returned(1 << 30))], "memory for a pipe that large"),
        ([(Open("b", "bar:"), returned()), (Splice("b", "p", 10), returned(10))], "from a BAR"),
        ([(Mmap("w", 4096, "f", protection=(Protection.WRITE,)), returned()), (Vmsplice("p", "w", 0, 1), returned(1))], "only be written"),
    ],
)
def test_what_no_clause_covers_is_undetermined_and_says_why(rows: list[Row], words: str) -> None:
    start: list[Row] = [*MAPPED, (TcpPair("t"), returned()), (SetZerocopy("t"), returned())]
    big: list[Row] = [(Pwrite("f", 0, 1 << 20), returned(1 << 20)), (Mmap("m", 1 << 20, "f"), returned())]
    last = judged(DAX, *start, *big, *rows).steps[-1]
    assert last.verdict is Verdict.UNDETERMINED
    assert words in last.reason


def test_a_read_into_a_mapping_is_loaded_from_it() -> None:
    rows: list[Row] = [
        *MAPPED,
        (Write("p", 5000), returned(5000)),
        (Read("p", 5000, into="m", into_offset=100), returned(5000)),
        (Load("m", 0, 8 * KIB), returned(8 * KIB, tag(100, 2), tag(5000, 5), tag(3092, 2, 5100))),
    ]
    assert verdict(DAX, *rows) is Verdict.CONFORMS


def test_every_rule_of_this_family_follows_a_bounded_number_of_states() -> None:
    """Where a count is taken from what was seen one state follows, never one for each count that would have been allowed."""
    one_page = Env(PAGE_CACHE.reading, {"splice_moves": "page"})
    state = State()
    for op, seen in FILE_AND_PIPE:
        assert isinstance(op, Operation)
        (state,) = compare(Context(PAGE_CACHE, 1, "main"), expect(Context(PAGE_CACHE, 1, "main"), state, op), seen).states
    context = Context(one_page, 3, "main")
    expected = expect(context, state, Splice("f", "p", 5000, source_offset=0))
    assert len(compare(context, expected, returned(777)).states) == 1


def test_the_fact_decides_and_nothing_else() -> None:
    flipped = env(volume(dax=True), splice_to_pipe="alias")
    rows: list[Row] = [
        *FILE_AND_PIPE,
        (Splice("f", "p", 100, source_offset=0), returned(100)),
        (Pwrite("f", 0, 100), returned(100)),
        (Read("p", 100), returned(100, tag(100, 5))),
    ]
    assert verdict(flipped, *rows) is Verdict.CONFORMS
    assert verdict(DAX, *rows) is Verdict.DEVIATES
