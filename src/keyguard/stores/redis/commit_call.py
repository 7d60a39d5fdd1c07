"""How a commit or an ending becomes the one script call that makes it."""

from __future__ import annotations

import json
from typing import TypeAlias

from keyguard.core.keys.commit import Commit, Ending
from keyguard.core.keys.records import KeyRecord, Organization
from keyguard.stores.redis.hashes import (
    changed_fields,
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
    keys = [(record_key(new.key.id), new.key.id) for new in commit.keys]
    entries = [
        (f"trail:{entry.subject}", f"owned:{entry.organization}", entry_fields(entry))
        for entry in commit.entries
    ]
    records: list[Organization | KeyRecord] = [*commit.organizations, *commit.keys]
    writes = [write for record in records for write in _index_writes(record)]
    sets = [key for command, key, _ in writes if command == "ZADD"]
    sets += [key for trail, owned, _ in entries for key in (trail, owned)]
    # The record is written after the indexes that lead to it.
    writes += [("HSET", record_key(new.id), record_fields(new)) for new in commit.organizations]
    writes += [("HSET", record_key(new.key.id), record_fields(new)) for new in commit.keys]
    writes += [
        ("HSET", record_key(change.id), fields)
        for change in commit.changes
        if (fields := changed_fields(change))
    ]
    witnesses = [(record_key(key.id), str(key.version)) for key in commit.witnesses]
    steps = {
        "sets": sets,
        "expected": expected,
        "witnesses": witnesses,
        "organizations": organizations,
        "keys": keys,
        "entries": entries,
        "writes": writes,
    }
    others = [key for key, *_ in (*expected, *witnesses, *organizations, *keys)]
    names = dict.fromkeys(["audit", "slugs", *sets, *others])
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
    """Return the key of an organization's or a key's record, without the store's prefix."""
    # The id of an organization has an underscore, that of a key never has.
    return f"{'organization' if '_' in record_id else 'key'}:{record_id}"


def _index_writes(new: Organization | KeyRecord) -> list[Write]:
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
