"""A session against a scripted guest: what is done in which order, what is read back, and every complaint."""

from collections.abc import Callable
from typing import Any

import pytest

from harness import ops as op
from harness.errors import AgentError, GuestError, StackMismatchError
from harness.guest.facts import probe_program
from harness.guest.link import AgentLink, Endpoint
from harness.guest.pmem import RegionPlacement
from harness.guest.session import GuestSession, SessionState
from harness.model.audit_outcome import Audit, VolumeSeen
from harness.model.filesystems import Filesystem
from harness.model.formats import Format
from harness.model.kinds import Alignment, DaxOption, NamespaceMode, PageMap, RegionKind
from harness.model.stack import Disk, Mount, Namespace, Region, StorageStack, Volume, find_mismatches
from harness.ops import Program, Step
from harness.ops.tag import FOREIGN_WRITER, PREPARED_WRITER
from harness.sizes import MIB
from tests.fakes.leased import make_reading
from tests.unit.guest.fake_link import Answer, FakeStream

ND = "/sys/bus/nd/devices"
START = 512 * MIB
MKFS = {"ext4": ("mkfs.ext4", "-q"), "xfs": ("mkfs.xfs", "-q"), "erofs": ("mkfs.erofs", "--quiet")}
REGION = Region("pmem", RegionKind.E820)
PLACEMENTS = (RegionPlacement("pmem", RegionKind.E820, START, 256 * MIB),)
ALWAYS = Mount(Filesystem.EXT4, DaxOption.ALWAYS)
DAX = StorageStack((Volume("main", Namespace(REGION), ALWAYS),))
EROFS = StorageStack((Volume("main", Namespace(REGION), Mount(Filesystem.EROFS, DaxOption.ALWAYS)),))
ROOT_MOUNT = "22 1 0:20 / / rw - overlay overlay rw\n"
MAIN_MOUNT = "30 22 259:0 / /mnt/main rw,relatime - ext4 /dev/pmem0 rw,dax=always\n"


class FakeGuest:
    """A guest with one e820 region, one disk and perhaps an ivshmem device, as its agent describes it."""

    def __init__(self) -> None:
        self.mounts = ROOT_MOUNT
        self.frame = START // 4096 + 7
        self.outcomes: dict[str, dict[str, Any]] = {}
        self.files: dict[str, str | None] = {
            f"{ND}/ndbus0/provider": "e820",
            f"{ND}/region0/resource": hex(START),
            f"{ND}/region0/size": str(256 * MIB),
            f"{ND}/namespace0.0/mode": "memory",
            f"{ND}/namespace0.0/holder": "",
            f"{ND}/namespace0.0/size": str(256 * MIB),
            "/sys/block/vda/serial": "pmem-root",
            "/sys/block/vdb/serial": "disk",
            "/sys/block/pmem0/queue/dax": "1",
            "/sys/block/pmem0/queue/logical_block_size": "512",
            "/sys/block/pmem0/size": "524288",
            "/sys/block/vdb/queue/logical_block_size": "512",
            "/sys/block/vdb/size": "2048",
            "/proc/filesystems": "nodev\tsysfs\n\text4\n",
            "/proc/sys/kernel/osrelease": "6.12.1",
            "/proc/sys/kernel/tainted": "0",
            "/proc/cpuinfo": "processor : 0\nflags\t\t: fpu clflushopt clwb sse\n",
        }
        self.folders = {
            f"{ND}/region0": "/sys/devices/platform/e820_pmem/ndbus0/region0",
            f"{ND}/namespace0.0/block/pmem0": "/sys/devices/x",
        }
        script: dict[str, Answer] = {"read_files": self._read_files, "commands": self._commands, "run": self._run, "remove_files": {}}
        script |= {"kernel_log": self._log, "inspect": self._inspect, "age": {}, "prepare": {}}
        self.stream = FakeStream(script)
        self.session = GuestSession(AgentLink(self.stream), MKFS, SessionState(Endpoint(1, "t")))
        self.failing: dict[str, str] = {}
        self.superblock = "Filesystem features:      has_journal\nBlock size:               4096\n"
        self.taint: int | None = 0
        self.loadable: tuple[str, ...] = ("xfs",)

    def _read_files(self, request: dict[str, Any]) -> dict[str, Any]:
        return {
            "files": {**self.files, "/proc/self/mountinfo": self.mounts},
            "folders": self.folders,
            "block_bytes": {"/mnt/main": 4096},
        }

    def _commands(self, request: dict[str, Any]) -> dict[str, Any]:
        rows: list[dict[str, Any]] = []
        for command in request["commands"]:
            program, *words = command["argv"]
            failed = program in self.failing
            said = self.superblock if program == "dumpe2fs" else ""
            rows.append(
                {"argv": command["argv"], "status": int(failed), "stdout": said, "stderr": self.failing.get(program, "1.0"), "took_s": 0}
            )
            if failed and not command["may_fail"]:
                break
            if program == "modprobe" and not failed and words[0] in self.loadable:
                self.files["/proc/filesystems"] = f"{self.files['/proc/filesystems']}\t{words[0]}\n"
            if program == "umount":
                self.mounts = ROOT_MOUNT
        return {"results": rows}

    def _run(self, request: dict[str, Any]) -> dict[str, Any]:
        steps = []
        for index, step in enumerate(request["program"]["steps"]):
            scripted = self.outcomes.get(step["call"], {})
            seen: dict[str, Any] = {"step": index, "how": "returned"} | ({} if "errno" in scripted else {"value": 0})
            if step["call"] == "mount":
                self.mounts = ROOT_MOUNT + MAIN_MOUNT
            if step["call"] == "umount":
                self.mounts = ROOT_MOUNT
            if step["call"] == "statx":
                seen["attributes"] = {"dax": 1}
            if step["call"] == "pagemap":
                seen["frames"] = [self.frame]
            key = f"mount {step['args']['options']}" if step["call"] == "mount" else step["call"]
            answer = {**seen, **scripted, **self.outcomes.get(key, {})}
            steps.append({name: value for name, value in answer.items() if name != "value" or answer["how"] == "returned"})
        return {"observations": {"format": 1, "steps": steps}, "taint": self.taint}

    def _inspect(self, request: dict[str, Any]) -> dict[str, Any]:
        return self._run(request) | self._read_files(request)

    def _log(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"lines": [[request["after"], 1_500_000, 4, "hello"]], "next": request["after"] + 1}


@pytest.fixture
def guest() -> FakeGuest:
    return FakeGuest()


def test_the_taint_comes_with_a_run_and_a_guest_that_hides_it_is_an_error(guest: FakeGuest) -> None:
    guest.taint = 512
    guest.session.run(Program(()))
    assert guest.session.taint() == 512
    guest.taint = None
    guest.session.run(Program(()))
    with pytest.raises(GuestError, match="does not let /proc/sys/kernel/tainted be read"):
        guest.session.taint()


def test_evidence_that_an_operation_does_not_show_is_an_agent_error(guest: FakeGuest) -> None:
    guest.outcomes["fsync"] = {"attributes": {"dax": 1}}
    guest.outcomes["statx"] = {"attributes": {"dax": 1, "wchan": "x"}}
    opened = Step(op.Open("f", "a"))
    assert guest.session.run(Program((opened, Step(op.Statx("f")))))[1].number("dax") == 1
    with pytest.raises(AgentError, match="the observation of step 1 has dax, which fsync does not show"):
        guest.session.run(Program((opened, Step(op.Fsync("f")))))


def test_a_dax_stack_is_made_mounted_and_read_back(guest: FakeGuest) -> None:
    guest.session.set_up(DAX, PLACEMENTS)
    reading = guest.session.refresh()
    assert find_mismatches(DAX, reading) == []
    main = reading.volume("main")
    assert (main.device, main.root, main.filesystem_block_bytes, main.size_bytes) == ("/dev/pmem0", "/mnt/main", 4096, 256 * MIB)
    assert (main.region_start, main.frame_in_region, main.page_map) == (START, True, "mem")
    facts = dict(reading.facts)
    assert (reading.kernel_release, facts["kernel taint"], facts["cpu flags"]) == ("6.12.1", "0", "clflushopt clwb")
    assert facts["version of mkfs.ext4"] == "1.0"
    assert ["mkfs.ext4", "-q", "-E", "stride=512,stripe_width=512", "/dev/pmem0"] in guest.stream.commands()
    assert {"paths": ["/mnt/main/.harness-probe"]}.items() <= guest.stream.asked[-1].items()


def test_a_file_system_that_was_not_made_or_mounted_as_asked_is_noticed(guest: FakeGuest) -> None:
    def mismatches(filesystem: Filesystem, format_: Format, *, mount_in_program: bool = False) -> list[str]:
        mount = Mount(filesystem, DaxOption.ALWAYS, format_)
        stack = StorageStack((Volume("main", Namespace(REGION), mount),), mount_in_program)
        guest.session.set_up(stack, PLACEMENTS)
        return find_mismatches(stack, guest.session.refresh())

    assert mismatches(Filesystem.EXT4, Format.BLOCK_1K, mount_in_program=True) == [
        "main: block size of the file system: asked for 1024, the guest has 4096"
    ]
    assert mismatches(Filesystem.EXT4, Format.VERITY) == ["main: feature verity: asked for True, the guest has False"]
    assert mismatches(Filesystem.EXT4, Format.JOURNAL_DATA) == ["main: mount option data=journal: asked for True, the guest has False"]
    guest.superblock = guest.superblock.replace("has_journal", "has_journal verity").replace("4096", "1024")
    assert mismatches(Filesystem.EXT4, Format.VERITY) == ["main: block size of the file system: asked for 4096, the guest has 1024"]
    guest.superblock = ""
    with pytest.raises(GuestError, match="the guest does not say how the ext4 of a volume was made, but: ''"):
        mismatches(Filesystem.EXT4, Format.VERITY)


def test_a_feature_that_was_to_be_left_out_and_is_there_is_noticed() -> None:
    stack = StorageStack((Volume("main", Namespace(REGION), Mount(Filesystem.XFS, DaxOption.ALWAYS, Format.NO_REFLINK)),))
    assert find_mismatches(stack, make_reading(stack)) == []
    assert find_mismatches(stack, make_reading(stack, features=("reflink",))) == [
        "main: feature reflink: asked for False, the guest has True"
    ]


def test_a_region_that_is_as_wanted_needs_no_ndctl(guest: FakeGuest) -> None:
    guest.session.set_up(DAX, PLACEMENTS)
    assert ["ndctl", "create-namespace"] not in [command[:2] for command in guest.stream.commands()]


def test_a_region_that_is_not_as_wanted_is_brought_there(guest: FakeGuest) -> None:
    stack = StorageStack((Volume("main", Namespace(REGION, map=PageMap.DEV), ALWAYS),))
    guest.session.set_up(stack, PLACEMENTS)
    assert ["ndctl", "create-namespace"] in [command[:2] for command in guest.stream.commands()]


UNARMED = Region("pmem", RegionKind.NVDIMM_UNARMED)
CLOSED = (RegionPlacement("pmem", RegionKind.NVDIMM_UNARMED, START, 256 * MIB),)


def test_a_read_only_region_is_opened_for_set_up_alone_and_its_node_only_read(guest: FakeGuest) -> None:
    guest.files[f"{ND}/region0/read_only"] = "1"
    guest.session.set_up(StorageStack((Volume("main", Namespace(UNARMED, map=PageMap.DEV), None),)), CLOSED)
    guest.session.refresh()
    said = [" ".join(command) for command in guest.stream.commands()]
    opened, again, closed = (line for line in said if "read_only" in line)
    assert opened == f"sh -c echo 0 > {ND}/region0/read_only"
    for value, line in enumerate((again, closed)):
        assert f"cd /sys/block/pmem0 && echo {value} > device/../read_only && {{ test $(cat ro) = {value} || {{ driver=" in line


def test_a_region_that_can_be_written_and_should_not_ends_the_set_up(guest: FakeGuest) -> None:
    with pytest.raises(GuestError, match="can be written, and a region of the kind nvdimm_unarmed cannot"):
        guest.session.set_up(StorageStack((Volume("main", Namespace(UNARMED), None),)), CLOSED)


XFS = StorageStack((Volume("main", Namespace(REGION), Mount(Filesystem.XFS, DaxOption.ALWAYS)),))


def test_a_file_system_that_is_a_module_is_loaded(guest: FakeGuest) -> None:
    guest.session.set_up(XFS, PLACEMENTS)
    assert ["modprobe", "xfs"] in guest.stream.commands()


def test_a_file_system_that_is_there_needs_no_modprobe(guest: FakeGuest) -> None:
    guest.files["/proc/filesystems"] = "nodev\tsysfs\n\text4\n\txfs\n"
    guest.session.set_up(XFS, PLACEMENTS)
    assert "modprobe" not in [command[0] for command in guest.stream.commands()]


def test_what_counts_is_what_the_kernel_has_and_not_how_modprobe_ends(guest: FakeGuest) -> None:
    guest.failing["modprobe"] = "modprobe: FATAL: Module xfs not found in directory /lib/modules/6.12.1"
    with pytest.raises(GuestError) as caught:
        guest.session.set_up(XFS, PLACEMENTS)
    assert "no file system xfs (CONFIG_XFS_FS): /proc/filesystems does not list it, and modprobe xfs ended with status 1" in str(
        caught.value
    )
    assert "Module xfs not found in directory" in str(caught.value)
    # Nor does a modprobe that is content bring one.
    guest.failing.clear()
    guest.loadable = ()
    with pytest.raises(GuestError, match=r"no file system xfs .* ended with status 0 and said: 1\.0"):
        guest.session.set_up(XFS, PLACEMENTS)


def test_soft_rdma_is_asked_of_the_kernel_whatever_modprobe_says(guest: FakeGuest) -> None:
    guest.session.set_up(DAX, PLACEMENTS)
    (script,) = [command[2] for command in guest.stream.commands() if command[0] == "sh" and "rdma link add" in command[2]]
    assert "modprobe -q rdma_rxe; rdma link add rxe0" in script


def test_what_the_guest_has_instead_shows_in_the_reading(guest: FakeGuest) -> None:
    guest.frame = 1
    guest.files["/sys/block/pmem0/queue/dax"] = "0"
    guest.session.set_up(DAX, PLACEMENTS)
    assert find_mismatches(DAX, guest.session.refresh()) == [
        "main: queue/dax: asked for True, the guest has False",
        "main: physical frame of a mapping inside the region: asked for True, the guest has False",
    ]


def test_a_mount_of_an_earlier_case_goes_before_anything_is_made(guest: FakeGuest) -> None:
    guest.session.set_up(DAX, PLACEMENTS)
    guest.session.refresh()
    guest.stream.asked.clear()
    guest.session.refresh()
    programs = [command[0] for command in guest.stream.commands()]
    assert programs.index("umount") < programs.index("wipefs") < programs.index("mkfs.ext4")


def test_nothing_is_made_on_what_cannot_be_unmounted(guest: FakeGuest) -> None:
    guest.session.set_up(DAX, PLACEMENTS)
    guest.session.refresh()
    guest.stream.asked.clear()
    guest.failing["umount"] = "umount: /mnt/main: target is busy."
    with pytest.raises(GuestError, match="from: umount /mnt/main\numount: /mnt/main: target is busy"):
        guest.session.refresh()
    assert [command[0] for command in guest.stream.commands()] == ["umount"]


def test_a_mount_that_is_refused_is_a_guest_error_with_its_errno(guest: FakeGuest) -> None:
    guest.outcomes["mount dax=always"] = {"how": "failed", "errno": "EINVAL"}
    guest.session.set_up(DAX, PLACEMENTS)
    with pytest.raises(GuestError, match=r"while reading the stack back, mount\(options=dax=always\) gave EINVAL"):
        guest.session.refresh()


def test_a_fresh_file_system_is_aged_under_mounts_of_their_own_before_the_one_that_the_stack_asks_for(guest: FakeGuest) -> None:
    guest.session.set_up(DAX, PLACEMENTS)
    guest.stream.asked.clear()
    guest.session.refresh()
    asked = guest.stream.asked
    made = next(at for at, request in enumerate(asked) if "mkfs.ext4" in str(request))
    ours = [request for request in asked[made:] if request["do"] in ("run", "age")]
    assert [request["do"] for request in ours] == [*["run", "age", "run"] * 2, "run"]
    for mount, age, umount in (ours[:3], ours[3:6]):
        assert [(s["call"], s["args"]["options"]) for s in mount["program"]["steps"]] == [("mount", "")]
        assert age["writer"] == FOREIGN_WRITER
        assert {path.rpartition("/")[0] for path, _, _ in age["files"]} == {"/mnt/main"}
        assert [s["call"] for s in umount["program"]["steps"]] == ["umount"]
    assert sum(length for age in (ours[1], ours[4]) for _, length, _ in age["files"]) == 11.75 * MIB
    assert ours[-1]["program"]["steps"][-1]["call"] == "drop_caches"


def test_a_file_system_that_only_the_program_mounts_is_aged_too_and_a_bare_node_is_not(guest: FakeGuest) -> None:
    for stack, aged in (
        (StorageStack((Volume("main", Namespace(REGION), ALWAYS),), mount_in_program=True), True),
        (StorageStack((Volume("main", Namespace(REGION), None),)), False),
    ):
        guest.stream.asked.clear()
        guest.session.set_up(stack, PLACEMENTS)
        guest.session.refresh()
        assert ("age" in [request["do"] for request in guest.stream.asked]) is aged
        assert guest.mounts == ROOT_MOUNT


@pytest.mark.parametrize(("call", "said"), [("mount ", "mount"), ("umount", "umount")])
def test_a_volume_that_cannot_be_aged_is_a_guest_error(guest: FakeGuest, call: str, said: str) -> None:
    guest.outcomes[call] = {"how": "failed", "errno": "EIO"}
    guest.session.set_up(DAX, PLACEMENTS)
    with pytest.raises(GuestError, match=rf"while ageing a volume, {said}\(\) gave EIO"):
        guest.session.refresh()


def test_a_file_system_that_nobody_can_write_to_is_made_of_files_and_mounted_to_read(guest: FakeGuest) -> None:
    guest.loadable = ("erofs",)
    guest.session.set_up(EROFS, PLACEMENTS)
    guest.stream.asked.clear()
    guest.session.refresh()
    asked = [request["do"] for request in guest.stream.asked]
    assert "age" not in asked
    prepare = guest.stream.asked[asked.index("prepare")]
    assert prepare["writer"] == PREPARED_WRITER
    assert [path.rpartition("/")[2] for path, _, _ in prepare["files"]] == ["page", "plain", "tail", "empty"]
    (folder,) = {path.rpartition("/")[0] for path, _, _ in prepare["files"]}
    made = ["mkfs.erofs", "--quiet", "--dsunit", "512", "/dev/pmem0", folder]
    commands = guest.stream.commands()
    assert commands.index(made) < commands.index(["rm", "-r", folder])
    probe = next(request["program"]["steps"] for request in guest.stream.asked if request["do"] == "run")
    assert [step["call"] for step in probe] == ["mount", "open", "statx", "mmap", "load", "pagemap", "munmap", "close", "drop_caches"]
    assert (probe[0]["args"]["options"], probe[1]["args"]["path"]) == ("ro,dax=always", "main:page")
    assert "remove_files" not in asked


def test_of_a_prepared_file_a_clone_reads_one_page_and_drops_it_again(guest: FakeGuest) -> None:
    guest.loadable = ("erofs",)
    guest.session.set_up(EROFS, PLACEMENTS)
    reading = guest.session.refresh()
    guest.stream.asked.clear()
    guest.session.read_clone(reading)
    (asked,) = guest.stream.asked
    assert [step["call"] for step in asked["program"]["steps"]][-2:] == ["close", "drop_caches"]
    assert asked["remove"] == []


def test_an_audit_says_how_each_volume_is_mounted_again_and_checked(guest: FakeGuest) -> None:
    asked: list[dict[str, Any]] = []
    guest.stream.script["audit"] = lambda request: asked.append(request) or {"volumes": [{"role": "main"}], "took_s": 0.5}  # type: ignore[func-returns-value]
    guest.session.set_up(DAX, PLACEMENTS)
    assert guest.session.audit(Program(()), check=True) == Audit((VolumeSeen("main"),), "", 0.5)
    (volume,) = asked[0]["volumes"]
    assert (volume["folder"], volume["device"], volume["filesystem"], volume["options"]) == (
        "/mnt/main",
        "/dev/pmem0",
        "ext4",
        "dax=always",
    )
    assert volume["check"] == ["e2fsck", "-fn", "/dev/pmem0"]
    guest.session.audit(Program(()), check=False)
    assert "check" not in asked[1]["volumes"][0]
    assert asked[0]["above"] == []


def test_a_stack_that_can_have_an_overlay_has_a_place_for_it_which_an_audit_unmounts_first(guest: FakeGuest) -> None:
    asked: list[dict[str, Any]] = []
    guest.stream.script["audit"] = lambda request: asked.append(request) or {"volumes": [{"role": "main"}], "took_s": 0.5}  # type: ignore[func-returns-value]
    guest.loadable = ("erofs",)
    guest.session.set_up(StorageStack((*EROFS.volumes, Volume("target", Disk(), Mount(Filesystem.EXT4, None)))), PLACEMENTS)
    folder = "/mnt/overlay"
    assert next(command for command in guest.stream.commands() if command[0] == "mkdir")[-1] == folder
    assert guest.session.layout.roots == {"main": "/mnt/main", "target": "/mnt/target", "overlay": folder}
    guest.session.audit(Program(()), check=False)
    assert asked[0]["above"] == [folder]


@pytest.mark.parametrize(
    "stack",
    [EROFS, DAX, StorageStack((*EROFS.volumes, Volume("target", Disk(), Mount(Filesystem.EXT4, None))), mount_in_program=True)],
)
def test_no_other_stack_has_a_place_for_an_overlay(guest: FakeGuest, stack: StorageStack) -> None:
    guest.loadable = ("erofs",)
    guest.session.set_up(stack, PLACEMENTS)
    assert "overlay" not in guest.session.layout.roots


def test_a_volume_that_the_program_unmounts_is_not_audited(guest: FakeGuest) -> None:
    guest.session.set_up(DAX, PLACEMENTS)
    assert guest.session.audit(Program((Step(op.UmountVolume()),)), check=True) is None


def test_an_audit_that_makes_no_sense_is_an_agent_error(guest: FakeGuest) -> None:
    guest.stream.script["audit"] = {"volumes": [{"role": "main", "before": [{"path": "a", "size": "many"}]}], "took_s": 0}
    guest.session.set_up(DAX, PLACEMENTS)
    with pytest.raises(AgentError, match="an audit is malformed"):
        guest.session.audit(Program(()), check=True)


def test_a_bare_node_is_cleared_and_its_paths_are_the_node(guest: FakeGuest) -> None:
    guest.outcomes["statx"] = {"attributes": {"dax": 0}}
    guest.frame = 1
    stack = StorageStack((Volume("main", Namespace(REGION), None),))
    guest.session.set_up(stack, PLACEMENTS)
    reading = guest.session.refresh()
    assert find_mismatches(stack, reading) == []
    assert guest.session.layout.roots == {"main": "/dev/pmem0"}
    assert [command[0] for command in guest.stream.commands()][-2:] == ["blkdiscard", "blockdev"]


@pytest.mark.parametrize(
    ("kind", "mode", "labels", "differs"),
    [
        (RegionKind.NVDIMM, NamespaceMode.RAW, False, False),  # nothing was written into its label area yet
        (RegionKind.NVDIMM, NamespaceMode.FSDAX, False, True),
        (RegionKind.NVDIMM, NamespaceMode.SECTOR, False, True),
        (RegionKind.NVDIMM_UNLABELLED, NamespaceMode.RAW, True, True),
        (RegionKind.NVDIMM_UNLABELLED, NamespaceMode.RAW, False, False),
    ],
)
def test_labels_are_read_back_where_a_namespace_was_made_with_them_or_there_may_be_none(
    kind: RegionKind, mode: NamespaceMode, labels: bool, differs: bool
) -> None:
    stack = StorageStack((Volume("main", Namespace(Region("pmem", kind), mode, None), None),))
    said = find_mismatches(stack, make_reading(stack, has_labels=labels))
    assert [line for line in said if "labels of the region" in line] == (
        [f"main: labels of the region: asked for {not labels}, the guest has {labels}"] if differs else []
    )


def test_a_disk_is_found_by_its_serial(guest: FakeGuest) -> None:
    stack = StorageStack((Volume("main", Namespace(REGION), ALWAYS), Volume("target", Disk("disk"), Mount(Filesystem.EXT4, None))))
    guest.session.set_up(stack, PLACEMENTS)
    assert guest.session.layout.devices == {"main": "/dev/pmem0", "target": "/dev/vdb"}
    assert guest.session.layout.roots == {"main": "/mnt/main", "target": "/mnt/target"}


def test_a_mount_in_the_program_is_left_to_it(guest: FakeGuest) -> None:
    stack = StorageStack((Volume("main", Namespace(REGION), ALWAYS),), mount_in_program=True)
    guest.session.set_up(stack, PLACEMENTS)
    reading = guest.session.refresh()
    assert find_mismatches(stack, reading) == []
    assert reading.volume("main").filesystem is None
    assert guest.session.layout.roots == {"main": "/mnt/main"}
    assert [type(step.operation) for step in probe_program(guest.session.layout).steps] == [op.DropCaches]


def test_a_disk_that_is_not_there_is_a_guest_error_that_lists_the_others(guest: FakeGuest) -> None:
    with pytest.raises(GuestError, match="the guest has no disk with the serial 'spare'; it has: pmem-root, disk"):
        guest.session.set_up(StorageStack((Volume("main", Disk("spare"), None),)), ())


def test_a_region_that_the_machine_does_not_have_is_a_guest_error(guest: FakeGuest) -> None:
    with pytest.raises(GuestError, match="the machine has no region 'pmem'; it has: none"):
        guest.session.set_up(DAX, ())


def test_a_region_of_which_no_device_came_is_a_guest_error(guest: FakeGuest) -> None:
    del guest.folders[f"{ND}/namespace0.0/block/pmem0"]
    with pytest.raises(GuestError, match="no device came of region0 of e820"):
        guest.session.set_up(DAX, PLACEMENTS)


def test_the_bar_is_found_by_vendor_and_device(guest: FakeGuest) -> None:
    folder = "/sys/bus/pci/devices/0000:00:05.0"
    stack = StorageStack(DAX.volumes, ivshmem=True)
    with pytest.raises(GuestError, match="the guest has no ivshmem device"):
        guest.session.set_up(stack, PLACEMENTS)
    guest.files |= {f"{folder}/vendor": "0x1af4\n", f"{folder}/device": "0x1110\n"}
    guest.session.set_up(stack, PLACEMENTS)
    assert guest.session.layout.roots["bar"] == f"{folder}/resource2"


def test_an_answer_that_is_missing_in_sysfs_is_a_guest_error(guest: FakeGuest) -> None:
    guest.session.set_up(DAX, PLACEMENTS)
    guest.files["/sys/block/pmem0/size"] = None
    with pytest.raises(GuestError, match="the guest does not let /sys/block/pmem0/size be read"):
        guest.session.refresh()


def test_observations_of_other_steps_than_asked_for_are_an_agent_error(guest: FakeGuest) -> None:
    guest.outcomes["meminfo"] = {"step": 5}
    with pytest.raises(AgentError, match=r"1 steps were asked for, the agent answered steps \[5\]"):
        guest.session.run(Program((Step(op.Meminfo()),)))


def test_the_kernel_log_is_read(guest: FakeGuest) -> None:
    (line,), following = guest.session.kernel_log(41)
    assert (line.uptime_s, line.level, line.text, following) == (1.5, 4, "hello", 42)


def test_a_session_without_ssh_has_no_shell(guest: FakeGuest) -> None:
    with pytest.raises(GuestError, match="no SSH connection of its own"):
        guest.session.shell()


def test_a_restored_guest_must_have_the_mounts_it_was_saved_with_options_included(guest: FakeGuest) -> None:
    guest.session.set_up(DAX, PLACEMENTS)
    reading = guest.session.refresh()
    assert guest.session.read_clone(reading) == reading
    guest.mounts = guest.mounts.replace("dax=always", "dax=never")
    with pytest.raises(StackMismatchError, match="has other mounts than it was saved with"):
        guest.session.read_clone(reading)
    guest.mounts = ROOT_MOUNT
    with pytest.raises(StackMismatchError, match=r"it was saved with: \[\], not"):
        guest.session.read_clone(reading)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda guest: guest.outcomes.update(statx={"attributes": {"dax": 0}}), "- main: dax: saved with True, now False"),
        (lambda guest: setattr(guest, "frame", 1), "- main: frame_in_region: saved with True, now False"),
        (lambda guest: guest.files.update({"/sys/block/pmem0/queue/dax": "0"}), "- main: queue_dax: saved with True, now False"),
        (lambda guest: guest.files.update({"/proc/sys/kernel/tainted": "512"}), "- kernel taint: saved with 0, now 512"),
        (lambda guest: guest.files.update({"/proc/sys/kernel/osrelease": "6.12.2"}), "- kernel: saved with 6.12.1, now 6.12.2"),
    ],
    ids=["dax", "frame", "queue", "taint", "release"],
)
def test_a_clone_whose_stack_is_not_its_templates_is_refused(guest: FakeGuest, change: Callable[[FakeGuest], None], said: str) -> None:
    guest.session.set_up(DAX, PLACEMENTS)
    reading = guest.session.refresh()
    change(guest)
    with pytest.raises(StackMismatchError) as caught:
        guest.session.read_clone(reading)
    assert str(caught.value) == f"the restored guest has another storage stack than it was saved with:\n{said}"


def test_reading_a_clone_makes_a_file_of_its_own_and_leaves_none(guest: FakeGuest) -> None:
    guest.session.set_up(DAX, PLACEMENTS)
    reading = guest.session.refresh()
    guest.stream.asked.clear()
    guest.session.read_clone(reading)
    (asked,) = guest.stream.asked
    calls = [step["call"] for step in asked["program"]["steps"]]
    assert calls == ["open", "pwrite", "statx", "mmap", "store", "pagemap", "munmap", "close"]
    assert (asked["do"], asked["remove"]) == ("inspect", ["/mnt/main/.harness-probe"])


def test_of_a_bare_node_a_clone_reads_one_page_and_drops_it_again(guest: FakeGuest) -> None:
    guest.outcomes["statx"] = {"attributes": {"dax": 0}}
    guest.frame = 1
    guest.session.set_up(StorageStack((Volume("main", Namespace(REGION), None),)), PLACEMENTS)
    reading = guest.session.refresh()
    guest.stream.asked.clear()
    assert guest.session.read_clone(reading) == reading
    calls = [step["call"] for step in guest.stream.asked[0]["program"]["steps"]]
    assert calls == ["open", "statx", "mmap", "load", "pagemap", "munmap", "close", "drop_caches"]
    assert [(request["do"], request["remove"]) for request in guest.stream.asked] == [("inspect", [])]


DEVICE = "/sys/bus/dax/devices/dax0.0"
DEVDAX = StorageStack((Volume("main", Namespace(REGION, NamespaceMode.DEVDAX, PageMap.MEM, Alignment.HUGE), None),))


@pytest.fixture
def device(guest: FakeGuest) -> FakeGuest:
    """A guest whose region is a dax device in units of 2 MiB."""
    guest.files |= {f"{ND}/namespace0.0/mode": "dax", f"{ND}/namespace0.0/holder": "dax0.0", f"{ND}/dax0.0/mode": "ram"}
    guest.files |= {f"{DEVICE}/align": "2097152", f"{DEVICE}/size": str(254 * MIB)}
    guest.folders = {f"{ND}/region0": guest.folders[f"{ND}/region0"], f"{ND}/dax0.0/dax0.0": "/sys/devices/x"}
    guest.stream.script["clear"] = {}
    return guest


def test_a_dax_device_is_cleared_by_the_agent_and_read_back(device: FakeGuest) -> None:
    device.session.set_up(DEVDAX, PLACEMENTS)
    device.stream.asked.clear()
    reading = device.session.refresh()
    assert find_mismatches(DEVDAX, reading) == []
    main = reading.volume("main")
    assert (main.device, main.root, main.dax, main.frame_in_region) == ("/dev/dax0.0", "/dev/dax0.0", True, True)
    assert (main.align_bytes, main.size_bytes, main.logical_block_bytes) == (2 * MIB, 254 * MIB, 1)
    (cleared,) = [request for request in device.stream.asked if request["do"] == "clear"]
    assert (cleared["path"], cleared["length"]) == ("/dev/dax0.0", 16 * MIB)
    assert "blkdiscard" not in [command[0] for command in device.stream.commands()]
    (mapped,) = [step["args"] for request in device.stream.asked for step in _steps(request) if step["call"] == "mmap"]
    assert mapped["length"] == 2 * MIB


def _steps(request: dict[str, Any]) -> list[dict[str, Any]]:
    return list(request["program"]["steps"]) if "program" in request else []


def test_a_dax_device_that_is_not_what_was_asked_for_shows_in_the_reading(device: FakeGuest) -> None:
    device.session.set_up(DEVDAX, PLACEMENTS)
    device.files |= {f"{DEVICE}/align": "4096", f"{DEVICE}/size": str(254 * MIB + 4096), f"{ND}/namespace0.0/mode": "memory"}
    device.outcomes["statx"] = {"attributes": {"dax": 0}}
    device.frame = 1
    assert find_mismatches(DEVDAX, device.session.refresh()) == [
        "main: namespace mode: asked for devdax, the guest has fsdax",
        "main: alignment of the dax device: asked for 2097152, the guest has 4096",
        "main: size in whole units of that: asked for True, the guest has False",
        "main: DAX state of the node: asked for True, the guest has False",
        "main: physical frame of a mapping of the node inside the region: asked for True, the guest has False",
    ]


def test_a_clone_has_the_dax_device_that_its_template_had(device: FakeGuest) -> None:
    device.session.set_up(DEVDAX, PLACEMENTS)
    reading = device.session.refresh()
    device.stream.asked.clear()
    assert device.session.read_clone(reading) == reading
    calls = [step["call"] for step in device.stream.asked[0]["program"]["steps"]]
    assert calls == ["open", "statx", "mmap", "load", "pagemap", "munmap", "close"]
    device.files[f"{DEVICE}/align"] = "4096"
    with pytest.raises(StackMismatchError, match="- main: align_bytes: saved with 2097152, now 4096"):
        device.session.read_clone(reading)


def test_a_clone_whose_program_mounts_is_read_without_a_probe(guest: FakeGuest) -> None:
    guest.session.set_up(StorageStack((Volume("main", Namespace(REGION), ALWAYS),), mount_in_program=True), PLACEMENTS)
    reading = guest.session.refresh()
    guest.stream.asked.clear()
    assert guest.session.read_clone(reading) == reading
    assert [request["program"]["steps"] for request in guest.stream.asked] == [[]]
