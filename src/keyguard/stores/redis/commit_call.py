"""Builds the script call that makes a commit or an ending."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from math import ceil
from typing import TypeAlias

from keyguard.core.keys.commit import Commit, Ending
from keyguard.core.keys.records import Key, Organization
from keyguard.core.keys.requests import KeyRequest
from keyguard.stores.redis.hashes import (
    entry_fields,
    field_texts,
    index_entry,
    record_fields,
    time_text,
)
from keyguard.stores.redis.scripts import COMMIT, END, ScriptCall, store_call

Record: TypeAlias = Key | KeyRequest | Organization

Write: TypeAlias = tuple[str, str, tuple[str, ...]]
"""A command, its key without the store's prefix, and its arguments."""


def commit_call(commit: Commit) -> ScriptCall:
    """Return the call of the script that makes a commit, or changes nothing."""
    expected = [(record_key(name), str(version)) for name, version in commit.expected().items()]
    organizations = [(record_key(new.id), new.id, new.slug) for new in commit.organizations]
    others = [("key", new.key.id) for new in commit.keys]
    others += [("request", new.request.id) for new in commit.requests]
    new_records = [(record_key(record_id), record_id, what) for what, record_id in others]
    entries = [
        (f"trail:{entry.subject}", f"owned:{entry.organization}", entry_fields(entry))
        for entry in commit.entries
    ]
    made: list[tuple[Record, tuple[str, ...]]] = [
        *((record, record_fields(record)) for record in commit.organizations),
        *((record.key, record_fields(record)) for record in commit.keys),
        *((record.request, record_fields(record)) for record in commit.requests),
    ]
    writes: list[Write] = [("HSET", "slugs", (new.slug, new.id)) for new in commit.organizations]
    for record, _ in made:
        writes += _index_writes(None, record)
    for change in commit.changes:
        writes += _index_writes(change.before, change.after)
    for key in commit.deleted:
        # The record goes before what leads to it: an index entry alone counts for nothing.
        writes += [("DEL", record_key(key.id), ()), *_index_writes(key, None)]
    sets = [key for command, key, _ in writes if command in ("ZADD", "ZREM")]
    sets += [key for trail, owned, _ in entries for key in (trail, owned)]
    # The record is written after the indexes that lead to it.
    writes += [("HSET", record_key(record.id), fields) for record, fields in made]
    writes += [
        ("HSET", record_key(change.id), fields)
        for change in commit.changes
        if (fields := field_texts(change.columns()))
    ]
    witnesses = [(record_key(key.id), str(key.version)) for key in commit.witnesses]
    deleted = [
        (record_key(key.id), key.id, time_text(key.stops_at), _due(key, commit.kept))
        for key in commit.deleted
    ]
    steps = {
        "sets": sets,
        "expected": expected,
        "witnesses": witnesses,
        "deleted": deleted,
        "organizations": organizations,
        "records": new_records,
        "entries": entries,
        "writes": writes,
    }
    touched = [key for key, *_ in (*expected, *witnesses, *organizations, *new_records)]
    names = dict.fromkeys(["audit", "slugs", *sets, *touched])
    return store_call(COMMIT, json.dumps(steps), keys=tuple(names))


def ending_call(ending: Ending, *, waits: bool) -> ScriptCall:
    """Return the call of the script that revokes keys or disables an organization.

    Args:
        ending: The ending.
        waits: Whether the caller waits until replicas have it, even if it had ended before.
    """
    found = f"family:{ending.subject}" if ending.ends_family else record_key(ending.subject)
    asking = "" if ending.authority is None else record_key(ending.authority)
    witnesses = [(record_key(key.id), str(key.version)) for key in ending.witnesses]
    entry = ending.entry(ending.subject, "")  # the script fills in whose it is
    steps = {
        "id": "" if ending.ends_family else ending.subject,
        "found": found,
        "asking": asking,
        "at": time_text(ending.at),
        "witnesses": witnesses,
        "ended_at": ending.ended_at,
        "within": ending.within or "",
        "without": dict.fromkeys(ending.without, 1),
        "fields": field_texts(ending.fields),
        "waits": waits,
        "entry": entry_fields(entry),
    }
    names = dict.fromkeys(["audit", found, *filter(None, [asking]), *(key for key, _ in witnesses)])
    return store_call(END, json.dumps(steps), keys=tuple(names))


def record_key(record_id: str) -> str:
    """Return the key of a record, without the store's prefix."""
    if "_" not in record_id:
        return f"key:{record_id}"
    return f"{'request' if record_id.startswith('req_') else 'organization'}:{record_id}"


def _due(key: Key, kept: timedelta) -> int:
    """Return the second from which a key may be deleted; 0 if it never stops, so that it stays."""
    return 0 if key.stops_at is None else ceil((key.stops_at + kept).timestamp())


def _index_writes(before: Record | None, after: Record | None) -> Iterator[Write]:
    """Change the indexes that lead to a record, as it is made, changed or deleted."""
    old, new = _places(before), _places(after)
    for index, entry in old:
        if (index, entry) not in new:
            yield "ZREM", index, (entry,)
    for (index, entry), score in new.items():
        if old.get((index, entry)) != score:
            yield "ZADD", index, (score, entry)


def _places(record: Record | None) -> dict[tuple[str, str], str]:
    """Return where a record is in indexes: its scores by index and entry."""
    if record is None:
        return {}
    entry = index_entry(record)
    if isinstance(record, Organization):
        return {("organizations", entry): "0"}
    owner = record.organization
    if isinstance(record, Key):
        aged = ["keys", f"keys:{owner}", f"family:{record.family}"]
        if record.owner is not None:
            aged.append(f"owner:{record.owner}")
        others = {("ids", record.id): "0", (f"names:{owner}", f"{record.name}\0{record.id}"): "0"}
        return {(index, entry): "0" for index in aged} | others
    aged = ["requests", f"requests:{owner}", f"requester:{record.requester}"]
    places = {(index, entry): "0" for index in aged}
    if record.open_until is not None:
        second = str(ceil(record.open_until.timestamp()))
        places |= {("open", entry): second, (f"open:{owner}", entry): second}
    return places
