"""KVM only where a guest ran: every way in which it may not, and the override."""

from pathlib import Path

import pytest

from harness.errors import HostError, UsageError
from harness.machine.accelerator import choose_accelerator, describe, run_self_test, self_test_command, self_test_rom
from harness.machine.command import Emulator

RAN = "exit 85"


def emulator(folder: Path, script: str) -> Emulator:
    path = folder / "qemu"
    path.write_text(f"#!/bin/sh\necho run >> {folder}/runs\n{script}\n")
    path.chmod(0o755)
    return Emulator(str(path), (10, 0, 2), "10.0.2", has_qboot=True)


def runs(folder: Path) -> int:
    return len((folder / "runs").read_text().splitlines()) if (folder / "runs").exists() else 0


@pytest.fixture
def node(tmp_path: Path) -> Path:
    path = tmp_path / "kvm"
    path.touch()
    return path


def test_kvm_is_taken_where_a_guest_ran(tmp_path: Path, node: Path) -> None:
    chosen = choose_accelerator(emulator(tmp_path, RAN), "auto", tmp_path, node)
    assert (chosen.name, chosen.time_scale) == ("kvm", 1.0)
    assert describe(chosen) == "kvm: a guest under kvm executed its instructions (self-test)"


def test_what_the_self_test_saw_is_remembered_for_this_qemu_and_this_boot(tmp_path: Path, node: Path) -> None:
    for _ in range(3):
        choose_accelerator(emulator(tmp_path, RAN), "auto", tmp_path, node)
    assert runs(tmp_path) == 1
    other = emulator(tmp_path, RAN)
    choose_accelerator(Emulator(other.program, (11, 0, 0), "11.0.0", has_qboot=True), "auto", tmp_path, node)
    assert runs(tmp_path) == 2


@pytest.mark.parametrize("text", ["", "{", "[]", '{"key": 1}'])
def test_a_memory_that_cannot_be_read_counts_as_none(tmp_path: Path, node: Path, text: str) -> None:
    (tmp_path / "accelerator.json").write_text(text)
    assert choose_accelerator(emulator(tmp_path, RAN), "auto", tmp_path, node).name == "kvm"


def test_without_a_kvm_node_the_guests_are_emulated(tmp_path: Path) -> None:
    chosen = choose_accelerator(emulator(tmp_path, RAN), "auto", tmp_path, tmp_path / "none")
    assert (chosen.name, chosen.time_scale) == ("tcg", 10.0)
    assert chosen.reason == f"there is no {tmp_path}/none"
    assert runs(tmp_path) == 0


def test_a_qemu_that_dies_under_kvm_means_tcg_with_its_words(tmp_path: Path, node: Path) -> None:
    chosen = choose_accelerator(emulator(tmp_path, "echo first >&2; echo 'no such MSR' >&2; exit 1"), "auto", tmp_path, node)
    assert chosen.name == "tcg"
    assert chosen.reason == "QEMU under kvm ended with status 1 in the self-test: no such MSR"


def test_a_qemu_that_dies_in_silence_means_tcg(tmp_path: Path) -> None:
    assert run_self_test(emulator(tmp_path, "exit 3"), "kvm").seen.endswith("status 3 in the self-test: and said nothing")


def test_a_guest_that_never_runs_is_given_up_and_ended(tmp_path: Path) -> None:
    tested = run_self_test(emulator(tmp_path, f"echo $$ > {tmp_path}/pid; exec sleep 1000"), "kvm", limit_s=0.3)
    assert not tested.passed
    assert "executed nothing within" in tested.seen
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()


def test_the_setting_overrides_the_self_test(tmp_path: Path, node: Path) -> None:
    assert choose_accelerator(emulator(tmp_path, RAN), "tcg", tmp_path, node).reason == "PMEM_HARNESS_ACCEL asks for it"
    assert runs(tmp_path) == 0


def test_kvm_that_was_demanded_and_does_not_run_is_an_error(tmp_path: Path, node: Path) -> None:
    with pytest.raises(HostError, match="asks for kvm, but QEMU under kvm ended with status 1"):
        choose_accelerator(emulator(tmp_path, "exit 1"), "kvm", tmp_path, node)


def test_another_word_is_refused_with_the_accepted_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="auto, kvm or tcg"):
        choose_accelerator(emulator(tmp_path, RAN), "fast", tmp_path)


def test_a_node_that_may_not_be_opened_is_said(tmp_path: Path, node: Path) -> None:
    chosen = choose_accelerator(emulator(tmp_path, RAN), "auto", tmp_path, node, may_open=lambda _: False)
    assert chosen.reason == f"{node} may not be opened by this user (on Debian: the group kvm)"
    assert runs(tmp_path) == 0


def test_the_self_test_uses_the_cpu_model_of_real_guests(tmp_path: Path) -> None:
    words = self_test_command(emulator(tmp_path, RAN), "kvm", Path("/f/self,test.rom"))
    assert words[words.index("-cpu") + 1] == "max"
    assert words[words.index("-bios") + 1] == "/f/self,,test.rom"


def test_the_firmware_begins_at_the_reset_vector() -> None:
    rom = self_test_rom()
    assert len(rom) == 64 * 1024
    assert rom[-16:-11] == bytes.fromhex("ea000000f0")
