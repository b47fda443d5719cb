"""The model against this computer's own kernel: what the agent sees on a tmpfs conforms to the rules of the page cache."""

import platform
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest
from hypothesis import HealthCheck, assume, given, settings

from harness.model.facts import Env
from harness.model.judge import judge
from harness.model.verdict import Verdict
from harness.ops import Program
from tests.unit.agent.conftest import Client, Runner
from tests.unit.model.reference import programs
from tests.unit.model.stacks import env, volume

MEMORY = Path("/dev/shm")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder on a tmpfs: Linux has one at this place."""
    kinds = {partition.mountpoint: partition.fstype for partition in psutil.disk_partitions(all=True)}
    assert kinds.get(str(MEMORY)) == "tmpfs", f"{MEMORY} is no tmpfs here: {kinds.get(str(MEMORY))}"
    with TemporaryDirectory(prefix="pmemh-test-", dir=MEMORY) as made:
        yield Path(made)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(program=programs(removing=False))
def test_what_a_tmpfs_does_conforms(client: Client, folder: Path, program: Program) -> None:
    where = env(volume(dax=False, filesystem="tmpfs"), release=platform.release())
    with TemporaryDirectory(dir=folder) as fresh:
        seen = Runner(client, {"main": fresh}).run(*program.steps)
    judgement = judge(Env(where.reading), program, seen)
    assume(judgement.verdict is not Verdict.UNDETERMINED)  # a file that is spliced onto an overlapping part of itself
    assert judgement.verdict is Verdict.CONFORMS, next(s for s in judgement.steps if s.verdict is not Verdict.CONFORMS)
