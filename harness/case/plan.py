"""A plan: one variant of a case, with the stack to set up, the program to run and the claims it decides."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from harness.case.axes import CHOICES, DEFAULTS, Axes, Destination, Storage, Variant, make_variants
from harness.case.case import Case, DecidesText, Family, Needs, WatchText
from harness.case.names import BAR, check_names
from harness.case.steps import read_count, read_errno, read_signal, read_size, read_step
from harness.case.tree import Table, Tree, Word, as_table, as_truth, as_word, check_keys, one_of, require, substitute
from harness.errors import CaseError
from harness.model.claims import Decision, Growth, HoldsIf, Pages, Range
from harness.model.filesystems import Filesystem
from harness.model.formats import Format
from harness.model.kinds import DaxOption, RegionKind
from harness.model.layers import Layer
from harness.model.outcome import ALWAYS_SHOWN
from harness.model.stack import MAIN, OVERLAY, TARGET, Disk, Mount, Namespace, Region, StorageStack, Volume
from harness.model.watch import Watch
from harness.ops import DATA, FRAMES, MAX_STEPS, MINOR_FAULTS, RESIDENT, Operation, Program
from harness.ops.reach import find_out_of_reach
from harness.sizes import MIB

REGION_BYTES = 256 * MIB
LABEL_BYTES = 2 * MIB

_DAX_OPTIONS = {Storage.DAX: DaxOption.ALWAYS, Storage.NO_DAX: DaxOption.NEVER, Storage.INODE: DaxOption.INODE}


@dataclass(frozen=True)
class Plan:
    """What to run: everything is decided, the kernel apart."""

    case: Case
    variant: Variant
    stack: StorageStack
    program: Program
    decisions: tuple[Decision, ...]
    watches: tuple[Watch, ...] = ()

    @property
    def id(self) -> str:
        """The variant's id; whoever knows the kernel appends it."""
        return self.variant.id

    @property
    def needs(self) -> Needs:
        """What the case cannot do without, and the options of kernels with the drivers of this variant's stack."""
        return with_drivers(self.case.needs, self.stack)

    @property
    def full_only(self) -> bool:
        """Whether it is part of a full run only (``--full``): what the case says so of, and all that is built in an unusual way."""
        return self.variant.is_unusual or (self.case.full is not None and self.case.full.matches(self.variant.values))


def make_plans(case: Case) -> tuple[Plan, ...]:
    """Return the plan of every variant. Raises CaseError for whatever cannot be meant in any of them."""
    variants = make_variants(case.axes, case.mount_in_program)
    for entry in case.decides:
        if not any(entry.condition.matches(variant.values) for variant in variants):
            raise CaseError(entry.where, f"decides {entry.claim!r} for no variant: {entry.condition.describe()}")
    if case.full is not None and not any(case.full.matches(variant.values) for variant in variants):
        raise CaseError(case.axes.where, f"full matches no variant: {case.full.describe()}")
    return tuple(make_plan(case, variant) for variant in variants)


def make_plan(case: Case, variant: Variant) -> Plan:
    """Return the plan of one variant."""
    values = variant.values
    steps = tuple(read_step(step, case.axes, values) for step in case.steps)
    stack = make_stack(variant, case.mount_in_program, case.needs.ivshmem)
    if any(volume.is_read_only and volume.mounts_to_write for volume in stack.volumes) and not case.mount_in_program:
        raise CaseError(
            case.axes.where, f"a region of the kind {variant.region} is read-only, and set-up mounts to write: mount_in_program: true"
        )
    if len(steps) > MAX_STEPS:
        raise CaseError(steps[MAX_STEPS].where, f"a case has at most {MAX_STEPS} steps, this one has {len(steps)}")
    roles = [volume.role for volume in stack.volumes] + ([BAR] if stack.ivshmem else []) + ([OVERLAY] if stack.can_overlay else [])
    check_names(steps, roles)
    beyond = find_out_of_reach([bound.step for bound in steps])
    if beyond is not None:
        raise CaseError(steps[beyond[0]].where, beyond[1])
    indices = {bound.id: index for index, bound in enumerate(steps) if bound.id is not None}
    program = Program(tuple(bound.step for bound in steps))
    decisions = tuple(_read_decision(entry, indices, values, program) for entry in case.decides if entry.condition.matches(values))
    watches = tuple(_read_watch(entry, indices) for entry in case.watch)
    return Plan(case, variant, stack, program, decisions, watches)


# ---- the stack -------------------------------------------------------------------------------------------------------


def make_stack(variant: Variant, mount_in_program: bool = False, ivshmem: bool = False) -> StorageStack:
    """Return the storage stack of a variant."""
    volumes = (_main_volume(variant),) if variant.target is None else (_main_volume(variant), _target_volume(variant))
    return StorageStack(volumes, mount_in_program, ivshmem)


def with_drivers(needs: Needs, stack: StorageStack) -> Needs:
    """Return ``needs`` with the options of kernels that have the drivers of the file systems, layers and regions of ``stack``, and from
    which kernel on set-up can mount them."""
    drivers = [volume.mount.filesystem.traits.driver_option for volume in stack.volumes if volume.mount is not None]
    drivers += [volume.layer.traits.driver_option for volume in stack.volumes]
    drivers += [option for region in stack.regions for option in region.kind.traits.driver_options]
    asked = [] if stack.mount_in_program else [v.mount.filesystem for v in stack.volumes if v.mount is not None and v.asks_dax]
    since = max([needs.since, *(filesystem.traits.dax_words_since for filesystem in asked)])
    return replace(needs, kernel_options=tuple(dict.fromkeys([*needs.kernel_options, *filter(None, drivers)])), since=since)


#: The stack of which a shell and a trial by itself are, by its variant id.
DEFAULT_STACK = "e820-fsdax-ext4-dax_always"


def named_variants() -> dict[str, Variant]:
    """Return the variants that the axes can ask for without a target, by their ids, where set-up can mount what there is to mount.

    Layers and formats are there on the regions and namespaces that a case has by itself, and one at a time.
    """
    usual = {axis: DEFAULTS[axis] for axis in ("layer", "format")}
    plain = {axis: DEFAULTS[axis] for axis in ("region", "namespace", "map")}
    chosen = [usual, {**plain, "format": usual["format"]}, {**plain, "layer": usual["layer"]}]
    found = (variant for axes in chosen for variant in make_variants(_all_but_target(axes)))
    volumes = {variant.id: (variant, _main_volume(variant)) for variant in found}
    return {name: variant for name, (variant, volume) in volumes.items() if volume.mount is None or _can_be_mounted(volume)}


def _all_but_target(instead: Mapping[str, tuple[str, ...]]) -> Axes:
    values = tuple((axis, instead.get(axis, choices)) for axis, choices in CHOICES.items() if axis != "target")
    return Axes(values, (), "harness:0")


def _can_be_mounted(volume: Volume) -> bool:
    return not (volume.is_read_only and volume.mounts_to_write) and (volume.layer.traits.gives_dax or not volume.asks_dax)


def named_stacks() -> dict[str, StorageStack]:
    """Return the stack of every variant in :func:`named_variants` (for a shell, say)."""
    return {name: make_stack(variant) for name, variant in named_variants().items()}


def _main_volume(variant: Variant) -> Volume:
    mount = None
    if variant.filesystem is not None:
        mount = Mount(variant.filesystem, _DAX_OPTIONS.get(variant.storage), variant.format or Format.STANDARD)
    if variant.storage is Storage.DISK:
        return Volume(MAIN, Disk(), mount)
    assert variant.namespace is not None  # as find_meaning has it
    half = 0 if variant.target is not None and variant.target.shares_region else None
    device = Namespace(_region("main", variant), variant.namespace, variant.map, variant.align, half)
    return Volume(MAIN, device, mount, variant.layer or Layer.NONE)


def _target_volume(variant: Variant) -> Volume:
    if variant.target is Destination.DISK:
        name = "second_disk" if variant.storage is Storage.DISK else "disk"
        return Volume(TARGET, Disk(name), Mount(Filesystem.EXT4, None))
    assert variant.target is not None
    option = DaxOption.ALWAYS if variant.target.asks_dax else DaxOption.NEVER
    shared = variant.target.shares_region
    device = Namespace(_region("main", variant), half=1) if shared else Namespace(_region("second", variant))
    return Volume(TARGET, device, Mount(Filesystem.EXT4, option))


def _region(name: str, variant: Variant) -> Region:
    assert variant.region is not None  # as find_meaning has it
    beside = variant.region.traits.has_labels and not variant.region.traits.labels_inside
    return Region(name, variant.region, REGION_BYTES, LABEL_BYTES if beside else 0)


# ---- decisions -------------------------------------------------------------------------------------------------------

HOLDS_IF_KEYS = (
    "works",
    "returns",
    "errno",
    "signal",
    "blocked",
    "attribute",
    "resident",
    "frames_in_region",
    "minor_faults",
    "written_by",
    "zeroes",
    "growth",
)


def _read_decision(entry: DecidesText, indices: Mapping[str, int], values: Mapping[str, str], program: Program) -> Decision:
    index = _index_of(Word(entry.step, entry.where), indices)
    table = as_table(substitute(entry.holds_if, values), "holds_if")
    holds_if = _read_holds_if(table, indices)
    _check_shown(table, program.performed(index))
    return Decision(entry.claim, index, holds_if)


#: What evidence a key of holds_if asks for.
_ASKS = {"resident": RESIDENT, "frames_in_region": FRAMES, "minor_faults": MINOR_FAULTS, "written_by": DATA, "zeroes": DATA}


def _check_shown(table: Table, operation: Operation) -> None:
    """Refuse to decide by evidence that the operation never shows."""
    asked = [(_ASKS[key.text].name, key.where) for key, _ in table.pairs if key.text in _ASKS]
    for key, value in table.pairs:
        if key.text == "attribute":
            asked += [(name.text, name.where) for name, _ in as_table(value, "attribute").pairs]
    shown = [evidence.name for evidence in operation.shows]
    for name, where in asked:
        if name not in shown and name not in ALWAYS_SHOWN:
            raise CaseError(where, f"{operation.call} does not show {name}: it shows {', '.join(shown) or 'nothing'}")


def _index_of(word: Word, indices: Mapping[str, int]) -> int:
    return indices[one_of(word, indices, f"no step has the id {word.text!r}")]


def _read_watch(entry: WatchText, indices: Mapping[str, int]) -> Watch:
    moves, read = _index_of(entry.moves, indices), _index_of(entry.read, indices)
    if read < moves + 2:
        raise CaseError(entry.read.where, "what is watched is moved, then overwritten by another step, then read")
    return Watch(entry.path.text, moves, read)


def _read_holds_if(table: Table, indices: Mapping[str, int]) -> HoldsIf:
    check_keys(table, HOLDS_IF_KEYS, "holds_if")
    if not table.pairs:
        raise CaseError(table.where, f"holds_if needs at least one of {', '.join(HOLDS_IF_KEYS)}")
    found = {key.text: value for key, value in table.pairs}
    works, blocked, zeroes, growth = (found.get(key) for key in ("works", "blocked", "zeroes", "growth"))
    written_by = found.get("written_by")
    return HoldsIf(
        works=None if works is None else as_truth(works, "works"),
        returns=_read_range(found.get("returns"), "returns"),
        errno=read_errno(found["errno"]) if "errno" in found else None,
        signal=read_signal(found["signal"]) if "signal" in found else None,
        blocked=None if blocked is None else as_truth(blocked, "blocked"),
        attributes=_read_attributes(found.get("attribute")),
        resident=_read_pages(found.get("resident"), "resident"),
        frames_in_region=_read_pages(found.get("frames_in_region"), "frames_in_region"),
        minor_faults=_read_range(found.get("minor_faults"), "minor_faults"),
        written_by=None if written_by is None else _index_of(as_word(written_by, "written_by"), indices),
        zeroes=None if zeroes is None else as_truth(zeroes, "zeroes"),
        growth=None if growth is None else _read_growth(as_table(growth, "growth"), indices),
    )


def _read_range(tree: Tree | None, what: str) -> Range | None:
    """``8`` or ``64KiB``, or ``{at_least: 1, at_most: 3}``."""
    if tree is None:
        return None
    if not isinstance(tree, Table):
        number = read_size(as_word(tree, what), what)
        return Range(number, number)
    check_keys(tree, ("at_least", "at_most"), what)
    bounds = {key.text: read_size(as_word(value, what), what) for key, value in tree.pairs}
    if not bounds:
        raise CaseError(tree.where, f"{what} needs a number, or at_least or at_most")
    return Range(bounds.get("at_least"), bounds.get("at_most"))


def _read_growth(table: Table, indices: Mapping[str, int]) -> Growth:
    since = _index_of(as_word(require(table, "since", "growth"), "since"), indices)
    by = _read_range(table.without("since"), "growth")
    return Growth(since, by or Range())


def _read_attributes(tree: Tree | None) -> tuple[tuple[str, int | str], ...]:
    if tree is None:
        return ()
    pairs = as_table(tree, "attribute").pairs
    return tuple((key.text, _attribute(as_word(value, f"the attribute {key.text}"))) for key, value in pairs)


def _attribute(word: Word) -> int | str:
    return read_count(word, "an attribute") if word.text.lstrip("-").isdigit() and not word.quoted else word.text


def _read_pages(tree: Tree | None, what: str) -> Pages | None:
    if tree is None:
        return None
    word = as_word(tree, what)
    if word.text not in set(Pages):
        raise CaseError(word.where, f"{what} is {word.text!r}; accepted: {', '.join(Pages)}")
    return Pages(word.text)


# ---- the matrix ------------------------------------------------------------------------------------------------------

#: The columns: every storage on every region that a case has by itself (a disk has none); the last is whatever names another region.
COLUMNS: tuple[tuple[Storage | None, RegionKind | None], ...] = (
    *(
        (storage, region)
        for storage in (Storage.DAX, Storage.NO_DAX, Storage.NODE, Storage.DEVDAX)
        for region in RegionKind
        if region in DEFAULTS["region"]
    ),
    (Storage.DISK, None),
    (None, None),
)


@dataclass(frozen=True)
class Cell:
    """How many variants there are, or (where none) the reason; no reason is a finding."""

    count: int
    reason: str | None = None


@dataclass(frozen=True)
class MatrixRow:
    family: str
    title: str
    cells: tuple[Cell, ...]


def make_matrix(plans: Sequence[Plan], families: Sequence[Family]) -> tuple[MatrixRow, ...]:
    """Return claim family by storage and region (:data:`COLUMNS`): the number of variants, or why there are none."""
    titles = {family.name: family for family in families}
    names = sorted({plan.case.family for plan in plans} | set(titles))
    return tuple(_matrix_row(name, titles.get(name), [p for p in plans if p.case.family == name]) for name in names)


def _matrix_row(name: str, family: Family | None, plans: Sequence[Plan]) -> MatrixRow:
    cells = []
    for storage, region in COLUMNS:
        count = sum(_is_in(p.variant, storage, region) for p in plans)
        cells.append(Cell(count, None if count else _reason_for(storage, region, family, plans)))
    return MatrixRow(name, family.title if family else "", tuple(cells))


def _is_in(variant: Variant, storage: Storage | None, region: RegionKind | None) -> bool:
    if storage is None:
        return variant.region is not None and variant.region not in DEFAULTS["region"]
    return variant.storage is storage and region in {None, variant.region}


def _reason_for(storage: Storage | None, region: RegionKind | None, family: Family | None, plans: Sequence[Plan]) -> str | None:
    if storage is None:
        return "only cases that are about it name it"
    here = {"storage": str(storage)} | ({"region": str(region)} if region else {})
    stated = [(condition, reason) for condition, reason in (family.does_not_apply if family else ())]
    stated += [(e.condition, e.reason) for case in {p.case.path: p.case for p in plans}.values() for e in case.axes.exclusions]
    found = next((reason for condition, reason in stated if condition.values and condition.matches(here)), None)
    return found or ("only cases that are about it name it" if storage is Storage.DEVDAX else None)


def unexplained_cells(matrix: Sequence[MatrixRow]) -> list[str]:
    """Return one line for every empty cell without a reason."""
    return [
        f"{row.family}: no variant with storage {storage}" + (f" on {region}" if region else "") + ", and nothing says why"
        for row in matrix
        for (storage, region), cell in zip(COLUMNS, row.cells, strict=True)
        if not cell.count and not cell.reason
    ]
