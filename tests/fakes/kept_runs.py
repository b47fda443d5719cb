"""Runs that are kept and were never done: items on kernels, with what their steps came to, for whoever tells of them."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from harness.model.outcome import How, Observation, Run, RunKind
from harness.model.stack import StackReading
from harness.ops import Fork, Join, Open, OpenFlag, Operation, Pread, Program, Pwrite, Step
from harness.record.facttable import FactTable, Shown, write_table
from harness.record.item import Ending, Item, Target
from harness.record.runs import Identity, begin_run, now, run_folder
from harness.record.store import item_folder, load_record, store_record
from harness.report.columns import Column, write_columns
from harness.report.rows import RESULTS, Row, make_unset_row, row_line
from tests.fakes.leased import Answer, FakeGuest, obedient
from tests.fakes.samples import item, ran, stack

#: A text that must never be read as anything but text.
NASTY = '</script><img src=x onerror=alert(1)> & "quoted"'
WRITTEN = Program(
    (
        Step(Open("f", "a", (OpenFlag.RDWR, OpenFlag.CREAT)), line=5),
        Step(Pwrite("f", 0, 8192), line=6),
        Step(Pwrite("f", 4096, 4096), line=7),
        Step(Pread("f", 0, 8192), line=8),
    )
)
TWO_PROCESSES = Program(
    (
        *WRITTEN.steps[:2],
        Step(Fork("child"), line=7),
        Step(Pread("f", 0, 4096), process="child", start="reading", line=8),
        Step(Pwrite("f", 4096, 4096), line=9),
        Step(Join("reading"), line=10),
    )
)


def reads(*runs: Run) -> Answer:
    """What a guest answers whose reads show these bytes."""

    def answer(operation: Operation) -> Observation:
        if isinstance(operation, Pread | Join):
            return Observation(0, How.RETURNED, sum(run.length for run in runs), data=runs)
        return obedient(operation)

    return answer


BOTH = (Run(0, 4096, RunKind.TAG, 2, 0), Run(4096, 4096, RunKind.TAG, 3, 0))
#: As the model has it, and without what step 3 wrote.
RIGHT, WRONG = reads(*BOTH), reads(BOTH[0], Run(4096, 4096, RunKind.RAW, raw=b"\x01" * 4096))


@dataclass(frozen=True)
class Done:
    """An item that was done on ``kernel``, and what the guest answered; with a ``ending`` it was not, and ``note`` says why."""

    name: str
    kernel: str
    answer: Answer = RIGHT
    program: Program = WRITTEN
    title: str = "One"
    ending: Ending | None = None
    note: str = ""

    @property
    def item(self) -> Item:
        made = item(self.program, option=self.kernel)
        place = f"{made.where.variant_id}-{self.kernel}"
        where = replace(
            made.where,
            node_id=f"cases/fam/{self.name}.yaml::{self.name}[{place}]",
            case=f"cases/fam/{self.name}.yaml",
            name=self.name,
            title=self.title,
            target=Target(self.kernel, self.kernel, self.kernel),
        )
        return replace(made, where=where)


def keep_run(artifacts: Path, name: str, items: Iterable[Done]) -> None:
    """Make a run of these items, as pytest would have left it."""
    done = list(items)
    begin_run(artifacts, Identity(name, now(), ("pytest", "cases"), "0123abcd", "cafe", tuple({one.kernel for one in done}), now(), 1), 10)
    folder = run_folder(artifacts, name)
    rows = [_keep(folder, one) for one in done]
    (folder / RESULTS).write_text("".join(row_line(row) for row in rows if row is not None))


def _keep(folder: Path, done: Done) -> Row | None:
    if done.ending is not None:
        return make_unset_row(done.item, done.ending, done.note)
    kept = item_folder(folder, done.item)
    ran(kept, FakeGuest(stack(), done.answer), done.item)
    record = load_record(kept)
    reading = StackReading(f"{done.kernel.removeprefix('debian_')}.9-fake", record.reading.volumes)
    store_record(kept, replace(record, reading=reading), "", "")
    return None


def keep_samples(artifacts: Path) -> None:
    """Keep two runs: ``2-after`` on two kernels, and ``1-before`` of it, in which one item came to something else."""
    keep_run(artifacts, "1-before", [Done("one", "debian_6.12"), Done("gone", "debian_6.12")])
    keep_run(
        artifacts,
        "2-after",
        [
            Done("one", "debian_6.1"),
            Done("one", "debian_6.12", WRONG),
            Done("same", "debian_6.1", title=NASTY),
            Done("same", "debian_6.12", title=NASTY),
            Done("two", "debian_6.12", reads(BOTH[0]), TWO_PROCESSES, title="Two processes"),
            Done("late", "debian_6.1", ending=Ending.NOT_SET_UP, note=f"no guest {NASTY}"),
            Done("late", "debian_6.12", ending=Ending.UNAVAILABLE, note="the kernel has no such driver"),
        ],
    )


def keep_tables(facts: Path) -> None:
    """Keep small tables of facts, verdicts and ways of bytes."""
    for release, value in (("6.1", "alias"), ("6.12", "copy"), ("6.18", "copy")):
        # The newest kernel leaves open which of the two it is.
        values = ("alias", "copy") if release == "6.18" else (value,)
        rows = (Shown("splice_to_pipe", "ext4 dax on pmem", values, 3), Shown("splice_to_pipe", "xfs dax on pmem", values, 2))
        write_table(facts, FactTable(f"debian_{release}", (f"{release}.9-fake",), (), "2026-01-02", rows))
    verdicts = {"fam/one[e820-fsdax-ext4-dax_always]": "conforms", "fam/rare[e820-fsdax-ext4-dax_never]": "unavailable"}
    write_columns(facts / "verdicts.tsv", [Column("debian_6.18", ("6.18.9-fake",), "2026-01-02", verdicts)])
    ways = {"splice to a pipe[ext4 dax on pmem]": "copy", "splice to a pipe[ext4 on pmem]": "alias"}
    write_columns(
        facts / "watch.tsv",
        [
            Column("debian_6.1", ("6.1.9-fake",), "2026-01-02", {**ways, "splice to a pipe[ext4 dax on pmem]": "alias"}),
            Column("debian_6.12", ("6.12.9-fake",), "2026-01-02", ways),
        ],
    )
