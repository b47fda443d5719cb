"""What erofs does in its own way, on hand-written observations: prepared files, refusals, the words of mount, O_DIRECT."""

import pytest

from harness.model.facts import Env
from harness.model.outcome import Observation
from harness.model.stack import VolumeReading
from harness.model.verdict import Verdict
from harness.ops import (
    Advice,
    Fdatasync,
    Fsync,
    Ftruncate,
    GetXflags,
    Load,
    Madvise,
    MapFlag,
    Mmap,
    MountVolume,
    Mprotect,
    Msync,
    Open,
    OpenFlag,
    Operation,
    Pipe,
    Pread,
    Protection,
    Pwrite,
    Read,
    SetXflags,
    Splice,
    Statx,
    Store,
    UmountVolume,
)
from harness.ops.tag import PREPARED_SPAN, PREPARED_WRITER
from harness.sizes import KIB, MIB
from tests.unit.model.stacks import Row, env, failed, judged, returned, tag, volume, with_faults

OLD = "5.10.0-46-cloud-amd64"


def erofs(*, dax: bool) -> VolumeReading:
    return volume(dax=dax, filesystem="erofs", mount_options=("ro", "dax=always" if dax else "user_xattr"))


EROFS_DAX = env(erofs(dax=True))
EROFS = env(erofs(dax=False))
ON_OLD = env(erofs(dax=False), release=OLD)
#: What the program is to mount.
BARE = env(volume(dax=False, filesystem=None))
BARE_OLD = env(volume(dax=False, filesystem=None), release=OLD)
WITHOUT_DAX = env(volume(dax=False, filesystem=None, queue_dax=False, namespace_mode="raw"))
OPEN: Row = (Open("f", "plain"), returned())
MAP: Row = (Mmap("m", 64 * KIB, "f", protection=(Protection.READ,)), returned())


def plain(length: int, at: int = 0) -> Observation:
    """What reading the file ``plain`` shows: it is the second that was made."""
    return returned(length, tag(length, PREPARED_WRITER, PREPARED_SPAN + at))


def verdict_of(where: Env, *rows: Row) -> Verdict:
    return judged(where, *rows).verdict


@pytest.mark.parametrize("where", [EROFS_DAX, EROFS])
def test_a_prepared_file_is_there_with_its_bytes(where: Env) -> None:
    assert verdict_of(where, OPEN, (Pread("f", 4096, 8192), plain(8192, 4096))) is Verdict.CONFORMS
    assert verdict_of(where, OPEN, (Pread("f", 4096, 8192), plain(8192, 0))) is Verdict.DEVIATES
    assert verdict_of(where, (Open("f", "tail"), returned()), (Pread("f", 65636, 8192), returned(0))) is Verdict.CONFORMS
    assert verdict_of(where, (Open("f", "empty"), returned()), (Pread("f", 0, 8192), returned(0))) is Verdict.CONFORMS


def test_what_was_read_instead_says_that_it_was_made_with_the_volume() -> None:
    *_, step = judged(EROFS, OPEN, (Pread("f", 0, 4096), plain(4096, 4096))).steps
    assert "made with the volume (byte 0 of file 2)" in step.allowed
    assert "made with the volume (byte 4096 of file 2)" in step.observed


@pytest.mark.parametrize(
    ("where", "path", "dax"),
    [(EROFS_DAX, "plain", 1), (EROFS_DAX, "tail", 0), (EROFS_DAX, "empty", 1), (EROFS, "plain", 0), (EROFS, "tail", 0)],
)
def test_only_a_file_in_whole_blocks_is_in_dax_state(where: Env, path: str, dax: int) -> None:
    size = {"plain": 4 * MIB + 64 * KIB, "tail": 64 * KIB + 100, "empty": 0}[path]
    direct = (("dio_supported", 1), ("dio_offset_align", 512), ("dio_mem_align", 512))

    def said(state: int) -> Observation:
        return returned(0, attributes=(("dax", state), *direct, ("size", size)))

    opened: Row = (Open("f", path), returned())
    assert verdict_of(where, opened, (Statx("f"), said(dax))) is Verdict.CONFORMS
    assert verdict_of(where, opened, (Statx("f"), said(1 - dax))) is Verdict.DEVIATES


@pytest.mark.parametrize(
    ("path", "flags", "errno"),
    [
        ("plain", (OpenFlag.RDWR,), "EROFS"),
        ("plain", (OpenFlag.WRONLY,), "EROFS"),
        ("plain", (OpenFlag.RDONLY, OpenFlag.TRUNC), "EROFS"),
        ("other", (OpenFlag.RDONLY, OpenFlag.CREAT), "EROFS"),
        ("other", (OpenFlag.RDONLY,), "ENOENT"),
    ],
)
def test_nothing_is_opened_for_writing_and_nothing_made(path: str, flags: tuple[OpenFlag, ...], errno: str) -> None:
    assert verdict_of(EROFS_DAX, (Open("f", path, flags), failed(errno))) is Verdict.CONFORMS
    assert verdict_of(EROFS_DAX, (Open("f", path, flags), returned())) is Verdict.DEVIATES


def test_o_creat_of_what_is_there_is_no_writing() -> None:
    assert verdict_of(EROFS, (Open("f", "plain", (OpenFlag.RDONLY, OpenFlag.CREAT)), returned())) is Verdict.CONFORMS


@pytest.mark.parametrize(
    ("operation", "seen"),
    [
        (Pwrite("f", 0, 4096), failed("EBADF")),
        (Ftruncate("f", 0), failed("EINVAL")),
        (Fsync("f"), failed("EINVAL")),
        (Fdatasync("f"), failed("EINVAL")),
        (GetXflags("f"), failed("ENOTTY")),
        (SetXflags("f", True), failed("ENOTTY")),
        (Mmap("w", 4096, "f"), failed("EACCES")),
        (Mmap("w", 4096, "f", flags=(MapFlag.PRIVATE,)), returned()),
        (Mmap("w", 4096, "f", protection=(Protection.READ,), flags=(MapFlag.SHARED_VALIDATE, MapFlag.SYNC)), failed("EOPNOTSUPP")),
        (Mmap("w", 4096, "f", protection=(Protection.READ,), flags=(MapFlag.SHARED, MapFlag.SYNC)), returned()),
        (Mprotect("m", (Protection.READ, Protection.WRITE)), failed("EACCES")),
        (Madvise("m", Advice.REMOVE), failed("EACCES")),
        (Msync("m"), returned()),
    ],
)
@pytest.mark.parametrize("where", [EROFS_DAX, EROFS])
def test_what_would_write_or_sync_is_refused(where: Env, operation: Operation, seen: Observation) -> None:
    other = failed("EIO") if seen.errno is None else returned()
    assert verdict_of(where, OPEN, MAP, (operation, seen)) is Verdict.CONFORMS
    assert verdict_of(where, OPEN, MAP, (operation, other)) is Verdict.DEVIATES


def test_a_private_copy_keeps_what_was_stored_to_itself() -> None:
    rows: list[Row] = [
        OPEN,
        (Mmap("p", 8192, "f", flags=(MapFlag.PRIVATE,)), returned()),
        (Store("p", 0, 4096), with_faults(returned(4096), 1)),
    ]
    stored = tag(4096, 3)
    shown = returned(8192, stored, tag(4096, PREPARED_WRITER, PREPARED_SPAN + 4096))
    assert verdict_of(EROFS_DAX, *rows, (Load("p", 0, 8192), with_faults(shown, 1))) is Verdict.CONFORMS
    assert verdict_of(EROFS_DAX, *rows, (Pread("f", 0, 4096), plain(4096))) is Verdict.CONFORMS
    assert verdict_of(EROFS_DAX, *rows, (Pread("f", 0, 4096), returned(4096, stored))) is Verdict.DEVIATES


def test_splice_from_a_file_shows_its_bytes() -> None:
    rows: list[Row] = [OPEN, (Pipe("p"), returned()), (Splice("f", "p", 8192, source_offset=100), returned(8192))]
    assert verdict_of(EROFS_DAX, *rows, (Read("p", 8192), plain(8192, 100))) is Verdict.CONFORMS


@pytest.mark.parametrize(
    ("read", "without", "dax"),
    [
        (Pread("f", 0, 1000), failed("EINVAL"), plain(1000)),
        (Pread("f", 4096, 4096, shift=256), failed("EINVAL"), plain(4096, 4096)),
        (Pread("f", (1 << 30) + 1, 4096), failed("EINVAL"), returned(0)),
        (Pread("f", 1 << 30, 4096), returned(0), returned(0)),
        (Pread("f", 1000, 0), returned(0), returned(0)),
    ],
)
def test_o_direct_asks_for_alignment_first_and_with_dax_for_none(read: Pread, without: Observation, dax: Observation) -> None:
    opened: Row = (Open("f", "plain", (OpenFlag.RDONLY, OpenFlag.DIRECT)), returned())
    assert verdict_of(EROFS, opened, (read, without)) is Verdict.CONFORMS
    assert verdict_of(EROFS_DAX, opened, (read, dax)) is Verdict.CONFORMS


def test_since_6_15_nothing_is_asked_behind_the_end() -> None:
    later = env(erofs(dax=False), release="7.3.4+deb13-cloud-amd64")
    opened: Row = (Open("f", "plain", (OpenFlag.RDONLY, OpenFlag.DIRECT)), returned())
    assert verdict_of(later, opened, (Pread("f", (1 << 30) + 1, 4096), returned(0))) is Verdict.CONFORMS
    assert verdict_of(later, opened, (Pread("f", 1, 4096), failed("EINVAL"))) is Verdict.CONFORMS


def test_before_5_15_there_is_no_o_direct() -> None:
    asked = Open("f", "plain", (OpenFlag.RDONLY, OpenFlag.DIRECT))
    assert verdict_of(ON_OLD, (asked, failed("EINVAL"))) is Verdict.CONFORMS
    assert verdict_of(ON_OLD, (asked, returned())) is Verdict.DEVIATES
    assert verdict_of(EROFS, (asked, failed("EINVAL"))) is Verdict.DEVIATES


@pytest.mark.parametrize(
    ("where", "options", "seen", "verdict"),
    [
        (BARE, "ro,dax=always", returned(), Verdict.CONFORMS),
        (BARE, "dax", returned(), Verdict.CONFORMS),
        (BARE, "dax=never", returned(), Verdict.CONFORMS),
        (BARE, "dax=inode", failed("EINVAL"), Verdict.CONFORMS),
        (BARE, "dax=always", failed("EINVAL"), Verdict.DEVIATES),
        (BARE_OLD, "dax=always", failed("EINVAL"), Verdict.CONFORMS),
        (BARE_OLD, "dax=never", failed("EINVAL"), Verdict.CONFORMS),
        (BARE_OLD, "dax=never", returned(), Verdict.DEVIATES),
        (BARE_OLD, "", returned(), Verdict.CONFORMS),
        (WITHOUT_DAX, "dax=always", returned(), Verdict.CONFORMS),
        (WITHOUT_DAX, "dax=always", failed("EINVAL"), Verdict.DEVIATES),
    ],
)
def test_mount_knows_two_words_for_dax_since_there_is_dax(where: Env, options: str, seen: Observation, verdict: Verdict) -> None:
    assert verdict_of(where, (MountVolume("main", "erofs", options), seen)) is verdict


@pytest.mark.parametrize(("where", "options", "dax"), [(BARE, "dax=always", 1), (BARE, "", 0), (WITHOUT_DAX, "dax=always", 0)])
def test_what_a_program_mounts_has_its_files_and_the_facts_of_its_file_system(where: Env, options: str, dax: int) -> None:
    mounted: Row = (MountVolume("main", "erofs", options), returned())
    direct = (("dio_supported", 1), ("dio_offset_align", 512), ("dio_mem_align", 512))
    said = returned(0, attributes=(("dax", dax), *direct, ("size", 4 * MIB + 64 * KIB)))
    sync = Mmap("m", 4096, "f", protection=(Protection.READ,), flags=(MapFlag.SHARED_VALIDATE, MapFlag.SYNC))
    assert verdict_of(where, mounted, OPEN, (Statx("f"), said), (sync, failed("EOPNOTSUPP"))) is Verdict.CONFORMS
    assert verdict_of(where, mounted, (Open("x", "y", (OpenFlag.CREAT,)), failed("EROFS"))) is Verdict.CONFORMS


def test_a_second_mount_decides_of_dax_anew() -> None:
    rows: list[Row] = [(MountVolume("main", "erofs", "dax=always"), returned()), (UmountVolume("main"), returned())]
    rows += [(MountVolume("main", "erofs", "dax=never"), returned()), OPEN]
    direct = (("dio_supported", 1), ("dio_offset_align", 512), ("dio_mem_align", 512), ("size", 4 * MIB + 64 * KIB))
    assert verdict_of(BARE, *rows, (Statx("f"), returned(0, attributes=(("dax", 0), *direct)))) is Verdict.CONFORMS
    assert verdict_of(BARE, *rows, (Statx("f"), returned(0, attributes=(("dax", 1), *direct)))) is Verdict.DEVIATES
