"""The stack as it IS: read from the guest, with the physical frame of a mapping as direct evidence of DAX."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from harness import ops as op
from harness.errors import GuestError, StackMismatchError, first_line
from harness.guest.filesystem import MAKERS, MOUNT_FOLDER, MOUNT_TABLE, MountEntry, Superblocks, parse_mounts
from harness.guest.layers import LAYER_PATTERNS, read_layer
from harness.guest.layout import Layout, PlacedVolume
from harness.guest.link import CommandOutput, GuestFiles
from harness.guest.pmem import DAX_DEVICES, REGION_PATTERNS, PmemRegion, read_regions
from harness.model.formats import Format
from harness.model.layers import Layer
from harness.model.outcome import How, Observation
from harness.model.stack import StackReading, VolumeReading
from harness.ops import Operation, Program, Step

PROBE_FILE = ".harness-probe"
_PAGE = 4096
_RELEASE = "/proc/sys/kernel/osrelease"
TAINT = "/proc/sys/kernel/tainted"
_TAINT_FACT = "kernel taint"
_CPU = "/proc/cpuinfo"
#: Features of the CPU that change what pmem does or how fast.
_CPU_FLAGS = ("clflush", "clflushopt", "clwb", "rdrand", "avx2", "avx512f", "pcommit")


#: What says the versions of the programs that make stacks, and what there is of regions and namespaces.
VERSION_COMMANDS = (
    *(maker.version for maker in MAKERS.values()),
    ("ndctl", "--version"),
    ("ndctl", "list", "--regions", "--namespaces"),
)


def version_facts(outputs: Sequence[CommandOutput]) -> tuple[tuple[str, str], ...]:
    """Return what the VERSION_COMMANDS printed: some programs say their version on one stream, some on the other."""
    *versions, listed = outputs
    lines = [first_line((said.stdout + said.stderr).strip()) or "unknown" for said in versions]
    told = [(f"version of {argv[0]}", line) for argv, line in zip(VERSION_COMMANDS, lines, strict=False)]
    return (*told, ("ndctl list", " ".join(listed.stdout.split())))


def fact_patterns(layout: Layout) -> tuple[str, ...]:
    """What :func:`read_stack` needs to have been read."""
    return (
        *REGION_PATTERNS,
        MOUNT_TABLE,
        _RELEASE,
        TAINT,
        _CPU,
        *_layer_patterns(layout),
        *(f"{v.whole}/queue/{name}" for v in layout.volumes for name in ("dax", "logical_block_size")),
        *(f"{v.block}/{name}" for v in layout.volumes for name in ("size", "ro")),
        *(v.folder for v in layout.mounted),
    )


def _layer_patterns(layout: Layout) -> tuple[str, ...]:
    return LAYER_PATTERNS if any(placed.base is not None for placed in layout.volumes) else ()


def taint_of(reading: StackReading) -> int:
    """Return the kernel's taint flags as they were when the stack was read."""
    return int(dict(reading.facts)[_TAINT_FACT])


def clone_patterns(layout: Layout) -> tuple[str, ...]:
    """What :func:`read_again` needs to have been read."""
    blocks = [path for v in layout.volumes for path in (f"{v.whole}/queue/dax", f"{v.block}/ro")]
    devices = [f"{DAX_DEVICES}/{v.name}/{name}" for v in layout.volumes if v.volume.is_dax_device for name in ("align", "size")]
    return (MOUNT_TABLE, _RELEASE, TAINT, *_layer_patterns(layout), *blocks, *devices)


def clone_program(layout: Layout) -> Program:
    """The probe of a guest that was saved with everything mounted: what it shows of DAX state and frames is this guest's own.

    It leaves page cache only of what it does not remove, a bare node or a prepared file, which is then dropped.
    """
    steps = list(_probe_steps(layout))
    if any((placed.volume.mount is None or placed.is_read_only) and not placed.volume.is_dax_device for placed in _probed(layout)):
        steps.append(op.DropCaches())
    return Program(tuple(map(Step, steps)))


def probe_program(layout: Layout) -> Program:
    """A program whose observations show the DAX state and the physical frame of every volume (see :func:`read_stack`).

    It mounts what set-up is to mount, makes one small file on each that can be written and drops the caches last.
    """
    steps = [*(placed.mounting for placed in layout.mounted), *_probe_steps(layout), op.DropCaches()]
    return Program(tuple(map(Step, steps)))


def _probed(layout: Layout) -> tuple[PlacedVolume, ...]:
    return () if layout.stack.mount_in_program else layout.volumes


def _probe_steps(layout: Layout) -> Iterator[Operation]:
    for placed in _probed(layout):
        role, writable = placed.volume.role, placed.volume.mount is not None and not placed.is_read_only
        name, mapping = f"f_{role}", f"m_{role}"
        # Of a node one load is all, and a read-only one refuses shared mappings that could be written.
        file = _prepared_file(placed) or PROBE_FILE
        yield op.Open(name, f"{role}:{file}", (op.OpenFlag.RDWR, op.OpenFlag.CREAT) if writable else (op.OpenFlag.RDONLY,))
        # A hole maps the shared zero page, so a file needs a byte first.
        if writable:
            yield op.Pwrite(name, 0, _PAGE)
        yield op.Statx(name)
        length = _PAGE if placed.volume.align is None else placed.volume.align.bytes
        yield op.Mmap(mapping, length, name, protection=(op.Protection.READ, *((op.Protection.WRITE,) if writable else ())))
        yield op.Store(mapping, 0, 8) if writable else op.Load(mapping, 0, 8)
        yield op.Pagemap(mapping)
        yield op.Munmap(mapping)
        yield op.Close(name)


def _prepared_file(placed: PlacedVolume) -> str | None:
    """Return the file of a volume that nobody can write to which says whether it has DAX; None of any other volume."""
    mount = placed.volume.mount
    return None if mount is None else next((file.name for file in mount.filesystem.traits.prepared), None)


def read_stack(
    layout: Layout,
    program: Program,
    observations: Sequence[Observation],
    files: GuestFiles,
    superblocks: Superblocks,
    more_facts: Sequence[tuple[str, str]],
) -> StackReading:
    """Put the reading together. Raises GuestError where a step of the probe failed or the guest does not say something."""
    found = _probe_outcomes(program, observations)
    mounts = parse_mounts(_text(files, MOUNT_TABLE))
    regions = read_regions(files)
    volumes = tuple(_read_volume(placed, layout, mounts, regions, files, superblocks, found) for placed in layout.volumes)
    flags = set(re.findall(r"[a-z0-9_]+", (re.search(r"^flags\s*:(.*)$", _text(files, _CPU), re.M) or [""])[0]))
    facts = (
        (_TAINT_FACT, _text(files, TAINT)),
        ("cpu flags", " ".join(flag for flag in _CPU_FLAGS if flag in flags)),
        *more_facts,
    )
    return StackReading(_text(files, _RELEASE), volumes, _PAGE, facts)


def read_again(
    layout: Layout, saved: StackReading, program: Program, observations: Sequence[Observation], files: GuestFiles
) -> StackReading:
    """Return ``saved`` with everything in it that a guest could have lost since: mounts with their options, the DAX state of a file, the
    physical frame of a mapping, the layer, whether the device is read-only, the queue's DAX flag, alignment and size of a dax device,
    release and taint of the kernel. Regions and other sizes are the machine's.

    Raises GuestError where a step of the probe failed or the guest does not say something.
    """
    found = _probe_outcomes(program, observations)
    mounts = parse_mounts(_text(files, MOUNT_TABLE))
    probed = {placed.volume.role for placed in _probed(layout)}
    volumes = []
    for placed, volume in zip(layout.volumes, saved.volumes, strict=True):
        role = placed.volume.role
        mount = _mount_on(placed.folder, mounts)
        volumes.append(
            replace(
                volume,
                device=placed.node if mount is None else mount.device,
                filesystem=mount.filesystem if mount else None,
                mount_options=mount.options if mount else (),
                dax=_is_dax(found.get(f"statx {role}")) if role in probed else volume.dax,
                queue_dax=files.text(f"{placed.whole}/queue/dax") == "1",
                frame_in_region=_is_inside(found.get(f"pagemap {role}"), volume.region_start, volume.region_size_bytes),
                read_only=files.text(f"{placed.block}/ro") == "1",
                layer=_layer_of(placed, files),
                **_of_dax_device(placed, files),
            )
        )
    facts = tuple((name, _text(files, TAINT) if name == _TAINT_FACT else value) for name, value in saved.facts)
    return replace(saved, kernel_release=_text(files, _RELEASE), volumes=tuple(volumes), facts=facts)


def require_same_mounts(saved: StackReading, files: GuestFiles) -> None:
    """Raise StackMismatchError where a restored guest has other mounts than those that it was saved with."""
    mounts = [m for m in parse_mounts(_text(files, MOUNT_TABLE)) if m.folder.startswith(f"{MOUNT_FOLDER}/")]
    found = sorted((m.device, m.folder, m.filesystem, m.options) for m in mounts)
    wanted = sorted((v.device, v.root, v.filesystem, v.mount_options) for v in saved.volumes if v.filesystem is not None)
    if found != wanted:
        raise StackMismatchError(f"the restored guest has other mounts than it was saved with: {found}, not {wanted}")


def require_same(saved: StackReading, now: StackReading) -> None:
    """Raise StackMismatchError with a line for every field in which the reading of a restored guest is not the one it was saved with."""
    pairs: list[tuple[str, object, object]] = [("kernel", saved.kernel_release, now.kernel_release)]
    for was, found in zip(saved.volumes, now.volumes, strict=True):
        pairs += [(f"{was.role}: {name}", value, getattr(found, name)) for name, value in vars(was).items()]
    facts = dict(now.facts)
    pairs += [(name, value, facts.get(name)) for name, value in saved.facts]
    differences = [f"- {name}: saved with {value}, now {found}" for name, value, found in pairs if value != found]
    if differences:
        raise StackMismatchError("\n".join(["the restored guest has another storage stack than it was saved with:", *differences]))


def _probe_outcomes(program: Program, observations: Sequence[Observation]) -> dict[str, Observation]:
    found: dict[str, Observation] = {}
    for step, seen in zip(program.steps, observations, strict=True):
        if seen.how is not How.RETURNED:
            raise GuestError(f"while reading the stack back, {op.describe(step.operation)} gave {seen.describe()}")
        if isinstance(step.operation, op.Statx):
            found[f"statx {step.operation.file.removeprefix('f_')}"] = seen
        if isinstance(step.operation, op.Pagemap):
            found[f"pagemap {step.operation.mapping.removeprefix('m_')}"] = seen
    return found


def _is_inside(pagemap: Observation | None, start: int | None, size_bytes: int | None) -> bool | None:
    """Return whether the first page lies in a region; None where it is not present, or there is no region."""
    if pagemap is None or not pagemap.frames or not pagemap.frames[0] or start is None or size_bytes is None:
        return None
    return start <= pagemap.frames[0] * _PAGE < start + size_bytes


def _mount_on(folder: str, mounts: Sequence[MountEntry]) -> MountEntry | None:
    """Return the last mount on a folder: the one that paths reach."""
    return next((mount for mount in reversed(mounts) if mount.folder == folder), None)


def _is_dax(statx: Observation | None) -> bool:
    return bool(statx is not None and statx.number("dax"))


def _read_volume(
    placed: PlacedVolume,
    layout: Layout,
    mounts: Sequence[MountEntry],
    regions: Sequence[PmemRegion],
    files: GuestFiles,
    superblocks: Superblocks,
    found: Mapping[str, Observation],
) -> VolumeReading:
    role = placed.volume.role
    mount = _mount_on(placed.folder, mounts)
    region = next((r for r in regions if any(n.node == placed.namespace_name for n in r.namespaces)), None)
    namespace = next((n for n in region.namespaces if n.node == placed.namespace_name), None) if region else None
    start, size_bytes = (region.start, region.size_bytes) if region else (None, None)
    block_bytes, features = superblocks.get(placed.node, (files.block_bytes.get(placed.folder) if mount else None, ()))
    own = _of_dax_device(placed, files)
    if not own:
        own = {
            "logical_block_bytes": int(_text(files, f"{placed.whole}/queue/logical_block_size")),
            "size_bytes": int(_text(files, f"{placed.block}/size")) * 512,
        }
    return VolumeReading(
        role=role,
        device=placed.node if mount is None else mount.device,
        root=placed.root(layout.stack.mount_in_program),
        filesystem=mount.filesystem if mount else None,
        mount_options=mount.options if mount else (),
        dax=_is_dax(found.get(f"statx {role}")),
        queue_dax=files.text(f"{placed.whole}/queue/dax") == "1",
        filesystem_block_bytes=block_bytes,
        region_start=start,
        region_size_bytes=size_bytes,
        provider=region.provider if region else None,
        namespace_mode=namespace.mode if namespace else None,
        page_map=namespace.page_map if namespace else None,
        frame_in_region=_is_inside(found.get(f"pagemap {role}"), start, size_bytes),
        read_only=files.text(f"{placed.block}/ro") == "1",
        layer=_layer_of(placed, files),
        half=namespace.half if namespace else None,
        has_labels=region.has_labels if region else None,
        persistence_domain=region.persistence_domain if region else None,
        format=Format.STANDARD if placed.volume.mount is None else placed.volume.mount.format,
        features=features,
        **own,
    )


def _layer_of(placed: PlacedVolume, files: GuestFiles) -> Layer:
    return Layer.NONE if placed.base is None else read_layer(placed.base, placed.name, files)


def _of_dax_device(placed: PlacedVolume, files: GuestFiles) -> dict[str, Any]:
    """Return the fields of a volume's reading that only a dax device has; none for any other volume."""
    if not placed.volume.is_dax_device:
        return {}
    folder = f"{DAX_DEVICES}/{placed.name}"
    align, size = (int(_text(files, f"{folder}/{name}")) for name in ("align", "size"))
    return {"align_bytes": align, "size_bytes": size, "logical_block_bytes": 1}


def _text(files: GuestFiles, path: str) -> str:
    text = files.text(path)
    if text is None:
        raise GuestError(f"the guest does not let {path} be read")
    return text
