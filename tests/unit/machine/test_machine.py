"""A machine's life, played by a fake QEMU: ready, failed boots, endings, and nothing left on any path."""

import asyncio
import contextlib
import json
import logging
import re
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.errors import BootError, MachineError, UsageError
from harness.host.deadline import Deadline, wait_until
from harness.machine.boot import is_elf, started_machine
from harness.machine.console import Console
from harness.machine.ending import EndKind, classify_ending
from harness.machine.machine import Machine
from harness.machine.qemu import find_forwarded_port
from harness.machine.qmp import _Recorder
from harness.model.complaint import Report, ReportKind
from harness.model.kinds import RegionKind
from harness.model.stack import Region
from harness.sizes import KIB, MIB
from tests.fakes.machine import EXIT, FAKE_ACCELERATOR, FAKE_EMULATOR, PANIC, PANICKED, POWER_OFF, READY, RESET, fake_spec


@contextlib.contextmanager
def started(
    folder: Path, script: dict[str, object], regions: tuple[Region, ...] = (), limit_s: float = 120.0, ended: list[Machine] | None = None
) -> Iterator[Machine]:
    spec = fake_spec(folder, script, regions)
    with started_machine(spec, FAKE_EMULATOR, FAKE_ACCELERATOR, folder / "logs", Deadline.after(limit_s)) as machine:
        yield machine
    assert not machine.folder.exists()
    assert not psutil.pid_exists(machine.pid)


def children() -> set[int]:
    """The processes of ours that are at work in a machine's folder."""
    return {child.pid for child in psutil.Process().children(recursive=True) if _is_fake_at_work(child)}


def _is_fake_at_work(child: psutil.Process) -> bool:
    try:
        return any("fake_qemu" in word for word in child.cmdline())
    except psutil.NoSuchProcess:  # or a zombie: it has ended
        return False


def test_a_machine_is_handed_over_when_init_says_ready(tmp_path: Path) -> None:
    with started(tmp_path, {"quiet": [READY]}) as machine:
        assert machine.ssh_port == 34567
        assert machine.ending().kind is EndKind.RUNNING
        assert machine.failed_boot == ""
        assert [line for line, _ in machine.boot_times.milestones] == ["pmem-harness: init 1.0", "pmem-harness: ready"]
        assert 0 < machine.boot_times.qmp_s <= machine.boot_times.ready_s
        assert machine.folder.stat().st_mode & 0o777 == 0o700
        assert (machine.folder / "ram").stat().st_size == machine.spec.ram_bytes
        assert (tmp_path / "logs/boot/command").read_text() == shlex.join(machine.qemu.command) + "\n"
    assert machine.ending().kind is EndKind.STOPPED
    assert "ready" in (tmp_path / "logs/boot/console.log").read_text()
    said = [json.loads(line)[1:] for line in (tmp_path / "logs/boot/qmp.jsonl").read_text().splitlines()]
    assert ["execute", {"command": "quit", "arguments": {}}] in said


def test_regions_lie_where_we_put_them_and_nvdimms_where_qemu_says(tmp_path: Path) -> None:
    regions = (
        Region("n", RegionKind.NVDIMM, 256 * MIB, 128 * KIB),
        Region("e", RegionKind.E820),
        Region("m", RegionKind.NVDIMM, 256 * MIB, 128 * KIB),
    )
    with started(tmp_path, {"quiet": [READY]}, regions) as machine:
        assert [(p.name, p.start // MIB, p.size_bytes // MIB) for p in machine.placements] == [
            ("n", 4096, 256),
            ("e", 256, 256),
            ("m", 4352, 256),
        ]
        assert (machine.folder / "nvdimm-n").stat().st_size == 256 * MIB + 128 * KIB


def test_a_spec_that_cannot_work_never_starts(tmp_path: Path) -> None:
    regions = (Region("e", RegionKind.E820, 100),)
    with pytest.raises(UsageError, match="take 16MiB"), started(tmp_path, {"quiet": [READY]}, regions):
        pass
    assert not (tmp_path / "logs").exists()


def test_a_panic_before_ready_is_a_boot_error_with_the_console_and_the_version_of_qemu(tmp_path: Path) -> None:
    with pytest.raises(BootError) as caught, started(tmp_path, {"quiet": [PANIC, PANICKED, RESET, EXIT]}):
        pass
    assert "panicked before it was ready (QEMU 10.0.2 (fake))" in caught.value.problem
    assert "Unable to mount root fs" in caught.value.console_tail
    assert "end Kernel panic" in caught.value.console_tail
    assert not children()


def test_a_quiet_boot_that_fails_is_told_by_a_verbose_one(tmp_path: Path) -> None:
    script: dict[str, object] = {"quiet": [RESET, EXIT], "verbose": [["console", "why it fails\r\n"], RESET, EXIT]}
    with pytest.raises(BootError) as caught, started(tmp_path, script):
        pass
    assert "the guest ended before it was ready (guest-reset)" in caught.value.problem
    assert "why it fails" in caught.value.console_tail
    assert (tmp_path / "logs/boot/console.log").read_text() == ""


def test_a_verbose_boot_that_comes_up_tells_of_the_quiet_one_that_did_not(tmp_path: Path) -> None:
    with started(tmp_path, {"quiet": [PANIC, RESET, EXIT], "verbose": [READY]}) as machine:
        assert "Unable to mount root fs" in machine.failed_boot
        assert machine.ending().kind is EndKind.RUNNING


def test_a_guest_that_never_gets_ready_is_given_up_at_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Counted from the moment the guest may run: how long the fake takes to start says nothing.
    monkeypatch.setattr("harness.machine.boot.BOOT_LIMIT_S", 2.0)
    with pytest.raises(BootError) as caught, started(tmp_path, {"quiet": [["console", "still booting\r\n"]]}, limit_s=120.0):
        pass
    assert "did not print 'pmem-harness: ready' within 2 s" in caught.value.problem
    assert "still booting" in caught.value.console_tail
    assert not children()


def test_init_that_gives_up_is_a_boot_error_that_shows_what_it_said(tmp_path: Path) -> None:
    with (
        pytest.raises(BootError) as caught,
        started(tmp_path, {"quiet": [["console", "pmem-harness: failed: no root disk\r\n"], POWER_OFF, EXIT]}),
    ):
        pass
    assert "ended before it was ready (guest-shutdown)" in caught.value.problem
    assert "failed: no root disk" in caught.value.console_tail


@pytest.fixture
def late_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what a QEMU says last, on either line, arrive a while after its process is gone: as on a busy computer."""
    put, take = _Recorder.put, Console._take

    def gone() -> bool:
        return not children()

    async def put_late(self: _Recorder, event: Any) -> None:
        if event["event"] == "SHUTDOWN" and event["data"]["reason"] == "guest-shutdown":
            while not gone():
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.5)
        await put(self, event)

    def take_late(self: Console, chunk: bytes, printed: bool = True) -> None:
        if b"late" in chunk:
            wait_until(gone, Deadline.after(60))
            wait_until(lambda: False, Deadline.after(0.5))
        take(self, chunk, printed)

    monkeypatch.setattr(_Recorder, "put", put_late)
    monkeypatch.setattr(Console, "_take", take_late)


@pytest.mark.usefixtures("late_words")
def test_the_last_words_of_a_boot_count_though_the_process_is_gone_before_they_are_read(tmp_path: Path) -> None:
    script: dict[str, object] = {"quiet": [["console", "pmem-harness: failed: late\r\n"], POWER_OFF, EXIT]}
    with pytest.raises(BootError) as caught, started(tmp_path, script):
        pass
    assert "ended before it was ready (guest-shutdown)" in caught.value.problem
    assert "failed: late" in caught.value.console_tail


@pytest.mark.usefixtures("late_words")
def test_the_end_of_a_guest_is_told_with_its_last_words_though_they_come_late(tmp_path: Path) -> None:
    with started(tmp_path, {"quiet": [READY], "sysrq": {"c": [["console", "late words\r\n"], POWER_OFF, EXIT]}}) as machine:
        machine.send_sysrq("c", Deadline.after(60))
        told = wait_until(machine.find_end, Deadline.after(60))
    assert told is not None
    assert told.startswith("the guest powered itself off")
    assert told.endswith("late words")


def test_a_qemu_that_dies_while_booting_says_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(BootError) as caught, started(tmp_path, {"quiet": [["stderr", "out of luck"], ["exit", 3]]}):
        pass
    assert "(qemu-died): QEMU ended with status 3" in caught.value.problem
    assert "QEMU said: out of luck" in caught.value.problem


def test_a_qemu_that_refuses_its_command_line_is_a_machine_error_with_its_words(tmp_path: Path) -> None:
    with pytest.raises(MachineError) as caught, started(tmp_path, {"refuse": "no such device"}):
        pass
    assert not isinstance(caught.value, BootError)
    assert "QEMU did not start: QEMU ended with status 1" in str(caught.value)
    assert "no such device" in str(caught.value)


def test_a_qemu_that_lists_no_port_is_a_machine_error(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="lists no forwarded port"), started(tmp_path, {"usernet": "nothing", "quiet": [READY]}):
        pass
    assert not children()


def test_a_qemu_that_lost_an_nvdimm_is_a_machine_error(tmp_path: Path) -> None:
    regions = (Region("n", RegionKind.NVDIMM),)
    with (
        pytest.raises(MachineError, match="does not list the nvdimm regions n"),
        started(tmp_path, {"forget_nvdimms": True, "quiet": [READY]}, regions),
    ):
        pass


def test_a_guest_that_panics_is_classified_by_pvpanic(tmp_path: Path) -> None:
    with started(tmp_path, {"quiet": [READY], "sysrq": {"c": [PANIC, PANICKED, RESET, EXIT]}}) as machine:
        machine.send_sysrq("c", Deadline.after(60))
        ending = machine.wait_ended(Deadline.after(60))
        assert ending.kind is EndKind.PANIC
        assert [report.kind for report in ending.reports] == [ReportKind.PANIC]
    assert machine.ending().kind is EndKind.PANIC


def test_a_guest_that_powers_off_ended_by_itself(tmp_path: Path) -> None:
    with started(tmp_path, {"quiet": [READY], "sysrq": {"o": [POWER_OFF, EXIT]}}) as machine:
        machine.send_sysrq("o", Deadline.after(60))
        assert machine.wait_ended(Deadline.after(60)).kind is EndKind.SHUTDOWN


def test_a_guest_that_does_not_listen_to_a_key_is_still_running(tmp_path: Path) -> None:
    with started(tmp_path, {"quiet": [READY]}) as machine:
        machine.send_sysrq("o", Deadline.after(60))
        assert machine.wait_ended(Deadline.after(0.2)).kind is EndKind.RUNNING


def test_pressing_a_key_on_a_machine_that_is_gone_is_a_machine_error(tmp_path: Path) -> None:
    with started(tmp_path, {"quiet": [READY], "sysrq": {"o": [POWER_OFF, EXIT]}}) as machine:
        machine.send_sysrq("o", Deadline.after(60))
        machine.wait_ended(Deadline.after(60))
        with pytest.raises(MachineError):
            machine.send_sysrq("w", Deadline.after(60))


def test_an_error_in_the_body_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), started(tmp_path, {"quiet": [READY]}) as machine:
        raise ZeroDivisionError
    assert not children()
    assert not machine.folder.exists()


SHUTDOWN_REASONS = [
    ("guest-shutdown", EndKind.SHUTDOWN),
    ("guest-reset", EndKind.RESET),
    ("host-signal", EndKind.QEMU_DIED),
]


@pytest.mark.parametrize(("reason", "kind"), SHUTDOWN_REASONS)
def test_the_reason_of_a_shutdown_names_the_ending(reason: str, kind: EndKind) -> None:
    assert classify_ending([{"event": "SHUTDOWN", "data": {"reason": reason}}], 0, []).kind is kind


def test_a_panic_outranks_the_reset_that_follows_it() -> None:
    events: list[dict[str, object]] = [{"event": "GUEST_PANICKED", "data": {}}, {"event": "SHUTDOWN", "data": {"reason": "guest-reset"}}]
    assert classify_ending(events, 0, []).kind is EndKind.PANIC


def test_a_panic_that_only_the_console_shows_counts() -> None:
    reports = [Report(ReportKind.PANIC, "Kernel panic - not syncing", 0)]
    assert classify_ending([{"event": "SHUTDOWN", "data": {"reason": "guest-reset"}}], 0, reports).kind is EndKind.PANIC


def test_a_qemu_that_is_gone_without_a_word_died() -> None:
    ending = classify_ending([], -9, [])
    assert (ending.kind, ending.reason) == (EndKind.QEMU_DIED, "QEMU ended with status -9 and no word of a shutdown")


def test_what_the_harness_stopped_did_not_end_by_itself() -> None:
    assert classify_ending([{"event": "SHUTDOWN", "data": {"reason": "host-qmp-quit"}}], 0, [], stopped=True).kind is EndKind.STOPPED


def test_other_forwarded_ports_are_not_taken_for_ssh() -> None:
    said = (
        "  TCP[HOST_FORWARD]  14  127.0.0.1 1111  10.0.2.15  80  0  0\r\n  TCP[HOST_FORWARD]  15  127.0.0.1 2222  10.0.2.15  22  0  0\r\n"
    )
    assert find_forwarded_port(said, 22) == 2222
    assert find_forwarded_port(said, 443) is None


def test_only_an_elf_file_is_entered_through_its_pvh_note(tmp_path: Path) -> None:
    (tmp_path / "elf").write_bytes(b"\x7fELF...")
    (tmp_path / "bzImage").write_bytes(b"MZ......")
    assert is_elf(tmp_path / "elf")
    assert not is_elf(tmp_path / "bzImage")


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGBUS, "ended with status -7 and no word of a shutdown: SIGBUS, as where the file system that its memory lies on is full"),
        (signal.SIGKILL, "ended with status -9 and no word of a shutdown"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_qemu_that_a_signal_ends_says_what_is_known_of_it(tmp_path: Path, number: signal.Signals, words: str) -> None:
    with started(tmp_path, {"quiet": [READY, ["signal", number]]}) as machine:
        ending = machine.wait_ended(Deadline.after(30))
    assert ending.kind is EndKind.QEMU_DIED
    assert ending.reason.startswith(f"QEMU {words}")
    assert "want of memory" not in ending.reason


# ---- the log ---------------------------------------------------------------------------------------------------------


def test_the_log_has_the_process_its_command_the_boot_and_the_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "harness")
    with started(tmp_path, {"quiet": [READY]}) as machine:
        pass
    log = caplog.text
    assert f"QEMU is process {machine.pid}\n" in log
    assert f"the command of process {machine.pid}: {shlex.join(machine.qemu.command)}\n" in log
    assert re.search(rf"process {machine.pid}: QMP after [\d.]+ s, ready after [\d.]+ s under \w+\n", log)
    assert re.search(r"QMP cont: [\d.]+ s\n.*QMP quit: [\d.]+ s\n", log, re.DOTALL)
    assert f"QEMU, process {machine.pid}, is gone: the harness ended it\n" in log


def test_the_log_has_a_boot_that_failed_before_the_one_that_did_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with started(tmp_path, {"quiet": [PANIC, RESET, EXIT], "verbose": [READY]}):
        pass
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert warning.getMessage().startswith("the boot failed, once more with a verbose kernel: the guest's kernel panicked")
    assert "Unable to mount root fs" in warning.getMessage()


def test_the_log_has_a_qemu_that_had_to_be_killed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.machine.qemu.QUIT_LIMIT_S", 0.2)
    with started(tmp_path, {"quiet": [READY, ["mute"]], "deaf": True}) as machine:
        pass
    assert f"QEMU, process {machine.pid}, did not take the request to quit: QEMU did not answer quit over QMP" in caplog.text
    assert f"QEMU, process {machine.pid}, did not quit: killing it" in caplog.text
