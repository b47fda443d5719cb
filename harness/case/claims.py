"""The registry of claims, and the descriptions of families: from the text of claims.yaml and family.yaml to frozen values."""

import contextlib
import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from harness.case.axes import CHOICES, Axes, Condition, read_condition
from harness.case.case import Family
from harness.case.steps import read_name
from harness.case.tree import (
    Table,
    Word,
    as_row,
    as_table,
    as_text,
    as_word,
    as_words,
    check_keys,
    nearest_file,
    one_of,
    read_text,
    read_tree,
    require,
)
from harness.errors import CaseError
from harness.model.claims import OTHERWISE, Claim, Status

CLAIMS_FILE = "claims.yaml"
FAMILY_FILE = "family.yaml"
CLAIM_KEYS = ("id", "family", "words", "source", "otherwise", "not_reproducible")


def load_nearest_claims(path: Path) -> Mapping[str, Claim]:
    """Return the claims of the nearest claims.yaml beside or above ``path``; none where there is no such file."""
    found = nearest_file(path, CLAIMS_FILE)
    return {} if found is None else load_claims(found)


def load_claims(path: Path) -> Mapping[str, Claim]:
    """Return the registry of claims by id, in the order of the file. Raises CaseError."""
    return read_claims(read_text(path), str(path))


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
    claim_id = read_name(as_word(require(table, "id", "a claim"), "id"))
    otherwise, reason = table.find("otherwise"), table.find("not_reproducible")
    if (otherwise is None) == (reason is None):
        raise CaseError(table.where, f"the claim {claim_id!r} needs exactly one of otherwise and not_reproducible")
    words = as_words(require(table, "source", "a claim"), "source")
    cited = [one_of(word, sources, f"no source {word.text!r} under sources") for word in words]
    return Claim(
        id=claim_id,
        family=as_word(require(table, "family", "a claim"), "family").text,
        words=as_text(require(table, "words", "a claim"), "words"),
        source="; ".join(sources[name] for name in cited),
        otherwise=None if otherwise is None else _read_otherwise(as_word(otherwise, "otherwise")),
        not_reproducible=None if reason is None else as_text(reason, "not_reproducible"),
    )


def _read_otherwise(word: Word) -> Status:
    return Status(one_of(word, OTHERWISE, f"unknown word {word.text!r} for otherwise"))


def load_families(folder: Path) -> tuple[Family, ...]:
    """Return the family of every folder under ``folder`` that has a family.yaml, by name. Raises CaseError."""
    return tuple(read_family(read_text(path), str(path)) for path in sorted(folder.glob(f"*/{FAMILY_FILE}")))


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
        reasons.append((read_condition(every, entry.without("reason"), "does_not_apply"), reason))
    title = as_text(require(table, "title", "a family"), "title")
    return Family(Path(path).parent.name, title, tuple(reasons))


def claims_of(cases: Iterable[Path]) -> dict[str, Claim]:
    """Return the registries of claims that belong to files of cases; one that cannot be read has none."""
    claims: dict[str, Claim] = {}
    for folder in dict.fromkeys(case.parent for case in cases):
        with contextlib.suppress(CaseError):
            claims |= load_nearest_claims(folder / "case")
    return claims
