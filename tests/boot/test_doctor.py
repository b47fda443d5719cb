"""The doctor in a real guest: broken stacks are diagnosed right, and the cure that is named, run as it is printed, mends them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.__main__ import main
from harness.guest.doctor import examine
from harness.host.deadline import Deadline
from harness.image.bundle import guest_image
from harness.image.catalog import KernelChoice
from harness.lease.boot import booted_guest
from harness.lease.booted import BootedGuest
from harness.lease.host_in_use import find_host
from harness.lease.options import GuestOptions
from harness.model.dax.links import Diagnosis, Word, diagnose
from harness.model.kinds import NamespaceMode, RegionKind
from harness.model.stack import Disk, Namespace, Region, StorageStack, Volume
from harness.sizes import MIB

pytestmark = pytest.mark.boot

KERNEL = "debian_6.12"
#: mkfs.xfs refuses less than 300 MB.
PLAIN = Region("plain", RegionKind.E820, 384 * MIB)
NVDIMM = Region("nvdimm", RegionKind.NVDIMM, 128 * MIB, 2 * MIB)
UNARMED = Region("unarmed", RegionKind.NVDIMM_UNARMED, 128 * MIB, 2 * MIB)
VIRTIO = Region("virtio", RegionKind.VIRTIO_PMEM, 128 * MIB)
STACK = StorageStack(
    (
        Volume("plain", Namespace(PLAIN), None),
        Volume("nvdimm", Namespace(NVDIMM, NamespaceMode.RAW), None),
        Volume("unarmed", Namespace(UNARMED, NamespaceMode.RAW), None),
        Volume("virtio", Namespace(VIRTIO), None),
        Volume("disk", Disk(size_bytes=128 * MIB), None),
    )
)


@dataclass(frozen=True)
class Patient:
    """A broken stack: what makes it (``$plain`` and its like are nodes), the path to ask for, the link that is broken, words of why."""

    name: str
    making: str
    path: str
    link: str
    why: str
    #: What is done before the commands of the cure, because its words ask for it.
    before: str = ""


EXT4 = "mkfs.ext4 -q -F -b 4096"
FILE = "head -c 65536 /dev/zero > /mnt/a/file"
IMAGE = "rm -rf /srv/files; mkdir -p /srv/files; head -c 65636 /dev/zero | tr '\\0' x > /srv/files/file"
PATIENTS = [
    Patient("nd_pmem is not loaded", f"{EXT4} $plain; modprobe -r nd_pmem", "$plain", "kernel option", "nd_pmem is not loaded"),
    Patient(
        "nd_e820 is not loaded",
        f"{EXT4} $plain; ndctl disable-region -b e820 all; modprobe -r nd_e820",
        "$plain",
        "kernel option",
        "nd_e820 is not loaded",
    ),
    Patient("a disk", f"{EXT4} $disk; mount $disk /mnt/a", "/mnt/a", "region", "no persistent memory"),
    Patient("no block device", "mount -t tmpfs none /mnt/a", "/mnt/a", "region", "is on tmpfs, which is on no block device"),
    Patient("a region that is read-only", "echo 1 > /sys/block/${unarmed#/dev/}/device/../read_only", "$unarmed", "region", "is read-only"),
    Patient(
        "raw",
        f"ndctl create-namespace -f -e $nvdimm_space -m raw; {EXT4} $nvdimm; mount $nvdimm /mnt/a",
        "/mnt/a",
        "namespace mode",
        "in the mode raw",
    ),
    Patient(
        "sector",
        "ndctl create-namespace -f -e $nvdimm_space -m sector; " + EXT4 + " ${nvdimm}s; mount ${nvdimm}s /mnt/a",
        "/mnt/a",
        "namespace mode",
        "in the mode sector",
    ),
    Patient("devdax", "ndctl create-namespace -f -e $nvdimm_space -m devdax", "$nvdimm", "namespace mode", "in the mode devdax"),
    Patient(
        "a loop device",
        f"{EXT4} $plain; mkdir -p /srv/b; mount -o dax=always $plain /srv/b; truncate -s 32M /srv/b/image; losetup /dev/loop0 /srv/b/image;"
        f" {EXT4} /dev/loop0; mount /dev/loop0 /mnt/a",
        "/mnt/a",
        "block queue",
        "no loop device has DAX",
    ),
    Patient(
        "a mapping of pmem and disk",
        f"printf '0 65536 linear %s 0\\n65536 65536 linear %s 0\\n' $plain $disk | dmsetup create --noudevsync two; dmsetup mknodes;"
        f" {EXT4} /dev/mapper/two; mount /dev/mapper/two /mnt/a",
        "/mnt/a",
        "block queue",
        "is also on",
    ),
    Patient(
        "a partition that begins at sector 34",
        f"echo start=34 | sfdisk -q --label dos --wipe always $plain; {EXT4} ${{plain}}p1; mount ${{plain}}p1 /mnt/a",
        "/mnt/a",
        "partition",
        "begins at sector 34",
    ),
    Patient(
        "a partition of an odd size",
        f"echo start=4096, size=200001 | sfdisk -q --label dos --wipe always $plain; {EXT4} ${{plain}}p1",
        "${plain}p1",
        "partition",
        "has 200001 sectors",
    ),
    Patient(
        "ext4 with inline_data",
        f"{EXT4} -O inline_data $plain; mount -o dax=never $plain /mnt/a",
        "/mnt/a",
        "file-system feature",
        "has the feature inline_data",
    ),
    Patient(
        "xfs with reflink on a partition",
        "echo start=4096 | sfdisk -q --label dos --wipe always $plain; mkfs.xfs -q -f -m reflink=1 ${plain}p1;"
        " mount -o dax=never ${plain}p1 /mnt/a",
        "/mnt/a",
        "file-system feature",
        "with reflink on a partition",
    ),
    Patient(
        "ext4 with blocks of 1 KiB",
        f"{EXT4} -b 1024 $plain; mount $plain /mnt/a",
        "/mnt/a",
        "block size",
        "have 1024 bytes and not 4096",
    ),
    Patient(
        "xfs with blocks of 1 KiB",
        "mkfs.xfs -q -f -b size=1024 $plain; mount -o dax=always $plain /mnt/a",
        "/mnt/a",
        "block size",
        "have 1024 bytes and not 4096",
    ),
    Patient("dax=never", f"{EXT4} $plain; mount -o dax=never,noatime $plain /mnt/a", "/mnt/a", "mount option", "with dax=never"),
    Patient("data=journal", f"{EXT4} $plain; mount -o data=journal $plain /mnt/a", "/mnt/a", "mount option", "with data=journal"),
    Patient("not mounted", f"{EXT4} $plain", "$plain", "mount option", "is not mounted"),
    Patient(
        "a file without the flag",
        f"{EXT4} $plain; mount -o dax=inode $plain /mnt/a; {FILE}",
        "/mnt/a/file",
        "inode flag",
        "has no flag x",
    ),
    Patient(
        "an xfs folder without the flag",
        f"mkfs.xfs -q -f $plain; mount -o dax=inode $plain /mnt/a; {FILE}",
        "/mnt/a",
        "inode flag",
        "has no flag x",
    ),
    Patient(
        "a file that was open when it got the flag",
        f"{EXT4} $plain; mount -o dax=inode $plain /mnt/a; {FILE}; sleep 9999 < /mnt/a/file > /dev/null 2>&1 & sleep 0.2;"
        " chattr +x /mnt/a/file",
        "/mnt/a/file",
        "inode flag",
        "read its inode before",
        before="pkill -x sleep",
    ),
    Patient(
        "a file whose data is journalled",
        f"{EXT4} $plain; mount -o dax=inode $plain /mnt/a; {FILE}; chattr +j /mnt/a/file",
        "/mnt/a/file",
        "inode flag",
        "has its data journalled",
    ),
    Patient(
        "erofs without a word of DAX",
        f"{IMAGE}; mkfs.erofs -E noinline_data $plain /srv/files; mount -t erofs $plain /mnt/a",
        "/mnt/a/file",
        "mount option",
        "with no word of DAX",
    ),
    Patient(
        "a file of erofs whose end lies beside its inode",
        f"{IMAGE}; mkfs.erofs $plain /srv/files; mount -t erofs -o dax $plain /mnt/a",
        "/mnt/a/file",
        "mapping",
        "its end lies beside its inode",
    ),
]
#: What makes a file where a file system has none, for the doctor to look at.
FILES = """
for folder in $(awk '$5 ~ "^/mnt/" { print $5 }' /proc/self/mountinfo); do
    [ -n "$(find $folder -type f)" ] || findmnt -no OPTIONS $folder | grep -qw ro || head -c 8192 /dev/zero > $folder/made
done
"""
#: What leaves nothing of the patient before.
CLEAN = """
pkill -x sleep
for folder in $(awk '$5 ~ "^/(mnt|srv)/" { print $5 }' /proc/self/mountinfo | tac); do umount $folder; done
losetup -D; dmsetup remove_all
[ -e /sys/bus/nd/drivers/nd_pmem ] && [ -e $plain ] && [ -e /dev/loop0 ] || modprobe -a nd_e820 nd_pmem loop dm_mod
wipefs -qaf $plain $disk; sfdisk -q --delete $plain
mkdir -p /mnt/a; sync
"""


class Clinic:
    """A guest with a region of each kind, and the shell to it."""

    def __init__(self, guest: BootedGuest) -> None:
        assert guest.session.ssh is not None
        self.guest, self.ssh, self.configuration = guest, guest.session.ssh, ""
        nodes = {placed.volume.role: placed.node for placed in guest.session.layout.volumes}
        self.nodes = {**nodes, "nvdimm_space": f"namespace{nodes['nvdimm'].removeprefix('/dev/pmem')}.0"}

    def soon(self) -> Deadline:
        return Deadline.after(30, self.guest.session.scale)

    def run(self, script: str, check: bool = True) -> None:
        names = "".join(f"{name}={node}; " for name, node in self.nodes.items())
        self.ssh.run(["sh", "-c", f"{names}{script}"], self.soon(), check=check)

    def configure(self, text: str) -> None:
        """Have the guest show a configuration of its kernel where distributions have it."""
        self.configuration = text
        script = "mountpoint -q /boot || mount -t tmpfs none /boot; cat > /boot/config-$(uname -r)"
        self.ssh.run(["sh", "-c", script], self.soon(), stdin=text.encode())

    def path(self, text: str) -> str:
        for name, node in self.nodes.items():
            text = text.replace(f"${name}", node).replace(f"${{{name}}}", node)
        return text

    def ask(self, path: str) -> Diagnosis:
        (evidence,) = examine(self.ssh, path, self.soon())
        return diagnose(evidence)


@pytest.fixture(scope="module")
def clinic() -> Iterator[Clinic]:
    """The guest has the configuration of its kernel where a distribution has it."""
    image = guest_image(KernelChoice(KERNEL), print)
    with booted_guest(find_host(), KernelChoice(KERNEL), STACK, print, GuestOptions()) as guest:
        found = Clinic(guest)
        found.configure("".join(f"CONFIG_{name}={value}\n" for name, value in image.config.items()))
        yield found


@pytest.mark.parametrize("patient", PATIENTS, ids=lambda patient: patient.name)
def test_the_broken_link_is_named_and_the_cure_works(clinic: Clinic, patient: Patient) -> None:
    clinic.run(CLEAN, check=False)
    clinic.run(patient.making)
    path = clinic.path(patient.path)
    found = clinic.ask(path)
    assert found.broken is not None
    assert found.broken[0].name == patient.link, found.findings
    assert patient.why in found.broken[1].seen
    assert found.cure is not None
    if not found.cure.commands:
        return
    clinic.run(patient.before or ":")
    seen = []
    while found.broken is not None and found.cure is not None:
        assert found.broken[1].seen not in seen, found.findings
        seen.append(found.broken[1].seen)
        for command in found.cure.commands:
            clinic.ssh.run(["sh", "-c", command], clinic.soon())
        clinic.run(FILES)
        found = clinic.ask(path)
    assert found.has_dax, found.findings


def test_a_kernel_without_the_option_is_known_by_its_configuration(clinic: Clinic) -> None:
    """No packaged kernel is without it: the guest shows a configuration in which it is off."""
    kept = clinic.configuration
    clinic.configure(kept.replace("CONFIG_FS_DAX=y\n", "# CONFIG_FS_DAX is not set\n"))
    found = clinic.ask(clinic.nodes["plain"])
    clinic.configure(kept)
    assert found.broken is not None
    assert (found.broken[0].name, "is built without CONFIG_FS_DAX" in found.broken[1].seen) == ("kernel option", True)


def test_virtio_pmem_has_dax_without_map_sync(clinic: Clinic) -> None:
    clinic.run(f"{CLEAN}{EXT4} $virtio && mount -o dax=always $virtio /mnt/a && head -c 8192 /dev/zero > /mnt/a/made")
    found = clinic.ask("/mnt/a/made")
    assert found.has_dax
    assert found.findings[-1][1].word is Word.PARTLY
    assert "of virtio-pmem is durable only when its host has been asked" in found.findings[-1][1].seen
    assert found.cure is not None
    assert "call fsync or msync" in found.cure.words


@pytest.fixture
def home(clinic: Clinic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of a user who has the guest's key and does not know the guest yet."""
    (tmp_path / ".ssh").mkdir()
    address = clinic.guest.address
    (tmp_path / ".ssh" / "config").write_text(
        f"Host guest\n  HostName {address.host}\n  Port {address.port}\n  IdentityFile {address.client_key}\n"
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_the_command_looks_at_a_machine_that_it_knows(
    clinic: Clinic, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clinic.run(f"{CLEAN}{EXT4} $plain && mount -o dax=always $plain /mnt/a && head -c 8192 /dev/zero > /mnt/a/made")
    assert main(["doctor", "--at", "root@guest", "/mnt/a"]) == 3
    assert "root@guest is not known here" in capsys.readouterr().err
    address = clinic.guest.address
    (home / ".ssh" / "known_hosts").write_text(f"[{address.host}]:{address.port} {address.host_public_key}\n")
    assert main(["doctor", "--at", "root@guest", "/mnt/a"]) == 0
    assert "There is DAX at /mnt/a." in capsys.readouterr().out
    assert main(["doctor", "--at", f"root@{address.host}:{address.port}"]) == 3  # the configuration has the key for another name
    assert f"root@{address.host}" in capsys.readouterr().err
    # Of all places those without a file system are not well.
    assert main(["doctor", "--at", "root@guest"]) == 1
    said = capsys.readouterr().out
    assert all(f"{node}:" in said for name, node in clinic.nodes.items() if name in ("nvdimm", "unarmed"))
