"""What is written is read again as what it was."""

import functools
import json
from dataclasses import replace

import pytest

from harness.case.axes import Variant, make_variants, read_axes
from harness.case.tree import read_tree
from harness.model.claims import Decision, Growth, HoldsIf, Pages, Range
from harness.model.outcome import How, Observation, Run, RunKind, observations_from
from harness.model.stack import StackReading, Volume
from harness.ops import OPERATIONS, Program
from harness.ops.codec import DocumentError
from harness.record.documents import content_key, from_document, observations_document, to_document
from harness.record.item import Item, Lifecycle
from tests.fakes.leased import make_reading
from tests.fakes.samples import item, rich_program, stack, variant


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
        (
            {"kernel_release": "6.12", "volumes": [], "speed": 1},
            "StackReading: nothing is called 'speed' here; known are facts,",
        ),
    ],
)
def test_a_document_of_another_shape_is_refused_with_its_place(document: object, problem: str) -> None:
    with pytest.raises(DocumentError, match=problem):
        from_document(StackReading, document)


@pytest.mark.parametrize("kind", [("dax", "e820"), ("no_dax", "nvdimm"), ("node", "e820"), ("disk", "e820")])
def test_an_item_survives_json(kind: tuple[str, str]) -> None:
    where = replace(item().where, variant=variant(*kind), stack=stack(*kind), lifecycle=Lifecycle.BOOTED, number=2)
    asked = replace(item(rich_program()), where=where)
    assert from_document(Item, json.loads(json.dumps(to_document(asked)))) == asked


def test_parameters_survive_json() -> None:
    axes = read_axes(read_tree("{storage: [disk], target: [second_pmem], length: [4KiB], way: [a b]}", "sample"))
    (made,) = make_variants(axes)[:1]
    assert from_document(Variant, json.loads(json.dumps(to_document(made)))) == made
    assert made.id == "disk-ext4-to_second_pmem_e820-length_4KiB-way_a_b"


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("region.kind", "e821", "Volume.device.region.kind: 'e821' is none of e820, nvdimm, nvdimm_unlabelled"),
        ("region.size_bytes", "1", "Volume.device.region.size_bytes: '1' is not of type int"),
        ("mode", 3, "Volume.device.mode: 3 is none of raw, sector, fsdax"),
        ("speed", 3, "Volume.device: nothing that belongs here has just region, mode, map, align, half, speed"),
    ],
)
def test_of_two_kinds_of_devices_the_one_that_is_broken_is_named(path: str, value: object, problem: str) -> None:
    document = to_document(stack().main)
    *above, last = path.split(".")
    functools.reduce(dict.__getitem__, above, document["device"])[last] = value
    with pytest.raises(DocumentError, match=problem):
        from_document(Volume, document)


@pytest.mark.parametrize(
    ("device", "problem"),
    [
        ({}, r"Volume\.device: nothing that belongs here has just nothing"),
        (None, r"Volume\.device: a mapping belongs here, not None$"),
        ("pmem0", r"Volume\.device: a mapping belongs here, not 'pmem0'"),
    ],
)
def test_what_is_no_device_is_refused(device: object, problem: str) -> None:
    with pytest.raises(DocumentError, match=problem):
        from_document(Volume, {**to_document(stack().main), "device": device})


def test_a_key_of_content_tells_values_apart_and_not_their_order_in_memory() -> None:
    assert content_key({"a": 1, "b": stack()}) == content_key({"b": stack(), "a": 1})
    assert content_key(stack()) != content_key(stack("disk"))
    assert len(content_key(stack())) == 16


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
