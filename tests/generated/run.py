"""Run generated programs and keep what was seen; judge it later, as often as the model changes.

    python -m tests.generated.run run --stack e820-fsdax-ext4-dax_always --kernel debian_6.12 --seed 1 --programs 200 -o FILE.jsonl
    python -m tests.generated.run run --host --seed 1 --programs 200 -o FILE.jsonl
    python -m tests.generated.run judge FILE.jsonl ...
    python -m tests.generated.run show FILE.jsonl INDEX

One guest serves programs in a row, each in a fresh folder of its volume (a bare node is cleared); a guest that shows damage is given up.
A file has one JSON object a line: ``reading`` of the stack, which holds for the programs behind it, and ``program`` with its observations.
Programs that run together and damage a guest run again one at a time; damage that none of them does then is kept with their indices
(``together``), and ``run`` and ``judge`` end with status 1.
"""

import argparse
import contextlib
import itertools
import json
import platform
import re
import shlex
import signal
import socket
import sys
import tempfile
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TextIO

from harness.agent.bundle import agent_archive
from harness.case.plan import named_stacks
from harness.cli.words import progress
from harness.errors import GuestError, HarnessError, reason_of
from harness.guest.facts import taint_of
from harness.guest.filesystem import clear_commands
from harness.guest.layout import Layout
from harness.guest.link import AgentLink, Endpoint, GuestCommand
from harness.host.admission import admitted
from harness.host.deadline import Deadline, wait_until
from harness.host.process import start
from harness.lease.booted import BootedGuest
from harness.lease.clone import make_cloner
from harness.lease.ending import classify
from harness.lease.kernels import read_kernels
from harness.lease.options import GuestOptions
from harness.machine.ending import Ending as GuestEnding
from harness.model.facts import Env
from harness.model.judge import Judgement, StepVerdict, judge
from harness.model.outcome import How, Observation, observations_from
from harness.model.stack import StackReading, StorageStack, VolumeReading
from harness.model.verdict import Verdict
from harness.ops import Program, arguments
from harness.ops.codec import program_document
from harness.record.documents import from_document, observations_document, to_document
from harness.record.item import Ending
from harness.sizes import MIB
from tests.generated.generator import World, draw, uses_volumes

#: Asleep so long in one call is blocked, as in a case.
BLOCKED_S = 3.0
STEP_LIMIT_S = 30.0
GUEST_BYTES = 384 * MIB
#: What a program may leave at the end of a bare node: this much is cleared there too.
_TAIL_BYTES = MIB
#: How many programs are run in one round trip.
_BATCH = 25
#: What is left out on this computer: volumes and caches that are not ours, pins that another kernel's configuration may forbid, and what
#: a tmpfs does otherwise than a file system on a device (mm/shmem.c): no direct I/O of its own, no FALLOC_FL_ZERO_RANGE, no DAX flag.
HOST_WITHOUT = frozenset({"volumes", "pins", "drop_caches", "meminfo", "direct", "zero_range", "statx", "set_xflags"})

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Recording:
    """A program with what became of it. ``seed`` and ``index`` draw it again.

    ``together``: the indices of programs that ran in one round trip, ``program`` the first of them: they did damage that none did alone.
    """

    seed: int
    index: int
    where: str
    program: Program
    reading: StackReading
    observations: tuple[Observation, ...] | None
    ending: Ending
    note: str
    together: tuple[int, ...] = ()


@dataclass(frozen=True)
class Ran:
    """What became of a program: observations, how it ended, and why."""

    observations: tuple[Observation, ...] | None
    ending: Ending
    note: str = ""


@dataclass(frozen=True)
class Damage:
    """Why no other program is to run on a stage. ``together``: so many programs ran in one round trip, nobody knows which of them did it,
    and the last ``unanswered`` of them count as not run; 0 where the program did it that was answered last."""

    ending: Ending
    why: str
    together: int = 0
    unanswered: int = 0

    def explains(self, other: "Damage") -> bool:
        """Whether this is the same again; a guest that is gone says so in many words."""
        is_alike = self.ending is not Ending.COMPLETED or reason_of(self.why) == reason_of(other.why)
        return self.ending is other.ending and is_alike


class Stage(Protocol):
    """Where programs run: a guest with its stack, or this computer."""

    reading: StackReading
    world: World

    def run(self, programs: Sequence[Program]) -> Iterator[Ran]:
        """Run programs, each on fresh folders, and yield what became of each. Raises nothing that a guest does.

        It ends early where the stage was damaged. The one after the last yielded need not be to blame then: who wants to know runs them
        one at a time. A program that is run alone is always answered.
        """

    def find_damage(self) -> Damage | None:
        """Why no other program is to run here, or None."""


# ---- guests ----------------------------------------------------------------------------------------------------------


class GuestStage:
    """A guest whose programs each get a folder of their own."""

    def __init__(self, guest: BootedGuest) -> None:
        self._guest = guest
        self._damage: Damage | None = None
        self.reading = guest.refresh()
        self._layout = guest.session.layout
        self._taint = taint_of(self.reading)
        self._has_node = any(volume.volume.mount is None for volume in self._layout.volumes)
        self.world = World(tuple(volume.volume.role for volume in self._layout.volumes))

    def run(self, programs: Sequence[Program]) -> Iterator[Ran]:
        left = list(programs)
        while left and self._damage is None:
            if len(left) == 1 or self._is_alone(left[0]):
                yield self._run_alone(left.pop(0))
            else:
                together = list(itertools.takewhile(lambda program: not self._is_alone(program), left))
                ran = self._run_together(together)
                yield from ran
                del left[: len(ran)]

    def find_damage(self) -> Damage | None:
        return self._damage

    def _is_alone(self, program: Program) -> bool:
        """Whether commands make what the program needs: a bare node cleared, volumes made anew after it."""
        return self._has_node or uses_volumes(program)

    def _run_together(self, programs: Sequence[Program]) -> list[Ran]:
        """Run programs in one round trip. Where the kernel complained nobody knows of which: then none of them has run."""
        guest, session, mark = self._guest, self._guest.session, self._guest.machine.console.mark()
        session.state = replace(session.state, layout=_below(self._layout, "fresh"))
        fresh = [volume.folder for volume in session.layout.mounted]
        ran: list[Ran] = []
        error: HarnessError | None = None
        complaint = ""
        try:
            for observations in session.run_many(programs, fresh, blocked_s=BLOCKED_S, limit_s=STEP_LIMIT_S):
                complaint = complaint or self._taint_change()
                ran.append(Ran(observations, Ending.COMPLETED))
        except HarnessError as caught:
            error = caught
        finally:
            session.state = replace(session.state, layout=self._layout)
        ended = guest.ending(mark)
        ending, note = classify(ended, error)
        complaint = _report(ended) or complaint
        if complaint:
            ran = []
        elif _is_refusal(error):
            ran.append(Ran(None, ending, note))
        if complaint or (error is not None and not _is_refusal(error)):
            self._damage = Damage(ending, complaint or str(error), len(programs), len(programs) - len(ran))
        return ran

    def _run_alone(self, program: Program) -> Ran:
        guest, session, mark = self._guest, self._guest.session, self._guest.machine.console.mark()
        observations: tuple[Observation, ...] | None = None
        error: HarnessError | None = None
        harm = ""
        try:
            with self._fresh(program):
                observations = session.run(program, blocked_s=BLOCKED_S, limit_s=STEP_LIMIT_S)
            harm = self._taint_change()
        except HarnessError as caught:
            error = caught
            # An agent that says that a program cannot be meant is as good as before.
            harm = str(caught) if observations is not None or not _is_refusal(caught) else ""
        ended = guest.ending(mark)
        ending, note = classify(ended, error)
        report = _report(ended)
        if harm or report:
            self._damage = Damage(ending, report or harm)
        if report:
            note = f"{note}; {report}" if note else report
        return Ran(observations, ending, note or harm)

    def _taint_change(self) -> str:
        taint = self._guest.session.taint()
        return "" if taint == self._taint else f"the kernel's taint flags went from {self._taint} to {taint}"

    @contextlib.contextmanager
    def _fresh(self, program: Program) -> Iterator[None]:
        """Have the roots of the volumes be fresh folders; a program that mounts gets the volumes themselves, which are then made anew."""
        session, layout = self._guest.session, self._layout
        self._sweep()  # what the program before left on a bare node goes here too
        if uses_volumes(program):
            yield
            left = [GuestCommand(("sh", "-c", f"umount {v.folder}; rm -f {v.folder}/[abc]"), may_fail=True) for v in layout.mounted]
            session.commands(left)
            session.refresh()
            return
        session.state = replace(session.state, layout=_below(layout, "fresh"))
        try:
            yield
        finally:
            session.state = replace(session.state, layout=layout)

    def _sweep(self) -> None:
        """Clear bare nodes and dax devices and make new folders."""
        words = [f"cd {v.folder} && rm -rf fresh && mkdir fresh" for v in self._layout.mounted]
        for placed in self._layout.volumes:
            if placed.volume.mount is None and not placed.volume.is_dax_device:
                tail = self.reading.volume(placed.volume.role).size_bytes - _TAIL_BYTES
                cut = f"blkdiscard --force --zeroout --offset {tail} --length {_TAIL_BYTES} {placed.node}"
                words += [cut, *(shlex.join(command.argv) for command in clear_commands(placed.node))]
        if words:
            self._guest.session.commands([GuestCommand(("sh", "-ec", "; ".join(words)))])
        self._guest.session.clear_devices()


def _is_refusal(error: HarnessError | None) -> bool:
    return "the agent answered run" in str(error) and not isinstance(error, GuestError)


def _report(ended: GuestEnding) -> str:
    """What the kernel complained about first, or nothing."""
    return f"its kernel complained: {ended.reports[0].line}" if ended.reports else ""


def _below(layout: Layout, folder: str) -> Layout:
    return replace(layout, volumes=tuple(replace(placed, folder=f"{placed.folder}/{folder}") for placed in layout.volumes))


@contextlib.contextmanager
def guest_stages(stack: StorageStack, kernel: str, progress: Progress) -> Iterator[Callable[[], contextlib.AbstractContextManager[Stage]]]:
    """Yield what starts a guest with ``stack``: each call starts another one, which ends with its ``with``."""
    clone = make_cloner(read_kernels([kernel]).choice, progress, GuestOptions(detail=progress))

    @contextlib.contextmanager
    def start_one() -> Iterator[Stage]:
        with admitted(GUEST_BYTES, Deadline.after(3600), progress), clone(stack, kernel) as guest:
            assert isinstance(guest, BootedGuest)
            yield GuestStage(guest)

    yield start_one


# ---- this computer ---------------------------------------------------------------------------------------------------


class _SocketStream:
    """See :class:`harness.guest.ssh.Stream`."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def send(self, data: bytes, deadline: Deadline) -> None:
        self._connection.settimeout(max(deadline.remaining_s, 0.001))
        self._connection.sendall(data)

    def receive(self, deadline: Deadline) -> bytes:
        self._connection.settimeout(max(deadline.remaining_s, 0.001))
        try:
            said = self._connection.recv(1 << 20)
        except TimeoutError as error:
            raise GuestError(f"the agent said nothing for {deadline.limit_s:.0f} s") from error
        if not said:
            raise GuestError("the agent hung up")
        return said


class HostStage:
    """The agent on this computer, with a folder on a tmpfs."""

    def __init__(self, link: AgentLink, folder: Path) -> None:
        self._link, self._folder = link, folder
        self._damage: Damage | None = None
        self.world = World(without=HOST_WITHOUT)
        self.reading = host_reading()

    def run(self, programs: Sequence[Program]) -> Iterator[Ran]:
        for program in programs:
            if self._damage is None:
                yield self._run(program)

    def _run(self, program: Program) -> Ran:
        with tempfile.TemporaryDirectory(dir=self._folder) as fresh:
            try:
                limit = Deadline.after(4 * STEP_LIMIT_S)
                document = self._link.run(
                    program_document(program), {"main": fresh}, {}, limit, blocked_s=BLOCKED_S, limit_s=2 * STEP_LIMIT_S
                )
                return Ran(observations_from(document), Ending.COMPLETED)
            except HarnessError as error:
                self._damage = None if _is_refusal(error) else Damage(Ending.HARNESS_ERROR, str(error))
                return Ran(None, Ending.HARNESS_ERROR, str(error))

    def find_damage(self) -> Damage | None:
        return self._damage


def host_reading() -> StackReading:
    """This computer's tmpfs, as the model is told of it: a page cache over a store without DAX."""
    volume = VolumeReading(
        role="main",
        device="tmpfs",
        root="/dev/shm",
        filesystem="tmpfs",
        mount_options=("rw",),
        dax=False,
        queue_dax=False,
        logical_block_bytes=512,
        filesystem_block_bytes=4096,
        size_bytes=256 * MIB,
    )
    return StackReading(platform.release(), (volume,))


@contextlib.contextmanager
def host_stages() -> Iterator[Callable[[], contextlib.AbstractContextManager[Stage]]]:
    """Yield what starts the agent on this computer."""

    @contextlib.contextmanager
    def start_one() -> Iterator[Stage]:
        with (
            tempfile.TemporaryDirectory(prefix="pmemh-generated-") as state,
            tempfile.TemporaryDirectory(prefix="pmemh-generated-", dir="/dev/shm") as folder,
        ):
            agent, token_file = Path(state) / "agent.pyz", Path(state) / "agent.json"
            agent.write_bytes(agent_archive())
            process = start([sys.executable, "-I", "-S", str(agent), "127.0.0.1:0", str(token_file), "--foreground"], stderr=2)
            try:
                if not wait_until(token_file.exists, Deadline.after(60)):
                    raise GuestError("the agent did not start on this computer")
                said = json.loads(token_file.read_text())
                endpoint = Endpoint(said["port"], said["token"])
                with socket.create_connection(("127.0.0.1", endpoint.port)) as connection:
                    link = AgentLink(_SocketStream(connection))
                    link.request("hello", Deadline.after(60), token=endpoint.token)
                    yield HostStage(link, Path(folder))
            finally:
                process.kill()
                process.wait()

    yield start_one


# ---- recording -------------------------------------------------------------------------------------------------------


def record(
    start_one: Callable[[], contextlib.AbstractContextManager[Stage]],
    choose: Callable[[World], Iterable[tuple[int, int, Program]]],
    where: str,
    progress: Progress,
) -> Iterator[Recording]:
    """Run the programs (with seed and index) that ``choose`` gives for the world of the first stage; yield each as soon as it has run.

    Where some did damage together that none does alone, one more recording says so.
    """
    source: Iterator[tuple[int, int, Program]] | None = None
    waiting: deque[tuple[int, int, Program]] = deque()
    alone = 0  # so many are run one at a time, because one of them damaged a guest when all of them ran
    suspects: tuple[Recording, Damage] | None = None
    while True:
        try:
            with start_one() as stage:
                source = source or iter(choose(stage.world))
                while (damage := stage.find_damage()) is None:
                    waiting.extend(itertools.islice(source, _BATCH - len(waiting)))
                    batch = list(itertools.islice(waiting, 1 if alone else _BATCH))
                    if not batch:
                        return
                    answered = 0
                    for ran in stage.run([program for _, _, program in batch]):
                        seed, index, program = waiting.popleft()
                        yield Recording(seed, index, where, program, stage.reading, ran.observations, ran.ending, ran.note)
                        answered += 1
                    alone = max(0, alone - answered)
                    damage = stage.find_damage()
                    if damage is not None and damage.together:
                        end = answered + damage.unanswered
                        suspects = _unexplained(batch[end - damage.together : end], where, stage.reading, damage), damage
                    elif damage is not None and suspects is not None and damage.explains(suspects[1]):
                        suspects = None
                    if damage is not None:
                        alone = alone or damage.unanswered
                        begun = f"{answered} of {len(batch)} programs from {batch[0][1]} on ran, then"
                        progress(f"{begun}: {damage.why}; going on with a new guest")
                    if suspects is not None and not alone:
                        yield suspects[0]
                        suspects = None
        except HarnessError:  # no other guest can be had: who did it is never known then
            if suspects is not None:
                yield suspects[0]
            raise


def _unexplained(batch: Sequence[tuple[int, int, Program]], where: str, reading: StackReading, damage: Damage) -> Recording:
    """What is left of a batch whose damage none of its programs does alone."""
    seed, index, program = batch[0]
    together = tuple(index for _, index, _ in batch)
    return Recording(seed, index, where, program, reading, None, damage.ending, damage.why, together)


def write_recording(file: TextIO, recording: Recording, last: StackReading | None) -> StackReading:
    """Write a recording, the reading before it where it is another one than ``last``. Returns the reading that now holds."""
    if recording.reading != last:
        file.write(json.dumps({"reading": to_document(recording.reading)}, separators=(",", ":")) + "\n")
    seen = recording.observations
    line = {
        "seed": recording.seed,
        "index": recording.index,
        "where": recording.where,
        "ending": str(recording.ending),
        "note": recording.note,
        "together": recording.together,
        "program": to_document(recording.program),
        "observations": None if seen is None else observations_document(seen),
    }
    file.write(json.dumps(line, separators=(",", ":")) + "\n")
    file.flush()
    return recording.reading


def read_recordings(path: Path) -> Iterator[Recording]:
    """Return what :func:`write_recording` wrote, also of a file that is still growing."""
    reading: StackReading | None = None
    for line in path.read_text().splitlines(keepends=True):
        if not line.endswith("\n"):
            return
        entry = json.loads(line)
        if "reading" in entry:
            reading = from_document(StackReading, entry["reading"])
            continue
        assert reading is not None, f"{path}: a program before the first reading"
        seen = entry["observations"]
        yield Recording(
            entry["seed"],
            entry["index"],
            entry["where"],
            from_document(Program, entry["program"]),
            reading,
            None if seen is None else observations_from(seen),
            Ending(entry["ending"]),
            entry["note"],
            tuple(entry["together"]),
        )


# ---- judging ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Judged:
    """A recording with its judgement, or with the way in which the judge itself failed."""

    recording: Recording
    judgement: Judgement | None
    crash: str = ""

    @property
    def deviation(self) -> StepVerdict | None:
        steps = self.judgement.steps if self.judgement else ()
        return next((step for step in steps if step.verdict is Verdict.DEVIATES), None)

    @property
    def group(self) -> str:
        """What deviates, with every number replaced: equal ones have one cause, mostly."""
        if self.crash:
            return f"the judge failed | {self.crash}"
        step = self.deviation
        if step is None:
            return ""
        call = self.recording.program.steps[step.step].operation.call
        return " | ".join((step.clause, call, _without_numbers(step.observed), _without_numbers(step.allowed)))


def judged(recording: Recording) -> Judged:
    if recording.observations is None:
        return Judged(recording, None)
    try:
        return Judged(recording, judge(Env(recording.reading), recording.program, recording.observations))
    except Exception as error:
        return Judged(recording, None, f"{type(error).__name__}: {_without_numbers(str(error))}")


def _without_numbers(text: str) -> str:
    return re.sub(r"(page \S+?: )[01]+", r"\1BITS", re.sub(r"-?\b\d+\b", "N", re.sub(r"bytes [0-9a-f]{2,}\b", "bytes HEX", text)))


def step_kinds(one: Judged) -> Counter[str]:
    """Count the steps by what could be said of them."""
    counts: Counter[str] = Counter()
    if one.judgement is None or one.recording.observations is None:
        return counts
    deviated = False
    for step, seen in zip(one.judgement.steps, one.recording.observations, strict=True):
        earlier = [int(number) for number in re.findall(r"\bstep (\d+)", step.reason) if int(number) <= step.step]
        if step.verdict is not Verdict.UNDETERMINED:
            counts[str(step.verdict)] += 1
        elif seen.how is How.NOT_RUN:
            counts["not run"] += 1
        elif deviated:
            counts["after a deviation"] += 1
        elif earlier:
            counts["after an undetermined step"] += 1
        else:
            counts["undetermined for want of a rule"] += 1
        deviated = deviated or step.verdict is Verdict.DEVIATES
    return counts


def summary_lines(all_judged: Sequence[Judged]) -> Iterator[str]:
    """Yield the figures and the groups of deviations, the largest first, each with an example."""
    steps: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    groups: dict[str, list[Judged]] = defaultdict(list)
    for one in all_judged:
        steps += step_kinds(one)
        if one.group:
            groups[one.group].append(one)
        for step in one.judgement.steps if one.judgement else ():
            if step.verdict is Verdict.UNDETERMINED and not re.search(r"\bstep \d+|not run", step.reason):
                call = one.recording.program.steps[step.step].operation.call
                reasons[f"{call}: {_without_numbers(step.reason)}"] += 1
    unexplained = [one.recording for one in all_judged if one.recording.together]
    count, total = len(all_judged) - len(unexplained), sum(steps.values())
    unended = [one.recording for one in all_judged if one.recording.ending is not Ending.COMPLETED and not one.recording.together]
    deviating = sum(len(found) for found in groups.values())
    rate = 1000 * deviating / max(count, 1)
    yield f"{count} programs, {total} steps; {deviating} programs deviate: {rate:.0f} of 1,000, in {len(groups)} groups"
    yield "steps: " + ", ".join(f"{kind} {number} ({100 * number / max(total, 1):.2f} %)" for kind, number in steps.most_common())
    for recording in unended:
        yield f"not completed: {recording.where} seed {recording.seed} index {recording.index}: {recording.ending}: {recording.note[:300]}"
    for recording in unexplained:
        indices = ", ".join(map(str, recording.together))
        yield f"done by none alone: {recording.where} seed {recording.seed} indices {indices}: {recording.ending}: {recording.note[:300]}"
    yield ""
    for group, found in sorted(groups.items(), key=lambda pair: -len(pair[1])):
        first = min(found, key=lambda one: len(one.recording.program.steps)).recording
        yield f"{len(found):4}  {group}    ({first.where} seed {first.seed} index {first.index})"
    yield ""
    for reason, number in reasons.most_common(30):
        yield f"{number:4}  undetermined: {reason}"


def program_lines(one: Judged) -> Iterator[str]:
    """Yield a program as a case has its steps, with what was seen of each; where it deviates also what was allowed."""
    recording = one.recording
    yield f"# {recording.where}, seed {recording.seed}, index {recording.index}: {recording.ending} {recording.note}".rstrip()
    if one.crash:
        yield f"# the judge failed: {one.crash}"
    verdicts = {step.step: step for step in one.judgement.steps} if one.judgement else {}
    for index, step in enumerate(recording.program.steps):
        plain, fields = arguments(step.operation), step.operation.fields.items()
        given = [field.key for name, field in fields if getattr(step.operation, name) != field.default]
        words = ", ".join(f"{key}: {_as_yaml(plain[key])}" for key in given)
        more = "".join(
            f", {key}: {value}" for key, value in (("process", step.process), ("start", step.start)) if value not in (None, "main")
        )
        yield f"  - {{{step.operation.call}: {{{words}}}{more}}}" if more else f"  - {step.operation.call}: {{{words}}}"
        seen = recording.observations[index].describe() if recording.observations else "nothing"
        verdict = verdicts.get(index)
        told = "" if verdict is None or verdict.verdict is Verdict.CONFORMS else f"; {verdict.verdict}"
        if verdict is not None and verdict.verdict is Verdict.DEVIATES:
            told += f": observed {verdict.observed}; allowed {verdict.allowed} ({verdict.clause})"
        elif verdict is not None and verdict.verdict is Verdict.UNDETERMINED:
            told += f": {verdict.reason}"
        yield f"    # step {index + 1}: {seen}{told}"


def _as_yaml(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_as_yaml(part) for part in value) + "]"
    if isinstance(value, dict):
        plain = {k: v for k, v in value.items() if v is not None and not (v == 0 and k in ("shift", "offset"))}
        return "{" + ", ".join(f"{k}: {_as_yaml(v)}" for k, v in plain.items()) + "}"
    return str(value).lower() if isinstance(value, bool) else str(value)


# ---- the command -----------------------------------------------------------------------------------------------------


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.generated.run", description="run generated programs; judge what they showed")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run programs and keep what was seen")
    run.add_argument("--stack", default="e820-fsdax-ext4-dax_always", help="the id of a storage stack")
    run.add_argument("--kernel", default="", help="a kernel of images/kernels.yaml, or a path")
    run.add_argument("--host", action="store_true", help="on this computer's tmpfs instead of a guest")
    run.add_argument("--seed", type=int, default=1)
    run.add_argument("--first", type=int, default=0, help="the index of the first program")
    run.add_argument("--programs", type=int, default=100, help="how many")
    run.add_argument("-o", "--output", type=Path, required=True, help="the file to write; what is in it already is kept")
    check = commands.add_parser("judge", help="judge files with the model as it is now")
    check.add_argument("files", type=Path, nargs="+")
    show = commands.add_parser("show", help="print a program with what was seen and allowed")
    show.add_argument("file", type=Path)
    show.add_argument("index", type=int)
    chosen = parser.parse_args(words)
    if chosen.command == "run":
        return _run(chosen)
    try:
        return _judge(chosen.files) if chosen.command == "judge" else _show(chosen.file, chosen.index)
    except BrokenPipeError:  # whoever reads has read enough
        return 1
    except (OSError, ValueError, KeyError) as error:
        print(f"no recordings can be read: {error}", file=sys.stderr)
        return 2


def _judge(files: Sequence[Path]) -> int:
    recordings = [recording for path in files for recording in read_recordings(path)]
    print("\n".join(summary_lines([judged(recording) for recording in recordings])))
    return int(any(recording.together for recording in recordings))


def _show(file: Path, index: int) -> int:
    for recording in read_recordings(file):
        if recording.index == index:
            print("\n".join(program_lines(judged(recording))))
            return 0
    print(f"{file} has no program {index}", file=sys.stderr)
    return 2


def _run(chosen: argparse.Namespace) -> int:
    known = named_stacks()
    if not chosen.host and chosen.stack not in known:
        print(f"no storage stack {chosen.stack!r}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    kernel = chosen.kernel or read_kernels([]).catalog.default_kernel
    where = "host-tmpfs" if chosen.host else f"{kernel}-{chosen.stack}"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    def choose(world: World) -> Iterator[tuple[int, int, Program]]:
        for index in range(chosen.first, chosen.first + chosen.programs):
            yield chosen.seed, index, draw(chosen.seed, index, world)

    stages = host_stages() if chosen.host else guest_stages(known[chosen.stack], kernel, progress)
    last: StackReading | None = None
    unexplained = 0
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    try:
        with stages as start_one, chosen.output.open("a") as file:
            for number, recording in enumerate(record(start_one, choose, where, progress), 1):
                last = write_recording(file, recording, last)
                unexplained += bool(recording.together)
                if number % 25 == 0:
                    progress(f"{where}: {number} of {chosen.programs} programs")
    except HarnessError as error:
        progress(f"{where}: {type(error).__name__}: {error}")
        return 1
    except KeyboardInterrupt:
        progress("stopped")
        return 130
    return int(unexplained > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
