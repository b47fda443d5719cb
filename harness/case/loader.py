"""From the text of a case to a frozen one, and to its plans.

Every complaint is a CaseError that names file and line, the key, and what is accepted.
"""

from collections.abc import Mapping
from pathlib import Path

from harness.case.axes import Axes, Condition, read_axes, read_condition
from harness.case.case import KERNEL_FLAVOURS, KERNEL_OPTIONS, OPTIONS_OF_OPERATIONS, Case, DecidesText, Needs, WatchText
from harness.case.claims import CLAIMS_FILE, FAMILY_FILE, load_nearest_claims
from harness.case.known import CONSOLE_FILE, KNOWN_FILE
from harness.case.plan import Plan, make_plans
from harness.case.tree import (
    Row,
    Table,
    Tree,
    Word,
    as_row,
    as_table,
    as_text,
    as_truth,
    as_word,
    as_words,
    check_keys,
    one_of,
    read_text,
    read_tree,
    require,
)
from harness.errors import CaseError
from harness.model.claims import Claim
from harness.model.facts import FACTS

CASE_KEYS = ("title", "claim", "decides", "probes", "watch", "axes", "full", "needs", "mount_in_program", "program", "notes")


def find_case_files(folder: Path) -> list[Path]:
    """Return the case files under ``folder``, sorted: every YAML file in a family's folder except family.yaml."""
    return sorted(path for path in folder.glob("*/**/*.yaml") if is_case_file(path))


def is_case_file(path: Path) -> bool:
    """Whether a file under cases/ holds a case (and not the registry of claims or the description of a family)."""
    return path.suffix == ".yaml" and path.name not in {CLAIMS_FILE, FAMILY_FILE, CONSOLE_FILE, KNOWN_FILE}


def load_plans(path: Path) -> tuple[Plan, ...]:
    """Return the plans of the case in ``path``, one a variant. It may name claims of the claims.yaml in the nearest folder above it.

    Raises CaseError.
    """
    return read_plans(read_text(path), str(path), load_nearest_claims(path))


def read_plans(text: str, path: str, claims: Mapping[str, Claim]) -> tuple[Plan, ...]:
    """Like :func:`load_plans`, from ``text``."""
    return make_plans(_read_case(text, path, claims))


def _read_case(text: str, path: str, claims: Mapping[str, Claim]) -> Case:
    """Return the case in ``text`` before its variants are checked, which making their plans does."""
    table = as_table(read_tree(text, path), "a case")
    check_keys(table, CASE_KEYS, "a case")
    axes = read_axes(require(table, "axes", "a case"))
    claim, decides, needs, truth, notes = (table.find(key) for key in ("claim", "decides", "needs", "mount_in_program", "notes"))
    probes, watch, full = table.find("probes"), table.find("watch"), table.find("full")
    case = Case(
        path=path,
        family=Path(path).parent.name,
        name=Path(path).stem,
        title=as_text(require(table, "title", "a case"), "title"),
        claims=() if claim is None else tuple(_claim_id(word, claims) for word in as_words(claim, "claim")),
        decides=() if decides is None else tuple(_read_decides(row, axes, claims) for row in as_row(decides, "decides").items),
        probes=() if probes is None else tuple(_fact_name(word) for word in as_words(probes, "probes")),
        watch=() if watch is None else tuple(map(_read_watch, as_row(watch, "watch").items)),
        axes=axes,
        full=None if full is None else read_condition(axes, full, "full"),
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
    return Needs(
        None if flavour is None else _kernel_flavour(as_word(flavour, "kernel_flavour")),
        ivshmem is not None and as_truth(ivshmem, "ivshmem"),
        () if options is None else tuple(_kernel_option(word) for word in as_words(options, "kernel_options")),
    )


def _kernel_flavour(word: Word) -> str:
    return one_of(word, KERNEL_FLAVOURS, f"unknown kernel_flavour {word.text!r}")


def _kernel_option(word: Word) -> str:
    return one_of(word, KERNEL_OPTIONS, f"unknown kernel option {word.text!r}")


def _read_decides(tree: Tree, axes: Axes, claims: Mapping[str, Claim]) -> DecidesText:
    what = "an entry of decides"
    table = as_table(tree, what)
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


def _read_watch(tree: Tree) -> WatchText:
    what = "an entry of watch"
    table = as_table(tree, what)
    check_keys(table, ("path", "moves", "read"), what)
    return WatchText(*(as_word(require(table, key, what), key) for key in ("path", "moves", "read")))


def _claim_id(word: Word, claims: Mapping[str, Claim]) -> str:
    return one_of(word, claims, f"the registry ({CLAIMS_FILE}) has no claim {word.text!r}")


def _fact_name(word: Word) -> str:
    return one_of(word, FACTS, f"the model has no fact {word.text!r}")
