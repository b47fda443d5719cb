"""Computers on which something is missing, for real: in mounts and networks that only the drill sees."""

import os
import re
import sys
from pathlib import Path

import pytest

from harness.host import process
from harness.host.deadline import Deadline

ROOT = Path(__file__).parents[3]
#: A user who is not this one: nobody, on Debian.
OTHER = 65534


def run_apart(*flags: str, setup: str, code: str, arguments: tuple[str, ...] = (), **environment: str) -> str:
    """Run Python code in namespaces of its own, made ready by a shell script; skip where there can be none. Return what it prints."""
    apart = ["unshare", *flags]
    tried = process.run([*apart, "true"], Deadline.after(60), check=False)
    if tried.status != 0:
        pytest.skip(f"no namespaces of one's own here: {' '.join(apart)}: {tried.stderr.strip()}")
    settings = {name: value for name, value in os.environ.items() if not name.startswith(("PMEM_HARNESS_", "XDG_"))}
    command = [*apart, "sh", "-euc", f'{setup}\nexec "$@"', "drill", sys.executable, "-c", code, *arguments]
    done = process.run(command, Deadline.after(600), check=False, env={**settings, "PYTHONPATH": str(ROOT), **environment})
    assert done.status == 0, done.stdout + done.stderr
    return done.stdout


SAID = """
from harness.errors import HarnessError
def said(function, *arguments):
    try:
        with function(*arguments) as found:
            print("folder", found)
    except HarnessError as error:
        print(type(error).__name__, error)
"""
PRIVATE = (
    SAID
    + """
from harness.machine.custody import private_folder
said(private_folder, 512 << 20)
"""
)


def small(folder: str, size: str = "64m") -> str:
    return f"mount -t tmpfs -o size={size} tmpfs {folder}\n"


def test_with_a_small_dev_shm_machines_live_in_the_temp_folder(tmp_path: Path) -> None:
    said = run_apart("-m", setup=small("/dev/shm"), code=PRIVATE, TMPDIR=str(tmp_path))
    assert said.startswith(f"folder {tmp_path}/pmemh-")
    assert list(tmp_path.iterdir()) == []


def test_with_nothing_but_small_places_each_is_named_and_the_setting(tmp_path: Path) -> None:
    said = run_apart("-m", setup=small("/dev/shm") + small(str(tmp_path)), code=PRIVATE, TMPDIR=str(tmp_path))
    assert re.fullmatch(
        rf"HostError no folder for a machine's memory and disks, which may need 768 MiB: /dev/shm: 6\d MiB free; {tmp_path}: 6\d MiB free; "
        r"free some room, or name another folder with PMEM_HARNESS_TMP\n",
        said,
    )


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    full = small(str(tmp_path), "2g,nr_inodes=1")
    said = run_apart("-m", setup=full, code=PRIVATE, PMEM_HARNESS_TMP=str(tmp_path))
    assert re.match(rf"HostError cannot make the folder {tmp_path}/pmemh-\w+ for a machine: No space left on device; free some room", said)


HOME = (
    SAID
    + """
import sys
from harness.__main__ import main
from harness.host import settings
from harness.host.admission import admitted
from harness.host.cache import stored_entry
from harness.host.deadline import Deadline
said(admitted, 1, Deadline.after(1))
try:
    stored_entry(settings.cache_root() / "images", "a", lambda folder: None, print, Deadline.after(1))
except HarnessError as error:
    print(type(error).__name__, error)
sys.stderr = sys.stdout
for command in (["images", "list"], ["templates", "list"], ["reap", "--dry-run"], ["images", "build"]):
    print("status", main(command))
"""
)


def test_a_home_that_cannot_be_written_is_said_with_the_setting_that_helps(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    said = run_apart("-m", setup=f"mount -t tmpfs -o ro tmpfs {home}", code=HOME, HOME=str(home), PMEM_HARNESS_TMP=str(tmp_path))
    cache = home / ".cache/pmem-harness"
    assert f"HostError cannot make {cache}/places: Read-only file system; PMEM_HARNESS_CACHE" in said
    assert re.search(rf"HostError cannot write the cache {home}/\S*: Read-only file system; name a folder of yours, with room, with", said)
    assert re.findall(r"^status (\d)$", said, re.MULTILINE) == ["0", "0", "0", "3"]
    assert re.search(r"^harness: cannot write the cache .*PMEM_HARNESS_CACHE", said, re.MULTILINE)


FOREIGN = (
    SAID
    + f"""
import os
from harness.host import settings
from harness.host.admission import admitted
from harness.host.cache import remove_abandoned, stored_entry
from harness.host.deadline import Deadline
store = settings.cache_root() / "images"
stored_entry(store, "there", lambda folder: None, print, Deadline.after(60))
(store / "locks/started.lock").touch()
(store / "building/started~1").mkdir()
with admitted(1, Deadline.after(60)):
    pass
os.setgroups([]); os.setgid({OTHER}); os.setuid({OTHER})
print(stored_entry(store, "there", lambda folder: None, print, Deadline.after(1)).name)
for name in ("new", "started"):
    try:
        stored_entry(store, name, lambda folder: None, print, Deadline.after(1))
    except HarnessError as error:
        print(type(error).__name__, error)
said(admitted, 1, Deadline.after(1))
print(remove_abandoned(store), (store / "building/started~1").is_dir())
"""
)


def test_the_cache_of_another_user_is_read_and_not_written(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may become another user")
    # Where a user who is not root may go.
    setup = f"mount -t tmpfs -o mode=755 tmpfs {tmp_path}; mount --bind {tmp_path} /mnt"
    said = run_apart("-m", setup=setup, code=FOREIGN, PMEM_HARNESS_CACHE="/mnt/cache").splitlines()
    assert said[0] == "there"
    assert re.match(
        r"HostError cannot lock /mnt/cache/images/locks/new.lock: Permission denied; is the cache another user's\? name a", said[1]
    )
    assert said[2].startswith("HostError cannot lock /mnt/cache/images/locks/started.lock: Permission denied; is the cache another user's?")
    assert said[3].startswith(
        "HostError cannot lock /mnt/cache/places/queue.lock: Permission denied; is it another user's? PMEM_HARNESS_CACHE"
    )
    assert said[4] == "[] True"


FULL = """
import sys
from pathlib import Path
from harness.errors import HarnessError, HostError
from harness.host.cache import stored_entry
from harness.host.deadline import Deadline
from harness.record.store import store_record
from tests.fakes.samples import ran
disk, record = Path("/mnt"), ran(Path(sys.argv[1]))
def write(folder):
    (folder / "file").write_bytes(bytes(16 << 20))
def fail(folder):
    try:
        write(folder)
    except OSError as error:
        raise HostError("a program said something") from error
for build in (write, fail):
    try:
        stored_entry(disk / "images", "a", build, print, Deadline.after(60))
    except HarnessError as error:
        print(type(error).__name__, str(error).replace("\\n", " | "))
print(sorted(str(path.relative_to(disk)) for path in disk.rglob("*")))
try:
    store_record(disk / "artifacts/a", record, "console" * (4 << 20), "")
except HarnessError as error:
    print(type(error).__name__, error)
print((disk / "artifacts/a").exists())
"""


def test_a_full_disk_is_told_with_what_to_do_and_keeps_nothing_half_done(tmp_path: Path) -> None:
    said = run_apart("-m", setup=small("/mnt", "8m"), code=FULL, arguments=(str(tmp_path / "record"),)).splitlines()
    remedy = r"\d MiB are free in /mnt/images: free some room there, or name a folder of yours, with room, with PMEM_HARNESS_CACHE"
    assert re.match(rf"HostError could not build /mnt/images/a: .*No space left on device.*; nothing of it is kept\. {remedy}", said[0])
    assert re.match(rf"HostError could not build /mnt/images/a: a program said something \| Nothing of it is kept\. {remedy}", said[1])
    assert said[2] == "['images', 'images/building', 'images/locks', 'images/locks/a.lock']"
    assert re.match(r"HostError cannot keep what was seen in /mnt/artifacts/a: No space left on device.*; .*with --artifacts", said[3])
    assert said[4] == "False"


# Up, but with IPv4 only: what Linux calls SIOCSIFFLAGS and IFF_UP (netdevice(7)).
LOOPBACK_UP = """
import fcntl, socket, struct
with socket.socket() as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh22x", b"lo", 1))
try:
    with socket.socket(socket.AF_INET6) as other:
        other.bind(("::1", 0))
    print("has IPv6")
except OSError:
    print("no IPv6")
import sys
import pytest
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "tests/unit/agent/test_protocol.py", "tests/unit/guest/test_ssh.py"]))
"""


def test_agent_and_ssh_need_no_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    off = "for file in /proc/sys/net/ipv6/conf/*/disable_ipv6; do [ ! -e $file ] || echo 1 > $file; done"
    said = run_apart("-n", setup=off, code=LOOPBACK_UP, PYTHONDONTWRITEBYTECODE="1")
    assert said.splitlines()[0] == "no IPv6"
    assert re.search(r"\d\d passed", said)
