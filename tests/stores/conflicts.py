"""A database that refuses changes for a conflict, as it does in a deadlock."""

from __future__ import annotations

from sqlalchemy import URL, create_engine, make_url, text

_MARIADB = ("mariadb", "pymysql")
_SPOIL = {
    "postgresql": """
        CREATE FUNCTION spoil() RETURNS trigger AS $$ BEGIN
            IF nextval('tries') < {spoiled} THEN RAISE 'spoiled' USING ERRCODE = '40P01'; END IF;
            RETURN NULL;
        END $$ LANGUAGE plpgsql;
        CREATE CONSTRAINT TRIGGER spoil AFTER {change} ON {table} INITIALLY {when}
            FOR EACH ROW EXECUTE FUNCTION spoil()
    """,
    "mariadb": """
        CREATE TRIGGER spoil AFTER {change} ON {table} FOR EACH ROW
            IF NEXTVAL(tries) < {spoiled} THEN
                SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213, MESSAGE_TEXT = 'spoiled';
            END IF
    """,
}


def spoil(url: str | URL, table: str, change: str, times: int, *, at_commit: bool = False) -> None:
    """Have a database refuse a change of rows for a deadlock, so many times.

    Args:
        url: The URL of the database, for sync code.
        table: The table.
        change: ``INSERT``, ``UPDATE`` or ``DELETE``.
        times: How often.
        at_commit: Whether it refuses the commit, on PostgreSQL.
    """
    given = make_url(url)
    kind, driver = ("postgresql", "psycopg") if "postgresql" in given.drivername else _MARIADB
    engine = create_engine(given.set(drivername=f"{kind}+{driver}"))
    with engine.begin() as connection:
        connection.execute(text("CREATE SEQUENCE tries"))  # which no rollback sets back
        when = "DEFERRED" if at_commit else "IMMEDIATE"
        connection.exec_driver_sql(
            _SPOIL[kind].format(table=table, change=change, spoiled=times + 1, when=when)
        )
    engine.dispose()
