"""The options after the ``?`` in a database URL.

An option is used, or refused before anything is opened. A driver would ignore some wrong options,
and report others only at the first request.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from sqlalchemy import URL

from keyguard.exceptions import ConfigurationError

PREPARE = "prepare_threshold"
"""psycopg's option: how often it executes a statement before it prepares it."""

_OFTEN = re.compile(r"[0-9]{1,9}")
_NAME = re.compile(r"[a-z_]{1,40}")

# What both drivers of MySQL take. The same URL serves an application on asyncio and the commands.
_MYSQL = frozenset(
    {
        "charset",
        "client_flag",
        "connect_timeout",
        "init_command",
        "program_name",
        "read_default_file",
        "read_default_group",
        "ssl_ca",
        "ssl_capath",
        "ssl_cert",
        "ssl_check_hostname",
        "ssl_cipher",
        "ssl_key",
        "unix_socket",
    }
)
_NUMBERS = frozenset(
    {
        PREPARE,
        "client_flag",
        "connect_timeout",
        "keepalives",
        "keepalives_count",
        "keepalives_idle",
        "keepalives_interval",
        "tcp_user_timeout",
    }
)
_DEADLINES = "a call ends by the settings store_timeout, management_timeout and limiter_timeout"
_REASONS = {
    "autocommit": "keyguard begins and ends its transactions itself",
    "client_encoding": "keyguard speaks UTF-8 with the database",
    "charset": "keyguard speaks UTF-8 with the database, as utf8mb4",
    "read_timeout": _DEADLINES,
    "replication": "keyguard needs an ordinary connection",
    "sql_mode": "keyguard sets the mode of its own sessions",
    "write_timeout": _DEADLINES,
}
"""Why keyguard refuses options that a driver knows."""

_SPELT = {"client_encoding": ("utf8", "utf-8", "unicode"), "charset": ("utf8mb4",)}
"""Options that are refused unless they say what is so anyway."""


def check(url: URL) -> None:
    """Refuse options that keyguard would not use.

    Raises:
        ConfigurationError: An option is unknown or not allowed, or its value is not a number
            although it must be one.
    """
    driver = url.get_driver_name()
    if driver == "pysqlite":  # its options belong to SQLAlchemy
        return
    names = _of_psycopg() if driver == "psycopg" else _MYSQL
    for name, value in url.query.items():
        if name in _REASONS and str(value).lower() not in _SPELT.get(name, ()):
            raise ConfigurationError(
                f"leave the option {name!r} out of the database URL: {_REASONS[name]}"
            )
        if name not in names:
            shown = repr(name) if _NAME.fullmatch(name) else "whose name is not shown here"
            raise ConfigurationError(
                f"the database URL has an option {shown}, which keyguard does not know for "
                f"{driver}; see its documentation, and the page on stores"
            )
        if name in _NUMBERS and not (isinstance(value, str) and _OFTEN.fullmatch(value)):
            raise ConfigurationError(f"the option {name!r} in the database URL takes a number")


def prepare_threshold(query: Mapping[str, object]) -> int | None:
    """Return how often a statement is executed before it is prepared; None for never."""
    asked = query.get(PREPARE)
    return None if asked is None else int(str(asked))


def _of_psycopg() -> frozenset[str]:
    from psycopg.pq import Conninfo

    return frozenset(option.keyword.decode() for option in Conninfo.get_defaults()) | {PREPARE}
