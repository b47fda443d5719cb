"""The root file system of all guests: Debian packages, our overlay, and the keys of its sshd."""

import io
import shlex
import tarfile
from dataclasses import dataclass
from pathlib import Path

from harness.host.apt import Mirrors
from harness.host.cache import Progress
from harness.host.deadline import Deadline
from harness.host.process import run
from harness.host.tools import require_tool
from harness.image.catalog import RootfsRecipe
from harness.image.mmdebstrap import mmdebstrap_command, run_mmdebstrap
from harness.sizes import MIB

IMAGE = "root.img"
CLIENT_KEY = "client_key"
HOST_PUBLIC_KEY = "host_key.pub"
VERSIONS = "packages.txt"


@dataclass(frozen=True)
class OverlayFile:
    """A file that we put over the packages: its path in the guest, its content, whether it can be run."""

    path: str
    content: bytes
    executable: bool


def read_overlay(folder: Path) -> tuple[OverlayFile, ...]:
    """Return the files below ``folder``, sorted; whatever the checkout's umask was, they get the same modes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return tuple(OverlayFile(file.relative_to(folder).as_posix(), file.read_bytes(), bool(file.stat().st_mode & 0o100)) for file in files)


def overlay_tar(files: tuple[OverlayFile, ...]) -> bytes:
    """Return a tar archive of the overlay, owned by root and without dates."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for file in files:
            member = tarfile.TarInfo(f"./{file.path}")
            member.size, member.mode = len(file.content), 0o755 if file.executable else 0o644
            archive.addfile(member, io.BytesIO(file.content))
    return stream.getvalue()


# Run in the chroot by mmdebstrap when all is installed: $1 is its root. Keys are made here so that the host needs no ssh-keygen.
_KEYS = """set -eu
mkdir -p -m 0700 "$1/etc/dropbear" "$1/root/.ssh"
chroot "$1" dropbearkey -t ed25519 -f /etc/dropbear/host_key > /dev/null
chroot "$1" dropbearkey -y -f /etc/dropbear/host_key | grep '^ssh-ed25519 ' > "$1/host_key.pub"
chroot "$1" dropbearkey -t ed25519 -f /client > /dev/null
chroot "$1" dropbearkey -y -f /client | grep '^ssh-ed25519 ' > "$1/root/.ssh/authorized_keys"
chroot "$1" dropbearconvert dropbear openssh /client /client_key > /dev/null 2>&1
"""
_TIDY = """set -eu
rm -f "$1/client" "$1/client_key" "$1/host_key.pub" "$1/packages.txt"
chroot "$1" usermod --shell /bin/sh root
rm -rf "$1"/var/cache/* "$1"/var/lib/apt "$1"/var/log/* "$1/etc/machine-id"
"""
_VERSIONS = """chroot "$1" dpkg-query -W -f '${Package} ${Version}\\n' > "$1/packages.txt"
"""


def rootfs_command(recipe: RootfsRecipe, mirrors: Mirrors, folder: Path) -> list[str]:
    """Return the mmdebstrap command that leaves root.tar, the keys and the package list in ``folder``."""
    quoted = shlex.quote(str(folder))
    return mmdebstrap_command(
        recipe.suite,
        str(folder / "root.tar"),
        mirrors,
        variant="essential",
        form="tar",
        options=[
            "--aptopt=APT::Install-Recommends false",
            *(f"--dpkgopt=path-exclude={pattern}" for pattern in recipe.exclude),
            f"--include={','.join(recipe.packages)}",
        ],
        hooks=[
            _KEYS,
            _VERSIONS,
            f"tar-in {quoted}/overlay.tar /",
            f"download /client_key {quoted}/{CLIENT_KEY}",
            f"download /host_key.pub {quoted}/{HOST_PUBLIC_KEY}",
            f"download /packages.txt {quoted}/{VERSIONS}",
            _TIDY,
        ],
    )


def build_rootfs(recipe: RootfsRecipe, overlay: tuple[OverlayFile, ...], mirrors: Mirrors, folder: Path, progress: Progress) -> None:
    """Make the image, the client key (mode 0600), the host key's public half and the package list in ``folder``."""
    deadline = Deadline.after(1800)
    (folder / "overlay.tar").write_bytes(overlay_tar(overlay))
    progress(f"making the root file system from Debian {recipe.suite} (about 70 MB to fetch; half a minute on a fast mirror)")
    log = folder / "mmdebstrap.log"
    run_mmdebstrap(rootfs_command(recipe, mirrors, folder), deadline, log)
    (folder / CLIENT_KEY).chmod(0o600)
    progress("making its image")
    _make_image(recipe, folder, deadline)
    for left in ("overlay.tar", "root.tar"):
        (folder / left).unlink()
    log.unlink()


def _make_image(recipe: RootfsRecipe, folder: Path, deadline: Deadline) -> None:
    """Turn root.tar into an ext4 image; fakeroot lets the files be root's without our being root."""
    size = (folder / "root.tar").stat().st_size
    image = folder / IMAGE
    with image.open("wb") as file:
        file.truncate((size * 5 // 4 // MIB + 32) * MIB)
    tree = folder / "tree"
    tree.mkdir()
    # Device nodes come from devtmpfs, so none are needed here.
    unpack = [str(require_tool("tar")), "-C", str(tree), "--exclude=./dev/*", "-xpf", str(folder / "root.tar")]
    make = [str(require_tool("mke2fs")), "-q", "-F", *recipe.image_options, "-d", str(tree), str(image)]
    remove = ["rm", "-rf", str(tree)]
    run([str(require_tool("fakeroot")), "sh", "-ec", "; ".join(shlex.join(line) for line in (unpack, make, remove))], deadline)
