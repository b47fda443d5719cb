"""The logs of a guest that did not come up: kept once a reason, with the machine as a script, and named by the error."""

import os
from pathlib import Path

import pytest

from harness.errors import BootError, GuestError, HostError, MachineError, logs_of
from harness.host.deadline import Deadline
from harness.lease import kept as subject
from harness.lease.kept import MOST, REASON, LogKeeper, kept_logs
from harness.lease.ledger import Ledger
from harness.machine.boot import started_machine
from tests.fakes.machine import EXIT, FAKE_ACCELERATOR, FAKE_EMULATOR, PANIC, RESET, fake_spec
from tests.fakes.samples import stack


def fail(keeper: LogKeeper | None, error: Exception, what: str = "debian_6.12 e820 -> ext4", text: str = "words") -> Exception:
    """Fail with ``error`` after something was logged; return what arrives outside."""

    def logging(logs: Path) -> None:
        (logs / "boot").mkdir()
        (logs / "boot/console.log").write_text(text)
        raise error

    with pytest.raises(type(error)) as caught, kept_logs(keeper, what) as logs:
        logging(logs)
    return caught.value


@pytest.fixture
def keeper(tmp_path: Path) -> LogKeeper:
    return LogKeeper(tmp_path / "not-set-up")


def test_a_kernel_that_does_not_boot_leaves_console_words_transcript_and_script(tmp_path: Path, keeper: LogKeeper) -> None:
    spec = fake_spec(tmp_path, {"quiet": [PANIC, ["stderr", "QEMU's words"], RESET, EXIT]})
    with (
        pytest.raises(BootError) as caught,
        kept_logs(keeper, "debian_6.12 e820") as private,
        started_machine(spec, FAKE_EMULATOR, FAKE_ACCELERATOR, private, Deadline.after(60)),
    ):
        pass
    folder = Path(caught.value.logs)
    assert folder == keeper.folder / "debian_6.12_e820-1"
    for boot in ("boot", "boot-verbose"):
        assert "Unable to mount root fs" in (folder / boot / "console.log").read_text()
        assert (folder / boot / "qemu.stderr").read_text() == "QEMU's words\n"
        assert '"cont"' in (folder / boot / "qmp.jsonl").read_text()
        script = (folder / boot / "qemu.sh").read_text()
        assert "fake_qemu.py" in script
        assert "pmemh-" not in script
        assert os.access(folder / boot / "qemu.sh", os.X_OK)
    assert (folder / "reason.txt").read_text() == f"BootError: {caught.value}\n"
    assert not private.exists()
    assert "pmemh-" not in str(caught.value)


def test_a_qemu_that_does_not_start_leaves_its_words_and_names_no_folder_that_is_gone(tmp_path: Path, keeper: LogKeeper) -> None:
    spec = fake_spec(tmp_path, {"refuse": "mem-path=/dev/shm/pmemh-x1/ram: no such device"})
    with (
        pytest.raises(MachineError, match=r"mem-path=\$work/ram: no such device") as caught,
        kept_logs(keeper, "x") as private,
        started_machine(spec, FAKE_EMULATOR, FAKE_ACCELERATOR, private, Deadline.after(60)),
    ):
        pass
    assert "no such device" in (Path(caught.value.logs) / "boot/qemu.stderr").read_text()


def test_the_same_reason_is_kept_once_whatever_its_numbers_and_its_console(keeper: LogKeeper) -> None:
    first = fail(keeper, BootError("no ready line within 15 s", "[ 1.0] one console"))
    again = fail(keeper, BootError("no ready line within 17 s", "[ 2.0] another console"), "another stack")
    other = fail(keeper, BootError("it panicked", ""))
    assert logs_of(again) == logs_of(first)
    assert logs_of(other).endswith("-2")
    assert len(list(keeper.folder.iterdir())) == 2


def test_the_number_of_reasons_is_bounded_and_the_error_says_so(keeper: LogKeeper) -> None:
    words = [chr(ord("a") + number) for number in range(MOST + 1)]
    errors = [fail(keeper, HostError(word)) for word in words]
    assert len(list(keeper.folder.iterdir())) == MOST
    assert logs_of(errors[-1]) == f"(no logs are kept: {keeper.folder} has those of {MOST} other failures)"


def test_of_a_huge_console_the_end_is_kept(keeper: LogKeeper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "_LARGEST_BYTES", 100)
    folder = logs_of(fail(keeper, HostError("x"), text="a" * 100 + "the end"))
    text = (Path(folder) / "boot/console.log").read_text()
    assert text.startswith("(the first 7 bytes are not kept")
    assert text.endswith("the end")


def test_logs_that_cannot_be_kept_leave_the_error_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    error = fail(LogKeeper(tmp_path / "file"), HostError("it failed"))
    assert str(error) == "it failed"
    assert logs_of(error) == f"(its logs could not be kept in {tmp_path / 'file'}: Not a directory)"


def test_where_nothing_was_logged_nothing_is_kept(keeper: LogKeeper) -> None:
    with pytest.raises(HostError), kept_logs(keeper, "x"):
        raise HostError("no room")
    assert not keeper.folder.exists()


def test_without_a_keeper_the_error_only_forgets_the_folders_that_go() -> None:
    error = fail(None, GuestError("see /dev/shm/pmemh-abc/boot/console.log"))
    assert (str(error), logs_of(error)) == ("see $work/boot/console.log", "")


def test_an_error_of_the_system_names_no_folder_that_is_gone_either(keeper: LogKeeper) -> None:
    error = fail(keeper, OSError(28, "No space left on device", "/tmp/pmemh-abc/ram"))
    assert str(error) == "[Errno 28] No space left on device: '$work/ram'"
    assert logs_of(error) == str(keeper.folder / "debian_6.12_e820_ext4-1")


def test_what_caused_an_error_tells_where_the_logs_are(keeper: LogKeeper) -> None:
    cause = fail(keeper, OSError(28, "No space left on device"))
    error = HostError("could not build a template")
    error.__cause__ = cause
    assert logs_of(error) == str(keeper.folder / "debian_6.12_e820_ext4-1")


def test_two_processes_of_a_run_keep_logs_in_one_folder(tmp_path: Path) -> None:
    folder = tmp_path / "not-set-up"
    ledger = Ledger(tmp_path, stack())
    for number, keeper in enumerate(LogKeeper(folder, ledger.locked) for _ in range(2)):
        fail(keeper, HostError(f"now {'x' * number}"))
    assert sorted(path.read_text() for path in folder.glob(f"*/{REASON}")) == ["HostError: now \n", "HostError: now x\n"]
