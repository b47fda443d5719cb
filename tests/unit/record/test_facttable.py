"""Tables of measured facts: what is written is read, and what they say when they are laid side by side."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from harness.errors import UsageError
from harness.host.deadline import Deadline
from harness.host.process import run
from harness.model.fact import Kernel
from harness.model.facts import FACTS
from harness.model.formats import Format
from harness.model.layers import Layer
from harness.model.outcome import How, Observation
from harness.ops import Open, OpenFlag, Operation, Pwrite
from harness.record.facttable import (
    FACTS_DIR,
    Difference,
    FactTable,
    History,
    Shown,
    Transition,
    compare,
    compare_storages,
    compare_with_model,
    expected_value,
    histories,
    make_tables,
    preceding,
    read_table,
    read_tables,
    write_table,
)
from harness.record.measure import reading_of
from tests.fakes.leased import FakeGuest, make_reading, obedient
from tests.fakes.samples import item, program, ran, stack

DAX, CACHE = "ext4 dax on pmem", "ext4 on pmem"
FACT = "splice_to_pipe"
ROW = {"fact": FACT, "storage": DAX, "values": ["copy"], "items": 1}


def table(release: str, *shown: Shown, kernel: str = "") -> FactTable:
    return FactTable(kernel or f"debian_{'.'.join(release.split('.')[:2])}", (release,), (("linux-image", "1"),), "2026-01-02", shown)


def shown(*values: str, storage: str = DAX, fact: str = FACT) -> Shown:
    return Shown(fact, storage, values, 3)


def test_a_table_that_was_written_is_read_and_fits_its_schema(tmp_path: Path) -> None:
    whole = table("6.12.1-x", shown("copy"), Shown("dio_offset_alignment", DAX, (1,), 2), Shown("map_sync", DAX, (True, False), 1))
    path = write_table(tmp_path, whole)
    assert path == tmp_path / "debian_6.12.json"
    assert read_table(path) == whole
    jsonschema.validate(json.loads(path.read_text()), json.loads((FACTS_DIR / "schema.json").read_text()))
    assert len(path.read_text().splitlines()) == 12  # a fact a line: what changes is what a diff shows


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"format": 7}, "has format 7, this harness reads 1"),
        ({"releases": ["linux"]}, "releases: 'linux' does not start with a kernel version"),
        ({"releases": []}, "releases: '' does not start with a kernel version"),
        (
            {"facts": [{"fact": "gone", "storage": DAX, "values": [1], "items": 1}]},
            "the model has no fact 'gone': measure the kernel again",
        ),
        ({"facts": [{"fact": FACT, "storage": DAX, "values": [1.5], "items": 1}]}, "FactTable.facts[0].values[0]: 1.5 is not of type"),
        ({"more": 1}, "nothing is called 'more' here"),
    ],
)
def test_a_file_that_is_no_table_is_refused_by_name(tmp_path: Path, change: dict[str, object], problem: str) -> None:
    path = write_table(tmp_path, table("6.12.1", shown("copy")))
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UsageError) as caught:
        read_table(path)
    assert str(caught.value).startswith(str(path))
    assert problem in str(caught.value)


def test_tables_are_read_in_the_order_of_their_kernels(tmp_path: Path) -> None:
    for release in ("6.12.1", "5.10.2", "6.1.3"):
        write_table(tmp_path, table(release, shown("copy")))
    (tmp_path / "schema.json").write_text("{}")
    assert [one.kernel for one in read_tables(tmp_path)] == ["debian_5.10", "debian_6.1", "debian_6.12"]


def test_what_two_tables_both_allow_is_no_difference() -> None:
    before = table("6.1.0", shown("copy"), shown("copy", storage="xfs dax on pmem"), shown("alias", storage=CACHE))
    after = table("6.12.0", shown("alias"), shown("copy", "alias", storage="xfs dax on pmem"))
    assert compare(before, after) == [Difference(FACT, DAX, ("copy",), ("alias",))]


def test_two_storages_of_a_kernel_are_compared_by_the_facts_that_both_show() -> None:
    one = table("6.12.0", shown("copy"), shown("alias", storage=CACHE), shown("EFAULT", fact="futex_on_readonly_hole"))
    assert compare_storages(one, DAX, CACHE) == [Difference(FACT, "", ("copy",), ("alias",))]
    with pytest.raises(UsageError, match=r"debian_6\.12 was not measured on 'btrfs on pmem'; it was on: ext4 dax on pmem, ext4 on pmem"):
        compare_storages(one, "btrfs on pmem", DAX)


def test_the_model_s_own_value_is_held_against_what_was_measured() -> None:
    right, wrong = shown("copy"), shown("copy", storage=CACHE)
    assert compare_with_model(table("6.12.0", right, wrong)) == [Difference(FACT, CACHE, ("alias",), ("copy",))]


def test_a_history_has_the_kernels_from_which_on_a_fact_is_different() -> None:
    tables = [
        table(release, shown(value)) for release, value in (("6.1.0", "copy"), ("6.2.0", "alias"), ("6.12.0", "copy"), ("6.13.0", "copy"))
    ]
    (found,) = histories(tables)
    gates = (Transition("debian_6.1", "debian_6.2", ("alias",), True), Transition("debian_6.2", "debian_6.12", ("copy",), False))
    assert found == History(FACT, DAX, "debian_6.1", ("copy",), gates, ("debian_6.2",))
    assert histories(tables, "map_sync") == []


def test_a_kernel_that_does_not_show_a_fact_is_no_gate() -> None:
    (found,) = histories([table("6.1.0", shown("copy")), table("6.2.0"), table("6.3.0", shown("alias"))])
    assert [(gate.before, gate.kernel, gate.exact) for gate in found.transitions] == [("debian_6.1", "debian_6.3", False)]


@pytest.mark.parametrize(("version", "before"), [((6, 2), (6, 1)), ((6, 0), (5, 19)), ((7, 0), (6, 19)), ((9, 0), None)])
def test_behind_the_last_minor_of_a_series_the_next_begins(version: tuple[int, int], before: tuple[int, int] | None) -> None:
    assert preceding(Kernel(*version)) == (before and Kernel(*before))


def test_the_words_for_a_storage_say_what_a_volume_is() -> None:
    for kind in ("dax", "no_dax", "node", "devdax", "disk"):
        words = make_reading(stack(kind)).volumes[0].storage
        assert reading_of(words).storage == words
    assert reading_of("node on pmem sector").logical_block_bytes == 4096
    asynchronous = make_reading(stack(region="virtio_pmem")).volumes[0].storage
    assert asynchronous == "ext4 dax on asynchronous pmem"
    assert reading_of(asynchronous).storage == asynchronous
    assert [expected_value("map_sync", words, "6.12.0") for words in (DAX, asynchronous)] == [True, False]
    for layer in Layer:
        words = replace(make_reading(stack("no_dax")).volumes[0], layer=layer, queue_dax=layer.traits.queue_dax).storage
        assert words == "ext4 on pmem" + ("" if layer is Layer.NONE else f" through {layer}")
        assert reading_of(words).storage == words
        assert expected_value("ext4_refuses_dax_mount", words, "6.12.0") is not layer.traits.gives_dax
    small = reading_of("xfs block_1k on pmem")
    assert (small.format, small.filesystem_block_bytes, small.dax) == (Format.BLOCK_1K, 1024, False)
    assert reading_of("ext4 encrypt dax on pmem").dax
    assert reading_of("node inline_data on pmem").filesystem is None
    with pytest.raises(ValueError, match="'ext4' is no kind of storage"):
        reading_of("ext4")


def refusing(operation: Operation) -> Observation:
    return Observation(0, How.FAILED, errno="EINVAL") if isinstance(operation, Pwrite) else obedient(operation)


def test_items_that_agree_on_no_value_make_no_table(tmp_path: Path) -> None:
    """Two items that show a fact, each another value of it: one of them is wrong, or the model is."""
    unaligned = item(program(Open("f", "a", (OpenFlag.RDWR, OpenFlag.CREAT, OpenFlag.DIRECT)), Pwrite("f", 0, 1000)))
    works, fails = ran(tmp_path / "a", chosen=unaligned), ran(tmp_path / "b", FakeGuest(stack(), refusing), unaligned)
    (made,) = make_tables([works], "2026-01-02")
    assert Shown("dio_offset_alignment", DAX, (1,), 1) in made.facts
    with pytest.raises(UsageError, match=r"dio_offset_alignment on ext4 dax on pmem, Linux 6\.12\.95-fake: no value agrees with all of"):
        make_tables([works, fails], "2026-01-02")


# ---- the project's own -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(FACTS_DIR.glob("debian_*.json")), ids=lambda path: path.stem)
def test_a_table_of_the_project_fits_its_schema_and_the_model(path: Path) -> None:
    jsonschema.validate(json.loads(path.read_text()), json.loads((FACTS_DIR / "schema.json").read_text()))
    found = read_table(path)
    assert found.kernel == path.stem
    assert compare_with_model(found) == []
    assert {one.fact for one in found.facts} <= FACTS.keys()


def test_the_script_in_the_documents_prints_what_is_known_of_a_fact(tmp_path: Path) -> None:
    write_table(tmp_path / "facts", table("6.12.0", shown("copy"), shown("alias", storage=CACHE)))
    (tmp_path / "facts/schema.json").write_text("{}")
    script = (FACTS_DIR.parent / "docs/facts.md").read_text().partition("```python\n")[2].partition("```")[0]
    assert len(script.splitlines()) <= 20
    said = run([sys.executable, "-c", script, FACT], Deadline.after(60), cwd=tmp_path).stdout
    assert [line.split() for line in said.splitlines()] == [["6.12.0", *DAX.split(), "copy"], ["6.12.0", *CACHE.split(), "alias"]]
