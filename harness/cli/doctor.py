"""What is here, what is missing, and how to get it: every finding is one line. Of a stack or a machine: why there is no DAX."""

import argparse
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.case.case import KERNEL_OPTIONS, Needs
from harness.cli import diagnosis
from harness.cli.images import needed_kernels
from harness.cli.options import add_kernel, add_kernel_args, add_verbose
from harness.errors import HarnessError, UsageError
from harness.host import settings
from harness.host.memory import find_room
from harness.host.tools import BUILD_TOOLS, RUN_TOOLS, missing_to_compile, missing_tools
from harness.image.bundle import image_store, is_built, why_not_compiled
from harness.image.catalog import Catalog, KernelChoice, choose_kernel, load_catalog
from harness.image.kernel import check_options, find_kernel_files, usable_options
from harness.lease.kernels import lacking_options
from harness.machine.accelerator import choose_accelerator
from harness.machine.emulator import find_emulator
from harness.report.status import ALL_CONFORM, COULD_NOT_RUN
from harness.sizes import format_size

_MARKS = {True: "ok", False: "MISSING", None: "-"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--stack", metavar="ID", help="why is there no DAX on this storage stack? As 'shell --list' names it; boots a guest"
    )
    parser.add_argument("--at", metavar="[USER@]MACHINE[:PORT]", help="why is there no DAX on this machine? Looks over SSH, and only reads")
    parser.add_argument("path", nargs="?", metavar="PATH", help="with --at: a file, folder, mount point or device (default: all with pmem)")
    add_kernel(parser)
    add_kernel_args(parser)
    add_verbose(parser)
    parser.set_defaults(command=run)


def run(chosen: argparse.Namespace) -> int:
    if chosen.stack or chosen.at:
        return diagnosis.run(chosen)
    if chosen.path:
        raise UsageError("a path is looked at on a machine: --at [USER@]MACHINE PATH")
    catalog = load_catalog()
    findings: list[Finding] = []
    for finding in examine(catalog, (choose_kernel(chosen.kernel, catalog),)):
        print(f"{_MARKS[finding.ok]:8} {finding.name:26} {finding.text}", flush=True)
        findings.append(finding)
    if any(finding.needed and finding.ok is False for finding in findings):
        print("guests cannot run here yet: ./bootstrap cases puts in place what is missing")
        return COULD_NOT_RUN
    print("guests can run here")
    return ALL_CONFORM


_MEMORY_FOLDER = Path("/dev/shm")


@dataclass(frozen=True)
class Finding:
    """``ok`` None: worth knowing, but nothing depends on it. ``needed``: guests cannot run without."""

    name: str
    ok: bool | None
    text: str
    needed: bool = True


def examine(catalog: Catalog, kernels: tuple[KernelChoice, ...]) -> Iterator[Finding]:
    """Yield everything that is worth knowing about this computer, for ``kernels``. Boots nothing but the accelerator's self-test."""
    yield Finding("python", sys.version_info >= (3, 11), sys.version.split()[0])
    missing = missing_tools(RUN_TOOLS)
    for tool in missing:
        yield Finding(tool.program, False, f"missing: {tool.purpose}; package {tool.package} (./bootstrap installs it)")
    if not missing:
        yield from _machine_findings()
    yield from _image_findings(catalog, kernels)
    lacking = missing_tools(BUILD_TOOLS)
    for tool in lacking:
        yield Finding(tool.program, False, f"missing: {tool.purpose}; package {tool.package} (needed only to build images)", needed=False)
    if not lacking:
        yield Finding("building", True, "all programs that build images are here", needed=False)
    if packages := missing_to_compile():
        text = f"not here, and needed only for kernels from source: apt-get install {' '.join(packages)}"
        yield Finding("compiling", None, text, needed=False)
    else:
        yield Finding("compiling", True, "all that compiles kernels from source is here", needed=False)
    yield Finding("memory", None, find_room().describe())
    for folder in (settings.runtime_root() or _MEMORY_FOLDER, _existing(image_store())):
        if folder.exists():
            yield Finding("room", None, f"{format_size(shutil.disk_usage(folder).free // 2**20 * 2**20)} free in {folder}")


def _machine_findings() -> Iterator[Finding]:
    try:
        emulator = find_emulator()
    except HarnessError as error:
        yield Finding("qemu", False, str(error))
        return
    firmware = "with the small qboot firmware" if emulator.has_qboot else "without qboot.rom: boots take longer"
    yield Finding("qemu", True, f"{emulator.version_text} at {emulator.program}, {firmware}")
    try:
        accelerator = choose_accelerator(emulator)
    except HarnessError as error:
        yield Finding("accelerator", False, str(error))
        return
    asked = f" ({settings.PREFIX}ACCEL is auto; kvm or tcg there decides otherwise)" if settings.accelerator_choice() == "auto" else ""
    yield Finding("accelerator", True, f"{accelerator.name}: {accelerator.reason}{asked}")


def _image_findings(catalog: Catalog, kernels: tuple[KernelChoice, ...]) -> Iterator[Finding]:
    """Yield a line for each image that the chosen kernels or a run of all cases need, and one for the others of the catalogue."""
    for choice in kernels:
        if choice.path is not None:
            yield _own_kernel(choice, catalog)
    named = {choice.name: choice for choice in (*needed_kernels(catalog), *kernels)}
    for name, choice in named.items():
        try:
            built = is_built(choice, catalog)
        except HarnessError:
            continue  # the kernel itself was found wanting above
        default = " (default)" if name == catalog.default_kernel else ""
        how = f"python -m harness images build --kernel {choice.path or name}, or the first case that needs it builds it"
        text = "built" if built else why_not_compiled(choice, catalog) or f"not built: {how}"
        yield Finding(f"image {name}{default}", built or None, text, needed=False)
    others = [name for name in catalog.kernels if name not in named]
    built_ones = sum(is_built(KernelChoice(name), catalog) for name in others)
    yield Finding("other images", None, f"{built_ones} of {len(others)} are built: python -m harness images list", needed=False)


def _own_kernel(choice: KernelChoice, catalog: Catalog) -> Finding:
    assert choice.path is not None
    try:
        kernel = find_kernel_files(choice.path)
        check_options(kernel, catalog.options)
    except HarnessError as error:
        return Finding(f"kernel {choice.name}", False, str(error))
    lacking = lacking_options(usable_options(kernel), Needs(kernel_options=tuple(KERNEL_OPTIONS)))
    some = f"; cases that need more are unavailable: {lacking}" if lacking else ""
    return Finding(f"kernel {choice.name}", True, f"Linux {kernel.release} has every option that guests need{some}")


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())
