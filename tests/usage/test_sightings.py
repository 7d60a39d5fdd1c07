"""What keys were seen with is noted now and then, within bounds, and forgotten."""

from __future__ import annotations

from datetime import timedelta
from ipaddress import ip_address
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest

from keyguard import Allow, Rule, require_scopes
from keyguard.adapters import wsgi
from keyguard.core.usage.sightings import Sighting, network_of
from keyguard.core.usage.values import Cell, Flush, GroupBy, Period, Question
from keyguard.runtime.sync import run_sync
from tests.usage.test_counts import ACME, Counted, principal
from tests.usage.test_flushes import Kept
from tests.world import World

DAY = timedelta(days=1)
OWNER = "net_0000000000000001"


def seen(counted: Counted) -> list[Cell]:
    return [cell for flush in counted.tell() for cell in flush.cells if cell.outcome == "seen"]


def test_a_sighting_is_noted_once_in_30_days_by_each_process() -> None:
    counted = Counted()
    noted = []
    for _ in range(60):
        for _ in range(3):
            counted.counts.see(principal(), Sighting.NETWORK, "192.0.2.0/24")
        noted += seen(counted)
        counted.clock.advance(DAY)

    assert len(noted) in (2, 3)
    assert {cell.organization for cell in noted} == {Sighting.NETWORK.owner(ACME)} == {OWNER}
    assert {(cell.key_id, cell.tag, cell.n) for cell in noted} == {
        ("1".zfill(16), "192.0.2.0/24", 1)
    }


def test_a_process_notes_a_bounded_number_of_sightings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keyguard.freshness.usage_counts.MOST_SEEN", 5)
    counted = Counted()
    for number in range(9):
        counted.counts.see(principal(), Sighting.NETWORK, f"10.0.{number}.0/24")

    assert len(seen(counted)) == 5


def test_where_no_store_takes_cells_nothing_is_noted() -> None:
    counted = Counted(keeps=False)
    counted.counts.see(principal(), Sighting.NETWORK, "192.0.2.0/24")

    assert counted.counts.pending() == 0
    assert seen(counted) == []


def test_metrics_count_no_sighting() -> None:
    counted = Counted()
    counted.counts.see(principal(), Sighting.NETWORK, "192.0.2.0/24")

    assert counted.counts.outcomes() == {"allowed": 0}


def test_sightings_are_forgotten_after_150_days() -> None:
    kept = Kept()
    start = kept.world.clock.now.replace(second=0)
    owner = Sighting.NETWORK.owner(kept.world.acme.id)
    cell = Cell(owner, start, "0" * 16, "fam_1", "seen", "192.0.2.0/24", 1, 0)
    run_sync(kept.usage.add(Flush("one", 1, start, (cell,))))
    kept.world.clock.advance(149 * DAY)
    kept.tidy()
    assert kept.usage._days[owner]
    kept.world.clock.advance(2 * DAY)

    kept.tidy()

    assert not kept.usage._days[owner]


@pytest.mark.parametrize(
    ("address", "network"),
    [("192.0.2.77", "192.0.2.0/24"), ("2001:db8:abcd:12::1", "2001:db8:abcd::/48")],
)
def test_the_network_of_a_client_is_a_24_or_a_48(address: str, network: str) -> None:
    assert network_of(ip_address(address)) == network


# Scopes that requests needed


def noted_scopes(world: World) -> set[str]:
    world.guard.flush()
    owner = Sighting.SCOPE.owner(world.acme.id)
    now = world.clock.now
    question = Question(owner, (Period(now - DAY, now + DAY),), GroupBy.TAG)
    return {total.group for total in world.store.usage().totals(question)}


@pytest.mark.parametrize(
    ("path", "noted"),
    [
        ("/decorated", {"inference:read"}),
        ("/covered", {"analytics:read"}),
        ("/ruled", {"admin"}),
        ("/either", {"inference:read", "inference:write"}),
        ("/refused", set()),
        ("/bare", set()),
    ],
)
def test_what_rules_and_decorators_ask_for_is_noted(path: str, noted: set[str]) -> None:
    world = World({"rules": [Rule("/ruled", scopes=["admin"])]})
    token = world.token("inference:read", "analytics:*", "admin")
    views = {
        "/decorated": require_scopes("inference:read")(wsgi_app),
        "/covered": require_scopes("analytics:read")(wsgi_app),
        "/either": require_scopes(any_of=["inference:read", "inference:write"])(wsgi_app),
        "/refused": require_scopes("inference:write")(wsgi_app),
    }

    def site(environ: Any, start_response: Any) -> Any:
        return views.get(environ["PATH_INFO"], wsgi_app)(environ, start_response)

    guarded = wsgi.KeyguardMiddleware(site, world.guard)
    for _ in range(3):
        environ: dict[str, Any] = {"PATH_INFO": path, "HTTP_AUTHORIZATION": f"Bearer {token}"}
        setup_testing_defaults(environ)
        b"".join(guarded(environ, lambda *_: lambda _: None))

    assert noted_scopes(world) == noted


def wsgi_app(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [])
    return [b""]


def test_what_a_key_needed_is_noted_though_its_token_was_forgotten_since() -> None:
    world = World()
    issued = world.issue("inference:read")
    field = [f"Bearer {issued.token.reveal()}"]
    assert isinstance(world.guard.authenticate(field, scopes=["inference:read"]), Allow)
    world.guard.keys.update(issued.key.id, name="renamed")

    assert noted_scopes(world) == {"inference:read"}


def test_a_scope_that_is_longer_than_a_tag_is_noted_by_its_beginning() -> None:
    scope = "inference:" + "x" * 90
    world = World({"catalogue": None})
    field = [f"Bearer {world.token(scope)}"]
    assert isinstance(world.guard.authenticate(field, scopes=[scope]), Allow)

    assert noted_scopes(world) == {scope[:64]}
