"""The model's facts measured on guests: which value makes the model agree with what was observed?

Cases say which facts they probe (``pytest cases -m probe`` runs those). An item is judged once with each
value that the fact can take; the values with which it conforms are those that the guest allows. A new kernel is so probed before it is
tested, and two kernels are compared by comparing their tables.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.model.fact import Value
from harness.model.facts import FACTS, Env
from harness.model.formats import Format
from harness.model.judge import judge
from harness.model.kinds import NamespaceMode, RegionKind
from harness.model.layers import Layer
from harness.model.stack import ASYNCHRONOUS, MAIN, VolumeReading
from harness.model.verdict import Verdict
from harness.record.mutants import Recorded


@dataclass(frozen=True)
class Measurement:
    """What the guests of one kernel show of one fact on one kind of storage.

    ``expected`` is what the table of facts says; ``shown`` are the values that every item allows which tells them apart at all
    (None: there is no such item); ``items`` are those items.
    """

    fact: str
    storage: str
    release: str
    expected: Value
    shown: tuple[Value, ...] | None
    items: tuple[str, ...]

    @property
    def differs(self) -> bool:
        return self.shown is not None and self.expected not in self.shown


def measure(runs: Iterable[Recorded]) -> list[Measurement]:
    """Return what ``runs`` show, sorted by fact, storage and release.

    Only runs on a single volume count: the value of a fact is tried on all volumes of a run at once.
    """
    found: dict[tuple[str, str, str], tuple[Value, list[tuple[str, frozenset[Value]]]]] = {}
    for run in runs:
        if len(run.reading.volumes) != 1:
            continue
        volume = run.reading.volumes[0]
        env = Env(run.reading)
        judge(env, run.program, run.observations)
        for name in env.asked:
            key = (name, volume.storage, run.reading.kernel_release)
            _, tried = found.setdefault(key, (Env(run.reading).fact(name, volume.role), []))
            tried.append((run.item, _allowed(run, name)))
    return [_measurement(key, expected, tried) for key, (expected, tried) in sorted(found.items())]


#: What is said of a volume in the place of its file system, where it has none.
_BARE = ("node", "device")


def reading_of(storage: str) -> VolumeReading:
    """Return a volume whose ``storage`` is this. Raises ValueError for words that it never says."""
    kind, _, medium = storage.partition(" on ")
    filesystem, *words = kind.split(" ")
    format_ = next((Format(word) for word in words if word in set(Format)), Format.STANDARD)
    medium, _, through = medium.partition(" through ")
    layer = next((known for known in Layer if known == through), Layer.NONE)
    waits = medium.startswith(f"{ASYNCHRONOUS} ")
    device, _, word = medium.removeprefix(f"{ASYNCHRONOUS} ").partition(" ")
    fitting = (mode for mode in NamespaceMode if word == ("" if mode.traits.queue_dax else mode))
    mode = None if device == "disk" else next(fitting, None)
    volume = VolumeReading(
        role=MAIN,
        device="",
        root="",
        filesystem=None if filesystem in _BARE else filesystem,
        mount_options=(),
        dax="dax" in words,
        queue_dax=mode is not None and mode.traits.queue_dax and layer.traits.queue_dax,
        # Where a namespace brings a size of its own it is 4 KiB (ndctl create-namespace); else as on a disk.
        logical_block_bytes=4096 if mode is not None and mode.traits.sets_sector_size else 512,
        filesystem_block_bytes=None if filesystem in _BARE else format_.traits.block_bytes,
        size_bytes=0,
        region_start=None if mode is None else 0,
        provider=next((kind.traits.provider for kind in RegionKind if not kind.traits.synchronous), None) if waits else None,
        namespace_mode=mode,
        layer=layer,
        format=format_,
    )
    if volume.storage != storage:
        raise ValueError(f"{storage!r} is no kind of storage")
    return volume


def _allowed(run: Recorded, name: str) -> frozenset[Value]:
    """Return the values of fact ``name`` with which ``run`` conforms."""
    return frozenset(
        value
        for value in FACTS[name].values
        if judge(Env(run.reading, {name: value}), run.program, run.observations).verdict is Verdict.CONFORMS
    )


def _measurement(key: tuple[str, str, str], expected: Value, tried: Sequence[tuple[str, frozenset[Value]]]) -> Measurement:
    name, storage, release = key
    values = FACTS[name].values
    # With no value an item deviates for another reason, with every value it does not show the fact.
    telling = [(item, allowed) for item, allowed in tried if allowed and len(allowed) < len(values)]
    shown = None
    if telling:
        common = frozenset(values).intersection(*(allowed for _, allowed in telling))
        shown = tuple(value for value in values if value in common)
    return Measurement(name, storage, release, expected, shown, tuple(item for item, _ in telling))
