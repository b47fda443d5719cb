"""Fixtures for cases that are written in Python: they run programs, and judge them."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest

from harness.case.axes import Variant
from harness.case.case import Needs
from harness.case.known import load_nearest_expected
from harness.case.plan import make_stack, named_variants, with_drivers
from harness.errors import HarnessError
from harness.lease.kernels import Unsuitable
from harness.lease.perform import run_item
from harness.model.claims import Decision
from harness.model.judge import Judgement
from harness.model.outcome import Observation
from harness.model.stack import StackReading
from harness.ops import Program
from harness.plugin.collect import PLACE, fail_with_our_fault, hold_guest, judged, place_of
from harness.plugin.options import KERNELS, LIFECYCLES, POOL, artifacts_of, chosen_auditing, make_progress
from harness.plugin.outcome import fail_unless_passed, keep_row
from harness.record.item import Ending, Item, Lifecycle, Target, Where, place_name
from harness.record.store import item_folder
from harness.report.rows import make_unset_row

MARKER = "stack"
_FIXTURE = "harness_place"


@dataclass(frozen=True)
class Place:
    """A variant on a kernel, and how its guest is to come to be."""

    variant: Variant
    target: Target
    lifecycle: Lifecycle

    @property
    def id(self) -> str:
        return place_name(self.variant.id, self.target, self.lifecycle)


@dataclass(frozen=True)
class Judged:
    """What a program came to: the observations and the judgement of each step, for a case that goes on from there."""

    reading: StackReading
    observations: tuple[Observation, ...]
    judgement: Judgement


#: Runs a program on fresh storage and judges it; the second argument says which claims its steps decide.
RunProgram = Callable[..., Judged]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a Python case an item for every stack that it is marked with, on every kernel."""
    if _FIXTURE not in metafunc.fixturenames:
        return
    known = named_variants()
    marker = metafunc.definition.get_closest_marker(MARKER)
    ids = marker.args if marker else ()
    unknown = [name for name in ids if name not in known]
    if not ids or unknown:
        problem = f"no storage stack {unknown[0]!r}" if unknown else f"{metafunc.function.__name__} is not marked with its storage stacks"
        pytest.fail(f"{problem}; write @pytest.mark.{MARKER}(...) with some of: {', '.join(known)}", pytrace=False)
    targets = [t for t in metafunc.config.stash[KERNELS].targets(Needs()) if not isinstance(t, Unsuitable)]
    lifecycles = metafunc.config.stash[LIFECYCLES]
    places = [Place(known[name], target, lifecycle) for target in targets for name in ids for lifecycle in lifecycles]
    metafunc.parametrize(_FIXTURE, places, ids=[place.id for place in places], indirect=True)


def pytest_itemcollected(item: pytest.Item) -> None:
    place = find_place(item)
    if place is not None:
        item.stash[PLACE] = place_of(item_of(item, place).where)


def find_place(item: pytest.Item) -> Place | None:
    """Return where an item of a Python case runs, or None where it is none."""
    call = getattr(item, "callspec", None)
    place = call.params.get(_FIXTURE) if call is not None else None
    return place if isinstance(place, Place) else None


@pytest.fixture
def harness_place(request: pytest.FixtureRequest) -> Place:
    """The stack and the kernel of this item."""
    place: Place = request.param
    return place


@pytest.fixture
def run_program(request: pytest.FixtureRequest, harness_place: Place) -> Iterator[RunProgram]:
    """A function that runs a Program on the fresh stack of this item, keeps the evidence, and fails the test unless it conforms."""
    config = request.config
    pool, artifacts = config.stash[POOL], artifacts_of(config)
    base = item_of(request.node, harness_place)
    kernel, lifecycle, stack = place_of(base.where)
    done: list[Item] = []

    with contextlib.ExitStack() as lifetime:
        try:
            lacking = config.stash[KERNELS].lacking(kernel, with_drivers(Needs(), stack), make_progress(config))
            if lacking is not None:
                keep_row(request.node, make_unset_row(base, Ending.UNAVAILABLE, lacking))
                pytest.skip(lacking)
            first = lifetime.enter_context(pool.lease(stack, kernel, lifecycle))
        except (HarnessError, OSError) as error:
            fail_with_our_fault(request.node, base, Ending.NOT_SET_UP, error)

        def run(program: Program, decisions: tuple[Decision, ...] = ()) -> Judged:
            number = len(done) + 1
            item = Item(replace(base.where, number=number), program, decisions)
            folder = item_folder(artifacts, item)
            done.append(item)
            # The lease of the set-up serves the first program; each later one gets fresh storage of its own.
            try:
                with contextlib.nullcontext(first) if number == 1 else pool.lease(stack, kernel, lifecycle) as lease:
                    run_item(item, lease, folder, load_nearest_expected(request.node.path), chosen_auditing(config))
                    result, row = judged(request.node, item, folder)
                    keep_row(request.node, row)
                    if not row.passed:
                        hold_guest(config, lease, row)
            except (HarnessError, OSError) as error:
                fail_with_our_fault(request.node, item, Ending.HARNESS_ERROR, error)
            fail_unless_passed(row)
            assert result.judgement is not None
            assert result.record.observations is not None
            return Judged(result.record.reading, result.record.observations, result.judgement)

        yield run
    if not done:
        pytest.fail(f"{request.node.nodeid} ran no program: nothing was tested", pytrace=False)


def item_of(node: pytest.Item, place: Place) -> Item:
    """Return the item of a Python case on ``place``, with no program yet."""
    function = getattr(node, "function", None)
    title = (getattr(function, "__doc__", None) or node.name).strip().splitlines()[0]
    where = Where(
        node_id=node.nodeid,
        case=node.nodeid.split("::")[0],
        family=node.path.parent.name,
        name=getattr(node, "originalname", node.name),
        title=title,
        variant=place.variant,
        stack=make_stack(place.variant),
        target=place.target,
        lifecycle=place.lifecycle,
    )
    return Item(where, Program(()))
