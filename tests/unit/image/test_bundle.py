"""What is in the store is used as it is; what is not there is named."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.image import bundle
from harness.image.bundle import entry_names, guest_image, is_built, remove_stored_entry, stored_entries, why_not_compiled
from harness.image.catalog import KernelChoice, load_catalog

from .kernels import vmlinux, write_kernel

CATALOG = load_catalog()
CHOICE = KernelChoice("debian_6.12")


def silent(_: str) -> None:
    pass


def fill(store: Path, choice: KernelChoice = CHOICE) -> None:
    """Write entries as a build would leave them."""
    rootfs, kernel = (store / name for name in entry_names(choice, CATALOG))
    rootfs.mkdir(parents=True)
    kernel.mkdir()
    (rootfs / "manifest.json").write_text(json.dumps({"format": 1, "packages": {"ndctl": "81"}, "sha256": "r"}))
    (rootfs / "host_key.pub").write_text("ssh-ed25519 AAAA guest\n")
    facts = {"format": 1, "release": "6.12.1-x", "pvh": True, "packages": {"linux-image-x": "6.12.1-1"}, "sha256": {"initrd": "i"}}
    (kernel / "manifest.json").write_text(json.dumps(facts))
    (kernel / "config").write_text(json.dumps({"FS_DAX": "y"}))


def test_stored_image_is_returned_without_building(tmp_path: Path) -> None:
    fill(tmp_path)
    image = guest_image(CHOICE, silent, CATALOG, tmp_path)
    assert (image.kernel, image.release, image.pvh) == ("debian_6.12", "6.12.1-x", True)
    assert image.boot_kernel.name == "vmlinux"
    assert image.host_public_key == "ssh-ed25519 AAAA guest"
    assert image.packages == {"ndctl": "81", "linux-image-x": "6.12.1-1"}
    assert image.sha256 == {"initrd": "i", "rootfs": "r"}
    assert image.config == {"FS_DAX": "y"}
    assert image.bzimage is None
    (image.initrd.parent / "bzImage").touch()
    assert guest_image(CHOICE, silent, CATALOG, tmp_path).bzimage == image.initrd.parent / "bzImage"
    assert image.mkfs == CATALOG.mkfs


def test_a_kernel_may_have_a_file_system_made_in_its_own_way(tmp_path: Path) -> None:
    choice = KernelChoice("debian_5.10")
    fill(tmp_path, choice)
    image = guest_image(choice, silent, CATALOG, tmp_path)
    assert image.mkfs["ext4"] == CATALOG.mkfs["ext4"]
    # Otherwise it is made as for all.
    assert " ".join(image.mkfs["xfs"]).replace("reflink=0", "reflink=1") == " ".join(CATALOG.mkfs["xfs"])


def test_image_counts_as_built_when_both_entries_are_there(tmp_path: Path) -> None:
    assert not is_built(CHOICE, CATALOG, tmp_path)
    fill(tmp_path)
    assert is_built(CHOICE, CATALOG, tmp_path)
    assert not is_built(KernelChoice("debian_6.1"), CATALOG, tmp_path)


def test_entries_are_listed_with_versions_and_removed_by_name(tmp_path: Path) -> None:
    fill(tmp_path)
    entries = stored_entries(tmp_path)
    assert [(entry.release, entry.version) for entry in entries] == [("6.12.1-x", "6.12.1-1"), ("", "")]
    assert all(entry.size_bytes > 0 for entry in entries)
    remove_stored_entry(entries[0].name, silent, tmp_path)
    assert stored_entries(tmp_path) == entries[1:]


def test_removing_what_is_not_there_names_what_is(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no image 'x'; there are: none"):
        remove_stored_entry("x", silent, tmp_path)
    fill(tmp_path)
    with pytest.raises(UsageError, match=r"no image '\.\.'; there are: debian_6\.12-"):
        remove_stored_entry("..", silent, tmp_path)


def test_kernels_have_entries_of_their_own_and_share_the_root_file_system() -> None:
    first, second = entry_names(CHOICE, CATALOG), entry_names(KernelChoice("debian_6.1"), CATALOG)
    assert first[0] == second[0]
    assert first[1] != second[1]


def test_a_kernel_of_another_version_has_another_entry() -> None:
    kernels = {**CATALOG.kernels, "debian_6.16": replace(CATALOG.kernels["debian_6.16"], version="6.16.3")}
    choice = KernelChoice("debian_6.16")
    assert entry_names(choice, replace(CATALOG, kernels=kernels))[1] != entry_names(choice, CATALOG)[1]


def test_a_kernel_from_source_has_another_entry_when_anything_that_shapes_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = tmp_path / "images"
    shutil.copytree(CATALOG.folder, images)
    catalog = load_catalog(images)
    choice, patch = KernelChoice("source_6.12"), tmp_path / "fix.patch"
    patched = replace(choice, name="source_6.12+fix", patches=(patch,))
    patch.write_text("one")
    monkeypatch.setattr(bundle, "compiler_version", lambda: "gcc 12")

    def names() -> set[str]:
        return {entry_names(of, catalog)[1] for of in (choice, patched)}

    before = names()
    assert names() == before
    patch.write_text("other")
    assert len(names() & before) == 1
    (images / "fragments/ext2.config").write_text("CONFIG_EXT2_FS=y\n")
    assert not names() & before
    compiled = names()
    monkeypatch.setattr(bundle, "compiler_version", lambda: "gcc 14")
    assert not names() & compiled


def test_a_kernel_from_source_is_compiled_only_where_that_is_asked_for(tmp_path: Path) -> None:
    patch = tmp_path / "fix.patch"
    patch.touch()
    choice = KernelChoice("source_6.12+fix", patches=(patch,))
    with pytest.raises(UsageError, match=rf"source_6.12\+fix is not built, .*images build --kernel source_6.12 --patch {patch}$"):
        guest_image(choice, silent, CATALOG, tmp_path)
    fill(tmp_path, choice)
    assert guest_image(choice, silent, CATALOG, tmp_path).kernel == "source_6.12+fix"
    assert why_not_compiled(CHOICE, CATALOG, tmp_path) is None


def test_own_kernel_gets_another_entry_when_it_is_built_anew(tmp_path: Path) -> None:
    image = write_kernel(tmp_path)
    choice = KernelChoice("own_vmlinuz", image)
    before = entry_names(choice, CATALOG)[1]
    assert entry_names(choice, CATALOG)[1] == before
    write_kernel(tmp_path, "CONFIG_A=m\n")
    assert entry_names(choice, CATALOG)[1] != before


def test_own_vmlinux_gets_another_entry_when_it_is_built_anew(tmp_path: Path) -> None:
    image = tmp_path / "vmlinux"
    image.write_bytes(vmlinux("CONFIG_A=y\n"))
    choice = KernelChoice("own_vmlinux", image)
    before = entry_names(choice, CATALOG)[1]
    assert entry_names(choice, CATALOG)[1] == before
    image.write_bytes(vmlinux("CONFIG_A=y\n") + b"more")
    assert entry_names(choice, CATALOG)[1] != before
