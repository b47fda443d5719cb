"""What is written is read again as what it was."""

import json

import pytest

from harness.model.claims import Decision, Growth, HoldsIf, Pages, Range
from harness.model.outcome import How, Observation, Run, RunKind, observations_from
from harness.model.stack import StackReading
from harness.ops import OPERATIONS, Program
from harness.ops.codec import DocumentError
from harness.record.documents import from_document, observations_document, to_document
from tests.fakes.leased import make_reading
from tests.fakes.samples import rich_program, stack


def test_a_program_survives_json() -> None:
    made = json.loads(json.dumps(to_document(rich_program())))
    assert from_document(Program, made) == rich_program()


def test_a_reading_survives_json() -> None:
    reading = make_reading(stack())
    assert from_document(StackReading, json.loads(json.dumps(to_document(reading)))) == reading


def test_a_decision_survives_json() -> None:
    wanted = HoldsIf(works=True, attributes=(("dax", 1), ("flags", "rd")), resident=Pages.ALL, growth=Growth(1, Range(8, None)))
    decision = Decision("claim", 2, wanted)
    assert from_document(Decision, json.loads(json.dumps(to_document(decision)))) == decision


def test_observations_survive_json() -> None:
    seen = (
        Observation(0, How.RETURNED, 3, data=(Run(0, 1, RunKind.TAG, 4, 5), Run(1, 1, RunKind.ZERO), Run(2, 1, RunKind.RAW, raw=b"\xff"))),
        Observation(1, How.FAILED, errno="EINVAL"),
        Observation(2, How.SIGNAL, signal="SIGBUS"),
        Observation(3, How.RETURNED, 0, resident="10", frames=(1, 0), minor_faults=2, attributes=(("dax", 1), ("state", "S"))),
        Observation(4, How.NOT_RUN),
    )
    assert observations_from(json.loads(json.dumps(observations_document(seen)))) == seen


def test_every_operation_can_be_read_again() -> None:
    assert OPERATIONS
    for operation in OPERATIONS.values():
        assert operation.call


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ({"kernel_release": 6, "volumes": []}, "StackReading.kernel_release: 6 is not of type str"),
        ({"kernel_release": "6.12", "volumes": {}}, "StackReading.volumes: a list belongs here, not {}"),
        ({"kernel_release": "6.12"}, "StackReading: .*missing.*volumes"),
        ({"kernel_release": "6.12", "volumes": [], "facts": [["only one"]]}, r"StackReading.facts\[0\]: 1 entries where 2 belong"),
        ([], r"StackReading: a mapping belongs here, not \[\]"),
    ],
)
def test_a_document_of_another_shape_is_refused_with_its_place(document: object, problem: str) -> None:
    with pytest.raises(DocumentError, match=problem):
        from_document(StackReading, document)


def test_an_unknown_operation_is_refused() -> None:
    with pytest.raises(DocumentError, match=r"Program\[0\]: no operation 'fly'"):
        from_document(Program, [{"call": "fly"}])


def test_an_unknown_flag_is_refused() -> None:
    steps = [{"call": "open", "args": {"name": "f", "path": "a", "flags": ["sideways"]}}]
    with pytest.raises(DocumentError, match=r"flags\[0\]: 'sideways' is none of rdonly, wronly"):
        from_document(Program, steps)


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("process", 3, r"Program\[0\].process: 3 is not of type str"),
        ("start", 7, r"Program\[0\].start: 7 is not of type str"),
        ("line", "12", r"Program\[0\].line: '12' is not of type int"),
        ("line", True, r"Program\[0\].line: True is not of type int"),
    ],
)
def test_a_step_of_another_shape_is_refused_with_its_place(key: str, value: object, problem: str) -> None:
    step = {"call": "meminfo", "args": {}, key: value}
    with pytest.raises(DocumentError, match=problem):
        from_document(Program, [step])
