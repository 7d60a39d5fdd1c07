"""How a commit or an ending becomes the one script call that makes it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from math import ceil
from typing import TypeAlias

from keyguard.core.keys.commit import Change, Commit, Ending
from keyguard.core.keys.records import Key, KeyRecord, Organization
from keyguard.core.keys.requests import KeyRequest, RequestRecord
from keyguard.stores.redis.hashes import (
    entry_fields,
    field_texts,
    index_entry,
    record_fields,
    time_text,
)
from keyguard.stores.redis.scripts import COMMIT, END, ScriptCall, store_call

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
    records: list[Organization | KeyRecord | RequestRecord] = [
        *commit.organizations,
        *commit.keys,
        *commit.requests,
    ]
    writes = [write for record in records for write in _index_writes(record)]
    writes += [write for change in commit.changes for write in _changes_of_indexes(change)]
    writes += [write for key in commit.deleted for write in _removals(key)]
    sets = [key for command, key, _ in writes if command in ("ZADD", "ZREM")]
    sets += [key for trail, owned, _ in entries for key in (trail, owned)]
    # The record is written after the indexes that lead to it.
    writes += [("HSET", record_key(_id_of(new)), record_fields(new)) for new in records]
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
        ending: What ends.
        waits: Whether the caller waits until replicas have it, also if it had ended before.
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
    kinds = {"org": "organization", "req": "request"}
    prefix, underscore, _ = record_id.partition("_")  # the id of a key has none
    return f"{kinds.get(prefix, 'organization') if underscore else 'key'}:{record_id}"


def _id_of(new: Organization | KeyRecord | RequestRecord) -> str:
    if isinstance(new, Organization):
        return new.id
    return new.key.id if isinstance(new, KeyRecord) else new.request.id


def _index_writes(new: Organization | KeyRecord | RequestRecord) -> Iterator[Write]:
    if isinstance(new, Organization):
        yield "HSET", "slugs", (new.slug, new.id)
        yield "ZADD", "organizations", ("0", index_entry(new))
    elif isinstance(new, KeyRecord):
        key = new.key
        for index in _indexes(key):
            yield "ZADD", index, ("0", index_entry(key))
        yield "ZADD", "ids", ("0", key.id)
        yield from _named_writes(None, key)
    else:
        request = new.request
        for index in ("", f":{request.organization}"):
            yield "ZADD", f"requests{index}", ("0", index_entry(request))
        yield "ZADD", f"requester:{request.requester}", ("0", index_entry(request))
        yield from _open_writes(request)


def _removals(key: Key) -> Iterator[Write]:
    """Delete a key's record, and then what leads to it: an index entry alone counts for nothing."""
    yield "DEL", record_key(key.id), ()
    for index in _indexes(key):
        yield "ZREM", index, (index_entry(key),)
    yield "ZREM", "ids", (key.id,)
    yield "ZREM", f"names:{key.organization}", (f"{key.name}\0{key.id}",)
    if key.owner is not None:
        yield "ZREM", f"owner:{key.owner}", (index_entry(key),)


def _indexes(key: Key) -> tuple[str, ...]:
    """Return the indexes by time of creation that every key is in."""
    return "keys", f"keys:{key.organization}", f"family:{key.family}"


def _due(key: Key, kept: timedelta) -> int:
    """Return the second from which on a key may be deleted; one that never stops is no key to."""
    return 0 if key.stops_at is None else ceil((key.stops_at + kept).timestamp())


def _changes_of_indexes(change: Change) -> Iterator[Write]:
    before, after = change.before, change.after
    if isinstance(before, Key) and isinstance(after, Key):
        yield from _named_writes(before, after)
    elif isinstance(after, KeyRequest):
        yield from _open_writes(after)


def _named_writes(before: Key | None, key: Key) -> Iterator[Write]:
    """Move a key within the index of names, and between those of owners."""
    names = f"names:{key.organization}"
    if before is not None and before.name != key.name:
        yield "ZREM", names, (f"{before.name}\0{key.id}",)
    if before is None or before.name != key.name:
        yield "ZADD", names, ("0", f"{key.name}\0{key.id}")
    former = None if before is None else before.owner
    if former not in (None, key.owner):
        yield "ZREM", f"owner:{former}", (index_entry(key),)
    if key.owner not in (None, former):
        yield "ZADD", f"owner:{key.owner}", ("0", index_entry(key))


def _open_writes(request: KeyRequest) -> Iterator[Write]:
    """Put a request into the indexes of open ones, or take it out."""
    ends = request.open_until
    for index in ("open", f"open:{request.organization}"):
        if ends is None:
            yield "ZREM", index, (index_entry(request),)
        else:
            yield "ZADD", index, (str(ceil(ends.timestamp())), index_entry(request))
