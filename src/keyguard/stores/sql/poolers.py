"""Poolers before PostgreSQL, such as PgBouncer: how keyguard recognizes one.

A pooler in transaction mode gives each transaction a server process of its choice. What belongs to
a session gets lost or meets another client: a prepared statement, or LISTEN.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

from keyguard.exceptions import ConfigurationError
from keyguard.stores.sql.session import Session

_PROCESS = text("SELECT pg_backend_pid()")


async def is_pooled(session: Session) -> bool:
    """Return whether a pooler stands between keyguard and PostgreSQL.

    At the beginning of a connection, a server names the process that serves it. A pooler sends a
    number of its own instead, by which a client may cancel a statement.
    """
    asked = (await session.execute(_PROCESS)).scalar_one()
    return bool(asked != await session.call(_announced_process))


async def refuse_pooler(session: Session) -> None:
    """Refuse a connection through a pooler.

    Raises:
        ConfigurationError: A pooler stands between.
    """
    if await is_pooled(session):
        raise ConfigurationError(
            "a pooler stands before PostgreSQL, which could answer a prepared statement as another "
            "client's; leave prepare_threshold out of the database URL"
        )


def _announced_process(connection: Connection) -> int | None:
    driver = connection.connection.driver_connection
    return None if driver is None else driver.info.backend_pid
