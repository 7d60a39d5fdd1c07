"""What every store of counters does, in both flavours."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from keyguard.core.limits.charges import Charge
from keyguard.core.limits.limit import Strategy
from keyguard.stores.base import AsyncRateLimiter, CountsTogether, RateLimiter
from tests.limits.conftest import Store, charge
from tests.stores.conftest import Database

# On Sentinel and, in sync code, on a cluster the same again is left to `make chaos`.
pytestmark = pytest.mark.campaign(
    "memory", "sqlite", "postgresql", "mariadb", "redis-", "redis_cluster-async"
)


STRATEGIES = list(Strategy)


@pytest.fixture
def made(kind: str, emptied: Callable[[str], Database]) -> Callable[[], Database]:
    """Use the same database in all tests."""
    return lambda: emptied(kind)


def test_a_store_satisfies_the_protocol_of_its_flavour(
    store: Store, flavour: str, kind: str
) -> None:
    mine = RateLimiter if flavour == "sync" or kind == "memory" else AsyncRateLimiter
    assert isinstance(store.limiter, mine)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_as_many_are_admitted_as_the_limit_says(store: Store, strategy: Strategy) -> None:
    one = charge(amount=3, strategy=strategy)
    outcomes = [store.hit(one) for _ in range(5)]
    assert [outcome.admitted for outcome in outcomes] == [True, True, True, False, False]
    assert [outcome.tallies[0].remaining for outcome in outcomes] == [2, 1, 0, 0, 0]
    assert outcomes[-1].tallies[0].retry_after > 0


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_there_is_room_again_when_the_wait_is_over(store: Store, strategy: Strategy) -> None:
    one = charge(amount=3, strategy=strategy)
    for _ in range(3):
        store.hit(one)
    store.clock.advance(timedelta(seconds=7))
    refused = store.hit(one)
    store.clock.advance(timedelta(seconds=refused.tallies[0].retry_after))
    assert store.hit(one).admitted


def test_all_charges_are_counted_or_none(store: Store) -> None:
    wide, narrow = charge(1, amount=10), charge(2, amount=2)
    outcomes = [store.hit(wide, narrow) for _ in range(4)]
    assert [outcome.admitted for outcome in outcomes] == [True, True, False, False]
    assert [tally.fits for tally in outcomes[-1].tallies] == [True, False]
    assert store.remaining(wide) == 8


def test_a_charge_that_is_not_enforced_never_refuses_and_counts_where_it_fits(store: Store) -> None:
    shadow, wide = charge(1, amount=1, enforce=False), charge(2)
    outcomes = [store.hit(shadow, wide) for _ in range(3)]
    assert [outcome.admitted for outcome in outcomes] == [True, True, True]
    assert [outcome.tallies[0].fits for outcome in outcomes] == [True, False, False]
    assert store.remaining(wide) == 7


def test_one_that_is_not_enforced_is_not_counted_where_another_refuses(store: Store) -> None:
    shadow, narrow = charge(1, enforce=False), charge(2, amount=1)
    assert store.hit(shadow, narrow).admitted
    assert not store.hit(shadow, narrow).admitted
    assert store.remaining(shadow) == 9


def test_two_charges_of_one_bucket_are_counted_one_after_the_other(store: Store) -> None:
    one = charge(amount=4, cost=2)
    outcome = store.hit(one, one)
    assert outcome.admitted
    assert [tally.remaining for tally in outcome.tallies] == [2, 0]
    store.adjust([one], [-1])
    assert not store.hit(charge(amount=4), charge(amount=4)).admitted
    assert store.remaining(one) == 1


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_cost_is_counted_whole_or_not_at_all(store: Store, strategy: Strategy) -> None:
    def costing(cost: int) -> Any:
        return charge(strategy=strategy, cost=cost)

    assert store.hit(costing(7)).admitted
    assert not store.hit(costing(4)).admitted
    assert store.hit(costing(3)).admitted
    assert not store.hit(costing(11)).admitted


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_more_can_be_charged_than_there_is_room_and_given_back(
    store: Store, strategy: Strategy
) -> None:
    one = charge(strategy=strategy)
    store.hit(one)
    assert store.adjust([one], [14]).tallies[0].remaining == 0
    assert not store.hit(one).admitted
    assert store.adjust([one], [-6]).tallies[0].remaining == 1
    assert store.adjust([one], [-100]).tallies[0].remaining == 10
    assert store.hit(one).admitted


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_hits_that_travel_together_count_as_one_after_another(
    store: Store, strategy: Strategy
) -> None:
    if not isinstance(store.limiter, CountsTogether):
        pytest.skip("its hits never wait for one another")

    def hits(owner: str) -> list[tuple[Charge, ...]]:
        def one(number: int, **fields: Any) -> Charge:
            return charge(number, owner=owner, strategy=strategy, **fields)

        shared, narrow, shadow = one(1, amount=6), one(2, amount=2), one(3, amount=1, enforce=False)
        return [
            (shared,),
            (shared, narrow),
            (shared, shadow),
            (shared._replace(cost=2), narrow),
            (shared, narrow),
            (narrow, shadow),
            (shared, shadow),
            (shared,),
        ]

    apart = [store.hit(*charges) for charges in hits("org_1")]
    together = store.call(lambda: store.limiter.hit_all(hits("org_2")))
    assert together == apart
    assert [outcome.admitted for outcome in apart].count(True) == 5
    store.clock.advance(timedelta(seconds=61))
    apart = [store.hit(*charges) for charges in hits("org_1")]
    assert store.call(lambda: store.limiter.hit_all(hits("org_2"))) == apart


def test_looking_makes_nothing(store: Store) -> None:
    one, other = charge(1), charge(2)
    store.hit(other)
    outcome = store.adjust([one, other], [0, 0])
    assert outcome.admitted
    assert [tally.remaining for tally in outcome.tallies] == [10, 9]


def test_owners_and_windows_have_counts_of_their_own(store: Store) -> None:
    store.hit(charge(), charge(window=3600))
    store.hit(charge(owner="org_2"))
    store.hit(charge())
    assert store.remaining(charge()) == 8
    assert store.remaining(charge(owner="org_2")) == 9
    assert store.remaining(charge(window=3600)) == 9


def test_amounts_may_be_large(store: Store) -> None:
    one = charge(amount=10**12, cost=10**12 - 1)
    assert store.hit(one).tallies[0].remaining == 1
    assert not store.hit(one).admitted


def test_what_has_ended_is_swept(store: Store) -> None:
    for number in range(5):
        store.hit(charge(number, window=60, strategy=Strategy.FIXED_WINDOW))
    store.hit(charge(9, window=3600))
    store.clock.advance(timedelta(seconds=200))
    store.sweep()
    assert store.remaining(charge(1, window=60, strategy=Strategy.FIXED_WINDOW)) == 10
    assert store.remaining(charge(9, window=3600)) == 9
