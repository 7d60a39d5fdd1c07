"""How records look as rows, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Row

from keyguard.backends.sql.tables import KEYS, ORGANIZATIONS
from keyguard.exceptions import CorruptDataError
from keyguard.sansio.limits import dump_limits, load_limits
from keyguard.sansio.models import Key, KeyRecord, Organization

__all__ = [
    "KEY_COLUMNS",
    "ORGANIZATION_COLUMNS",
    "key_columns",
    "key_from",
    "organization_columns",
    "organization_from",
    "record_from",
    "with_limits",
]

_NONE = "[]"

KEY_COLUMNS = [column for column in KEYS.c if column is not KEYS.c.digest]

# Prefixed, so that a row may hold a key and its organization.
ORGANIZATION_COLUMNS = [column.label(f"owner_{column.name}") for column in ORGANIZATIONS.c]


def organization_columns(organization: Organization) -> dict[str, Any]:
    """Return an organization as the columns of its row."""
    fields = {column.name: getattr(organization, column.name) for column in ORGANIZATIONS.c}
    return with_limits(fields)


def with_limits(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return columns with limits, if they are among them, as their column holds them."""
    if "limits" not in columns:
        return dict(columns)
    limits = columns["limits"]
    return {**columns, "limits": dump_limits(limits) if limits else None}


def key_columns(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields of a key as columns of its row."""
    columns = with_limits(values)
    if "organization" in columns:
        columns["organization_id"] = columns.pop("organization")
    if "scopes" in columns:
        columns["scopes"] = " ".join(sorted(columns["scopes"]))
    if "metadata" in columns:
        # In ASCII: a database need not take every character that JSON can escape, such as NUL.
        columns["metadata"] = json.dumps(dict(columns["metadata"]), sort_keys=True)
    return columns


def organization_from(row: Row[Any]) -> Organization:
    """Return the organization in a row.

    Raises:
        CorruptDataError: keyguard never wrote that row.
    """
    try:
        return Organization(
            id=row.owner_id,
            slug=row.owner_slug,
            name=row.owner_name,
            created_at=row.owner_created_at,
            disabled_at=row.owner_disabled_at,
            limits=load_limits(row.owner_limits or _NONE),
        )
    except (ValueError, TypeError, RecursionError) as failure:
        raise _corrupt(ORGANIZATIONS.name, row.owner_id, failure) from failure


def key_from(row: Row[Any]) -> Key:
    """Return the key in a row.

    Raises:
        CorruptDataError: keyguard never wrote that row.
    """
    try:
        return Key(
            id=row.id,
            family=row.family,
            organization=row.organization_id,
            name=row.name,
            scopes=frozenset(row.scopes.split(" ") if row.scopes else ()),
            created_at=row.created_at,
            not_before=row.not_before,
            expires_at=row.expires_at,
            revoked_at=row.revoked_at,
            revoked_reason=row.revoked_reason,
            metadata=json.loads(row.metadata),
            limits=load_limits(row.limits or _NONE),
        )
    except (ValueError, TypeError, AttributeError, RecursionError) as failure:
        raise _corrupt(KEYS.name, row.id, failure) from failure


def record_from(row: Row[Any]) -> KeyRecord:
    """Return the record in a row that joins a key with its organization.

    Raises:
        CorruptDataError: keyguard never wrote one of the two.
    """
    if row.owner_id is None:
        raise _corrupt(KEYS.name, row.id, f"it has no organization {row.organization_id!r}")
    key, organization = key_from(row), organization_from(row)
    try:
        return KeyRecord(key=key, organization=organization, digest=row.digest)
    except ValueError as failure:
        raise _corrupt(KEYS.name, row.id, failure) from failure


def _corrupt(table: str, row_id: object, why: object) -> CorruptDataError:
    return CorruptDataError(
        f"row {row_id!r} of table {table} is none that keyguard wrote ({why}); "
        "restore it from a backup or delete it"
    )
