"""The contract's page lists every clause and every fact as they are in the code."""

from pathlib import Path

from harness.model.contract import contract_page

PAGE = Path(__file__).parents[3] / "docs" / "contract.md"


def test_the_page_is_what_the_code_says() -> None:
    assert PAGE.read_text() == contract_page(), "run: python -m harness contract > docs/contract.md"
