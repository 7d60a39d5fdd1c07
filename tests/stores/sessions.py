"""A session without a database, for tests that answer statements themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import Dialect
from sqlalchemy.dialects import postgresql

from keyguard.stores.sql.database import Engines, SyncDatabase

COMMIT, ROLLBACK = "commit", "rollback"


class FakeSession:
    """A session whose every step is a call of a function.

    Args:
        answer: Is given each statement, function of the connection, ``COMMIT`` and ``ROLLBACK``.
        dialect: The kind of database.
    """

    def __init__(self, answer: Callable[[Any], Any], dialect: Dialect | None = None) -> None:
        self.answer = answer
        self.dialect: Dialect = dialect or postgresql.dialect()

    async def execute(self, statement: Any, values: Any = None) -> Any:
        del values
        return self.answer(statement)

    async def call(self, function: Any, *args: Any) -> Any:
        del args
        return self.answer(function)

    async def look_up(self, statement: Any, values: Any) -> Any:
        del values
        return self.answer(statement)

    async def commit(self) -> None:
        self.answer(COMMIT)

    async def rollback(self) -> None:
        self.answer(ROLLBACK)

    async def detach(self) -> Any:
        raise NotImplementedError

    async def close(self) -> None:
        pass


class FakeDatabase(SyncDatabase):
    """A database with a schema that fits, whose sessions are fakes.

    Args:
        engine: The engine that it never connects.
        owned: Whether the engine is keyguard's own.
        sessions: What it opens, in turn.
    """

    def __init__(self, engine: Any, *sessions: FakeSession, owned: bool = False) -> None:
        super().__init__(Engines(engine, engine) if owned else engine)
        self._has_fitting_schema = True
        self.sessions: Iterator[FakeSession] = iter(sessions)

    async def _open(self, way: Any) -> Any:
        del way
        return next(self.sessions)
