"""What the doctor says of the accelerator: which, why, and what decides otherwise."""

from collections.abc import Callable

import pytest

from harness.cli import doctor as subject
from harness.cli.doctor import Finding
from harness.errors import HostError
from harness.machine.accelerator import Accelerator
from tests.fakes.machine import FAKE_EMULATOR

SLOWER = "KVM is slower: a loop of 67,108,864 turns took 0.60 s under tcg and was not done after 0.60 s under kvm"


def finding(monkeypatch: pytest.MonkeyPatch, choice: str, choose: Callable[[object], Accelerator]) -> Finding:
    monkeypatch.setenv("PMEM_HARNESS_ACCEL", choice)
    monkeypatch.setattr(subject, "find_emulator", lambda: FAKE_EMULATOR)
    monkeypatch.setattr(subject, "choose_accelerator", choose)
    return next(found for found in subject._machine_findings() if found.name == "accelerator")


def test_a_choice_of_ours_is_said_with_both_times_and_what_decides_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    found = finding(monkeypatch, "auto", lambda _: Accelerator("tcg", SLOWER))
    assert found == Finding("accelerator", True, f"tcg: {SLOWER} (PMEM_HARNESS_ACCEL is auto; kvm or tcg there decides otherwise)")


def test_a_choice_of_the_users_is_said_to_be_that(monkeypatch: pytest.MonkeyPatch) -> None:
    found = finding(monkeypatch, "tcg", lambda _: Accelerator("tcg", "PMEM_HARNESS_ACCEL asks for it"))
    assert found == Finding("accelerator", True, "tcg: PMEM_HARNESS_ACCEL asks for it")


def test_a_choice_that_cannot_be_is_a_fault_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> Accelerator:
        raise HostError(f"PMEM_HARNESS_ACCEL asks for kvm, but {SLOWER}; take auto or tcg")

    found = finding(monkeypatch, "kvm", refuse)
    assert (found.ok, found.needed) == (False, True)
    assert SLOWER in found.text
