"""Two Redis behind one name, whose roles are swapped while old connections stay open."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from keyguard import AsyncKeyguard, Keyguard, StoreUnavailableError
from tests.links import Link
from tests.services import RedisPair, RedisServer, running, until

PATIENT = {"store_timeout": 60.0, "management_timeout": 60.0, "limiter_timeout": 60.0}


def _offset(server: RedisServer, whose: str) -> bytes:
    info: bytes = server.call("INFO", "replication")
    return info.partition(f"{whose}_repl_offset:".encode())[2].split()[0]


class Name:
    """The name of the primary: a port that leads to it."""

    def __init__(self, servers: RedisPair) -> None:
        self._servers = servers
        self._link = Link(("127.0.0.1", servers.primary.port))
        self.url = f"redis://127.0.0.1:{self._link.port}/0"

    def swap(self) -> None:
        """Swap the roles. Connections that are open still lead to what is a replica now."""
        before, after = self._servers.primary, self._servers.replica
        until(lambda: _offset(before, "master") == _offset(after, "slave"))
        after.call("REPLICAOF", "NO", "ONE")
        before.call("REPLICAOF", "127.0.0.1", str(after.port))
        until(lambda: b"master_link_status:up" in before.call("INFO", "replication"))
        self._link.lead_to(("127.0.0.1", after.port))

    def close(self) -> None:
        self._link.close()


@pytest.fixture
def name() -> Iterator[Name]:
    with running(RedisPair) as servers:
        name = Name(servers)
        yield name
        name.close()


def test_changes_reach_the_new_primary_in_sync_code(name: Name) -> None:
    with Keyguard(name.url, **PATIENT) as guard:
        guard.migrate()
        guard.organizations.create("acme")
        old = guard.keys.issue(organization="acme", name="old").key
        name.swap()
        assert guard.keys.revoke(old.id).revoked_at is not None
        new = guard.keys.issue(organization="acme", name="new").key
    with Keyguard(name.url, **PATIENT) as guard:  # on new connections
        assert guard.keys.get(old.id).revoked_at is not None
        assert guard.keys.get(new.id).name == "new"


def test_changes_reach_the_new_primary_on_an_event_loop(name: Name) -> None:
    async def run() -> None:
        async with AsyncKeyguard(name.url, **PATIENT) as guard:
            await guard.migrate()
            await guard.organizations.create("acme")
            old = (await guard.keys.issue(organization="acme", name="old")).key
            name.swap()
            assert (await guard.keys.revoke(old.id)).revoked_at is not None
            await guard.keys.issue(organization="acme", name="new")
        async with AsyncKeyguard(name.url, **PATIENT) as guard:
            assert (await guard.keys.get(old.id)).revoked_at is not None

    asyncio.run(run())


def test_a_name_that_leads_to_a_replica_is_told_as_such() -> None:
    with running(RedisPair) as servers, Keyguard(servers.url, **PATIENT) as guard:
        guard.migrate()
        servers.replica.call("REPLICAOF", "NO", "ONE")
        servers.primary.call("REPLICAOF", "127.0.0.1", str(servers.replica.port))
        with pytest.raises(StoreUnavailableError, match="is a replica and can't be written to"):
            guard.organizations.create("acme")
