"""From YAML text to frozen cases, claims and families. The one place of the cases where YAML is read.

Every complaint is a CaseError that names file and line, the key, and what is accepted.
"""

import functools
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import yaml

from harness.case.axes import CHOICES, Axes, Condition, read_axes, read_condition
from harness.case.case import KERNEL_FLAVOURS, KERNEL_OPTIONS, OPTIONS_OF_OPERATIONS, Case, DecidesText, Family, Needs
from harness.case.plan import Plan, make_plans
from harness.case.steps import NAME
from harness.case.tree import (
    Row,
    Table,
    Tree,
    Word,
    accepted,
    as_row,
    as_table,
    as_text,
    as_truth,
    as_word,
    as_words,
    check_keys,
    require,
)
from harness.errors import CaseError
from harness.model.claims import OTHERWISE, Claim, Status
from harness.model.contract import CLAUSES
from harness.model.facts import FACTS
from harness.model.known import ExpectedLine, KnownDeviation

CASE_KEYS = ("title", "claim", "decides", "probes", "axes", "needs", "mount_in_program", "program", "notes")
CLAIM_KEYS = ("id", "family", "words", "source", "otherwise", "not_reproducible")
CLAIMS_FILE = "claims.yaml"
FAMILY_FILE = "family.yaml"
CONSOLE_FILE = "console.yaml"
KNOWN_FILE = "deviations.yaml"
EXPECTED_KEYS = ("pattern", "reason", "since", "before", "expires", "stack")
DEVIATION_KEYS = ("clause", "item", "variant", "since", "before", "reference")

# ---- cases -----------------------------------------------------------------------------------------------------------


def find_case_files(folder: Path) -> list[Path]:
    """Return the case files under ``folder``, sorted: every YAML file in a family's folder except family.yaml."""
    return sorted(path for path in folder.glob("*/**/*.yaml") if is_case_file(path))


def is_case_file(path: Path) -> bool:
    """Whether a file under cases/ holds a case (and not the registry of claims or the description of a family)."""
    return path.suffix == ".yaml" and path.name not in {CLAIMS_FILE, FAMILY_FILE, CONSOLE_FILE, KNOWN_FILE}


def load_plans(path: Path, claims: Mapping[str, Claim] | None = None) -> tuple[Plan, ...]:
    """Return the plans of the case in ``path``, one a variant. ``claims``: see :func:`load_case`."""
    return make_plans(_read_unchecked(_read_text(path), str(path), load_nearest_claims(path) if claims is None else claims))


def load_case(path: Path, claims: Mapping[str, Claim] | None = None) -> Case:
    """Return the case in ``path``, every variant checked.

    ``claims`` is the registry that it may name claims of; None: the claims.yaml in the nearest folder above the case.
    Raises CaseError.
    """
    return read_case(_read_text(path), str(path), load_nearest_claims(path) if claims is None else claims)


def read_case(text: str, path: str, claims: Mapping[str, Claim]) -> Case:
    """Like :func:`load_case`, from ``text``."""
    case = _read_unchecked(text, path, claims)
    make_plans(case)
    return case


def _read_unchecked(text: str, path: str, claims: Mapping[str, Claim]) -> Case:
    """Return the case in ``text`` before its variants are checked, which making their plans does."""
    table = as_table(read_tree(text, path), "a case")
    check_keys(table, CASE_KEYS, "a case")
    axes = read_axes(require(table, "axes", "a case"))
    claim, decides, needs, truth, notes = (table.find(key) for key in ("claim", "decides", "needs", "mount_in_program", "notes"))
    probes = table.find("probes")
    case = Case(
        path=path,
        family=Path(path).parent.name,
        name=Path(path).stem,
        title=as_text(require(table, "title", "a case"), "title"),
        claims=() if claim is None else tuple(_claim_id(word, claims) for word in as_words(claim, "claim")),
        decides=() if decides is None else tuple(_read_decides(row, axes, claims) for row in as_row(decides, "decides").items),
        probes=() if probes is None else tuple(_fact_name(word) for word in as_words(probes, "probes")),
        axes=axes,
        needs=Needs() if needs is None else _read_needs(as_table(needs, "needs")),
        mount_in_program=truth is not None and as_truth(truth, "mount_in_program"),
        steps=_read_program(require(table, "program", "a case")),
        notes="" if notes is None else as_text(notes, "notes"),
    )
    _check_options(case)
    return case


def _check_options(case: Case) -> None:
    """Complain about an operation that a kernel may lack where the case does not say that it needs the kernel's option."""
    for step in case.steps:
        for key in step.keys:
            needed = next((options for start, options in OPTIONS_OF_OPERATIONS.items() if key.text.startswith(start)), ())
            missing = [option for option in needed if option not in case.needs.kernel_options]
            if missing:
                raise CaseError(
                    key.where,
                    f"{key.text} is not there on a kernel without {', '.join(missing)}:"
                    f" write needs: {{kernel_options: [{', '.join(needed)}]}}",
                )


def _read_program(tree: Tree) -> tuple[Table, ...]:
    if not isinstance(tree, Row) or not tree.items:
        raise CaseError(tree.where, "program must be a list with at least one step such as - open: {name: f, path: a}")
    return tuple(as_table(step, "a step") for step in tree.items)


def _read_needs(table: Table) -> Needs:
    check_keys(table, ("kernel_flavour", "ivshmem", "kernel_options"), "needs")
    flavour, ivshmem, options = (table.find(key) for key in ("kernel_flavour", "ivshmem", "kernel_options"))
    word = None if flavour is None else as_word(flavour, "kernel_flavour")
    if word is not None and word.text not in KERNEL_FLAVOURS:
        raise CaseError(word.where, f"unknown kernel_flavour {word.text!r}; {accepted(word.text, KERNEL_FLAVOURS)}")
    return Needs(
        word.text if word else None,
        ivshmem is not None and as_truth(ivshmem, "ivshmem"),
        () if options is None else tuple(_kernel_option(word) for word in as_words(options, "kernel_options")),
    )


def _kernel_option(word: Word) -> str:
    if word.text not in KERNEL_OPTIONS:
        raise CaseError(word.where, f"unknown kernel option {word.text!r}; {accepted(word.text, KERNEL_OPTIONS)}")
    return word.text


def _read_decides(tree: Tree, axes: Axes, claims: Mapping[str, Claim]) -> DecidesText:
    table = as_table(tree, "an entry of decides")
    what = "an entry of decides"
    check_keys(table, ("claim", "where", "step", "holds_if"), what)
    claim = as_word(require(table, "claim", what), "claim")
    condition = table.find("where")
    step = as_word(require(table, "step", what), "step")
    entry = DecidesText(
        claim=_claim_id(claim, claims),
        condition=Condition() if condition is None else read_condition(axes, condition, "where"),
        step=step.text,
        holds_if=as_table(require(table, "holds_if", what), "holds_if"),
        where=step.where,
    )
    reason = claims[entry.claim].not_reproducible
    if reason is not None:
        raise CaseError(
            claim.where, f"the claim {entry.claim!r} cannot be decided: the registry says that it is not reproducible ({reason})"
        )
    return entry


def _claim_id(word: Word, claims: Mapping[str, Claim]) -> str:
    if word.text not in claims:
        raise CaseError(word.where, f"the registry ({CLAIMS_FILE}) has no claim {word.text!r}; {accepted(word.text, claims)}")
    return word.text


def _fact_name(word: Word) -> str:
    if word.text not in FACTS:
        raise CaseError(word.where, f"the model has no fact {word.text!r}; {accepted(word.text, FACTS)}")
    return word.text


# ---- claims and families ---------------------------------------------------------------------------------------------


def load_nearest_claims(path: Path) -> Mapping[str, Claim]:
    """Return the claims of the nearest claims.yaml beside or above ``path``; none where there is no such file."""
    for folder in path.resolve().parents:
        if (folder / CLAIMS_FILE).is_file():
            return load_claims(folder / CLAIMS_FILE)
    return {}


def load_claims(path: Path) -> Mapping[str, Claim]:
    """Return the registry of claims by id, in the order of the file. Raises CaseError."""
    return read_claims(_read_text(path), str(path))


@functools.cache
def read_claims(text: str, path: str) -> Mapping[str, Claim]:
    """Like :func:`load_claims`, from ``text``. Equal text is read once: it is asked for with every case."""
    table = as_table(read_tree(text, path), "the registry of claims")
    check_keys(table, ("sources", "claims"), "the registry of claims")
    sources = {key.text: as_text(value, key.text) for key, value in as_table(require(table, "sources", "the registry"), "sources").pairs}
    claims: dict[str, Claim] = {}
    for row in as_row(require(table, "claims", "the registry of claims"), "claims").items:
        claim = _read_claim(as_table(row, "a claim"), sources)
        if claim.id in claims:
            raise CaseError(row.where, f"the claim {claim.id!r} is registered twice")
        claims[claim.id] = claim
    return MappingProxyType(claims)


def _read_claim(table: Table, sources: Mapping[str, str]) -> Claim:
    check_keys(table, CLAIM_KEYS, "a claim")
    claim_id = as_word(require(table, "id", "a claim"), "id")
    if not NAME.fullmatch(claim_id.text):
        raise CaseError(claim_id.where, f"{claim_id.text!r} is not a name: lower-case letters, digits and _, a letter first")
    otherwise, reason = table.find("otherwise"), table.find("not_reproducible")
    if (otherwise is None) == (reason is None):
        raise CaseError(table.where, f"the claim {claim_id.text!r} needs exactly one of otherwise and not_reproducible")
    cited = as_words(require(table, "source", "a claim"), "source")
    for word in cited:
        if word.text not in sources:
            raise CaseError(word.where, f"no source {word.text!r} under sources; {accepted(word.text, sources)}")
    return Claim(
        id=claim_id.text,
        family=as_word(require(table, "family", "a claim"), "family").text,
        words=as_text(require(table, "words", "a claim"), "words"),
        source="; ".join(sources[word.text] for word in cited),
        otherwise=None if otherwise is None else _read_otherwise(as_word(otherwise, "otherwise")),
        not_reproducible=None if reason is None else as_text(reason, "not_reproducible"),
    )


def _read_otherwise(word: Word) -> Status:
    if word.text not in set(OTHERWISE):
        raise CaseError(word.where, f"unknown word {word.text!r} for otherwise; {accepted(word.text, OTHERWISE)}")
    return Status(word.text)


def load_families(folder: Path) -> tuple[Family, ...]:
    """Return the family of every folder under ``folder`` that has a family.yaml, by name. Raises CaseError."""
    return tuple(read_family(_read_text(path), str(path)) for path in sorted(folder.glob(f"*/{FAMILY_FILE}")))


def read_family(text: str, path: str) -> Family:
    """Return the description of a family of cases: its title, and why it has no cases for some storages and regions."""
    table = as_table(read_tree(text, path), "a family")
    check_keys(table, ("title", "does_not_apply"), "a family")
    rows = table.find("does_not_apply")
    every = Axes(tuple((axis, CHOICES[axis]) for axis in ("storage", "region")), (), table.where)
    reasons: list[tuple[Condition, str]] = []
    for row in () if rows is None else as_row(rows, "does_not_apply").items:
        entry = as_table(row, "an entry of does_not_apply")
        reason = as_text(require(entry, "reason", "an entry of does_not_apply"), "reason")
        rest = Table(tuple((key, value) for key, value in entry.pairs if key.text != "reason"), entry.where)
        reasons.append((read_condition(every, rest, "does_not_apply"), reason))
    title = as_text(require(table, "title", "a family"), "title")
    return Family(Path(path).parent.name, title, tuple(reasons))


# ---- what is known beforehand: expected console lines, deviations ----------------------------------------------------


def load_nearest_expected(path: Path) -> tuple[ExpectedLine, ...]:
    """Return the expected console lines of the nearest console.yaml beside or above ``path``; none where there is no such file."""
    found = _nearest(path, CONSOLE_FILE)
    return () if found is None else read_expected(_read_text(found), str(found))


def load_nearest_known(path: Path) -> tuple[KnownDeviation, ...]:
    """Return the known deviations of the nearest deviations.yaml beside or above ``path``; none where there is no such file."""
    found = _nearest(path, KNOWN_FILE)
    return () if found is None else read_known(_read_text(found), str(found))


def _nearest(path: Path, name: str) -> Path | None:
    return next((folder / name for folder in path.resolve().parents if (folder / name).is_file()), None)


@functools.cache
def read_known(text: str, path: str) -> tuple[KnownDeviation, ...]:
    """Return the known deviations in ``text``. Raises CaseError."""
    what = "the list of known deviations"
    table = as_table(read_tree(text, path), what)
    check_keys(table, ("deviations",), what)
    rows = as_row(require(table, "deviations", what), "deviations").items
    return tuple(_read_known_deviation(as_table(row, "a known deviation")) for row in rows)


def _read_known_deviation(table: Table) -> KnownDeviation:
    what = "a known deviation"
    check_keys(table, DEVIATION_KEYS, what)
    clause, item = (as_word(require(table, key, what), key) for key in ("clause", "item"))
    if clause.text not in CLAUSES:
        raise CaseError(clause.where, f"the model has no clause {clause.text!r}; {accepted(clause.text, CLAUSES)}")
    if not re.fullmatch(r"[^/]+/[^/]+", item.text):
        raise CaseError(item.where, f"item is {item.text!r}; a family and a case are written splice/tee")
    variant = table.find("variant")
    since, before = _kernel_range(table, what)
    reference = as_text(require(table, "reference", what), "reference")
    return KnownDeviation(clause.text, item.text, "" if variant is None else as_word(variant, "variant").text, since, before, reference)


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
    on = None if stack is None else as_word(stack, "stack")
    for word in (pattern, on):
        try:
            re.compile(word.text if word else "")
        except re.error as error:
            assert word is not None
            raise CaseError(word.where, f"the pattern {word.text!r} is no regular expression: {error}") from error
    expires = as_word(require(table, "expires", what), "expires")
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", expires.text):
        raise CaseError(expires.where, f"expires is {expires.text!r}; a day is written 2027-06-30")
    since, before = _kernel_range(table, what)
    return ExpectedLine(
        pattern=pattern.text,
        reason=as_text(require(table, "reason", what), "reason"),
        since=since,
        before=before,
        expires=expires.text,
        stack=on.text if on else "",
    )


def _kernel_version(word: Word) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)\.(\d+)", word.text)
    if match is None:
        raise CaseError(word.where, f"{word.text!r} is no kernel version; write the first two numbers, such as 6.12")
    return int(match[1]), int(match[2])


# ---- YAML ------------------------------------------------------------------------------------------------------------


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CaseError(str(path), f"cannot read the file: {error}") from error


def read_tree(text: str, path: str) -> Tree:
    """Return the YAML ``text`` of the file ``path`` as a tree of words, lists and tables."""
    for number, line in enumerate(text.splitlines(), 1):
        if "\t" in line:
            raise CaseError(f"{path}:{number}", "a tab; YAML is indented with spaces")
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
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
        return Word(node.value, where, quoted=node.style is not None)
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
