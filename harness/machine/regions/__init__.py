"""Region kinds as machines have them: a module for each, of the kind's name, whose ``MAKER`` says how a machine gets such regions.

Whoever needs regions goes over the kinds and names none.
"""

from collections.abc import Iterable, Iterator
from importlib import import_module

from harness.machine.regions.maker import RegionMaker
from harness.model.kinds import RegionKind
from harness.model.stack import Region

MAKERS: dict[RegionKind, RegionMaker] = {kind: import_module(f"{__name__}.{kind}").MAKER for kind in RegionKind}


def by_maker(regions: Iterable[Region]) -> Iterator[tuple[RegionMaker, tuple[Region, ...]]]:
    """Yield what makes regions, kind by kind, with those of ``regions`` that it makes."""
    regions = tuple(regions)
    for kind, maker in MAKERS.items():
        if its := tuple(region for region in regions if region.kind is kind):
            yield maker, its


def never_saved(regions: Iterable[Region]) -> str:
    """Return why a machine with these regions cannot be saved; empty where it can."""
    return "; ".join(maker.never_saved for maker, _ in by_maker(regions) if maker.never_saved)
