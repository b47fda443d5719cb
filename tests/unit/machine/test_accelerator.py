"""KVM only where it runs a loop sooner than TCG does: every way in which it may not, and the override."""

import itertools
import json
import shlex
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness.errors import HostError, UsageError
from harness.machine import accelerator as subject
from harness.machine.accelerator import LOOP_S, Accelerator, choose_accelerator, emulated_instead, find_refuted, measure, refute_kvm
from harness.machine.command import Emulator
from harness.machine.self_test import TURNS_OFFSET, SelfTest, run_self_test, self_test_command, self_test_rom

PACED_QEMU = Path(__file__).parents[2] / "fakes/paced_qemu.py"
TCG: dict[str, object] = {"start_s": 0.2, "turn_s": 5e-8}
#: Each turn takes a fifth of what it takes under TCG.
FAST: dict[str, object] = {"start_s": 0.2, "turn_s": 1e-8}
SLOW: dict[str, object] = {"start_s": 0.2, "turn_s": 2e-6}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shorter loop: these QEMUs sleep, and sleep is even."""
    monkeypatch.setattr(subject, "LOOP_S", 0.2)


def emulator(folder: Path, script: str) -> Emulator:
    path = folder / "qemu"
    path.write_text(f"#!/bin/sh\necho run >> {folder}/runs\n{script}\n")
    path.chmod(0o755)
    return Emulator(str(path), (10, 0, 2), "10.0.2", has_qboot=True)


def paced(folder: Path, kvm: dict[str, object], tcg: dict[str, object] = TCG) -> Emulator:
    told = json.dumps({"kvm": kvm, "tcg": tcg, "turns_offset": TURNS_OFFSET})
    return emulator(folder, f'exec {shlex.join([sys.executable, "-I", "-S", str(PACED_QEMU), told])} "$@"')


def runs(folder: Path) -> int:
    return len((folder / "runs").read_text().splitlines()) if (folder / "runs").exists() else 0


@pytest.fixture
def node(tmp_path: Path) -> Path:
    path = tmp_path / "kvm"
    path.touch()
    return path


# ---- drills: each with a QEMU that takes its time --------------------------------------------------------------------


@pytest.mark.parametrize(
    "kvm",
    [
        {"start_s": 0.2, "turn_s": 2.5e-8},
        {"start_s": 0.8, "turn_s": 2.5e-8},
        {"start_s": 0.2, "turn_s": 5e-10},
    ],
    ids=["twice as fast", "starts slower but loops faster", "a hundred times as fast"],
)
def test_kvm_is_taken_where_its_loop_is_faster(tmp_path: Path, node: Path, kvm: dict[str, object]) -> None:
    chosen = choose_accelerator(paced(tmp_path, kvm), "auto", tmp_path, node)
    assert (chosen.name, chosen.time_scale, chosen.tentative) == ("kvm", 1.0, True)
    assert chosen.reason.startswith("KVM is faster: a loop of ")
    assert " s under tcg and " in chosen.reason


@pytest.mark.parametrize(
    ("kvm", "words"),
    [
        (SLOW, "KVM is slower: a loop of"),
        ({"start_s": 0.0, "turn_s": 1.5e-7}, "KVM is slower: a loop of"),
        ({"dies": "no such MSR"}, "QEMU under kvm ended with status 1 in the self-test: no such MSR"),
        ({**FAST, "dies": "no such MSR", "from_turns": 2}, "QEMU under kvm ended with status 1 in the self-test: no such MSR"),
        ({**FAST, "hangs": True, "from_turns": 2}, "KVM is slower: a loop of"),
    ],
    ids=["slow", "starts faster but loops slower", "dead", "dead in the loop", "hanging in the loop"],
)
def test_a_kvm_that_is_slow_dead_or_hanging_means_tcg(
    tmp_path: Path, node: Path, monkeypatch: pytest.MonkeyPatch, kvm: dict[str, object], words: str
) -> None:
    monkeypatch.setattr(subject, "_ROUNDS", 1)
    qemu = paced(tmp_path, kvm)
    chosen = choose_accelerator(qemu, "auto", tmp_path, node)
    assert (chosen.name, chosen.time_scale, chosen.tentative) == ("tcg", 10.0, False)
    assert chosen.reason.startswith(words)
    with pytest.raises(HostError) as caught:
        choose_accelerator(qemu, "kvm", tmp_path, node)
    assert str(caught.value) == f"PMEM_HARNESS_ACCEL asks for kvm, but {chosen.reason}; take auto or tcg"


def test_a_kvm_that_hangs_from_the_start_means_tcg(tmp_path: Path, node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "_START_SLACK_S", 0.5)
    monkeypatch.setattr(subject, "_START_RATIO", 1.0)
    chosen = choose_accelerator(paced(tmp_path, {"hangs": True}), "auto", tmp_path, node)
    assert chosen.name == "tcg"
    assert "a guest under kvm executed nothing within" in chosen.reason


def test_kvm_gets_no_longer_to_start_than_tcg_even_where_tcg_took_all_its_time(
    tmp_path: Path, node: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "START_LIMIT_S", 0.5)
    chosen = choose_accelerator(paced(tmp_path, {"hangs": True}, {"hangs": True}), "auto", tmp_path, node)
    assert chosen.name == "tcg"
    assert "a guest under kvm executed nothing within 0.5 s" in chosen.reason


def test_the_loop_keeps_tcg_busy_and_both_times_are_said_without_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "LOOP_S", LOOP_S)
    # Nearer to TCG than half of its time, so that the shortest of several starts and runs are compared.
    measured = measure(paced(tmp_path, {"start_s": 1.0, "turn_s": 3e-8}))
    assert measured.tcg_s is not None
    assert measured.kvm_s is not None
    # Sleeps last as long as they say, and never shorter; how much longer is the host's business, of the start that is subtracted, too.
    assert measured.tcg_s >= LOOP_S * 0.9
    assert measured.turns * 3e-8 * 0.5 <= measured.kvm_s < measured.tcg_s
    assert f"{measured.turns:,} turns took {measured.tcg_s:.2f} s under tcg and {measured.kvm_s:.2f} s under kvm" in measured.seen


def test_a_slow_kvm_is_stopped_after_the_time_of_tcg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "_ROUNDS", 1)
    measured = measure(paced(tmp_path, SLOW))
    assert (measured.faster, measured.kvm_stopped) == (False, True)
    assert measured.kvm_s is not None
    assert measured.kvm_s < measured.turns * 2e-6 / 10
    assert f"and was not done after {measured.kvm_s:.2f} s under kvm" in measured.seen


def test_a_qemu_without_tcg_leaves_kvm_alone(tmp_path: Path, node: Path) -> None:
    chosen = choose_accelerator(paced(tmp_path, FAST, {"dies": "invalid accelerator tcg"}), "auto", tmp_path, node)
    assert chosen.name == "kvm"
    assert chosen.reason.endswith(
        "nothing to compare it with: QEMU under tcg ended with status 1 in the self-test: invalid accelerator tcg"
    )


# ---- load beside the measurement -------------------------------------------------------------------------------------


def scripted(monkeypatch: pytest.MonkeyPatch, tcg_whole: list[float], kvm_whole: list[float]) -> None:
    """Runs of the self-test that take what is told, the last time again and again; every start takes a tenth of a second."""
    times: dict[str, Iterator[float]] = {
        name: itertools.chain(values, itertools.repeat(values[-1])) for name, values in (("tcg", tcg_whole), ("kvm", kvm_whole))
    }

    def run(_: object, accelerator: str, turns: int = 1, limit_s: float = 30.0) -> SelfTest:
        seconds = 0.1 if turns == 1 else next(times[accelerator])
        late = seconds > limit_s
        return SelfTest(not late, "it was seen", min(seconds, limit_s), stopped=late)

    monkeypatch.setattr(subject, "run_self_test", run)


def test_load_during_the_run_of_kvm_is_not_taken_for_its_speed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, [0.7], [3.0, 3.0, 0.3])
    measured = measure(emulator(tmp_path, ""))
    assert (measured.faster, measured.tcg_s, measured.kvm_s, measured.kvm_stopped) == (True, 0.6, 0.2, False)


def test_load_during_the_run_of_tcg_does_not_make_kvm_faster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, [2.1, 0.7], [1.3])
    measured = measure(emulator(tmp_path, ""))
    assert (measured.faster, measured.tcg_s, measured.kvm_s) == (False, 0.6, 1.2)
    assert measured.seen == "KVM is not faster: a loop of 4,194,304 turns took 0.60 s under tcg and 1.20 s under kvm"


# ---- what is remembered ----------------------------------------------------------------------------------------------


def test_processes_that_ask_at_once_measure_once(tmp_path: Path, node: Path) -> None:
    qemu = paced(tmp_path, {"dies": "dead"})
    with ThreadPoolExecutor(3) as threads:
        chosen = list(threads.map(lambda _: choose_accelerator(qemu, "auto", tmp_path, node), range(3)))
    assert chosen[0] == chosen[1] == chosen[2]
    assert runs(tmp_path) == 2


def test_what_was_measured_is_remembered_for_this_qemu_and_this_boot(tmp_path: Path, node: Path) -> None:
    qemu = paced(tmp_path, FAST)
    first = choose_accelerator(qemu, "auto", tmp_path, node)
    before = runs(tmp_path)
    assert choose_accelerator(qemu, "auto", tmp_path, node) == first
    assert runs(tmp_path) == before
    remembered = json.loads((tmp_path / "accelerator.json").read_text())
    assert remembered["format"] == 2
    assert remembered["kvm_s"] < remembered["tcg_s"]
    choose_accelerator(Emulator(qemu.program, (11, 0, 0), "11.0.0", has_qboot=True), "auto", tmp_path, node)
    assert runs(tmp_path) > before


@pytest.mark.parametrize("change", [{"format": 1}, {"format": None}, {"key": "another QEMU"}, {"faster": "yes"}, {"more": 1}, {"seen": 3}])
def test_what_another_version_remembered_counts_as_nothing(tmp_path: Path, node: Path, change: dict[str, object]) -> None:
    qemu, file = paced(tmp_path, {"dies": "dead"}), tmp_path / "accelerator.json"
    choose_accelerator(qemu, "auto", tmp_path, node)
    before = runs(tmp_path)
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    assert choose_accelerator(qemu, "auto", tmp_path, node).name == "tcg"
    assert runs(tmp_path) > before


@pytest.mark.parametrize("text", ["", "{", "[]", '{"key": 1}'])
def test_a_memory_that_cannot_be_read_counts_as_none(tmp_path: Path, node: Path, text: str) -> None:
    (tmp_path / "accelerator.json").write_text(text)
    assert choose_accelerator(paced(tmp_path, {"dies": "dead"}), "auto", tmp_path, node).reason.endswith(": dead")


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path, node: Path) -> None:
    (tmp_path / "file").touch()
    assert choose_accelerator(paced(tmp_path, {"dies": "dead"}), "auto", tmp_path / "file/cache", node).reason.endswith(": dead")


def test_a_kvm_that_was_refuted_by_a_guest_is_not_taken_again_unless_it_is_demanded(tmp_path: Path, node: Path) -> None:
    qemu = paced(tmp_path, FAST)
    kvm = choose_accelerator(qemu, "auto", tmp_path, node)
    assert find_refuted(qemu, tmp_path) is None
    evidence = "a guest came up under tcg and not under kvm (it hung)"
    refute_kvm(qemu, kvm, evidence, tmp_path)
    chosen = choose_accelerator(qemu, "auto", tmp_path, node)
    assert chosen == find_refuted(qemu, tmp_path) == emulated_instead(kvm, evidence)
    assert chosen.reason == f"{evidence}; measured before: {kvm.reason}"
    assert choose_accelerator(qemu, "kvm", tmp_path, node) == Accelerator("kvm", kvm.reason)


def test_kvm_is_refuted_also_where_nothing_was_remembered(tmp_path: Path, node: Path) -> None:
    qemu = paced(tmp_path, FAST)
    refute_kvm(qemu, Accelerator("kvm", "it was measured"), "a guest hung", tmp_path)
    assert choose_accelerator(qemu, "auto", tmp_path, node) == Accelerator("tcg", "a guest hung; measured before: it was measured")


# ---- one run of the self-test ----------------------------------------------------------------------------------------


def test_without_a_kvm_node_the_guests_are_emulated(tmp_path: Path) -> None:
    chosen = choose_accelerator(paced(tmp_path, FAST), "auto", tmp_path, tmp_path / "none")
    assert (chosen.name, chosen.time_scale) == ("tcg", 10.0)
    assert chosen.reason == f"there is no {tmp_path}/none"
    assert runs(tmp_path) == 0


def test_a_qemu_that_dies_is_quoted_with_its_last_words(tmp_path: Path) -> None:
    tested = run_self_test(emulator(tmp_path, "echo first >&2; echo 'no such MSR' >&2; exit 1"), "kvm")
    assert (tested.passed, tested.stopped) == (False, False)
    assert tested.seen == "QEMU under kvm ended with status 1 in the self-test: no such MSR"


def test_a_qemu_that_dies_in_silence_is_said_to(tmp_path: Path) -> None:
    assert run_self_test(emulator(tmp_path, "exit 3"), "kvm").seen.endswith("status 3 in the self-test: and said nothing")


@pytest.mark.parametrize(("turns", "words"), [(1, "executed nothing within"), (5000, "had not done 5,000 turns of a loop within")])
def test_a_guest_that_never_ends_is_given_up_and_ended(tmp_path: Path, turns: int, words: str) -> None:
    tested = run_self_test(emulator(tmp_path, f"echo $$ > {tmp_path}/pid; exec sleep 1000"), "kvm", turns, limit_s=1.0)
    assert (tested.passed, tested.stopped) == (False, True)
    assert words in tested.seen
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()


def test_the_setting_overrides_the_self_test(tmp_path: Path, node: Path) -> None:
    assert choose_accelerator(paced(tmp_path, FAST), "tcg", tmp_path, node).reason == "PMEM_HARNESS_ACCEL asks for it"
    assert runs(tmp_path) == 0


def test_another_word_is_refused_with_the_accepted_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="auto, kvm or tcg"):
        choose_accelerator(paced(tmp_path, FAST), "fast", tmp_path)


def test_a_node_that_may_not_be_opened_is_said(tmp_path: Path, node: Path) -> None:
    chosen = choose_accelerator(paced(tmp_path, FAST), "auto", tmp_path, node, may_open=lambda _: False)
    assert chosen.reason == f"{node} may not be opened by this user (on Debian: the group kvm)"
    assert runs(tmp_path) == 0


def test_the_self_test_uses_the_cpu_model_of_real_guests(tmp_path: Path) -> None:
    words = self_test_command(paced(tmp_path, FAST), "kvm", Path("/f/self,test.rom"))
    assert words[words.index("-cpu") + 1] == "max"
    assert words[words.index("-bios") + 1] == "/f/self,,test.rom"


def test_the_firmware_begins_at_the_reset_vector_and_has_the_number_of_turns() -> None:
    rom = self_test_rom(0x12345678)
    assert len(rom) == 64 * 1024
    assert rom[-16:-11] == bytes.fromhex("ea000000f0")
    # mov ecx, the turns; dec ecx; jnz
    assert bytes.fromhex("b978563412ffc975fc") in rom
    assert len(self_test_rom(2**32 - 1)) == len(self_test_rom()) == len(rom)
