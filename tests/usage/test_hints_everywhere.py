"""Every store gives the rules of hints what they ask for, in both flavours."""

from __future__ import annotations

from datetime import timedelta

import pytest

from keyguard.core.usage.periods import civil_day
from keyguard.core.usage.sightings import SEEN, Sighting
from keyguard.core.usage.values import ALLOWED, Cell, Flush
from tests.stored import Called, Stored

DAY, WEEK = timedelta(days=1), timedelta(weeks=1)


@pytest.mark.campaign(
    "memory-async", "sqlite-sync", "postgresql-async", "mariadb-sync", "redis-async"
)
def test_each_rule_that_reads_usage_speaks_on_every_store(anywhere: Stored) -> None:
    guard, clock = anywhere.guard, anywhere.clock
    usage = Called(guard.real.usage, anywhere.runner)
    kept = Called(guard.real._ports.usage, anywhere.runner)
    woken, busy, refused, ended = (
        anywhere.issue("inference:read", "analytics:read", name=name).key for name in "abcd"
    )
    guard.keys.revoke(ended.id)
    clock.advance(100 * DAY)
    now = clock.now.replace(minute=30)
    clock.now = now + timedelta(minutes=20)
    cells = [
        Cell(key.organization, start, key.id, key.family, outcome, "", n, n)
        for key, ago, outcome, n in (
            (woken, 55 * DAY, ALLOWED, 1),
            (woken, DAY, ALLOWED, 1),
            *((busy, weeks * WEEK, ALLOWED, 10) for weeks in range(6)),
            (busy, timedelta(0), "rate_limited", 90),
            (busy, DAY - timedelta(minutes=15), ALLOWED, 200),
            (refused, 10 * DAY, ALLOWED, 1),
            (refused, timedelta(0), ALLOWED, 9),
            (refused, timedelta(0), "scope_missing", 11),
            (ended, 2 * DAY, "key_revoked", 3),
        )
        for start in [now - ago]
    ]
    seen = Sighting.NETWORK.owner(busy.organization)
    cells += [
        Cell(seen, now - days * DAY, busy.id, busy.family, SEEN, network, 1, 0)
        for days, network in ((50, "192.0.2.0/24"), (1, "2001:db8:abcd::/48"))
    ]
    asked = Sighting.SCOPE.owner(busy.organization)
    cells += [
        Cell(asked, now - days * DAY, busy.id, busy.family, SEEN, "inference:read", 1, 0)
        for days in (95, 65, 35, 5)
    ]
    kept.add(Flush("writer", 1, now, tuple(cells)))
    kept.fold(seen, civil_day(now - 50 * DAY, now.tzinfo))
    kept.fold(woken.organization, civil_day(now - 55 * DAY, now.tzinfo))

    hints = usage.hints(organization="acme")

    of_usage = [hint for hint in hints if hint.kind != "unused"]
    assert [hint.id for hint in of_usage] == [
        f"ended_key_presented:{ended.id}",
        f"mostly_refused:{refused.id}",
        f"dormant_woke:{woken.id}",
        f"new_network:{busy.id}:2001:db8:abcd::/48",
        f"surge:{busy.id}:{now - DAY + timedelta(minutes=15):%Y%m%d}",
        f"scopes_unneeded:{busy.id}",
    ]
    assert of_usage[-2].evidence["requests"] == 200
    assert of_usage[-1].evidence["scopes"] == "analytics:read"
    for hint in hints:
        usage.dismiss(organization="acme", hint=hint.id)
    assert usage.hints(organization="acme").items == ()
