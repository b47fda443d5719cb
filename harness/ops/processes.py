"""Futexes and other processes."""

from harness.ops.words import DATA, LABEL, MAPPING, PROCESS, Count, Offset, Operation, Size, new, operation, ref


@operation("futex_wait")
class FutexWait(Operation):
    """futex(2) FUTEX_WAIT while the 32-bit word is ``value``; ``timeout_ms`` None waits for ever."""

    mapping: str = ref(MAPPING)
    offset: Offset
    value: Count
    private: bool = False
    timeout_ms: Count | None = None


@operation("futex_wake")
class FutexWake(Operation):
    mapping: str = ref(MAPPING)
    offset: Offset
    count: Count = 1
    private: bool = False


@operation("fork")
class Fork(Operation):
    """fork(2): the new process has all names of the one that does it, and later makes its own."""

    process: str = new(PROCESS)


@operation("process_vm_readv", DATA)
class ProcessVmReadv(Operation):
    """process_vm_readv(2) of a range of a mapping as ``target`` has it."""

    target: str = ref(PROCESS)
    mapping: str = ref(MAPPING)
    offset: Offset
    length: Size


@operation("join")
class Join(Operation):
    """Wait for a step that was started with ``start: label``; its outcome is this step's outcome."""

    label: str = ref(LABEL)
