"""Axes span variants: what has no meaning falls away, and what then is the same is one variant."""

import pytest

from harness.case.axes import make_variants, read_axes
from harness.case.tree import read_tree
from harness.errors import CaseError


def variant_ids(text: str, mount_in_program: bool = False) -> list[str]:
    return [variant.id for variant in make_variants(read_axes(read_tree(text, "axes.yaml")), mount_in_program)]


def test_region_defaults_to_both_and_the_file_system_to_ext4() -> None:
    assert variant_ids("storage: [dax]") == ["e820-fsdax-ext4-dax_always", "nvdimm-fsdax-ext4-dax_always"]


def test_a_disk_has_no_region_and_a_node_no_file_system() -> None:
    assert variant_ids("{storage: [node, disk], filesystem: [ext4, xfs]}") == [
        "e820-fsdax-node",
        "nvdimm-fsdax-node",
        "disk-ext4",
        "disk-xfs",
    ]


def test_a_dax_device_has_units_and_nothing_else_has() -> None:
    ids = variant_ids("{storage: [node, devdax, disk], region: [e820], namespace: [fsdax, raw], map: [mem, dev], align: [4KiB, 2MiB]}")
    devices = ["e820-devdax-4KiB", "e820-devdax-2MiB", "e820-devdax_dev-4KiB", "e820-devdax_dev-2MiB"]
    assert ids == ["e820-fsdax-node", *devices, "disk-ext4"]
    assert variant_ids("{storage: [devdax], region: [nvdimm], target: [disk]}") == [
        "nvdimm-devdax-4KiB-to_disk",
        "nvdimm-devdax-2MiB-to_disk",
    ]


def test_a_layer_stands_between_a_namespace_with_dax_and_a_file_system() -> None:
    assert variant_ids("{storage: [dax], region: [e820], layer: [none, dm_linear]}") == [
        "e820-fsdax-ext4-dax_always",
        "e820-fsdax-dm_linear-ext4-dax_always",
    ]
    assert variant_ids("{storage: [node, devdax, disk], region: [e820], layer: [none, loop], align: [4KiB]}") == [
        "e820-fsdax-node",
        "e820-devdax-4KiB",
        "disk-ext4",
    ]
    assert variant_ids("{storage: [no_dax], region: [nvdimm, nvdimm_unarmed], namespace: [fsdax, raw], layer: [partition]}") == [
        "nvdimm-fsdax-partition-ext4-dax_never"
    ]


def test_a_second_namespace_is_of_a_region_that_labels_divide() -> None:
    assert variant_ids("{storage: [dax, disk], region: [e820, nvdimm, nvdimm_unarmed, nvdimm_unlabelled], target: [second_namespace]}") == [
        "nvdimm-fsdax-ext4-dax_always-to_second_namespace"
    ]
    assert variant_ids("{storage: [node], region: [nvdimm], namespace: [raw, fsdax], target: [second_namespace_dax]}") == [
        "nvdimm-fsdax-node-to_second_namespace_dax"
    ]


def test_every_storage_has_its_word() -> None:
    ids = variant_ids("{storage: [dax, no_dax, inode, node, disk], region: [e820]}")
    assert ids == ["e820-fsdax-ext4-dax_always", "e820-fsdax-ext4-dax_never", "e820-fsdax-ext4-dax_inode", "e820-fsdax-node", "disk-ext4"]


def test_files_of_ext2_have_no_state_of_their_own() -> None:
    assert variant_ids("{storage: [dax, inode], region: [e820], filesystem: [ext2]}") == ["e820-fsdax-ext2-dax_always"]
    with pytest.raises(CaseError, match="the axes leave no variant"):
        variant_ids("{storage: [inode], filesystem: [ext2]}")


def test_a_format_belongs_to_file_systems_that_have_it_and_the_usual_one_has_no_word() -> None:
    ids = variant_ids("{storage: [no_dax, node, disk], region: [e820], filesystem: [ext4, xfs], format: [standard, encrypt, reflink]}")
    assert ids == [
        "e820-fsdax-ext4-dax_never",
        "e820-fsdax-ext4-encrypt-dax_never",
        "e820-fsdax-xfs-dax_never",
        "e820-fsdax-xfs-reflink-dax_never",
        "e820-fsdax-node",
        "disk-ext4",
        "disk-ext4-encrypt",
        "disk-xfs",
        "disk-xfs-reflink",
    ]
    with pytest.raises(CaseError, match="a file system has some of the formats only, and some of these no DAX"):
        variant_ids("{storage: [disk], filesystem: [xfs], format: [inline_data]}")


def test_a_format_without_dax_has_no_dax_mount_but_one_that_the_program_asks_for() -> None:
    text = "{storage: [dax, no_dax], region: [e820], format: [block_1k, journal_data]}"
    assert variant_ids(text) == ["e820-fsdax-ext4-block_1k-dax_never", "e820-fsdax-ext4-journal_data-dax_never"]
    assert variant_ids(text, mount_in_program=True) == ["e820-fsdax-ext4-block_1k-dax_always", "e820-fsdax-ext4-block_1k-dax_never"]


def test_an_e820_region_has_only_the_namespace_it_comes_with() -> None:
    ids = variant_ids("{storage: [node], namespace: [fsdax, raw, sector], map: [mem, dev]}")
    assert ids == ["e820-fsdax-node", "nvdimm-fsdax-node", "nvdimm-fsdax_dev-node", "nvdimm-raw-node", "nvdimm-sector-node"]


def test_a_disk_with_a_pmem_target_keeps_the_region_of_the_target() -> None:
    ids = variant_ids("{storage: [disk], target: [disk, second_pmem]}")
    assert ids == ["disk-ext4-to_disk", "disk-ext4-to_second_pmem_e820", "disk-ext4-to_second_pmem_nvdimm"]


def test_free_parameters_come_last_in_the_id() -> None:
    ids = variant_ids("{storage: [disk], length: [1000, 64KiB], at: [1MiB-1]}")
    assert ids == ["disk-ext4-length_1000-at_1MiB_1", "disk-ext4-length_64KiB-at_1MiB_1"]


def test_excluded_variants_are_left_out() -> None:
    ids = variant_ids("{storage: [dax, node], exclude: [{storage: node, region: [e820], reason: why}]}")
    assert ids == ["e820-fsdax-ext4-dax_always", "nvdimm-fsdax-ext4-dax_always", "nvdimm-fsdax-node"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{region: [e820]}", "needs the key 'storage'"),
        ("storage: dax", "the axis 'storage' must be a list with at least one value; accepted: dax, no_dax, inode, node, devdax, disk"),
        ("storage: []", "must be a list with at least one value"),
        ("storage: [dxa]", "unknown value 'dxa' of the axis 'storage'; did you mean dax?"),
        ("storage: [dax, dax]", "the axis 'storage' has the value 'dax' twice"),
        ("{storage: [node], namespace: [devdax]}", "unknown value 'devdax' of the axis 'namespace'; accepted: fsdax, raw, sector"),
        ("{storage: [devdax], align: [1GiB]}", "unknown value '1GiB' of the axis 'align'"),
        ("{storage: [dax], lenght: 5}", "the axis 'lenght' (a free parameter: $lenght; the axes that every case has are"),
        ("{storage: [dax], Length: [5]}", "the axis 'Length' needs a name of lower-case letters"),
        ("{storage: [dax], region: [e820], namespace: [raw]}", "the axes leave no variant"),
        ("{storage: [disk], n: [a-b, a+b, a b]}", "two variants would have the id 'disk-ext4-n_a_b'"),
        ("{storage: [dax], exclude: [{storage: dax, reason: why}]}", "the axes leave no variant"),
        ("{storage: [dax], exclude: [{storage: dax}]}", "an entry of exclude needs the key 'reason'"),
        ("{storage: [dax], exclude: [{reason: why}]}", "needs at least one axis besides its reason"),
        ("{storage: [dax], exclude: [{kernel: a, reason: why}]}", "exclude names the axis 'kernel', which this case does not have"),
        (
            "{storage: [dax], exclude: [{storage: node, reason: why}]}",
            "exclude names the value 'node', which the axis 'storage' does not have here",
        ),
        (
            "{storage: [disk, node], filesystem: [ext4, xfs], exclude: [{storage: node, filesystem: xfs, reason: w}]}",
            "exclude matches no variant: storage node, filesystem xfs",
        ),
    ],
)
def test_axes_that_cannot_be_meant_are_refused(text: str, problem: str) -> None:
    with pytest.raises(CaseError) as caught:
        variant_ids(text)
    assert str(caught.value).startswith("axes.yaml:1: ")
    assert problem in str(caught.value)
