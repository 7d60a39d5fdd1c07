"""A replica that takes over has every change that was acknowledged, however late it was."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

import pytest

from keyguard import AsyncKeyguard, Keyguard, NotDurableError
from tests.services import RedisPair, RedisWatchedPair, running

KEYS = 40
ACKNOWLEDGED_BEFORE_THE_CUT = 5
# `make chaos` asks for more.
ROUNDS = max(1, int(os.environ.get("CHAOS_KILLS", "0")) // 50)


@pytest.mark.timeout(60)
@pytest.mark.campaign("pair-sync", "pair-async", "sentinel-async")
@pytest.mark.parametrize("attempt", range(ROUNDS))
@pytest.mark.parametrize("flavour", ["sync", "async"])
@pytest.mark.parametrize("kind", [RedisPair, RedisWatchedPair], ids=["pair", "sentinel"])
def test_a_revocation_survives_the_failover_or_was_not_acknowledged(
    kind: type[RedisPair], flavour: str, attempt: int, runner: asyncio.Runner
) -> None:
    del attempt  # each is another race of the cut with the revocations
    with running(kind) as servers:
        with Keyguard(servers.url) as guard:
            guard.migrate()
            guard.organizations.create("acme")
            keys = [guard.keys.issue(organization="acme", name="a").key.id for _ in range(KEYS)]
        acknowledged: list[str] = []
        slow: list[str] = []
        refused: list[str] = []
        some = threading.Event()
        settings: Any = {"durable_replicas": 1}

        async def revoke_all() -> None:
            guard = (Keyguard if flavour == "sync" else AsyncKeyguard)(servers.url, **settings)
            for key_id in keys:
                try:
                    revoking = guard.keys.revoke(key_id)
                    if isinstance(guard, AsyncKeyguard):
                        await revoking  # type: ignore[misc]  # of the other flavour it is a Key
                    acknowledged.append(key_id)
                except NotDurableError:
                    if not some.is_set():  # the link is whole: the replica was slow
                        slow.append(key_id)
                        continue
                    refused.append(key_id)
                    break
                finally:
                    if len(acknowledged) == ACKNOWLEDGED_BEFORE_THE_CUT:
                        some.set()
            if isinstance(guard, AsyncKeyguard):
                await guard.aclose()
            else:
                guard.close()

        def cut() -> None:
            some.wait()
            servers.link.cut()

        cutter = threading.Thread(target=cut)
        cutter.start()
        runner.run(revoke_all())
        some.set()
        cutter.join()

        servers.primary.kill()
        if isinstance(servers, RedisWatchedPair):
            servers.wait_for_failover()
        else:
            servers.replica.call("REPLICAOF", "NO", "ONE")
        with Keyguard(servers.replica.url) as guard:
            lost = [key for key in acknowledged if guard.keys.get(key).revoked_at is None]
        assert lost == []
        assert len(acknowledged) >= ACKNOWLEDGED_BEFORE_THE_CUT
        assert len(acknowledged) + len(slow) == KEYS or len(refused) == 1
