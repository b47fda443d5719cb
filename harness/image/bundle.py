"""Everything a guest boots from, made when it is missing and found in milliseconds when it is not.

Entries of the store are keyed by what they are made from (the description under images/, our building code, the
user's kernel), not by the package versions found: those are recorded, and stay until the entry is removed.
"""

import functools
import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from harness.errors import UsageError
from harness.host import settings
from harness.host.apt import find_mirrors, read_apt_sources
from harness.host.cache import Progress, content_key, file_sha256, remove_entry, stored_entry
from harness.host.deadline import Deadline
from harness.host.tools import require_to_compile
from harness.image.catalog import Catalog, KernelChoice, ModuleSet, load_catalog
from harness.image.initrd import collect_modules, make_initrd
from harness.image.kernel import (
    KernelFiles,
    check_options,
    find_kernel_files,
    has_pvh_note,
    is_vmlinux,
    stripped_kernel,
    usable_options,
)
from harness.image.packages import fetch_packages, unpack
from harness.image.rootfs import CLIENT_KEY, HOST_PUBLIC_KEY, IMAGE, VERSIONS, build_rootfs, read_overlay
from harness.image.source import compile_kernel, compiler_version

log = logging.getLogger(__name__)

# Raise one when the building code changes what such an entry holds; part of its key.
_ROOTFS_BUILDER = "2"
_KERNEL_BUILDER = "3"
_BUILD_LIMIT_S = 3600.0
#: A kernel with every check takes an hour where one processor is busy with other things, too.
_COMPILE_LIMIT_S = 6 * 3600.0
_MANIFEST = "manifest.json"
_CONFIG = "config"


@dataclass(frozen=True)
class GuestImage:
    """What QEMU needs to boot a guest and SSH needs to reach it. All files are read-only and may serve many guests.

    ``boot_kernel`` is the uncompressed kernel where it has the PVH note (``pvh``), else the bzImage; ``bzimage`` is None where the user's
    kernel is a vmlinux. ``config``: the options that a guest has; one that is a module of a kernel without modules is not among them.
    ``packages``: version by package name, of kernel and root file system. ``sha256``: by the names boot_kernel, bzimage, initrd, rootfs.
    """

    kernel: str
    release: str
    boot_kernel: Path
    pvh: bool
    bzimage: Path | None
    initrd: Path
    rootfs: Path
    rootfs_format: str
    client_key: Path
    host_public_key: str
    packages: Mapping[str, str]
    sha256: Mapping[str, str]
    config: Mapping[str, str]
    mkfs: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class StoredEntry:
    """An entry of the image store: a kernel or a root file system.

    ``release``: what ``uname -r`` says of a kernel; ``version``: of its packages, empty for the user's own.
    """

    name: str
    folder: Path
    size_bytes: int
    release: str
    version: str


def guest_image(
    choice: KernelChoice, progress: Progress, catalog: Catalog | None = None, store: Path | None = None, *, compiling: bool = False
) -> GuestImage:
    """Return the image of a guest that runs ``choice``, building what is missing; a kernel from source only where ``compiling`` is wanted.

    Needs the network only to build. Raises HostError (tools, network, disk) or UsageError (a kernel that will not do, or is not compiled).
    """
    catalog = catalog or load_catalog()
    store = store or image_store()
    if not compiling and (why := why_not_compiled(choice, catalog, store)):
        raise UsageError(why)
    rootfs = _rootfs_entry(catalog, store, progress)
    kernel = _kernel_entry(choice, catalog, store, progress)
    entry = catalog.find_entry(choice)
    facts = json.loads((kernel / _MANIFEST).read_text())
    root_facts = json.loads((rootfs / _MANIFEST).read_text())
    return GuestImage(
        kernel=choice.name,
        release=facts["release"],
        boot_kernel=kernel / ("vmlinux" if facts["pvh"] else "bzImage"),
        pvh=facts["pvh"],
        bzimage=kernel / "bzImage" if (kernel / "bzImage").is_file() else None,
        initrd=kernel / "initrd",
        rootfs=rootfs / IMAGE,
        rootfs_format="raw",
        client_key=rootfs / CLIENT_KEY,
        host_public_key=(rootfs / HOST_PUBLIC_KEY).read_text().strip(),
        packages={**root_facts["packages"], **facts["packages"]},
        sha256={**facts["sha256"], "rootfs": root_facts["sha256"]},
        config=json.loads((kernel / _CONFIG).read_text()),
        mkfs={**catalog.mkfs, **(entry.mkfs if entry else {})},
    )


def image_store() -> Path:
    """Return the folder that entries live in."""
    return settings.cache_root() / "images"


def is_built(choice: KernelChoice, catalog: Catalog, store: Path | None = None) -> bool:
    """Return whether ``guest_image`` would find everything, needing no network and no time."""
    store = store or image_store()
    return all((store / name).is_dir() for name in entry_names(choice, catalog))


def why_not_compiled(choice: KernelChoice, catalog: Catalog, store: Path | None = None) -> str | None:
    """Return what to do before a guest can run ``choice``, where that is a kernel from source that nobody has compiled yet; else None."""
    entry = catalog.find_entry(choice)
    if entry is None or not entry.source or ((store or image_store()) / _kernel_name(choice, catalog)).is_dir():
        return None
    patches = "".join(f" --patch {patch}" for patch in choice.patches)
    return (
        f"{choice.name} is not built, and compiling a kernel takes many minutes, so it is done only where it is asked for:"
        f" python -m harness images build --kernel {entry.name}{patches}"
    )


def entry_names(choice: KernelChoice, catalog: Catalog) -> tuple[str, str]:
    """Return the names of the entries that a guest needs: the root file system's, the kernel's."""
    return _rootfs_name(catalog), _kernel_name(choice, catalog)


def stored_entries(store: Path | None = None) -> tuple[StoredEntry, ...]:
    """Return all complete entries, also those that no description leads to any more."""
    store = store or image_store()
    found = []
    for manifest in sorted(store.glob(f"*/{_MANIFEST}")):
        size = sum(file.stat().st_blocks * 512 for file in manifest.parent.iterdir())
        facts = json.loads(manifest.read_text())
        release = facts.get("release", "")
        version = " ".join(sorted(set(facts["packages"].values()))) if release else ""
        found.append(StoredEntry(manifest.parent.name, manifest.parent, size, release, version))
    return tuple(found)


def remove_stored_entry(name: str, progress: Progress, store: Path | None = None) -> None:
    """Remove one entry. Raises UsageError, naming the entries, when there is no such."""
    store = store or image_store()
    names = [entry.name for entry in stored_entries(store)]
    if name not in names or not remove_entry(store, name, progress, Deadline.after(_BUILD_LIMIT_S)):
        raise UsageError(f"no image {name!r}; there are: {', '.join(names) or 'none'}")


def _rootfs_name(catalog: Catalog) -> str:
    recipe = catalog.rootfs
    overlay = read_overlay(catalog.folder / "overlay")
    parts = [_ROOTFS_BUILDER, recipe.suite, repr((recipe.packages, recipe.exclude, recipe.image_options))]
    return f"rootfs-{content_key(*parts, *(repr(file) for file in overlay))}"


def _rootfs_entry(catalog: Catalog, store: Path, progress: Progress) -> Path:
    def build(folder: Path) -> None:
        mirrors = find_mirrors(read_apt_sources(), settings.package_mirror())
        build_rootfs(catalog.rootfs, read_overlay(catalog.folder / "overlay"), mirrors, folder, progress)
        versions = dict(line.split(" ", 1) for line in (folder / VERSIONS).read_text().splitlines())
        _write_manifest(folder, {"packages": versions, "sha256": file_sha256(folder / IMAGE)})

    log.debug("the root file system is %s", _rootfs_name(catalog))
    return stored_entry(store, _rootfs_name(catalog), build, progress, Deadline.after(_BUILD_LIMIT_S))


def _kernel_name(choice: KernelChoice, catalog: Catalog) -> str:
    init = (catalog.folder / "initrd/init").read_bytes()
    parts: list[str | bytes] = [_KERNEL_BUILDER, init, repr(catalog.modules), repr(dict(catalog.options))]
    recipe = catalog.find_entry(choice)
    if recipe is not None and recipe.source:
        described = [repr((recipe.suite, recipe.source)), compiler_version()]
        contents = [file.read_bytes() for file in (*catalog.fragments(recipe), *choice.patches)]
        return f"{choice.name}-{content_key(*parts, *described, *contents)}"
    if recipe is not None:
        return f"{choice.name}-{content_key(*parts, repr((recipe.suite, recipe.package, recipe.version, recipe.modules)))}"
    assert choice.path is not None
    wanted = repr(_wanted_modules(choice, catalog))
    return f"{choice.name}-{content_key(*parts, wanted, _fingerprint(find_kernel_files(choice.path)))}"


def _wanted_modules(choice: KernelChoice, catalog: Catalog) -> ModuleSet:
    """Return what is wanted of a kernel: of the user's own also what a flavour of the catalogue has beyond others, where it is there."""
    if choice.path is None:
        return catalog.modules
    extra = dict.fromkeys(name for kernel in catalog.kernels.values() for name in kernel.modules)
    return replace(catalog.modules, optional=(*catalog.modules.optional, *extra))


def _fingerprint(kernel: KernelFiles) -> str:
    """A key of the user's kernel: the content of its file and options, and name, size and date of each module."""
    look = kernel.image.stat()
    digest = sha256(f"{_content(kernel.image, look.st_size, look.st_mtime_ns)} {sorted(kernel.config.items())!r}\n".encode())
    if kernel.modules is not None:
        for file in sorted(kernel.modules.rglob("*.ko*")):
            found = file.stat()
            digest.update(f"{file.relative_to(kernel.modules)} {found.st_size} {found.st_mtime_ns}\n".encode())
    return digest.hexdigest()


@functools.lru_cache(maxsize=8)
def _content(image: Path, size: int, mtime_ns: int) -> str:
    """The hash of a file that looks like this: it is read once a process."""
    return file_sha256(image)


def _kernel_entry(choice: KernelChoice, catalog: Catalog, store: Path, progress: Progress) -> Path:
    described = catalog.find_entry(choice)
    source = described.source if described else ""
    limit_s = _COMPILE_LIMIT_S if source else _BUILD_LIMIT_S

    def build(folder: Path) -> None:
        deadline = Deadline.after(limit_s)
        scratch = folder / "scratch"
        scratch.mkdir()
        if source:
            require_to_compile()
        # An own kernel still needs busybox, which comes with the default kernel's suite.
        recipe = described or catalog.kernels[catalog.default_kernel]
        mirrors = find_mirrors(read_apt_sources(), settings.package_mirror())
        packaged = described is not None and not source
        others = ("busybox-static", source) if source else ("busybox-static",)
        fetched = fetch_packages(recipe, others, mirrors, scratch, progress, deadline, kernel=packaged)
        progress(f"unpacking {', '.join(package.name for package in fetched)}")
        unpack(fetched, scratch / "tree", deadline)
        path = choice.path or scratch / "tree"
        if source:
            archive = next((path / "usr/src").glob(f"{source}.tar.*"))
            fragments = catalog.fragments(recipe)
            path = compile_kernel(choice.name, archive, fragments, catalog.options, choice.patches, scratch, progress, deadline)
        kernel = find_kernel_files(path)
        check_options(kernel, catalog.options)
        log.info("the kernel %s is Linux %s (%s)", choice.name, kernel.release, kernel.image)
        more = described.modules if described else ()
        load = collect_modules(kernel, _wanted_modules(choice, catalog), more, scratch / "wanted", scratch / "depmod", deadline)
        busybox = next(file for file in (scratch / "tree/bin/busybox", scratch / "tree/usr/bin/busybox") if file.is_file())
        modules = scratch / "wanted/lib/modules" / kernel.release
        initrd = make_initrd((catalog.folder / "initrd/init").read_bytes(), busybox.read_bytes(), load, modules)
        (folder / "initrd").write_bytes(initrd)
        progress(f"uncompressing the kernel {kernel.release}")
        vmlinux = stripped_kernel(kernel.image, scratch, deadline)
        (folder / "vmlinux").write_bytes(vmlinux)
        (folder / _CONFIG).write_text(json.dumps(usable_options(kernel)))
        pvh = has_pvh_note(vmlinux)
        names = {"boot_kernel": "vmlinux" if pvh else "bzImage", "initrd": "initrd"}
        if not is_vmlinux(kernel.image):
            shutil.copyfile(kernel.image, folder / "bzImage")
            names["bzimage"] = "bzImage"
        manifest = {
            "release": kernel.release,
            "pvh": pvh,
            "packages": {package.name: package.version for package in fetched if package.name.startswith("linux-")},
            "package_sha256": {package.name: package.sha256 for package in fetched},
            "sha256": {key: file_sha256(folder / name) for key, name in names.items()},
            **({"compiler": compiler_version(), "patches": [patch.name for patch in choice.patches]} if source else {}),
        }
        shutil.rmtree(scratch)
        _write_manifest(folder, manifest)

    name = _kernel_name(choice, catalog)
    log.debug("the kernel %s is %s", choice.name, name)
    return stored_entry(store, name, build, progress, Deadline.after(limit_s))


def _write_manifest(folder: Path, manifest: Mapping[str, object]) -> None:
    (folder / _MANIFEST).write_text(json.dumps({"format": 1, **manifest}, indent=1))
