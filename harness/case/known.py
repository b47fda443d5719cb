"""What is known beforehand: the console lines that are expected, and the deviations that are known, from the text of their lists."""

import functools
import re
from collections.abc import Iterator
from pathlib import Path

from harness.case.claims import FAMILY_FILE
from harness.case.tree import (
    Table,
    Word,
    as_row,
    as_table,
    as_text,
    as_word,
    check_keys,
    nearest_file,
    one_of,
    read_text,
    read_tree,
    require,
)
from harness.errors import CaseError
from harness.model.contract import CLAUSES
from harness.model.known import ExpectedLine, KnownDeviation

CONSOLE_FILE = "console.yaml"
KNOWN_FILE = "deviations.yaml"
EXPECTED_KEYS = ("pattern", "reason", "since", "before", "expires", "stack")
DEVIATION_KEYS = ("clause", "item", "variant", "since", "before", "reference")


def load_nearest_expected(path: Path) -> tuple[ExpectedLine, ...]:
    """Return the expected console lines of the nearest console.yaml beside or above ``path``; none where there is no such file."""
    found = nearest_file(path, CONSOLE_FILE)
    return () if found is None else read_expected(read_text(found), str(found))


def load_nearest_known(path: Path) -> tuple[KnownDeviation, ...]:
    """Return the known deviations of the nearest deviations.yaml beside or above ``path``; none where there is no such file.

    Raises CaseError also for one of a case that is not there.
    """
    found = nearest_file(path, KNOWN_FILE)
    return () if found is None else read_known(read_text(found), str(found), found.parent)


@functools.cache
def read_known(text: str, path: str, cases: Path | None = None) -> tuple[KnownDeviation, ...]:
    """Return the known deviations in ``text``. ``cases``: the folder in which their cases must be. Raises CaseError."""
    what = "the list of known deviations"
    table = as_table(read_tree(text, path), what)
    check_keys(table, ("deviations",), what)
    rows = as_row(require(table, "deviations", what), "deviations").items
    return tuple(_read_known_deviation(as_table(row, "a known deviation"), cases) for row in rows)


def _read_known_deviation(table: Table, cases: Path | None) -> KnownDeviation:
    what = "a known deviation"
    check_keys(table, DEVIATION_KEYS, what)
    clause, item = (as_word(require(table, key, what), key) for key in ("clause", "item"))
    one_of(clause, CLAUSES, f"the model has no clause {clause.text!r}")
    if not re.fullmatch(r"[^/]+/[^/]+", item.text):
        raise CaseError(item.where, f"item is {item.text!r}; a family and a case are written splice/tee")
    if cases is not None:
        _require_case(item, cases)
    variant = table.find("variant")
    since, before = _kernel_range(table, what)
    reference = as_text(require(table, "reference", what), "reference")
    where = "" if variant is None else _pattern(as_word(variant, "variant"))
    return KnownDeviation(clause.text, item.text, where, since, before, reference)


def _require_case(item: Word, cases: Path) -> None:
    family = cases / item.text.split("/")[0]
    names = {f"{family.name}/{name}" for name in _names_in(family)}
    one_of(item, names or {path.parent.name for path in cases.glob(f"*/{FAMILY_FILE}")}, f"there is no case {item.text!r} in {cases}")


def _names_in(family: Path) -> Iterator[str]:
    """Yield the cases of a family: its files, and the tests of those that are written in Python."""
    yield from (path.stem for path in family.glob("*.yaml") if path.name != FAMILY_FILE)
    for path in family.glob("*.py"):
        yield from re.findall(r"^def (test_\w+)\(", read_text(path), re.MULTILINE)


def _kernel_range(table: Table, what: str) -> tuple[tuple[int, int], tuple[int, int] | None]:
    before = table.find("before")
    since = _kernel_version(as_word(require(table, "since", what), "since"))
    return since, None if before is None else _kernel_version(as_word(before, "before"))


@functools.cache
def read_expected(text: str, path: str) -> tuple[ExpectedLine, ...]:
    """Return the expected console lines in ``text``. Raises CaseError."""
    table = as_table(read_tree(text, path), "the list of expected console lines")
    check_keys(table, ("expected",), "the list of expected console lines")
    rows = as_row(require(table, "expected", "the list of expected console lines"), "expected").items
    return tuple(_read_expected_line(as_table(row, "an expected line")) for row in rows)


def _read_expected_line(table: Table) -> ExpectedLine:
    what = "an expected line"
    check_keys(table, EXPECTED_KEYS, what)
    pattern, stack = as_word(require(table, "pattern", what), "pattern"), table.find("stack")
    expires = as_word(require(table, "expires", what), "expires")
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", expires.text):
        raise CaseError(expires.where, f"expires is {expires.text!r}; a day is written 2027-06-30")
    since, before = _kernel_range(table, what)
    return ExpectedLine(
        pattern=_pattern(pattern),
        reason=as_text(require(table, "reason", what), "reason"),
        since=since,
        before=before,
        expires=expires.text,
        stack="" if stack is None else _pattern(as_word(stack, "stack")),
    )


def _pattern(word: Word) -> str:
    try:
        re.compile(word.text)
    except re.error as error:
        raise CaseError(word.where, f"the pattern {word.text!r} is no regular expression: {error}") from error
    return word.text


def _kernel_version(word: Word) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)\.(\d+)", word.text)
    if match is None:
        raise CaseError(word.where, f"{word.text!r} is no kernel version; write the first two numbers, such as 6.12")
    return int(match[1]), int(match[2])
