"""The judge on hand-written observations: what conforms, what deviates, what nobody can say."""

import pytest

from harness.model.clause import CLAUSES
from harness.model.facts import FACTS, Env
from harness.model.known import Known, KnownDeviation, find_known
from harness.model.verdict import Verdict, worst
from harness.ops import (
    AllocateFlag,
    Buffer,
    Fallocate,
    Ftruncate,
    Join,
    Load,
    MapFlag,
    Mincore,
    Mmap,
    Open,
    OpenFlag,
    Pagemap,
    Pipe,
    Pread,
    Preadv,
    Pwrite,
    Splice,
    Statx,
    Step,
    Store,
    UnixPair,
)
from harness.sizes import MIB
from tests.unit.model.stacks import DAX, NODE, PAGE_CACHE, Row, blocked, env, failed, judged, pinned, returned, signalled, tag, volume, zero

RDWR = (OpenFlag.RDWR, OpenFlag.CREAT)
OPEN: Row = (Open("f", "a", RDWR), returned())
OPEN_DIRECT: Row = (Open("f", "a", (*RDWR, OpenFlag.DIRECT)), returned())


def test_a_read_of_what_was_written_conforms() -> None:
    result = judged(DAX, OPEN, (Pwrite("f", 0, 8192), returned(8192)), (Pread("f", 4096, 8192), returned(4096, tag(4096, 2, 4096))))
    assert result.verdict is Verdict.CONFORMS


def test_a_read_that_shows_an_older_writer_deviates_and_names_both() -> None:
    rows: list[Row] = [OPEN, (Pwrite("f", 0, 8192), returned(8192)), (Pwrite("f", 4096, 4096), returned(4096))]
    rows.append((Pread("f", 0, 8192), returned(8192, tag(8192, 2))))
    last = judged(DAX, *rows).steps[-1]
    assert last.verdict is Verdict.DEVIATES
    assert "step 2" in last.observed
    assert "bytes 4096..8191: step 3" in last.allowed
    assert "C-RW-03" in last.because


def test_a_short_read_before_the_end_deviates() -> None:
    result = judged(DAX, OPEN, (Pwrite("f", 0, 8192), returned(8192)), (Pread("f", 0, 8192), returned(4096, tag(4096, 2))))
    assert result.verdict is Verdict.DEVIATES
    assert result.steps[-1].allowed == "returns 8192"


@pytest.mark.parametrize(
    ("where", "seen", "verdict"),
    [
        (DAX, returned(1000), Verdict.CONFORMS),
        (DAX, failed("EINVAL"), Verdict.DEVIATES),
        (PAGE_CACHE, failed("EINVAL"), Verdict.CONFORMS),
        (PAGE_CACHE, returned(1000), Verdict.DEVIATES),
        (PAGE_CACHE, failed("EIO"), Verdict.DEVIATES),
    ],
)
def test_an_unaligned_direct_write_works_on_dax_only(where: Env, seen: object, verdict: Verdict) -> None:
    assert judged(where, OPEN_DIRECT, (Pwrite("f", 0, 1000), seen)).verdict is verdict  # type: ignore[arg-type]


def test_a_direct_read_behind_the_end_is_zero_however_it_is_aligned() -> None:
    assert judged(PAGE_CACHE, OPEN_DIRECT, (Pread("f", 3, 7), returned(0))).verdict is Verdict.CONFORMS


def test_vectors_carry_one_source_through_their_buffers() -> None:
    write = Pread("f", 0, 300)
    rows: list[Row] = [OPEN, (Pwrite("f", 0, 300), returned(300)), (Preadv("f", 0, (Buffer(100), Buffer(200))), returned(300, tag(300, 2)))]
    assert judged(DAX, *rows, (write, returned(300, tag(300, 2)))).verdict is Verdict.CONFORMS


def test_what_a_node_held_behind_its_zeroed_start_is_undetermined() -> None:
    rows: list[Row] = [OPEN, (Pread("f", 0, 512), returned(512, zero(512))), (Pread("f", 64 * MIB, 512), returned(512, zero(512)))]
    result = judged(NODE, *rows)
    assert [s.verdict for s in result.steps] == [Verdict.CONFORMS, Verdict.CONFORMS, Verdict.UNDETERMINED]
    assert "not known" in result.steps[-1].reason


def test_map_sync_is_refused_without_dax_and_granted_with_it() -> None:
    sync = Mmap("m", 4096, "f", flags=(MapFlag.SHARED_VALIDATE, MapFlag.SYNC))
    assert judged(DAX, OPEN, (sync, returned())).verdict is Verdict.CONFORMS
    assert judged(PAGE_CACHE, OPEN, (sync, returned())).verdict is Verdict.DEVIATES
    assert judged(PAGE_CACHE, OPEN, (sync, failed("EOPNOTSUPP"))).verdict is Verdict.CONFORMS


def test_a_load_behind_the_last_page_must_be_sigbus() -> None:
    rows: list[Row] = [OPEN, (Ftruncate("f", 100), returned()), (Mmap("m", 8192, "f"), returned())]
    assert judged(DAX, *rows, (Load("m", 4096, 1), signalled("SIGBUS"))).verdict is Verdict.CONFORMS
    assert judged(DAX, *rows, (Load("m", 4096, 1), returned(1, zero(1)))).verdict is Verdict.DEVIATES


def test_frames_of_a_dax_mapping_lie_in_the_region_and_of_the_page_cache_do_not() -> None:
    rows: list[Row] = [
        OPEN,
        (Pwrite("f", 0, 4096), returned(4096)),
        (Mmap("m", 4096, "f"), returned()),
        (Load("m", 0, 8), returned(8, tag(8, 2))),
    ]
    inside, outside = (0x10000000 >> 12) + 5, 17
    assert judged(DAX, *rows, (Pagemap("m"), returned(0, frames=(inside,)))).verdict is Verdict.CONFORMS
    assert judged(DAX, *rows, (Pagemap("m"), returned(0, frames=(outside,)))).verdict is Verdict.DEVIATES
    assert judged(PAGE_CACHE, *rows, (Pagemap("m"), returned(0, frames=(outside,)))).verdict is Verdict.CONFORMS
    assert judged(PAGE_CACHE, *rows, (Pagemap("m"), returned(0, frames=(inside,)))).verdict is Verdict.DEVIATES


def huge_rows(resident: str) -> list[Row]:
    return [
        OPEN,
        (Fallocate("f", 0, 2 * MIB), returned()),
        (Mmap("m", 2 * MIB, "f"), returned(0, attributes=(("address_mod_2mib", 0),))),
        (Store("m", 0, 8), returned(8, minor_faults=1)),
        (Mincore("m"), returned(0, resident=resident)),
    ]


def test_one_touch_of_an_aligned_dax_file_maps_one_page_or_a_huge_one_and_nothing_between() -> None:
    assert judged(DAX, *huge_rows("1" * 512)).verdict is Verdict.CONFORMS
    assert judged(DAX, *huge_rows("1" + "0" * 511)).verdict is Verdict.CONFORMS
    assert judged(DAX, *huge_rows("11" + "0" * 510)).verdict is Verdict.DEVIATES


def test_a_misaligned_mapping_is_never_huge() -> None:
    rows = huge_rows("1" * 512)
    rows[2] = (Mmap("m", 2 * MIB, "f"), returned(0, attributes=(("address_mod_2mib", 4096),)))
    assert judged(DAX, *rows).verdict is Verdict.DEVIATES


def test_a_fault_count_tells_small_pages_from_huge_ones() -> None:
    rows = huge_rows("1" * 512)[:3]
    store = Store("m", 0, 2 * MIB)
    later = (Mincore("m"), returned(0, resident="1" * 512))
    assert judged(DAX, *rows, (store, returned(2 * MIB, minor_faults=512)), later).verdict is Verdict.CONFORMS
    assert judged(DAX, *rows, (store, returned(2 * MIB, minor_faults=1)), later).verdict is Verdict.CONFORMS
    assert judged(DAX, *rows, (store, returned(2 * MIB, minor_faults=2)), later).verdict is Verdict.DEVIATES
    assert judged(DAX, *rows, (store, returned(2 * MIB, minor_faults=5000)), later).verdict is Verdict.DEVIATES


def test_the_statx_bit_must_say_what_the_stack_is() -> None:
    shows = returned(0, attributes=(("dax", 1), ("size", 0), ("dio_mem_align", 512), ("dio_offset_align", 512), ("dio_supported", 1)))
    assert judged(DAX, OPEN, (Statx("f"), shows)).verdict is Verdict.CONFORMS
    assert judged(PAGE_CACHE, OPEN, (Statx("f"), shows)).verdict is Verdict.DEVIATES


def test_punching_frees_whole_pages_and_zeroes_the_rest() -> None:
    punch = Fallocate("f", 1000, 8192, (AllocateFlag.PUNCH_HOLE, AllocateFlag.KEEP_SIZE))
    rows: list[Row] = [OPEN, (Pwrite("f", 0, 16384), returned(16384)), (punch, returned())]
    read = (Pread("f", 0, 16384), returned(16384, tag(1000, 2), zero(8192), tag(16384 - 9192, 2, 9192)))
    assert judged(DAX, *rows, read).verdict is Verdict.CONFORMS


def test_the_tail_of_the_last_page_is_as_the_fact_says() -> None:
    def rows(tail: object) -> list[Row]:
        mapping: Row = (Mmap("m", 4096, "f"), returned())
        grow: Row = (Ftruncate("f", 4096), returned())
        return [OPEN, (Ftruncate("f", 100), returned()), mapping, (Store("m", 200, 8), returned(8)), grow, (Pread("f", 200, 8), tail)]  # type: ignore[list-item]

    old = env(release="6.1.0-38-cloud-amd64")
    assert judged(DAX, *rows(returned(8, zero(8)))).verdict is Verdict.CONFORMS
    assert judged(old, *rows(returned(8, tag(8, 4)))).verdict is Verdict.CONFORMS
    assert judged(DAX, *rows(returned(8, tag(8, 4)))).verdict is Verdict.DEVIATES


def test_no_rule_means_undetermined_and_that_is_no_pass() -> None:
    result = judged(DAX, OPEN, (Pipe("p"), returned()), (UnixPair("u"), returned()), (Splice("u", "p", 10), returned(10)))
    assert result.verdict is Verdict.UNDETERMINED
    assert "from a socket" in result.steps[-1].reason


def test_what_follows_a_deviation_is_undetermined() -> None:
    result = judged(DAX, OPEN, (Pwrite("f", 0, 10), returned(5)), (Pread("f", 0, 10), returned(5, tag(5, 2))))
    assert [s.verdict for s in result.steps] == [Verdict.CONFORMS, Verdict.DEVIATES, Verdict.UNDETERMINED]
    assert "deviates" in result.steps[-1].reason


def test_a_step_that_was_not_run_is_undetermined() -> None:
    program_end = judged(DAX, OPEN, (Pwrite("f", 0, 10), returned(10)))
    assert program_end.verdict is Verdict.CONFORMS
    from harness.model.judge import judge
    from harness.ops import Program

    result = judge(DAX, Program((Step(Open("f", "a", RDWR)),)), ())
    assert result.verdict is Verdict.UNDETERMINED
    assert "not run" in result.steps[0].reason


def test_a_pin_narrows_what_the_model_allows() -> None:
    result = judged(DAX, OPEN, (pinned(Pwrite("f", 0, 10), errno="EINVAL"), returned(10)))
    assert result.verdict is Verdict.DEVIATES
    assert result.steps[-1].allowed == "EINVAL"
    assert "the case pins" in result.steps[-1].because


def test_a_pin_that_the_model_does_not_share_is_said() -> None:
    result = judged(DAX, OPEN, (pinned(Pwrite("f", 0, 10), errno="EINVAL"), failed("EINVAL")))
    assert result.verdict is Verdict.DEVIATES
    assert "case and model disagree" in result.steps[-1].because


def test_a_join_repeats_the_outcome_of_a_step_that_had_ended() -> None:
    started = Step(Pwrite("f", 0, 10), start="w")
    assert judged(DAX, OPEN, (started, returned(10)), (Join("w"), returned(10))).verdict is Verdict.CONFORMS
    assert judged(DAX, OPEN, (started, returned(10)), (Join("w"), returned(9))).verdict is Verdict.DEVIATES


def test_blocking_where_nothing_blocks_deviates() -> None:
    assert judged(DAX, OPEN, (Step(Pwrite("f", 0, 10), start="w"), blocked())).verdict is Verdict.DEVIATES


def test_a_flipped_clause_rejects_what_was_right() -> None:
    rows: list[Row] = [OPEN, (Pwrite("f", 0, 10), returned(10))]
    assert judged(DAX, *rows).verdict is Verdict.CONFORMS
    assert judged(DAX, *rows, flipped=frozenset({"C-RW-06"})).verdict is Verdict.DEVIATES
    assert judged(DAX, *rows, flipped=frozenset({"C-RW-05"})).verdict is Verdict.DEVIATES


def test_the_worst_verdict_wins_and_nothing_is_undetermined() -> None:
    assert worst([Verdict.CONFORMS, Verdict.DEVIATES, Verdict.UNDETERMINED]) is Verdict.DEVIATES
    assert worst([]) is Verdict.UNDETERMINED


def test_a_known_deviation_is_recognised_and_its_disappearance_too() -> None:
    listed = (KnownDeviation("C-RW-06", "coherence/x", "dax_always", (6, 1), (6, 13), "a mailing list"),)
    bad = judged(DAX, OPEN, (Pwrite("f", 0, 10), returned(5)))
    good = judged(DAX, OPEN, (Pwrite("f", 0, 10), returned(10)))
    where = ("coherence/x", "e820-fsdax-ext4-dax_always", "6.12.95")
    assert find_known(bad, *where, listed) == (Known.YES, listed[0])
    assert find_known(good, *where, listed) == (Known.GONE, listed[0])
    assert find_known(bad, where[0], where[1], "6.16.1", listed) == (Known.NO, None)


@pytest.mark.parametrize("name", sorted(CLAUSES))
def test_every_clause_has_words_and_a_source_and_names_no_case_or_path(name: str) -> None:
    entry = CLAUSES[name]
    assert entry.says
    assert entry.source
    assert not any(word in entry.says for word in ("cases/", "/dev/", "/mnt/", ".yaml", "KiB", "MiB"))


@pytest.mark.parametrize("name", sorted(FACTS))
def test_every_fact_has_values_and_a_source_and_keeps_to_them(name: str) -> None:
    entry = FACTS[name]
    assert entry.source
    assert entry.means
    assert len(entry.values) > 1
    for release in ("6.1.0", "6.12.95", "7.3.4"):
        for v in (volume(dax=True), volume(dax=False), volume(dax=False, filesystem=None)):
            assert env(v, release=release).fact(name, "main") in entry.values


def test_a_known_deviation_never_hides_a_new_one() -> None:
    listed = (KnownDeviation("C-SYNC-01", "coherence/x", "", (6, 1), None, "a mailing list"),)
    bad = judged(DAX, OPEN, (Pwrite("f", 0, 10), returned(5)))
    assert find_known(bad, "coherence/x", "e820", "6.12.95", listed) == (Known.NO, None)
