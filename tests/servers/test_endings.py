"""What the guard still does as its server ends."""

from __future__ import annotations

from typing import Any

import pytest

from keyguard import Keyguard
from tests.servers.cases import bearer, head
from tests.servers.notes import settings, store_url
from tests.servers.running import chosen, end, running
from tests.servers.wire import outcome


@pytest.mark.parametrize("server", chosen())
def test_a_server_tells_when_keys_were_last_used_before_it_ends(server: Any) -> None:
    with running(server) as served:
        key = bearer(served.keys.tokens["live"])
        assert outcome(served.port, head("used", key)) == "200"
        end(served.process)

        with Keyguard(store_url(served.keys.folder), settings=settings()) as guard:
            used = guard.keys.get(served.keys.ids["live"]).last_used_at
            assert (used is None) is (server.lacks == "lifespan")
