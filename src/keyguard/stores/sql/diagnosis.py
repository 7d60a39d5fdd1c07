"""What the acknowledgement of an SQL database is worth, by its settings.

A crash loses nothing that was acknowledged where each commit waits for the disk. A failover loses
nothing where it waits for another server too.
"""

from __future__ import annotations

from sqlalchemy import text

from keyguard.stores.diagnosis import Finding, fine, problem
from keyguard.stores.sql.poolers import is_pooled
from keyguard.stores.sql.session import Session

_SQLITE = text("PRAGMA synchronous")
_POSTGRESQL = text(
    "SELECT current_setting('synchronous_commit') AS commit,"
    " current_setting('synchronous_standby_names') AS standbys"
)
_MYSQL = text("SELECT @@innodb_flush_log_at_trx_commit")
_FULL = 2
_POOLED = (
    "a pooler stands before PostgreSQL, so that no process can listen for changes: each asks once a"
    " second instead, or four times in 'max_staleness' if that is shorter than 4 seconds, and knows"
    " of a revocation by then"
)


async def diagnose(session: Session) -> list[Finding]:
    """Say what the acknowledgement of a change is worth, and what makes it worth little."""
    if session.dialect.name == "sqlite":
        return _of_sqlite((await session.execute(_SQLITE)).scalar_one())
    if session.dialect.name == "postgresql":
        found = (await session.execute(_POSTGRESQL)).mappings().one()
        findings = _of_postgresql(found["commit"], found["standbys"])
        return [*findings, fine(_POOLED)] if await is_pooled(session) else findings
    return _of_mysql((await session.execute(_MYSQL)).scalar_one())


def _of_sqlite(level: int) -> list[Finding]:
    if level < _FULL:
        return [
            problem(
                "SQLite acknowledges changes that are not on the disk yet: a power failure loses "
                "the last ones; leave 'PRAGMA synchronous' at FULL on your engine"
            )
        ]
    return [fine("a change that SQLite has acknowledged is on the disk (synchronous=FULL)")]


def _of_postgresql(commit: str, standbys: str) -> list[Finding]:
    if commit == "off":
        return [
            problem(
                "PostgreSQL acknowledges changes that are not on the disk yet: a crash loses the "
                "last ones; set 'synchronous_commit = on'"
            )
        ]
    where = "on its disk alone, so that a failover may lose it: no synchronous standby is named"
    if standbys and commit != "local":
        where = f"on its disk and on the synchronous standbys {standbys!r}"
    return [
        fine(f"a change that PostgreSQL has acknowledged is {where} (synchronous_commit={commit})")
    ]


def _of_mysql(flush: int) -> list[Finding]:
    setting = f"innodb_flush_log_at_trx_commit={flush}"
    if flush != 1:
        return [
            problem(
                f"the database acknowledges changes that are not on the disk yet ({setting}): a "
                "power failure loses about a second; set it to 1"
            )
        ]
    return [
        fine(
            f"a change that the database has acknowledged is on its disk ({setting}); a failover "
            "may lose it, as keyguard waits for no replica"
        )
    ]
