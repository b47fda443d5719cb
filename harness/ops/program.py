"""Programs: operations in the order in which they are begun, by whom, and what a case says of them."""

from enum import StrEnum
from typing import Any

from harness.ops.processes import Join
from harness.ops.tag import PREPARED_WRITER
from harness.ops.words import Frozen, Operation, frozen


@frozen
class Pin(Frozen):
    """The outcome that a case is about: exactly one of the four is set."""

    returns: int | None = None
    errno: str | None = None
    signal: str | None = None
    blocked: bool | None = None

    def describe(self) -> str:
        if self.returns is not None:
            return f"returns {self.returns}"
        if self.errno is not None:
            return self.errno
        if self.signal is not None:
            return self.signal
        return "blocked" if self.blocked else "not blocked"


@frozen
class Step(Frozen):
    """One operation with who does it. ``start`` gives the step a label and does not wait for it beyond the limit
    that tells blocked from slow. ``line`` is where the case says it (0: nowhere)."""

    operation: Operation
    process: str = "main"
    start: str | None = None
    pin: Pin | None = None
    line: int = 0


#: Each step is a writer; the last one is kept for what lay on the medium before.
MAX_STEPS = PREPARED_WRITER - 1


@frozen
class Program(Frozen):
    """Steps in the order in which they are begun. The writer of the bytes a step writes is its index plus 1.

    Raises ValueError for more than MAX_STEPS.
    """

    steps: tuple[Step, ...]

    def __init__(self, steps: tuple[Step, ...]) -> None:
        super().__init__(steps)
        if len(self.steps) > MAX_STEPS:
            raise ValueError(f"a program has at most {MAX_STEPS} steps, each a writer of its own; this one has {len(self.steps)}")

    def performed(self, index: int) -> Operation:
        """Return the operation of which step ``index`` shows the outcome: a join shows that of the step that it waits for."""
        operation = self.steps[index].operation
        if not isinstance(operation, Join):
            return operation
        return next((step.operation for step in self.steps[:index] if step.start == operation.label), operation)


def arguments(op: Operation) -> dict[str, Any]:
    """Return the arguments of ``op`` as YAML and JSON have them: names without underscore, flags as words."""
    return {field.key: _plain(getattr(op, name)) for name, field in op.fields.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, StrEnum):
        return str(value)
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    if isinstance(value, Frozen):
        return {field.key: _plain(getattr(value, name)) for name, field in value.fields.items()}
    return value


def describe(op: Operation) -> str:
    """Return ``pwrite(f, offset=0, length=1000)``: the first name bare, then every argument that is not its default."""
    words: list[str] = []
    for name, field in op.fields.items():
        value = getattr(op, name)
        if value == field.default:
            continue
        plain = _plain(value)
        text = "|".join(map(str, plain)) if isinstance(plain, list) and all(isinstance(p, str) for p in plain) else str(plain)
        named = "refers" in field.metadata or "makes" in field.metadata
        words.append(text if named and not words else f"{field.key}={text}")
    return f"{op.call}({', '.join(words)})"
