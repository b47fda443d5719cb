"""One form for a program: what is written is read again as it was, and what was tampered with is refused with its place."""

import copy
import json
import pickle
from typing import Any

import pytest

from harness import ops
from harness.model.value import evolve
from harness.ops.codec import DocumentError, program_document, program_from
from tests.generated.generator import draw

PROGRAM = ops.Program(
    (
        ops.Step(ops.Open("f", "target:a", (ops.OpenFlag.RDWR, ops.OpenFlag.CREAT)), line=7),
        ops.Step(ops.Preadv("f", -1, (ops.Buffer(512, 3), ops.Buffer(1, mapping=None))), pin=ops.Pin(errno="EINVAL")),
        ops.Step(ops.Sendfile("f", "f", 4096), process="b", start="later"),
    )
)


def test_a_program_is_read_as_it_was_written() -> None:
    for program in (PROGRAM, *(draw(1, index) for index in range(50))):
        assert program_from(json.loads(json.dumps(program_document(program)))) == program


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.update(format=2), "the program has the format 2; this reads 1"),
        (lambda d: d.update(steps={}), "^steps: a list belongs here, not {}"),
        (lambda d: d["steps"].append("open"), r"step 3: a mapping belongs here, not 'open'"),
        (lambda d: d["steps"][0].update(call="opne"), r"step 0: no operation 'opne'"),
        (lambda d: d["steps"][0].update(when=1), r"step 0: nothing is called 'when' here; known are args, call"),
        (lambda d: d["steps"][0]["args"].update(mode=1), r"step 0.args: nothing is called 'mode' here; known are flags, name, path"),
        (lambda d: d["steps"][0]["args"].pop("path"), r"step 0.args: path is missing"),
        (lambda d: d["steps"][0]["args"].update(flags=["rdrw"]), r"step 0.args.flags\[0\]: 'rdrw' is none of rdonly, wronly, rdwr"),
        (lambda d: d["steps"][1]["args"].update(offset=True), r"step 1.args.offset: True is not of type int"),
        (lambda d: d["steps"][1]["args"]["buffers"][1].update(length="1"), r"step 1.args.buffers\[1\].length: '1' is not of type int"),
        (lambda d: d["steps"][1]["pin"].update(returned=1), r"step 1.pin: nothing is called 'returned' here; known are blocked, errno"),
        (lambda d: d["steps"][2].update(start=3), r"step 2.start: 3 is not of type str"),
    ],
)
def test_a_document_that_is_none_is_refused_with_its_place(change: Any, words: str) -> None:
    document = json.loads(json.dumps(program_document(PROGRAM)))
    change(document)
    with pytest.raises(DocumentError, match=words):
        program_from(document)


def test_more_steps_than_writers_are_refused() -> None:
    document = {"format": 1, "steps": [{"call": "drop_caches"}] * (ops.MAX_STEPS + 1)}
    with pytest.raises(DocumentError, match=r"^steps: a program has at most 16381 steps"):
        program_from(document)


def test_every_number_says_what_it_is() -> None:
    """A plain ``int`` would say nothing of whether it may be negative, or counts bytes."""
    words: list[type[ops.Frozen]] = [*ops.OPERATIONS.values(), ops.Buffer]
    assert [(cls.__name__, name) for cls in words for name, field in cls.fields.items() if field.type is int] == []


def test_an_operation_is_a_frozen_value() -> None:
    op = ops.Pread("f", 0, length=10, into="m")
    assert (op.shift, op.into, op.flags) == (0, "m", ())
    assert op == ops.Pread("f", 0, 10, 0, "m") != ops.Pread("f", 0, 11, 0, "m")
    assert op != ops.Pwrite("f", 0, 10, 0, "m")
    assert len({op, evolve(op, length=10), evolve(op, length=11)}) == 2
    assert copy.copy(op) == pickle.loads(pickle.dumps(op)) == op
    assert repr(op) == "Pread(file='f', offset=0, length=10, shift=0, into='m', into_offset=0, flags=())"
    with pytest.raises(AttributeError, match="Pread is frozen: cannot assign to field 'length'"):
        op.length = 11  # type: ignore[misc]
    with pytest.raises(AttributeError, match="Pread is frozen: cannot delete field 'length'"):
        del op.length


@pytest.mark.parametrize(
    ("values", "named", "words"),
    [
        (("f",), {}, "Pread needs 'offset'"),
        (("f", 0, 1), {"size": 1}, "Pread has no size"),
        (("f", 0, 1), {"file": "g"}, "Pread got 'file' twice"),
        (tuple(range(8)), {}, "Pread takes 7 arguments, not 8"),
    ],
)
def test_an_operation_that_is_made_wrongly_says_how(values: tuple[Any, ...], named: dict[str, Any], words: str) -> None:
    make: Any = ops.Pread
    with pytest.raises(TypeError, match=words):
        make(*values, **named)
