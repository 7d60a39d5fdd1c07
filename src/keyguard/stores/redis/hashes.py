"""How records are kept as Redis hashes and stream entries."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from keyguard.core.keys.audit import Action, AuditEntry
from keyguard.core.keys.commit import Change
from keyguard.core.keys.records import Key, KeyRecord, Organization, RevocationReason, fields_of
from keyguard.core.limits.limit import dump_limits, load_limits
from keyguard.exceptions import CorruptDataError
from keyguard.stores.redis.replies import list_of, text_of, texts_of
from keyguard.stores.redis.scripts import Reply

Record = TypeVar("Record", AuditEntry, Key, KeyRecord, Organization)

_MICROSECOND = timedelta(microseconds=1)
_NO_SCOPES = " "  # as "" stands for None


def index_entry(record: Key | Organization) -> str:
    """Return a record's entry in an index: in the order of the bytes, the oldest comes first."""
    return f"{time_text(record.created_at)} {record.id}"


def hash_fields(record: Key | Organization) -> tuple[str, ...]:
    """Return a record as names and values for a hash, one after the other."""
    return _texts(fields_of(record))


def changed_fields(change: Change) -> tuple[str, ...]:
    """Return what a change sets, in the same form. No change sets when a key was last used."""
    columns = change.columns()
    return _texts({name: columns[name] for name in columns if not name.startswith("last_used_")})


def entry_fields(entry: AuditEntry) -> tuple[str, ...]:
    """Return an entry of the audit trail as names and values for a stream."""
    return (
        *("at", time_text(entry.at), "actor", entry.actor, "action", entry.action.value),
        *("subject", entry.subject, "organization", entry.organization),
        *("before", "" if entry.before is None else json.dumps(dict(entry.before))),
        *("after", json.dumps(dict(entry.after))),
    )


def entry_from(item: Reply) -> AuditEntry | None:
    """Return the entry in an item of the stream, or None if the item is about no record.

    Raises:
        CorruptDataError: keyguard never wrote that item.
    """
    entry_id, fields = list_of(item)
    parts = list_of(fields)
    if not parts or text_of(parts[0]) == "made":
        return None
    return _decoded(_entry, ["id", entry_id, *parts])


def organization_from(row: Reply) -> Organization | None:
    """Return the organization in a hash, or None for an empty hash.

    Raises:
        CorruptDataError: keyguard never wrote that hash.
    """
    return _decoded(_organization, row) if row else None


def key_from(row: Reply) -> Key | None:
    """Return the key in a hash, or None for an empty hash.

    Raises:
        CorruptDataError: keyguard never wrote that hash.
    """
    return _decoded(_key, row) if row else None


def record_from(rows: Reply) -> KeyRecord:
    """Return the record in the hashes of a key and its organization.

    Raises:
        CorruptDataError: keyguard never wrote one of the two.
    """
    key_row, organization_row = list_of(rows)
    key, organization = key_from(key_row), organization_from(organization_row)
    if key is None or organization is None:
        raise _corrupt(_fields(key_row), "its organization is missing")
    return _decoded(
        lambda row: KeyRecord(key=key, organization=organization, digest=row["digest"]), key_row
    )


def _organization(row: Mapping[str, str]) -> Organization:
    scopes, lifetime = row["scopes"], row["max_key_lifetime"]
    return Organization(
        **{name: row[name] for name in ("id", "slug", "name")},
        created_at=_time_from(row["created_at"]),
        disabled_at=_time_or_none(row["disabled_at"]),
        limits=load_limits(row["limits"]),
        scopes=frozenset(scopes.split()) if scopes else None,
        max_key_lifetime=int(lifetime) * _MICROSECOND if lifetime else None,
        version=int(row["version"]),
    )


def _key(row: Mapping[str, str]) -> Key:
    reason = row["revoked_reason"]
    fields: dict[str, Any] = {
        **{name: row[name] for name in ("id", "family", "organization", "name")},
        **{name: row[name] or None for name in _OPTIONAL_TEXTS},
        **{name: _time_or_none(row[name]) for name in _OPTIONAL_TIMES},
    }
    return Key(
        **fields,
        scopes=frozenset(row["scopes"].split()),
        created_at=_time_from(row["created_at"]),
        revoked_reason=RevocationReason(reason) if reason else None,
        metadata=json.loads(row["metadata"]),
        limits=load_limits(row["limits"]),
        allowed_networks=tuple(row["allowed_networks"].split()),
        version=int(row["version"]),
    )


_OPTIONAL_TEXTS = ("revoked_note", "successor", "rotation_key", "last_used_address")
_OPTIONAL_TIMES = ("not_before", "expires_at", "revoked_at", "grace_ends_at", "last_used_at")


def _entry(row: Mapping[str, str]) -> AuditEntry:
    return AuditEntry(
        **{name: row[name] for name in ("id", "actor", "subject", "organization")},
        at=_time_from(row["at"]),
        action=Action(row["action"]),
        before=json.loads(row["before"]) if row["before"] else None,
        after=json.loads(row["after"]),
    )


def _decoded(decode: Callable[[Mapping[str, str]], Record], row: Reply) -> Record:
    try:
        return decode(_fields(row))
    except KeyError as failure:
        raise _corrupt(_fields(row), f"it has no {failure.args[0]}") from failure
    except (ValueError, TypeError, AttributeError, RecursionError) as failure:
        raise _corrupt({}, failure) from failure


def _fields(row: Reply) -> dict[str, str]:
    texts = texts_of(row)
    return dict(zip(texts[::2], texts[1::2], strict=True))


def _corrupt(fields: Mapping[str, str], why: object) -> CorruptDataError:
    return CorruptDataError(
        f"keyguard did not write the record {fields.get('id', '')!r} in Redis ({why}); restore it "
        "from a backup or delete it"
    )


def time_text(value: datetime | None) -> str:
    """Return a time as a text of fixed length, so that the order of the bytes is that of time."""
    if value is None:
        return ""
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def _texts(values: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(part for name, value in values.items() for part in (name, _text(name, value)))


def _text(name: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return time_text(value)
    if isinstance(value, timedelta):
        return str(value // _MICROSECOND)
    if name == "scopes":
        return " ".join(sorted(value)) or _NO_SCOPES
    if name == "allowed_networks":
        return " ".join(value)
    if name == "metadata":
        return json.dumps(dict(value), sort_keys=True)
    if name == "limits":
        return dump_limits(value)
    return str(value)


def _time_from(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _time_or_none(text: str) -> datetime | None:
    return _time_from(text) if text else None
