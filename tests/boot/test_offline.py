"""A cache that a CI system kept is all that a run needs: no network, nothing else of an earlier run."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.__main__ import main
from harness.host.tools import find_tool
from harness.image.bundle import guest_image
from harness.image.catalog import KernelChoice, load_catalog
from harness.report.rows import read_rows

pytestmark = pytest.mark.boot

ROOT = Path(__file__).parents[2]
ITEM = "cases/splice/tee.yaml::tee[e820-fsdax-ext4-dax_always-debian_6.12]"
#: Loopback is down in a network of one's own. SIOCSIFFLAGS, IFF_UP and IFF_RUNNING of linux/sockios.h and linux/if.h.
WITH_LOOPBACK = """
import fcntl, os, socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh", b"lo", 0x1 | 0x40))
os.execv(sys.executable, [sys.executable, "-m", "pytest", *sys.argv[1:]])
"""


def test_a_restored_cache_is_enough_without_a_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    unshare = find_tool("unshare")
    if unshare is None or os.getuid() != 0:
        pytest.skip("a network of its own is root's to make, with unshare (util-linux)")
    home = tmp_path / "home"
    guest_image(KernelChoice(load_catalog().default_kernel), print)
    capsys.readouterr()
    assert main(["matrix", "--shards", "1"]) == 0
    kept = _cached_folders(capsys)  # before the home changes: a path may begin with it
    monkeypatch.delenv("PMEM_HARNESS_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert main(["matrix", "--shards", "1"]) == 0
    for source, target in zip(kept, _cached_folders(capsys), strict=True):
        if source.exists():  # a flavour that nobody has needed yet is missed nowhere here
            shutil.copytree(source, target)
    command = [str(unshare), "--net", sys.executable, "-c", WITH_LOOPBACK, ITEM, "--artifacts", str(tmp_path / "artifacts")]
    done = subprocess.run([*command, "-p", "no:cacheprovider"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = read_rows(tmp_path / "artifacts/latest")
    assert row.passed


def _cached_folders(capsys: pytest.CaptureFixture[str]) -> list[Path]:
    return [Path(line).expanduser() for line in json.loads(capsys.readouterr().out)["include"][0]["cache_paths"].splitlines()]
