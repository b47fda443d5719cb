"""One form for a program: what is written is read again as it was, and what was tampered with is refused with its place."""

import dataclasses
import json
from typing import Any

import pytest

from harness import ops
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
        (lambda d: d.update(steps={}), "a list belongs here, not {}"),
        (lambda d: d["steps"].append("open"), r"step \[3\]: a mapping belongs here, not 'open'"),
        (lambda d: d["steps"][0].update(call="opne"), r"step \[0\]: no operation 'opne'"),
        (lambda d: d["steps"][0].update(when=1), r"step \[0\]: nothing is called 'when' here; known are args, call"),
        (lambda d: d["steps"][0]["args"].update(mode=1), r"step \[0\].args: nothing is called 'mode' here; known are flags, name, path"),
        (lambda d: d["steps"][0]["args"].pop("path"), r"step \[0\].args: path is missing"),
        (lambda d: d["steps"][0]["args"].update(flags=["rdrw"]), r"step \[0\].args.flags\[0\]: 'rdrw' is none of rdonly, wronly, rdwr"),
        (lambda d: d["steps"][1]["args"].update(offset=True), r"step \[1\].args.offset: True is not of type int"),
        (lambda d: d["steps"][1]["args"]["buffers"][1].update(length="1"), r"step \[1\].args.buffers\[1\].length: '1' is not of type int"),
        (lambda d: d["steps"][1]["pin"].update(returned=1), r"step \[1\].pin: nothing is called 'returned' here; known are blocked, errno"),
        (lambda d: d["steps"][2].update(start=3), r"step \[2\].start: 3 is not of type str"),
    ],
)
def test_a_document_that_is_none_is_refused_with_its_place(change: Any, words: str) -> None:
    document = json.loads(json.dumps(program_document(PROGRAM)))
    change(document)
    with pytest.raises(DocumentError, match=words):
        program_from(document)


def test_more_steps_than_writers_are_refused() -> None:
    document = {"format": 1, "steps": [{"call": "drop_caches"}] * (ops.MAX_STEPS + 1)}
    with pytest.raises(DocumentError, match="a program has at most 16382 steps"):
        program_from(document)


def test_every_number_says_what_it_is() -> None:
    """A plain ``int`` would say nothing of whether it may be negative, or counts bytes."""
    found = [
        (cls.__name__, field.name)
        for cls in (*ops.OPERATIONS.values(), ops.Buffer)
        for field in dataclasses.fields(cls)
        if field.type in ("int", int)
    ]
    assert found == []
