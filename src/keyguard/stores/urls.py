"""Keeps possible parts of a password in a store's URL out of messages.

If a sign such as ``?`` in a password is not escaped, the rest of the password looks like a host, a
port, a database or an option, and messages name all of these.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

from keyguard.exceptions import ConfigurationError, MissingExtraError

Result = TypeVar("Result")

ESCAPES = "the signs @ : / ? # [ ] % in a password are written as %40 %3A %2F %3F %23 %5B %5D %25"
"""What the message about a URL that can't be read says of passwords."""

EXTRAS = {
    "postgres": ("PostgreSQL", "postgresql"),
    "postgresql": ("PostgreSQL", "postgresql"),
    "mysql": ("MySQL", "mysql"),
    "mariadb": ("MariaDB", "mysql"),
}
"""What each database is called in the message about a missing driver, and the extra with all of it.

Such an extra brings SQLAlchemy as well.
"""

# What may hold a user and a password. A URL without a host has none.
_USERINFO = r"(?s)/.*|[^/?#]*@|"
_USERINFO_IN_SQL = r"[^:/]*(:[^@]*)?@|"  # as SQLAlchemy reads it
_OPTION = r"[?&]\w+=[^&#]*"


def is_cut(url: str, *, is_sql: bool = False) -> bool:
    """Return whether a sign in the password may have been read as its end.

    Args:
        url: The URL.
        is_sql: Whether SQLAlchemy reads it.

    Returns:
        True if an ``@`` stands behind user and password, other than in the value of an option.
    """
    userinfo, rest = _split(url, is_sql=is_sql)
    place, mark, query = rest.partition("?")  # without the mark, an & begins no option
    return "@" in place + re.sub(_OPTION, "", mark + query) or (
        is_sql and re.search(_OPTION, userinfo) is not None
    )


def host_of(url: str) -> str:
    """Return the host and port of a URL for messages, or nothing if they may be of a password."""
    rest = url.partition("://")[2]
    if any("@" in option for option in re.findall(_OPTION, rest)):
        return ""
    return re.split("[/?#]", rest.rpartition("@")[2])[0]


def read_url(url: str, read: Callable[[], Result], *, is_sql: bool) -> Result:
    """Read a URL with a function; refuse a URL whose password may have been cut short.

    Args:
        url: The URL that the function reads.
        read: The function. Its errors may show parts of the URL other than user and password.
        is_sql: Whether SQLAlchemy reads it.

    Raises:
        ConfigurationError: The password may have been cut short (:func:`is_cut`); or an ``@``
            stands in the value of an option, and the function refuses the URL.
    """
    if not is_cut(url, is_sql=is_sql):
        try:
            return read()
        except MissingExtraError:
            raise
        except ConfigurationError as refused:
            refused.__context__ = None  # the error of a parser, which may repeat a part of the URL
            if "@" not in _split(url, is_sql=is_sql)[1]:
                raise
    raise ConfigurationError(  # here, where no other error is its context
        "the URL of a store can't be read, and is not shown, as an @ stands where it may end a "
        f"password: {ESCAPES}, and an @ elsewhere as %40"
    )


def _split(url: str, *, is_sql: bool) -> tuple[str, str]:
    rest = url.partition("://")[2]
    found = re.match(_USERINFO_IN_SQL if is_sql else _USERINFO, rest)
    end = found.end() if found else 0
    return rest[:end], rest[end:]
