"""The text of a data file as a tree of words, lists and tables, each of which knows its line. The one place of the cases that reads YAML.

Whoever reads on complains through the tree, so that every complaint names file and line.
"""

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from harness.errors import CaseError
from harness.yaml_text import compose


@dataclass(frozen=True)
class Word:
    """A scalar as it was written; ``quoted`` where it stood in quotes."""

    text: str
    where: str
    quoted: bool = False

    @property
    def is_nothing(self) -> bool:
        return not self.quoted and self.text in {"", "~", "null"}


@dataclass(frozen=True)
class Row:
    """A list."""

    items: tuple["Tree", ...]
    where: str


@dataclass(frozen=True)
class Table:
    """A mapping; its keys are unique words."""

    pairs: tuple[tuple[Word, "Tree"], ...]
    where: str

    def find(self, key: str) -> "Tree | None":
        return next((value for word, value in self.pairs if word.text == key), None)

    def without(self, key: str) -> "Table":
        return Table(tuple((word, value) for word, value in self.pairs if word.text != key), self.where)

    @property
    def keys(self) -> tuple[Word, ...]:
        return tuple(word for word, _ in self.pairs)


Tree = Word | Row | Table


def line_of(tree: Tree) -> int:
    """Return the line number that ``tree`` stands on."""
    return int(tree.where.rpartition(":")[2])


def accepted(word: str, choices: Iterable[str]) -> str:
    """Return what is accepted instead of ``word``, the nearest one first where there is one."""
    known = sorted(set(choices))
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"{hint}accepted: {', '.join(known) or 'nothing'}"


def one_of(word: Word, choices: Collection[str], problem: str) -> str:
    """Return the text of ``word``, which must be among ``choices``. Raises CaseError: ``problem``, and what is accepted."""
    if word.text not in choices:
        raise CaseError(word.where, f"{problem}; {accepted(word.text, choices)}")
    return word.text


def as_table(tree: Tree, what: str) -> Table:
    """Return ``tree`` as a table; nothing at all is an empty one."""
    if isinstance(tree, Table):
        return tree
    if isinstance(tree, Word) and tree.is_nothing:
        return Table((), tree.where)
    raise CaseError(tree.where, f"{what} must be a mapping such as {{key: value}}")


def as_row(tree: Tree, what: str) -> Row:
    if isinstance(tree, Row):
        return tree
    raise CaseError(tree.where, f"{what} must be a list such as [a, b]")


def as_word(tree: Tree, what: str) -> Word:
    if isinstance(tree, Word) and not tree.is_nothing:
        return tree
    raise CaseError(tree.where, f"{what} must be one word or number")


def as_words(tree: Tree, what: str) -> tuple[Word, ...]:
    """Return the words of a list; one word alone is a list of one."""
    if isinstance(tree, Word):
        return (as_word(tree, what),)
    return tuple(as_word(item, what) for item in as_row(tree, what).items)


def as_text(tree: Tree, what: str) -> str:
    """Return a sentence with its line breaks folded."""
    return " ".join(as_word(tree, what).text.split())


def as_truth(tree: Tree, what: str) -> bool:
    word = as_word(tree, what)
    if word.text not in {"true", "false"}:
        raise CaseError(word.where, f"{what} is {word.text!r}; accepted: true, false")
    return word.text == "true"


def check_keys(table: Table, choices: Collection[str], what: str) -> None:
    """Complain about the first key of ``table`` that is not among ``choices``."""
    for key in table.keys:
        one_of(key, choices, f"unknown key {key.text!r} in {what}")


def require(table: Table, key: str, what: str) -> Tree:
    value = table.find(key)
    if value is None:
        raise CaseError(table.where, f"{what} needs the key {key!r}")
    return value


_PARAMETER = re.compile(r"\$(\w+)")


def substitute(tree: Tree, values: Mapping[str, str]) -> Tree:
    """Return ``tree`` with every ``$name`` replaced by its value."""
    if isinstance(tree, Row):
        return Row(tuple(substitute(item, values) for item in tree.items), tree.where)
    if isinstance(tree, Table):
        return Table(tuple((key, substitute(value, values)) for key, value in tree.pairs), tree.where)
    if "$" not in tree.text:
        return tree

    def value_of(match: re.Match[str]) -> str:
        if match[1] not in values:
            known = accepted("$" + match[1], (f"${name}" for name in values))
            raise CaseError(tree.where, f"unknown parameter ${match[1]}: this variant's axes do not give it; {known}")
        return values[match[1]]

    return Word(_PARAMETER.sub(value_of, tree.text), tree.where, tree.quoted)


# ---- YAML ------------------------------------------------------------------------------------------------------------


def read_text(path: Path) -> str:
    """Return the text of a data file. Raises CaseError."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CaseError(str(path), f"cannot read the file: {error}") from error


def nearest_file(path: Path, name: str) -> Path | None:
    """Return the file called ``name`` that is nearest beside or above ``path``, or None."""
    return next((folder / name for folder in path.resolve().parents if (folder / name).is_file()), None)


def read_tree(text: str, path: str) -> Tree:
    """Return the YAML ``text`` of the file ``path`` as a tree of words, lists and tables."""
    for number, line in enumerate(text.splitlines(), 1):
        if "\t" in line:
            raise CaseError(f"{path}:{number}", "a tab; YAML is indented with spaces")
    try:
        node = compose(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}" if mark else path
        raise CaseError(where, f"not YAML: {' '.join(filter(None, (error.context, error.problem)))}") from error
    except yaml.YAMLError as error:
        raise CaseError(path, f"not YAML: {error}") from error
    if node is None:
        raise CaseError(f"{path}:1", "the file is empty")
    return _tree(node, path, set())


def _tree(node: yaml.Node, path: str, seen: set[int]) -> Tree:
    where = f"{path}:{node.start_mark.line + 1}"
    if id(node) in seen:
        raise CaseError(where, "a YAML alias (*name); write the value again, or make it an axis")
    seen.add(id(node))
    if isinstance(node, yaml.ScalarNode):
        return Word(node.value, where, quoted=bool(node.style))
    if isinstance(node, yaml.SequenceNode):
        return Row(tuple(_tree(item, path, seen) for item in node.value), where)
    assert isinstance(node, yaml.MappingNode)
    return Table(_pairs(node, path, seen), where)


def _pairs(node: yaml.MappingNode, path: str, seen: set[int]) -> tuple[tuple[Word, Tree], ...]:
    pairs: dict[str, tuple[Word, Tree]] = {}
    for key_node, value_node in node.value:
        key = as_word(_tree(key_node, path, seen), "a key")
        if key.text in pairs:
            raise CaseError(key.where, f"the key {key.text!r} stands twice (first at {pairs[key.text][0].where})")
        pairs[key.text] = (key, _tree(value_node, path, seen))
    return tuple(pairs.values())
