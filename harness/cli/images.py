"""The kernels and root file systems of guests: list, build, remove."""

import argparse
import shlex

from harness.cli.options import add_action, add_kernel, add_verbose
from harness.cli.words import progress, rounded
from harness.errors import UsageError
from harness.image.bundle import StoredEntry, entry_names, guest_image, remove_stored_entry, stored_entries
from harness.image.catalog import PATCHED, Catalog, KernelChoice, choose_kernel, load_catalog
from harness.report.status import ALL_CONFORM
from harness.report.tables import make_table, show


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    add_action(actions, "list", list_images, "list what is built, with sizes, and what is not")
    build = add_action(actions, "build", build_images, "build what is missing; needs the network")
    add_kernel(build, repeatable=True)
    build.add_argument("--patch", action="append", default=[], metavar="FILE", help="a patch to compile the kernel with; repeatable")
    add_verbose(build)
    remove = add_action(actions, "remove", remove_images, "remove entries from the cache")
    remove.add_argument("name", nargs="*", help="names as 'images list' prints them")
    remove.add_argument("--unused", action="store_true", help="every entry that no present description leads to")


def list_images(_: argparse.Namespace) -> int:
    catalog = load_catalog()
    wanted: dict[str, list[str]] = {}
    for name in catalog.kernels:
        for entry_name in entry_names(KernelChoice(name), catalog):
            wanted.setdefault(entry_name, []).append(name)
    found = stored_entries()
    users = {name: "every kernel" if len(kernels) > 1 else kernels[0] for name, kernels in wanted.items()}
    other = "an own or patched kernel, or nothing any more"
    built = [(entry.name, rounded(entry.size_bytes), users.get(entry.name, other), _kernel_words(entry)) for entry in found]
    missing = [(name, "not built", users[name], "") for name in sorted(users.keys() - {entry.name for entry in found})]
    show(make_table(("image", "size", "for", "kernel"), built + missing))
    return ALL_CONFORM


def _kernel_words(entry: StoredEntry) -> str:
    package = f" (package {entry.version})" if entry.version else ""
    return f"Linux {entry.release}{package}" if entry.release else ""


def build_images(chosen: argparse.Namespace) -> int:
    catalog = load_catalog()
    if chosen.patch and not chosen.kernel:
        raise UsageError("--patch needs --kernel NAME: the kernel from source that is to be built with the patch")
    names = [PATCHED.join([name, *chosen.patch]) for name in chosen.kernel]
    for choice in [choose_kernel(name, catalog) for name in names] or needed_kernels(catalog):
        image = guest_image(choice, progress, catalog, compiling=True)
        progress(f"{choice.name}: Linux {image.release} is ready")
    if chosen.patch:
        progress(f"run cases on it with: pytest {' '.join(f'--kernel {shlex.quote(name)}' for name in names)}")
    return ALL_CONFORM


def needed_kernels(catalog: Catalog) -> list[KernelChoice]:
    """Return what a run of all cases needs: the default kernel, and its flavours."""
    default = catalog.default_kernel
    return [KernelChoice(kernel.name) for kernel in catalog.kernels.values() if default in (kernel.name, kernel.base)]


def remove_images(chosen: argparse.Namespace) -> int:
    catalog = load_catalog()
    names = list(chosen.name)
    if chosen.unused:
        used = {name for kernel in catalog.kernels for name in entry_names(KernelChoice(kernel), catalog)}
        names += [entry.name for entry in stored_entries() if entry.name not in used]
    elif not names:
        raise UsageError("name the entries to remove ('images list' prints them), or give --unused")
    for name in names:
        remove_stored_entry(name, progress)
        progress(f"removed {name}")
    return ALL_CONFORM
