"""Which kernels a run is about: names of the catalogue and paths, and the flavour that a case needs."""

from collections.abc import Sequence
from dataclasses import dataclass

from harness.case.case import Needs
from harness.errors import UsageError
from harness.image.catalog import Catalog, KernelChoice, choose_kernel, load_catalog
from harness.run.artifacts import Target

#: What the name of a flavour of a packaged kernel ends in: ``debian_6.12`` and ``debian_6.12_full``.
_FLAVOUR = "_{}"


@dataclass(frozen=True)
class Unsuitable:
    """A selected kernel on which a case cannot run at all, and why."""

    target: Target
    reason: str


@dataclass(frozen=True)
class Kernels:
    """The kernels that were selected, in order, and what they are to the catalogue."""

    catalog: Catalog
    selected: tuple[Target, ...]
    paths: tuple[KernelChoice, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Every kernel that there is: those of the catalogue, and the user's own."""
        return tuple(dict.fromkeys([*self.catalog.kernels, *(choice.name for choice in self.paths)]))

    def choice(self, name: str) -> KernelChoice:
        """Return the kernel called ``name``: one of the selected, or one of the catalogue."""
        return next((choice for choice in self.paths if choice.name == name), KernelChoice(name))

    def targets(self, needs: Needs) -> tuple[Target | Unsuitable, ...]:
        """Return what a case with ``needs`` runs on, for each selected kernel, each kernel once."""
        found: dict[str, Target | Unsuitable] = {}
        for target in self.selected:
            chosen = self._suitable(target, needs)
            name = chosen.kernel if isinstance(chosen, Target) else chosen.target.kernel
            found.setdefault(name, chosen)
        return tuple(found.values())

    def _suitable(self, target: Target, needs: Needs) -> Target | Unsuitable:
        flavour = needs.kernel_flavour
        own = any(choice.name == target.kernel and choice.path is not None for choice in self.paths)
        if flavour is None or own or target.kernel.endswith(_FLAVOUR.format(flavour)):
            return target
        name = target.kernel + _FLAVOUR.format(flavour)
        if name in self.catalog.kernels:
            return Target(name, target.column, target.option)
        return Unsuitable(target, f"it needs the {flavour} flavour of a kernel, and images/kernels.yaml has none of {target.kernel}")


def select_kernels(options: Sequence[str], catalog: Catalog) -> Kernels:
    """Return the kernels that ``options`` name (none: the default). Raises UsageError saying what there is."""
    paths: dict[str, str] = {}
    for option in options:
        choice = choose_kernel(option or None, catalog)
        if str(choice.path) != paths.setdefault(choice.name, str(choice.path)):
            raise UsageError(
                f"two kernels would both be called {choice.name}: {paths[choice.name]} and {choice.path}; rename one of the files"
            )
    choices = {choice.name: (choice, option) for option in options or [""] if (choice := choose_kernel(option or None, catalog))}
    selected = tuple(Target(name, name, "" if name == catalog.default_kernel else option) for name, (_, option) in choices.items())
    return Kernels(catalog, selected, tuple(choice for choice, _ in choices.values()))


def read_kernels(options: Sequence[str]) -> Kernels:
    """Like :func:`select_kernels`, with the catalogue of this project. Raises CaseError where that is broken."""
    return select_kernels(options, load_catalog())
