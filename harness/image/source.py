"""A kernel compiled from the source that Debian packages: unpacked, patched, configured by fragments, made."""

import functools
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from harness.errors import HostError, UsageError
from harness.host.cache import Progress
from harness.host.deadline import Deadline
from harness.host.process import run
from harness.host.tools import find_tool, require_tool
from harness.image.kernel import parse_config
from harness.image.logged import run_logged

#: How many files the options of images/fragments/ have compiled of Linux 6.12; of another kernel it is a guess.
_ABOUT_OBJECTS = 1700
#: Progress is told this many times.
_STEPS = 20
#: The longest `uname -r`, of which a kernel whose patches have long names would have more (include/linux/uts.h, Makefile).
_NAME_LIMIT = 40


def compiler_version() -> str:
    """Return what the compiler of this computer says that it is; empty where there is none."""
    found = find_tool("gcc")
    return "" if found is None else _first_words(found)


@functools.cache
def _first_words(compiler: Path) -> str:
    return run([str(compiler), "--version"], Deadline.after(60)).stdout.partition("\n")[0]


def compile_kernel(
    name: str,
    archive: Path,
    fragments: Sequence[Path],
    needed: Mapping[str, str],
    patches: Sequence[Path],
    folder: Path,
    progress: Progress,
    deadline: Deadline,
) -> Path:
    """Return the build tree of a kernel, made in ``folder`` of the tar archive of a source package.

    ``fragments``: files of options that are laid over tinyconfig, each over those before it; ``needed``: options that have to be built in,
    whoever asks for them, and what for. Raises UsageError for a patch that does not apply and for options that this kernel does not
    take, HostError where it cannot be compiled.
    """
    progress(f"unpacking {archive.name} (about 1.7 GB)")
    tree, log = folder / "linux", folder / "make.log"
    tree.mkdir()
    run([str(require_tool("tar")), "-xf", str(archive), "-C", str(tree), "--strip-components=1"], deadline)
    for patch in patches:
        progress(f"applying {patch.name}")
        apply_patch(patch, tree, deadline)
    configure(name, tree, fragments, needed, log, deadline)
    processors = len(os.sched_getaffinity(0))
    progress(f"compiling {name} with {compiler_version()} on {processors} processors, at low priority")
    command = [*make_command(), f"-j{processors}", f"LOCALVERSION=-{name[:_NAME_LIMIT]}", "bzImage"]
    try:
        run_logged(command, deadline, log, cwd=tree, watch=counting(log, progress, deadline))
    except KeyboardInterrupt:
        progress("interrupted: removing what was unpacked and compiled, 90 thousand files")
        raise
    except HostError as error:
        # What was compiled beside it may have ended long after it: the last lines need not have it.
        first = re.findall(r"^.*(?:error:|undefined reference to) .*$", log.read_text(errors="replace"), re.MULTILINE)[:3]
        raise HostError("\n  ".join([f"{name} does not compile:", *first]) + f"\n{error}") from error
    return tree


def make_command() -> list[str]:
    """Return what every make of a kernel begins with: at low priority, and with nothing of this computer in what comes of it."""
    return ["nice", "-n", "10", "make", "ARCH=x86_64", "KBUILD_BUILD_USER=harness", "KBUILD_BUILD_HOST=pmem"]


def apply_patch(patch: Path, tree: Path, deadline: Deadline) -> None:
    """Apply a patch to a source tree. Raises UsageError with what ``patch`` says: which hunks of which files."""
    command = [str(require_tool("patch")), "-p1", "--batch", "--forward", "--no-backup-if-mismatch", "--reject-file=-"]
    done = run([*command, f"--input={patch}"], deadline, check=False, cwd=tree)
    if done.status != 0:
        said = "\n  ".join((done.stdout + done.stderr).strip().splitlines()[-20:])
        raise UsageError(f"the patch {patch} does not apply to this source:\n  {said}")


def configure(name: str, tree: Path, fragments: Sequence[Path], needed: Mapping[str, str], log: Path, deadline: Deadline) -> None:
    """Write the configuration of a source tree. Raises UsageError with every option that is not as wanted."""
    merge = ["sh", "scripts/kconfig/merge_config.sh", "-m", ".config", *map(str, fragments)]
    for command in ([*make_command(), "tinyconfig"], merge, [*make_command(), "olddefconfig"]):
        run_logged(command, deadline, log, cwd=tree)
    config = parse_config((tree / ".config").read_text())
    if wrong := unmet_options(config, fragments, needed):
        lines = "\n  ".join(wrong)
        raise UsageError(
            f"{name} cannot be built as it is described: with its fragments laid over tinyconfig, olddefconfig did not leave these"
            f" options as wanted; this kernel does not have them, or what they depend on is missing in the fragments:\n  {lines}"
        )


def unmet_options(config: Mapping[str, str], fragments: Sequence[Path], needed: Mapping[str, str]) -> tuple[str, ...]:
    """Return the lines to show for options that are not what the last fragment with them says, or that are needed and not built in."""
    wanted = {option: (value, file.name) for file in fragments for option, value in parse_fragment(file.read_text()).items()}
    wanted |= {option: ("y", why) for option, why in needed.items() if option not in wanted or wanted[option][0] != "y"}
    wrong = {option: (value, who) for option, (value, who) in wanted.items() if config.get(option, "n") != value}
    return tuple(f"CONFIG_{option}={value} ({who}): it is {config.get(option, 'n')}" for option, (value, who) in wrong.items())


def parse_fragment(text: str) -> dict[str, str]:
    """Return option -> value of a fragment, without ``CONFIG_``; what it says is not set is ``n``."""
    unset = dict.fromkeys(re.findall(r"^# CONFIG_(\w+) is not set$", text, re.MULTILINE), "n")
    return unset | parse_config(text)


def counting(log: Path, progress: Progress, deadline: Deadline) -> Callable[[], None]:
    """Return what looks at the output of make and tells how far it is, in steps of five in a hundred."""
    told = 0

    def look() -> None:
        nonlocal told
        done = len(re.findall(r"^  (?:CC|AS)  ", log.read_text(errors="replace"), re.MULTILINE)) if log.is_file() else 0
        step = done * _STEPS // _ABOUT_OBJECTS
        if step > told:
            told = step
            minutes, seconds = divmod(int(deadline.limit_s - deadline.remaining_s), 60)
            total = f" of about {_ABOUT_OBJECTS}" if done <= _ABOUT_OBJECTS else ""
            progress(f"compiled {done}{total} objects, {minutes} min {seconds:02} s")

    return look
