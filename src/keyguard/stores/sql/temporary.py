"""Values that expire, in an SQL database."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ColumnElement, and_, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from keyguard.core.keys.temporary import Temporary
from keyguard.stores.sql.commits import claim
from keyguard.stores.sql.rows import temporary_columns
from keyguard.stores.sql.session import AnyRow, Session, begin
from keyguard.stores.sql.tables import TEMPORARY

_SLICE = 100


async def put(session: Session, record: Temporary, now: datetime) -> bool:
    """Keep a value, unless there is one of its kind and digest, and delete some expired ones.

    It waits for commits and for others that put values, so that no two wait in a circle.
    """
    await session.call(begin)
    await claim(session, 0)
    has_expired = TEMPORARY.c.expires_at <= now
    found = await session.execute(select(TEMPORARY.c.digest).where(has_expired).limit(_SLICE))
    expired = TEMPORARY.c.digest.in_([record.digest, *found.scalars()])
    await session.execute(delete(TEMPORARY).where(expired, has_expired))
    try:
        await session.execute(insert(TEMPORARY), temporary_columns(record))
    except IntegrityError:
        await session.rollback()
        return False
    return True


async def replace(session: Session, record: Temporary, now: datetime) -> bool:
    """Replace the value of the same kind and digest, if one is kept."""
    await session.call(begin)
    kept = (_named(record.kind, record.digest), TEMPORARY.c.expires_at > now)
    new = update(TEMPORARY).where(*kept).values(temporary_columns(record))
    return bool((await session.execute(new)).rowcount)


async def find(session: Session, kind: str, digest: str) -> AnyRow | None:
    """Find a value, even an expired one."""
    found = await session.execute(select(TEMPORARY).where(_named(kind, digest)))
    return found.one_or_none()


async def take(session: Session, kind: str, digest: str) -> AnyRow | None:
    """Find a value, even an expired one, and delete it. Concurrent calls wait for the lock."""
    await session.call(begin)
    named = _named(kind, digest)
    row = (await session.execute(select(TEMPORARY).where(named).with_for_update())).one_or_none()
    if row is not None:
        await session.execute(delete(TEMPORARY).where(named))
    return row


def _named(kind: str, digest: str) -> ColumnElement[bool]:
    return and_(TEMPORARY.c.digest == digest, TEMPORARY.c.kind == kind)
