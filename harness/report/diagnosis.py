"""What the doctor says of a place: a line for each link, then the first that is broken in one sentence, and the cure."""

from collections.abc import Iterable

from harness.model.dax.cures import Cure
from harness.model.dax.evidence import Unseen
from harness.model.dax.links import Diagnosis, Word
from harness.report.status import ALL_CONFORM, COULD_NOT_RUN, SOME_DEVIATE
from harness.report.tables import Part, make_table, styled

_STYLES = {Word.OK: "green", Word.PARTLY: "yellow", Word.BROKEN: "red", Word.UNKNOWN: "yellow", Word.NOT_REACHED: "dim"}


def diagnosis_parts(diagnosis: Diagnosis) -> Iterable[Part]:
    """Yield what is printed of a place."""
    yield f"{diagnosis.evidence.asked}:"
    rows = [("  " + link.name, styled(found.word, _STYLES[found.word]), found.seen) for link, found in diagnosis.findings]
    yield make_table(["  link", "", "what was seen"], rows)
    yield _conclusion(diagnosis)
    if diagnosis.cure is not None:
        yield from _cure_lines(diagnosis.cure)
    if diagnosis.has_dax is not True:
        yield from _log_lines(diagnosis)


def _conclusion(diagnosis: Diagnosis) -> str:
    asked = diagnosis.evidence.asked
    if diagnosis.broken is not None:
        link, found = diagnosis.broken
        return f"No DAX at {asked} because of the {link.name}: {found.seen}."
    last = diagnosis.findings[-1][1]
    if diagnosis.has_dax:
        return f"There is DAX at {asked}." if last.word is Word.OK else f"There is DAX at {asked}, in part: {last.seen}."
    unknown = ", ".join(link.name for link, found in diagnosis.findings if found.word is Word.UNKNOWN)
    return f"Whether there is DAX at {asked} could not be seen: no link is known to be broken, but these are unknown: {unknown}."


def _cure_lines(cure: Cure) -> Iterable[str]:
    yield f"Cure: {cure.words}." + (f" This destroys {cure.destroys}." if cure.destroys else "")
    for command in cure.commands:
        yield f"    {command}"


def _log_lines(diagnosis: Diagnosis) -> Iterable[str]:
    said = diagnosis.evidence.said
    if isinstance(said, Unseen):
        yield f"The kernel's log could not be read ({said.why})."
    elif said:
        yield "The kernel's log says of it:"
        yield from (f"    {line}" for line in said)


def diagnosis_status(diagnoses: Iterable[Diagnosis]) -> int:
    """Return 1 where a link is broken, else 3 where it could not be seen, else 0: there is DAX everywhere."""
    found = {diagnosis.has_dax for diagnosis in diagnoses}
    if False in found:
        return SOME_DEVIATE
    return COULD_NOT_RUN if None in found else ALL_CONFORM
