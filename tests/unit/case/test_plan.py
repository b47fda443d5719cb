"""A variant becomes a stack, a program with its pins, and decisions."""

import pytest

from harness.case.case import Family
from harness.case.claims import read_family
from harness.case.plan import Cell, make_matrix, make_plans, named_stacks, unexplained_cells
from harness.errors import CaseError
from harness.model.claims import Decision, Growth, HoldsIf, Pages, Range
from harness.model.filesystems import Filesystem
from harness.model.kinds import DaxOption, NamespaceMode, PageMap, RegionKind
from harness.model.stack import MAIN, TARGET, Disk, Mount, Namespace, Region, Volume
from harness.ops import Pin
from harness.record.item import Target, make_item
from harness.sizes import KIB, MIB
from tests.unit.case.sample import HEAD, plans, sample

FSYNC = "  - fsync: {file: f}\n"


def head(axes: str, more: str = "") -> str:
    return f"title: A sample\naxes: {{{axes}}}\n{more}"


# ---- stacks ----------------------------------------------------------------------------------------------------------


def test_a_dax_variant_mounts_the_namespace_of_its_region_with_dax_always() -> None:
    plan = plans(FSYNC, head("storage: [dax], region: [nvdimm], filesystem: [xfs], map: [dev]"))["nvdimm-fsdax_dev-xfs-dax_always"]
    region = Region("main", RegionKind.NVDIMM, 256 * MIB, 2 * MIB)
    namespace = Namespace(region, NamespaceMode.FSDAX, PageMap.DEV)
    assert plan.stack.volumes == (Volume(MAIN, namespace, Mount(Filesystem.XFS, DaxOption.ALWAYS)),)


def test_a_node_has_no_mount_and_an_e820_region_no_label_area() -> None:
    (volume,) = plans(FSYNC, head("storage: [node], region: [e820]"))["e820-fsdax-node"].stack.volumes
    assert volume == Volume(MAIN, Namespace(Region("main", RegionKind.E820, 256 * MIB, 0)), None)


def test_a_raw_namespace_has_no_page_map() -> None:
    (volume,) = plans(FSYNC, head("storage: [no_dax], namespace: [raw]"))["nvdimm-raw-ext4-dax_never"].stack.volumes
    assert isinstance(volume.device, Namespace)
    assert (volume.device.mode, volume.device.map) == (NamespaceMode.RAW, None)


def test_the_target_is_a_second_device_with_ext4() -> None:
    found = plans(FSYNC, head("storage: [no_dax, disk], region: [e820], target: [disk, second_pmem, second_pmem_dax]"))
    second = Namespace(Region("second", RegionKind.E820))
    targets = {plan_id: plan.stack.volumes[1] for plan_id, plan in found.items()}
    assert targets["e820-fsdax-ext4-dax_never-to_disk"] == Volume(TARGET, Disk("disk"), Mount(Filesystem.EXT4, None))
    assert targets["disk-ext4-to_disk"] == Volume(TARGET, Disk("second_disk"), Mount(Filesystem.EXT4, None))
    assert targets["e820-fsdax-ext4-dax_never-to_second_pmem"] == Volume(TARGET, second, Mount(Filesystem.EXT4, DaxOption.NEVER))
    assert targets["disk-ext4-to_second_pmem_dax_e820"] == Volume(TARGET, second, Mount(Filesystem.EXT4, DaxOption.ALWAYS))


def test_mounting_can_be_left_to_the_program_and_a_pci_device_asked_for() -> None:
    (plan,) = plans(FSYNC, head("storage: [disk]", "mount_in_program: true\nneeds: {ivshmem: true}\n")).values()
    assert (plan.stack.mount_in_program, plan.stack.ivshmem) == (True, True)


def test_variants_are_for_a_full_run_where_the_case_says_so() -> None:
    found = plans(FSYNC, head("storage: [dax, disk], region: [e820, virtio_pmem]", "full: {region: virtio_pmem}\n"))
    assert {plan_id for plan_id, plan in found.items() if plan.full_only} == {"virtio_pmem-fsdax-ext4-dax_always"}
    assert all(plan.full_only for plan in plans(FSYNC, head("storage: [dax, disk]", "full: {}\n")).values())
    with pytest.raises(CaseError, match="full matches no variant: region e820, storage disk"):
        plans(FSYNC, head("storage: [dax, disk]", "full: {region: e820, storage: disk}\n"))


def test_a_region_that_is_read_only_is_mounted_by_the_program_or_used_as_a_node() -> None:
    plans(FSYNC, head("storage: [node], region: [nvdimm_unarmed]"))
    plans(FSYNC, head("storage: [dax], region: [nvdimm_unarmed]", "mount_in_program: true\n"))
    with pytest.raises(CaseError, match="a region of the kind nvdimm_unarmed is read-only, and set-up mounts to write: mount_in_program"):
        plans(FSYNC, head("storage: [dax], region: [nvdimm_unarmed]"))
    plans(FSYNC, head("storage: [dax], region: [nvdimm_unarmed], filesystem: [erofs]"))
    named = [name for name in named_stacks() if "unarmed" in name]
    assert all(name.endswith("-node") or "-erofs-" in name for name in named)
    assert {"nvdimm_unarmed-fsdax-node", "nvdimm_unarmed-fsdax-erofs-dax_always"} <= set(named)


def test_a_dax_mount_by_set_up_asks_for_a_kernel_that_knows_it() -> None:
    asked = plans(FSYNC, head("storage: [dax, no_dax, disk], region: [e820], filesystem: [erofs]"))
    assert {name: plan.needs.since for name, plan in asked.items()} == {
        "e820-fsdax-erofs-dax_always": (5, 15),
        "e820-fsdax-erofs-dax_never": (0, 0),
        "disk-erofs": (0, 0),
    }
    assert {plan.needs.kernel_options for plan in asked.values()} == {("CONFIG_EROFS_FS",)}
    assert all(plan.full_only for plan in asked.values())
    (own,) = plans(FSYNC, head("storage: [dax], region: [e820], filesystem: [erofs]", "mount_in_program: true\n")).values()
    assert own.needs.since == (0, 0)


def test_a_layer_is_between_the_namespace_and_what_is_mounted_and_asks_for_its_driver() -> None:
    (plan,) = plans(FSYNC, head("storage: [no_dax], region: [e820], layer: [dm_mixed]")).values()
    assert plan.stack.describe() == "e820 256MiB -> fsdax map=mem -> dm_mixed -> ext4 -> dax=never"
    assert [disk.name for disk in plan.stack.disks] == ["main_half"]
    assert plan.needs.kernel_options == ("CONFIG_BLK_DEV_DM",)


def test_two_namespaces_are_halves_of_one_region() -> None:
    (plan,) = plans(FSYNC, head("storage: [dax], region: [nvdimm], target: [second_namespace]")).values()
    assert plan.stack.describe() == (
        "nvdimm 256MiB -> fsdax map=mem half=0 -> ext4 -> dax=always; target: nvdimm 256MiB -> fsdax map=mem half=1 -> ext4 -> dax=never"
    )
    assert [region.name for region in plan.stack.regions] == ["main"]
    assert [[one.half for one in row] for row in plan.stack.namespaces] == [[0, 1]]


def test_no_stack_has_a_name_that_asks_for_dax_on_a_layer_without_it() -> None:
    named = named_stacks()
    assert {"e820-fsdax-loop-ext4-dax_never", "e820-fsdax-dm_linear-ext4-dax_always"} <= set(named)
    assert not [name for name in named if "-loop-" in name and name.endswith("dax_always")]


def test_every_stack_has_a_name() -> None:
    found = named_stacks()
    assert found["nvdimm-fsdax_dev-xfs-dax_always"].describe() == "nvdimm 256MiB -> fsdax map=dev -> xfs -> dax=always"
    assert found["disk-ext4"].describe() == "virtio disk 256MiB -> ext4"
    assert found["e820-fsdax-ext4-verity-dax_always"].describe() == "e820 256MiB -> fsdax map=mem -> ext4 verity -> dax=always"
    assert not [stack for stack in found.values() if len(stack.volumes) != 1]


# ---- parameters and pins ---------------------------------------------------------------------------------------------


def test_parameters_stand_in_arguments_pins_and_sums() -> None:
    step = "  - {pread: {file: f, offset: $at+1, length: $length}, expect: {returns: $length}}\n"
    found = plans(step, head("storage: [disk], length: [1000, 4KiB], at: [1KiB]"))
    steps = {plan_id: plan.program.steps[1] for plan_id, plan in found.items()}
    assert steps["disk-ext4-length_1000-at_1KiB"].pin == Pin(returns=1000)
    assert (steps["disk-ext4-length_4KiB-at_1KiB"].operation.offset, steps["disk-ext4-length_4KiB-at_1KiB"].pin) == (  # type: ignore[attr-defined]
        KIB + 1,
        Pin(returns=4 * KIB),
    )


def test_the_axes_that_every_case_has_are_parameters_too() -> None:
    found = plans(
        "  - mount: {filesystem: $filesystem, options: dax}\n", head("storage: [disk], filesystem: [xfs]", "mount_in_program: true\n")
    )
    assert found["disk-xfs"].program.steps[1].operation.filesystem == "xfs"  # type: ignore[attr-defined]


def pins(expect: str, axes: str = "storage: [dax, node, disk], region: [e820]") -> list[Pin | None]:
    return [plan.program.steps[1].pin for plan in plans(f"  - {{fsync: {{file: f}}, expect: {expect}}}\n", head(axes)).values()]


def test_a_pin_can_depend_on_the_storage() -> None:
    assert pins("{dax: {returns: 0}, otherwise: {errno: EINVAL}}") == [Pin(returns=0), Pin(errno="EINVAL"), Pin(errno="EINVAL")]


def test_a_variant_that_expect_does_not_speak_of_has_no_pin() -> None:
    assert pins("{node: {signal: SIGBUS}}") == [None, Pin(signal="SIGBUS"), None]


def test_a_pin_can_depend_on_any_axis_and_the_first_match_wins() -> None:
    found = pins("[{blocked: true}, {when: {n: 1}, returns: 1}, {when: {storage: disk}, returns: 2}]", "storage: [disk], n: [1, 2]")
    assert found == [Pin(returns=1), Pin(returns=2)]
    assert pins("[{when: {n: 1}, returns: 1}, {blocked: true}]", "storage: [disk], n: [1, 2]") == [Pin(returns=1), Pin(blocked=True)]


# ---- decisions -------------------------------------------------------------------------------------------------------

#: Steps that show what a key of holds_if asks for.
SHOWING = {
    "attribute": "statx: {file: f}",
    "resident": "mincore: {mapping: m}",
    "frames_in_region": "pagemap: {mapping: m}",
    "minor_faults": "load: {mapping: m, offset: 0, length: 8}",
}
DECIDED = "  - {pwrite: {file: f, offset: 0, length: 8}, id: first}\n  - {pread: {file: f, offset: 0, length: 8}, id: second}\n"


def decide(entry: str) -> dict[str, tuple[Decision, ...]]:
    return {plan_id: plan.decisions for plan_id, plan in plans(DECIDED, HEAD + f"decides:\n  - {entry}\n").items()}


def test_a_decision_is_made_for_the_variants_that_where_names() -> None:
    found = decide("{claim: it_works, where: {storage: dax}, step: second, holds_if: {returns: 8}}")
    assert found == {
        "e820-fsdax-ext4-dax_always": (Decision("it_works", 2, HoldsIf(returns=Range(8, 8))),),
        "e820-fsdax-node": (),
    }


def test_an_item_names_each_claim_that_it_decides_once() -> None:
    entry = "{claim: it_works, step: second, holds_if: {returns: 8}}"
    (plan, _) = make_plans(sample(DECIDED, HEAD + f"decides:\n  - {entry}\n  - {entry}\n"))
    assert make_item(plan, Target("k", "k"), plan.case.path).claims == ("it_works",)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("works: false", HoldsIf(works=False)),
        ("returns: {at_least: 1KiB}", HoldsIf(returns=Range(KIB, None))),
        ("errno: EFAULT", HoldsIf(errno="EFAULT")),
        ("signal: SIGBUS", HoldsIf(signal="SIGBUS")),
        ("blocked: true", HoldsIf(blocked=True)),
        ("attribute: {dax: 1, state: S}", HoldsIf(attributes=(("dax", 1), ("state", "S")))),
        ("resident: all", HoldsIf(resident=Pages.ALL)),
        ("frames_in_region: none", HoldsIf(frames_in_region=Pages.NONE)),
        ("minor_faults: {at_most: 2}", HoldsIf(minor_faults=Range(None, 2))),
        ("written_by: first", HoldsIf(written_by=1)),
        ("zeroes: true", HoldsIf(zeroes=True)),
        ("growth: {since: first, at_least: 1MiB}", HoldsIf(growth=Growth(1, Range(MIB, None)))),
    ],
)
def test_holds_if_is_read(text: str, wanted: HoldsIf) -> None:
    showing = SHOWING.get(text.partition(":")[0], "pread: {file: f, offset: 0, length: 8}")
    mapped = "  - mmap: {name: m, file: f, length: 8}\n"
    steps = f"  - {{pwrite: {{file: f, offset: 0, length: 8}}, id: first}}\n{mapped}  - {{{showing}, id: second}}\n"
    entry = f"decides:\n  - {{claim: it_works, step: second, holds_if: {{{text}}}}}\n"
    ((decision,), _) = (plan.decisions for plan in plans(steps, HEAD + entry).values())
    assert decision.holds_if == wanted


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("resident: all", "pread does not show resident: it shows data"),
        ("frames_in_region: all", "pread does not show frames: it shows data"),
        ("minor_faults: 1", "pread does not show minor_faults: it shows data"),
        ("attribute: {dax: 1}", "pread does not show dax: it shows data"),
    ],
)
def test_nothing_is_decided_by_what_the_step_never_shows(text: str, problem: str) -> None:
    with pytest.raises(CaseError, match=f"sample.yaml:.*{problem}"):
        decide(f"{{claim: it_works, step: second, holds_if: {{{text}}}}}")


def test_what_a_step_shows_that_shows_nothing_is_said() -> None:
    entry = "decides:\n  - {claim: it_works, step: first, holds_if: {zeroes: true}}\n"
    with pytest.raises(CaseError, match="pwrite does not show data: it shows nothing"):
        plans(DECIDED, HEAD + entry)


def test_a_join_shows_what_the_step_shows_that_it_waits_for() -> None:
    steps = "  - {pread: {file: f, offset: 0, length: 8}, start: r}\n  - {join: {label: r}, id: second}\n"
    plans(steps, HEAD + "decides:\n  - {claim: it_works, step: second, holds_if: {zeroes: true}}\n")


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("{claim: it_works, step: third, holds_if: {returns: 8}}", "no step has the id 'third'; accepted: first, second"),
        ("{claim: it_works, step: second, holds_if: {written_by: third}}", "no step has the id 'third'"),
        ("{claim: it_works, step: second, holds_if: {}}", "holds_if needs at least one of works, returns"),
        ("{claim: it_works, step: second, holds_if: {return: 8}}", "unknown key 'return' in holds_if; did you mean returns?"),
        ("{claim: it_works, step: second, holds_if: {returns: {}}}", "returns needs a number, or at_least or at_most"),
        ("{claim: it_works, step: second, holds_if: {returns: {exactly: 1}}}", "unknown key 'exactly' in returns"),
        ("{claim: it_works, step: second, holds_if: {growth: {at_least: 1}}}", "growth needs the key 'since'"),
        ("{claim: it_works, step: second, holds_if: {resident: some}}", "resident is 'some'; accepted: all, none"),
        ("{claim: it_works, step: second}", "an entry of decides needs the key 'holds_if'"),
        ("{claim: it_works, when: {storage: dax}, step: second, holds_if: {returns: 8}}", "unknown key 'when' in an entry of decides"),
        ("{claim: it_works, where: {storage: disk}, step: second, holds_if: {returns: 8}}", "where names the value 'disk'"),
        ("{claim: it_workz, step: second, holds_if: {returns: 8}}", "has no claim 'it_workz'; did you mean it_works?"),
        (
            "{claim: too_old, step: second, holds_if: {returns: 8}}",
            "cannot be decided: the registry says that it is not reproducible (no such kernel)",
        ),
        (
            "{claim: it_works, where: {storage: node, filesystem: ext4}, step: second, holds_if: {returns: 8}}",
            "decides 'it_works' for no variant: storage node, filesystem ext4",
        ),
    ],
)
def test_a_decision_that_cannot_be_meant_is_refused(entry: str, problem: str) -> None:
    with pytest.raises(CaseError) as caught:
        decide(entry)
    assert problem in str(caught.value)


# ---- the matrix ------------------------------------------------------------------------------------------------------


def family(text: str = "") -> Family:
    return read_family(f"title: The sample family\n{text}", "cases/family/family.yaml")


def test_the_matrix_counts_variants_and_an_empty_cell_states_its_reason() -> None:
    case = sample(FSYNC, head("storage: [dax, disk], length: [1, 2], exclude: [{storage: dax, region: nvdimm, reason: too small}]"))
    (row,) = make_matrix(make_plans(case), [family("does_not_apply: [{storage: node, reason: no files}]")])
    assert (row.family, row.title) == ("family", "The sample family")
    named = Cell(0, "only cases that are about it name it")
    assert row.cells[:6] == (Cell(2), Cell(0, "too small"), Cell(0), Cell(0), Cell(0, "no files"), Cell(0, "no files"))
    assert row.cells[6:] == (named, named, Cell(2), named)


def test_an_empty_cell_without_a_reason_is_a_finding() -> None:
    case = sample(FSYNC, head("storage: [dax, no_dax, node]"))
    assert unexplained_cells(make_matrix(make_plans(case), [])) == ["family: no variant with storage disk, and nothing says why"]


def test_a_family_without_cases_is_in_the_matrix() -> None:
    (row,) = make_matrix([], [family()])
    assert unexplained_cells([row])[0] == "family: no variant with storage dax on e820, and nothing says why"
