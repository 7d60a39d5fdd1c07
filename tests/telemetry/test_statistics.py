"""What a guard tells of itself, without any package for metrics."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any, ClassVar

import pytest

from keyguard import Keyguard, Limit
from keyguard.core.limits.charges import Charge
from keyguard.core.limits.counts import LimitCounts
from keyguard.core.limits.limit import Strategy
from tests.stored import Stored
from tests.telemetry.measured import guard_of, service


def test_a_guard_of_either_flavour_tells_what_became_of_its_requests(stored: Stored) -> None:
    issued = stored.guard.keys.issue(organization="acme", name="test")
    fields = [f"Bearer {issued.token.reveal()}"]
    for _ in range(3):
        stored.guard.authenticate(fields)
    stored.guard.authenticate(["Bearer x"])
    stored.guard.authenticate(fields, scopes=["inference:read"])

    statistics = stored.guard.real.statistics()
    assert statistics.decisions["token_malformed"] == 1
    assert statistics.decisions["scope_missing"] == 1
    assert statistics.decisions["allowed"] in (3, 4)  # it does not fall with the refusal
    assert statistics.organizations == {}
    assert statistics.lookups == {"hit": 3, "miss": 1, "shared": 0}
    assert statistics.cache_entries == 1
    assert (statistics.feed_lag, statistics.feed_is_up) == (None, None)  # the memory has no feed
    assert statistics.usage_lost == 0


def test_statistics_open_nothing() -> None:
    with Keyguard("memory://") as guard:
        guard.statistics()
        assert {"background", "counters", "pool"}.isdisjoint(vars(guard._ports))


def test_a_forked_child_counts_from_0() -> None:
    context = multiprocessing.get_context("fork")
    answers: Any = context.SimpleQueue()
    with Keyguard("memory://", default_limits=[Limit("all", "9/minute")]) as guard:
        guard.authenticate(["Bearer x"])
        counts = guard._ports.counters.counts
        counts["all"][1] += 1

        def tell() -> None:
            statistics = guard.statistics()
            answers.put((dict(statistics.decisions), dict(statistics.limits)))

        child = context.Process(target=tell)
        child.start()
        child.join()
        assert guard.statistics().decisions == {"token_malformed": 1, "allowed": 0}

    decisions, limits = answers.get()
    assert set(decisions.values()) <= {0}
    assert set(limits) >= {("all", "allowed"), ("all", "denied")}
    assert set(limits.values()) == {0}


def test_at_most_100_limits_are_told_apart() -> None:
    counts = LimitCounts(["known"])
    strategy = Strategy.FIXED_WINDOW
    charges = [Charge("key", f"limit-{n}", 1, 60, strategy, True, 1) for n in range(200)]
    counts.learn(charges)
    for charge in charges:
        counts[charge.name][1] += 1

    assert len(counts) == 100
    assert counts.totals()["other", "allowed"] == 102
    assert counts.totals()["limit-0", "allowed"] == 1


class Observation:
    """Notes the calls that it is entered around."""

    seen: ClassVar[list[tuple[str, ...]]] = []

    def __init__(self, *call: str) -> None:
        self.seen.append(call)

    def __enter__(self) -> None: ...

    def __exit__(self, *failure: object) -> None: ...


@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_calls_of_stores_are_observed_until_the_guard_is_closed(
    flavour: str, tmp_path: Path
) -> None:
    Observation.seen.clear()
    with service(guard_of(flavour, tmp_path)) as served:
        served.guard.observers.of_keys += (Observation,)
        served.run(served.guard.organizations.get, "acme")
        assert Observation.seen == [("find_organization", "sqlite")]

        served.close()
        seen = list(Observation.seen)
        served.run(served.guard.organizations.get, "acme")
        assert Observation.seen == seen
