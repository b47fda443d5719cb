"""The files kept from a run: one folder an item, enough to judge it again without a guest and to boot its machine by hand.

``plan.json`` what was to be done, ``stack.json`` the stack as it was, ``observations.json`` what the agent said,
``audit.json`` what was on the volumes after the program, ``run.json`` how the run ended and on what, ``verdict.json`` the judgement (an
output, never read back),
``console.txt`` what the console printed meanwhile, ``kernel.log`` where something went wrong, ``hang.txt`` blocked tasks and registers of
a guest that hung, ``qemu.sh`` the machine.
Every JSON file carries its format.
"""

import json
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from harness.case.plan import Plan
from harness.errors import AgentError, HostError, UsageError
from harness.model.audit import Audit, audit_from
from harness.model.claims import Decision
from harness.model.outcome import OBSERVATION_FORMAT, Observation, observations_from
from harness.model.stack import StackReading
from harness.ops import Program
from harness.ops.codec import DocumentError
from harness.run.documents import audit_document, from_document, observations_document, to_document

T = TypeVar("T")

FORMAT = 1
PLAN, STACK, OBSERVATIONS, RUN, VERDICT = "plan.json", "stack.json", "observations.json", "run.json", "verdict.json"
AUDIT = "audit.json"
CONSOLE, KERNEL_LOG, HANG, QEMU_SCRIPT = "console.txt", "kernel.log", "hang.txt", "qemu.sh"


class Ending(StrEnum):
    """How the run of an item ended, whatever the verdict."""

    COMPLETED = "completed"
    CRASHED = "guest crashed"
    HUNG = "guest hung"
    LOST = "guest lost"
    HARNESS_ERROR = "harness error"


class Lifecycle(StrEnum):
    """How a guest came to be: booted for the occasion, or restored from a template."""

    BOOTED = "booted"
    RESTORED = "restored"


@dataclass(frozen=True)
class Item:
    """What was asked: a program on a stack and a kernel, with who asks.

    ``kernel`` is the kernel it runs on, ``column`` the one that was selected (a case that needs another flavour of the
    selected kernel runs on that). ``kernel_option`` is what was given to select it; empty: the default. ``kernel_args`` is what
    the user adds to its command line. ``stack`` is the stack asked for, in words. ``lifecycle`` is how its guest is to come to be.
    """

    node_id: str
    case: str
    family: str
    name: str
    title: str
    variant: str
    kernel: str
    column: str
    stack: str
    program: Program
    decisions: tuple[Decision, ...] = ()
    kernel_option: str = ""
    lifecycle: Lifecycle = Lifecycle.RESTORED
    kernel_args: str = ""

    @property
    def id(self) -> str:
        return f"{self.name}[{self.place}]"

    @property
    def place(self) -> str:
        """Variant, kernel and, where it is not the usual one, lifecycle."""
        return f"{self.variant}-{self.kernel}{place_suffix(self.lifecycle)}"

    @property
    def claims(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(decision.claim for decision in self.decisions))

    @property
    def folder_name(self) -> str:
        return f"{self.family}/{self.name}/{self.place}"


def place_suffix(lifecycle: Lifecycle) -> str:
    """Return what an item's id ends in."""
    return "" if lifecycle is Lifecycle.RESTORED else f"-{lifecycle}"


@dataclass(frozen=True)
class Target:
    """A kernel to run on: its name, the selected kernel that it stands for, and what selects that one again (empty: default).

    ``arguments``: what the user adds to its command line.
    """

    kernel: str
    column: str
    option: str = ""
    arguments: str = ""


def make_item(plan: Plan, target: Target, case: str, lifecycle: Lifecycle = Lifecycle.RESTORED) -> Item:
    """Return the item of ``plan`` on a kernel; ``case`` is the path of its file as reports are to show it."""
    kernel = target.kernel
    name, variant = plan.case.name, plan.id
    return Item(
        node_id=f"{case}::{name}[{variant}-{kernel}{place_suffix(lifecycle)}]",
        case=case,
        family=plan.case.family,
        name=name,
        title=plan.case.title,
        variant=variant,
        kernel=kernel,
        column=target.column,
        stack=plan.stack.describe(),
        program=plan.program,
        decisions=plan.decisions,
        kernel_option=target.option,
        lifecycle=lifecycle,
        kernel_args=target.arguments,
    )


@dataclass(frozen=True)
class GuestDescription:
    """What a guest is made of. ``versions`` and ``sha256`` are pairs of name and value; times are seconds.

    ``lifecycle_note``: why a guest that should have been restored was booted. ``template``: what it was restored from. ``kernel_args``:
    the user's own words on the kernel's command line. ``expected``: lines of its boot and set-up that look like complaints and were
    expected, with the reason.
    """

    kernel: str
    release: str
    accelerator: str
    accelerator_reason: str
    qemu_version: str
    qemu_command: tuple[str, ...]
    versions: tuple[tuple[str, str], ...] = ()
    sha256: tuple[tuple[str, str], ...] = ()
    mkfs: tuple[tuple[str, str], ...] = ()
    boot_times: tuple[tuple[str, float], ...] = ()
    lifecycle: Lifecycle = Lifecycle.BOOTED
    lifecycle_note: str = ""
    template: str = ""
    kernel_args: str = ""
    expected: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class RunOutcome:
    """How the run ended: ``note`` says why where it did not complete, ``messages`` what the kernel complained about.

    ``fingerprint``: where the first complaint came from. ``expected``: lines that look like complaints and were expected, with the reason.
    """

    ending: Ending
    note: str
    messages: tuple[str, ...]
    guest: GuestDescription
    seconds: float
    fingerprint: str = ""
    expected: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Record:
    """Everything that is kept of one run. ``observations`` is None where there are none, ``audit`` where there was none to be had."""

    item: Item
    reading: StackReading
    observations: tuple[Observation, ...] | None
    outcome: RunOutcome
    audit: Audit | None = None


def item_folder(artifacts: Path, item: Item) -> Path:
    """Return the folder of ``item``: readable, and free of what a shell or a file system would stumble over."""
    return artifacts / re.sub(r"[^A-Za-z0-9_.+/-]", "_", item.folder_name)


def store_record(folder: Path, record: Record, console: str, kernel_log: str, hang: str = "") -> None:
    """Write everything but the verdict; what an earlier run left in the folder goes. Raises HostError, and leaves no half of a record."""
    try:
        _store_record(folder, record, console, kernel_log, hang)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise HostError(
            f"cannot keep what was seen in {folder}: {error.strerror}{f' ({error.filename})' if error.filename else ''}; "
            "free some room, or name another folder with --artifacts"
        ) from error


def _store_record(folder: Path, record: Record, console: str, kernel_log: str, hang: str) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    _write(folder / PLAN, to_document(record.item))
    _write(folder / STACK, to_document(record.reading))
    if record.observations is not None:
        _write(folder / OBSERVATIONS, observations_document(record.observations))
    if record.audit is not None:
        _write(folder / AUDIT, audit_document(record.audit))
    _write(folder / RUN, to_document(record.outcome))
    (folder / CONSOLE).write_text(console)
    for name, text in ((KERNEL_LOG, kernel_log), (HANG, hang)):
        if text:
            (folder / name).write_text(text)
    script = folder / QEMU_SCRIPT
    script.write_text(qemu_script(record.outcome.guest.qemu_command))
    script.chmod(0o755)


def store_verdict(folder: Path, verdict: Mapping[str, Any]) -> None:
    """Write the judgement beside what it was made of."""
    _write(folder / VERDICT, verdict)


def load_record(folder: Path) -> Record:
    """Return what :func:`store_record` wrote. Raises UsageError naming the file that is missing or not as it should be."""
    return Record(
        item=_typed(Item, folder / PLAN),
        reading=_typed(StackReading, folder / STACK),
        observations=_load_observations(folder / OBSERVATIONS),
        outcome=_typed(RunOutcome, folder / RUN),
        audit=_load_audit(folder / AUDIT),
    )


def find_records(folder: Path) -> Iterator[Path]:
    """Yield every item's folder at or below ``folder``, sorted."""
    yield from sorted(path.parent for path in folder.rglob(PLAN))


def qemu_script(command: tuple[str, ...]) -> str:
    """Return a shell script that starts the same machine with its console on the terminal.

    The run's own RAM and disk files are gone, so the script makes empty ones in a folder of its own, and the two
    descriptors that the harness hands to QEMU become a socket file and the terminal.
    """
    words = [_standalone(word) for word in _cold(command)]
    files = sorted({path for word in words for path in re.findall(r"\$work/[A-Za-z0-9_.-]+", word)})
    sizes = _file_sizes(command)
    lines = [
        "#!/bin/sh",
        "# The machine of this item, started by hand. Ctrl-A X ends it.",
        "set -eu",
        "work=$(mktemp -d)",
        "trap 'rm -rf \"$work\"' EXIT",
    ]
    lines += [f'truncate -s {sizes.get(path.removeprefix("$work/"), "256M")} "{path}"' for path in files if path != "$work/qmp"]
    lines.append(" \\\n  ".join(_option_lines([f'"{word}"' if "$work" in word else shlex.quote(word) for word in words])))
    return "\n".join(lines) + "\n"


def _cold(command: tuple[str, ...]) -> Iterator[str]:
    """Yield the words of the same machine, booted: the harness starts it stopped, for a reaper, and perhaps from a saved state."""
    skip = False
    for word in command:
        if word in ("-incoming", "-pidfile", "-gdb"):
            skip = True
        elif skip:
            skip = False
        elif word != "-S":
            yield word


def _option_lines(words: list[str]) -> list[str]:
    """Return the words of a command with each option's value beside it."""
    lines: list[str] = []
    for word in words:
        if lines and not word.startswith("-") and lines[-1].startswith("-") and " " not in lines[-1]:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _standalone(word: str) -> str:
    if word.startswith("socket,id=qmp"):
        return "socket,id=qmp,path=$work/qmp,server=on,wait=off"
    if word.startswith("socket,id=console"):
        return "stdio,id=console,mux=on,signal=off"
    if "mem-path=" in word:
        return re.sub(r"mem-path=[^,]*/", "mem-path=$work/", word).replace("share=off,readonly=on,rom=off", "share=on")
    return re.sub(r"filename=[^,]*/pmemh-[^/,]*/", "filename=$work/", word)


def _file_sizes(command: tuple[str, ...]) -> dict[str, str]:
    """Sizes of the files behind memory, by name; a disk's is not in the command line."""
    found = {}
    for word in command:
        path, size = re.search(r"mem-path=([^,]+)", word), re.search(r"size=(\d+)", word)
        if path and size:
            found[Path(path[1]).name] = size[1]
    return found


def _write(path: Path, document: Any) -> None:
    if isinstance(document, Mapping):
        document = {"format": FORMAT, **document}
    path.write_text(json.dumps(document, indent=1) + "\n")


def _load(path: Path, format_: int = FORMAT) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text())
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}; is this the folder of an item?") from error
    except ValueError as error:
        raise UsageError(f"{path} is not JSON: {error}") from error
    if not isinstance(document, dict) or document.get("format") != format_:
        found = document.get("format") if isinstance(document, dict) else None
        raise UsageError(f"{path} has format {found!r}, this harness reads {format_}: judge it with the version that wrote it")
    return document


def _load_observations(path: Path) -> tuple[Observation, ...] | None:
    if not path.exists():
        return None
    try:
        return observations_from(_load(path, OBSERVATION_FORMAT))
    except AgentError as error:
        raise UsageError(f"{path}: {error}") from error


def _load_audit(path: Path) -> Audit | None:
    if not path.exists():
        return None
    try:
        return audit_from(_load(path))
    except AgentError as error:
        raise UsageError(f"{path}: {error}") from error


def _typed(kind: type[T], path: Path) -> T:
    try:
        return from_document(kind, _load(path))
    except DocumentError as error:
        raise UsageError(f"{path}: {error}") from error
