"""A browser that looks at a page of results. Where there is none the tests say how to get it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from harness.__main__ import main
from harness.host.tools import PAGE_TOOLS, find_tool
from tests.fakes.kept_runs import keep_samples, keep_tables
from tests.fakes.project import CLAIMS


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    (tool,) = PAGE_TOOLS
    program = find_tool(tool.program)
    if program is None:
        pytest.skip(f"{tool.program} is not on this computer: install the Debian package {tool.package}, or run ./bootstrap page")
    with sync_playwright() as playwright:
        # A sandbox is refused to root, and the page is our own.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run that is held against another one."""
    folder = tmp_path_factory.mktemp("page")
    keep_samples(folder / "artifacts")
    keep_tables(folder / "facts")
    (folder / "cases").mkdir()
    (folder / "cases/claims.yaml").write_text(CLAIMS)
    words = [f"--{name}={folder / name}" for name in ("artifacts", "facts", "cases")]
    assert main(["report", "2-after", "--base", "1-before", *words]) == 0
    return folder / "artifacts/report.html"


class Reader:
    """Somebody who reads the page: ``asked`` is what the page asked the network for, ``wrong`` what its script failed with."""

    def __init__(self, page: Page, file: Path) -> None:
        self.page, self.file = page, file
        self.asked: list[str] = []
        self.wrong: list[str] = []
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("console", lambda message: self.wrong.append(message.text))
        page.on("dialog", lambda dialog: self.wrong.append(dialog.message))

    def open(self, address: str = "") -> Page:
        """Open an address of the page, and wait until it is drawn."""
        self.page.goto("about:blank")
        self.page.goto(f"file://{self.file}{address}")
        self.page.wait_for_selector("html[data-drawn]")
        return self.page

    def search(self, text: str) -> list[str]:
        """Type a search, and return the rows of cases that are left."""
        self.page.fill("#q", text)
        self.page.wait_for_function("text => readAddress(location.hash).q === text", arg=text)
        return self.rows("cases")

    def rows(self, section: str) -> list[str]:
        return self.page.locator(f"#{section} tbody th strong, #{section} tbody th button").all_inner_texts()


@pytest.fixture
def reader(browser: Browser, file: Path) -> Iterator[Reader]:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    found = Reader(context.new_page(), file)
    yield found
    context.close()
    assert found.wrong == []
    assert [url for url in found.asked if not url.startswith("file://") and url != "about:blank"] == []
