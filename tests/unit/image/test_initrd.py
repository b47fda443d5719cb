"""The initrd is an archive that the kernel can unpack, with the modules that were asked for."""

import lzma
import stat
from pathlib import Path

import pytest

from harness.errors import HostError, UsageError
from harness.host.deadline import Deadline
from harness.host.tools import find_tool
from harness.image.catalog import ModuleSet
from harness.image.initrd import check_modules, collect_modules, copy_module, make_initrd, module_file_name
from harness.image.kernel import KernelFiles
from tests.fakes.archive import members


def test_initrd_holds_init_busybox_console_and_modules(tmp_path: Path) -> None:
    modules = tmp_path / "6.99"
    (modules / "kernel").mkdir(parents=True)
    (modules / "kernel/a.ko").write_bytes(b"module")
    found = members(make_initrd(b"#!/bin/sh\n", b"busybox!", ["a", "b-c"], modules))
    assert found["init"] == (stat.S_IFREG | 0o755, b"#!/bin/sh\n")
    assert found["bin/busybox"] == (stat.S_IFREG | 0o755, b"busybox!")
    assert found["bin/sh"] == (stat.S_IFLNK | 0o777, b"busybox")
    assert stat.S_ISCHR(found["dev/console"][0])
    assert found["etc/load"][1] == b"a\nb_c\n"
    assert found["lib/modules/6.99/kernel/a.ko"][1] == b"module"


def test_folders_stand_before_what_is_in_them(tmp_path: Path) -> None:
    (tmp_path / "6.99/kernel/deep").mkdir(parents=True)
    (tmp_path / "6.99/kernel/deep/a.ko").write_bytes(b"x")
    names = list(members(make_initrd(b"", b"", [], tmp_path / "6.99")))
    for name in names:
        parent = name.rpartition("/")[0]
        assert not parent or names.index(parent) < names.index(name)


def test_same_parts_make_the_same_initrd(tmp_path: Path) -> None:
    (tmp_path / "6.99").mkdir()
    assert make_initrd(b"i", b"b", ["m"], tmp_path / "6.99") == make_initrd(b"i", b"b", ["m"], tmp_path / "6.99")


def test_module_that_is_nowhere_is_named(tmp_path: Path) -> None:
    kernel = KernelFiles(tmp_path / "bzImage", "6.99", {}, tmp_path)
    check_modules(kernel, ["nd-pmem"], {"nd_pmem"})
    with pytest.raises(UsageError, match=r"6\.99 has these neither as modules nor built in: xfs, rdma_rxe"):
        check_modules(kernel, ["nd_pmem", "xfs", "rdma_rxe"], {"nd_pmem"})


def test_module_is_uncompressed_under_its_plain_name(tmp_path: Path) -> None:
    (tmp_path / "a.ko.xz").write_bytes(lzma.compress(b"module"))
    copy_module(tmp_path / "a.ko.xz", tmp_path / "out/a.ko.xz", Deadline.after(30))
    assert (tmp_path / "out/a.ko").read_bytes() == b"module"
    assert module_file_name("b.ko") == "b.ko"


def test_module_compressed_in_another_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.ko.gz").write_bytes(b"")
    with pytest.raises(HostError, match="modules compressed like this cannot be read here; build them with"):
        copy_module(tmp_path / "a.ko.gz", tmp_path / "out/a.ko.gz", Deadline.after(30))


WANTED = ModuleSet(load=("virtio_blk",), available=("xfs",), optional=("brd",))


@pytest.mark.skipif(find_tool("depmod") is None, reason="depmod is not on this computer")
def test_a_kernel_without_modules_has_none_to_load_and_a_folder_that_says_so(tmp_path: Path) -> None:
    kernel = KernelFiles(tmp_path / "vmlinux", "6.99", {}, None)
    assert collect_modules(kernel, WANTED, (), tmp_path / "wanted", tmp_path / "scratch", Deadline.after(30)) == ()
    assert (tmp_path / "wanted/lib/modules/6.99/modules.dep").read_text() == ""


@pytest.mark.skipif(find_tool("depmod") is None, reason="depmod is not on this computer")
def test_what_is_built_in_is_not_missed_beside_modules(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "modules.order").touch()
    (tree / "modules.builtin").write_text("kernel/drivers/block/virtio_blk.ko\nkernel/fs/xfs/xfs.ko\n")
    kernel = KernelFiles(tree / "vmlinux", "6.99", {}, tree)
    assert collect_modules(kernel, WANTED, (), tmp_path / "wanted", tmp_path / "scratch", Deadline.after(30)) == ()


def test_modules_without_the_list_of_what_is_built_in_are_refused_with_the_way_out(tmp_path: Path) -> None:
    kernel = KernelFiles(tmp_path / "vmlinux", "6.99", {}, tmp_path)
    with pytest.raises(UsageError, match=r"has modules and no modules\.builtin: .*`make modules_install`"):
        collect_modules(kernel, WANTED, (), tmp_path / "wanted", tmp_path / "scratch", Deadline.after(30))
