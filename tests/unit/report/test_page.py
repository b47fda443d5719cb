"""The page of results as a file: what is in it, and what is said where it cannot be made."""

import base64
import gzip
import hashlib
import html
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.__main__ import main
from harness.model.claims import Status
from harness.model.known import Known
from harness.model.outcome import How, Observation, Run, RunKind
from harness.model.verdict import Verdict
from harness.ops.tag import FOREIGN_WRITER
from harness.record.item import Ending, Lifecycle, Target
from harness.record.runs import IDENTITY, find_run, run_folder
from harness.report.kept import Kept, kept_items
from harness.report.page import headline, packed
from harness.report.page_items import _data, _shown
from harness.report.rows import Guest, Judged, Row, make_unset_row
from tests.fakes.kept_runs import NASTY, WRONG, Done, keep_run, keep_samples, keep_tables
from tests.fakes.leased import make_reading
from tests.fakes.project import CLAIMS
from tests.fakes.samples import item, stack

VARIANT = "e820-fsdax-ext4-dax_always"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    keep_samples(tmp_path / "artifacts")
    keep_tables(tmp_path / "facts")
    (tmp_path / "cases").mkdir()
    (tmp_path / "cases/claims.yaml").write_text(CLAIMS)
    return tmp_path


def report(folder: Path, *words: str) -> int:
    folders = [f"--{name}={folder / name}" for name in ("artifacts", "facts", "cases")]
    return main(["report", *words, *folders])


def page(folder: Path, *words: str) -> str:
    assert report(folder, *words) == 0
    return (folder / "artifacts/report.html").read_text()


def document(text: str) -> dict[str, Any]:
    found = re.search(r'id="data">([A-Za-z0-9+/=]*)</script>', text)
    assert found is not None
    read: dict[str, Any] = json.loads(gzip.decompress(base64.b64decode(found[1])))
    return read


def items(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["id"]: one for one in found["items"]}


def steps(found: dict[str, Any], item: dict[str, Any]) -> list[dict[str, Any]]:
    return [found["steps"][place] for place in found["courses"][item["course"]]]


# ---- the file --------------------------------------------------------------------------------------------------------


def test_a_page_is_one_file_that_may_load_nothing_and_run_only_its_own_script(here: Path) -> None:
    text = page(here)
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    policy = html.unescape(policy)
    assert policy.startswith("default-src 'none'; ")
    for name, kind in (("script", "script-src"), ("style", "style-src")):
        (inside,) = re.findall(rf"<{name}>(.*?)</{name}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{kind} 'sha256-{digest}'" in policy
    assert not re.search(r'(src|href)="(?!#)', text)
    assert "url(" not in text
    assert not re.search(r"\b(innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval)\b", text)


def test_what_a_run_told_is_never_read_as_html(here: Path) -> None:
    text = page(here)
    assert "<img" not in text
    assert text.count("</script>") == 2
    assert NASTY in {case["title"] for case in document(text)["cases"]}
    assert packed({"a": "</script>"}).isascii()
    assert "<" not in packed({"a": "</script>"})


def test_the_same_runs_give_the_same_data(here: Path) -> None:
    assert document(page(here)) == document(page(here))


def test_what_items_share_is_in_the_page_once(tmp_path: Path) -> None:
    """20,000 items of the usual size have to fit into 5 MB; here are fewer, and each may take no more."""
    kernels = [f"debian_{major}.{minor}" for major in (5, 6) for minor in range(10)]
    keep_run(tmp_path / "artifacts", "1", [Done(name, kernel, title=name) for name in ("one", "two", "three") for kernel in kernels])
    text = page(tmp_path)
    found = document(text)
    assert len(found["items"]) == 60
    assert [len(found[name]) for name in ("programs", "courses", "steps", "cases")] == [1, 1, 4, 3]
    data = len(packed(found))
    assert data / 60 < 5_000_000 / 20_000


# ---- what is in it ---------------------------------------------------------------------------------------------------


def test_a_row_has_a_cell_for_each_kernel_from_a_run_or_else_from_the_table(here: Path) -> None:
    found = document(page(here))
    assert [kernel["name"] for kernel in found["kernels"]] == ["debian_6.1", "debian_6.12", "debian_6.18"]
    assert found["kernels"][1]["releases"] == ["6.12.9-fake"]
    row = found["rows"][f"fam/one[{VARIANT}]"]
    assert {kernel: found["items"][place]["word"] for kernel, place in row["cells"].items()} == {
        "debian_6.1": "conforms",
        "debian_6.12": "deviates",
    }
    assert row["told"] == {"debian_6.18": "conforms"}
    assert found["texts"][row["stack"]] == VARIANT
    rare = found["rows"]["fam/rare[e820-fsdax-ext4-dax_never]"]
    assert (rare["cells"], rare["told"]) == ({}, {"debian_6.18": "unavailable"})


def test_a_step_has_what_was_observed_and_allowed_and_the_clause_with_its_source(here: Path) -> None:
    found = document(page(here))
    one = items(found)[f"fam/one[{VARIANT}-debian_6.12]"]
    last = steps(found, one)[-1]
    assert (last["number"], last["verdict"], last["clause"]) == (4, "deviates", "C-RW-03")
    assert last["because"].count("clause C-RW-03, ") == 1
    assert last["data"] == [[4096, 2, 0], [4096, 0, 0, " ".join(["01"] * 32) + " ..."]]
    assert [step["verdict"] for step in steps(found, one)[:3]] == ["conforms"] * 3
    again = [found["texts"][place] for place in one["again"]]
    assert again[0] == f'rerun: pytest "cases/fam/one.yaml::one[{VARIANT}-debian_6.12]" --kernel debian_6.12'
    assert again[1].startswith("re-judge: python -m harness judge ")
    assert found["programs"][one["program"]][1] == {"call": "pwrite(f, offset=0, length=8192)", "process": "main", "line": 6}


def test_a_program_says_which_process_does_what_and_what_is_waited_for(here: Path) -> None:
    found = document(page(here))
    program = found["programs"][items(found)[f"fam/two[{VARIANT}-debian_6.12]"]["program"]]
    assert [step["process"] for step in program] == ["main", "main", "main", "child", "main", "main"]
    assert program[3]["start"] == program[5]["joins"] == "reading"


def test_an_item_that_never_began_says_why_and_has_no_program(here: Path) -> None:
    late = items(document(page(here)))[f"fam/late[{VARIANT}-debian_6.1]"]
    assert (late["word"], late["note"]) == ("not set up", f"no guest {NASTY}")
    assert "program" not in late


def test_of_several_runs_the_newest_tells_of_an_item(here: Path) -> None:
    keep_run(here / "artifacts", "3-again", [Done("one", "debian_6.12")])
    found = document(page(here, "3-again", "2-after"))
    one = items(found)[f"fam/one[{VARIANT}-debian_6.12]"]
    assert (one["word"], found["texts"][one["run"]]) == ("conforms", "3-again")


def test_an_item_is_held_against_the_same_one_of_another_run(here: Path) -> None:
    found = items(document(page(here, "--base", "1-before")))
    one = found[f"fam/one[{VARIANT}-debian_6.12]"]
    assert (one["word"], one["before"]["word"], one["other"]) == ("deviates", "conforms", 4)
    gone = found[f"fam/gone[{VARIANT}-debian_6.12]"]
    assert (gone["word"], gone["before"]["word"]) == ("", "conforms")
    assert "before" not in found[f"fam/one[{VARIANT}-debian_6.1]"]
    assert "before" not in items(document(page(here)))[f"fam/one[{VARIANT}-debian_6.12]"]


def test_kernels_that_were_not_run_are_not_held_against_another_run(here: Path) -> None:
    keep_run(here / "artifacts", "3-old", [Done("one", "debian_5.10")])
    assert f"fam/one[{VARIANT}-debian_5.10]" not in items(document(page(here, "2-after", "--base", "3-old")))


def test_claims_name_the_items_that_decide_them(here: Path) -> None:
    (claim,) = document(page(here))["claims"]
    assert (claim["name"], claim["words"]) == ("claimed", "Writing works.")
    cell = claim["cells"]["debian_6.12"]
    assert cell["word"] == Status.HOLDS
    assert f"fam/same[{VARIANT}-debian_6.12]" in cell["held"]
    assert [f"fam/one[{VARIANT}-debian_6.12]", "its verdict is deviates"] in cell["aside"]


def test_facts_that_are_the_same_on_several_storages_are_one_row_and_say_where_the_model_differs(here: Path) -> None:
    (fact,) = document(page(here))["facts"]
    assert fact["storages"] == ["ext4 dax on pmem", "xfs dax on pmem"]
    assert fact["cells"]["debian_6.1"] == {"word": "alias", "items": 5, "model": "copy"}
    assert fact["cells"]["debian_6.12"] == {"word": "copy", "items": 5}
    assert "splic" in fact["means"]
    assert fact["source"]


def test_ways_of_bytes_are_a_row_for_the_storages_that_are_alike(here: Path) -> None:
    ways = document(page(here))["ways"]
    assert [(way["name"], way["storages"], [cell["word"] for cell in way["cells"].values()]) for way in ways] == [
        ("splice to a pipe", ["ext4 dax on pmem"], ["alias", "copy"]),
        ("splice to a pipe", ["ext4 on pmem"], ["alias", "alias"]),
    ]


def test_of_what_a_step_showed_frames_are_told_by_where_they_lie() -> None:
    reading = make_reading(stack())
    inside = (1 << 28) // 4096
    seen = Observation(0, How.RETURNED, resident="10", frames=(inside, 7, 0), minor_faults=2, attributes=(("blocks", 8),))
    assert _shown(seen, reading) == (
        "blocks 8",
        "resident 10",
        "minor faults 2",
        "frames 1 in the region of the main volume, 1 elsewhere, 1 not present",
    )


def test_of_very_many_stretches_of_bytes_some_are_counted() -> None:
    runs = tuple(Run(n, 1, RunKind.TAG, FOREIGN_WRITER, n) if n % 2 else Run(n, 1, RunKind.ZERO) for n in range(70))
    found = _data(Observation(0, How.RETURNED, 70, data=runs))
    assert found[:2] == ((1, 0, 0), (1, FOREIGN_WRITER, 1))
    assert (len(found), found[-1]) == (65, (0, 0, 0, "6 more"))


def test_words_that_are_added_to_the_command_line_make_another_column() -> None:
    row = make_unset_row(item(), Ending.UNAVAILABLE, "")
    assert Kept("1", row, None).kernel == "debian_6.12"
    quiet = replace(row, where=replace(row.where, target=Target("debian_6.12", "debian_6.12", "", "quiet")))
    assert Kept("1", quiet, None).key == (f"fam/one[{VARIANT}]", "debian_6.12 with quiet")


def test_an_item_of_which_only_the_row_is_left_is_told_by_that(here: Path) -> None:
    artifacts = here / "artifacts"
    (kept, *_) = kept_items(find_run(artifacts, "1-before"))
    assert kept.result is not None
    (run_folder(artifacts, "1-before") / "results.jsonl").write_text("")
    assert [one.row.where.name for one in kept_items(find_run(artifacts, "1-before"))] == ["gone", "one"]


# ---- the line on top -------------------------------------------------------------------------------------------------


def row(ending: Ending = Ending.COMPLETED, verdict: Verdict = Verdict.CONFORMS, known: Known = Known.NO) -> Row:
    found = make_unset_row(item(), ending, "")
    if not ending.has_begun:
        return found
    return replace(found, judged=Judged(verdict, known), guest=Guest("6.12.1", "tcg", "", "10.0.0", Lifecycle.RESTORED))


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([row(), row()], "Nothing deviates that is not known. 2 items of 2 conform."),
        (
            [row(), row(verdict=Verdict.DEVIATES), row(Ending.NOT_SET_UP)],
            "1 item of 3 did not do what is allowed or known. 1 item of 3 conforms, 1 could not be run.",
        ),
        (
            [row(), row(verdict=Verdict.DEVIATES, known=Known.YES), row(Ending.UNAVAILABLE)],
            "Nothing deviates that is not known. 1 item of 2 conforms, 1 deviate as is known, 1 more are unavailable on their kernels.",
        ),
    ],
)
def test_the_line_on_top_says_first_whether_anything_is_wrong(rows: list[Row], told: str) -> None:
    assert headline(rows) == told


def test_the_page_counts_an_item_once(here: Path) -> None:
    keep_run(here / "artifacts", "3-again", [Done("one", "debian_6.12", WRONG)])
    assert "1 item of 6 did not do what is allowed or known." in page(here, "2-after", "3-again")


# ---- what is said ----------------------------------------------------------------------------------------------------


def test_a_page_says_where_it_is_and_how_large(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(here, "-o", str(here / "x.html")) == 0
    said = capsys.readouterr().err
    assert "judging run 2-after" in said
    assert f"written: {here}/x.html (1MiB)" in said
    assert not (here / "artifacts/report.html").exists()
    assert "held against run" not in (here / "x.html").read_text()


def test_without_a_run_there_is_no_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(tmp_path) == 2
    assert f"no run is kept in {tmp_path}/artifacts/runs; pytest makes one there" in capsys.readouterr().err


@pytest.mark.parametrize("words", [("9-gone",), ("2-after", "--base", "9-gone")])
def test_a_run_that_there_is_not_is_named_with_those_that_there_are(
    here: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(here, *words) == 2
    said = capsys.readouterr().err
    assert "0 runs are called '9-gone'; there are:" in said
    assert "1-before" in said


def test_a_run_without_an_item_has_nothing_to_show(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep_run(here / "artifacts", "3-empty", [])
    assert report(here, "2-after", "--base", "3-empty") == 2
    assert "run 3-empty has no item yet, so there is nothing to show of it" in capsys.readouterr().err


def test_a_run_of_another_format_is_refused_with_the_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run_folder(here / "artifacts", "1-before")
    plan = next(folder.rglob("plan.json"))
    plan.write_text(plan.read_text().replace('"format": 2', '"format": 1'))
    assert report(here, "--base", "1-before") == 2
    assert f"{plan} has format 1, this harness reads 2: use the version that wrote it" in capsys.readouterr().err
    (folder / IDENTITY).write_text('{"format": 0}')
    assert report(here, "1-before") == 2
    assert "1-before is no run: " in capsys.readouterr().err


def test_a_page_that_cannot_be_written_is_no_page(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(here, "-o", str(here / "nowhere/x.html")) == 3
    assert f"cannot write {here}/nowhere/x.html: No such file or directory; name another one" in capsys.readouterr().err


def test_a_folder_is_not_written_over(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "taken").mkdir()
    assert report(here, "-o", str(here / "taken")) == 3
    assert "name another one" in capsys.readouterr().err
    assert not list(here.glob("*.new"))
