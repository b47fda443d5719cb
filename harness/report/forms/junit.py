"""JUnit's XML with the elements that pytest writes under ``junit_family=xunit2``."""

import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator, Sequence

from harness.record.runs import Identity
from harness.report.forms.outcome import Outcome, outcome_of, reason_of_outcome
from harness.report.forms.text import printable
from harness.report.paragraph import describe_row
from harness.report.rows import Row, properties_of

#: The element below an item that did not pass, and the type that pytest gives it.
_ELEMENTS = {
    Outcome.KNOWN: ("skipped", "pytest.xfail"),
    Outcome.UNAVAILABLE: ("skipped", "pytest.skip"),
    Outcome.FAILED: ("failure", ""),
    Outcome.FLAKY: ("failure", ""),
    Outcome.UNDETERMINED: ("failure", ""),
    Outcome.BROKEN: ("error", ""),
}


def junit_xml(identity: Identity, rows: Sequence[Row]) -> Iterator[str]:
    """Yield one XML document: a suite, an item a test case. Seconds are those of the program in the guest."""
    outcomes = [outcome_of(row) for row in rows]
    counts = Counter(_ELEMENTS[outcome][0] for outcome in outcomes if outcome in _ELEMENTS)
    suites = ET.Element("testsuites", name="pmem-harness")
    suite = ET.SubElement(
        suites,
        "testsuite",
        name=identity.id,
        errors=str(counts["error"]),
        failures=str(counts["failure"]),
        skipped=str(counts["skipped"]),
        tests=str(len(rows)),
        time=f"{sum(row.ended.seconds for row in rows):.3f}",
        timestamp=identity.began.isoformat(),
    )
    for row, outcome in zip(rows, outcomes, strict=True):
        _add_case(suite, row, outcome)
    ET.indent(suites, " ")
    yield '<?xml version="1.0" encoding="utf-8"?>'
    yield ET.tostring(suites, encoding="unicode")


def _add_case(suite: ET.Element, row: Row, outcome: Outcome) -> None:
    classname, name = _address(row.where.node_id)
    case = ET.SubElement(suite, "testcase", classname=classname, name=name, time=f"{row.ended.seconds:.3f}")
    properties = ET.SubElement(case, "properties")
    for name, value in properties_of(row).items():
        ET.SubElement(properties, "property", name=name, value=printable(value))
    if outcome not in _ELEMENTS:
        return
    element, type_ = _ELEMENTS[outcome]
    said = ET.SubElement(case, element, {"type": type_} if type_ else {}, message=printable(reason_of_outcome(row)))
    said.text = printable(describe_row(row))


def _address(node_id: str) -> tuple[str, str]:
    """Return the class and the name under which pytest has an item, so that both reports mean one test."""
    path, bracket, variant = node_id.partition("[")
    file, *names = path.split("::")
    return ".".join([file.removesuffix(".py").replace("/", "."), *names[:-1]]), names[-1] + bracket + variant
