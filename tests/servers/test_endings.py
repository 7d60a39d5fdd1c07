"""What the guard still does as its server ends."""

from __future__ import annotations

from typing import Any

import pytest

from keyguard import Keyguard
from keyguard.stores.base import KeepsUsage
from tests.servers.cases import bearer, head
from tests.servers.notes import settings, store_url
from tests.servers.running import GEVENT, chosen, end, running
from tests.servers.wire import outcome

REQUESTS = 5


@pytest.mark.parametrize("server", [*chosen(), *GEVENT])
def test_a_server_tells_who_used_what_and_when_before_it_ends(server: Any) -> None:
    with running(server) as served:
        key = bearer(served.keys.tokens["live"])
        for _ in range(REQUESTS):
            assert outcome(served.port, head("used", key)) == "200"
        end(served.process)

        with Keyguard(store_url(served.keys.folder), settings=settings()) as guard:
            used = guard.keys.get(served.keys.ids["live"])
            assert (used.last_used_at is None) is (server.lacks == "lifespan")
            if isinstance(guard._store, KeepsUsage) and server.lacks != "lifespan":
                usage = guard._store.usage()
                report = guard.usage.report(organization=used.organization, key=used.id)
                assert [item.n for item in report.items] == [REQUESTS]
                assert list(usage.writers()) == []
