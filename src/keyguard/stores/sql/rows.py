"""Turn records into rows, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

from sqlalchemy import Row

from keyguard.core.keys.audit import Action, AuditEntry
from keyguard.core.keys.records import Key, KeyRecord, Organization, fields_of
from keyguard.core.limits.limit import Limit, dump_limits, load_limits
from keyguard.exceptions import CorruptDataError
from keyguard.stores.sql.tables import AUDIT, KEYS, ORGANIZATIONS

AnyRow: TypeAlias = Row[Any]
"""A row, as the database gave it."""

_MICROSECOND = timedelta(microseconds=1)
_LARGEST = 2**63 - 1

KEY_COLUMNS = [column for column in KEYS.c if column is not KEYS.c.digest]

# Prefixed, so that one row can hold a key and its organization.
ORGANIZATION_COLUMNS = [column.label(f"owner_{column.name}") for column in ORGANIZATIONS.c]

# Marks of use set these; they are no change of the key.
_UNVERSIONED = ("last_used_at", "last_used_address")


def organization_columns(organization: Organization) -> dict[str, Any]:
    """Return an organization as the columns of its row."""
    return _columns(fields_of(organization))


def record_columns(record: KeyRecord) -> dict[str, Any]:
    """Return a key's record as the columns of its row."""
    return _columns(fields_of(record.key)) | {"digest": record.digest}


def changed_columns(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that a commit changes, as columns."""
    return _columns({name: fields[name] for name in fields if name not in _UNVERSIONED})


def entry_columns(entry: AuditEntry, entry_id: int, mark: str) -> dict[str, Any]:
    """Return an entry of the audit trail as the columns of its row."""
    return {
        "id": entry_id,
        "mark": mark,
        "at": entry.at,
        "actor": entry.actor,
        "action": entry.action.value,
        "subject": entry.subject,
        "organization": entry.organization,
        "before": None if entry.before is None else _dumped(entry.before),
        "after": _dumped(entry.after),
    }


def organization_from(row: AnyRow) -> Organization:
    """Return the organization in a row.

    Raises:
        CorruptDataError: The row holds something that keyguard never wrote.
    """
    try:
        lifetime = row.owner_max_key_lifetime
        return Organization(
            id=row.owner_id,
            slug=row.owner_slug,
            name=row.owner_name,
            created_at=_instant(row.owner_created_at),
            disabled_at=row.owner_disabled_at and _instant(row.owner_disabled_at),
            limits=load_limits(row.owner_limits) if row.owner_limits else (),
            scopes=None if row.owner_scopes is None else scopes_from(row.owner_scopes),
            max_key_lifetime=None if lifetime is None else lifetime * _MICROSECOND,
            version=row.owner_version,
        )
    except (ValueError, TypeError, OverflowError, RecursionError) as failure:
        raise _corrupt(ORGANIZATIONS.name, row.owner_id, failure) from failure


def key_from(row: AnyRow) -> Key:
    """Return the key in a row.

    Raises:
        CorruptDataError: The row holds something that keyguard never wrote.
    """
    try:
        return Key(
            id=row.id,
            family=row.family,
            organization=row.organization_id,
            name=row.name,
            scopes=scopes_from(row.scopes),
            created_at=_instant(row.created_at),
            not_before=row.not_before and _instant(row.not_before),
            expires_at=row.expires_at and _instant(row.expires_at),
            revoked_at=row.revoked_at and _instant(row.revoked_at),
            revoked_reason=row.revoked_reason,
            revoked_note=row.revoked_note,
            metadata=json.loads(row.metadata),
            limits=load_limits(row.limits) if row.limits else (),
            allowed_networks=tuple(row.allowed_networks.split()) if row.allowed_networks else (),
            successor=row.successor,
            grace_ends_at=row.grace_ends_at and _instant(row.grace_ends_at),
            rotation_key=row.rotation_key,
            last_used_at=row.last_used_at and _instant(row.last_used_at),
            last_used_address=row.last_used_address,
            version=row.version,
        )
    except (ValueError, TypeError, AttributeError, RecursionError) as failure:
        raise _corrupt(KEYS.name, row.id, failure) from failure


def record_from(row: AnyRow) -> KeyRecord:
    """Return the record in a row that joins a key with its organization.

    Raises:
        CorruptDataError: The row holds something that keyguard never wrote, or no organization.
    """
    if row.owner_id is None:
        raise _corrupt(KEYS.name, row.id, f"it has no organization {row.organization_id!r}")
    key, organization = key_from(row), organization_from(row)
    try:
        return KeyRecord(key=key, organization=organization, digest=row.digest)
    except ValueError as failure:
        raise _corrupt(KEYS.name, row.id, failure) from failure


def entry_from(row: AnyRow) -> AuditEntry:
    """Return the entry of the audit trail in a row.

    Raises:
        CorruptDataError: The row holds something that keyguard never wrote.
    """
    try:
        return AuditEntry(
            id=str(row.id),
            at=_instant(row.at),
            actor=row.actor,
            action=Action(row.action),
            subject=row.subject,
            organization=row.organization,
            before=None if row.before is None else json.loads(row.before),
            after=json.loads(row.after),
        )
    except (ValueError, TypeError, RecursionError) as failure:
        raise _corrupt(AUDIT.name, row.id, failure) from failure


def _instant(value: str | datetime) -> datetime:
    """Return an instant as a column holds it; the model refuses an instant without a time zone."""
    if isinstance(value, str):  # SQLite
        return datetime.fromisoformat(value)
    return value if value.tzinfo else value.replace(tzinfo=UTC)  # MySQL's has no time zone


def _columns(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        _NAMES.get(name, name): _AS_STORED[name](value)
        if value is not None and name in _AS_STORED
        else value
        for name, value in fields.items()
    }


def _joined(words: frozenset[str]) -> str:
    return " ".join(sorted(words))


def scopes_from(text: str) -> frozenset[str]:
    """Return the scopes in a column."""
    return frozenset(text.split(" ") if text else ())


def _dumped(value: Mapping[str, Any]) -> str:
    # In ASCII: a database may refuse characters that JSON can escape, such as NUL.
    return json.dumps(dict(value), sort_keys=True)


def _limits(limits: tuple[Limit, ...]) -> str | None:
    return dump_limits(limits) if limits else None


def _networks(networks: tuple[str, ...]) -> str | None:
    return " ".join(networks) or None


def _microseconds(span: timedelta) -> int:
    return min(span // _MICROSECOND, _LARGEST)  # that is 292,000 years


_NAMES = {"organization": "organization_id"}
_AS_STORED: Mapping[str, Any] = {
    "limits": _limits,
    "scopes": _joined,
    "metadata": _dumped,
    "revoked_reason": str,
    "allowed_networks": _networks,
    "max_key_lifetime": _microseconds,
}


def _corrupt(table: str, row_id: object, why: object) -> CorruptDataError:
    return CorruptDataError(
        f"row {row_id!r} of table {table} holds something that keyguard did not write ({why}); "
        "restore it from a backup or delete it"
    )
