"""Deletes old entries of the audit trail, in one transaction for each part of it."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import delete, select

from keyguard.core.keys.audit_deletion import AuditDeletion, AuditPart
from keyguard.stores.sql.commits import claim, tell
from keyguard.stores.sql.deletions import server_time
from keyguard.stores.sql.queries import read_rows
from keyguard.stores.sql.rows import instant_in
from keyguard.stores.sql.session import Session, begin
from keyguard.stores.sql.tables import AUDIT


async def count_old(session: Session, deletion: AuditDeletion) -> AuditPart:
    """Count what :func:`delete_old` would delete."""
    return (await _find(session, deletion))[0]


async def delete_old(session: Session, deletion: AuditDeletion) -> AuditPart:
    """Delete the old entries of a part of the trail, and add an entry that reports it."""
    await session.call(begin)
    await claim(session, 0)  # other deletions wait, and count nothing twice
    part, old, before = await _find(session, deletion)
    if not old:
        await session.rollback()
        return part
    await session.execute(delete(AUDIT).where(AUDIT.c.id.in_(old)))
    await tell(session, [deletion.entry(len(old), before)], await claim(session, 1))
    return part


async def _find(session: Session, deletion: AuditDeletion) -> tuple[AuditPart, list[int], datetime]:
    """Return the old entries of a part, their ids, and the time before which they are old."""
    before = deletion.before(await server_time(session))
    columns = [AUDIT.c.id, AUDIT.c.at]
    found = select(*columns).order_by(AUDIT.c.id).limit(deletion.limit)
    rows = await read_rows(session, found.where(AUDIT.c.id > int(deletion.after or 0)))
    entries = [(row[0], instant_in(row, 1)) for row in rows]
    old = [entry_id for entry_id in deletion.old(entries, before) if isinstance(entry_id, int)]
    last = deletion.go_on(entries, before)
    return AuditPart(len(old), None if last is None else str(last)), old, before
