"""Small items for the tests of running and reporting."""

from pathlib import Path

from harness.case.axes import Variant, make_variants, read_axes
from harness.case.plan import make_stack
from harness.case.tree import read_tree
from harness.lease.perform import run_item
from harness.lease.pool import Lease
from harness.model.claims import Decision, HoldsIf
from harness.model.stack import StorageStack
from harness.ops import Buffer, Fsync, Mmap, Open, OpenFlag, Operation, Pin, Preadv, Program, Pwrite, RwFlag, Step
from harness.record.item import Item, Record, Target, Where
from harness.record.judged import judge_folder
from harness.report.rows import Row, make_row
from tests.fakes.leased import FakeGuest, make_reading


def variant(storage: str = "dax", region: str = "e820") -> Variant:
    """The first variant of one storage word."""
    return make_variants(read_axes(read_tree(f"{{storage: [{storage}], region: [{region}]}}", "sample")))[0]


def stack(storage: str = "dax", region: str = "e820") -> StorageStack:
    """The stack of one storage word."""
    return make_stack(variant(storage, region))


def program(*operations: Operation) -> Program:
    """Open and write, or the operations given; the lines of the steps are 10, 11 ..."""
    chosen = operations or (Open("f", "a", (OpenFlag.RDWR, OpenFlag.CREAT)), Pwrite("f", 0, 4096), Fsync("f"))
    return Program(tuple(Step(operation, line=10 + n) for n, operation in enumerate(chosen)))


def rich_program() -> Program:
    """A program with nested arguments, a pin, an actor and a start."""
    buffers = (Buffer(10, shift=3), Buffer(20, mapping="m", offset=5))
    steps = (
        Step(Open("f", "a", (OpenFlag.RDWR, OpenFlag.CREAT)), line=3),
        Step(Mmap("m", 4096, "f"), pin=Pin(errno="EINVAL"), line=4),
        Step(Preadv("f", 0, buffers, (RwFlag.NOWAIT,)), process="other", start="label", pin=Pin(returns=5)),
    )
    return Program(steps)


def item(
    chosen: Program | None = None,
    option: str = "",
    arguments: str = "",
    decisions: tuple[Decision, ...] = (Decision("claimed", 1, HoldsIf(works=True)),),
) -> Item:
    where = Where(
        node_id="cases/fam/one.yaml::one[e820-fsdax-ext4-dax_always-debian_6.12]",
        case="cases/fam/one.yaml",
        family="fam",
        name="one",
        title="One",
        variant=variant(),
        stack=stack(),
        target=Target("debian_6.12", "debian_6.12", option, arguments),
    )
    return Item(where, chosen or program(), decisions)


def ran(folder: Path, guest: FakeGuest | None = None, chosen: Item | None = None) -> Record:
    """The record of an item that a fake guest ran."""
    guest = guest or FakeGuest(stack())
    return run_item(chosen or item(), Lease(guest, make_reading(guest.stack)), folder)


def row(folder: Path, guest: FakeGuest | None = None, chosen: Item | None = None) -> Row:
    """The row of an item that a fake guest ran and the model judged."""
    ran(folder, guest, chosen)
    return make_row(judge_folder(folder, ()), folder)
