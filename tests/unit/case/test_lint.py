"""The cases in the tree load, and together they say what they have to."""

import functools
import re
from pathlib import Path

import pytest

from harness.case.claims import load_claims, load_families
from harness.case.known import load_nearest_known
from harness.case.loader import find_case_files, is_case_file, load_plans, read_plans
from harness.case.plan import make_matrix, unexplained_cells
from harness.case.reference import describe_evidence, describe_flags, describe_operations
from harness.model.facts import FACTS
from harness.model.known import KnownDeviation
from harness.ops import OPERATIONS, Pwrite, Read, Store

ROOT = Path(__file__).parents[3]
CASES = ROOT / "cases"
FILES = find_case_files(CASES)
GUIDE = ROOT / "docs" / "writing-a-case.md"


plans_of = functools.cache(load_plans)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CASES)))
def test_every_case_loads_and_every_variant_has_a_plan(path: Path) -> None:
    assert plans_of(path)


def test_there_are_cases() -> None:
    assert FILES


def test_every_case_lies_in_the_folder_of_a_family_that_describes_itself() -> None:
    families = {family.name for family in load_families(CASES)}
    stray = [path for path in CASES.rglob("*.yaml") if is_case_file(path) and path not in FILES]
    assert not stray
    assert {path.parent.name for path in FILES} <= families
    assert all(path.parent.parent == CASES for path in FILES)


def test_titles_are_unique() -> None:
    titles: dict[str, Path] = {}
    for path in FILES:
        title = plans_of(path)[0].case.title
        assert title not in titles, f"{path} and {titles[title]} have the same title"
        titles[title] = path


def test_every_claim_belongs_to_a_family() -> None:
    families = {family.name for family in load_families(CASES)}
    assert [c.id for c in load_claims(CASES / "claims.yaml").values() if c.family not in families] == []


def test_every_claim_is_decided_by_a_case() -> None:
    decided = {decision.claim for path in FILES for plan in plans_of(path) for decision in plan.decisions}
    claims = load_claims(CASES / "claims.yaml").values()
    assert [c.id for c in claims if c.not_reproducible is None and c.id not in decided] == []


def test_what_is_watched_is_overwritten_as_a_whole_between_move_and_read() -> None:
    """A move after which nothing is written would be taken for a copy."""
    watched = [(plan, watch) for path in FILES for plan in plans_of(path) for watch in plan.watches]
    assert watched
    for plan, watch in watched:
        steps = [step.operation for step in plan.program.steps]
        written = [op.length for op in steps[watch.moves + 1 : watch.read] if isinstance(op, Pwrite | Store) and op.offset == 0]
        source = max(op.length for op in steps[: watch.moves] if isinstance(op, Pwrite | Store))
        reads = steps[watch.read]
        # What is moved from the begin of the source on is read from its begin on.
        first = isinstance(reads, Read) and getattr(steps[watch.moves], "offset", None) == 0
        needed = min(source, reads.length) if first and isinstance(reads, Read) else source
        assert max(written, default=0) >= needed, (plan.case.path, watch.path)


def without_a_variant(known: tuple[KnownDeviation, ...]) -> list[KnownDeviation]:
    """Return the known deviations that name no variant of their case. A case in Python has its own stacks, which only pytest knows."""
    plans = {f"{path.parent.name}/{path.stem}": plans_of(path) for path in FILES}
    return [entry for entry in known if entry.item in plans and not any(re.search(entry.variant, plan.id) for plan in plans[entry.item])]


def test_every_known_deviation_is_one_of_a_variant_that_there_is() -> None:
    assert without_a_variant(load_nearest_known(CASES / "splice/tee.yaml")) == []
    listed, no_more = (
        KnownDeviation("C-RW-06", "splice/tee", variant, (6, 1), None, "x") for variant in ("ext4-dax_always", "ext4-dax_often")
    )
    assert without_a_variant((listed, no_more)) == [no_more]


def test_every_fact_of_the_model_has_a_probe() -> None:
    probed = {fact for path in FILES for fact in plans_of(path)[0].case.probes}
    assert probed == set(FACTS)


def test_every_empty_cell_of_the_matrix_states_its_reason() -> None:
    plans = [plan for path in FILES for plan in plans_of(path)]
    assert unexplained_cells(make_matrix(plans, load_families(CASES))) == []


def test_the_first_case_of_the_guide_is_a_case() -> None:
    text = GUIDE.read_text().partition("```yaml\n")[2].partition("```")[0]
    assert len(read_plans(text, "cases/coherence/store_is_read.yaml", {})) == 14


def test_the_guide_has_every_operation_and_every_word_as_the_code_has_them() -> None:
    text = GUIDE.read_text()
    assert all(f"| `{call}` |" in text for call in OPERATIONS)
    assert describe_operations() in text, "replace the table by the output of harness.case.reference.describe_operations()"
    assert describe_evidence() in text, "replace the table by the output of harness.case.reference.describe_evidence()"
    assert describe_flags() in text, "replace the table by the output of harness.case.reference.describe_flags()"
