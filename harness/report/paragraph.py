"""The paragraph of an item that did not pass."""

import shlex
import textwrap
from collections import Counter
from collections.abc import Iterable

from harness.errors import CONSOLE_FOLLOWS, reason_of
from harness.model.known import Known
from harness.model.verdict import Verdict
from harness.record.item import Ending, place_suffix
from harness.record.store import CONSOLE, HANG, KERNEL_LOG
from harness.report.rows import Judged, Row, StepRow

#: How much of the console of a guest that did not come up is told.
_CONSOLE_LINES = 8


def describe_row(row: Row) -> str:
    """Return the paragraph of an item that did not pass; of one that did, one line."""
    if row.passed:
        return f"{row.where.node_id}: conforms"
    paragraphs = [_step_text(row, row.judged, step) for step in row.judged.deciding] if row.judged else []
    gone = row.judged is not None and row.judged.known is Known.GONE
    if row.ended.ending is not Ending.COMPLETED or row.ended.messages or not paragraphs or gone:
        paragraphs.insert(0, _ending_text(row))
    return "\n".join([*paragraphs, *_aligned(again_lines(row))])


def _step_text(row: Row, judged: Judged, step: StepRow) -> str:
    where = f"{row.where.case}:{step.line}" if step.line else row.where.case
    head = f"{where}  " + (f"step {step.number} of {step.of}  {step.call}" if step.number <= step.of else step.call)
    lines = [("stack", stack_text(row)), ("observed", step.observed)]
    if step.verdict is Verdict.DEVIATES:
        lines += [("allowed", step.allowed), ("because", step.because)]
        if judged.known is Known.YES:
            lines.append(("known", f"yes: {judged.reference}"))
    else:
        lines.append(("undetermined", step.reason))
    return "\n".join([head, *_aligned(lines)])


def _ending_text(row: Row) -> str:
    ended, note = row.ended, _shortened(row.ended.note)
    lines = [("stack", stack_text(row)), ("ending", ended.ending + (f": {note}" if note else ""))]
    lines += [("kernel", "\n".join(ended.messages)), ("crash", ended.fingerprint), ("excerpt", ended.excerpt)]
    if row.judged is not None and row.judged.known is Known.GONE:
        lines.append(("known", f"gone: a known deviation is listed for this kernel and did not show; {row.judged.reference}"))
    lines.append(("logs", ended.logs))
    if ended.folder:
        lines.append(("console", f"{ended.folder}/{CONSOLE}"))
        if ended.messages or ended.ending is not Ending.COMPLETED:
            lines.append(("log", f"{ended.folder}/{KERNEL_LOG}"))
        if ended.ending is Ending.HUNG:
            lines.append(("hang", f"{ended.folder}/{HANG}"))
    return "\n".join([f"{row.where.case}  {row.where.id}", *_aligned((name, text) for name, text in lines if text)])


def _shortened(note: str) -> str:
    """A message with the last lines only of the console that it quotes; the row, and the logs that are kept, have more."""
    message, mark, console = note.partition(CONSOLE_FOLLOWS)
    return message + mark + "".join(f"\n{line}" for line in console.splitlines()[1:][-_CONSOLE_LINES:])


def row_reason(row: Row) -> str:
    """Return what items that ended for the same reason have in common, whatever their storage stacks."""
    return f"{row.ended.ending}: {reason_of(row.ended.note.replace(row.where.stack.describe(), 'its stack'))}"


def again_lines(row: Row) -> list[tuple[str, str]]:
    """Return what runs an item again, and what judges it again where something of it is kept, each with its name."""
    target, lifecycle = row.where.target, row.where.lifecycle
    words = [
        f'pytest "{row.where.node_id}"',
        f"--kernel {shlex.quote(target.option)}" if target.option else "",
        f"--kernel-args={shlex.quote(target.arguments)}" if target.arguments else "",
        f"--repeat {len(row.repeats)}" if row.is_flaky else "",
        f"--lifecycle {lifecycle}" if place_suffix(lifecycle) else "",
    ]
    lines = [("repeats", _repeats_text(row)), ("rerun", " ".join(filter(None, words)))]
    if row.ended.folder:
        lines.append(("re-judge", f"python -m harness judge {shlex.quote(row.ended.folder)}"))
    return [(name, text) for name, text in lines if text]


def _repeats_text(row: Row) -> str:
    """What an item came to that was run several times: how often, in the order in which it did so first."""
    counts = ", ".join(f"{word} {count}" for word, count in Counter(row.repeats).items())
    return f"{'flaky: ' if row.is_flaky else ''}{counts} of {len(row.repeats)}" if row.repeats else ""


def stack_text(row: Row) -> str:
    """Return in one line what an item ran on: ``e820 256MiB -> fsdax map=mem -> ext4 -> dax=never, Linux 6.12.95, tcg``."""
    target = row.where.target
    kernel = f"Linux {row.guest.release}" if row.guest else f"kernel {target.kernel}"
    arguments = f" with {target.arguments}" if target.arguments else ""
    return ", ".join([row.where.stack.describe(), kernel + arguments, *([row.guest.accelerator] if row.guest else [])])


def _aligned(lines: Iterable[tuple[str, str]]) -> list[str]:
    return [
        textwrap.indent(f"{name:<9} {text}" if len(name) < 10 else f"{name} {text}", "  ").replace("\n", "\n" + " " * 12)
        for name, text in lines
    ]
