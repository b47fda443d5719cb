"""Programs are drawn from a seed: always the same ones, of every operation, inside the bounds that keep them meaningful."""

import ast
import hashlib
import itertools
import json
import os
import sys
import typing
from collections.abc import Iterator
from enum import StrEnum
from functools import cache
from pathlib import Path

from harness.host.deadline import Deadline
from harness.host.process import run
from harness.ops import MAPPING, OPERATIONS, PROCESS, Operation, Program, Step
from harness.ops.codec import program_document
from tests.generated import generator
from tests.generated.generator import FEWEST, MOST, PAGE, WEIGHTS, World, draw, uses_volumes

#: How many programs are looked at for what is rare.
MANY = 4000


@cache
def program(index: int) -> Program:
    return draw(7, index, World(("main", "target")))


def programs(count: int) -> Iterator[Program]:
    return map(program, range(count))


def digest(count: int) -> str:
    documents = [program_document(one) for one in programs(count)]
    return hashlib.sha256(json.dumps(documents).encode()).hexdigest()


def test_a_seed_and_an_index_are_the_same_program_in_every_process() -> None:
    code = "from tests.unit.generated.test_generator import digest; print(digest(40))"
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    said = run([sys.executable, "-c", code], Deadline.after(120), cwd=Path(__file__).parents[3], env=environment)
    assert said.stdout.strip() == digest(40)


def test_only_the_generators_numbers_that_are_promised_to_stay_are_used() -> None:
    tree = ast.parse(Path(generator.__file__).read_text())
    asked = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "random"}
    assert asked == {"random"}


def test_other_seeds_and_indices_are_other_programs() -> None:
    assert len({json.dumps(program_document(draw(seed, index))) for seed, index in itertools.product(range(3), range(20))}) == 60


def test_nobody_asks_the_model() -> None:
    tree = ast.parse(Path(generator.__file__).read_text())
    names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)} | {
        alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    assert {name for name in names if name and name.startswith("harness")} == {"harness.ops"}


def test_every_operation_has_a_weight_and_every_weight_is_of_one() -> None:
    assert set(WEIGHTS) == set(OPERATIONS)


def test_every_operation_argument_and_flag_is_drawn() -> None:
    """An argument is drawn where it is once other than its default; a flag where it is once set."""
    left = {(call, name) for call, cls in OPERATIONS.items() for name in cls.fields}
    left |= {(call, f"{name}: {word}") for call, cls in OPERATIONS.items() for name, word in words_of(cls)}
    for one in programs(MANY):
        for step in one.steps:
            left -= set(drawn(step.operation))
        if not left:
            return
    assert not left


def words_of(cls: type[Operation]) -> Iterator[tuple[str, str]]:
    for name, hint in typing.get_type_hints(cls).items():
        for kind in (hint, *typing.get_args(hint)):
            if isinstance(kind, type) and issubclass(kind, StrEnum):
                yield from ((name, str(word)) for word in kind)


def drawn(operation: Operation) -> Iterator[tuple[str, str]]:
    for name, field in operation.fields.items():
        value = getattr(operation, name)
        if value != field.default:
            yield operation.call, name
        for word in value if isinstance(value, tuple) else (value,):
            if isinstance(word, StrEnum):
                yield operation.call, f"{name}: {word}"


def test_programs_are_as_long_as_they_are_to_be() -> None:
    lengths = {len(one.steps) for one in programs(500)}
    assert (min(lengths), max(lengths)) == (FEWEST, MOST)


def test_a_step_uses_names_that_its_process_was_to_have() -> None:
    for one in programs(300):
        known: dict[str, set[str]] = {"main": set()}
        for step in one.steps:
            for argument, field in step.operation.fields.items():
                name = getattr(step.operation, argument)
                if "refers" in field.metadata and name is not None and field.metadata["refers"] not in ((PROCESS,), ("label",)):
                    assert name in known[step.process], step
                if field.metadata.get("makes") == PROCESS:
                    known[name] = set(known[step.process])
                elif "makes" in field.metadata:
                    known[step.process].add(name)


def test_no_range_of_a_mapping_reaches_behind_its_last_page() -> None:
    for one in programs(600):
        ends: dict[str, int] = {}
        for step in one.steps:
            for name, offset, length in ranges(step):
                assert offset >= 0
                assert offset + length <= ends[name], step
            if step.operation.call == "mmap":
                length = step.operation.length or PAGE  # type: ignore[attr-defined]
                ends[step.operation.name] = -(-length // PAGE) * PAGE  # type: ignore[attr-defined]


def ranges(step: Step) -> Iterator[tuple[str, int, int]]:
    """The ranges of mappings that a step names: mapping, offset, length."""
    values = vars(step.operation)
    if values.get("mapping") is not None and "offset" in values:
        yield values["mapping"], values["offset"], values.get("length") or 0
    for buffer, offset in (("into", "into_offset"), ("from_", "from_offset")):
        if values.get(buffer) is not None:
            yield values[buffer], values[offset], values["length"]
    for element in values.get("buffers", ()):
        if element.mapping is not None:
            yield element.mapping, element.offset, element.length


def test_what_a_world_is_without_is_not_drawn() -> None:
    world = World(without=frozenset({"volumes", "pins", "statx", "direct", "punch_hole"}))
    for index in range(300):
        for step in draw(7, index, world).steps:
            assert step.operation.call not in {"statx", *generator.THEMES["volumes"], *generator.THEMES["pins"]}
            assert not {"direct", "punch_hole"} & {str(word) for word in getattr(step.operation, "flags", ())}


def test_a_second_volume_is_used_where_there_is_one() -> None:
    paths = {getattr(step.operation, "path", "") for index in range(50) for step in draw(7, index, World(("main", "target"))).steps}
    assert {"a", "target:a"} <= paths


def test_few_programs_mount_or_unmount() -> None:
    assert 0 < sum(uses_volumes(one) for one in programs(500)) < 50


def test_the_kinds_of_names_are_those_of_the_operations() -> None:
    kinds = {kind for cls in OPERATIONS.values() for field in cls.fields.values() for kind in field.metadata.get("refers", ())}
    assert MAPPING in kinds
    assert kinds >= set(generator._EAGER)
