"""How a commit becomes the one call that makes it."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import TypeAlias

from keyguard.core.keys.commit import Commit
from keyguard.core.keys.records import KeyRecord, Organization
from keyguard.stores.redis.records import (
    change_columns,
    columns_of,
    entry_columns,
    entry_of,
)
from keyguard.stores.redis.scripts import COMMIT, STORE, Call

__all__ = ["commit_call"]

Part: TypeAlias = tuple[str, ...]


def commit_call(commit: Commit, version: str) -> Call:
    """Return the call of the script that makes a commit, or does nothing.

    Args:
        commit: The commit.
        version: The version of the layout.
    """
    born: list[Organization | KeyRecord] = [*commit.organizations, *commit.keys]
    indexes = [write for one in born for write in _index_writes(one)]
    entries = [
        (f"trail:{entry.subject}", f"owned:{entry.organization}", entry_columns(entry))
        for entry in commit.entries
    ]
    expected = {_record(one): str(at) for one, at in commit.expected().items()}

    numbers = {name: place for place, name in enumerate(("schema", "audit", "slugs"), start=1)}

    def number(name: str) -> str:
        return str(numbers.setdefault(name, len(numbers) + 1))

    # Those that must be sorted sets come first, one after the other.
    for command, name, _ in indexes:
        if command == "ZADD":
            number(name)
    for trail, owned, _ in entries:
        number(trail)
        number(owned)
    last_sorted = len(numbers)

    arguments: list[str] = [str(last_sorted)]

    def add(parts: Iterable[Part]) -> None:
        listed = list(parts)
        arguments.append(str(len(listed)))
        arguments.extend(chain.from_iterable(listed))

    add((number(name), at) for name, at in expected.items())
    add((number(_record(one.id)), one.id, one.slug) for one in commit.organizations)
    add((number(_record(record.key.id)), record.key.id) for record in commit.keys)
    writes = [
        *indexes,
        *(("HSET", _record(one.id), columns_of(one)) for one in commit.organizations),
        *(
            ("HSET", _record(one.key.id), (*columns_of(one.key), "digest", one.digest))
            for one in commit.keys
        ),
        *(
            ("HSET", _record(change.id), columns)
            for change in commit.changes
            if (columns := change_columns(change))
        ),
    ]
    add((number(trail), number(owned), str(len(row)), *row) for trail, owned, row in entries)
    add((command, number(name), str(len(rest)), *rest) for command, name, rest in writes)
    return Call(COMMIT, tuple(f"{STORE}{name}" for name in numbers), (version, *arguments))


def _index_writes(new: Organization | KeyRecord) -> list[tuple[str, str, Part]]:
    if isinstance(new, Organization):
        return [
            ("HSET", "slugs", (new.slug, new.id)),
            ("ZADD", "organizations", ("0", entry_of(new))),
        ]
    key = new.key
    listed = ("0", entry_of(key))
    return [
        ("ZADD", "keys", listed),
        ("ZADD", f"keys:{key.organization}", listed),
        ("ZADD", f"family:{key.family}", listed),
        ("ZADD", "ids", ("0", key.id)),
    ]


def _record(record_id: str) -> str:
    return f"{'organization' if '_' in record_id else 'key'}:{record_id}"
