"""A kernel's files tell what it is before it boots, and one that will not do is refused with the reason."""

import bz2
import gzip
import lzma
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import HostError, UsageError
from harness.host.deadline import Deadline
from harness.host.tools import find_tool
from harness.image.kernel import (
    KernelFiles,
    check_options,
    find_kernel_files,
    has_pvh_note,
    is_vmlinux,
    missing_options,
    module_closure,
    module_name,
    parse_config,
    read_release,
    stripped_kernel,
    uncompressed_kernel,
    usable_options,
)

from .kernels import RELEASE, bzimage, elf, vmlinux, write_kernel

SIZE = struct.pack("<I", len(elf()))


def soon() -> Deadline:
    return Deadline.after(120)


def test_release_is_read_from_the_setup_header(tmp_path: Path) -> None:
    assert read_release(write_kernel(tmp_path)) == RELEASE


@pytest.mark.parametrize(
    "payload",
    [
        gzip.compress(elf()) + SIZE,
        lzma.compress(elf()) + SIZE,
        lzma.compress(elf(), format=lzma.FORMAT_ALONE) + SIZE,
        bz2.compress(elf()) + SIZE,
        elf(),
    ],
    ids=["gzip", "xz", "lzma", "bzip2", "plain"],
)
def test_uncompressed_kernel_is_what_was_compressed(tmp_path: Path, payload: bytes) -> None:
    assert uncompressed_kernel(write_kernel(tmp_path, payload=payload), soon()) == elf()


def test_unknown_compression_shows_how_it_starts(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"compressed in a way not known here \(it starts with 6162"):
        uncompressed_kernel(write_kernel(tmp_path, payload=b"abcdefgh"), soon())


def test_damaged_kernel_is_said_to_be_damaged(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="is damaged"):
        uncompressed_kernel(write_kernel(tmp_path, payload=b"\x1f\x8b" + b"\xff" * 40), soon())


@pytest.mark.parametrize("magic", [b"\x28\xb5\x2f\xfd", b"\x02\x21\x4c\x18"])
def test_kernel_that_a_tool_cannot_uncompress_is_reported(tmp_path: Path, magic: bytes) -> None:
    with pytest.raises(HostError, match=r"(could not uncompress the kernel inside|is not on this computer)"):
        uncompressed_kernel(write_kernel(tmp_path, payload=magic + b"\xff" * 40), soon())


def test_pvh_note_is_found_and_others_are_not_taken_for_it() -> None:
    assert has_pvh_note(elf())
    assert not has_pvh_note(elf(note_type=17))
    assert not has_pvh_note(elf(name=b"Abc\0"))
    assert not has_pvh_note(b"MZ")


@pytest.mark.parametrize("content", [b"", b"\x7fELF" + bytes(2000)])
def test_file_that_is_no_bzimage_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(UsageError, match=r"(is neither a bzImage of an x86 kernel nor|no vmlinux of an x86-64 kernel)"):
        find_kernel_files(tmp_path / "file")


def test_bzimage_finds_options_beside_it_and_modules_of_its_release(tmp_path: Path) -> None:
    image = write_kernel(tmp_path / "boot")
    modules = tmp_path / "lib/modules" / RELEASE
    modules.mkdir(parents=True)
    (modules / "modules.order").write_text("")
    assert find_kernel_files(image) == KernelFiles(image, RELEASE, {"A": "y"}, modules)
    assert find_kernel_files(tmp_path) == KernelFiles(image, RELEASE, {"A": "y"}, modules)


def test_kernel_beside_its_modules_is_found(tmp_path: Path) -> None:
    modules = tmp_path / "usr/lib/modules" / RELEASE
    modules.mkdir(parents=True)
    (modules / "vmlinuz").write_bytes(bzimage())
    (modules / "config").write_text("CONFIG_B=m\n")
    (modules / "modules.order").write_text("")
    expected = KernelFiles(modules / "vmlinuz", RELEASE, {"B": "m"}, modules)
    assert find_kernel_files(tmp_path) == expected
    assert find_kernel_files(modules / "vmlinuz") == expected


def test_build_tree_has_its_options_and_modules(tmp_path: Path) -> None:
    image = tmp_path / "arch/x86/boot/bzImage"
    image.parent.mkdir(parents=True)
    image.write_bytes(bzimage())
    (tmp_path / ".config").write_text('CONFIG_A=m\n# CONFIG_B is not set\nCONFIG_C="text"\n')
    assert find_kernel_files(tmp_path) == KernelFiles(image, RELEASE, {"A": "m", "C": "text"}, None)
    (tmp_path / "modules.order").write_text("")
    assert find_kernel_files(tmp_path).modules == tmp_path
    assert find_kernel_files(image) == find_kernel_files(tmp_path)


def test_options_inside_the_kernel_are_found(tmp_path: Path) -> None:
    embedded = elf(more=b"IKCFG_ST" + gzip.compress(b"CONFIG_INSIDE=y\n") + b"IKCFG_ED")
    image = write_kernel(tmp_path, config=None, payload=gzip.compress(embedded) + SIZE)
    assert find_kernel_files(image).config == {"INSIDE": "y"}


def test_kernel_without_any_options_is_refused_with_the_ways_out(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"put its configuration beside it as config-{RELEASE}, or build it with CONFIG_IKCONFIG"):
        find_kernel_files(write_kernel(tmp_path, config=None))


def test_damaged_options_inside_the_kernel_count_as_none(tmp_path: Path) -> None:
    image = write_kernel(tmp_path, config=None, payload=gzip.compress(elf(more=b"IKCFG_STnonsense")) + SIZE)
    with pytest.raises(UsageError, match="cannot tell how"):
        find_kernel_files(image)


def test_folder_without_a_kernel_is_told_what_is_looked_for(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no kernel in .*arch/x86/boot/bzImage"):
        find_kernel_files(tmp_path)


def test_folder_with_several_kernels_asks_which(tmp_path: Path) -> None:
    write_kernel(tmp_path / "boot")
    (tmp_path / "boot/vmlinuz-other").write_bytes(bzimage(release="other"))
    with pytest.raises(UsageError, match=r"holds several kernels \(boot/vmlinuz-6\.99\.0-test, boot/vmlinuz-other\)"):
        find_kernel_files(tmp_path)


# ---- a vmlinux -------------------------------------------------------------------------------------------------------


def test_a_vmlinux_says_its_release_and_is_its_own_uncompressed_kernel(tmp_path: Path) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(vmlinux())
    assert read_release(path) == RELEASE
    assert uncompressed_kernel(path, soon()) == vmlinux()
    assert is_vmlinux(path)
    assert not is_vmlinux(write_kernel(tmp_path))


@pytest.mark.parametrize("name", [f"config-{RELEASE}", "config", ".config"])
def test_a_vmlinux_has_its_options_beside_it(tmp_path: Path, name: str) -> None:
    (tmp_path / "vmlinux").write_bytes(vmlinux())
    (tmp_path / name).write_text("CONFIG_A=y\n")
    assert find_kernel_files(tmp_path / "vmlinux") == KernelFiles(tmp_path / "vmlinux", RELEASE, {"A": "y"}, None)
    assert find_kernel_files(tmp_path) == find_kernel_files(tmp_path / "vmlinux")


def test_a_vmlinux_may_carry_its_options(tmp_path: Path) -> None:
    (tmp_path / "kernel").write_bytes(vmlinux("CONFIG_INSIDE=y\n"))
    assert find_kernel_files(tmp_path / "kernel").config == {"INSIDE": "y"}


def test_a_vmlinux_without_options_names_every_place_that_was_looked_at(tmp_path: Path) -> None:
    (tmp_path / "vmlinux").write_bytes(vmlinux())
    with pytest.raises(UsageError) as caught:
        find_kernel_files(tmp_path / "vmlinux")
    assert f"none of {tmp_path}/config-{RELEASE}, {tmp_path}/config, {tmp_path}/.config, and the kernel does not carry" in str(caught.value)


def test_a_vmlinux_finds_modules_of_its_release_and_those_of_its_build_tree(tmp_path: Path) -> None:
    modules = tmp_path / "lib/modules" / RELEASE
    modules.mkdir(parents=True)
    (modules / "modules.order").touch()
    (tmp_path / "vmlinux").write_bytes(vmlinux("CONFIG_A=y\n"))
    assert find_kernel_files(tmp_path).modules == modules
    (tmp_path / "modules.order").touch()
    (tmp_path / ".config").write_text("CONFIG_A=m\n")
    assert find_kernel_files(tmp_path).modules == tmp_path


def test_a_vmlinux_that_qemu_cannot_start_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "vmlinux").write_bytes(vmlinux(note_type=17))
    with pytest.raises(UsageError, match=r"has no PVH note, .*: build it with CONFIG_PVH, or give the bzImage"):
        find_kernel_files(tmp_path / "vmlinux")


def test_a_vmlinux_that_was_not_copied_whole_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vmlinux").write_bytes(vmlinux()[:64] + b"Linux version 6.99 (me@here)")
    with pytest.raises(UsageError, match="vmlinux is damaged: its headers point behind its end"):
        find_kernel_files(tmp_path / "vmlinux")


def test_an_elf_file_that_is_no_kernel_is_refused(tmp_path: Path) -> None:
    (tmp_path / "program").write_bytes(vmlinux(banner=b""))
    with pytest.raises(UsageError, match="is an ELF file, but no vmlinux of an x86-64 kernel"):
        find_kernel_files(tmp_path / "program")


def test_a_vmlinux_that_is_built_anew_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(vmlinux("CONFIG_A=y\n"))
    assert find_kernel_files(path).config == {"A": "y"}
    path.write_bytes(vmlinux("CONFIG_AB=y\n", banner=b"Linux version 7.0.0 (me@here)\0"))
    assert (find_kernel_files(path).release, find_kernel_files(path).config) == ("7.0.0", {"AB": "y"})


def test_symbols_and_debug_information_are_left_out_of_a_vmlinux(tmp_path: Path) -> None:
    image = find_tool("true")
    assert image is not None
    kept = stripped_kernel(image, tmp_path, soon())
    assert kept[:4] == b"\x7fELF"
    assert b".symtab" not in kept
    assert list(tmp_path.iterdir()) == []


def test_what_is_inside_a_bzimage_is_left_as_it_is(tmp_path: Path) -> None:
    inside = elf(more=b"a kernel knows the word .symtab")
    image = write_kernel(tmp_path, payload=gzip.compress(inside) + SIZE)
    assert stripped_kernel(image, tmp_path, soon()) == inside


def test_a_module_of_a_kernel_without_modules_is_an_option_that_is_not_there(tmp_path: Path) -> None:
    kernel = KernelFiles(tmp_path, RELEASE, {"A": "y", "B": "m", "C": "7"}, None)
    assert usable_options(kernel) == {"A": "y", "C": "7"}
    assert usable_options(replace(kernel, modules=tmp_path)) == kernel.config


# ---- options and modules ---------------------------------------------------------------------------------------------


def test_missing_options_are_listed_with_what_they_are_for(tmp_path: Path) -> None:
    kernel = find_kernel_files(write_kernel(tmp_path, "CONFIG_A=y\nCONFIG_B=m\nCONFIG_D=n\n"))
    needed = {"A": "one", "B": "two", "C": "three", "D": "four"}
    assert missing_options(kernel.config, needed) == ("CONFIG_C (three)", "CONFIG_D (four)")
    with pytest.raises(UsageError, match=r"cannot be tested, it was built without:\n  CONFIG_C \(three\)\n  CONFIG_D \(four\)"):
        check_options(kernel, needed)


def test_modular_kernel_without_modules_is_refused(tmp_path: Path) -> None:
    kernel = find_kernel_files(write_kernel(tmp_path, "CONFIG_A=y\nCONFIG_B=m\n"))
    check_options(kernel, {"A": "one"})
    with pytest.raises(UsageError, match=r"no modules were found beside it: CONFIG_B\. Give the build tree"):
        check_options(kernel, {"A": "one", "B": "two"})


def test_config_text_leaves_out_what_is_not_set() -> None:
    assert parse_config('# CONFIG_X is not set\nCONFIG_Y=m\nCONFIG_Z="a b"\nnoise\n') == {"Y": "m", "Z": "a b"}


def test_module_is_named_alike_however_its_file_is_spelled() -> None:
    assert {module_name(name) for name in ("pvpanic-pci", "pvpanic_pci", "kernel/a/pvpanic-pci.ko.xz", "pvpanic-pci.ko")} == {"pvpanic_pci"}


def test_modules_bring_what_they_depend_on_and_unknown_ones_nothing() -> None:
    dependencies = {"k/a.ko": ("k/b-x.ko", "k/c.ko"), "k/b-x.ko": ("k/c.ko",), "k/c.ko": (), "k/d.ko": ()}
    assert module_closure(["a", "nowhere"], dependencies) == ("k/a.ko", "k/b-x.ko", "k/c.ko")
    assert module_closure(["b_x"], dependencies) == ("k/b-x.ko", "k/c.ko")
