"""The project's own cases, run in ways that show whether their verdicts can be trusted."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.record.item import Ending, Lifecycle
from harness.report.rows import Row, read_rows

pytestmark = pytest.mark.boot

ROOT = Path(__file__).parents[2]
#: A few cases of different families, and one stack: what differs is how the guest came to be.
SAMPLE = (
    "cases/coherence/store_is_read.yaml",
    "cases/double_buffering/write_is_cached_or_not.yaml",
    "cases/huge_pages/one_fault_maps_2mib.yaml",
    "cases/networking_and_pins/pin_blocks_truncate.yaml",
)


def run(folder: Path, *arguments: str, **more: str) -> tuple[int, tuple[Row, ...], str]:
    """Return status, rows and what was printed of a run of cases."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--artifacts", str(folder), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **more}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=3000)
    return done.returncode, read_rows(folder / "latest"), done.stdout


def test_a_mount_without_dax_behind_the_plans_back_makes_every_dax_item_an_error(tmp_path: Path) -> None:
    status, rows, said = run(tmp_path, "-q", "-p", "tests.drills.sabotage", "cases", "-k", "dax_always", DRILL="without_dax")
    assert status == 3, said
    mounted = [row for row in rows if not mounts_itself(row.where.case)]
    assert len(mounted) > 100
    # What failed often enough is not tried again; nothing has a verdict.
    assert {row.ended.ending for row in mounted} <= {Ending.NOT_SET_UP, Ending.NOT_TRIED}
    assert {row.judged for row in mounted} == {None}
    refused = [row.ended.note for row in mounted if row.ended.ending is Ending.NOT_SET_UP]
    assert len(refused) >= 2
    assert all("StackMismatchError" in note and "dax=never" in note for note in refused)


def test_layers_formats_and_halves_of_a_region_are_stacks_like_any_other(tmp_path: Path) -> None:
    cases = ("cases/splice/file_to_pipe_then_overwrite.yaml", "cases/coherence/two_namespaces_of_a_region.yaml")
    unusual = "partition or dm_linear or dm_mixed or loop or block_1k or journal_data or second_namespace_dax"
    status, rows, said = run(tmp_path, *cases, "-q", "-n", "2", "--full", "--audit", "full", "-k", f"ext4 and not disk and ({unusual})")
    assert status == 0, said
    assert len({row.where.stack for row in rows}) >= 8
    assert all(row.where.variant.is_unusual for row in rows)


def test_a_volume_that_nobody_can_write_to_is_audited_as_it_was_made_with_an_overlay_and_without(tmp_path: Path) -> None:
    cases = ("cases/struct_page/erofs_dax_of_files.yaml", "cases/coherence/overlay_copies_up.yaml")
    status, rows, said = run(tmp_path, *cases, "-q", "--full", "--audit", "full", "-k", "dax_always and not second_pmem")
    assert status == 0, said
    assert {row.where.variant_id for row in rows} == {
        "e820-fsdax-erofs-dax_always",
        "nvdimm_unarmed-fsdax-erofs-dax_always",
        "e820-fsdax-erofs-dax_always-to_disk",
    }


def mounts_itself(case: str) -> bool:
    """Whether the mount is the case's own subject: set-up mounts nothing then, and nothing can be mounted behind its back."""
    return "mount_in_program: true" in (ROOT / case).read_text()


def test_verdicts_do_not_depend_on_how_the_guest_came_to_be(tmp_path: Path) -> None:
    chosen = [*SAMPLE, "-q", "-k", "e820 and ext4 and dax_always"]
    restored = run(tmp_path / "restored", *chosen)
    booted = run(tmp_path / "booted", *chosen, "--lifecycle", "booted", "--reuse-guests")
    assert (restored[0], booted[0]) == (0, 0), restored[2] + booted[2]
    assert lifecycles(restored[1]) == {Lifecycle.RESTORED}, restored[2]
    assert lifecycles(booted[1]) == {Lifecycle.BOOTED}
    assert len(restored[1]) >= len(SAMPLE)
    assert verdicts(restored[1]) == verdicts(booted[1])


def lifecycles(rows: tuple[Row, ...]) -> set[Lifecycle | None]:
    return {row.guest.lifecycle if row.guest else None for row in rows}


def verdicts(rows: tuple[Row, ...]) -> dict[tuple[str, str], tuple[object, object, object]]:
    found: dict[tuple[str, str], tuple[object, object, object]] = {}
    for row in rows:
        assert row.judged is not None
        found[row.where.case, row.where.variant_id] = (row.judged.verdict, row.claims, row.judged.clauses)
    return found
