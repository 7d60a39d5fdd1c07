"""The JSON forms of keys, organizations and limits."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TypeAlias

from keyguard.core.keys.records import Key, Organization
from keyguard.core.limits.charges import LimitStatus
from keyguard.core.limits.limit import Limit
from keyguard.core.tokens.secret import Secret

JsonObject: TypeAlias = dict[str, object]


def json_time(at: datetime | None) -> str | None:
    """Return a time in ISO 8601 in UTC, to the microsecond, with a ``Z`` at its end."""
    if at is None:
        return None
    return at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def organization_json(organization: Organization) -> JsonObject:
    """Return an organization as JSON."""
    scopes, longest = organization.scopes, organization.max_key_lifetime
    return {
        "id": organization.id,
        "slug": organization.slug,
        "name": organization.name,
        "created_at": json_time(organization.created_at),
        "disabled_at": json_time(organization.disabled_at),
        "limits": [_limit_json(limit) for limit in organization.limits],
        "scopes": None if scopes is None else sorted(scopes),
        "max_key_lifetime": None if longest is None else int(longest.total_seconds()),
    }


def key_json(key: Key, now: datetime) -> JsonObject:
    """Return a key as JSON.

    Args:
        key: The key.
        now: The time at which its status is told.
    """
    return {
        "id": key.id,
        "family": key.family,
        "organization": key.organization,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "status": key.status(now).value,
        "created_at": json_time(key.created_at),
        "not_before": json_time(key.not_before),
        "expires_at": json_time(key.expires_at),
        "revoked_at": json_time(key.revoked_at),
        "revoked_reason": None if key.revoked_reason is None else key.revoked_reason.value,
        "revoked_note": key.revoked_note,
        "metadata": dict(key.metadata),
        "limits": [_limit_json(limit) for limit in key.limits],
        "allowed_networks": list(key.allowed_networks),
        "successor": key.successor,
        "grace_ends_at": json_time(key.grace_ends_at),
        "last_used_at": json_time(key.last_used_at),
        "last_used_address": key.last_used_address,
    }


def new_key_json(key: Key, token: Secret | None, predecessor: Key | None) -> JsonObject:
    """Return a new key and its token as JSON.

    Args:
        key: The key.
        token: Its token, or None if it was shown before.
        predecessor: The key that it succeeds, if any.
    """
    form: JsonObject = {
        "id": key.id,
        "token": None if token is None else token.reveal(),
        "organization": key.organization,
        "scopes": sorted(key.scopes),
        "expires_at": json_time(key.expires_at),
    }
    if predecessor is not None:
        form["predecessor"] = {
            "id": predecessor.id,
            "grace_ends_at": json_time(predecessor.grace_ends_at),
            "revoked_at": json_time(predecessor.revoked_at),
        }
    return form


def limit_status_json(status: LimitStatus) -> JsonObject:
    """Return how much is left of a limit, as JSON."""
    return {
        "name": status.name,
        "quota": status.quota,
        "window": status.window,
        "remaining": status.remaining,
        "reset_after": status.reset_after,
        "enforce": status.enforce,
    }


def _limit_json(limit: Limit) -> JsonObject:
    return {
        "name": limit.name,
        "rate": limit.rate,
        "per": limit.per,
        "strategy": limit.strategy.value,
        "enforce": limit.enforce,
    }
