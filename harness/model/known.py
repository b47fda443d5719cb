"""What is known beforehand: deviations that are kernel bugs (cases/deviations.yaml), and console lines that are no complaint.

A known deviation is reported as such, and its disappearance too. An expected line has a reason, a range of kernels and a day on which it
is looked at again.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from harness.model.fact import kernel_of
from harness.model.judge import Judgement
from harness.model.verdict import Verdict


class Known(StrEnum):
    """Whether what was seen is on the list: no, yes, or gone (listed for this kernel and not seen)."""

    NO = "no"
    YES = "yes"
    GONE = "gone"


@dataclass(frozen=True)
class KnownDeviation:
    """A deviation from ``clause`` in item ``item`` (``family/case``, any variant in whose id the pattern ``variant`` is found).

    ``since`` and ``before`` bound the kernels (major, minor), the second excluded; ``reference`` says where it is described.
    """

    clause: str
    item: str
    variant: str
    since: tuple[int, int]
    before: tuple[int, int] | None
    reference: str

    def covers(self, item: str, variant: str, release: str) -> bool:
        return _inside(release, self.since, self.before) and item == self.item and re.search(self.variant, variant) is not None


def _inside(release: str, since: tuple[int, int], before: tuple[int, int] | None) -> bool:
    kernel = kernel_of(release)
    version = (kernel.major, kernel.minor)
    return since <= version and (before is None or version < before)


@dataclass(frozen=True)
class ExpectedLine:
    """A line of the kernel's that ``pattern`` (a regular expression) finds and that is no complaint, for ``reason``.

    ``since`` and ``before`` bound the kernels (major, minor), the second excluded; from the day ``expires`` (YYYY-MM-DD) on it counts.
    ``stack``: what must be found in the description of the storage stack (a regular expression; empty: any).
    """

    pattern: str
    reason: str
    since: tuple[int, int]
    before: tuple[int, int] | None
    expires: str
    stack: str = ""

    def covers(self, line: str, release: str, today: str, stack: str = "") -> bool:
        here = _inside(release, self.since, self.before) and re.search(self.stack, stack) is not None
        return here and today < self.expires and re.search(self.pattern, line) is not None


def find_expected(line: str, release: str, today: str, expected: Iterable[ExpectedLine], stack: str = "") -> ExpectedLine | None:
    """Return the first entry that covers a console line on a kernel and a stack (in words) today, or None."""
    return next((entry for entry in expected if entry.covers(line, release, today, stack)), None)


_NEVER = "9999-12-31"

#: What booting and setting up provokes though nothing is wrong, by stack and kernel. What a case provokes is in its console.yaml.
EXPECTED_LINES: tuple[ExpectedLine, ...] = (
    ExpectedLine(
        r"nd_pmem \S+: unable to guarantee persistence of writes",
        "an e820 region, as which one of ramdax begins, has no DIMM behind it that could announce how it is flushed "
        "(drivers/nvdimm/region_devs.c nvdimm_has_flush)",
        since=(5, 0),
        before=None,
        expires=_NEVER,
        stack="e820|ramdax",
    ),
    ExpectedLine(
        r"nd_pmem \S+: unable to guarantee persistence of writes",
        "a virtio_pmem region has no DIMM behind it either, which is asked first (drivers/nvdimm/region_devs.c nvdimm_has_flush); that the "
        "host is asked to write is another matter (drivers/nvdimm/nd_virtio.c async_pmem_flush)",
        since=(5, 3),
        before=None,
        expires=_NEVER,
        stack="virtio_pmem",
    ),
    ExpectedLine(
        r"nfit \S+: Error found in NVDIMM nmem\d+ flags: not_armed",
        "an unarmed NVDIMM is what the stack asks for (drivers/acpi/nfit/core.c acpi_nfit_register_dimms)",
        since=(5, 0),
        before=None,
        expires=_NEVER,
        stack="nvdimm_unarmed",
    ),
    ExpectedLine(
        r"EXT4-fs \(pmem\w+\): unsupported blocksize for DAX",
        "on pmem every mount of ext4 with blocks smaller than a page says so, whether DAX was asked for or not (fs/ext4/super.c "
        "ext4_fill_super)",
        since=(5, 18),
        before=None,
        expires=_NEVER,
        stack="ext4 block_1k",
    ),
)


def find_known(
    judgement: Judgement, item: str, variant: str, release: str, known: tuple[KnownDeviation, ...]
) -> tuple[Known, KnownDeviation | None]:
    """Return whether all that deviates is known, and the entry; a listed one is gone where nothing deviates. A new one is never hidden."""
    deviating = {step.clause for step in judgement.steps if step.verdict is Verdict.DEVIATES}
    listed = {entry.clause: entry for entry in known if entry.covers(item, variant, release)}
    seen = [entry for clause, entry in listed.items() if clause in deviating]
    if not listed or (deviating and not deviating <= listed.keys()):
        return Known.NO, None
    return (Known.YES, seen[0]) if seen else (Known.GONE, next(iter(listed.values())))
