"""Reports how safe an acknowledged change in an SQL database is, and the state of its replicas.

If each commit waits for the disk, a crash loses no acknowledged change. If it also waits for
another server, a failover loses none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sqlalchemy import RowMapping, text
from sqlalchemy.exc import DBAPIError

from keyguard.stores.diagnosis import Finding, fine, problem
from keyguard.stores.sql.poolers import is_pooled
from keyguard.stores.sql.session import Session

_SQLITE = text("PRAGMA synchronous")
_POSTGRESQL = text(
    "SELECT current_setting('synchronous_commit') AS commit,"
    " current_setting('synchronous_standby_names') AS standbys"
)
_STANDBYS = text(
    "SELECT count(pid) AS connected,"
    " max(pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)) AS behind"
    " FROM pg_stat_replication WHERE state IS DISTINCT FROM 'backup'"
)
_MYSQL = text("SELECT @@innodb_flush_log_at_trx_commit")
_REPLICATION = text("SHOW REPLICA STATUS")
_FULL = 2
_NOT_TOLD = "this user may not ask how the replication of the database stands (SHOW REPLICA STATUS)"
_POOLED = (
    "a pooler stands before PostgreSQL, so that no process can listen for changes: each asks once a"
    " second instead, or four times in 'max_staleness' if that is shorter than 4 seconds, and knows"
    " of a revocation by then"
)


async def diagnose(session: Session) -> list[Finding]:
    """Report how safe an acknowledged change is, and what makes it less safe."""
    if session.dialect.name == "sqlite":
        return [_of_sqlite((await session.execute(_SQLITE)).scalar_one())]
    if session.dialect.name == "postgresql":
        found = (await session.execute(_POSTGRESQL)).mappings().one()
        standbys = (await session.execute(_STANDBYS)).one()
        findings = [_of_postgresql(**found), *_of_standbys(**standbys._asdict())]
        return [*findings, fine(_POOLED)] if await is_pooled(session) else findings
    acknowledged = _of_mysql((await session.execute(_MYSQL)).scalar_one())
    try:
        sources = (await session.execute(_REPLICATION)).mappings().all()
    except DBAPIError as refused:
        if refused.connection_invalidated:
            raise
        return [acknowledged, fine(_NOT_TOLD)]
    return [acknowledged, *_of_sources(sources)]


def _of_sqlite(level: int) -> Finding:
    if level < _FULL:
        return problem(
            "SQLite acknowledges changes that are not on the disk yet: a power failure loses the "
            "last ones; leave 'PRAGMA synchronous' at FULL on your engine"
        )
    return fine("a change that SQLite has acknowledged is on the disk (synchronous=FULL)")


def _of_postgresql(commit: str, standbys: str) -> Finding:
    if commit == "off":
        return problem(
            "PostgreSQL acknowledges changes that are not on the disk yet: a crash loses the last "
            "ones; set 'synchronous_commit = on'"
        )
    where = "on its disk alone, so that a failover may lose it: no synchronous standby is named"
    if standbys and commit != "local":
        where = f"on its disk and on the synchronous standbys {standbys!r}"
    return fine(
        f"a change that PostgreSQL has acknowledged is {where} (synchronous_commit={commit})"
    )


def _of_mysql(flush: int) -> Finding:
    setting = f"innodb_flush_log_at_trx_commit={flush}"
    if flush != 1:
        return problem(
            f"the database acknowledges changes that are not on the disk yet ({setting}): a power "
            "failure loses about a second; set it to 1"
        )
    return fine(
        f"a change that the database has acknowledged is on its disk ({setting}); a failover may "
        "lose it, as keyguard waits for no replica"
    )


def _of_standbys(connected: int, behind: int | None) -> Iterator[Finding]:
    """Report the state of PostgreSQL's replication.

    Args:
        connected: How many standbys follow this server.
        behind: How many bytes the last of them lacks; None if the user may not read that.
    """
    if connected:
        far = (
            "it does not say how far they are behind: they have just connected, or this user may "
            "not see it (pg_monitor may)"
        )
        if behind is not None:
            far = f"the last of them is {behind} bytes behind"
        yield fine(f"{connected} standbys follow PostgreSQL; {far}")


def _of_sources(sources: Sequence[RowMapping]) -> Iterator[Finding]:
    """Report the state of the replication of MySQL or MariaDB.

    Args:
        sources: The server's report on each server that it follows.
    """
    for source in sources:
        lag = source.get("Seconds_Behind_Source", source.get("Seconds_Behind_Master"))
        if lag is None:
            yield problem("the database is a replica whose replication does not run")
        else:
            yield fine(f"the database is a replica, {lag} s behind")
