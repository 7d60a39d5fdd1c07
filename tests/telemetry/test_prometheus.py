"""What Prometheus gets of a guard, from prometheus_client's own exposition, over HTTP."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.registry import DuplicateTimeseries

from keyguard import InvalidValueError, Keyguard, StoreUnavailableError
from keyguard.stores.memory.keys import MemoryStore
from keyguard.telemetry._instruments import DURATION, INSTRUMENTS
from keyguard.telemetry._readings import Readings
from keyguard.telemetry.prometheus import instrument
from tests.telemetry.measured import Service, guard_of, names, parsed, sample, scraped, service


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture(params=["sync", "async"])
def serve(
    request: pytest.FixtureRequest, registry: CollectorRegistry, tmp_path: Path
) -> Iterator[Callable[[], Service]]:
    """Start a service with metrics, and one more with each call."""
    with ExitStack() as stack:

        def start() -> Service:
            folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
            folder.mkdir()
            guard = guard_of(request.param, folder)
            instrument(guard, registry=registry)
            return stack.enter_context(service(guard))

        yield start


@pytest.fixture
def served(serve: Callable[[], Service]) -> Service:
    return serve()


def decisions(registry: CollectorRegistry, **labels: str) -> float | None:
    return sample(scraped(registry), "keyguard_decisions_total", **labels)


@pytest.mark.campaign("async")
def test_decisions_are_counted_by_outcome_and_reason(
    served: Service, registry: CollectorRegistry
) -> None:
    token = served.issued.token.reveal()
    asked = [("/", token), ("/", token), ("/", ""), ("/", "x"), ("/", token[:-7])]
    asked += [("/limited", token)] * 3
    assert [served.ask(*question) for question in asked] == [200, 200, 401, 401, 401, 200, 200, 429]

    assert decisions(registry, keyguard_outcome="allowed") == 4
    denied = {"keyguard_outcome": "denied"}
    assert decisions(registry, **denied, error_type="credentials_missing") == 1
    assert decisions(registry, **denied, error_type="token_malformed") == 2
    assert decisions(registry, **denied, error_type="rate_limited") == 1


def test_look_ups_are_counted_by_where_the_answer_came_from(
    served: Service, registry: CollectorRegistry
) -> None:
    assert [served.ask() for _ in range(5)] == [200] * 5

    samples = scraped(registry)
    hits = sample(samples, "keyguard_lookups_total", keyguard_cache_result="hit") or 0
    misses = sample(samples, "keyguard_lookups_total", keyguard_cache_result="miss") or 0
    assert misses >= 1  # the first read of the change feed makes one more look-up of some
    assert hits + misses >= 5


@pytest.mark.campaign("sync")
def test_only_organizations_of_the_list_are_told_apart(
    served: Service, registry: CollectorRegistry
) -> None:
    served.run(served.guard.organizations.create, "other")
    other = served.run(served.guard.keys.issue, organization="other", name="test")
    instrument(served.guard, registry=registry, organizations=[served.owner])
    for token in (None, None, other.token.reveal()):
        assert served.ask(token=token) == 200
    assert served.ask("/limited") == 200

    def allowed(**labels: str) -> float | None:
        return decisions(registry, keyguard_outcome="allowed", **labels)

    assert allowed(keyguard_organization_id=served.owner) == 3
    by_organization = {
        dict(labels).get("keyguard_organization_id"): value
        for (name, labels), value in scraped(registry).items()
        if name == "keyguard_decisions_total"
    }
    assert by_organization == {served.owner: 3, None: 1}


@pytest.mark.parametrize(
    "organizations",
    ["org_0123456789abcdef", ["acme"], ['x"} 1'], [f"org_{n:024d}" for n in range(51)]],
)
def test_organizations_are_a_short_list_of_ids(
    organizations: list[str], registry: CollectorRegistry
) -> None:
    with Keyguard("memory://") as guard, pytest.raises(InvalidValueError, match="organizations"):
        instrument(guard, registry=registry, organizations=organizations)

    assert scraped(registry) == {}


def test_a_counter_does_not_fall_while_a_guard_corrects_itself() -> None:
    readings = Readings()
    with Keyguard("memory://") as guard:
        readings.join(guard, ())
        allowed = next(row for row in INSTRUMENTS if row.name == "keyguard.decisions")
        counts = guard.counts._outcomes

        def shown() -> float | None:
            return readings.take().get((allowed, ("denied", "scope_missing", "")))

        seen = []
        for counted in (5, 3, 5, 7):
            counts["scope_missing"] = counted
            seen.append(shown())

    assert seen == [5, 5, 5, 7]


def test_how_long_calls_of_the_store_take_is_measured(
    served: Service, registry: CollectorRegistry
) -> None:
    assert [served.ask(), served.ask()] == [200, 200]

    samples = scraped(registry)
    family = DURATION.family
    found = {"db_operation_name": "find_key", "db_system_name": "sqlite"}
    assert (sample(samples, f"{family}_count", **found) or 0) >= 1
    changed = {"db_operation_name": "commit", "db_system_name": "sqlite"}
    assert sample(samples, f"{family}_count", **changed) == 2
    assert sample(samples, f"{family}_bucket", **changed, le="+Inf") == 2


def test_a_call_of_the_store_that_fails_has_the_type_of_its_error(
    served: Service, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_key(key_id: str) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(served.guard._store, "find_key", find_key)
    assert served.ask() == 503

    labels = {"db_operation_name": "find_key", "error_type": "OSError"}
    assert sample(scraped(registry), f"{DURATION.family}_count", **labels) == 1


def test_the_calls_of_counters_across_a_network_are_measured(
    served: Service, registry: CollectorRegistry
) -> None:
    assert served.ask("/limited") == 200

    labels = {"db_operation_name": "hit", "db_system_name": "sqlite"}
    samples = scraped(registry)
    assert sample(samples, f"{DURATION.family}_count", **labels) == 1
    assert sample(samples, "keyguard_limiter_up") == 1


def test_a_store_of_counters_and_a_change_feed_that_do_not_answer_are_down(
    served: Service, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    failure = StoreUnavailableError("cut")

    def hit_all(hits: object) -> None:
        raise failure

    assert served.ask("/limited") == 200
    monkeypatch.setattr(served.guard._ports.counters._limiter, "hit_all", hit_all)
    assert served.ask("/limited") == 200

    def fail(*_: object) -> None:
        raise failure

    background = served.guard._ports.background
    monkeypatch.setattr(background, "_read", fail)
    monkeypatch.setattr(background, "_note_success", lambda: None)
    background._note_failure(failure)

    samples = scraped(registry)
    assert sample(samples, "keyguard_limiter_up") == 0
    labels = {"db_operation_name": "hit", "error_type": "StoreUnavailableError"}
    assert sample(samples, f"{DURATION.family}_count", **labels) == 1
    assert sample(samples, "keyguard_feed_up") == 0


def test_limits_are_counted_by_name_and_those_of_keys_together(
    served: Service, registry: CollectorRegistry
) -> None:
    limited = served.run(
        served.guard.keys.issue, organization="acme", name="limited", limits=["9/hour"]
    )
    token = limited.token.reveal()
    assert [served.ask("/limited", token) for _ in range(3)] == [200, 200, 429]

    samples = scraped(registry)

    def count(limit: str, outcome: str) -> float | None:
        labels = {"keyguard_limit_name": limit, "keyguard_outcome": outcome}
        return sample(samples, "keyguard_limiter_decisions_total", **labels)

    assert (count("twice", "allowed"), count("twice", "denied")) == (2, 1)
    assert (count("other", "allowed"), count("other", "denied")) == (3, 0)
    assert count("key-hour", "allowed") is None


@pytest.mark.campaign("sync")
def test_a_guard_that_is_closed_leaves_the_registry(
    serve: Callable[[], Service], registry: CollectorRegistry
) -> None:
    first, second = serve(), serve()

    def count() -> float | None:
        labels = {"keyguard_limit_name": "twice", "keyguard_outcome": "allowed"}
        return sample(scraped(registry), "keyguard_limiter_decisions_total", **labels)

    assert [first.ask("/limited"), second.ask("/limited")] == [200, 200]
    assert count() == 2

    first.close()
    assert count() == 2, "a counter never falls"
    assert second.ask("/limited") == 200
    assert count() == 3

    second.close()
    assert scraped(registry) == {}
    Counter("keyguard_limiter_decisions", "The name is free again.", registry=registry)


def test_a_guard_that_is_freed_leaves_the_registry(registry: CollectorRegistry) -> None:
    guard = Keyguard("memory://")
    instrument(guard, registry=registry)
    assert sample(scraped(registry), "keyguard_cache_entries") == 0

    del guard
    gc.collect()
    assert scraped(registry) == {}


def test_a_guard_that_is_used_again_after_its_end_can_be_instrumented_again(
    registry: CollectorRegistry,
) -> None:
    guard = Keyguard("memory://")
    for _ in range(2):
        instrument(guard, registry=registry)
        instrument(guard, registry=registry)  # which changes nothing
        assert len(guard.observers.of_keys) == 1
        assert sample(scraped(registry), "keyguard_cache_entries") == 0
        guard.close()
        assert scraped(registry) == {}


def test_a_registry_with_other_metrics_of_these_names_is_refused() -> None:
    registry = CollectorRegistry()
    Counter("keyguard_limiter_decisions", "Somebody else's.", registry=registry)

    with Keyguard("memory://") as guard, pytest.raises(DuplicateTimeseries):
        instrument(guard, registry=registry)


def test_registries_know_nothing_of_each_others_guards() -> None:
    registries = [CollectorRegistry(), CollectorRegistry()]
    with Keyguard("memory://") as first, Keyguard("memory://") as second:
        for guard, registry in zip((first, second), registries, strict=True):
            instrument(guard, registry=registry)
        second.organizations.create("acme")
        operations = [
            sample(scraped(registry), f"{DURATION.family}_count", db_operation_name="commit")
            for registry in registries
        ]

    assert operations == [None, 1]


def test_hostile_names_cannot_break_the_exposition() -> None:
    hostile = 'a"} 1\n# EOF\nkeyguard_up{b="\\'
    registry = CollectorRegistry()
    store = MemoryStore()
    store.system_name = hostile  # type: ignore[attr-defined]
    with Keyguard(store) as guard:
        instrument(guard, registry=registry)
        guard.organizations.create("acme", name=hostile.replace("\n", " "))
        guard._ports.counters.counts[hostile] = [0, 1]
        samples = parsed(generate_latest(registry).decode())

    assert sample(samples, f"{DURATION.family}_count", db_system_name=hostile) == 1
    assert (
        sample(
            samples,
            "keyguard_limiter_decisions_total",
            keyguard_limit_name=hostile,
            keyguard_outcome="allowed",
        )
        == 1
    )
    assert names(samples) <= known_names()


def known_names() -> set[str]:
    """Return all names of samples that the table allows."""
    found = {f"{DURATION.family}{end}" for end in ("_bucket", "_count", "_sum", "_created")}
    for row in INSTRUMENTS:
        found |= {row.family, f"{row.family}_total"}
    return found


def test_no_attribute_names_a_key() -> None:
    for row in (*INSTRUMENTS, DURATION):
        assert not [name for name in row.attributes if "key." in name.removeprefix("keyguard.")]
