"""Leasing: who gets which guest, when a new one is booted, and what happens when none comes."""

import contextlib
from collections.abc import Iterator

import pytest

from harness.errors import GuestError, StackMismatchError
from harness.lease.pool import open_pool
from harness.model.stack import StorageStack
from harness.record.item import Lifecycle
from tests.fakes.leased import FakeGuest, FakeHost
from tests.fakes.samples import stack

KERNEL = "debian_6.12"


def test_items_of_one_stack_share_a_guest_with_fresh_storage_each() -> None:
    host = FakeHost()
    with open_pool(host.booters, reuse=True) as pool:
        for _ in range(3):
            with pool.lease(stack(), KERNEL):
                pass
        assert host.alive[0].refreshed == 3
    assert len(host.booted) == 1


def test_each_lease_gets_a_guest_of_its_own_unless_guests_are_reused() -> None:
    host = FakeHost()
    with open_pool(host.booters, reuse=False) as pool:
        for _ in range(3):
            with pool.lease(stack(), KERNEL):
                assert len(host.alive) == 1
            assert not host.alive
    assert len(host.booted) == 3


def test_a_guest_of_another_lifecycle_is_another_guest() -> None:
    booted, restored = FakeHost(), FakeHost()
    booters = {Lifecycle.BOOTED: booted.boot, Lifecycle.RESTORED: restored.boot}
    with open_pool(booters, reuse=True) as pool:
        for lifecycle in (Lifecycle.BOOTED, Lifecycle.RESTORED, Lifecycle.RESTORED):
            with pool.lease(stack(), KERNEL, lifecycle):
                pass
    assert (len(booted.booted), len(restored.booted)) == (1, 1)


def test_another_stack_or_kernel_gets_a_guest_of_its_own_and_one_lives_at_a_time() -> None:
    host = FakeHost()
    with open_pool(host.booters, reuse=True) as pool:
        for chosen, kernel in ((stack(), KERNEL), (stack("no_dax"), KERNEL), (stack("no_dax"), "debian_6.1")):
            with pool.lease(chosen, kernel):
                pass
    assert len(host.booted) == 3
    assert host.most == 1


def test_the_guest_ends_with_the_pool_even_on_an_interrupt() -> None:
    host = FakeHost()
    with pytest.raises(KeyboardInterrupt), open_pool(host.booters, reuse=True) as pool, pool.lease(stack(), KERNEL):
        raise KeyboardInterrupt
    assert not host.alive


def test_a_damaged_guest_is_not_leased_again() -> None:
    host = FakeHost()
    with open_pool(host.booters, reuse=True) as pool:
        with pool.lease(stack(), KERNEL) as lease:
            assert isinstance(lease.guest, FakeGuest)
            lease.guest.damage = "its kernel complained"
        assert not host.alive
        with pool.lease(stack(), KERNEL):
            pass
    assert len(host.booted) == 2


def test_a_lease_that_ends_in_an_error_ends_the_guest() -> None:
    host = FakeHost()
    with open_pool(host.booters, reuse=True) as pool:
        with pytest.raises(RuntimeError), pool.lease(stack(), KERNEL):
            raise RuntimeError("anything")
        assert not host.alive


def test_another_stack_than_was_asked_for_is_an_error_that_shows_both() -> None:
    host = FakeHost(lambda asked: FakeGuest(asked, change={"dax": False, "mount_options": ("dax=never",), "frame_in_region": False}))
    with open_pool(host.booters, reuse=True) as pool, pytest.raises(StackMismatchError) as caught, pool.lease(stack(), KERNEL):
        pass
    text = str(caught.value)
    assert "the guest does not have the storage stack that was asked for (e820 256MiB" in text
    assert "- main: mount option dax: asked for always, the guest has never" in text
    assert "- main: DAX state of a fresh file (statx): asked for True, the guest has False" in text
    assert not host.alive


def test_a_set_up_that_fails_hands_its_error_to_whoever_started_the_guest() -> None:
    seen: list[BaseException] = []

    @contextlib.contextmanager
    def boot(asked: StorageStack, kernel: str) -> Iterator[FakeGuest]:
        try:
            yield FakeGuest(asked, change={"dax": False})
        except StackMismatchError as error:
            seen.append(error)
            raise

    with open_pool(dict.fromkeys(Lifecycle, boot), reuse=False) as pool:
        with pytest.raises(StackMismatchError) as caught, pool.lease(stack(), KERNEL):
            pass
        assert seen == [caught.value]


def test_when_a_used_guest_cannot_be_made_fresh_a_new_one_is_booted() -> None:
    host = FakeHost()
    with open_pool(host.booters, reuse=True) as pool:
        with pool.lease(stack(), KERNEL) as lease:
            assert isinstance(lease.guest, FakeGuest)
            lease.guest.refresh_error = GuestError("target is busy")
        with pool.lease(stack(), KERNEL) as lease:
            assert lease.reading.volumes
    assert len(host.booted) == 2


def test_damage_done_by_the_set_up_is_an_error() -> None:
    host = FakeHost(lambda asked: FakeGuest(asked, damage="its kernel complained: WARNING"))
    unfit = pytest.raises(GuestError, match="left the guest unfit: its kernel complained: WARNING")
    with open_pool(host.booters, reuse=True) as pool, unfit, pool.lease(stack(), KERNEL):
        pass
