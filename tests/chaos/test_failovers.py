"""A replica that takes over has every change that was acknowledged, however late it was."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from keyguard import AsyncKeyguard, Keyguard, NotDurableError
from tests.services import RedisPair, running

KEYS = 40
ACKNOWLEDGED_BEFORE_THE_CUT = 5


@pytest.mark.timeout(60)
@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_a_revocation_survives_the_failover_or_was_not_acknowledged(
    flavour: str, runner: asyncio.Runner
) -> None:
    with running(RedisPair) as servers:
        with Keyguard(servers.url) as guard:
            guard.migrate()
            guard.organizations.create("acme")
            keys = [guard.keys.issue(organization="acme", name="a").key.id for _ in range(KEYS)]
        acknowledged: list[str] = []
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
        servers.replica.call("REPLICAOF", "NO", "ONE")
        with Keyguard(servers.replica.url) as guard:
            lost = [key for key in acknowledged if guard.keys.get(key).revoked_at is None]
        assert lost == []
        assert len(acknowledged) >= ACKNOWLEDGED_BEFORE_THE_CUT
        assert len(acknowledged) == KEYS or len(refused) == 1
