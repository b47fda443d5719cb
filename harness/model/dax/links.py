"""The ten links that DAX hangs on, in their order, and the diagnosis: the first that is broken, and what mends it.

Each link is a function over the evidence. What could not be looked at is unknown, and what is behind a broken link is not reached.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from harness.model.dax import cures
from harness.model.dax.cures import Cure
from harness.model.dax.evidence import Device, DeviceKind, Evidence, FileSeen, FilesystemSeen, FolderSeen, Namespace, Unseen
from harness.model.dax.needs import NEEDS, OTHERS, PER_FILE_SINCE, DaxNeeds
from harness.model.kinds import is_dax_device, is_synchronous

_SECTOR = 512


class Word(StrEnum):
    """What is said of a link. PARTLY: there is DAX, and not all that it can give."""

    OK = "ok"
    PARTLY = "partly"
    BROKEN = "broken"
    UNKNOWN = "unknown"
    NOT_REACHED = "not reached"


@dataclass(frozen=True)
class Finding:
    """What is said of a link: a word, what was seen or why it is broken, and the cure."""

    word: Word
    seen: str
    cure: Cure | None = None


@dataclass(frozen=True)
class Link:
    """A link of the chain. ``looks_at``: the evidence that it needs, in words."""

    name: str
    looks_at: str
    find: Callable[[Evidence], Finding]


@dataclass(frozen=True)
class Diagnosis:
    """What is said of each link, for one place."""

    evidence: Evidence
    findings: tuple[tuple[Link, Finding], ...]

    @property
    def broken(self) -> tuple[Link, Finding] | None:
        """The first broken link; None where none is known to be."""
        return next(((link, found) for link, found in self.findings if found.word is Word.BROKEN), None)

    @property
    def has_dax(self) -> bool | None:
        """Whether there is DAX; None where nobody could see it."""
        if self.broken is not None:
            return False
        return True if self.findings[-1][1].word in (Word.OK, Word.PARTLY) else None

    @property
    def cure(self) -> Cure | None:
        """What mends the first broken link, or what helps where DAX is there in part."""
        return self.broken[1].cure if self.broken is not None else self.findings[-1][1].cure


def diagnose(evidence: Evidence) -> Diagnosis:
    """Ask the links in their order, up to the first broken one."""
    return Diagnosis(evidence, tuple(_findings(evidence)))


def _findings(evidence: Evidence) -> Iterator[tuple[Link, Finding]]:
    broken = False
    for link in LINKS:
        found = Finding(Word.NOT_REACHED, "") if broken else link.find(evidence)
        broken = broken or found.word is Word.BROKEN
        yield link, found


def _ok(seen: str) -> Finding:
    return Finding(Word.OK, seen)


def _unknown(seen: Unseen | str) -> Finding:
    return Finding(Word.UNKNOWN, seen.why if isinstance(seen, Unseen) else seen)


def _broken(why: str, cure: Cure) -> Finding:
    return Finding(Word.BROKEN, why, cure)


# ---- the kernel and what it found -------------------------------------------------------------------------------------


def _kernel_option(e: Evidence) -> Finding:
    if e.fs_dax is False:
        return _broken(f"Linux {e.release} is built without CONFIG_FS_DAX", cures.OTHER_KERNEL)
    names = {namespace.name for namespace in e.about}
    for idle in [idle for idle in e.idle if not names or idle.device in names][:1]:
        return _broken(f"no driver has taken {idle.device}: the module {idle.module} is not loaded", cures.load(idle.module))
    if isinstance(e.fs_dax, Unseen):
        return _unknown(e.fs_dax)
    return _ok(f"Linux {e.release} has CONFIG_FS_DAX")


def _region(e: Evidence) -> Finding:
    if e.device is None and isinstance(e.filesystem, FilesystemSeen):
        if e.filesystem.type in OTHERS:
            return _unknown(f"{e.asked} is on {e.filesystem.type}, which has DAX from elsewhere")
        return _broken(f"{e.asked} is on {e.filesystem.type}, which is on no block device", cures.elsewhere(e))
    if not e.regions:
        return _broken(f"the kernel knows of no region of persistent memory{_on(e.device)}", cures.NO_REGION)
    if e.device is not None and not e.about:
        there = ", ".join(sorted(filter(None, (namespace.node for namespace in e.namespaces)))) or "nothing in /dev"
        return _broken(f"{e.asked} is on {_bottom(e.device)}, which is no persistent memory; there is: {there}", cures.elsewhere(e))
    regions = [namespace.region for namespace in e.about] or [e.region or e.regions[0]]
    closed = next((region for region in regions if region.read_only), None)
    if closed is not None and e.mounted is None:
        return _broken(f"{closed.name} is read-only: nothing can be made or written there", cures.open_region(e, closed))
    seen = [f"{region.name} of {region.provider}" + (", read-only" if region.read_only else "") for region in regions]
    return _ok("; ".join(dict.fromkeys(seen)))


def _on(device: Device | None) -> str:
    return "" if device is None else f", and {_bottom(device)} is a disk"


def _bottom(device: Device) -> str:
    return " and ".join(leaf.node for leaf in device.bottom)


def _namespace_mode(e: Evidence) -> Finding:
    if e.device is None and e.filesystem is not None:
        return _unknown(f"{e.asked} is on no block device")
    if not e.about:
        taken = {namespace.region for namespace in e.namespaces}
        free = [region for region in ([e.region] if e.region else e.regions) if region not in taken]
        if not free:
            return _broken(f"nothing of that name came of a namespace: {e.asked}", cures.elsewhere(e))
        return _broken(f"{free[0].name} has no namespace", cures.make_namespace(e, free[0]))
    for namespace in e.about:
        if not namespace.gives_dax:
            return _broken(_why_not(namespace), cures.change_mode(e, namespace))
        if namespace.node is None:
            return _broken(f"{namespace.name} is not enabled: nothing came of it in /dev", cures.enable(namespace))
    return _ok("; ".join(f"{namespace.name} is {namespace.mode}" for namespace in e.about))


def _why_not(namespace: Namespace) -> str:
    said = f"{namespace.name} is in the mode {namespace.mode}"
    if is_dax_device(namespace.mode):
        return f"{said}: programs map {namespace.node or 'its dax device'} itself, no file system can be on it"
    return f"{said}, in which its pages cannot be mapped"


# ---- block devices ----------------------------------------------------------------------------------------------------


def _block_queue(e: Evidence) -> Finding:
    if e.device is None:
        return _unknown(f"{e.asked} is on no block device")
    for device in e.device.chain:
        if device.kind is DeviceKind.LOOP:
            return _broken(f"{device.node} is a loop device, and no loop device has DAX", cures.without_loop(e, device))
        if device.kind is DeviceKind.MAPPED and device.queue_dax is False:
            return _broken(_why_mapped(device), cures.without_mapping(e, device))
    if isinstance(e.device.queue_dax, Unseen):
        return _unknown(e.device.queue_dax)
    if not e.device.queue_dax:
        return _broken(f"the queue of {e.device.node} says that it has no DAX (queue/dax is 0)", cures.SEE_THE_LOG)
    return _ok(f"queue/dax of {e.device.node} is 1")


def _why_mapped(device: Device) -> str:
    others = [leaf.node for leaf in device.bottom if leaf.namespace is None]
    if others:
        return f"{device.node} is also on {' and '.join(others)}, which has no DAX: so the whole mapping has none"
    return f"{device.node} is a mapping of a kind that hands no DAX on"


def _partition(e: Evidence) -> Finding:
    if e.device is None:
        return _unknown(f"{e.asked} is on no block device")
    sectors = e.page_bytes // _SECTOR
    for device in e.device.chain:
        if device.start % sectors or device.sectors % sectors:
            wrong = f"begins at sector {device.start} and has {device.sectors} sectors"
            return _broken(
                f"{device.node} {wrong}: both must be multiples of {sectors}, a page of {e.page_bytes} bytes", cures.align(e, device)
            )
    parts = [f"{d.node} begins at sector {d.start}, on a page" for d in e.device.chain if d.kind is DeviceKind.PARTITION]
    return _ok("; ".join(parts) or f"{e.device.node} is no partition")


# ---- the file system --------------------------------------------------------------------------------------------------


def _with_needs(find: Callable[[Evidence, FilesystemSeen, DaxNeeds], Finding]) -> Callable[[Evidence], Finding]:
    """Have a link ask of a file system that it knows; where there is none to ask of, it says so."""

    def asked(e: Evidence) -> Finding:
        if isinstance(e.filesystem, Unseen):
            return _unknown(e.filesystem)
        if e.filesystem is None:
            return _unknown("no file system is there")
        if e.filesystem.type in OTHERS:
            return _unknown(f"what {e.filesystem.type} asks for is not known here")
        return find(e, e.filesystem, NEEDS[e.filesystem.type])

    return asked


def _feature(e: Evidence) -> Finding:
    fs = e.filesystem
    if fs is None:
        return _broken(f"no file system is on {_node(e)}", cures.make_filesystem(e))
    if isinstance(fs, FilesystemSeen) and fs.type not in NEEDS and fs.type not in OTHERS:
        return _broken(f"{fs.type} has no DAX; {', '.join(NEEDS)} have", cures.make_filesystem(e))
    return _with_needs(_features)(e)


def _features(e: Evidence, fs: FilesystemSeen, needs: DaxNeeds) -> Finding:
    if not needs.conflicts:
        return _ok(f"{fs.type} has no feature that is in the way")
    if fs.folder is not None and needs.mode(fs.options, e.version) != "never":
        return _ok(f"{fs.type}, and it was mounted so that it can have DAX")
    if isinstance(fs.features, Unseen):
        return _unknown(fs.features)
    partition = e.device is not None and e.device.kind is DeviceKind.PARTITION
    for conflict in needs.conflicts:
        if conflict.feature in fs.features and conflict.applies(e.version, partition):
            return _broken(f"{fs.type} has the feature {conflict.feature}: {conflict.why}", cures.by_file(e, fs, needs))
    return _ok(
        f"{fs.type} without {' or '.join(dict.fromkeys(conflict.feature for conflict in needs.conflicts))}, or with what this kernel takes"
    )


def _block_size(e: Evidence, fs: FilesystemSeen, needs: DaxNeeds) -> Finding:
    if isinstance(fs.block_bytes, Unseen):
        return _unknown(fs.block_bytes)
    if fs.block_bytes != e.page_bytes:
        return _broken(
            f"the blocks of {fs.type} have {fs.block_bytes} bytes and not {e.page_bytes}, as a page has", cures.make_filesystem(e)
        )
    return _ok(f"{fs.block_bytes} bytes, a page")


def _mount_option(e: Evidence, fs: FilesystemSeen, needs: DaxNeeds) -> Finding:
    if fs.folder is None:
        return _broken(f"{_node(e)} is not mounted", cures.mount(e, fs))
    for option, why in needs.option_conflicts:
        if option in fs.options:
            return _broken(f"{fs.folder} is mounted with {option}: {why}, and no file has DAX", cures.mount(e, fs))
    if e.version < needs.traits.dax_words_since:
        since = ".".join(map(str, needs.traits.dax_words_since))
        return _broken(f"Linux {e.release} has no DAX for {fs.type} (since {since})", cures.newer_kernel(since))
    mode = needs.mode(fs.options, e.version)
    said = next((option for option in fs.options if option.startswith("dax")), "no word of DAX")
    if mode == "never":
        return _broken(f"{fs.folder} is mounted with {said}: no file has DAX", cures.mount(e, fs))
    return _ok(f"{fs.folder} is mounted with {said}" + (f", which means dax={mode}" if mode not in said else ""))


# ---- the file ---------------------------------------------------------------------------------------------------------

#: Letters of lsattr, each a property with which a file has no DAX (fs/ext4/inode.c ext4_should_enable_dax).
_IN_THE_WAY = {
    "E": "is encrypted",
    "V": "has verity",
    "N": "is kept in its inode, without a block",
    "j": "has its data journalled",
}


def _inode_flag(e: Evidence, fs: FilesystemSeen, needs: DaxNeeds) -> Finding:
    by_flag = needs.mode(fs.options, e.version) == "inode"
    asked = [seen for seen in (e.folder, e.file) if seen is not None]
    for seen in asked:
        found = _flag_of(e, seen, needs, by_flag)
        if found is not None:
            return found
    if not by_flag:
        return _ok("no flag is asked for: the mount decides")
    paths = [seen.path for seen in asked]
    return _ok(f"{' and '.join(paths)}: flag x is set") if paths else _unknown(f"{e.asked} is neither a file nor a folder")


def _flag_of(e: Evidence, seen: FileSeen | FolderSeen, needs: DaxNeeds, by_flag: bool) -> Finding | None:
    """Return what is wrong with the flags of a file or folder; None: nothing."""
    if isinstance(seen.flags, Unseen):
        return _unknown(seen.flags) if by_flag else None
    if isinstance(seen, FileSeen):
        if seen.dax is True:
            return None
        for letter, what in _IN_THE_WAY.items():
            if letter in seen.flags:
                return _broken(f"{seen.path} {what} (flag {letter}): such a file has no DAX", cures.of_file(seen.path, letter))
    if not by_flag:
        return None
    if "x" not in seen.flags:
        whose = "what is made in it has none either" if isinstance(seen, FolderSeen) else "the mount leaves it to each file"
        return _broken(f"{seen.path} has no flag x: {whose}", cures.set_flag(e, needs))
    if isinstance(seen, FileSeen) and seen.dax is False:
        return _broken(f"{seen.path} has the flag x, but the kernel goes on as it read its inode before", cures.read_again(seen.path))
    return None


def _mapping(e: Evidence) -> Finding:
    if e.file is None:
        return _unknown(f"no file of {e.asked} to look at: make one, and ask for that")
    if e.version < PER_FILE_SINCE:
        return _unknown(f"Linux {e.release} does not say of a file whether it has DAX (since 5.8)")
    if isinstance(e.file.dax, Unseen):
        return _unknown(e.file.dax)
    needs = NEEDS.get(e.filesystem.type) if isinstance(e.filesystem, FilesystemSeen) else None
    if not e.file.dax and needs is not None and needs.packs:
        return _broken(f"statx says that {e.file.path} has no DAX: {needs.packs}", cures.make_image(e, needs))
    if not e.file.dax:
        return _broken(f"statx says that {e.file.path} has no DAX, and every link before is whole", cures.SEE_THE_LOG)
    said = f"statx says that {e.file.path} has DAX"
    if isinstance(e.file.map_sync, Unseen):
        return _ok(f"{said}; MAP_SYNC was not tried: {e.file.map_sync.why}")
    if e.file.map_sync:
        return _ok(f"{said}, and it is mapped with MAP_SYNC")
    if needs is not None and needs.traits.is_read_only:
        return _ok(f"{said}; MAP_SYNC is refused, where nothing is written anyway")
    return Finding(Word.PARTLY, f"{said}, but MAP_SYNC is refused: {_why_not_synchronous(e)}", cures.flush(e))


def _why_not_synchronous(e: Evidence) -> str:
    waiting = [space.region for space in e.about if not is_synchronous(space.region.provider)]
    if waiting:
        return f"{waiting[0].name} of {waiting[0].provider} is durable only when its host has been asked"
    if isinstance(e.filesystem, FilesystemSeen) and e.filesystem.type in NEEDS and not NEEDS[e.filesystem.type].traits.synchronous_dax:
        return f"{e.filesystem.type} does not offer it"
    return "the device does not offer it"


def _node(e: Evidence) -> str:
    return e.asked if e.device is None else e.device.node


LINKS = (
    Link("kernel option", "the kernel's configuration or its symbols; the drivers of buses", _kernel_option),
    Link("region", "/sys/bus/nd/devices/region*", _region),
    Link("namespace mode", "mode, holder and size of /sys/bus/nd/devices/namespace*", _namespace_mode),
    Link("block queue", "queue/dax, slaves and backing file of the block device", _block_queue),
    Link("partition", "start and size of the partition", _partition),
    Link("file-system feature", "the superblock (dumpe2fs -h, xfs_info)", _feature),
    Link("block size", "the superblock, or stat -f", _with_needs(_block_size)),
    Link("mount option", "/proc/self/mountinfo", _with_needs(_mount_option)),
    Link("inode flag", "lsattr", _with_needs(_inode_flag)),
    Link("mapping", "statx of a file, a mapping of it with MAP_SYNC", _mapping),
)
