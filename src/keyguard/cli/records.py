"""What is shown of organizations and keys: as JSON documents, and in words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from rich.text import Text

from keyguard.cli.tables import status
from keyguard.cli.times import absolute, instant, relative, spelled
from keyguard.core.keys.records import Key, Organization
from keyguard.core.limits.charges import LimitStatus
from keyguard.core.limits.limit import Limit

__all__ = [
    "ending",
    "key_details",
    "key_document",
    "last_use",
    "lifetime",
    "limit_document",
    "organization_details",
    "organization_document",
    "organization_status",
    "scope_list",
    "status_document",
]


def organization_document(organization: Organization) -> dict[str, Any]:
    """Return an organization as a JSON document has it."""
    return {
        "id": organization.id,
        "slug": organization.slug,
        "name": organization.name,
        "created_at": instant(organization.created_at),
        "disabled_at": instant(organization.disabled_at),
        "limits": [limit_document(limit) for limit in organization.limits],
        "scopes": None if organization.scopes is None else sorted(organization.scopes),
        "max_key_lifetime": _seconds(organization.max_key_lifetime),
    }


def key_document(key: Key, now: datetime) -> dict[str, Any]:
    """Return a key as a JSON document has it."""
    return {
        "id": key.id,
        "family": key.family,
        "organization": key.organization,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "status": key.status(now).value,
        "created_at": instant(key.created_at),
        "not_before": instant(key.not_before),
        "expires_at": instant(key.expires_at),
        "revoked_at": instant(key.revoked_at),
        "revoked_reason": None if key.revoked_reason is None else key.revoked_reason.value,
        "revoked_note": key.revoked_note,
        "metadata": dict(key.metadata),
        "limits": [limit_document(limit) for limit in key.limits],
        "allowed_networks": list(key.allowed_networks),
        "successor": key.successor,
        "grace_ends_at": instant(key.grace_ends_at),
        "last_used_at": instant(key.last_used_at),
        "last_used_address": key.last_used_address,
    }


def _seconds(span: timedelta | None) -> int | None:
    return None if span is None else int(span.total_seconds())


def limit_document(limit: Limit) -> dict[str, Any]:
    """Return a limit as a JSON document has it."""
    return {
        "name": limit.name,
        "rate": limit.rate,
        "per": limit.per,
        "strategy": limit.strategy.value,
        "enforce": limit.enforce,
    }


def status_document(status: LimitStatus) -> dict[str, Any]:
    """Return how a policy stands as a JSON document has it."""
    return {
        "name": status.name,
        "quota": status.quota,
        "window": status.window,
        "remaining": status.remaining,
        "reset_after": status.reset_after,
        "enforce": status.enforce,
    }


def organization_status(organization: Organization) -> Text:
    """Return what an organization's keys are good for."""
    return status("enabled" if organization.disabled_at is None else "disabled")


def scope_list(scopes: frozenset[str]) -> str:
    """Return scopes in words."""
    return ", ".join(sorted(scopes)) or "none"


def ending(key: Key, now: datetime) -> str:
    """Return when a key ends or ended, in words."""
    end = key.revoked_at or key.ends_at
    return "never" if end is None else relative(end, now)


def last_use(key: Key, now: datetime) -> str:
    """Return when a key was last used, in words; it is known to the minute."""
    if key.last_used_at is None:
        return "never"
    return relative(
        key.last_used_at, now - timedelta(seconds=now.second, microseconds=now.microsecond)
    )


def organization_details(
    organization: Organization, now: datetime
) -> list[tuple[str, str | Text | None]]:
    """Return all that is known of an organization, by name."""
    scopes, longest = organization.scopes, organization.max_key_lifetime
    disabled = organization.disabled_at
    return [
        ("Organization", organization.id),
        ("Slug", organization.slug),
        ("Name", organization.name),
        ("Status", organization_status(organization)),
        ("Created", absolute(organization.created_at, now)),
        ("Disabled", None if disabled is None else absolute(disabled, now)),
        ("Its keys may", "do anything" if scopes is None else scope_list(scopes)),
        ("Keys work for", "ever" if longest is None else f"{lifetime(longest)} at most"),
        *(("Limit", f"{limit.name}: {limit.rate}") for limit in organization.limits),
    ]


def lifetime(span: timedelta) -> str:
    """Return a span in its largest units."""
    return spelled(int(span.total_seconds()))


def key_details(
    key: Key, organization: Organization, now: datetime
) -> list[tuple[str, str | Text | None]]:
    """Return all that is known of a key, by name."""

    def when(at: datetime | None) -> str | None:
        return None if at is None else absolute(at, now)

    owner = f"{organization.slug} ({organization.id})"
    if organization.disabled_at is not None:
        owner += ", disabled: none of its keys works"
    return [
        ("Key", key.id),
        ("Name", key.name),
        ("Organization", owner),
        ("Status", status(key.status(now).value)),
        ("Scopes", scope_list(key.scopes)),
        ("Created", when(key.created_at)),
        ("Works from", when(key.not_before)),
        ("Expires", when(key.expires_at) or "never"),
        ("Last used", _last_use_in_full(key, now)),
        ("Networks", ", ".join(key.allowed_networks) or None),
        ("Successor", key.successor),
        ("Grace ends", when(key.grace_ends_at) if key.revoked_at is None else None),
        ("Revoked", when(key.revoked_at)),
        ("Reason", None if key.revoked_reason is None else key.revoked_reason.value),
        ("Note", key.revoked_note),
        ("Family", key.family),
        *(("Limit", f"{limit.name}: {limit.rate}") for limit in key.limits),
        *(("Metadata", f"{name}={value}") for name, value in key.metadata.items()),
    ]


def _last_use_in_full(key: Key, now: datetime) -> str:
    if key.last_used_at is None:
        return "never"
    at = f"{key.last_used_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC ({last_use(key, now)})"
    return at if key.last_used_address is None else f"{at}, from {key.last_used_address}"
