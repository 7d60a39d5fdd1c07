"""What the guard does as its server begins and ends, however its workers are started."""

from __future__ import annotations

import subprocess
from contextlib import ExitStack
from typing import Any

import pytest

from keyguard import Keyguard
from keyguard.stores.base import KeepsUsage
from tests.servers.cases import bearer, head
from tests.servers.notes import settings, store_url
from tests.servers.running import Running, chosen, end, running
from tests.servers.wire import Answer, connected

REQUESTS = 30


def ask_at_once(served: Running, requests: int) -> list[Answer]:
    """Send requests on as many connections; the last bytes of all are sent together."""
    request = head("used", bearer(served.keys.tokens["live"]))
    with ExitStack() as stack:
        wires = [stack.enter_context(connected(served.port)) for _ in range(requests)]
        for wire in wires:
            wire.send(request[:-2])
        for wire in wires:
            wire.send(request[-2:])
        return [wire.answer() for wire in wires]


@pytest.mark.parametrize("server", chosen(ways=True))
def test_a_server_answers_first_requests_at_once_and_tells_who_used_what_before_it_ends(
    server: Any,
) -> None:
    with running(server, used=True) as served:
        answers = ask_at_once(served, REQUESTS)
        end(served.process)

        assert [str(answer) for answer in answers] == ["200"] * REQUESTS
        if server.module == "uwsgidecorators":
            return  # it ends Python in the handler of a signal, and not at all where it is busy
        with Keyguard(store_url(served.keys.folder), settings=settings()) as guard:
            used = guard.keys.get(served.keys.ids["live"])
            assert (used.last_used_at is None) is (server.lacks == "lifespan")
            if isinstance(guard._store, KeepsUsage) and server.lacks != "lifespan":
                usage = guard._store.usage()
                report = guard.usage.report(organization=used.organization, key=used.id)
                assert [item.n for item in report.items] == [REQUESTS]
                assert list(usage.writers()) == []


@pytest.mark.campaign
@pytest.mark.parametrize("server", chosen(ways=True))
def test_a_stream_that_is_open_holds_up_the_end_no_longer_than_without_a_guard(server: Any) -> None:
    def ends(*, bare: bool) -> bool:
        with running(server, bare=bare) as served, connected(served.port) as wire:
            key = bearer(served.keys.tokens["live"])
            wire.send(head("ticking", key, target=b"/ticking"))
            assert wire.begin().read(14) == b"data: tick\n\nda"
            served.process.terminate()
            try:
                served.process.wait(15)
            except subprocess.TimeoutExpired:
                return False
            return True

    assert ends(bare=False) or not ends(bare=True)
