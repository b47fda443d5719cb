"""The final audit: what a program left in its files, read before and after the volume was unmounted, checked and mounted again.

The guest is asked after the last step, when the processes of the program are gone. What it says is stored before anybody judges it.
Contents are judged where the model knows the state in which the program ended; a finding of the check, or a volume that cannot be
unmounted or mounted, deviates whatever the program did.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from harness.model.audit_outcome import Audit, FileSeen, VolumeSeen
from harness.model.clause import clause
from harness.model.content import Pieces, find_mismatch, has_unknown
from harness.model.judge import Judgement, StepVerdict, because_of
from harness.model.objects import Memory
from harness.model.outcome import How, Observation
from harness.model.state import State
from harness.model.verdict import Verdict, worst
from harness.ops import Join, MountVolume, Program, Step, UmountVolume

#: Files that are larger are not read back: they would take longer than the program.
FILE_LIMIT_BYTES = 64 << 20
#: Why nothing can be said of the files of a volume.
NOT_MOUNTED = "the volume was not mounted any more when the program had ended"

BEFORE = clause(
    "C-AUDIT-01",
    "what a program left in its files is read when it has ended, and no file is there that it did not make",
    "POSIX write(), read()",
)
UNMOUNT = clause("C-AUDIT-02", "a volume can be unmounted when the processes that used it are gone", "umount2(2)")
CHECK = clause(
    "C-AUDIT-03", "the check of a volume that was unmounted finds nothing", "e2fsck(8), xfs_repair(8), fsck.erofs(1): exit status 0"
)
MOUNT = clause("C-AUDIT-04", "a volume that was unmounted can be mounted again as it was", "mount(2)")
AFTER = clause(
    "C-AUDIT-05",
    "what was in the files before a volume was unmounted is there when it is mounted again",
    "umount2(2): what is dirty is written first",
)
#: What was done, for reports: an audit is no step of the program.
AUDIT_CALLS = {
    BEFORE: "after the program: read all files",
    UNMOUNT: "after the program: unmount",
    CHECK: "after the program: check the file system",
    MOUNT: "after the program: mount again",
    AFTER: "after the program: read all files again",
}


# ---- which volumes, and when not -------------------------------------------------------------------------------------


def audited_volumes(program: Program, mounted: Sequence[MountVolume]) -> tuple[MountVolume, ...]:
    """Return how each volume is to be mounted again: as the set-up ``mounted`` it, and ``program``, all of whose steps worked, left it."""
    left = {mount.volume: mount for mount in mounted}
    for step in program.steps:
        if isinstance(step.operation, UmountVolume):
            left.pop(step.operation.volume, None)
        elif isinstance(step.operation, MountVolume):
            left[step.operation.volume] = step.operation
    return tuple(left.values())


def what_worked(program: Program, observations: Sequence[Observation]) -> Program:
    """Return the steps of a program that returned, in their order."""
    return Program(tuple(step for step, last in _ends(program, observations) if last.how is How.RETURNED))


def unsure_end(program: Program, observations: Sequence[Observation]) -> str:
    """Return why nobody can know what a program left in its files, or nothing: what still runs is killed, done or not."""
    for number, (_, last) in enumerate(_ends(program, observations), 1):
        if last.how in (How.BLOCKED, How.STARTED):
            return f"step {number} had not ended when the program did"
    return ""


def _ends(program: Program, observations: Sequence[Observation]) -> Iterator[tuple[Step, Observation]]:
    """Yield each step with what was last seen of it: of one that was started, its join."""
    pairs = list(zip(program.steps, observations, strict=True))
    joined = {step.operation.label: seen for step, seen in pairs if isinstance(step.operation, Join)}
    for step, seen in pairs:
        yield step, joined.get(step.start, seen) if step.start is not None else seen


# ---- the judgement ---------------------------------------------------------------------------------------------------


@dataclass
class _Asked:
    """The clauses that an audit asks, and what comes of them."""

    step: int
    flipped: frozenset[str]
    rows: list[StepVerdict] = field(default_factory=list)

    def holds(self, clause_id: str, condition: bool, allowed: str, observed: str) -> bool:
        right = not condition if clause_id in self.flipped else condition
        verdict = Verdict.CONFORMS if right else Verdict.DEVIATES
        self.add(clause_id, verdict, allowed, observed)
        return right

    def add(self, clause_id: str, verdict: Verdict, allowed: str, observed: str, reason: str = "") -> None:
        self.rows.append(StepVerdict(self.step, verdict, observed, allowed, because_of(clause_id), (clause_id,), reason, clause_id))


def with_audit(judgement: Judgement, program: Program, audit: Audit | None, flipped: frozenset[str] = frozenset()) -> Judgement:
    """Return ``judgement`` with the verdicts on an audit behind those of the steps (``step`` is then the number of steps).

    Contents are left out where ``judgement`` does not know the states in which the program may have ended.
    """
    if audit is None:
        return judgement
    asked = _Asked(len(program.steps), flipped)
    finals = () if audit.skipped else judgement.finals
    if finals:
        finals = _judge_content(asked, BEFORE, finals, {v.role: v.before for v in audit.volumes if v.before is not None})
    for volume in audit.volumes:
        if volume.before is None and not audit.skipped:
            asked.add(BEFORE, Verdict.UNDETERMINED, f"{volume.role}: mounted", f"{volume.role}: not mounted", NOT_MOUNTED)
        _judge_volume(asked, volume)
    if finals:
        _judge_content(asked, AFTER, finals, {v.role: v.after for v in audit.volumes if v.after is not None})
    steps = (*judgement.steps, *asked.rows)
    return Judgement(worst(step.verdict for step in steps), steps, judgement.facts, judgement.finals)


def _judge_volume(asked: _Asked, volume: VolumeSeen) -> None:
    if volume.unmount is not None:
        asked.holds(UNMOUNT, not volume.unmount, f"{volume.role}: unmounted", f"{volume.role}: {volume.unmount or 'unmounted'}")
    if volume.check is not None:
        found = f"{volume.check.command}: exit status {volume.check.status}"
        asked.holds(
            CHECK, volume.check.status == 0, "exit status 0", found if volume.check.status == 0 else f"{found}\n{volume.check.text.strip()}"
        )
    if volume.mount is not None:
        asked.holds(MOUNT, not volume.mount, f"{volume.role}: mounted", f"{volume.role}: {volume.mount or 'mounted'}")


def _judge_content(asked: _Asked, clause_id: str, finals: tuple[State, ...], seen: Mapping[str, tuple[FileSeen, ...]]) -> tuple[State, ...]:
    """Enter the verdict on what all files showed, and return the final states that explain it."""
    if not seen:
        return finals
    differences = [(state, next(_differences(state, seen), None)) for state in finals]
    left = tuple(state for state, difference in differences if difference is None)
    first = next((difference for _, difference in differences if difference is not None), None)
    count = sum(len(files) for files in seen.values())
    if left or first is None:
        # What a step may leave in more than one way is not compared; everything beside it is.
        known = not left or any(not _unknown(state, seen) for state in left)
        unread = next((f"{file.path}: {_why_unread(file)}" for files in seen.values() for file in files if file.runs is None), "")
        words = f"{count} files, as the model has them" + ("" if known else ", but for bytes that a step left open")
        if unread:
            asked.add(clause_id, Verdict.UNDETERMINED, words, words, unread)
        else:
            asked.holds(clause_id, True, words, words)
        return left
    allowed, observed = first
    asked.holds(clause_id, False, allowed, observed)
    return ()


def _why_unread(seen: FileSeen) -> str:
    return seen.note or f"{seen.size} bytes are more than an audit reads"


def _expected(state: State, role: str) -> dict[str, Memory]:
    files = {path: state.objects[number] for (volume, path), number in state.files.items() if volume == role}
    return {path: memory for path, memory in files.items() if isinstance(memory, Memory) and memory.is_file}


def _differences(state: State, seen: Mapping[str, tuple[FileSeen, ...]]) -> Iterator[tuple[str, str]]:
    """Yield what is allowed and what was observed wherever the files of ``state`` are not those that were seen."""
    for role, files in seen.items():
        expected = _expected(state, role)
        found = {file.path: file for file in files}
        for path in sorted(expected.keys() | found.keys()):
            name = path if role == "main" else f"{role}:{path}"
            if path not in found:
                yield f"{name}: a file of {expected[path].size} bytes", f"{name}: no such file"
            elif path not in expected:
                yield f"{name}: no such file", f"{name}: a file of {found[path].size} bytes"
            else:
                yield from _file_differences(name, expected[path], found[path])


def _file_differences(name: str, memory: Memory, seen: FileSeen) -> Iterator[tuple[str, str]]:
    if seen.size != memory.size:
        yield f"{name}: {memory.size} bytes", f"{name}: {seen.size} bytes"
    elif seen.note:
        yield f"{name}: can be read", f"{name}: {seen.note}"
    elif seen.runs is not None:
        mismatch = find_mismatch(_content(memory), seen.runs)
        if mismatch is not None:
            span = f"{name}: bytes {mismatch.offset}..{mismatch.offset + mismatch.length - 1}"
            yield f"{span}: {mismatch.allowed}", f"{span}: {mismatch.observed}"


def _content(memory: Memory) -> Pieces:
    return memory.content.read(0, memory.size)


def _unknown(state: State, seen: Mapping[str, tuple[FileSeen, ...]]) -> bool:
    return any(has_unknown(_content(memory)) for role in seen for memory in _expected(state, role).values())
