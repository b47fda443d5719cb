"""The page of results in a real browser: read by eye, by keyboard, on a phone, on paper, by a screen reader."""

from pathlib import Path

import axe_playwright_python  # type: ignore[import-untyped]
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.fakes.kept_runs import NASTY
from tests.page.conftest import Reader

VARIANT = "e820-fsdax-ext4-dax_always"
ITEM = f"#at=fam/one[{VARIANT}]@debian_6.12"
TWO = f"#at=fam/two[{VARIANT}]@debian_6.12"
#: What looks for barriers; it is put into the page by its text.
AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()
#: Every kind of view.
VIEWS = {
    "tables": "",
    "search": "#q=is:different",
    "wrong search": "#q=gone:1",
    "stacks": "#across=stacks",
    "item": ITEM,
    "two processes": TWO,
    "not set up": f"#at=fam/late[{VARIANT}]@debian_6.1",
    "only in the table": "#at=fam/rare[e820-fsdax-ext4-dax_never]@debian_6.18",
    "claim": "#at=claim:claimed@debian_6.12",
    "fact": "#at=fact:splice_to_pipe+on+ext4+dax+on+pmem,+xfs+dax+on+pmem@debian_6.1",
    "way": "#at=way:splice+to+a+pipe+on+ext4+on+pmem@debian_6.12",
    "several": "#at=ways:splice+to+a+pipe@@debian_6.12",
    "nothing": "#at=gone@debian_6.12",
}
#: Of a phone, a tablet, a desk.
WIDTHS = (390, 820, 1440)


# ---- for everybody ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", VIEWS)
def test_no_view_breaks_a_rule_of_accessibility_in_the_light_or_in_the_dark(reader: Reader, view: str) -> None:
    page = reader.open(VIEWS[view])
    page.evaluate(AXE)
    for width, scheme in zip(WIDTHS, ("light", "dark", "light"), strict=True):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        found = page.evaluate("async () => (await axe.run(document, {resultTypes: ['violations']})).violations")
        assert [(one["id"], node["html"], node["failureSummary"]) for one in found for node in one["nodes"]] == []


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_has_one_title_and_no_id_twice(reader: Reader, view: str) -> None:
    page = reader.open(VIEWS[view])
    assert page.locator("main:visible h1").count() == 1
    assert page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id).filter((id, at, all) => all.indexOf(id) !== at)") == []


def test_what_a_run_told_is_text(reader: Reader) -> None:
    page = reader.open(f"#at=fam/same[{VARIANT}]@debian_6.1")
    expect(page.locator("h1:visible")).to_have_text(NASTY)
    page = reader.open(f"#at=fam/late[{VARIANT}]@debian_6.1")
    expect(page.locator("pre", has_text="no guest")).to_have_text(f"no guest {NASTY}")
    assert page.locator("img").count() == 0


def test_the_dark_is_dark(reader: Reader) -> None:
    def brightness(scheme: str) -> int:
        reader.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        colour = reader.open().evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(map(int, colour.removeprefix("rgb(").removesuffix(")").split(",")))

    assert brightness("dark") < 150 < 600 < brightness("light")


def test_on_paper_tables_are_whole_and_what_is_pressed_is_gone(reader: Reader) -> None:
    page = reader.open()
    page.emulate_media(media="print")
    expect(page.locator("search")).to_be_hidden()
    style = page.locator("#cases .region").evaluate("e => [getComputedStyle(e).overflow, getComputedStyle(e).maxHeight]")
    assert style == ["visible", "none"]
    assert len(page.pdf()) > 10_000


def test_without_scripts_the_summary_shows(browser: Browser, file: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"file://{file}")
    expect(page.locator(".headline")).to_contain_text("1 item of 6 did not do what is allowed or known.")
    assert "without scripts only the summary shows" in page.locator("noscript").inner_html()
    expect(page.locator("#q")).to_be_hidden()
    context.close()


def test_heads_stay_while_a_table_scrolls(reader: Reader) -> None:
    reader.page.set_viewport_size({"width": 390, "height": 300})
    page = reader.open()
    region = page.locator("#cases .region")
    region.evaluate("e => e.scrollTo(60, 120)")
    assert region.evaluate("e => [e.scrollLeft, e.scrollTop]") == [60, 120]
    frame, head = region.bounding_box(), page.locator("#cases thead th").first.bounding_box()
    assert frame is not None
    assert head is not None
    assert (round(head["x"] - frame["x"]), round(head["y"] - frame["y"])) == (1, 1)


# ---- by keyboard -----------------------------------------------------------------------------------------------------


def focused(page: Page) -> str:
    text: str = page.evaluate("(document.activeElement.id || document.activeElement.closest('[id]')?.id || '')")
    return text


def test_the_first_key_leads_past_everything_to_the_cases(reader: Reader) -> None:
    page = reader.open("#q=fam")
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#cases .region")).to_be_focused()
    assert page.evaluate("location.hash") == "#q=fam"


def test_a_key_leads_to_the_search_and_arrows_from_cell_to_cell(reader: Reader) -> None:
    page = reader.open()
    page.keyboard.press("/")
    expect(page.locator("#q")).to_be_focused()
    page.keyboard.type("/")
    assert page.input_value("#q") == "/"
    page = reader.open()
    page.locator(f'[id="at=fam/one[{VARIANT}]@debian_6.1"] a').focus()
    page.keyboard.press("ArrowRight")
    assert focused(page) == f"at=fam/one[{VARIANT}]@debian_6.12"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowLeft")
    assert focused(page).endswith("@debian_6.1")
    page.keyboard.press("Enter")
    expect(page.locator("h1:visible")).to_be_focused()


def test_a_group_is_closed_and_opened_and_the_address_knows(reader: Reader) -> None:
    page = reader.open()
    button = page.get_by_role("button", name="splice to a pipe")
    assert button.get_attribute("aria-expanded") == "true"
    assert page.locator("#ways tbody tr").count() == 3
    button.press("Enter")
    expect(button).to_be_focused()
    assert (button.get_attribute("aria-expanded"), page.locator("#ways tbody tr").count()) == ("false", 1)
    page.reload()
    expect(button).to_have_attribute("aria-expanded", "false")


# ---- tables ----------------------------------------------------------------------------------------------------------


def test_the_splice_watch_comes_first_and_neighbours_that_differ_are_marked(reader: Reader) -> None:
    page = reader.open()
    assert page.locator("h2").all_inner_texts()[0].startswith("Splice watch")
    turned = page.locator('[id="at=way:splice+to+a+pipe+on+ext4+dax+on+pmem@debian_6.12"]')
    expect(turned).to_have_text("≠ not as on debian_6.1: debian_6.12: copy")
    assert turned.locator("xpath=..").locator("th .history").inner_text() == "alias on debian_6.1; copy since debian_6.12"
    assert page.locator('[id="at=way:splice+to+a+pipe+on+ext4+on+pmem@debian_6.12"] .turn').count() == 0


def test_each_cell_has_an_anchor_and_leads_to_what_is_behind_it(reader: Reader) -> None:
    page = reader.open()
    cells = page.locator("section td:has(a)")
    assert cells.count() > 10
    for place in range(cells.count()):
        cell = cells.nth(place)
        assert (cell.get_attribute("id") or "").startswith("at=")
    for address in page.locator("section td a").evaluate_all("all => all.map(a => a.getAttribute('href'))"):
        expect(reader.open(address).locator("h1:visible")).not_to_have_text("Nothing is here")


def test_two_runs_stand_side_by_side(reader: Reader) -> None:
    page = reader.open()
    expect(page.locator(f'[id="at=fam/one[{VARIANT}]@debian_6.12"]')).to_contain_text("was conforms")
    expect(page.locator(f'[id="at=fam/gone[{VARIANT}]@debian_6.12"]')).to_contain_text("not in this run")
    page = reader.open(ITEM)
    assert "observed before" in page.locator(".timeline thead th").all_inner_texts()
    last = page.locator(".timeline tbody tr").last
    expect(last.locator("td").nth(1)).to_contain_text("unknown bytes: 01 01")
    expect(last.locator("td").nth(2)).to_contain_text("4 KiB step 3")
    expect(page.locator("#behind dl").first).to_contain_text("Step 4 is the first that came to something else.")


def test_cases_stand_by_storage_stack_where_somebody_asks(reader: Reader) -> None:
    page = reader.open()
    page.select_option("#across", "stacks")
    assert page.evaluate("location.hash") == "#across=stacks"
    assert page.locator("#cases thead th").all_inner_texts() == ["case", VARIANT, "e820-fsdax-ext4-dax_never"]
    cell = page.locator(f'[id="at=fam/one[{VARIANT}]@@{VARIANT}"]')
    expect(cell).to_contain_text("deviates 1 of 3")
    cell.locator("a").click()
    assert page.locator("main:visible tbody td .word").all_inner_texts() == ["deviates", "conforms", "conforms"]


# ---- search ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "cases"),
    [
        ("kernel:6.1 verdict:conforms", ["one", "same"]),
        ("kernel:6.12 verdict:deviates", ["one"]),
        ("verdict:deviates or verdict:unavailable", ["late", "one", "rare"]),
        ("(verdict:deviates or verdict:unavailable) and not kernel:6.12", ["rare"]),
        ("-verdict:conforms -verdict:unavailable", ["gone", "late", "one"]),
        ("is:different", ["one"]),
        ("is:changed", ["gone", "one"]),
        ("is:known", []),
        ("only:1", ["one"]),
        ("claim:claimed kernel:6.12", ["late", "one", "same", "two"]),
        ("clause:C-FORK-01", ["two"]),
        ("fact:max_file_bytes kernel:6.1", ["one", "same"]),
        ("case:fam/t", ["two"]),
        ("stack:dax_never", ["rare"]),
        ('"Two processes"', ["two"]),
        ("PROCESSES", ["two"]),
    ],
)
def test_a_search_finds(reader: Reader, text: str, cases: list[str]) -> None:
    reader.open()
    assert [name.removeprefix("fam/") for name in reader.search(text)] == cases


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("gone:1", "nothing is called gone:; known are kernel:, verdict:, case:, stack:, claim:, fact:, clause:, is:, only:"),
        ("is:gone", "nothing is called is:gone; known are is:different, is:changed, is:known"),
        ("only:none", "only: takes a number, not none"),
        ("kernel:", "kernel: has no value"),
        ("a or", "something is missing at the end"),
        ("or a", 'something is missing before "or"'),
        ("(a", 'a bracket "(" is not closed'),
        ("a)", 'a bracket ")" closes nothing'),
    ],
)
def test_a_search_that_cannot_be_read_says_why_and_hides_nothing(reader: Reader, text: str, problem: str) -> None:
    page = reader.open()
    before = reader.rows("cases")
    assert reader.search(text) == before
    expect(page.locator("#found")).to_have_text(f"This search cannot be read: {problem}.")
    assert page.get_attribute("#q", "aria-invalid") == "true"


def test_a_search_stays_in_the_address_and_only_kernels_that_are_asked_for_are_columns(reader: Reader) -> None:
    page = reader.open()
    reader.search("kernel:6.1 verdict:conforms")
    assert page.evaluate("location.hash") == "#q=kernel:6.1+verdict:conforms"
    page.reload()
    page.wait_for_selector("html[data-drawn]")
    assert page.input_value("#q") == "kernel:6.1 verdict:conforms"
    assert page.locator("#cases thead th").all_inner_texts() == ["case", "debian_6.1\n6.1.9"]
    expect(page.locator("#found")).to_have_text("2 rows with 2 cells that are asked for.")
    expect(page.locator("#facts .region")).to_be_hidden()


def test_the_way_back_leads_to_the_same_search(reader: Reader) -> None:
    page = reader.open("#q=verdict:deviates")
    page.locator("#cases td a").first.click()
    page.wait_for_selector("main#behind:visible")
    assert page.title().startswith("One: ")
    page.get_by_role("link", name="Back to the tables").click()
    assert page.input_value("#q") == "verdict:deviates"
    assert page.evaluate("location.hash") == "#q=verdict:deviates"
    page.go_back()
    expect(page.locator("h1:visible")).to_have_text("One")


# ---- items -----------------------------------------------------------------------------------------------------------


def test_a_program_is_a_timeline_with_a_column_for_each_process(reader: Reader) -> None:
    page = reader.open(TWO)
    assert page.locator(".timeline thead th").all_inner_texts() == ["step", "process main", "process child", "observed", "allowed"]
    rows = page.locator(".timeline tbody tr")
    expect(rows.nth(3).locator("td").nth(1)).to_contain_text("pread(f, offset=0, length=4096)")
    expect(rows.nth(3).locator("td").nth(0)).to_be_empty()
    assert [rows.nth(at).locator("td.running").count() for at in range(6)] == [0, 0, 0, 0, 1, 1]
    expect(rows.nth(4).locator("td.running")).to_have_text("step 4 goes on")


def test_bytes_have_the_colour_and_the_name_of_the_step_that_wrote_them(reader: Reader) -> None:
    page = reader.open(f"#at=fam/one[{VARIANT}]@debian_6.1")
    stretches = page.locator(".timeline tbody tr").last.locator(".bytes li")
    assert stretches.all_inner_texts() == ["4 KiB step 2", "4 KiB step 3"]

    def colour(place: str) -> str:
        found: str = page.locator(place).evaluate("e => getComputedStyle(e).backgroundColor")
        return found

    colours = [stretches.nth(at).evaluate("e => getComputedStyle(e).backgroundColor") for at in range(2)]
    assert colours[0] != colours[1]
    assert colours == [colour("#step-2 .chip"), colour("#step-3 .chip")]


def test_what_deviates_shows_what_is_allowed_with_clause_and_source_and_how_to_run_it_again(reader: Reader) -> None:
    page = reader.open(ITEM)
    expect(page.locator(".verdict .word")).to_have_text("deviates")
    row = page.locator("tr.deviates")
    expect(row.locator("td").last).to_contain_text("clause C-RW-03")
    expect(row.locator("details")).to_have_attribute("open", "")
    expect(page.locator("pre").first).to_have_text(f'pytest "cases/fam/one.yaml::one[{VARIANT}-debian_6.12]" --kernel debian_6.12')
    expect(page.locator("section", has_text="On each kernel").last).to_contain_text(
        "conforms on debian_6.1; deviates since debian_6.12; conforms since debian_6.18"
    )


def test_a_claim_leads_to_the_items_that_decide_it(reader: Reader) -> None:
    page = reader.open("#at=claim:claimed@debian_6.12")
    expect(page.locator("h1:visible")).to_have_text("Writing works.")
    expect(page.locator("section", has_text="Set aside")).to_contain_text("its verdict is deviates")
    page.get_by_role("link", name=f"fam/two[{VARIANT}-debian_6.12]").click()
    expect(page.locator("h1:visible")).to_have_text("Two processes")


def test_a_fact_says_what_it_means_and_where_the_model_says_otherwise(reader: Reader) -> None:
    page = reader.open(VIEWS["fact"])
    behind = page.locator("#behind dl").first
    expect(behind).to_contain_text("the model's own table")
    expect(behind).to_contain_text("fs/splice.c")


def test_values_of_a_fact_that_nothing_told_apart_are_no_change(reader: Reader) -> None:
    page = reader.open()
    words = page.locator("#facts td .word").evaluate_all("all => all.map(word => word.lastChild.textContent)")
    assert words == ["alias", "copy", "alias or copy"]
    assert page.locator("#facts .turn").count() == 1
    expect(page.locator("#facts .history")).to_have_text("alias on debian_6.1; copy since debian_6.12")
