"""How records look as hashes, and back."""

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

__all__ = [
    "change_columns",
    "columns_of",
    "entry_columns",
    "entry_from",
    "entry_of",
    "key_from",
    "organization_from",
    "record_from",
    "text_of",
    "time_text",
]

Record = TypeVar("Record", AuditEntry, Key, KeyRecord, Organization)

_MICROSECOND = timedelta(microseconds=1)
_NO_SCOPES = " "  # for "" is None


def text_of(value: str | bytes | None) -> str:
    """Return a string that the server sent."""
    return value.decode() if isinstance(value, bytes) else str(value or "")


def entry_of(record: Key | Organization) -> str:
    """Return how a record is listed: by time of creation, then id, in the order of its bytes."""
    return f"{time_text(record.created_at)} {record.id}"


def columns_of(record: Key | Organization) -> tuple[str, ...]:
    """Return a record as names and values for a hash, one after the other."""
    return _columns(fields_of(record))


def change_columns(change: Change) -> tuple[str, ...]:
    """Return what a change sets, likewise; when a key was last used is set by no change."""
    return _columns(
        {
            name: value
            for name, value in change.columns().items()
            if not name.startswith("last_used_")
        }
    )


def entry_columns(entry: AuditEntry) -> tuple[str, ...]:
    """Return an entry of the audit trail as names and values for a stream."""
    return (
        *("at", time_text(entry.at), "actor", entry.actor, "action", entry.action.value),
        *("subject", entry.subject, "organization", entry.organization),
        *("before", "" if entry.before is None else json.dumps(dict(entry.before))),
        *("after", json.dumps(dict(entry.after))),
    )


def entry_from(row: Any) -> AuditEntry | None:
    """Return the entry in an item of the stream, or None where the item is about no record.

    Raises:
        CorruptDataError: keyguard never wrote that item.
    """
    entry_id, columns = row
    if not columns or text_of(columns[0]) == "made":
        return None
    return _decoded(_entry, [b"id", entry_id, *columns])


def organization_from(row: Any) -> Organization | None:
    """Return the organization in a hash, or None in an empty one.

    Raises:
        CorruptDataError: keyguard never wrote that hash.
    """
    return _decoded(_organization, row) if row else None


def key_from(row: Any) -> Key | None:
    """Return the key in a hash, or None in an empty one.

    Raises:
        CorruptDataError: keyguard never wrote that hash.
    """
    return _decoded(_key, row) if row else None


def record_from(rows: Any) -> KeyRecord:
    """Return the record in the hashes of a key and its organization.

    Raises:
        CorruptDataError: keyguard never wrote one of the two.
    """
    key_row, organization_row = rows
    key, organization = key_from(key_row), organization_from(organization_row)
    if key is None or organization is None:
        raise _corrupt(_fields(key_row), "its organization is missing")
    return _decoded(
        lambda row: KeyRecord(key=key, organization=organization, digest=row["digest"]), key_row
    )


def _organization(row: Mapping[str, str]) -> Organization:
    scopes, lifetime = row.get("scopes"), row.get("max_key_lifetime")
    return Organization(
        **{name: row[name] for name in ("id", "slug", "name")},
        created_at=_time_from(row["created_at"]),
        disabled_at=_time_or_none(row["disabled_at"]),
        limits=load_limits(row["limits"]),
        scopes=frozenset(scopes.split()) if scopes else None,
        max_key_lifetime=int(lifetime) * _MICROSECOND if lifetime else None,
        version=int(row.get("version", "1")),
    )


def _key(row: Mapping[str, str]) -> Key:
    reason = row["revoked_reason"]
    fields: dict[str, Any] = {
        **{name: row[name] for name in ("id", "family", "organization", "name")},
        **{name: row.get(name) or None for name in _OPTIONAL_TEXTS},
        **{name: _time_or_none(row.get(name, "")) for name in _OPTIONAL_TIMES},
    }
    return Key(
        **fields,
        scopes=frozenset(row["scopes"].split()),
        created_at=_time_from(row["created_at"]),
        revoked_reason=RevocationReason(reason) if reason else None,
        metadata=json.loads(row["metadata"]),
        limits=load_limits(row["limits"]),
        allowed_networks=tuple(row.get("allowed_networks", "").split()),
        version=int(row.get("version", "1")),
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


def _decoded(decode: Callable[[Mapping[str, str]], Record], row: Any) -> Record:
    try:
        fields = _fields(row)
        return decode(fields)
    except KeyError as failure:
        raise _corrupt(_fields(row), f"it has no {failure.args[0]}") from failure
    except (ValueError, TypeError, AttributeError, RecursionError) as failure:
        raise _corrupt({}, failure) from failure


def _fields(row: Any) -> dict[str, str]:
    parts: list[Any] = row
    texts: list[str] = [part.decode() if isinstance(part, bytes) else part for part in parts]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def _corrupt(fields: Mapping[str, str], why: object) -> CorruptDataError:
    return CorruptDataError(
        f"the record {fields.get('id', '')!r} in Redis is none that keyguard wrote ({why}); "
        "restore it from a backup or delete it"
    )


def time_text(value: datetime | None) -> str:
    """Return how a time is kept: of one length, so that the order of the bytes is that of time."""
    if value is None:
        return ""
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def _columns(values: Mapping[str, Any]) -> tuple[str, ...]:
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
