"""What is printed of a diagnosis: a line for each link, one sentence, the cure; and the exit status."""

from dataclasses import replace

import pytest

from harness.model.dax.evidence import Evidence, Unseen
from harness.model.dax.links import diagnose
from harness.report.diagnosis import diagnosis_parts, diagnosis_status
from harness.report.tables import lay_out
from tests.unit.model.test_dax_links import EXT4, FILE, NEVER, PLAIN_FILE, UNKNOWN, WHOLE


def printed(evidence: Evidence) -> list[str]:
    return lay_out(diagnosis_parts(diagnose(evidence)))


def test_where_there_is_dax_every_link_has_a_line_and_nothing_is_to_be_done() -> None:
    said = printed(WHOLE)
    assert said[0] == "/mnt/a/file:"
    assert said[1].split() == ["link", "what", "was", "seen"]
    assert said[2].split(None, 3)[:3] == ["kernel", "option", "ok"]
    assert said[-1] == "There is DAX at /mnt/a/file."
    assert len(said) == 13


def test_a_broken_link_is_told_in_a_sentence_with_the_commands_of_the_cure() -> None:
    said = printed(replace(WHOLE, filesystem=NEVER, said=("EXT4-fs (pmem0): DAX unsupported by block device.",)))
    assert [line.strip() for line in said if "not reached" in line] == [
        "inode flag           not reached",
        "mapping              not reached",
    ]
    assert said[12:] == [
        "No DAX at /mnt/a/file because of the mount option: /mnt/a is mounted with dax=never: no file has DAX.",
        "Cure: unmount it and mount it with dax=always, as a remount does not change that; and in /etc/fstab, where it is named there.",
        "    umount /mnt/a",
        "    mount -t ext4 -o ro,noatime,dax=always /dev/pmem0 /mnt/a",
        "The kernel's log says of it:",
        "    EXT4-fs (pmem0): DAX unsupported by block device.",
    ]


def test_what_a_cure_destroys_is_said() -> None:
    said = printed(replace(WHOLE, filesystem=replace(EXT4, block_bytes=1024)))
    assert "Cure: make a file system on /dev/pmem0, one with blocks of 4096 bytes. This destroys all that is on /dev/pmem0." in said


def test_dax_in_part_is_told_with_what_to_do_instead() -> None:
    said = printed(replace(WHOLE, file=replace(FILE, map_sync=False)))
    assert said[-2].startswith("There is DAX at /mnt/a/file, in part: statx says that /mnt/a/file has DAX, but MAP_SYNC is refused")
    assert said[-1].startswith("Cure: call fsync or msync after storing")


def test_what_could_not_be_seen_is_listed() -> None:
    said = printed(replace(WHOLE, fs_dax=UNKNOWN, file=None, asked="/mnt/a", said=Unseen("dmesg: not permitted")))
    assert said[-2:] == [
        "Whether there is DAX at /mnt/a could not be seen: no link is known to be broken, but these are unknown: kernel option, mapping.",
        "The kernel's log could not be read (dmesg: not permitted).",
    ]


@pytest.mark.parametrize(
    ("evidence", "status"),
    [
        ([WHOLE], 0),
        ([WHOLE, replace(WHOLE, file=replace(FILE, map_sync=False))], 0),
        ([WHOLE, replace(WHOLE, file=None)], 3),
        ([WHOLE, replace(WHOLE, file=None), replace(WHOLE, file=PLAIN_FILE)], 1),
    ],
)
def test_the_exit_status_says_broken_before_unseen_before_well(evidence: list[Evidence], status: int) -> None:
    assert diagnosis_status(map(diagnose, evidence)) == status
