"""Axes: the dimensions of a case, and the variants that they span.

The product of all axes, in which what has no meaning falls away (a disk has no region, a bare node no file system, an
e820 region only the namespace it comes with) and what then is the same is one variant.
"""

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from harness.case.tree import Row, Tree, accepted, as_row, as_table, as_text, as_words, require
from harness.errors import CaseError
from harness.model.filesystems import Filesystem
from harness.model.formats import Format
from harness.model.kinds import Alignment, NamespaceMode, PageMap, RegionKind
from harness.model.layers import Layer


class Storage(StrEnum):
    """What the main volume is: a mount with dax=always, never or inode on pmem, the bare pmem node, a dax device, a file system on a virtio
    disk."""

    DAX = "dax"
    NO_DAX = "no_dax"
    INODE = "inode"
    NODE = "node"
    DEVDAX = "devdax"
    DISK = "disk"


class Destination(StrEnum):
    """What the volume "target" is: ext4 on a virtio disk, or with dax=never or dax=always on a second pmem region, or on a second namespace
    of the main volume's region, of which each then has half."""

    DISK = "disk"
    PMEM = "second_pmem"
    PMEM_DAX = "second_pmem_dax"
    NAMESPACE = "second_namespace"
    NAMESPACE_DAX = "second_namespace_dax"

    @property
    def shares_region(self) -> bool:
        return self in {Destination.NAMESPACE, Destination.NAMESPACE_DAX}

    @property
    def asks_dax(self) -> bool:
        return self in {Destination.PMEM_DAX, Destination.NAMESPACE_DAX}


#: The axes that every case has.
AXES: dict[str, type[StrEnum]] = {
    "storage": Storage,
    "region": RegionKind,
    "namespace": NamespaceMode,
    "map": PageMap,
    "align": Alignment,
    "layer": Layer,
    "filesystem": Filesystem,
    "format": Format,
    "target": Destination,
}
#: What they accept, as it is written. The namespace of a dax device is not chosen: its storage says it.
CHOICES = {axis: tuple(map(str, kind)) for axis, kind in AXES.items()} | {
    "namespace": tuple(str(mode) for mode in NamespaceMode if not mode.traits.dax_device)
}

#: What an axis has that a case leaves out. Regions are named: a new kind is not in every case by itself.
DEFAULTS: dict[str, tuple[str, ...]] = {
    "region": (str(RegionKind.E820), str(RegionKind.NVDIMM)),
    "namespace": (str(NamespaceMode.FSDAX),),
    "map": (str(PageMap.MEM),),
    "align": tuple(map(str, Alignment)),
    "layer": (str(Layer.NONE),),
    "filesystem": (str(Filesystem.EXT4),),
    "format": (str(Format.STANDARD),),
}
_DAX_WORDS = {Storage.DAX: "dax_always", Storage.NO_DAX: "dax_never", Storage.INODE: "dax_inode"}


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
    """One point of the axes: None is an axis that has no meaning for it. ``parameters``: the free ones, as they are written."""

    storage: Storage
    region: RegionKind | None = None
    namespace: NamespaceMode | None = None
    map: PageMap | None = None
    filesystem: Filesystem | None = None
    format: Format | None = None
    target: Destination | None = None
    align: Alignment | None = None
    layer: Layer | None = None
    parameters: tuple[tuple[str, str], ...] = ()

    @property
    def values(self) -> dict[str, str]:
        """The axes that have a meaning, and the free parameters, as they are written."""
        return {axis: str(getattr(self, axis)) for axis in AXES if getattr(self, axis) is not None} | dict(self.parameters)

    @property
    def is_unusual(self) -> bool:
        """Whether it stands on a layer or on half of a region, is made in a format of its own, or of files that nobody can write to: a
        stack that few cases share."""
        halves = self.target is not None and self.target.shares_region
        closed = self.filesystem is not None and self.filesystem.traits.is_read_only
        return halves or closed or self.layer not in (None, Layer.NONE) or self.format not in (None, Format.STANDARD)

    @property
    def id(self) -> str:
        """``e820-fsdax-ext4-dax_always``, ``nvdimm-fsdax_dev-node``, ``e820-fsdax-loop-ext4-dax_never``, ``e820-devdax-2MiB``,
        ``disk-ext4-to_second_pmem_e820-n_1000``; a format that is not the usual one comes behind the file system."""
        on_disk = self.storage is Storage.DISK
        mode = f"{self.namespace}_dev" if self.map is PageMap.DEV else self.namespace
        parts = [Storage.DISK] if on_disk else [self.region, mode]
        layer = None if self.layer is Layer.NONE else self.layer
        made = self.format and self.format.word
        parts += [layer, self.filesystem or self.align or Storage.NODE, made, _DAX_WORDS.get(self.storage)]
        if self.target is not None:
            parts.append(f"to_{self.target}" + (f"_{self.region}" if on_disk and self.region else ""))
        parts += [f"{axis}_{re.sub(r'[^A-Za-z0-9_.+]', '_', value)}" for axis, value in self.parameters]
        return "-".join(filter(None, parts))


def read_axes(tree: Tree) -> Axes:
    """Read the key ``axes`` of a case."""
    table = as_table(tree, "axes")
    require(table, "storage", f"axes (what the main volume is: {', '.join(Storage)})")
    named: dict[str, tuple[str, ...]] = {}
    for key, value in table.pairs:
        if key.text == "exclude":
            continue
        if key.text not in CHOICES and not re.fullmatch(r"[a-z][a-z0-9_]*", key.text):
            raise CaseError(key.where, f"the axis {key.text!r} needs a name of lower-case letters, digits and _")
        named[key.text] = _read_values(key.text, value)
    ordered = {axis: named.pop(axis, DEFAULTS.get(axis, ())) for axis in CHOICES} | named
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
    rest = table.without("reason")
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


def make_variants(axes: Axes, mount_in_program: bool = False) -> tuple[Variant, ...]:
    """Return the variants, each once, in the order of the axes. Raises CaseError where none is left."""
    meant = _meaningful_variants(axes, mount_in_program)
    for exclusion in axes.exclusions:
        if not any(exclusion.condition.matches(variant.values) for variant in meant):
            raise CaseError(exclusion.where, f"exclude matches no variant: {exclusion.condition.describe()}")
    kept = tuple(variant for variant in meant if not any(e.condition.matches(variant.values) for e in axes.exclusions))
    if not kept:
        raise CaseError(
            axes.where,
            "the axes leave no variant (a file system or a node on an e820 region is fsdax with map mem only; a file system has some of the"
            " formats only, and some of these no DAX; see also exclude)",
        )
    ids = [variant.id for variant in kept]
    for number, name in enumerate(ids):
        if name in ids[:number]:
            raise CaseError(axes.where, f"two variants would have the id {name!r}: write the parameters so that they differ")
    return kept


def _meaningful_variants(axes: Axes, mount_in_program: bool) -> tuple[Variant, ...]:
    names = [axis for axis, _ in axes.values]
    points = (dict(zip(names, chosen, strict=True)) for chosen in itertools.product(*(choices for _, choices in axes.values)))
    return tuple(dict.fromkeys(_variant(kept) for point in points if (kept := find_meaning(point, mount_in_program)) is not None))


def _variant(point: Mapping[str, str]) -> Variant:
    typed: dict[str, Any] = {axis: kind(point[axis]) for axis, kind in AXES.items() if axis in point}
    return Variant(**typed, parameters=tuple((axis, value) for axis, value in point.items() if axis not in AXES))


def find_meaning(point: Mapping[str, str], mount_in_program: bool = False) -> dict[str, str] | None:
    """Return ``point`` without the axes that mean nothing for it, or None where no such stack exists."""
    kept = dict(point)
    if kept["storage"] in (Storage.NODE, Storage.DEVDAX):
        del kept["filesystem"], kept["format"]
    elif not _can_have_format(kept, mount_in_program):
        return None
    shares = "target" in kept and Destination(kept["target"]).shares_region
    if kept["storage"] == Storage.DISK:
        if shares:
            return None
        on_pmem = kept.get("target") in {Destination.PMEM, Destination.PMEM_DAX}
        drop = {"namespace", "map", "align", "layer"} | (set() if on_pmem else {"region"})
        return {axis: value for axis, value in kept.items() if axis not in drop}
    if kept["storage"] == Storage.DEVDAX:
        kept["namespace"] = str(NamespaceMode.DEVDAX)
    else:
        del kept["align"]
    mode = NamespaceMode(kept["namespace"])
    traits = RegionKind(kept["region"]).traits
    if (mode, PageMap(kept["map"])) not in traits.namespaces:
        return None
    if shares and (not mode.traits.has_page_map or not traits.has_labels or traits.read_only):
        return None
    if not mode.traits.has_page_map:
        del kept["map"]
    if kept["storage"] in (Storage.NODE, Storage.DEVDAX):
        del kept["layer"]
        return kept
    no_dax_per_file = kept["storage"] == Storage.INODE and not Filesystem(kept["filesystem"]).traits.dax_per_file
    no_layer = kept["layer"] != Layer.NONE and (not mode.traits.queue_dax or traits.read_only)
    return None if no_dax_per_file or no_layer else kept


def _can_have_format(point: Mapping[str, str], mount_in_program: bool) -> bool:
    """Whether a file system has a format, and set-up can mount it as asked; where the program mounts, mkfs has to know the format."""
    traits = Format(point["format"]).traits
    if Filesystem(point["filesystem"]) not in traits.filesystems:
        return False
    return traits.by_mkfs if mount_in_program else point["storage"] != Storage.DAX or traits.mounts_dax_since is not None
