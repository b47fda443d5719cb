"""The store of templates: listed, verified, pruned, removed; and clones that cannot be had are boots that are explained."""

import contextlib
import json
import logging
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.errors import BootError, GuestError, HostError, MachineError, StackMismatchError, UsageError
from harness.guest.link import Endpoint
from harness.guest.session import SessionState
from harness.host.sparse import checksum
from harness.image.bundle import GuestImage
from harness.image.catalog import KernelChoice
from harness.lease import clone as subject
from harness.lease.boot import make_spec
from harness.lease.clone import Cloner
from harness.lease.host_in_use import Host
from harness.lease.options import GuestOptions
from harness.lease.template import (
    MANIFEST,
    Manifest,
    load_template,
    prune_templates,
    remove_template,
    stored_templates,
    template_damage,
    templates_limit_bytes,
)
from harness.lease.template_key import machine_key, stack_key
from harness.lease.template_maker import TemplateMaker
from harness.machine.accelerator import Accelerator
from harness.machine.command import Emulator
from harness.machine.machine import Machine
from harness.machine.regions import MAKERS
from harness.model.complaint import Report, ReportKind
from harness.model.kinds import RegionKind
from harness.model.known import ExpectedLine
from harness.record.documents import to_document
from tests.fakes.leased import FakeGuest
from tests.fakes.machine import FAKE_ACCELERATOR, FAKE_EMULATOR
from tests.fakes.samples import stack


def make(store: Path, name: str, used_s: float = 0.0, size: int = 1000) -> Path:
    folder = store / name
    folder.mkdir(parents=True)
    (folder / "ram").write_bytes(b"x" * size)
    manifest = Manifest((), SessionState(Endpoint(1, "t")), None, (("kernel", "debian_6.12"),), (("ram", checksum(folder / "ram")),))
    (folder / MANIFEST).write_text(json.dumps({"format": 1, **to_document(manifest)}))
    os.utime(folder / MANIFEST, (used_s, used_s))
    return folder


def test_templates_are_listed_with_the_one_used_last_first(tmp_path: Path) -> None:
    make(tmp_path, "machine-a", 10)
    make(tmp_path, "stack-b", 20)
    assert [(t.name, t.made_of) for t in stored_templates(tmp_path)] == [
        ("stack-b", {"kernel": "debian_6.12"}),
        ("machine-a", {"kernel": "debian_6.12"}),
    ]


def test_a_template_that_is_whole_is_read_as_it_was_written(tmp_path: Path) -> None:
    folder = make(tmp_path, "machine-a")
    assert load_template(folder).session.endpoint == Endpoint(1, "t")
    assert load_template(folder).folder == folder
    assert template_damage(folder) is None


def test_a_changed_byte_or_length_is_damage(tmp_path: Path) -> None:
    folder = make(tmp_path, "machine-a")
    (folder / "ram").write_bytes(b"y" + b"x" * 999)
    assert "ram is 1000:" in (template_damage(folder) or "")
    (folder / "ram").write_bytes(b"x" * 999)
    assert "ram is 999:" in (template_damage(folder) or "")
    (folder / "ram").unlink()
    assert "No such file" in (template_damage(folder) or "")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "cannot be read"),
        ('{"format": 9}', "has format 9, this harness reads 1"),
        ('{"format": 1}', "cannot be read"),
        ("[]", "cannot be read"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_damage_and_is_listed_so(tmp_path: Path, text: str, words: str) -> None:
    folder = make(tmp_path, "machine-a")
    (folder / MANIFEST).write_text(text)
    assert words in (template_damage(folder) or "")
    assert "damaged" in stored_templates(tmp_path)[0].made_of


def test_what_was_not_used_for_longest_goes_when_there_is_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMEM_HARNESS_TEMPLATES_SIZE", "200KiB")
    for number in range(4):
        make(tmp_path, f"stack-{number}", number, 90_000)
    prune_templates({"stack-0"}, tmp_path)
    assert {t.name for t in stored_templates(tmp_path)} == {"stack-3", "stack-2", "stack-0"}


def test_a_limit_that_is_no_size_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMEM_HARNESS_TEMPLATES_SIZE", "much")
    with pytest.raises(UsageError, match="PMEM_HARNESS_TEMPLATES_SIZE: 'much' is not a size"):
        templates_limit_bytes()


def test_removing_what_is_not_there_names_what_is(tmp_path: Path) -> None:
    make(tmp_path, "stack-a")
    with pytest.raises(UsageError, match="no template 'x'; there are: stack-a"):
        remove_template("x", lambda _: None, tmp_path)
    remove_template("stack-a", lambda _: None, tmp_path)
    assert stored_templates(tmp_path) == ()


# ---- when there is no clone ------------------------------------------------------------------------------------------


FAKE_HOST = Host(FAKE_EMULATOR, FAKE_ACCELERATOR)


class Rig:
    """A cloner whose templates fail as told, and whose boots are fakes."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, store: Path, *errors: Exception, options: GuestOptions | None = None, host: Host = FAKE_HOST
    ) -> None:
        self.said: list[str] = []
        self.tries = 0
        self._errors = list(errors)
        monkeypatch.setattr(subject, "find_host", lambda: host)
        monkeypatch.setattr(subject, "guest_image", lambda *_: "an image")
        monkeypatch.setattr(subject, "booted_guest", self._boot)
        self.cloner = Cloner(KernelChoice, self.said.append, options or GuestOptions(), store)
        monkeypatch.setattr(self.cloner.templates, "stack_template", self._template)

    def _template(self, *_: Any) -> Any:
        self.tries += 1
        raise self._errors.pop(0) if len(self._errors) > 1 else self._errors[0]

    @contextlib.contextmanager
    def _boot(self, *_: Any) -> Iterator[FakeGuest]:
        yield FakeGuest(stack())


@pytest.mark.parametrize(
    "error",
    [MachineError("QEMU refused x-ignore-shared"), HostError("No space left on device\nmore"), GuestError("the guest is silent")],
)
def test_without_a_template_the_guest_is_booted_and_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception) -> None:
    rig = Rig(monkeypatch, tmp_path, error)
    for _ in range(2):
        with rig.cloner.clone(stack(), "debian_6.12") as guest:
            assert guest.description.lifecycle_note == f"booted, not restored: {str(error).splitlines()[0]}"
    assert rig.tries == 2
    assert any("trying once more" in line for line in rig.said)
    assert any("booting every guest for" in line for line in rig.said)


def test_the_reason_for_booting_says_where_the_logs_of_the_failure_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    error = MachineError("QEMU refused x-ignore-shared")
    error.logs = "artifacts/not-set-up/x-1"
    rig = Rig(monkeypatch, tmp_path, error)
    with rig.cloner.clone(stack(), "debian_6.12") as guest:
        assert guest.description.lifecycle_note == "booted, not restored: QEMU refused x-ignore-shared; logs: artifacts/not-set-up/x-1"


def test_memory_that_was_to_be_kept_is_never_silently_not_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rig = Rig(monkeypatch, tmp_path, MachineError("QEMU refused x-ignore-shared"), options=GuestOptions(keep=tmp_path))
    with pytest.raises(MachineError, match="x-ignore-shared"), rig.cloner.clone(stack(), "debian_6.12"):
        pass


def test_a_guest_whose_regions_can_never_be_saved_is_booted_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(MAKERS, RegionKind.E820, replace(MAKERS[RegionKind.E820], never_saved="the device cannot be migrated"))
    rig = Rig(monkeypatch, tmp_path, MachineError("never asked"))
    with rig.cloner.clone(stack(), "debian_6.12") as guest:
        assert guest.description.lifecycle_note == "booted, not restored: the device cannot be migrated"
    assert rig.tries == 0
    assert [line for line in rig.said if "the device cannot be migrated" in line] == [
        f"booting every guest for {stack().describe()} from now on: the device cannot be migrated"
    ]
    kept = Rig(monkeypatch, tmp_path, MachineError("never asked"), options=GuestOptions(keep=tmp_path))
    with pytest.raises(MachineError, match="cannot be migrated"), kept.cloner.clone(stack(), "debian_6.12"):
        pass


@pytest.mark.parametrize("error", [BootError("it panicked", "tail"), StackMismatchError("another stack"), UsageError("no image")])
def test_what_the_kernel_or_the_user_did_is_an_error_and_no_boot(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception) -> None:
    rig = Rig(monkeypatch, tmp_path, error)
    with pytest.raises(type(error)), rig.cloner.clone(stack(), "debian_6.12"):
        pass
    assert rig.tries == 1


# ---- names -----------------------------------------------------------------------------------------------------------


def test_words_on_the_command_line_are_part_of_the_name_of_every_template(tmp_path: Path) -> None:
    (tmp_path / "vmlinux").write_bytes(b"\x7fELF")
    image = GuestImage(
        kernel="own",
        release="6.99",
        boot_kernel=tmp_path / "vmlinux",
        pvh=True,
        bzimage=None,
        initrd=tmp_path / "initrd",
        rootfs=tmp_path / "root.img",
        rootfs_format="raw",
        client_key=tmp_path / "key",
        host_public_key="",
        packages={},
        sha256={"initrd": "i"},
        config={},
        mkfs={"ext4": ("mkfs",)},
    )
    emulator = Emulator(sys.executable, (10, 0, 0), "10.0.0", has_qboot=True)
    host = Host(emulator, Accelerator("tcg", "it is a test"))
    plain, more = (make_spec(image, stack(), arguments) for arguments in ((), ("transparent_hugepage=never",)))
    assert machine_key(host, image, plain) == machine_key(host, image, make_spec(image, stack()))
    assert machine_key(host, image, plain) != machine_key(host, image, more)
    assert stack_key(host, image, plain, stack()) != stack_key(host, image, more, stack())


def test_no_template_is_made_of_a_guest_whose_kernel_complained(tmp_path: Path) -> None:
    unsure = "[    4.000000] nd_pmem namespace1.0: unable to guarantee persistence of writes"
    error = "[    5.000000] EXT4-fs error (device pmem0): trigger_test_error:129: comm sh: boo"
    reports = (Report(ReportKind.PMEM, unsure, 0), Report(ReportKind.FILE_SYSTEM, error, 0))
    boo = ExpectedLine("boo$", "somebody tried it out", (6, 0), None, "2999-01-01")
    image = cast(GuestImage, SimpleNamespace(release="6.12.1"))
    complaining = cast(Machine, SimpleNamespace(console=SimpleNamespace(is_drained=lambda: True, reports=lambda: reports)))
    strict, lenient = (TemplateMaker(print, GuestOptions(expected=expected), tmp_path) for expected in ((), (boo,)))
    with pytest.raises(GuestError, match=r"the kernel complained while booting: .*trigger_test_error"):
        strict._expected_only(complaining, image, "e820", "booting")
    assert lenient._expected_only(complaining, image, "e820", "booting") == (unsure, error)
    with pytest.raises(GuestError, match="nd_pmem"):
        lenient._expected_only(complaining, image, "nvdimm", "booting")


def test_the_log_says_which_templates_were_thrown_away_and_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "harness")
    monkeypatch.setenv("PMEM_HARNESS_TEMPLATES_SIZE", "200KiB")
    for number in range(3):
        make(tmp_path, f"stack-{number}", number, 90_000)
    prune_templates(set(), tmp_path)
    assert "threw stack-0 away: all templates were larger than 200KiB" in caplog.text


def test_the_log_says_which_template_was_damaged_and_that_it_was_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "harness")
    folder = make(tmp_path, "stack-a")
    (folder / "ram").write_bytes(b"y")

    def build(target: Path) -> None:
        for file in make(tmp_path / "elsewhere", "stack-a").iterdir():
            file.rename(target / file.name)

    TemplateMaker(lambda _: None, GuestOptions(), tmp_path)._template("stack-a", build)
    assert f"the template {folder} is damaged, and made anew: ram is 1:" in caplog.text
    assert f"removed {folder}\n" in caplog.text
    assert re.search(rf"built {folder}: \d+\.\d{{3}} s", caplog.text)


def test_the_log_says_why_there_are_no_clones(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig(monkeypatch, tmp_path, MachineError("QEMU refused x-ignore-shared"))
    with rig.cloner.clone(stack(), "debian_6.12"):
        pass
    said = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert said == [
        ("WARNING", f"no clone for {stack().describe()}, trying once more: QEMU refused x-ignore-shared"),
        ("ERROR", f"no clones for {stack().describe()}, every guest is booted from now on: QEMU refused x-ignore-shared"),
    ]
