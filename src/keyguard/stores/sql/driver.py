"""The interface to the drivers of database servers."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from sqlalchemy import Connection

from keyguard.stores.sql.session import DriverConnection


class Driver(NamedTuple):
    """A driver, as keyguard uses it.

    Args:
        connect: Opens a connection; a driver for asyncio returns an awaitable.
        drop: Closes a connection at once.
        answers: The answers to what SQLAlchemy's dialect would ask a server, by its methods' names.
        options: The options of the driver besides those of the URL.
    """

    connect: Callable[..., DriverConnection]
    drop: Callable[[DriverConnection], object]
    answers: dict[str, Callable[[Connection], object]]
    options: dict[str, object]
