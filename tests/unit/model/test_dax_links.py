"""The ten links: a whole chain, each way in which a link breaks with its cure, and what could not be seen."""

from dataclasses import replace

import pytest

from harness.model.dax.cures import Cure
from harness.model.dax.evidence import (
    Device,
    DeviceKind,
    Evidence,
    FileSeen,
    FilesystemSeen,
    FolderSeen,
    Idle,
    Namespace,
    Region,
    Unseen,
)
from harness.model.dax.links import LINKS, Diagnosis, Word, diagnose

E820 = Region("region0", "e820")
VIRTIO = Region("region0", "virtio-pmem")
SPACE = Namespace("namespace0.0", "fsdax", E820, "/dev/pmem0")
PMEM = Device("/dev/pmem0", DeviceKind.WHOLE, 524288, True, namespace=SPACE)
DISK = Device("/dev/vda", DeviceKind.WHOLE, 524288, False)
EXT4 = FilesystemSeen("ext4", 4096, frozenset({"extent"}), "/mnt/a", ("rw", "relatime", "dax=always"), ("/mnt/a",))
XFS = replace(EXT4, type="xfs", features=frozenset({"crc"}))
FILE = FileSeen("/mnt/a/file", "e", True, True)
WHOLE = Evidence("/mnt/a/file", "6.12.1", 4096, True, regions=(E820,), namespaces=(SPACE,), device=PMEM, filesystem=EXT4, file=FILE)
NEVER = replace(EXT4, options=("ro", "noatime", "dax=never"))
INODE = replace(EXT4, options=("rw", "dax=inode"))
PLAIN_FILE = replace(FILE, dax=False, map_sync=False)
UNMOUNTED = replace(EXT4, folder=None, options=(), mounts=())
CLOSED = replace(SPACE, region=replace(E820, read_only=True))


def on(device: Device, **changes: object) -> Evidence:
    return replace(WHOLE, device=device, **changes)  # type: ignore[arg-type]


def space(**changes: object) -> Evidence:
    """A device on a namespace that is otherwise."""
    made = replace(SPACE, **changes)  # type: ignore[arg-type]
    return replace(WHOLE, namespaces=(made,), device=replace(PMEM, node=made.node or "", namespace=made))


def partition(start: int, sectors: int) -> Device:
    return Device("/dev/pmem0p1", DeviceKind.PARTITION, sectors, True, start, below=(PMEM,))


def words(diagnosis: Diagnosis) -> list[str]:
    return [found.word for _, found in diagnosis.findings]


def test_where_all_is_whole_there_is_dax() -> None:
    found = diagnose(WHOLE)
    assert words(found) == ["ok"] * 10
    assert (found.has_dax, found.broken, found.cure) == (True, None, None)


def test_the_links_are_in_the_order_from_the_kernel_up_to_the_mapping() -> None:
    assert [link.name for link in LINKS] == [
        "kernel option",
        "region",
        "namespace mode",
        "block queue",
        "partition",
        "file-system feature",
        "block size",
        "mount option",
        "inode flag",
        "mapping",
    ]
    assert all(link.looks_at for link in LINKS)


def test_the_chain_stops_at_the_first_broken_link() -> None:
    found = diagnose(replace(WHOLE, device=DISK, filesystem=NEVER))
    assert words(found) == ["ok", "broken", *["not reached"] * 8]


REMADE = ("umount /mnt/a", "{making}", "mkfs.ext4 -F -b 4096 /dev/pmem0", "mount -t ext4 -o dax=always /dev/pmem0 /mnt/a")


def remade(making: str) -> tuple[str, ...]:
    return tuple(line.format(making=making) for line in REMADE)


MAPPED = Device("/dev/mapper/two", DeviceKind.MAPPED, 1024, False, below=(PMEM, DISK))
BROKEN: list[tuple[str, Evidence, str, tuple[str, ...]]] = [
    ("kernel option", replace(WHOLE, fs_dax=False), "Linux 6.12.1 is built without CONFIG_FS_DAX", ()),
    (
        "kernel option",
        replace(WHOLE, device=None, regions=(), namespaces=(), idle=(Idle("e820_pmem", "nd_e820"),)),
        "no driver has taken e820_pmem: the module nd_e820 is not loaded",
        ("modprobe nd_e820",),
    ),
    (
        "kernel option",
        replace(WHOLE, device=None, namespace=SPACE, idle=(Idle("namespace1.0", "nd_pmem"), Idle("namespace0.0", "nd_pmem"))),
        "no driver has taken namespace0.0: the module nd_pmem is not loaded",
        ("modprobe nd_pmem",),
    ),
    (
        "region",
        replace(WHOLE, device=DISK, regions=(), namespaces=()),
        "the kernel knows of no region of persistent memory, and /dev/vda is a disk",
        (),
    ),
    ("region", replace(WHOLE, device=None, filesystem=None, regions=()), "the kernel knows of no region of persistent memory", ()),
    ("region", on(DISK), "/mnt/a/file is on /dev/vda, which is no persistent memory; there is: /dev/pmem0", ()),
    (
        "region",
        replace(WHOLE, device=None, filesystem=replace(EXT4, type="tmpfs")),
        "/mnt/a/file is on tmpfs, which is on no block device",
        (),
    ),
    (
        "region",
        on(replace(PMEM, namespace=CLOSED), filesystem=None),
        "region0 is read-only: nothing can be made or written there",
        ("echo 0 > /sys/bus/nd/devices/region0/read_only",),
    ),
    (
        "region",
        on(replace(PMEM, namespace=CLOSED), filesystem=None, release="5.10.3"),
        "region0 is read-only: nothing can be made or written there",
        (
            "echo 0 > /sys/bus/nd/devices/region0/read_only",
            "ndctl disable-namespace namespace0.0",
            "ndctl enable-namespace namespace0.0",
        ),
    ),
    (
        "namespace mode",
        replace(WHOLE, device=None, filesystem=None, file=None, namespaces=(), region=E820),
        "region0 has no namespace",
        ("ndctl create-namespace --region region0 --mode fsdax",),
    ),
    (
        "namespace mode",
        replace(WHOLE, asked="/dev/pmem7", device=None, filesystem=None, file=None),
        "nothing of that name came of a namespace: /dev/pmem7",
        (),
    ),
    (
        "namespace mode",
        space(mode="raw"),
        "namespace0.0 is in the mode raw, in which its pages cannot be mapped",
        remade("ndctl create-namespace --force --reconfig namespace0.0 --mode fsdax --map mem"),
    ),
    (
        "namespace mode",
        space(mode="sector", node="/dev/pmem0s", labelled=True),
        "namespace0.0 is in the mode sector, in which its pages cannot be mapped",
        remade("ndctl create-namespace --force --reconfig namespace0.0 --mode fsdax --map mem --sector-size 512"),
    ),
    (
        "namespace mode",
        replace(WHOLE, device=None, filesystem=None, namespace=replace(SPACE, name="namespace0.1", mode="devdax", node="/dev/dax0.1")),
        "namespace0.1 is in the mode devdax: programs map /dev/dax0.1 itself, no file system can be on it",
        (
            "ndctl create-namespace --force --reconfig namespace0.1 --mode fsdax --map mem",
            "mkfs.ext4 -F -b 4096 /dev/pmem0.1",
            "mkdir -p /mnt/pmem0.1",
            "mount -t ext4 -o dax=always /dev/pmem0.1 /mnt/pmem0.1",
        ),
    ),
    (
        "namespace mode",
        on(replace(partition(8, 8), below=(replace(PMEM, namespace=replace(SPACE, mode="raw")),))),
        "namespace0.0 is in the mode raw, in which its pages cannot be mapped",
        ("ndctl create-namespace --force --reconfig namespace0.0 --mode fsdax --map mem",),
    ),
    (
        "namespace mode",
        replace(WHOLE, device=None, filesystem=None, namespace=replace(SPACE, node=None)),
        "namespace0.0 is not enabled: nothing came of it in /dev",
        ("ndctl enable-namespace namespace0.0",),
    ),
    (
        "block queue",
        on(Device("/dev/loop0", DeviceKind.LOOP, 1024, False, below=(PMEM,), folder="/srv/b")),
        "/dev/loop0 is a loop device, and no loop device has DAX",
        ("umount /mnt/a", "losetup --detach /dev/loop0", "mount --bind /srv/b /mnt/a"),
    ),
    (
        "block queue",
        on(MAPPED),
        "/dev/mapper/two is also on /dev/vda, which has no DAX: so the whole mapping has none",
        remade("dmsetup remove two"),
    ),
    (
        "block queue",
        on(replace(MAPPED, below=(PMEM,))),
        "/dev/mapper/two is a mapping of a kind that hands no DAX on",
        remade("dmsetup remove two"),
    ),
    ("block queue", on(replace(PMEM, queue_dax=False)), "the queue of /dev/pmem0 says that it has no DAX (queue/dax is 0)", ()),
    (
        "partition",
        on(partition(34, 20000)),
        "/dev/pmem0p1 begins at sector 34 and has 20000 sectors: both must be multiples of 8, a page of 4096 bytes",
        (
            "umount /mnt/a",
            'echo "start=4096, size=12288" | sfdisk --quiet --wipe-partitions always -N 1 /dev/pmem0',
            "mkfs.ext4 -F -b 4096 /dev/pmem0p1",
            "mount -t ext4 -o dax=always /dev/pmem0p1 /mnt/a",
        ),
    ),
    (
        "partition",
        on(partition(8, 1001)),
        "/dev/pmem0p1 begins at sector 8 and has 1001 sectors: both must be multiples of 8, a page of 4096 bytes",
        (
            "umount /mnt/a",
            'echo "start=8, size=1000" | sfdisk --quiet --wipe-partitions always -N 1 /dev/pmem0',
            "mkfs.ext4 -F -b 4096 /dev/pmem0p1",
            "mount -t ext4 -o dax=always /dev/pmem0p1 /mnt/a",
        ),
    ),
    ("partition", on(replace(PMEM, sectors=1001)), "/dev/pmem0 begins at sector 0 and has 1001 sectors: both must be", ()),
    (
        "file-system feature",
        replace(WHOLE, filesystem=None, file=None),
        "no file system is on /dev/pmem0",
        ("mkfs.ext4 -F -b 4096 /dev/pmem0", "mkdir -p /mnt/pmem0", "mount -t ext4 -o dax=always /dev/pmem0 /mnt/pmem0"),
    ),
    (
        "file-system feature",
        replace(WHOLE, filesystem=replace(EXT4, type="btrfs")),
        "btrfs has no DAX; ext4, xfs, ext2, erofs have",
        ("umount /mnt/a", "mkfs.ext4 -F -b 4096 /dev/pmem0", "mount -t ext4 -o dax=always /dev/pmem0 /mnt/a"),
    ),
    (
        "file-system feature",
        replace(WHOLE, filesystem=replace(NEVER, features=frozenset({"inline_data"}))),
        "ext4 has the feature inline_data: mount refuses dax=always where files may be kept in inodes",
        (
            "umount /mnt/a",
            "mount -t ext4 -o ro,noatime,dax=inode /dev/pmem0 /mnt/a",
            "chattr +x /mnt/a",
            "chattr +x /mnt/a/file",
        ),
    ),
    (
        "file-system feature",
        replace(WHOLE, release="5.10.9", file=None, filesystem=replace(XFS, options=("dax=never",), features=frozenset({"reflink"}))),
        "xfs has the feature reflink: before Linux 6.0 mount refuses dax=always with reflink",
        ("umount /mnt/a", "mount -t xfs -o dax=inode /dev/pmem0 /mnt/a", "xfs_io -c 'chattr +x' /mnt/a"),
    ),
    (
        "file-system feature",
        on(partition(8, 1000), file=None, filesystem=replace(XFS, options=("dax=never",), features=frozenset({"reflink"}))),
        "xfs has the feature reflink: mount refuses dax=always with reflink on a partition",
        ("umount /mnt/a", "mount -t xfs -o dax=inode /dev/pmem0p1 /mnt/a", "xfs_io -c 'chattr +x' /mnt/a"),
    ),
    (
        "block size",
        replace(WHOLE, filesystem=replace(XFS, block_bytes=1024)),
        "the blocks of xfs have 1024 bytes and not 4096, as a page has",
        ("umount /mnt/a", "mkfs.xfs -f -b size=4096 /dev/pmem0", "mount -t xfs -o dax=always /dev/pmem0 /mnt/a"),
    ),
    (
        "mount option",
        replace(WHOLE, filesystem=NEVER),
        "/mnt/a is mounted with dax=never: no file has DAX",
        ("umount /mnt/a", "mount -t ext4 -o ro,noatime,dax=always /dev/pmem0 /mnt/a"),
    ),
    (
        "mount option",
        replace(WHOLE, filesystem=replace(EXT4, options=("data=journal",), mounts=("/mnt/a", "/mnt/with a gap"))),
        "/mnt/a is mounted with data=journal: all data goes through the journal, and no file has DAX",
        ("umount '/mnt/with a gap'", "umount /mnt/a", "mount -t ext4 -o dax=always /dev/pmem0 /mnt/a"),
    ),
    (
        "mount option",
        replace(WHOLE, release="5.4.1", filesystem=replace(EXT4, options=("rw",))),
        "/mnt/a is mounted with no word of DAX: no file has DAX",
        ("umount /mnt/a", "mount -t ext4 -o dax /dev/pmem0 /mnt/a"),
    ),
    (
        "mount option",
        replace(WHOLE, filesystem=UNMOUNTED, file=None),
        "/dev/pmem0 is not mounted",
        ("mkdir -p /mnt/pmem0", "mount -t ext4 -o dax=always /dev/pmem0 /mnt/pmem0"),
    ),
    (
        "inode flag",
        replace(WHOLE, filesystem=INODE, file=PLAIN_FILE),
        "/mnt/a/file has no flag x: the mount leaves it to each file",
        ("chattr +x /mnt/a/file",),
    ),
    (
        "inode flag",
        replace(WHOLE, filesystem=replace(XFS, options=("rw",)), file=PLAIN_FILE, folder=FolderSeen("/mnt/a", "")),
        "/mnt/a has no flag x: what is made in it has none either",
        ("xfs_io -c 'chattr +x' /mnt/a", "xfs_io -c 'chattr +x' /mnt/a/file"),
    ),
    (
        "inode flag",
        replace(WHOLE, filesystem=INODE, file=replace(PLAIN_FILE, flags="ex")),
        "/mnt/a/file has the flag x, but the kernel goes on as it read its inode before",
        ("sync", "echo 2 > /proc/sys/vm/drop_caches"),
    ),
    (
        "inode flag",
        replace(WHOLE, file=replace(PLAIN_FILE, flags="je")),
        "/mnt/a/file has its data journalled (flag j): such a file has no DAX",
        ("chattr -j /mnt/a/file", "sync", "echo 2 > /proc/sys/vm/drop_caches"),
    ),
    *(
        ("inode flag", replace(WHOLE, file=replace(PLAIN_FILE, flags=letter)), f"/mnt/a/file {what} (flag {letter}): such a file", ())
        for letter, what in [("E", "is encrypted"), ("V", "has verity"), ("N", "is kept in its inode, without a block")]
    ),
    ("mapping", replace(WHOLE, file=PLAIN_FILE), "statx says that /mnt/a/file has no DAX, and every link before is whole", ()),
]


@pytest.mark.parametrize(("link", "evidence", "why", "commands"), BROKEN, ids=[f"{link}: {why[:40]}" for link, _, why, _ in BROKEN])
def test_a_broken_link_is_named_with_its_cure(link: str, evidence: Evidence, why: str, commands: tuple[str, ...]) -> None:
    found = diagnose(evidence)
    assert found.broken is not None, found
    assert (found.broken[0].name, found.has_dax) == (link, False)
    assert why in found.broken[1].seen
    assert found.cure is not None
    assert found.cure.words
    assert found.cure.commands == commands


@pytest.mark.parametrize(
    ("evidence", "destroyed"),
    [
        (space(mode="raw"), "all that is on namespace0.0"),
        (on(MAPPED), "all that is on /dev/mapper/two"),
        (on(partition(34, 20000)), "all that is on /dev/pmem0p1"),
        (replace(WHOLE, filesystem=replace(EXT4, block_bytes=1024)), "all that is on /dev/pmem0"),
        (replace(WHOLE, filesystem=None), ""),
        (replace(WHOLE, filesystem=NEVER), ""),
    ],
)
def test_a_cure_says_what_it_destroys(evidence: Evidence, destroyed: str) -> None:
    assert isinstance(cure := diagnose(evidence).cure, Cure)
    assert cure.destroys == destroyed


UNKNOWN = Unseen("permission denied")
VIRTIOFS = replace(WHOLE, device=None, filesystem=replace(EXT4, type="virtiofs"))


@pytest.mark.parametrize(
    ("link", "evidence", "why"),
    [
        ("kernel option", replace(WHOLE, fs_dax=UNKNOWN), "permission denied"),
        ("region", VIRTIOFS, "/mnt/a/file is on virtiofs, which has DAX from elsewhere"),
        *((link, VIRTIOFS, "/mnt/a/file is on no block device") for link in ("namespace mode", "block queue", "partition")),
        ("block queue", on(replace(PMEM, queue_dax=UNKNOWN)), "permission denied"),
        ("file-system feature", replace(WHOLE, filesystem=UNKNOWN, file=None), "permission denied"),
        ("file-system feature", replace(WHOLE, filesystem=replace(UNMOUNTED, features=UNKNOWN)), "permission denied"),
        ("file-system feature", replace(WHOLE, filesystem=replace(EXT4, type="virtiofs")), "what virtiofs asks for is not known here"),
        ("block size", replace(WHOLE, filesystem=replace(EXT4, block_bytes=UNKNOWN)), "permission denied"),
        ("inode flag", replace(WHOLE, filesystem=INODE, file=replace(PLAIN_FILE, flags=UNKNOWN)), "permission denied"),
        ("inode flag", replace(WHOLE, filesystem=INODE, file=None), "/mnt/a/file is neither a file nor a folder"),
        ("mapping", replace(WHOLE, file=None), "no file of /mnt/a/file to look at: make one, and ask for that"),
        ("mapping", replace(WHOLE, file=replace(FILE, dax=UNKNOWN)), "permission denied"),
        (
            "mapping",
            replace(WHOLE, release="5.4.1", filesystem=replace(EXT4, options=("dax",))),
            "Linux 5.4.1 does not say of a file whether it has DAX (since 5.8)",
        ),
    ],
)
def test_what_could_not_be_seen_is_unknown_and_never_well(link: str, evidence: Evidence, why: str) -> None:
    found = {one.name: finding for one, finding in diagnose(evidence).findings}[link]
    assert (found.word, found.seen) == (Word.UNKNOWN, why)


def test_a_file_that_is_seen_to_have_dax_is_well_whatever_else_is_unknown() -> None:
    assert diagnose(replace(WHOLE, fs_dax=UNKNOWN)).has_dax is True
    assert diagnose(VIRTIOFS).has_dax is True
    assert diagnose(replace(WHOLE, file=None)).has_dax is None


EXT2 = replace(EXT4, type="ext2", features=frozenset[str](), options=("rw", "noatime", "dax"))


@pytest.mark.parametrize(
    ("evidence", "why", "commands"),
    [
        (space(region=VIRTIO), "region0 of virtio-pmem is durable only when its host has been asked", ()),
        (
            replace(WHOLE, filesystem=EXT2),
            "ext2 does not offer it",
            ("umount /mnt/a", "mount -t ext4 -o noatime,dax=always /dev/pmem0 /mnt/a"),
        ),
        (WHOLE, "the device does not offer it", ()),
    ],
)
def test_dax_without_map_sync_is_there_in_part(evidence: Evidence, why: str, commands: tuple[str, ...]) -> None:
    found = diagnose(replace(evidence, file=replace(FILE, map_sync=False)))
    assert (found.has_dax, found.findings[-1][1].word) == (True, Word.PARTLY)
    assert found.findings[-1][1].seen == f"statx says that /mnt/a/file has DAX, but MAP_SYNC is refused: {why}"
    assert found.cure is not None
    assert found.cure.commands == commands
    assert "call fsync or msync after storing" in found.cure.words


EROFS = replace(EXT4, type="erofs", features=UNKNOWN, options=("ro", "relatime", "dax=always"))


def test_erofs_is_whole_without_a_superblock_that_is_read_and_without_map_sync() -> None:
    found = diagnose(replace(WHOLE, filesystem=EROFS, file=replace(FILE, map_sync=False, flags=UNKNOWN)))
    assert words(found) == ["ok"] * 10
    assert found.findings[-1][1].seen == "statx says that /mnt/a/file has DAX; MAP_SYNC is refused, where nothing is written anyway"


@pytest.mark.parametrize(
    ("evidence", "link", "why", "commands"),
    [
        (
            replace(WHOLE, filesystem=replace(EROFS, options=("ro", "relatime"))),
            "mount option",
            "/mnt/a is mounted with no word of DAX: no file has DAX",
            ("umount /mnt/a", "mount -t erofs -o ro,dax /dev/pmem0 /mnt/a"),
        ),
        (replace(WHOLE, filesystem=EROFS, release="5.10.3"), "mount option", "Linux 5.10.3 has no DAX for erofs (since 5.15)", ()),
        (
            replace(WHOLE, filesystem=EROFS, file=PLAIN_FILE),
            "mapping",
            "statx says that /mnt/a/file has no DAX: it is compressed, or its end lies beside its inode",
            (
                "cp -a /mnt/a /var/tmp/pmem0",
                "umount /mnt/a",
                "mkfs.erofs -E noinline_data /dev/pmem0 /var/tmp/pmem0",
                "mount -t erofs -o ro,dax /dev/pmem0 /mnt/a",
                "rm -r /var/tmp/pmem0",
            ),
        ),
        (
            replace(space(mode="raw"), filesystem=EROFS),
            "namespace mode",
            "namespace0.0 is in the mode raw, in which its pages cannot be mapped",
            remade("ndctl create-namespace --force --reconfig namespace0.0 --mode fsdax --map mem"),
        ),
    ],
)
def test_erofs_has_conditions_of_its_own(evidence: Evidence, link: str, why: str, commands: tuple[str, ...]) -> None:
    found = diagnose(evidence)
    assert found.broken is not None
    assert (found.broken[0].name, found.broken[1].seen) == (link, why)
    assert found.cure is not None
    assert found.cure.commands == commands


def test_a_mapping_that_was_not_tried_is_said_to_be_that() -> None:
    found = diagnose(replace(WHOLE, file=replace(FILE, map_sync=UNKNOWN)))
    assert found.has_dax
    assert found.findings[-1][1].seen == "statx says that /mnt/a/file has DAX; MAP_SYNC was not tried: permission denied"


@pytest.mark.parametrize(
    ("evidence", "link", "seen"),
    [
        (on(partition(4096, 8192)), "partition", "/dev/pmem0p1 begins at sector 4096, on a page"),
        (replace(WHOLE, filesystem=replace(EXT4, options=("rw",))), "mount option", "with no word of DAX, which means dax=inode"),
        (on(replace(PMEM, namespace=CLOSED)), "region", "region0 of e820, read-only"),
        (replace(WHOLE, filesystem=INODE, file=replace(FILE, flags="x")), "inode flag", "/mnt/a/file: flag x is set"),
        (replace(WHOLE, filesystem=EXT2), "file-system feature", "ext2 has no feature that is in the way"),
        (
            on(PMEM, filesystem=replace(NEVER, features=frozenset({"extent"}))),
            "file-system feature",
            "ext4 without inline_data, or with what this kernel takes",
        ),
    ],
)
def test_a_whole_link_says_what_was_seen(evidence: Evidence, link: str, seen: str) -> None:
    found = {one.name: finding for one, finding in diagnose(evidence).findings}[link]
    assert found.word is Word.OK
    assert seen in found.seen
