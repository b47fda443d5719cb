"""The user's own words on a guest's kernel command line, and which of them would break or blind the harness."""

import re

from harness.errors import UsageError

#: x86 keeps 2047 characters of a command line (COMMAND_LINE_SIZE, arch/x86/include/asm/setup.h); the harness's own words take some 600.
MAX_CHARACTERS = 1024
#: A word may have spaces between double quotes, as the kernel reads them (next_arg, lib/cmdline.c).
_WORD = re.compile(r'(?:[^\s"]|"[^"]*")+')
#: Below this level a WARNING is not printed, and the console that is watched would not show it.
_LEAST_LOGLEVEL = 5

_CONSOLE = "the console is how the harness sees a panic, a WARNING and how far the guest has come"
_OWN_INIT = "the guest comes up through the harness's own initrd and init"
_MEMORY = "where RAM and regions lie is decided by the storage stack, and a guest with other ones is not what was asked for"
#: Why a word is refused, by its name; what the harness sets itself and is not listed here may be set again: the last one counts.
_REFUSED = {
    "console": _CONSOLE,
    "quiet": _CONSOLE,
    "sysctl.kernel.printk": _CONSOLE,
    "printk.time": "a line of the kernel's own is known by its time stamp, and without it no complaint would be seen",
    "init": _OWN_INIT,
    "rdinit": _OWN_INIT,
    "noinitrd": _OWN_INIT,
    "initrd": _OWN_INIT,
    "root": _OWN_INIT,
    "--": "what follows it would go to the initrd's script and not to the kernel",
    "mem": _MEMORY,
    "memmap": _MEMORY,
    "panic": "a guest that panics must end at once, or it would be taken for one that hangs",
}


def parse_kernel_arguments(text: str) -> tuple[str, ...]:
    """Return the words of ``text`` as the kernel splits them; none for an empty text.

    Raises UsageError for a word that would keep the guest from working or the harness from seeing what it does, and says why.
    """
    if not text.isascii() or any(not character.isprintable() for character in text):
        raise UsageError(f"--kernel-args {text!r}: only printable ASCII characters can stand on a kernel's command line")
    if len(text) > MAX_CHARACTERS:
        raise UsageError(f"--kernel-args has {len(text)} characters: with the harness's own words the kernel has room for {MAX_CHARACTERS}")
    if text.count('"') % 2:
        raise UsageError(f"--kernel-args {text!r}: a double quote is not closed")
    words = tuple(_WORD.findall(text))
    for word in words:
        reason = _why_refused(word)
        if reason is not None:
            raise UsageError(f"--kernel-args: {word!r} cannot be given: {reason}")
    return words


def _why_refused(word: str) -> str | None:
    name, _, value = word.replace('"', "").partition("=")
    # The kernel takes - and _ in a name for the same (parameq, kernel/params.c), and / and . in that of a sysctl (fs/proc/proc_sysctl.c).
    found = _REFUSED.get(name if name == "--" else name.replace("-", "_").replace("/", "."))
    if found is not None:
        return found
    if name == "loglevel" and not (value.isdigit() and int(value) >= _LEAST_LOGLEVEL):
        return f"below {_LEAST_LOGLEVEL} a WARNING is not printed, and {_CONSOLE}"
    if name == "acpi" and value.split(",")[0] in ("off", "ht"):
        return "NVDIMMs are announced by ACPI tables, and the guest powers off through ACPI"
    return None
