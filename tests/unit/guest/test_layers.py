"""Layers in a scripted guest: how each is made, found, read back and undone, and every complaint."""

from dataclasses import replace

import pytest

from harness.errors import GuestError, StackMismatchError
from harness.guest.layers import MAKERS
from harness.guest.layout import PlacedVolume
from harness.model.filesystems import Filesystem
from harness.model.kinds import DaxOption
from harness.model.layers import Layer
from harness.model.stack import Mount, Namespace, StorageStack, Volume, find_mismatches
from tests.unit.guest.test_session import DAX, PLACEMENTS, REGION, FakeGuest

NEVER = Mount(Filesystem.EXT4, DaxOption.NEVER)
#: What sysfs has of each once it was made, and its folders.
DM = {"/sys/block/dm-0/dm/name": "main", "/sys/block/dm-0/queue/dax": "1", "/sys/block/dm-0/queue/logical_block_size": "512"}
SHOWN: dict[Layer, tuple[dict[str, str], tuple[str, ...]]] = {
    Layer.PARTITION: ({f"/sys/block/pmem0/pmem0p1/{name}": n for name, n in {"partition": "1", "start": "4096", "size": "8"}.items()}, ()),
    Layer.PARTITION_UNALIGNED: (
        {f"/sys/block/pmem0/pmem0p1/{name}": n for name, n in {"partition": "1", "start": "34", "size": "8"}.items()},
        (),
    ),
    Layer.DM_LINEAR: ({**DM, "/sys/block/dm-0/size": "8"}, ("/sys/block/dm-0/slaves/pmem0",)),
    Layer.DM_MIXED: ({**DM, "/sys/block/dm-0/size": "8"}, ("/sys/block/dm-0/slaves/pmem0", "/sys/block/dm-0/slaves/vdb")),
    Layer.LOOP: (
        {"/sys/block/loop1/loop/backing_file": "/srv/main/file", "/sys/block/loop1/queue/logical_block_size": "512"}
        | {"/sys/block/loop1/size": "8"},
        (),
    ),
}
NODES = {
    Layer.PARTITION: "/dev/pmem0p1",
    Layer.PARTITION_UNALIGNED: "/dev/pmem0p1",
    Layer.DM_LINEAR: "/dev/dm-0",
    Layer.DM_MIXED: "/dev/dm-0",
    Layer.LOOP: "/dev/loop1",
}
LAYERS = sorted(set(Layer) - {Layer.NONE})


def stack_with(layer: Layer) -> StorageStack:
    return StorageStack((Volume("main", Namespace(REGION), NEVER, layer),))


def guest_with(layer: Layer) -> FakeGuest:
    """A guest in which the layer is there once it was asked for, with the drivers of all."""
    guest = FakeGuest()
    files, folders = SHOWN[layer]
    guest.files.update({**files, "/dev/mapper/control": None, "/dev/loop-control": None, "/sys/block/vdb/serial": "main_half"})
    guest.folders.update({folder: folder for folder in folders})
    return guest


def layer_rows(guest: FakeGuest, stack: StorageStack) -> list[str]:
    return [line for line in find_mismatches(stack, guest.session.refresh()) if ": layer:" in line]


def test_every_layer_has_a_maker() -> None:
    assert set(MAKERS) == set(LAYERS) == set(SHOWN)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_is_made_and_the_file_system_on_it(layer: Layer) -> None:
    guest = guest_with(layer)
    guest.session.set_up(stack_with(layer), PLACEMENTS)
    assert layer_rows(guest, stack_with(layer)) == []
    (placed,) = guest.session.layout.volumes
    assert placed.node == NODES[layer]
    made = [command[-1] for command in guest.stream.commands() if command[0] == "mkfs.ext4"]
    assert made[-1] == placed.node
    assert guest.session.layout.devices == {"main": placed.node}


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_is_undone_before_the_next_set_up(layer: Layer) -> None:
    guest = guest_with(layer)
    guest.session.set_up(stack_with(layer), PLACEMENTS)
    guest.stream.asked.clear()
    guest.session.set_up(DAX, PLACEMENTS)
    undone = {"sfdisk": "--delete", "dmsetup": "remove", "losetup": "--detach"}
    assert [c[0] for c in guest.stream.commands() if undone.get(c[0], "") in c][:1] in (["sfdisk"], ["dmsetup"], ["losetup"])
    assert guest.session.layout.volumes == (PlacedVolume(DAX.main, "/dev/pmem0", "/mnt/main"),)


def test_the_disk_that_is_half_of_a_mapping_is_found_by_its_serial() -> None:
    guest = guest_with(Layer.DM_MIXED)
    guest.session.set_up(stack_with(Layer.DM_MIXED), PLACEMENTS)
    (made,) = [c for c in guest.stream.commands() if "dmsetup create" in " ".join(c)]
    assert made[3:] == ["/dev/pmem0", "/dev/vdb", "main"]
    assert [disk.name for disk in stack_with(Layer.DM_MIXED).disks] == ["main_half"]
    guest.files["/sys/block/vdb/serial"] = "disk"
    with pytest.raises(GuestError, match="no disk with the serial 'main_half'; it has: pmem-root, disk"):
        guest.session.set_up(stack_with(Layer.DM_MIXED), PLACEMENTS)


def test_a_kernel_that_cannot_make_a_layer_is_told_as_such() -> None:
    guest = guest_with(Layer.DM_LINEAR)
    del guest.files["/dev/mapper/control"]
    guest.failing["modprobe"] = "modprobe: FATAL: Module dm_mod not found"
    with pytest.raises(GuestError) as caught:
        guest.session.set_up(stack_with(Layer.DM_LINEAR), PLACEMENTS)
    assert str(caught.value) == (
        "the guest's kernel has no dm_mod: there is no /dev/mapper/control, and modprobe dm_mod ended with status 1 and said:"
        " modprobe: FATAL: Module dm_mod not found"
    )


def test_a_layer_of_which_no_device_comes_is_a_guest_error() -> None:
    guest = guest_with(Layer.LOOP)
    guest.files["/sys/block/loop1/loop/backing_file"] = "/another"
    with pytest.raises(GuestError, match=r"no device came of the layer loop on /dev/pmem0: no .*/backing_file says '/srv/main/file'"):
        guest.session.set_up(stack_with(Layer.LOOP), PLACEMENTS)


@pytest.mark.parametrize(
    ("layer", "change", "has"),
    [
        (Layer.PARTITION, {"/sys/block/pmem0/pmem0p1/start": "34"}, "partition_unaligned"),
        (Layer.PARTITION, {"/sys/block/pmem0/pmem0p1/size": "9"}, "partition_unaligned"),
        (Layer.LOOP, {"/sys/block/loop1/loop/backing_file": "/another"}, "none"),
    ],
)
def test_a_layer_that_is_not_the_one_asked_for_shows(layer: Layer, change: dict[str, str], has: str) -> None:
    guest = guest_with(layer)
    guest.session.set_up(stack_with(layer), PLACEMENTS)
    guest.files.update(change)
    assert layer_rows(guest, stack_with(layer)) == [f"main: layer: asked for {layer}, the guest has {has}"]


def test_a_clone_whose_layer_lost_its_device_is_refused() -> None:
    guest = guest_with(Layer.DM_LINEAR)
    guest.session.set_up(stack_with(Layer.DM_LINEAR), PLACEMENTS)
    saved = replace(guest.session.refresh(), facts=(("kernel taint", "0"),))
    guest.stream.asked.clear()
    guest.session.read_clone(saved)
    guest.folders["/sys/block/dm-0/slaves/vdb"] = "/sys/devices/vdb"
    with pytest.raises(StackMismatchError, match="main: layer: saved with dm_linear, now dm_mixed"):
        guest.session.read_clone(saved)


def test_a_layer_shows_in_the_words_for_a_stack() -> None:
    assert stack_with(Layer.LOOP).describe() == "e820 256MiB -> fsdax map=mem -> loop -> ext4 -> dax=never"
