"""The claims of 2015, what decides them, and what became of each on a kernel.

That a kernel conforms to the model says nothing about a claim; this does. A decision points at a step of a case and says
what its observation must be for the claim to hold. Only items that completed and conform count as evidence.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from harness.model.outcome import How, Observation, RunKind
from harness.model.stack import MAIN, StackReading
from harness.model.verdict import Verdict


class Status(StrEnum):
    """What became of a claim on one kernel."""

    HOLDS = "holds"
    HOLDS_NO_LONGER = "holds no longer"
    NEVER_DID = "never did"
    NOT_REPRODUCIBLE = "not reproducible here"
    DISPUTED = "disputed"
    UNDETERMINED = "undetermined"


#: The words for evidence against a claim; the registry says which one fits.
OTHERWISE = (Status.HOLDS_NO_LONGER, Status.NEVER_DID)


@dataclass(frozen=True)
class Claim:
    """One narrow claim in our words. ``otherwise`` is its status where evidence is against it.

    ``not_reproducible`` says why no guest of ours can decide it; such a claim has no decisions.
    """

    id: str
    family: str
    words: str
    source: str
    otherwise: Status | None = None
    not_reproducible: str | None = None


@dataclass(frozen=True)
class Range:
    """A number that must lie between two bounds; both included, None is open."""

    at_least: int | None = None
    at_most: int | None = None

    def holds(self, number: int) -> bool:
        return (self.at_least is None or number >= self.at_least) and (self.at_most is None or number <= self.at_most)

    def describe(self) -> str:
        if self.at_least == self.at_most:
            return str(self.at_least)
        return " and ".join(
            f"{words} {bound}" for words, bound in (("at least", self.at_least), ("at most", self.at_most)) if bound is not None
        )


class Pages(StrEnum):
    """Whether every page, or none, has the property: resident, or a frame inside the main region."""

    ALL = "all"
    NONE = "none"


@dataclass(frozen=True)
class Growth:
    """By how much the value of a step is to exceed that of the earlier step ``since``."""

    since: int
    by: Range


@dataclass(frozen=True)
class HoldsIf:
    """What the observation must be; everything that is set must be so.

    ``works``: whether the step returned, with any value, or did not (an error, a signal, blocked). ``resident``: the pages
    that mincore reports. ``frames_in_region``: the pages whose physical frame lies in the main volume's region.
    ``written_by``: the step whose bytes all of the data is; ``zeroes``: whether the data is all zeroes.
    """

    works: bool | None = None
    returns: Range | None = None
    errno: str | None = None
    signal: str | None = None
    blocked: bool | None = None
    attributes: tuple[tuple[str, int | str], ...] = ()
    resident: Pages | None = None
    frames_in_region: Pages | None = None
    minor_faults: Range | None = None
    written_by: int | None = None
    zeroes: bool | None = None
    growth: Growth | None = None


@dataclass(frozen=True)
class Decision:
    """Step ``step`` of the program decides the claim."""

    claim: str
    step: int
    holds_if: HoldsIf


def find_held(decision: Decision, observations: Sequence[Observation], reading: StackReading) -> bool | None:
    """Return whether the claim held at that step; None where the evidence for it is missing."""
    seen = observations[decision.step]
    if seen.how is How.NOT_RUN:
        return None
    wanted = decision.holds_if
    answers: list[bool | None] = []
    if wanted.works is not None:
        answers.append((seen.how is How.RETURNED) is wanted.works)
    if wanted.returns is not None:
        answers.append(seen.how is How.RETURNED and wanted.returns.holds(seen.value))
    if wanted.errno is not None:
        answers.append(seen.how is How.FAILED and seen.errno == wanted.errno)
    if wanted.signal is not None:
        answers.append(seen.how is How.SIGNAL and seen.signal == wanted.signal)
    if wanted.blocked is not None:
        answers.append((seen.how is How.BLOCKED) is wanted.blocked)
    for name, value in wanted.attributes:
        answers.append(None if seen.attribute(name) is None else seen.attribute(name) == value)
    if wanted.resident is not None:
        answers.append(_pages_hold(wanted.resident, None if seen.resident is None else [bit == "1" for bit in seen.resident]))
    if wanted.frames_in_region is not None:
        answers.append(_pages_hold(wanted.frames_in_region, _frames_in_region(seen, reading)))
    if wanted.minor_faults is not None:
        answers.append(None if seen.minor_faults is None else wanted.minor_faults.holds(seen.minor_faults))
    if wanted.written_by is not None:
        answers.append(None if not seen.data else all(r.kind is RunKind.TAG and r.writer == wanted.written_by + 1 for r in seen.data))
    if wanted.zeroes is not None:
        answers.append(None if not seen.data else all(r.kind is RunKind.ZERO for r in seen.data) is wanted.zeroes)
    if wanted.growth is not None:
        before = observations[wanted.growth.since]
        both = seen.how is How.RETURNED and before.how is How.RETURNED
        answers.append(wanted.growth.by.holds(seen.value - before.value) if both else None)
    return _all_of(answers)


def _pages_hold(wanted: Pages, pages: list[bool] | None) -> bool | None:
    if not pages:
        return None
    return all(pages) if wanted is Pages.ALL else not any(pages)


def _frames_in_region(seen: Observation, reading: StackReading) -> list[bool] | None:
    main = reading.volume(MAIN)
    if seen.frames is None or main.region_start is None or main.region_size_bytes is None or 0 in seen.frames:
        return None
    end = main.region_start + main.region_size_bytes
    return [main.region_start <= frame * reading.page_bytes < end for frame in seen.frames]


def _all_of(answers: Sequence[bool | None]) -> bool | None:
    if False in answers:
        return False
    return None if None in answers or not answers else True


# ---- from evidence to status -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Evidence:
    """What one item says about one claim. ``verdict`` None: the item did not complete, ``note`` says how it ended."""

    claim: str
    kernel: str
    item: str
    held: bool | None
    verdict: Verdict | None
    note: str = ""


@dataclass(frozen=True)
class Unavailable:
    """An item that cannot run on this kernel or host at all, and why."""

    claim: str
    kernel: str
    item: str
    reason: str


@dataclass(frozen=True)
class ClaimStatus:
    """The status with the items that decide it, and those that were set aside, each with the reason."""

    claim: Claim
    kernel: str
    status: Status
    held: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    set_aside: tuple[tuple[str, str], ...] = ()
    reason: str = ""


def make_evidence(
    kernel: str,
    item: str,
    decisions: Iterable[Decision],
    observations: Sequence[Observation],
    reading: StackReading,
    verdict: Verdict,
) -> tuple[Evidence, ...]:
    """Return what a completed item says: one piece a claim, in which all of the item's decisions on it must hold."""
    answers: dict[str, list[bool | None]] = {}
    for decision in decisions:
        answers.setdefault(decision.claim, []).append(find_held(decision, observations, reading))
    return tuple(Evidence(claim, kernel, item, _all_of(held), verdict) for claim, held in answers.items())


def claim_statuses(
    claims: Iterable[Claim],
    kernels: Sequence[str],
    evidence: Iterable[Evidence],
    unavailable: Iterable[Unavailable] = (),
) -> tuple[ClaimStatus, ...]:
    """Return the status of every claim on every kernel, claims first."""
    pieces, missing = tuple(evidence), tuple(unavailable)
    return tuple(
        claim_status(
            claim,
            kernel,
            [e for e in pieces if (e.claim, e.kernel) == (claim.id, kernel)],
            [u for u in missing if (u.claim, u.kernel) == (claim.id, kernel)],
        )
        for claim in claims
        for kernel in kernels
    )


def claim_status(claim: Claim, kernel: str, evidence: Sequence[Evidence], unavailable: Sequence[Unavailable]) -> ClaimStatus:
    """Return what the evidence (all of it about this claim and kernel) makes of the claim."""
    held = tuple(e.item for e in evidence if e.verdict is Verdict.CONFORMS and e.held is True)
    failed = tuple(e.item for e in evidence if e.verdict is Verdict.CONFORMS and e.held is False)
    aside = tuple((e.item, why) for e in evidence if (why := _why_aside(e)))
    aside += tuple((u.item, u.reason) for u in unavailable)

    def result(status: Status, reason: str = "") -> ClaimStatus:
        return ClaimStatus(claim, kernel, status, held, failed, aside, reason)

    if claim.not_reproducible is not None:
        return result(Status.NOT_REPRODUCIBLE, claim.not_reproducible)
    if held and failed:
        return result(Status.DISPUTED, f"{len(held)} items say that it holds, {len(failed)} that it does not")
    if held:
        return result(Status.HOLDS)
    if failed:
        return result(claim.otherwise or Status.HOLDS_NO_LONGER)
    if evidence:
        return result(Status.UNDETERMINED, "no item that conforms decides it")
    if unavailable:
        return result(Status.NOT_REPRODUCIBLE, "; ".join(sorted({u.reason for u in unavailable})))
    return result(Status.UNDETERMINED, "no item that decides it was run")


def _why_aside(evidence: Evidence) -> str:
    if evidence.verdict is None:
        return evidence.note or "it did not complete"
    if evidence.verdict is not Verdict.CONFORMS:
        return f"its verdict is {evidence.verdict}"
    return "the evidence is missing" if evidence.held is None else ""
