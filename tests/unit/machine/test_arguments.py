"""The user's words on the kernel's command line: split as the kernel does, and refused where they would break or blind the harness."""

import pytest

from harness.errors import UsageError
from harness.machine.arguments import MAX_CHARACTERS, parse_kernel_arguments


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ()),
        ("   ", ()),
        ("one two=2", ("one", "two=2")),
        ('dyndbg="file fs/dax.c +p"  b', ('dyndbg="file fs/dax.c +p"', "b")),
        ('"dyndbg=file fs/dax.c +p"', ('"dyndbg=file fs/dax.c +p"',)),
        ("mitigations=auto loglevel=7 panic_on_warn=1 oops=panic", ("mitigations=auto", "loglevel=7", "panic_on_warn=1", "oops=panic")),
        (
            "memmap_x=1 printk.devkmsg=on consoleblank=0",
            ("memmap_x=1", "printk.devkmsg=on", "consoleblank=0"),
        ),
    ],
)
def test_words_are_split_as_the_kernel_splits_them(text: str, words: tuple[str, ...]) -> None:
    assert parse_kernel_arguments(text) == words


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("console=tty0", "the console is how the harness sees a panic"),
        ("quiet", "the console is how the harness sees a panic"),
        ("sysctl.kernel.printk=1", "the console is how the harness sees a panic"),
        ("sysctl.kernel/printk=1", "the console is how the harness sees a panic"),
        ("printk.time=0", "without it no complaint would be seen"),
        ("loglevel=4", "below 5 a WARNING is not printed"),
        ("loglevel=", "below 5 a WARNING is not printed"),
        ("init=/bin/sh", "through the harness's own initrd and init"),
        ("rdinit=/bin/sh", "through the harness's own initrd and init"),
        ("root=/dev/vda", "through the harness's own initrd and init"),
        ("noinitrd", "through the harness's own initrd and init"),
        ("memmap=64M!1G", "where RAM and regions lie is decided by the storage stack"),
        ("mem=256M", "where RAM and regions lie is decided by the storage stack"),
        ('"mem=256M"', "where RAM and regions lie is decided by the storage stack"),
        ("panic=0", "a guest that panics must end at once"),
        ("acpi=off", "NVDIMMs are announced by ACPI tables"),
        ("--", "would go to the initrd's script"),
    ],
)
def test_a_word_that_would_break_or_blind_the_harness_is_refused_with_the_reason(word: str, reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_kernel_arguments(f"fine {word}")
    assert f"--kernel-args: {word!r} cannot be given: " in str(caught.value)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('a="b', "a double quote is not closed"),
        ("a\nb", "only printable ASCII characters"),
        ("\u00e4", "only printable ASCII characters"),
        ("x" * (MAX_CHARACTERS + 1), "has 1025 characters: with the harness's own words the kernel has room for 1024"),
    ],
)
def test_what_cannot_stand_on_a_command_line_is_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_kernel_arguments(text)
    assert words in str(caught.value)
