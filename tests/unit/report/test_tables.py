"""Tables: plain and of one width where nobody watches, coloured and as wide as the terminal where somebody does."""

import os
import sys

import pytest

from harness.report.tables import WIDTH, lay_out, make_table, show, styled, titled

TABLE = make_table(
    ("name", "what"),
    [
        ("a[b]", styled("[red]good[/red]", "green")),
        (titled("longer", "its meaning"), "word " * 40),
    ],
)


def test_a_cell_says_what_it_says_and_nothing_is_wider_than_the_table() -> None:
    lines = lay_out([TABLE, "a line beside"])
    assert lines[:3] == ["name           what", "a[b]           [red]good[/red]", "longer         " + ("word " * 25).rstrip()]
    assert lines[3].split() == ["its", "meaning", *["word"] * 15]
    assert lines[-1] == "a line beside"
    assert max(map(len, lay_out([TABLE], 40))) <= 40


def test_a_word_that_is_longer_than_its_column_is_broken_and_not_cut() -> None:
    lines = lay_out([make_table(("id",), [("x" * 200,)])], 100)
    assert [len(line) for line in lines] == [2, 100, 100]


def test_a_table_without_heads_begins_with_its_first_row() -> None:
    assert lay_out([make_table(("", ""), [("run", "1-a")])]) == ["run  1-a"]


def test_where_nobody_watches_there_is_no_colour_and_one_width(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "30")
    show(TABLE)
    said = capsys.readouterr().out
    assert said.splitlines() == lay_out([TABLE], WIDTH)
    assert "\033" not in said


def test_a_terminal_gets_colours_and_its_own_width(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((50, 20)))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    show(TABLE)
    said = capsys.readouterr().out
    assert "\033[32m[red]good[/red]" in said
    assert said.splitlines() == lay_out([TABLE], 50, colour=True)
