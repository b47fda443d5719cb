"""Command-line options, markers, and the state of one pytest session."""

import contextlib
import importlib
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.case.axes import Storage
from harness.case.claims import FAMILY_FILE, load_families
from harness.case.known import load_nearest_expected
from harness.case.plan import DEFAULT_STACK, named_stacks
from harness.errors import CaseError, HarnessError
from harness.host.admission import admitted
from harness.host.deadline import Deadline
from harness.lease.boot import make_booter
from harness.lease.clone import make_cloner
from harness.lease.guest import Auditing
from harness.lease.kept import FOLDER, LogKeeper
from harness.lease.kernels import Kernels, read_kernels
from harness.lease.ledger import Ledger, open_ledger
from harness.lease.options import BOOT_LIMIT_S, STEP_LIMIT_S, GuestOptions
from harness.lease.pool import Booter, Pool, open_pool
from harness.lease.template import templates_limit_bytes
from harness.model.filesystems import Filesystem
from harness.model.kinds import RegionKind
from harness.model.known import ExpectedLine
from harness.record.facttable import read_tables
from harness.record.item import Lifecycle
from harness.record.runs import KEPT_RUNS, make_run_id, run_folder
from harness.report.status import COULD_NOT_RUN, WRONG_USAGE
from harness.sizes import MIB

KERNELS = pytest.StashKey[Kernels]()
LIFECYCLES = pytest.StashKey[tuple[Lifecycle, ...]]()
POOL = pytest.StashKey[Pool]()
_LEDGER = pytest.StashKey[Ledger]()
#: Under this name the controller of a distributed run tells its workers where the ledger is.
_LEDGER_FOLDER = "harness_ledger"
_RUN = pytest.StashKey[str]()
_RUN_ID = "harness_run"

#: What a guest takes of this computer's memory while it runs a case: a clone writes some tens of MiB, a booted guest all that it touches.
GUEST_BYTES = 384 * MIB
_ADMISSION_LIMIT_S = 3600.0

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
        help="a kernel of images/kernels.yaml, one from source with a patch (NAME+FILE), or the path of your bzImage, vmlinux or build "
        "tree; repeatable (default: the one that "
        "file names)",
    )
    group.addoption(
        "--kernel-args",
        default="",
        metavar="TEXT",
        help="words to add to the kernel's command line, such as --kernel-args='transparent_hugepage=never mitigations=auto'",
    )
    group.addoption(
        "--facts",
        metavar="DIR",
        help="tables of measured facts (python -m harness probe makes them): what that of an item's kernel says comes before the model's "
        "own table, for a kernel with backports or in the midst of a bisection",
    )
    group.addoption(
        "--lifecycle",
        action="append",
        default=[],
        metavar="|".join(Lifecycle),
        help="how guests come to be: restored from templates, which are made when missing, or booted for each; repeatable, and then every "
        "case runs on both (default: restored)",
    )
    group.addoption(
        "--reuse-guests",
        action="store_true",
        help="let a guest serve all items in a row with the same storage stack, each on a file system made anew: less isolated, and "
        "quicker only where guests are booted",
    )
    group.addoption(
        "--repeat",
        type=int,
        default=1,
        metavar="N",
        help="run each item of a case file N times, each time on another guest; one that does not come to the same each time is flaky, "
        "and fails (default: once; nothing is ever run again by itself)",
    )
    group.addoption(
        "--keep-going",
        action="store_true",
        help="try every item, also where its storage stack failed twice, or nothing came up on its kernel",
    )
    group.addoption(
        "--audit",
        choices=[str(Auditing.FULL), str(Auditing.CONTENT), str(Auditing.NONE)],
        default=str(Auditing.NONE),
        help="what is looked at after each program: all files, before and after their volume was unmounted and mounted again, with a check "
        "of the file system in between (full) or without (content); nothing (none) (default: %(default)s)",
    )
    group.addoption(
        "--artifacts", default="artifacts", metavar="DIR", help="where runs are kept, each in a folder of its own (default: artifacts)"
    )
    group.addoption(
        "--keep-runs", type=int, default=KEPT_RUNS, metavar="N", help="how many runs are kept, this one included (default: %(default)s)"
    )
    group.addoption(
        "--boot-timeout",
        type=float,
        default=BOOT_LIMIT_S,
        metavar="SECONDS",
        help="limit from QEMU's start to the agent's first answer on an accelerated host; emulation multiplies it (default: %(default)s)",
    )
    group.addoption(
        "--step-timeout",
        type=float,
        default=STEP_LIMIT_S,
        metavar="SECONDS",
        help="limit for one step of a program on an accelerated host; emulation multiplies it (default: %(default)s)",
    )
    group.addoption(
        "--keep-guest",
        action="store_true",
        help="when an item fails, keep its guest, print how to get in, and go on when Enter is pressed; needs a terminal, and no -n",
    )
    group.addoption("--gdb", action="store_true", help="let a debugger attach to each guest; -v prints the socket")


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
        kernels = read_kernels(config.getoption("kernel"), config.getoption("kernel_args"))
        tables = read_tables(Path(config.getoption("facts"))) if config.getoption("facts") else []
        templates_limit_bytes()  # a setting that is no size is said now, and not when a template has been made
    except HarnessError as error:
        raise pytest.UsageError(str(error)) from error
    if config.getoption("keep_guest") and (not sys.stdin.isatty() or config.getoption("numprocesses", None)):
        raise pytest.UsageError("--keep-guest waits for you to press Enter: it needs a terminal, and does not go with -n")
    if config.getoption("facts") and not tables:
        raise pytest.UsageError(f"--facts {config.getoption('facts')}: there is no table of facts; python -m harness probe makes one")
    if config.getoption("keep_runs") < 1:
        raise pytest.UsageError(f"--keep-runs is {config.getoption('keep_runs')}: this run is one, so it is 1 or more")
    if config.getoption("repeat") < 1:
        raise pytest.UsageError(f"--repeat is {config.getoption('repeat')}: 1 or more")
    config.stash[KERNELS] = kernels
    config.stash[LIFECYCLES] = _lifecycles(config.getoption("lifecycle"))
    cases = config.rootpath / CASES
    families = _families(cases)
    words = {str(word): f"cases whose main volume is: {word}" for word in Storage}
    words |= {str(word): f"cases on an {word} region" for word in RegionKind}
    words |= {str(word): f"cases on the file system {word}" for word in Filesystem}
    words |= {name: f"cases on the kernel {name}" for name in kernels.names}
    words["probe"] = "cases that measure facts of the model: a new kernel is first probed (python -m harness facts)"
    words["watch"] = "cases that show whether what is moved is the page itself or a copy (python -m harness watch)"
    words |= {str(word): f"items whose guest is {word}" for word in Lifecycle}
    words |= {name: f"cases of the family: {title}" for name, title in families.items()}
    words["stack(*ids)"] = "the storage stacks of a Python case, by variant id"
    for name, meaning in words.items():
        config.addinivalue_line("markers", f"{name}: {meaning}")


def _lifecycles(words: Sequence[str]) -> tuple[Lifecycle, ...]:
    unknown = [word for word in words if word not in set(Lifecycle)]
    if unknown:
        raise pytest.UsageError(f"no lifecycle {unknown[0]!r}: a guest is {' or '.join(Lifecycle)}")
    return tuple(dict.fromkeys(Lifecycle(word) for word in words)) or (Lifecycle.RESTORED,)


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
    progress, ledger = make_progress(config), find_ledger(config)
    said: set[str] = set()

    def wait_aloud(text: str) -> None:
        # On a busy computer every item waits: that is said once.
        if text not in said:
            progress(text)
        said.add(text)

    def admit() -> contextlib.AbstractContextManager[None]:
        return admitted(GUEST_BYTES, Deadline.after(_ADMISSION_LIMIT_S), wait_aloud)

    booters = _booters(config, session.items)
    with open_pool(booters, reuse=config.getoption("reuse_guests"), admit=admit, ledger=ledger) as pool:
        config.stash[POOL] = pool
        return (yield)


def find_ledger(config: pytest.Config) -> Ledger:
    """Return the ledger of this run, which its workers share and which ends with it."""
    if _LEDGER not in config.stash:
        default, keep_going = named_stacks()[DEFAULT_STACK], config.getoption("keep_going")
        shared = getattr(config, "workerinput", {}).get(_LEDGER_FOLDER)
        if shared is not None:
            config.stash[_LEDGER] = Ledger(Path(shared), default, keep_going)
        else:
            lifetime = contextlib.ExitStack()
            config.add_cleanup(lifetime.close)
            try:
                config.stash[_LEDGER] = lifetime.enter_context(open_ledger(default, keep_going))
            except HarnessError as error:
                pytest.exit(str(error), COULD_NOT_RUN)
    return config.stash[_LEDGER]


def run_of(config: pytest.Config) -> str:
    """Return the id of this run, which its workers share."""
    if _RUN not in config.stash:
        config.stash[_RUN] = getattr(config, "workerinput", {}).get(_RUN_ID) or make_run_id(secrets.token_hex(2))
    return config.stash[_RUN]


def artifacts_of(config: pytest.Config) -> Path:
    """Return the folder of this run. It is made when there is something to keep."""
    return run_folder(Path(config.getoption("artifacts")), run_of(config))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker of a distributed run which run it is, and where the ledger is."""
    node.workerinput[_LEDGER_FOLDER] = str(find_ledger(node.config).folder)
    node.workerinput[_RUN_ID] = run_of(node.config)


def _booters(config: pytest.Config, items: Sequence[pytest.Item]) -> Mapping[Lifecycle, Booter]:
    other: Booter | None = config.hook.pytest_harness_booter(config=config)
    if other is not None:
        return dict.fromkeys(Lifecycle, other)
    choose, progress = config.stash[KERNELS].choice, make_progress(config)
    options = GuestOptions(
        boot_limit_s=config.getoption("boot_timeout"),
        step_limit_s=config.getoption("step_timeout"),
        announce=sys.stdout.isatty(),
        gdb=config.getoption("gdb"),
        detail=progress if config.getoption("verbose") > 0 else lambda _: None,
        kernel_arguments=config.stash[KERNELS].arguments,
        expected=expected_in_set_up(items),
        keeper=LogKeeper(artifacts_of(config) / FOLDER, find_ledger(config).locked),
    )
    return {
        Lifecycle.BOOTED: make_booter(choose, progress, options),
        Lifecycle.RESTORED: make_cloner(choose, progress, options),
    }


def expected_in_set_up(items: Sequence[pytest.Item]) -> tuple[ExpectedLine, ...]:
    """Return what the console.yaml of any of ``items`` expects: guests are booted and set up for all of them."""
    folders = dict.fromkeys(item.path.parent for item in items)
    return tuple(dict.fromkeys(entry for folder in folders for entry in load_nearest_expected(folder / "case")))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each worker of a distributed run a stretch of the items, which are sorted by stack: it then needs few templates."""
    if config.getoption("dist") != "load":
        return None
    return importlib.import_module("xdist.scheduler").WorkStealingScheduling(config, log)


def chosen_auditing(config: pytest.Config) -> Auditing:
    """Return how much of an audit items get: none where a person is to find the guest as the program left it."""
    return Auditing.KEPT if config.getoption("keep_guest") else Auditing(config.getoption("audit"))


def make_progress(config: pytest.Config) -> Callable[[str], None]:
    """Return what prints a line at once, past pytest's capture."""

    def progress(text: str) -> None:
        reporter = config.pluginmanager.get_plugin("terminalreporter")
        capture = config.pluginmanager.get_plugin("capturemanager")
        if reporter is None:
            return
        with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
            reporter.ensure_newline()
            # Where no file names are printed (quiet, or several workers), pytest itself does not see a line that has begun.
            if reporter._tw.width_of_current_line:
                reporter.write("\n")
            reporter.write_line(text)

    return progress
