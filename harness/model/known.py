"""Known deviations: kernel bugs that we know, as data. Each is reported as known, and its disappearance too."""

from dataclasses import dataclass
from enum import StrEnum

from harness.model.facts import kernel_of
from harness.model.judge import Judgement
from harness.model.verdict import Verdict


class Known(StrEnum):
    """Whether what was seen is on the list: no, yes, or gone (listed for this kernel and not seen)."""

    NO = "no"
    YES = "yes"
    GONE = "gone"


@dataclass(frozen=True)
class KnownDeviation:
    """A deviation from ``clause`` in item ``item`` (``family/case``, any variant whose id contains ``variant``).

    ``since`` and ``before`` bound the kernels (major, minor), the second excluded; ``reference`` says where it is described.
    """

    clause: str
    item: str
    variant: str
    since: tuple[int, int]
    before: tuple[int, int] | None
    reference: str

    def covers(self, item: str, variant: str, release: str) -> bool:
        kernel = kernel_of(release)
        version = (kernel.major, kernel.minor)
        inside = self.since <= version and (self.before is None or version < self.before)
        return inside and item == self.item and self.variant in variant


KNOWN_DEVIATIONS: tuple[KnownDeviation, ...] = ()


def find_known(
    judgement: Judgement, item: str, variant: str, release: str, known: tuple[KnownDeviation, ...] = KNOWN_DEVIATIONS
) -> tuple[Known, KnownDeviation | None]:
    """Return whether the judgement's deviation is a known one, and which; a listed one that did not show is gone."""
    deviating = {step.clause for step in judgement.steps if step.verdict is Verdict.DEVIATES}
    for entry in known:
        if entry.covers(item, variant, release):
            if entry.clause in deviating:
                return Known.YES, entry
            return Known.GONE, entry
    return Known.NO, None
