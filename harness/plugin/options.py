"""Command-line options, markers, and the state of one pytest session."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.case.axes import STORAGES
from harness.case.loader import FAMILY_FILE, load_families
from harness.errors import CaseError, HarnessError
from harness.model.stack import Filesystem, RegionKind
from harness.run.boot import BOOT_LIMIT_S, make_booter
from harness.run.kernels import Kernels, read_kernels
from harness.run.pool import Booter, Pool, open_pool
from harness.run.report import WRONG_USAGE

KERNELS = pytest.StashKey[Kernels]()
POOL = pytest.StashKey[Pool]()

#: The folder of the cases, below the root folder of the tests.
CASES = "cases"


class Hooks:
    """Hooks that this plugin adds."""

    @pytest.hookspec(firstresult=True)
    def pytest_harness_booter(self, config: pytest.Config) -> Booter | None:
        """Return what boots guests instead of QEMU: tests of the harness hand in fakes."""


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    pluginmanager.add_hookspecs(Hooks)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("harness", "persistent-memory cases on guests")
    group.addoption(
        "--kernel",
        action="append",
        default=[],
        metavar="NAME|PATH",
        help="a kernel of images/kernels.yaml, or the path of your bzImage or build tree; repeatable (default: the one that file names)",
    )
    group.addoption("--artifacts", default="artifacts", metavar="DIR", help="where the evidence of every item is kept (default: artifacts)")
    group.addoption(
        "--boot-timeout",
        type=float,
        default=BOOT_LIMIT_S,
        metavar="SECONDS",
        help="limit from QEMU's start to the agent's first answer on an accelerated host; emulation multiplies it (default: %(default)s)",
    )


@pytest.hookimpl(wrapper=True)
def pytest_cmdline_main(config: pytest.Config) -> Iterator[None]:
    """Wrong usage is exit status 2, as everywhere in the harness."""
    try:
        return (yield)
    except pytest.UsageError as error:
        for line in error.args:
            sys.stderr.write(f"ERROR: {line}\n")
        return WRONG_USAGE  # type: ignore[return-value]


def pytest_configure(config: pytest.Config) -> None:
    try:
        kernels = read_kernels(config.getoption("kernel"))
    except HarnessError as error:
        raise pytest.UsageError(str(error)) from error
    config.stash[KERNELS] = kernels
    cases = config.rootpath / CASES
    families = _families(cases)
    words = {word: f"cases whose main volume is: {word}" for word in STORAGES}
    words |= {str(word): f"cases on an {word} region" for word in RegionKind}
    words |= {str(word): f"cases on the file system {word}" for word in Filesystem}
    words |= {name: f"cases on the kernel {name}" for name in kernels.names}
    words |= {name: f"cases of the family: {title}" for name, title in families.items()}
    words["stack(*ids)"] = "the storage stacks of a Python case, by variant id"
    for name, meaning in words.items():
        config.addinivalue_line("markers", f"{name}: {meaning}")


def _families(cases: Path) -> dict[str, str]:
    """Families by name with their titles; a broken description is reported where its cases are collected."""
    try:
        return {family.name: family.title for family in load_families(cases)}
    except CaseError:
        return {path.parent.name: path.parent.name for path in cases.glob(f"*/{FAMILY_FILE}")}


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Iterator[None]:
    """The guests of a session live inside its loop: they end with it, whatever ends it."""
    config = session.config
    boot = config.hook.pytest_harness_booter(config=config)
    if boot is None:
        progress = make_progress(config)
        boot = make_booter(config.stash[KERNELS].choice, progress, config.getoption("boot_timeout"), announce=sys.stdout.isatty())
    with open_pool(boot) as pool:
        config.stash[POOL] = pool
        return (yield)


def make_progress(config: pytest.Config) -> Callable[[str], None]:
    """Return what prints a line at once, past pytest's capture."""

    def progress(text: str) -> None:
        reporter = config.pluginmanager.get_plugin("terminalreporter")
        capture = config.pluginmanager.get_plugin("capturemanager")
        if reporter is None:
            return
        with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
            # A quiet run prints dots and no file names, so pytest itself does not see a line that has begun.
            reporter.ensure_newline() if reporter.verbosity >= 0 else reporter.write("\n")
            reporter.write_line(text)

    return progress
