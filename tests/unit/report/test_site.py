"""The documentation is a site that builds without a warning, and asks nothing of the network when it is read."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from harness.record.facttable import FactTable, Shown, read_tables
from harness.report.factpage import fact_page

ROOT = Path(__file__).parents[3]
#: Elements that a browser fetches by itself, and the attribute that says what.
FETCHED = {"script": "src", "link": "href", "img": "src", "iframe": "src"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return folder


class Fetches(HTMLParser):
    """What a page has a browser fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        value = dict(attrs).get(FETCHED.get(tag, ""))
        if value is not None:
            self.found.append(value)


def test_every_document_is_a_page(site: Path) -> None:
    assert {path.stem for path in (ROOT / "docs").glob("*.md")} | {"tables", "404", "search"} == {path.stem for path in site.glob("*.html")}


def test_no_page_fetches_anything_from_elsewhere(site: Path) -> None:
    for page in site.glob("*.html"):
        fetches = Fetches()
        fetches.feed(page.read_text())
        assert fetches.found
        outside = [one for one in fetches.found if re.match(r"(\w+:)?//", one)]
        assert outside == [], page.name
    for sheet in site.rglob("*.css"):
        assert re.findall(r"url\(['\"]?(?:\w+:)?//", sheet.read_text()) == [], sheet.name


def test_a_clause_a_fact_and_a_finding_can_be_linked_to(site: Path) -> None:
    assert 'id="map_sync"' in (site / "tables.html").read_text()
    assert 'id="ext2-with-dax"' in (site / "findings.html").read_text()
    assert "C-DIO-01" in (site / "contract.html").read_text()


def test_the_page_of_facts_has_each_kernel_and_what_was_not_told_apart() -> None:
    one = FactTable("debian_6.1", ("6.1.0-x",), (), "2026-01-02", (Shown("map_sync", "ext4 on pmem", ("EOPNOTSUPP",), 2),))
    two = FactTable("debian_6.12", ("6.12.1-x",), (), "2026-01-03", (Shown("map_sync", "xfs on pmem", (True, False), 1),))
    page = fact_page([one, two])
    assert "| debian_6.1 | 6.1.0-x | 2026-01-02 |" in page
    assert "## map_sync\n" in page
    assert "| Storage | debian_6.1 | debian_6.12 |\n" in page
    assert "| ext4 on pmem | EOPNOTSUPP |  |\n| xfs on pmem |  | (True or False) |\n" in page
    assert "map_sync" in fact_page(read_tables())
