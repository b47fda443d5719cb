"""The paragraph of an item that did not pass."""

import shlex
import textwrap
from collections.abc import Iterable

from harness.errors import CONSOLE_FOLLOWS, reason_of
from harness.model.known import Known
from harness.model.verdict import Verdict
from harness.record.item import Ending
from harness.record.store import CONSOLE, HANG, KERNEL_LOG
from harness.report.rows import Row, StepRow

#: How much of the console of a guest that did not come up is told.
_CONSOLE_LINES = 8


def describe_row(row: Row) -> str:
    """Return the paragraph of an item that did not pass; of one that did, one line."""
    if row.passed:
        return f"{row.node_id}: conforms"
    paragraphs = [_step_text(row, step) for step in _telling_steps(row)]
    if row.ending != Ending.COMPLETED or row.messages or not paragraphs or row.known == Known.GONE:
        paragraphs.insert(0, _ending_text(row))
    return "\n".join(paragraphs) + "\n" + _again_text(row)


def _telling_steps(row: Row) -> list[StepRow]:
    """The deviations; where there are none, the first undetermined step: what follows it is mostly its echo."""
    deviating = [step for step in row.steps if step.verdict == str(Verdict.DEVIATES)]
    return deviating or list(row.steps[:1])


def _step_text(row: Row, step: StepRow) -> str:
    where = f"{row.case}:{step.line}" if step.line else row.case
    head = f"{where}  " + (f"step {step.number} of {step.of}  {step.call}" if step.number <= step.of else step.call)
    lines = [("stack", _stack_text(row)), ("observed", step.observed)]
    if step.verdict == str(Verdict.DEVIATES):
        lines += [("allowed", step.allowed), ("because", step.because)]
        if row.known == Known.YES:
            lines.append(("known", f"yes: {row.reference}"))
    else:
        lines.append(("undetermined", step.reason))
    return "\n".join([head, *_aligned(lines)])


def _ending_text(row: Row) -> str:
    note = _shortened(row.note)
    lines = [("stack", _stack_text(row)), ("ending", row.ending + (f": {note}" if note else ""))]
    if row.messages:
        lines.append(("kernel", "\n".join(row.messages)))
    if row.fingerprint:
        lines.append(("crash", row.fingerprint))
    if row.excerpt:
        lines.append(("excerpt", row.excerpt))
    if row.known == Known.GONE:
        lines.append(("known", f"gone: a known deviation is listed for this kernel and did not show; {row.reference}"))
    if row.logs:
        lines.append(("logs", row.logs))
    if row.folder:
        lines.append(("console", f"{row.folder}/{CONSOLE}"))
        if row.messages or row.ending != Ending.COMPLETED:
            lines.append(("log", f"{row.folder}/{KERNEL_LOG}"))
        if row.ending == Ending.HUNG:
            lines.append(("hang", f"{row.folder}/{HANG}"))
    return "\n".join([f"{row.case}  {row.item}", *_aligned(lines)])


def _shortened(note: str) -> str:
    """A message with the last lines only of the console that it quotes; the row, and the logs that are kept, have more."""
    message, mark, console = note.partition(CONSOLE_FOLLOWS)
    return message + mark + "".join(f"\n{line}" for line in console.splitlines()[1:][-_CONSOLE_LINES:])


def row_reason(row: Row) -> str:
    """Return what items that ended for the same reason have in common, whatever their storage stacks."""
    return f"{row.ending}: {reason_of(row.note.replace(row.stack, 'its stack'))}"


def _again_text(row: Row) -> str:
    kernel = f" --kernel {shlex.quote(row.kernel_option)}" if row.kernel_option else ""
    lifecycle = f" --lifecycle {row.lifecycle}" if f"-{row.lifecycle}]" in row.node_id else ""
    arguments = f" --kernel-args={shlex.quote(row.kernel_args)}" if row.kernel_args else ""
    lines = [("rerun", f'pytest "{row.node_id}"{kernel}{arguments}{lifecycle}')]
    if row.folder:
        lines.append(("re-judge", f"python -m harness judge {shlex.quote(row.folder)}"))
    return "\n".join(_aligned(lines))


def _stack_text(row: Row) -> str:
    arguments = f" with {row.kernel_args}" if row.kernel_args else ""
    on = [(f"Linux {row.release}" if row.release else f"kernel {row.kernel}") + arguments, row.accelerator]
    return ", ".join([row.stack, *filter(None, on)])


def _aligned(lines: Iterable[tuple[str, str]]) -> list[str]:
    return [
        textwrap.indent(f"{name:<9} {text}" if len(name) < 10 else f"{name} {text}", "  ").replace("\n", "\n" + " " * 12)
        for name, text in lines
    ]
