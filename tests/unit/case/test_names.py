"""A name is made before it is used, is of the right kind, and is known to the process that uses it."""

import pytest

from harness.errors import CaseError
from tests.unit.case.sample import HEAD, only, plans, sample

MAP = "  - mmap: {name: m, file: f, length: 4KiB}\n"
FORK = "  - fork: {process: child}\n"
STARTED = "  - {ftruncate: {file: f, length: 0}, start: cut}\n"


@pytest.mark.parametrize(
    ("steps", "problem"),
    [
        ("  - fsync: {file: g}\n", "no earlier step makes 'g'; accepted: f"),
        (MAP + "  - fsync: {file: m}\n", "'m' is a mapping, here goes a file; accepted: f"),
        ("  - pwritev: {file: f, offset: 0, buffers: [{length: 1, mapping: f}]}\n", "'f' is a file, here goes a mapping"),
        ("  - open: {name: f, path: b}\n", "the name 'f' is taken (made at cases/family/sample.yaml:4)"),
        ("  - open: {name: main, path: b}\n", "the name 'main' is taken (the first process)"),
        ("  - {fsync: {file: f}, process: child}\n", "no earlier fork makes the process 'child'"),
        (
            FORK + MAP + "  - {load: {mapping: m, offset: 0, length: 1}, process: child}\n",
            "'m' (made at cases/family/sample.yaml:6) is not known to",
        ),
        (MAP + "  - process_vm_readv: {target: child, mapping: m, offset: 0, length: 1}\n", "no earlier step makes the process 'child'"),
        ("  - join: {label: cut}\n", "no earlier step is started as 'cut' and still to be joined"),
        (STARTED, "the step started as 'cut' is never joined; add a step join: {label: cut}"),
        (STARTED + "  - join: {label: cut}\n  - join: {label: cut}\n", "no earlier step is started as 'cut' and still to be joined"),
        (
            STARTED + "  - fsync: {file: f}\n",
            "the process 'main' is still in the started step 'cut': join it first, or fork another process",
        ),
        ('  - open: {name: g, path: "target:b"}\n', "is on a volume that this case does not have (target needs the axis target)"),
        ('  - open: {name: g, path: "bar:"}\n', "is on a volume that this case does not have (bar needs ivshmem: true under needs)"),
        (
            '  - open: {name: g, path: "overlay:b"}\n',
            "is on a volume that this case does not have (overlay needs a file system that nobody",
        ),
        ("  - mount_overlay: {}\n", "there is nothing to lay over the main volume (overlay needs a file system that nobody can write to"),
        ("  - umount: {volume: target}\n", "umount of the unknown volume 'target'; accepted: main"),
        ("  - {fsync: {file: f}, id: a}\n  - {fsync: {file: f}, id: a}\n", "the step id 'a' is taken (at cases/family/sample.yaml:5)"),
    ],
)
def test_a_name_that_cannot_be_meant_is_refused(steps: str, problem: str) -> None:
    with pytest.raises(CaseError) as caught:
        only(steps)
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    "step",
    [
        "load: {mapping: m, offset: 8KiB, length: 1}",
        "load: {mapping: m, offset: 4KiB, length: 4097}",
        "store: {mapping: m, offset: -4097, length: 8}",
        "madvise: {mapping: m, advice: dontneed, offset: 16KiB}",
        "pread: {file: f, offset: 0, length: 64KiB, into: m}",
        "pwritev: {file: f, offset: 0, buffers: [{length: 1, mapping: m, offset: 12KiB}]}",
    ],
)
def test_a_step_that_reaches_further_past_a_mapping_than_its_guards_is_refused_with_its_line(step: str) -> None:
    with pytest.raises(CaseError) as caught:
        plans(MAP + f"  - {step}\n")
    assert str(caught.value).startswith("cases/family/sample.yaml:6: ")
    assert "of the mapping 'm', whose pages have 4096: a step may reach 4096 bytes before and behind them" in str(caught.value)


def test_a_step_may_reach_into_the_guards_of_a_mapping() -> None:
    plans(MAP + "  - load: {mapping: m, offset: -4KiB, length: 4KiB}\n  - load: {mapping: m, offset: 4KiB, length: 4KiB}\n")


def test_a_fork_takes_the_names_that_exist_by_then() -> None:
    assert len(only(MAP + FORK + "  - {load: {mapping: m, offset: 0, length: 1}, process: child}\n").program.steps) == 4


def test_another_process_goes_on_while_a_step_is_started() -> None:
    assert only(FORK + STARTED + "  - {fsync: {file: f}, process: child}\n  - join: {label: cut}\n")


def test_the_first_process_can_be_named() -> None:
    assert only(MAP + FORK + "  - {process_vm_readv: {target: main, mapping: m, offset: 0, length: 1}, process: child}\n")


def test_a_path_reaches_the_target_where_there_is_one() -> None:
    head = "title: A sample\naxes: {storage: [disk], target: [disk]}\n"
    assert list(plans('  - open: {name: g, path: "target:b"}\n', head)) == ["disk-ext4-to_disk"]


def test_a_path_reaches_the_memory_of_the_pci_device_where_there_is_one() -> None:
    case = sample('  - open: {name: g, path: "bar:"}\n', HEAD + "needs: {ivshmem: true}\n")
    assert case.needs.ivshmem
