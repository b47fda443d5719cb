"""Comparing: what was seen with what a rule expects. What is left after a program is compared elsewhere (audit.py)."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from harness.model.clause import Context, Undetermined
from harness.model.content import Pieces, cut, find_mismatch, has_unknown
from harness.model.expectation import (
    AreaFlag,
    Completions,
    Evidence,
    Expectation,
    Expectations,
    Frame,
    Frames,
    Number,
    PhysicalRange,
    Residence,
    Where,
)
from harness.model.outcome import How, Observation
from harness.model.state import State


@dataclass(slots=True)
class Comparison:
    """How far what was seen agrees with an expectation, and what a report says of it.

    ``states`` are those that may follow; none: it deviates.
    """

    allowed: str = ""
    observed: str = ""
    because: str = ""
    unsure: str = ""
    states: list[State] = field(default_factory=list)
    #: How many things agreed before the one that did not: the way of ending, the value, the bytes.
    agreed: int = 0
    progress: int = 0


def compare(c: Context, expected: Expectations, seen: Observation) -> Comparison:
    """Return the comparison with the first of ``expected`` that fits, or else with the one of a clause that agrees furthest.

    Raises Undetermined where what fits cannot be judged.
    """
    best = Comparison()
    for expectation in expected:
        found = _compare(c, expectation, seen)
        if found.states:
            return found
        if expectation.clause and found.agreed >= best.agreed:
            best = found
    best.observed = best.observed or seen.describe()
    if best.because and best.because not in c.hits:
        c.hits.append(best.because)
    return best


def _compare(c: Context, e: Expectation, seen: Observation) -> Comparison:
    found = Comparison(e.allowed, "", e.clause, e.unsure, progress=e.progress)
    if e.how is not None and not _ends_so(c, e, seen):
        found.agreed = 1 if seen.how is e.how else 0
        return found
    if e.unjudged:
        raise Undetermined(e.unjudged)
    found.agreed = 2
    if e.shown is not None and not _shows(c, found, *e.shown, seen):
        return found
    found.agreed = 3
    for state, evidence in e.following(seen):
        if not evidence or all(_agrees(c, found, one, seen) for one in evidence):
            found.states.append(state)
    return found


def _ends_so(c: Context, e: Expectation, seen: Observation) -> bool:
    if seen.how is not e.how:
        return False
    right = True
    if e.how is How.RETURNED:
        right = e.low <= seen.value <= e.high and (e.accepts is None or e.accepts(seen.value))
    elif e.how in (How.FAILED, How.SIGNAL):
        right = (seen.errno or seen.signal) in e.names
    return c.holds(e.clause, right) if e.asks else right


def _shows(c: Context, found: Comparison, clause_id: str, pieces: Pieces, seen: Observation) -> bool:
    """Whether the bytes that were seen are those that are expected; unknown ones leave the step undetermined."""
    pieces = cut(pieces, 0, seen.value)
    if has_unknown(pieces):
        found.unsure = found.unsure or "what stands there is not known to the model"
    if seen.data is None:
        found.unsure = found.unsure or "the observation carries no data"
        return True
    mismatch = find_mismatch(pieces, seen.data)
    if c.holds(clause_id, mismatch is None):
        return True
    if mismatch is None:
        return _say(found, clause_id, "other bytes", "these bytes")
    span = f"bytes {mismatch.offset}..{mismatch.offset + mismatch.length - 1}"
    return _say(found, clause_id, f"{span}: {mismatch.allowed}", f"{span}: {mismatch.observed}")


def _say(found: Comparison, clause_id: str, allowed: str, observed: str) -> bool:
    found.allowed, found.observed, found.because = allowed, observed, clause_id
    return False


#: A clause, whether it is met, what it allows, and what was seen.
Row = tuple[str, bool, str, str]


def _agrees(c: Context, found: Comparison, evidence: Evidence, seen: Observation) -> bool:
    missing = _missing(evidence, seen)
    if missing:
        found.unsure = found.unsure or missing
        return True
    return all(c.holds(row[0], row[1]) or _say(found, row[0], row[2], row[3]) for row in _rows(evidence, seen))


def _missing(evidence: Evidence, seen: Observation) -> str:
    """Return why what was seen says nothing of ``evidence``; empty where it does."""
    match evidence:
        case Number() if evidence.missing and _number(evidence.name, seen) is None:
            return evidence.missing
        case Residence() if seen.resident is None or len(seen.resident) != len(evidence.pages):
            return f"the observation does not say of each of {len(evidence.pages)} pages whether it is resident"
        case Frames() if seen.frames is None or len(seen.frames) != len(evidence.pages):
            return f"the observation does not say of each of {len(evidence.pages)} pages where it is"
        case AreaFlag() if not seen.attribute("vm_flags") or not isinstance(seen.attribute("vm_flags"), str):
            return "the observation has no VmFlags"
    return ""


def _rows(evidence: Evidence, seen: Observation) -> Iterator[Row]:
    match evidence:
        case Number(clause_id, name, low, high, allowed, observed) if clause_id:
            number = _number(name, seen)
            shown = number if number is not None else seen.attribute(name)
            yield clause_id, number is not None and low <= number <= high, allowed, observed.format(shown)
        case Residence(clause_id, pages):
            for index, ((must, may), bit) in enumerate(zip(pages, seen.resident or "", strict=True)):
                allowed = f"page {index} {'resident' if must else 'not resident'}"
                yield clause_id, may if bit == "1" else not must, allowed, f"page {index}: {bit}"
        case AreaFlag(clause_id, flag, is_set):
            told = str(seen.attribute("vm_flags"))
            yield clause_id, (flag in told.split()) == is_set, f"flag {flag} {'set' if is_set else 'clear'}", f"VmFlags {told}"
        case Completions(clause_id, most, first):
            done, start, copied = seen.number("completions") or 0, seen.number("lo"), seen.number("copied")
            right = 1 <= done <= most and start == first and copied == 1
            allowed = f"1..{most} completions from {first} on, copied"
            yield clause_id, right, allowed, f"{done} completions from {start} on, copied {copied}"
        case Frames():
            for index, (page, frame) in enumerate(zip(evidence.pages, seen.frames or (), strict=True)):
                if page is not None:
                    yield from _frame_rows(evidence, page, index, frame)


def _number(name: str, seen: Observation) -> int | None:
    if name == "value":
        return seen.value
    if name == "faults":
        return faults_seen(seen)
    return seen.number(name)


def faults_seen(seen: Observation) -> int | None:
    """Return how many faults an access took; one that allocates blocks, or waits for a device, is counted as a major one.

    Source: fs/dax.c dax_iomap_pte_fault returns VM_FAULT_MAJOR where blocks are new; mm/filemap.c filemap_fault where it reads.
    """
    major = seen.number("major_faults")
    return None if seen.minor_faults is None or major is None else seen.minor_faults + major


def _frame_rows(frames: Frames, page: Frame, index: int, frame: int) -> Iterator[Row]:
    if frame == 0:
        yield "C-FRAME-03", not page.present, f"page {index} present", f"page {index} not present"
        return
    inside = any(_inside(region, frame, frames.page_bytes) for region in frames.regions)
    own = frames.own is not None and _inside(frames.own, frame, frames.page_bytes)
    where = f"page {index} {'inside' if inside else 'outside of'} the pmem regions (frame {frame:#x})"
    if page.near is not None:
        yield "C-FRAME-07", page.near, f"page {index} not present", where
    if page.touched is not None:
        yield "C-FRAME-05", page.touched, f"page {index} not present", where
    right = {Where.RAM: not inside, Where.OWN: own, Where.ZERO_PAGE: not inside, Where.ZERO_PAGE_OR_OWN: own or not inside}[page.where]
    yield _FRAME_CLAUSES[page.where], right, f"page {index} {page.where.value.format(volume=frames.volume)}", where


_FRAME_CLAUSES = {
    Where.RAM: "C-FRAME-02",
    Where.OWN: "C-FRAME-01",
    Where.ZERO_PAGE: "C-FRAME-04",
    Where.ZERO_PAGE_OR_OWN: "C-FRAME-04",
}


def _inside(region: PhysicalRange, frame: int, page_bytes: int) -> bool:
    return region[0] <= frame * page_bytes < region[0] + region[1]
