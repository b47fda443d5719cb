"""Who hands out guests: one machine alive at a time, a new one for each lease, or kept while the stack stays the same.

A guest is given up as soon as it shows damage. What could not be set up is noted in the ledger of the run, so that a broken stack costs
two boots and not one an item, and a kernel on which nothing comes up a few.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from harness.errors import GuestError, HarnessError, StackMismatchError
from harness.host.log import took
from harness.lease.guest import Guest
from harness.lease.ledger import SHARED_ERRORS, Ledger, Place, Refusal
from harness.model.stack import StackReading, StorageStack, find_mismatches
from harness.record.item import Lifecycle

log = logging.getLogger(__name__)

#: Waits until one more guest may run on this computer; leaving the ``with`` gives the place away.
Admission = Callable[[], contextlib.AbstractContextManager[None]]

#: Boots or restores a guest for a stack on a kernel (by name); leaving the ``with`` ends it.
Booter = Callable[[StorageStack, str], contextlib.AbstractContextManager[Guest]]


@dataclass(frozen=True)
class Lease:
    """A guest for one item, with its stack set up and read back."""

    guest: Guest
    reading: StackReading


@dataclass(frozen=True)
class _Serving:
    place: Place
    guest: Guest
    lifetime: contextlib.ExitStack


class Pool:
    """Made by :func:`open_pool`, which ends whatever guest is left."""

    def __init__(self, booters: Mapping[Lifecycle, Booter], reuse: bool, admit: Admission, ledger: Ledger | None) -> None:
        self._booters, self._reuse, self._admit, self._ledger = booters, reuse, admit, ledger
        self._serving: _Serving | None = None

    def find_refusal(self, stack: StorageStack, kernel: str, lifecycle: Lifecycle = Lifecycle.RESTORED) -> Refusal | None:
        """Return why nobody is to ask for this lease any more, or None. May first bring up the default stack, by itself, to find out."""
        place, ledger = Place(stack, kernel, lifecycle), self._ledger
        if ledger is None:
            return None
        refusal = ledger.find_refusal(place)
        if refusal is not None:
            return refusal
        with ledger.probing(place) as wanted:
            if wanted:
                self._probe(replace(place, stack=ledger.default), ledger)
        return ledger.find_refusal(place)

    def _probe(self, place: Place, ledger: Ledger) -> None:
        log.info("several stacks failed on %s: bringing up the default one by itself", place.column)
        try:
            with self.lease(place.stack, place.kernel, place.lifecycle):
                pass
        except SHARED_ERRORS as error:
            log.error("not even the default stack came up on %s: %s", place.column, error)
            ledger.note_hopeless(place, error)

    @contextlib.contextmanager
    def lease(self, stack: StorageStack, kernel: str, lifecycle: Lifecycle = Lifecycle.RESTORED) -> Iterator[Lease]:
        """Hand out a guest on ``kernel`` whose stack is ``stack``, fresh, and as the guest itself says.

        Raises StackMismatchError when the guest has another stack, else whatever kept one from being there.
        """
        with took(log, logging.INFO, f"got a guest of {kernel} ({lifecycle}) with {stack.describe()}"):
            guest, reading = self._ready_guest(Place(stack, kernel, lifecycle))
        try:
            yield Lease(guest, reading)
        except BaseException:
            self.end_guest()
            raise
        damage = guest.find_damage()
        if damage is not None:
            log.warning("the guest is given up: %s", damage)
        if not self._reuse or damage is not None:
            self.end_guest()

    def end_guest(self, error: BaseException | None = None) -> None:
        """End the guest that is alive, if any. ``error``: why it could not be set up; whoever started it keeps its logs then."""
        serving, self._serving = self._serving, None
        if serving is not None:
            serving.lifetime.__exit__(type(error) if error else None, error, error.__traceback__ if error else None)

    def _ready_guest(self, place: Place) -> tuple[Guest, StackReading]:
        serving = self._serving
        if serving is not None and serving.place == place:
            try:
                return serving.guest, _refreshed(serving.guest, place.stack)
            except HarnessError as error:
                # What earlier items left behind may be in the way: only a new guest tells.
                log.warning("the guest cannot be made fresh, and is given up for a new one: %s", error)
                self.end_guest()
        try:
            guest = self._started(place)
            reading = _refreshed(guest, place.stack)
        except BaseException as error:
            self.end_guest(error)
            if self._ledger is not None and isinstance(error, Exception):
                self._ledger.note_failure(place, error)
            raise
        if self._ledger is not None:
            self._ledger.note_success(place)
        return guest, reading

    def _started(self, place: Place) -> Guest:
        self.end_guest()
        with contextlib.ExitStack() as lifetime:
            lifetime.enter_context(self._admit())
            guest = lifetime.enter_context(self._booters[place.lifecycle](place.stack, place.kernel))
            self._serving = _Serving(place, guest, lifetime.pop_all())
        return guest


@contextlib.contextmanager
def open_pool(
    booters: Mapping[Lifecycle, Booter], *, reuse: bool, admit: Admission = contextlib.nullcontext, ledger: Ledger | None = None
) -> Iterator[Pool]:
    """Return a pool that starts guests with ``booters``; the guest that is left is ended, however this block is left.

    ``reuse``: a guest serves all items in a row that ask for the same, each with fresh storage; else each lease gets its own.
    ``ledger``: where failed set-ups are counted; without one everything is tried.
    """
    pool = Pool(booters, reuse, admit, ledger)
    try:
        yield pool
    finally:
        pool.end_guest()


def _refreshed(guest: Guest, stack: StorageStack) -> StackReading:
    reading = guest.refresh()
    require_stack(stack, reading)
    damage = guest.find_damage()
    if damage is not None:
        raise GuestError(f"setting up {stack.describe()} left the guest unfit: {damage}")
    return reading


def require_stack(stack: StorageStack, reading: StackReading) -> None:
    """Raise StackMismatchError, with every difference, where the guest does not have ``stack``."""
    differences = find_mismatches(stack, reading)
    if differences:
        listed = "\n".join(f"- {line}" for line in differences)
        raise StackMismatchError(f"the guest does not have the storage stack that was asked for ({stack.describe()}):\n{listed}")
