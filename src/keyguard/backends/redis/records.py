"""How records look as hashes, and back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from keyguard.exceptions import CorruptDataError
from keyguard.sansio.limits import dump_limits, load_limits
from keyguard.sansio.models import Key, KeyRecord, Organization

__all__ = [
    "columns_of",
    "entry_of",
    "key_from",
    "organization_from",
    "record_from",
    "text_of",
]

Record = TypeVar("Record", Key, KeyRecord, Organization)


def text_of(value: str | bytes | None) -> str:
    """Return a string that the server sent."""
    return value.decode() if isinstance(value, bytes) else str(value or "")


def entry_of(record: Key | Organization) -> str:
    """Return how a record is listed: by time of creation, then id, in the order of its bytes."""
    return f"{_time(record.created_at)} {record.id}"


def columns_of(values: Mapping[str, Any] | Key | Organization) -> tuple[str, ...]:
    """Return fields of a record as names and values for a hash, one after the other."""
    if isinstance(values, Key | Organization):
        values = {name: getattr(values, name) for name in values.__slots__}
    return tuple(part for name, value in values.items() for part in (name, _text(name, value)))


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
    return Organization(
        **{name: row[name] for name in ("id", "slug", "name")},
        created_at=_time_from(row["created_at"]),
        disabled_at=_time_or_none(row["disabled_at"]),
        limits=load_limits(row["limits"]),
    )


def _key(row: Mapping[str, str]) -> Key:
    return Key(
        **{name: row[name] for name in ("id", "family", "organization", "name")},
        scopes=frozenset(row["scopes"].split(" ") if row["scopes"] else ()),
        created_at=_time_from(row["created_at"]),
        not_before=_time_or_none(row["not_before"]),
        expires_at=_time_or_none(row["expires_at"]),
        revoked_at=_time_or_none(row["revoked_at"]),
        revoked_reason=row["revoked_reason"] or None,
        metadata=json.loads(row["metadata"]),
        limits=load_limits(row["limits"]),
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


def _text(name: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return _time(value)
    if name == "scopes":
        return " ".join(sorted(value))
    if name == "metadata":
        return json.dumps(dict(value), sort_keys=True)
    if name == "limits":
        return dump_limits(value)
    return str(value)


def _time(value: datetime) -> str:
    # Of one length, so that the order of the bytes is that of time.
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def _time_from(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _time_or_none(text: str) -> datetime | None:
    return _time_from(text) if text else None
