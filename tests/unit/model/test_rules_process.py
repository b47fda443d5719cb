"""Futexes, fork and process_vm_readv, on hand-written observations."""

import pytest

from harness.model.facts import Env
from harness.model.outcome import Observation
from harness.model.verdict import Verdict
from harness.ops import (
    Fork,
    Ftruncate,
    FutexWait,
    FutexWake,
    Join,
    Load,
    MapFlag,
    Mmap,
    Open,
    OpenFlag,
    Pagemap,
    Pread,
    ProcessVmReadv,
    Protection,
    Pwrite,
    Step,
    Store,
)
from tests.unit.model.stacks import DAX, NODE, PAGE_CACHE, Row, blocked, failed, judged, returned, tag, zero

RDWR = (OpenFlag.RDWR, OpenFlag.CREAT)
OPEN: Row = (Open("f", "a", RDWR), returned())
TWO_PAGES: list[Row] = [OPEN, (Pwrite("f", 0, 8192), returned(8192)), (Mmap("m", 8192, "f"), returned())]
HOLE: list[Row] = [OPEN, (Ftruncate("f", 8192), returned()), (Mmap("m", 8192, "f"), returned())]
READ_ONLY_HOLE: list[Row] = [*HOLE[:2], (Mmap("m", 8192, "f", protection=(Protection.READ,)), returned())]
FORK: Row = (Fork("child"), returned())
BAR: list[Row] = [(Open("b", "bar:", (OpenFlag.RDWR,)), returned()), (Mmap("m", 8192, "b"), returned())]


def set_word(offset: int, value: int = 7) -> Row:
    return (Store("m", offset, value=value), returned(4))


def sleeps(offset: int, value: int = 7, *, private: bool = False, label: str = "w", process: str = "main") -> Row:
    return (Step(FutexWait("m", offset, value, private), process, start=label), blocked())


def ended(where: Env, *rows: Row) -> Verdict:
    return judged(where, *rows).steps[-1].verdict


# ---- waiting and waking ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", [DAX, PAGE_CACHE, NODE])
def test_a_wait_across_processes_is_woken_and_returns_0(where: Env) -> None:
    rows = [*TWO_PAGES, set_word(64), FORK, sleeps(64, process="child"), (FutexWake("m", 64), returned(1)), (Join("w"), returned())]
    assert judged(where, *rows).verdict is Verdict.CONFORMS


def test_a_wait_that_returns_though_nobody_woke_it_deviates() -> None:
    rows = [*TWO_PAGES, set_word(64), FORK, sleeps(64, process="child")]
    assert ended(DAX, *rows, (Join("w"), returned())) is Verdict.DEVIATES
    assert ended(DAX, *rows, (Join("w"), blocked())) is Verdict.CONFORMS


def test_a_woken_wait_that_stays_asleep_deviates() -> None:
    rows = [*TWO_PAGES, set_word(64), FORK, sleeps(64, process="child"), (FutexWake("m", 64), returned(1))]
    assert ended(DAX, *rows, (Join("w"), blocked())) is Verdict.DEVIATES


def test_a_wait_for_another_value_is_eagain_at_once() -> None:
    wait = FutexWait("m", 0, 8)
    assert ended(DAX, *TWO_PAGES, set_word(0), (wait, failed("EAGAIN"))) is Verdict.CONFORMS
    assert ended(DAX, *TWO_PAGES, set_word(0), (wait, blocked())) is Verdict.DEVIATES


def test_a_wait_may_look_at_tagged_bytes() -> None:
    value = int.from_bytes(tag(4, 2).bytes(), "little")
    assert ended(DAX, *TWO_PAGES, (FutexWait("m", 0, value), blocked())) is Verdict.CONFORMS


@pytest.mark.parametrize(("seen", "verdict"), [(failed("ETIMEDOUT"), Verdict.CONFORMS), (returned(), Verdict.DEVIATES)])
def test_a_wait_with_a_timeout_that_nobody_wakes_times_out(seen: Observation, verdict: Verdict) -> None:
    assert ended(DAX, *TWO_PAGES, set_word(0), (FutexWait("m", 0, 7, timeout_ms=50), seen)) is verdict


def test_a_timeout_longer_than_the_limit_of_blocking_is_undetermined() -> None:
    assert ended(DAX, *TWO_PAGES, set_word(0), (FutexWait("m", 0, 7, timeout_ms=90000), blocked())) is Verdict.UNDETERMINED


def test_the_same_place_in_another_page_wakes_nobody() -> None:
    rows = [*TWO_PAGES, set_word(64), FORK, sleeps(64, process="child")]
    assert ended(DAX, *rows, (FutexWake("m", 4096 + 64), returned(0))) is Verdict.CONFORMS
    assert ended(DAX, *rows, (FutexWake("m", 4096 + 64), returned(1))) is Verdict.DEVIATES


def test_no_more_are_woken_than_asked_for_and_the_first_comes_first() -> None:
    rows = [*TWO_PAGES, set_word(64), FORK, (Fork("other"), returned())]
    rows += [sleeps(64, process="child", label="a"), sleeps(64, process="other", label="b"), (FutexWake("m", 64), returned(1))]
    assert judged(DAX, *rows, (Join("a"), returned()), (Join("b"), blocked())).verdict is Verdict.CONFORMS
    assert ended(DAX, *rows, (FutexWake("m", 64, 5), returned(1))) is Verdict.CONFORMS
    assert ended(DAX, *rows, (FutexWake("m", 64, 5), returned(2))) is Verdict.DEVIATES


def test_a_private_wait_is_not_woken_from_another_process() -> None:
    rows = [*TWO_PAGES, set_word(0), FORK, sleeps(0, private=True, process="child")]
    assert ended(DAX, *rows, (FutexWake("m", 0, private=True), returned(0))) is Verdict.CONFORMS
    assert ended(DAX, *rows, (FutexWake("m", 0, private=True), returned(1))) is Verdict.DEVIATES


def test_two_shared_mappings_of_one_file_share_their_futexes() -> None:
    rows = [*TWO_PAGES, (Mmap("n", 4096, "f", offset=4096), returned()), set_word(4096), FORK, sleeps(4096, process="child")]
    assert ended(DAX, *rows, (FutexWake("n", 0), returned(1))) is Verdict.CONFORMS


def test_a_private_mapping_that_can_be_written_has_futexes_of_its_own() -> None:
    rows = [*TWO_PAGES[:2], (Mmap("m", 8192, "f", flags=(MapFlag.PRIVATE,)), returned()), set_word(0), FORK, sleeps(0, process="child")]
    assert ended(DAX, *rows, (FutexWake("m", 0), returned(0))) is Verdict.CONFORMS


# ---- where a word cannot be a futex ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "seen", "verdict"),
    [
        (DAX, failed("EFAULT"), Verdict.CONFORMS),
        (DAX, blocked(), Verdict.DEVIATES),
        (PAGE_CACHE, blocked(), Verdict.CONFORMS),
        (PAGE_CACHE, failed("EFAULT"), Verdict.DEVIATES),
    ],
)
def test_a_shared_wait_on_a_hole_that_is_mapped_read_only_is_efault_on_dax(where: Env, seen: Observation, verdict: Verdict) -> None:
    assert ended(where, *READ_ONLY_HOLE, (FutexWait("m", 0, 0), seen)) is verdict


def test_a_private_wait_on_such_a_hole_sleeps() -> None:
    assert ended(DAX, *READ_ONLY_HOLE, (FutexWait("m", 0, 0, private=True), blocked())) is Verdict.CONFORMS


def test_a_wait_on_a_hole_that_can_be_written_gives_it_a_block() -> None:
    rows = [*HOLE, FORK, (Step(FutexWait("m", 0, 0), "child", start="w"), blocked())]
    rows.append((Load("m", 0, 4), returned(4, zero(4))))
    inside, outside = returned(0, frames=(0x10000,)), returned(0, frames=(0x99999,))
    assert ended(DAX, *rows, (Pagemap("m", 0, 4096), inside)) is Verdict.CONFORMS
    assert ended(DAX, *rows, (Pagemap("m", 0, 4096), outside)) is Verdict.DEVIATES


def test_a_word_behind_the_end_of_the_file_is_efault() -> None:
    rows: list[Row] = [OPEN, (Pwrite("f", 0, 4096), returned(4096)), (Mmap("m", 8192, "f"), returned())]
    assert ended(DAX, *rows, (FutexWait("m", 4096, 0), failed("EFAULT"))) is Verdict.CONFORMS
    assert ended(DAX, *rows, (FutexWait("m", 4096, 0), blocked())) is Verdict.DEVIATES
    assert ended(DAX, *rows, (FutexWake("m", 4096), failed("EFAULT"))) is Verdict.CONFORMS
    assert ended(DAX, *rows, (FutexWake("m", 4096, private=True), returned(0))) is Verdict.CONFORMS


def test_a_word_that_is_not_aligned_is_einval() -> None:
    assert ended(DAX, *TWO_PAGES, (FutexWait("m", 2, 0), failed("EINVAL"))) is Verdict.CONFORMS
    assert ended(DAX, *TWO_PAGES, (FutexWait("m", 2, 0), blocked())) is Verdict.DEVIATES


def test_a_shared_futex_needs_a_struct_page_and_a_private_one_does_not() -> None:
    assert ended(DAX, *BAR, set_word(0), (FutexWait("m", 0, 7), failed("EFAULT"))) is Verdict.CONFORMS
    assert ended(DAX, *BAR, set_word(0), (FutexWait("m", 0, 7), blocked())) is Verdict.DEVIATES
    assert ended(DAX, *BAR, set_word(0), (FutexWait("m", 0, 7, private=True), blocked())) is Verdict.CONFORMS


def test_a_word_whose_value_nobody_knows_is_undetermined() -> None:
    assert ended(DAX, *BAR, (FutexWait("m", 0, 7, private=True), blocked())) is Verdict.UNDETERMINED


def test_a_shared_futex_on_anonymous_memory_that_is_read_only_is_efault() -> None:
    anonymous = Mmap("m", 4096, protection=(Protection.READ,), flags=(MapFlag.PRIVATE, MapFlag.ANONYMOUS))
    assert ended(DAX, (anonymous, returned()), (FutexWait("m", 0, 0), failed("EFAULT"))) is Verdict.CONFORMS


# ---- fork and other processes' memory --------------------------------------------------------------------------------


def test_a_child_shares_shared_mappings_and_copies_private_ones() -> None:
    rows = [*TWO_PAGES, (Mmap("own", 4096, "f", flags=(MapFlag.PRIVATE,)), returned()), (Store("own", 0, 64), returned(64)), FORK]
    rows += [(Step(Store("m", 0, 64), "child"), returned(64)), (Step(Store("own", 0, 64), "child"), returned(64))]
    seen_shared, seen_own = returned(64, tag(64, 7)), returned(64, tag(64, 5))
    assert judged(DAX, *rows, (Load("m", 0, 64), seen_shared), (Load("own", 0, 64), seen_own)).verdict is Verdict.CONFORMS
    assert ended(DAX, *rows, (Load("own", 0, 64), returned(64, tag(64, 8)))) is Verdict.DEVIATES


def test_a_fork_that_fails_deviates() -> None:
    assert ended(DAX, (Fork("child"), failed("EAGAIN"))) is Verdict.DEVIATES


def test_process_vm_readv_shows_the_private_copy_of_its_target() -> None:
    rows = [*TWO_PAGES[:2], (Mmap("m", 8192, "f", flags=(MapFlag.PRIVATE,)), returned()), FORK]
    rows.append((Step(Store("m", 0, 64), "child"), returned(64)))
    read = ProcessVmReadv("child", "m", 0, 128)
    assert ended(DAX, *rows, (read, returned(128, tag(64, 5), tag(64, 2, 64)))) is Verdict.CONFORMS
    assert ended(DAX, *rows, (read, returned(128, tag(128, 2)))) is Verdict.DEVIATES


def test_process_vm_readv_ends_at_the_page_with_the_end_of_the_file() -> None:
    rows: list[Row] = [OPEN, (Pwrite("f", 0, 100), returned(100)), (Mmap("m", 8192, "f"), returned()), FORK]
    read = ProcessVmReadv("child", "m", 0, 8192)
    assert ended(DAX, *rows, (read, returned(4096, tag(100, 2), zero(3996)))) is Verdict.CONFORMS
    assert ended(DAX, *rows, (ProcessVmReadv("child", "m", 4096, 8), failed("EFAULT"))) is Verdict.CONFORMS


def test_process_vm_readv_of_memory_without_struct_pages_is_efault() -> None:
    assert ended(DAX, *BAR, FORK, (ProcessVmReadv("child", "m", 0, 64), failed("EFAULT"))) is Verdict.CONFORMS
    assert ended(DAX, *BAR, FORK, (ProcessVmReadv("child", "m", 0, 64), returned(64, zero(64)))) is Verdict.DEVIATES


def test_process_vm_readv_behind_the_mapping_or_of_a_mapping_that_is_not_there_is_undetermined() -> None:
    assert ended(DAX, *TWO_PAGES, FORK, (ProcessVmReadv("child", "m", 8000, 4096), returned(192))) is Verdict.UNDETERMINED
    assert ended(DAX, *TWO_PAGES, FORK, (ProcessVmReadv("child", "n", 0, 1), failed("EFAULT"))) is Verdict.UNDETERMINED


def test_reading_a_hole_of_another_process_leaves_it_a_hole() -> None:
    rows = [*HOLE, FORK, (ProcessVmReadv("child", "m", 0, 4096), returned(4096, zero(4096)))]
    assert judged(DAX, *rows, (Pread("f", 0, 64), returned(64, zero(64)))).verdict is Verdict.CONFORMS
