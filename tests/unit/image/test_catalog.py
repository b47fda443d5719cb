"""images/*.yaml becomes types, and every mistake in it is named with its line."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.errors import CaseError, UsageError
from harness.image.catalog import IMAGES_DIR, KernelChoice, PackagedKernel, choose_kernel, load_catalog


def edited(tmp_path: Path, file: str, change: Callable[[str], str]) -> Path:
    """A copy of images/ in which one file is changed."""
    folder = tmp_path / "images"
    shutil.copytree(IMAGES_DIR, folder)
    (folder / file).write_text(change((folder / file).read_text()))
    return folder


def test_catalog_of_the_project_is_complete() -> None:
    catalog = load_catalog()
    assert catalog.default_kernel == "debian_6.12"
    assert set(catalog.kernels) >= {"debian_5.10", "debian_6.1", "debian_6.12"}
    assert "rdma_rxe" in catalog.kernels["debian_6.12_full"].modules
    assert "dropbear-bin" in catalog.rootfs.packages
    assert {"ext4", "xfs"} <= set(catalog.mkfs)
    assert "BLK_DEV_PMEM" in catalog.options


def test_every_kernel_of_the_project_has_a_full_flavour_of_the_same_suite_and_version() -> None:
    kernels = load_catalog().kernels
    for kernel in kernels.values():
        if not kernel.flavour and not kernel.source:
            full = kernels[f"{kernel.name}_full"]
            assert (full.flavour, full.base) == ("full", kernel.name)
            assert (full.suite, full.version, full.mkfs) == (kernel.suite, kernel.version, kernel.mkfs)


def test_an_entry_needs_a_suite_and_has_the_kernel_of_the_cloud_flavour(tmp_path: Path) -> None:
    text = "kernels:\n  plain: {suite: forky}\n  exact: {suite: sid, version: 7.10, check_valid_until: no}\n"
    kernels = load_catalog(edited(tmp_path, "kernels.yaml", lambda old: old.replace("kernels:\n", text, 1))).kernels
    assert kernels["plain"] == PackagedKernel("plain", "forky", "linux-image-cloud-amd64")
    assert kernels["exact"] == PackagedKernel("exact", "sid", "linux-image-cloud-amd64", "7.10", check_valid_until=False)


def test_no_mirror_is_named_in_the_catalog() -> None:
    assert all("://" not in file.read_text() for file in IMAGES_DIR.glob("*.yaml"))


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (
            "kernels.yaml",
            "default: debian_6.12",
            "default: debian_99",
            r"kernels\.yaml:3: the default kernel 'debian_99' is none of: debian_5\.10, ",
        ),
        ("kernels.yaml", "format: 1", "format: 7", r"kernels\.yaml:2: format 7 is not known here; this harness reads format 1"),
        (
            "kernels.yaml",
            "suite: trixie",
            "suit: trixie",
            r"kernels\.yaml:\d+: unknown key 'suit'; accepted here: check_valid_until, flavour, mkfs, modules, of, package, source, suite",
        ),
        ("kernels.yaml", "    suite: bullseye\n", "", r"kernels\.yaml:\d+: the key 'suite' is missing"),
        (
            "kernels.yaml",
            'version: "6.16"',
            "version: newest",
            r"kernels\.yaml:\d+: a version of a kernel is expected here, such as 6\.16 or 6\.16\.12, not 'newest'$",
        ),
        (
            "kernels.yaml",
            "{suite: trixie}",
            "{suite: trixie, check_valid_until: never}",
            r"kernels\.yaml:\d+: yes or no is expected here, not 'never'$",
        ),
        ("kernels.yaml", "      xfs: [", "      zfs: [", r"kernels\.yaml:\d+: unknown key 'zfs'; accepted here: erofs, ext2, ext4, xfs$"),
        (
            "kernels.yaml",
            "    of: debian_5.10\n",
            "",
            r"kernels\.yaml:\d+: debian_5\.10_full has only one of the keys 'flavour' and 'of': a flavour is one of another kernel",
        ),
        (
            "kernels.yaml",
            "    of: debian_5.10\n",
            "    of: debian_5.10_full\n",
            r"kernels\.yaml:\d+: debian_5\.10_full is a flavour of 'debian_5\.10_full', which is none of: debian_5\.10, debian_6\.1, ",
        ),
        (
            "kernels.yaml",
            "modules:\n",
            "  again:\n    suite: a\n    package: b\n    flavour: full\n    of: debian_6.12\n\nmodules:\n",
            r"kernels\.yaml:\d+: again and debian_6\.12_full are both the full flavour of debian_6\.12$",
        ),
        (
            "kernels.yaml",
            "source: linux-source-6.12, options: [base, ext2]}",
            "source: linux-source-6.12}",
            r"kernels\.yaml:\d+: the key 'options' is missing",
        ),
        (
            "kernels.yaml",
            "source: linux-source-6.12, options: [base, ext2]}",
            "source: linux-source-6.12, options: [base, ext3]}",
            r"kernels\.yaml:\d+: no options 'ext3' for source_6\.12: .*/images/fragments has base, ext2, kasan, lockdep$",
        ),
        (
            "kernels.yaml",
            "{suite: trixie, source:",
            "{suite: trixie, version: '6.12', source:",
            r"kernels\.yaml:\d+: unknown key 'version'; accepted here: check_valid_until, mkfs, options, source, suite$",
        ),
        (
            "kernels.yaml",
            "  source_6.12: {",
            "  source+mine: {",
            r"kernels\.yaml:\d+: a kernel cannot be called 'source\+mine': \+ stands before the patches that one is built with$",
        ),
        ("kernels.yaml", "available: [xfs, virtio_pmem]", "available: xfs", r"kernels\.yaml:\d+: a list of texts is expected here"),
        ("rootfs.yaml", "suite: trixie", "suite: [trixie]", r"rootfs\.yaml:3: a text is expected here, not a list or mapping"),
        ("rootfs.yaml", "suite: trixie", "suite: trixie\nsuite: sid", r"rootfs\.yaml:4: the key 'suite' stands here a second time"),
        ("rootfs.yaml", "format: 1", "format: [1", r"rootfs\.yaml:\d+: not YAML: "),
    ],
)
def test_mistake_is_named_with_its_line(tmp_path: Path, file: str, old: str, new: str, message: str) -> None:
    with pytest.raises(CaseError, match=message):
        load_catalog(edited(tmp_path, file, lambda text: text.replace(old, new, 1)))


def test_list_where_a_mapping_belongs_is_named(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match=r"kernels\.yaml:1: a mapping \(key: value\) is expected here"):
        load_catalog(edited(tmp_path, "kernels.yaml", lambda _: "[1, 2]\n"))


def test_empty_file_is_said_to_be_empty(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match=r"rootfs\.yaml: the file is empty"):
        load_catalog(edited(tmp_path, "rootfs.yaml", lambda _: ""))


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match=r"kernels\.yaml: cannot be read: No such file"):
        load_catalog(tmp_path)


def test_kernel_is_chosen_by_name_by_path_or_by_default(tmp_path: Path) -> None:
    catalog = load_catalog()
    (tmp_path / "bzImage").write_text("")
    assert choose_kernel(None, catalog) == KernelChoice("debian_6.12")
    assert choose_kernel("debian_6.1", catalog) == KernelChoice("debian_6.1")
    assert choose_kernel(str(tmp_path / "bzImage"), catalog) == KernelChoice("own_bzImage", (tmp_path / "bzImage").resolve())


def test_a_kernel_from_source_may_be_chosen_with_patches(tmp_path: Path) -> None:
    catalog = load_catalog()
    patches = (tmp_path / "first.patch", tmp_path / "second.diff")
    for patch in patches:
        patch.touch()
    choice = choose_kernel(f"source_6.12+{patches[0]}+{patches[1]}", catalog)
    assert choice == KernelChoice("source_6.12+first+second", patches=patches)
    assert catalog.find_entry(choice) == catalog.kernels["source_6.12"]
    assert [file.name for file in catalog.fragments(catalog.kernels["source_6.12_kasan"])] == ["base.config", "ext2.config", "kasan.config"]


def test_unknown_kernel_is_answered_with_what_there_is() -> None:
    with pytest.raises(UsageError, match=r"no kernel 'debian_5': give one of debian_5\.10, .* or the path of a bzImage, a vmlinux"):
        choose_kernel("debian_5", load_catalog())
