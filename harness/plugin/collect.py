"""Case files as pytest items: one for every variant on every kernel."""

import contextlib
import itertools
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from harness.case.claims import CLAIMS_FILE
from harness.case.known import load_nearest_expected, load_nearest_known
from harness.case.loader import is_case_file, load_plans
from harness.case.plan import Plan
from harness.errors import CaseError, HarnessError, logs_of
from harness.lease.booted import BootedGuest, ways_in
from harness.lease.kernels import Unsuitable
from harness.lease.perform import run_item
from harness.lease.pool import Lease
from harness.model.known import ExpectedLine
from harness.model.stack import StorageStack
from harness.plugin.options import CASES, KERNELS, LIFECYCLES, POOL, artifacts_of, chosen_auditing, make_progress
from harness.plugin.outcome import fail_unless_passed, keep_row
from harness.record.item import Ending, Item, Lifecycle, Target, Where, make_item
from harness.record.judged import Result, judge_folder
from harness.record.store import item_folder
from harness.report.paragraph import describe_row
from harness.report.rows import Row, make_row, make_unset_row, step_lines
from harness.report.summary import one_of

#: The markers of cases that measure facts of the model, and of those that watch what is moved.
PROBE = "probe"
WATCH = "watch"
_LEASE = pytest.StashKey[Lease]()
_LIFETIME = pytest.StashKey[contextlib.ExitStack]()
#: What items are sorted by, those of Python cases too.
PLACE = pytest.StashKey[tuple[str, Lifecycle, StorageStack]]()


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> "CaseFile | None":
    if not is_case_file(file_path):
        return None
    if not (_is_below_cases(file_path, parent.config.rootpath) or parent.session.isinitpath(file_path)):
        return None
    return CaseFile.from_parent(parent, path=file_path)


def _is_below_cases(path: Path, root: Path) -> bool:
    """Whether a file is in a family's folder: two floors below a folder with the registry of claims, or below cases/."""
    folders = path.parents[1:]
    return any((folder / CLAIMS_FILE).is_file() or folder == root / CASES for folder in folders)


class CaseFile(pytest.File):
    """A case. A broken one is an error of the collection, with file and line and no traceback."""

    def collect(self) -> Iterable["CaseItem"]:
        kernels = self.config.stash[KERNELS]
        expected = load_nearest_expected(self.path)
        load_nearest_known(self.path)  # a broken list is an error now, not after the first item
        plans = load_plans(Path(os.path.relpath(self.path, self.config.invocation_params.dir)))
        # Markers are strict: a family that is not below the root's own cases/ is registered here.
        self.config.addinivalue_line("markers", f"{self.path.parent.name}: cases of this folder")
        for plan in plans:
            lifecycles = self.config.stash[LIFECYCLES]
            for target, lifecycle in itertools.product(kernels.targets(plan.needs), lifecycles):
                where = target if isinstance(target, Target) else target.target
                item = make_item(plan, where, self.nodeid, lifecycle)
                made = CaseItem.from_parent(self, name=item.where.id, plan=plan, item=item, expected=expected)
                if isinstance(target, Unsuitable):
                    keep_row(made, make_unset_row(item, Ending.UNAVAILABLE, target.reason))
                    made.add_marker(pytest.mark.skip(reason=target.reason))
                yield made

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if isinstance(excinfo.value, CaseError):
            return str(excinfo.value)
        return super().repr_failure(excinfo)


class CaseItem(pytest.Item):
    """One variant of a case on one kernel."""

    def __init__(self, *, plan: Plan, item: Item, expected: tuple[ExpectedLine, ...], **rest: Any) -> None:
        super().__init__(**rest)
        self.plan = plan
        self.expected = expected
        self.item = item
        self.stash[PLACE] = place_of(item.where)
        for word in marker_words(item.where):
            self.add_marker(word)
        if plan.case.probes:
            self.add_marker(PROBE)
        if plan.watches:
            self.add_marker(WATCH)

    def reportinfo(self) -> tuple[Path, int, str]:
        # A line is needed: pytest's own report of a skipped item insists on one.
        return self.path, 0, self.name

    def setup(self) -> None:
        """Lease a guest that has the stack; whatever fails here is an ERROR, and says nothing of the kernel.

        What a kernel was built without makes the item unavailable, before anything boots: that says nothing of it either.
        """
        kernel, _, _ = self.stash[PLACE]
        try:
            lacking = self.config.stash[KERNELS].lacking(kernel, self.plan.needs, make_progress(self.config))
            if lacking is not None:
                keep_row(self, make_unset_row(self.item, Ending.UNAVAILABLE, lacking))
                pytest.skip(lacking)
            self._lease()
        except (HarnessError, OSError) as error:
            fail_with_our_fault(self, self.item, Ending.NOT_SET_UP, error)
        self.addfinalizer(lambda: self.stash[_LIFETIME].close())

    def _lease(self) -> None:
        """Have another guest. Raises HarnessError and OSError."""
        kernel, lifecycle, stack = self.stash[PLACE]
        lifetime = self.stash[_LIFETIME] = contextlib.ExitStack()
        self.stash[_LEASE] = lifetime.enter_context(self.config.stash[POOL].lease(stack, kernel, lifecycle))

    def runtest(self) -> None:
        folder, times = item_folder(artifacts_of(self.config), self.item), self.config.getoption("repeat")
        rows = [self._run(folder)]
        for number in range(2, times + 1):
            self.stash[_LIFETIME].close()
            try:
                self._lease()
            except (HarnessError, OSError) as error:
                fail_with_our_fault(self, self.item, Ending.NOT_SET_UP, error)
            rows.append(self._run(folder.with_name(f"{folder.name}.{number}")))
        row = rows[0] if times == 1 else one_of(rows)
        keep_row(self, row)
        if not row.passed:
            hold_guest(self.config, self.stash[_LEASE], row)
        fail_unless_passed(row)

    def _run(self, folder: Path) -> Row:
        """Run the program once, and judge it."""
        try:
            run_item(self.item, self.stash[_LEASE], folder, self.expected, chosen_auditing(self.config))
        except (HarnessError, OSError) as error:
            fail_with_our_fault(self, self.item, Ending.HARNESS_ERROR, error)
        _, row = judged(self, self.item, folder)
        return row


def fail_with_our_fault(node: pytest.Item, item: Item, ending: Ending, error: Exception) -> NoReturn:
    """Keep a row that says that the item could not be run, and fail: it says nothing of the kernel."""
    row = make_unset_row(item, ending, f"{type(error).__name__}: {error}", logs=logs_of(error))
    keep_row(node, row)
    pytest.fail(describe_row(row), pytrace=False)


def judged(node: pytest.Item, item: Item, folder: Path) -> tuple[Result, Row]:
    """Judge what is kept in ``folder``, by the known deviations nearest to the case; who asked keeps the row.

    A fault of the judge is the harness's, and its row is kept.
    """
    try:
        facts = node.config.getoption("facts")
        result = judge_folder(folder, load_nearest_known(node.path), Path(facts) if facts else None)
        row = make_row(result, folder)
    except Exception as error:
        keep_row(node, make_unset_row(item, Ending.HARNESS_ERROR, f"judging failed: {error!r}", str(folder)))
        raise
    if node.config.getoption("verbose") > 0:
        progress = make_progress(node.config)
        for line in step_lines(result):
            progress(line)
    return result, row


def hold_guest(config: pytest.Config, lease: Lease, row: Row) -> None:
    """With ``--keep-guest``: say how to get into the guest of an item that failed, and wait for Enter."""
    if not config.getoption("keep_guest") or not isinstance(lease.guest, BootedGuest):
        return
    progress = make_progress(config)
    progress(describe_row(row))
    if row.ended.ending in (Ending.CRASHED, Ending.LOST):
        progress("its guest is gone, there is nothing to get into")
        return
    for line in ways_in(lease.guest):
        progress(line)
    progress("the guest is kept: press Enter to end it and go on")
    with config.pluginmanager.get_plugin("capturemanager").global_and_fixture_disabled():  # type: ignore[union-attr]
        sys.stdin.readline()


def place_of(where: Where) -> tuple[str, Lifecycle, StorageStack]:
    """Return what an item is sorted by: items of equal places can share a guest."""
    return where.target.kernel, where.lifecycle, where.stack


def marker_words(where: Where) -> list[str]:
    """Return the markers of an item: family, storage, region, file system, kernel and lifecycle."""
    variant = where.variant
    words = [where.family, variant.storage, variant.region, variant.filesystem, where.target.kernel, where.lifecycle]
    return [str(word) for word in words if word]
