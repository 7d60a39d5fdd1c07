"""How a commit becomes the one script call that makes it."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import TypeAlias

from keyguard.core.keys.commit import Commit
from keyguard.core.keys.records import KeyRecord, Organization
from keyguard.stores.redis.hashes import changed_fields, entry_fields, hash_fields, index_entry
from keyguard.stores.redis.scripts import COMMIT, ScriptCall, store_call

Texts: TypeAlias = tuple[str, ...]


def commit_call(commit: Commit) -> ScriptCall:
    """Return the call of the script that makes a commit, or changes nothing."""
    new_records: list[Organization | KeyRecord] = [*commit.organizations, *commit.keys]
    index_writes = [write for record in new_records for write in _index_writes(record)]
    entries = [
        (f"trail:{entry.subject}", f"owned:{entry.organization}", entry_fields(entry))
        for entry in commit.entries
    ]
    expected = {record_key(record_id): at for record_id, at in commit.expected().items()}
    record_writes = [
        *((organization.id, hash_fields(organization)) for organization in commit.organizations),
        *((new.key.id, (*hash_fields(new.key), "digest", new.digest)) for new in commit.keys),
        *((change.id, changed_fields(change)) for change in commit.changes),
    ]

    numbers = {"schema": 1, "audit": 2, "slugs": 3}

    def number(key: str) -> str:
        return str(numbers.setdefault(key, len(numbers) + 1))

    # The script checks the keys up to this point: they must be sorted sets.
    for command, index, _ in index_writes:
        if command == "ZADD":
            number(index)
    for trail, owned, _ in entries:
        number(trail)
        number(owned)
    arguments: list[str] = [str(len(numbers))]

    def add(items: Iterable[Texts]) -> None:
        listed = list(items)
        arguments.append(str(len(listed)))
        arguments.extend(chain.from_iterable(listed))

    add((number(key), str(version)) for key, version in expected.items())
    add((number(record_key(new.id)), new.id, new.slug) for new in commit.organizations)
    add((number(record_key(new.key.id)), new.key.id) for new in commit.keys)
    add((number(trail), number(owned), *_counted(row)) for trail, owned, row in entries)
    add(
        (command, number(key), *_counted(values))
        for command, key, values in (
            *index_writes,
            *(("HSET", record_key(record_id), row) for record_id, row in record_writes if row),
        )
    )
    return store_call(COMMIT, *arguments, keys=tuple(numbers)[1:])


def record_key(record_id: str) -> str:
    """Return the key of an organization's or a key's record, without the store's prefix."""
    # The id of an organization has an underscore, that of a key never has.
    return f"{'organization' if '_' in record_id else 'key'}:{record_id}"


def _counted(texts: Texts) -> Texts:
    return (str(len(texts)), *texts)


def _index_writes(new: Organization | KeyRecord) -> list[tuple[str, str, Texts]]:
    if isinstance(new, Organization):
        return [
            ("HSET", "slugs", (new.slug, new.id)),
            ("ZADD", "organizations", ("0", index_entry(new))),
        ]
    key = new.key
    listed = ("0", index_entry(key))
    return [
        ("ZADD", "keys", listed),
        ("ZADD", f"keys:{key.organization}", listed),
        ("ZADD", f"family:{key.family}", listed),
        ("ZADD", "ids", ("0", key.id)),
    ]
