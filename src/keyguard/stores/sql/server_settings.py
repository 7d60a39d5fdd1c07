"""Settings of servers, roles and databases that change what is read.

keyguard's statements and types do not depend on most of them. The others are refused when the
tables are first read, before a key could be mistaken for another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sqlalchemy import Connection

from keyguard.exceptions import ConfigurationError
from keyguard.stores.sql.session import DIRECT

_MYSQL = "SELECT @@sql_mode, @@character_set_client, @@character_set_results"

_ISOLATION = (  # one of the names, or both
    "SHOW SESSION VARIABLES WHERE Variable_name IN ('transaction_isolation', 'tx_isolation')"
)


def _of_postgresql(connection: Connection) -> None:
    """Refuse a session of psycopg in which times or names can't be read.

    Raises:
        ConfigurationError: The session has such a setting.
    """
    driver = connection.connection.driver_connection
    told = getattr(getattr(driver, "info", None), "parameter_status", None)
    if told is None:  # another driver of a host's, which reads what is binary
        return
    # A pooler repeats what it was told, in whatever case, and may know nothing.
    style, encoding = told("DateStyle") or "ISO", told("client_encoding") or "UTF8"
    if not style.upper().startswith("ISO"):
        raise ConfigurationError(
            f"PostgreSQL writes times as its DateStyle {style!r} says, which psycopg can't read: "
            "set DateStyle to ISO for the role or the database, or connect with "
            "options='-c datestyle=ISO' (in a URL, ?options=-cdatestyle%3DISO)"
        )
    if encoding.upper().replace("-", "") not in ("UTF8", "UNICODE"):
        raise ConfigurationError(
            f"the engine speaks {encoding} with PostgreSQL, in which not every name can be written;"
            " pass connect_args={'client_encoding': 'utf8'} to create_engine"
        )


def _of_mysql(connection: Connection) -> None:
    """Refuse a session that changes texts.

    Raises:
        ConfigurationError: The session has such a setting.
    """
    if connection.get_execution_options().get(DIRECT):  # keyguard chose what its engines speak
        return
    mode, *charsets = connection.exec_driver_sql(_MYSQL).one()
    if "EMPTY_STRING_IS_NULL" in mode.split(","):
        raise ConfigurationError(
            "the sql_mode of the database has EMPTY_STRING_IS_NULL, which changes what keyguard "
            "stores; take it out, for the server or in the engine's sessions"
        )
    if {*charsets} != {"utf8mb4"}:
        raise ConfigurationError(
            f"the engine speaks {charsets[0]} with the database, in which not every name can be "
            "written; pass connect_args={'charset': 'utf8mb4'} to create_engine"
        )


def refuse_dirty_reads(connection: Connection) -> None:
    """Refuse a session of MySQL whose statements may read rows of different instants.

    In such a session, a replica's position says nothing about the record that was read with it.

    Raises:
        ConfigurationError: The session has such a setting.
    """
    if connection.dialect.name not in ("mysql", "mariadb"):
        return
    if any(level == "READ-UNCOMMITTED" for _, level in connection.exec_driver_sql(_ISOLATION)):
        raise ConfigurationError(
            "the transaction isolation of the read replica is READ UNCOMMITTED, so that its answers"
            " can't be dated; set it to READ COMMITTED or REPEATABLE READ"
        )


REFUSALS: Mapping[str, Callable[[Connection], None]] = {
    "postgresql": _of_postgresql,
    "mysql": _of_mysql,
    "mariadb": _of_mysql,
}
"""What refuses a session whose settings change what is read, by SQLAlchemy's name of the kind."""
