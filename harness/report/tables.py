"""Tables, as rich lays them out: plain and of one width, or coloured and as wide as the terminal that shows them."""

import io
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import TextIO

from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

#: Columns of text where there is no terminal.
WIDTH = 140

Cell = str | Text | Group
#: A line, or a table.
Part = str | Table


def make_table(heads: Sequence[str], rows: Iterable[Sequence[Cell]]) -> Part:
    """Return a table without frames. A cell says what it says, no markup, and is broken where it is too long for its column."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=any(heads), header_style="bold")
    for head in heads:
        table.add_column(head, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    return table


def styled(word: str, style: str) -> Cell:
    """Return a cell that has a style (``red``, empty: none) where there are colours."""
    return Text(word, style)


def titled(title: str, words: str) -> Cell:
    """Return a cell: a title, and below it, indented, what it means."""
    return Group(Text(title), Padding(Text(words), (0, 0, 0, 2)))


def lay_out(parts: Iterable[Part], width: int = WIDTH, colour: bool = False) -> list[str]:
    """Return the lines of ``parts``, tables laid out in ``width`` columns; ``colour``: with the codes of a terminal."""
    return [line for part in parts for line in ([part] if isinstance(part, str) else _table_lines(part, width, colour))]


def _table_lines(table: Table, width: int, colour: bool) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=25, force_terminal=colour, color_system="standard" if colour else None)
    with console.capture() as text:
        console.print(table)
    return [line.rstrip() for line in text.get().splitlines()]


def make_line(parts: Iterable[tuple[str, str]], width: int, colour: bool) -> str:
    """Return texts with their styles as one line of at most ``width`` columns, cut where it is longer."""
    text = Text.assemble(*parts)
    text.truncate(max(1, width), overflow="ellipsis")
    console = Console(file=io.StringIO(), width=width, force_terminal=colour, color_system="standard" if colour else None)
    with console.capture() as line:
        console.print(text, end="", soft_wrap=True)
    return line.get()


def can_go_back(stream: TextIO) -> bool:
    """Return whether ``stream`` is a terminal on which a line can be erased."""
    return stream.isatty() and not Console(file=stream).is_dumb_terminal


def show(*parts: Part) -> None:
    """Print ``parts``, coloured where somebody watches."""
    watched = sys.stdout.isatty()
    for line in lay_out(parts, shutil.get_terminal_size().columns if watched else WIDTH, watched):
        print(line)
