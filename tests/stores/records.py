"""Records to store."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from keyguard.core.keys.records import Key, KeyRecord, Organization, RevocationReason
from keyguard.core.keys.requests import KeyRequest, KeyTerms
from keyguard.core.limits.limit import Limit

NOON = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
LATER = NOON + timedelta(days=1, microseconds=1)

TERMS = KeyTerms(
    scopes=frozenset({"models:*", "admin"}),
    expires_in=timedelta(days=90, microseconds=1),
    limits=(Limit("burst", "5 per second; 100/minute"),),
    allowed_networks=("10.0.0.0/8", "2001:db8::/32"),
)


def organization(number: int = 1, **fields: Any) -> Organization:
    default: dict[str, Any] = {
        "id": f"org_{number:016}",
        "slug": f"acme-{number}",
        "name": f"Acme {number}",
        "created_at": NOON,
    }
    return Organization(**default | fields)


def key(number: int = 1, **fields: Any) -> Key:
    default: dict[str, Any] = {
        "id": f"{number:016}",
        "family": f"fam_{number:016}",
        "organization": organization().id,
        "name": f"key {number}",
        "scopes": frozenset({"models:read"}),
        "created_at": NOON,
    }
    return Key(**default | fields)


def record(number: int = 1, *, owner: Organization | None = None, **fields: Any) -> KeyRecord:
    owner = owner or organization()
    return KeyRecord(
        key=key(number, organization=owner.id, **fields),
        organization=owner,
        digest=f"$sha256$digest-{number}",
    )


def revoked(number: int = 1, at: datetime = NOON, note: str | None = None, **fields: Any) -> Key:
    """Return a key as it stands after its first change, which was to be revoked."""
    why = RevocationReason.KEY_COMPROMISE
    default = {"revoked_at": at, "revoked_reason": why, "revoked_note": note, "version": 2}
    return key(number, **default | fields)


def request(number: int = 1, **fields: Any) -> KeyRequest:
    default: dict[str, Any] = {
        "id": f"req_{number:016}",
        "organization": organization().id,
        "requester": "ann",
        "name": f"key {number}",
        "asked": TERMS,
        "created_at": NOON,
        "pending_until": NOON + timedelta(days=7),
    }
    return KeyRequest(**default | fields)
