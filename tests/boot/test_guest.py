"""Stacks in a real guest: asked for, set up, and read back without a difference; and the ones that cannot be."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from harness import ops as op
from harness.errors import GuestError
from harness.guest.link import GuestCommand
from harness.guest.pmem import RegionPlacement
from harness.image.catalog import KernelChoice
from harness.lease.boot import booted_guest
from harness.lease.booted import BootedGuest
from harness.lease.host_in_use import find_host
from harness.lease.options import GuestOptions
from harness.model.filesystems import Filesystem
from harness.model.kinds import Alignment, DaxOption, NamespaceMode, PageMap, RegionKind
from harness.model.layers import Layer
from harness.model.outcome import How
from harness.model.stack import Disk, Mount, Namespace, Region, StorageStack, Volume, find_mismatches
from harness.ops import Program, Step
from harness.sizes import KIB

E820 = Region("one", RegionKind.E820)
NVDIMM = Region("two", RegionKind.NVDIMM, label_bytes=128 * KIB)
#: Also what is half of a mixed mapping.
DISK = Disk("main_half")
WHOLE = StorageStack(
    (
        Volume("main", Namespace(E820), Mount(Filesystem.EXT4, DaxOption.ALWAYS)),
        Volume("second", Namespace(NVDIMM), Mount(Filesystem.EXT4, DaxOption.ALWAYS)),
        Volume("target", DISK, Mount(Filesystem.EXT4, None)),
    ),
    ivshmem=True,
)


@pytest.fixture(scope="module", params=["debian_6.12", "debian_6.1"])
def booted(request: pytest.FixtureRequest) -> Iterator[BootedGuest]:
    with booted_guest(find_host(), KernelChoice(request.param), WHOLE, print, GuestOptions()) as guest:
        yield guest


def placements(guest: BootedGuest) -> tuple[RegionPlacement, ...]:
    return tuple(RegionPlacement(p.name, p.kind, p.start, p.size_bytes) for p in guest.machine.placements)


def one(device: Namespace | Disk, mount: Mount | None) -> StorageStack:
    return StorageStack((Volume("main", device, mount),))


#: What every packaged kernel has the driver of.
STOCK = [fs for fs in Filesystem if fs.traits.driver_option is None]
STACKS = [
    WHOLE,
    *(
        StorageStack((Volume("main", Namespace(E820), Mount(Filesystem.EXT4, dax), layer),))
        for layer in Layer
        for dax in ([DaxOption.ALWAYS] if layer.traits.gives_dax else [DaxOption.NEVER])
    ),
    StorageStack(
        tuple(Volume(f"volume{half}", Namespace(NVDIMM, half=half), Mount(Filesystem.EXT4, DaxOption.ALWAYS)) for half in (0, 1)),
    ),
    *(one(Namespace(E820), Mount(fs, dax)) for fs in STOCK for dax in DaxOption),
    *(one(Namespace(NVDIMM), Mount(fs, DaxOption.ALWAYS)) for fs in STOCK),
    *(one(Namespace(region, map=PageMap.DEV), Mount(Filesystem.EXT4, DaxOption.ALWAYS)) for region in (E820, NVDIMM)),
    one(Namespace(NVDIMM, NamespaceMode.SECTOR, None), None),
    one(Namespace(NVDIMM, NamespaceMode.RAW, None), None),
    replace(one(Namespace(NVDIMM, NamespaceMode.RAW, None), Mount(Filesystem.EXT4, DaxOption.ALWAYS)), mount_in_program=True),
    *(one(Namespace(region, NamespaceMode.DEVDAX, PageMap.MEM, align), None) for region in (E820, NVDIMM) for align in Alignment),
    *(one(Namespace(region), None) for region in (E820, NVDIMM)),
    one(DISK, Mount(Filesystem.EXT4, None)),
    one(DISK, None),
]


# On the default kernel the main job makes a template of every stack that a case asks for, and reads it back in every clone.
@pytest.mark.parametrize(
    ("booted", "stack"),
    [("debian_6.12", WHOLE), *(("debian_6.1", stack) for stack in STACKS)],
    indirect=["booted"],
    ids=lambda value: value.describe() if isinstance(value, StorageStack) else value,
)
def test_the_guest_has_the_stack_that_was_asked_for(booted: BootedGuest, stack: StorageStack) -> None:
    booted.session.set_up(stack, placements(booted))
    first, second = booted.session.refresh(), booted.session.refresh()
    assert find_mismatches(stack, first) == []
    assert replace(first, facts=()) == replace(second, facts=())


def test_a_sector_size_of_an_earlier_stack_does_not_stay(booted: BootedGuest) -> None:
    sizes = []
    for mode in (NamespaceMode.SECTOR, NamespaceMode.FSDAX):
        booted.session.set_up(one(Namespace(NVDIMM, mode), None), placements(booted))
        sizes.append(booted.session.refresh().volume("main").logical_block_bytes)
    assert sizes == [4096, 512]


def test_an_e820_region_has_no_raw_mode_and_the_reading_says_so(booted: BootedGuest) -> None:
    stack = one(Namespace(E820, NamespaceMode.RAW, None), None)
    booted.session.set_up(stack, placements(booted))
    assert "main: namespace mode: asked for raw, the guest has fsdax" in find_mismatches(stack, booted.session.refresh())


def test_a_mount_behind_the_plans_back_shows_as_a_difference(booted: BootedGuest) -> None:
    asked = one(Namespace(E820), Mount(Filesystem.EXT4, DaxOption.ALWAYS))
    booted.session.set_up(one(Namespace(E820), Mount(Filesystem.EXT4, DaxOption.NEVER)), placements(booted))
    differences = find_mismatches(asked, booted.session.refresh())
    assert [line.split(":")[1].strip() for line in differences] == [
        "mount option dax",
        "DAX state of a fresh file (statx)",
        "physical frame of a mapping inside the region",
    ]


def test_a_file_system_that_is_in_use_is_never_made_anew(booted: BootedGuest) -> None:
    booted.session.set_up(one(Namespace(E820), Mount(Filesystem.EXT4, DaxOption.ALWAYS)), placements(booted))
    booted.session.refresh()
    booted.session.commands([GuestCommand(("sh", "-c", "cd /mnt/main; sleep 300 </dev/null >/dev/null 2>&1 & echo $! > /run/holder"))])
    with pytest.raises(GuestError, match="umount"):
        booted.session.refresh()
    booted.session.commands([GuestCommand(("sh", "-c", "kill $(cat /run/holder)"))])
    assert booted.session.refresh().volume("main").dax


def test_a_bare_node_is_zero_in_the_beginning(booted: BootedGuest) -> None:
    booted.session.set_up(one(Namespace(E820), None), placements(booted))
    program = Program((Step(op.Open("f", "x", (op.OpenFlag.RDWR,))), Step(op.Pread("f", 4096, 8192)), Step(op.Pwrite("f", 0, 65536))))
    for _ in range(2):
        booted.session.refresh()
        assert booted.session.run(program)[1].data_bytes() == bytes(8192)


def test_the_bar_of_the_ivshmem_device_is_mapped_and_has_no_struct_pages(booted: BootedGuest) -> None:
    booted.session.set_up(WHOLE, placements(booted))
    booted.session.refresh()
    flags = (op.OpenFlag.RDWR, op.OpenFlag.CREAT, op.OpenFlag.DIRECT)
    steps = (
        op.Open("b", "bar:", (op.OpenFlag.RDWR,)), op.Mmap("m", 65536, "b"), op.Store("m", 0, 4096), op.Load("m", 0, 4096),
        op.Open("t", "target:a", flags), op.Pwrite("t", 0, 4096, from_="m"),
    )  # fmt: skip
    seen = booted.session.run(Program(tuple(map(Step, steps))))
    assert [s.how for s in seen[:5]] == [How.RETURNED] * 5
    assert seen[5].errno == "EFAULT"
