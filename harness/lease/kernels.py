"""Which kernels a run is about: names of the catalogue and paths, and the flavour that a case needs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from harness.case.case import KERNEL_OPTIONS, Needs
from harness.errors import UsageError
from harness.host.cache import Progress
from harness.image.bundle import guest_image, why_not_compiled
from harness.image.catalog import Catalog, KernelChoice, choose_kernel, load_catalog
from harness.image.kernel import find_kernel_files, usable_options
from harness.machine.arguments import parse_kernel_arguments
from harness.model.fact import kernel_of
from harness.model.filesystems import ALWAYS
from harness.record.item import Target


@dataclass(frozen=True)
class Unsuitable:
    """A selected kernel on which a case cannot run at all, and why."""

    target: Target
    reason: str


@dataclass(frozen=True)
class Kernels:
    """The kernels that were selected, in order, and what they are to the catalogue. ``arguments`` go onto the command line of each.

    ``not_compiled``: those from source that nobody has compiled yet, and what to do.
    """

    catalog: Catalog
    selected: tuple[Target, ...]
    paths: tuple[KernelChoice, ...]
    arguments: tuple[str, ...] = ()
    not_compiled: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Every kernel that there is: those of the catalogue, and the user's own."""
        return tuple(dict.fromkeys([*self.catalog.kernels, *(choice.name for choice in self.paths)]))

    def choice(self, name: str) -> KernelChoice:
        """Return the kernel called ``name``: one of the selected, or one of the catalogue."""
        return next((choice for choice in self.paths if choice.name == name), KernelChoice(name))

    def lacking(self, kernel: str, needs: Needs, progress: Progress) -> str | None:
        """Return why a case with ``needs`` cannot run on a kernel that was found to suit it otherwise, or None where it can.

        A packaged kernel is fetched where nobody has seen its options yet, so this is for the set-up of an item, not for collecting.
        Raises HostError or UsageError.
        """
        if not needs.kernel_options and needs.since == ALWAYS:
            return None
        choice = self.choice(kernel)
        if choice.path is None:
            image = guest_image(choice, progress)
            return lacking_options(image.config, needs) or too_early(image.release, needs)
        files = find_kernel_files(choice.path)
        return lacking_options(usable_options(files), needs) or too_early(files.release, needs)

    def targets(self, needs: Needs) -> tuple[Target | Unsuitable, ...]:
        """Return what a case with ``needs`` runs on, for each selected kernel, each kernel once."""
        found: dict[str, Target | Unsuitable] = {}
        for target in self.selected:
            chosen = self._suitable(target, needs)
            name = chosen.kernel if isinstance(chosen, Target) else chosen.target.kernel
            found.setdefault(name, chosen)
        return tuple(found.values())

    def _suitable(self, target: Target, needs: Needs) -> Target | Unsuitable:
        if target.kernel in self.not_compiled:
            return Unsuitable(target, self.not_compiled[target.kernel])
        flavour = needs.kernel_flavour
        own = any(choice.name == target.kernel and choice.path is not None for choice in self.paths)
        if flavour is None or own:
            return target
        name = self.catalog.find_flavour(target.kernel, flavour)
        if name is not None:
            return replace(target, kernel=name)
        return Unsuitable(target, f"it needs the {flavour} flavour of a kernel, and images/kernels.yaml has none of {target.kernel}")


def lacking_options(config: Mapping[str, str], needs: Needs) -> str | None:
    """Return why a kernel with these options (names without CONFIG_) cannot run a case with ``needs``, or None where it can."""
    missing = [name for name in needs.kernel_options if config.get(name.removeprefix("CONFIG_")) not in ("y", "m")]
    if not missing:
        return None
    return "the kernel was built without " + ", ".join(f"{name} ({KERNEL_OPTIONS[name]})" for name in missing)


def too_early(release: str, needs: Needs) -> str | None:
    """Return why a kernel of this release cannot have what set-up is to mount, or None where it can."""
    if kernel_of(release).has(needs.since):
        return None
    return f"the kernel is {release}, and DAX of its file system came with {needs.since[0]}.{needs.since[1]}"


def select_kernels(options: Sequence[str], catalog: Catalog, arguments: str = "") -> Kernels:
    """Return the kernels that ``options`` name (none: the default), each with ``arguments`` added to its command line.

    Raises UsageError saying what there is, and what cannot be added.
    """
    words = parse_kernel_arguments(arguments)
    choices: dict[str, tuple[KernelChoice, str]] = {}
    for option in options or [""]:
        choice = choose_kernel(option or None, catalog)
        first, named = choices.setdefault(choice.name, (choice, option))
        if choice != first:
            raise UsageError(f"two kernels would both be called {choice.name}: {named} and {option}; rename one of the files")
    selected = tuple(
        Target(name, name, "" if name == catalog.default_kernel else option, " ".join(words)) for name, (_, option) in choices.items()
    )
    paths = tuple(choice for choice, _ in choices.values())
    not_compiled = {choice.name: why for choice in paths if (why := why_not_compiled(choice, catalog))}
    return Kernels(catalog, selected, paths, words, not_compiled)


def read_kernels(options: Sequence[str], arguments: str = "") -> Kernels:
    """Like :func:`select_kernels`, with the catalogue of this project. Raises CaseError where that is broken."""
    return select_kernels(options, load_catalog(), arguments)
