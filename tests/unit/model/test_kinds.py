"""Every kind has a whole record, and what is asked of a kind is in it."""

import pytest

from harness.model.facts import FACTS
from harness.model.filesystems import FILESYSTEM_TRAITS, NODE, Filesystem, filesystem_traits
from harness.model.kinds import Alignment, NamespaceMode, RegionKind, is_dax_device, is_synchronous
from harness.model.layers import Layer, LayerTraits
from harness.model.mount_facts import fact_of_mount
from harness.model.stack import dax_mode
from tests.unit.model.stacks import env, volume


@pytest.mark.parametrize("filesystem", Filesystem)
def test_a_file_system_that_a_case_can_ask_for_has_a_whole_record(filesystem: Filesystem) -> None:
    traits = filesystem.traits
    assert traits.without_dax is not None
    assert traits.without_dax_source
    assert traits.checker is not None
    assert traits.package
    assert traits.complaints
    assert fact_of_mount(filesystem) in FACTS


def test_a_volume_without_a_file_system_is_a_node_and_an_unknown_name_has_no_record() -> None:
    assert filesystem_traits(None) is NODE
    assert filesystem_traits("tmpfs") is FILESYSTEM_TRAITS["tmpfs"]
    with pytest.raises(KeyError, match="minix"):
        filesystem_traits("minix")


def test_what_a_table_means_that_shows_no_dax_option_is_the_file_systems() -> None:
    shown = volume(mount_options=("rw",))
    assert dax_mode(shown, filesystem_traits("ext4")) == "inode"
    assert dax_mode(shown, filesystem_traits("tmpfs")) == "never"
    assert dax_mode(volume(mount_options=("rw", "dax")), filesystem_traits("xfs")) == "always"


@pytest.mark.parametrize("kind", RegionKind)
def test_a_region_of_each_kind_can_be_had_in_some_mode(kind: RegionKind) -> None:
    assert kind.traits.provider
    assert kind.traits.namespaces


def test_a_mode_that_has_no_page_map_cannot_be_accessed_directly() -> None:
    assert [mode for mode in NamespaceMode if mode.traits.queue_dax and not mode.traits.has_page_map] == []


def test_a_dax_device_has_struct_pages_no_queue_and_units() -> None:
    assert [mode for mode in NamespaceMode if mode.traits.dax_device] == [NamespaceMode.DEVDAX]
    traits = NamespaceMode.DEVDAX.traits
    assert traits.has_page_map
    assert not traits.queue_dax
    assert [is_dax_device(mode) for mode in ("devdax", "fsdax", "memory", None)] == [True, False, False, False]
    assert [alignment.bytes for alignment in Alignment] == [4096, 2 << 20]


def test_what_a_layer_gives_its_queue_says() -> None:
    assert [layer for layer in Layer if layer.traits.gives_dax and not layer.traits.queue_dax] == []
    assert Layer.NONE.traits == LayerTraits()


def test_map_sync_is_given_where_file_system_and_region_are_synchronous() -> None:
    assert all(is_synchronous(kind.traits.provider) == kind.traits.synchronous for kind in RegionKind)
    assert is_synchronous(None)
    assert env(volume(dax=True)).fact("map_sync", "main")
    assert not env(volume(dax=False)).fact("map_sync", "main")
    assert env(volume(filesystem=None, namespace_mode="devdax", provider=None)).fact("map_sync", "main")
