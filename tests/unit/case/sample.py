"""A small case as text, for tests that change one thing in it."""

from collections.abc import Mapping

from harness.case.case import Case
from harness.case.loader import read_plans
from harness.case.plan import Plan
from harness.model.claims import Claim, Status

CLAIMS: Mapping[str, Claim] = {
    "it_works": Claim("it_works", "family", "It works.", "a thread", Status.NEVER_DID),
    "too_old": Claim("too_old", "family", "It was so.", "a thread", None, "no such kernel"),
}

HEAD = "title: A sample\naxes: {storage: [dax, node], region: [e820]}\n"
OPEN = "  - open: {name: f, path: a, flags: [rdwr, creat]}\n"


def plans(steps: str, head: str = HEAD) -> dict[str, Plan]:
    """Return the plans, by variant, of the case with ``head`` and the program ``steps`` (after an open of ``f``)."""
    return {plan.id: plan for plan in read_plans(f"{head}program:\n{OPEN}{steps}", "cases/family/sample.yaml", CLAIMS)}


def sample(steps: str, head: str = HEAD) -> Case:
    return next(iter(plans(steps, head).values())).case


def only(steps: str) -> Plan:
    """Return the plan of a case that has one variant."""
    (plan,) = plans(steps, "title: A sample\naxes: {storage: [dax], region: [e820]}\n").values()
    return plan
