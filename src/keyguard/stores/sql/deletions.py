"""Deletes keys, within the transaction of a commit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, delete, func, select

from keyguard.core.keys.commit import Commit
from keyguard.stores.deletions import too_early
from keyguard.stores.sql.rows import instant
from keyguard.stores.sql.session import AnyRow, Session
from keyguard.stores.sql.tables import KEYS

# SQLite has the clock of this machine, by which the guard has decided.
_CLOCKS: Mapping[str, ColumnElement[datetime]] = {
    "postgresql": func.clock_timestamp(),
    "mysql": func.utc_timestamp(6),
    "mariadb": func.utc_timestamp(6),
}

_STOPS = (KEYS.c.revoked_at, KEYS.c.expires_at, KEYS.c.grace_ends_at)


async def server_time(session: Session) -> datetime | None:
    """Return the time by the server's clock; None if it has none of its own."""
    clock = _CLOCKS.get(session.dialect.name)
    if clock is None:
        return None
    return instant((await session.execute(select(clock))).scalar_one())


async def delete_keys(session: Session, commit: Commit) -> bool:
    """Delete the keys of a commit, whose rows it has locked; return whether they were as read.

    Raises:
        RefusedError: By the server's clock a key has not ended for long enough.
    """
    ids = [key.id for key in commit.deleted]
    found = await session.execute(select(KEYS.c.id, *_STOPS).where(KEYS.c.id.in_(ids)))
    rows: Sequence[AnyRow] = found.all()
    stops = {row[0]: min((instant(stop) for stop in row[1:] if stop), default=None) for row in rows}
    if any(stops.get(key.id) != key.stops_at for key in commit.deleted):
        return False
    now = await server_time(session)
    for key in commit.deleted:
        if now is not None and (key.stops_at is None or key.stops_at > now - commit.kept):
            raise too_early(key.id)
    await session.execute(delete(KEYS).where(KEYS.c.id.in_(ids)))
    return True
