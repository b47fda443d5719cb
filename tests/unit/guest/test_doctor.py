"""What the doctor reads of a machine: files and outputs put together as evidence, and what cannot be read as unseen."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from harness.errors import GuestError
from harness.guest.doctor import examine
from harness.guest.looking import Output, look
from harness.guest.ssh import CommandResult
from harness.host.deadline import Deadline
from harness.model.dax.evidence import DeviceKind, Evidence, FileSeen, FilesystemSeen, FolderSeen, Idle, Namespace, Region, Unseen
from harness.model.dax.links import diagnose
from tests.unit.guest.fake_machine import BUS, FILES, ND, FakeMachine

SPACE = Namespace("namespace0.0", "fsdax", Region("region0", "e820"), "/dev/pmem0")


def seen(machine: FakeMachine, path: str | None = "/mnt/a") -> Evidence:
    (found,) = examine(machine, path, Deadline.after(10))
    return found


def test_a_mounted_folder_is_seen_with_all_below_it() -> None:
    found = seen(FakeMachine())
    assert (found.asked, found.release, found.page_bytes, found.fs_dax) == ("/mnt/a", "6.12.1-amd64", 4096, True)
    assert (found.idle, found.namespaces, found.about) == ((), (SPACE,), (SPACE,))
    assert found.device is not None
    assert (found.device.node, found.device.kind, found.device.queue_dax) == ("/dev/pmem0", DeviceKind.WHOLE, True)
    features = frozenset({"has_journal", "extent"})
    options = ("rw", "noatime", "dax=always")
    assert found.filesystem == FilesystemSeen("ext4", 4096, features, "/mnt/a", options, ("/mnt/a",))
    assert found.folder == FolderSeen("/mnt/a", "e")
    assert found.file == FileSeen("/mnt/a/file", "e", True, True)
    assert found.said == ("[    1.0] pmem0: dax of something",)
    assert diagnose(found).has_dax


def test_without_a_path_every_place_with_persistent_memory_is_looked_at() -> None:
    assert [found.asked for found in examine(FakeMachine(), None, Deadline.after(10))] == ["/mnt/a"]
    bare = {"/proc/self/mountinfo": "21 1 254:0 / / rw - ext4 /dev/vda rw"}
    assert [found.asked for found in examine(FakeMachine(bare), None, Deadline.after(10))] == ["/dev/pmem0"]
    empty = FakeMachine(bare, without=(f"{ND}/namespace",))
    assert [found.asked for found in examine(empty, None, Deadline.after(10))] == ["region0"]
    nothing = FakeMachine(bare, without=(f"{ND}/",))
    (found,) = examine(nothing, None, Deadline.after(10))
    assert (found.asked, found.regions, found.device) == ("this machine", (), None)


def test_a_path_is_on_the_latest_mount_that_it_is_below() -> None:
    below = "\n40 21 254:0 / /mnt/a/below rw - ext4 /dev/vda rw\n41 21 259:0 / /mnt/a/below rw - ext4 /dev/pmem0 rw"
    table = f"{FILES['/proc/self/mountinfo']}{below}"
    machine = FakeMachine({"/proc/self/mountinfo": table}, outputs={"path": (0, "regular file\n/mnt/a/below/file"), "kind": (1, "")})
    found = seen(machine, "/mnt/a/below/link")
    assert found.mounted is not None
    assert (found.mounted.folder, found.mounted.mounts, found.folder) == ("/mnt/a/below", ("/mnt/a", "/mnt/a/below"), None)
    assert found.asked == "/mnt/a/below/link"


def test_a_path_on_no_block_device_has_none() -> None:
    found = seen(FakeMachine(outputs={"path": (0, "directory\n/run")}), "/run")
    assert found.device is None
    assert isinstance(found.filesystem, FilesystemSeen)
    assert found.filesystem.type == "tmpfs"


def device(files: Mapping[str, str], folders: Mapping[str, str], real: str) -> Evidence:
    return seen(FakeMachine(files, folders, {"path": (0, f"block special file\n{real}")}), real)


def test_a_partition_has_the_queue_of_the_whole_device() -> None:
    base = "/sys/class/block/pmem0p1"
    files = {f"{base}/dev": "259:1", f"{base}/size": "1000", f"{base}/start": "34", f"{base}/partition": "1"}
    found = device(files, {base: f"{BUS}/region0/namespace0.0/block/pmem0/pmem0p1"}, "/dev/pmem0p1")
    assert found.device is not None
    assert (found.device.kind, found.device.start, found.device.sectors, found.device.queue_dax) == (DeviceKind.PARTITION, 34, 1000, True)
    assert found.about == (SPACE,)
    assert found.file is None


def test_a_mapped_device_is_on_its_slaves() -> None:
    base = "/sys/class/block/dm-0"
    files = {f"{base}/dev": "253:0", f"{base}/size": "1000", f"{base}/dm/name": "two", f"{base}/queue/dax": "0"}
    slaves = {f"{base}/slaves/{name}": "/sys" for name in ("pmem0", "vda")}
    found = device(files, {base: "/sys/devices/virtual/block/dm-0", **slaves}, "/dev/dm-0")
    assert found.device is not None
    assert (found.device.node, [leaf.node for leaf in found.device.bottom]) == ("/dev/mapper/two", ["/dev/pmem0", "/dev/vda"])


def test_a_loop_device_is_on_the_file_system_of_its_file() -> None:
    base = "/sys/class/block/loop0"
    files = {f"{base}/dev": "7:0", f"{base}/size": "1000", f"{base}/loop/backing_file": "/mnt/a/image", f"{base}/queue/dax": "0"}
    found = device(files, {base: "/sys/devices/virtual/block/loop0"}, "/dev/loop0")
    assert found.device is not None
    assert (found.device.kind, found.device.folder, found.about) == (DeviceKind.LOOP, "/mnt/a", (SPACE,))


def test_a_namespace_in_sector_mode_is_found_by_what_claims_it() -> None:
    files = {f"{ND}/namespace0.0/mode": "safe", f"{ND}/namespace0.0/holder": "btt0.1", f"{ND}/namespace0.0/sector_size": "512 [4096]"}
    machine = FakeMachine(files, {f"{ND}/btt0.1/block/pmem0s": "/sys"}, {"path": (0, "block special file\n/dev/pmem0")})
    (space,) = seen(machine, "/dev/pmem0").namespaces
    assert space == Namespace("namespace0.0", "sector", Region("region0", "e820"), "/dev/pmem0s", labelled=True)


def test_a_dax_device_is_its_namespace() -> None:
    files = {f"{ND}/namespace0.0/mode": "dax", f"{ND}/namespace0.0/holder": "dax0.0"}
    machine = FakeMachine(files, {f"{ND}/dax0.0/dax0.0": "/sys"}, {"path": (0, "character special file\n/dev/dax0.0")})
    found = seen(machine, "/dev/dax0.0")
    assert (found.device, [(space.mode, space.node) for space in found.about]) == (None, [("devdax", "/dev/dax0.0")])


@pytest.mark.parametrize(
    ("path", "about", "region"),
    [("/dev/pmem0s", ["namespace0.0"], "region0"), ("/dev/dax0.1", [], "region0"), ("/dev/pmem7", [], None)],
)
def test_a_device_that_is_not_there_is_looked_for_by_its_number(path: str, about: list[str], region: str | None) -> None:
    found = seen(FakeMachine(outputs={"path": (1, f"stat: cannot stat '{path}'")}), path)
    assert [space.name for space in found.about] == about
    assert (found.region and found.region.name) == region


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ((1, "stat: cannot statx '/mnt/b': No such file or directory"), "cannot look at /mnt/b: stat: cannot statx '/mnt/b': No such file"),
        ((1, ""), "cannot look at /mnt/b: exit status 1"),
        ((0, "fifo\n/mnt/b"), "/mnt/b is a fifo: ask for a file, a folder, a mount point or a block device"),
        ((0, "block special file\n/dev/sdz"), "/mnt/b is /dev/sdz, a block device that /sys/class/block does not list"),
    ],
)
def test_what_cannot_be_looked_at_is_an_error(output: tuple[int, str], message: str) -> None:
    with pytest.raises(GuestError, match=message.replace("'", ".")):
        seen(FakeMachine(outputs={"path": output}), "/mnt/b")


def test_a_machine_that_says_nothing_of_itself_is_an_error() -> None:
    with pytest.raises(GuestError, match=r"the machine does not say what it is: release '6\.12\.1-amd64', page ''"):
        seen(FakeMachine(outputs={"page": (1, "")}))


def test_the_size_of_a_page_may_come_from_smaps() -> None:
    assert seen(FakeMachine(outputs={"page": (0, "64 kB")})).page_bytes == 65536


@pytest.mark.parametrize(
    ("said", "fs_dax"),
    [
        ("configuration /proc/config.gz\n", False),
        (" vfs_read\n dax_iomap_rw", True),
        (" vfs_read", False),
        ("grep: /proc/kallsyms: Permission denied", Unseen("neither the kernel's configuration nor its symbols can be read")),
    ],
)
def test_the_option_is_in_the_configuration_or_shows_in_the_symbols(said: str, fs_dax: bool | Unseen) -> None:
    assert seen(FakeMachine(outputs={"config": (0, said)})).fs_dax == fs_dax


@pytest.mark.parametrize(
    ("machine", "idle"),
    [
        (FakeMachine(without=("/sys/bus/nd/drivers", f"{ND}/namespace0.0/block")), [Idle("namespace0.0", "nd_pmem")]),
        (FakeMachine(folders={"/sys/bus/platform/devices/e820_pmem": "/sys"}), [Idle("e820_pmem", "nd_e820")]),
        (FakeMachine(folders={"/sys/bus/acpi/devices/ACPI0012:00": "/sys"}), [Idle("ACPI0012:00", "nfit")]),
        (FakeMachine({"/sys/bus/virtio/devices/virtio3/device": "0x001b"}), [Idle("virtio3", "virtio_pmem")]),
        (FakeMachine({"/sys/bus/virtio/devices/virtio3/device": "0x0002"}), []),
    ],
)
def test_what_no_driver_has_taken_is_idle(machine: FakeMachine, idle: list[Idle]) -> None:
    assert list(seen(machine).idle) == idle


DENIED = "dumpe2fs: Permission denied while trying to open /dev/pmem0"


@pytest.mark.parametrize(
    ("outputs", "unseen"),
    [
        ({"superblock": (1, DENIED)}, [Unseen(f"the superblock: {DENIED}")]),
        ({"own": (127, "sh: lsattr: not found"), "flags": (127, "sh: lsattr: not found")}, [Unseen("lsattr: sh: lsattr: not found")]),
        ({"statx": (127, "sh: xfs_io: not found")}, [Unseen("statx (python3 or xfs_io): sh: xfs_io: not found")]),
        ({"statx": (1, "dax 1\nsync not asked: Operation not permitted")}, [Unseen("mmap: sync not asked: Operation not permitted")]),
        ({"statx": (0, "stat.attributes = 0x200000")}, [Unseen("there is no python3")]),
        ({"log": (1, "dmesg: read kernel buffer failed")}, [Unseen("dmesg: dmesg: read kernel buffer failed")]),
    ],
)
def test_what_needs_a_tool_or_permission_is_unseen_with_the_reason(outputs: dict[str, tuple[int, str]], unseen: list[Unseen]) -> None:
    found = seen(FakeMachine(outputs=outputs))
    assert isinstance(found.filesystem, FilesystemSeen)
    assert found.file is not None
    assert found.folder is not None
    values = [found.filesystem.features, found.folder.flags, found.file.flags, found.file.dax, found.file.map_sync, found.said]
    assert set(unseen) == {value for value in values if isinstance(value, Unseen)}


@pytest.mark.parametrize(
    ("said", "filesystem"),
    [
        ((0, "TYPE=xfs"), "xfs"),
        ((0, "TYPE=ext3"), "ext4"),
        ((0, "PTTYPE=gpt"), "a partition table (gpt)"),
        ((2, ""), None),
        ((2, 'blkid: error: /dev/pmem0: Permission denied\nFSTYPE="xfs" PTTYPE=""'), "xfs"),
        (
            (2, 'blkid: error: /dev/pmem0: Permission denied\nFSTYPE="" PTTYPE=""'),
            Unseen("blkid: blkid: error: /dev/pmem0: Permission denied"),
        ),
        ((127, ""), Unseen("blkid: exit status 127")),
    ],
)
def test_what_is_on_a_device_that_is_not_mounted(said: tuple[int, str], filesystem: str | Unseen | None) -> None:
    table = {"/proc/self/mountinfo": "21 1 254:0 / / rw - ext4 /dev/vda rw"}
    found = seen(FakeMachine(table, outputs={"path": (0, "block special file\n/dev/pmem0"), "type": said}), "/dev/pmem0").filesystem
    assert (found.type if isinstance(found, FilesystemSeen) else found) == filesystem


def test_the_features_of_xfs_are_those_that_it_has() -> None:
    said = "meta-data=/dev/pmem0 isize=512\n         =       reflink=1    bigtime=0\ndata     =            bsize=1024   blocks=98304"
    found = seen(FakeMachine(outputs={"superblock": (0, said), "block": (1, "")})).filesystem
    assert isinstance(found, FilesystemSeen)
    assert (found.block_bytes, found.features) == (1024, frozenset({"reflink"}))


def test_the_scripts_only_read() -> None:
    machine = FakeMachine()
    seen(machine)
    words = set(" ".join(machine.scripts).replace(";", " ").split())
    assert not words & {"sudo", "mount", "mkdir", "rm", "touch", "modprobe", "chattr", "tee", "dd", "mkfs.ext4", "ndctl"}
    assert ">" not in {word for word in words if not word.startswith(("2>", ">/dev/null"))}


class Here:
    """This computer's own sh."""

    def run(self, command: list[str], deadline: Deadline, *, stdin: bytes = b"", check: bool = True) -> CommandResult:
        done = subprocess.run(command, input=stdin, capture_output=True, check=False, timeout=60)
        return CommandResult(" ".join(command), done.returncode, done.stdout.decode(), done.stderr.decode())


def test_a_shell_reads_files_folders_and_commands(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("first\n  second")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    questions = {"yes": "echo out; echo err >&2", "no": "exit 3", "gone": "no-such-program-here"}
    found = look(Here(), [f"{tmp_path}/*", f"{tmp_path}/none*"], questions, Deadline.after(60))  # type: ignore[arg-type]
    assert found.files.text(f"{tmp_path}/one") == "first\n  second"
    assert found.files.folders == {f"{tmp_path}/{name}": f"{tmp_path}/folder" for name in ("folder", "link")}
    assert (found.outputs["yes"].text.split(), found.outputs["yes"].status, found.outputs["no"].status) == (["out", "err"], 0, 3)
    assert found.outputs["gone"].status == 127
    assert "not found" in found.outputs["gone"].why("it")


def test_an_output_that_is_empty_says_its_status() -> None:
    assert Output(4, "\n").why("blkid") == "blkid: exit status 4"


class Broken(Here):
    def run(self, command: list[str], deadline: Deadline, *, stdin: bytes = b"", check: bool = True) -> CommandResult:
        return CommandResult("sh -s", 1, "This account is not available.\n", "")


def test_a_machine_without_a_shell_is_an_error() -> None:
    with pytest.raises(GuestError, match="sh ended with status 1 before it had said everything: it printed nothing"):
        look(Broken(), [], {}, Deadline.after(1))  # type: ignore[arg-type]
