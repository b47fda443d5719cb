"""The project's own cases, run in ways that show whether their verdicts can be trusted."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.boot

ROOT = Path(__file__).parents[2]
#: A few cases of different families, and one stack: what differs is how the guest came to be.
SAMPLE = (
    "cases/coherence/store_is_read.yaml",
    "cases/double_buffering/write_is_cached_or_not.yaml",
    "cases/huge_pages/one_fault_maps_2mib.yaml",
    "cases/networking_and_pins/pin_blocks_truncate.yaml",
)


def run(folder: Path, *arguments: str, **more: str) -> tuple[int, list[dict[str, object]], str]:
    """Return status, rows and what was printed of a run of cases."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--artifacts", str(folder), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **more}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=3000)
    results = folder / "latest/results.jsonl"
    rows = [json.loads(line) for line in results.read_text().splitlines()] if results.is_file() else []
    return done.returncode, rows, done.stdout


def test_a_mount_without_dax_behind_the_plans_back_makes_every_dax_item_an_error(tmp_path: Path) -> None:
    status, rows, said = run(tmp_path, "-q", "-p", "tests.drills.sabotage", "cases", "-k", "dax_always", DRILL="without_dax")
    assert status == 3, said
    mounted = [row for row in rows if not mounts_itself(str(row["case"]))]
    assert len(mounted) > 100
    # What failed often enough is not tried again; nothing has a verdict.
    assert {row["ending"] for row in mounted} <= {"not set up", "not tried"}
    assert {row["verdict"] for row in mounted} == {None}
    refused = [str(row["note"]) for row in mounted if row["ending"] == "not set up"]
    assert len(refused) >= 2
    assert all("StackMismatchError" in note and "dax=never" in note for note in refused)


def mounts_itself(case: str) -> bool:
    """Whether the mount is the case's own subject: set-up mounts nothing then, and nothing can be mounted behind its back."""
    return "mount_in_program: true" in (ROOT / case).read_text()


def test_verdicts_do_not_depend_on_how_the_guest_came_to_be(tmp_path: Path) -> None:
    chosen = [*SAMPLE, "-q", "-k", "e820 and ext4 and dax_always"]
    restored = run(tmp_path / "restored", *chosen)
    booted = run(tmp_path / "booted", *chosen, "--lifecycle", "booted", "--reuse-guests")
    assert (restored[0], booted[0]) == (0, 0), restored[2] + booted[2]
    assert {row["lifecycle"] for row in restored[1]} == {"restored"}, restored[2]
    assert {row["lifecycle"] for row in booted[1]} == {"booted"}
    assert len(restored[1]) >= len(SAMPLE)
    assert verdicts(restored[1]) == verdicts(booted[1])


def verdicts(rows: list[dict[str, object]]) -> dict[tuple[object, object], tuple[object, object, object]]:
    return {(row["case"], row["variant"]): (row["verdict"], row["claims"], row["clauses"]) for row in rows}
