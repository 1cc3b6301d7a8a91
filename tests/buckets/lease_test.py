"""Leases: one owner at a time, with processes and clocks that fail."""

import concurrent.futures
import contextlib
import dataclasses
import functools
import json
import threading
import time

import pytest

from tests.support.bucket_servers import Place, Proxy
from trainer.buckets import lease
from trainer.buckets.objects import PROBE, ConflictError
from trainer.errors import TryAgainError, UserError
from trainer.run_dir import manifest


def take(place, seconds=60.0, ended=lambda claim: False):
    return lease.take(place.connect(), place.url, seconds, ended, lambda: 1)


def stop(held):
    """Ends the renewals as if the process was killed."""
    held._stopped.set()
    held._thread.join()


def test_a_released_lease_is_taken_at_once(place):
    first = take(place)
    first.release()
    second = take(place)
    second.release()
    assert (first.claim.generation, second.claim.generation) == (1, 2)
    assert first.claim.run == second.claim.run
    assert first.claim.owner != second.claim.owner


def test_a_renewed_lease_is_refused(place, logged):
    held = take(place, seconds=1.5)
    start = time.monotonic()
    with pytest.raises(TryAgainError, match=f"{place.url} is in use by process [0-9]+ on "):
        take(place, seconds=1.5)
    assert time.monotonic() - start < 1.5
    held.release()
    assert "waiting up to 1.5 s" in logged[0]


def test_a_lease_that_is_not_renewed_is_taken_after_its_duration(place):
    stop(take(place, seconds=1.0))
    start = time.monotonic()
    second = take(place, seconds=60.0)
    assert 1.0 <= time.monotonic() - start < 3.0
    assert second.claim.generation == 2
    second.release()


def test_the_lease_of_a_process_that_has_ended_is_taken_at_once(place):
    first = take(place)
    stop(first)
    start = time.monotonic()
    second = take(place, ended=lambda claim: claim.owner == first.claim.owner)
    assert time.monotonic() - start < 5
    second.release()


def races(place):
    """Lets two owners take a lease at once, twice; returns the numbers of winners and of losers."""
    numbers = []
    for _ in range(2):
        won, refused, barrier = [], [], threading.Barrier(2)

        def race(won=won, refused=refused, barrier=barrier):
            barrier.wait()
            try:
                won.append(take(place, seconds=1.5))
            except TryAgainError as error:
                refused.append(error)

        threads = [threading.Thread(target=race) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        numbers.append((len(won), len(refused)))
        for held in won:
            held.release()
    return numbers


def test_one_of_two_owners_wins_each_time(place):
    """Races in eight folders at once, because an owner is refused after the other's renewal."""
    folders = [Place(place.scheme, place.proxy, f"{place.folder}/{n}") for n in range(8)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert [*pool.map(races, folders)] == [[(1, 1), (1, 1)]] * 8


def test_an_owner_that_was_cut_off_learns_that_its_lease_was_taken(place):
    own = Proxy(place.scheme, place.proxy.address)
    cut_off = Place(place.scheme, own, place.folder)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cut_off.environment.items():
            patch.setenv(name, value)
        first = take(cut_off, seconds=1.0)
    own.rule = lambda request: "drop"
    second = take(place, seconds=60.0)
    own.rule = lambda request: None
    for _ in range(100):
        if first.lost():
            break
        time.sleep(0.1)
    assert first.lost().startswith(f"{second.claim.process} has taken it over")
    first.release()
    assert lease.read(place.connect())[0] == second.claim
    second.release()


@pytest.mark.parametrize("verdict", ["after", 503])
def test_an_answer_that_is_lost_does_not_lose_the_lease(place, verdict):
    place.proxy.rule = lambda r: verdict if r.writes and r.number % 3 else None
    held = take(place, seconds=0.6)
    time.sleep(1.5)
    assert not held.lost()
    assert held.claim.renewals > 0
    place.proxy.rule = lambda request: None
    held.release()
    assert lease.read(place.connect())[0].held is False


@pytest.mark.parametrize(
    "content", [b"", b"{}", b'{"owner": 1}', json.dumps({"generation": -1}).encode()]
)
def test_a_damaged_lease_is_refused_with_a_remedy(place, content):
    place.connect().create(lease.NAME, content)
    with pytest.raises(UserError, match=r"delete lease\.json in the bucket"):
        take(place)


def test_an_owner_learns_that_its_lease_was_deleted(place):
    held = take(place, seconds=0.3)
    place.connect().delete(lease.NAME)
    for _ in range(100):
        if held.lost():
            break
        time.sleep(0.05)
    assert held.lost() == "lease.json was deleted"
    held.release()


def test_an_owner_learns_that_its_lease_was_damaged(place):
    held = take(place, seconds=0.3)
    objects = place.connect()
    replaced = False
    while not replaced:  # The owner may renew it meanwhile.
        with contextlib.suppress(ConflictError):
            objects.replace(lease.NAME, b"garbage", objects.read(lease.NAME)[1])
            replaced = True
    for _ in range(100):
        if held.lost():
            break
        time.sleep(0.05)
    assert held.lost().startswith("lease.json in the run's bucket is damaged: it is not JSON")
    held.release()


def test_a_deleted_lease_begins_above_all_generations(place):
    objects = place.connect()
    objects.create("generation-000004/manifest-000001.json", b"")
    objects.create("generation-000011/x.000001", b"")
    unused = functools.partial(manifest.unused_generation, objects, place.url)
    held = lease.take(objects, place.url, 60.0, lambda claim: False, unused)
    held.release()
    assert held.claim.generation == 12


@pytest.mark.parametrize("name", ["sweep.json", "train/cat/1.jpg", "seed=0/generation-000001/x"])
def test_a_folder_of_something_else_is_refused(place, name):
    objects = place.connect()
    for each in (name, f"{PROBE}0123"):
        objects.create(each, b"")
    unused = functools.partial(manifest.unused_generation, objects, place.url)
    with pytest.raises(UserError, match="exists and is not a run directory"):
        lease.take(objects, place.url, 60.0, lambda claim: False, unused)
    objects.delete(name)
    assert unused() == 1
    assert not lease.read(objects)


def test_a_lease_is_released_although_the_answer_to_a_renewal_was_lost(place):
    held = take(place, seconds=600.0)
    place.proxy.rule = lambda request: "after" if request.writes else None
    held._write(dataclasses.replace(held.claim, renewals=1))
    place.proxy.rule = lambda request: None
    held.release()
    assert not lease.read(place.connect())[0].held
