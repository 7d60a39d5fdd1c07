"""A guard in the test database of Django, which Django then drops."""

from __future__ import annotations

import psycopg
import pytest

from keyguard import Allow, Keyguard
from keyguard.testing import ApiKey
from tests.services import PostgreSQL


def test_a_guard_that_was_closed_keeps_no_connection_to_its_database(
    postgresql: PostgreSQL,
) -> None:
    url, _ = postgresql.create_database()
    plain = url.replace("+psycopg", "")
    server, _, name = plain.partition("?")[0].rpartition("/")
    query = plain.partition("?")[2]
    guard = Keyguard(url)
    guard.migrate()
    guard.organizations.create("acme")
    issued = guard.keys.issue(organization="acme", name="test")
    fields = [ApiKey(key=issued.key, token=issued.token).headers["Authorization"]]
    assert isinstance(guard.authenticate(fields), Allow)  # which starts what follows changes

    other = f"{server}/postgres?{query}"
    with psycopg.connect(other, autocommit=True) as connection:
        drop = f'DROP DATABASE "{name}"'
        with pytest.raises(psycopg.errors.ObjectInUse):
            connection.execute(drop)
        guard.close()
        connection.execute(drop)
