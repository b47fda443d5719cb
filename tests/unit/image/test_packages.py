"""A kernel is found in what apt says of a suite, and fetched; tiny programs stand in for the real ones."""

from pathlib import Path

import pytest

from harness.errors import HostError
from harness.host.apt import Archive, Mirrors
from harness.host.deadline import Deadline
from harness.image.catalog import PackagedKernel
from harness.image.packages import FetchedPackage, fetch_packages, find_kernel, parse_packages, unpack, version_key

from .programs import put_program

MIRRORS = Mirrors(Archive("http://mirror.example/debian", ("bookworm",), ("main",), None), None)
CLOUD, FULL = "linux-image-cloud-amd64", "linux-image-amd64"
NEWEST = PackagedKernel("newest", "trixie-backports", CLOUD)


def said(name: str, version: str, *needs: str, size: int = 1500) -> str:
    """What ``apt-cache show`` says of a package."""
    depends = ", ".join(["kmod", "dracut | initramfs-tools (>= 0.120)", *(f"{need} (= {version})" for need in needs)])
    return (
        f"Package: {name}\nVersion: {version}\nPre-Depends: linux-base (>= 4.12~)\nDepends: {depends}\nSize: {size}\nDescription: Linux\n\n"
    )


def split(release: str, version: str, *kinds: str) -> str:
    """A kernel of four packages, of which the suite has those of ``kinds`` and the empty image."""
    needs = [f"linux-{kind}-{release}" for kind in ("base", "binary", "modules")]
    parts = [said(f"linux-{kind}-{release}", version, size=10 << 20) for kind in kinds]
    return said(f"linux-image-{release}", version, *needs) + "".join(parts)


SUITE = "".join(
    [
        said(CLOUD, "7.3.4-1~bpo13+1", "linux-base-cloud-amd64", "linux-image-7.3.4+deb13-cloud-amd64", "linux-modules-cloud-amd64"),
        said("linux-base-cloud-amd64", "7.3.4-1~bpo13+1", "linux-base-7.3.4+deb13-cloud-amd64"),
        said("linux-modules-cloud-amd64", "7.3.4-1~bpo13+1", "linux-modules-7.3.4+deb13-cloud-amd64"),
        split("7.3.4+deb13-cloud-amd64", "7.3.4-1~bpo13+1", "base", "binary", "modules"),
        split("7.2.9+deb13-cloud-amd64", "7.2.9-1~bpo13+1", "base", "binary", "modules"),
        split("7.2.12+deb13-cloud-amd64", "7.2.12-1~bpo13+1", "base", "binary"),
        split("7.1.13+deb13-cloud-amd64", "7.1.13-1~bpo13+1", "binary"),
        said("linux-image-6.18.9+deb13-cloud-amd64", "6.18.9-1~bpo13+1", size=46 << 20),
        # It has all of the kernel; what it needs beside that is gone.
        said("linux-image-6.18.15+deb13-cloud-amd64", "6.18.15-1~bpo13+1", "linux-base-6.18.15+deb13-cloud-amd64", size=46 << 20),
        said("linux-image-6.18.15+deb13-cloud-amd64-unsigned", "6.18.16-1", size=46 << 20),
        said("linux-image-6.1-cloud-amd64", "6.1.192-2", "linux-image-6.1.0-56-cloud-amd64"),
        said("linux-image-6.1.0-56-cloud-amd64", "6.1.192-2"),
        said("linux-image-6.1.0-9-cloud-amd64", "6.1.27-1"),
        said(FULL, "6.18.15-1~bpo13+1", "linux-image-6.18.15+deb13-amd64"),
        said("linux-image-6.18.15+deb13-amd64", "6.18.15-1~bpo13+1"),
        said("linux-image-6.18.20+deb13-rt-amd64", "6.18.20-1~bpo13+1"),
    ]
)


def found(version: str = "", package: str = CLOUD) -> list[str]:
    return [part.name for part in find_kernel(PackagedKernel("k", "trixie-backports", package, version), parse_packages(SUITE))]


# ---- which packages a kernel is --------------------------------------------------------------------------------------


def test_meta_packages_lead_to_the_kernel_and_are_not_part_of_it() -> None:
    assert found() == [f"linux-{kind}-7.3.4+deb13-cloud-amd64" for kind in ("base", "binary", "image", "modules")]
    assert found("6.1") == ["linux-image-6.1.0-56-cloud-amd64"]


def test_the_newest_of_a_version_is_taken_whatever_its_package_is_called() -> None:
    assert found("6.18") == ["linux-image-6.18.15+deb13-cloud-amd64"]
    assert found("6.18.9") == ["linux-image-6.18.9+deb13-cloud-amd64"]
    assert found("6.1.27") == ["linux-image-6.1.0-9-cloud-amd64"]


def test_a_version_is_looked_for_among_the_kernels_of_its_flavour() -> None:
    assert found("6.18", FULL) == ["linux-image-6.18.15+deb13-amd64"]


def test_a_kernel_that_is_not_whole_is_passed_over() -> None:
    assert "linux-modules-7.2.9+deb13-cloud-amd64" in found("7.2")


@pytest.mark.parametrize(
    ("version", "package", "message"),
    [
        (
            "6.19",
            CLOUD,
            "trixie-backports has no linux-image-cloud-amd64 of Linux 6.19. It has 7.3.4, 7.2.9, 6.18.15, 6.18.9, 6.1.192, 6.1.27:"
            " give k in images/kernels.yaml one of them as its version",
        ),
        (
            "7.1",
            CLOUD,
            "trixie-backports has no linux-image-cloud-amd64 of Linux 7.1 that is whole:"
            " linux-image-7.1.13+deb13-cloud-amd64 is there without"
            " linux-base-7.1.13+deb13-cloud-amd64 and linux-modules-7.1.13+deb13-cloud-amd64. It has 7.3.4, ",
        ),
        (
            "",
            "linux-image-clod-amd64",
            "trixie-backports has no linux-image-clod-amd64. It has linux-image-6.1-cloud-amd64, linux-image-amd64,"
            " linux-image-cloud-amd64: give k in images/kernels.yaml one of them as its package",
        ),
    ],
)
def test_a_kernel_that_is_not_there_is_answered_with_those_that_are(version: str, package: str, message: str) -> None:
    with pytest.raises(HostError) as caught:
        found(version, package)
    assert str(caught.value).startswith(message)


def test_a_suite_without_kernels_says_so() -> None:
    with pytest.raises(HostError, match=r"trixie-backports has no linux-image-cloud-amd64\. It has no kernel$"):
        find_kernel(NEWEST, parse_packages(""))


def test_versions_sort_as_dpkg_sorts_them() -> None:
    versions = ["6.12~rc7-1~exp1", "6.12-1", "6.12.9-1~bpo13+1", "6.12.9-1", "6.12.9-1+b1", "6.12.10-1", "6.12.10-10", "6.16.3-1"]
    shuffled = [versions[at] for at in (3, 0, 6, 1, 7, 5, 2, 4)]
    assert sorted(shuffled, key=version_key) == versions


# ---- apt -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs that write down what they are asked; apt has SUITE and downloads what it is told to."""
    (tmp_path / "said").write_text(SUITE)
    folder = tmp_path / "bin"
    put_program(folder, "mmdebstrap", f'printf "%s\\n" "$@" > {tmp_path}/asked', monkeypatch)
    script = f'test $1 = pkgnames || exec cat {tmp_path}/said; echo linux-headers-7; sed -n "s/^Package: //p" {tmp_path}/said'
    put_program(folder, "apt-cache", script, monkeypatch)
    put_program(folder, "apt-get", f'printf "%s\\n" "$APT_CONFIG" "$@" > {tmp_path}/got; echo abc > k.deb', monkeypatch)
    put_program(folder, "dpkg-deb", 'echo "Package: linux-image-x"; echo "Version: 1:6.99-1"', monkeypatch)
    return folder


def fetch(folder: Path, recipe: PackagedKernel = NEWEST, *, kernel: bool = True) -> tuple[tuple[FetchedPackage, ...], list[str]]:
    told: list[str] = []
    return fetch_packages(recipe, ["busybox-static"], MIRRORS, folder, told.append, Deadline.after(30), kernel=kernel), told


def test_fetched_packages_are_identified_by_name_version_and_hash(tmp_path: Path, programs: Path) -> None:
    fetched, told = fetch(tmp_path)
    digest = "edeaaff3f1774ad2888673770c6d64097e391bc362d7d6fb34982ddf0efd18cb"
    assert fetched == (FetchedPackage("linux-image-x", "1:6.99-1", digest, tmp_path / "fetched/k.deb"),)
    assert told == ["reading what trixie-backports has", "fetching the kernel 7.3.4-1~bpo13+1 of trixie-backports (30 MiB)"]


def test_apt_works_with_what_mmdebstrap_read_and_nothing_of_this_computers(tmp_path: Path, programs: Path) -> None:
    fetch(tmp_path)
    asked = (tmp_path / "asked").read_text()
    assert "--variant=custom" in asked
    assert f"--customize-hook=copy-out /etc/apt /var/lib/apt/lists {tmp_path}" in asked
    assert "deb http://mirror.example/debian trixie-backports main" in asked
    assert "Check-Valid-Until" not in asked
    config, *words = (tmp_path / "got").read_text().split("\n")
    assert words[:3] == ["-q", "download", "linux-base-7.3.4+deb13-cloud-amd64"]
    assert words[-2:] == ["busybox-static", ""]
    assert f'Dir::Etc "{tmp_path}/apt";' in Path(config).read_text()


def test_without_a_kernel_only_the_other_packages_are_fetched(tmp_path: Path, programs: Path) -> None:
    _, told = fetch(tmp_path, kernel=False)
    assert (tmp_path / "got").read_text().split("\n")[1:] == ["-q", "download", "busybox-static", ""]
    assert told[-1] == "fetching busybox-static of trixie-backports"


def test_an_entry_may_take_a_suite_whose_lists_have_expired(tmp_path: Path, programs: Path) -> None:
    fetch(tmp_path, PackagedKernel("k", "sid", CLOUD, check_valid_until=False))
    assert '--aptopt=Acquire::Check-Valid-Until "false"' in (tmp_path / "asked").read_text()


def test_lists_that_have_expired_are_named_with_what_takes_them(tmp_path: Path, programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_program(programs, "mmdebstrap", "echo 'E: Release file for x is expired (invalid since 18d)' >&2; exit 25", monkeypatch)
    with pytest.raises(HostError, match=r"(?s)could not read what sid has; its lists .* `check_valid_until: no` of k\n.*invalid since 18d"):
        fetch(tmp_path, PackagedKernel("k", "sid", CLOUD))


def test_a_suite_that_cannot_be_read_asks_about_the_mirror_and_shows_what_was_said(
    tmp_path: Path, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_program(programs, "mmdebstrap", "echo 'E: no route' >&2; exit 25", monkeypatch)
    with pytest.raises(HostError, match=r"(?s)could not read what trixie-backports has; is the package mirror reachable\?.*E: no route"):
        fetch(tmp_path)


def test_a_package_that_cannot_be_fetched_asks_about_the_mirror_and_shows_what_was_said(
    tmp_path: Path, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_program(programs, "apt-get", "echo 'E: no route' >&2; exit 100", monkeypatch)
    message = r"(?s)could not fetch the kernel 6\.18\.15-1~bpo13\+1 of trixie-backports \(46 MiB\); is the package mirror .*E: no route"
    with pytest.raises(HostError, match=message):
        fetch(tmp_path, PackagedKernel("k", "trixie-backports", CLOUD, "6.18"))


def test_a_kernel_that_the_mirror_has_lost_is_answered_with_those_that_it_names(
    tmp_path: Path, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_program(programs, "apt-get", "echo 'E: Failed to fetch x  404  Not Found' >&2; exit 100", monkeypatch)
    with pytest.raises(HostError, match=r"(?s)the mirror names it and has not all of its files\. It has 7\.3\.4, .*: give newest in .*404"):
        fetch(tmp_path)


def test_a_source_that_the_suite_does_not_have_is_answered_with_those_that_it_has(
    tmp_path: Path, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_program(programs, "apt-get", "echo 'E: Unable to locate package linux-source-9.9' >&2; exit 100", monkeypatch)
    put_program(programs, "apt-cache", '[ "$1" != pkgnames ] || echo linux-source-6.12 linux-source', monkeypatch)
    recipe = PackagedKernel("mine", "trixie", "", source="linux-source-9.9")
    with pytest.raises(HostError, match=r"; it has linux-source, linux-source-6\.12: give mine in images/kernels\.yaml one of them as its"):
        fetch(tmp_path, recipe, kernel=False)


def test_damaged_package_is_the_hosts_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_program(tmp_path / "bin", "dpkg-deb", "echo 'not a Debian format archive' >&2; exit 2", monkeypatch)
    with pytest.raises(HostError, match="not a Debian format archive"):
        unpack([FetchedPackage("a", "1", "", tmp_path / "a.deb")], tmp_path, Deadline.after(30))
