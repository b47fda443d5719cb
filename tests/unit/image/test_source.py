"""A kernel is compiled from a source package; a tree of five small files and a make of a few lines stand in for the real ones."""

import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from harness.errors import HostError, UsageError
from harness.host.deadline import Deadline
from harness.host.tools import find_tool
from harness.image import source as subject
from harness.image.kernel import find_kernel_files
from harness.image.logged import FAILED_BUILD_LOG
from harness.image.source import apply_patch, compile_kernel, compiler_version, counting, parse_fragment

from .kernels import RELEASE, bzimage
from .programs import put_program

MERGE = """shift 2
cat "$@" >> .config
"""
MAKE = """echo "make $*" >> asked
case "$*" in
*tinyconfig) echo CONFIG_TINY=y > .config ;;
*olddefconfig) grep -v LOST .config > kept; mv kept .config ;;
*bzImage)
    echo "  CC      fs/dax.o"
    grep -q broken fs/dax.c && { echo "fs/dax.c:2: error: it is broken"; exit 2; }
    mkdir -p arch/x86/boot
    cp bzImage arch/x86/boot ;;
esac
"""
PATCH = """--- a/fs/dax.c
+++ b/fs/dax.c
@@ -1,3 +1,3 @@
 one
-two
+two of mine
 three
"""


needs_patch = pytest.mark.skipif(find_tool("patch") is None, reason="patch is not on this computer")


@pytest.fixture(autouse=True)
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMEM_HARNESS_CACHE", str(tmp_path))
    put_program(tmp_path / "bin", "make", MAKE, monkeypatch)


def pack(folder: Path) -> Path:
    """A source package's archive: the tree in a folder of its own."""
    tree = folder / "linux-source-6.99"
    for name, content in {"fs/dax.c": "one\ntwo\nthree\n", "scripts/kconfig/merge_config.sh": MERGE}.items():
        (tree / name).parent.mkdir(parents=True)
        (tree / name).write_text(content)
    (tree / "bzImage").write_bytes(bzimage())
    archive = folder / "linux-source-6.99.tar.gz"
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(tree, tree.name)
    return archive


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder / name


def compiled(
    folder: Path, *patches: Path, base: str = "CONFIG_A=y\n", needed: Mapping[str, str] | None = None, told: list[str] | None = None
) -> Path:
    """Compile; return the tree."""
    fragments = (write(folder, "base.config", base), write(folder, "more.config", 'CONFIG_NAME="x y"\n# CONFIG_B is not set\n'))
    (folder / "scratch").mkdir()
    say = ([] if told is None else told).append
    return compile_kernel("source_6.99", pack(folder), fragments, needed or {}, patches, folder / "scratch", say, Deadline.after(60))


@needs_patch
def test_a_kernel_is_unpacked_patched_configured_and_made_at_low_priority(tmp_path: Path) -> None:
    told: list[str] = []
    tree = compiled(tmp_path, write(tmp_path, "mine.patch", PATCH), needed={"A": "a reason"}, told=told)
    assert (tree / "fs/dax.c").read_text() == "one\ntwo of mine\nthree\n"
    kernel = find_kernel_files(tree)
    assert (kernel.release, kernel.modules) == (RELEASE, None)
    assert kernel.config == {"TINY": "y", "A": "y", "NAME": "x y"}
    *others, last = (tree / "asked").read_text().splitlines()
    common = "make ARCH=x86_64 KBUILD_BUILD_USER=harness KBUILD_BUILD_HOST=pmem"
    assert others == [f"{common} tinyconfig", f"{common} olddefconfig"]
    assert last.startswith(f"{common} -j")
    assert last.endswith(" LOCALVERSION=-source_6.99 bzImage")
    assert subject.make_command()[:4] == ["nice", "-n", "10", "make"]
    assert told[:2] == ["unpacking linux-source-6.99.tar.gz (about 1.7 GB)", "applying mine.patch"]
    assert told[2].startswith("compiling source_6.99 with ")


@needs_patch
def test_a_patch_that_does_not_apply_is_named_with_hunk_and_file(tmp_path: Path) -> None:
    patch = write(tmp_path, "mine.patch", PATCH.replace("-two\n", "-other\n"))
    with pytest.raises(UsageError, match=rf"(?s)the patch {patch} does not apply .*patching file fs/dax\.c\n  Hunk #1 FAILED at 1\."):
        compiled(tmp_path, patch)


@needs_patch
def test_a_patch_of_a_file_that_is_not_there_shows_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"(?s)does not apply .*can't find file to patch at input line 3.*b/fs/dax\.c"):
        apply_patch(write(tmp_path, "mine.patch", PATCH), tmp_path, Deadline.after(30))


@needs_patch
def test_a_file_that_is_no_patch_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"(?s)mine\.patch does not apply to this source:.*Only garbage was found in the patch input"):
        apply_patch(write(tmp_path, "mine.patch", "hello\n"), tmp_path, Deadline.after(30))


def test_options_that_did_not_survive_are_named_with_who_wants_them(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"source_6\.99 cannot be built as it is described: with its fragments laid over") as caught:
        compiled(tmp_path, base="CONFIG_A_LOST=y\n", needed={"C": "mounting with DAX", "A_LOST": "a reason"})
    assert str(caught.value).splitlines()[1:] == [
        "  CONFIG_A_LOST=y (base.config): it is n",
        "  CONFIG_C=y (mounting with DAX): it is n",
    ]


def test_an_option_that_a_fragment_takes_away_though_it_is_needed_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\n  CONFIG_B=y \(mounting with DAX\): it is n$"):
        compiled(tmp_path, needed={"B": "mounting with DAX"})


def test_the_last_fragment_counts_and_what_is_not_set_is_wanted_so() -> None:
    assert parse_fragment("# a remark\nCONFIG_A=y\n# CONFIG_B is not set\nCONFIG_N=8\n") == {"A": "y", "B": "n", "N": "8"}


@needs_patch
def test_a_kernel_that_does_not_compile_shows_its_last_lines_and_a_log_that_is_still_there(tmp_path: Path) -> None:
    patch = write(tmp_path, "bad.patch", PATCH.replace("two of mine", "broken"))
    with pytest.raises(HostError) as caught:
        compiled(tmp_path, patch)
    said = str(caught.value)
    assert said.startswith("source_6.99 does not compile:\n  fs/dax.c:2: error: it is broken\nexit status 2 from: nice -n 10 make ")
    assert "  CC      fs/dax.o\nfs/dax.c:2: error: it is broken\n" in said
    assert said.endswith(f"whole output: {tmp_path / FAILED_BUILD_LOG}")
    assert "it is broken" in (tmp_path / FAILED_BUILD_LOG).read_text()


def test_who_interrupts_is_told_what_takes_another_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, cwd: Path, watch: object = None) -> None:
        if watch is not None:
            raise KeyboardInterrupt
        (cwd / ".config").write_text('CONFIG_A=y\nCONFIG_NAME="x y"\n')

    monkeypatch.setattr(subject, "run_logged", interrupted)
    told: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        compiled(tmp_path, told=told)
    assert told[-1] == "interrupted: removing what was unpacked and compiled, 90 thousand files"


def test_progress_is_told_in_steps_and_never_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "_ABOUT_OBJECTS", 40)
    told: list[str] = []
    log = tmp_path / "log"
    look = counting(log, told.append, Deadline.after(60))
    look()
    log.write_text("  HOSTCC  scripts/kconfig/conf.o\n  CC      a.o\n")
    look()
    assert told == []
    log.write_text("  CC      a.o\n" * 9 + "  AS      b.o\n")
    look()
    look()
    log.write_text("  CC      a.o\n" * 44)
    look()
    assert [line.partition(",")[0] for line in told] == ["compiled 10 of about 40 objects", "compiled 44 objects"]
    assert all(line.endswith(" s") and " min " in line for line in told)


def test_the_compiler_is_known_by_what_it_says_of_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_program(tmp_path / "bin", "gcc", "echo 'gcc (Debian 99) 99.1'; echo more", monkeypatch)
    assert compiler_version() == "gcc (Debian 99) 99.1"
    monkeypatch.setenv("PATH", "/nowhere")
    assert compiler_version() == ""
