"""Damage that tests do to the rows of a store, beside keyguard."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import redis
from sqlalchemy import Table

from keyguard.core.keys.requests import RequestRecord
from keyguard.stores.redis.hashes import entry_fields, record_fields
from keyguard.stores.redis.scripts import STORE
from keyguard.stores.sql import open_store
from keyguard.stores.sql.column_types import UtcDateTime
from keyguard.stores.sql.tables import AUDIT, KEYS, ORGANIZATIONS, REQUESTS
from tests.stores.changes import adding
from tests.stores.records import organization, record, request

SQL_TABLES = {"key": KEYS, "organization": ORGANIZATIONS, "request": REQUESTS, "entry": AUDIT}
# What one statement sets without the rules that would keep the value out.
_LAX = {
    "sqlite": "PRAGMA foreign_keys = OFF",
    "postgresql": "SET session_replication_role = replica",
    "mariadb": "SET foreign_key_checks = 0, sql_mode = ''",
}
_UNREAD = {"entry": {"mark"}, "request": {"open_until"}}  # by lists
_NONSENSE = {
    "scopes": ["'quo\"te'"],
    "family": ["'fam'"],
    "organization_id": ["'org'"],
    "slug": ["'A B'"],
    "successor": ["'x'"],
    "revoked_reason": ["'bored'"],
    "metadata": ["'{'", "'[]'", "'null'", """'{"a": 1}'"""],
    "limits": ["''", "'{}'", "'\"\"'", "'{'", "'[1]'", "'7'", """'[{"name": "a", "rate": "x"}]'"""],
    "allowed_networks": ["'everywhere'", "''", "' '"],
    "max_key_lifetime": ["-1"],
    "max_keys": ["0"],
    "time_zone": ["''", "'../etc'", "'UTC '"],
    "plan": ["''", "'a b'"],
    "action": ["'key.eaten'"],
    "before": ["'['", "'[]'", "'7'"],
    "after": ["'['", "'[]'", "'null'"],
    "asked": ["'{'", "'[]'", "'{}'", "'null'", "'{\"scopes\": 7}'", "'{\"scopes\": [7]}'"],
    "granted": ["'['", "'[]'", "'7'", '\'{"scopes": [], "expires_in": "x"}\''],
    "decided_by": ["'{}'", "'[1]'", "'7'", "'\"ann\"'"],
    "state": ["'bored'", "'approved'"],
    "key_id": ["'x'"],
}
_NO_TIMES = {
    "sqlite": ["'yesterday'", "''", "'2026-03-01T12:00:00'"],
    "postgresql": ["'infinity'", "'-infinity'", "'20000-01-01'", "'0044-03-15 BC'"],
    "mariadb": ["'0000-00-00'", "'2026-00-10'"],
}
_ANYTHING = ["CAST(x'ff41' AS TEXT)", "x'ff41'"]  # SQLite takes it in any column


class Damage(NamedTuple):
    """A value that keyguard never wrote.

    Args:
        kind: The kind of store.
        record: What holds it: a key, an organization or an entry of the audit trail.
        field: The column or field.
        value: The value as SQL; for Redis as it is, and None for a field that is missing.
    """

    kind: str
    record: str
    field: str
    value: Any

    def __str__(self) -> str:
        return f"{self.kind}-{self.record}-{self.field}-{self.value!r}"

    def do(self, url: str, row_id: str) -> None:
        """Put the value into a row of a store."""
        if self.kind == "redis":
            self._do_on_redis(url, row_id)
            return
        table = SQL_TABLES[self.record]
        statement = f"UPDATE {table.name} SET {self._column(table)} = {self.value} WHERE id = "
        shown = row_id if self.record == "entry" else f"'{row_id}'"
        store = open_store(url)
        with store.database.writes.connect() as connection:
            connection.exec_driver_sql(_LAX[self.kind])
            assert connection.exec_driver_sql(statement + shown).rowcount == 1
            connection.commit()
        store.close()

    def _column(self, table: Table) -> str:
        return f"`{self.field}`" if self.kind == "mariadb" else f'"{table.c[self.field].name}"'

    def _do_on_redis(self, url: str, row_id: str) -> None:
        name = f"{STORE}{self.record}:{row_id}"
        with redis.Redis.from_url(url) as client:
            if self.record == "entry":  # nothing changes one: this adds another like it
                parts = client.xrange(f"{STORE}audit", row_id, row_id)[0][1]
                parts |= {self.field.encode(): self.value}
                kept = {name: value for name, value in parts.items() if value is not None}
                client.xadd(f"{STORE}audit", kept or {"a": "text"})
            elif self.field == "":
                client.delete(name)
                client.set(name, self.value)
            elif self.value is None:
                client.hdel(name, self.field)
            else:
                client.hset(name, self.field, self.value)


def damages(kind: str, what: str) -> Iterator[Damage]:
    """Return damage to every column, one at a time."""
    if kind == "redis":
        fields = _redis_fields(what)
        for field in fields:
            yield from (Damage(kind, what, field, value) for value in (b"\xff", None))
        for column, values in _NONSENSE.items():
            named = {"organization_id": "organization", "key_id": "key"}
            field = named.get(column, column) if what in ("key", "request") else column
            if field in fields:
                texts = [value.strip("'") for value in values]
                # No networks are no text there, nor is the usual zone, nor no plan.
                usual = field in ("allowed_networks", "time_zone", "plan")
                texts = [text for text in texts if text or not usual]
                yield from (Damage(kind, what, field, text) for text in texts)
        times = [field for field in fields if field.endswith(("_at", "_before"))]
        for field in times:
            yield from (Damage(kind, what, field, v) for v in ("yesterday", "2026-03-01T12:00:00"))
        if what != "entry":
            yield Damage(kind, what, "", "a text")
        return
    for column in SQL_TABLES[what].c:
        if column.name in _UNREAD.get(what, ()):
            continue
        values = _NONSENSE.get(column.name, [])
        if isinstance(column.type, UtcDateTime):
            values = _NO_TIMES[kind]
        if kind == "sqlite":
            values = [*values, *_ANYTHING]
        yield from (Damage(kind, what, column.name, value) for value in values)


def _redis_fields(what: str) -> list[str]:
    fields = {
        "key": record_fields(record()),
        "organization": record_fields(organization()),
        "request": record_fields(RequestRecord(request=request(), digest="$sha256$digest")),
        "entry": entry_fields(adding(organization()).entries[0]),
    }
    return [*fields[what][::2]]
