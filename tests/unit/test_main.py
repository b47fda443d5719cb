"""The command line beside pytest: what each command prints, and what it says when it cannot."""

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.__main__ import main
from harness.case.case import KERNEL_OPTIONS
from harness.case.schema import case_schema
from harness.cli import images
from harness.cli.facts import fact_parts
from harness.cli.images import needed_kernels
from harness.errors import MachineError
from harness.image import bundle
from harness.image.catalog import KernelChoice, load_catalog
from harness.lease.kept import kept_logs
from harness.lease.options import GuestOptions
from harness.machine.custody import OWNER_FILE
from harness.record.judged import judge_folder
from harness.record.measure import Measurement
from harness.record.mutants import read_recorded
from harness.report.tables import lay_out
from tests.fakes.leased import FakeGuest
from tests.fakes.samples import item, ran, stack
from tests.unit.image.kernels import vmlinux, write_kernel
from tests.unit.lease.test_template import make

ROOT = Path(__file__).parents[2]
CASE = "cases/splice/tee.yaml"
RECORDED = ROOT / "tests/recorded/observations.jsonl"


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A computer with nothing on it: no QEMU, empty caches."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PMEM_HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PMEM_HARNESS_TMP", str(tmp_path / "runtime"))
    monkeypatch.setenv("PMEM_HARNESS_ACCEL", "tcg")
    monkeypatch.setenv("PATH", "/nowhere")
    (tmp_path / "runtime").mkdir()


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return what a command says that asks for something that cannot be."""
    assert main(arguments) == 2
    return capsys.readouterr().err


# ---- looking ---------------------------------------------------------------------------------------------------------


def test_images_are_made_of_the_default_kernel_and_its_flavours_only() -> None:
    catalog = load_catalog()
    assert needed_kernels(catalog) == [KernelChoice("debian_6.12"), KernelChoice("debian_6.12_full")]
    assert needed_kernels(replace(catalog, default_kernel="debian_6.1")) == [KernelChoice("debian_6.1"), KernelChoice("debian_6.1_full")]


def test_the_doctor_says_what_is_missing_and_what_brings_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 3
    said = capsys.readouterr().out
    assert "MISSING  qemu-system-x86_64" in said
    assert "image debian_6.12 (default)" in said
    assert "not built: python -m harness images build --kernel debian_6.12" in said
    assert re.search(r"^- +other images +0 of \d+ are built: python -m harness images list$", said, re.MULTILINE)
    assert "image debian_6.1 " not in said
    assert re.search(r"^- +memory +[0-9.]+\w* are free (on this computer|within the memory limit)", said, re.MULTILINE)
    assert "./bootstrap cases puts in place what is missing" in said


def test_the_doctor_knows_a_kernel_that_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no kernel 'linux-99'" in refused(capsys, "doctor", "--kernel", "linux-99")


def test_the_doctor_says_what_an_own_kernel_lacks_and_how_its_image_is_built(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    options = {**load_catalog().options, **{name.removeprefix("CONFIG_"): "" for name in KERNEL_OPTIONS if name != "CONFIG_RDMA_RXE"}}
    (tmp_path / "vmlinux").write_bytes(vmlinux("".join(f"CONFIG_{name}=y\n" for name in options)))
    main(["doctor", "--kernel", str(tmp_path / "vmlinux")])
    said = capsys.readouterr().out
    assert "Linux 6.99.0-test has every option that guests need; cases that need more are unavailable: the kernel was built without" in said
    assert "without CONFIG_RDMA_RXE (soft-RoCE, the RDMA device of a guest)\n" in said
    assert f"not built: python -m harness images build --kernel {tmp_path}/vmlinux, or" in said


def test_images_that_are_not_built_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["images", "list"]) == 0
    said = capsys.readouterr().out
    assert "rootfs-" in said
    assert re.search(r"^debian_6\.12-\w+ +not built  debian_6\.12 *$", said, re.MULTILINE)


def test_images_that_are_built_are_listed_with_the_version_of_their_kernel(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    packages = {"linux-base-7.3.4-x": "7.3.4-1", "linux-image-7.3.4-x": "7.3.4-1"}
    for name, facts in (("debian_7.3-0", {"release": "7.3.4-x", "packages": packages}), ("rootfs-0", {"packages": {"ndctl": "81"}})):
        (tmp_path / "cache/images" / name).mkdir(parents=True)
        (tmp_path / "cache/images" / name / "manifest.json").write_text(json.dumps(facts))
    assert main(["images", "list"]) == 0
    said = capsys.readouterr().out
    assert re.search(
        r"^debian_7\.3-0 +\d+\w* +an own or patched kernel, .* more +Linux 7\.3\.4-x \(package 7\.3\.4-1\)$", said, re.MULTILINE
    )
    assert re.search(r"^rootfs-0 +\d+\w* +an own or patched kernel, or nothing any more$", said, re.MULTILINE)
    assert re.search(r"^rootfs-\w{16} +not built +every kernel$", said, re.MULTILINE)


def test_a_kernel_from_source_is_not_built_by_looking_at_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--kernel", "source_6.12"]) == 3
    said = capsys.readouterr().out
    how = "only where it is asked for: python -m harness images build --kernel source_6.12"
    assert f"source_6.12 is not built, and compiling a kernel takes many minutes, so it is done {how}\n" in said
    packages = "bc bison flex gcc libelf-dev make patch xz-utils"
    assert re.search(rf"^- +compiling +not here, and needed only for kernels from source: apt-get install {packages}$", said, re.MULTILINE)


def test_a_patch_needs_a_kernel_from_source_and_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "fix.patch").touch()
    build = ("images", "build", "--patch", str(tmp_path / "fix.patch"))
    assert "--patch needs --kernel NAME: the kernel from source" in refused(capsys, *build)
    assert "debian_6.12 cannot be patched: of images/kernels.yaml only kernels with the key 'source' are compiled" in refused(
        capsys, *build, "--kernel", "debian_6.12"
    )
    said = refused(capsys, "images", "build", "--kernel", "source_6.12", "--patch", "nowhere.patch")
    assert "no patch nowhere.patch: a file is expected behind each + of source_6.12+PATCH" in said


def test_a_kernel_that_cannot_be_compiled_here_is_said_to_need_packages(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The root file system is there.
    monkeypatch.setattr(bundle, "_rootfs_entry", lambda *_: None)
    assert main(["images", "build", "--kernel", "source_6.12"]) == 3
    said = capsys.readouterr().err
    assert (
        "Install what is missing: apt-get install bc bison flex gcc libelf-dev make patch xz-utils; or run ./bootstrap build with" in said
    )


def test_a_patched_kernel_is_built_with_how_to_run_cases_on_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    patch = tmp_path / "fix.patch"
    patch.touch()
    built: list[KernelChoice] = []

    def build(choice: KernelChoice, *_: object, compiling: bool) -> object:
        assert compiling
        built.append(choice)
        return SimpleNamespace(release="6.12.1")

    monkeypatch.setattr(images, "guest_image", build)
    assert main(["images", "build", "--kernel", "source_6.12", "--patch", str(patch)]) == 0
    assert built == [KernelChoice("source_6.12+fix", patches=(patch,))]
    said = capsys.readouterr().err.splitlines()
    assert said == ["source_6.12+fix: Linux 6.12.1 is ready", f"run cases on it with: pytest --kernel source_6.12+{patch}"]


def test_removing_images_needs_names_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert "name the entries to remove" in refused(capsys, "images", "remove")
    assert "no image 'x'; there are: none" in refused(capsys, "images", "remove", "x")
    assert main(["images", "remove", "--unused"]) == 0


def test_a_plan_shows_stack_machine_and_steps_without_qemu(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", CASE, "--variant", "nvdimm-fsdax-ext4-dax_always"]) == 0
    said = capsys.readouterr().out
    assert "variant nvdimm-fsdax-ext4-dax_always-debian_6.12" in said
    assert "-device nvdimm,id=main" in said
    assert "6 tee(p, target=q, length=10000)  pinned: returns 10000" in said


def test_a_plan_shows_the_options_that_a_case_needs_and_words_for_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "cases/networking_and_pins/xdp_umem.yaml", "--kernel-args", "own.word=1 other"]) == 0
    said = capsys.readouterr().out
    assert "needs    a kernel with CONFIG_XDP_SOCKETS\n" in said
    assert " own.word=1 other'" in said


def test_words_that_would_break_a_guest_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "'console=tty0' cannot be given" in refused(capsys, "plan", CASE, "--kernel-args", "console=tty0")
    assert "'quiet' cannot be given" in refused(capsys, "shell", "--kernel-args", "quiet")


def test_a_plan_needs_a_case_and_a_variant_that_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert "plan needs the file of a case, or --matrix" in refused(capsys, "plan")
    assert "no variant of cases/splice/tee.yaml has 'floppy' in its id; there are:" in refused(capsys, "plan", CASE, "--variant", "floppy")
    assert "cannot read the file" in refused(capsys, "plan", "cases/nothing.yaml")


def test_the_matrix_has_every_family_and_a_reason_for_every_empty_cell(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--matrix"]) == 0
    said = capsys.readouterr().out
    assert "(?)" not in said
    assert {path.parent.name for path in (ROOT / "cases").glob("*/family.yaml")} <= {line.split()[0] for line in said.splitlines() if line}


def test_a_matrix_of_nothing_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "no cases below" in refused(capsys, "plan", "--matrix", "--cases", str(tmp_path))


def test_shells_are_listed_and_an_unknown_one_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["shell", "--list"]) == 0
    assert "e820-fsdax-ext4-dax_always " in capsys.readouterr().out
    assert "no storage stack 'floppy'; there are:" in refused(capsys, "shell", "--storage", "floppy")
    assert "leave --booted out" in refused(capsys, "shell", "--booted", "--keep-memory", "somewhere")


def test_a_shell_on_a_file_system_without_its_driver_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    kernel = str(write_kernel(tmp_path / "boot"))
    missing = "cannot have disk-ext2: the kernel was built without CONFIG_EXT2_FS (ext2 by its own driver)"
    assert missing in refused(capsys, "shell", "--storage", "disk-ext2", "--kernel", kernel)


def test_a_guest_that_does_not_come_up_for_a_shell_leaves_its_logs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)

    class Broken:
        def __init__(self, _choose: object, _progress: object, options: GuestOptions) -> None:
            self.keeper = options.keeper

        def clone(self, *_: object) -> contextlib.AbstractContextManager[Path]:
            return self.failing()

        @contextlib.contextmanager
        def failing(self) -> Iterator[Path]:
            with kept_logs(self.keeper, "debian_6.12") as logs:
                (logs / "console.log").write_text("last words")
                if logs:
                    raise MachineError("QEMU did not start")
            yield logs

    (tmp_path / "artifacts/not-set-up/shell/old-1").mkdir(parents=True)
    monkeypatch.setattr("harness.cli.shell.Cloner", Broken)
    assert main(["shell"]) == 3
    assert "harness: QEMU did not start\nlogs: artifacts/not-set-up/shell/debian_6.12-1\n" in capsys.readouterr().err
    assert (tmp_path / "artifacts/not-set-up/shell/debian_6.12-1/console.log").read_text() == "last words"
    assert not (tmp_path / "artifacts/not-set-up/shell/old-1").exists()


def test_a_shell_without_qemu_says_what_to_install(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["shell"]) == 3
    assert "install the package qemu-system-x86" in capsys.readouterr().err


# ---- judging again ---------------------------------------------------------------------------------------------------


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    """The artifacts of an item that conforms, on a fake guest."""
    folder = tmp_path / "artifacts"
    ran(folder / "fam/one", FakeGuest(stack()), item())
    judge_folder(folder / "fam/one", ())
    return folder


def test_stored_items_are_judged_again(capsys: pytest.CaptureFixture[str], artifacts: Path) -> None:
    assert main(["judge", str(artifacts)]) == 0
    assert "1 of 1 items conform" in capsys.readouterr().out


def test_judging_again_goes_by_the_known_deviations_above_the_case_and_says_where_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    ran(tmp_path / "kept/one")
    assert main(["judge", "kept"]) == 0
    assert "cases/fam/one.yaml is not below this folder: the known deviations of 1 items may not have been found" in capsys.readouterr().err
    (tmp_path / "cases/fam").mkdir(parents=True)
    (tmp_path / "cases/fam/one.yaml").touch()
    (tmp_path / "cases/deviations.yaml").write_text("deviations: [{clause: C-RW-01, item: fam/one, since: '6.0', reference: a link}]")
    assert main(["judge", "kept"]) == 1
    captured = capsys.readouterr()
    assert "a link" in captured.out
    assert "not below this folder" not in captured.err


@pytest.mark.parametrize("command", ["judge", "facts", "mutants"])
def test_a_folder_without_items_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str) -> None:
    assert "holds no item: an item's folder has a plan.json" in refused(capsys, command, str(tmp_path / "runtime"))
    assert "holds no item" in refused(capsys, command, str(tmp_path / "absent"))


def test_facts_are_measured_from_what_was_stored(capsys: pytest.CaptureFixture[str], artifacts: Path) -> None:
    assert main(["facts", str(artifacts)]) == 0
    head, *readings, last = capsys.readouterr().out.splitlines()
    assert head.split() == ["fact", "storage", "6.12.95-fake"]
    assert all(" ext4 dax on pmem " in line for line in readings)
    assert last.startswith(f"{len(readings)} readings, 0 differ from the model's table, ")


def test_a_fact_of_which_guests_show_something_else_is_named_with_the_items() -> None:
    readings = [
        Measurement("some_fact", "ext4 on disk", "6.1", True, (False,), ("one[x]", "two[y]")),
        Measurement("some_fact", "ext4 on disk", "6.12", True, (True, False), ()),
        Measurement("other_fact", "node on pmem", "6.12", 4, (), ("three[z]",)),
        Measurement("third_fact", "node on pmem", "6.12", 4, None, ()),
    ]
    assert lay_out(fact_parts(readings)) == [
        "fact        storage       6.1                  6.12",
        "some_fact   ext4 on disk  False (table: True)  True or False",
        "other_fact  node on pmem                       contradictory (table: 4)",
        "third_fact  node on pmem                       (4: not shown)",
        "4 readings, 2 differ from the model's table, 1 are not told apart by any item here",
        "differs: some_fact on ext4 on disk, Linux 6.1: the table says True, shown by one[x], two[y]",
        "differs: other_fact on node on pmem, Linux 6.12: the table says 4, shown by three[z]",
    ]


def test_mutants_are_counted_and_the_smallest_collection_is_kept(
    capsys: pytest.CaptureFixture[str], artifacts: Path, tmp_path: Path
) -> None:
    main(["mutants", str(artifacts), "--write", str(tmp_path / "kept.jsonl")])
    assert "of 1 items catch every mutant" in capsys.readouterr().out
    assert [run.item for run in read_recorded(tmp_path / "kept.jsonl")] == [item().where.id]


def test_the_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == case_schema()


def test_the_contract_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["contract"]) == 0
    assert capsys.readouterr().out == (ROOT / "docs/contract.md").read_text()


# ---- templates and leftovers -----------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "cache/templates"
    make(folder, "stack-a", 10)
    make(folder, "machine-b", 20)
    return folder


def test_templates_are_listed_with_their_sizes(capsys: pytest.CaptureFixture[str], store: Path) -> None:
    assert main(["templates", "list"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said[:3]] == ["template", "machine-b", "stack-a"]
    assert said[3].startswith("2 templates, 1MiB of at most 8GiB in ")


def test_verifying_names_what_is_damaged(capsys: pytest.CaptureFixture[str], store: Path) -> None:
    assert main(["templates", "verify"]) == 0
    (store / "stack-a/ram").write_bytes(b"other")
    assert main(["templates", "verify"]) == 1
    assert "DAMAGED: ram is 5:" in capsys.readouterr().out
    assert main(["templates", "verify", "machine-b"]) == 0
    assert "no template 'x'; there are:" in refused(capsys, "templates", "verify", "x")


def test_templates_are_removed_by_name_or_all(capsys: pytest.CaptureFixture[str], store: Path) -> None:
    assert "name the templates to remove" in refused(capsys, "templates", "remove")
    assert "no template 'x'" in refused(capsys, "templates", "remove", "x")
    assert main(["templates", "remove", "stack-a"]) == 0
    assert main(["templates", "remove", "--all"]) == 0
    assert not list(store.glob("*-*"))


def test_leftovers_are_only_named_in_a_dry_run_and_then_removed(capsys: pytest.CaptureFixture[str], tmp_path: Path, store: Path) -> None:
    left = tmp_path / "runtime/pmemh-left"
    left.mkdir(mode=0o700)
    (left / OWNER_FILE).write_text("999999999 1 gone")
    (store / "building").mkdir()
    (store / "locks").mkdir()
    (store / "building/stack-c~1").mkdir()
    assert main(["reap", "--dry-run"]) == 0
    assert f"{left}: " in capsys.readouterr().out
    assert left.exists()
    assert main(["reap"]) == 0
    assert "unfinished in the cache: stack-c~1" in capsys.readouterr().out
    assert not left.exists()
    assert not (store / "building/stack-c~1").exists()


# ---- the log ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (["reap"], r"DEBUG   machine\.leftovers: looked for leftovers in .*: 0"),
        (["doctor"], r"DEBUG   host\.tools: qemu-system-x86_64 is not here"),
        (["templates", "remove", "stack-a"], r"INFO    host\.cache: removed .*stack-a"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_verbose_shows_the_log_on_standard_error(
    command: list[str], line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for verbose in ([], ["-v"]):
        make(tmp_path / f"templates{len(verbose)}", "stack-a")
        monkeypatch.setenv("PMEM_HARNESS_TEMPLATES", str(tmp_path / f"templates{len(verbose)}"))
        main([*command, *verbose])
        shown = capsys.readouterr().err
        assert bool(re.search(rf"^\d{{4}}-.* {line}$", shown, re.MULTILINE)) is bool(verbose)
