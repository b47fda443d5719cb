"""The schema and the loader are of one mind about the form of a case."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from harness.case.claims import load_nearest_claims
from harness.case.loader import find_case_files, read_plans
from harness.case.schema import case_schema
from harness.case.tree import Row, Table, Tree, read_tree
from harness.errors import CaseError

CASES = Path(__file__).parents[3] / "cases"
FILES = find_case_files(CASES)
CLAIMS = load_nearest_claims(FILES[0])
WHOLE = """
title: A sample
axes: {storage: [dax, node], length: [4KiB, 1], exclude: [{storage: node, length: 1, reason: it is not so}]}
needs: {ivshmem: true}
program:
  - open: {name: f, path: a, flags: [rdwr, creat]}
  - pwrite: {file: f, offset: 0, length: $length}
    expect: {node: {errno: EINVAL}, otherwise: {returns: $length}}
    id: written
  - preadv: {file: f, offset: -1, buffers: [{length: 1KiB}]}
    expect: [{when: {storage: dax}, errno: EINVAL}, {blocked: false}]
  - lseek: {file: f, offset: 0, whence: end}
  - set_xflags: {file: f, dax: true}
  - drop_caches:
"""


@pytest.fixture(scope="module")
def fits() -> Callable[[Any], bool]:
    """Whether a document fits the schema, as another reader of schemas sees it."""
    jsonschema.Draft7Validator.check_schema(case_schema())
    return jsonschema.Draft7Validator(case_schema()).is_valid


def document_of(tree: Tree) -> Any:
    """Return what a reader of YAML makes of a tree."""
    if isinstance(tree, Row):
        return [document_of(item) for item in tree.items]
    if isinstance(tree, Table):
        return {key.text: document_of(value) for key, value in tree.pairs}
    if tree.quoted:
        return tree.text
    if tree.is_nothing:
        return None
    if tree.text in ("true", "false"):
        return tree.text == "true"
    return int(tree.text) if tree.text.lstrip("-").isdigit() else tree.text


def loads(document: Any) -> bool:
    """Whether the loader takes a document (JSON is YAML)."""
    try:
        read_plans(json.dumps(document), "family/c.yaml", CLAIMS)
    except CaseError:
        return False
    return True


def test_every_case_of_the_tree_fits(fits: Callable[[Any], bool]) -> None:
    assert len(FILES) > 100
    assert [str(path) for path in FILES if not fits(document_of(read_tree(path.read_text(), str(path))))] == []


def sample() -> Any:
    return document_of(read_tree(WHOLE, "c.yaml"))


def test_the_sample_fits_and_loads(fits: Callable[[Any], bool]) -> None:
    assert fits(sample())
    assert loads(sample())


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(titel="x"),
        lambda d: d.pop("title"),
        lambda d: d.pop("axes"),
        lambda d: d.update(program=[]),
        lambda d: d.update(program={"open": 1}),
        lambda d: d.update(title=["x"]),
        lambda d: d["axes"].update(storage=[]),
        lambda d: d["axes"].update(storage=["dacs"]),
        lambda d: d["axes"].update(Length=["1"]),
        lambda d: d["axes"].update(length="1"),
        lambda d: d["axes"]["exclude"][0].pop("reason"),
        lambda d: d.update(needs={"flavour": "full"}),
        lambda d: d.update(needs={"ivshmem": "yes"}),
        lambda d: d.update(needs={"kernel_options": ["CONFIG_NONE"]}),
        lambda d: d.update(mount_in_program=1),
        lambda d: d.update(probes=["no_such_fact"]),
        lambda d: d.update(watch=[{"path": "a", "moves": "written"}]),
        lambda d: d.update(decides=[{"claim": "dax_avoids_cache", "step": "written", "holds_if": {}}]),
        lambda d: d.update(decides=[{"claim": "dax_avoids_cache", "step": "written", "holds_if": {"work": True}}]),
        lambda d: d["program"].append({}),
        lambda d: d["program"].append({"fsyncs": {"file": "f"}}),
        lambda d: d["program"].append({"fsync": {"file": "f"}, "fdatasync": {"file": "f"}}),
        lambda d: d["program"].append({"fsync": None}),
        lambda d: d["program"].append({"fsync": "f"}),
        lambda d: d["program"][0]["open"].pop("path"),
        lambda d: d["program"][0]["open"].update(mode=0),
        lambda d: d["program"][0]["open"].update(name="F"),
        lambda d: d["program"][0]["open"].update(flags="rdwr"),
        lambda d: d["program"][0]["open"].update(flags=["rdrw"]),
        lambda d: d["program"][1]["pwrite"].update(length=-1),
        lambda d: d["program"][1]["pwrite"].update(length="4KB"),
        lambda d: d["program"][1]["pwrite"].update(length="0x10"),
        lambda d: d["program"][1]["pwrite"].update(offset=None),
        lambda d: d["program"][1].update(expect={"disk_": {"returns": 1}}),
        lambda d: d["program"][1].update(expect={"returns": 1, "errno": "EINVAL"}),
        lambda d: d["program"][1].update(expect={"errno": "EINVALID"}),
        lambda d: d["program"][1].update(expect={"signal": "SIGBUZ"}),
        lambda d: d["program"][1].update(id="Written"),
        lambda d: d["program"][2]["preadv"].update(buffers=[{"shift": 1}]),
        lambda d: d["program"][2]["preadv"].update(buffers={"length": 1}),
        lambda d: d["program"][2].update(expect=[{"when": {"storage": "dax"}}]),
        lambda d: d["program"][3]["lseek"].update(whence="middle"),
        lambda d: d["program"][4]["set_xflags"].update(dax=1),
    ],
)
def test_what_has_not_the_form_is_refused_by_both(fits: Callable[[Any], bool], change: Callable[[Any], None]) -> None:
    document = sample()
    change(document)
    assert not loads(document)
    assert not fits(document)


def places(document: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every container with each of its keys, the inner ones first."""
    keys = list(document) if isinstance(document, dict) else range(len(document)) if isinstance(document, list) else ()
    for key in keys:
        yield from places(document[key])
        yield document, key


@pytest.mark.parametrize("put", [None, True, 7, -7, "4KiB", "rdwr", "none", "$length", "zero", [], ["a"], {}, {"length": 1}], ids=repr)
def test_whatever_stands_in_one_place_the_schema_is_never_the_stricter_one(fits: Callable[[Any], bool], put: Any) -> None:
    whole = sample()
    count = 0
    for container, key in [*places(whole)]:
        before = container[key]
        container[key] = put
        if loads(whole):
            count += 1
            assert fits(whole), f"{key}: {put!r} instead of {before!r}"
        container[key] = before
    assert count or put in ([], ["a"], {}, {"length": 1})
