"""Axes: the dimensions of a case, and the variants that they span.

The product of all axes, in which what has no meaning falls away (a disk has no region, a bare node no file system, an
e820 region only the namespace it comes with) and what then is the same is one variant.
"""

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass

from harness.case.tree import Row, Table, Tree, accepted, as_row, as_table, as_text, as_words, require
from harness.errors import CaseError
from harness.model.stack import Filesystem, NamespaceMode, PageMap, RegionKind

#: What the main volume is: a mount with dax=always, never or inode on pmem, the bare pmem node, a file system on a virtio disk.
DAX, NO_DAX, INODE, NODE, DISK = "dax", "no_dax", "inode", "node", "disk"
STORAGES = (DAX, NO_DAX, INODE, NODE, DISK)

#: What the volume "target" is: ext4 on a virtio disk, or on a second pmem region with dax=never or dax=always.
TO_DISK, TO_PMEM, TO_PMEM_DAX = "disk", "second_pmem", "second_pmem_dax"
TARGETS = (TO_DISK, TO_PMEM, TO_PMEM_DAX)

#: The axes that every case has, with what they accept: words, as they are written, and not the values that they stand for.
CHOICES: dict[str, tuple[str, ...]] = {
    "storage": STORAGES,
    "region": tuple(map(str, RegionKind)),
    "namespace": tuple(map(str, NamespaceMode)),
    "map": tuple(map(str, PageMap)),
    "filesystem": tuple(map(str, Filesystem)),
    "target": TARGETS,
}

_DEFAULTS: dict[str, tuple[str, ...]] = {
    "region": CHOICES["region"],
    "namespace": (str(NamespaceMode.FSDAX),),
    "map": (str(PageMap.MEM),),
    "filesystem": (str(Filesystem.EXT4),),
}
_DAX_WORDS = {DAX: "dax_always", NO_DAX: "dax_never", INODE: "dax_inode"}


@dataclass(frozen=True)
class Condition:
    """Partial axes: each named axis has one of the values."""

    values: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def matches(self, values: Mapping[str, str]) -> bool:
        return all(values.get(axis) in wanted for axis, wanted in self.values)

    def describe(self) -> str:
        return ", ".join(f"{axis} {'|'.join(wanted)}" for axis, wanted in self.values) or "everything"


@dataclass(frozen=True)
class Exclusion:
    """Variants that are left out on purpose, and why."""

    condition: Condition
    reason: str
    where: str


@dataclass(frozen=True)
class Axes:
    """The values of every axis, free parameters included, in the order in which they were written."""

    values: tuple[tuple[str, tuple[str, ...]], ...]
    exclusions: tuple[Exclusion, ...]
    where: str

    def of(self, axis: str) -> tuple[str, ...]:
        return dict(self.values).get(axis, ())


@dataclass(frozen=True)
class Variant:
    """One point of the axes. ``values`` holds only the axes that have a meaning for it, free parameters included."""

    id: str
    values: tuple[tuple[str, str], ...]

    def find(self, axis: str) -> str | None:
        return dict(self.values).get(axis)

    @property
    def storage(self) -> str:
        return dict(self.values)["storage"]


def read_axes(tree: Tree) -> Axes:
    """Read the key ``axes`` of a case."""
    table = as_table(tree, "axes")
    require(table, "storage", f"axes (what the main volume is: {', '.join(STORAGES)})")
    named: dict[str, tuple[str, ...]] = {}
    for key, value in table.pairs:
        if key.text == "exclude":
            continue
        if key.text not in CHOICES and not re.fullmatch(r"[a-z][a-z0-9_]*", key.text):
            raise CaseError(key.where, f"the axis {key.text!r} needs a name of lower-case letters, digits and _")
        named[key.text] = _read_values(key.text, value)
    ordered = {axis: named.pop(axis, _DEFAULTS.get(axis, ())) for axis in CHOICES} | named
    values = tuple((axis, choices) for axis, choices in ordered.items() if choices)
    without = Axes(values, (), table.where)
    excluded = table.find("exclude")
    rows = () if excluded is None else as_row(excluded, "exclude").items
    return Axes(values, tuple(_read_exclusion(without, row) for row in rows), table.where)


def _read_values(axis: str, tree: Tree) -> tuple[str, ...]:
    if not isinstance(tree, Row) or not tree.items:
        hint = f"; accepted: {', '.join(CHOICES[axis])}" if axis in CHOICES else ""
        unknown = "" if axis in CHOICES else f" (a free parameter: ${axis}; the axes that every case has are {', '.join(CHOICES)})"
        raise CaseError(tree.where, f"the axis {axis!r}{unknown} must be a list with at least one value{hint}")
    texts: list[str] = []
    for word in as_words(tree, f"a value of the axis {axis!r}"):
        if axis in CHOICES and word.text not in CHOICES[axis]:
            raise CaseError(word.where, f"unknown value {word.text!r} of the axis {axis!r}; {accepted(word.text, CHOICES[axis])}")
        if word.text in texts:
            raise CaseError(word.where, f"the axis {axis!r} has the value {word.text!r} twice")
        texts.append(word.text)
    return tuple(texts)


def _read_exclusion(axes: Axes, tree: Tree) -> Exclusion:
    table = as_table(tree, "an entry of exclude")
    reason = as_text(require(table, "reason", "an entry of exclude"), "reason")
    rest = Table(tuple((key, value) for key, value in table.pairs if key.text != "reason"), table.where)
    if not rest.pairs:
        raise CaseError(table.where, "an entry of exclude needs at least one axis besides its reason")
    return Exclusion(read_condition(axes, rest, "exclude"), reason, table.where)


def read_condition(axes: Axes, tree: Tree, what: str) -> Condition:
    """Read partial axes such as ``{storage: dax, filesystem: [ext4, xfs]}``; every value must be one the case has."""
    read: list[tuple[str, tuple[str, ...]]] = []
    for key, value in as_table(tree, what).pairs:
        names = [axis for axis, _ in axes.values]
        if key.text not in names:
            raise CaseError(key.where, f"{what} names the axis {key.text!r}, which this case does not have; {accepted(key.text, names)}")
        for word in as_words(value, f"{key.text} in {what}"):
            if word.text not in axes.of(key.text):
                choices = accepted(word.text, axes.of(key.text))
                raise CaseError(
                    word.where, f"{what} names the value {word.text!r}, which the axis {key.text!r} does not have here; {choices}"
                )
        read.append((key.text, tuple(word.text for word in as_words(value, what))))
    return Condition(tuple(read))


def make_variants(axes: Axes) -> tuple[Variant, ...]:
    """Return the variants, each once, in the order of the axes. Raises CaseError where none is left."""
    points = _meaningful_points(axes)
    for exclusion in axes.exclusions:
        if not any(exclusion.condition.matches(point) for point in points):
            raise CaseError(exclusion.where, f"exclude matches no variant: {exclusion.condition.describe()}")
    kept = [point for point in points if not any(e.condition.matches(point) for e in axes.exclusions)]
    if not kept:
        raise CaseError(axes.where, "the axes leave no variant (an e820 region is fsdax with map mem only; see also exclude)")
    variants = tuple(Variant(variant_id(point), tuple(point.items())) for point in kept)
    seen: dict[str, Variant] = {}
    for variant in variants:
        if variant.id in seen:
            raise CaseError(axes.where, f"two variants would have the id {variant.id!r}: write the parameters so that they differ")
        seen[variant.id] = variant
    return variants


def _meaningful_points(axes: Axes) -> list[dict[str, str]]:
    names = [axis for axis, _ in axes.values]
    points: list[dict[str, str]] = []
    for chosen in itertools.product(*(choices for _, choices in axes.values)):
        point = find_meaning(dict(zip(names, chosen, strict=True)))
        if point is not None and point not in points:
            points.append(point)
    return points


def find_meaning(point: Mapping[str, str]) -> dict[str, str] | None:
    """Return ``point`` without the axes that mean nothing for it, or None where no such stack exists."""
    kept = dict(point)
    if kept["storage"] == DISK:
        drop = {"namespace", "map"} if kept.get("target") in {TO_PMEM, TO_PMEM_DAX} else {"region", "namespace", "map"}
        return {axis: value for axis, value in kept.items() if axis not in drop}
    if kept["region"] == RegionKind.E820 and (kept["namespace"], kept["map"]) != (NamespaceMode.FSDAX, PageMap.MEM):
        return None
    if kept["namespace"] != NamespaceMode.FSDAX:
        del kept["map"]
    if kept["storage"] == NODE:
        del kept["filesystem"]
    return kept


def variant_id(point: Mapping[str, str]) -> str:
    """Return ``e820-fsdax-ext4-dax_always``, ``nvdimm-fsdax_dev-node``, ``disk-ext4-to_second_pmem-length_1000``."""
    storage = point["storage"]
    parts = [DISK]
    if storage != DISK:
        parts = [point["region"], point["namespace"] + ("_dev" if point.get("map") == PageMap.DEV else "")]
    parts += [point["filesystem"]] if "filesystem" in point else [NODE]
    parts += [_DAX_WORDS[storage]] if storage in _DAX_WORDS else []
    if "target" in point:
        parts.append(f"to_{point['target']}" + (f"_{point['region']}" if storage == DISK and "region" in point else ""))
    parts += [f"{axis}_{_plain(value)}" for axis, value in point.items() if axis not in CHOICES]
    return "-".join(parts)


def _plain(value: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.+]", "_", value)
