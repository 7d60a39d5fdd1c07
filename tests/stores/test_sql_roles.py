"""Servers behind one name whose roles change while connections to the former primary stay open."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from keyguard import Allow, Reason, StoreUnavailableError
from tests.links import Link
from tests.services import MariaDB, PostgresStandby, running
from tests.stores.conftest import Plain, opened
from tests.stores.records import NOON, key, organization, record
from tests.stores.test_redis_roles import STALENESS, Followed
from tests.stores.test_rights import GuardedMariaDB
from tests.stores.test_sql_distance import address, through

pytestmark = pytest.mark.usefixtures("no_garbage")


@pytest.mark.campaign("sync")
def test_a_standby_that_a_name_leads_to_is_believed_nothing(
    standby: PostgresStandby, flavour: str, runner: asyncio.Runner
) -> None:
    url, _ = standby.primary.create_database()
    link = Link(address(url))
    service = Followed(flavour, through(url, link), runner)
    issued = service.issue_and_remember()
    link.lead_to(f"{standby.sockets}/.s.PGSQL.5432")
    link.cut()
    link.mend()
    service.pass_seconds(STALENESS)
    assert service.decision_on(issued).reason is Reason.STORE_UNAVAILABLE
    with pytest.raises(StoreUnavailableError, match="is a replica, or otherwise read-only"):
        service.do(lambda guard: guard.keys.get(issued.key.id))
    link.lead_to(address(url))  # connections to the standby stay open
    assert isinstance(service.decision_on(issued), Allow)
    service.close()
    link.close()


@pytest.fixture
def primaries() -> Iterator[tuple[GuardedMariaDB, GuardedMariaDB]]:
    with running(GuardedMariaDB) as former, running(GuardedMariaDB) as present:
        yield former, present


def _filled(server: MariaDB, open_store: Callable[[str], Plain]) -> str:
    """Make a database with one key, and a user who may not write where it is read-only."""
    server.execute("CREATE DATABASE app")
    server.execute("CREATE USER service")
    server.execute("GRANT ALL ON app.* TO service")
    url = f"mysql://service@localhost/app?unix_socket={server.sockets / 'mariadb'}"
    store = open_store(url)
    store.migrate()
    store.add_organization(organization())
    store.add_key(record())
    store.close()
    return url


@pytest.mark.campaign("async")
def test_a_change_that_a_former_primary_refuses_is_made_by_the_new_one(
    primaries: tuple[GuardedMariaDB, GuardedMariaDB], flavour: str, runner: asyncio.Runner
) -> None:
    former, present = (
        _filled(server, partial(opened, "sync", runner=runner)) for server in primaries
    )
    link = Link(address(former))
    store = opened(flavour, through(former, link), runner)
    assert store.find_key(key().id) == record()
    store.mark_used([])
    primaries[0].execute("SET GLOBAL read_only = 1")
    link.lead_to(address(present))
    store.revoke_key(key().id, NOON)
    found = store.find_key(key().id)
    assert found is not None
    assert found.key.revoked_at == NOON
    store.close()
    link.close()
