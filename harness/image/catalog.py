"""images/*.yaml as types: which kernels there are, what they need, what the root file system is made of."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import yaml

from harness.errors import CaseError, UsageError
from harness.yaml_text import compose

T = TypeVar("T")
FORMAT = 1
IMAGES_DIR = Path(__file__).resolve().parents[2] / "images"
#: The kernel of an entry that names no other: small, and it has all that guests need.
CLOUD = "linux-image-cloud-amd64"
#: Stands between a kernel from source and the patches that it is built with, in what somebody names and in its name.
PATCHED = "+"


@dataclass(frozen=True)
class PackagedKernel:
    """A kernel from a Debian suite: the one that the meta package ``package`` leads to, or the newest of that flavour in ``version``.

    ``source``: it is compiled from this package instead, with the options of the fragments ``options``; then there is no ``package``.
    ``modules``: what it has beyond the others. ``flavour``: it is this flavour of the kernel ``base``; both are empty for one that stands
    for itself. ``mkfs``: how a file system is made for it, where that is not as for all. ``check_valid_until``: whether apt refuses
    lists that are too old.
    """

    name: str
    suite: str
    package: str
    version: str = ""
    modules: tuple[str, ...] = ()
    flavour: str = ""
    base: str = ""
    mkfs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    check_valid_until: bool = True
    source: str = ""
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModuleSet:
    """Modules by name: loaded by the initrd; there for modprobe; there where the kernel has them."""

    load: tuple[str, ...]
    available: tuple[str, ...]
    optional: tuple[str, ...]


@dataclass(frozen=True)
class RootfsRecipe:
    """What the root file system is made of."""

    suite: str
    packages: tuple[str, ...]
    exclude: tuple[str, ...]
    image_options: tuple[str, ...]


@dataclass(frozen=True)
class Catalog:
    """Everything that images/ says. ``options``: kernel option -> what a guest would lack without it."""

    folder: Path
    default_kernel: str
    kernels: Mapping[str, PackagedKernel]
    modules: ModuleSet
    options: Mapping[str, str]
    rootfs: RootfsRecipe
    mkfs: Mapping[str, tuple[str, ...]]

    def find_flavour(self, kernel: str, flavour: str) -> str | None:
        """Return the name of the kernel that is this flavour of ``kernel``: itself, another one, or None."""
        found = (k.name for k in self.kernels.values() if k.flavour == flavour and kernel in (k.name, k.base))
        return next(found, None)

    def find_entry(self, choice: "KernelChoice") -> PackagedKernel | None:
        """Return the entry that a kernel is built by, or None for the user's own."""
        return None if choice.path is not None else self.kernels[choice.name.partition(PATCHED)[0]]

    def fragments(self, kernel: PackagedKernel) -> tuple[Path, ...]:
        """Return the files with the options of a kernel from source, in the order in which they are laid over each other."""
        return tuple(self.folder / "fragments" / f"{name}.config" for name in kernel.options)


@dataclass(frozen=True)
class KernelChoice:
    """The kernel of a guest: one of the catalogue, perhaps with ``patches``, or the user's own at ``path``."""

    name: str
    path: Path | None = None
    patches: tuple[Path, ...] = ()


def load_catalog(folder: Path = IMAGES_DIR) -> Catalog:
    """Read images/. Raises CaseError with file and line where something in it cannot be meant."""
    kernels = _open(folder / "kernels.yaml", {"format", "default", "kernels", "modules", "options"})
    rootfs = _open(folder / "rootfs.yaml", {"format", "suite", "packages", "exclude", "image_options", "mkfs"})
    entries = kernels["kernels"].items()
    mkfs = {name: node.texts() for name, node in rootfs["mkfs"].items().items()}
    by_name = {name: _packaged_kernel(name, node, mkfs) for name, node in entries.items()}
    default = kernels["default"].text()
    if default not in by_name:
        raise kernels["default"].error(f"the default kernel {default!r} is none of: {', '.join(by_name)}")
    for name, node in entries.items():
        _check_flavour(by_name[name], node, by_name)
        _check_fragments(by_name[name], node, folder / "fragments")
    sets = kernels["modules"].fields({"load", "available", "optional"})
    return Catalog(
        folder,
        default,
        by_name,
        ModuleSet(sets["load"].texts(), sets["available"].texts(), sets["optional"].texts()),
        {name: node.text() for name, node in kernels["options"].items().items()},
        RootfsRecipe(rootfs["suite"].text(), rootfs["packages"].texts(), rootfs["exclude"].texts(), rootfs["image_options"].texts()),
        mkfs,
    )


def choose_kernel(text: str | None, catalog: Catalog) -> KernelChoice:
    """Return the kernel that ``text`` names: one of the catalogue, ``NAME+PATCH`` with patches, else a path; None is the default.

    Raises UsageError saying what there is.
    """
    if text is None:
        return KernelChoice(catalog.default_kernel)
    if text in catalog.kernels:
        return KernelChoice(text)
    name, *patches = text.split(PATCHED)
    if patches and name in catalog.kernels:
        return _patched(catalog.kernels[name], [Path(patch).expanduser() for patch in patches])
    path = Path(text).expanduser()
    if not path.exists():
        known = ", ".join(catalog.kernels)
        raise UsageError(f"no kernel {text!r}: give one of {known}, or the path of a bzImage, a vmlinux or a build tree")
    return KernelChoice(f"own_{path.resolve().name}", path.resolve())


def _patched(kernel: PackagedKernel, patches: list[Path]) -> KernelChoice:
    if not kernel.source:
        raise UsageError(f"{kernel.name} cannot be patched: of images/kernels.yaml only kernels with the key 'source' are compiled")
    for patch in patches:
        if not patch.is_file():
            raise UsageError(f"no patch {patch}: a file is expected behind each {PATCHED} of {kernel.name}{PATCHED}PATCH")
    name = PATCHED.join([kernel.name, *(patch.stem for patch in patches)])
    return KernelChoice(name, patches=tuple(patch.resolve() for patch in patches))


@dataclass(frozen=True)
class _Node:
    """A YAML node that knows where it stands."""

    file: Path
    node: yaml.Node

    def error(self, problem: str) -> CaseError:
        return CaseError(f"{self.file}:{self.node.start_mark.line + 1}", problem)

    def text(self) -> str:
        if not isinstance(self.node, yaml.ScalarNode):
            raise self.error("a text is expected here, not a list or mapping")
        return str(self.node.value)

    def texts(self) -> tuple[str, ...]:
        if not isinstance(self.node, yaml.SequenceNode):
            raise self.error("a list of texts is expected here")
        return tuple(_Node(self.file, item).text() for item in self.node.value)

    def answer(self) -> bool:
        if self.text() not in ("yes", "no"):
            raise self.error(f"yes or no is expected here, not {self.text()!r}")
        return self.text() == "yes"

    def items(self) -> dict[str, "_Node"]:
        if not isinstance(self.node, yaml.MappingNode):
            raise self.error("a mapping (key: value) is expected here")
        found: dict[str, _Node] = {}
        for key_node, value in self.node.value:
            key = _Node(self.file, key_node)
            if key.text() in found:
                raise key.error(f"the key {key.text()!r} stands here a second time")
            found[key.text()] = _Node(self.file, value)
        return found

    def fields(self, required: set[str], optional: frozenset[str] = frozenset()) -> dict[str, "_Node"]:
        found = self.items()
        for name, node in found.items():
            if name not in required | optional:
                raise node.error(f"unknown key {name!r}; accepted here: {', '.join(sorted(required | optional))}")
        if missing := sorted(required - found.keys()):
            raise self.error(f"the key {missing[0]!r} is missing")
        return found


def _open(file: Path, required: set[str]) -> dict[str, _Node]:
    node = _reading(file, lambda: compose(file.read_text()))
    if node is None:
        raise CaseError(str(file), "the file is empty")
    fields = _Node(file, node).fields(required)
    if fields["format"].text() != str(FORMAT):
        raise fields["format"].error(f"format {fields['format'].text()} is not known here; this harness reads format {FORMAT}")
    return fields


def _reading(file: Path, read: Callable[[], T]) -> T:
    try:
        return read()
    except OSError as error:
        raise CaseError(str(file), f"cannot be read: {error.strerror}") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise CaseError(f"{file}:{line}", f"not YAML: {error.problem}") from error


#: What an entry may say beside its suite: one for a packaged kernel, and one for a kernel from source.
_OF_PACKAGES = frozenset({"package", "version", "modules", "flavour", "of", "source"})
_OF_SOURCE = frozenset({"source"})


def _packaged_kernel(name: str, node: _Node, mkfs: Mapping[str, object]) -> PackagedKernel:
    if PATCHED in name:
        raise node.error(f"a kernel cannot be called {name!r}: {PATCHED} stands before the patches that one is built with")
    optional = _OF_SOURCE if "source" in node.items() else _OF_PACKAGES
    fields = node.fields({"suite", "options"} if optional is _OF_SOURCE else {"suite"}, optional | {"mkfs", "check_valid_until"})
    modules = fields["modules"].texts() if "modules" in fields else ()
    version, flavour, base = (fields[key].text() if key in fields else "" for key in ("version", "flavour", "of"))
    if version and not re.fullmatch(r"\d+\.\d+(\.\d+)?", version):
        raise fields["version"].error(f"a version of a kernel is expected here, such as 6.16 or 6.16.12, not {version!r}")
    return PackagedKernel(
        name,
        fields["suite"].text(),
        fields["package"].text() if "package" in fields else "" if "source" in fields else CLOUD,
        version,
        modules,
        flavour,
        base,
        {name: command.texts() for name, command in fields["mkfs"].fields(set(), frozenset(mkfs)).items()} if "mkfs" in fields else {},
        fields["check_valid_until"].answer() if "check_valid_until" in fields else True,
        fields["source"].text() if "source" in fields else "",
        fields["options"].texts() if "options" in fields else (),
    )


def _check_flavour(kernel: PackagedKernel, node: _Node, kernels: Mapping[str, PackagedKernel]) -> None:
    """Raise CaseError where ``flavour`` and ``of`` of a kernel cannot be meant."""
    if bool(kernel.flavour) != bool(kernel.base):
        raise node.error(f"{kernel.name} has only one of the keys 'flavour' and 'of': a flavour is one of another kernel")
    if not kernel.flavour:
        return
    plain = [other.name for other in kernels.values() if not other.flavour]
    if kernel.base not in plain:
        raise node.error(f"{kernel.name} is a flavour of {kernel.base!r}, which is none of: {', '.join(plain)}")
    twin = next(other for other in kernels.values() if (other.flavour, other.base) == (kernel.flavour, kernel.base))
    if twin is not kernel:
        raise node.error(f"{kernel.name} and {twin.name} are both the {kernel.flavour} flavour of {kernel.base}")


def _check_fragments(kernel: PackagedKernel, node: _Node, folder: Path) -> None:
    """Raise CaseError where a kernel is to be built with options that nobody has written down."""
    there = sorted(file.stem for file in folder.glob("*.config"))
    for name in kernel.options:
        if name not in there:
            raise node.error(f"no options {name!r} for {kernel.name}: {folder} has {', '.join(there) or 'none'}")
