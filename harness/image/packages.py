"""What a Debian suite has: apt's lists of it, the packages of a kernel in them, and their files. This computer's own apt is not touched."""

import logging
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HostError
from harness.host.apt import Mirrors
from harness.host.cache import Progress, file_sha256
from harness.host.deadline import Deadline
from harness.host.process import run
from harness.host.tools import require_tool
from harness.image.catalog import PackagedKernel
from harness.image.mmdebstrap import mmdebstrap_command, run_mmdebstrap
from harness.sizes import MIB

_log = logging.getLogger(__name__)

#: A kernel is one package (image), or since 6.19 four: an empty image, the kernel (binary), modules, and their lists and options (base).
_PART = r"linux-(?:image|base|binary|modules)-"


@dataclass(frozen=True)
class KernelPackage:
    """A package of a kernel that a suite has. ``needs``: the packages of kernels that it depends on, by name."""

    name: str
    version: str
    size_bytes: int
    needs: tuple[str, ...]

    @property
    def is_meta(self) -> bool:
        """Whether it holds nothing and only leads to another of its kind. The archive may have lost its file."""
        return any(_kind(need) == _kind(self.name) for need in self.needs)

    @property
    def is_alone(self) -> bool:
        """Whether it is an image package that has all of a kernel, its modules too."""
        return _kind(self.name) == "image" and not {"image", "modules"} & {_kind(need) for need in self.needs}


@dataclass(frozen=True)
class FetchedPackage:
    """A package file that was downloaded and checked by apt."""

    name: str
    version: str
    sha256: str
    file: Path


def fetch_packages(
    recipe: PackagedKernel, others: Iterable[str], mirrors: Mirrors, folder: Path, progress: Progress, deadline: Deadline, *, kernel: bool
) -> tuple[FetchedPackage, ...]:
    """Download into ``folder`` the packages ``others`` of the suite of ``recipe``, and its newest kernel where ``kernel`` is wanted.

    Raises HostError when the archive cannot be reached, or lacks the kernel: then with the kernels that there are.
    """
    progress(f"reading what {recipe.suite} has")
    apt = _read_lists(recipe, mirrors, folder, deadline)
    known = _known_packages(apt, deadline)
    parts = find_kernel(recipe, known) if kernel else ()
    size = sum(part.size_bytes for part in parts) // MIB
    what = f"the kernel {parts[0].version} of {recipe.suite} ({size} MiB)" if parts else f"{' '.join(others)} of {recipe.suite}"
    progress(f"fetching {what}")
    target = folder / "fetched"
    target.mkdir()
    try:
        run([*apt, str(require_tool("apt-get")), "-q", "download", *(part.name for part in parts), *others], deadline, cwd=target)
    except HostError as error:
        why = "is the package mirror reachable?"
        if parts and "404  Not Found" in str(error):
            why = f"the mirror names it and has not all of its files. {_what_there_is(recipe, known)}"
        if recipe.source and f"Unable to locate package {recipe.source}" in str(error):
            why = f"{_sources_there_are(apt, deadline)}: give {recipe.name} in images/kernels.yaml one of them as its source"
        raise HostError(f"could not fetch {what}; {why}\n{error}") from error
    fetched = tuple(_identified(file, deadline) for file in sorted(target.glob("*.deb")))
    _log.info("fetched %s", ", ".join(f"{package.name} {package.version}" for package in fetched))
    return fetched


def unpack(packages: Iterable[FetchedPackage], folder: Path, deadline: Deadline) -> None:
    """Unpack package files below ``folder``; no script of theirs runs."""
    for package in packages:
        run([str(require_tool("dpkg-deb")), "--extract", str(package.file), str(folder)], deadline)


# ---- which packages a kernel is --------------------------------------------------------------------------------------


def find_kernel(recipe: PackagedKernel, packages: Mapping[str, KernelPackage]) -> tuple[KernelPackage, ...]:
    """Return the packages, sorted, that hold the kernel of ``recipe``; none of them is a meta package.

    ``packages``: those of kernels that the suite has, by name. Raises HostError naming what there is instead.
    """
    kernels = _of_flavour(recipe.package, packages)
    if recipe.version:
        wanted = [kernel for kernel in kernels if re.match(rf"{re.escape(recipe.version)}(?!\d)", kernel.version)]
    else:
        wanted = [packages[recipe.package]] if recipe.package in packages else []
    for kernel in wanted:
        if _is_whole(kernel, packages):
            return tuple(part for _, part in sorted(_parts(kernel, packages).items()) if part is not None and not part.is_meta)
    said = f"{recipe.suite} has no {recipe.package}" + (f" of Linux {recipe.version}" if recipe.version else "")
    if wanted:
        missing = sorted(name for name, part in _parts(wanted[0], packages).items() if part is None)
        said += f" that is whole: {wanted[0].name} is there without {' and '.join(missing)}"
    raise HostError(f"{said}. {_what_there_is(recipe, packages)}")


def _what_there_is(recipe: PackagedKernel, packages: Mapping[str, KernelPackage]) -> str:
    """Say what an entry that cannot be had may be changed into."""
    whole = [kernel for kernel in _of_flavour(recipe.package, packages) if _is_whole(kernel, packages)]
    if versions := dict.fromkeys(kernel.version.split("-")[0] for kernel in whole):
        return f"It has {', '.join(versions)}: give {recipe.name} in images/kernels.yaml one of them as its version"
    metas = sorted(package.name for package in packages.values() if package.is_meta and package.name.startswith("linux-image-"))
    if metas:
        return f"It has {', '.join(metas)}: give {recipe.name} in images/kernels.yaml one of them as its package"
    return "It has no kernel"


def _of_flavour(package: str, packages: Mapping[str, KernelPackage]) -> list[KernelPackage]:
    """The kernels of the flavour that a meta package is for, the newest first."""
    flavour = package.removeprefix("linux-image")
    # What stands before the flavour has a dash only before the number of a build: 6.1.0-56, never cloud or rt.
    image = re.compile(rf"linux-image-\d[^-]*(-(rc)?\d[^-]*)?{re.escape(flavour)}")
    found = [package for package in packages.values() if image.fullmatch(package.name)]
    return sorted(found, key=lambda kernel: version_key(kernel.version), reverse=True)


def _parts(kernel: KernelPackage, packages: Mapping[str, KernelPackage]) -> dict[str, KernelPackage | None]:
    """A kernel and all that belongs to it, by name; None: the suite has no such package."""
    found: dict[str, KernelPackage | None] = {}
    waiting = [kernel.name]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = part = packages.get(name)
            waiting += part.needs if part is not None and not part.is_alone else ()
    return found


def _is_whole(kernel: KernelPackage, packages: Mapping[str, KernelPackage]) -> bool:
    return None not in _parts(kernel, packages).values()


def version_key(version: str) -> tuple[tuple[tuple[int, ...], int], ...]:
    """Return a key by which versions sort as dpkg sorts them (deb-version(7)): numbers as numbers, ``~`` before the end of the text."""

    def order(letter: str) -> int:
        return -1 if letter == "~" else ord(letter) if letter.isalpha() else ord(letter) + 256

    return tuple(((*(order(letter) for letter in text), 0), int(number or 0)) for text, number in re.findall(r"(\D*)(\d*)", version))


def parse_packages(text: str) -> dict[str, KernelPackage]:
    """Return the packages in what ``apt-cache show`` says, by name."""
    found = {}
    for stanza in text.split("\n\n"):
        fields = dict(re.findall(r"^(Package|Version|Size|Depends): (.*)$", stanza, re.MULTILINE))
        if fields:
            needs = tuple(dict.fromkeys(re.findall(rf"(?<!\S){_PART}[^\s,|]+", fields.get("Depends", ""))))
            found[fields["Package"]] = KernelPackage(fields["Package"], fields["Version"], int(fields["Size"]), needs)
    return found


def _kind(name: str) -> str:
    return name.split("-")[1]


# ---- apt -------------------------------------------------------------------------------------------------------------


def _read_lists(recipe: PackagedKernel, mirrors: Mirrors, folder: Path, deadline: Deadline) -> tuple[str, ...]:
    """Have mmdebstrap read what the suite has into ``folder``; return what goes before a command of apt's to make it use that."""
    options = () if recipe.check_valid_until else ('--aptopt=Acquire::Check-Valid-Until "false"',)
    hooks = [f"copy-out /etc/apt /var/lib/apt/lists {shlex.quote(str(folder))}"]
    command = mmdebstrap_command(recipe.suite, "/dev/null", mirrors, variant="custom", form="null", options=options, hooks=hooks)
    log = folder / "fetch.log"
    try:
        run_mmdebstrap(command, deadline, log)
    except HostError as error:
        why = "is the package mirror reachable?"
        if recipe.check_valid_until and " is expired " in str(error):
            why = f"its lists are too old to be believed. Where the mirror stands still, say `check_valid_until: no` of {recipe.name}"
        raise HostError(f"could not read what {recipe.suite} has; {why}\n{error}") from error
    log.unlink()
    settings = {"State": folder, "State::status": "/dev/null", "Cache": folder / "cache", "Etc": folder / "apt"}
    config = folder / "apt.conf"
    lines = [f'Dir::{name} "{value}";' for name, value in settings.items()]
    config.write_text("\n".join([*lines, 'APT::Architecture "amd64";', 'APT::Sandbox::User "root";', ""]))
    return ("env", f"APT_CONFIG={config}")


def _known_packages(apt: tuple[str, ...], deadline: Deadline) -> dict[str, KernelPackage]:
    program = str(require_tool("apt-cache"))
    names = run([*apt, program, "pkgnames", "linux-"], deadline).stdout.split()
    parts = [name for name in sorted(names) if re.match(_PART, name) and not name.endswith("-dbg")]
    return parse_packages(run([*apt, program, "show", "--no-all-versions", *parts], deadline).stdout) if parts else {}


def _sources_there_are(apt: tuple[str, ...], deadline: Deadline) -> str:
    names = run([*apt, str(require_tool("apt-cache")), "pkgnames", "linux-source-"], deadline).stdout.split()
    return f"it has {', '.join(sorted(names)) or 'no source of a kernel'}"


def _identified(file: Path, deadline: Deadline) -> FetchedPackage:
    said = run([str(require_tool("dpkg-deb")), "--field", str(file), "Package", "Version"], deadline).stdout
    fields = dict(line.split(": ", 1) for line in said.splitlines())
    return FetchedPackage(fields["Package"], fields["Version"], file_sha256(file), file)
